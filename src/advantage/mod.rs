//! Statistics of groups: mean, spread and task value of the rewards of one prompt.
//!
//! In: the rewards of a group. Out: numbers. Pure; shared by whatever reports or samples by them.

/// Statistics of the valid rewards of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GroupStatistics {
    /// How many rewards.
    pub n: usize,
    /// Their mean; 0 for none.
    pub mean: f64,
    /// Their population standard deviation (dividing by n).
    pub std: f64,
    /// The task value `V(q) = (R_max - mean) * std` of VSPO (arXiv:2512.07478): difficulty times uncertainty.
    pub value: f64,
}

impl GroupStatistics {
    /// The statistics of these rewards, `max_reward` being the largest that the rubric can give.
    ///
    /// Degenerate case: no reward gives zeros. The sum runs over sorted rewards, so that their order changes no bit.
    pub fn of(rewards: &mut [f64], max_reward: f64) -> Self {
        rewards.sort_unstable_by(f64::total_cmp);
        let n = rewards.len();
        let (Some(first), Some(last)) = (rewards.first(), rewards.last()) else {
            return Self::default();
        };
        if first.to_bits() == last.to_bits() {
            // Equal rewards have no spread at all, not one of rounding errors.
            return Self { n, mean: *first, std: 0.0, value: 0.0 };
        }
        let mean = rewards.iter().sum::<f64>() / n as f64;
        let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / n as f64;
        let std = variance.sqrt();
        Self { n, mean, std, value: (max_reward - mean) * std }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_two() {
        let found = GroupStatistics::of(&mut [1.0, 0.0], 1.0);
        assert_eq!(found, GroupStatistics { n: 2, mean: 0.5, std: 0.5, value: 0.25 });
    }

    #[test]
    fn equal_rewards_have_no_value() {
        let found = GroupStatistics::of(&mut [0.1; 7], 1.0);
        assert_eq!((found.mean, found.std, found.value), (0.1, 0.0, 0.0));
        assert_eq!(GroupStatistics::of(&mut [], 1.0), GroupStatistics::default());
    }

    #[test]
    fn order_changes_no_bit() {
        let (mut a, mut b) = ([0.1, 0.2, 0.3, 0.7], [0.7, 0.1, 0.3, 0.2]);
        assert_eq!(GroupStatistics::of(&mut a, 1.0), GroupStatistics::of(&mut b, 1.0));
    }
}
