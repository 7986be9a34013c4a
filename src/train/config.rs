//! A training run's configuration file. In: TOML. Out: a checked [`TrainConfig`]; errors name the field.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::algorithm::{Aggregation, Algorithm, KlEstimator, LossConfig};
use super::env::QaSearchConfig;
use super::rollout::RolloutConfig;
use super::rollout::server::{ServerConfig, WeightUpdate};
use crate::advantage::{GaeConfig, Mode, PlanConfig, Sampling};
use crate::lm::DeviceChoice;
use crate::lm::training::{Activations, AdamWConfig, LoraConfig};

/// Most prompts of a step, and most rollouts of a prompt.
const MOST_ROLLOUTS: usize = 1_000_000;

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

/// The policy that learns: a model directory, or a fresh model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// A Hugging Face directory (Qwen2, Qwen3, Llama).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A fresh model, with the tokenizer of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<FreshModel>,
    /// Low-rank adapters; without them all parameters learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// What is kept of a forward pass.
    #[serde(default)]
    pub activations: Activations,
}

/// A model that has learnt nothing: Qwen3's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshModel {
    /// Directory with `tokenizer.json` and `tokenizer_config.json`.
    pub tokenizer: PathBuf,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; 64, 96, 128 or 256 on a GPU.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
}

/// Where the policy acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EnvironmentConfig {
    /// Questions over a corpus that is searched.
    QaSearch(QaSearchConfig),
}

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
    pub mastery: std::collections::BTreeMap<String, f64>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            rubric: "short_form_qa".to_owned(),
            url: None,
            token_env: None,
            patience_s: 300,
            mastery_rate: 0.2,
            mastery: std::collections::BTreeMap::new(),
        }
    }
}

/// What differs from the algorithm's usual loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossOverrides {
    /// See [`LossConfig::clip_low`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_low: Option<f64>,
    /// See [`LossConfig::clip_high`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,
    /// See [`LossConfig::kl_coefficient`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_coefficient: Option<f64>,
    /// See [`LossConfig::kl_estimator`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
    /// See [`LossConfig::aggregation`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,
    /// See [`LossConfig::value_clip`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_clip: Option<f64>,
    /// See [`LossConfig::value_coefficient`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_coefficient: Option<f64>,
    /// See [`LossConfig::dual_clip`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
}

impl LossOverrides {
    /// The loss of an algorithm with these differences.
    pub fn over(&self, algorithm: Algorithm) -> LossConfig {
        let usual = LossConfig::of(algorithm);
        LossConfig {
            clip_low: self.clip_low.unwrap_or(usual.clip_low),
            clip_high: self.clip_high.unwrap_or(usual.clip_high),
            kl_coefficient: self.kl_coefficient.unwrap_or(usual.kl_coefficient),
            kl_estimator: self.kl_estimator.unwrap_or(usual.kl_estimator),
            aggregation: self.aggregation.unwrap_or(usual.aggregation),
            value_clip: self.value_clip.unwrap_or(usual.value_clip),
            value_coefficient: self.value_coefficient.unwrap_or(usual.value_coefficient),
            dual_clip: self.dual_clip.or(usual.dual_clip),
        }
    }
}

/// VSPO's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VspoConfig {
    /// What becomes of a group that is drawn.
    pub mode: Mode,
    /// What groups are drawn by.
    pub sampling: Sampling,
    /// Whether the copies of a group are smoothed and clipped; the ablation "no clip" is `false`.
    pub smoothing: bool,
    /// What each further copy counts in relation to the one before, from 0 to 1.
    pub gamma: f64,
    /// Most that all copies of a group count together; above 0.
    pub w_max: f64,
    /// Groups whose rewards deviate less leave the batch.
    pub sigma_min: f64,
}

impl Default for VspoConfig {
    fn default() -> Self {
        let PlanConfig { sigma_min, gamma, w_max, mode, sampling } = PlanConfig::default();
        Self { mode, sampling, smoothing: true, gamma, w_max, sigma_min }
    }
}

impl VspoConfig {
    /// The plan's settings.
    pub fn plan(&self) -> PlanConfig {
        PlanConfig {
            sigma_min: self.sigma_min,
            gamma: if self.smoothing { self.gamma } else { 1.0 },
            w_max: if self.smoothing { self.w_max } else { f64::INFINITY },
            mode: self.mode,
            sampling: self.sampling,
        }
    }
}

/// DAPO's dynamic sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DapoConfig {
    /// How often fresh prompts are drawn for those whose rewards are all equal; 1 draws none.
    pub max_rounds: usize,
}

impl Default for DapoConfig {
    fn default() -> Self {
        Self { max_rounds: 3 }
    }
}

/// PPO's critic and advantages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Discount per token, from 0 to 1.
    pub gamma: f64,
    /// Decay of the advantage's estimate, from 0 to 1.
    pub lambda: f64,
    /// Whether advantages are brought to mean 0 and deviation 1 over the step's tokens.
    pub whiten: bool,
}

impl Default for PpoConfig {
    fn default() -> Self {
        let GaeConfig { gamma, lambda } = GaeConfig::default();
        Self { gamma, lambda, whiten: true }
    }
}

/// Supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// JSONL of conversations (`messages`).
    pub demonstrations: PathBuf,
    /// Demonstrations of a step.
    pub batch: usize,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self { demonstrations: PathBuf::new(), batch: 64 }
    }
}

/// How a step's batch is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    /// Times that the batch is gone through.
    pub epochs: usize,
    /// Optimiser steps of an epoch.
    pub minibatches: usize,
    /// Tokens that go through the model together.
    pub micro_batch_tokens: usize,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self { epochs: 1, minibatches: 2, micro_batch_tokens: 16_384 }
    }
}

/// How the learning rate moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// It falls to 0 on a line.
    Linear,
    /// It falls to 0 on half a cosine.
    Cosine,
}

/// How fast parameters move.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// Steps in which it rises from 0.
    pub warmup_steps: u64,
    /// What it does after that.
    pub schedule: Schedule,
}

impl Default for LearningRate {
    fn default() -> Self {
        Self { peak: 1e-6, warmup_steps: 0, schedule: Schedule::Constant }
    }
}

impl LearningRate {
    /// The rate of a step, counted from 1, of a run of `steps`.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let (gone, whole) = (step - self.warmup_steps - 1, steps.saturating_sub(self.warmup_steps).max(1));
        let share = gone as f64 / whole as f64;
        match self.schedule {
            Schedule::Constant => self.peak,
            Schedule::Linear => self.peak * (1.0 - share),
            Schedule::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
        }
    }
}

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
        self.every > 0 && (step.is_multiple_of(self.every) || step == steps)
    }
}

/// Checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; 0 keeps only the last.
    pub every: u64,
    /// How many are kept, at least 1.
    pub keep: usize,
    /// Steps between rollouts that are written down for `--inspect`; 0 for none.
    pub rollouts_every: u64,
}

impl CheckpointConfig {
    /// Whether a checkpoint is made after a step.
    pub fn is_due(&self, step: u64) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }

    /// Whether a step's rollouts are written down.
    pub fn keeps_rollouts(&self, step: u64) -> bool {
        self.rollouts_every > 0 && step.is_multiple_of(self.rollouts_every)
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 50, keep: 2, rollouts_every: 10 }
    }
}

impl TrainConfig {
    /// Reads a file. Paths in it are relative to the current directory.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the line or the field.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| TrainError::file(path, error))?;
        let config: Self = toml::from_str(&text).map_err(|error| TrainError::Config {
            path: path.to_owned(),
            field: "TOML".to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })?;
        match config.wrong() {
            Some((field, problem)) => {
                Err(TrainError::Config { path: path.to_owned(), field: field.to_owned(), problem: problem.to_owned() })
            }
            None => Ok(config),
        }
    }

    /// The first setting that cannot be, and what to do.
    fn wrong(&self) -> Option<(&'static str, &'static str)> {
        let (rollout, optimizer, loss) = (&self.rollout, &self.optimizer, self.loss.over(self.algorithm));
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let from_zero = |value: f64| value >= 0.0 && value.is_finite();
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let learns_by_reward = self.algorithm.learns_by_reward();
        let checks = [
            (self.name.is_empty(), "name", "is empty; name the run"),
            (self.steps == 0, "steps", "is 0; a run needs at least one step"),
            (
                self.policy.model.is_some() == self.policy.fresh.is_some(),
                "policy",
                "needs either `model` (a directory) or `fresh` (a new model), not both",
            ),
            (!(1..=MOST_ROLLOUTS).contains(&rollout.prompts), "rollout.prompts", "must be from 1 to 1000000"),
            (rollout.group_size > MOST_ROLLOUTS, "rollout.group_size", "must be 1000000 or less"),
            (
                self.algorithm.compares_in_groups() && rollout.group_size < 2,
                "rollout.group_size",
                "must be 2 or more: advantages are taken within a group",
            ),
            (rollout.max_tokens == 0, "rollout.max_tokens", "is 0; it must be 1 or more"),
            (
                learns_by_reward && !above_zero(rollout.temperature),
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
            (self.sft.batch == 0, "sft.batch", "is 0; it must be 1 or more"),
            (self.dapo.max_rounds == 0, "dapo.max_rounds", "is 0; it must be 1 or more, and 1 draws no fresh prompts"),
            (self.update.epochs == 0, "update.epochs", "is 0; it must be 1 or more"),
            (self.update.minibatches == 0, "update.minibatches", "is 0; it must be 1 or more"),
            (self.update.micro_batch_tokens == 0, "update.micro_batch_tokens", "is 0; it must be 1 or more"),
            (!above_zero(self.learning_rate.peak), "learning_rate.peak", "must be above 0"),
            (!(0.0..1.0).contains(&optimizer.beta1), "optimizer.beta1", "must be from 0 to below 1"),
            (!(0.0..1.0).contains(&optimizer.beta2), "optimizer.beta2", "must be from 0 to below 1"),
            (!above_zero(optimizer.eps), "optimizer.eps", "must be above 0"),
            (!from_zero(optimizer.weight_decay), "optimizer.weight_decay", "must be 0 or more"),
            (!from_zero(optimizer.max_grad_norm), "optimizer.max_grad_norm", "must be 0 or more, and 0 clips nothing"),
            (!share(loss.clip_low), "loss.clip_low", "must be from 0 to 1"),
            (!from_zero(loss.clip_high), "loss.clip_high", "must be 0 or more"),
            (!from_zero(loss.kl_coefficient), "loss.kl_coefficient", "must be 0 or more"),
            (!from_zero(loss.value_clip), "loss.value_clip", "must be 0 or more"),
            (!from_zero(loss.value_coefficient), "loss.value_coefficient", "must be 0 or more"),
            (
                loss.dual_clip.is_some_and(|clip| !(clip > 1.0 && clip.is_finite())),
                "loss.dual_clip",
                "must be above 1; leave it out for none",
            ),
            (
                self.policy.lora.as_ref().is_some_and(|lora| lora.rank == 0),
                "policy.lora.rank",
                "is 0; it must be 1 or more",
            ),
            (
                self.policy.lora.as_ref().is_some_and(|lora| !above_zero(lora.alpha)),
                "policy.lora.alpha",
                "must be above 0",
            ),
            (
                !(self.reward.mastery_rate > 0.0 && self.reward.mastery_rate <= 1.0),
                "reward.mastery_rate",
                "must be above 0, up to 1",
            ),
            (
                !self.reward.mastery.values().all(|rate| share(*rate)),
                "reward.mastery",
                "has a rate that is not from 0 to 1",
            ),
            (!share(self.ppo.gamma), "ppo.gamma", "must be from 0 to 1"),
            (!share(self.ppo.lambda), "ppo.lambda", "must be from 0 to 1"),
            (!share(self.vspo.gamma), "vspo.gamma", "must be from 0 to 1"),
            (!above_zero(self.vspo.w_max), "vspo.w_max", "must be above 0"),
            (!from_zero(self.vspo.sigma_min), "vspo.sigma_min", "must be 0 or more"),
            (
                self.evaluation.every > 0 && self.evaluation.questions == 0,
                "evaluation.questions",
                "is 0; give 1 or more, or set `evaluation.every` to 0 for no evaluation",
            ),
            (!self.evaluation.target.is_none_or(share), "evaluation.target", "must be from 0 to 1"),
            (!self.evaluation.threshold.is_none_or(share), "evaluation.threshold", "must be from 0 to 1"),
            (self.checkpoint.keep == 0, "checkpoint.keep", "is 0; the run could not be resumed"),
        ];
        checks.into_iter().find(|(is_wrong, ..)| *is_wrong).map(|(_, field, problem)| (field, problem))
    }

    /// A hash of all settings but name, folder, seed and where servers are; the number of steps counts where a schedule
    /// runs over it.
    pub fn hash(&self) -> String {
        let steps = if self.learning_rate.schedule == Schedule::Constant { 0 } else { self.steps };
        let reward = RewardConfig { url: None, token_env: None, patience_s: 0, ..self.reward.clone() };
        let server = |server: &ServerConfig| ServerConfig { url: String::new(), token_env: None, ..server.clone() };
        let rollout_server = self.rollout_server.as_ref().map(server);
        let (name, output) = (String::new(), PathBuf::new());
        let common = Self { name, output, seed: 0, steps, reward, rollout_server, ..self.clone() };
        let text = serde_json::to_string(&common).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect()
    }
}
