//! What can go wrong with a model, and what to do about it.

use std::path::{Path, PathBuf};

/// A model that cannot be loaded, or a request that it cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file of the model directory cannot be read.
    #[error("cannot read {path}: {detail}; a model directory holds config.json, tokenizer.json and *.safetensors")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// `config.json` says something that is missing, wrong or not supported.
    #[error("config.json: `{key}` {problem}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong with it, and what would do.
        problem: String,
    },
    /// A weight is missing or has another shape or type than the configuration asks for.
    #[error("{path}: tensor `{name}` {problem}")]
    Weight {
        /// The file, or the directory when no file has the tensor.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A GGUF file is broken, or holds something that cannot be run as it should.
    #[error("{}: {problem}", .path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would do.
        problem: String,
    },
    /// The sequence does not fit the model's context, or the batch its cache.
    #[error("{tokens} tokens do not fit: {limit} is the most {of}; shorten the prompt or raise the limit")]
    TooLong {
        /// How many there are.
        tokens: usize,
        /// How many there may be.
        limit: usize,
        /// What has the limit.
        of: &'static str,
    },
    /// The request asks for something this model cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The computation gave something that is no number.
    #[error("the model's output is not finite: {0}; its weights or its number format are broken")]
    NotFinite(&'static str),
    /// The tensor library failed: out of memory, most often.
    #[error("{0}")]
    Compute(#[from] candle_core::Error),
}

impl LmError {
    pub(super) fn file(path: &Path, detail: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), detail: detail.to_string() }
    }

    pub(super) fn config(key: &str, problem: impl Into<String>) -> Self {
        Self::Config { key: key.to_owned(), problem: problem.into() }
    }
}
