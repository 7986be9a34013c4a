//! One request, scored: bytes in, the whole response out. Server, command line and replay all score through
//! [`Engine::score`].
//!
//! Items are read one after the other, then scored and written in steps on whatever core is free; equal trajectories are
//! scored once. Blocks: never call it from an async thread. Knows no HTTP status and no store.

mod distinct;
mod facts;
mod respond;
mod steps;
mod stop;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use twox_hash::xxhash3_128;

use self::distinct::{Task, content_hash, distinct};
pub use self::facts::{Facts, component_names};
use self::respond::{Names, Unwritten, Written, finish};
pub use self::steps::Load;
use self::steps::{cut, each};
use self::stop::Deadline;
pub use self::stop::{Due, Stop};
use super::wire::{
    CacheWire, Given, Item, Object, OnInvalid, Pointed, ResultWire, RewardRequest, Split, Wrong, read_names,
    read_request,
};
use crate::judge::{Judges, Session};
use crate::rubric::{Catalog, Rubric, RubricError};
use crate::score::{Context, Report, Scorer};
use crate::shaping::Position;
use crate::stages::{Evidence, Field, Judge, NoScore, NoScoreCode};
use crate::toolcall::tools::ToolSet;

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

/// Overrides for a request, from query parameters or the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides<'a> {
    /// Used instead of the request's rubric: scoring again with the very rubric of a stored score.
    pub rubric: Option<Arc<Rubric>>,
    /// Used instead of the request's step.
    pub step: Option<u64>,
    /// Prefix of the score ids; `None` where nothing is stored.
    pub batch_id: Option<&'a str>,
    /// Whether every row gets its [`Facts`].
    pub facts: bool,
    /// Where the items stand in the body, for who has put them there; empty where that is to be found out.
    pub items: &'a [Range<usize>],
    /// Asked instead of the engine's judges: those that a stored score asked. Not for the server, which asks them itself.
    pub judges: Option<Judges>,
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
    pub content_hash: [u8; 16],
    /// Bytes of its result in the response.
    pub result: Range<usize>,
    /// What else a dialect says of it; only where asked for.
    pub facts: Option<Box<Facts>>,
}

/// What one stage did to the trajectories of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Trajectories that were scored by it.
    pub reached: u32,
    /// Those that reached its threshold.
    pub passed: u32,
    /// Sum of its scores.
    pub score_sum: f64,
}

/// A request with all its results.
#[derive(Debug)]
pub struct Scored {
    /// The response's JSON; empty where facts were asked for instead and nothing is stored.
    pub body: Vec<u8>,
    /// One per trajectory, in request order.
    pub rows: Vec<Row>,
    /// One per stage of the rubric.
    pub tallies: Vec<Tally>,
    /// How often each error came up.
    pub errors: Vec<(NoScoreCode, u64)>,
    /// Probability that judges gave to something other than their labels, of each verdict that tells it.
    pub outside: Vec<f64>,
    /// What it was scored with.
    pub settings: Settings,
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
    Deadline {
        /// How long it was given, in milliseconds.
        limit_ms: u64,
        /// Whether that is the server's limit and not the request's own.
        servers: bool,
    },
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
    },
}

impl Engine {
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
            items.push(item.read(tools, format));
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
            deadline.check()?;
            let together = tasks.get(step).unwrap_or_default().chunks(TOGETHER);
            Ok(together.map(|tasks| self.score_tasks(tasks, &work)).collect())
        };
        let done: Result<Vec<Vec<Written<'_>>>, BatchError> =
            each(&cut(tasks.iter().map(|task| work.bytes(task))), &self.load, score).into_iter().collect();
        let written = done?.into_iter().flatten().collect();
        finish(written, &items, settings, overrides.batch_id.is_some())
    }

    /// Scores a request, and again whenever its judge stages have questions, which the judges are asked in between.
    /// Blocks while it scores: for the command line.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub async fn score_and_ask(&self, body: &str, overrides: &Overrides<'_>) -> Result<Scored, BatchError> {
        let mut session = Session::default();
        let judges = overrides.judges.as_ref().unwrap_or(&self.judges);
        loop {
            let scored = self.score(body, overrides, &Stop::default(), &session);
            if !session.put_to(judges, None).await {
                return scored;
            }
        }
    }

    fn settings(&self, request: &RewardRequest<'_>, overrides: &Overrides<'_>) -> Result<Settings, BatchError> {
        let (rubric, inline) = match (&overrides.rubric, request.rubric.map(RawValue::get)) {
            (Some(rubric), _) => (rubric.clone(), false),
            (None, None) => (self.named(&self.default_rubric)?, false),
            (None, Some(raw)) if raw.starts_with('{') && self.inline_rubrics => {
                (Arc::new(Rubric::from_json(raw).map_err(BatchError::Rubric)?), true)
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

    /// Scores some distinct trajectories and writes the result of every item that has one of them.
    ///
    /// Step by step for all of them: each step is about as much code as a core's first cache holds, and going through all
    /// of it for every trajectory cost as much time as the work itself.
    fn score_tasks<'a>(&self, tasks: &[Task], work: &Work<'a, '_>) -> Written<'a> {
        let (rubric, position) = (&*work.settings.rubric, &work.settings.position);
        let mut watch = Watch::new(tasks.len());
        let mut known = Vec::new();
        let tools = tasks.iter().enumerate().map(|(at, task)| watch.lap(at, self.tools(task, work, &mut known)));
        let tools: Vec<_> = tools.collect();
        let begun = tasks.iter().zip(&tools).enumerate();
        let mut read: Vec<_> =
            begun.map(|(at, (task, tools))| watch.lap(at, work.evidence(task, &tools.set))).collect();
        for step in Evidence::STEPS {
            for (at, (evidence, tools)) in read.iter_mut().zip(&tools).enumerate() {
                if let Ok(evidence) = evidence {
                    step(evidence, &tools.set, &rubric.reading);
                }
                watch.lap(at, ());
            }
        }
        let reports = tasks.iter().zip(read).enumerate().map(|(at, (task, evidence))| {
            let context = Context { rubric, position, judge: work.judge, group: work.group(task) };
            watch.lap(at, self.scorer.report(evidence, context))
        });
        let reports: Vec<_> = reports.collect();
        let scored = tasks.iter().zip(&tools).zip(&reports).zip(&watch.took);
        let rows = scored.flat_map(|(((task, tools), report), took)| work.rows(task, tools, report, *took));
        let rows: Vec<_> = rows.collect();
        let results: Vec<_> = rows.iter().map(|row| ResultWire::new(row.report, rubric, row.naming())).collect();
        let mut written = Written::with_room_for(&rows);
        for (row, result) in rows.iter().zip(&results) {
            written.add(row, rubric, result);
        }
        written
    }

    /// A task's tools. Reading has made equal lists one and the same text, which is looked up once.
    fn tools<'a>(&self, task: &Task, work: &Work<'a, '_>, known: &mut Vec<(&'a str, Arc<Tools>)>) -> Arc<Tools> {
        let Some(Ok(Item { trajectory, own_tools: true, .. })) = work.first(task) else {
            return work.shared.clone();
        };
        let raw = trajectory.tools;
        if let Some((_, tools)) = known.iter().find(|(text, _)| std::ptr::eq(*text, raw)) {
            return tools.clone();
        }
        let tools = self.tools_of(raw, work.settings, work.overrides);
        known.push((raw, tools.clone()));
        tools
    }

    /// A tool list, looked up, and hashed where something is stored.
    fn tools_of(&self, raw: &str, settings: &Settings, overrides: &Overrides<'_>) -> Arc<Tools> {
        let stored = overrides.batch_id.is_some();
        let hash = if stored { xxhash3_128::Hasher::oneshot(raw.as_bytes()) } else { 0 };
        Arc::new(Tools { set: self.scorer.tools(raw, &settings.rubric), hash })
    }
}

/// How long each of several things took that take turns.
struct Watch {
    since: Instant,
    took: Vec<Duration>,
}

impl Watch {
    fn new(things: usize) -> Self {
        Self { since: Instant::now(), took: vec![Duration::ZERO; things] }
    }

    /// Adds the time since the last call to what the thing at this place took.
    fn lap<T>(&mut self, at: usize, made: T) -> T {
        let now = Instant::now();
        if let Some(took) = self.took.get_mut(at) {
            *took += now - self.since;
        }
        self.since = now;
        made
    }
}

/// What scoring a task needs.
struct Work<'a, 's> {
    items: &'a [Result<Item<'a>, Pointed>],
    raw_items: &'a [&'a str],
    settings: &'s Settings,
    overrides: &'s Overrides<'s>,
    /// The request's own tool list.
    shared: &'s Arc<Tools>,
    judge: &'s dyn Judge,
}

impl<'a> Work<'a, '_> {
    /// Bytes of request that a task is.
    fn bytes(&self, task: &Task) -> usize {
        task.owners.first().and_then(|owner| self.raw_items.get(*owner)).map_or(0, |raw| raw.len())
    }

    /// The group of a task's first owner.
    fn group(&self, task: &Task) -> Option<&str> {
        match self.first(task) {
            Some(Ok(item)) => item.group.as_deref(),
            _ => None,
        }
    }

    /// A task's first owner.
    fn first(&self, task: &Task) -> Option<&'a Result<Item<'a>, Pointed>> {
        task.owners.first().and_then(|owner| self.items.get(*owner))
    }

    /// What a task's trajectory shows, of which nothing is read yet.
    fn evidence(&self, task: &Task, tools: &ToolSet) -> Result<Evidence<'a>, NoScore> {
        match self.first(task) {
            Some(Ok(item)) => Evidence::begin(&item.trajectory, tools, &self.settings.rubric.reading),
            Some(Err(wrong)) => Err(malformed(wrong)),
            None => Err(malformed(&Pointed::shape("", "there is no such item"))),
        }
    }

    /// The results, still to be written, of all items that have a task's trajectory.
    fn rows<'r>(&self, task: &Task, tools: &Tools, report: &'r Report<'a>, took: Duration) -> Vec<Unwritten<'r, 'a>> {
        let latency_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        let content_hash = match self.first(task) {
            Some(Ok(item)) if self.overrides.batch_id.is_some() => content_hash(item, tools.hash),
            _ => [0; 16],
        };
        let row = |(place, &index): (usize, &usize)| Unwritten {
            report,
            index,
            names: item_names(index, self.items, self.raw_items),
            score_id: self.overrides.batch_id.map(|batch| [batch, &index.to_string()].join("-")),
            own_tools: matches!(self.items.get(index), Some(Ok(item)) if item.own_tools),
            cache: if place == 0 && report.cached() != Some(true) { CacheWire::Miss } else { CacheWire::Hit },
            latency_ms: if place == 0 { latency_ms } else { 0.0 },
            content_hash,
            bytes: self.raw_items.get(index).map_or(0, |raw| raw.len()),
            facts: self.overrides.facts,
        };
        task.owners.iter().enumerate().map(row).collect()
    }
}

/// A tool list, looked up and hashed once for all items that have it.
struct Tools {
    set: Arc<ToolSet>,
    hash: u128,
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

fn malformed(wrong: &Pointed) -> NoScore {
    NoScore {
        code: NoScoreCode::ItemMalformed,
        message: wrong.message.clone(),
        field: Some(Field::Trajectory(wrong.pointer.clone())),
    }
}

fn item_names<'a>(index: usize, items: &'a [Result<Item<'_>, Pointed>], raw_items: &[&'a str]) -> Names<'a> {
    match items.get(index) {
        Some(Ok(item)) => (item.id.as_deref().map(Cow::Borrowed), item.group.as_deref().map(Cow::Borrowed)),
        _ => raw_items.get(index).map_or((None, None), |raw| read_names(raw)),
    }
}
