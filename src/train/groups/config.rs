//! The settings of algorithms that have their own: VSPO's plan, DAPO's sampling and punishment, PPO's critic.

use serde::{Deserialize, Serialize};

use crate::advantage::{GaeConfig, Mode, PlanConfig, PlanConfigError, Sampling};
use crate::train::config::{Check, is_share};

/// VSPO's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VspoConfig {
    /// What becomes of a group that is drawn.
    pub mode: Mode,
    /// What groups are drawn by.
    pub sampling: Sampling,
    /// Whether the copies of a group are smoothed and clipped; the ablation "no clip" is `false`.
    pub smoothing: bool,
    /// What each further copy counts in relation to the one before, from 0 to 1.
    pub gamma: f64,
    /// Most that all copies of a group count together; above 0.
    pub w_max: f64,
    /// Groups whose rewards deviate less leave the batch.
    pub sigma_min: f64,
}

impl Default for VspoConfig {
    fn default() -> Self {
        let PlanConfig { sigma_min, gamma, w_max, mode, sampling } = PlanConfig::default();
        Self { mode, sampling, smoothing: true, gamma, w_max, sigma_min }
    }
}

impl VspoConfig {
    /// The plan's settings.
    pub fn plan(&self) -> PlanConfig {
        PlanConfig {
            sigma_min: self.sigma_min,
            gamma: if self.smoothing { self.gamma } else { 1.0 },
            w_max: if self.smoothing { self.w_max } else { f64::INFINITY },
            mode: self.mode,
            sampling: self.sampling,
        }
    }

    /// What it must not be, smoothed or not.
    pub(in crate::train) fn checks(&self) -> Vec<Check> {
        let wrong = PlanConfig { gamma: self.gamma, w_max: self.w_max, ..self.plan() }.checked().err();
        vec![
            (matches!(wrong, Some(PlanConfigError::Gamma(_))), "vspo.gamma", "must be from 0 to 1"),
            (matches!(wrong, Some(PlanConfigError::WMax(_))), "vspo.w_max", "must be above 0"),
            (matches!(wrong, Some(PlanConfigError::SigmaMin(_))), "vspo.sigma_min", "must be 0 or more"),
        ]
    }
}

/// DAPO's dynamic sampling, and its soft overlong punishment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DapoConfig {
    /// How often fresh prompts are drawn for those whose rewards are all equal; 1 draws none.
    pub max_rounds: usize,
    /// Over how many tokens before `rollout.max_tokens` the punishment of long rollouts grows; 0 for none, and a fifth of
    /// `rollout.max_tokens` where it is not given, about the share of DAPO's own 4096 of 20480.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong_cache_tokens: Option<usize>,
}

impl Default for DapoConfig {
    fn default() -> Self {
        Self { max_rounds: 3, overlong_cache_tokens: None }
    }
}

/// PPO's critic and advantages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Discount per token, from 0 to 1.
    pub gamma: f64,
    /// Decay of the advantage's estimate, from 0 to 1.
    pub lambda: f64,
    /// Whether advantages are brought to mean 0 and deviation 1 over the step's tokens.
    pub whiten: bool,
}

impl Default for PpoConfig {
    fn default() -> Self {
        let GaeConfig { gamma, lambda } = GaeConfig::default();
        Self { gamma, lambda, whiten: true }
    }
}

impl DapoConfig {
    /// What it must not be, in a run whose rollouts have at most `max_tokens`.
    pub(in crate::train) fn checks(self, max_tokens: usize) -> Vec<Check> {
        vec![
            (self.max_rounds == 0, "dapo.max_rounds", "is 0; it must be 1 or more, and 1 draws no fresh prompts"),
            (
                self.overlong_cache_tokens.is_some_and(|cache| cache > max_tokens),
                "dapo.overlong_cache_tokens",
                "must be at most `rollout.max_tokens`; 0 punishes no length",
            ),
        ]
    }

    /// Over how many tokens before `max_tokens` the punishment grows; 0 for none.
    pub(in crate::train) fn overlong_cache(self, max_tokens: usize) -> usize {
        self.overlong_cache_tokens.unwrap_or(max_tokens / 5)
    }
}

impl PpoConfig {
    /// What it must not be.
    pub(in crate::train) fn checks(&self) -> Vec<Check> {
        vec![
            (!is_share(self.gamma), "ppo.gamma", "must be from 0 to 1"),
            (!is_share(self.lambda), "ppo.lambda", "must be from 0 to 1"),
        ]
    }
}
