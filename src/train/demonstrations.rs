//! Demonstrations for supervised fine-tuning. In: JSONL of conversations (`{"messages": [..]}`). Out: samples in which the
//! assistant's turns are what is learnt.

use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::config::Check;
use super::env::Message;
use super::experience::Sample;
use super::protocol::Protocol;
use crate::trajectory::Role;

/// Supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// JSONL of conversations (`messages`).
    pub demonstrations: PathBuf,
    /// Demonstrations of a step.
    pub batch: usize,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self { demonstrations: PathBuf::new(), batch: 64 }
    }
}

impl SftConfig {
    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![(self.batch == 0, "sft.batch", "is 0; it must be 1 or more")]
    }
}

#[derive(Deserialize)]
struct Line {
    messages: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// Reads a file of demonstrations.
///
/// # Errors
/// [`TrainError::File`] with the line that is wrong.
pub(super) fn read(path: &Path, protocol: &Protocol, context: usize) -> Result<Vec<Sample>, TrainError> {
    let wrong = |problem: String| TrainError::file(path, problem);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut samples = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |problem: String| wrong(format!("line {}: {problem}", number + 1));
        let line: Line = serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
        let messages = line.messages.into_iter().map(message).collect::<Result<Vec<_>, _>>().map_err(at)?;
        let sample = sample(&messages, protocol).map_err(|error| at(error.to_string()))?;
        if sample.tokens.len() > context {
            return Err(at(format!("{} tokens do not fit the model's context of {context}", sample.tokens.len())));
        }
        samples.push(sample);
    }
    if samples.is_empty() { Err(wrong("there is no demonstration in it".to_owned())) } else { Ok(samples) }
}

fn message(said: Said) -> Result<Message, String> {
    let role = Role::from_name(&said.role);
    let role = role.ok_or_else(|| format!("the role {:?} is none of system, user, assistant, tool", said.role))?;
    if said.tool_calls.is_some_and(|calls| !calls.is_empty()) {
        return Err(
            "`tool_calls` are not learnt; write the calls into `content` as the policy is to write them".to_owned()
        );
    }
    Ok(Message { role, text: said.content.unwrap_or_default() })
}

/// A conversation as tokens, with the places of what the assistant wrote.
fn sample(messages: &[Message], protocol: &Protocol) -> Result<Sample, TrainError> {
    let first = messages.iter().position(|message| message.role == Role::Assistant);
    let first =
        first.filter(|first| *first > 0).ok_or_else(|| TrainError::other("no assistant message answers another"))?;
    let (before, turns) = messages.split_at(first);
    let in_a_row = |pair: &[Message]| pair.iter().all(|message| message.role == Role::Assistant);
    if turns.windows(2).any(in_a_row) {
        return Err(TrainError::other("two assistant messages in a row; join them"));
    }
    if turns.last().is_some_and(|last| last.role == Role::Tool) {
        return Err(TrainError::other("the last message is a tool's, and nothing is learnt from it; leave it out"));
    }
    let mut sample = Sample { tokens: protocol.prompt(before)?, factor: 1.0, copies: 1.0, ..Sample::default() };
    let mut results = Vec::new();
    for message in turns {
        match message.role {
            Role::Assistant => {
                if !results.is_empty() {
                    sample.tokens.extend(protocol.after_turn(&std::mem::take(&mut results))?);
                }
                let start = sample.tokens.len();
                sample.tokens.extend(protocol.turn(&message.text)?);
                sample.written.extend(start..sample.tokens.len());
            }
            Role::Tool => results.push(message.text.clone()),
            Role::System | Role::User => {
                return Err(TrainError::other(
                    "after the first assistant message there may be only assistant and tool messages",
                ));
            }
        }
    }
    sample.advantages = vec![0.0; sample.written.len()];
    sample.old_logprobs = vec![0.0; sample.written.len()];
    Ok(sample)
}
