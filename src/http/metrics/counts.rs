//! What is counted of a scored request. In: the request; out: what [`super::Metrics`] adds up when its scores are stored,
//! which may be after its answer has gone. Holds none of its text.

use std::sync::Arc;

use crate::http::batch::{Scored, StageCounts};
use crate::rubric::Rubric;
use crate::stages::NoScoreCode;

/// What is counted of a scored request.
#[derive(Debug)]
pub struct Counts {
    /// What metrics call its rubric.
    pub(super) label: String,
    /// Its rubric, where its stages are counted: those of inline ones would be names without end.
    pub(super) rubric: Option<Arc<Rubric>>,
    pub(super) valid: u64,
    pub(super) invalid: u64,
    /// One per stage of the rubric.
    pub(super) stages: Vec<StageCounts>,
    pub(super) errors: Vec<(NoScoreCode, u64)>,
    pub(super) outside: Vec<f64>,
}

impl Counts {
    /// Takes them out of a request, which no longer has them then.
    pub fn take(scored: &mut Scored) -> Self {
        let valid = scored.rows.iter().filter(|row| row.valid).count();
        let settings = &scored.settings;
        Self {
            label: settings.metric_label().to_owned(),
            rubric: (!settings.inline).then(|| settings.rubric.clone()),
            valid: valid as u64,
            invalid: (scored.rows.len() - valid) as u64,
            stages: std::mem::take(&mut scored.stages),
            errors: std::mem::take(&mut scored.errors),
            outside: std::mem::take(&mut scored.outside),
        }
    }
}
