//! The queue of entries that wait to be written. In: batches and findings from any task; out: each batch's outcome after the
//! transaction that holds it. While one transaction syncs, the next entries gather: they share the next sync. Knows no SQL.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use super::insert::TransactionWriter;
use super::write_loop::{Job, Totals, UNIT, log_untold, run};
use crate::locks;
use crate::store::record::{Entry, Finding};
use crate::store::{Batch, BatchId, Counters, Durability, Health, StoreError, StoredReference};

/// A writer that fails tries whether it still does no more often than this.
const PROBED_EVERY: Duration = Duration::from_secs(1);

/// The writing end of the store.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// When it was to close.
    closing: Arc<OnceLock<Instant>>,
    room: Arc<Semaphore>,
    units: u32,
    durability: Durability,
    totals: Arc<Totals>,
    /// When a probe was asked for.
    probed: Mutex<Option<Instant>>,
}

/// The end that waits for an entry's outcome. Where that came and was not heard, since nobody waits or whoever waited gave
/// up, a failure is logged; one that comes later is logged by whoever sends it.
pub(in crate::store) struct PendingWrite {
    /// Nothing for references.
    batch: Option<BatchId>,
    outcome: oneshot::Receiver<Result<(), StoreError>>,
}

impl PendingWrite {
    pub(in crate::store) async fn wait(&mut self) -> Result<(), StoreError> {
        (&mut self.outcome).await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        self.outcome.close();
        if let Ok(Err(error)) = self.outcome.try_recv() {
            log_untold(self.batch, &error);
        }
    }
}

impl Writer {
    /// Starts the thread. The queue holds about `queue_bytes`.
    pub(super) fn start(
        transactions: TransactionWriter,
        durability: Durability,
        queue_bytes: usize,
    ) -> std::io::Result<Self> {
        let units = u32::try_from(queue_bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let (jobs, waiting) = mpsc::channel();
        let totals = Arc::new(Totals::default());
        let closing = Arc::new(OnceLock::new());
        let (counted, asked) = (Arc::clone(&totals), Arc::clone(&closing));
        let thread = Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || run(transactions, &waiting, &asked, &counted))?;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(Self {
            jobs,
            thread,
            closing,
            room: Arc::new(Semaphore::new(units as usize)),
            units,
            durability,
            totals,
            probed: Mutex::default(),
        })
    }

    /// The writing end of a store that is only read: it takes nothing.
    pub(super) fn none() -> Self {
        let room = Semaphore::new(0);
        room.close();
        Self {
            jobs: Mutex::default(),
            thread: Mutex::default(),
            closing: Arc::default(),
            room: Arc::new(room),
            units: 0,
            durability: Durability::Off,
            totals: Arc::default(),
            probed: Mutex::default(),
        }
    }

    /// Queues a batch; gives what waits for its outcome, where the durability asks for that.
    pub(super) async fn append(&self, batch: Batch) -> Result<Option<PendingWrite>, StoreError> {
        // A key must be known to be taken before the client hears of success, whatever the durability.
        let waits = self.durability == Durability::Commit || batch.idempotency.is_some();
        let pending = self.queue(Some(batch.id), Entry::Batch(Box::new(batch)), !waits).await?;
        Ok(waits.then_some(pending))
    }

    /// Queues references and waits until they are written.
    pub(super) async fn keep(&self, references: Vec<StoredReference>) -> Result<(), StoreError> {
        self.queue(None, Entry::References(references), false).await?.wait().await
    }

    /// Queues an entry as soon as there is room.
    async fn queue(&self, batch: Option<BatchId>, entry: Entry, promised: bool) -> Result<PendingWrite, StoreError> {
        let room = Arc::clone(&self.room).acquire_many_owned(self.units_of(&entry)).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (done, outcome) = oneshot::channel();
        let pending = PendingWrite { batch, outcome };
        self.send(Job { entry, promised, room, done: Some(done) })?;
        Ok(pending)
    }

    /// Queues a finding if there is room at once, and loses it otherwise.
    pub(super) fn remember(&self, finding: Finding) {
        let entry = Entry::Finding(finding);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(self.units_of(&entry)) else {
            return self.lose_finding("the store's queue is full or closed");
        };
        if self.send(Job { entry, promised: true, room, done: None }).is_err() {
            self.lose_finding("the store is closed");
        }
    }

    /// Counts a finding that cannot be kept.
    pub(super) fn lose_finding(&self, why: &str) {
        self.totals.lost(why);
    }

    /// The room that an entry takes. One larger than the whole queue takes all of it.
    fn units_of(&self, entry: &Entry) -> u32 {
        u32::try_from(entry.weight().div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        locks::lock(&self.jobs).as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(StoreError::Closed)
    }

    /// What becomes of batches.
    pub(super) fn health(&self) -> Health {
        let runs = locks::lock(&self.jobs).is_some()
            && locks::lock(&self.thread).as_ref().is_some_and(|thread| !thread.is_finished());
        match (runs, self.totals.failing.load(Ordering::Relaxed)) {
            (false, _) => Health::Closed,
            (true, true) => Health::Failing,
            (true, false) => Health::Writing,
        }
    }

    /// Has it tried whether anything can be written, where that was not asked for just now.
    pub(super) fn probe(&self) {
        let mut probed = locks::lock(&self.probed);
        if probed.is_some_and(|at| at.elapsed() < PROBED_EVERY) {
            return;
        }
        *probed = Some(Instant::now());
        let entry = Entry::Probe;
        // A queue that is full has what will tell the same.
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(self.units_of(&entry)) {
            let _ = self.send(Job { entry, promised: false, room, done: None });
        }
    }

    /// Takes nothing more and waits until what is queued is written, or cannot be for too long. Blocks.
    pub(super) fn close(&self) {
        self.closing.get_or_init(Instant::now);
        self.room.close();
        drop(locks::lock(&self.jobs).take());
        // Held while joining, so that a second caller also waits for the end.
        let mut thread = locks::lock(&self.thread);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }

    /// What was written so far.
    pub(super) fn counters(&self) -> Counters {
        let queued = (self.units as usize).saturating_sub(self.room.available_permits());
        Counters { queue_bytes: (queued * UNIT) as u64, ..*self.totals.counters() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BatchIds;

    /// What is logged on this thread meanwhile.
    fn logged(work: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let log = tracing_subscriber::fmt().with_writer(move || Lines(Arc::clone(&sink))).finish();
        tracing::subscriber::with_default(log, work);
        String::from_utf8(locks::lock(&lines).clone()).unwrap()
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locks::lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The outcome may come before or after whoever does not wait for it has gone.
    #[test]
    fn a_failure_that_nobody_hears_is_logged_once() {
        let id = BatchIds::new(None, 0).next(1);
        let failed = || Err(StoreError::Duplicate { batch: id });
        let pending = || {
            let (done, outcome) = oneshot::channel();
            (done, PendingWrite { batch: Some(id), outcome })
        };
        let early = logged(|| {
            let (done, pending) = pending();
            done.send(failed()).unwrap();
            drop(pending);
        });
        assert!(early.contains(&id.to_string()) && early.contains("a batch was not stored"), "{early}");
        let (done, gone) = pending();
        drop(gone);
        assert_eq!(done.send(failed()), Err(failed()), "the sender is given it back, and logs it");
        let heard = logged(|| {
            let (done, mut pending) = pending();
            done.send(failed()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert_eq!(runtime.block_on(pending.wait()), failed());
        });
        assert_eq!(heard, "");
    }
}
