//! How a remote judge is set up. In: values from a configuration file; out: the same, checked. Knows no connection and
//! reads no environment: keys come through a function of the caller.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::RemoteError;
use super::address::Address;

/// Most `top_logprobs` that `OpenAI` takes.
const OPENAI_TOP_LOGPROBS: u32 = 20;
/// Most `top_logprobs` of any server: replies are read whole.
const MAX_TOP_LOGPROBS: u32 = 1000;

/// One judge: a model's name and who serves it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the model is served. At least one; all must serve the same weights.
    pub endpoints: Vec<EndpointConfig>,
    /// The model's name at the endpoints.
    pub model: String,
    /// Which weights the name stands for, in words of the user's own; empty where the name says it. Findings are kept by it.
    pub revision: String,
    /// What the endpoints understand beside the common part of the protocol.
    pub flavor: Flavor,
    /// Longest time for an inquiry, retries included, in milliseconds. An earlier deadline of the caller wins.
    pub deadline_ms: u64,
    /// Longest wait for one reply, in milliseconds, before another try; no limit but the deadline without.
    pub request_timeout_ms: Option<u64>,
    /// Longest time for a connection to stand, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Most requests for one inquiry, the first included.
    pub attempts: u32,
    /// Longest pause before the first retry, in milliseconds; doubles with each further one. The pause itself is drawn
    /// evenly from zero up to it, so that clients do not come back together.
    pub backoff_ms: u64,
    /// Where the doubling ends, in milliseconds.
    pub backoff_max_ms: u64,
    /// Most tokens of an answer in JSON, beside the reasoning that the inquiry grants.
    pub max_reply_tokens: u32,
    /// Temperature of the sampling, 0 to 2.
    pub temperature: f64,
    /// How many of the likeliest tokens are asked for when labels are read: 1 to 20 for `openai`, to 1000 elsewhere.
    pub top_logprobs: u32,
    /// Whether labels are read from log-probabilities.
    pub logprobs: Logprobs,
    /// The token of each label, by its text. Where all labels of an inquiry are here, vLLM is asked for just these.
    pub label_token_ids: BTreeMap<String, u32>,
    /// Passed to the chat template by vLLM and `SGLang`. `enable_thinking` is false for labels unless it stands here.
    pub chat_template_kwargs: Map<String, Value>,
    /// Special tokens of the model beside the common ones. A trajectory's text cannot speak them: they are broken up.
    pub special_tokens: Vec<String>,
    /// How a conversation is written for a reward model at `SGLang`, which takes text and applies no template.
    pub conversation: Option<Conversation>,
    /// Whether replies must all name the model that the first one named.
    pub pin_model: bool,
    /// Failures in a row after which an endpoint is left alone. A wait that was shorter than 5 s and brought no reply is one only
    /// where nobody had a reply for as long.
    pub breaker_failures: u32,
    /// For how long it is left alone at most, in milliseconds: a sixteenth at first, doubled each time that the one request
    /// that tries it then fails, and until then inquiries wait for it. After silence, and where it refuses the key or the
    /// model, for all of it at once.
    pub breaker_cool_down_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            model: String::new(),
            revision: String::new(),
            flavor: Flavor::Openai,
            deadline_ms: 60_000,
            request_timeout_ms: None,
            connect_timeout_ms: 5_000,
            attempts: 4,
            backoff_ms: 250,
            backoff_max_ms: 8_000,
            max_reply_tokens: 512,
            temperature: 0.0,
            top_logprobs: OPENAI_TOP_LOGPROBS,
            logprobs: Logprobs::Auto,
            label_token_ids: BTreeMap::new(),
            chat_template_kwargs: Map::new(),
            special_tokens: Vec::new(),
            conversation: None,
            pin_model: true,
            breaker_failures: 5,
            breaker_cool_down_ms: 10_000,
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// The root of its API, such as `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// Name of the variable that holds its key; none is sent without.
    pub api_key_env: Option<String>,
    /// Most requests at once.
    pub max_concurrency: u32,
    /// Most requests a minute; no limit without.
    pub requests_per_minute: Option<u32>,
    /// Most tokens a minute, read and written; no limit without.
    pub tokens_per_minute: Option<u32>,
    /// Price of a million tokens read, in any currency.
    pub prompt_price_per_million: Option<f64>,
    /// Price of a million tokens written, in the same currency.
    pub completion_price_per_million: Option<f64>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            api_key_env: None,
            max_concurrency: 32,
            requests_per_minute: None,
            tokens_per_minute: None,
            prompt_price_per_million: None,
            completion_price_per_million: None,
        }
    }
}

/// Which server's extensions may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// vLLM.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// `OpenAI`, and whatever speaks just its protocol.
    Openai,
}

impl Flavor {
    /// The name in a configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Openai => "openai",
        }
    }
}

/// Whether labels are read from log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Logprobs {
    /// Where the endpoint offers them; from a JSON object otherwise.
    Auto,
    /// Always: without them there is no verdict.
    On,
    /// Never: always from a JSON object.
    Off,
}

impl Logprobs {
    /// The name in a configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// How a conversation becomes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conversation {
    /// `ChatML`, as Qwen models read it.
    Chatml,
    /// The headers of Llama 3.
    Llama3,
}

impl Conversation {
    /// The name in a configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chatml => "chatml",
            Self::Llama3 => "llama3",
        }
    }
}

impl Config {
    /// Checks every field, the endpoints' urls included.
    ///
    /// # Errors
    /// The first field that is out of its range, by name.
    pub fn check(&self) -> Result<(), RemoteError> {
        if self.endpoints.is_empty() {
            return Err(RemoteError::Empty { field: "endpoints".to_owned() });
        }
        if self.model.is_empty() {
            return Err(RemoteError::Empty { field: "model".to_owned() });
        }
        let most_logprobs = if self.flavor == Flavor::Openai { OPENAI_TOP_LOGPROBS } else { MAX_TOP_LOGPROBS };
        within("deadline_ms", self.deadline_ms, 1, 86_400_000)?;
        self.request_timeout_ms.map_or(Ok(()), |longest| within("request_timeout_ms", longest, 1, 86_400_000))?;
        within("connect_timeout_ms", self.connect_timeout_ms, 1, 86_400_000)?;
        within("attempts", self.attempts.into(), 1, 100)?;
        within("backoff_ms", self.backoff_ms, 1, 86_400_000)?;
        within("backoff_max_ms", self.backoff_max_ms, self.backoff_ms, 86_400_000)?;
        within("max_reply_tokens", self.max_reply_tokens.into(), 1, 1 << 20)?;
        within("top_logprobs", self.top_logprobs.into(), 1, most_logprobs.into())?;
        within("breaker_failures", self.breaker_failures.into(), 1, 1_000_000)?;
        within("breaker_cool_down_ms", self.breaker_cool_down_ms, 1, 86_400_000)?;
        real_within("temperature", self.temperature, 2.0)?;
        if self.special_tokens.iter().any(String::is_empty) {
            return Err(RemoteError::Empty { field: "special_tokens".to_owned() });
        }
        self.endpoints.iter().enumerate().try_for_each(|(index, endpoint)| endpoint.check(index))
    }
}

impl EndpointConfig {
    fn check(&self, index: usize) -> Result<(), RemoteError> {
        let field = |name| endpoint_field(index, name);
        Address::parse(&self.url).map_err(|reason| RemoteError::Url { field: field("url"), reason })?;
        within(&field("max_concurrency"), self.max_concurrency.into(), 1, 100_000)?;
        for (name, limit) in
            [("requests_per_minute", self.requests_per_minute), ("tokens_per_minute", self.tokens_per_minute)]
        {
            limit.map_or(Ok(()), |limit| within(&field(name), limit.into(), 1, u32::MAX.into()))?;
        }
        for (name, price) in [
            ("prompt_price_per_million", self.prompt_price_per_million),
            ("completion_price_per_million", self.completion_price_per_million),
        ] {
            price.map_or(Ok(()), |price| real_within(&field(name), price, 1e9))?;
        }
        Ok(())
    }
}

/// The name of an endpoint's field, as messages give it.
pub(super) fn endpoint_field(index: usize, name: &str) -> String {
    format!("endpoints[{index}].{name}")
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), RemoteError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(RemoteError::Range { field: field.to_owned(), value: value.to_string(), range: format!("{least} to {most}") })
}

fn real_within(field: &str, value: f64, most: f64) -> Result<(), RemoteError> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(RemoteError::Range { field: field.to_owned(), value: value.to_string(), range: format!("0 to {most}") })
}
