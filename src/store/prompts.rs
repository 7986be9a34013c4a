//! What the store keeps and finds by prompt: right answers, and the rewards of each visit of a group. Knows no key's
//! meaning and no statistics.

use std::sync::Arc;

/// What is right for a prompt, as the caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReference {
    /// Names the prompt.
    pub key: [u8; 16],
    /// The caller's own JSON.
    pub value: String,
}

/// The valid rewards of one group at one step of the trainer (of one batch, where that has no step).
#[derive(Debug, Clone, PartialEq)]
pub struct GroupVisit {
    /// The group.
    pub group: Arc<str>,
    /// The trainer's step.
    pub step: Option<i64>,
    /// The rewards, in the order of their scores' ids.
    pub rewards: Vec<f64>,
    /// The rubric that gave the first of them: its place in [`RunVisits::rubrics`].
    pub rubric: usize,
}

/// The visits of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunVisits {
    /// The visits, the one whose first score is oldest first.
    pub visits: Vec<GroupVisit>,
    /// Content hash and JSON of every rubric of the run.
    pub rubrics: Vec<(String, String)>,
}
