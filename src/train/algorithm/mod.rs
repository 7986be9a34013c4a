//! The algorithms: what a batch of rollouts is worth, as a loss over the tokens that the policy wrote.
//!
//! In: columns of numbers, one per token ([`Tokens`]). Out: a scalar loss with its derivatives by each log-probability and
//! each value ([`Slopes`]). Each algorithm is a file that reads like its definition; what they share is in [`terms`].
//! To add one: write its file, add it to [`Algorithm`], and answer what each `match` there asks.

mod cispo;
mod dapo;
mod grpo;
mod overrides;
mod ppo;
mod sft;
pub mod terms;
mod vspo;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use self::overrides::LossOverrides;
pub use self::terms::{Aggregation, KlEstimator, Slopes, Tokens};
use super::TrainError;

/// How a policy is improved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Cross-entropy on demonstrations.
    Sft,
    /// Proximal policy optimisation with a critic (arXiv:1707.06347).
    Ppo,
    /// Group relative policy optimisation (arXiv:2402.03300).
    Grpo,
    /// GRPO with a higher upper clip, dynamic sampling and a token mean (arXiv:2503.14476).
    Dapo,
    /// Clipped importance weights (arXiv:2506.13585).
    Cispo,
    /// Value-based sampling policy optimisation (arXiv:2512.07478).
    Vspo,
}

/// The constants of an algorithm's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossConfig {
    /// How far below 1 a ratio counts.
    pub clip_low: f64,
    /// How far above 1 a ratio counts.
    pub clip_high: f64,
    /// Weight of the divergence from the reference policy; at 0 it is measured and does not count.
    pub kl_coefficient: f64,
    /// How that divergence is estimated.
    pub kl_estimator: KlEstimator,
    /// How tokens are averaged.
    pub aggregation: Aggregation,
    /// PPO: how far a value counts from the old one.
    pub value_clip: f64,
    /// PPO: weight of the value loss.
    pub value_coefficient: f64,
    /// PPO: bound of the loss for a negative advantage, times that advantage (arXiv:1912.09729); above 1, or none.
    pub dual_clip: Option<f64>,
}

impl LossConfig {
    /// The usual constants of an algorithm.
    pub fn of(algorithm: Algorithm) -> Self {
        let common = Self {
            clip_low: 0.2,
            clip_high: 0.2,
            kl_coefficient: 0.001,
            kl_estimator: KlEstimator::K3,
            aggregation: Aggregation::TokenMean,
            value_clip: 0.2,
            value_coefficient: 0.5,
            dual_clip: None,
        };
        match algorithm {
            Algorithm::Dapo => Self { clip_high: 0.28, kl_coefficient: 0.0, ..common },
            // No lower bound.
            Algorithm::Cispo => Self { clip_low: 1.0, clip_high: 0.28, kl_coefficient: 0.0, ..common },
            Algorithm::Sft | Algorithm::Ppo => Self { kl_coefficient: 0.0, ..common },
            Algorithm::Grpo | Algorithm::Vspo => common,
        }
    }
}

impl Algorithm {
    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Ppo => "ppo",
            Self::Grpo => "grpo",
            Self::Dapo => "dapo",
            Self::Cispo => "cispo",
            Self::Vspo => "vspo",
        }
    }

    /// Whether it needs a critic.
    pub fn has_critic(self) -> bool {
        match self {
            Self::Ppo => true,
            Self::Sft | Self::Grpo | Self::Dapo | Self::Cispo | Self::Vspo => false,
        }
    }

    /// Whether it learns from rewards of its own rollouts, not from demonstrations.
    pub fn learns_by_reward(self) -> bool {
        match self {
            Self::Sft => false,
            Self::Ppo | Self::Grpo | Self::Dapo | Self::Cispo | Self::Vspo => true,
        }
    }

    /// Whether a rollout is compared with the others of its group.
    pub fn compares_in_groups(self) -> bool {
        match self {
            Self::Sft | Self::Ppo => false,
            Self::Grpo | Self::Dapo | Self::Cispo | Self::Vspo => true,
        }
    }

    /// Whether other prompts are drawn for groups whose rewards are all equal.
    pub fn replaces_flat_groups(self) -> bool {
        match self {
            Self::Dapo => true,
            Self::Sft | Self::Ppo | Self::Grpo | Self::Cispo | Self::Vspo => false,
        }
    }

    /// The loss of some tokens and its slopes.
    ///
    /// # Errors
    /// [`TrainError::Compute`].
    pub fn loss(self, tokens: &Tokens, config: &LossConfig) -> Result<Slopes, TrainError> {
        tokens.slopes(|terms| match self {
            Self::Sft => sft::loss(terms),
            Self::Ppo => ppo::loss(terms, config),
            Self::Grpo => grpo::loss(terms, config),
            Self::Dapo => dapo::loss(terms, config),
            Self::Cispo => cispo::loss(terms, config),
            Self::Vspo => vspo::loss(terms, config),
        })
    }
}

/// A loss in the making.
type Loss = Result<Tensor, candle_core::Error>;
