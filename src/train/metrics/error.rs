//! What can go wrong with metrics and their files.

use std::path::PathBuf;

/// A metric or one of its files is not as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A value is NaN or infinite.
    #[error("the metric {name} is {value}: only finite numbers are recorded; look at the batch of this step")]
    NotFinite {
        /// The metric's name.
        name: String,
        /// What it was to be.
        value: f64,
    },
    /// A name that no metric has.
    #[error("there is no metric {0:?}; `gradus report --glossary` lists those there are")]
    Unknown(String),
    /// What follows a family's prefix is no label.
    #[error("{0:?} cannot end a metric's name; use 1 to 64 ASCII letters, digits, `_`, `-` or `.`")]
    Label(String),
    /// A step that does not come after the one before it.
    #[error(
        "{path}: step {step} follows step {last}; every step is written once, in order: resume the run to redo steps"
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// The step that was to be written.
        step: u64,
        /// The step before it.
        last: u64,
    },
    /// A line of a metrics file that cannot be read.
    #[error("{path}, line {line}: {what}; restore the file, or leave the run out")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A run's description that cannot be read.
    #[error("{path}: {what}; a run's description needs name, group, algorithm, reward, seed and config_hash")]
    RunInfo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system said no.
    #[error("{path} cannot be {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, such as "read".
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl MetricsError {
    /// For `map_err`: what was tried with which file.
    pub(in crate::train) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
