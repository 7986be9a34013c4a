//! From a dialect's body to the native request. In: a body and options. Out: the request's text, and where each item
//! stands in it. Knows how to put items together; the dialect knows what they are.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::Dialect;
use super::fields::length_of;
use super::options::Options;
use super::raw_item::{ItemContext, ItemSummary};
use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::wire::{MAX_TRAJECTORIES, OnInvalid, Pointed, read_as};
use crate::rubric::Rubric;

/// Most bytes that the items of a body may have from the table of references, beside four times its own.
const KEPT_BYTES: usize = 64 << 20;

/// A body, read.
pub(super) struct Prepared<D> {
    /// What the dialect remembers.
    pub(super) dialect: D,
    /// The body as it came, where the answer has it.
    pub(super) body: String,
    /// What the query chose.
    pub(super) options: Options,
    /// The native request up to its items.
    pub(super) envelope: Arc<str>,
    /// The items, in the body's order.
    pub(super) items: Vec<PreparedItem>,
    /// The native request, whole.
    text: String,
    /// The groups, where an item must wait for others of its group that are not here; none where all are scored at once.
    apart: Vec<GroupOfItems>,
}

/// One item.
pub(super) struct PreparedItem {
    range: Range<usize>,
    /// What is remembered of it.
    pub(super) summary: ItemSummary,
}

/// The items of one group.
pub(super) struct GroupOfItems {
    /// Its name.
    pub(super) name: String,
    /// How many rollouts it has.
    pub(super) size: usize,
    /// Places of its items.
    pub(super) members: Vec<usize>,
    /// The items of the native request, joined by commas.
    pub(super) text: String,
}

/// A body that is none of its dialect.
pub(super) struct Refused {
    /// Why.
    pub(super) problem: Problem,
    /// How many items it has, as far as that can be told.
    pub(super) items: usize,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, items: 0 }
    }
}

/// How many items a body has that is not read further.
pub(super) fn count<D: Dialect>(body: &str) -> usize {
    D::LIST.map_or(0, |list| length_of(body, list))
}

/// Reads a body.
///
/// # Errors
/// When it is none of this dialect.
pub(super) fn prepare<D: Dialect>(app: &App, body: String, mut options: Options) -> Result<Prepared<D>, Refused> {
    let refuse = |wrong: Pointed| Refused { problem: wrong.into(), items: count::<D>(&body) };
    // What the answer has in it must be JSON where nobody reads it, too.
    if D::ECHOES {
        read_as::<IgnoredAny>(&body).map_err(refuse)?;
    }
    let (dialect, raw_items) = D::read(&body).map_err(refuse)?;
    options.step = options.step.or(dialect.step());
    options.deadline_ms = options.deadline_ms.or(dialect.deadline_ms());
    let name = options.rubric.as_deref().or_else(|| dialect.rubric()).or(D::RUBRIC);
    // An unknown rubric is the engine's to refuse.
    let rubric = app.engine.catalog.get(name.unwrap_or(&app.engine.default_rubric));
    let ranks = rubric.as_ref().is_some_and(|rubric| rubric.ranks());
    let grouped = ranks || options.on_invalid() == OnInvalid::Mean;
    let context = ItemContext {
        references: &app.references,
        keyed: grouped || options.run_id.is_some() && app.store.is_some(),
        sized: options.group_size.is_some(),
        judged: rubric.is_some_and(|rubric| is_judged(&rubric)),
        tool_format: options.tool_format.as_deref(),
    };
    let envelope = options.envelope(name);
    let mut text = String::with_capacity(envelope.len() + body.len() + 64 * raw_items.len() + 16);
    text.push_str(&envelope);
    if raw_items.len() > MAX_TRAJECTORIES {
        let items = raw_items.len();
        let message =
            format!("the body has {items} items; at most {MAX_TRAJECTORIES} are scored at once, send several bodies");
        return Err(Refused { problem: Problem::shape("", message), items });
    }
    // What is kept by prompt comes with every item that has none of its own.
    let most = KEPT_BYTES + 4 * body.len();
    let mut items = Vec::with_capacity(raw_items.len());
    for (place, raw_item) in raw_items.into_iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let start = text.len();
        let summary = raw_item.write(&context, &mut text);
        items.push(PreparedItem { range: start..text.len(), summary });
        if text.len() > most {
            let message = format!(
                "with the references that are kept for their prompts the items have more than {most} bytes; send fewer at once"
            );
            return Err(Refused { problem: Problem::shape("", message), items: items.len() });
        }
    }
    text.push_str("]}");
    // Everything in it is in the native request now, or remembered.
    let body = if D::ECHOES { body } else { String::new() };
    let mut prepared = Prepared { dialect, body, options, envelope: envelope.into(), items, text, apart: Vec::new() };
    // Here, since it reads each item.
    if grouped {
        prepared.part();
    }
    Ok(prepared)
}

/// Whether anybody reads the conversation beside what the policy wrote.
fn is_judged(rubric: &Rubric) -> bool {
    rubric.stages.iter().any(|stage| stage.stage.judge().is_some())
}

impl<D> Prepared<D> {
    /// The native request, which this no longer has then.
    pub(super) fn take_request(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Where the items stand in the native request.
    pub(super) fn places(&self) -> Vec<Range<usize>> {
        self.items.iter().map(|item| item.range.clone()).collect()
    }

    /// The groups that wait for members elsewhere, which this no longer has then; none where all are scored at once.
    pub(super) fn take_groups(&mut self) -> Vec<GroupOfItems> {
        std::mem::take(&mut self.apart)
    }

    /// Takes the native request apart by group, where members of one are elsewhere.
    fn part(&mut self) {
        let mut groups = self.groups();
        if groups.iter().all(|group| group.members.len() >= group.size) {
            return;
        }
        for group in &mut groups {
            group.text = self.joined(&group.members);
        }
        (self.apart, self.text) = (groups, String::new());
    }

    /// The items by group, in the order in which groups first appear. A group of unknown size is complete.
    fn groups(&self) -> Vec<GroupOfItems> {
        let mut groups: Vec<GroupOfItems> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (item, PreparedItem { summary, .. }) in self.items.iter().enumerate() {
            let name = summary.group.as_deref().unwrap_or_default();
            let place = *places.entry(name).or_insert(groups.len());
            if place == groups.len() {
                groups.push(GroupOfItems { name: name.to_owned(), size: 0, members: Vec::new(), text: String::new() });
            }
            if let Some(group) = groups.get_mut(place) {
                group.members.push(item);
                let size = summary.group_size.or(self.options.group_size).filter(|_| summary.group.is_some());
                // More are not scored together.
                group.size = group.size.max(size.unwrap_or(0)).min(MAX_TRAJECTORIES);
            }
        }
        groups
    }

    /// Items of the native request, joined by commas. One that is no JSON would spoil those of other requests: it is left
    /// as one that cannot be read.
    fn joined(&self, items: &[usize]) -> String {
        let whole = |text: &&str| serde_json::from_str::<IgnoredAny>(text).is_ok();
        let text = |item: &usize| {
            let text = self.items.get(*item).and_then(|item| self.text.get(item.range.clone()))?;
            Some(Some(text).filter(whole).unwrap_or("null"))
        };
        items.iter().filter_map(text).collect::<Vec<_>>().join(",")
    }
}
