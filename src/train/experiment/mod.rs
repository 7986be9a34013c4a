//! Experiments: many runs that differ in one thing, over seeds, from the same starts. In: settings. Out: a folder of runs
//! and a report on them.
//!
//! Each run is a process of its own (`gradus train`), so that several share a GPU and one that fails takes no other with
//! it. A run that is done is not done again; one that was stopped goes on.

mod arms;
mod pool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::arms::{Arm, arms};
use self::pool::Job;
use super::TrainError;
use super::algorithm::Algorithm;
use super::config::{
    CheckpointConfig, EnvironmentConfig, EvaluationConfig, FreshModel, LearningRate, PolicyConfig, RewardConfig,
    SftConfig, TrainConfig, UpdateConfig,
};
use super::data::hops::{Hops, HopsConfig};
use super::env::{MatchTerms, PassageForm, QaSearchConfig};
use super::rollout::RolloutConfig;
use crate::lm::DeviceChoice;
use crate::lm::training::{Activations, AdamWConfig};

/// The settings of `gradus experiment paper`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExperimentConfig {
    /// The world, its questions and its demonstrations.
    pub world: HopsConfig,
    /// Steps of the supervised start. More make an abler one.
    pub start_steps: u64,
    /// Steps of each run.
    pub steps: u64,
    /// Seeds of the four main runs: GRPO and VSPO, each with both rewards.
    pub main_seeds: u64,
    /// Seeds of the others.
    pub other_seeds: u64,
    /// Highest learning rate of the runs.
    pub learning_rate: f64,
    /// Prompts of a step.
    pub prompts: usize,
    /// Rollouts of a prompt.
    pub group_size: usize,
    /// The rubric of the dense reward: a shipped one's name, or a file.
    pub dense_rubric: String,
    /// Held-out exact match that counts as reached.
    pub threshold: f64,
    /// Where the runs compute.
    pub device: DeviceChoice,
    /// Runs at a time.
    pub jobs: usize,
    /// Only the runs whose names begin with one of these; all when empty.
    pub only: Vec<String>,
}

impl Default for ExperimentConfig {
    fn default() -> Self {
        Self {
            // Half of the calls of nearly all demonstrations are flawed: the start is able, and leaves room.
            world: HopsConfig { flawed: 0.9, ..HopsConfig::default() },
            start_steps: 500,
            steps: 100,
            main_seeds: 5,
            other_seeds: 3,
            learning_rate: 1e-4,
            prompts: 48,
            group_size: 5,
            dense_rubric: "short_form_qa_curriculum".to_owned(),
            threshold: 0.6,
            device: DeviceChoice::Auto,
            jobs: 1,
            only: Vec::new(),
        }
    }
}

/// What became of the runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Folders of the runs that are done.
    pub done: Vec<PathBuf>,
    /// Names of those that failed, and what their log says last.
    pub failed: BTreeMap<String, String>,
}

/// Runs what is not done yet. `said` is told of every run that ends.
///
/// # Errors
/// When the world cannot be made or a process cannot be started.
pub fn run(
    config: &ExperimentConfig,
    out: &Path,
    program: &Path,
    said: &mut dyn FnMut(&str),
) -> Result<Outcome, TrainError> {
    let world = out.join("world");
    if !world.join("README.md").exists() {
        let made = Hops::generate(config.world.clone()).and_then(|hops| hops.write(&world));
        made.map_err(TrainError::other)?;
    }
    let chosen: Vec<Arm> = arms(&config.dense_rubric).into_iter().filter(|arm| config.wants(arm)).collect();
    let most = chosen.iter().map(|arm| config.seeds(arm)).max().unwrap_or(0);
    let starts = (0..most).map(|seed| config.start(out, seed)).collect::<Vec<_>>();
    let mut outcome = pool::run(jobs(out, &starts)?, config.jobs, program, said)?;
    if !outcome.failed.is_empty() {
        return Ok(outcome);
    }
    // Seed by seed, so that an experiment that is stopped has whole seeds.
    let runs = (0..most).flat_map(|seed| {
        let here = chosen.iter().filter(move |arm| seed < config.seeds(arm));
        here.map(move |arm| config.run_of(out, arm, seed))
    });
    let runs: Vec<TrainConfig> = runs.collect();
    outcome = pool::run(jobs(out, &runs)?, config.jobs, program, said)?;
    outcome.done = runs.iter().map(|run| run.output.clone()).filter(|dir| pool::is_done(dir)).collect();
    Ok(outcome)
}

/// Writes the configurations down.
fn jobs(out: &Path, runs: &[TrainConfig]) -> Result<Vec<Job>, TrainError> {
    let folder = out.join("configs");
    let wrong = |problem: String| TrainError::file(&folder, problem);
    std::fs::create_dir_all(&folder).map_err(|error| wrong(error.to_string()))?;
    let job = |run: &TrainConfig| {
        let path = folder.join(format!("{}.toml", run.name));
        let text = toml::to_string(run).map_err(|error| wrong(error.to_string()))?;
        std::fs::write(&path, text).map_err(|error| wrong(error.to_string()))?;
        Ok(Job { name: run.name.clone(), config: path, output: run.output.clone() })
    };
    runs.iter().map(job).collect()
}

impl ExperimentConfig {
    fn wants(&self, arm: &Arm) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| arm.name.starts_with(name.as_str()))
    }

    fn seeds(&self, arm: &Arm) -> u64 {
        if arm.is_main { self.main_seeds } else { self.other_seeds }
    }

    /// What all runs share.
    fn common(&self, out: &Path, name: String, folder: &str, seed: u64) -> TrainConfig {
        let world = out.join("world");
        let environment = QaSearchConfig {
            top_k: 1,
            match_terms: MatchTerms::All,
            passage_form: PassageForm::Text,
            system: String::new(),
            ..QaSearchConfig::new(world.join("corpus.jsonl"), world.join("train.jsonl"), world.join("heldout.jsonl"))
        };
        TrainConfig {
            output: out.join(folder).join(&name),
            name,
            group: None,
            algorithm: Algorithm::Sft,
            seed,
            steps: self.start_steps,
            device: self.device,
            policy: PolicyConfig { model: None, fresh: None, lora: None, activations: Activations::Keep },
            environment: EnvironmentConfig::QaSearch(environment),
            reward: RewardConfig::default(),
            rollout: RolloutConfig {
                prompts: self.prompts,
                group_size: self.group_size,
                max_tokens: 128,
                temperature: 1.0,
            },
            rollout_server: None,
            loss: super::config::LossOverrides::default(),
            vspo: super::config::VspoConfig::default(),
            dapo: super::config::DapoConfig::default(),
            ppo: super::config::PpoConfig::default(),
            sft: SftConfig { demonstrations: world.join("demonstrations.jsonl"), batch: 64 },
            update: UpdateConfig { epochs: 1, minibatches: 2, micro_batch_tokens: 32_768 },
            optimizer: AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() },
            learning_rate: LearningRate { peak: 6e-4, ..LearningRate::default() },
            evaluation: EvaluationConfig {
                every: 10,
                questions: 384,
                threshold: Some(self.threshold),
                ..EvaluationConfig::default()
            },
            checkpoint: CheckpointConfig { every: 50, keep: 1, rollouts_every: 20 },
        }
    }

    /// The supervised start of a seed: every run of the seed begins with it.
    fn start(&self, out: &Path, seed: u64) -> TrainConfig {
        let mut start = self.common(out, format!("start-s{seed}"), "starts", seed);
        start.evaluation.every = 100;
        start.policy.fresh = Some(FreshModel {
            tokenizer: out.join("world").join("tokenizer"),
            hidden: 256,
            intermediate: 1024,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            head_dim: 64,
            context: 256,
        });
        start
    }

    fn run_of(&self, out: &Path, arm: &Arm, seed: u64) -> TrainConfig {
        let mut run = self.common(out, format!("{}-s{seed}", arm.name), "runs", seed);
        run.policy.model = Some(out.join("starts").join(format!("start-s{seed}")).join("model"));
        run.group = Some(arm.title.clone());
        run.steps = self.steps;
        run.algorithm = arm.algorithm;
        run.reward.rubric.clone_from(&arm.rubric);
        run.optimizer.weight_decay = 0.0;
        run.learning_rate.peak = self.learning_rate;
        run.vspo = arm.vspo;
        run
    }
}
