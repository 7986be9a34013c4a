//! What a run knows besides its parameters: where it stands, and what it has seen. All of it is in a checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reward::{RubricIdentity, Scored};
use crate::advantage::PromptHistory;
use crate::shaping::Position;

/// A run's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Steps of the optimiser.
    pub optimizer_steps: u64,
    /// Tasks drawn so far: the sampler's place in its order.
    pub tasks_drawn: u64,
    /// Rollouts drawn so far.
    pub rollouts_drawn: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Tokens that the policy wrote.
    pub tokens: u64,
    /// Pass rates of the stages, as moving averages.
    pub mastery: BTreeMap<String, f64>,
    /// The value table: what is known of each task that was drawn.
    pub values: BTreeMap<usize, PromptHistory>,
    /// The best held-out exact match so far.
    pub best: Option<f64>,
    /// Evaluations since then.
    pub evaluations_since_best: u64,
    /// The rubric that scored so far.
    pub rubric: Option<RubricIdentity>,
    /// Hash of the configuration.
    pub config_hash: String,
    /// Hashes of the files that it learns from and is examined by, by the setting that names each.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// Who judged so far: what is known of each judge of the rubric, by its name.
    #[serde(default)]
    pub judges: BTreeMap<String, String>,
    /// What makes its draws.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Whether the evaluation of its step was due and failed.
    #[serde(default)]
    pub unexamined: bool,
    /// Why it ended before its last step, if it did.
    #[serde(default)]
    pub early: Option<String>,
}

impl RunState {
    /// Where the curriculum stands.
    pub fn position(&self) -> Position {
        Position { step: Some(self.step), mastery: self.mastery.clone() }
    }

    /// Moves the pass rates towards those of a step, each over the rollouts that reached the stage, as a server's runs
    /// count them; `rate` is the weight of the step. A stage that none reached keeps its rate.
    pub fn master(&mut self, scored: &[Scored], rate: f64) {
        let mut passed: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let scored = scored.iter().filter(|scored| scored.reward.is_some());
        for stage in scored.flat_map(|scored| &scored.stages).filter(|stage| stage.open) {
            let (hits, count) = passed.entry(&stage.name).or_default();
            *hits += f64::from(u8::from(stage.passed));
            *count += 1.0;
        }
        for (name, (hits, count)) in passed {
            let share = hits / count;
            let average = self.mastery.entry(name.to_owned()).or_insert(share);
            *average += rate * (share - *average);
        }
    }
}
