//! Statistics of one group: mean, spread and task value of the rewards of one prompt.
//!
//! In: the rewards of a group and the largest reward there can be. Out: numbers. Knows no other group.

use serde::{Deserialize, Serialize};

/// What the sum of squares is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deviation {
    /// n: the deviation of these rewards.
    #[default]
    Population,
    /// n - 1: an estimate for the prompt; 0 for a single reward.
    Unbiased,
}

/// Statistics of the valid rewards of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GroupStatistics {
    /// How many rewards.
    pub n: usize,
    /// Their mean; 0 for none, which is no mean: see [`Self::known`].
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
    /// The task value `V(q) = (R_max - mean) * std` of VSPO (arXiv:2512.07478): difficulty times uncertainty.
    pub value: f64,
}

/// A millionth of a reward: what keeps the division of an advantage finite, and the deviation below which the rewards of a
/// group count as equal, unless another is asked for.
pub const EPSILON: f64 = 1e-6;

impl GroupStatistics {
    /// Whether its rewards deviate less than this, which leaves nothing to learn from; so does a deviation that is no number.
    pub fn is_flat(&self, below: f64) -> bool {
        self.std < below || self.std.is_nan()
    }

    /// The statistics, unless there is no reward: then nothing is known, and zeros would be made up.
    pub fn known(self) -> Option<Self> {
        (self.n > 0).then_some(self)
    }

    /// The statistics of these rewards with the population's deviation; see [`Self::with`].
    pub fn of(rewards: &mut [f64], max_reward: f64) -> Self {
        Self::with(Deviation::Population, rewards, max_reward)
    }

    /// The statistics of these rewards, `max_reward` being the largest that the rubric can give. Sorts the rewards.
    ///
    /// Degenerate case: no reward gives zeros. The sum runs over sorted rewards, so that their order changes no bit.
    pub fn with(deviation: Deviation, rewards: &mut [f64], max_reward: f64) -> Self {
        rewards.sort_unstable_by(f64::total_cmp);
        let n = rewards.len();
        let (Some(first), Some(last)) = (rewards.first(), rewards.last()) else {
            return Self::default();
        };
        if first == last {
            // Equal rewards have no spread at all, not one of rounding errors.
            return Self { n, mean: *first, std: 0.0, value: 0.0 };
        }
        let mean = rewards.iter().sum::<f64>() / n as f64;
        let squares = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>();
        let divisor = match deviation {
            Deviation::Population => n,
            // Two different rewards are at least two.
            Deviation::Unbiased => n - 1,
        };
        let std = (squares / divisor as f64).sqrt();
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
        let found = GroupStatistics::with(Deviation::Unbiased, &mut [1.0, 0.0], 1.0);
        assert_eq!((found.mean, found.std), (0.5, 0.5_f64.sqrt()));
    }

    #[test]
    fn equal_rewards_have_no_value() {
        let found = GroupStatistics::of(&mut [0.1; 7], 1.0);
        assert_eq!((found.mean, found.std, found.value), (0.1, 0.0, 0.0));
        let none = GroupStatistics::of(&mut [], 1.0);
        assert_eq!((none, none.known()), (GroupStatistics::default(), None));
        assert_eq!(found.known(), Some(found));
        let single = GroupStatistics::with(Deviation::Unbiased, &mut [0.3], 1.0);
        assert_eq!((single.n, single.mean, single.std), (1, 0.3, 0.0));
        // -0.0 and 0.0 are the same reward.
        assert_eq!(GroupStatistics::of(&mut [0.0, -0.0], 1.0).std, 0.0);
    }

    #[test]
    fn a_deviation_that_is_no_number_is_flat() {
        let with = |std| GroupStatistics { std, ..GroupStatistics::default() };
        assert_eq!([0.0, 0.1, 0.2, f64::NAN].map(|std| with(std).is_flat(0.1)), [true, false, false, true]);
    }

    #[test]
    fn order_changes_no_bit() {
        let (mut a, mut b) = ([0.1, 0.2, 0.3, 0.7], [0.7, 0.1, 0.3, 0.2]);
        assert_eq!(GroupStatistics::of(&mut a, 1.0), GroupStatistics::of(&mut b, 1.0));
    }
}
