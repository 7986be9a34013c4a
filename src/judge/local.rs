//! A judge on this machine: a model, loaded into the engine. In: an inquiry. Out: what the model says to it.
//!
//! Rendering and tokenising run on tokio's blocking threads, the model on its own.

mod load;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use self::load::Loaded;
use super::inquiry::{AnswerForm, BackendAnswer, ChatRole, Finding, Inquiry, PromptMessage, Usage};
use super::rank::check_order;
use super::shorten::{KEPT, cut_to, longest_untrusted, with_fewer};
use crate::lm::chat_template::{ChatEnd, ChatMessage, ChatOptions, ChatTemplate};
use crate::lm::tokenizer::{SpecialText, Tokenizer};
use crate::lm::untrusted::Rendered;
use crate::lm::{
    Constraints, DeviceChoice, GenerateRequest, Generated, Guide, Hub, LmError, OrderGuide, ReasonedLabel, Reasoning,
    Sampling, Worker,
};
use crate::stages::Unavailable;
use crate::trajectory::{THINK_END, opens_thinking};

/// Tokens of the object that follows the reasoning, at least: what its label needs beyond that is added.
const OBJECT_TOKENS: usize = 64;

/// Ends a model's thinking: some templates open it whatever they are told.
const THOUGHT: &str = "\n</think>\n\n";

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalConfig {
    /// Its directory (config.json, tokenizer.json, a chat template and *.safetensors), a GGUF file, or its name on the
    /// Hugging Face hub: `OWNER/NAME` or `OWNER/NAME@REVISION`.
    pub model: PathBuf,
    /// Where it computes: on the CPU in float32, on a GPU in float16 with the sums in float32.
    pub device: DeviceChoice,
    /// Longest prompt and answer together, in tokens; the model's own limit where it is lower. Default 32768.
    pub context: usize,
    /// Memory for keys and values, in bytes; those of past prompts included. Default 2 GiB on the CPU, 32 GiB on a GPU.
    /// Models that run through `candle-transformers` (GGUF files, rarer architectures) keep none beyond a prompt.
    pub kv_bytes: Option<u64>,
    /// Tokens computed at a time. Default 4096 on the CPU, 32768 on a GPU.
    pub batch_tokens: Option<usize>,
    /// Tokens of questions that may wait; more makes requests wait. Default 4194304.
    pub queue_tokens: u32,
    /// Temperature of reasoning, 0 to 2; 0 takes the likeliest token. Default 0.
    pub temperature: f64,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            device: DeviceChoice::Auto,
            context: 32_768,
            kv_bytes: None,
            batch_tokens: None,
            queue_tokens: 4 << 20,
            temperature: 0.0,
        }
    }
}

impl LocalConfig {
    /// Checks that there is a model, and every field that has a range.
    ///
    /// # Errors
    /// The first that is missing or out of its range, by name.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.model.as_os_str().is_empty() {
            return Err("`model` is missing: give a directory, a GGUF file or a hub id, OWNER/NAME".to_owned());
        }
        // The model warms up on two tokens.
        for (field, tokens) in [("context", Some(self.context)), ("batch_tokens", self.batch_tokens)] {
            if let Some(tokens) = tokens.filter(|tokens| *tokens < 2) {
                return Err(format!("`{field}` is {tokens}: give 2 tokens at least"));
            }
        }
        if (0.0..=2.0).contains(&self.temperature) {
            return Ok(());
        }
        Err(format!("`temperature` is {}: give a value from 0 to 2", self.temperature))
    }
}

/// A loaded judge.
#[derive(Clone)]
pub struct Local {
    worker: Worker,
    text: Arc<TextSide>,
    identity: String,
    temperature: f64,
}

/// What turns conversations into tokens.
struct TextSide {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    constraints: Result<Constraints, String>,
    /// Ends a text.
    ends: Vec<u32>,
    /// Ends thinking, if the model has a token for it.
    think_end: Option<u32>,
    reward: bool,
    /// Most tokens of a prompt and its answer.
    context: usize,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A prompt's tokens and, where labels are due, theirs.
struct Encoded {
    tokens: Vec<u32>,
    /// Of each label, all that it may be.
    labels: Vec<Vec<u32>>,
}

fn from_lm(error: impl std::borrow::Borrow<LmError>) -> Unavailable {
    Unavailable::no_verdict(format!("the judge's model: {}", error.borrow()))
}

/// An error that says all there is to say in its own words.
#[allow(clippy::needless_pass_by_value)] // `map_err` hands it over
fn no_verdict(error: impl ToString) -> Unavailable {
    Unavailable::no_verdict(error.to_string())
}

impl Local {
    /// Loads a model and warms it up; `hub` is where one is looked for that is not here.
    ///
    /// # Errors
    /// What is wrong with the directory, the device or the options, in words.
    pub fn load(config: &LocalConfig, hub: &Hub) -> Result<Self, String> {
        config.check()?;
        let Loaded { tokenizer, template, network, ends, identity } = load::load(config, hub)?;
        let constraints = match ends.first() {
            Some(end) => Constraints::new(&tokenizer, network.vocab(), *end).map_err(|error| error.to_string()),
            None => Err("no file of the model names the token that ends a text (eos_token_id)".to_owned()),
        };
        let think_end = tokenizer.token_to_id(THINK_END);
        let (reward, context) = (network.is_reward_model(), network.context());
        let text = Arc::new(TextSide { tokenizer, template, constraints, ends, think_end, reward, context });
        let worker = Worker::start(move || network.into_model(), config.queue_tokens);
        let worker = worker.map_err(|error| error.to_string())?;
        Ok(Self { worker, text, identity, temperature: config.temperature })
    }

    /// The model's thread.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// What `work` makes on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TextSide) -> Result<T, Unavailable> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let text = self.text.clone();
        let done = tokio::task::spawn_blocking(move || work(&text)).await;
        done.unwrap_or_else(|_| Err(no_verdict("the prompt could not be tokenised; please report it")))
    }

    /// The tokens of a prompt that leaves room for so many of an answer.
    async fn encode(&self, inquiry: &Inquiry, answer_tokens: usize) -> Result<Encoded, Unavailable> {
        let inquiry = inquiry.clone();
        self.blocking(move |text| text.encode_to_fit(&inquiry, answer_tokens)).await
    }

    /// The tokens of an answer that a guide holds to its form, and the guide with what it gathered.
    async fn guided<G: Guide>(
        &self,
        inquiry: &Inquiry,
        guide: G,
        answer_tokens: usize,
        seed: u64,
    ) -> Result<(Box<G>, Vec<u32>, Usage), Unavailable> {
        let prompt = self.encode(inquiry, answer_tokens).await?.tokens;
        let prompt_tokens = prompt.len() as u64;
        let sampling = Sampling { temperature: self.temperature, seed };
        let request = GenerateRequest { prompt, max_tokens: answer_tokens, sampling, guide: Box::new(guide) };
        let Generated { guide, tokens, .. } = self.worker.text(request).await.map_err(from_lm)?;
        let guide: Box<dyn std::any::Any> = guide;
        let guide = guide.downcast().map_err(|_| no_verdict("the judge lost its guide"))?;
        let usage = Usage { prompt_tokens, cached_tokens: 0, completion_tokens: tokens.len() as u64 };
        Ok((guide, tokens, usage))
    }

    async fn reasoned(
        &self,
        inquiry: &Inquiry,
        labels: &Arc<[String]>,
        budget: u32,
        seed: u64,
    ) -> Result<Finding, Unavailable> {
        let budget = budget as usize;
        let (asked, wanted) = (inquiry.clone(), labels.clone());
        let guide = self.blocking(move |text| text.reasoned(&asked, &wanted, budget)).await?;
        let answer_tokens = budget + guide.object_tokens().max(OBJECT_TOKENS);
        let (guide, tokens, usage) = self.guided(inquiry, guide, answer_tokens, seed).await?;
        let Some(label) = guide.label() else {
            return Err(Unavailable::no_verdict(format!(
                "the judge's answer ends after {} tokens and before its verdict, for which {answer_tokens} were left; \
                 please report it",
                tokens.len()
            )));
        };
        let reasoning = self.text.tokenizer.decode(&tokens, SpecialText::Skipped).unwrap_or_default();
        let logprobs = guide.logprobs().map(<[f64]>::to_vec);
        Ok(Finding { said: BackendAnswer::Chosen { label, reasoning, logprobs }, usage })
    }

    async fn order(&self, inquiry: &Inquiry, candidates: usize) -> Result<Finding, Unavailable> {
        let constraints = self.text.constraints.as_ref().map_err(no_verdict)?;
        let guide = OrderGuide::new(constraints, candidates).map_err(from_lm)?;
        let (guide, _, usage) = self.guided(inquiry, guide, 16 + 4 * candidates, 0).await?;
        let order = guide.indices().ok_or_else(|| no_verdict("the judge gave no order"))?;
        check_order(&order, candidates).map_err(no_verdict)?;
        Ok(Finding { said: BackendAnswer::Order(order), usage })
    }

    /// Answers one inquiry, or says why there is no answer. Takes as long as it takes: deadlines are the caller's.
    ///
    /// # Errors
    /// What the model cannot read, or did not say.
    pub async fn answer(&self, inquiry: &Inquiry) -> Result<Finding, Unavailable> {
        match &inquiry.want {
            AnswerForm::Labels(_) => {
                let encoded = self.encode(inquiry, 0).await?;
                let prompt_tokens = encoded.tokens.len() as u64;
                let found = self.worker.labels(encoded.tokens, encoded.labels.concat()).await;
                let found = found.map_err(from_lm)?;
                let mut logprobs = found.logprobs.as_slice();
                let of_label = |tokens: &Vec<u32>| {
                    let (own, others) = logprobs.split_at_checked(tokens.len()).unwrap_or_default();
                    logprobs = others;
                    log_sum(own)
                };
                let logprobs = encoded.labels.iter().map(of_label).collect();
                let usage = Usage { prompt_tokens, ..Usage::default() };
                Ok(Finding { said: BackendAnswer::Labels(logprobs), usage })
            }
            AnswerForm::ReasonedLabel { labels, thinking_tokens, seed } => {
                self.reasoned(inquiry, labels, *thinking_tokens, *seed).await
            }
            AnswerForm::Order { candidates } => self.order(inquiry, *candidates).await,
            AnswerForm::Reward => {
                let encoded = self.encode(inquiry, 0).await?;
                let prompt_tokens = encoded.tokens.len() as u64;
                let rewards = self.worker.reward(encoded.tokens).await.map_err(from_lm)?;
                let raw = match rewards.as_slice() {
                    [raw] => *raw,
                    // Of two classes, the log-odds of the second: good over bad.
                    [bad, good] => good - bad,
                    other => {
                        return Err(Unavailable::no_verdict(format!(
                            "the reward model gives {} numbers, not one or two",
                            other.len()
                        )));
                    }
                };
                Ok(Finding { said: BackendAnswer::Reward(raw), usage: Usage { prompt_tokens, ..Usage::default() } })
            }
        }
    }

    /// What tells this judge apart from any other that could give another answer.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

/// The logarithm of a sum of probabilities; of one of them itself, bit for bit.
fn log_sum(logprobs: &[f64]) -> f64 {
    let most = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + logprobs.iter().map(|logprob| (logprob - most).exp()).sum::<f64>().ln()
}

impl TextSide {
    /// Encodes a prompt, with what comes from the trajectory cut where it is too long: as little as a few tries find, and
    /// messages of the conversation left out where cutting is not enough. One that is too long even so comes as it is: the
    /// model says what does not fit.
    fn encode_to_fit(&self, inquiry: &Inquiry, answer_tokens: usize) -> Result<Encoded, Unavailable> {
        let room = self.context.saturating_sub(answer_tokens);
        let whole = self.encode(inquiry)?;
        if whole.tokens.len() <= room {
            return Ok(whole);
        }
        if let Some(fits) = self.encode_cut(inquiry, room)? {
            return Ok(fits);
        }
        for fewer in with_fewer(inquiry) {
            let encoded = self.encode(&fewer)?;
            if encoded.tokens.len() <= room {
                return Ok(encoded);
            }
            if let Some(fits) = self.encode_cut(&fewer, room)? {
                return Ok(fits);
            }
        }
        Ok(whole)
    }

    /// Encodes a prompt that is too long with its texts cut; none where there are too many of them.
    fn encode_cut(&self, inquiry: &Inquiry, room: usize) -> Result<Option<Encoded>, Unavailable> {
        const TRIES: usize = 12;
        let mut fits = self.encode(&cut_to(inquiry, KEPT))?;
        if fits.tokens.len() > room {
            return Ok(None);
        }
        let (mut least, mut most) = (KEPT, longest_untrusted(inquiry));
        for _ in 0..TRIES {
            let middle = least + (most - least) / 2;
            if middle == least || fits.tokens.len() * 20 > room * 19 {
                break;
            }
            let encoded = self.encode(&cut_to(inquiry, middle))?;
            if encoded.tokens.len() <= room {
                (least, fits) = (middle, encoded);
            } else {
                most = middle;
            }
        }
        Ok(Some(fits))
    }

    fn encode(&self, inquiry: &Inquiry) -> Result<Encoded, Unavailable> {
        let labels: &[String] = if let AnswerForm::Labels(labels) = &inquiry.want { labels } else { &[] };
        match (matches!(inquiry.want, AnswerForm::Reward), self.reward) {
            (true, false) => {
                return Err(no_verdict("the judge is a language model; mode `reward_model` needs a reward model"));
            }
            (false, true) => return Err(no_verdict("the judge is a reward model; use mode `reward_model`")),
            _ => {}
        }
        let mut rendered = self.render(inquiry)?;
        let is_due_at_once = matches!(inquiry.want, AnswerForm::Labels(_) | AnswerForm::Order { .. });
        if is_due_at_once && opens_thinking(rendered.trusted_end()) {
            rendered.push_trusted(THOUGHT);
        }
        let tokens = self.tokenizer.encode_prompt(&rendered).map_err(no_verdict)?;
        let labels = self.tokenizer.label_tokens(labels, rendered.trusted_end()).map_err(no_verdict)?;
        Ok(Encoded { tokens, labels })
    }

    fn render(&self, inquiry: &Inquiry) -> Result<Rendered, Unavailable> {
        let chat: Vec<ChatMessage<'_>> = (inquiry.messages.iter())
            .map(|PromptMessage { role, text, untrusted }| ChatMessage { role: role.as_str(), text, untrusted })
            .collect();
        let by_judge = inquiry.messages.last().is_some_and(|message| message.role == ChatRole::Assistant);
        let end = match (&inquiry.want, by_judge) {
            (AnswerForm::Reward, _) => ChatEnd::Closed,
            (_, true) => ChatEnd::Continue,
            (_, false) => ChatEnd::Answer,
        };
        let thinking = matches!(inquiry.want, AnswerForm::ReasonedLabel { .. });
        let variables = [("enable_thinking".to_owned(), thinking.into())].into();
        let options = ChatOptions { end, variables, ..ChatOptions::default() };
        self.template.render(&chat, &options).map_err(no_verdict)
    }

    fn reasoned(&self, inquiry: &Inquiry, labels: &Arc<[String]>, budget: usize) -> Result<ReasonedLabel, Unavailable> {
        let constraints = self.constraints.as_ref().map_err(no_verdict)?;
        // The end of thinking need not be one token where the template opens it.
        let thinks = self.think_end.is_some() || opens_thinking(self.render(inquiry)?.trusted_end());
        let bridge = if thinks { THOUGHT } else { "\n\n" };
        let bridge = self.tokenizer.encode_trusted(bridge).map_err(no_verdict)?;
        let ends = self.ends.iter().copied().chain(self.think_end).collect();
        let reasoning = Reasoning { ends, bridge, budget };
        ReasonedLabel::new(constraints, labels.clone(), reasoning).map_err(from_lm)
    }
}
