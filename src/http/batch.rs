//! One request, scored: bytes in, the whole response out. Server, command line and replay all score through
//! [`Engine::score`].
//!
//! Items are read, then scored and written, each on whatever core is free; equal trajectories are scored once. Runs on
//! rayon's threads and blocks: never call it from an async one. Knows no HTTP status and no store.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;

use super::wire::{
    CacheWire, CurriculumWire, ErrorWire, GroupWire, Item, Naming, Object, OnInvalid, Pointed, Put, ResultWire,
    RewardRequest, Split, Wrong, error, read_item, read_names, read_request, split,
};
use crate::advantage::GroupStatistics;
use crate::rubric::{Catalog, Rubric, RubricError};
use crate::score::{Report, Scorer};
use crate::shaping::Position;
use crate::stages::{Field, NoScore, NoScoreCode};
use crate::toolcall::tools::ToolSet;
use crate::trajectory::Trajectory;

/// Bytes of request that one unit of parallel work should hold at least.
const GRAIN_BYTES: usize = 16 * 1024;
/// Most warnings of a response.
const MAX_WARNINGS: usize = 16;

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
}

/// When to give up on a request.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// When it arrived, if its own deadline counts.
    pub arrived: Option<Instant>,
    /// The longest it may take, in milliseconds.
    pub max_ms: Option<u64>,
    /// Set when nobody waits for the answer any more.
    pub abandoned: Arc<AtomicBool>,
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
    /// Prefix of the score ids; `None` where nothing is stored.
    pub batch_id: Option<&'a str>,
}

/// One scored trajectory, for the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The client's id.
    pub id: Option<String>,
    /// The client's group.
    pub group: Option<String>,
    /// The reward as it was sent.
    pub reward: Option<f64>,
    /// Whether it could be scored.
    pub valid: bool,
    /// Index of the last stage that opened.
    pub stage_reached: Option<usize>,
    /// Index of the stage that failed.
    pub failed_stage: Option<usize>,
    /// First 16 bytes of the BLAKE3 hash of the trajectory.
    pub content_hash: [u8; 16],
    /// Bytes of its result in the response.
    pub result: Range<usize>,
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
    /// The response's JSON.
    pub body: Vec<u8>,
    /// One per trajectory, in request order.
    pub rows: Vec<Row>,
    /// One per stage of the rubric.
    pub tallies: Vec<Tally>,
    /// How often each error came up.
    pub errors: Vec<(NoScoreCode, u64)>,
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
    },
}

impl Engine {
    /// Scores a request.
    ///
    /// # Errors
    /// When the request as a whole cannot be answered; a bad item is no error but a result that says so.
    pub fn score(&self, body: &str, overrides: &Overrides<'_>, stop: &Stop) -> Result<Scored, BatchError> {
        let split = split(body);
        let (request, raw_items) = read_apart(body, split.as_ref())?;
        let settings = self.settings(&request, overrides)?;
        let deadline = Deadline::new(&request, stop);
        deadline.check()?;
        let tools = request.tools.map_or("", |tools| tools.get());
        let shared = SharedTools::new(&self.scorer, tools, &settings.rubric, overrides.batch_id.is_some());
        let format = settings.rubric.reading.format;
        let grain = (GRAIN_BYTES * raw_items.len() / body.len().max(1)).max(1);

        let items: Vec<_> = raw_items.par_iter().with_min_len(grain).map(|raw| read_item(raw, tools, format)).collect();
        if items.iter().any(|item| matches!(item, Err(Pointed { wrong: Wrong::Syntax, .. }))) {
            // Either the whole body is no JSON, or an item has what JSON allows and no reader can hold (1e400).
            read_request(body).map_err(BatchError::Request)?;
        }
        deadline.check()?;
        let tasks = distinct(&items);
        let run = |task: &Task| {
            deadline.check()?;
            Ok(self.score_task(
                task,
                &Work { items: &items, raw_items: &raw_items, settings: &settings, overrides, shared: &shared },
            ))
        };
        let done: Result<Vec<_>, BatchError> = tasks.par_iter().with_min_len(grain).map(run).collect();
        let mut entries: Vec<Entry> = done?.into_iter().flatten().collect();
        entries.sort_unstable_by_key(|entry| entry.index);
        finish(entries, &items, settings)
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
        check_mastery(&curriculum)?;
        Ok(Settings {
            rubric,
            inline,
            position: Position { step: curriculum.step.or(request.step), mastery: curriculum.mastery },
            run_id: request.run_id.as_ref().map(|text| text.0.to_string()),
            on_invalid: request.on_invalid.unwrap_or_default(),
        })
    }

    fn named(&self, name: &str) -> Result<Arc<Rubric>, BatchError> {
        self.catalog.get(name).ok_or_else(|| BatchError::UnknownRubric(name.to_owned()))
    }

    /// Scores one distinct trajectory and writes the result of every item that has it.
    fn score_task(&self, task: &Task, work: &Work<'_>) -> Vec<Entry> {
        let (rubric, position) = (&*work.settings.rubric, &work.settings.position);
        let began = Instant::now();
        let first = task.owners.first().and_then(|owner| work.items.get(*owner));
        let report = match first {
            Some(Ok(item)) if item.own_tools => {
                let tools = self.scorer.tools(item.trajectory.tools, rubric);
                self.scorer.score(&item.trajectory, &tools, rubric, position)
            }
            Some(Ok(item)) => self.scorer.score(&item.trajectory, &work.shared.tools, rubric, position),
            Some(Err(wrong)) => Report::without_evidence(rubric.plan(position).into_owned(), rubric, malformed(wrong)),
            None => return Vec::new(),
        };
        let latency_ms = (began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let content_hash = match first {
            Some(Ok(item)) if work.overrides.batch_id.is_some() => content_hash(item, work.shared.hash),
            _ => [0; 16],
        };
        let entry = |(place, &index): (usize, &usize)| {
            let names = item_names(index, work.items, work.raw_items);
            let score_id = work.overrides.batch_id.map(|batch| format!("{batch}-{index}"));
            let naming = Naming {
                index,
                id: names.0.as_deref(),
                group: names.1.as_deref(),
                score_id: score_id.as_deref(),
                own_tools: matches!(work.items.get(index), Some(Ok(item)) if item.own_tools),
                cache: if place == 0 { CacheWire::Miss } else { CacheWire::Hit },
                latency_ms: if place == 0 { latency_ms } else { 0.0 },
            };
            Entry::new(&report, rubric, naming, content_hash)
        };
        task.owners.iter().enumerate().map(entry).collect()
    }
}

/// What scoring a task needs.
struct Work<'a> {
    items: &'a [Result<Item<'a>, Pointed>],
    raw_items: &'a [&'a str],
    settings: &'a Settings,
    overrides: &'a Overrides<'a>,
    shared: &'a SharedTools,
}

/// The request's own tool list, looked up and hashed once for all items that use it.
struct SharedTools {
    tools: Arc<ToolSet>,
    hash: blake3::Hash,
}

impl SharedTools {
    fn new(scorer: &Scorer, raw: &str, rubric: &Rubric, hashed: bool) -> Self {
        let hash = blake3::hash(if hashed { raw.as_bytes() } else { b"" });
        Self { tools: scorer.tools(raw, rubric), hash }
    }
}

/// The request and its items, taken apart quickly where that works, and exactly where it does not.
fn read_apart<'a>(
    body: &'a str,
    split: Option<&'a Split<'a>>,
) -> Result<(RewardRequest<'a>, Vec<&'a str>), BatchError> {
    if let Some(split) = split
        && let Ok(request) = read_request(&split.envelope)
    {
        return Ok((request, split.items.clone()));
    }
    let request = read_request(body).map_err(BatchError::Request)?;
    let items = request.trajectories.iter().map(|raw| raw.get()).collect();
    Ok((request, items))
}

fn check_mastery(curriculum: &CurriculumWire) -> Result<(), BatchError> {
    match curriculum.mastery.iter().find(|(_, value)| !(0.0..=1.0).contains(*value)) {
        Some((stage, value)) => {
            let message = format!("{value} is no pass rate; it must be from 0 to 1");
            Err(BatchError::Request(Pointed::shape(
                format!("/curriculum/mastery/{}", stage.replace('~', "~0").replace('/', "~1")),
                message,
            )))
        }
        None => Ok(()),
    }
}

fn malformed(wrong: &Pointed) -> NoScore {
    NoScore {
        code: NoScoreCode::ItemMalformed,
        message: wrong.message.clone(),
        field: Some(Field::Trajectory(wrong.pointer.clone())),
    }
}

type Names<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

fn item_names<'a>(index: usize, items: &'a [Result<Item<'_>, Pointed>], raw_items: &[&'a str]) -> Names<'a> {
    match items.get(index) {
        Some(Ok(item)) => (item.id.as_deref().map(Cow::Borrowed), item.group.as_deref().map(Cow::Borrowed)),
        _ => raw_items.get(index).map_or((None, None), |raw| read_names(raw)),
    }
}

/// Hash of what is scored: another id, group or order of fields is the same trajectory.
fn content_hash(item: &Item<'_>, shared_tools: blake3::Hash) -> [u8; 16] {
    use crate::trajectory::{Content, Message};
    let trajectory = &item.trajectory;
    let mut hasher = blake3::Hasher::new();
    let mut part = |kind: &str, text: &str| {
        hasher.update(kind.as_bytes());
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for message in &trajectory.messages {
        match message {
            Message::Policy(turn) => {
                part("policy", &turn.text);
                part("reasoning", turn.reasoning.as_deref().unwrap_or_default());
                part("calls", turn.native_calls.unwrap_or_default());
            }
            Message::Other { role, content: Content::Json(text) } => part(role.as_str(), text),
            Message::Other { role, content: Content::Text(text) } => part(role.as_str(), text),
        }
    }
    let tools = if item.own_tools { blake3::hash(trajectory.tools.as_bytes()) } else { shared_tools };
    part("tools", &tools.to_hex());
    trajectory.references.iter().for_each(|reference| part("reference", reference));
    for call in trajectory.reference_calls.iter().flatten() {
        part("reference_call", &call.name);
        part("arguments", &call.arguments.to_string());
    }
    part("format", trajectory.tool_format.map_or("", crate::trajectory::ToolFormat::as_str));
    part("truncated", if trajectory.truncated { "true" } else { "false" });
    part("tokens", &trajectory.response_tokens.map_or_else(String::new, |tokens| tokens.to_string()));
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

/// The moment after which nobody wants the answer.
struct Deadline<'a> {
    at: Option<(Instant, u64)>,
    abandoned: &'a AtomicBool,
}

impl<'a> Deadline<'a> {
    fn new(request: &RewardRequest<'_>, stop: &'a Stop) -> Self {
        let limit = [request.deadline_ms, stop.max_ms].into_iter().flatten().min();
        let at = stop
            .arrived
            .zip(limit)
            .and_then(|(arrived, limit)| Some((arrived.checked_add(std::time::Duration::from_millis(limit))?, limit)));
        Self { at, abandoned: &stop.abandoned }
    }

    fn check(&self) -> Result<(), BatchError> {
        match self.at {
            _ if self.abandoned.load(Ordering::Relaxed) => Err(BatchError::Abandoned),
            Some((at, limit_ms)) if Instant::now() >= at => Err(BatchError::Deadline { limit_ms }),
            _ => Ok(()),
        }
    }
}

/// A distinct trajectory and the items that have it.
struct Task {
    owners: Vec<usize>,
}

/// Equal trajectories share a task; unreadable items have one each.
fn distinct(items: &[Result<Item<'_>, Pointed>]) -> Vec<Task> {
    /// Chains of different trajectories with the same policy text stay short: comparing costs their length.
    const MAX_CHAIN: usize = 8;
    let state = std::hash::RandomState::new();
    let mut seen: HashMap<u64, Vec<usize>> = HashMap::with_capacity(items.len());
    let mut tasks: Vec<Task> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if let Ok(item) = item {
            let chain = seen.entry(fingerprint(&item.trajectory, &state)).or_default();
            let equal = chain.iter().copied().find(|&task| {
                let first = tasks.get(task).and_then(|task: &Task| task.owners.first()).and_then(|&owner| items.get(owner));
                matches!(first, Some(Ok(other)) if other.trajectory == item.trajectory && other.own_tools == item.own_tools)
            });
            if let Some(task) = equal.and_then(|task| tasks.get_mut(task)) {
                task.owners.push(index);
                continue;
            }
            if chain.len() < MAX_CHAIN {
                chain.push(tasks.len());
            }
        }
        tasks.push(Task { owners: vec![index] });
    }
    tasks
}

/// Differs for nearly all different rollouts, at the cost of a look at the last turn's end.
fn fingerprint(trajectory: &Trajectory<'_>, state: &std::hash::RandomState) -> u64 {
    let last = trajectory.turns().next_back().map_or("", |(_, turn)| &turn.text);
    let end = last.as_bytes();
    let lengths: Vec<usize> = trajectory.turns().map(|(_, turn)| turn.text.len()).collect();
    state.hash_one((trajectory.messages.len(), lengths, &end[end.len().saturating_sub(64)..]))
}

/// One item's result, written.
struct Entry {
    index: usize,
    json: Vec<u8>,
    reward: Option<f64>,
    stage_reached: Option<usize>,
    failed_stage: Option<usize>,
    content_hash: [u8; 16],
    scores: Vec<(f64, bool)>,
    names: (Option<String>, Option<String>),
    error: Option<(NoScoreCode, ErrorWire<'static>)>,
}

impl Entry {
    fn new(report: &Report<'_>, rubric: &Rubric, naming: Naming<'_>, content_hash: [u8; 16]) -> Self {
        let result = ResultWire::new(report, rubric, naming);
        let mut json = Vec::with_capacity(1536);
        result.put(&mut json);
        let error = report.reward.as_ref().err().map(|fault| {
            let entry = error(fault, rubric, &naming);
            let message = Cow::Owned(entry.message.into_owned());
            (fault.cause.code, ErrorWire { code: entry.code, message, pointer: entry.pointer, stage: None })
        });
        let score = |(index, outcome): (usize, &crate::stages::Outcome)| (outcome.score.get(), report.passed(index));
        Self {
            index: naming.index,
            json,
            reward: report.reward.as_ref().ok().map(|reward| reward.value),
            stage_reached: report.stage_reached(),
            failed_stage: report.failed_stage(),
            content_hash,
            scores: report.outcomes.iter().enumerate().map(score).collect(),
            names: (naming.id.map(str::to_owned), naming.group.map(str::to_owned)),
            error,
        }
    }

    /// Puts a number where the result of an unscored item says `null`.
    fn fill(&mut self, reward: f64) {
        // Quotes are escaped inside strings, so that this text can only be the field itself.
        const FIELD: &[u8] = b"\"reward\":null";
        if let Some(at) = memchr::memmem::find(&self.json, FIELD) {
            let end = at + FIELD.len();
            let number = serde_json::to_vec(&reward).unwrap_or_else(|_| b"null".to_vec());
            self.json.splice(end - b"null".len()..end, number);
        }
    }
}

/// Groups, `on_invalid`, and the response around the results.
fn finish(
    mut entries: Vec<Entry>,
    items: &[Result<Item<'_>, Pointed>],
    settings: Settings,
) -> Result<Scored, BatchError> {
    if settings.on_invalid == OnInvalid::Error
        && let Some((code, error)) = entries.iter().find_map(|entry| entry.error.clone())
    {
        return Err(BatchError::Invalid {
            transient: code.is_transient(),
            code: error.code,
            message: error.message.into_owned(),
            pointer: error.pointer.unwrap_or_default(),
        });
    }
    let groups = groups(&entries, settings.rubric.range.max());
    let means: HashMap<&str, f64> =
        groups.iter().filter(|group| group.n > 0).map(|group| (&*group.group, group.mean)).collect();
    let mut rewards: Vec<Option<f64>> = Vec::with_capacity(entries.len());
    for entry in &mut entries {
        let fill = match (entry.reward, settings.on_invalid) {
            (Some(_), _) | (None, OnInvalid::Null | OnInvalid::Error) => None,
            (None, OnInvalid::Zero) => Some(settings.rubric.range.min()),
            (None, OnInvalid::Mean) => entry.names.1.as_deref().and_then(|group| means.get(group).copied()),
        };
        if let Some(fill) = fill {
            entry.fill(fill);
        }
        rewards.push(entry.reward.or(fill));
    }
    let mut tallies = vec![Tally::default(); settings.rubric.stages.len()];
    for entry in entries.iter().filter(|entry| entry.reward.is_some()) {
        for (tally, (score, passed)) in tallies.iter_mut().zip(&entry.scores) {
            tally.reached += 1;
            tally.passed += u32::from(*passed);
            tally.score_sum += score;
        }
    }
    let errors = count_errors(&entries);
    let (body, ranges) = write_body(&entries, &rewards, &groups, items, &settings);
    let rows = entries.into_iter().zip(rewards).zip(ranges).map(|((entry, reward), result)| Row {
        id: entry.names.0,
        group: entry.names.1,
        reward,
        valid: entry.reward.is_some(),
        stage_reached: entry.stage_reached,
        failed_stage: entry.failed_stage,
        content_hash: entry.content_hash,
        result,
    });
    Ok(Scored { body, rows: rows.collect(), tallies, errors, settings })
}

fn count_errors(entries: &[Entry]) -> Vec<(NoScoreCode, u64)> {
    let mut counts: Vec<(NoScoreCode, u64)> = Vec::new();
    for (code, _) in entries.iter().filter_map(|entry| entry.error.as_ref()) {
        match counts.iter_mut().find(|(known, _)| known == code) {
            Some((_, count)) => *count += 1,
            None => counts.push((*code, 1)),
        }
    }
    counts
}

/// Statistics per group, in the order in which groups first appear.
fn groups(entries: &[Entry], max_reward: f64) -> Vec<GroupWire<'static>> {
    let mut order: Vec<&str> = Vec::new();
    let mut rewards: HashMap<&str, Vec<f64>> = HashMap::new();
    for entry in entries {
        let Some(group) = entry.names.1.as_deref() else { continue };
        let known = rewards.entry(group).or_insert_with(|| {
            order.push(group);
            Vec::new()
        });
        known.extend(entry.reward);
    }
    let wire = |group: &str| {
        let mut empty = Vec::new();
        let found = GroupStatistics::of(rewards.get_mut(group).unwrap_or(&mut empty), max_reward);
        GroupWire { group: group.to_owned().into(), n: found.n, mean: found.mean, std: found.std, value: found.value }
    };
    order.into_iter().map(wire).collect()
}

/// What stands around the results.
#[derive(Serialize)]
struct Tail<'a> {
    groups: &'a [GroupWire<'a>],
    curriculum: CurriculumTail<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct CurriculumTail<'a> {
    step: Option<u64>,
    mastery: &'a std::collections::BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct RubricName<'a> {
    name: &'a str,
    version: &'a str,
}

fn write_body(
    entries: &[Entry],
    rewards: &[Option<f64>],
    groups: &[GroupWire<'_>],
    items: &[Result<Item<'_>, Pointed>],
    settings: &Settings,
) -> (Vec<u8>, Vec<Range<usize>>) {
    let rubric = RubricName { name: &settings.rubric.name, version: &settings.rubric.version };
    let results: usize = entries.iter().map(|entry| entry.json.len() + 1).sum();
    let mut body = Vec::with_capacity(results + 24 * entries.len() + 512);
    body.extend_from_slice(b"{\"rubric\":");
    body.extend(json(&rubric));
    body.extend_from_slice(b",\"rewards\":");
    body.extend(json(&rewards));
    body.extend_from_slice(b",\"results\":[");
    let mut ranges = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        ranges.push(body.len()..body.len() + entry.json.len());
        body.extend_from_slice(&entry.json);
    }
    body.extend_from_slice(b"],");
    let position = &settings.position;
    let tail = Tail {
        groups,
        curriculum: CurriculumTail { step: position.step, mastery: &position.mastery },
        warnings: settings
            .rubric
            .missing_in(position)
            .into_iter()
            .chain(unknown_fields(items))
            .take(MAX_WARNINGS)
            .collect(),
    };
    body.extend(json(&tail).into_iter().skip(1));
    (body, ranges)
}

/// Small values of this file's own types: their writing cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn unknown_fields<'a>(items: &'a [Result<Item<'_>, Pointed>]) -> impl Iterator<Item = String> + 'a {
    let readable = items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_ref().ok()?)));
    readable.flat_map(|(index, item)| {
        item.unknown_fields.iter().map(move |field| {
            format!("/trajectories/{index}: the field {field:?} is not known and was ignored; put columns of your own under `metadata`")
        })
    })
}
