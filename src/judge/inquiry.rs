//! What any judge is asked, and what it may say, before either becomes a score.
//!
//! An [`Inquiry`] is a rendered question: chat messages and the form of the answer. A [`Finding`] is what came back, as
//! the backend read it: probabilities, a JSON object, a raw reward. `verdict` turns it into a number. Knows no backend.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// How what models of a server say is read: a part of their judges' identity. To be raised with each change of this program
/// after which the same words give another number, so that none of before is taken for one of now.
pub(super) const REMOTE_READING: u32 = 2;

/// The same for models on this machine, which this program asks in its own way too: an answer that a server was paid for is
/// not asked again because of what changes here.
pub(super) const LOCAL_READING: u32 = 3;

/// Who says a message of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChatRole {
    /// The rubric's instructions.
    System,
    /// The question put to the judge.
    User,
    /// What the judge is made to have said already; also the policy's words, for a reward model.
    Assistant,
}

impl ChatRole {
    /// The role's name in a chat.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a prompt. Fenced already: trusted and untrusted text are told apart inside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PromptMessage {
    /// Who says it.
    pub role: ChatRole,
    /// The text.
    pub text: String,
    /// Byte ranges of `text` that come from a trajectory: on character boundaries, in order, apart from each other. No
    /// special token is read in them.
    pub untrusted: Vec<Range<usize>>,
}

/// The form in which an answer is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnswerForm {
    /// The probabilities of these labels as the very next token. At least two, all different.
    Labels(Arc<[String]>),
    /// Reasoning, then a JSON object that names one of these labels as its `verdict`.
    ReasonedLabel {
        /// What `verdict` may be.
        labels: Arc<[String]>,
        /// Most tokens of reasoning before the JSON.
        thinking_tokens: u32,
        /// The seed of the sampling.
        seed: u64,
    },
    /// The raw output of a reward model on the conversation.
    Reward,
    /// A JSON object whose `order` lists the numbers 1 to `candidates`, best first, each once.
    Order {
        /// How many answers there are to order.
        candidates: usize,
    },
}

/// A question as a backend gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// The conversation with the judge, in order.
    pub messages: Vec<PromptMessage>,
    /// The form of the answer.
    pub want: AnswerForm,
    /// The messages with ever less of a conversation, for a judge that cannot read all of it. They follow from the rest, so
    /// that they are no part of what an answer is kept under.
    pub fewer: ShorterPrompts,
}

type Messages = Vec<PromptMessage>;

/// The messages of a prompt with ever less of a conversation. They are made once, when they are asked for first: most prompts
/// are read whole.
#[derive(Debug, Clone, Default)]
pub struct ShorterPrompts(Option<Arc<LazyLock<Vec<Messages>, Make>>>);

type Make = Box<dyn FnOnce() -> Vec<Messages> + Send>;

impl ShorterPrompts {
    /// What `make` makes.
    pub(super) fn made_by(make: impl FnOnce() -> Vec<Messages> + Send + 'static) -> Self {
        Self(Some(Arc::new(LazyLock::new(Box::new(make)))))
    }

    /// All of them, the longest first.
    pub(super) fn all(&self) -> &[Messages] {
        self.0.as_ref().map_or(&[], |made| made.as_slice())
    }
}

impl<const N: usize> From<[Messages; N]> for ShorterPrompts {
    fn from(all: [Messages; N]) -> Self {
        Self::made_by(|| all.into())
    }
}

impl PartialEq for ShorterPrompts {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

impl Eq for ShorterPrompts {}

/// What a backend found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The answer itself.
    pub said: BackendAnswer,
    /// What it cost.
    pub usage: Usage,
}

/// The answer of a backend, in the form that was wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendAnswer {
    /// Natural logarithms of the labels' probabilities in the judge's whole distribution, in the order of the labels;
    /// negative infinity for one that was not offered. Never NaN.
    Labels(Vec<f64>),
    /// The label that was chosen, and the reasoning before it. Where the backend knows the distribution over labels at
    /// that place, `logprobs` holds it as in [`Self::Labels`].
    Chosen {
        /// Index into the labels.
        label: usize,
        /// The reasoning.
        reasoning: String,
        /// The distribution at the label's place.
        logprobs: Option<Vec<f64>>,
    },
    /// A reward model's raw output. Finite.
    Reward(f64),
    /// Indices of the candidates, best first; a permutation.
    Order(Vec<usize>),
}

/// Whether an answer came in the form that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It did.
    AsWanted,
    /// A label alone, where the labels' probabilities were wanted and a backend has none.
    LabelAlone,
}

impl Finding {
    /// The form of an answer to this.
    pub(super) fn form(&self, want: &AnswerForm) -> Form {
        match (want, &self.said) {
            (AnswerForm::Labels(_), BackendAnswer::Chosen { .. }) => Form::LabelAlone,
            _ => Form::AsWanted,
        }
    }
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens read, those found in a cache included.
    pub prompt_tokens: u64,
    /// Tokens of them that a cache held.
    pub cached_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
}
