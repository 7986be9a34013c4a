//! Rollouts by a server that speaks OpenAI's completions, tokens in and tokens out, such as vLLM or `SGLang`.
//!
//! Each turn is a request; tools are run here between two of them. The policy is written to disk after every step and the
//! server is told to load it, so that what writes the rollouts is what learns from them; log-probabilities are computed
//! again by the trainer.

mod config;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use self::config::{ServerConfig, WeightUpdate};
use super::{Episode, EpisodeContext, Opened, Policy, Rollout, RolloutConfig, Writer, all};
use crate::lm::{Drawn, Guide, Next};
use crate::train::TrainError;
use crate::train::client::{Client, Endpoint};
use crate::train::protocol::{Protocol, TurnStart};
use crate::train::seeds::{Purpose, draw};

/// A server, and where the policy lies for it.
pub struct Server {
    client: Client,
    runtime: Runtime,
    config: ServerConfig,
    serving: PathBuf,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    finish_reason: Option<String>,
    #[serde(default)]
    token_ids: Option<Vec<u32>>,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    token_logprobs: Vec<Option<f64>>,
}

impl Server {
    /// A server that finds the policy in the folder `serving`; `token` is what [`ServerConfig::token_env`] holds.
    ///
    /// # Errors
    /// [`TrainError::Rollout`] when this machine cannot make a client.
    pub fn new(config: ServerConfig, token: Option<String>, serving: PathBuf) -> Result<Self, TrainError> {
        let patience = Duration::from_secs(config.patience_s);
        let endpoint = Endpoint { url: config.url.clone(), token, patience };
        let (client, runtime) = Client::new(endpoint).map_err(TrainError::Rollout)?;
        Ok(Self { client, runtime, config, serving })
    }

    /// Writes the policy down and lets the server load it.
    pub(super) fn follow(&self, policy: &Policy) -> Result<(), TrainError> {
        match self.config.weights {
            WeightUpdate::VllmLora => policy.export_adapter(&self.serving)?,
            WeightUpdate::VllmReload | WeightUpdate::Sglang => policy.export(&self.serving)?,
        }
        let serving = std::path::absolute(&self.serving).map_err(|error| TrainError::file(&self.serving, error))?;
        let orders = match self.config.weights {
            WeightUpdate::VllmReload => vec![
                ("collective_rpc", json!({"method": "reload_weights"})),
                // What was cached of prompts belongs to the old weights.
                ("reset_prefix_cache", json!({})),
            ],
            WeightUpdate::VllmLora => {
                let body =
                    json!({"lora_name": self.config.model, "lora_path": serving.join("adapter"), "load_inplace": true});
                // The cache knows an adapter by its name, which stays.
                vec![("v1/load_lora_adapter", body), ("reset_prefix_cache", json!({}))]
            }
            WeightUpdate::Sglang => {
                vec![("update_weights_from_disk", json!({"model_path": serving, "flush_cache": true}))]
            }
        };
        for (path, body) in orders {
            self.runtime.block_on(self.client.tell(path, &body)).map_err(TrainError::Rollout)?;
        }
        Ok(())
    }

    /// Runs episodes until all are done, at most `concurrency` at a time.
    pub(super) fn collect(
        &self,
        world: &EpisodeContext,
        wanted: Vec<Opened>,
        config: &RolloutConfig,
    ) -> Result<Vec<Rollout>, TrainError> {
        let places = Arc::new(Semaphore::new(self.config.concurrency.max(1)));
        let writer = StepContext { client: self.client.clone(), model: self.config.model.clone(), config: *config };
        let writer = Arc::new(writer);
        let mut found: Vec<Option<Rollout>> = wanted.iter().map(|_| None).collect();
        self.runtime.block_on(async {
            let mut episodes = JoinSet::new();
            for (index, wanted) in wanted.into_iter().enumerate() {
                let (writer, places, world) = (writer.clone(), places.clone(), world.clone());
                episodes.spawn(async move {
                    // The semaphore is never closed.
                    let _place = places.acquire().await;
                    (index, writer.episode(world, wanted).await)
                });
            }
            while let Some(ended) = episodes.join_next().await {
                let (index, rollout) = ended.map_err(|error| TrainError::Rollout(error.to_string()))?;
                if let Some(place) = found.get_mut(index) {
                    *place = Some(rollout?);
                }
            }
            Ok::<_, TrainError>(())
        })?;
        all(found)
    }
}

/// What the episodes of a step share.
struct StepContext {
    client: Client,
    model: String,
    config: RolloutConfig,
}

impl StepContext {
    async fn episode(&self, world: EpisodeContext, (wanted, opening): Opened) -> Result<Rollout, TrainError> {
        let (messages, TurnStart { tokens, begun }) = (*opening).clone();
        let protocol = world.protocol.clone();
        let mut episode = Episode::new(world, messages, begun);
        let (task, prompt) = (wanted.task, tokens.len());
        let mut rollout = Rollout { task, prompt, tokens, truncated: true, ..Rollout::default() };
        for turn in 0.. {
            let left = self.config.max_tokens.saturating_sub(rollout.writers.len());
            if left == 0 {
                break;
            }
            let body = self.request(&rollout.tokens, &protocol, left, draw(wanted.seed, Purpose::Turn, [turn, 0]));
            let answer: Completion = self.client.post("v1/completions", &body).await.map_err(TrainError::Rollout)?;
            let written = written(answer, &protocol).map_err(|why| self.wrong(&why))?;
            match take(&mut rollout, &mut episode, written, self.config.max_tokens)? {
                Turn::Next => {}
                Turn::Last => {
                    rollout.truncated = false;
                    break;
                }
                Turn::CutOff => break,
            }
        }
        rollout.messages = episode.into_messages();
        Ok(rollout)
    }

    fn wrong(&self, why: &str) -> TrainError {
        TrainError::Rollout(format!("{}/v1/completions: {why}", self.client.url()))
    }

    fn request(&self, prompt: &[u32], protocol: &Protocol, max_tokens: usize, seed: u64) -> Value {
        json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            // All that a server would take from the model's `generation_config.json`: tokens are to be drawn from the policy.
            "temperature": self.config.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            // Servers hold seeds in signed words.
            "seed": seed >> 1,
            "stop_token_ids": protocol.end_tokens(),
            "logprobs": 0,
            "return_token_ids": true,
            "skip_special_tokens": false,
        })
    }
}

/// How a turn ended.
enum Turn {
    /// Tools have spoken; the policy goes on.
    Next,
    /// The policy answered.
    Last,
    /// The tokens ran out.
    CutOff,
}

/// The tokens of a turn, each with its log-probability where the server says it.
fn written(answer: Completion, protocol: &Protocol) -> Result<Vec<(u32, Option<f64>)>, String> {
    let choice = answer.choices.into_iter().next().ok_or("an answer without a choice")?;
    let stopped = choice.finish_reason.as_deref() == Some("stop");
    let logprobs = choice.logprobs.map_or_else(Vec::new, |logprobs| logprobs.token_logprobs);
    let (mut tokens, are_drawn) = match choice.token_ids {
        Some(tokens) => (tokens, true),
        // A server that gives texts only: the tokens of the text stand for those that were drawn.
        None => (protocol.tokens(&choice.text).map_err(|error| error.to_string())?, false),
    };
    let of_text = tokens.len();
    if stopped && !tokens.last().is_some_and(|last| protocol.ends(*last)) {
        tokens.push(protocol.end());
    }
    if tokens.is_empty() {
        return Err(format!("an empty turn (finish_reason {:?})", choice.finish_reason));
    }
    // Of tokens that are not the drawn ones, those of another count are others; the end may have been drawn with them.
    let is_said = are_drawn || logprobs.len() == of_text || logprobs.len() == tokens.len();
    let logprobs = if is_said { logprobs } else { Vec::new() };
    Ok(tokens.into_iter().zip(logprobs.into_iter().chain(std::iter::repeat(None))).collect())
}

/// Lets the episode take a turn's tokens, as many as there is room for: a text that is tokenised again may have more than
/// were drawn, and is cut off then.
fn take(
    rollout: &mut Rollout,
    episode: &mut Episode,
    written: Vec<(u32, Option<f64>)>,
    max_tokens: usize,
) -> Result<Turn, TrainError> {
    let left = max_tokens.saturating_sub(rollout.writers.len());
    for (token, logprob) in written.into_iter().take(left) {
        rollout.tokens.push(token);
        rollout.writers.push(Writer::Policy { logprob });
        match episode.accept(Drawn { token, logprob: logprob.unwrap_or_default() })? {
            Next::Draw => {}
            Next::Stop => return Ok(Turn::Last),
            Next::Say(said) | Next::Instead(said) => {
                let room = max_tokens.saturating_sub(rollout.writers.len());
                rollout.tokens.extend(said.iter().take(room));
                rollout.writers.extend(said.iter().take(room).map(|_| Writer::Environment));
                return Ok(Turn::Next);
            }
        }
    }
    Ok(Turn::CutOff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolcall::Options;
    use crate::toolcall::tools::ToolSet;
    use crate::train::env::{Budgets, Environment, Message, Split, Task};
    use crate::train::protocol::tests::llama;

    /// Asks nothing and has no tools.
    struct Silence;

    impl Environment for Silence {
        fn tools_json(&self) -> &'static str {
            "[]"
        }

        fn tasks(&self, _: Split) -> &[Task] {
            &[]
        }

        fn messages(&self, _: &Task) -> Vec<Message> {
            Vec::new()
        }

        fn call(&self, _: &str, _: &Value) -> String {
            String::new()
        }

        fn budgets(&self) -> Budgets {
            Budgets { turns: 0, calls_per_turn: 0 }
        }
    }

    fn world() -> EpisodeContext {
        let (environment, protocol) = (Arc::new(Silence), Arc::new(llama()));
        EpisodeContext { environment, protocol, tools: Arc::new(ToolSet::empty()), calls: Options::default() }
    }

    /// What a server says that gives texts only.
    fn said(text: &str, finish_reason: &str) -> Completion {
        serde_json::from_value(json!({"choices": [{"text": text, "finish_reason": finish_reason}]})).unwrap()
    }

    #[test]
    fn a_text_that_stopped_ends_as_the_template_ends_a_turn() {
        let protocol = llama();
        let shown = |reason| {
            let written = written(said("Hi", reason), &protocol).unwrap();
            protocol.text(&written.iter().map(|(token, _)| *token).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(shown("stop"), "Hi<|eot_id|>");
        assert_eq!(shown("length"), "Hi");
    }

    #[test]
    fn log_probabilities_of_other_tokens_are_not_taken() {
        let protocol = llama();
        let said = |token_ids: Option<Vec<u32>>, count: usize| {
            let logprobs = json!({"token_logprobs": vec![-1.0; count]});
            let choice = json!({"text": "Hi", "finish_reason": "stop", "token_ids": token_ids, "logprobs": logprobs});
            let written = written(serde_json::from_value(json!({"choices": [choice]})).unwrap(), &protocol).unwrap();
            written.into_iter().map(|(_, logprob)| logprob.is_some()).collect::<Vec<bool>>()
        };
        // Of "Hi" there are two tokens, and an end.
        for (count, taken) in [(0, [false; 3]), (1, [false; 3]), (2, [true, true, false]), (3, [true; 3])] {
            assert_eq!(said(None, count), taken, "{count}");
        }
        assert_eq!(said(None, 4), [false; 3]);
        let drawn = protocol.tokens("H").unwrap();
        assert_eq!(said(Some(drawn), 1), [true, false], "what was drawn is what they are of");
    }

    #[test]
    fn a_text_of_more_tokens_than_there_is_room_for_is_cut_off() {
        for (most, kept, whole) in [(3, "Hi<|eot_id|>", true), (2, "Hi", false), (1, "H", false)] {
            let world = world();
            let protocol = world.protocol.clone();
            let mut rollout = Rollout::default();
            let written = written(said("Hi", "stop"), &protocol).unwrap();
            let turn = take(&mut rollout, &mut Episode::new(world, Vec::new(), String::new()), written, most).unwrap();
            assert_eq!((protocol.text(&rollout.tokens).unwrap().as_str(), rollout.writers.len()), (kept, most));
            assert_eq!(matches!(turn, Turn::Last), whole, "{kept}");
        }
    }
}
