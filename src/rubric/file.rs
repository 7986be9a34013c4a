//! The shape of a rubric file: what serde reads from TOML or JSON, before anything is checked.
//!
//! Defaults of the rubric are here, those of stages in `check_stage`; `resolved` writes all of them out, so that the JSON
//! form of a file is complete and its hash stable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::object::{object, objects};

/// A whole rubric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RubricFile {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default, deserialize_with = "object")]
    pub(super) reward: RewardFile,
    #[serde(default, deserialize_with = "object")]
    pub(super) calls: CallsFile,
    #[serde(default, deserialize_with = "object")]
    pub(super) answer: AnswerFile,
    /// Measures that are reported beside the stages and weigh nothing.
    #[serde(default)]
    pub(super) report: Vec<String>,
    #[serde(deserialize_with = "objects")]
    pub(super) stages: Vec<StageFile>,
    #[serde(default, deserialize_with = "objects")]
    pub(super) penalties: Vec<PenaltyFile>,
    #[serde(default, deserialize_with = "objects")]
    pub(super) schedules: Vec<ScheduleFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RewardFile {
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Default for RewardFile {
    fn default() -> Self {
        Self { min: 0.0, max: 1.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CallsFile {
    pub(super) format: String,
    pub(super) mode: String,
    pub(super) max_calls: usize,
    pub(super) assert_format: bool,
}

impl Default for CallsFile {
    fn default() -> Self {
        Self { format: "auto".to_owned(), mode: "strict".to_owned(), max_calls: 256, assert_format: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AnswerFile {
    pub(super) from: String,
}

impl Default for AnswerFile {
    fn default() -> Self {
        Self { from: "answer_tag".to_owned() }
    }
}

/// A number, or the word `off`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number from 0, or \"off\", is expected")]
pub(super) enum NumberOrOff {
    Number(f64),
    Word(String),
}

/// One stage with the options of all kinds. Which of them a kind takes is checked later, where the error can name it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageFile {
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) weight: f64,
    #[serde(default)]
    pub(super) threshold: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) repaired_credit: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ordered: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invalid_credit: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokenizer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lowercase: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) smoothing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) smoothing_value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) effective_order: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_ngram_order: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slack: Option<NumberOrOff>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) floor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cap: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) criteria: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<BTreeMap<String, f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) judges: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) panel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_outside: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thinking_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) centre: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cut: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expr: Option<String>,
}

impl StageFile {
    /// The names of the options that are given.
    pub(super) fn given(&self) -> Vec<String> {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else { return Vec::new() };
        let of_every_kind = ["kind", "name", "weight", "threshold"];
        fields.into_iter().map(|(name, _)| name).filter(|name| !of_every_kind.contains(&name.as_str())).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PenaltyFile {
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) weight: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cache_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) calls: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleFile {
    pub(super) stage: String,
    /// `weight` or `threshold`.
    pub(super) of: String,
    /// `step`, or `mastery.NAME` of a stage.
    pub(super) over: String,
    /// Each a place and a value.
    pub(super) points: Vec<Vec<f64>>,
}
