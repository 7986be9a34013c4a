//! The algorithms: what a batch of rollouts is worth, as a loss over the tokens that the policy wrote.
//!
//! In: columns of numbers, one per token ([`Tokens`]). Out: a scalar loss with its derivatives by each log-probability and
//! each value ([`Slopes`]). Each loss is a file that reads like its definition; what they share is in [`terms`].
//! To add an algorithm: add it to [`Algorithm`], answer what each `match` there asks, and write the file of its loss.

mod cispo;
mod grpo;
mod overrides;
mod ppo;
mod sft;
pub mod terms;

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
            Self::Grpo | Self::Dapo | Self::Vspo => grpo::loss(terms, config),
            Self::Cispo => cispo::loss(terms, config),
        })
    }
}

/// A loss in the making.
type Loss = Result<Tensor, candle_core::Error>;

#[cfg(test)]
mod tests {
    use super::*;

    /// One token with a weight of 1: where nothing is clipped, `ratio` is `exp(logprob)`.
    fn token(logprob: f64, advantage: f64) -> Tokens {
        Tokens {
            logprobs: vec![logprob],
            old_logprobs: vec![0.0],
            advantages: vec![advantage],
            weights: vec![1.0],
            kl_weights: vec![1.0],
            ..Tokens::default()
        }
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
    }

    #[test]
    fn the_usual_constants_are_those_that_are_documented() {
        for (algorithm, clip_low, clip_high, kl_coefficient) in [
            (Algorithm::Sft, 0.2, 0.2, 0.0),
            (Algorithm::Ppo, 0.2, 0.2, 0.0),
            (Algorithm::Grpo, 0.2, 0.2, 0.001),
            (Algorithm::Dapo, 0.2, 0.28, 0.0),
            (Algorithm::Cispo, 1.0, 0.28, 0.0),
            (Algorithm::Vspo, 0.2, 0.2, 0.001),
        ] {
            let usual = LossConfig::of(algorithm);
            let found = (usual.clip_low, usual.clip_high, usual.kl_coefficient);
            assert_eq!(found, (clip_low, clip_high, kl_coefficient), "{}", algorithm.name());
            let rest =
                (usual.kl_estimator, usual.aggregation, usual.value_clip, usual.value_coefficient, usual.dual_clip);
            assert_eq!(rest, (KlEstimator::K3, Aggregation::TokenMean, 0.2, 0.5, None), "{}", algorithm.name());
        }
    }

    #[test]
    fn every_override_is_heard() {
        let text = "clip_low = 0.1\nclip_high = 0.3\nkl_coefficient = 0.5\nkl_estimator = \"k1\"\n\
            aggregation = \"seq-mean-token-sum-norm\"\nvalue_clip = 0.4\nvalue_coefficient = 0.6\ndual_clip = 3.0";
        let overrides: LossOverrides = toml::from_str(text).unwrap();
        let wanted = LossConfig {
            clip_low: 0.1,
            clip_high: 0.3,
            kl_coefficient: 0.5,
            kl_estimator: KlEstimator::K1,
            aggregation: Aggregation::SeqMeanTokenSumNorm,
            value_clip: 0.4,
            value_coefficient: 0.6,
            dual_clip: Some(3.0),
        };
        assert_eq!(overrides.over(Algorithm::Ppo), wanted);
        assert_eq!(LossOverrides::default().over(Algorithm::Dapo), LossConfig::of(Algorithm::Dapo));
    }

    #[test]
    fn what_an_algorithm_does_not_read_is_named() {
        let of_rewards = ["clip_low = 0.1", "clip_high = 0.3", "kl_coefficient = 0.5", "kl_estimator = \"k1\""];
        let of_ppo = ["value_clip = 0.4", "value_coefficient = 0.6", "dual_clip = 3.0"];
        let refused = |text: &str, algorithm| {
            let overrides: LossOverrides = toml::from_str(text).unwrap();
            let wrong = overrides.without_effect(algorithm).into_iter().find(|check| check.0);
            wrong.is_some_and(|(_, field, why)| {
                assert!(why.contains("`ppo`"), "{why}");
                text.starts_with(&field["loss.".len()..])
            })
        };
        for text in of_rewards.into_iter().chain(of_ppo) {
            assert!(refused(text, Algorithm::Sft) && !refused(text, Algorithm::Ppo), "{text}");
        }
        for algorithm in [Algorithm::Grpo, Algorithm::Dapo, Algorithm::Cispo, Algorithm::Vspo] {
            assert!(!of_rewards.iter().any(|text| refused(text, algorithm)), "{algorithm:?}");
            assert!(of_ppo.iter().all(|text| refused(text, algorithm)), "{algorithm:?}");
        }
        // Which averages its tokens so.
        assert!(!refused("aggregation = \"seq-mean-token-mean\"", Algorithm::Sft));
    }

    #[test]
    fn constants_that_cannot_be_are_named() {
        let fine = LossConfig::of(Algorithm::Ppo);
        let wrong = |config: LossConfig| config.checks().into_iter().find(|check| check.0).map(|check| check.1);
        assert_eq!(wrong(LossConfig { clip_low: 1.0, value_clip: f64::INFINITY, dual_clip: Some(1.5), ..fine }), None);
        for (field, config) in [
            ("loss.clip_low", LossConfig { clip_low: 1.1, ..fine }),
            ("loss.clip_low", LossConfig { clip_low: -0.1, ..fine }),
            ("loss.clip_high", LossConfig { clip_high: -0.1, ..fine }),
            ("loss.kl_coefficient", LossConfig { kl_coefficient: -0.1, ..fine }),
            ("loss.value_clip", LossConfig { value_clip: -0.1, ..fine }),
            ("loss.value_coefficient", LossConfig { value_coefficient: f64::NAN, ..fine }),
            ("loss.dual_clip", LossConfig { dual_clip: Some(1.0), ..fine }),
            ("loss.dual_clip", LossConfig { dual_clip: Some(f64::INFINITY), ..fine }),
        ] {
            assert_eq!(wrong(config), Some(field), "{config:?}");
        }
    }

    #[test]
    fn the_divergence_by_each_estimator() {
        // d = ln pi_ref - ln pi = 0.5, and the slope is by ln pi.
        let tokens = Tokens { reference_logprobs: vec![0.5], ..token(0.0, 0.0) };
        for (kl_estimator, loss, slope) in [
            (KlEstimator::K1, -0.5, 1.0),
            (KlEstimator::K2, 0.125, -0.5),
            (KlEstimator::K3, 0.5_f64.exp() - 1.5, 1.0 - 0.5_f64.exp()),
        ] {
            let config = LossConfig { kl_coefficient: 2.0, kl_estimator, ..LossConfig::of(Algorithm::Grpo) };
            let found = Algorithm::Grpo.loss(&tokens, &config).unwrap();
            near(found.loss, 2.0 * loss);
            near(found.d_logprobs[0], 2.0 * slope);
        }
    }

    /// At a ratio of 5 an advantage of -1 would cost 5.
    #[test]
    fn the_dual_clip_bounds_what_a_negative_advantage_costs() {
        let loss = |advantage, dual_clip| {
            let config = LossConfig { dual_clip, ..LossConfig::of(Algorithm::Ppo) };
            Algorithm::Ppo.loss(&token(5.0_f64.ln(), advantage), &config).unwrap()
        };
        near(loss(-1.0, None).loss, 5.0);
        near(loss(-1.0, Some(3.0)).loss, 3.0);
        near(loss(-1.0, Some(3.0)).d_logprobs[0], 0.0);
        near(loss(-1.0, Some(6.0)).loss, 5.0);
        near(loss(1.0, Some(3.0)).loss, -1.2);
    }

    #[test]
    fn cispo_clips_a_ratio_from_below_only_where_it_is_told_to() {
        let slope = |clip_low| {
            let config = LossConfig { clip_low, ..LossConfig::of(Algorithm::Cispo) };
            Algorithm::Cispo.loss(&token(0.25_f64.ln(), 1.0), &config).unwrap().d_logprobs[0]
        };
        near(slope(1.0), -0.25);
        near(slope(0.2), -0.8);
    }
}
