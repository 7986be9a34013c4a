//! The queue of waiting batches and the one thread that writes them. In: batches from any task; out: each one's verdict
//! after the transaction that holds it. While one transaction syncs, the next batches gather: they share the next sync.
//! Knows no SQL.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::insert::Ledger;
use crate::store::{Batch, Counters, Durability, StoreError};

/// Most batches in one transaction: bounds how long the first one waits and how much is undone on a failure.
const GROUP_BATCHES: usize = 256;

/// Most bytes of batches in one transaction.
const GROUP_BYTES: usize = 32 << 20;

/// The queue counts its room in units of this many bytes.
const UNIT: usize = 1024;

/// The writing end of the store.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    room: Arc<Semaphore>,
    units: u32,
    durability: Durability,
    totals: Arc<Totals>,
}

/// A batch on its way, the room it takes in the queue, and who wants to know.
struct Job {
    batch: Batch,
    room: OwnedSemaphorePermit,
    done: oneshot::Sender<Result<(), StoreError>>,
}

#[derive(Default)]
struct Totals {
    batches: AtomicU64,
    scores: AtomicU64,
    transactions: AtomicU64,
    failures: AtomicU64,
}

impl Writer {
    /// Starts the thread. The queue holds about `queue_bytes`.
    pub(super) fn start(ledger: Ledger, durability: Durability, queue_bytes: usize) -> std::io::Result<Self> {
        let units = u32::try_from(queue_bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let (jobs, waiting) = mpsc::channel();
        let totals = Arc::new(Totals::default());
        let shared = Arc::clone(&totals);
        let thread = Builder::new().name("store-writer".to_owned()).spawn(move || work(ledger, &waiting, &shared))?;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(Self { jobs, thread, room: Arc::new(Semaphore::new(units as usize)), units, durability, totals })
    }

    /// Queues a batch and waits as long as the durability asks.
    pub(super) async fn append(&self, batch: Batch) -> Result<(), StoreError> {
        // A batch larger than the whole queue takes all of it.
        let units = u32::try_from(batch.weight().div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let room = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| StoreError::Closed)?;
        // A key must be known to be taken before the client hears of success, whatever the durability.
        let waits = self.durability == Durability::Commit || batch.idempotency.is_some();
        let (done, outcome) = oneshot::channel();
        lock(&self.jobs)
            .as_ref()
            .and_then(|jobs| jobs.send(Job { batch, room, done }).ok())
            .ok_or(StoreError::Closed)?;
        if waits { outcome.await.map_err(|_| StoreError::Closed)? } else { Ok(()) }
    }

    /// Whether batches are taken and written.
    pub(super) fn is_running(&self) -> bool {
        lock(&self.jobs).is_some() && lock(&self.thread).as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes no more batches and waits until the queued ones are written. Blocks.
    pub(super) fn close(&self) {
        self.room.close();
        drop(lock(&self.jobs).take());
        // Held while joining, so that a second caller also waits for the end.
        let mut thread = lock(&self.thread);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }

    /// What was written so far.
    pub(super) fn counters(&self) -> Counters {
        let free = self.room.available_permits();
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counters {
            queue_bytes: ((self.units as usize).saturating_sub(free) * UNIT) as u64,
            batches: read(&self.totals.batches),
            scores: read(&self.totals.scores),
            transactions: read(&self.totals.transactions),
            failures: read(&self.totals.failures),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The guarded values stay whole whatever a holder does, so a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread: ends when the queue is closed and empty.
fn work(mut ledger: Ledger, waiting: &mpsc::Receiver<Job>, totals: &Totals) {
    while let Ok(first) = waiting.recv() {
        let group = gather(first, waiting);
        let batches: Vec<&Batch> = group.iter().map(|job| &job.batch).collect();
        let outcomes = ledger.write(&batches);
        totals.transactions.store(ledger.commits, Ordering::Relaxed);
        for (job, outcome) in group.into_iter().zip(outcomes) {
            finish(job, outcome, totals);
        }
    }
    if let Err(error) = ledger.checkpoint() {
        tracing::warn!(%error, "the store's log stays beside the database; the next start reads it");
    }
}

/// The first batch and what else waits, up to the limits of a transaction.
fn gather(first: Job, waiting: &mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.batch.weight();
    let mut group = vec![first];
    while group.len() < GROUP_BATCHES
        && bytes < GROUP_BYTES
        && let Ok(job) = waiting.try_recv()
    {
        bytes += job.batch.weight();
        group.push(job);
    }
    group
}

/// Counts the verdict, gives the room back, and tells who waits; a failure that nobody waits for is logged.
fn finish(Job { batch, room, done }: Job, outcome: Result<(), StoreError>, totals: &Totals) {
    match &outcome {
        Ok(()) => {
            totals.batches.fetch_add(1, Ordering::Relaxed);
            totals.scores.fetch_add(batch.scores.len() as u64, Ordering::Relaxed);
        }
        Err(_) => {
            totals.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
    drop(room);
    if let Err(Err(error)) = done.send(outcome) {
        tracing::error!(batch = %batch.id, %error, "a batch was not stored");
    }
}
