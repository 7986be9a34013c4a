//! One step of a run: rollouts, rewards, groups, update. Reads in run order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use super::env::Split;
use super::experience::{Sample, said_by};
use super::groups::{self, Group};
use super::measured::{Attempts, Clock, Values, Written};
use super::metrics::Metric;
use super::overlong::Overlong;
use super::reward::Attempted;
use super::rollout::{Rollout, RolloutRequest};
use super::run::Run;
use super::seeds::{Purpose, draw, shuffled};
use super::update::{Update, UpdateStatistics};
use super::{TrainError, record};
use crate::advantage::{GroupStatistics, Plan};
use crate::lm::LmError;

fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    let began = Instant::now();
    let result = work();
    *seconds += began.elapsed().as_secs_f64();
    result
}

impl Run {
    /// A step of reinforcement learning.
    pub(super) fn learn_from_rewards(&mut self, step: u64) -> Result<Values, TrainError> {
        let mut clock = Clock::default();
        let (mut groups, mut all) = (Vec::new(), Attempts::default());
        let rounds = if self.config.algorithm.replaces_flat_groups() { self.config.dapo.max_rounds.max(1) } else { 1 };
        for _ in 0..rounds {
            let wanting = self.config.rollout.prompts.saturating_sub(self.useful(&groups));
            let tasks = self.next_tasks(wanting);
            let fresh = self.attempt(&tasks, self.config.rollout.group_size, &mut clock, &mut all)?;
            groups.extend(fresh);
            if self.useful(&groups) >= self.config.rollout.prompts {
                break;
            }
        }
        if all.scored.iter().all(|scored| scored.reward.is_none()) {
            // What kept a judge from it may be over when the run goes on.
            self.rewarder.ask_anew()?;
            let why = all.scored.into_iter().find_map(|scored| scored.reason);
            let why = why.unwrap_or_else(|| "no reason is known".to_owned());
            return Err(TrainError::Reward(format!("no rollout of step {step} could be scored: {why}")));
        }
        let plan = groups::planned(&self.config, &groups, step);
        self.regenerate(&mut groups, &plan, &mut clock, &mut all)?;
        self.visit(&groups, &all);
        if self.config.checkpoint.keeps_rollouts(step) {
            self.write_down(step, &groups, &plan)?;
        }
        let mut samples = groups::samples(&self.config, &groups, &plan);
        let began = Instant::now();
        let seen = self.update(step, &mut samples, &groups, &plan);
        let seen = seen.or_else(|error| self.keep_batch(step, error, &groups, &plan))?;
        clock.train += began.elapsed().as_secs_f64();
        let mut values = self.rollout_values(&groups, &all, &plan, &clock);
        values.extend(self.update_values(step, &samples, &seen, clock.train));
        let broken = values.iter().find(|(_, value)| !value.is_finite());
        let Some(what) = broken.map(|(metric, value)| format!("the metric {metric}, {value},")) else {
            return Ok(values);
        };
        Err(TrainError::NotFinite { step, what, saved: self.write_down(step, &groups, &plan)? })
    }

    /// A step of supervised fine-tuning.
    pub(super) fn learn_from_demonstrations(&mut self, step: u64) -> Result<Values, TrainError> {
        let began = Instant::now();
        let count = self.demonstrations.samples.len();
        let batch = self.config.sft.batch.min(count);
        let first = (step - 1) * batch as u64;
        // Each epoch in its own order.
        let chosen =
            in_epochs(count, first..first + batch as u64, |epoch| draw(self.config.seed, Purpose::Order, [epoch, 1]));
        let mut seen = UpdateStatistics::default();
        let update = self.updater(step);
        let samples = &self.demonstrations.samples;
        let updated = update.step(&mut self.policy, &mut self.optimizer, samples, &chosen, &mut seen);
        updated.map_err(|error| match error {
            TrainError::Model(LmError::NotFinite(what)) => {
                let lines = self.demonstrations.lines(&chosen);
                TrainError::Diverged { step, what: format!("{what}, of the demonstrations on the lines {lines},") }
            }
            other => other,
        })?;
        let values = self.update_values(step, &[], &seen, began.elapsed().as_secs_f64());
        // There is no policy that wrote the demonstrations, and no reference.
        let kept = |metric: &Metric| {
            use Metric::{PolicyEntropy, PolicyGradNorm, PolicyLearningRate, PolicyLoss, SpeedTrainSeconds};
            matches!(metric, PolicyEntropy | PolicyGradNorm | PolicyLearningRate | PolicyLoss | SpeedTrainSeconds)
        };
        Ok(values.into_iter().filter(|(metric, _)| kept(metric)).collect())
    }

    /// Groups that an algorithm would learn from.
    fn useful(&self, groups: &[Group]) -> usize {
        let flat_counts = !self.config.algorithm.replaces_flat_groups();
        groups.iter().filter(|group| flat_counts || !group.statistics.is_flat(groups::flat_below(&self.config))).count()
    }

    /// The next tasks, epoch by epoch, each in its own order. Where an epoch ends in a step, the step may hold a task twice:
    /// these are two groups.
    fn next_tasks(&mut self, count: usize) -> Vec<usize> {
        let (tasks, seed) = (self.tasks().len(), self.config.seed);
        let first = self.state.tasks_drawn;
        self.state.tasks_drawn += count as u64;
        in_epochs(tasks, first..first + count as u64, |epoch| draw(seed, Purpose::Order, [epoch, 0]))
    }

    /// Tries tasks `size` times each, and scores that. Everything that was tried is added to `all`.
    fn attempt(
        &mut self,
        tasks: &[usize],
        size: usize,
        clock: &mut Clock,
        all: &mut Attempts,
    ) -> Result<Vec<Group>, TrainError> {
        let first = self.state.rollouts_drawn;
        let wanted: Vec<RolloutRequest> = tasks
            .iter()
            .flat_map(|task| std::iter::repeat_n(*task, size))
            .zip(first..)
            .map(|(task, number)| RolloutRequest { task, seed: draw(self.config.seed, Purpose::Rollout, [number, 0]) })
            .collect();
        self.state.rollouts_drawn += wanted.len() as u64;
        let world = self.world.clone();
        let known = world.environment.tasks(Split::Train);
        let config = self.config.rollout;
        let rollouts = timed(&mut clock.rollout, || self.sampler.collect(&world, known, &wanted, &config))?;
        let task = |rollout: &Rollout| known.get(rollout.task);
        let attempted: Vec<Attempted<'_>> =
            rollouts.iter().filter_map(|rollout| Some((rollout, task(rollout)?))).collect();
        let position = self.state.position();
        let score = || self.rewarder.score(&attempted, size, &position, Split::Train);
        let mut scored = timed(&mut clock.reward, score)?;
        let mut written: Vec<Written> = rollouts.iter().map(Written::from).collect();
        if let Some(overlong) = Overlong::of(&self.config, &self.rewarder) {
            for ((scored, written), rollout) in scored.iter_mut().zip(&mut written).zip(&rollouts) {
                written.overlong = overlong.punish(scored, rollout);
            }
        }
        all.scored.extend(scored.iter().cloned());
        all.written.extend(written);
        let max_reward = self.rewarder.max_reward();
        let mut tried = rollouts.into_iter().zip(scored);
        let group = |task: &usize| Group::new(*task, tried.by_ref().take(size).collect(), max_reward);
        Ok(tasks.iter().map(group).collect())
    }

    /// VSPO with `regenerate`: fresh rollouts for the groups that were drawn.
    fn regenerate(
        &mut self,
        groups: &mut [Group],
        plan: &Plan,
        clock: &mut Clock,
        all: &mut Attempts,
    ) -> Result<(), TrainError> {
        let max_reward = self.rewarder.max_reward();
        for (group, more) in groups.iter_mut().zip(groups::regenerated(&self.config, plan)) {
            if more > 0 {
                let mut attempts = std::mem::take(&mut group.attempts);
                let fresh = self.attempt(&[group.task], more, clock, all)?;
                attempts.extend(fresh.into_iter().flat_map(|group| group.attempts));
                *group = Group::new(group.task, attempts, max_reward);
            }
        }
        Ok(())
    }

    /// Enters what was seen into the value table and the pass rates. All that a step tried of a task is one visit of it, as
    /// it is to a server, which tells the visits of a prompt apart by the step.
    fn visit(&mut self, groups: &[Group], all: &Attempts) {
        let mut tried: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for group in groups {
            tried.entry(group.task).or_default().extend(group.rewards());
        }
        let max_reward = self.rewarder.max_reward();
        for (task, mut rewards) in tried {
            self.state.values.entry(task).or_default().visit(GroupStatistics::of(&mut rewards, max_reward));
        }
        self.state.tokens += all.written.iter().map(|written| written.tokens).sum::<u64>();
        self.state.master(&all.scored, self.config.reward.mastery_rate);
    }

    fn updater(&self, step: u64) -> Update {
        Update {
            algorithm: self.config.algorithm,
            loss: self.config.loss.over(self.config.algorithm),
            micro_batch_tokens: self.config.update.micro_batch_tokens,
            longest: self.config.rollout.max_tokens,
            learning_rate: self.config.learning_rate.at(step, self.config.steps),
        }
    }

    /// Completes the samples' columns and moves the parameters.
    fn update(
        &mut self,
        step: u64,
        samples: &mut [Sample],
        groups: &[Group],
        plan: &Plan,
    ) -> Result<UpdateStatistics, TrainError> {
        let (update, mut seen) = (self.updater(step), UpdateStatistics::default());
        if samples.is_empty() {
            return Ok(seen);
        }
        let old = said_by(&self.policy.decoder, samples, update.micro_batch_tokens)?;
        for (sample, said) in samples.iter_mut().zip(old) {
            (sample.old_logprobs, sample.old_values) = (said.logprobs, said.values);
            seen.compare(sample);
        }
        if let Some(reference) = &self.reference {
            let said = said_by(reference, samples, update.micro_batch_tokens)?;
            samples.iter_mut().zip(said).for_each(|(sample, said)| sample.reference_logprobs = said.logprobs);
        }
        if self.config.algorithm.has_critic() {
            let kept = groups.iter().zip(&plan.multiplicity).filter(|(_, copies)| **copies > 0);
            let kept = kept.flat_map(|(group, _)| &group.attempts).filter(|(rollout, _)| rollout.written_count() > 0);
            let rewards: Vec<f64> = kept.filter_map(|(_, scored)| scored.reward).collect();
            groups::by_critic(samples, &rewards, &self.config.ppo);
        }
        for epoch in 0..self.config.update.epochs {
            let order = shuffled(samples.len(), draw(self.config.seed, Purpose::Shuffle, [step, epoch as u64]));
            for chosen in parts(&order, self.config.update.minibatches) {
                update.step(&mut self.policy, &mut self.optimizer, samples, chosen, &mut seen)?;
            }
        }
        Ok(seen)
    }

    /// A batch that made a number that is none is written down, so that it can be looked at.
    fn keep_batch(
        &self,
        step: u64,
        error: TrainError,
        groups: &[Group],
        plan: &Plan,
    ) -> Result<UpdateStatistics, TrainError> {
        let TrainError::Model(LmError::NotFinite(what)) = error else { return Err(error) };
        Err(TrainError::NotFinite { step, what: what.to_owned(), saved: self.write_down(step, groups, plan)? })
    }

    /// Writes the rollouts of a step down; gives the file.
    fn write_down(&self, step: u64, groups: &[Group], plan: &Plan) -> Result<PathBuf, TrainError> {
        record::write(&self.config.output, step, groups, &groups::counted(&self.config, plan), self.tasks())
    }
}

/// The things at some places of an endless row in which each epoch has all `count` in an order of its own.
fn in_epochs(count: usize, places: std::ops::Range<u64>, seed: impl Fn(u64) -> u64) -> Vec<usize> {
    let mut order = (u64::MAX, Vec::new());
    let place = |index: u64| {
        let (epoch, at) = (index / count.max(1) as u64, index % count.max(1) as u64);
        if order.0 != epoch {
            order = (epoch, shuffled(count, seed(epoch)));
        }
        order.1.get(usize::try_from(at).unwrap_or(0)).copied()
    };
    places.filter_map(place).collect()
}

/// Cuts a list into at most `count` parts, whose lengths differ by one at most.
fn parts<T>(list: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    let count = count.clamp(1, list.len().max(1));
    let cut = move |part: usize| part * list.len() / count;
    (0..count).filter_map(move |part| list.get(cut(part)..cut(part + 1)))
}
