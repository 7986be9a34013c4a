//! Rubrics: the files that say which stages there are, what they weigh and when the next one opens.
//!
//! In: TOML (files) or JSON (inline in a request, and the stored form). Out: a validated [`Rubric`] with a content
//! hash, or a [`RubricError`] with line and column. Knows no HTTP and no trajectories.

mod catalog;
mod check;
mod check_judge;
mod check_stage;
mod check_value;
mod error;
mod file;
mod object;
mod resolved;

use std::borrow::Cow;
use std::sync::Arc;

pub use catalog::{Catalog, CatalogError, DEFAULT, SHIPPED};
pub use check::version_of;
pub use error::{Location, RubricError, in_words, json_pointer, locate, without_place};
pub use object::{Object, object, objects};

pub use crate::toolcall::schema::escape_pointer;

use crate::shaping::{Over, Penalty, Position, RewardRange, Schedule, StagePlan, normalize_weights};
use crate::stages::{Measure, Reading, Stage};

/// Longest rubric text, in bytes.
pub const MAX_RUBRIC_BYTES: usize = 256 * 1024;

/// A stage of a rubric.
#[derive(Debug, Clone, PartialEq)]
pub struct RubricStage {
    /// Its name in reports; unique in the rubric.
    pub name: Arc<str>,
    /// What it asks.
    pub stage: Stage,
    weight: Scheduled,
    threshold: Scheduled,
}

/// A number, fixed or on a schedule.
#[derive(Debug, Clone, PartialEq)]
enum Scheduled {
    Fixed(f64),
    Moving(Schedule),
}

impl Scheduled {
    fn at(&self, position: &Position) -> f64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Moving(schedule) => schedule.at(position),
        }
    }
}

/// A validated rubric.
#[derive(Debug, Clone, PartialEq)]
pub struct Rubric {
    /// Its name.
    pub name: Arc<str>,
    /// What it is for, in words.
    pub description: String,
    /// `b3-` and the first 8 hex digits of the hash: what people see and pin.
    pub version: Arc<str>,
    /// `b3-` and the BLAKE3 hash of the JSON form without the description: what stored scores refer to.
    pub hash: Arc<str>,
    /// The JSON form, complete with defaults: enough to build the rubric again.
    pub json: Arc<str>,
    /// How trajectories are read.
    pub reading: Reading,
    /// The stages in order; at least one.
    pub stages: Vec<RubricStage>,
    /// Penalties with their names.
    pub penalties: Vec<(Arc<str>, Penalty)>,
    /// Measures that are reported and weigh nothing, with their names.
    pub report: Vec<(Arc<str>, Measure)>,
    /// The rewards that can be given.
    pub range: RewardRange,
    /// The plan, where no schedule moves it.
    plan: Option<Vec<StagePlan>>,
}

impl Rubric {
    /// Names of the judges that its stages ask.
    pub fn judges(&self) -> impl Iterator<Item = &String> {
        self.stages.iter().filter_map(|stage| stage.stage.judge()).flat_map(|judge| &judge.judges)
    }

    /// Names of the metrics of a result, in order: the stages, then what is reported beside them.
    pub fn metric_names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|stage| &*stage.name).chain(self.report.iter().map(|(name, _)| &**name))
    }

    /// The lowest reward, where rewards have it as a part of their own: one of 0 adds nothing.
    pub fn base(&self) -> Option<f64> {
        Some(self.range.min()).filter(|min| *min != 0.0)
    }

    /// Names of what a reward is made of, in order.
    pub fn component_names(&self) -> impl Iterator<Item = &str> {
        let base = self.base().map(|_| "base");
        let stages = self.stages.iter().map(|stage| &*stage.name);
        let penalties = self.penalties.iter().map(|(name, _)| &**name);
        let clamp = (!self.penalties.is_empty()).then_some("clamp");
        base.into_iter().chain(stages).chain(penalties).chain(clamp)
    }

    /// Whether a stage puts the answers of a group in order.
    pub fn ranks(&self) -> bool {
        self.stages.iter().any(|stage| stage.stage.ranks())
    }

    /// Reads a rubric file.
    ///
    /// # Errors
    /// With line and column, when the text is no TOML, has an unknown or missing field, or a value that cannot be.
    pub fn from_toml(text: &str) -> Result<Self, RubricError> {
        if text.len() > MAX_RUBRIC_BYTES {
            return Err(RubricError::at(
                "",
                format!("{} bytes are more than the limit of {MAX_RUBRIC_BYTES}", text.len()),
            ));
        }
        let unread = |error: &toml::de::Error, pointer: String| {
            let offset = error.span().map_or(0, |span| span.start);
            RubricError {
                message: in_words(error.message(), "a table"),
                pointer,
                location: Some(error::locate(text, offset)),
            }
        };
        let reader = toml::Deserializer::parse(text).map_err(|error| unread(&error, String::new()))?;
        let Object(file) = serde_path_to_error::deserialize::<_, Object<file::RubricFile>>(reader)
            .map_err(|error| unread(error.inner(), json_pointer(error.path())))?;
        check::rubric(file).map_err(|error| error.located_in(text))
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// With a JSON pointer; [`RubricError::located_in_json`] finds line and column.
    pub fn from_json(text: &str) -> Result<Self, RubricError> {
        if text.len() > MAX_RUBRIC_BYTES {
            return Err(RubricError::at(
                "",
                format!("{} bytes are more than the limit of {MAX_RUBRIC_BYTES}", text.len()),
            ));
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let read: Result<Object<file::RubricFile>, _> = serde_path_to_error::deserialize(&mut reader);
        let Object(file) =
            read.map_err(|error| RubricError::at(json_pointer(error.path()), without_place(error.inner())))?;
        // The rest of the text is no part of it.
        reader.end().map_err(|error| RubricError::at("", without_place(&error)))?;
        check::rubric(file)
    }

    /// Weights (summing to 1) and thresholds at a position.
    pub fn plan(&self, position: &Position) -> Cow<'_, [StagePlan]> {
        match &self.plan {
            Some(plan) => Cow::Borrowed(plan),
            None => Cow::Owned(plan_at(&self.stages, position)),
        }
    }

    /// What a position lacks that a schedule runs over, in words: its first point's value counts there.
    pub fn missing_in(&self, position: &Position) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for stage in &self.stages {
            for scheduled in [&stage.weight, &stage.threshold] {
                let Scheduled::Moving(schedule) = scheduled else { continue };
                let lacking = match schedule.over() {
                    Over::Step if position.step.is_none() => "step",
                    Over::Mastery(name) if !position.mastery.contains_key(name) => name,
                    _ => continue,
                };
                let text = format!(
                    "the curriculum of {} runs over {lacking:?}, which was not sent; its first point counts",
                    stage.name
                );
                if !missing.contains(&text) {
                    missing.push(text);
                }
            }
        }
        missing
    }

    /// Whether a weight or threshold moves with the curriculum position.
    pub fn has_curriculum(&self) -> bool {
        self.plan.is_none()
    }
}

fn plan_at(stages: &[RubricStage], position: &Position) -> Vec<StagePlan> {
    let stage =
        |stage: &RubricStage| StagePlan { weight: stage.weight.at(position), threshold: stage.threshold.at(position) };
    let mut plan: Vec<_> = stages.iter().map(stage).collect();
    normalize_weights(&mut plan);
    plan
}
