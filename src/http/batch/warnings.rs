//! What is odd about a request that is scored all the same. In: its items, and what they are scored with; out: warnings, each
//! for all items that it is about. Knows no result but whether there is one.

use std::fmt;

use crate::http::wire::{Item, Pointed};
use crate::rubric::Rubric;
use crate::score::Report;
use crate::shaping::Position;
use crate::stages::Stage;

/// Most warnings of a request, or of a file.
pub const MAX_WARNINGS: usize = 16;

/// Something odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub text: String,
    /// The first item that it is about, and how many there are; nothing where it is about the request.
    pub items: Option<(usize, usize)>,
}

impl Warning {
    /// Says that it is about so many more.
    pub fn add(&mut self, more: usize) {
        self.items = self.items.map(|(first, items)| (first, items + more));
    }

    /// The warning as it is said of its items, the first of which stands at a place.
    pub fn said_of(&self, place: &str) -> String {
        let others = match self.items {
            None | Some((_, 0 | 1)) => String::new(),
            Some((_, items)) => format!(" (and {} more)", items - 1),
        };
        format!("{place}: {}{others}", self.text)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.items {
            Some((first, _)) => f.write_str(&self.said_of(&format!("/trajectories/{first}"))),
            None => f.write_str(&self.text),
        }
    }
}

/// What became of an item, as far as warnings depend on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ItemOutcome {
    /// Whether there is a reward.
    pub scored: bool,
    /// Whether its policy called a tool.
    pub called: bool,
}

impl ItemOutcome {
    /// What became of the item that a report is about.
    pub fn of(report: &Report<'_>) -> Self {
        let called = report.evidence.as_ref().is_some_and(|evidence| evidence.calls().next().is_some());
        Self { scored: report.reward.is_ok(), called }
    }
}

/// The warnings of a request; `outcome` says what became of an item.
pub fn of(
    items: &[Result<Item<'_>, Pointed>],
    rubric: &Rubric,
    position: &Position,
    outcome: impl Fn(usize) -> ItemOutcome,
) -> Vec<Warning> {
    let curriculum = rubric.missing_in(position).into_iter().map(|text| Warning { text, items: None });
    let mut warnings: Vec<_> = curriculum.take(MAX_WARNINGS).collect();
    let readable = || items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_ref().ok()?)));
    let missing = |what: &str, stage: &str| {
        format!("there are no `{what}`, with which {stage} compares: a trajectory that gets that far cannot be scored")
    };
    let (by_answer, by_calls) = (first(rubric, Stage::needs_references), first(rubric, Stage::needs_reference_calls));
    let by_tools = first(rubric, Stage::needs_tools);
    for (index, item) in readable().filter(|(index, _)| outcome(*index).scored) {
        if let Some(stage) = by_answer.filter(|_| item.trajectory.references.is_empty()) {
            note(&mut warnings, index, missing("references", stage));
        }
        if let Some(stage) = by_calls.filter(|_| item.trajectory.reference_calls.is_none()) {
            note(&mut warnings, index, missing("reference_calls", stage));
        }
        if let Some(stage) = by_tools.filter(|_| item.trajectory.tools.is_empty() && outcome(index).called) {
            let text = format!(
                "there are calls and no `tools`: to {stage} all are calls of unknown tools; send the tools that the policy \
                 was offered, `[]` where it was offered none"
            );
            note(&mut warnings, index, text);
        }
    }
    for (index, item) in readable() {
        if let Some(place) = item.unread_calls {
            note(&mut warnings, index, format!("calls in a message's {place} are not read; put them in `tool_calls`"));
        }
        for field in &item.unknown_fields {
            let text =
                format!("the field {field:?} is not known and was ignored; put columns of your own under `metadata`");
            note(&mut warnings, index, text);
        }
    }
    warnings
}

/// The name of the first stage of which this holds.
fn first(rubric: &Rubric, holds: fn(&Stage) -> bool) -> Option<&str> {
    rubric.stages.iter().find(|stage| holds(&stage.stage)).map(|stage| &*stage.name)
}

/// Counts an item to the warning of this text, which may be new.
fn note(warnings: &mut Vec<Warning>, index: usize, text: String) {
    if let Some(known) = warnings.iter_mut().find(|known| known.text == text) {
        known.add(1);
    } else if warnings.len() < MAX_WARNINGS {
        warnings.push(Warning { text, items: Some((index, 1)) });
    }
}
