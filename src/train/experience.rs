//! What a step learns from: rollouts with their advantages and weights, and what the policies said of their tokens.
//!
//! In: rollouts and what they are worth. Out: micro-batches of packed sequences with the columns that a loss needs.

use super::TrainError;
use super::algorithm::{Aggregation, Tokens};
use super::rollout::{Rollout, Writer};
use crate::lm::training::{Predictions, Sequences, TokenOutputs, TrainableDecoder};

/// A token sequence with what the policy wrote in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// Prompt and all that came after it.
    pub tokens: Vec<u32>,
    /// Places of the policy's tokens, each 1 or more, ascending.
    pub written: Vec<usize>,
    /// For each written token, its advantage.
    pub advantages: Vec<f64>,
    /// What the sample's surrogate counts: the factor f of its group.
    pub factor: f64,
    /// How often the sample is in the batch: the multiplicity m of its group.
    pub copies: f64,
    /// ln pi of each written token as the sampler had it, where it said so.
    pub sampler_logprobs: Vec<Option<f64>>,
    /// ln pi of each written token by the policy that wrote them, computed again.
    pub old_logprobs: Vec<f64>,
    /// The same by the reference policy; empty without one.
    pub reference_logprobs: Vec<f64>,
    /// The critic's values at each written token; empty without one.
    pub old_values: Vec<f64>,
    /// What these values should have been.
    pub returns: Vec<f64>,
}

impl Sample {
    /// A rollout that counts once, before anything is known of it.
    pub fn of(rollout: &Rollout) -> Self {
        let logprob = |writer: &Writer| match writer {
            Writer::Policy { logprob } => Some(*logprob),
            Writer::Environment => None,
        };
        Self {
            tokens: rollout.tokens.clone(),
            written: rollout.written().collect(),
            sampler_logprobs: rollout.writers.iter().filter_map(logprob).collect(),
            factor: 1.0,
            copies: 1.0,
            ..Self::default()
        }
    }
}

/// Samples that go through the model together.
#[derive(Debug, Default)]
pub struct MicroBatch {
    /// Their tokens.
    pub sequences: Sequences,
    /// The policy's tokens among them.
    pub predictions: Predictions,
    /// Indices of the samples.
    pub samples: Vec<usize>,
}

/// Packs some samples, in their order, into micro-batches of about so many tokens.
pub fn micro_batches(samples: &[Sample], chosen: &[usize], tokens: usize) -> Vec<MicroBatch> {
    let mut batches: Vec<MicroBatch> = Vec::new();
    for &index in chosen {
        let Some(sample) = samples.get(index) else { continue };
        let full = |batch: &MicroBatch| batch.sequences.tokens.len() + sample.tokens.len() > tokens;
        if batches.last().is_none_or(full) {
            batches.push(MicroBatch::default());
        }
        let Some(batch) = batches.last_mut() else { continue };
        let rows = batch.sequences.push(&sample.tokens);
        for &place in &sample.written {
            batch.predictions.push(&rows, place, sample.tokens.get(place).copied().unwrap_or_default());
        }
        batch.samples.push(index);
    }
    batches
}

/// What a model says of the written tokens of all samples, sample by sample.
///
/// # Errors
/// When the model fails.
pub fn said_by(model: &TrainableDecoder, samples: &[Sample], tokens: usize) -> Result<Vec<TokenOutputs>, TrainError> {
    let all: Vec<usize> = (0..samples.len()).collect();
    let mut found = Vec::with_capacity(samples.len());
    for batch in micro_batches(samples, &all, tokens) {
        let outputs = model.score(&batch.sequences, &batch.predictions)?;
        let mut start = 0;
        for sample in batch.samples.iter().filter_map(|index| samples.get(*index)) {
            let range = start..start + sample.written.len();
            start = range.end;
            let part = |column: &[f64]| column.get(range.clone()).unwrap_or_default().to_vec();
            found.push(TokenOutputs {
                logprobs: part(&outputs.logprobs),
                entropies: part(&outputs.entropies),
                values: part(&outputs.values),
            });
        }
    }
    Ok(found)
}

/// How the tokens of one optimiser step are averaged.
#[derive(Debug, Clone, Copy)]
pub struct Averaging {
    aggregation: Aggregation,
    /// What all weights are divided by.
    total: f64,
    /// Longest response that is allowed, in tokens.
    longest: f64,
}

impl Averaging {
    /// The averaging over some samples.
    pub fn over(samples: &[Sample], chosen: &[usize], aggregation: Aggregation, longest: usize) -> Self {
        let size = |sample: &Sample| match aggregation {
            Aggregation::TokenMean => sample.copies * sample.written.len() as f64,
            Aggregation::SeqMeanTokenMean | Aggregation::SeqMeanTokenSumNorm => sample.copies,
        };
        let total: f64 = chosen.iter().filter_map(|index| samples.get(*index)).map(size).sum();
        Self { aggregation, total: total.max(f64::MIN_POSITIVE), longest: longest as f64 }
    }

    /// What each token of a sample counts, for a sample that counts once.
    fn share(&self, sample: &Sample) -> f64 {
        match self.aggregation {
            Aggregation::TokenMean => 1.0 / self.total,
            Aggregation::SeqMeanTokenMean => 1.0 / (self.total * sample.written.len().max(1) as f64),
            Aggregation::SeqMeanTokenSumNorm => 1.0 / (self.total * self.longest),
        }
    }

    /// The columns of a micro-batch, with what the learning policy says of it.
    pub fn columns(&self, samples: &[Sample], batch: &MicroBatch, said: TokenOutputs) -> Tokens {
        let mut tokens = Tokens { logprobs: said.logprobs, values: said.values, ..Tokens::default() };
        for sample in batch.samples.iter().filter_map(|index| samples.get(*index)) {
            let (count, share) = (sample.written.len(), self.share(sample));
            tokens.old_logprobs.extend(&sample.old_logprobs);
            tokens.reference_logprobs.extend(&sample.reference_logprobs);
            tokens.advantages.extend(&sample.advantages);
            tokens.old_values.extend(&sample.old_values);
            tokens.returns.extend(&sample.returns);
            tokens.weights.extend(std::iter::repeat_n(sample.factor * share, count));
            tokens.kl_weights.extend(std::iter::repeat_n(sample.copies * share, count));
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(written: usize, copies: f64) -> Sample {
        Sample {
            tokens: vec![0; written + 2],
            written: (2..written + 2).collect(),
            factor: copies,
            copies,
            ..Sample::default()
        }
    }

    #[test]
    fn weights_of_a_mean_sum_to_one() {
        let samples = [sample(3, 1.0), sample(1, 3.0), sample(4, 0.0)];
        let all = [0, 1, 2];
        for aggregation in [Aggregation::TokenMean, Aggregation::SeqMeanTokenMean] {
            let averaging = Averaging::over(&samples, &all, aggregation, 4);
            let parts = micro_batches(&samples, &all, 6);
            assert!(parts.len() > 1);
            let weights = parts.iter().flat_map(|batch| {
                let said = TokenOutputs { logprobs: vec![0.0; batch.predictions.len()], ..TokenOutputs::default() };
                averaging.columns(&samples, batch, said).kl_weights
            });
            assert!((weights.sum::<f64>() - 1.0).abs() < 1e-12, "{aggregation:?}");
        }
    }

    #[test]
    fn the_token_mean_counts_tokens_and_the_sequence_mean_rollouts() {
        let samples = [sample(3, 1.0), sample(1, 1.0)];
        let weights = |aggregation| {
            let averaging = Averaging::over(&samples, &[0, 1], aggregation, 4);
            let batch = &micro_batches(&samples, &[0, 1], 100)[0];
            averaging.columns(&samples, batch, TokenOutputs::default()).weights
        };
        assert_eq!(weights(Aggregation::TokenMean), [0.25; 4]);
        assert_eq!(weights(Aggregation::SeqMeanTokenMean), [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5]);
        assert_eq!(weights(Aggregation::SeqMeanTokenSumNorm), [0.125; 4]);
    }
}
