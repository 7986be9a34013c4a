//! The closed list of metrics. One row makes the variant, its documentation, its name and its line of the glossary.

use std::fmt;
use std::str::FromStr;

use super::definition::{Definition, Range, Unit};
use super::error::MetricsError;

/// What varies in the name of a family of metrics: a stage's name, or that of a part of the held-out questions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// A label: 1 to 64 ASCII letters, digits, `_`, `-` or `.`, as the names of a rubric's stages are.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Label`] for any other text.
    pub fn new(text: &str) -> Result<Self, MetricsError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if (1..=64).contains(&text.len()) && text.chars().all(fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MetricsError::Label(text.chars().take(80).collect()))
        }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Makes [`Metric`] and what is known of its variants from two tables: single metrics, then open families.
macro_rules! metrics {
    (
        single { $($metric:ident $name:literal $unit:ident $range:ident $text:literal;)* }
        families { $($family:ident $prefix:literal $family_unit:ident $family_range:ident $family_text:literal;)* }
    ) => {
        /// Something that is measured at a step. The order is that of the glossary and of a line of `metrics.jsonl`.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $text] $metric,)*
            $(#[doc = $family_text] $family(Label),)*
        }

        impl Metric {
            const DEFINITIONS: &[Definition] = &[
                $(Definition { name: $name, unit: Unit::$unit, range: Range::$range, text: $text },)*
                $(Definition {
                    name: concat!($prefix, "<name>"),
                    unit: Unit::$family_unit,
                    range: Range::$family_range,
                    text: $family_text,
                },)*
            ];

            /// What is known of this metric.
            pub fn definition(&self) -> Definition {
                match self {
                    $(Self::$metric => Definition {
                        name: $name, unit: Unit::$unit, range: Range::$range, text: $text,
                    },)*
                    $(Self::$family(_) => Definition {
                        name: concat!($prefix, "<name>"),
                        unit: Unit::$family_unit,
                        range: Range::$family_range,
                        text: $family_text,
                    },)*
                }
            }
        }

        impl fmt::Display for Metric {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$metric => f.write_str($name),)*
                    $(Self::$family(label) => write!(f, "{}{}", $prefix, label.as_str()),)*
                }
            }
        }

        impl FromStr for Metric {
            type Err = MetricsError;

            fn from_str(name: &str) -> Result<Self, MetricsError> {
                match name {
                    $($name => return Ok(Self::$metric),)*
                    _ => {}
                }
                $(if let Some(label) = name.strip_prefix($prefix) {
                    return Ok(Self::$family(Label::new(label)?));
                })*
                Err(MetricsError::Unknown(name.chars().take(80).collect()))
            }
        }
    };
}

metrics! {
    single {
        EvalExactMatch "eval/exact_match" Share Unit
            "Share of the held-out questions that the greedy policy answers exactly right.";
        EvalReward "eval/reward" Reward Any
            "Mean reward of the greedy rollouts on the held-out questions.";
        EvalLengthMean "eval/length_mean" Tokens NonNegative
            "Mean number of tokens that the policy writes for a held-out question.";
        EvalTruncated "eval/truncated" Share Unit
            "Share of the held-out rollouts that ran into the limit of tokens.";

        RewardMean "reward/mean" Reward Any
            "Mean reward of the step's rollouts, after DAPO's punishment of length.";
        RewardStd "reward/std" Reward NonNegative
            "Standard deviation of the step's rewards over all rollouts (dividing by n).";
        RewardMin "reward/min" Reward Any
            "Smallest reward of the step.";
        RewardMax "reward/max" Reward Any
            "Largest reward of the step.";

        GroupsZeroAdvantage "groups/zero_advantage" Share Unit
            "Share of the groups whose rewards are all equal, so that no advantage is left to learn from; not for PPO, whose advantages are the critic's.";
        GroupsKept "groups/kept" Share Unit
            "Share of the step's groups that the update learns from, after filtering or sampling.";
        GroupsStdMean "groups/std_mean" Reward NonNegative
            "Mean over the groups of the standard deviation of their rewards.";
        GroupsValueMean "groups/value_mean" Dimensionless NonNegative
            "Mean task value `V(q) = (R_max - mean) * std` of the step's groups.";

        PolicyLoss "policy/loss" Loss Any
            "The objective that is minimised, KL term included; for SFT the cross-entropy in nats per token.";
        PolicyKl "policy/kl" Nats Any
            "Estimated KL divergence of the policy from the reference, mean over the policy's tokens.";
        PolicyKlMax "policy/kl_max" Nats Any
            "Largest single-token estimate of the KL divergence from the reference.";
        PolicyKlOld "policy/kl_old" Nats Any
            "Estimated KL divergence of the policy that sampled the rollouts from the one that learns, mean over the former's tokens.";
        PolicySamplerGap "policy/sampler_gap" Nats NonNegative
            "Mean distance between ln p of the policy's tokens as the sampler had it and as the trainer computes it again; at temperature 1 only.";
        PolicyEntropy "policy/entropy" Nats NonNegative
            "Mean entropy of the policy's next-token distribution over its own tokens.";
        PolicyClipFraction "policy/clip_fraction" Share Unit
            "Share of the policy's tokens whose ratio lies beyond the clip: for CISPO on either side, else on that which the advantage moves it to.";
        PolicyRatioMax "policy/ratio_max" Dimensionless NonNegative
            "Largest ratio of a token's probabilities under the new and the sampling policy.";
        PolicyGradNorm "policy/grad_norm" Dimensionless NonNegative
            "L2 norm of the gradient over all trained parameters, before clipping: the largest of the step's updates.";
        PolicyLearningRate "policy/learning_rate" Dimensionless NonNegative
            "Learning rate of the step, after warm-up and schedule.";

        ValueLoss "value/loss" Loss NonNegative
            "Squared error of the value head (PPO), half of its mean over the policy's tokens.";

        SamplerMultiplicityMax "sampler/multiplicity_max" Count NonNegative
            "Most times that a prompt entered the batch (VSPO).";
        SamplerEffectivePrompts "sampler/effective_prompts" Count NonNegative
            "Effective number of different prompts in the batch: (sum of m)^2 / sum of m^2 over the multiplicities m.";

        RolloutTokens "rollout/tokens" Tokens NonNegative
            "Tokens that the policy wrote in this step, all rollouts together.";
        RolloutLengthMean "rollout/length_mean" Tokens NonNegative
            "Mean number of tokens that the policy wrote in a rollout.";
        RolloutLengthMax "rollout/length_max" Tokens NonNegative
            "Most tokens that the policy wrote in one rollout.";
        RolloutTurns "rollout/turns" Count NonNegative
            "Mean number of the policy's turns in a rollout.";
        RolloutToolCalls "rollout/tool_calls" Count NonNegative
            "Mean number of tool calls that the policy made in a rollout, broken and unanswered ones included.";
        RolloutTruncated "rollout/truncated" Share Unit
            "Share of the rollouts that ran into the limit of tokens.";
        RolloutOverlong "rollout/overlong" Reward NonNegative
            "Mean of what the soft overlong punishment took off a rollout's reward (DAPO).";
        RolloutInvalid "rollout/invalid" Share Unit
            "Share of the rollouts that were dropped because no score was available for them.";

        SpeedTokensPerSecond "speed/tokens_per_second" TokensPerSecond NonNegative
            "Tokens that the policy wrote per second of the rollout phase.";
        SpeedTrainTokensPerSecond "speed/train_tokens_per_second" TokensPerSecond NonNegative
            "Tokens, prompts included, that went through forward and backward, each epoch anew, per second of the update phase.";
        SpeedStepSeconds "speed/step_seconds" Seconds NonNegative
            "Wall time of the whole step, evaluation included and checkpoint not.";
        SpeedRolloutSeconds "speed/rollout_seconds" Seconds NonNegative
            "Wall time that the rollouts took.";
        SpeedRewardSeconds "speed/reward_seconds" Seconds NonNegative
            "Wall time that scoring took.";
        SpeedTrainSeconds "speed/train_seconds" Seconds NonNegative
            "Wall time that the update took.";
        SpeedEvalSeconds "speed/eval_seconds" Seconds NonNegative
            "Wall time that the evaluation took.";
    }
    families {
        RewardStage "reward/stage/" Share Unit
            "Mean score of a rubric's stage over the rollouts that reached it.";
        RewardReached "reward/reached/" Share Unit
            "Share of the rollouts that reached a rubric's stage.";
        RewardMastery "reward/mastery/" Share Unit
            "Share of the rollouts that passed a rubric's stage, of those that reached it.";
        EvalExactMatchPart "eval/exact_match/" Share Unit
            "Exact match on one part of the held-out questions, such as those of two hops.";
    }
}

impl Metric {
    /// What is known of all metrics, each family being one entry.
    pub fn definitions() -> &'static [Definition] {
        Self::DEFINITIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back() {
        for definition in Metric::definitions() {
            let name = definition.name.replace("<name>", "tool_parse");
            let metric: Metric = name.parse().unwrap();
            assert_eq!(metric.to_string(), name);
            assert_eq!(metric.definition(), *definition);
        }
    }

    #[test]
    fn names_are_unique_and_in_tensorboard_style() {
        let mut names: Vec<&str> = Metric::definitions().iter().map(|definition| definition.name).collect();
        assert!(names.iter().all(|name| name.contains('/') && !name.contains(' ')));
        let before = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn an_unknown_name_and_a_bad_label_are_refused() {
        assert!(matches!("reward/men".parse::<Metric>(), Err(MetricsError::Unknown(name)) if name == "reward/men"));
        for bad in ["reward/stage/", "reward/stage/a b", "reward/stage/a/b", "reward/stage/größe"] {
            assert!(matches!(bad.parse::<Metric>(), Err(MetricsError::Label(_))), "{bad}");
        }
    }
}
