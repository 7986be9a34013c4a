//! What is counted while batches are written: runs, their steps, stages and rubrics. In: the batches of one
//! transaction; out: one upsert per counter, however many batches touched it. Knows no score by itself.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Transaction, params};

use super::connection::{Fault, integer};
use crate::store::{Batch, StageCounts};

const INSERT_RUBRIC: &str = "INSERT INTO rubrics (hash, name, json) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const UPSERT_RUN: &str = "INSERT INTO runs (run_id, n, valid, reward_sum, min_reward, max_reward, first_created_at_ms,
     last_created_at_ms, last_step) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
     ON CONFLICT DO UPDATE SET n = n + ?2, valid = valid + ?3, reward_sum = reward_sum + ?4,
     min_reward = min(coalesce(min_reward, ?5), coalesce(?5, min_reward)),
     max_reward = max(coalesce(max_reward, ?6), coalesce(?6, max_reward)),
     last_created_at_ms = max(last_created_at_ms, ?8),
     last_step = max(coalesce(last_step, ?9), coalesce(?9, last_step))";
const INSERT_RUN_RUBRIC: &str = "INSERT INTO run_rubrics (run_id, rubric_hash) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const UPSERT_STAGE: &str = "INSERT INTO run_stages (run_id, stage, place, valid, reached, passed, score_sum)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET
     valid = valid + ?4, reached = reached + ?5, passed = passed + ?6, score_sum = score_sum + ?7";
const UPSERT_STEP: &str = "INSERT INTO run_steps (run_id, step, n, valid) VALUES (?1, ?2, ?3, ?4)
     ON CONFLICT DO UPDATE SET n = n + ?3, valid = valid + ?4";
const UPSERT_STEP_STAGE: &str = "INSERT INTO run_step_stages (run_id, step, stage, place, valid, reached, passed,
     score_sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
     valid = valid + ?5, reached = reached + ?6, passed = passed + ?7, score_sum = score_sum + ?8";

/// The counters of one transaction.
#[derive(Default)]
pub(super) struct RunCounters<'a> {
    runs: BTreeMap<&'a str, RunCounts<'a>>,
    rubrics: BTreeMap<&'a str, &'a Batch>,
}

#[derive(Default)]
struct RunCounts<'a> {
    whole: Counts<'a>,
    steps: BTreeMap<i64, Counts<'a>>,
    reward_sum: f64,
    min_reward: Option<f64>,
    max_reward: Option<f64>,
    created_at_ms: Option<(i64, i64)>,
    rubrics: BTreeSet<&'a str>,
}

/// Scores and stages of a run, or of one of its steps.
#[derive(Default)]
struct Counts<'a> {
    n: i64,
    valid: i64,
    stages: BTreeMap<&'a str, StageSums>,
}

#[derive(Default, Clone, Copy)]
struct StageSums {
    place: i64,
    /// Valid scores of the rubrics that have the stage.
    valid: i64,
    reached: i64,
    passed: i64,
    score_sum: f64,
}

impl<'a> RunCounters<'a> {
    /// Counts a batch that was written.
    pub(super) fn add(&mut self, batch: &'a Batch) {
        self.rubrics.entry(&batch.rubric_hash).or_insert(batch);
        let Some(run_id) = &batch.run_id else { return };
        let run = self.runs.entry(run_id).or_default();
        let scores = batch.scores.counts();
        let counts = (integer(scores.n), integer(scores.valid));
        run.whole.add(counts, &batch.stages);
        if let Some(step) = batch.step {
            run.steps.entry(step).or_default().add(counts, &batch.stages);
        }
        run.reward_sum += scores.reward_sum;
        if let Some((least, most)) = scores.rewards {
            run.min_reward = Some(run.min_reward.map_or(least, |known| known.min(least)));
            run.max_reward = Some(run.max_reward.map_or(most, |known| known.max(most)));
        }
        let (first, last) = run.created_at_ms.unwrap_or((batch.created_at_ms, batch.created_at_ms));
        run.created_at_ms = Some((first.min(batch.created_at_ms), last.max(batch.created_at_ms)));
        run.rubrics.insert(&batch.rubric_hash);
    }

    /// Adds the counters to those in the database.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<(), Fault> {
        for (hash, batch) in &self.rubrics {
            let values = params![hash, batch.rubric_name, batch.rubric_json];
            transaction.prepare_cached(INSERT_RUBRIC)?.execute(values)?;
        }
        for (run_id, run) in &self.runs {
            run.write(transaction, run_id)?;
        }
        Ok(())
    }
}

impl<'a> Counts<'a> {
    fn add(&mut self, (n, valid): (i64, i64), stages: &'a [StageCounts]) {
        self.n += n;
        self.valid += valid;
        for (place, stage) in (0_i64..).zip(stages) {
            let fresh = StageSums { place, ..StageSums::default() };
            let counts = self.stages.entry(&stage.stage).or_insert(fresh);
            counts.valid += valid;
            counts.reached += i64::from(stage.reached);
            counts.passed += i64::from(stage.passed);
            counts.score_sum += stage.score_sum;
        }
    }
}

impl RunCounts<'_> {
    fn write(&self, transaction: &Transaction<'_>, run_id: &str) -> Result<(), Fault> {
        let (first, last) = self.created_at_ms.unwrap_or_default();
        let last_step = self.steps.last_key_value().map(|(step, _)| step);
        transaction.prepare_cached(UPSERT_RUN)?.execute(params![
            run_id,
            self.whole.n,
            self.whole.valid,
            self.reward_sum,
            self.min_reward,
            self.max_reward,
            first,
            last,
            last_step,
        ])?;
        for hash in &self.rubrics {
            transaction.prepare_cached(INSERT_RUN_RUBRIC)?.execute([run_id, hash])?;
        }
        let mut upsert = transaction.prepare_cached(UPSERT_STAGE)?;
        for (stage, counts) in &self.whole.stages {
            let StageSums { place, valid, reached, passed, score_sum } = counts;
            upsert.execute(params![run_id, stage, place, valid, reached, passed, score_sum])?;
        }
        let mut upsert = transaction.prepare_cached(UPSERT_STEP_STAGE)?;
        for (step, counts) in &self.steps {
            transaction.prepare_cached(UPSERT_STEP)?.execute(params![run_id, step, counts.n, counts.valid])?;
            for (stage, counts) in &counts.stages {
                let StageSums { place, valid, reached, passed, score_sum } = counts;
                upsert.execute(params![run_id, step, stage, place, valid, reached, passed, score_sum])?;
            }
        }
        Ok(())
    }
}
