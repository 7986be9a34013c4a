//! The visits of a run's groups, put together from its scores. In: a run; out: its visits. Every score is read once: what was
//! read for a run stays in memory while the run is asked for. Knows no statistics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, params};

use super::connection::Fault;
use super::reader::unpack_rows;
use crate::locks;
use crate::store::{BatchId, GroupVisit, RunVisits, StoreError};

const RUN_EXISTS: &str = "SELECT 1 FROM runs WHERE run_id = ?1";
const RUN_RUBRICS: &str =
    "SELECT r.hash, r.json FROM run_rubrics n JOIN rubrics r ON r.hash = n.rubric_hash WHERE n.run_id = ?1";
const BATCHES_UP_TO: &str = "SELECT count(*) FROM batches WHERE run_id = ?1 AND id <= ?2";
const BATCHES_AFTER: &str = "SELECT count(*), max(id) FROM batches WHERE run_id = ?1 AND id > ?2";
const SCORES_AFTER: &str = "SELECT b.id, b.step, b.rubric_hash, r.json FROM batches b
     LEFT JOIN score_rows r ON r.batch = b.id WHERE b.run_id = ?1 AND b.id > ?2 ORDER BY b.id";

/// Most runs that stay in memory.
const RUNS: usize = 4;
/// About how many bytes they take together. A run that is larger is read anew each time.
const BYTES: usize = 64 << 20;
/// What a visit takes beside its group's name and its rewards, about: itself, its place, and room that grew ahead.
const VISIT_BYTES: usize = size_of::<GroupVisit>() + size_of::<(Key, usize)>() + 64;

/// A group at a step; where that is missing, in a batch.
type Key = (Arc<str>, Result<i64, i64>);

/// The runs that were asked for last, the latest one last.
#[derive(Default)]
pub(super) struct VisitCache(Mutex<Vec<CachedRun>>);

/// What was read of a run.
struct CachedRun {
    run_id: String,
    /// The last batch that was read, and how many there were up to it.
    last: i64,
    batches: i64,
    visits: Arc<RunVisits>,
    /// About what all of it takes.
    bytes: usize,
    /// A group's members may come in batches of their own: the step keeps them together.
    places: HashMap<Key, usize>,
    /// The rubrics' places by their hashes.
    rubrics: HashMap<String, usize>,
}

impl VisitCache {
    /// The visits of a run; `None` where there is no such run.
    pub(super) fn read(&self, connection: &Connection, run_id: &str) -> Result<Option<Arc<RunVisits>>, Fault> {
        let mut known = self.take(run_id);
        if !known.read_on(connection)? {
            return Ok(None);
        }
        let visits = Arc::clone(&known.visits);
        self.put_back(known);
        Ok(Some(visits))
    }

    /// What is known of a run. Whoever asks for the same run meanwhile reads it anew.
    fn take(&self, run_id: &str) -> CachedRun {
        let mut runs = locks::lock(&self.0);
        match runs.iter().position(|known| known.run_id == run_id) {
            Some(place) => runs.remove(place),
            None => CachedRun::nothing(run_id.to_owned()),
        }
    }

    /// Keeps what is known of a run, and forgets the runs that were not asked for the longest where it is too much.
    fn put_back(&self, known: CachedRun) {
        if known.bytes > BYTES {
            return;
        }
        let mut runs = locks::lock(&self.0);
        runs.retain(|other| other.run_id != known.run_id);
        runs.push(known);
        while runs.len() > RUNS || runs.iter().map(|known| known.bytes).sum::<usize>() > BYTES {
            runs.remove(0);
        }
    }
}

impl CachedRun {
    fn nothing(run_id: String) -> Self {
        let (visits, places, rubrics) = (Arc::default(), HashMap::new(), HashMap::new());
        Self { run_id, last: i64::MIN, batches: 0, visits, bytes: 0, places, rubrics }
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
        let known = Arc::make_mut(&mut self.visits);
        let mut rubrics = moment.prepare_cached(RUN_RUBRICS)?;
        let mut rows = rubrics.query([&self.run_id])?;
        while let Some(row) = rows.next()? {
            let hash: String = row.get(0)?;
            if !self.rubrics.contains_key(&hash) {
                let json: String = row.get(1)?;
                self.bytes += 2 * hash.len() + json.len();
                self.rubrics.insert(hash.clone(), known.rubrics.len());
                known.rubrics.push((hash, json));
            }
        }
        let mut scores = moment.prepare_cached(SCORES_AFTER)?;
        let mut rows = scores.query(params![self.run_id, self.last])?;
        while let Some(row) = rows.next()? {
            let (id, step): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
            let batch = BatchId::from_column(id);
            let rubric = row.get_ref(2)?.as_str().ok().and_then(|hash| self.rubrics.get(hash));
            let rubric = rubric.ok_or(StoreError::Damaged { batch, what: "rubric" });
            for score in unpack_rows(row.get_ref(3)?.as_str().ok(), batch)?.into_iter().filter(|score| score.valid) {
                let (Some(group), Some(reward)) = (score.group, score.reward) else { continue };
                let group: Arc<str> = group.into();
                let place = *self.places.entry((Arc::clone(&group), step.ok_or(id))).or_insert(known.visits.len());
                if place == known.visits.len() {
                    self.bytes += VISIT_BYTES + group.len();
                    known.visits.push(GroupVisit { group, step, rewards: Vec::new(), rubric: *rubric.clone()? });
                }
                if let Some(visit) = known.visits.get_mut(place) {
                    visit.rewards.push(reward);
                    self.bytes += size_of::<f64>();
                }
            }
        }
        self.batches += more;
        self.last = last.unwrap_or(self.last);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ContentHash, ScoreRow, ScoreRows};

    fn of_size(run_id: &str, bytes: usize) -> CachedRun {
        CachedRun { bytes, ..CachedRun::nothing(run_id.to_owned()) }
    }

    fn kept(visits: &VisitCache) -> Vec<String> {
        locks::lock(&visits.0).iter().map(|known| known.run_id.clone()).collect()
    }

    #[test]
    fn runs_stay_while_they_fit_together() {
        let visits = VisitCache::default();
        for (run, bytes) in [("a", BYTES / 3), ("b", BYTES / 3), ("c", BYTES / 3)] {
            visits.put_back(of_size(run, bytes));
        }
        assert_eq!(kept(&visits), ["a", "b", "c"]);
        visits.put_back(of_size("d", BYTES / 2));
        assert_eq!(kept(&visits), ["c", "d"], "those that were not asked for the longest went");
        visits.put_back(of_size("e", BYTES + 1));
        assert_eq!(kept(&visits), ["c", "d"], "one that is too large is not worth the others");
        for run in ["f", "g", "h", "i"] {
            visits.put_back(of_size(run, 0));
        }
        assert_eq!(kept(&visits), ["f", "g", "h", "i"]);
    }

    /// With one reward for each group its name and its place are nearly all there is.
    #[test]
    fn groups_are_counted_and_not_rewards_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, &super::super::connection::Place::memory()).unwrap();
        connection
            .execute_batch(
                "INSERT INTO runs VALUES ('exp', 1000, 1000, 0, 0, 0, 1, 1, 0);
                 INSERT INTO rubrics VALUES ('b3-1', 'r', '{}');
                 INSERT INTO run_rubrics VALUES ('exp', 'b3-1');
                 INSERT INTO batches (id, request_id, created_at_ms, run_id, step, position, rubric_name, rubric_hash,
                     engine_version) VALUES (1, '', 1, 'exp', 0, '', 'r', 'b3-1', '0');",
            )
            .unwrap();
        let groups: Vec<String> = (0..1000).map(|group| format!("{group:0100}")).collect();
        let row = |group| ScoreRow {
            trajectory_id: None,
            group: Some(group),
            reward: Some(0.5),
            valid: true,
            stage_reached: None,
            failed_stage: None,
            content_hash: ContentHash(0),
            result: 0..0,
        };
        let rows = ScoreRows::new(BatchId::from_column(1), groups.iter().map(|group| row(group.as_str()))).unwrap();
        connection.execute("INSERT INTO score_rows VALUES (1, ?1)", [rows.json()]).unwrap();
        let mut known = CachedRun::nothing("exp".to_owned());
        assert!(known.read_on(&connection).unwrap());
        assert_eq!(known.visits.visits.len(), 1000);
        assert!((250_000..500_000).contains(&known.bytes), "{}", known.bytes);
        let before = known.bytes;
        assert!(known.read_on(&connection).unwrap());
        assert_eq!(known.bytes, before, "nothing came in between");
    }
}
