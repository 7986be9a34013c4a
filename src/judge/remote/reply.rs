//! What endpoints answer. In: replies, parsed and not trusted; out: the label log-probabilities, the JSON object or the
//! reward that they hold, or why they hold none. Of lists only the first element is kept: one is asked for.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::endpoint::Metered;
use super::failure::{Failure, quote};
use crate::judge::inquiry::Usage;

/// By how much a logarithm of a probability may exceed 0, and a sum of probabilities 1: rounding.
const ROUNDING: f64 = 1e-3;

/// The reply to a chat request.
#[derive(Debug, Deserialize)]
pub(super) struct ChatReply {
    /// Who answered.
    pub(super) model: Option<String>,
    #[serde(default)]
    choices: First<Choice>,
    usage: Option<Value>,
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

#[derive(Debug, Deserialize)]
struct Position {
    token: String,
    logprob: Value,
    #[serde(default)]
    top_logprobs: Vec<TokenLogprob>,
}

#[derive(Debug, Deserialize)]
struct TokenLogprob {
    token: String,
    logprob: Value,
}

impl ChatReply {
    /// The probabilities of the labels at the first token, as natural logarithms in the labels' order. None if the
    /// endpoint gives no log-probabilities.
    ///
    /// # Errors
    /// A refusal, no token, a log-probability that is none, or no label among the tokens.
    pub(super) fn label_logprobs(&self, labels: &[String]) -> Result<Option<Vec<f64>>, Failure> {
        let choice = self.choice()?;
        let Some(positions) = choice.logprobs.as_ref().and_then(|logprobs| logprobs.content.as_ref()) else {
            return Ok(None);
        };
        let Some(position) = &positions.0 else {
            return Err(Failure::no_verdict("the judge wrote no token where a label was due"));
        };
        position.label_logprobs(labels).map(Some)
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

    /// The choice, unless it was refused.
    fn choice(&self) -> Result<&Choice, Failure> {
        let choice =
            self.choices.0.as_ref().ok_or_else(|| Failure::no_verdict("the reply is empty: it has no choice"))?;
        if let Some(refusal) = choice.message.refusal.as_deref().filter(|refusal| !refusal.is_empty()) {
            return Err(Failure::no_verdict(format!("the judge refused: {}", quote(refusal))));
        }
        if choice.finish_reason.as_deref() == Some("content_filter") {
            return Err(Failure::no_verdict("the endpoint's content filter withheld the reply"));
        }
        Ok(choice)
    }
}

/// Largest probability of a token that only begins a label. Below, it counts as outside the labels.
const MOST_BEGUN: f64 = 0.1;

impl Position {
    fn label_logprobs(&self, labels: &[String]) -> Result<Vec<f64>, Failure> {
        let mut logprobs = vec![f64::NEG_INFINITY; labels.len()];
        let (mut total, mut begun) = (f64::NEG_INFINITY, (f64::NEG_INFINITY, ""));
        for (token, logprob) in self.tokens() {
            let logprob = checked(token, logprob)?;
            total = log_add(total, logprob);
            let spelled = spelling(token);
            if self.only_begins(spelled, labels) {
                begun = if logprob > begun.0 { (logprob, spelled) } else { begun };
                continue;
            }
            for (label, sum) in labels.iter().zip(&mut logprobs) {
                if label == spelled {
                    *sum = log_add(*sum, logprob);
                }
            }
        }
        if total > ROUNDING {
            let total = total.exp();
            return Err(Failure::no_verdict(format!("the tokens' probabilities add up to {total:.3}, more than 1")));
        }
        if begun.0 > MOST_BEGUN.ln() {
            return Err(Failure::no_verdict(format!(
                "the judge begins a label with the token `{}`, and what it would have gone on with is not known; use \
                 labels that are one token each and do not begin one another",
                quote(begun.1)
            )));
        }
        if logprobs.iter().all(|logprob| *logprob == f64::NEG_INFINITY) {
            return Err(Failure::no_verdict(format!(
                "none of the labels is among the likeliest tokens; the judge wants to say `{}`",
                quote(&self.token)
            )));
        }
        Ok(logprobs.into_iter().map(|logprob| logprob.min(0.0)).collect())
    }

    /// Whether a token does not say which label is meant: it is a part of one, or a whole one with which another begins. That
    /// other one is told apart only where it is a token of this reply itself: no tokenizer then writes it in parts.
    fn only_begins(&self, spelled: &str, labels: &[String]) -> bool {
        let is_label = labels.iter().any(|label| label == spelled);
        let is_token = |label: &String| self.tokens().any(|(token, _)| spelling(token) == label);
        let goes_on = |label: &&String| label.len() > spelled.len() && label.starts_with(spelled);
        !spelled.is_empty() && labels.iter().filter(goes_on).any(|label| !is_label || !is_token(label))
    }

    /// The likeliest tokens, and the sampled one if it is not among them.
    fn tokens(&self) -> impl Iterator<Item = (&str, &Value)> {
        let is_listed = self.top_logprobs.iter().any(|listed| listed.token == self.token);
        let sampled = (!is_listed).then_some((self.token.as_str(), &self.logprob));
        self.top_logprobs.iter().map(|listed| (listed.token.as_str(), &listed.logprob)).chain(sampled)
    }
}

/// A token's text without the space that leads into a word.
fn spelling(token: &str) -> &str {
    token.strip_prefix(' ').unwrap_or(token)
}

/// A log-probability: a number that is not above 0, but for rounding.
fn checked(token: &str, logprob: &Value) -> Result<f64, Failure> {
    match logprob.as_f64() {
        Some(number) if number.is_finite() && number <= ROUNDING => Ok(number),
        _ => Err(Failure::no_verdict(format!(
            "the log-probability of `{}` is {}, which is none",
            quote(token),
            quote(&logprob.to_string())
        ))),
    }
}

/// ln(e^a + e^b), exact where one of them is no probability at all.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
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
