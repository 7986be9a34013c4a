//! Scores by a running Gradus.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::request_keys::RequestKeys;
use super::{Attempted, RubricIdentity, Scored, StageScore};
use crate::rubric::Rubric;
use crate::shaping::Position;
use crate::train::TrainError;
use crate::train::client::{Client, Endpoint};
use crate::train::env::Split;

/// Rollouts of one request, at most: the rollouts of a group go together, since a judge may put them in order.
const BATCH: usize = 64;

/// The requests for rollouts of these tasks, in groups of `size`, as ranges. The server knows a group by its task: where a
/// task comes again, a request ends.
fn requests(tasks: &[usize], size: usize) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    // A group of more than a judge puts in order is cut.
    for part in tasks.chunks(size.max(1)).flat_map(|group| group.chunks(BATCH)) {
        let end = start + part.len();
        let asked = |request: &Range<usize>| tasks.get(request.clone()).unwrap_or_default();
        let goes_on = |request: &&mut Range<usize>| {
            end - request.start <= BATCH && !part.iter().any(|task| asked(request).contains(task))
        };
        match all.last_mut().filter(goes_on) {
            Some(request) => request.end = end,
            None => all.push(start..end),
        }
        start = end;
    }
    all
}

/// A server and what it is asked.
pub struct Remote {
    client: Client,
    runtime: Runtime,
    keys: RequestKeys,
    rubric: String,
    tools: Value,
    identity: RubricIdentity,
    rules: Option<Rubric>,
    max_reward: f64,
}

#[derive(Deserialize)]
struct Answer {
    rubric: RubricIdentity,
    rewards: Vec<Option<f64>>,
    results: Vec<ScoredItem>,
}

#[derive(Deserialize)]
struct ScoredItem {
    #[serde(default)]
    stages: Vec<StageScore>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
    reason: Option<String>,
    #[serde(default)]
    errors: Vec<Value>,
}

impl Remote {
    /// Connects: asks for the rubric once, so that a wrong name is known before the first step. `run` is the run's
    /// folder, and the name under which the server stores its scores; `tools` a JSON list.
    ///
    /// # Errors
    /// [`TrainError::Reward`] when the server cannot be reached within the patience, or has no such rubric.
    pub fn connect(
        endpoint: Endpoint,
        rubric: &str,
        (folder, run): (&Path, &str),
        tools: &str,
    ) -> Result<Self, TrainError> {
        let (client, runtime) = Client::new(endpoint).map_err(TrainError::Reward)?;
        let known: Value = runtime.block_on(client.get(&format!("rubrics/{rubric}"))).map_err(TrainError::Reward)?;
        let text = |key: &str| known.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let rules = known.get("rubric").map(|rubric| Rubric::from_json(&rubric.to_string())).transpose();
        if let Err(error) = &rules {
            let url = client.url();
            tracing::warn!(%url, rubric, %error, "the server's rubric cannot be read here: calls are read in any format, strictly");
        }
        let identity = RubricIdentity { name: text("name"), version: text("version") };
        Ok(Self {
            keys: RequestKeys::open(folder, run, &identity.version)?,
            identity,
            max_reward: known.pointer("/rubric/reward/max").and_then(Value::as_f64).unwrap_or(1.0),
            rules: rules.unwrap_or_default(),
            client,
            runtime,
            rubric: rubric.to_owned(),
            tools: serde_json::from_str(tools).unwrap_or_else(|_| json!([])),
        })
    }

    pub(super) fn identity(&self) -> &RubricIdentity {
        &self.identity
    }

    pub(super) fn rules(&self) -> Option<&Rubric> {
        self.rules.as_ref()
    }

    pub(super) fn max_reward(&self) -> f64 {
        self.max_reward
    }

    pub(super) fn ask_anew(&mut self) -> Result<(), TrainError> {
        self.keys.ask_anew()
    }

    pub(super) fn score(
        &mut self,
        rollouts: &[Attempted<'_>],
        size: usize,
        position: &Position,
        split: Split,
    ) -> Result<Vec<Scored>, TrainError> {
        let mut all = Vec::with_capacity(rollouts.len());
        let tasks: Vec<usize> = rollouts.iter().map(|(rollout, _)| rollout.task).collect();
        for batch in requests(&tasks, size).into_iter().filter_map(|request| rollouts.get(request)) {
            let answer = self.ask(batch, position, split)?;
            if answer.rubric != self.identity {
                return Err(TrainError::Changed(format!(
                    "the server's rubric {} changed from {} to {} during the run; pin it as NAME@VERSION, or restart with \
                     --force",
                    self.identity.name, self.identity.version, answer.rubric.version
                )));
            }
            if answer.rewards.len() != batch.len() || answer.results.len() != batch.len() {
                return Err(TrainError::Reward(format!("{} answered another number of rewards", self.client.url())));
            }
            all.extend(answer.rewards.into_iter().zip(answer.results).map(|(reward, item)| item.scored(reward)));
        }
        Ok(all)
    }

    /// Asks once, whatever happens on the way: a server that is asked again gives the answer that it gave, and stores no score
    /// twice. One that has other rollouts of this step is told that these are another run's.
    fn ask(&mut self, batch: &[Attempted<'_>], position: &Position, split: Split) -> Result<Answer, TrainError> {
        loop {
            let key = match split {
                Split::Train => self.keys.key(position.step)?,
                Split::HeldOut => self.keys.key_anew(),
            };
            let body = self.body(batch, position, split);
            let answer = self.runtime.block_on(self.client.post_once("reward", &body, &key));
            if let Some(answer) = answer.map_err(TrainError::Reward)? {
                return Ok(answer);
            }
            let before = self.keys.run_id();
            self.keys.go_another_way()?;
            let (url, run_id, step) = (self.client.url(), self.keys.run_id(), position.step);
            tracing::warn!(%url, run_id, step, "the run {before} has other rollouts of this step there: scores are kept as {run_id} from here on");
        }
    }

    fn body(&self, batch: &[Attempted<'_>], position: &Position, split: Split) -> Value {
        // The server counts the prompts of a run, by which they can be drawn: those that are learnt from.
        let run = (split == Split::Train).then(|| self.keys.run_id());
        let trajectory = |(rollout, task): &Attempted<'_>| {
            let messages = rollout.messages.iter();
            let messages = messages.map(|message| json!({"role": message.role.as_str(), "content": message.text}));
            json!({
                "group": rollout.task.to_string(),
                "messages": messages.collect::<Vec<_>>(),
                "references": task.answers,
                "truncated": rollout.truncated,
                "response_tokens": rollout.written_count(),
            })
        };
        json!({
            "rubric": self.rubric,
            "run_id": run,
            "curriculum": {"step": position.step, "mastery": position.mastery},
            "on_invalid": "null",
            "tools": self.tools,
            "trajectories": batch.iter().map(trajectory).collect::<Vec<_>>(),
        })
    }
}

impl ScoredItem {
    fn scored(mut self, reward: Option<f64>) -> Scored {
        // A server lists the stages among its measures.
        self.metrics.retain(|name, _| self.stages.iter().all(|stage| stage.name != *name));
        let failed = self.errors.first().and_then(|error| error.get("message")).and_then(Value::as_str);
        let reason = self.reason.or_else(|| failed.map(str::to_owned));
        Scored { reward, stages: self.stages, metrics: self.metrics, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each request ends.
    fn ends(tasks: &[usize], size: usize) -> Vec<usize> {
        requests(tasks, size).into_iter().map(|request| request.end).collect()
    }

    #[test]
    fn a_request_holds_whole_groups_and_no_task_twice() {
        assert_eq!(ends(&[1, 1, 2, 2, 3, 3], 2), [6]);
        // Side by side, and apart.
        assert_eq!(ends(&[1, 1, 1, 1], 2), [2, 4]);
        assert_eq!(ends(&[1, 1, 2, 2, 1, 1, 3, 3], 2), [4, 8]);
        assert_eq!(ends(&[1, 2, 3], 1), [3]);
        let many: Vec<usize> = (0..5).flat_map(|task| [task; 30]).collect();
        assert_eq!(ends(&many, 30), [60, 120, 150]);
        assert_eq!(ends(&[7; 100], 100), [64, 100]);
        assert!(requests(&[], 4).is_empty());
    }
}
