//! The update: samples to moved parameters. In: samples whose columns are complete. Out: parameters that moved, and what
//! was seen on the way.

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::algorithm::{Algorithm, LossConfig, Slopes, Tokens};
use super::config::{Check, is_above_zero};
use super::experience::{Averaging, MicroBatch, Sample, micro_batches};
use super::policy::Policy;
use crate::lm::training::{AdamW, Gradients};

/// How a step's batch is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    /// Times that the batch is gone through.
    pub epochs: usize,
    /// Optimiser steps of an epoch.
    pub minibatches: usize,
    /// Tokens that go through the model together.
    pub micro_batch_tokens: usize,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self { epochs: 1, minibatches: 2, micro_batch_tokens: 16_384 }
    }
}

/// How the learning rate moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// It falls to 0 on a line.
    Linear,
    /// It falls to 0 on half a cosine.
    Cosine,
}

/// How fast parameters move.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// Steps in which it rises from 0.
    pub warmup_steps: u64,
    /// What it does after that.
    pub schedule: Schedule,
}

impl Default for LearningRate {
    fn default() -> Self {
        Self { peak: 1e-6, warmup_steps: 0, schedule: Schedule::Constant }
    }
}

impl LearningRate {
    /// The rate of a step, counted from 1, of a run of `steps`.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let (gone, whole) = (step - self.warmup_steps - 1, steps.saturating_sub(self.warmup_steps).max(1));
        let share = gone as f64 / whole as f64;
        match self.schedule {
            Schedule::Constant => self.peak,
            Schedule::Linear => self.peak * (1.0 - share),
            Schedule::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
        }
    }

    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![(!is_above_zero(self.peak), "learning_rate.peak", "must be above 0")]
    }
}

impl UpdateConfig {
    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![
            (self.epochs == 0, "update.epochs", "is 0; it must be 1 or more"),
            (self.minibatches == 0, "update.minibatches", "is 0; it must be 1 or more"),
            (self.micro_batch_tokens == 0, "update.micro_batch_tokens", "is 0; it must be 1 or more"),
        ]
    }
}

/// How an update is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Its loss.
    pub loss: LossConfig,
    /// Tokens that go through the model together.
    pub micro_batch_tokens: usize,
    /// Longest response that is allowed, in tokens.
    pub longest: usize,
    /// The step's learning rate.
    pub learning_rate: f64,
}

/// What an update saw. Sums are over tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct UpdateStatistics {
    /// The sum of the losses of all optimiser steps.
    pub loss: f64,
    /// Optimiser steps.
    pub optimizer_steps: u64,
    /// Tokens.
    pub tokens: f64,
    /// Sum of the estimates of the divergence from the reference.
    pub kl: f64,
    /// The largest of them.
    pub kl_max: f64,
    /// Sum of the estimates of the divergence of the policy that wrote the tokens from this one.
    pub kl_old: f64,
    /// Sum of the entropies.
    pub entropy: f64,
    /// Tokens whose ratio was clipped.
    pub clipped: f64,
    /// The largest ratio.
    pub ratio_max: f64,
    /// The largest norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Sum of the squared errors of the values.
    pub value_error: f64,
    /// Sum of the distances between the sampler's and the trainer's log-probabilities of the same tokens.
    pub sampler_gap: f64,
    /// Tokens of which both are known.
    pub compared: f64,
}

impl Update {
    /// One optimiser step on some of the samples.
    ///
    /// # Errors
    /// [`crate::lm::LmError::NotFinite`] when a number is none: no parameter has moved then.
    pub(super) fn step(
        &self,
        policy: &mut Policy,
        optimizer: &mut AdamW,
        samples: &[Sample],
        chosen: &[usize],
        seen: &mut UpdateStatistics,
    ) -> Result<(), TrainError> {
        let averaging = Averaging::over(samples, chosen, self.loss.aggregation, self.longest);
        let mut gradients = Gradients::zeros(policy.decoder.parameters())?;
        for batch in micro_batches(samples, chosen, self.micro_batch_tokens) {
            if !batch.predictions.is_empty() {
                self.accumulate(policy, samples, &batch, &averaging, (&mut gradients, seen))?;
            }
        }
        let norm = optimizer.step(&mut policy.decoder, &gradients, self.learning_rate)?;
        seen.grad_norm = seen.grad_norm.max(norm);
        seen.optimizer_steps += 1;
        Ok(())
    }

    fn accumulate(
        &self,
        policy: &Policy,
        samples: &[Sample],
        batch: &MicroBatch,
        averaging: &Averaging,
        (gradients, seen): (&mut Gradients, &mut UpdateStatistics),
    ) -> Result<(), TrainError> {
        let pass = policy.decoder.forward(&batch.sequences, &batch.predictions)?;
        let said = pass.outputs()?;
        seen.entropy += said.entropies.iter().sum::<f64>();
        let tokens = averaging.columns(samples, batch, said);
        let slopes = self.algorithm.loss(&tokens, &self.loss)?;
        seen.take(&tokens, &slopes, self);
        pass.backward(&slopes.d_logprobs, &slopes.d_values, gradients)?;
        Ok(())
    }
}

/// The most by which two log-probabilities of a token differ where a divergence is measured, in nats.
const MOST_DIFFERENCE: f64 = 20.0;

impl UpdateStatistics {
    /// Compares what the sampler said of a sample's tokens with what the trainer says.
    pub(super) fn compare(&mut self, sample: &Sample) {
        for (sampled, computed) in sample.sampler_logprobs.iter().zip(&sample.old_logprobs) {
            if let Some(sampled) = sampled {
                self.sampler_gap += (sampled - computed).abs();
                self.compared += 1.0;
            }
        }
    }

    fn take(&mut self, tokens: &Tokens, slopes: &Slopes, Update { algorithm, loss, .. }: &Update) {
        self.loss += slopes.loss;
        self.tokens += tokens.len() as f64;
        // It is measured here and learnt from elsewhere: one token must not make it infinite (TRL and verl bound it, too).
        let k3 = |d: f64| d.min(MOST_DIFFERENCE).exp() - d - 1.0;
        for (new, reference) in tokens.logprobs.iter().zip(&tokens.reference_logprobs) {
            let kl = k3(reference - new);
            self.kl += kl;
            self.kl_max = self.kl_max.max(kl);
        }
        for ((new, old), advantage) in tokens.logprobs.iter().zip(&tokens.old_logprobs).zip(&tokens.advantages) {
            let ratio = (new - old).exp().min(f64::MAX);
            // The tokens are the old policy's, so that this estimates KL(old | new) (Schulman's k3).
            self.kl_old += k3(new - old);
            self.ratio_max = self.ratio_max.max(ratio);
            let (above, below) = (ratio > 1.0 + loss.clip_high, ratio < 1.0 - loss.clip_low);
            let beyond = match algorithm {
                // It clips the weight itself, whatever it weighs.
                Algorithm::Cispo => above || below,
                _ => (*advantage > 0.0 && above) || (*advantage < 0.0 && below),
            };
            self.clipped += f64::from(u8::from(beyond));
        }
        let errors = tokens.values.iter().zip(&tokens.returns).map(|(value, wanted)| (value - wanted).powi(2));
        self.value_error += errors.sum::<f64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(tokens: &Tokens) -> UpdateStatistics {
        let update = Update {
            algorithm: Algorithm::Cispo,
            loss: LossConfig::of(Algorithm::Cispo),
            micro_batch_tokens: 1,
            longest: 1,
            learning_rate: 1.0,
        };
        let mut seen = UpdateStatistics::default();
        seen.take(tokens, &Slopes { loss: 0.0, d_logprobs: Vec::new(), d_values: Vec::new() }, &update);
        seen
    }

    #[test]
    fn the_divergence_from_the_sampling_policy_is_that_of_its_own_tokens() {
        // Of 20 tokens each is drawn as often as the old policy says.
        let (drawn, new): ([u8; 4], [f64; 4]) = ([10, 6, 3, 1], [0.6, 0.3, 0.0999, 0.0001]);
        let (mut tokens, mut exact) = (Tokens::default(), 0.0);
        for (count, new) in drawn.into_iter().zip(new) {
            let old = f64::from(count) / 20.0;
            exact += old * (old / new).ln();
            for _ in 0..count {
                tokens.old_logprobs.push(old.ln());
                tokens.logprobs.push(new.ln());
                tokens.advantages.push(0.0);
            }
        }
        let found = seen(&tokens).kl_old / 20.0;
        assert!((found - exact).abs() < 1e-12, "{found} is not {exact}");
    }

    #[test]
    fn a_token_that_became_impossible_leaves_the_measures_finite() {
        for (new, other) in [(-1e4, -1.0), (-1.0, -1e4)] {
            let tokens = Tokens {
                logprobs: vec![new],
                old_logprobs: vec![other],
                reference_logprobs: vec![other],
                advantages: vec![1.0],
                ..Tokens::default()
            };
            let found = seen(&tokens);
            for value in [found.kl, found.kl_max, found.kl_old, found.ratio_max] {
                assert!(value.is_finite() && value >= 0.0, "{found:?}");
            }
        }
    }
}
