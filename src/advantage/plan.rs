//! VSPO's plan: which groups of a batch leave it, which enter it several times, and how much their advantages count.
//!
//! In: the statistics of the groups in batch order and a number in [0, 1). Out: a multiplicity and a factor per group.
//! The value is the paper's (arXiv:2512.07478); the threshold, the way of drawing and the form of the smoothing are
//! this project's reading of it. Knows no reward and no rollout.

use serde::{Deserialize, Serialize};

use super::{EPSILON, GroupStatistics};

/// What happens to a group that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Its rollouts enter the batch again, their advantages smoothed.
    #[default]
    Reuse,
    /// Fresh rollouts are sampled for it with the current policy: `multiplicity - 1` more groups, nothing to smooth.
    Regenerate,
}

/// How prompts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// In proportion to the task value.
    #[default]
    Value,
    /// All alike: the paper's ablation "random sampling".
    #[serde(alias = "random")]
    Uniform,
}

/// Settings of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanConfig {
    /// Groups whose standard deviation is below this leave the batch; in units of the reward, 0 or more.
    pub sigma_min: f64,
    /// What each further copy of a group counts in relation to the one before, from 0 to 1; 1 is no smoothing.
    pub gamma: f64,
    /// Most that all copies of a group count together; above 0, infinite for no limit.
    pub w_max: f64,
    /// What happens to a group that is drawn.
    pub mode: Mode,
    /// How prompts are drawn.
    pub sampling: Sampling,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self { sigma_min: EPSILON, gamma: 0.5, w_max: 2.0, mode: Mode::Reuse, sampling: Sampling::Value }
    }
}

/// A setting is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PlanConfigError {
    /// `sigma_min` is negative or no number.
    #[error("sigma_min = {0} is out of range; it must be 0 or more and finite")]
    SigmaMin(f64),
    /// `gamma` is no factor.
    #[error("gamma = {0} is out of range; it must be from 0 to 1")]
    Gamma(f64),
    /// `w_max` lets nothing count.
    #[error("w_max = {0} is out of range; it must be above 0; no limit is `null` in JSON and `inf` in TOML")]
    WMax(f64),
}

impl PlanConfigError {
    /// The setting's name.
    pub fn field(&self) -> &'static str {
        match self {
            Self::SigmaMin(_) => "sigma_min",
            Self::Gamma(_) => "gamma",
            Self::WMax(_) => "w_max",
        }
    }
}

impl PlanConfig {
    /// The settings, when each is in its range.
    ///
    /// # Errors
    /// Names the first one that is not.
    pub fn checked(self) -> Result<Self, PlanConfigError> {
        if !(self.sigma_min >= 0.0 && self.sigma_min.is_finite()) {
            return Err(PlanConfigError::SigmaMin(self.sigma_min));
        }
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(PlanConfigError::Gamma(self.gamma));
        }
        if self.w_max > 0.0 { Ok(self) } else { Err(PlanConfigError::WMax(self.w_max)) }
    }
}

/// What becomes of each group; all lists are in batch order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How often the group is in the batch: 0 when it left, else 1 plus how often it was drawn.
    pub multiplicity: Vec<u32>,
    /// What the group's advantages are multiplied by when it is computed once for all its copies.
    pub factor: Vec<f64>,
}

impl Plan {
    /// Groups that are in the batch once, or not at all.
    pub fn once(kept: impl IntoIterator<Item = bool>) -> Self {
        let multiplicity: Vec<u32> = kept.into_iter().map(u32::from).collect();
        let factor = multiplicity.iter().copied().map(f64::from).collect();
        Self { multiplicity, factor }
    }

    /// Every group once in which a rollout can be compared with another.
    pub fn compared(groups: &[GroupStatistics]) -> Self {
        Self::once(groups.iter().map(|group| group.n > 1))
    }

    /// What is left of a batch by DAPO's dynamic sampling (arXiv:2503.14476): every group once whose rewards deviate by
    /// [`EPSILON`] or more. Degenerate case (ours): where none does, the batch stays, as VSPO's does.
    pub fn sampled_dynamically(groups: &[GroupStatistics]) -> Self {
        if groups.iter().all(|group| group.is_flat(EPSILON)) {
            return Self::compared(groups);
        }
        Self::once(groups.iter().map(|group| !group.is_flat(EPSILON)))
    }

    /// Every group once.
    fn unchanged(groups: usize, config: &PlanConfig) -> Self {
        Self::with(vec![1; groups], config)
    }

    fn with(multiplicity: Vec<u32>, config: &PlanConfig) -> Self {
        let factor = |&multiplicity: &u32| match config.mode {
            Mode::Reuse => smoothing_factor(multiplicity, config.gamma, config.w_max),
            Mode::Regenerate => f64::from(u8::from(multiplicity > 0)),
        };
        let factor = multiplicity.iter().map(factor).collect();
        Self { multiplicity, factor }
    }
}

/// Plans a batch: each group without spread gives its place to one that is drawn from the others.
///
/// `offset` in [0, 1) is where the systematic resampling starts: [`super::unit_from_seed`] makes one. Where all groups
/// have spread, or none has, the batch stays as it is.
pub fn plan(groups: &[GroupStatistics], config: &PlanConfig, offset: f64) -> Plan {
    let kept = |group: &GroupStatistics| !group.is_flat(config.sigma_min);
    let places = groups.iter().filter(|group| !kept(group)).count();
    if places == 0 || places == groups.len() {
        return Plan::unchanged(groups.len(), config);
    }
    let weight = |group: &GroupStatistics| match config.sampling {
        _ if !kept(group) => 0.0,
        Sampling::Value => group.value,
        Sampling::Uniform => 1.0,
    };
    let mut weights: Vec<f64> = groups.iter().map(weight).collect();
    if !weights.iter().any(|weight| *weight > 0.0) {
        // No prompt is worth more than another (only where rewards exceed `max_reward`): all that are kept are alike.
        weights = groups.iter().map(|group| f64::from(u8::from(kept(group)))).collect();
    }
    let drawn = systematic_draws(&weights, places, offset);
    let multiplicity = groups.iter().zip(drawn).map(|(group, drawn)| if kept(group) { 1 + drawn } else { 0 }).collect();
    Plan::with(multiplicity, config)
}

/// What `multiplicity` copies of a group count together: `min(w_max, 1 + gamma + gamma^2 + ..)`, 0 for none.
pub fn smoothing_factor(multiplicity: u32, gamma: f64, w_max: f64) -> f64 {
    if multiplicity == 0 {
        return 0.0;
    }
    let copies = f64::from(multiplicity);
    let sum = if gamma == 1.0 { copies } else { (1.0 - gamma.powf(copies)) / (1.0 - gamma) };
    sum.min(w_max)
}

/// Systematic resampling: how often each place is hit by the points `(offset + j) / draws`, j from 0, of the cumulated
/// weights. Weights that are negative or no numbers count as 0; where all are 0 nothing is drawn.
pub fn systematic_draws(weights: &[f64], draws: usize, offset: f64) -> Vec<u32> {
    let weight = |weight: &f64| if *weight > 0.0 { *weight } else { 0.0 };
    let total: f64 = weights.iter().map(weight).sum();
    let mut hits = vec![0_u32; weights.len()];
    let Some(last) = weights.iter().rposition(|weight| *weight > 0.0) else {
        return hits;
    };
    let (mut cumulated, mut next) = (0.0, 0_usize);
    for (place, (hit, each)) in hits.iter_mut().zip(weights).enumerate() {
        cumulated += weight(each);
        // The last one takes what rounding left over.
        while next < draws && (place == last || (offset + next as f64) / draws as f64 * total < cumulated) {
            *hit = hit.saturating_add(1);
            next += 1;
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(rewards: &[f64]) -> GroupStatistics {
        GroupStatistics::of(&mut rewards.to_vec(), 1.0)
    }

    #[test]
    fn a_group_without_spread_gives_its_place_to_the_most_valuable() {
        let groups = [group(&[0.0, 0.0]), group(&[0.0, 1.0]), group(&[1.0, 1.0]), group(&[0.9, 1.0])];
        let plan = plan(&groups, &PlanConfig::default(), 0.0);
        assert_eq!(plan, Plan { multiplicity: vec![0, 3, 0, 1], factor: vec![0.0, 1.75, 0.0, 1.0] });
    }

    #[test]
    fn without_places_or_without_candidates_the_batch_stays() {
        for groups in [vec![group(&[0.0, 1.0]); 3], vec![group(&[1.0, 1.0]); 3], Vec::new()] {
            let plan = plan(&groups, &PlanConfig::default(), 0.5);
            assert_eq!(plan.multiplicity, vec![1; groups.len()]);
            assert_eq!(plan.factor, vec![1.0; groups.len()]);
        }
    }

    #[test]
    fn dynamic_sampling_leaves_flat_groups_out_unless_nothing_else_is_there() {
        let of = |groups: &[GroupStatistics]| Plan::sampled_dynamically(groups).multiplicity;
        let (flat, single, little) = (group(&[1.0, 1.0]), group(&[1.0]), group(&[0.5, 0.500_001]));
        assert_eq!(of(&[flat, group(&[0.0, 1.0]), little, single]), [0, 1, 0, 0]);
        assert_eq!(of(&[flat, little, single]), [1, 1, 0]);
        assert_eq!(Plan::compared(&[flat, single, group(&[])]).multiplicity, [1, 0, 0]);
    }

    #[test]
    fn the_factor_is_the_clipped_sum_of_the_copies() {
        let factors: Vec<f64> = (0..5).map(|m| smoothing_factor(m, 0.5, 1.6)).collect();
        assert_eq!(factors, [0.0, 1.0, 1.5, 1.6, 1.6]);
        assert_eq!(smoothing_factor(7, 1.0, f64::INFINITY), 7.0);
        assert_eq!(smoothing_factor(7, 0.0, 2.0), 1.0);
    }

    #[test]
    fn fresh_rollouts_need_no_smoothing() {
        let groups = [group(&[0.0, 0.0]), group(&[0.0, 1.0])];
        let plan = plan(&groups, &PlanConfig { mode: Mode::Regenerate, ..PlanConfig::default() }, 0.3);
        assert_eq!(plan, Plan { multiplicity: vec![0, 2], factor: vec![0.0, 1.0] });
    }

    #[test]
    fn uniform_sampling_ignores_the_value() {
        let groups = [group(&[0.5; 2]), group(&[0.5; 2]), group(&[0.0, 1.0]), group(&[0.99, 1.0])];
        let plan = plan(&groups, &PlanConfig { sampling: Sampling::Uniform, ..PlanConfig::default() }, 0.0);
        assert_eq!(plan.multiplicity, [0, 0, 2, 2]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = |config: PlanConfig| config.checked().unwrap_err().field();
        let fine = PlanConfig::default();
        assert_eq!(fine.checked(), Ok(fine));
        assert_eq!(wrong(PlanConfig { gamma: 1.5, ..fine }), "gamma");
        assert_eq!(wrong(PlanConfig { gamma: f64::NAN, ..fine }), "gamma");
        assert_eq!(wrong(PlanConfig { w_max: 0.0, ..fine }), "w_max");
        assert_eq!(wrong(PlanConfig { sigma_min: -1.0, ..fine }), "sigma_min");
        assert_eq!(wrong(PlanConfig { gamma: -0.5, ..fine }), "gamma");
        assert_eq!(wrong(PlanConfig { w_max: f64::NAN, ..fine }), "w_max");
        assert_eq!(wrong(PlanConfig { sigma_min: f64::INFINITY, ..fine }), "sigma_min");
    }

    #[test]
    fn where_rewards_exceed_the_largest_all_with_spread_are_alike() {
        // (1 - 2.5) 0.5 is no probability.
        let groups = [group(&[2.0, 3.0]), group(&[3.0, 3.0]), group(&[3.0, 3.0]), group(&[4.0, 5.0])];
        assert_eq!(plan(&groups, &PlanConfig::default(), 0.0).multiplicity, [2, 0, 0, 2]);
    }

    #[test]
    fn no_draw_is_lost_to_rounding() {
        // 1 - 2^-53 + 1 is 2: the last point is at the end of the weights, not before it.
        let offset = 1.0 - f64::EPSILON / 2.0;
        assert_eq!(systematic_draws(&[1.0, 1.0, 0.0], 2, offset), [1, 1, 0]);
    }

    proptest! {
        #[test]
        fn each_is_drawn_its_expectation_rounded_up_or_down(
            weights in prop::collection::vec(0.0_f64..10.0, 1..20), draws in 0_usize..40, offset in 0.0_f64..1.0,
        ) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 1e-6);
            let hits = systematic_draws(&weights, draws, offset);
            prop_assert_eq!(hits.iter().map(|hits| *hits as usize).sum::<usize>(), draws);
            for (weight, hits) in weights.iter().zip(hits) {
                let expected = weight / total * draws as f64;
                prop_assert!((f64::from(hits) - expected).abs() < 1.0 + 1e-9, "{hits} of {expected}");
            }
        }

        #[test]
        fn a_plan_keeps_the_size_of_the_batch(
            rewards in prop::collection::vec(prop::collection::vec(0_u8..3, 4), 1..12), seed in any::<u64>(),
        ) {
            let groups: Vec<_> = rewards
                .iter()
                .map(|rewards| group(&rewards.iter().map(|reward| f64::from(*reward) / 2.0).collect::<Vec<_>>()))
                .collect();
            let plan = plan(&groups, &PlanConfig::default(), super::super::unit_from_seed(seed));
            prop_assert_eq!(plan.multiplicity.iter().sum::<u32>() as usize, groups.len());
        }
    }
}
