//! A few connections that only read, and the look-ups of single scores, answers, requests and findings. In: ids; out: what is
//! stored under them. Never waits for the writer, nor it for them. Knows no list.

use std::sync::{Arc, Mutex};

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::connection::{Fault, Place};
use crate::locks;
use crate::store::{
    BatchId, Compressed, ScoreId, ScoreRow, ScoreRows, StoreError, StoredAnswer, StoredReference, StoredRequest,
    StoredRow, StoredScore,
};

/// Reads of each kind that run at the same time; more wait.
const CONNECTIONS: usize = 4;

// Left joins: what was lost from a table is damage to a batch, which would otherwise seem never to have been.
const FIND_BATCH: &str = "SELECT r.json, b.step, b.created_at_ms, b.request_id, b.run_id, b.position, b.rubric_name,
     b.rubric_hash, b.engine_version, y.response, y.response_bytes
     FROM batches b LEFT JOIN score_rows r ON r.batch = b.id LEFT JOIN bodies y ON y.batch = b.id WHERE b.id = ?1";
const FIND_ANSWER: &str = "SELECT i.batch, i.body_hash, y.response, y.response_bytes
     FROM idempotency i LEFT JOIN bodies y ON y.batch = i.batch WHERE i.key = ?1";
const NEXT_REQUEST: &str = "SELECT b.id, b.rubric_name, b.rubric_hash, r.json, b.position, b.engine_version,
     y.request, y.request_bytes, y.response, y.response_bytes, b.judges, b.step, b.created_at_ms, y.batch IS NULL, s.json
     FROM batches b LEFT JOIN bodies y ON y.batch = b.id LEFT JOIN rubrics r ON r.hash = b.rubric_hash
     LEFT JOIN score_rows s ON s.batch = b.id
     WHERE b.run_id = ?1 AND b.id > ?2 ORDER BY b.id LIMIT 1";
const REFERENCES: &str = "SELECT key, value FROM prompt_references";
const FIND_FINDING: &str = "SELECT value FROM judge_findings WHERE key = ?1";

/// A batch of a replay, and its request or why there is none.
pub(super) type Replayed = (BatchId, Result<StoredRequest, StoreError>);

/// What a read waits for: others of its kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Reads of lists, and of whole runs.
    List,
    /// Look-ups of one batch, which would wait for seconds behind those.
    LookUp,
}

/// The reading end of the store.
pub(super) struct Readers {
    place: Place,
    busy_timeout_ms: u64,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
    free_look_ups: Arc<Semaphore>,
    /// For findings alone: look-ups by key on threads that may block, one at a time.
    findings: Mutex<Option<Connection>>,
}

impl Readers {
    /// Reads from `place`; opens connections when they are needed.
    pub(super) fn new(place: Place, busy_timeout_ms: u64) -> Self {
        let (free, free_look_ups) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Semaphore::new(CONNECTIONS)));
        Self { place, busy_timeout_ms, idle: Mutex::default(), free, free_look_ups, findings: Mutex::default() }
    }

    /// Bytes of the file and its log; 0 where there is none.
    pub(super) fn file_bytes(&self) -> u64 {
        self.place.file_bytes()
    }

    /// Runs `query` on a thread that may block, when its kind has room.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        kind: Kind,
        action: &'static str,
        query: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = match kind {
            Kind::List => &self.free,
            Kind::LookUp => &self.free_look_ups,
        };
        let free = Arc::clone(room).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let outcome = readers.now(action, query);
            drop(free);
            outcome
        });
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `query` on this thread.
    pub(super) fn now<T>(
        &self,
        action: &'static str,
        query: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with_connection(query).map_err(|fault| self.place.explain(action, self.busy_timeout_ms, fault))
    }

    /// Refuses further reads and closes the idle connections.
    pub(super) fn close(&self) {
        self.free.close();
        self.free_look_ups.close();
        locks::lock(&self.idle).clear();
        *locks::lock(&self.findings) = None;
    }

    /// The finding under a key. Blocks: for as long as those before it take to look up one key each.
    pub(super) fn finding(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut kept = locks::lock(&self.findings);
        if self.free.is_closed() {
            return Err(StoreError::Closed);
        }
        let found = (|| {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => self.place.reader(self.busy_timeout_ms)?,
            };
            let found = connection.prepare_cached(FIND_FINDING)?.query_row([key], |row| row.get(0)).optional()?;
            // Put back only now: after a failure the next look-up starts clean.
            *kept = Some(connection);
            Ok(found)
        })();
        found.map_err(|error: rusqlite::Error| self.place.explain("read a finding", self.busy_timeout_ms, error.into()))
    }

    fn with_connection<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = locks::lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.place.reader(self.busy_timeout_ms)?,
        };
        let value = query(&connection)?;
        // A connection that failed is dropped instead: the next read starts clean.
        if !self.free.is_closed() {
            locks::lock(&self.idle).push(connection);
        }
        Ok(value)
    }
}

/// The rows of a batch. Ones that cannot be read are damage to this batch alone.
pub(super) fn unpack_rows(json: Option<&str>, batch: BatchId) -> Result<Vec<ScoreRow<String>>, StoreError> {
    json.and_then(ScoreRows::unpack).ok_or(StoreError::Damaged { batch, what: "row" })
}

/// The rows of a batch as they are told.
pub(super) fn stored_rows(
    json: Option<&str>,
    batch: BatchId,
    step: Option<i64>,
    created_at_ms: i64,
) -> Result<Vec<StoredRow>, StoreError> {
    let name = |(index, score)| StoredRow { id: ScoreId { batch, index }, score, step, created_at_ms };
    Ok((0..).zip(unpack_rows(json, batch)?).map(name).collect())
}

/// One score with its result.
pub(super) fn score(connection: &Connection, id: ScoreId) -> Result<Option<StoredScore>, Fault> {
    let mut statement = connection.prepare_cached(FIND_BATCH)?;
    let mut rows = statement.query([id.batch.to_column()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let stored = stored_rows(row.get_ref(0)?.as_str().ok(), id.batch, row.get(1)?, row.get(2)?)?;
    let Some(stored) = stored.into_iter().nth(id.index as usize) else { return Ok(None) };
    let response = unpack(row.get(9)?, row.get(10)?, id.batch, "response")?;
    let result = response.get(stored.score.result.start as usize..stored.score.result.end as usize);
    let result = result.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    Ok(Some(StoredScore {
        row: stored,
        request_id: row.get(3)?,
        run_id: row.get(4)?,
        position: row.get(5)?,
        rubric_name: row.get(6)?,
        rubric_hash: row.get(7)?,
        engine_version: row.get(8)?,
        result_json: result.ok_or(StoreError::Damaged { batch: id.batch, what: "result" })?,
    }))
}

/// The answer under an idempotency key.
pub(super) fn answer(connection: &Connection, key: &str) -> Result<Option<StoredAnswer>, Fault> {
    let mut statement = connection.prepare_cached(FIND_ANSWER)?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let batch = BatchId::from_column(row.get(0)?);
    let response = unpack(row.get(2)?, row.get(3)?, batch, "response")?;
    Ok(Some(StoredAnswer { batch, body_hash: row.get(1)?, response }))
}

/// What is right for every prompt.
pub(super) fn references(connection: &Connection) -> Result<Vec<StoredReference>, Fault> {
    let mut statement = connection.prepare(REFERENCES)?;
    let rows = statement.query_map([], |row| Ok(StoredReference { key: row.get(0)?, value: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first request of a run after a batch; `None` at the end of the run.
pub(super) fn replay(connection: &Connection, run_id: &str, after: Option<BatchId>) -> Result<Option<Replayed>, Fault> {
    let mut statement = connection.prepare_cached(NEXT_REQUEST)?;
    let mut rows = statement.query(params![run_id, after.map_or(-1, BatchId::to_column)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let batch = BatchId::from_column(row.get(0)?);
    match request(row, batch) {
        Ok(request) => Ok(Some((batch, Ok(request)))),
        Err(Fault::Store(error)) => Ok(Some((batch, Err(error)))),
        Err(fault) => Err(fault),
    }
}

fn request(row: &Row<'_>, batch: BatchId) -> Result<StoredRequest, Fault> {
    let packed: Option<Vec<u8>> = column(row, 6, batch, "request")?;
    let lost: bool = column(row, 13, batch, "body")?;
    let packed = match packed {
        Some(packed) => packed,
        None if lost => return Err(StoreError::Damaged { batch, what: "body" }.into()),
        None => return Err(StoreError::NotKept { batch }.into()),
    };
    let (step, created_at_ms) = (column(row, 11, batch, "step")?, column(row, 12, batch, "time")?);
    Ok(StoredRequest {
        batch,
        rows: stored_rows(row.get_ref(14)?.as_str().ok(), batch, step, created_at_ms)?,
        // The hash was changed after the packing.
        older_hashes: Compressed::packed_by_older(&packed),
        request: unpack(Some(packed), column(row, 7, batch, "request")?, batch, "request")?,
        response: unpack(column(row, 8, batch, "response")?, column(row, 9, batch, "response")?, batch, "response")?,
        rubric_name: column(row, 1, batch, "rubric")?,
        rubric_hash: column(row, 2, batch, "rubric")?,
        rubric_json: column(row, 3, batch, "rubric")?,
        position: column(row, 4, batch, "position")?,
        engine_version: column(row, 5, batch, "version")?,
        judges: column(row, 10, batch, "judges")?,
    })
}

/// A column of a batch. One that cannot be read is damage to this batch alone.
fn column<T: FromSql>(row: &Row<'_>, index: usize, batch: BatchId, what: &'static str) -> Result<T, StoreError> {
    row.get(index).map_err(|_: rusqlite::Error| StoreError::Damaged { batch, what })
}

fn unpack(
    bytes: Option<Vec<u8>>,
    original_bytes: Option<i64>,
    batch: BatchId,
    what: &'static str,
) -> Result<Vec<u8>, StoreError> {
    let original_bytes = original_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let parts = bytes.zip(original_bytes);
    let body = parts.and_then(|(bytes, length)| Compressed::from_parts(bytes, length).unpack());
    body.ok_or(StoreError::Damaged { batch, what })
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, mpsc};

    use super::*;

    /// As many lists as may run, and one that waits for them.
    #[tokio::test]
    async fn a_look_up_waits_for_no_list() {
        let place = Place::memory();
        let _writer = place.writer(1000).unwrap();
        let readers = Arc::new(Readers::new(place, 1000));
        let (begun, lists) = mpsc::channel();
        let end = Arc::new((Mutex::new(false), Condvar::new()));
        let list = |begun: mpsc::Sender<()>, end: Arc<(Mutex<bool>, Condvar)>| {
            move |_: &Connection| {
                // Nobody counts the one that waited.
                let _ = begun.send(());
                drop(end.1.wait_while(locks::lock(&end.0), |ended| !*ended).unwrap());
                Ok(())
            }
        };
        let running: Vec<_> = (0..=CONNECTIONS)
            .map(|_| {
                let (readers, query) = (Arc::clone(&readers), list(begun.clone(), Arc::clone(&end)));
                tokio::spawn(async move { readers.run(Kind::List, "list", query).await })
            })
            .collect();
        tokio::task::spawn_blocking(move || (0..CONNECTIONS).for_each(|_| lists.recv().unwrap())).await.unwrap();
        let looked = readers.run(Kind::LookUp, "look", |_| Ok(7));
        let looked = tokio::time::timeout(std::time::Duration::from_mins(1), looked).await;
        *locks::lock(&end.0) = true;
        end.1.notify_all();
        for list in running {
            assert_eq!(list.await.unwrap(), Ok(()));
        }
        assert_eq!(looked.unwrap(), Ok(7));
    }
}
