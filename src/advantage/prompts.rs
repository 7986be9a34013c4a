//! What is known of a prompt over a run: how often it was visited, its latest statistics and their moving averages.
//!
//! In: the statistics of each visit, the oldest first. Out: the prompt's history. Knows no store.

use serde::{Deserialize, Serialize};

use super::GroupStatistics;

/// Weight of the newest visit in the moving averages (ours).
const NEWEST: f64 = 0.3;

/// What is known of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PromptHistory {
    /// In how many steps rollouts of it were scored.
    pub visits: u32,
    /// Statistics of the latest visit.
    #[serde(flatten)]
    pub latest: GroupStatistics,
    /// Exponential moving average of the means, the newest visit weighing 0.3; the first visit's where it is the only.
    pub mean_average: f64,
    /// The same of the standard deviations.
    pub std_average: f64,
    /// The same of the task values.
    pub value_average: f64,
}

impl PromptHistory {
    /// Adds a visit. One without a valid reward says nothing and is not counted.
    pub fn visit(&mut self, group: GroupStatistics) {
        if group.n == 0 {
            return;
        }
        let weight = if self.visits == 0 { 1.0 } else { NEWEST };
        let average = |old: f64, new: f64| old + weight * (new - old);
        self.mean_average = average(self.mean_average, group.mean);
        self.std_average = average(self.std_average, group.std);
        self.value_average = average(self.value_average, group.value);
        self.visits = self.visits.saturating_add(1);
        self.latest = group;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_start_at_the_first_visit_and_move() {
        let mut history = PromptHistory::default();
        history.visit(GroupStatistics { n: 4, mean: 0.5, std: 0.25, value: 0.125 });
        assert_eq!((history.visits, history.mean_average, history.value_average), (1, 0.5, 0.125));
        let second = GroupStatistics { n: 4, mean: 1.0, std: 0.0, value: 0.0 };
        history.visit(second);
        assert_eq!((history.visits, history.latest), (2, second));
        assert!((history.mean_average - 0.65).abs() < 1e-15);
        assert!((history.std_average - 0.175).abs() < 1e-15);
        assert!((history.value_average - 0.0875).abs() < 1e-15);
    }

    #[test]
    fn a_visit_without_rewards_is_none() {
        let mut history = PromptHistory::default();
        history.visit(GroupStatistics::default());
        assert_eq!(history, PromptHistory::default());
    }
}
