//! What is read back from the store: scores, runs, mastery, visits of groups, stored answers and requests to replay, and the
//! filters and cursors that choose them. Knows no database.

use std::sync::Arc;

use super::{BatchId, ScoreId, ScoreRow, StoreError};

/// Most rows of a page; a larger limit gives this many.
pub const MAX_PAGE: usize = 1000;

/// Over how many steps mastery is taken by default.
pub const DEFAULT_WINDOW: u32 = 10;

/// Most steps that mastery is taken over.
pub const MAX_WINDOW: u32 = 10_000;

/// One stored score without its result.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// Name of the score.
    pub id: ScoreId,
    /// What was stored of it.
    pub score: ScoreRow<String>,
    /// The trainer's step.
    pub step: Option<i64>,
    /// When it was scored, in Unix milliseconds.
    pub created_at_ms: i64,
}

/// One stored score with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredScore {
    /// Its columns.
    pub row: StoredRow,
    /// The `X-Request-Id` of its request.
    pub request_id: String,
    /// The run it belongs to.
    pub run_id: Option<String>,
    /// The curriculum position, as JSON.
    pub position: String,
    /// Name of the rubric.
    pub rubric_name: String,
    /// Content hash of the rubric.
    pub rubric_hash: String,
    /// Version of the scoring code.
    pub engine_version: String,
    /// The result as it was sent, JSON.
    pub result_json: String,
}

/// Which scores of a run are wanted; the default wants all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only this group.
    pub group: Option<String>,
    /// Only valid, or only invalid ones.
    pub valid: Option<bool>,
    /// Only rewards of at least this.
    pub min_reward: Option<f64>,
    /// Only rewards of at most this.
    pub max_reward: Option<f64>,
    /// Only those that failed this stage first.
    pub failed_stage: Option<String>,
    /// Only this step and later ones.
    pub step_from: Option<i64>,
    /// Only this step and earlier ones.
    pub step_to: Option<i64>,
}

impl Filter {
    /// Whether a score is wanted, of those whose step is.
    pub(super) fn wants(&self, score: &ScoreRow<String>) -> bool {
        let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        same(&self.group, &score.group)
            && same(&self.failed_stage, &score.failed_stage)
            && self.valid.is_none_or(|valid| score.valid == valid)
            && self.min_reward.is_none_or(|least| score.reward.is_some_and(|reward| reward >= least))
            && self.max_reward.is_none_or(|most| score.reward.is_some_and(|reward| reward <= most))
    }
}

/// Some items of a list, and where it goes on. A page may hold fewer items than asked for, even none, when a filter
/// passes over many: only a missing cursor ends the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Pass it to get the next page; `None` at the end.
    pub next_cursor: Option<String>,
}

/// A training run at a glance.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Name of the run.
    pub run_id: String,
    /// Scores.
    pub n: u64,
    /// Valid scores.
    pub valid: u64,
    /// Mean reward of the valid scores.
    pub mean_reward: Option<f64>,
    /// Smallest reward of the valid scores.
    pub min_reward: Option<f64>,
    /// Largest reward of the valid scores.
    pub max_reward: Option<f64>,
    /// When the batch that was stored first was scored, in Unix milliseconds. It never changes, so that pages of runs stay
    /// in place: one that began earlier may have been stored later.
    pub first_created_at_ms: i64,
    /// When its last batch was scored, in Unix milliseconds.
    pub last_created_at_ms: i64,
    /// The largest step seen.
    pub last_step: Option<i64>,
    /// Content hashes of the rubrics it was scored with, sorted.
    pub rubric_hashes: Vec<String>,
}

/// What went with a run that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Batches that this removal took; fewer than the run had where an earlier one was cut off.
    pub batches: u64,
    /// Scores that the run had counted.
    pub scores: u64,
}

/// A training run with its mastery.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDetail {
    /// The run at a glance.
    pub summary: RunSummary,
    /// Mastery over the latest steps that have data.
    pub recent: Mastery,
    /// Mastery over the whole run.
    pub overall: Mastery,
}

/// How well a run does at each stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mastery {
    /// How many steps it covers; batches without a step count only in the whole run.
    pub steps: u64,
    /// Valid scores in them.
    pub valid: u64,
    /// One entry per stage, in the rubric's order.
    pub stages: Vec<StageMastery>,
}

/// How well a run does at one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageMastery {
    /// Name of the stage.
    pub stage: String,
    /// Trajectories that reached it.
    pub reached: u64,
    /// Trajectories that passed it.
    pub passed: u64,
    /// `passed` over the valid scores by rubrics that have the stage, in \[0, 1\]; `None` without one.
    pub pass_rate: Option<f64>,
    /// Mean score of those that reached it; `None` when nobody did.
    pub mean_score: Option<f64>,
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

/// The stored answer to a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The batch that it answered.
    pub batch: BatchId,
    /// Hash of the request's body.
    pub body_hash: [u8; 32],
    /// The answer's body.
    pub response: Vec<u8>,
}

/// A stored request with all that scoring it again needs, and what came out the first time.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRequest {
    /// Name of the batch.
    pub batch: BatchId,
    /// The request, JSON.
    pub request: Vec<u8>,
    /// The response as it was sent, JSON.
    pub response: Vec<u8>,
    /// Name of the rubric.
    pub rubric_name: String,
    /// Content hash of the rubric.
    pub rubric_hash: String,
    /// The whole rubric, JSON.
    pub rubric_json: String,
    /// The curriculum position, JSON.
    pub position: String,
    /// Version of the scoring code then.
    pub engine_version: String,
    /// The identities of the judges that were asked then, by their names, JSON; `None` where none was.
    pub judges: Option<String>,
    /// Its scores as they were kept apart from the response, in the order of their ids.
    pub rows: Vec<StoredRow>,
    /// Whether the rows' content hashes are of a kind that older versions made, which none of today can equal.
    pub older_hashes: bool,
}

/// The place after the last run of a page: runs come latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunCursor {
    pub(super) first_created_at_ms: i64,
    pub(super) run_id: String,
}

impl RunCursor {
    /// As clients see it: 16 hex digits of the time, then the run's bytes in hex.
    pub(super) fn encode(&self) -> String {
        let time = format!("{:016x}", self.first_created_at_ms.max(0));
        self.run_id.bytes().fold(time, |text, byte| text + &format!("{byte:02x}"))
    }

    /// Reads what [`Self::encode`] wrote and refuses all else.
    pub(super) fn decode(text: &str) -> Result<Self, StoreError> {
        Self::parse(text).ok_or_else(|| StoreError::Cursor { text: super::error::excerpt(text) })
    }

    fn parse(text: &str) -> Option<Self> {
        let (time, run) = text.split_at_checked(16)?;
        let byte = |at: usize| u8::from_str_radix(run.get(at..at + 2)?, 16).ok();
        let run_id = String::from_utf8((0..run.len()).step_by(2).map(byte).collect::<Option<_>>()?).ok()?;
        let cursor = Self { first_created_at_ms: i64::from_str_radix(time, 16).ok()?, run_id };
        (cursor.encode() == text).then_some(cursor)
    }
}

/// A cursor of a list of scores is the id of the last score of the page.
pub(super) fn decode_score_cursor(text: &str) -> Result<ScoreId, StoreError> {
    text.parse().map_err(|_: StoreError| StoreError::Cursor { text: super::error::excerpt(text) })
}
