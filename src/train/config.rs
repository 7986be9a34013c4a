//! A training run's configuration file. In: TOML. Out: a checked [`TrainConfig`]; errors name the field. Each section is its module's.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
pub use super::algorithm::LossOverrides;
pub use super::checkpoint::CheckpointConfig;
pub use super::demonstrations::SftConfig;
use super::env::QaSearchConfig;
pub use super::evaluation::EvaluationConfig;
pub use super::groups::{DapoConfig, PpoConfig, VspoConfig};
pub use super::policy::{FreshModel, PolicyConfig};
pub use super::reward::RewardConfig;
use super::rollout::RolloutConfig;
use super::rollout::server::{ServerConfig, WeightUpdate};
pub use super::update::{LearningRate, Schedule, UpdateConfig};
use super::{TrainError, checkpoint};
use crate::lm::DeviceChoice;
use crate::lm::training::AdamWConfig;

/// Something that a setting must not be: whether it is, which setting, and what to do.
pub(super) type Check = (bool, &'static str, &'static str);

/// Whether a step is one of each `every`; 0 is never.
pub(super) fn is_each(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// From 0 to 1.
pub(super) fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// Finite, and 0 or more.
pub(super) fn is_from_zero(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

/// Finite, and above 0.
pub(super) fn is_above_zero(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

/// An address of a server, such as `http://127.0.0.1:8080`.
pub(super) fn is_address(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The run's name.
    pub name: String,
    /// What runs share that differ in their seed only; the name otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Folder of the run: metrics, checkpoints, rollouts, the exported model. Made when it is not there.
    pub output: PathBuf,
    /// How the policy is improved.
    pub algorithm: Algorithm,
    /// Makes every draw of the run.
    #[serde(default)]
    pub seed: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Where it computes: on the CPU in float32, on a GPU in bfloat16 with float32 master weights.
    #[serde(default)]
    pub device: DeviceChoice,
    /// The policy.
    pub policy: PolicyConfig,
    /// Where it acts.
    pub environment: EnvironmentConfig,
    /// What it is scored by.
    #[serde(default)]
    pub reward: RewardConfig,
    /// How it is tried.
    #[serde(default)]
    pub rollout: RolloutConfig,
    /// A server that writes the rollouts; otherwise this process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_server: Option<ServerConfig>,
    /// The loss, where it differs from the algorithm's usual one.
    #[serde(default)]
    pub loss: LossOverrides,
    /// Sampling of groups by their value.
    #[serde(default)]
    pub vspo: VspoConfig,
    /// DAPO's dynamic sampling.
    #[serde(default)]
    pub dapo: DapoConfig,
    /// PPO's critic.
    #[serde(default)]
    pub ppo: PpoConfig,
    /// Supervised fine-tuning.
    #[serde(default)]
    pub sft: SftConfig,
    /// How a step's batch is gone through.
    #[serde(default)]
    pub update: UpdateConfig,
    /// How parameters move.
    #[serde(default)]
    pub optimizer: AdamWConfig,
    /// How fast.
    #[serde(default)]
    pub learning_rate: LearningRate,
    /// Held-out questions.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
}

/// Where the policy acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EnvironmentConfig {
    /// Questions over a corpus that is searched.
    QaSearch(QaSearchConfig),
}

fn optimizer_checks(optimizer: &AdamWConfig) -> Vec<Check> {
    vec![
        (!(0.0..1.0).contains(&optimizer.beta1), "optimizer.beta1", "must be from 0 to below 1"),
        (!(0.0..1.0).contains(&optimizer.beta2), "optimizer.beta2", "must be from 0 to below 1"),
        (!is_above_zero(optimizer.eps), "optimizer.eps", "must be above 0"),
        (!is_from_zero(optimizer.weight_decay), "optimizer.weight_decay", "must be a finite number from 0"),
        (
            !is_from_zero(optimizer.max_grad_norm),
            "optimizer.max_grad_norm",
            "must be a finite number from 0, which clips nothing",
        ),
    ]
}

impl TrainConfig {
    /// Reads a file. Paths in it are relative to the current directory.
    ///
    /// # Errors
    /// [`TrainError::File`] with the line or the field.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        Self::parse(path)?.checked(path)
    }

    /// The same for settings that others are to take the place of before they are [`checked`](Self::checked).
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|error| TrainError::file(path, error))?;
        toml::from_str(&text).map_err(|error| TrainError::file(path, format!("TOML: {}", error.to_string().trim_end())))
    }

    /// The settings, if each can be; `path` is the file that errors name.
    ///
    /// # Errors
    /// [`TrainError::File`] with the first that cannot.
    pub fn checked(self, path: &Path) -> Result<Self, TrainError> {
        let wrong =
            |(is_so, field, problem): Check| is_so.then(|| TrainError::file(path, format!("{field}: {problem}")));
        if let Some(error) = self.checks().find_map(wrong) {
            return Err(error);
        }
        for error in self.loss.without_effect(self.algorithm).into_iter().filter_map(wrong) {
            // Earlier versions passed them over: a run that is under way need not end for them.
            if !checkpoint::is_begun(&self.output) {
                return Err(error);
            }
            tracing::warn!("{error}");
        }
        Ok(self)
    }

    /// The files that it learns from and is examined by, by the setting that names each.
    pub(super) fn data_files(&self) -> Vec<(&'static str, &Path)> {
        let EnvironmentConfig::QaSearch(qa) = &self.environment;
        let mut files: Vec<(&str, &Path)> = vec![
            ("environment.corpus", &qa.corpus),
            ("environment.train", &qa.train),
            ("environment.held_out", &qa.held_out),
        ];
        if self.algorithm == Algorithm::Sft {
            files.push(("sft.demonstrations", &self.sft.demonstrations));
        }
        files
    }

    /// What a reward server calls the run. Seeds of one file are runs of their own.
    pub(super) fn run_id(&self) -> String {
        if self.seed == 0 { self.name.clone() } else { format!("{}-s{}", self.name, self.seed) }
    }

    /// What no setting must be.
    fn checks(&self) -> impl Iterator<Item = Check> + use<> {
        let learns_by_reward = self.algorithm.learns_by_reward();
        let own = [
            (self.name.is_empty(), "name", "is empty; name the run"),
            (self.steps == 0, "steps", "is 0; a run needs at least one step"),
            (
                self.algorithm.compares_in_groups() && self.rollout.group_size < 2,
                "rollout.group_size",
                "must be 2 or more: advantages are taken within a group",
            ),
            (
                learns_by_reward && self.rollout.temperature == 0.0,
                "rollout.temperature",
                "must be above 0: greedy rollouts of a group are all alike",
            ),
            (
                !learns_by_reward && self.sft.demonstrations.as_os_str().is_empty(),
                "sft.demonstrations",
                "is missing; name a JSONL file of conversations",
            ),
            (
                self.rollout_server.as_ref().is_some_and(|server| server.weights == WeightUpdate::VllmLora)
                    && self.policy.lora.is_none(),
                "rollout_server.weights",
                "is `vllm_lora` and there are no adapters; set `policy.lora`, or take `vllm_reload`",
            ),
            (
                !learns_by_reward && self.update.epochs != UpdateConfig::default().epochs,
                "update.epochs",
                "has no effect on `sft`, whose step is one pass over `sft.batch` demonstrations; leave it out, and take more \
                 `steps`",
            ),
            (
                !learns_by_reward && self.update.minibatches != UpdateConfig::default().minibatches,
                "update.minibatches",
                "has no effect on `sft`, whose step is one of the optimiser; leave it out, and take a smaller `sft.batch` and \
                 more `steps`",
            ),
        ];
        let sections = [
            self.policy.checks(),
            self.reward.checks(),
            self.rollout.checks(),
            self.rollout_server.as_ref().map_or_else(Vec::new, ServerConfig::checks),
            self.loss.over(self.algorithm).checks(),
            self.vspo.checks(),
            self.dapo.checks(self.rollout.max_tokens),
            self.ppo.checks(),
            self.sft.checks(),
            self.update.checks(),
            optimizer_checks(&self.optimizer),
            self.learning_rate.checks(),
            self.evaluation.checks(),
            self.checkpoint.checks(),
        ];
        own.into_iter().chain(sections.into_iter().flatten())
    }

    /// A hash of all settings but name, folder, seed and how servers are reached; the number of steps counts where a
    /// schedule runs over it.
    pub fn hash(&self) -> String {
        let server = |server: &ServerConfig| ServerConfig { patience_s: 0, concurrency: 0, ..server.clone() };
        let (rollout_server, loss) = (self.rollout_server.as_ref().map(server), self.loss.with_effect(self.algorithm));
        Self { rollout_server, loss, ..self.clone() }.earlier_hash()
    }

    /// The same as earlier versions made it, to which it mattered how long a rollout server is waited for, how much it is asked
    /// at a time, and what of the loss has no effect.
    pub(super) fn earlier_hash(&self) -> String {
        let steps = if self.learning_rate.schedule == Schedule::Constant { 0 } else { self.steps };
        // What is punished counts, whoever chose it; without a punishment there is nothing that earlier versions had not.
        let cache = self.dapo.overlong_cache(self.rollout.max_tokens);
        let punished = Some(cache).filter(|cache| self.algorithm == Algorithm::Dapo && *cache > 0);
        let dapo = DapoConfig { overlong_cache_tokens: punished, ..self.dapo };
        let reward = RewardConfig { url: None, token_env: None, patience_s: 0, ..self.reward.clone() };
        let server = |server: &ServerConfig| ServerConfig { url: String::new(), token_env: None, ..server.clone() };
        let rollout_server = self.rollout_server.as_ref().map(server);
        let (name, output) = (String::new(), PathBuf::new());
        let common = Self { name, output, seed: 0, steps, reward, rollout_server, dapo, ..self.clone() };
        let text = serde_json::to_string(&common).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::TrainConfig;

    /// A run with these lines in its file.
    pub(in crate::train) fn config(algorithm: &str, rest: &str) -> TrainConfig {
        let text = format!(
            "name = \"n\"\noutput = \"o\"\nalgorithm = \"{algorithm}\"\nsteps = 2\npolicy = {{}}\n{rest}\n[environment]\n\
             kind = \"qa_search\"\ncorpus = \"c\"\ntrain = \"t\"\nheld_out = \"h\"\n"
        );
        toml::from_str(&text).unwrap()
    }
}
