//! Advantages of the rollouts of one group, by a formula.
//!
//! In: rewards and their statistics. Out: one advantage per rollout. Knows no other group: what VSPO makes of several
//! is [`super::plan()`].

use super::GroupStatistics;

/// Whose formula. Algorithms share them: VSPO, DAPO and CISPO take GRPO's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formula {
    /// GRPO (arXiv:2402.03300): `(r - mean) / (std + epsilon)`.
    Grpo,
    /// RLOO (arXiv:2402.14740): the reward less the mean of the group's others.
    Rloo,
    /// Dr. GRPO (arXiv:2503.20783): `r - mean`.
    DrGrpo,
}

/// The advantages of a group, in the order of its rewards.
///
/// `epsilon` (0 or more, in units of the reward) keeps the division of GRPO finite. Degenerate cases: rewards without
/// spread have advantages of 0, whatever `epsilon` is; so has a single reward.
pub fn group_advantages(formula: Formula, rewards: &[f64], statistics: &GroupStatistics, epsilon: f64) -> Vec<f64> {
    if statistics.std == 0.0 {
        return vec![0.0; rewards.len()];
    }
    let scale = match formula {
        Formula::Grpo => 1.0 / (statistics.std + epsilon),
        // r_i - (sum - r_i) / (n - 1) = (r_i - mean) n / (n - 1)
        Formula::Rloo => statistics.n as f64 / (statistics.n as f64 - 1.0),
        Formula::DrGrpo => 1.0,
    };
    rewards.iter().map(|reward| (reward - statistics.mean) * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(formula: Formula, rewards: &[f64]) -> Vec<f64> {
        let statistics = GroupStatistics::of(&mut rewards.to_vec(), 1.0);
        group_advantages(formula, rewards, &statistics, 0.0)
    }

    #[test]
    fn by_hand() {
        assert_eq!(of(Formula::Grpo, &[1.0, 0.0]), [1.0, -1.0]);
        assert_eq!(of(Formula::DrGrpo, &[1.0, 0.0]), [0.5, -0.5]);
        // 1 - mean(0, 0.5), 0 - mean(1, 0.5), 0.5 - mean(1, 0)
        assert_eq!(of(Formula::Rloo, &[1.0, 0.0, 0.5]), [0.75, -0.75, 0.0]);
    }

    #[test]
    fn epsilon_is_added_to_the_deviation() {
        let statistics = GroupStatistics::of(&mut [0.0, 1.0], 1.0);
        assert_eq!(group_advantages(Formula::Grpo, &[0.0, 1.0], &statistics, 0.5), [-0.5, 0.5]);
    }

    #[test]
    fn without_spread_there_is_no_advantage() {
        for formula in [Formula::Grpo, Formula::Rloo, Formula::DrGrpo] {
            assert_eq!(of(formula, &[0.1; 3]), [0.0; 3]);
            assert_eq!(of(formula, &[0.7]), [0.0]);
            assert_eq!(of(formula, &[]), Vec::<f64>::new());
        }
    }
}
