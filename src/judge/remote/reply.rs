//! What endpoints answer. In: replies, parsed and not trusted; out: the label log-probabilities, the JSON object or the
//! reward that they hold, or why they hold none. Of lists only the first element is kept: one is asked for.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::endpoint::Metered;
use super::failure::{Failure, FailureKind, quote};
use super::position::Position;
use crate::judge::inquiry::Usage;

/// The reply to a chat request.
#[derive(Debug, Deserialize)]
pub(super) struct ChatReply {
    /// Who answered.
    pub(super) model: Option<String>,
    /// Null at gateways that have no answer.
    choices: Option<First<Choice>>,
    usage: Option<Value>,
    /// What went wrong behind a gateway that says so with status 200.
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    message: Message,
    logprobs: Option<ChoiceLogprobs>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
    // Some versions of vLLM send both names.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ChoiceLogprobs {
    content: Option<First<Position>>,
}

impl Message {
    fn says_something(&self) -> bool {
        let texts = [&self.content, &self.reasoning_content, &self.reasoning];
        texts.into_iter().flatten().any(|text| !text.is_empty())
    }
}

impl ChatReply {
    /// The failure that it tells in place of an answer, with the kind that the same would have as a status.
    pub(super) fn failure(&self) -> Option<Failure> {
        let error = self.error.as_ref().filter(|error| !error.is_null() && self.first().is_none())?;
        let code = error.get("code").or_else(|| error.get("status"));
        let status = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
        let status = status.and_then(|status| u16::try_from(status).ok()).filter(|status| (400..600).contains(status));
        let said = error.get("message").unwrap_or(error);
        let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
        let kind = status.map_or(FailureKind::Server, FailureKind::of_status);
        Some(Failure::new(kind, format!("an error in place of a reply: {}", quote(&said))))
    }

    /// The probabilities of the labels at the first token, as natural logarithms in the labels' order. None if the
    /// endpoint gives no log-probabilities, or those of the sampled token alone. `asked` is how many it was asked for.
    ///
    /// # Errors
    /// A refusal, no token, a log-probability that is none, or labels whose probability is not known.
    pub(super) fn label_logprobs(&self, labels: &[String], asked: u32) -> Result<Option<Vec<f64>>, Failure> {
        let choice = self.choice()?;
        let positions = choice.logprobs.as_ref().and_then(|logprobs| logprobs.content.as_ref());
        match positions.map(|positions| &positions.0) {
            // Only a token without log-probabilities shows that there are none.
            None if choice.message.says_something() => Ok(None),
            None | Some(None) => Err(Failure::no_verdict(
                "the judge wrote no token where a label was due; where it never does, set `logprobs` to `off`",
            )),
            Some(Some(position)) if position.has_no_list() => Ok(None),
            Some(Some(position)) => position.label_logprobs(labels, asked).map(Some),
        }
    }

    /// The JSON object that the content is, and what was reasoned before it.
    ///
    /// # Errors
    /// A refusal, an empty or truncated reply, or content that is not of the form.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<(T, String), Failure> {
        let choice = self.choice()?;
        let content = choice.message.content.as_deref().map_or("", str::trim);
        let is_truncated = choice.finish_reason.as_deref() == Some("length");
        let inside = without_fence(content).trim();
        if inside.starts_with('[') {
            // serde would take a list for an object, field by field.
            return Err(Failure::no_verdict("the reply is a list and not the JSON object that was asked for"));
        }
        let object = serde_json::from_str(inside).map_err(|error| match (is_truncated, content) {
            (true, _) => Failure::no_verdict("the reply was cut off before its JSON ended; raise `max_reply_tokens`"),
            (_, "") => Failure::no_verdict("the reply is empty"),
            _ => Failure::no_verdict(format!(
                "the reply is not the JSON that was asked for: {}",
                quote(&error.to_string())
            )),
        })?;
        let thought = choice.message.reasoning_content.as_ref().or(choice.message.reasoning.as_ref());
        Ok((object, thought.cloned().unwrap_or_default()))
    }

    fn first(&self) -> Option<&Choice> {
        self.choices.as_ref()?.0.as_ref()
    }

    /// The choice, unless it was refused.
    fn choice(&self) -> Result<&Choice, Failure> {
        let choice = self.first().ok_or_else(|| Failure::no_verdict("the reply is empty: it has no choice"))?;
        if let Some(refusal) = choice.message.refusal.as_deref().filter(|refusal| !refusal.is_empty()) {
            return Err(Failure::no_verdict(format!("the judge refused: {}", quote(refusal))));
        }
        if choice.finish_reason.as_deref() == Some("content_filter") {
            return Err(Failure::no_verdict("the endpoint's content filter withheld the reply"));
        }
        Ok(choice)
    }
}

/// The inside of a text that is one Markdown block, or the text.
fn without_fence(text: &str) -> &str {
    let Some(inside) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else { return text };
    inside.strip_prefix("json").unwrap_or(inside)
}

/// What a reward model answered.
pub(super) trait RewardReply {
    /// Who answered, if it says.
    fn model(&self) -> Option<&str>;

    /// Its outputs.
    fn outputs(&self) -> &[f64];

    /// The single output.
    ///
    /// # Errors
    /// None, several, or one that is not finite.
    fn reward(&self) -> Result<f64, Failure> {
        match self.outputs() {
            [reward] if reward.is_finite() => Ok(*reward),
            [_] => Err(Failure::no_verdict("the reward is not finite")),
            outputs => {
                Err(Failure::no_verdict(format!("the model has {} outputs, a reward model has one", outputs.len())))
            }
        }
    }
}

/// vLLM's reply to `/classify`. Without activation the `probs` are the raw outputs.
#[derive(Debug, Deserialize)]
pub(super) struct VllmClassification {
    model: Option<String>,
    #[serde(default)]
    data: First<VllmOutputs>,
    usage: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct VllmOutputs {
    probs: Vec<f64>,
}

impl RewardReply for VllmClassification {
    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn outputs(&self) -> &[f64] {
        self.data.0.as_ref().map_or(&[], |outputs| &outputs.probs)
    }
}

/// `SGLang`'s reply to its own `/classify`, which is that of an embedding. It names no model.
#[derive(Debug, Deserialize)]
pub(super) struct SglangClassification {
    embedding: Vec<f64>,
    meta_info: Option<Value>,
}

impl RewardReply for SglangClassification {
    fn model(&self) -> Option<&str> {
        None
    }

    fn outputs(&self) -> &[f64] {
        &self.embedding
    }
}

impl Metered for ChatReply {
    fn usage(&self) -> Usage {
        usage(self.usage.as_ref())
    }
}

impl Metered for VllmClassification {
    fn usage(&self) -> Usage {
        usage(self.usage.as_ref())
    }
}

impl Metered for SglangClassification {
    fn usage(&self) -> Usage {
        let said = self.meta_info.as_ref();
        Usage {
            prompt_tokens: tokens(said, "/prompt_tokens"),
            cached_tokens: tokens(said, "/cached_tokens"),
            completion_tokens: 0,
        }
    }
}

/// More tokens than a request can take.
const TOO_MANY_TOKENS: u64 = 1 << 32;

/// The tokens that a reply says it took. It is no part of the answer: what is no number of tokens counts as none.
fn tokens(said: Option<&Value>, pointer: &str) -> u64 {
    let told = said.and_then(|said| said.pointer(pointer)?.as_u64());
    told.filter(|tokens| *tokens < TOO_MANY_TOKENS).unwrap_or_default()
}

/// The same of all kinds, where they are told as `OpenAI` does.
fn usage(said: Option<&Value>) -> Usage {
    Usage {
        prompt_tokens: tokens(said, "/prompt_tokens"),
        cached_tokens: tokens(said, "/prompt_tokens_details/cached_tokens"),
        completion_tokens: tokens(said, "/completion_tokens"),
    }
}

/// The first element of a list, if there is one. The others are skipped: they take no memory.
#[derive(Debug)]
struct First<T>(Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstVisitor(PhantomData))
    }
}

struct FirstVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
    type Value = First<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<T>, A::Error> {
        let first = list.next_element()?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}
