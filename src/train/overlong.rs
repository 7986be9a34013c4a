//! DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), where the rubric does not have it itself. In: what a rollout is
//! worth, and how long it is. Out: the same, less what its length costs.
//!
//! Ours: the length is what `rollout.max_tokens` bounds, tool results included. By the policy's tokens alone a rollout that was
//! cut off for its length would be punished only where its tools said little.
//!
//! Degenerate case: 0 cache tokens switch it off; the paper's formula would be a step at `max_tokens`.

use super::algorithm::Algorithm;
use super::config::TrainConfig;
use super::reward::{Rewarder, Scored};
use super::rollout::Rollout;
use crate::shaping::soft_overlong;

/// What long rollouts lose.
pub(super) struct Overlong {
    /// The length from which on 1 is taken off.
    max_tokens: u64,
    /// Over how many tokens before that it grows.
    cache_tokens: u64,
    /// The lowest reward that the rubric can give.
    min_reward: f64,
}

impl Overlong {
    /// The punishment of a run's rollouts, if there is one.
    pub(super) fn of(config: &TrainConfig, rewarder: &Rewarder) -> Option<Self> {
        let max_tokens = config.rollout.max_tokens;
        let cache = config.dapo.overlong_cache(max_tokens);
        let is_due = config.algorithm == Algorithm::Dapo && cache > 0 && !rewarder.punishes_length();
        let min_reward = rewarder.min_reward();
        is_due.then_some(Self { max_tokens: max_tokens as u64, cache_tokens: cache as u64, min_reward })
    }

    /// Takes off a rollout's reward what its length costs, down to the lowest reward at most; gives the amount.
    pub(super) fn punish(&self, scored: &mut Scored, rollout: &Rollout) -> f64 {
        let Some(reward) = &mut scored.reward else { return 0.0 };
        let (before, tokens) = (*reward, rollout.writers.len() as u64);
        *reward = (before - soft_overlong(tokens, self.max_tokens, self.cache_tokens)).max(self.min_reward.min(before));
        before - *reward
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::rollout::Writer;

    /// A rollout of so many tokens, of which the policy wrote each fifth.
    fn rollout(tokens: usize) -> Rollout {
        let writer = |place| if place % 5 == 0 { Writer::Policy { logprob: None } } else { Writer::Environment };
        Rollout {
            tokens: vec![0; 7 + tokens],
            prompt: 7,
            writers: (0..tokens).map(writer).collect(),
            ..Rollout::default()
        }
    }

    #[test]
    fn a_long_rollout_loses_up_to_1_and_never_more_than_there_is() {
        let overlong = Overlong { max_tokens: 100, cache_tokens: 20, min_reward: 0.0 };
        for (reward, tokens, left) in
            [(1.0, 80, 1.0), (1.0, 85, 0.75), (1.0, 100, 0.0), (0.5, 85, 0.25), (0.5, 95, 0.0), (-0.5, 100, -0.5)]
        {
            let mut scored = Scored { reward: Some(reward), ..Scored::default() };
            assert_eq!(overlong.punish(&mut scored, &rollout(tokens)), reward - left, "{reward} {tokens}");
            assert_eq!(scored.reward, Some(left), "{reward} {tokens}");
        }
        let mut unscored = Scored::default();
        assert_eq!((overlong.punish(&mut unscored, &rollout(100)), unscored.reward), (0.0, None));
    }
}
