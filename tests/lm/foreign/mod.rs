//! Models that run through `candle-transformers`: GGUF files and architectures that our own decoder does not know, against
//! our own decoder or a plain one on the same weights.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]
#![allow(clippy::cast_possible_truncation, clippy::single_range_in_vec_init, reason = "small numbers, one range")]

mod broken;
mod build;
mod directories;
mod gguf;
mod judge;
mod oracle;
mod texts;

use gradus::lm::{Engine, Foreign, LmError};

/// Every token of the tiny vocabulary.
fn labels() -> Vec<u32> {
    (0..build::VOCAB).collect()
}

/// Prompts of several lengths: single tokens, and those that are read in one, two and many pieces.
fn prompts() -> Vec<Vec<u32>> {
    let prompt = |len: u32| (0..len).map(|i| (i * 31 + len * 7 + i * i) % build::VOCAB).collect();
    [1, 2, 5, 64, 85, 256, 257, 341, 400].into_iter().map(prompt).collect()
}

fn by_foreign(model: &mut Foreign, prompts: &[Vec<u32>]) -> Result<Vec<Vec<f64>>, LmError> {
    let labels = labels();
    let asked: Vec<(&[u32], &[u32])> = prompts.iter().map(|prompt| (prompt.as_slice(), labels.as_slice())).collect();
    model.label_logprobs(&asked).into_iter().map(|found| found.map(|found| found.logprobs)).collect()
}

/// What a model says of all prompts, which must be the same in whichever order they come.
fn in_any_order(model: &mut Foreign) -> Vec<Vec<f64>> {
    let there = by_foreign(model, &prompts()).unwrap();
    let reversed: Vec<_> = prompts().into_iter().rev().collect();
    let back = by_foreign(model, &reversed).unwrap();
    assert!(there.iter().eq(back.iter().rev()));
    there
}

fn by_engine(model: &mut Engine, prompts: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let labels = labels();
    let asked: Vec<(&[u32], &[u32])> = prompts.iter().map(|prompt| (prompt.as_slice(), labels.as_slice())).collect();
    model.label_logprobs(&asked).unwrap().into_iter().map(|found| found.logprobs).collect()
}

fn farthest(one: &[Vec<f64>], other: &[Vec<f64>]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().flatten().zip(other.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
