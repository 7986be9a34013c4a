//! What a run's file changes about its algorithm's loss. In: the algorithm; out: the constants of its loss.

use serde::{Deserialize, Serialize};

use super::{Aggregation, Algorithm, KlEstimator, LossConfig};
use crate::train::config::{Check, is_from_zero, is_share};

/// What differs from the algorithm's usual loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossOverrides {
    /// See [`LossConfig::clip_low`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_low: Option<f64>,
    /// See [`LossConfig::clip_high`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,
    /// See [`LossConfig::kl_coefficient`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_coefficient: Option<f64>,
    /// See [`LossConfig::kl_estimator`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
    /// See [`LossConfig::aggregation`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,
    /// See [`LossConfig::value_clip`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_clip: Option<f64>,
    /// See [`LossConfig::value_coefficient`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_coefficient: Option<f64>,
    /// See [`LossConfig::dual_clip`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
}

impl LossOverrides {
    /// The loss of an algorithm with these differences.
    pub fn over(&self, algorithm: Algorithm) -> LossConfig {
        let usual = LossConfig::of(algorithm);
        LossConfig {
            clip_low: self.clip_low.unwrap_or(usual.clip_low),
            clip_high: self.clip_high.unwrap_or(usual.clip_high),
            kl_coefficient: self.kl_coefficient.unwrap_or(usual.kl_coefficient),
            kl_estimator: self.kl_estimator.unwrap_or(usual.kl_estimator),
            aggregation: self.aggregation.unwrap_or(usual.aggregation),
            value_clip: self.value_clip.unwrap_or(usual.value_clip),
            value_coefficient: self.value_coefficient.unwrap_or(usual.value_coefficient),
            dual_clip: self.dual_clip.or(usual.dual_clip),
        }
    }
}

/// What to do with a setting that only PPO reads.
const OF_PPO: &str = "is `ppo`'s, and has no effect on another algorithm; leave it out";
/// What to do with a setting that all read but `sft`.
const OF_REWARDS: &str =
    "is of `ppo`, `grpo`, `dapo`, `cispo` and `vspo`, and has no effect on `sft`, which has no rewards; leave it out";

impl LossOverrides {
    /// The same without what has no effect on an algorithm.
    pub(in crate::train) fn with_effect(self, algorithm: Algorithm) -> Self {
        let (by_reward, has_critic) = (algorithm.learns_by_reward(), algorithm.has_critic());
        Self {
            clip_low: self.clip_low.filter(|_| by_reward),
            clip_high: self.clip_high.filter(|_| by_reward),
            kl_coefficient: self.kl_coefficient.filter(|_| by_reward),
            kl_estimator: self.kl_estimator.filter(|_| by_reward),
            aggregation: self.aggregation,
            value_clip: self.value_clip.filter(|_| has_critic),
            value_coefficient: self.value_coefficient.filter(|_| has_critic),
            dual_clip: self.dual_clip.filter(|_| has_critic),
        }
    }

    /// What is set and has no effect on an algorithm.
    pub(in crate::train) fn without_effect(&self, algorithm: Algorithm) -> Vec<Check> {
        let (no_reward, no_critic) = (!algorithm.learns_by_reward(), !algorithm.has_critic());
        vec![
            (no_reward && self.clip_low.is_some(), "loss.clip_low", OF_REWARDS),
            (no_reward && self.clip_high.is_some(), "loss.clip_high", OF_REWARDS),
            (no_reward && self.kl_coefficient.is_some(), "loss.kl_coefficient", OF_REWARDS),
            (no_reward && self.kl_estimator.is_some(), "loss.kl_estimator", OF_REWARDS),
            (no_critic && self.value_clip.is_some(), "loss.value_clip", OF_PPO),
            (no_critic && self.value_coefficient.is_some(), "loss.value_coefficient", OF_PPO),
            (no_critic && self.dual_clip.is_some(), "loss.dual_clip", OF_PPO),
        ]
    }
}

impl LossConfig {
    /// What it must not be.
    pub(in crate::train) fn checks(&self) -> Vec<Check> {
        vec![
            (!is_share(self.clip_low), "loss.clip_low", "must be from 0 to 1"),
            (!is_from_zero(self.clip_high), "loss.clip_high", "must be a finite number from 0"),
            (!is_from_zero(self.kl_coefficient), "loss.kl_coefficient", "must be a finite number from 0"),
            (self.value_clip.is_nan() || self.value_clip < 0.0, "loss.value_clip", "must be 0 or more"),
            (!is_from_zero(self.value_coefficient), "loss.value_coefficient", "must be a finite number from 0"),
            (
                self.dual_clip.is_some_and(|clip| !(clip > 1.0 && clip.is_finite())),
                "loss.dual_clip",
                "must be above 1; leave it out for none",
            ),
        ]
    }
}
