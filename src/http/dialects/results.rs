//! The native results as the dialects read them. In: scored rows. Out: rewards, metrics and faults, by item. Knows no
//! dialect's words.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Dialect;
use super::options::Options;
use super::prepare::Prepared;
use crate::http::batch::{Facts, Row, Scored};
use crate::http::error::Problem;
use crate::http::kind::Kind;
use crate::http::wire::OnInvalid;
use crate::rubric::Rubric;

/// Where an item's score is.
pub(super) struct Scoring {
    /// The request that it was scored in.
    pub(super) scored: Arc<Scored>,
    /// Its place there.
    pub(super) row: usize,
}

/// The results of a request.
pub(super) struct Results<'s> {
    /// What the query chose.
    pub(super) options: &'s Options,
    /// One per item, in the body's order.
    pub(super) outcomes: Vec<Outcome<'s>>,
}

/// The result of one item.
pub(super) struct Outcome<'s> {
    row: &'s Row,
    facts: &'s Facts,
    rubric: &'s Rubric,
}

impl<'s> Results<'s> {
    /// The results of all items.
    ///
    /// # Errors
    /// The first item's fault where `on_invalid` is `error`.
    pub(super) fn new<D: Dialect>(prepared: &'s Prepared<D>, scores: &'s [Scoring]) -> Result<Self, Problem> {
        let outcome = |scoring: &'s Scoring| {
            let row = scoring.scored.rows.get(scoring.row)?;
            let (facts, rubric) = (row.facts.as_deref()?, &*scoring.scored.settings.rubric);
            Some(Outcome { row, facts, rubric })
        };
        let outcomes: Option<Vec<_>> = scores.iter().map(outcome).collect();
        let outcomes = outcomes.ok_or_else(|| Problem::internal("a result was lost; please report this"))?;
        let results = Self { options: &prepared.options, outcomes };
        match results.outcomes.iter().enumerate().find(|(_, outcome)| !outcome.valid()) {
            Some((item, outcome)) if prepared.options.on_invalid() == OnInvalid::Error => {
                Err(outcome.problem(item, D::RETRIES_ALL))
            }
            _ => Ok(results),
        }
    }

    /// The metrics, each with an entry for every item: what `entry` makes of the item and its score.
    pub(super) fn metric_columns<V>(&self, entry: impl Fn(&Outcome<'s>, Option<f64>) -> V) -> Vec<(&'s str, Vec<V>)> {
        let names = self.outcomes.first().into_iter().flat_map(|first| first.rubric.metric_names());
        let score = |outcome: &Outcome<'s>, column| outcome.metrics().nth(column).map(|(_, score)| score);
        let entries = |column| self.outcomes.iter().map(|outcome| entry(outcome, score(outcome, column))).collect();
        names.enumerate().map(|(column, name)| (name, entries(column))).collect()
    }

    /// The reward of every item as a number; `null` only where the query asks for that.
    pub(super) fn numbers(&self) -> Vec<Option<f64>> {
        self.outcomes.iter().map(|outcome| outcome.number(self.options)).collect()
    }
}

impl<'s> Outcome<'s> {
    /// Whether it could be scored.
    pub(super) fn valid(&self) -> bool {
        self.row.valid
    }

    /// The same as a number: 1 or 0.
    pub(super) fn validity(&self) -> f64 {
        f64::from(u8::from(self.valid()))
    }

    /// The reward, or what `on_invalid` makes of none.
    pub(super) fn reward(&self) -> Option<f64> {
        self.row.reward
    }

    /// The reward for clients that need a number: the rubric's lowest reward where there is none, unless the query asks
    /// for `null` in so many words.
    pub(super) fn number(&self, options: &Options) -> Option<f64> {
        let null = options.on_invalid() == OnInvalid::Null;
        self.row.reward.or_else(|| (!null).then(|| self.rubric.range.min()))
    }

    /// The same without exception.
    pub(super) fn fallback(&self) -> f64 {
        self.row.reward.unwrap_or_else(|| self.rubric.range.min())
    }

    /// Score per stage and reported measure.
    pub(super) fn metrics(&self) -> impl Iterator<Item = (&'s str, f64)> {
        self.rubric.metric_names().zip(self.facts.metrics.iter().copied())
    }

    /// What the reward is made of, in reward units; they sum to it.
    pub(super) fn components(&self) -> impl Iterator<Item = (&'s str, f64)> {
        self.rubric.component_names().zip(self.facts.components.iter().copied())
    }

    /// What else is known of it.
    pub(super) fn facts(&self) -> &'s Facts {
        self.facts
    }

    /// Whether every stage was reached and passed.
    pub(super) fn passed(&self) -> bool {
        let last = self.rubric.stages.len().checked_sub(1);
        self.row.valid && self.row.failed_stage.is_none() && self.row.stage_reached == last
    }

    /// The name of the last stage that opened.
    pub(super) fn stage_reached(&self) -> Option<&'s str> {
        self.row.stage_reached.and_then(|stage| self.rubric.stages.get(stage)).map(|stage| &*stage.name)
    }

    /// Why there is no reward: a code of the closed list, and words.
    pub(super) fn fault(&self) -> Option<(&'static str, &'s str)> {
        let (code, message) = self.facts.fault.as_ref()?;
        Some((code.as_str(), message))
    }

    /// `retried` says that the client tries again whatever the status is.
    fn problem(&self, item: usize, retried: bool) -> Problem {
        let (code, message) = self.fault().unwrap_or(("not_scored", "there is no score"));
        let detail = format!("item {item}: {code}: {message}");
        let transient = self.facts.fault.as_ref().is_some_and(|(code, _)| code.is_transient());
        if transient || retried { Problem::new(Kind::NotScored, detail) } else { Problem::shape("", detail) }
    }
}

/// Names with values, written as an object. A name that is taken is written as `metric_` and the name.
pub(super) struct Named<'f, V> {
    /// The object's own fields.
    pub(super) own: Vec<(&'f str, V)>,
    /// Metrics, after them.
    pub(super) metrics: Vec<(&'f str, V)>,
}

impl<V: Serialize> Serialize for Named<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.own.len() + self.metrics.len()))?;
        for (name, value) in &self.own {
            map.serialize_entry(name, value)?;
        }
        for (name, value) in &self.metrics {
            if self.own.iter().any(|(own, _)| own == name) {
                map.serialize_entry(&format!("metric_{name}"), value)?;
            } else {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// The JSON of a dialect's own types, whose writing cannot fail.
pub(super) fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
