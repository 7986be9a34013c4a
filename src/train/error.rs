//! What can go wrong in training, in words that say what to do.

use std::path::{Path, PathBuf};

use super::metrics::MetricsError;
use crate::lm::LmError;
use crate::lm::chat_template::ChatTemplateError;
use crate::lm::tokenizer::TokenizerError;

/// What to do about a policy that diverged.
const GO_BACK: &str =
    "lower `learning_rate.peak` and start it again with --force: it goes on from the last checkpoint, if there is one";

/// Training cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A file that cannot be read, written or understood, or has a setting that cannot be.
    #[error("{path}: {problem}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The model.
    #[error(transparent)]
    Model(#[from] LmError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// The metrics' files.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Arithmetic on the host.
    #[error("computing a loss failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// A number that is none.
    #[error("step {step}: {what} is not finite; the batch is saved in {saved}; {GO_BACK}", saved = .saved.display())]
    NotFinite {
        /// The step.
        step: u64,
        /// What is not finite.
        what: String,
        /// Where the batch lies.
        saved: PathBuf,
    },
    /// The same where no rollouts are there to be written down.
    #[error("step {step}: {what} is not finite; {GO_BACK}")]
    Diverged {
        /// The step.
        step: u64,
        /// What is not finite.
        what: String,
    },
    /// The rewards cannot be had.
    #[error("no rewards: {0}")]
    Reward(String),
    /// The rollouts cannot be had.
    #[error("no rollouts: {0}")]
    Rollout(String),
    /// The run was started with other settings or another rubric.
    #[error("{0}")]
    Changed(String),
    /// Anything else, said in words.
    #[error("{0}")]
    Other(String),
}

impl TrainError {
    /// An error that says all there is to say in its own words.
    pub(super) fn other(problem: impl std::fmt::Display) -> Self {
        Self::Other(problem.to_string())
    }

    /// The same error, with the step in which a number is none.
    pub(super) fn in_step(self, step: u64) -> Self {
        match self {
            Self::Model(LmError::NotFinite(what)) => Self::Diverged { step, what: what.to_owned() },
            other => other,
        }
    }

    /// Whether a number is none: then the parameters are not to be trusted, finite as they may be.
    pub(super) fn is_divergence(&self) -> bool {
        matches!(self, Self::Model(LmError::NotFinite(_)) | Self::NotFinite { .. } | Self::Diverged { .. })
    }

    /// What is wrong with a file.
    pub(super) fn file(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }
}
