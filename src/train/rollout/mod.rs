//! Rollouts: what the policy does with a task. In: tasks, an engine, a seed. Out: token sequences in which it is known what
//! the policy wrote, and the conversations they stand for.

mod engine;
mod episode;
pub mod server;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(super) use self::episode::tests::world;
pub use self::episode::{Episode, EpisodeContext};
pub use self::server::Server;
use super::TrainError;
use super::config::{Check, is_from_zero};
use super::env::{Message, Task};
use super::policy::Policy;
use super::protocol::TurnStart;
use crate::lm::Engine;

/// How rollouts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Prompts of a step.
    pub prompts: usize,
    /// Rollouts of a prompt, G.
    pub group_size: usize,
    /// Most tokens after the prompt, tool results included.
    pub max_tokens: usize,
    /// What logits are divided by.
    pub temperature: f64,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self { prompts: 48, group_size: 5, max_tokens: 256, temperature: 1.0 }
    }
}

/// Most prompts of a step, and most rollouts of a prompt.
const MOST_ROLLOUTS: usize = 1_000_000;

impl RolloutConfig {
    /// What it must not be.
    pub(in crate::train) fn checks(&self) -> Vec<Check> {
        vec![
            (!(1..=MOST_ROLLOUTS).contains(&self.prompts), "rollout.prompts", "must be from 1 to 1000000"),
            (!(1..=MOST_ROLLOUTS).contains(&self.group_size), "rollout.group_size", "must be from 1 to 1000000"),
            (self.max_tokens == 0, "rollout.max_tokens", "is 0; it must be 1 or more"),
            (!is_from_zero(self.temperature), "rollout.temperature", "must be a finite number, above 0"),
        ]
    }
}

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rollout {
    /// Index of the task among those of its split.
    pub task: usize,
    /// Prompt, and all that came after it.
    pub tokens: Vec<u32>,
    /// Length of the prompt, in tokens.
    pub prompt: usize,
    /// Who wrote each token after the prompt.
    pub writers: Vec<Writer>,
    /// The conversation, from the first message on.
    pub messages: Vec<Message>,
    /// Whether `max_tokens` cut it off.
    pub truncated: bool,
}

impl Rollout {
    /// Places in `tokens` of what the policy wrote, each 1 or more.
    pub fn written(&self) -> impl Iterator<Item = usize> {
        let written = self.writers.iter().enumerate().filter(|(_, writer)| **writer != Writer::Environment);
        written.map(|(index, _)| self.prompt + index)
    }

    /// How many tokens the policy wrote.
    pub fn written_count(&self) -> usize {
        self.written().count()
    }
}

/// Who wrote a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Writer {
    /// The environment: what its tools said, and the marks around it. Nothing is learnt from it.
    Environment,
    /// The policy.
    Policy {
        /// ln of the token's probability at temperature 1, as the sampler had it; `None` where it did not say.
        logprob: Option<f64>,
    },
}

/// A rollout that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutRequest {
    /// Index of its task.
    pub task: usize,
    /// Makes its draws.
    pub seed: u64,
}

/// What writes the policy's turns.
pub enum Sampler {
    /// Our own engine, in this process.
    Engine(Box<Engine>),
    /// A server that speaks OpenAI's completions, such as vLLM.
    Server(Box<Server>),
}

impl Sampler {
    /// Runs episodes until all are done. Gives them in the order in which they were wanted.
    ///
    /// # Errors
    /// When the model or the server fails, or a prompt is too long for it.
    pub fn collect(
        &mut self,
        world: &EpisodeContext,
        tasks: &[Task],
        wanted: &[RolloutRequest],
        config: &RolloutConfig,
    ) -> Result<Vec<Rollout>, TrainError> {
        let wanted = opened(world, tasks, wanted)?;
        match self {
            Self::Engine(engine) => engine::collect(engine, world, &wanted, config),
            Self::Server(server) => server.collect(world, wanted, config),
        }
    }

    /// Gives it the policy's newest numbers.
    ///
    /// # Errors
    /// When they cannot be written, or the server does not take them.
    pub fn follow(&mut self, policy: &Policy) -> Result<(), TrainError> {
        match self {
            Self::Engine(engine) => {
                engine.replace(policy.decoder.snapshot()?);
                Ok(())
            }
            Self::Server(server) => server.follow(policy),
        }
    }
}

/// How a task's conversation opens: its messages, and what the policy sees of them.
type Opening = (Vec<Message>, TurnStart);

/// A rollout that is wanted, and how its task opens.
type Opened = (RolloutRequest, Arc<Opening>);

/// What is wanted with the openings of all tasks, each made once.
fn opened(world: &EpisodeContext, tasks: &[Task], wanted: &[RolloutRequest]) -> Result<Vec<Opened>, TrainError> {
    let mut openings: BTreeMap<usize, Arc<Opening>> = BTreeMap::new();
    let with_opening = |wanted: &RolloutRequest| {
        let opening = match openings.entry(wanted.task) {
            Entry::Occupied(place) => place.get().clone(),
            Entry::Vacant(place) => {
                let missing =
                    || TrainError::other(format!("there is no task {}; there are {}", wanted.task, tasks.len()));
                let messages = world.environment.messages(tasks.get(wanted.task).ok_or_else(missing)?);
                let prompt = world.protocol.prompt(&messages)?;
                place.insert(Arc::new((messages, prompt))).clone()
            }
        };
        Ok((*wanted, opening))
    };
    wanted.iter().map(with_opening).collect()
}

/// All rollouts that were wanted.
fn all(found: Vec<Option<Rollout>>) -> Result<Vec<Rollout>, TrainError> {
    let missing = || TrainError::other("a rollout got lost: the key-value cache holds no single one");
    found.into_iter().map(|rollout| rollout.ok_or_else(missing)).collect()
}
