//! What a run comes to, in one number each. In: a run. Out: the columns of the report's tables.

use super::options::XAxis;
use super::run::Run;
use super::statistics::{first_reaching, mean_height};
use crate::train::metrics::Metric;

/// A column of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Held-out exact match at the last evaluation.
    Final,
    /// The highest held-out exact match of all evaluations; it flatters a curve that jumps about.
    Best,
    /// Area under the curve of held-out exact match over steps, divided by the steps.
    Area,
    /// The first evaluated step whose held-out exact match reaches the threshold.
    StepsToThreshold,
    /// Mean share of zero-advantage groups over the steps.
    ZeroAdvantage,
    /// Largest KL divergence from the reference of all steps.
    LargestKl,
}

impl Measure {
    /// All columns, in order.
    pub(super) const ALL: [Self; 6] =
        [Self::Final, Self::Best, Self::Area, Self::StepsToThreshold, Self::ZeroAdvantage, Self::LargestKl];

    /// The measure of a run; none where the run lacks the metric, or never reaches the threshold. `threshold` goes
    /// before the run's own.
    pub(super) fn of(self, run: &Run, threshold: Option<f64>) -> Option<f64> {
        let points = |metric| run.points(&metric, XAxis::Step);
        let heights = |metric| points(metric).into_iter().map(|point| point.1);
        match self {
            Self::Final => heights(Metric::EvalExactMatch).next_back(),
            Self::Best => heights(Metric::EvalExactMatch).reduce(f64::max),
            Self::Area => mean_height(&points(Metric::EvalExactMatch)),
            Self::StepsToThreshold => {
                first_reaching(&points(Metric::EvalExactMatch), threshold.or(run.info.threshold)?)
            }
            Self::ZeroAdvantage => {
                let shares: Vec<f64> = heights(Metric::GroupsZeroAdvantage).collect();
                (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
            }
            Self::LargestKl => heights(Metric::PolicyKl).reduce(f64::max),
        }
    }

    /// The head of the column.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Final => "exact match, final",
            Self::Best => "exact match, best",
            Self::Area => "exact match, area",
            Self::StepsToThreshold => "steps to threshold",
            Self::ZeroAdvantage => "zero-advantage groups",
            Self::LargestKl => "largest KL",
        }
    }

    /// Digits after the point.
    pub(super) fn digits(self) -> usize {
        match self {
            Self::StepsToThreshold => 0,
            Self::LargestKl => 4,
            _ => 3,
        }
    }
}
