//! Progressive Reward Shaping: stage scores, weights, thresholds and penalties become one reward.
//!
//! The idea of dense, stage-wise rewards is the paper's (arXiv:2512.07478); the formula is this project's reading:
//!
//! ```text
//! open_1 = 1,  open_{k+1} = open_k * [s_k >= t_k]
//! shaped = sum_k w_k * s_k * open_k                                   in [0, 1]
//! reward = min + (max - min) * shaped - sum_p penalty_p,  clamped to [min, max]
//! ```
//!
//! Pure. Knows neither where scores come from nor how rewards are reported.

mod curriculum;
mod penalty;

pub use curriculum::{Over, Position, Schedule, ScheduleError};
pub use penalty::{Penalty, PenaltyKind, soft_overlong};

use crate::stages::UnitScore;

/// The least and the largest reward that a rubric can give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardRange {
    min: f64,
    max: f64,
}

impl RewardRange {
    /// The range, if both ends are finite, at most 1e6 in size, and `min` is below `max`.
    pub fn new(min: f64, max: f64) -> Option<Self> {
        let fine = |end: f64| end.is_finite() && end.abs() <= 1e6;
        (fine(min) && fine(max) && min < max).then_some(Self { min, max })
    }

    /// The lowest reward.
    pub fn min(self) -> f64 {
        self.min
    }

    /// The largest reward, `R_max` of the paper's task value.
    pub fn max(self) -> f64 {
        self.max
    }
}

/// A stage's weight and threshold at one position of the curriculum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StagePlan {
    /// Share of the shaped reward; the weights of a rubric sum to 1.
    pub weight: f64,
    /// The score that opens the next stage, from 0 to 1.
    pub threshold: f64,
}

impl StagePlan {
    /// Whether a score opens the next stage.
    pub fn passed_by(self, score: UnitScore) -> bool {
        score.reaches(self.threshold)
    }
}

/// Divides the weights by their sum.
pub fn normalize_weights(plan: &mut [StagePlan]) {
    let sum: f64 = plan.iter().map(|stage| stage.weight).sum();
    for stage in plan {
        stage.weight /= sum;
    }
}

/// A reward with its breakdown; `base`, `components`, the negated `penalties` and `clamp` sum to `value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reward {
    /// The reward, in the rubric's range.
    pub value: f64,
    /// The shaped reward before scaling and penalties, from 0 to 1.
    pub shaped: f64,
    /// The range's lower end.
    pub base: f64,
    /// What each stage added, in reward units; 0 for a closed one.
    pub components: Vec<f64>,
    /// What each penalty took, at least 0.
    pub penalties: Vec<f64>,
    /// What clamping to the range added or took.
    pub clamp: f64,
}

/// Turns scores into a reward. `scores[k]` is the score of stage k; evaluation may end at the first closed stage.
///
/// Degenerate case: a stage behind a closed gate counts nothing even when a score for it is given.
pub fn shape(
    range: RewardRange,
    plan: &[StagePlan],
    scores: impl IntoIterator<Item = UnitScore>,
    penalties: Vec<f64>,
) -> Reward {
    let mut components = vec![0.0; plan.len()];
    let mut shaped = 0.0;
    let mut ones = 0;
    for ((stage, component), score) in plan.iter().zip(&mut components).zip(scores) {
        let earned = stage.weight * score.get();
        shaped += earned;
        *component = (range.max - range.min) * earned;
        ones += usize::from(score == UnitScore::ONE);
        if !stage.passed_by(score) {
            break;
        }
    }
    let perfect = ones == plan.len();
    if let (true, Some((last, others))) = (perfect, components.split_last_mut()) {
        // Rounded weights need not sum to 1, and a perfect score is compared with the largest reward.
        shaped = 1.0;
        *last = (range.max - range.min) - others.iter().sum::<f64>();
    }
    let shaped = f64::min(shaped, 1.0);
    let earned = if perfect { range.max } else { range.min + components.iter().sum::<f64>() };
    let before = earned - penalties.iter().sum::<f64>();
    let value = before.clamp(range.min, range.max);
    Reward { value, shaped, base: range.min, components, penalties, clamp: value - before }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unit(values: &[f64]) -> Vec<UnitScore> {
        values.iter().map(|v| UnitScore::clamped(*v)).collect()
    }

    fn plans() -> impl Strategy<Value = (Vec<StagePlan>, Vec<f64>)> {
        (1_usize..7).prop_flat_map(|n| {
            let stage = (0.01..10.0_f64, prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0_f64])
                .prop_map(|(weight, threshold)| StagePlan { weight, threshold });
            let score = prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0_f64];
            (prop::collection::vec(stage, n), prop::collection::vec(score, n)).prop_map(|(mut plan, scores)| {
                normalize_weights(&mut plan);
                (plan, scores)
            })
        })
    }

    fn ranges() -> impl Strategy<Value = RewardRange> {
        (-5.0..5.0_f64, 0.1..5.0_f64).prop_map(|(min, width)| RewardRange::new(min, min + width).unwrap())
    }

    proptest! {
        #[test]
        fn the_reward_is_monotone_in_every_score((plan, scores) in plans(), range in ranges(), which in 0_usize..7, raised in 0.0..=1.0_f64) {
            let which = which % scores.len();
            let low = shape(range, &plan, unit(&scores), vec![]);
            let mut better = scores.clone();
            better[which] = better[which].max(raised);
            let high = shape(range, &plan, unit(&better), vec![]);
            prop_assert!(high.value >= low.value - 1e-12);
        }

        #[test]
        fn opening_a_stage_never_lowers_the_reward((plan, scores) in plans(), range in ranges(), which in 0_usize..7) {
            let which = which % plan.len();
            let low = shape(range, &plan, unit(&scores), vec![]);
            let mut open = plan.clone();
            open[which].threshold = 0.0;
            let high = shape(range, &open, unit(&scores), vec![]);
            prop_assert!(high.value >= low.value - 1e-12);
        }

        #[test]
        fn components_sum_to_the_reward((plan, scores) in plans(), range in ranges(), penalties in prop::collection::vec(0.0..3.0_f64, 0..3)) {
            let reward = shape(range, &plan, unit(&scores), penalties);
            let sum = reward.base + reward.components.iter().sum::<f64>() - reward.penalties.iter().sum::<f64>() + reward.clamp;
            prop_assert!((sum - reward.value).abs() <= 1e-9 * reward.value.abs().max(1.0));
            prop_assert!(reward.value >= range.min() && reward.value <= range.max());
            prop_assert!((0.0..=1.0).contains(&reward.shaped));
        }

        #[test]
        fn a_closed_stage_counts_nothing((plan, scores) in plans(), range in ranges(), later in 0.0..=1.0_f64) {
            let closed = plan.iter().zip(unit(&scores)).position(|(stage, score)| !stage.passed_by(score));
            prop_assume!(closed.is_some());
            let end = closed.unwrap() + 1;
            let mut other = scores.clone();
            other[end..].fill(later);
            prop_assert_eq!(shape(range, &plan, unit(&scores), vec![]), shape(range, &plan, unit(&other), vec![]));
            prop_assert_eq!(shape(range, &plan, unit(&scores), vec![]), shape(range, &plan, unit(&scores[..end]), vec![]));
        }
    }

    #[test]
    fn all_ones_give_exactly_one_whatever_the_weights_round_to() {
        let range = RewardRange::new(0.0, 1.0).unwrap();
        for (min, max) in [(-1.0, 0.9), (-0.2, 1.0), (-0.5, 2.0), (0.1, 0.3)] {
            let range = RewardRange::new(min, max).unwrap();
            let mut plan: Vec<_> =
                [0.05, 0.05, 0.7].map(|weight| StagePlan { weight, threshold: 1.0 }).into_iter().collect();
            normalize_weights(&mut plan);
            assert_eq!(shape(range, &plan, [UnitScore::ONE; 3], vec![]).value, max);
        }
        for n in 1..40 {
            for seed in 1..50_u32 {
                let weight = |k: u32| f64::from((seed * 2_654_435 + k * 40_503) % 997 + 1);
                let mut plan: Vec<_> = (0..n).map(|k| StagePlan { weight: weight(k), threshold: 1.0 }).collect();
                normalize_weights(&mut plan);
                let reward = shape(range, &plan, vec![UnitScore::ONE; plan.len()], vec![]);
                assert_eq!((reward.value, reward.shaped, reward.clamp), (1.0, 1.0, 0.0), "{n} stages, {seed}");
            }
        }
    }

    #[test]
    fn all_ones_give_the_largest_reward() {
        let mut plan = vec![StagePlan { weight: 3.0, threshold: 1.0 }; 3];
        normalize_weights(&mut plan);
        let range = RewardRange::new(-1.0, 2.0).unwrap();
        assert!((shape(range, &plan, unit(&[1.0; 3]), vec![]).value - 2.0).abs() < 1e-12);
        assert_eq!(shape(range, &plan, unit(&[0.0; 3]), vec![]).value, -1.0);
        assert_eq!(shape(range, &plan, unit(&[1.0; 3]), vec![9.0]).value, -1.0);
    }
}
