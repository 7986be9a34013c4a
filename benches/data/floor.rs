//! The parse floor: what `serde_json` alone takes to read the same body into owned values. In: a body; out: owned
//! structs, for their cost. A server that reads its request cannot do with less unless it copies less.

use serde::Deserialize;
use serde_json::Value;

/// A request.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// The items.
    pub trajectories: Vec<Trajectory>,
}

/// An item.
#[derive(Debug, Deserialize)]
pub struct Trajectory {
    /// Its name.
    pub id: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// What was offered.
    pub tools: Vec<Tool>,
    /// Acceptable answers.
    pub references: Vec<String>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A tool.
#[derive(Debug, Deserialize)]
pub struct Tool {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What can be called.
    pub function: Function,
}

/// A function.
#[derive(Debug, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The schema of its arguments.
    pub parameters: Value,
}

/// Reads a body of [`bodies`](super::bodies).
///
/// # Errors
/// When it is none.
pub fn read(body: &[u8]) -> serde_json::Result<Request> {
    serde_json::from_slice(body)
}
