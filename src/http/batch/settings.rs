//! What a request is scored with. In: the request, the engine's defaults, and who overrides them; out: rubric, curriculum
//! position and the rest, settled. Knows no trajectory.

use std::ops::Range;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{BatchError, Engine};
use crate::http::wire::{Object, OnInvalid, Pointed, RewardRequest};
use crate::judge::rubric::read_inline;
use crate::rubric::Rubric;
use crate::shaping::Position;

/// What a request wants scored with, settled.
#[derive(Debug)]
pub struct Settings {
    /// The rubric.
    pub rubric: Arc<Rubric>,
    /// Whether the request brought the rubric along.
    pub inline: bool,
    /// The curriculum position.
    pub position: Position,
    /// The training run.
    pub run_id: Option<String>,
    /// What to do about items that cannot be scored.
    pub on_invalid: OnInvalid,
}

impl Settings {
    /// What metrics call the rubric. Inline ones share one label: their names come from clients.
    pub fn metric_label(&self) -> &str {
        if self.inline { "inline" } else { &self.rubric.name }
    }

    /// The name of a stage of the rubric.
    pub fn stage_name(&self, index: Option<usize>) -> Option<&Arc<str>> {
        index.and_then(|index| self.rubric.stages.get(index)).map(|stage| &stage.name)
    }

    /// The curriculum position as it is stored.
    pub fn position_json(&self) -> Value {
        json!({"step": self.position.step, "mastery": self.position.mastery})
    }
}

/// Overrides for a request, from query parameters or the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides<'a> {
    /// Used instead of the request's rubric: scoring again with the very rubric of a stored score.
    pub rubric: Option<Arc<Rubric>>,
    /// Used instead of the request's step.
    pub step: Option<u64>,
    /// Prefix of the score ids; `None` where nothing is stored.
    pub batch_id: Option<&'a str>,
    /// Whether every row gets its [`super::Facts`].
    pub facts: bool,
    /// Whether this is a stored request that is scored again, in whatever words a dialect put it.
    pub replays: bool,
    /// Where the items stand in the body, for who has put them there; empty where that is to be found out.
    pub items: &'a [Range<usize>],
}

impl Engine {
    /// Settles it.
    pub(super) fn settings(
        &self,
        request: &RewardRequest<'_>,
        overrides: &Overrides<'_>,
    ) -> Result<Settings, BatchError> {
        let (rubric, inline) = match (&overrides.rubric, request.rubric.map(RawValue::get)) {
            (Some(rubric), _) => (rubric.clone(), false),
            (None, None) => (self.named(&self.default_rubric)?, false),
            (None, Some(raw)) if raw.starts_with('{') && self.inline_rubrics => {
                (Arc::new(read_inline(raw).map_err(BatchError::Rubric)?), true)
            }
            (None, Some(raw)) if raw.starts_with('{') => return Err(BatchError::InlineRubric),
            (None, Some(raw)) => {
                let name: String = serde_json::from_str(raw).map_err(|_| {
                    let message = "`rubric` must be a name, `name@version`, or a whole rubric as an object";
                    BatchError::Request(Pointed::shape("/rubric", message))
                })?;
                (self.named(&name)?, false)
            }
        };
        // What was stored before this was a mistake can be scored again.
        if overrides.step.is_none() && !overrides.replays {
            request.check_one_step().map_err(BatchError::Request)?;
        }
        let curriculum = request.curriculum.as_ref().map(|Object(curriculum)| curriculum.clone()).unwrap_or_default();
        Ok(Settings {
            rubric,
            inline,
            position: Position {
                step: overrides.step.or(curriculum.step).or(request.step),
                mastery: curriculum.mastery,
            },
            run_id: request.run_id.as_ref().map(|text| text.0.to_string()),
            on_invalid: request.on_invalid.map(|chosen| chosen.0).unwrap_or_default(),
        })
    }

    fn named(&self, name: &str) -> Result<Arc<Rubric>, BatchError> {
        self.catalog.get(name).ok_or_else(|| BatchError::UnknownRubric(name.to_owned()))
    }
}
