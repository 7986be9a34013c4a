//! What a dialect says of a trajectory beside its reward, as numbers. In: a result. Out: the parts of it that the formats
//! of other trainers have a place for. Knows none of these formats.

use crate::http::wire::ResultWire;
use crate::score::Report;
use crate::stages::NoScoreCode;

/// What a dialect says of a trajectory beside its reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Score per stage and reported measure, in the order of [`crate::rubric::Rubric::metric_names`].
    pub metrics: Vec<f64>,
    /// What the reward is made of, in reward units; they sum to it. Names are those of
    /// [`crate::rubric::Rubric::component_names`]. Empty where there is none, whatever is told instead.
    pub components: Vec<f64>,
    /// Why the failed stage failed, in words.
    pub reason: Option<String>,
    /// Index of each assistant message and what it earned.
    pub steps: Vec<(usize, f64)>,
    /// Whether every call parses.
    pub parse_ok: bool,
    /// Call attempts.
    pub attempts: usize,
    /// Whether an answer was found.
    pub answered: bool,
    /// Why there is no reward.
    pub fault: Option<(NoScoreCode, String)>,
}

impl Facts {
    pub(super) fn new(result: &ResultWire<'_>, report: &Report<'_>) -> Self {
        let fault = report.reward.as_ref().err();
        Self {
            metrics: result.metrics.iter().map(|(_, score)| score).collect(),
            components: result.components.iter().map(|(_, part)| part).collect(),
            reason: result.reason.clone(),
            steps: result.steps.iter().map(|step| (step.message, step.reward)).collect(),
            parse_ok: result.parse.ok,
            attempts: result.parse.attempts,
            answered: result.answer.text.is_some(),
            fault: fault.map(|fault| (fault.cause.code, fault.cause.message.clone())),
        }
    }
}
