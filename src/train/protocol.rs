//! A conversation as the policy sees it: tokens. In: tools, messages, texts of turns, tool results. Out: token ids, and what
//! of a turn's text they have written already.
//!
//! What the policy wrote is never tokenised again: the tokens that it drew are the tokens that it learns from. Questions,
//! passages and tool results are untrusted: they cannot speak the model's special tokens.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::TrainError;
use super::env::Message;
use crate::lm::chat_template::{ChatEnd, ChatMessage, ChatOptions, ChatTemplate};
use crate::lm::tokenizer::{SpecialText, Tokenizer};
use crate::lm::untrusted::Rendered;
use crate::lm::{ModelConfig, end_tokens};
use crate::trajectory::{Role, THINK, opens_thinking};

/// Stands for a turn of the policy while a template is asked what comes after one. Templates trim and search texts for
/// tags; a plain word passes through them.
const TURN: &str = "gradus-turn";

/// How a model writes conversations down, and the tools that they are about.
#[derive(Debug, Clone)]
pub struct Protocol {
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    /// A JSON list in `OpenAI`'s form; none where there is no tool.
    tools: Option<String>,
    /// All that end a turn.
    ends: Vec<u32>,
    /// The one of them that the template writes.
    end: u32,
    /// What it writes between a turn's text and that: a line's end, say.
    before_end: String,
    /// What the template writes behind a question.
    asked: String,
}

/// What stands before a turn of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnStart {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What it has of the turn's own text: `<think>` and the line's end behind it, or nothing.
    pub begun: String,
}

impl Protocol {
    /// Reads tokenizer and chat template of a directory, for conversations about `tools`: a JSON list, empty for none.
    ///
    /// # Errors
    /// What is wrong with which file; a tokenizer that has more tokens than the model; no token that ends a turn; tools
    /// that are no list.
    pub fn load(dir: &Path, config: &ModelConfig, tools: &str) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::load(dir)?;
        let template = ChatTemplate::load(dir)?;
        if tokenizer.vocabulary_size() > config.vocab {
            return Err(TrainError::other(format!(
                "{}: tokenizer.json has {} tokens and the model {}: they belong to different models",
                dir.display(),
                tokenizer.vocabulary_size(),
                config.vocab
            )));
        }
        let ends = end_tokens(dir, &tokenizer, &config.eos_tokens);
        let first = ends.first().copied().ok_or_else(|| {
            TrainError::other(format!("{}: no token ends a turn; set `eos_token_id` in config.json", dir.display()))
        })?;
        let (tokenizer, template) = (Arc::new(tokenizer), Arc::new(template));
        let asked = String::new();
        let mut protocol =
            Self { tokenizer, template, tools: listed(tools)?, ends, end: first, before_end: String::new(), asked };
        let question = protocol.render(&[Message { role: Role::User, text: "?".to_owned() }])?;
        // Behind nothing a text would begin as the first one does.
        protocol.asked = Some(question.trusted_end()).filter(|end| !end.is_empty()).unwrap_or("\n").into();
        // The files name several in no order: Llama 3's first is not the one that ends its turns.
        if let Some(tail) = protocol.behind_turn(&[])?
            && let Some((end, at)) = protocol.end_of_turn(&tail)
        {
            protocol.end = end;
            protocol.before_end = tail.text.get(..at.start).unwrap_or_default().into();
        }
        Ok(protocol)
    }

    /// The same for conversations about other tools.
    ///
    /// # Errors
    /// When they are no JSON list.
    pub fn with_tools(&self, tools: &str) -> Result<Self, TrainError> {
        Ok(Self { tools: listed(tools)?, ..self.clone() })
    }

    /// A conversation up to where the policy begins to write.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub fn prompt(&self, messages: &[Message]) -> Result<TurnStart, TrainError> {
        let rendered = self.render(messages)?;
        Ok(TurnStart { tokens: self.tokenizer.encode_prompt(&rendered)?, begun: begun(&rendered) })
    }

    /// What follows the token that ended a turn: the tools' results, and the opening of the next turn.
    ///
    /// # Errors
    /// When the template refuses tool results, or does not show them.
    pub fn after_turn(&self, results: &[String]) -> Result<TurnStart, TrainError> {
        let tail = self.behind_turn(results)?.ok_or_else(|| {
            TrainError::other("the chat template does not show the assistant's text as it is; it cannot be trained on")
        })?;
        // The end of the turn was drawn by the policy; templates write it again.
        let written = self.end_of_turn(&tail).map_or(0, |(_, at)| at.end);
        let before = tail.text.get(..written).filter(|end| !end.is_empty()).unwrap_or(TURN);
        Ok(TurnStart { tokens: self.tokens_behind(before, &cut(&tail, written))?, begun: begun(&tail) })
    }

    /// Tokens of a turn that somebody else wrote, its end included: a demonstration's.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn turn(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let mut tokens = self.tokens(&[text, &self.before_end].concat())?;
        tokens.push(self.end);
        Ok(tokens)
    }

    /// Tokens of a text that the policy wrote.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        self.tokens_behind(&self.asked, &Rendered::trusted(text))
    }

    /// The tokens of a text behind another one; by itself where they would join.
    fn tokens_behind(&self, before: &str, text: &Rendered) -> Result<Vec<u32>, TrainError> {
        let own = self.tokenizer.encode_behind(before, text)?;
        Ok(own.map_or_else(|| self.tokenizer.encode_prompt(text), Ok)?)
    }

    /// Whether a text has other tokens in a conversation than by itself, as with a tokenizer that begins texts with a space.
    pub(super) fn heeds_what_is_before(&self) -> Result<bool, TrainError> {
        Ok(self.tokens("a")? != self.tokenizer.encode_trusted("a")?)
    }

    /// The tokens that end a turn, at least one.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// The one of them that the chat template writes behind a turn; the first where it writes none.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether a token ends a turn.
    pub fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The text of tokens that the policy wrote, special tokens shown.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn text(&self, tokens: &[u32]) -> Result<String, TrainError> {
        Ok(self.tokenizer.decode(tokens, SpecialText::Shown)?)
    }

    fn render(&self, messages: &[Message]) -> Result<Rendered, TrainError> {
        let untrusted = |message: &Message| {
            let ours = matches!(message.role, Role::System | Role::Assistant) || message.text.is_empty();
            if ours { Vec::new() } else { std::iter::once(0..message.text.len()).collect() }
        };
        let untrusted: Vec<Vec<Range<usize>>> = messages.iter().map(untrusted).collect();
        let shown = messages.iter().zip(&untrusted).map(|(message, untrusted)| ChatMessage {
            role: message.role.as_str(),
            text: &message.text,
            untrusted,
        });
        let shown: Vec<ChatMessage<'_>> = shown.collect();
        let options = ChatOptions { end: ChatEnd::Answer, tools: self.tools.clone(), ..ChatOptions::default() };
        Ok(self.template.render(&shown, &options)?)
    }

    /// What the template writes behind a turn and its tools' results; none where it does not show the turn.
    fn behind_turn(&self, results: &[String]) -> Result<Option<Rendered>, TrainError> {
        let message = |role: Role, text: &str| Message { role, text: text.to_owned() };
        let turn = [message(Role::User, "?"), message(Role::Assistant, TURN)];
        let results = results.iter().map(|text| message(Role::Tool, text));
        let messages: Vec<Message> = turn.into_iter().chain(results).collect();
        Ok(tail(&self.render(&messages)?, TURN))
    }

    /// The first token in a tail that ends a turn, and where it stands; of several there the longest. What tools say ends none.
    fn end_of_turn(&self, tail: &Rendered) -> Option<(u32, Range<usize>)> {
        let ours = tail.untrusted.first().map_or(tail.text.len(), |range| range.start);
        let ours = tail.text.get(..ours)?;
        let named = self.ends.iter().filter_map(|end| Some((*end, self.tokenizer.id_to_token(*end)?)));
        let written = named.filter_map(|(end, name)| ours.find(&name).map(|at| (end, at..at + name.len())));
        written.min_by_key(|(_, at)| (at.start, usize::MAX - at.end))
    }
}

/// What a template has written of the turn that it opens: reasoning that it began. What a tool or a user says opens none.
fn begun(rendered: &Rendered) -> String {
    let end = rendered.trusted_end();
    end.rfind(THINK).filter(|_| opens_thinking(end)).and_then(|at| end.get(at..)).unwrap_or_default().to_owned()
}

/// Tools as a template is given them: some ask whether they are there at all, so that an empty list is none.
fn listed(tools: &str) -> Result<Option<String>, TrainError> {
    let list: Vec<Value> = serde_json::from_str(tools)
        .map_err(|error| TrainError::other(format!("the tools are no JSON list in OpenAI's form: {error}")))?;
    Ok((!list.is_empty()).then(|| tools.to_owned()))
}

/// What stands behind the first `mark`: before it there is a question of ours, behind it may be tool results that say the
/// same. None where there is no mark, or where a template put what is untrusted before it.
fn tail(rendered: &Rendered, mark: &str) -> Option<Rendered> {
    let at = rendered.text.find(mark)?;
    let untrusted = rendered.untrusted.iter().any(|range| range.contains(&at));
    (!untrusted).then(|| cut(rendered, at + mark.len()))
}

/// What stands from byte `from` on.
fn cut(rendered: &Rendered, from: usize) -> Rendered {
    let text = rendered.text.get(from..).unwrap_or_default().to_owned();
    let untrusted = rendered.untrusted.iter().filter(|range| range.end > from);
    let untrusted = untrusted.map(|range| range.start.saturating_sub(from)..range.end - from).collect();
    Rendered { text, untrusted }
}

#[cfg(test)]
pub(super) mod tests;
