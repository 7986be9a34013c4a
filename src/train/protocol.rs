//! A conversation as the policy sees it: tokens. In: messages, texts of turns, tool results. Out: token ids.
//!
//! What the policy wrote is never tokenised again: the tokens that it drew are the tokens that it learns from. Questions,
//! passages and tool results are untrusted: they cannot speak the model's special tokens.

use std::ops::Range;
use std::path::Path;

use super::TrainError;
use super::env::Message;
use crate::lm::chat_template::{ChatEnd, ChatMessage, ChatOptions, ChatTemplate};
use crate::lm::tokenizer::{SpecialText, Tokenizer};
use crate::lm::untrusted::Rendered;
use crate::lm::{ModelConfig, end_tokens};
use crate::trajectory::Role;

/// Stands for a turn of the policy while a template is asked what comes after one. Templates trim and search texts for
/// tags; a plain word passes through them.
const TURN: &str = "gradus-turn";

/// How a model writes conversations down.
#[derive(Debug)]
pub struct Protocol {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    ends: Vec<u32>,
}

impl Protocol {
    /// Reads tokenizer and chat template of a directory.
    ///
    /// # Errors
    /// What is wrong with which file; a tokenizer that has more tokens than the model; no token that ends a turn.
    pub fn load(dir: &Path, config: &ModelConfig) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::load(dir).map_err(TrainError::other)?;
        let template = ChatTemplate::load(dir, None).map_err(TrainError::other)?;
        if tokenizer.vocabulary_size() > config.vocab {
            return Err(TrainError::other(format!(
                "{}: tokenizer.json has {} tokens and the model {}: they belong to different models",
                dir.display(),
                tokenizer.vocabulary_size(),
                config.vocab
            )));
        }
        let ends = end_tokens(dir, &tokenizer, &config.eos_tokens);
        if ends.is_empty() {
            return Err(TrainError::other(format!(
                "{}: no token ends a turn; set `eos_token_id` in config.json",
                dir.display()
            )));
        }
        Ok(Self { tokenizer, template, ends })
    }

    /// The tokens of a conversation up to where the policy begins to write.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, TrainError> {
        let rendered = self.render(messages)?;
        self.tokenizer.encode_prompt(&rendered).map_err(TrainError::other)
    }

    /// What follows the token that ended a turn: the tools' results, and the opening of the next turn.
    ///
    /// # Errors
    /// When the template refuses tool results, or does not show them.
    pub fn after_turn(&self, results: &[String]) -> Result<Vec<u32>, TrainError> {
        let message = |role: Role, text: &str| Message { role, text: text.to_owned() };
        let turn = [message(Role::User, "?"), message(Role::Assistant, TURN)];
        let results = results.iter().map(|text| message(Role::Tool, text));
        let messages: Vec<Message> = turn.into_iter().chain(results).collect();
        let rendered = self.render(&messages)?;
        let tail = tail(&rendered, TURN).ok_or_else(|| {
            TrainError::other("the chat template does not show the assistant's text as it is; it cannot be trained on")
        })?;
        let tail = self.without_end(&tail);
        self.tokenizer.encode_prompt(&tail).map_err(TrainError::other)
    }

    /// Tokens of a turn that somebody else wrote, its end included: a demonstration's.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn turn(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let mut tokens = self.tokens(text)?;
        tokens.extend(self.ends.first());
        Ok(tokens)
    }

    /// Tokens of a text that the policy wrote.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        self.tokenizer.encode_trusted(text).map_err(TrainError::other)
    }

    /// The tokens that end a turn, at least one; the first is what a demonstration ends with.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
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
        self.tokenizer.decode(tokens, SpecialText::Shown).map_err(TrainError::other)
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
        let options = ChatOptions { end: ChatEnd::Answer, ..ChatOptions::default() };
        self.template.render(&shown, &options).map_err(TrainError::other)
    }

    /// The end of the turn was drawn by the policy; templates write it again.
    fn without_end(&self, tail: &Rendered) -> Rendered {
        let end = self.ends.iter().filter_map(|end| self.tokenizer.id_to_token(*end));
        let end = end.filter(|end| tail.text.starts_with(end.as_str())).map(|end| end.len()).max().unwrap_or(0);
        cut(tail, end)
    }
}

/// What stands behind the last `mark`.
fn tail(rendered: &Rendered, mark: &str) -> Option<Rendered> {
    let at = rendered.text.rfind(mark)?;
    Some(cut(rendered, at + mark.len()))
}

/// What stands from byte `from` on.
fn cut(rendered: &Rendered, from: usize) -> Rendered {
    let text = rendered.text.get(from..).unwrap_or_default().to_owned();
    let untrusted = rendered.untrusted.iter().filter(|range| range.end > from);
    let untrusted = untrusted.map(|range| range.start.saturating_sub(from)..range.end - from).collect();
    Rendered { text, untrusted }
}
