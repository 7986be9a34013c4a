//! Held-out questions: how they are answered, and when a run ends by them.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::config::{Check, is_each, is_share};
use super::env::Split;
use super::measured::mean;
use super::metrics::{Label, Metric, StepMetrics};
use super::reward::{Attempted, Scored};
use super::rollout::{RolloutConfig, RolloutRequest};
use super::run::Run;

/// Held-out questions, answered greedily.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Steps between evaluations; 0 for none.
    pub every: u64,
    /// How many questions, from the first on.
    pub questions: usize,
    /// Stop when the exact match has not risen for so many evaluations; 0 for never.
    pub patience: u64,
    /// Stop when the exact match is this high.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// What counts as reached in reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 10, questions: 256, patience: 0, target: None, threshold: None }
    }
}

impl EvaluationConfig {
    /// Whether a step of a run of `steps` is evaluated: each so many, and the last.
    pub fn is_due(&self, step: u64, steps: u64) -> bool {
        is_each(self.every, step) || (self.every > 0 && step == steps)
    }

    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        let unseen = "is never looked at, since `evaluation.every` is 0; give it the steps between evaluations, or leave this out";
        vec![
            (
                self.every > 0 && self.questions == 0,
                "evaluation.questions",
                "is 0; give 1 or more, or set `evaluation.every` to 0 for no evaluation",
            ),
            (!self.target.is_none_or(is_share), "evaluation.target", "must be from 0 to 1"),
            (self.every == 0 && self.target.is_some(), "evaluation.target", unseen),
            (self.every == 0 && self.patience > 0, "evaluation.patience", unseen),
            (!self.threshold.is_none_or(is_share), "evaluation.threshold", "must be from 0 to 1"),
        ]
    }
}

impl Run {
    /// Evaluates a step, and says whether the run ends by that. Until it has succeeded the step counts as unexamined.
    pub(super) fn examine(&mut self, metrics: &mut StepMetrics) -> Result<(), TrainError> {
        self.state.unexamined = true;
        self.evaluate(metrics)?;
        self.state.unexamined = false;
        self.state.early = self.early_stop();
        Ok(())
    }

    /// Answers held-out questions greedily.
    pub(super) fn evaluate(&mut self, metrics: &mut StepMetrics) -> Result<(), TrainError> {
        let began = Instant::now();
        let world = self.world.clone();
        let tasks = world.environment.tasks(Split::HeldOut);
        let tasks = tasks.get(..self.config.evaluation.questions.min(tasks.len())).unwrap_or_default();
        if tasks.is_empty() {
            return Err(TrainError::other("there is no held-out question to evaluate on"));
        }
        let wanted: Vec<RolloutRequest> = (0..tasks.len()).map(|task| RolloutRequest { task, seed: 0 }).collect();
        let greedy = RolloutConfig { temperature: 0.0, ..self.config.rollout };
        let rollouts = self.sampler.collect(&world, tasks, &wanted, &greedy)?;
        let attempted: Vec<Attempted<'_>> = rollouts.iter().zip(tasks).collect();
        let position = self.state.position();
        let exact = self.examiner.score(&attempted, 1, &position, Split::HeldOut)?;
        let rewards = self.rewarder.score(&attempted, 1, &position, Split::HeldOut)?;
        let right = |scored: &Scored| scored.reward.unwrap_or(0.0);
        let exact_match = mean(exact.iter().map(right));
        let reward: Vec<f64> = rewards.iter().filter_map(|scored| scored.reward).collect();
        let mut parts: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
        for (task, scored) in tasks.iter().zip(&exact) {
            if let Some(hops) = task.hops {
                parts.entry(hops).or_default().push(right(scored));
            }
        }
        self.examined(exact_match);
        let mut values = vec![
            (Metric::EvalExactMatch, exact_match),
            (Metric::EvalLengthMean, mean(rollouts.iter().map(|rollout| rollout.written_count() as f64))),
            (Metric::EvalTruncated, mean(rollouts.iter().map(|rollout| f64::from(u8::from(rollout.truncated))))),
            (Metric::SpeedEvalSeconds, began.elapsed().as_secs_f64()),
        ];
        if !reward.is_empty() {
            values.push((Metric::EvalReward, mean(reward.iter().copied())));
        }
        for (hops, right) in parts {
            let label = Label::new(&format!("{hops}-hop"))?;
            values.push((Metric::EvalExactMatchPart(label), mean(right.into_iter())));
        }
        for (metric, value) in values {
            metrics.set(metric, value)?;
        }
        Ok(())
    }

    /// Notes a held-out exact match.
    fn examined(&mut self, exact_match: f64) {
        self.last_exact_match = Some(exact_match);
        if self.state.best.is_none_or(|best| exact_match > best) {
            (self.state.best, self.state.evaluations_since_best) = (Some(exact_match), 0);
        } else {
            self.state.evaluations_since_best += 1;
        }
    }

    /// Why the run ends after an evaluation, if it does.
    fn early_stop(&self) -> Option<String> {
        let evaluation = &self.config.evaluation;
        let reached = evaluation.target.zip(self.last_exact_match).filter(|(target, found)| found >= target);
        if let Some((target, found)) = reached {
            return Some(format!("the held-out exact match of {found:.3} reached the target of {target}"));
        }
        let waited = self.state.evaluations_since_best;
        (evaluation.patience > 0 && waited >= evaluation.patience)
            .then(|| format!("the held-out exact match has not risen for {waited} evaluations"))
    }
}
