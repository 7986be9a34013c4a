//! Groups of rollouts: which count, how much, and the advantages in them. In: scored rollouts. Out: samples.

use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::config::{Check, TrainConfig, is_share};
use super::experience::Sample;
use super::reward::Scored;
use super::rollout::Rollout;
use super::seeds::{Purpose, draw};
use crate::advantage::{
    self, Episode, GaeConfig, GroupStatistics, Mode, Plan, PlanConfig, PlanConfigError, Sampling, gae,
    group_advantages, plan, unit_from_seed,
};

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
    pub(super) fn checks(&self) -> Vec<Check> {
        let wrong = PlanConfig { gamma: self.gamma, w_max: self.w_max, ..self.plan() }.checked().err();
        vec![
            (matches!(wrong, Some(PlanConfigError::Gamma(_))), "vspo.gamma", "must be from 0 to 1"),
            (matches!(wrong, Some(PlanConfigError::WMax(_))), "vspo.w_max", "must be above 0"),
            (matches!(wrong, Some(PlanConfigError::SigmaMin(_))), "vspo.sigma_min", "must be 0 or more"),
        ]
    }
}

/// DAPO's dynamic sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DapoConfig {
    /// How often fresh prompts are drawn for those whose rewards are all equal; 1 draws none.
    pub max_rounds: usize,
}

impl Default for DapoConfig {
    fn default() -> Self {
        Self { max_rounds: 3 }
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
    /// What it must not be.
    pub(super) fn checks(self) -> Vec<Check> {
        vec![(self.max_rounds == 0, "dapo.max_rounds", "is 0; it must be 1 or more, and 1 draws no fresh prompts")]
    }
}

impl PpoConfig {
    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![
            (!is_share(self.gamma), "ppo.gamma", "must be from 0 to 1"),
            (!is_share(self.lambda), "ppo.lambda", "must be from 0 to 1"),
        ]
    }
}

/// Keeps the division of an advantage finite, in units of the reward.
const EPSILON: f64 = 1e-6;

/// The deviation of rewards below which a group counts as flat.
pub(super) fn flat_below(config: &TrainConfig) -> f64 {
    if config.algorithm == Algorithm::Vspo { config.vspo.sigma_min } else { EPSILON }
}

/// The rollouts of a prompt that have a reward.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Index of the task.
    pub task: usize,
    /// Rollouts with what they are worth.
    pub attempts: Vec<(Rollout, Scored)>,
    /// Statistics of their rewards.
    pub statistics: GroupStatistics,
}

impl Group {
    /// A group; rollouts without a reward are left out.
    pub fn new(task: usize, attempts: Vec<(Rollout, Scored)>, max_reward: f64) -> Self {
        let attempts: Vec<_> = attempts.into_iter().filter(|(_, scored)| scored.reward.is_some()).collect();
        let mut group = Self { task, attempts, statistics: GroupStatistics::default() };
        group.statistics = GroupStatistics::of(&mut group.rewards(), max_reward);
        group
    }

    /// The rewards in the order of the rollouts.
    pub fn rewards(&self) -> Vec<f64> {
        self.attempts.iter().filter_map(|(_, scored)| scored.reward).collect()
    }

    /// Whether no advantage is left to learn from.
    pub fn is_flat(&self, sigma_min: f64) -> bool {
        self.statistics.std < sigma_min || self.statistics.std.is_nan()
    }
}

/// How often each group counts.
pub(super) fn planned(config: &TrainConfig, groups: &[Group], step: u64) -> Plan {
    match config.algorithm {
        Algorithm::Vspo => {
            let statistics: Vec<GroupStatistics> = groups.iter().map(|group| group.statistics).collect();
            let offset = unit_from_seed(draw(config.seed, Purpose::Resampling, [step, 0]));
            plan(&statistics, &config.vspo.plan(), offset)
        }
        // Dynamic sampling: what is still flat after the last round leaves the batch, unless nothing else is in it.
        Algorithm::Dapo if groups.iter().any(|group| !group.is_flat(flat_below(config))) => {
            Plan::once(groups.iter().map(|group| !group.is_flat(flat_below(config))))
        }
        Algorithm::Sft | Algorithm::Ppo | Algorithm::Grpo | Algorithm::Dapo | Algorithm::Cispo => {
            Plan::once(groups.iter().map(|_| true))
        }
    }
}

/// How many more rollouts each group of a plan is to get: with `regenerate`, those of its copies.
pub(super) fn regenerated(config: &TrainConfig, plan: &Plan) -> Vec<usize> {
    let fresh = config.algorithm == Algorithm::Vspo && config.vspo.mode == Mode::Regenerate;
    let more = |m: &u32| if fresh { m.saturating_sub(1) as usize * config.rollout.group_size } else { 0 };
    plan.multiplicity.iter().map(more).collect()
}

/// The samples of all groups that count, with advantages by their group. PPO's come later: they need the critic.
pub(super) fn samples(config: &TrainConfig, groups: &[Group], plan: &Plan) -> Vec<Sample> {
    let formula = match config.algorithm {
        Algorithm::Vspo => advantage::Algorithm::Vspo,
        Algorithm::Dapo => advantage::Algorithm::Dapo,
        // PPO's are put in their place by the critic's; demonstrations have none.
        Algorithm::Grpo | Algorithm::Cispo | Algorithm::Ppo | Algorithm::Sft => advantage::Algorithm::Grpo,
    };
    // Fresh rollouts are in the batch themselves: nothing counts twice.
    let fresh = config.vspo.mode == Mode::Regenerate;
    let mut samples = Vec::new();
    for ((group, factor), copies) in groups.iter().zip(&plan.factor).zip(&plan.multiplicity) {
        if *copies == 0 {
            continue;
        }
        let advantages = group_advantages(formula, &group.rewards(), &group.statistics, EPSILON);
        for ((rollout, _), advantage) in group.attempts.iter().zip(advantages) {
            let mut sample = Sample::of(rollout);
            sample.advantages = vec![advantage; sample.written.len()];
            (sample.factor, sample.copies) = (*factor, if fresh { 1.0 } else { f64::from(*copies) });
            if !sample.written.is_empty() {
                samples.push(sample);
            }
        }
    }
    samples
}

/// PPO: the advantages and returns of samples whose values are known; the reward is given at the last written token.
pub(super) fn by_critic(samples: &mut [Sample], rewards: &[f64], config: &PpoConfig) {
    let gae_config = GaeConfig { gamma: config.gamma, lambda: config.lambda };
    for (sample, reward) in samples.iter_mut().zip(rewards) {
        let count = sample.written.len();
        // Between two written tokens nothing happens to the state that runs over time: they are neighbours.
        let (mut given, mask) = (vec![0.0; count], vec![true; count]);
        if let Some(last) = given.last_mut() {
            *last = *reward;
        }
        let episode = Episode { rewards: &given, values: &sample.old_values, mask: &mask, bootstrap: 0.0 };
        let found = gae(episode, gae_config);
        (sample.advantages, sample.returns) = (found.advantages, found.returns);
    }
    if config.whiten {
        whiten(samples);
    }
}

/// Brings advantages to mean 0 and deviation 1 over all tokens.
fn whiten(samples: &mut [Sample]) {
    let all: Vec<f64> = samples.iter().flat_map(|sample| sample.advantages.iter().copied()).collect();
    if all.len() < 2 {
        return;
    }
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let variance = all.iter().map(|advantage| (advantage - mean).powi(2)).sum::<f64>() / all.len() as f64;
    let scale = 1.0 / (variance.sqrt() + 1e-8);
    for advantage in samples.iter_mut().flat_map(|sample| &mut sample.advantages) {
        *advantage = (*advantage - mean) * scale;
    }
}
