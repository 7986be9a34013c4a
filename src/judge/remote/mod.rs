//! A judge that answers elsewhere: a model's name, served by one or several `OpenAI`-compatible endpoints. In: an inquiry;
//! out: a finding, or why there is none. Knows no rubric, keeps no answers, and turns no failure into a number.
//!
//! An inquiry goes one way: `request` writes it, `pool` finds an endpoint and tries again, `endpoint` keeps its limits,
//! `transport` sends it, `reply` reads what comes back.

mod accounting;
mod address;
mod answer;
mod breaker;
mod config;
mod endpoint;
mod error;
mod failure;
mod pool;
mod position;
mod rate_limit;
mod reply;
mod request;
mod special;
mod transport;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::address::Address;
use self::answer::{chosen, order};
use self::breaker::Policy;
use self::config::endpoint_field;
use self::endpoint::{Call, Endpoint, Metered, Quoting};
use self::failure::{Failure, quote};
use self::pool::{Pool, Retry};
use self::reply::{ChatReply, RewardReply, SglangClassification, VllmClassification};
use self::transport::Transport;
use super::deadline::Deadline;
use super::inquiry::{AnswerForm, BackendAnswer, Finding, Form, Inquiry, PromptMessage, REMOTE_READING, Usage};
use super::shorten::halved;
use super::stated::{list, table, text};
use crate::stages::Unavailable;

pub use self::accounting::{EndpointSnapshot, Health};
pub(super) use self::config::{Config, EndpointConfig, Flavor, Logprobs};
pub(super) use self::error::RemoteError;
pub(super) use self::failure::FailureKind;

/// Longest name of a model that is taken for one, in bytes.
const MAX_MODEL_BYTES: usize = 512;
/// How long an endpoint may be silent before that counts as its failure, to one caller or to all of them in a row, however soon
/// their deadlines are.
const PATIENCE: Duration = Duration::from_secs(5);

/// A judge that is asked over HTTP.
#[derive(Debug)]
pub struct Remote {
    config: Config,
    identity: String,
    pool: Pool,
    /// The model that the first reply with an answer named.
    served: OnceLock<String>,
    /// Whether the first reply that could have them had log-probabilities.
    gives_logprobs: OnceLock<bool>,
}

impl Remote {
    /// Builds a judge. `key` finds the key that a name in `api_key_env` stands for.
    ///
    /// # Errors
    /// A field of `config` that is out of its range, a key that is missing, or TLS that cannot be set up.
    pub fn new(config: Config, key: impl Fn(&str) -> Option<String>) -> Result<Self, RemoteError> {
        config.check()?;
        let client = transport::http_client(Duration::from_millis(config.connect_timeout_ms))
            .map_err(|error| RemoteError::Client { reason: error.to_string() })?;
        let longest = config.request_timeout_ms.map(Duration::from_millis);
        let policy = Policy {
            failures: config.breaker_failures,
            cool_down: Duration::from_millis(config.breaker_cool_down_ms),
            patience: PATIENCE.min(Duration::from_millis(config.deadline_ms)).min(longest.unwrap_or(PATIENCE)),
        };
        let retry = Retry {
            attempts: config.attempts,
            first: Duration::from_millis(config.backoff_ms),
            most: Duration::from_millis(config.backoff_max_ms),
        };
        let probed = Arc::new(Notify::new());
        let endpoints = config.endpoints.iter().enumerate().map(|(index, endpoint)| {
            Ok(Endpoint::new(endpoint, transport(&client, index, endpoint, &key)?, policy, longest, probed.clone()))
        });
        let pool = Pool::new(endpoints.collect::<Result<_, RemoteError>>()?, retry, probed);
        let identity = identity(&config);
        Ok(Self { config, identity, pool, served: OnceLock::new(), gives_logprobs: OnceLock::new() })
    }

    /// What the endpoints were asked so far, in the order of the configuration.
    pub fn snapshot(&self) -> Vec<EndpointSnapshot> {
        self.pool.snapshot()
    }

    /// Where it is asked, in order.
    pub(super) fn urls(&self) -> Vec<&str> {
        let mut urls: Vec<&str> =
            self.config.endpoints.iter().map(|endpoint| endpoint.url.trim_end_matches('/')).collect();
        urls.sort_unstable();
        urls
    }

    async fn find(&self, inquiry: &Inquiry, deadline: &Deadline) -> Result<Finding, Failure> {
        let messages = &inquiry.messages;
        match &inquiry.want {
            AnswerForm::Labels(labels) => self.labels(messages, labels, deadline).await,
            AnswerForm::ReasonedLabel { labels, thinking_tokens, seed } => {
                let call = request::reasoned_label(&self.config, messages, labels, (*thinking_tokens, *seed));
                self.chat(&call, deadline, |reply| chosen(reply, labels)).await.map(finding)
            }
            AnswerForm::Order { candidates } => {
                let call = request::order(&self.config, messages, *candidates);
                self.chat(&call, deadline, |reply| order(reply, *candidates)).await.map(finding)
            }
            AnswerForm::Reward => self.reward(messages, deadline).await,
        }
    }

    async fn labels(
        &self,
        messages: &[PromptMessage],
        labels: &[String],
        deadline: &Deadline,
    ) -> Result<Finding, Failure> {
        let mut wasted = Usage::default();
        if self.reads_logprobs() {
            let call = request::label_logprobs(&self.config, messages, labels);
            let read = |reply: &ChatReply| {
                let logprobs = reply.label_logprobs(labels, self.config.top_logprobs)?;
                if logprobs.is_none() && self.gives_logprobs.get() == Some(&true) {
                    return Err(Failure::new(
                        FailureKind::Changed,
                        "the reply has no log-probabilities, as the judge's first had",
                    ));
                }
                Ok(logprobs)
            };
            match self.chat(&call, deadline, read).await {
                Ok((Some(logprobs), usage)) => {
                    self.gives_logprobs.get_or_init(|| true);
                    return Ok(Finding { said: BackendAnswer::Labels(logprobs), usage });
                }
                Ok((None, usage)) => wasted = usage,
                Err(failure) if refuses_logprobs(&failure) && self.gives_logprobs.get() != Some(&true) => {}
                Err(failure) => return Err(failure),
            }
            if self.config.logprobs == Logprobs::On {
                return Err(Failure::no_verdict(
                    "the endpoint gives no log-probabilities, and `logprobs` is `on`; `auto` reads a JSON object",
                ));
            }
            self.gives_logprobs.get_or_init(|| {
                let model = self.config.model.as_str();
                tracing::warn!(model, "an endpoint gave no log-probabilities: from now on labels are read from JSON");
                false
            });
        }
        let call = request::label_json(&self.config, messages, labels);
        let (said, mut usage) = self.chat(&call, deadline, |reply| chosen(reply, labels)).await?;
        accounting::add(&mut usage, wasted);
        Ok(Finding { said, usage })
    }

    async fn reward(&self, messages: &[PromptMessage], deadline: &Deadline) -> Result<Finding, Failure> {
        match (self.config.flavor, self.config.conversation) {
            (Flavor::Vllm, _) => {
                let call = request::reward_messages(&self.config, messages);
                self.rewarded::<VllmClassification>(&call, deadline).await
            }
            (Flavor::Sglang, Some(conversation)) => {
                let call = request::reward_text(&self.config, messages, conversation);
                self.rewarded::<SglangClassification>(&call, deadline).await
            }
            (Flavor::Sglang, None) => Err(Failure::new(
                FailureKind::Denied,
                "SGLang's reward models read text; say in `conversation` how it is written: `chatml` or `llama3`",
            )),
            (Flavor::Openai, _) => Err(Failure::new(
                FailureKind::Denied,
                "an endpoint of flavor `openai` serves no reward models; use `vllm` or `sglang`",
            )),
        }
    }

    async fn rewarded<T: RewardReply + DeserializeOwned + Metered>(
        &self,
        call: &Call,
        deadline: &Deadline,
    ) -> Result<Finding, Failure> {
        let read = |reply: T| {
            let model = reply.model();
            model.map_or(Ok(()), |model| self.check_model(model, self.served.get()))?;
            let said = reply.reward().map(BackendAnswer::Reward)?;
            model.map_or(Ok(()), |model| self.pin(model))?;
            Ok(said)
        };
        self.pool.ask(call, deadline, read).await.map(finding)
    }

    async fn chat<A: Quoting>(
        &self,
        call: &Call,
        deadline: &Deadline,
        read: impl Fn(&ChatReply) -> Result<A, Failure>,
    ) -> Result<(A, Usage), Failure> {
        let read = |reply: ChatReply| {
            // Before its model is looked at: a gateway names none where it has no answer.
            if let Some(failure) = reply.failure() {
                return Err(failure);
            }
            let model = reply.model.as_deref().unwrap_or_default();
            self.check_model(model, self.served.get())?;
            let answer = read(&reply)?;
            self.pin(model)?;
            Ok(answer)
        };
        self.pool.ask(call, deadline, read).await
    }

    /// Keeps the model of the first reply with an answer: one without says nothing that a score could be compared with.
    fn pin(&self, model: &str) -> Result<(), Failure> {
        let pins = self.config.pin_model;
        if pins { self.check_model(model, Some(self.served.get_or_init(|| model.to_owned()))) } else { Ok(()) }
    }

    /// Scores of two models cannot be compared: all answers must come from the one that the first came from.
    fn check_model(&self, model: &str, served: Option<&String>) -> Result<(), Failure> {
        if !self.config.pin_model {
            return Ok(());
        }
        if model.is_empty() || model.len() > MAX_MODEL_BYTES {
            let unnamed = "the reply does not say which model it is from; `pin_model` wants that";
            return Err(Failure::new(FailureKind::Changed, unnamed));
        }
        let Some(served) = served.filter(|served| *served != model) else { return Ok(()) };
        let message = format!(
            "the judge changed its model from `{}` to `{}`; restart with the one that is meant, or turn `pin_model` off",
            quote(served),
            quote(model)
        );
        Err(Failure::new(FailureKind::Changed, message))
    }

    fn reads_logprobs(&self) -> bool {
        match self.config.logprobs {
            Logprobs::On => true,
            Logprobs::Off => false,
            Logprobs::Auto => self.gives_logprobs.get() != Some(&false),
        }
    }
}

impl Remote {
    /// Answers one inquiry, or says before `deadline`, which may move on, why there is no answer.
    ///
    /// # Errors
    /// What went wrong at the endpoints last.
    pub(super) async fn answer(&self, inquiry: &Inquiry, deadline: &Deadline) -> Result<Finding, Unavailable> {
        let own = Instant::now() + Duration::from_millis(self.config.deadline_ms);
        let deadline = &deadline.no_later_than(own);
        let mut found = self.find(inquiry, deadline).await;
        // Nobody but the endpoint knows its tokens: what comes from the trajectory is halved until it fits.
        let mut shorter = halved(inquiry);
        while found.as_ref().err().is_some_and(is_too_long)
            && let Some(shorter) = shorter.next()
        {
            found = self.find(&shorter, deadline).await;
        }
        found.map_err(|failure| failure.unavailable(&self.config.model))
    }

    /// The form in which it answers; none where the endpoints are yet to show whether they have log-probabilities.
    pub(super) fn form(&self, want: &AnswerForm) -> Option<Form> {
        match (want, self.config.logprobs) {
            (AnswerForm::Labels(_), Logprobs::Off) => Some(Form::LabelAlone),
            (AnswerForm::Labels(_), Logprobs::Auto) => {
                self.gives_logprobs.get().map(|gives| if *gives { Form::AsWanted } else { Form::LabelAlone })
            }
            _ => Some(Form::AsWanted),
        }
    }

    /// What tells this judge apart from any other that could give another answer.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

fn finding((said, usage): (BackendAnswer, Usage)) -> Finding {
    Finding { said, usage }
}

/// Whether an endpoint said that the prompt is longer than its model can read, in the words of those that we know.
fn is_too_long(failure: &Failure) -> bool {
    const SAID: [&str; 10] = [
        // A proxy that bounds bodies says it in no other words.
        "status 413",
        "context length",
        "context_length",
        "context window",
        "context size",
        "model length",
        "maximum input length",
        "maximum allowed length",
        "prompt is too long",
        "max_new_tokens",
    ];
    let says = failure.message.to_ascii_lowercase();
    failure.kind == FailureKind::Rejected && SAID.iter().any(|words| says.contains(words))
}

/// Whether an endpoint said that it has no log-probabilities. That it was asked for too many is another matter.
fn refuses_logprobs(failure: &Failure) -> bool {
    const REFUSALS: [&str; 6] = ["support", "not allowed", "not permitted", "unknown", "unrecognized", "unexpected"];
    let says = failure.message.to_ascii_lowercase();
    failure.kind == FailureKind::Rejected
        && says.contains("logprob")
        && REFUSALS.iter().any(|refusal| says.contains(refusal))
}

fn transport(
    client: &reqwest::Client,
    index: usize,
    endpoint: &EndpointConfig,
    key: impl Fn(&str) -> Option<String>,
) -> Result<Transport, RemoteError> {
    let address = Address::parse(&endpoint.url)
        .map_err(|reason| RemoteError::Url { field: endpoint_field(index, "url"), reason })?;
    let field = || endpoint_field(index, "api_key_env");
    let name = endpoint.api_key_env.clone().unwrap_or_default();
    let value = match &endpoint.api_key_env {
        None => String::new(),
        Some(name) => key(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| RemoteError::MissingKey { field: field(), name: name.clone() })?,
    };
    Transport::new(client, &address, &SecretString::from(value))
        .map_err(|_| RemoteError::BadKey { field: field(), name })
}

/// Everything in the configuration that changes answers. Not the endpoints: they serve the same model.
fn identity(config: &Config) -> String {
    let mut parts = vec![
        format!("remote:{}:{}", text(&config.model), config.flavor.as_str()),
        format!("temperature={}", config.temperature),
        format!("top_logprobs={}", config.top_logprobs),
        format!("logprobs={}", config.logprobs.as_str()),
        format!("reading={REMOTE_READING}"),
    ];
    if !config.revision.is_empty() {
        parts.push(format!("revision={}", text(&config.revision)));
    }
    if !config.label_token_ids.is_empty() {
        parts.push(format!("label_token_ids={}", table(&config.label_token_ids)));
    }
    if !config.chat_template_kwargs.is_empty() {
        parts.push(format!("chat_template_kwargs={}", Value::from(config.chat_template_kwargs.clone())));
    }
    if !config.special_tokens.is_empty() {
        parts.push(format!("special_tokens={}", list(config.special_tokens.iter().map(|token| text(token)))));
    }
    if let Some(conversation) = config.conversation {
        parts.push(format!("conversation={}", conversation.as_str()));
    }
    parts.join(":")
}
