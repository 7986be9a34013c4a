//! What a step measured, as metrics. In: what was tried, groups and plan, what the update saw. Out: values by their metric.

use std::collections::BTreeMap;

use super::env::Message;
use super::experience::Sample;
use super::groups::{self, Group};
use super::metrics::{Label, Metric};
use super::overlong::Overlong;
use super::reward::Scored;
use super::rollout::Rollout;
use super::run::Run;
use super::update::UpdateStatistics;
use crate::advantage::Plan;
use crate::toolcall::{self, Offered, Options};
use crate::trajectory::Role;

/// What a step measured.
pub(super) type Values = Vec<(Metric, f64)>;

/// Seconds that the parts of a step took.
#[derive(Default)]
pub(super) struct Clock {
    pub rollout: f64,
    pub reward: f64,
    pub train: f64,
}

/// All that was tried in a step, with a score or without.
#[derive(Default)]
pub(super) struct Attempts {
    pub scored: Vec<Scored>,
    pub written: Vec<Written>,
}

/// What metrics count of a rollout.
pub(super) struct Written {
    pub tokens: u64,
    turns: f64,
    tool_calls: f64,
    is_truncated: bool,
    /// What was taken off its reward for its length, in units of the reward.
    pub overlong: f64,
}

impl Written {
    /// Of a rollout whose calls are written so.
    pub(super) fn of(rollout: &Rollout, calls: &Options, tools: &impl Offered) -> Self {
        let turns = || rollout.messages.iter().filter(|message| message.role == Role::Assistant);
        let made = |turn: &Message| toolcall::parse(&turn.text, calls, tools).attempts.len();
        Self {
            tokens: rollout.written_count() as u64,
            turns: turns().count() as f64,
            tool_calls: turns().map(made).sum::<usize>() as f64,
            is_truncated: rollout.truncated,
            overlong: 0.0,
        }
    }
}

impl Run {
    /// Of what was tried.
    pub(super) fn rollout_values(&self, groups: &[Group], all: &Attempts, plan: &Plan, clock: &Clock) -> Values {
        let rewards: Vec<f64> = all.scored.iter().filter_map(|scored| scored.reward).collect();
        let reward = mean(rewards.iter().copied());
        let deviation = mean(rewards.iter().map(|r| (r - reward).powi(2))).sqrt();
        let over_all = |of: fn(&Written) -> f64| mean(all.written.iter().map(of));
        let tokens = || all.written.iter().map(|written| written.tokens as f64);
        let over_groups = |of: &dyn Fn(&Group) -> f64| mean(groups.iter().map(of));
        let copies = || plan.multiplicity.iter().map(|copies| f64::from(*copies));
        let squares: f64 = copies().map(|copies| copies * copies).sum();
        let sigma_min = groups::flat_below(&self.config);
        let mut values = vec![
            (Metric::RewardMean, reward),
            (Metric::RewardStd, deviation),
            (Metric::RewardMin, rewards.iter().copied().reduce(f64::min).unwrap_or(0.0)),
            (Metric::RewardMax, rewards.iter().copied().reduce(f64::max).unwrap_or(0.0)),
            (Metric::GroupsKept, mean(copies().map(|copies| f64::from(u8::from(copies > 0.0))))),
            (Metric::GroupsStdMean, over_groups(&|group| group.statistics.std)),
            (Metric::GroupsValueMean, over_groups(&|group| group.statistics.value)),
            (Metric::SamplerMultiplicityMax, copies().reduce(f64::max).unwrap_or(0.0)),
            (
                Metric::SamplerEffectivePrompts,
                if squares > 0.0 { copies().sum::<f64>().powi(2) / squares } else { 0.0 },
            ),
            (Metric::RolloutTokens, tokens().sum()),
            (Metric::RolloutLengthMean, mean(tokens())),
            (Metric::RolloutLengthMax, tokens().reduce(f64::max).unwrap_or(0.0)),
            (Metric::RolloutTurns, over_all(|written| written.turns)),
            (Metric::RolloutToolCalls, over_all(|written| written.tool_calls)),
            (Metric::RolloutTruncated, over_all(|written| f64::from(u8::from(written.is_truncated)))),
            (Metric::RolloutInvalid, 1.0 - rewards.len() as f64 / all.scored.len().max(1) as f64),
            (Metric::SpeedRolloutSeconds, clock.rollout),
            (Metric::SpeedRewardSeconds, clock.reward),
            (Metric::SpeedTokensPerSecond, tokens().sum::<f64>() / clock.rollout.max(1e-9)),
        ];
        // A critic's advantages are not taken within a group.
        if self.config.algorithm.compares_in_groups() {
            let flat = over_groups(&|group| f64::from(u8::from(group.statistics.is_flat(sigma_min))));
            values.push((Metric::GroupsZeroAdvantage, flat));
        }
        if Overlong::of(&self.config, &self.rewarder).is_some() {
            values.push((Metric::RolloutOverlong, over_all(|written| written.overlong)));
        }
        values.extend(stage_values(&all.scored));
        values
    }

    /// Of what was learnt.
    pub(super) fn update_values(&self, step: u64, samples: &[Sample], seen: &UpdateStatistics, seconds: f64) -> Values {
        let tokens = seen.tokens.max(1.0);
        let batch: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        let whole = batch * self.config.update.epochs;
        let mut values = vec![
            (Metric::PolicyLoss, seen.loss / seen.optimizer_steps.max(1) as f64),
            (Metric::PolicyKl, seen.kl / tokens),
            (Metric::PolicyKlMax, seen.kl_max),
            (Metric::PolicyKlOld, seen.kl_old / tokens),
            (Metric::PolicyEntropy, seen.entropy / tokens),
            (Metric::PolicyClipFraction, seen.clipped / tokens),
            (Metric::PolicyRatioMax, seen.ratio_max),
            (Metric::PolicyGradNorm, seen.grad_norm),
            (Metric::PolicyLearningRate, self.config.learning_rate.at(step, self.config.steps)),
            (Metric::SpeedTrainSeconds, seconds),
        ];
        // What samplers say is said at temperature 1.
        if seen.compared > 0.0 && self.config.rollout.temperature == 1.0 {
            values.push((Metric::PolicySamplerGap, seen.sampler_gap / seen.compared));
        }
        if whole > 0 {
            values.push((Metric::SpeedTrainTokensPerSecond, whole as f64 / seconds.max(1e-9)));
        }
        if self.config.algorithm.has_critic() {
            values.push((Metric::ValueLoss, 0.5 * seen.value_error / tokens));
        }
        values
    }
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Per stage: who reached it, the mean score of those, and who of them passed.
fn stage_values(all: &[Scored]) -> Values {
    let mut stages: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    let scored = || all.iter().filter(|scored| scored.reward.is_some());
    for stage in scored().flat_map(|scored| &scored.stages) {
        let sums = stages.entry(&stage.name).or_default();
        if stage.open {
            sums[0] += 1.0;
            sums[1] += stage.score;
            sums[2] += f64::from(u8::from(stage.passed));
        }
    }
    let count = scored().count().max(1) as f64;
    let mut values = Vec::new();
    for (name, [reached, score, passed]) in stages {
        let Ok(label) = Label::new(name) else { continue };
        values.push((Metric::RewardReached(label.clone()), reached / count));
        if reached > 0.0 {
            values.push((Metric::RewardStage(label.clone()), score / reached));
            values.push((Metric::RewardMastery(label), passed / reached));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolcall::tools::ToolSet;

    #[test]
    fn all_calls_of_a_turn_count_answered_or_not() {
        let message = |role, text: &str| Message { role, text: text.to_owned() };
        let call = "<tool_call>{\"name\": \"search\", \"arguments\": {}}</tool_call>";
        let rollout = Rollout {
            messages: vec![
                message(Role::User, call),
                message(Role::Assistant, &call.repeat(3)),
                message(Role::Tool, "nothing found"),
                message(Role::Assistant, "<tool_call>{\"name\": </tool_call>"),
                message(Role::Assistant, "Lyon"),
            ],
            ..Rollout::default()
        };
        let written = Written::of(&rollout, &Options::default(), &ToolSet::default());
        assert_eq!((written.turns, written.tool_calls), (3.0, 4.0));
    }
}
