//! Penalties: what is taken off the reward whatever the stages earned. Pure.

use std::collections::BTreeSet;
use std::ops::Bound::{Included, Unbounded};

use crate::stages::{CallVerdict, Evidence, Field, NoScore, NoScoreCode, identity};
use crate::trajectory::ToolFormat;

/// What a penalty punishes. Amounts are in reward units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PenaltyKind {
    /// DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13): 0 up to `max_tokens - cache_tokens`, then linear
    /// up to 1 at `max_tokens`, and 1 beyond.
    Overlong {
        /// `L_max`: the length from which on the whole penalty is due, in tokens.
        max_tokens: u64,
        /// `L_cache`: over how many tokens before that it grows, in tokens.
        cache_tokens: u64,
    },
    /// 1 for each call that repeats an earlier one exactly, as far as it can be read where it does not parse (ours).
    RepeatCalls,
    /// 1 for each call attempt beyond the budget, well-formed or not (ours).
    CallBudget {
        /// Calls that are free.
        calls: usize,
    },
}

/// A penalty with its size: `min(weight * units, max)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty {
    /// What is punished.
    pub kind: PenaltyKind,
    /// Reward units taken per unit of the kind.
    pub weight: f64,
    /// The most that it takes, in reward units.
    pub max: f64,
}

impl Penalty {
    /// What it takes off the reward, at least 0.
    ///
    /// # Errors
    /// `overlong` without a token count: guessing it would be a made-up number.
    pub fn amount(&self, evidence: &Evidence<'_>) -> Result<f64, NoScore> {
        let units = match self.kind {
            PenaltyKind::Overlong { max_tokens, cache_tokens } => overlong(evidence, max_tokens, cache_tokens)?,
            PenaltyKind::RepeatCalls => repeats(evidence) as f64,
            PenaltyKind::CallBudget { calls } => {
                let made: usize = evidence.turns.iter().map(|turn| turn.parsed.attempts.len()).sum();
                made.saturating_sub(calls) as f64
            }
        };
        Ok((self.weight * units).min(self.max))
    }
}

/// Degenerate case: a truncated response of unknown length is as long as can be.
fn overlong(evidence: &Evidence<'_>, max_tokens: u64, cache_tokens: u64) -> Result<f64, NoScore> {
    let Some(length) = evidence.trajectory.response_tokens else {
        if evidence.trajectory.truncated {
            return Ok(1.0);
        }
        return Err(NoScore {
            code: NoScoreCode::ItemMalformed,
            message: "the rubric's `overlong` penalty needs `response_tokens`; send how many tokens the policy wrote"
                .to_owned(),
            field: Some(Field::Trajectory("/response_tokens".to_owned())),
        });
    };
    Ok(soft_overlong(length, max_tokens, cache_tokens))
}

/// DAPO's soft overlong punishment of a response of `length` tokens, from 0 to 1; see [`PenaltyKind::Overlong`].
pub fn soft_overlong(length: u64, max_tokens: u64, cache_tokens: u64) -> f64 {
    let free = max_tokens.saturating_sub(cache_tokens);
    match length {
        _ if length <= free => 0.0,
        _ if length >= max_tokens => 1.0,
        _ => (length - free) as f64 / cache_tokens as f64,
    }
}

/// How many attempts at calls repeat an earlier one: well-formed calls that equal one in name and arguments, and what does not
/// parse and says no more than one. To break a repeat must not hide it.
fn repeats(evidence: &Evidence<'_>) -> usize {
    let mut calls: Vec<_> = evidence.calls().map(identity).collect();
    let total = calls.len();
    calls.sort_unstable();
    calls.dedup();
    total - calls.len() + broken_repeats(evidence)
}

/// How many attempts that do not parse have the letters and digits that an earlier one begins with. A cut or a mistake of syntax
/// takes brackets, quotes and the end; to change more takes no less than to make a well-formed call another one.
fn broken_repeats(evidence: &Evidence<'_>) -> usize {
    if !evidence.verdicts().any(|verdict| *verdict == CallVerdict::Malformed) {
        return 0;
    }
    let mut said = BTreeSet::new();
    let mut repeats = 0;
    for (turn, (_, source)) in evidence.turns.iter().zip(evidence.trajectory.turns()) {
        let text = match (turn.parsed.format, source.native_calls) {
            (Some(ToolFormat::Openai), Some(calls)) => calls,
            _ => &*source.text,
        };
        for attempt in &turn.parsed.attempts {
            let span = text.get(attempt.span.clone()).unwrap_or_default();
            let letters: String = span.chars().filter(|c| c.is_alphanumeric()).collect();
            let next = said.range::<str, _>((Included(&*letters), Unbounded)).next();
            let is_repeat = next.is_some_and(|earlier: &String| earlier.starts_with(&letters));
            repeats += usize::from(is_repeat && attempt.result.is_err());
            said.insert(letters);
        }
    }
    repeats
}
