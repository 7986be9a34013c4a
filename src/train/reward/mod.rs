//! What rollouts are worth. In: rollouts and the curriculum's position. Out: a staged reward each, or why there is none.
//!
//! The library scores in this process, or a running Gradus over HTTP: the same numbers, since both are the one pipeline. A
//! rollout that could not be scored has no reward; it never counts as 0.

mod local;
pub mod remote;
mod request_keys;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::local::Local;
pub use self::remote::Remote;
use super::TrainError;
use super::config::{Check, is_address, is_share};
use super::env::{Split, Task};
use super::rollout::Rollout;
use crate::rubric::{self, Rubric};
use crate::shaping::{PenaltyKind, Position};

/// What the policy is scored by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// A rubric's name, or a rubric file.
    pub rubric: String,
    /// A running Gradus that scores; otherwise this process does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Name of the environment variable with the server's bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// How long an unreachable server is waited for, in seconds.
    pub patience_s: u64,
    /// Weight of the newest step in the pass rates that a rubric's curriculum over mastery runs on, above 0, up to 1.
    pub mastery_rate: f64,
    /// Pass rates to begin with: what the starting policy is known to have mastered.
    pub mastery: BTreeMap<String, f64>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            rubric: rubric::DEFAULT.to_owned(),
            url: None,
            token_env: None,
            patience_s: 300,
            mastery_rate: 0.2,
            mastery: BTreeMap::new(),
        }
    }
}

impl RewardConfig {
    /// What it must not be.
    pub(in crate::train) fn checks(&self) -> Vec<Check> {
        vec![
            (
                !self.url.as_deref().is_none_or(is_address),
                "reward.url",
                "is no address; write one such as \"http://127.0.0.1:8080\"",
            ),
            (!(self.mastery_rate > 0.0 && self.mastery_rate <= 1.0), "reward.mastery_rate", "must be above 0, up to 1"),
            (
                !self.mastery.values().all(|rate| is_share(*rate)),
                "reward.mastery",
                "has a rate that is not from 0 to 1",
            ),
        ]
    }
}

/// Who scores.
pub enum Rewarder {
    /// This process.
    Local(Box<Local>),
    /// A server.
    Remote(Box<Remote>),
}

/// What one rollout is worth, and why.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scored {
    /// The reward; `None` when it could not be scored.
    pub reward: Option<f64>,
    /// The stages in order.
    pub stages: Vec<StageScore>,
    /// Measures that are reported besides.
    pub metrics: BTreeMap<String, f64>,
    /// Why the reward is not higher, or why there is none.
    pub reason: Option<String>,
}

/// A stage's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageScore {
    /// The stage.
    pub name: String,
    /// From 0 to 1; 0 for a closed stage.
    pub score: f64,
    /// Whether it opened.
    pub open: bool,
    /// Whether it reached its threshold.
    pub passed: bool,
}

/// Which rubric it is, so that a run can tell that it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RubricIdentity {
    /// Its name.
    pub name: String,
    /// Its version: `b3-` and a hash.
    pub version: String,
}

/// A rollout with its task.
pub type Attempted<'a> = (&'a Rollout, &'a Task);

impl Rewarder {
    /// Scores rollouts of tasks of a split, in their order: groups of `size` rollouts, one after the other. A judge that ranks
    /// puts those of a group in order, whatever tasks are the same; a server counts all that a step has of a task as one visit.
    ///
    /// # Errors
    /// [`TrainError::Reward`] when nothing can be scored at all.
    pub fn score(
        &mut self,
        rollouts: &[Attempted<'_>],
        size: usize,
        position: &Position,
        split: Split,
    ) -> Result<Vec<Scored>, TrainError> {
        match self {
            Self::Local(local) => Ok(local.score(rollouts, size, position)),
            Self::Remote(remote) => remote.score(rollouts, size, position, split),
        }
    }

    /// Asks anew from here on: what a server answered so far is no answer any more, even to the same question.
    ///
    /// # Errors
    /// When that cannot be kept in the run's folder.
    pub fn ask_anew(&mut self) -> Result<(), TrainError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Remote(remote) => remote.ask_anew(),
        }
    }

    /// Which rubric scores.
    pub fn rubric(&self) -> &RubricIdentity {
        match self {
            Self::Local(local) => local.identity(),
            Self::Remote(remote) => remote.identity(),
        }
    }

    /// The rubric itself; none where a server has it in a form that this version does not read.
    pub fn rules(&self) -> Option<&Rubric> {
        match self {
            Self::Local(local) => Some(local.rubric()),
            Self::Remote(remote) => remote.rules(),
        }
    }

    /// Who judges: what tells each judge of the rubric apart from any other, by its name. A server does not say whom it asks.
    pub fn judges(&self) -> BTreeMap<String, String> {
        match self {
            Self::Local(local) => local.judges(),
            Self::Remote(_) => BTreeMap::new(),
        }
    }

    /// Whether the rubric itself takes something off long rollouts.
    pub fn punishes_length(&self) -> bool {
        let is_overlong = |kind: PenaltyKind| matches!(kind, PenaltyKind::Overlong { .. });
        self.rules().is_some_and(|rubric| rubric.penalties.iter().any(|(_, penalty)| is_overlong(penalty.kind)))
    }

    /// The lowest reward that the rubric can give.
    pub fn min_reward(&self) -> f64 {
        self.rules().map_or(0.0, |rubric| rubric.range.min())
    }

    /// The largest reward that the rubric can give.
    pub fn max_reward(&self) -> f64 {
        match self {
            Self::Local(local) => local.max_reward(),
            Self::Remote(remote) => remote.max_reward(),
        }
    }
}
