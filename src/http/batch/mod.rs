//! One request, scored: bytes in, the whole response out. Server, command line and replay all score through
//! [`Engine::score`].
//!
//! Items are read one after the other, then scored and written in steps on whatever core is free; equal trajectories are
//! scored once. Blocks: never call it from an async thread. Knows no HTTP status and no store.
//!
//! The files in the order in which [`Engine::score`], which reads as the way of a request, comes to them: `settings` (what it
//! is scored with), `stop` (until when), `distinct` (which items are one trajectory), `steps` and `thread_pool` (on which cores),
//! `work` (some trajectories, scored and written), `respond` (groups, `on_invalid`, the bytes), `warnings` and `facts` (what
//! else is said).

mod distinct;
mod facts;
mod respond;
mod settings;
mod steps;
mod stop;
mod thread_pool;
pub mod warnings;
mod work;

use std::ops::Range;
use std::sync::Arc;

use self::distinct::distinct;
pub use self::facts::Facts;
use self::respond::{Written, finish};
pub use self::settings::{Overrides, Settings};
pub(in crate::http) use self::steps::Counted;
pub use self::steps::Load;
use self::steps::{cut, each};
use self::stop::Deadline;
pub use self::stop::{Due, Stop};
pub use self::warnings::{MAX_WARNINGS, Warning};
use self::work::Work;
use super::wire::{Given, Pointed, RewardRequest, Split, Wrong, read_request};
use crate::judge::Judges;
use crate::rubric::{self, Catalog, RubricError};
use crate::score::Scorer;
use crate::stages::{Judge, NoScoreCode};
use crate::store::{ContentHash, ScoreRow, StageCounts};

/// Most trajectories that are read, scored and written together: what was read of them is to lie in the cache still when it
/// is written.
const TOGETHER: usize = 64;

/// What scoring needs beside a request.
pub struct Engine {
    /// The pipeline.
    pub scorer: Scorer,
    /// The rubrics by name.
    pub catalog: Catalog,
    /// The rubric of requests that name none.
    pub default_rubric: String,
    /// Whether a request may bring its own rubric.
    pub inline_rubrics: bool,
    /// How busy it is.
    pub load: Load,
    /// Who answers the questions of judge stages.
    pub judges: Judges,
}

/// One scored trajectory, for the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The client's id, where the row is to be stored.
    pub id: Option<String>,
    /// The client's group, likewise.
    pub group: Option<String>,
    /// The reward as it was sent.
    pub reward: Option<f64>,
    /// Whether it could be scored.
    pub valid: bool,
    /// Index of the last stage that opened.
    pub stage_reached: Option<usize>,
    /// Index of the stage that failed.
    pub failed_stage: Option<usize>,
    /// The trajectory's XXH3 hash of 128 bits; zeros where nothing is stored.
    pub content_hash: u128,
    /// Bytes of its result in the response.
    pub result: Range<usize>,
    /// What else a dialect says of it; only where asked for.
    pub facts: Option<Box<Facts>>,
}

/// What is counted of a request, when its scores are stored: that may be after its answer has gone. Holds none of its text.
#[derive(Debug)]
pub struct Counts {
    /// What metrics call its rubric.
    pub rubric: String,
    /// Whether that is one of many: an inline one, whose stages metrics do not name.
    pub inline: bool,
    /// Trajectories that were scored.
    pub valid: u64,
    /// Those that could not be.
    pub invalid: u64,
    /// One per stage of the rubric.
    pub stages: Vec<StageCounts>,
    /// How often each error came up.
    pub errors: Vec<(NoScoreCode, u64)>,
    /// Probability that judges gave to something other than their labels, of each verdict that tells it.
    pub outside: Vec<f64>,
}

/// A request with all its results.
#[derive(Debug)]
pub struct Scored {
    /// The response's JSON; empty where facts were asked for instead and nothing is stored.
    pub body: Vec<u8>,
    /// One per trajectory, in request order.
    pub rows: Vec<Row>,
    /// What is counted of it.
    pub counts: Arc<Counts>,
    /// What was odd about the request; nothing where nobody reads the body.
    pub warnings: Vec<Warning>,
    /// What it was scored with.
    pub settings: Settings,
}

impl Scored {
    /// A row as the store keeps it.
    pub fn stored<'s>(&'s self, row: &'s Row) -> ScoreRow<&'s str> {
        let stage = |index: Option<usize>| self.settings.stage_name(index).map(|name| &**name);
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        ScoreRow {
            trajectory_id: row.id.as_deref(),
            group: row.group.as_deref(),
            reward: row.reward,
            valid: row.valid,
            stage_reached: stage(row.stage_reached),
            failed_stage: stage(row.failed_stage),
            content_hash: ContentHash(row.content_hash),
            result: offset(row.result.start)..offset(row.result.end),
        }
    }
}

/// Why a whole request has no answer.
#[derive(Debug)]
pub enum BatchError {
    /// It cannot be read.
    Request(Pointed),
    /// No rubric has this name or version.
    UnknownRubric(String),
    /// Its inline rubric has an error.
    Rubric(RubricError),
    /// Inline rubrics are switched off.
    InlineRubric,
    /// It took too long.
    Deadline(Due),
    /// Nobody waits for it any more.
    Abandoned,
    /// `on_invalid` is `error`, and an item could not be scored.
    Invalid {
        /// Whether it may succeed later.
        transient: bool,
        /// The first item's error.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// Where, in the request.
        pointer: String,
        /// How often each error came up.
        errors: Vec<(NoScoreCode, u64)>,
        /// The rubric, as metrics name it.
        rubric: String,
    },
}

impl Engine {
    /// An engine with these rubrics and no judge, for requests that name a rubric, bring one, or mean [`rubric::DEFAULT`].
    pub fn new(catalog: Catalog, schema_cache_bytes: u64) -> Self {
        Self {
            scorer: Scorer::new(schema_cache_bytes),
            catalog,
            default_rubric: rubric::DEFAULT.to_owned(),
            inline_rubrics: true,
            load: Load::default(),
            judges: Judges::none(),
        }
    }

    /// Scores a request.
    ///
    /// # Errors
    /// When the request as a whole cannot be answered; a bad item is no error but a result that says so.
    pub fn score(
        &self,
        body: &str,
        overrides: &Overrides<'_>,
        stop: &Stop,
        judge: &dyn Judge,
    ) -> Result<Scored, BatchError> {
        let apart = Split::of_known(body, overrides.items).or_else(|| Split::of(body));
        let (envelope, items) = apart.map_or_else(Default::default, |split| (split.envelope, Some(split.items)));
        let (request, given) = read_apart(body, &envelope, items)?;
        let settings = self.settings(&request, overrides)?;
        let deadline = Deadline::new(&request, stop);
        stop.answer_by(&deadline);
        deadline.check()?;
        let tools = request.tools.map_or("", |tools| tools.get());
        let shared = self.tools_of(tools, &settings, overrides);
        let format = settings.rubric.reading.format;

        let raw_items: Vec<_> = given.iter().map(|item| item.raw).collect();
        let mut items = Vec::with_capacity(given.len());
        for (place, item) in given.into_iter().enumerate() {
            if place.is_multiple_of(TOGETHER) {
                deadline.check()?;
            }
            let prepared = overrides.facts || overrides.replays;
            items.push(if prepared { item.read_prepared(tools, format) } else { item.read(tools, format) });
        }
        if items.iter().any(|item| matches!(item, Err(Pointed { wrong: Wrong::Syntax, .. }))) {
            // Either the whole body is no JSON, or an item has what JSON allows and no reader can hold (1e400).
            read_request(body).map_err(BatchError::Request)?;
        }
        deadline.check()?;
        let tasks = distinct(&items, settings.rubric.ranks());
        let work =
            Work { items: &items, raw_items: &raw_items, settings: &settings, overrides, shared: &shared, judge };
        let score = |step: Range<usize>| {
            let together = tasks.get(step).unwrap_or_default().chunks(TOGETHER);
            together.map(|tasks| self.score_tasks(tasks, &work, &deadline)).collect()
        };
        let done: Result<Vec<Vec<Written<'_>>>, BatchError> =
            each(&cut(tasks.iter().map(|task| work.bytes(task))), &self.load, score).into_iter().collect();
        let written = done?.into_iter().flatten().collect();
        finish(written, &items, settings, overrides.batch_id.is_some())
    }
}

/// The request and its items, as they were taken apart where that worked, and exactly where it did not.
fn read_apart<'a>(
    body: &'a str,
    envelope: &'a str,
    items: Option<Vec<Given<'a>>>,
) -> Result<(RewardRequest<'a>, Vec<Given<'a>>), BatchError> {
    if let Some(items) = items
        && let Ok(request) = read_request(envelope)
    {
        return Ok((request, items));
    }
    let request = read_request(body).map_err(BatchError::Request)?;
    let items = request.trajectories.iter().map(|raw| Given::unread(raw.get())).collect();
    Ok((request, items))
}
