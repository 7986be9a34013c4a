//! Some distinct trajectories, scored and written together. In: tasks and the items that have them; out: the results of these
//! items, written. Knows no request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twox_hash::xxhash3_128;

use super::distinct::{Task, content_hash};
use super::respond::{Unwritten, Written};
use super::stop::Deadline;
use super::{BatchError, Engine, Overrides, Settings};
use crate::http::wire::{CacheWire, Item, Naming, Pointed, ResultWire, read_names};
use crate::score::{Context, Report};
use crate::stages::{Evidence, Field, Judge, NoScore, NoScoreCode};
use crate::toolcall::tools::ToolSet;

/// What scoring a task needs.
pub(super) struct Work<'a, 's> {
    pub(super) items: &'a [Result<Item<'a>, Pointed>],
    pub(super) raw_items: &'a [&'a str],
    pub(super) settings: &'s Settings,
    pub(super) overrides: &'s Overrides<'s>,
    /// The request's own tool list.
    pub(super) shared: &'s Tools,
    pub(super) judge: &'s dyn Judge,
}

impl<'a> Work<'a, '_> {
    /// Bytes of request that a task is.
    pub(super) fn bytes(&self, task: &Task) -> usize {
        self.item_bytes(task.first)
    }

    /// Bytes of an item in the request.
    fn item_bytes(&self, index: usize) -> usize {
        self.raw_items.get(index).map_or(0, |raw| raw.len())
    }

    /// The group of a task's first item.
    fn group(&self, task: &Task) -> Option<&str> {
        match self.first(task) {
            Some(Ok(item)) => item.group.as_deref(),
            _ => None,
        }
    }

    /// A task's first item.
    fn first(&self, task: &Task) -> Option<&'a Result<Item<'a>, Pointed>> {
        self.items.get(task.first)
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
    fn rows<'r>(
        &self,
        task: &Task,
        tools: &Tools,
        report: &'r Report<'a>,
        took: Duration,
    ) -> impl Iterator<Item = Unwritten<'r, 'a>> {
        let latency_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        let content_hash = match self.first(task) {
            Some(Ok(item)) if self.overrides.batch_id.is_some() => content_hash(item, tools.hash),
            _ => 0,
        };
        let row = move |(place, index): (usize, usize)| {
            let (id, group) = item_names(index, self.items, self.raw_items);
            let naming = Naming {
                index,
                id,
                group,
                score_id: self.overrides.batch_id.map(|batch| [batch, &index.to_string()].join("-")),
                own_tools: matches!(self.items.get(index), Some(Ok(item)) if item.own_tools),
                cache: if place == 0 && report.cached() != Some(true) { CacheWire::Miss } else { CacheWire::Hit },
                latency_ms: if place == 0 { latency_ms } else { 0.0 },
                bytes: self.item_bytes(index),
            };
            Unwritten { report, naming, content_hash, facts: self.overrides.facts }
        };
        std::iter::once(task.first).chain(task.repeats.iter().copied()).enumerate().map(row)
    }
}

/// A tool list, looked up and hashed once for all items that have it.
#[derive(Clone)]
pub(super) struct Tools {
    set: Arc<ToolSet>,
    hash: u128,
}

impl Engine {
    /// Scores some distinct trajectories and writes the result of every item that has one of them.
    ///
    /// Step by step for all of them: each step is about as much code as a core's first cache holds, and going through all
    /// of it for every trajectory cost as much time as the work itself.
    ///
    /// # Errors
    /// When the deadline passes meanwhile: one trajectory may take a good part of a second.
    pub(super) fn score_tasks<'a>(
        &self,
        tasks: &[Task],
        work: &Work<'a, '_>,
        deadline: &Deadline<'_>,
    ) -> Result<Written<'a>, BatchError> {
        let (rubric, position) = (&*work.settings.rubric, &work.settings.position);
        let mut watch = Watch::new(tasks.len());
        let mut known = Vec::new();
        let mut tools = Vec::with_capacity(tasks.len());
        for (at, task) in tasks.iter().enumerate() {
            tools.push(self.tools(task, work, &mut known));
            watch.lap(at);
        }
        let mut read = Vec::with_capacity(tasks.len());
        for (at, (task, tools)) in tasks.iter().zip(&tools).enumerate() {
            read.push(work.evidence(task, &tools.set));
            watch.lap(at);
        }
        for step in Evidence::STEPS {
            for (at, (evidence, tools)) in read.iter_mut().zip(&tools).enumerate() {
                if let Ok(evidence) = evidence {
                    step(evidence, &tools.set, &rubric.reading);
                }
                watch.lap(at);
                deadline.check_at(watch.since)?;
            }
        }
        let unwanted = || deadline.check().is_err();
        let mut reports = Vec::with_capacity(tasks.len());
        for (at, (task, evidence)) in tasks.iter().zip(read).enumerate() {
            let group = work.group(task);
            let context = Context { rubric, position, judge: work.judge, group, unwanted: &unwanted };
            reports.push(self.scorer.report(evidence, context));
            watch.lap(at);
            deadline.check_at(watch.since)?;
        }
        let scored = tasks.iter().zip(&tools).zip(&reports).zip(&watch.took);
        let rows = scored.flat_map(|(((task, tools), report), took)| work.rows(task, tools, report, *took));
        let rows: Vec<_> = rows.collect();
        let results: Vec<_> = rows.iter().map(|row| ResultWire::new(row.report, rubric, &row.naming)).collect();
        let mut written = Written::with_room_for(&rows);
        for (row, result) in rows.iter().zip(&results) {
            written.add(row, rubric, result);
        }
        Ok(written)
    }

    /// A task's tools. Reading has made equal lists one and the same text, which is looked up once.
    fn tools<'a>(&self, task: &Task, work: &Work<'a, '_>, known: &mut Vec<(&'a str, Tools)>) -> Tools {
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
    pub(super) fn tools_of(&self, raw: &str, settings: &Settings, overrides: &Overrides<'_>) -> Tools {
        let stored = overrides.batch_id.is_some();
        let hash = if stored { xxhash3_128::Hasher::oneshot(raw.as_bytes()) } else { 0 };
        Tools { set: self.scorer.tools(raw, &settings.rubric), hash }
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
    fn lap(&mut self, at: usize) {
        let now = Instant::now();
        if let Some(took) = self.took.get_mut(at) {
            *took += now - self.since;
        }
        self.since = now;
    }
}

fn malformed(wrong: &Pointed) -> NoScore {
    NoScore {
        code: NoScoreCode::ItemMalformed,
        message: wrong.message.clone(),
        field: Some(Field::Trajectory(wrong.pointer.clone())),
    }
}

/// The client's id and group of an item.
fn item_names<'a>(
    index: usize,
    items: &'a [Result<Item<'_>, Pointed>],
    raw_items: &[&'a str],
) -> (Option<Cow<'a, str>>, Option<Cow<'a, str>>) {
    match items.get(index) {
        Some(Ok(item)) => (item.id.as_deref().map(Cow::Borrowed), item.group.as_deref().map(Cow::Borrowed)),
        _ => raw_items.get(index).map_or((None, None), |raw| read_names(raw)),
    }
}
