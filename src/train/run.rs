//! A run from its first step to its last. In: a configuration. Out: a folder with metrics, checkpoints, rollouts and the
//! exported model.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::TrainError;
use super::algorithm::Algorithm;
use super::config::TrainConfig;
use super::demonstrations::Demonstrations;
use super::env::{Split, Task};
use super::experience::{Sample, said_by};
use super::groups::check_size;
use super::guards::{check_mastery, hashes, locked, longest_rollout, same_prompts, takes_results, unchanged};
use super::metrics::{EventFile, History, METRICS_FILE, Metric, MetricsLog, StepMetrics};
use super::policy::Policy;
use super::protocol::Protocol;
use super::reward::{Local, Rewarder};
use super::rollout::{EpisodeContext, Sampler};
use super::seeds::{Purpose, draw};
use super::state::RunState;
use super::{checkpoint, demonstrations, parts};
use crate::judge::Judges;
use crate::lm::training::{AdamW, TrainableDecoder};
use crate::rubric::Rubric;

/// What the command line adds to a configuration.
pub struct RunOptions {
    /// Judges of the rubric's judge stages, and what they wait on.
    pub judges: (Judges, Option<Arc<tokio::runtime::Runtime>>),
    /// The rubric, where this process scores.
    pub rubric: Option<Arc<Rubric>>,
    /// The bearer token, where a server scores.
    pub reward_token: Option<String>,
    /// The bearer token, where a server writes the rollouts.
    pub rollout_token: Option<String>,
    /// Go on although settings, seed or rubric changed, or the run ended early.
    pub force: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Steps done.
    pub steps: u64,
    /// Of these, steps that an earlier start has done.
    pub before: u64,
    /// The last held-out exact match, if there was an evaluation.
    pub exact_match: Option<f64>,
    /// The best one.
    pub best: Option<f64>,
    /// The exported model; where `stopped`, the place where it will be.
    pub model: PathBuf,
    /// Why it ended before its last step.
    pub early: Option<String>,
    /// Whether it was told to stop before its last step: it goes on when it is opened again.
    pub stopped: bool,
}

/// A run under way.
pub struct Run {
    pub(super) config: TrainConfig,
    pub(super) policy: Policy,
    pub(super) reference: Option<TrainableDecoder>,
    pub(super) optimizer: AdamW,
    pub(super) sampler: Sampler,
    pub(super) world: EpisodeContext,
    pub(super) rewarder: Rewarder,
    /// Scores exact match, whatever the rubric is.
    pub(super) examiner: Rewarder,
    pub(super) demonstrations: Demonstrations,
    pub(super) state: RunState,
    log: MetricsLog,
    events: EventFile,
    pub(super) last_exact_match: Option<f64>,
    /// The step of the newest checkpoint; none before the first.
    saved_step: Option<u64>,
    /// Keeps other processes out of the folder.
    _lock: File,
}

/// The rubric that exact match is measured by.
const EXAM: &str = include_str!("../../rubrics/binary_em.toml");

impl Run {
    /// Opens a run: a fresh one, or the newest checkpoint of one that was stopped.
    ///
    /// # Errors
    /// What is wrong with which file or setting; a run whose settings, seed, data or rubric changed, unless forced.
    pub fn open(config: TrainConfig, options: &RunOptions) -> Result<Self, TrainError> {
        let dir = config.output.clone();
        std::fs::create_dir_all(&dir).map_err(|error| TrainError::file(&dir, error))?;
        let lock = locked(&dir)?;
        let device = config.device.open()?;
        let critic = config.algorithm.has_critic();
        let start = draw(config.seed, Purpose::Parameters, [0, 0]);
        // Demonstrations were not drawn; their likelihood is that of the policy itself.
        let learns_by_reward = config.algorithm.learns_by_reward();
        let temperature = if learns_by_reward { config.rollout.temperature } else { 1.0 };
        let policy = Policy::open(&config.policy, &device, start, temperature, critic)?;
        let environment = parts::environment(&config.environment)?;
        let protocol = Protocol::load(policy.files(), policy.decoder.config(), environment.tools_json())?;
        let rewarder = parts::rewarder(&config, options, environment.tools_json())?;
        check_mastery(&config, &rewarder)?;
        let exam = Arc::new(Rubric::from_toml(EXAM).map_err(TrainError::other)?);
        let exam = Local::new(exam, environment.tools_json(), Judges::none(), None);
        let calls = parts::calls(&rewarder);
        let world = EpisodeContext { tools: exam.tools().clone(), environment, protocol: Arc::new(protocol), calls };
        let context = policy.decoder.config().context;
        let longest = longest_rollout(&world, &config, context)?;
        let reference = learns_by_reward.then(|| policy.decoder.frozen()).transpose()?;
        let optimizer = AdamW::new(&policy.decoder, config.optimizer)?;
        let demonstrations = match config.algorithm {
            Algorithm::Sft => demonstrations::read(&config.sft.demonstrations, &world.protocol, context)?,
            _ => Demonstrations::default(),
        };
        let sampler = parts::sampler(&config, &policy, options, longest)?;
        let state = RunState {
            config_hash: config.hash(),
            seed: Some(config.seed),
            data: hashes(&config, policy.files())?,
            mastery: config.reward.mastery.clone(),
            mastery_of_all: true,
            rubric: Some(rewarder.rubric().clone()),
            judges: rewarder.judges(),
            ..RunState::default()
        };
        let saved = checkpoint::newest(&dir)?;
        match check_size(&config, rewarder.rules()) {
            // Its answers may differ in fewer ways.
            Err(error) if saved.is_some() => tracing::warn!("{error}"),
            fits => fits?,
        }
        if let Some(saved) = saved.as_ref().filter(|_| !options.force) {
            unchanged(&saved.state, &state, &config)?;
            same_prompts(&saved.state, &world, config.algorithm)?;
        }
        if learns_by_reward || config.evaluation.every > 0 {
            takes_results(&world, policy.files())?;
        }
        let earlier = saved.as_ref().map(|saved| &saved.state);
        let reads_other = |rubric: &&Rubric| earlier.is_some_and(|state| state.has_other_mastery(rubric));
        if let Some(rubric) = rewarder.rules().filter(reads_other) {
            tracing::warn!(rubric = %rubric.name, "an earlier version began this run: its pass rates are over the rollouts that \
                came to a stage, and those of now, to which they move with `reward.mastery_rate`, over all that are scored");
        }
        // From here on the folder is written to.
        let first = saved.as_ref().map_or(0, |saved| saved.state.step + 1);
        let log = MetricsLog::resume(&dir, first)?;
        let events = EventFile::create(&dir, first, wall_time())?;
        parts::info(&config).write(&dir)?;
        let mut run = Self {
            config,
            policy,
            reference,
            optimizer,
            sampler,
            world,
            rewarder,
            examiner: Rewarder::Local(Box::new(exam)),
            demonstrations,
            state,
            log,
            events,
            last_exact_match: None,
            saved_step: saved.as_ref().map(|saved| saved.state.step),
            _lock: lock,
        };
        if let Some(saved) = saved {
            run.resume(saved, options.force)?;
        }
        // Our own engine was made with the numbers that a fresh policy has.
        if run.saved_step.is_some() || matches!(run.sampler, Sampler::Server(_)) {
            run.sampler.follow(&run.policy)?;
        }
        Ok(run)
    }

    /// Runs to the end, to an early stop, or to an error with everything saved that can be. `watch` sees the numbers of each
    /// step when it is done. Where `wants_stop` says so, it ends after the step that is under way, saved.
    ///
    /// # Errors
    /// What stopped it.
    pub fn go(
        mut self,
        watch: &mut dyn FnMut(&StepMetrics),
        wants_stop: &dyn Fn() -> bool,
    ) -> Result<Ended, TrainError> {
        let done_before = self.state.step;
        // Before it has done anything there is nothing to save.
        if self.saved_step.is_none() && wants_stop() {
            return Ok(self.ended(done_before, true));
        }
        if self.saved_step.is_none() && self.config.evaluation.every > 0 {
            let mut metrics = StepMetrics::new(0, 0.0)?;
            self.evaluate(&mut metrics)?;
            self.record(&metrics)?;
            watch(&metrics);
        }
        if self.state.unexamined {
            self.examine_again(watch)?;
        }
        while self.state.step < self.config.steps && self.state.early.is_none() {
            if wants_stop() {
                self.save()?;
                return Ok(self.ended(done_before, true));
            }
            let (began, step) = (Instant::now(), self.state.step + 1);
            let before = (self.state.clone(), self.optimizer.steps());
            let mut values = match self.config.algorithm {
                Algorithm::Sft => self.learn_from_demonstrations(step),
                _ => self.learn_from_rewards(step),
            }
            .or_else(|error| self.give_up(before, error.in_step(step)))?;
            self.state.step = step;
            self.state.seconds += began.elapsed().as_secs_f64();
            let mut metrics = StepMetrics::new(step, self.state.seconds)?;
            let looked = self.look_at(step, &mut metrics).map_err(|error| error.in_step(step));
            values.push((Metric::SpeedStepSeconds, began.elapsed().as_secs_f64()));
            for (metric, value) in values {
                metrics.set(metric, value)?;
            }
            self.record(&metrics)?;
            watch(&metrics);
            if let Err(error) = looked {
                return self.saved_before(error);
            }
            if self.config.checkpoint.is_due(step) {
                self.save()?;
            }
        }
        self.save()?;
        let ended = self.ended(done_before, false);
        self.policy.export(&ended.model)?;
        Ok(ended)
    }

    /// How it ends here.
    fn ended(&self, before: u64, stopped: bool) -> Ended {
        Ended {
            steps: self.state.step,
            before,
            exact_match: self.last_exact_match,
            best: self.state.best,
            model: self.config.output.join("model"),
            early: self.state.early.clone(),
            stopped,
        }
    }

    /// What comes after a step's update: the sampler takes the new numbers, and held-out questions are answered where that is
    /// due. The step is done whether this succeeds or not.
    fn look_at(&mut self, step: u64, metrics: &mut StepMetrics) -> Result<(), TrainError> {
        let is_examined = self.config.evaluation.is_due(step, self.config.steps);
        // A server that does not take the new numbers prevents the evaluation, too.
        self.state.unexamined = is_examined;
        if is_examined || self.config.algorithm.learns_by_reward() {
            self.sampler.follow(&self.policy)?;
        }
        if is_examined { self.examine(metrics) } else { Ok(()) }
    }

    /// The evaluation that a step is owed, with its numbers in the step's line, as if it had never failed.
    fn examine_again(&mut self, watch: &mut dyn FnMut(&StepMetrics)) -> Result<(), TrainError> {
        let (step, dir) = (self.state.step, self.config.output.clone());
        let mut metrics = StepMetrics::new(step, self.state.seconds)?;
        self.examine(&mut metrics).map_err(|error| error.in_step(step))?;
        let history = History::read(&dir.join(METRICS_FILE))?;
        // What the step's line says already stays.
        for (metric, value) in history.steps.iter().filter(|line| line.step() == step).flat_map(StepMetrics::values) {
            if metrics.get(metric).is_none() {
                metrics.set(metric.clone(), value)?;
            }
        }
        self.log = MetricsLog::restate(&dir, &metrics)?;
        self.events.append(&metrics, wall_time())?;
        watch(&metrics);
        checkpoint::restate(&dir, &self.state)
    }

    /// Tasks to learn from.
    pub(super) fn tasks(&self) -> &[Task] {
        self.world.environment.tasks(Split::Train)
    }

    /// Saves the state before the step that failed, as long as no parameter has moved in it; otherwise the checkpoint
    /// before it is what the run goes on from.
    fn give_up<T>(&mut self, (state, optimizer_steps): (RunState, u64), error: TrainError) -> Result<T, TrainError> {
        if self.optimizer.steps() == optimizer_steps {
            self.state = state;
            return self.saved_before(error);
        }
        Err(error)
    }

    /// Saves what there is before the run ends with an error. A policy that diverged is no state to go on from, and would
    /// take the place of one that is.
    fn saved_before<T>(&mut self, error: TrainError) -> Result<T, TrainError> {
        if error.is_divergence() {
            return Err(error);
        }
        match self.save() {
            Ok(()) => Err(error),
            Err(unsaved) => Err(TrainError::other(format!("{error}; and the state could not be saved: {unsaved}"))),
        }
    }

    /// Writes a checkpoint, unless the step has one. A policy that diverged has none.
    fn save(&mut self) -> Result<(), TrainError> {
        let step = self.state.step;
        if self.saved_step == Some(step) {
            return Ok(());
        }
        if let Some(what) = self.broken()? {
            return Err(TrainError::Diverged { step, what: what.to_owned() });
        }
        self.state.optimizer_steps = self.optimizer.steps();
        let rest = (&self.state, self.reference.as_ref());
        let (dir, keep) = (self.config.output.clone(), self.config.checkpoint.keep);
        checkpoint::save(&dir, &self.policy.decoder, &self.optimizer, rest, keep)?;
        self.saved_step = Some(step);
        Ok(())
    }

    /// What of the policy is no finite number. Finite parameters may be so large that what is computed of them is none, which
    /// the next step would be the first to meet: the policy says something of a text that it learns from, or is asked.
    fn broken(&self) -> Result<Option<&'static str>, TrainError> {
        if !self.policy.decoder.parameters().are_finite()? {
            return Ok(Some("a parameter after the update"));
        }
        let sample = match (self.demonstrations.samples.first(), self.tasks().first()) {
            (Some(demonstration), _) => demonstration.clone(),
            (None, Some(task)) => {
                let tokens = self.world.protocol.prompt(&self.world.environment.messages(task))?.tokens;
                Sample { written: (1..tokens.len()).collect(), tokens, ..Sample::default() }
            }
            (None, None) => return Ok(None),
        };
        let said = said_by(&self.policy.decoder, &[sample], usize::MAX)?;
        let mut numbers = said.iter().flat_map(|said| said.logprobs.iter().chain(&said.entropies).chain(&said.values));
        Ok(numbers.any(|number| !number.is_finite()).then_some("what the policy says after the update"))
    }

    fn resume(&mut self, saved: checkpoint::Checkpoint, force: bool) -> Result<(), TrainError> {
        self.policy.decoder.restore(&saved.parameters)?;
        if let Some(reference) = &mut self.reference {
            reference.restore(&saved.reference)?;
        }
        self.optimizer.restore(&self.policy.decoder, &saved.optimizer, saved.state.optimizer_steps)?;
        let RunState { config_hash, seed, rubric, judges, data, mastery_of_all, .. } = self.state.clone();
        // With other settings a run that ended may have more to do.
        let early = saved.state.early.clone().filter(|_| !force);
        self.state = RunState { mastery_of_all, rubric, config_hash, data, judges, seed, early, ..saved.state };
        Ok(())
    }

    fn record(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.log.append(metrics)?;
        Ok(self.events.append(metrics, wall_time())?)
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
