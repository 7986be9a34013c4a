//! What is stored: scored requests, and beside them what judges said and what is right for prompts. In: ids, packed bodies and
//! packed rows, one per trajectory; out: the same, checked. Knows neither how it was scored nor how it is kept.

use std::sync::Arc;

use super::{BatchId, Compressed, ScoreRows, StoreError};

/// Largest reward or score sum, either way: sums over any run stay finite.
pub const MAX_REWARD: f64 = 1e100;

/// One scored request: all that is needed to look its scores up and to score it again.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Name of the batch, from [`super::Store::next_id`].
    pub id: BatchId,
    /// The `X-Request-Id` that the client saw.
    pub request_id: String,
    /// When it was scored, in Unix milliseconds; not before 1970.
    pub created_at_ms: i64,
    /// The training run it belongs to.
    pub run_id: Option<String>,
    /// The trainer's step.
    pub step: Option<i64>,
    /// The curriculum position that was scored with, as JSON.
    pub position: String,
    /// Name of the rubric.
    pub rubric_name: String,
    /// Content hash of the rubric.
    pub rubric_hash: String,
    /// The whole rubric as JSON; stored once per hash.
    pub rubric_json: Arc<str>,
    /// Version of the scoring code.
    pub engine_version: &'static str,
    /// The identities of the judges that were asked, by their names, as a JSON object; `None` where none was.
    pub judges: Option<String>,
    /// The request, as needed for a replay; `None` when [`super::Store::keeps_trajectories`] is false.
    pub request: Option<Compressed>,
    /// The response as it was sent.
    pub response: Compressed,
    /// Set when the client sent an idempotency key.
    pub idempotency: Option<Idempotency>,
    /// One row per trajectory, in request order.
    pub scores: ScoreRows,
    /// Counts of each stage, in the rubric's order, over all trajectories of the batch.
    pub stages: Vec<StageCounts>,
}

/// A client's promise that a repeat with the same key is the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key as the client sent it.
    pub key: String,
    /// Hash of the request's body: another body under the same key is the client's mistake.
    pub body_hash: [u8; 32],
}

/// What a judge said, under the key of the question. The store does not look into either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) key: [u8; 32],
    pub(super) value: Vec<u8>,
    pub(super) created_at_ms: i64,
}

/// What is right for a prompt, as the caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReference {
    /// Names the prompt.
    pub key: [u8; 16],
    /// The caller's own JSON.
    pub value: String,
}

/// Something on its way into the database.
#[derive(Debug)]
pub(super) enum Entry {
    Batch(Box<Batch>),
    Finding(Finding),
    References(Vec<StoredReference>),
    /// Nothing to keep: whether anything can be written at all.
    Probe,
}

/// What one stage did to the trajectories of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCounts {
    /// Name of the stage.
    pub stage: Arc<str>,
    /// Trajectories that reached it.
    pub reached: u32,
    /// Trajectories that passed it.
    pub passed: u32,
    /// Sum of its scores over those that reached it, within [`MAX_REWARD`].
    pub score_sum: f64,
}

impl Batch {
    /// Checks what the fields promise, so that a database never holds what cannot be read back.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let fail = |reason: String| Err(StoreError::Batch { batch: self.id, reason });
        if self.created_at_ms < 0 {
            return fail(format!("it was made at {} ms: the time must not be before 1970", self.created_at_ms));
        }
        let (end, length) = (self.scores.counts().response_bytes, self.response.original_bytes());
        if end as usize > length {
            return fail(format!("a score has its result up to byte {end} of a response of {length} bytes"));
        }
        match self.stages.iter().find(|counts| !in_range(counts.score_sum)) {
            Some(StageCounts { stage, score_sum, .. }) => {
                fail(format!("stage `{stage}` has the score sum {score_sum}: it must be within {MAX_REWARD:e}"))
            }
            None => Ok(()),
        }
    }

    /// About the memory that the batch takes while it waits, in bytes.
    pub(super) fn weight(&self) -> usize {
        let bodies = self.response.bytes().len() + self.request.as_ref().map_or(0, |request| request.bytes().len());
        let name = |name: &Option<String>| name.as_ref().map_or(0, String::len);
        let key = self.idempotency.as_ref().map_or(0, |idempotency| idempotency.key.len());
        let texts = [&self.request_id, &self.position, &self.rubric_name, &self.rubric_hash].map(String::len);
        let names = name(&self.run_id) + name(&self.judges) + key + texts.iter().sum::<usize>();
        let stages = self.stages.iter().map(|counts| size_of::<StageCounts>() + counts.stage.len());
        size_of::<Self>() + bodies + names + self.scores.json().len() + stages.sum::<usize>()
    }
}

impl Entry {
    /// About the memory that the entry takes while it waits, in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.weight(),
            Self::Finding(finding) => size_of::<Self>() + finding.value.len(),
            Self::References(references) => {
                references.iter().map(|reference| size_of::<StoredReference>() + reference.value.len()).sum()
            }
            Self::Probe => size_of::<Self>(),
        }
    }
}

/// False for what is no number.
pub(super) fn in_range(value: f64) -> bool {
    value.abs() <= MAX_REWARD
}

#[cfg(test)]
impl Batch {
    /// A batch of nothing, for tests to fill in.
    pub(crate) fn empty(id: BatchId) -> Self {
        Self {
            id,
            request_id: String::new(),
            created_at_ms: 1,
            run_id: None,
            step: None,
            position: String::new(),
            rubric_name: String::new(),
            rubric_hash: String::new(),
            rubric_json: "{}".into(),
            engine_version: "0",
            judges: None,
            request: None,
            response: Compressed::new(b"").unwrap(),
            idempotency: None,
            scores: ScoreRows::new(id, []).unwrap(),
            stages: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BatchIds, ContentHash, ScoreRow};

    #[test]
    fn a_batch_weighs_what_its_texts_are_long() {
        let ids = BatchIds::new(None, 0);
        let plain = Batch::empty(ids.next(1));
        let before = plain.weight();
        let long = || "x".repeat(1000);
        let mut batch = plain;
        for text in [&mut batch.request_id, &mut batch.position, &mut batch.rubric_name, &mut batch.rubric_hash] {
            *text = long();
        }
        (batch.run_id, batch.judges) = (Some(long()), Some(long()));
        batch.idempotency = Some(Idempotency { key: long(), body_hash: [0; 32] });
        assert_eq!(batch.weight() - before, 7000);
        let (id, group) = (long(), long());
        let row = ScoreRow {
            trajectory_id: Some(&*id),
            group: Some(&*group),
            reward: None,
            valid: false,
            stage_reached: None,
            failed_stage: None,
            content_hash: ContentHash(0),
            result: 0..0,
        };
        batch.scores = ScoreRows::new(ids.next(1), [row]).unwrap();
        assert!((9000..9100).contains(&(batch.weight() - before)));
        let value = |length: usize| "x".repeat(length);
        let references = |length| Entry::References(vec![StoredReference { key: [0; 16], value: value(length) }; 2]);
        assert_eq!(references(1000).weight() - references(0).weight(), 2000);
        let finding =
            |length| Entry::Finding(Finding { key: [0; 32], value: value(length).into_bytes(), created_at_ms: 1 });
        assert_eq!(finding(1000).weight() - finding(0).weight(), 1000);
    }
}
