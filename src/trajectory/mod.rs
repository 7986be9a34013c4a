//! What is scored: a conversation, the tools it could use, and what was expected of it.
//!
//! In: borrowed text from a request, checked by the constructors here. Out: [`Trajectory`], which every later
//! step reads. Knows the roles of a chat and the layout of a templated response; knows no HTTP field names and
//! no tool-call syntax.

mod content;
mod format;
mod markers;
mod response;

use std::borrow::Cow;

pub use content::is_text_part;
pub use format::{ParseMode, ToolFormat, UnknownFormat};
pub use markers::TURN_ENDS;
pub use response::{Before, THINK, THINK_END, opens_thinking, split_response};

named! {
    /// Who wrote a message.
    pub enum Role {
        /// `system` or `developer`.
        System = "system",
        /// `user`.
        User = "user",
        /// `assistant`: the policy. Only this role is scored.
        Assistant = "assistant",
        /// `tool`, `tool_response`, `function`, `ipython`, `observation` or `environment`: what a tool gave back.
        Tool = "tool",
    }
}

impl Role {
    /// The role of this name in a chat message or a chat template, if it is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "system" | "developer" => Self::System,
            "user" | "human" => Self::User,
            "assistant" | "model" | "gpt" => Self::Assistant,
            "tool" | "function" | "ipython" | "observation" | "environment" | "tool_response" => Self::Tool,
            _ => return None,
        })
    }
}

/// One assistant turn: text that the policy wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn<'a> {
    /// The visible text, text parts joined; spans count its bytes.
    pub text: Cow<'a, str>,
    /// Bytes to add to a position in `text` to get a position in the field that the client sent.
    pub offset: usize,
    /// Reasoning that came in a field of its own. Never an answer, never searched for calls.
    pub reasoning: Option<Cow<'a, str>>,
    /// The raw JSON of the message's `tool_calls`, when it has any.
    pub native_calls: Option<&'a str>,
    /// What reasoning that the prompt opened is to the text.
    pub thinking: Thinking,
}

/// Where a turn's text stands to reasoning that the prompt opened, as templates of reasoning models do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// Outside: the prompt opened none, or it has ended: with its closer, or with the turn.
    #[default]
    Outside,
    /// The text begins in it. Where the text does not end it, nobody does.
    Begins,
    /// All of the text is in it: a later part of the same turn, behind a tool's result, ends it.
    Within,
}

/// What somebody other than the policy wrote; decoded only when a judge asks for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<'a> {
    /// The raw JSON of the message's `content`.
    Json(&'a str),
    /// Plain text.
    Text(Cow<'a, str>),
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    /// Written by the policy, and scored.
    Policy(Turn<'a>),
    /// Written by anybody else, or before this rollout, and never scored.
    Other {
        /// Who wrote it; [`Role::Assistant`] for an earlier answer that stands in the prompt.
        role: Role,
        /// What it says.
        content: Content<'a>,
    },
}

/// A tool call that a right trajectory makes, for `tool_match`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceCall<'a> {
    /// The tool's name.
    pub name: Cow<'a, str>,
    /// The JSON text of its arguments, an object. A text, since those of a whole request as values take many times as much.
    pub arguments: &'a str,
}

/// A trajectory, as every stage sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory<'a> {
    /// The conversation in order.
    pub messages: Vec<Message<'a>>,
    /// The raw JSON of the tool list; empty when no tool was offered.
    pub tools: &'a str,
    /// Acceptable answers.
    pub references: Vec<Cow<'a, str>>,
    /// Calls that a right trajectory makes; `None` when the request gave none.
    pub reference_calls: Option<Vec<ReferenceCall<'a>>>,
    /// The format of the calls; `None` leaves it to the rubric.
    pub tool_format: Option<ToolFormat>,
    /// Whether generation was cut off by a length limit.
    pub truncated: bool,
    /// How many tokens the policy wrote.
    pub response_tokens: Option<u64>,
}

impl<'a> Trajectory<'a> {
    /// The policy's turns with the index of their message, in order.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = (usize, &Turn<'a>)> {
        self.messages.iter().enumerate().filter_map(|(index, message)| match message {
            Message::Policy(turn) => Some((index, turn)),
            Message::Other { .. } => None,
        })
    }
}

/// Longest reference answer, in bytes. Scoring is linear in it, and nobody's gold answer is longer.
pub const MAX_REFERENCE_BYTES: usize = 256 * 1024;
/// Most reference answers of one trajectory.
pub const MAX_REFERENCES: usize = 1024;
/// Most reference calls of one trajectory: matching them is cubic.
pub const MAX_REFERENCE_CALLS: usize = 64;

/// Why a trajectory is no trajectory: the request's fault, not the policy's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No conversation at all.
    #[error("a trajectory needs `messages`, or `prompt` and `response`")]
    Empty,
    /// No assistant turn.
    #[error("no message has the role `assistant`: there is nothing that the policy wrote; add its turn")]
    NoPolicyTurn,
    /// Too many references.
    #[error("{0} references are more than the limit of {MAX_REFERENCES}; send fewer")]
    TooManyReferences(usize),
    /// A reference is too long.
    #[error("reference {index} has {bytes} bytes, more than the limit of {MAX_REFERENCE_BYTES}; shorten it")]
    LongReference {
        /// Its place in the list.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// Too many reference calls.
    #[error("{0} reference calls are more than the limit of {MAX_REFERENCE_CALLS}; send fewer")]
    TooManyReferenceCalls(usize),
}

impl Malformed {
    /// The field at fault, as a JSON pointer into the trajectory.
    pub fn pointer(&self) -> String {
        match self {
            Self::Empty | Self::NoPolicyTurn => "/messages".to_owned(),
            Self::TooManyReferences(_) => "/references".to_owned(),
            Self::LongReference { index, .. } => format!("/references/{index}"),
            Self::TooManyReferenceCalls(_) => "/reference_calls".to_owned(),
        }
    }
}

/// Checks reference answers.
///
/// # Errors
/// When there are too many, or one is too long.
pub fn check_references<R: AsRef<str>>(references: &[R]) -> Result<(), Malformed> {
    if references.len() > MAX_REFERENCES {
        return Err(Malformed::TooManyReferences(references.len()));
    }
    let mut lengths = references.iter().map(|reference| reference.as_ref().len()).enumerate();
    match lengths.find(|(_, bytes)| *bytes > MAX_REFERENCE_BYTES) {
        Some((index, bytes)) => Err(Malformed::LongReference { index, bytes }),
        None => Ok(()),
    }
}

impl Trajectory<'_> {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// When there is no policy turn, or a reference list is over its limit.
    pub fn checked(self) -> Result<Self, Malformed> {
        if self.messages.is_empty() {
            return Err(Malformed::Empty);
        }
        if self.turns().next().is_none() {
            return Err(Malformed::NoPolicyTurn);
        }
        check_references(&self.references)?;
        match &self.reference_calls {
            Some(calls) if calls.len() > MAX_REFERENCE_CALLS => Err(Malformed::TooManyReferenceCalls(calls.len())),
            _ => Ok(self),
        }
    }
}
