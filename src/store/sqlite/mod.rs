//! The store in an `SQLite` file: one connection writes, a few read, through a write-ahead log so that neither waits for
//! the other. In: batches and look-ups; out: outcomes and what is stored. Knows SQL; knows no HTTP.

mod connection;
mod counters;
mod insert;
mod lists;
mod reader;
mod removal;
mod schema;
mod visits;
mod write_loop;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use self::connection::{Fault, Place};
use self::insert::TransactionWriter;
use self::reader::{Kind, Readers, Replayed};
use self::visits::VisitCache;
pub(super) use self::write_loop::log_untold;
pub(super) use self::writer::PendingWrite;
use self::writer::Writer;
use super::read::RunCursor;
use super::record::Finding;
use super::{
    Batch, BatchId, Config, Counters, Durability, Filter, Health, Page, RemovalError, Removed, RunDetail, RunSummary,
    RunVisits, ScoreId, StoreError, StoredAnswer, StoredReference, StoredRow, StoredScore,
};

/// An open database. Dropping it writes what is queued.
pub(super) struct Sqlite {
    // Dropped first: the writer is then the last to leave, and takes the emptied log with it.
    readers: Arc<Readers>,
    writer: Arc<Writer>,
    last_batch: Option<BatchId>,
    visits: Arc<VisitCache>,
    place: Place,
    busy_timeout_ms: u64,
}

impl Sqlite {
    /// Opens the database at `path`, or a fresh one in memory, and brings it to the current schema. Blocks.
    pub(super) fn open(path: Option<PathBuf>, config: &Config) -> Result<Self, StoreError> {
        let place = path.map_or_else(Place::memory, Place::File);
        let timeout = config.busy_timeout_ms;
        let mut connection = place.writer(timeout)?;
        let began = Instant::now();
        let last_batch = loop {
            let prepared = prepare(&mut connection, &place, config.durability);
            match prepared.map_err(|fault| place.explain("open", timeout, fault)) {
                // Changing the kind of its log waits for nobody: two processes that make a database meet here.
                Err(StoreError::Locked { .. }) if began.elapsed() < Duration::from_millis(timeout) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                prepared => break prepared?,
            }
        };
        let transactions = TransactionWriter::new(connection, place.clone(), timeout);
        let writer =
            Writer::start(transactions, config.durability, config.queue_bytes).map_err(|error| StoreError::Failed {
                path: place.path().to_owned(),
                action: "start its writer thread",
                detail: error.to_string(),
            })?;
        Ok(Self::of(Arc::new(writer), place, timeout, last_batch))
    }

    /// Opens the database at `path` for reading alone, without a word to whoever writes to it; `None` where its schema is
    /// of an older version. Blocks.
    pub(super) fn open_to_read(path: PathBuf, config: &Config) -> Result<Option<Self>, StoreError> {
        let timeout = config.busy_timeout_ms;
        let mut place = Place::File(path);
        let is_current = |place: &Place| {
            let looked = place.reader(timeout).map_err(Fault::from);
            let looked = looked.and_then(|connection| schema::is_current(&connection, place));
            looked.map_err(|fault| place.explain("open", timeout, fault))
        };
        let current = match (is_current(&place), place.still()) {
            (Err(StoreError::CannotOpen { .. } | StoreError::ReadOnly { .. }), Some(still)) => {
                place = still;
                is_current(&place)?
            }
            (current, _) => current?,
        };
        if !current {
            return Ok(None);
        }
        Ok(Some(Self::of(Arc::new(Writer::none()), place, timeout, None)))
    }

    fn of(writer: Arc<Writer>, place: Place, busy_timeout_ms: u64, last_batch: Option<BatchId>) -> Self {
        let readers = Arc::new(Readers::new(place.clone(), busy_timeout_ms));
        Self { writer, readers, last_batch, visits: Arc::default(), place, busy_timeout_ms }
    }

    /// The largest batch id when it was opened.
    pub(super) fn last_batch(&self) -> Option<BatchId> {
        self.last_batch
    }

    pub(super) async fn append(&self, batch: Batch) -> Result<Option<PendingWrite>, StoreError> {
        self.writer.append(batch).await
    }

    /// What is kept under a key. Blocks.
    pub(super) fn recall(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.finding(key)
    }

    /// Queues a finding.
    pub(super) fn remember(&self, finding: Finding) {
        self.writer.remember(finding);
    }

    /// Counts a finding that cannot be kept.
    pub(super) fn lose_finding(&self, why: &str) {
        self.writer.lose_finding(why);
    }

    pub(super) async fn score(&self, id: ScoreId) -> Result<Option<StoredScore>, StoreError> {
        self.readers.run(Kind::LookUp, "read a score", move |connection| reader::score(connection, id)).await
    }

    pub(super) async fn answer(&self, key: String) -> Result<Option<StoredAnswer>, StoreError> {
        self.readers.run(Kind::LookUp, "read an answer", move |connection| reader::answer(connection, &key)).await
    }

    pub(super) async fn replay(&self, run_id: String, after: Option<BatchId>) -> Result<Option<Replayed>, StoreError> {
        self.readers
            .run(Kind::List, "read a request", move |connection| reader::replay(connection, &run_id, after))
            .await
    }

    pub(super) async fn runs(&self, after: Option<RunCursor>, limit: usize) -> Result<Page<RunSummary>, StoreError> {
        self.readers
            .run(Kind::List, "list runs", move |connection| lists::runs(connection, after.as_ref(), limit))
            .await
    }

    pub(super) async fn run(&self, run_id: String, window: u32) -> Result<Option<RunDetail>, StoreError> {
        self.readers.run(Kind::List, "read a run", move |connection| lists::run(connection, &run_id, window)).await
    }

    pub(super) async fn run_scores(
        &self,
        run_id: String,
        filter: Filter,
        after: Option<ScoreId>,
        limit: usize,
    ) -> Result<Page<StoredRow>, StoreError> {
        let query = move |connection: &_| lists::run_scores(connection, &run_id, &filter, after, limit);
        self.readers.run(Kind::List, "list scores", query).await
    }

    pub(super) async fn keep_references(&self, references: Vec<StoredReference>) -> Result<(), StoreError> {
        self.writer.keep(references).await
    }

    /// All references. Blocks.
    pub(super) fn references(&self) -> Result<Vec<StoredReference>, StoreError> {
        self.readers.now("read the references", reader::references)
    }

    pub(super) async fn run_visits(&self, run_id: String) -> Result<Option<Arc<RunVisits>>, StoreError> {
        let known = Arc::clone(&self.visits);
        self.readers.run(Kind::List, "read a run's visits", move |connection| known.read(connection, &run_id)).await
    }

    /// Removes a run, over a connection of its own. Blocks.
    pub(super) fn remove_run(&self, run_id: &str) -> Result<Option<Removed>, RemovalError> {
        let Self { place, busy_timeout_ms, .. } = self;
        let mut connection = place.writer(*busy_timeout_ms).map_err(|error| RemovalError { batches: 0, error })?;
        let mut removed = Removed::default();
        match removal::remove(&mut connection, run_id, &mut removed) {
            Ok(found) => Ok(found.then_some(removed)),
            Err(fault) => {
                let error = place.explain("remove a run", *busy_timeout_ms, fault);
                Err(RemovalError { batches: removed.batches, error })
            }
        }
    }

    pub(super) fn health(&self) -> Health {
        self.writer.health()
    }

    pub(super) fn probe(&self) {
        self.writer.probe();
    }

    pub(super) fn counters(&self) -> Counters {
        Counters { file_bytes: self.readers.file_bytes(), ..self.writer.counters() }
    }

    /// Writes what is queued, empties the log and closes the file.
    pub(super) async fn close(&self) {
        self.readers.close();
        let writer = Arc::clone(&self.writer);
        // The task cannot fail: `close` does not panic, and a blocking task is not cancelled once it runs.
        let _ended = tokio::task::spawn_blocking(move || writer.close()).await;
    }
}

/// Refuses a database that is not ours, sets the connection up and brings the schema up to date. Gives the largest batch
/// id, so that a restart never goes back in time.
fn prepare(connection: &mut Connection, place: &Place, durability: Durability) -> Result<Option<BatchId>, Fault> {
    schema::version(connection, place)?;
    Place::configure(connection, durability)?;
    schema::migrate(connection, place)?;
    let last: Option<i64> = connection.query_row("SELECT max(id) FROM batches", [], |row| row.get(0))?;
    Ok(last.map(BatchId::from_column))
}
