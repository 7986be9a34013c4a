//! How fast the judges answer: questions that no cache knows, in groups that share their prompt, as rollouts do.

use std::borrow::Cow;
use std::time::Instant;

use serde::Serialize;

use super::Judges;
use super::examples::Example;
use super::poll::{Candidate, OnAnswered, poll};
use crate::stages::JudgeStage;

/// What a bench measures.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Answers that are judged.
    pub answers: usize,
    /// Answers to the same question; at least 1.
    pub group: usize,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Answers with a verdict.
    pub judged: usize,
    /// Answers without.
    pub without_verdict: usize,
    /// Answers to the same question.
    pub group: usize,
    /// Wall time, in seconds.
    pub seconds: f64,
    /// Answers per second, with and without a verdict.
    pub answers_per_second: f64,
    /// Tokens of all prompts of local judges, per second.
    pub asked_tokens_per_second: f64,
    /// Tokens that local judges computed, per second; the rest was shared or kept.
    pub computed_tokens_per_second: f64,
}

/// Puts answers to the judges that a stage names. Every answer carries a number, so that no cache knows it: what the
/// verdicts say is not looked at.
pub async fn bench(
    judges: &Judges,
    stage: &JudgeStage,
    examples: &[Example],
    load: Load,
    on_answered: &mut OnAnswered<'_>,
) -> BenchReport {
    let group = load.group.max(1);
    // The time makes the numbers others than those of an earlier bench, which a database may know.
    let salt = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |past| past.as_nanos());
    let numbered = |index: usize| {
        let example = examples.get(index / group % examples.len().max(1))?;
        Some(Candidate { example, answer: Cow::Owned(format!("{} ({salt}-{index})", example.answer)) })
    };
    let candidates: Vec<Candidate<'_>> = (0..load.answers).filter_map(numbered).collect();
    let tokens = || {
        let numbers = judges.states().into_values().filter_map(|state| state.numbers);
        numbers.fold((0, 0), |(asked, computed), n| (asked + n.asked_tokens, computed + n.computed_tokens))
    };
    let (before, began) = (tokens(), Instant::now());
    let polled = poll(judges, stage, &candidates, on_answered).await;
    let seconds = began.elapsed().as_secs_f64();
    let after = tokens();
    let judged = polled.iter().filter(|polled| polled.is_ok()).count();
    BenchReport {
        judged,
        without_verdict: polled.len() - judged,
        group,
        seconds,
        answers_per_second: polled.len() as f64 / seconds,
        asked_tokens_per_second: (after.0 - before.0) as f64 / seconds,
        computed_tokens_per_second: (after.1 - before.1) as f64 / seconds,
    }
}
