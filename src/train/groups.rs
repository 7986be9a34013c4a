//! Groups of rollouts: which count, how much, and the advantages in them. In: scored rollouts. Out: samples.

mod config;

pub use self::config::{DapoConfig, PpoConfig, VspoConfig};
use super::TrainError;
use super::algorithm::Algorithm;
use super::config::TrainConfig;
use super::experience::Sample;
use super::reward::Scored;
use super::rollout::Rollout;
use super::seeds::{Purpose, draw};
use crate::advantage::{
    EPSILON, Episode, Formula, GaeConfig, GroupStatistics, Mode, Plan, gae, group_advantages, plan, unit_from_seed,
};
use crate::judge::MAX_CANDIDATES;
use crate::rubric::Rubric;
use crate::stages::JudgeMode;

/// Whether a group has no more answers than a judge can put in order, where the rubric has one that does.
///
/// # Errors
/// When it may have more that differ: equal ones share a place, and where too many differ none of the rollouts gets a reward.
pub(super) fn check_size(config: &TrainConfig, rubric: Option<&Rubric>) -> Result<(), TrainError> {
    let size = config.rollout.group_size;
    let ranks = |rubric: &Rubric| {
        rubric.stages.iter().filter_map(|stage| stage.stage.judge()).any(|judge| judge.mode == JudgeMode::Rank)
    };
    if size <= MAX_CANDIDATES || !config.algorithm.learns_by_reward() || !rubric.is_some_and(ranks) {
        return Ok(());
    }
    Err(TrainError::other(format!(
        "rollout.group_size: is {size}, and the rubric has a judge put the answers of a group in order: more than \
         {MAX_CANDIDATES} different answers of a group cannot be ordered; make it {MAX_CANDIDATES} or less"
    )))
}

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
}

/// How often each group counts. One of which too few rollouts have a reward is as flat as one whose rewards are equal.
pub(super) fn planned(config: &TrainConfig, groups: &[Group], step: u64) -> Plan {
    let statistics: Vec<GroupStatistics> = groups.iter().map(|group| group.statistics).collect();
    match config.algorithm {
        Algorithm::Vspo => {
            let offset = unit_from_seed(draw(config.seed, Purpose::Resampling, [step, 0]));
            plan(&statistics, &config.vspo.plan(), offset)
        }
        // What is still flat after the last round.
        Algorithm::Dapo => Plan::sampled_dynamically(&statistics),
        // A critic needs nothing to compare a rollout with.
        Algorithm::Ppo => Plan::once(statistics.iter().map(|group| group.n > 0)),
        Algorithm::Sft | Algorithm::Grpo | Algorithm::Cispo => Plan::compared(&statistics),
    }
}

/// How often each rollout of a group counts: the fresh ones of `regenerate` are in the batch themselves.
pub(super) fn counted(config: &TrainConfig, plan: &Plan) -> Vec<u32> {
    let fresh = config.vspo.mode == Mode::Regenerate;
    plan.multiplicity.iter().map(|copies| if fresh { (*copies).min(1) } else { *copies }).collect()
}

/// How many more rollouts each group of a plan is to get: with `regenerate`, those of its copies.
pub(super) fn regenerated(config: &TrainConfig, plan: &Plan) -> Vec<usize> {
    let fresh = config.algorithm == Algorithm::Vspo && config.vspo.mode == Mode::Regenerate;
    let more = |m: &u32| if fresh { m.saturating_sub(1) as usize * config.rollout.group_size } else { 0 };
    plan.multiplicity.iter().map(more).collect()
}

/// The samples of all groups that count, with advantages by their group, which every algorithm takes by GRPO's formula. PPO's
/// come later: they need the critic.
pub(super) fn samples(config: &TrainConfig, groups: &[Group], plan: &Plan) -> Vec<Sample> {
    let mut samples = Vec::new();
    for ((group, factor), copies) in groups.iter().zip(&plan.factor).zip(counted(config, plan)) {
        if copies == 0 {
            continue;
        }
        let advantages = group_advantages(Formula::Grpo, &group.rewards(), &group.statistics, EPSILON);
        for ((rollout, _), advantage) in group.attempts.iter().zip(advantages) {
            let mut sample = Sample::of(rollout);
            sample.advantages = vec![advantage; sample.written.len()];
            (sample.factor, sample.copies) = (*factor, f64::from(copies));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::tests::config;
    use crate::train::rollout::Writer;

    /// A group whose rollouts have two tokens of the policy with one of a tool between them.
    fn group(rewards: &[Option<f64>]) -> Group {
        let policy = Writer::Policy { logprob: None };
        let attempt = |reward: &Option<f64>| {
            let writers = vec![policy, Writer::Environment, policy];
            let rollout = Rollout { tokens: vec![0; 4], prompt: 1, writers, ..Rollout::default() };
            (rollout, Scored { reward: *reward, ..Scored::default() })
        };
        Group::new(0, rewards.iter().map(attempt).collect(), 1.0)
    }

    fn groups(rewards: &[[f64; 2]]) -> Vec<Group> {
        rewards.iter().map(|rewards| group(&rewards.map(Some))).collect()
    }

    #[test]
    fn rollouts_without_a_reward_are_left_out_and_the_others_keep_theirs() {
        let group = group(&[Some(1.0), None, Some(0.0)]);
        assert_eq!((group.attempts.len(), group.statistics.n, group.rewards()), (2, 2, vec![1.0, 0.0]));
        let found = samples(&config("grpo", ""), &[group], &Plan::once([true]));
        let advantages: Vec<f64> = found.iter().map(|sample| sample.advantages[0].round()).collect();
        assert_eq!((advantages, found[0].advantages.len()), (vec![1.0, -1.0], 2));
    }

    #[test]
    fn what_is_drawn_counts_its_smoothed_factor_or_is_sampled_again() {
        let batch = groups(&[[0.5, 0.5], [0.0, 1.0]]);
        for (mode, more, factor, copies) in [("reuse", [0, 0], 1.5, 2.0), ("regenerate", [0, 5], 1.0, 1.0)] {
            let config = config("vspo", &format!("vspo.mode = \"{mode}\"\nrollout.group_size = 5"));
            let plan = planned(&config, &batch, 1);
            assert_eq!((&plan.multiplicity[..], regenerated(&config, &plan)), (&[0, 2][..], more.to_vec()), "{mode}");
            let found = samples(&config, &batch, &plan);
            let counts: Vec<_> = found.iter().map(|sample| (sample.factor, sample.copies)).collect();
            assert_eq!(counts, [(factor, copies); 2], "{mode}: those of the group without spread are not there");
        }
    }

    #[test]
    fn a_rollout_of_a_group_that_is_sampled_again_counts_once() {
        let batch = groups(&[[0.5, 0.5], [0.0, 1.0]]);
        for (mode, wanted) in [("reuse", [0, 2]), ("regenerate", [0, 1])] {
            let config = config("vspo", &format!("vspo.mode = \"{mode}\""));
            assert_eq!(counted(&config, &planned(&config, &batch, 1)), wanted, "{mode}");
        }
    }

    #[test]
    fn a_group_with_one_reward_or_none_gives_its_place_away() {
        let short = [group(&[Some(1.0), None, None]), group(&[None, None])];
        let batch: Vec<Group> = short.into_iter().chain(groups(&[[0.0, 1.0], [0.0, 0.5]])).collect();
        let of = |algorithm, groups: &[Group]| planned(&config(algorithm, ""), groups, 1).multiplicity;
        assert_eq!(of("vspo", &batch).iter().sum::<u32>(), 4, "a batch keeps its size");
        assert_eq!(of("vspo", &batch)[..2], [0, 0]);
        for algorithm in ["grpo", "cispo", "dapo"] {
            assert_eq!(of(algorithm, &batch), [0, 0, 1, 1], "{algorithm}");
        }
        // A critic learns from a single rollout, too.
        assert_eq!(of("ppo", &batch), [1, 0, 1, 1]);
        assert_eq!(of("dapo", &[group(&[Some(1.0), None]), group(&[Some(0.5), Some(0.5)])]), [0, 1]);
    }

    #[test]
    fn without_smoothing_every_copy_counts_whole() {
        let batch = groups(&[[0.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]);
        let factor =
            |smoothing| planned(&config("vspo", &format!("vspo.smoothing = {smoothing}")), &batch, 1).factor[0];
        assert_eq!((factor(true), factor(false)), (1.875, 4.0));
    }

    #[test]
    fn every_step_draws_anew_and_always_the_same() {
        let spread = (0..8).map(|n| [0.0, 0.1 + 0.1 * f64::from(n)]);
        let batch = groups(&spread.chain([[0.5, 0.5]; 4]).collect::<Vec<_>>());
        let config = config("vspo", "");
        let drawn: Vec<Vec<u32>> = (1..20).map(|step| planned(&config, &batch, step).multiplicity).collect();
        assert!(drawn.iter().any(|drawn_then| *drawn_then != drawn[0]), "{drawn:?}");
        assert_eq!(drawn[3], planned(&config, &batch, 4).multiplicity);
    }

    #[test]
    fn flat_groups_leave_dapos_batch_unless_nothing_else_is_in_it() {
        let config = config("dapo", "");
        let of = |rewards: &[[f64; 2]]| planned(&config, &groups(rewards), 1).multiplicity;
        assert_eq!(of(&[[1.0, 1.0], [0.0, 1.0], [0.5, 0.500_1]]), [0, 1, 1]);
        assert_eq!(of(&[[1.0, 1.0], [0.0, 0.0]]), [1, 1]);
    }

    #[test]
    fn vspo_calls_flat_what_its_sigma_min_does() {
        let little = group(&[Some(0.5), Some(0.6)]);
        for (algorithm, flat) in [("vspo", true), ("dapo", false), ("grpo", false)] {
            assert_eq!(
                little.statistics.is_flat(flat_below(&config(algorithm, "vspo.sigma_min = 0.1"))),
                flat,
                "{algorithm}"
            );
        }
    }

    fn by_the_critic(config: PpoConfig) -> Vec<Sample> {
        let sample =
            |values: [f64; 2]| Sample { written: vec![1, 3], old_values: values.to_vec(), ..Sample::default() };
        let mut samples = vec![sample([0.5, 0.25]), sample([0.0, 0.0])];
        by_critic(&mut samples, &[1.0, 0.0], &config);
        samples
    }

    #[test]
    fn the_critics_reward_is_given_at_the_last_token() {
        let found = by_the_critic(PpoConfig { gamma: 0.9, lambda: 0.8, whiten: false });
        let last = 1.0 - 0.25;
        let first = 0.9 * 0.25 - 0.5 + 0.9 * 0.8 * last;
        assert_eq!((&found[0].advantages, &found[0].returns), (&vec![first, last], &vec![first + 0.5, 1.0]));
        assert_eq!((&found[1].advantages, &found[1].returns), (&vec![0.0, 0.0], &vec![0.0, 0.0]));
    }

    #[test]
    fn whitened_advantages_have_mean_0_and_deviation_1_over_all_tokens() {
        let all = |config| by_the_critic(config).into_iter().flat_map(|sample| sample.advantages).collect::<Vec<f64>>();
        let found = all(PpoConfig::default());
        assert!(found.iter().sum::<f64>().abs() < 1e-12, "{found:?}");
        assert!(
            (found.iter().map(|advantage| advantage * advantage).sum::<f64>() / 4.0 - 1.0).abs() < 1e-6,
            "{found:?}"
        );
        let plain = all(PpoConfig { whiten: false, ..PpoConfig::default() });
        assert_eq!(plain, [0.25 - 0.5 + 0.95 * 0.75, 0.75, 0.0, 0.0], "gamma = 1, lambda = 0.95");
    }
}
