//! Ranking: the answers of a group in one question, put twice, in an order and in its reverse, so that a judge that
//! favours a place favours nobody. A score is `1 - rank / (n - 1)`, the mean over both orders and all judges.
//!
//! Degenerate case: equal answers share a place, and a group with one distinct answer gives it one half.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Answers;
use super::inquiry::{AnswerForm, BackendAnswer, Finding, Inquiry, ShorterPrompts};
use super::prompt::PromptValues;
use super::session::{Asked, Candidate, Key, Noted};
use crate::stages::{JudgeStage, Unavailable, UnitScore, Verdict};

/// Most answers in one question: beyond, a judge loses count and the prompt its bounds.
const MAX_CANDIDATES: usize = 64;

/// The answers of one group to one task, in an order that depends on nothing but them.
pub(super) struct Group {
    pub(super) stage: Arc<JudgeStage>,
    /// The first of them stands for the task.
    first: Candidate,
    /// The distinct answers and the questions that have them.
    answers: BTreeMap<String, Vec<Key>>,
}

/// Sorts questions by group, stage and task.
pub(super) fn groups(noted: Vec<Noted>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for Noted { key, stage, asked } in noted {
        let Ok(Asked::Among(candidate)) = asked else { continue };
        let Candidate { group, task, references, .. } = &candidate;
        let name = format!("{group:?}\u{0}{stage:?}\u{0}{task}\u{0}{references:?}");
        let answer = candidate.answer.clone();
        let group = groups.entry(name).or_insert_with(|| Group { stage, first: candidate, answers: BTreeMap::new() });
        group.answers.entry(answer).or_default().push(key);
    }
    groups.into_values().collect()
}

/// The order that a judge gave, best first.
///
/// # Errors
/// When it gave none.
pub(super) fn order(finding: &Finding) -> Result<Vec<usize>, Unavailable> {
    match &finding.said {
        BackendAnswer::Order(order) => Ok(order.clone()),
        _ => Err(Unavailable::no_verdict("the judge gave no order")),
    }
}

/// Whether an order of as many `candidates` names each once, by its index; the message counts from 1, as judges do.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_order(order: &[usize], candidates: usize) -> Result<(), String> {
    let mut seen = vec![false; candidates];
    for index in order {
        let number = index.wrapping_add(1);
        match seen.get_mut(*index) {
            Some(seen @ false) => *seen = true,
            Some(_) => return Err(format!("the order names candidate {number} twice")),
            None => return Err(format!("the order names {number}, not one of 1 to {candidates}")),
        }
    }
    if order.len() == candidates {
        Ok(())
    } else {
        Err(format!("the order names {} of {candidates} candidates", order.len()))
    }
}

impl Group {
    /// The question in both orders; none when there is nothing to put in order.
    pub(super) fn inquiries(&self) -> Result<Vec<Inquiry>, Unavailable> {
        match self.answers.len() {
            0 | 1 => Ok(Vec::new()),
            n if n > MAX_CANDIDATES => Err(Unavailable::no_verdict(format!(
                "{n} different answers in a group; a judge is asked to order {MAX_CANDIDATES} at most"
            ))),
            _ => Ok(vec![self.inquiry(false)?, self.inquiry(true)?]),
        }
    }

    fn inquiry(&self, reversed: bool) -> Result<Inquiry, Unavailable> {
        let mut candidates: Vec<Cow<'_, str>> =
            self.answers.keys().map(|answer| Cow::Borrowed(answer.as_str())).collect();
        if reversed {
            candidates.reverse();
        }
        let values = PromptValues {
            criteria: &self.stage.criteria,
            question: &self.first.task,
            conversation: &[],
            references: &self.first.references,
            answer: "",
            labels: &[],
            candidates: &candidates,
        };
        let messages =
            self.first.template.render(&values).map_err(|error| Unavailable::no_verdict(error.to_string()))?;
        Ok(Inquiry {
            messages,
            want: AnswerForm::Order { candidates: candidates.len() },
            fewer: ShorterPrompts::default(),
        })
    }

    /// Every question's verdict from the orders: first those of the question as it stands, then as many of its reverse.
    pub(super) fn verdicts(self, orders: Result<Vec<(Vec<usize>, bool)>, Unavailable>) -> Answers {
        let n = self.answers.len();
        let places = orders.and_then(|orders| places(n, &orders));
        let of = |(place, keys): (usize, Vec<Key>)| {
            let verdict = places.as_ref().map_err(Clone::clone).map(|(places, cached)| {
                let (score, spread) = places.get(place).copied().unwrap_or((0.5, 0.0));
                let detail = [("candidates", n as f64), ("spread", spread)];
                let detail = detail.map(|(name, number)| (Cow::Borrowed(name), number)).to_vec();
                Verdict { score: UnitScore::clamped(score), detail, cached: *cached }
            });
            keys.into_iter().map(move |key| (key, verdict.clone())).collect::<Vec<_>>()
        };
        self.answers.into_values().enumerate().flat_map(of).collect()
    }
}

/// Each candidate's mean score and how far its scores lie apart, and whether all was known before.
fn places(n: usize, orders: &[(Vec<usize>, bool)]) -> Result<(Vec<(f64, f64)>, bool), Unavailable> {
    if orders.is_empty() {
        return Ok((vec![(0.5, 0.0); n], false));
    }
    let mut scores: Vec<Vec<f64>> = vec![Vec::with_capacity(orders.len()); n];
    for (index, (order, _)) in orders.iter().enumerate() {
        check_order(order, n).map_err(Unavailable::no_verdict)?;
        for (rank, &candidate) in order.iter().enumerate() {
            // The second half was asked in reverse.
            let candidate = if index >= orders.len() / 2 { n - 1 - candidate } else { candidate };
            if let Some(scores) = scores.get_mut(candidate) {
                scores.push(1.0 - rank as f64 / (n - 1) as f64);
            }
        }
    }
    let mean = |scores: &Vec<f64>| {
        let (least, most) = scores.iter().fold((1.0f64, 0.0f64), |(l, m), s| (l.min(*s), m.max(*s)));
        (scores.iter().sum::<f64>() / scores.len() as f64, most - least)
    };
    Ok((scores.iter().map(mean).collect(), orders.iter().all(|(_, hit)| *hit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_that_favours_the_first_place_favours_nobody() {
        let as_it_stands = (vec![0, 1, 2], false);
        let (places, _) = places(3, &[as_it_stands.clone(), as_it_stands]).unwrap();
        assert_eq!(places.iter().map(|(score, _)| *score).collect::<Vec<_>>(), [0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_judge_that_is_sure_gives_the_ends_of_the_scale() {
        let (places, cached) = places(3, &[(vec![2, 0, 1], true), (vec![0, 2, 1], true)]).unwrap();
        assert_eq!(places, [(0.5, 0.0), (0.0, 0.0), (1.0, 0.0)]);
        assert!(cached);
    }

    #[test]
    fn an_order_that_is_none_is_no_verdict() {
        for broken in [vec![0, 0, 1], vec![0, 1], vec![0, 1, 3]] {
            assert!(places(3, &[(broken, false), (vec![0, 1, 2], false)]).is_err());
        }
    }
}
