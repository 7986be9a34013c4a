//! Demonstrations for supervised fine-tuning. In: JSONL of conversations (`{"messages": [..], "tools": [..]}`). Out: samples
//! in which the assistant's turns are what is learnt.

use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::TrainError;
use super::config::Check;
use super::env::Message;
use super::experience::Sample;
use super::protocol::{Protocol, TurnStart};
use crate::trajectory::{Role, THINK_END};

/// Supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// JSONL of conversations (`messages`, and `tools` where they are not the environment's).
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
    /// The tools that it is about; the environment's where it names none.
    #[serde(default)]
    tools: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// What is learnt, in the file's order.
#[derive(Debug, Default)]
pub(super) struct Demonstrations {
    /// Their tokens.
    pub samples: Vec<Sample>,
    /// Where each stands in the file: lines from 1.
    lines: Vec<usize>,
}

impl Demonstrations {
    /// The lines of some of them, as an error names them.
    pub(super) fn lines(&self, chosen: &[usize]) -> String {
        let lines = chosen.iter().filter_map(|index| self.lines.get(*index)).map(ToString::to_string);
        lines.collect::<Vec<_>>().join(", ")
    }
}

/// Reads a file of demonstrations. `protocol` knows the environment's tools.
///
/// # Errors
/// [`TrainError::File`] with the line that is wrong.
pub(super) fn read(path: &Path, protocol: &Protocol, context: usize) -> Result<Demonstrations, TrainError> {
    let wrong = |problem: String| TrainError::file(path, problem);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut found = Demonstrations::default();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |problem: String| wrong(format!("line {}: {problem}", number + 1));
        let line: Line = serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
        let messages = line.messages.into_iter().map(message).collect::<Result<Vec<_>, _>>().map_err(at)?;
        let own = line.tools.map(|tools| protocol.with_tools(tools.get())).transpose();
        let own = own.map_err(|error| at(format!("`tools`: {error}")))?;
        let sample = sample(&messages, own.as_ref().unwrap_or(protocol)).map_err(|error| at(error.to_string()))?;
        if sample.tokens.len() > context {
            return Err(at(format!("{} tokens do not fit the model's context of {context}", sample.tokens.len())));
        }
        found.samples.push(sample);
        found.lines.push(number + 1);
    }
    if found.samples.is_empty() { Err(wrong("there is no demonstration in it".to_owned())) } else { Ok(found) }
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
    let TurnStart { tokens, mut begun } = protocol.prompt(before)?;
    let mut sample = Sample { tokens, factor: 1.0, copies: 1.0, ..Sample::default() };
    let mut results = Vec::new();
    for message in turns {
        match message.role {
            Role::Assistant => {
                if !results.is_empty() {
                    let after = protocol.after_turn(&std::mem::take(&mut results))?;
                    sample.tokens.extend(after.tokens);
                    begun = after.begun;
                }
                let start = sample.tokens.len();
                sample.tokens.extend(protocol.turn(unwritten(&message.text, &begun)?)?);
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

/// A turn's text without what the template has written of it, which opens reasoning.
fn unwritten<'a>(text: &'a str, begun: &str) -> Result<&'a str, TrainError> {
    if !begun.is_empty() && !text.contains(THINK_END) {
        return Err(TrainError::other(format!(
            "the chat template opens the reasoning of an assistant message, and one does not end it: write {THINK_END} \
             before its answer or call"
        )));
    }
    let said = text.trim_start();
    let without = said.strip_prefix(begun).or_else(|| said.strip_prefix(begun.trim_end()));
    Ok(without.filter(|_| !begun.is_empty()).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::protocol::tests::{reasoner, tooled};

    fn read_lines(lines: &[&str]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demonstrations.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let environments = r#"[{"type": "function", "function": {"name": "search"}}]"#;
        let protocol = tooled().with_tools(environments).unwrap();
        let found = read(&path, &protocol, 256).map_err(|error| error.to_string())?;
        assert_eq!(found.lines(&[0]), "1");
        Ok(found.samples.iter().map(|sample| protocol.text(&sample.tokens).unwrap()).collect())
    }

    #[test]
    fn a_demonstration_is_about_its_own_tools_or_else_about_the_environments() {
        let messages = r#""messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#;
        let of = |tools: &str| read_lines(&[&format!("{{{messages}{tools}}}")]);
        for (tools, shown) in [
            ("", "search"),
            (r#", "tools": null"#, "search"),
            (r#", "tools": []"#, "none"),
            (r#", "tools": [{"function": {"name": "add"}}]"#, "add"),
        ] {
            assert_eq!(of(tools).unwrap(), [format!("{shown} a<|end|>b<|end|>")], "{tools}");
        }
        let error = of(r#", "tools": "search""#).unwrap_err();
        assert!(error.contains("line 1: `tools`: the tools are no JSON list"), "{error}");
    }

    #[test]
    fn reasoning_that_the_template_opens_is_not_opened_twice() {
        let learnt = |text: &str| {
            let message = |role: Role, text: &str| Message { role, text: text.to_owned() };
            let sample = sample(&[message(Role::User, "a"), message(Role::Assistant, text)], &reasoner());
            sample.map(|sample| reasoner().text(&sample.tokens).unwrap()).map_err(|error| error.to_string())
        };
        for text in ["<think>\nhm</think>b", "\n<think>\nhm</think>b", "hm</think>b"] {
            assert_eq!(learnt(text).unwrap(), "a<|end|><|assistant|><think>\nhm</think>b<|end|>", "{text}");
        }
        assert!(learnt("b").unwrap_err().contains("write </think> before"));
    }
}
