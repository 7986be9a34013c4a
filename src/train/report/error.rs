//! Why there is no report, or none of a run.

use std::path::PathBuf;

use crate::train::metrics::MetricsError;

/// A report, or a run's part in it, failed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of a run cannot be read, or one of the report not be written.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A folder that is no run.
    #[error("{0} is no run: it holds no run.json, nor does a folder in it; give the folders that `gradus train` wrote")]
    NoRun(PathBuf),
    /// A run without a step.
    #[error("{0} holds no step yet; leave the run out until it does")]
    Empty(PathBuf),
    /// Nothing is left.
    #[error("no run can be reported:\n{0}")]
    Nothing(String),
    /// A baseline that does not exist.
    #[error("there is no group {name:?} to compare with; there are {known}")]
    Baseline {
        /// What was asked for.
        name: String,
        /// The groups.
        known: String,
    },
    /// A threshold that is no share.
    #[error("the threshold is {0}: exact match is a share, so give a number from 0 to 1")]
    Threshold(f64),
    /// A picture that cannot be drawn.
    #[error("the curves of {name} cannot be drawn: {what}")]
    Draw {
        /// The metric.
        name: String,
        /// Why.
        what: String,
    },
}
