//! Environments: what a policy is asked, and what answers its tool calls.
//!
//! In: data files and a configuration. Out: [`Task`]s in two splits, the messages that open a conversation, tools declared
//! with JSON Schema, and the text that a call gets back. Knows no model, no token and no reward: a rollout drives an
//! environment, and a rubric scores what came of it.
//!
//! # Adding an environment
//!
//! Write a file beside `qa_search.rs` with a type that implements [`Environment`] and a `Config` of its own, and give it a
//! case where the trainer builds the environment from its configuration. Three rules hold for all of them:
//!
//! * What a policy does wrong is data. [`Environment::call`] answers an unknown tool or arguments that do not fit with a
//!   text that says so, briefly and in the same words every time; it never fails and never panics.
//! * The same call gets the same text, today and in a resumed run: no clock, no network, no randomness.
//! * Tasks keep their `id` and order from run to run, because the trainer remembers each task's value under its place.

mod bm25;
mod corpus;
mod jsonl;
mod qa_search;
mod questions;

use serde_json::Value;

pub use self::bm25::{Bm25Error, MatchTerms};
pub use self::corpus::{Passage, read_passages};
pub use self::jsonl::DataError;
pub(in crate::train) use self::qa_search::{NOTHING_FOUND, UNKNOWN_TOOL, WRONG_ARGUMENTS};
pub use self::qa_search::{PassageForm, QaData, QaSearch, QaSearchConfig, QaSearchError, Unanswerable};
pub use self::questions::read_questions;
use crate::trajectory::Role;

/// What a rollout answers in place of a tool when a turn's call cannot be read: no JSON, no name, no closing tag.
pub const MALFORMED_CALL: &str = "error: the call cannot be read";

/// Which tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Those that the policy learns from.
    Train,
    /// Those that it is evaluated on and never learns from.
    HeldOut,
}

/// One question and what counts as its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name, unique within its split.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// The answers that count as right; at least one, none blank.
    pub answers: Vec<String>,
    /// Searches that an answer takes, where the data says so.
    pub hops: Option<u8>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// The text.
    pub text: String,
}

/// How long an episode may get, in calls. Budgets in tokens belong to the rollout, which knows the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Assistant turns with calls; the turn after the last of them is the final one, whatever it holds.
    pub turns: u32,
    /// Calls of one turn that are answered.
    pub calls_per_turn: u32,
}

/// What a rollout needs of an environment. Shared between threads.
pub trait Environment: Send + Sync {
    /// The tools: a JSON list in `OpenAI`'s form (`[{"type": "function", "function": {..}}]`).
    fn tools_json(&self) -> &str;

    /// The tasks of a split, always in the same order.
    fn tasks(&self, split: Split) -> &[Task];

    /// The messages that open the conversation about a task.
    fn messages(&self, task: &Task) -> Vec<Message>;

    /// What a call gets back. Anything may be in it: a tool that there is not, arguments of any type and size.
    fn call(&self, name: &str, arguments: &Value) -> String;

    /// How long an episode may get.
    fn budgets(&self) -> Budgets;
}
