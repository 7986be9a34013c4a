//! Questions answered by searching a corpus: one tool, `search`, over BM25.
//!
//! In: questions and passages as JSONL, and [`QaSearchConfig`]. Out: an [`Environment`]. Deterministic: the same call gets
//! the same text. Knows no model, no token and no reward.

mod config;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::Value;

pub use self::config::{PassageForm, QaSearchConfig, Unanswerable};
use super::bm25::{Bm25, Bm25Error};
use super::{Budgets, DataError, Environment, Message, Passage, Split, Task, read_passages, read_questions};
use crate::trajectory::Role;

/// The tool's name.
const SEARCH: &str = "search";
/// What an empty result says.
pub(in crate::train) const NOTHING_FOUND: &str = "nothing found";
/// What a call of another tool gets.
pub(in crate::train) const UNKNOWN_TOOL: &str = "error: no such tool; use search";
/// What arguments that do not fit get.
pub(in crate::train) const WRONG_ARGUMENTS: &str = r#"error: search takes {"query": "words"} and nothing else"#;
/// What a call gets when the index fails; a log line says more.
const SEARCH_FAILED: &str = "error: the search failed";
/// The tools as `tools_json` gives them; one line, since data files carry them.
const TOOLS: &str = concat!(
    r#"[{"type": "function", "function": {"name": "search", "#,
    r#""description": "Searches the corpus for passages that hold the words of the query.", "#,
    r#""parameters": {"type": "object", "properties": {"query": {"type": "string", "minLength": 1, "#,
    r#""description": "What to look for, as a few words."}}, "required": ["query"], "additionalProperties": false}}}]"#,
);
/// Ids that a message lists.
const LISTED: usize = 5;

/// The environment cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QaSearchError {
    /// A data file is missing or wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A setting is out of range.
    #[error("qa_search: `{key}` is {value}, but must be {range}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
    /// Questions cannot be answered from the corpus, and the configuration refuses that.
    #[error(
        "{count} of {total} questions have no answer in {}, the first {}; take the corpus that belongs to the questions, \
         leave them out, or set `unanswerable` to \"warn\"", .corpus.display(), .first.join(", ")
    )]
    Unanswerable {
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first ones' ids.
        first: Vec<String>,
        /// The corpus.
        corpus: PathBuf,
    },
    /// The index cannot be built.
    #[error(transparent)]
    Index(#[from] Bm25Error),
}

/// Passages and questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QaData {
    /// What is searched.
    pub passages: Vec<Passage>,
    /// The questions to learn from.
    pub train: Vec<Task>,
    /// The questions to evaluate on.
    pub held_out: Vec<Task>,
}

/// The environment.
pub struct QaSearch {
    config: QaSearchConfig,
    data: QaData,
    index: Bm25,
    /// Ids of the questions none of whose answers stands, as words in a row, in any passage: training questions first, in
    /// their order. Empty when the configuration says `ignore`.
    without_answer: Vec<String>,
}

impl QaSearch {
    /// Reads the files that the configuration names, and indexes the corpus.
    ///
    /// # Errors
    /// When a file is missing or wrong (the message names line and field), a setting is out of range, or questions have no
    /// answer in the corpus and the configuration refuses that.
    pub fn open(config: QaSearchConfig) -> Result<Self, QaSearchError> {
        config.check()?;
        let data = QaData {
            passages: read_passages(&config.corpus)?,
            train: read_questions(&config.train)?,
            held_out: read_questions(&config.held_out)?,
        };
        Self::new(config, data)
    }

    /// The environment over data that is there already; the configuration's paths only name it in messages.
    ///
    /// # Errors
    /// As [`QaSearch::open`], files aside.
    pub fn new(config: QaSearchConfig, data: QaData) -> Result<Self, QaSearchError> {
        config.check()?;
        let index = Bm25::build(&data.passages)?;
        let mut environment = Self { config, data, index, without_answer: Vec::new() };
        let (both, held_out) = (environment.questions_in_both(), environment.config.held_out.display());
        if both > 0 {
            tracing::warn!(both, %held_out, "held-out questions are training questions, too: answers to them may be learnt by heart");
        }
        if environment.config.unanswerable != Unanswerable::Ignore {
            environment.without_answer = environment.find_unanswerable()?;
            environment.report_unanswerable()?;
        }
        Ok(environment)
    }

    /// How many held-out questions are asked in the training questions, too, in the same words.
    pub fn questions_in_both(&self) -> usize {
        let learnt: HashSet<&str> = self.data.train.iter().map(|task| task.question.as_str()).collect();
        self.data.held_out.iter().filter(|task| learnt.contains(task.question.as_str())).count()
    }

    /// The passages that are searched.
    pub fn passages(&self) -> &[Passage] {
        &self.data.passages
    }

    fn find_unanswerable(&self) -> Result<Vec<String>, Bm25Error> {
        let mut missing = Vec::new();
        for task in self.data.train.iter().chain(&self.data.held_out) {
            let mut held = false;
            for answer in &task.answers {
                held = held || self.index.holds(answer)?;
            }
            if !held {
                missing.push(task.id.clone());
            }
        }
        Ok(missing)
    }

    fn report_unanswerable(&self) -> Result<(), QaSearchError> {
        let (count, total) = (self.without_answer.len(), self.data.train.len() + self.data.held_out.len());
        let first: Vec<String> = self.without_answer.iter().take(LISTED).cloned().collect();
        let corpus = self.config.corpus.clone();
        if count == 0 {
            return Ok(());
        }
        if self.config.unanswerable == Unanswerable::Refuse {
            return Err(QaSearchError::Unanswerable { count, total, first, corpus });
        }
        let (first, corpus) = (first.join(", "), corpus.display());
        tracing::warn!(count, total, %first, %corpus, "questions have no answer in the corpus: they cannot be learnt from it");
        Ok(())
    }

    fn search(&self, query: &str) -> String {
        let found = match self.index.search(query, self.config.match_terms, self.config.top_k) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "a search failed");
                return SEARCH_FAILED.to_owned();
            }
        };
        let passages: Vec<&Passage> = found.into_iter().filter_map(|place| self.data.passages.get(place)).collect();
        if passages.is_empty() {
            return NOTHING_FOUND.to_owned();
        }
        let shown = passages.iter().enumerate().map(|(place, passage)| match self.config.top_k {
            1 => self.shown(passage),
            _ => format!("[{}] {}", place + 1, self.shown(passage)),
        });
        shown.collect::<Vec<_>>().join("\n")
    }

    fn shown(&self, passage: &Passage) -> String {
        let text = match self.config.passage_form {
            PassageForm::Titled if !passage.title.is_empty() => format!("{}: {}", passage.title, passage.text),
            PassageForm::Titled | PassageForm::Text => passage.text.clone(),
        };
        match text.char_indices().nth(self.config.passage_chars) {
            Some((end, _)) => format!("{} ..", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

impl Environment for QaSearch {
    fn tools_json(&self) -> &str {
        TOOLS
    }

    fn tasks(&self, split: Split) -> &[Task] {
        match split {
            Split::Train => &self.data.train,
            Split::HeldOut => &self.data.held_out,
        }
    }

    fn messages(&self, task: &Task) -> Vec<Message> {
        let mut messages = Vec::with_capacity(2);
        if !self.config.system.is_empty() {
            messages.push(Message { role: Role::System, text: self.config.system.clone() });
        }
        messages.push(Message { role: Role::User, text: task.question.clone() });
        messages
    }

    fn call(&self, name: &str, arguments: &Value) -> String {
        if name != SEARCH {
            return UNKNOWN_TOOL.to_owned();
        }
        // Exactly what the schema above says.
        let only_query =
            arguments.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("query"));
        match only_query.and_then(Value::as_str) {
            Some(query) if !query.is_empty() => self.search(query),
            _ => WRONG_ARGUMENTS.to_owned(),
        }
    }

    fn budgets(&self) -> Budgets {
        Budgets { turns: self.config.max_turns, calls_per_turn: self.config.max_calls_per_turn }
    }
}
