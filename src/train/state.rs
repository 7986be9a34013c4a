//! What a run knows besides its parameters: where it stands, and what it has seen. All of it is in a checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reward::{RubricIdentity, Scored};
use crate::advantage::PromptHistory;
use crate::rubric::Rubric;
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
    /// Whether they are over all rollouts that were scored; those of earlier versions are over the ones that came to the stage.
    #[serde(default)]
    pub mastery_of_all: bool,
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

    /// Whether a curriculum of the rubric runs over pass rates that an earlier version counted, in another way.
    pub(super) fn has_other_mastery(&self, rubric: &Rubric) -> bool {
        let unknown = Position { mastery: BTreeMap::new(), ..self.position() };
        // What it lacks without them is what it reads.
        !self.mastery_of_all && !self.mastery.is_empty() && !rubric.missing_in(&unknown).is_empty()
    }

    /// Moves the pass rates towards those of a step, each over all that were scored, as a server's runs count them: a stage
    /// that was not reached was not passed. `rate` is the weight of the step.
    pub fn master(&mut self, scored: &[Scored], rate: f64) {
        let mut passed: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let scored = scored.iter().filter(|scored| scored.reward.is_some());
        for stage in scored.flat_map(|scored| &scored.stages) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::reward::StageScore;

    /// Three rollouts whose calls are broken and one that is right throughout: `GET /runs/{run_id}` says a quarter of each.
    #[test]
    fn mastery_is_the_share_of_all_that_were_scored() {
        let rollout = |reached: usize, reward: Option<f64>| {
            let stage = |(place, name): (usize, &str)| {
                let passed = place < reached;
                StageScore { name: name.to_owned(), score: f64::from(u8::from(passed)), open: place <= reached, passed }
            };
            Scored {
                reward,
                stages: ["tool_parse", "la_bleu"].into_iter().enumerate().map(stage).collect(),
                ..Scored::default()
            }
        };
        let mut scored = vec![rollout(0, Some(0.0)); 3];
        scored.push(rollout(2, Some(1.0)));
        scored.push(rollout(0, None));
        let mut state = RunState::default();
        state.master(&scored, 0.5);
        assert_eq!(state.mastery, BTreeMap::from([("la_bleu".to_owned(), 0.25), ("tool_parse".to_owned(), 0.25)]));
        state.master(&scored[3..], 0.5);
        assert_eq!(state.mastery["la_bleu"], 0.625);
    }

    #[test]
    fn pass_rates_of_an_earlier_version_are_told_where_a_curriculum_runs_over_them() {
        let rubric = |text: &str| Rubric::from_toml(text).unwrap();
        let reads = rubric(include_str!("../../rubrics/short_form_qa_curriculum.toml"));
        let reads_none = rubric(include_str!("../../rubrics/binary_em.toml"));
        let mut saved = serde_json::to_value(RunState::default()).unwrap();
        saved.as_object_mut().unwrap().remove("mastery_of_all");
        let mut saved: RunState = serde_json::from_value(saved).unwrap();
        assert!(!saved.has_other_mastery(&reads), "there are none");
        saved.mastery.insert("tool_parse".to_owned(), 0.5);
        assert!(saved.has_other_mastery(&reads) && !saved.has_other_mastery(&reads_none));
        saved.mastery_of_all = true;
        assert!(!saved.has_other_mastery(&reads));
    }
}
