//! The store: every scored batch with all that is needed to look its scores up and to score it again. In: batches; out:
//! scores, runs, stored answers and requests to replay. Beside them, bytes under keys: what judges said, which the store
//! does not read. Knows neither HTTP nor how a score comes about.
//!
//! A batch is kept whole or not at all. Bodies and rows are packed on the caller's thread ([`Compressed`], [`ScoreRows`]);
//! one thread writes all waiting batches in one transaction, so that they share one sync of the disk. Runs are counted in
//! the same transaction.

mod compressed;
mod config;
mod error;
mod id;
mod read;
mod record;
mod rows;
mod sqlite;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::compressed::{Compressed, MAX_BYTES};
pub use self::config::{Config, Durability, MAX_BUSY_TIMEOUT_MS};
pub use self::error::{RemovalError, StoreError};
pub use self::id::{BatchId, BatchIds, ContentHash, MAX_SCORES, ScoreId};
pub use self::read::{
    DEFAULT_WINDOW, Filter, GroupVisit, MAX_PAGE, MAX_WINDOW, Mastery, Page, Removed, RunDetail, RunSummary, RunVisits,
    StageMastery, StoredAnswer, StoredRequest, StoredRow, StoredScore,
};
pub use self::record::{Batch, Idempotency, MAX_REWARD, StageCounts, StoredReference};
pub use self::rows::{ScoreRow, ScoreRows};

use self::config::Target;
use self::record::Finding;
use self::sqlite::{PendingWrite, Sqlite, log_untold};

/// Longest finding that is kept, in bytes.
pub const MAX_FINDING_BYTES: usize = 1 << 20;

/// The time in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An open store; clones share it. When the last one goes, what is queued is written first, on that thread;
/// [`Store::close`] does it without blocking.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// What holds the scores; nothing else in the crate knows which kind of database it is, so that a second one can stand here.
    database: Sqlite,
    ids: BatchIds,
    keep_trajectories: bool,
}

/// A batch in the queue of a store.
#[must_use = "whether it could be written is not known yet"]
pub struct Queued {
    batch: BatchId,
    pending: Option<PendingWrite>,
}

impl Queued {
    /// Whether there is nothing to wait for: with [`Durability::Relaxed`], but for a batch with an idempotency key. It is tried
    /// again then while the disk is full or another process holds the database.
    pub fn is_promised(&self) -> bool {
        self.pending.is_none()
    }

    /// Waits until it is on the disk, where it is not promised.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`], [`StoreError::IdempotencyTaken`], or why the database refused; nothing of the batch is kept
    /// then. A failure that nobody waits for, or that is not told, is logged.
    pub async fn written(self) -> Result<(), Untold> {
        let Self { batch, pending } = self;
        match pending {
            Some(mut pending) => pending.wait().await.map_err(|error| Untold { batch, error, told: false }),
            None => Ok(()),
        }
    }
}

/// Why a batch was not stored. Where it is dropped before it was told, the log says so.
#[derive(Debug)]
pub struct Untold {
    batch: BatchId,
    error: StoreError,
    told: bool,
}

impl Untold {
    /// For whoever tells it.
    #[must_use]
    pub fn tell(mut self) -> StoreError {
        self.told = true;
        self.error.clone()
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if !self.told {
            log_untold(Some(self.batch), &self.error);
        }
    }
}

/// What becomes of batches that are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// They are written, as far as is known.
    Writing,
    /// The last one that somebody waited for was not, or the file is not where it was, and nothing was written since.
    Failing,
    /// They are refused: the store was closed, or its writer ended.
    Closed,
}

/// What the store did since it was opened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes of the database's file and its log, now; 0 where it is in memory.
    pub file_bytes: u64,
    /// Bytes of batches and findings that wait to be written, about.
    pub queue_bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Scores written.
    pub scores: u64,
    /// Transactions committed: fewer than batches when they were grouped.
    pub transactions: u64,
    /// Batches that could not be written, repeats of a key aside.
    pub failures: u64,
    /// Findings written.
    pub findings: u64,
    /// Findings that could not be written, or for which the queue had no room.
    pub lost_findings: u64,
    /// Batches that were answered ([`Durability::Relaxed`]) and could not be written.
    pub lost_batches: u64,
    /// Batches that were answered and wait until they can be written.
    pub held_batches: u64,
}

impl Store {
    /// Opens the store, making or upgrading the database where needed; `None` when the configuration wants none.
    /// Blocks: call it at the start.
    ///
    /// # Errors
    /// A [`StoreError`] that names the database and the fix.
    pub fn open(config: &Config) -> Result<Option<Self>, StoreError> {
        let target: Target = config.url.parse()?;
        let path = match (target, config.durability) {
            (Target::None, _) | (_, Durability::Off) => return Ok(None),
            (Target::SqliteFile(path), _) => Some(path),
            (Target::SqliteMemory, _) => None,
        };
        Ok(Some(Self::of(Sqlite::open(path, config)?, config)))
    }

    /// Opens the store for reading alone, also where the database may not be written or another process writes to it; one
    /// of an older version must be upgraded, for which it is opened as by [`Self::open`]. `None` when the url names none.
    /// Blocks.
    ///
    /// # Errors
    /// A [`StoreError`] that names the database and the fix. [`Self::append`] and [`Self::keep_references`] give
    /// [`StoreError::Closed`].
    pub fn open_to_read(config: &Config) -> Result<Option<Self>, StoreError> {
        // Reading does not depend on how somebody writes.
        let config = &Config { durability: Durability::Commit, ..config.clone() };
        match config.file()?.map(|path| Sqlite::open_to_read(path, config)).transpose()?.flatten() {
            Some(sqlite) => Ok(Some(Self::of(sqlite, config))),
            None => Self::open(config),
        }
    }

    fn of(sqlite: Sqlite, config: &Config) -> Self {
        // Random, so that two servers on one database draw different ids in the same millisecond.
        let salt = RandomState::new().hash_one(std::process::id());
        let ids = BatchIds::new(sqlite.last_batch(), salt);
        let inner = Inner { database: sqlite, ids, keep_trajectories: config.keep_trajectories };
        Self { inner: Arc::new(inner) }
    }

    /// A fresh id for a batch scored at `now_ms` Unix milliseconds; larger than all before it.
    pub fn next_id(&self, now_ms: i64) -> BatchId {
        self.inner.ids.next(now_ms)
    }

    /// Whether requests are kept; when not, there is no need to pack them.
    pub fn keeps_trajectories(&self) -> bool {
        self.inner.keep_trajectories
    }

    /// Stores a batch: [`Self::queue`], and [`Queued::written`].
    ///
    /// # Errors
    /// As those.
    pub async fn append(&self, batch: Batch) -> Result<(), StoreError> {
        self.queue(batch).await?.written().await.map_err(Untold::tell)
    }

    /// Queues a batch, which is written then whether or not anybody waits for it. A full queue makes it wait: a call that is
    /// dropped meanwhile has stored nothing.
    ///
    /// # Errors
    /// [`StoreError::Batch`], and [`StoreError::Closed`].
    pub async fn queue(&self, mut batch: Batch) -> Result<Queued, StoreError> {
        batch.check()?;
        if !self.inner.keep_trajectories {
            batch.request = None;
        }
        Ok(Queued { batch: batch.id, pending: self.inner.database.append(batch).await? })
    }

    /// What was kept under a key; `None` also where the database cannot be read, which is logged. Blocks for a look-up by
    /// key, and for those before it: call it where threads may block.
    pub fn recall(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let found = self.inner.database.recall(key);
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "a finding could not be looked up; the judge is asked again");
            None
        })
    }

    /// Keeps a value under a key unless there is one. Returns at once: the value is written with the next batches, before
    /// any batch that is appended later. It is lost, with a warning, where the queue is full or the value is longer than
    /// [`MAX_FINDING_BYTES`]. Nothing is ever pruned: to forget, delete rows of the table `judge_findings`.
    pub fn remember(&self, key: &[u8; 32], value: &[u8]) {
        if value.len() > MAX_FINDING_BYTES {
            return self.inner.database.lose_finding("it is longer than what is kept");
        }
        let finding = Finding { key: *key, value: value.to_vec(), created_at_ms: now_ms() };
        self.inner.database.remember(finding);
    }

    /// One score with its result; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or why the database could not be read.
    pub async fn score(&self, id: ScoreId) -> Result<Option<StoredScore>, StoreError> {
        self.inner.database.score(id).await
    }

    /// The answer stored under an idempotency key.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or why the database could not be read.
    pub async fn idempotent(&self, key: &str) -> Result<Option<StoredAnswer>, StoreError> {
        self.inner.database.answer(key.to_owned()).await
    }

    /// Runs, the latest started first, at most `limit` (1 to [`MAX_PAGE`]) of them after `cursor`.
    ///
    /// # Errors
    /// [`StoreError::Cursor`], or why the database could not be read.
    pub async fn runs(&self, cursor: Option<&str>, limit: usize) -> Result<Page<RunSummary>, StoreError> {
        let after = cursor.map(read::RunCursor::decode).transpose()?;
        self.inner.database.runs(after, limit).await
    }

    /// A run with its mastery, overall and over the latest `window` steps that have data ([`DEFAULT_WINDOW`]).
    ///
    /// # Errors
    /// Why the database could not be read.
    pub async fn run(&self, run_id: &str, window: u32) -> Result<Option<RunDetail>, StoreError> {
        self.inner.database.run(run_id.to_owned(), window).await
    }

    /// Scores of a run that pass `filter`, in the order of their ids, at most `limit` (1 to [`MAX_PAGE`]) of them after
    /// `cursor`. An unknown run has none.
    ///
    /// # Errors
    /// [`StoreError::Cursor`], or why the database could not be read.
    pub async fn run_scores(
        &self,
        run_id: &str,
        filter: Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<StoredRow>, StoreError> {
        let after = cursor.map(read::decode_score_cursor).transpose()?;
        self.inner.database.run_scores(run_id.to_owned(), filter, after, limit).await
    }

    /// Keeps what is right for prompts; a later entry of the same prompt replaces an earlier one. Returns when they are
    /// written, whatever the durability: whoever loads them has nothing else to wait for.
    ///
    /// # Errors
    /// Why the database refused; nothing of the upload is kept then.
    pub async fn keep_references(&self, references: Vec<StoredReference>) -> Result<(), StoreError> {
        self.inner.database.keep_references(references).await
    }

    /// All that was kept for prompts. Blocks: call it at the start.
    ///
    /// # Errors
    /// Why the database could not be read.
    pub fn references(&self) -> Result<Vec<StoredReference>, StoreError> {
        self.inner.database.references()
    }

    /// The valid rewards of a run by group and step; `None` where there is no such run. Reads the scores that came
    /// since the run was last asked for, unless many other runs were asked for in between.
    ///
    /// # Errors
    /// Why the database could not be read.
    pub async fn run_visits(&self, run_id: &str) -> Result<Option<Arc<RunVisits>>, StoreError> {
        self.inner.database.run_visits(run_id.to_owned()).await
    }

    /// The requests of a run in the order of their ids, one at a time.
    pub fn replay(&self, run_id: &str) -> Replay {
        Replay { store: self.clone(), run_id: run_id.to_owned(), after: None }
    }

    /// Removes a run: its scores, requests and answers, and what was counted of it; `None` where there is none. Its room in the
    /// file is used again. What is shared between runs stays. Others may write meanwhile. Blocks, a second for some thousand
    /// batches.
    ///
    /// # Errors
    /// Why the database refused. What was removed until then has gone, and the next removal goes on.
    pub fn remove_run(&self, run_id: &str) -> Result<Option<Removed>, RemovalError> {
        self.inner.database.remove_run(run_id)
    }

    /// What becomes of batches that are appended.
    pub fn health(&self) -> Health {
        self.inner.database.health()
    }

    /// Has it tried whether the database can be written, at most once a second: [`Self::health`] tells what came of it. For a
    /// store that fails and has nothing else to write. Returns at once.
    pub fn probe(&self) {
        self.inner.database.probe();
    }

    /// What was done since the store was opened.
    pub fn counters(&self) -> Counters {
        self.inner.database.counters()
    }

    /// Writes what is queued and closes the database. Calls that come later, or still wait for room in the queue, get
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        self.inner.database.close().await;
    }
}

#[cfg(test)]
impl Store {
    /// A fresh one that is gone at the end.
    pub(crate) fn in_memory() -> Self {
        let config = Config { url: "sqlite::memory:".to_owned(), ..Config::default() };
        Self::open(&config).unwrap().unwrap()
    }
}

/// Walks the requests of a run, holding one at a time.
pub struct Replay {
    store: Store,
    run_id: String,
    after: Option<BatchId>,
}

impl Replay {
    /// The next request; `None` at the end.
    ///
    /// # Errors
    /// [`StoreError::NotKept`] or [`StoreError::Damaged`] for one batch: the next call goes on after it. Otherwise why the
    /// database could not be read: the next call tries again.
    pub async fn next(&mut self) -> Result<Option<StoredRequest>, StoreError> {
        let found = self.store.inner.database.replay(self.run_id.clone(), self.after).await?;
        let Some((batch, request)) = found else { return Ok(None) };
        self.after = Some(batch);
        request.map(Some)
    }
}
