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
use super::data::hops::{Hops, HopsConfig, environment_config};
use super::env::{QaSearchConfig, Unanswerable};
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
    /// Whether it was told to stop before all were done.
    pub stopped: bool,
}

/// What whoever started an experiment wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// To go on.
    GoOn,
    /// To stop when every run that is under way has saved what it did.
    Stop,
    /// To end at once.
    End,
}

/// Runs what is not done yet. `said` is told of every run that ends; `told` is asked all the time what is wanted.
///
/// # Errors
/// When the world cannot be made or a process cannot be started.
pub fn run(
    config: &ExperimentConfig,
    out: &Path,
    program: &Path,
    said: &mut dyn FnMut(&str),
    told: &dyn Fn() -> Control,
) -> Result<Outcome, TrainError> {
    let known = arms(&config.dense_rubric);
    if let Some(nobody) = config.only.iter().find(|name| !known.iter().any(|arm| arm.name.starts_with(name.as_str()))) {
        let known: Vec<&str> = known.iter().map(|arm| arm.name.as_str()).collect();
        let known = known.join(", ");
        return Err(TrainError::other(format!("only: no run's name begins with {nobody:?}; there are {known}")));
    }
    let world = out.join("world");
    let had_world = world.join("README.md").exists();
    keep_world(config, out, had_world)?;
    if !had_world {
        let made = Hops::generate(config.world.clone()).and_then(|hops| hops.write(&world));
        made.map_err(TrainError::other)?;
    }
    let chosen: Vec<Arm> = known.into_iter().filter(|arm| config.wants(arm)).collect();
    let most = chosen.iter().map(|arm| config.seeds(arm)).max().unwrap_or(0);
    let starts = (0..most).map(|seed| config.start(out, seed)).collect::<Vec<_>>();
    // Seed by seed, so that an experiment that is stopped has whole seeds.
    let runs = (0..most).flat_map(|seed| {
        let here = chosen.iter().filter(move |arm| seed < config.seeds(arm));
        here.map(move |arm| config.run_of(out, arm, seed))
    });
    let runs: Vec<TrainConfig> = runs.collect();
    let (starting, going) = (jobs(out, &starts)?, jobs(out, &runs)?);
    let mut outcome = pool::run(starting, config.jobs, program, said, told)?;
    if outcome.failed.is_empty() && !outcome.stopped {
        outcome = pool::run(going, config.jobs, program, said, told)?;
    }
    outcome.done = runs.iter().map(|run| run.output.clone()).filter(|dir| pool::is_done(dir)).collect();
    Ok(outcome)
}

/// Folder of the configurations.
fn configs(out: &Path) -> PathBuf {
    out.join("configs")
}

/// What was made with other settings is neither done nor to be gone on with.
fn made_otherwise(what: &Path, config: &Path) -> TrainError {
    let config = config.display();
    let said = format!("was made with other settings, those in {config}: take another --out, or delete this folder");
    TrainError::file(what, said)
}

/// Writes down what the world is made with, and refuses one that was made otherwise.
fn keep_world(config: &ExperimentConfig, out: &Path, is_there: bool) -> Result<(), TrainError> {
    let path = configs(out).join("world.toml");
    let text = toml::to_string(&config.world).map_err(TrainError::other)?;
    if is_there && std::fs::read_to_string(&path).is_ok_and(|old| old != text) {
        return Err(made_otherwise(&out.join("world"), &path));
    }
    write(&path, &text)
}

fn write(path: &Path, text: &str) -> Result<(), TrainError> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text)).map_err(|error| TrainError::file(path, error))
}

/// Writes the configurations down.
///
/// # Errors
/// When a run is there that was made with another one.
fn jobs(out: &Path, runs: &[TrainConfig]) -> Result<Vec<Job>, TrainError> {
    let path = |run: &TrainConfig| configs(out).join(format!("{}.toml", run.name));
    let is_other = |run: &&TrainConfig| {
        let settings = |run: &TrainConfig| (run.hash(), run.seed, run.steps);
        run.output.exists() && TrainConfig::read(&path(run)).is_ok_and(|old| settings(&old) != settings(run))
    };
    if let Some(run) = runs.iter().find(is_other) {
        return Err(made_otherwise(&run.output, &path(run)));
    }
    let job = |run: &TrainConfig| {
        write(&path(run), &toml::to_string(run).map_err(TrainError::other)?)?;
        Ok(Job { name: run.name.clone(), config: path(run), output: run.output.clone() })
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
        let environment = QaSearchConfig { unanswerable: Unanswerable::default(), ..environment_config(&world) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_with_other_settings_is_not_taken_for_done() {
        let folder = tempfile::tempdir().unwrap();
        let (out, arm) = (folder.path(), &arms("short_form_qa_curriculum")[0]);
        let wanted = |steps| [ExperimentConfig { steps, ..ExperimentConfig::default() }.run_of(out, arm, 3)];
        let config = configs(out).join(format!("{}.toml", wanted(10)[0].name));
        jobs(out, &wanted(10)).unwrap();
        assert_eq!(jobs(out, &wanted(20)).unwrap().len(), 1, "nothing was made yet");
        std::fs::create_dir_all(&wanted(20)[0].output).unwrap();
        let before = std::fs::read(&config).unwrap();
        let error = jobs(out, &wanted(30)).unwrap_err().to_string();
        assert!(error.contains("other settings") && error.contains(&config.display().to_string()), "{error}");
        assert_eq!(std::fs::read(&config).unwrap(), before, "it still says what the run was made with");
        jobs(out, &wanted(20)).unwrap();
    }

    #[test]
    fn a_name_that_no_run_has_is_refused_before_the_world_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let config =
            ExperimentConfig { only: vec!["vspo".to_owned(), "nope".to_owned()], ..ExperimentConfig::default() };
        let error = run(&config, &out, Path::new("nothing"), &mut |_| (), &|| Control::GoOn).unwrap_err().to_string();
        assert!(error.contains("\"nope\"") && error.contains("vspo-prs") && !out.exists(), "{error}");
    }

    #[test]
    fn a_world_that_was_made_otherwise_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let world = |seed| {
            let world = HopsConfig { seed, ..HopsConfig::default() };
            ExperimentConfig { world, ..ExperimentConfig::default() }
        };
        keep_world(&world(1), folder.path(), true).unwrap();
        keep_world(&world(1), folder.path(), true).unwrap();
        assert!(keep_world(&world(2), folder.path(), true).unwrap_err().to_string().contains("other settings"));
        keep_world(&world(2), folder.path(), false).unwrap();
    }
}
