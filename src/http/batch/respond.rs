//! The response around the results: groups, what `on_invalid` asks for, and the bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::warnings::{self, ItemOutcome, Warning};
use super::{BatchError, Counts, Facts, Row, Scored, Settings};
use crate::advantage::GroupStatistics;
use crate::http::wire::{GroupWire, Item, Naming, OnInvalid, Pointed, Put, ResultWire, error};
use crate::rubric::{Rubric, RubricStage};
use crate::score::Report;
use crate::stages::{NoScoreCode, Outcome};
use crate::store::StageCounts;

/// Bytes of a short result.
const RESULT_BYTES: usize = 1536;

/// The results of some items, written one after the other.
pub(super) struct Written<'t> {
    texts: Texts,
    entries: Vec<Entry<'t>>,
}

/// What the results of some items have in common places.
struct Texts {
    json: Vec<u8>,
    /// What the stages gave, and whether they were passed.
    scores: Vec<(f64, bool)>,
}

/// One item's result, written.
struct Entry<'t> {
    index: usize,
    /// In which of the texts it is, once they are all there.
    text: usize,
    /// Its bytes there; none where nobody reads them.
    json: Range<usize>,
    /// What stands for the reward that it has not.
    fill: Option<f64>,
    reward: Option<f64>,
    stage_reached: Option<usize>,
    failed_stage: Option<usize>,
    content_hash: u128,
    /// Its stages' scores there.
    scores: Range<usize>,
    outside: Vec<f64>,
    id: Option<Cow<'t, str>>,
    group: Option<Cow<'t, str>>,
    outcome: ItemOutcome,
    /// Why there is no reward: the code, what is wrong, and where.
    error: Option<Box<(NoScoreCode, String, String)>>,
    facts: Option<Box<Facts>>,
}

/// A result before it is written.
pub(super) struct Unwritten<'r, 't> {
    pub(super) report: &'r Report<'t>,
    pub(super) naming: Naming<'t>,
    pub(super) content_hash: u128,
    /// Whether the entry keeps its facts.
    pub(super) facts: bool,
}

impl Unwritten<'_, '_> {
    /// Whether anybody reads its JSON: who has the facts does not, the store does.
    fn is_read(&self) -> bool {
        !self.facts || self.naming.score_id.is_some()
    }
}

impl<'t> Written<'t> {
    /// Room for the results of these rows.
    pub(super) fn with_room_for(rows: &[Unwritten<'_, '_>]) -> Self {
        let read = rows.iter().filter(|row| row.is_read()).count();
        let stages = rows.iter().map(|row| row.report.outcomes.len()).sum();
        let texts = Texts { json: Vec::with_capacity(read * RESULT_BYTES), scores: Vec::with_capacity(stages) };
        Self { texts, entries: Vec::with_capacity(rows.len()) }
    }

    /// Writes a result.
    pub(super) fn add(&mut self, row: &Unwritten<'_, 't>, rubric: &Rubric, result: &ResultWire<'_>) {
        let Texts { json, scores } = &mut self.texts;
        let (json_start, scores_start) = (json.len(), scores.len());
        if row.is_read() {
            result.put(json);
        }
        let report = row.report;
        let score = |(index, outcome): (usize, &Outcome)| (outcome.score.get(), report.passed(index));
        scores.extend(report.outcomes.iter().enumerate().map(score));
        let (json, scores) = (json_start..json.len(), scores_start..scores.len());
        self.entries.push(Entry { json, scores, ..Entry::new(row, rubric, result) });
    }
}

impl<'t> Entry<'t> {
    /// The entry, of which nothing is written yet.
    fn new(row: &Unwritten<'_, 't>, rubric: &Rubric, result: &ResultWire<'_>) -> Self {
        let (report, naming) = (row.report, &row.naming);
        let facts = row.facts.then(|| Box::new(Facts::new(result, report)));
        let error = report.reward.as_ref().err().map(|fault| {
            let entry = error(fault, rubric, naming);
            Box::new((fault.cause.code, entry.message.into_owned(), entry.pointer.unwrap_or_default()))
        });
        Self {
            index: naming.index,
            text: 0,
            json: 0..0,
            fill: None,
            reward: report.reward.as_ref().ok().map(|reward| reward.value),
            stage_reached: report.stage_reached(),
            failed_stage: report.failed_stage(),
            content_hash: row.content_hash,
            scores: 0..0,
            outside: report.outcomes.iter().filter_map(outside).collect(),
            id: naming.id.clone(),
            group: naming.group.clone(),
            outcome: ItemOutcome::of(report),
            error,
            facts,
        }
    }

    /// Copies the result; where an unscored item gets a reward, with that in the place of `null`, and as what it is made of.
    fn copy(&self, written: &[u8], body: &mut Vec<u8>) {
        // Quotes are escaped inside strings, and a call's arguments, which may have such a field, come later: the first one
        // is the result's own.
        const REWARD: &[u8] = b"\"reward\":null";
        const COMPONENTS: &[u8] = b"\"components\":{}";
        let json = written.get(self.json.clone()).unwrap_or_default();
        let filled = self.fill.and_then(|reward| {
            let (before, rest) = split_after(json, REWARD)?;
            let (between, after) = split_after(rest, COMPONENTS)?;
            Some((reward, before.strip_suffix(b"null")?, between.strip_suffix(b"}")?, after))
        });
        let Some((reward, before, between, after)) = filled else {
            body.extend_from_slice(json);
            return;
        };
        body.extend_from_slice(before);
        reward.put(body);
        body.extend_from_slice(between);
        body.extend_from_slice(b"\"filled\":");
        reward.put(body);
        body.push(b'}');
        body.extend_from_slice(after);
    }
}

/// A text in two, the first of which ends with the first place that has `field`.
fn split_after<'j>(json: &'j [u8], field: &[u8]) -> Option<(&'j [u8], &'j [u8])> {
    Some(json.split_at(memchr::memmem::find(json, field)? + field.len()))
}

/// Groups, `on_invalid`, and the response around the results. Only what is `stored` keeps its names.
pub(super) fn finish(
    written: Vec<Written<'_>>,
    items: &[Result<Item<'_>, Pointed>],
    settings: Settings,
    stored: bool,
) -> Result<Scored, BatchError> {
    let (mut texts, mut entries) = (Vec::with_capacity(written.len()), Vec::with_capacity(items.len()));
    for Written { texts: its, entries: mut of_it } in written {
        for entry in &mut of_it {
            entry.text = texts.len();
        }
        entries.append(&mut of_it);
        texts.push(its);
    }
    entries.sort_unstable_by_key(|entry| entry.index);
    if settings.on_invalid == OnInvalid::Error
        && let Some((code, message, pointer)) = entries.iter().find_map(|entry| entry.error.as_deref())
    {
        return Err(BatchError::Invalid {
            transient: code.is_transient(),
            code: code.as_str(),
            message: message.clone(),
            pointer: pointer.clone(),
            errors: count_errors(&entries),
            rubric: settings.metric_label().to_owned(),
        });
    }
    let groups = groups(&entries, settings.rubric.range.max());
    let means: HashMap<&str, f64> = groups.iter().filter_map(|group| Some((&*group.group, group.mean?))).collect();
    let mut rewards: Vec<Option<f64>> = Vec::with_capacity(entries.len());
    for entry in &mut entries {
        entry.fill = match (entry.reward, settings.on_invalid) {
            (Some(_), _) | (None, OnInvalid::Null | OnInvalid::Error) => None,
            (None, OnInvalid::Zero) => Some(settings.rubric.range.min()),
            (None, OnInvalid::Mean) => entry.group.as_deref().and_then(|group| means.get(group).copied()),
        };
        rewards.push(entry.reward.or(entry.fill));
    }
    let counts = Arc::new(count(&entries, &texts, &settings));
    let unread = entries.iter().any(|entry| entry.json.is_empty());
    let mut warnings = Vec::new();
    let (body, ranges) = if unread {
        (Vec::new(), vec![0..0; entries.len()])
    } else {
        let outcome = |item: usize| entries.get(item).map(|entry| entry.outcome).unwrap_or_default();
        warnings = warnings::of(items, &settings.rubric, &settings.position, outcome);
        write_body(&texts, &entries, &rewards, &groups, &warnings, &settings)
    };
    let rows = entries.into_iter().zip(rewards).zip(ranges).map(|((entry, reward), result)| Row {
        id: entry.id.filter(|_| stored).map(Cow::into_owned),
        group: entry.group.filter(|_| stored).map(Cow::into_owned),
        reward,
        valid: entry.reward.is_some(),
        stage_reached: entry.stage_reached,
        failed_stage: entry.failed_stage,
        content_hash: entry.content_hash,
        result,
        facts: entry.facts,
    });
    Ok(Scored { body, rows: rows.collect(), counts, warnings, settings })
}

/// The probability that a judge gave to something other than its labels.
fn outside(outcome: &Outcome) -> Option<f64> {
    outcome.cached?;
    outcome.detail.iter().find(|(name, _)| name == "outside").map(|(_, value)| *value)
}

/// What is counted of the request.
fn count(entries: &[Entry<'_>], texts: &[Texts], settings: &Settings) -> Counts {
    let none = |stage: &RubricStage| StageCounts { stage: stage.name.clone(), reached: 0, passed: 0, score_sum: 0.0 };
    let mut stages: Vec<_> = settings.rubric.stages.iter().map(none).collect();
    let mut valid = 0;
    for entry in entries.iter().filter(|entry| entry.reward.is_some()) {
        valid += 1;
        let scores = texts.get(entry.text).and_then(|its| its.scores.get(entry.scores.clone()));
        for (counts, (score, passed)) in stages.iter_mut().zip(scores.unwrap_or_default()) {
            counts.reached += 1;
            counts.passed += u32::from(*passed);
            counts.score_sum += score;
        }
    }
    Counts {
        rubric: settings.metric_label().to_owned(),
        inline: settings.inline,
        valid,
        invalid: entries.len() as u64 - valid,
        stages,
        errors: count_errors(entries),
        outside: entries.iter().flat_map(|entry| entry.outside.iter().copied()).collect(),
    }
}

fn count_errors(entries: &[Entry<'_>]) -> Vec<(NoScoreCode, u64)> {
    let mut counts: Vec<(NoScoreCode, u64)> = Vec::new();
    for (code, ..) in entries.iter().filter_map(|entry| entry.error.as_deref()) {
        match counts.iter_mut().find(|(known, _)| known == code) {
            Some((_, count)) => *count += 1,
            None => counts.push((*code, 1)),
        }
    }
    counts
}

/// Statistics per group, in the order in which groups first appear.
fn groups(entries: &[Entry<'_>], max_reward: f64) -> Vec<GroupWire<'static>> {
    let mut order: Vec<&str> = Vec::new();
    let mut rewards: HashMap<&str, Vec<f64>> = HashMap::new();
    for entry in entries {
        let Some(group) = entry.group.as_deref() else { continue };
        let known = rewards.entry(group).or_insert_with(|| {
            order.push(group);
            Vec::new()
        });
        known.extend(entry.reward);
    }
    let wire = |group: &str| {
        let mut empty = Vec::new();
        let found = GroupStatistics::of(rewards.get_mut(group).unwrap_or(&mut empty), max_reward);
        let known = found.known();
        GroupWire {
            group: group.to_owned().into(),
            n: found.n,
            mean: known.map(|known| known.mean),
            std: known.map(|known| known.std),
            value: known.map(|known| known.value),
        }
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
    mastery: &'a BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct RubricName<'a> {
    name: &'a str,
    version: &'a str,
}

fn write_body(
    texts: &[Texts],
    entries: &[Entry<'_>],
    rewards: &[Option<f64>],
    groups: &[GroupWire<'_>],
    warnings: &[Warning],
    settings: &Settings,
) -> (Vec<u8>, Vec<Range<usize>>) {
    let rubric = RubricName { name: &settings.rubric.name, version: &settings.rubric.version };
    let results: usize = entries.iter().map(|entry| entry.json.len() + 1).sum();
    let mut body = Vec::with_capacity(results + 24 * entries.len() + 512);
    body.extend_from_slice(b"{\"rubric\":");
    body.extend(json(&rubric));
    body.extend_from_slice(b",\"rewards\":");
    rewards.put(&mut body);
    body.extend_from_slice(b",\"results\":[");
    let mut ranges = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        let start = body.len();
        entry.copy(texts.get(entry.text).map_or(&[], |its| its.json.as_slice()), &mut body);
        ranges.push(start..body.len());
    }
    body.extend_from_slice(b"],");
    let position = &settings.position;
    let tail = Tail {
        groups,
        curriculum: CurriculumTail { step: position.step, mastery: &position.mastery },
        warnings: warnings.iter().map(ToString::to_string).collect(),
    };
    // Its opening brace is the body's own.
    body.extend_from_slice(json(&tail).get(1..).unwrap_or_default());
    (body, ranges)
}

/// Small values of this file's own types: their writing cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
