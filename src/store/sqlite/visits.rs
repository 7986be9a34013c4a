//! The visits of a run's groups, put together from its scores. In: a run; out: its visits. Every score is read once: what was
//! read for a run stays in memory while the run is asked for. Knows no statistics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::connection::Fault;
use crate::store::{GroupVisit, RunVisits};

const RUN_EXISTS: &str = "SELECT 1 FROM runs WHERE run_id = ?1";
const RUN_RUBRICS: &str =
    "SELECT r.hash, r.json FROM run_rubrics n JOIN rubrics r ON r.hash = n.rubric_hash WHERE n.run_id = ?1";
const BATCHES_UP_TO: &str = "SELECT count(*) FROM batches WHERE run_id = ?1 AND id <= ?2";
const BATCHES_AFTER: &str = "SELECT count(*), max(id) FROM batches WHERE run_id = ?1 AND id > ?2";
const REWARDS_AFTER: &str = "SELECT b.id, b.step, b.rubric_hash, s.\"group\", s.reward FROM batches b
     JOIN scores s ON s.batch = b.id WHERE b.run_id = ?1 AND b.id > ?2 AND s.valid = 1 AND s.\"group\" IS NOT NULL
     AND s.reward IS NOT NULL ORDER BY b.id, s.\"index\"";

/// Runs that stay in memory.
const RUNS: usize = 4;
/// Rewards of a run up to which it stays in memory.
const REWARDS: usize = 4 << 20;

/// The runs that were asked for last, the latest one last.
#[derive(Default)]
pub(super) struct KnownVisits(Mutex<Vec<Known>>);

/// What was read of a run.
struct Known {
    run_id: String,
    /// The last batch that was read, and how many there were up to it.
    last: i64,
    batches: i64,
    visits: Arc<RunVisits>,
    rewards: usize,
    /// A group's members may come in batches of their own: the step keeps them together.
    places: HashMap<(String, Result<i64, i64>), usize>,
}

impl KnownVisits {
    /// The visits of a run; `None` where there is no such run.
    pub(super) fn read(&self, connection: &Connection, run_id: &str) -> Result<Option<Arc<RunVisits>>, Fault> {
        let mut known = self.take(run_id);
        if !known.read_on(connection)? {
            return Ok(None);
        }
        let visits = Arc::clone(&known.visits);
        if known.rewards <= REWARDS {
            self.put_back(known);
        }
        Ok(Some(visits))
    }

    /// What is known of a run. Whoever asks for the same run meanwhile reads it anew.
    fn take(&self, run_id: &str) -> Known {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match runs.iter().position(|known| known.run_id == run_id) {
            Some(place) => runs.remove(place),
            None => Known::nothing(run_id.to_owned()),
        }
    }

    fn put_back(&self, known: Known) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|other| other.run_id != known.run_id);
        if runs.len() >= RUNS {
            runs.remove(0);
        }
        runs.push(known);
    }
}

impl Known {
    fn nothing(run_id: String) -> Self {
        let visits = Arc::default();
        Self { run_id, last: i64::MIN, batches: 0, visits, rewards: 0, places: HashMap::new() }
    }

    /// Reads what came since; false where there is no such run.
    fn read_on(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let moment = connection.unchecked_transaction()?;
        if !moment.prepare_cached(RUN_EXISTS)?.exists([&self.run_id])? {
            return Ok(false);
        }
        let count = |sql| moment.prepare_cached(sql);
        let up_to: i64 = count(BATCHES_UP_TO)?.query_row(params![self.run_id, self.last], |row| row.get(0))?;
        if up_to != self.batches {
            // One that began earlier was written later: it belongs before what is known.
            *self = Self::nothing(std::mem::take(&mut self.run_id));
        }
        let after = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (more, last): (i64, Option<i64>) =
            count(BATCHES_AFTER)?.query_row(params![self.run_id, self.last], after)?;
        let mut rewards = moment.prepare_cached(REWARDS_AFTER)?;
        let mut rows = rewards.query(params![self.run_id, self.last])?;
        let known = Arc::make_mut(&mut self.visits);
        while let Some(row) = rows.next()? {
            let (batch, step): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
            let group: String = row.get(3)?;
            let place = *self.places.entry((group.clone(), step.ok_or(batch))).or_insert(known.visits.len());
            if place == known.visits.len() {
                known.visits.push(GroupVisit { group, step, rewards: Vec::new(), rubric_hash: row.get(2)? });
            }
            if let Some(visit) = known.visits.get_mut(place) {
                visit.rewards.push(row.get(4)?);
                self.rewards += 1;
            }
        }
        let mut rubrics = moment.prepare_cached(RUN_RUBRICS)?;
        let rubrics = rubrics.query_map([&self.run_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        known.rubrics = rubrics.collect::<Result<_, _>>()?;
        self.batches += more;
        self.last = last.unwrap_or(self.last);
        Ok(true)
    }
}
