//! The one thread that writes, and what it works with. In: queued entries; out: what came of each, after the transaction that
//! holds it. What was promised and cannot be written yet is held, and tried again. Knows no SQL, and not how entries queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::insert::Ledger;
use crate::store::record::Entry;
use crate::store::{BatchId, StoreError};

/// Most entries in one transaction: bounds how long the first one waits and how much is undone on a failure.
const GROUP_ENTRIES: usize = 256;

/// Most bytes of entries in one transaction.
const GROUP_BYTES: usize = 32 << 20;

/// How long the first retry of a batch that was promised waits, and the longest that any does.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long promised batches are tried again once the store is to close.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// The queue counts its room in units of this many bytes.
pub(super) const UNIT: usize = 1024;

/// An entry on its way, the room it takes in the queue, and who wants to know: nobody, of a finding.
pub(super) struct Job {
    pub(super) entry: Entry,
    /// Whether nobody who could repeat it waits: what may pass is no reason to lose it.
    pub(super) promised: bool,
    pub(super) room: OwnedSemaphorePermit,
    pub(super) done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Job {
    /// About the memory that its entry takes: of one larger than the queue, what the queue is.
    fn bytes(&self) -> usize {
        self.room.num_permits() * UNIT
    }
}

/// What came of all entries so far.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) batches: AtomicU64,
    pub(super) scores: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) findings: AtomicU64,
    pub(super) lost_findings: AtomicU64,
    pub(super) lost_batches: AtomicU64,
    pub(super) held_batches: AtomicU64,
}

impl Totals {
    /// Counts a finding that was not written. Says so the first time, the second, the fourth: a queue that is full stays
    /// so for a while.
    pub(super) fn lost(&self, why: &str) {
        let lost = self.lost_findings.fetch_add(1, Ordering::Relaxed) + 1;
        if lost.is_power_of_two() {
            tracing::warn!(lost, why, "a judge's finding was not kept; the judge is asked again when it is needed");
        }
    }
}

/// The thread: ends when the queue is closed, and nothing is held.
pub(super) fn work(ledger: Ledger, waiting: &mpsc::Receiver<Job>, totals: &Totals) {
    let mut desk =
        Desk { ledger, totals, held: VecDeque::new(), warned: false, next_try: Instant::now(), pause: RETRY.0 };
    let mut closed_since = None;
    loop {
        match desk.next(waiting) {
            Ok(first) => {
                let mut first = Some(first);
                desk.write(gather(|| first.take().or_else(|| waiting.try_recv().ok())));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => desk.try_again(),
            Err(mpsc::RecvTimeoutError::Disconnected) if desk.held.is_empty() => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                if closed_since.get_or_insert_with(Instant::now).elapsed() > LAST_TRIES {
                    desk.give_up();
                } else {
                    std::thread::sleep(desk.next_try.saturating_duration_since(Instant::now()));
                    desk.try_again();
                }
            }
        }
    }
    if let Err(error) = desk.ledger.checkpoint() {
        tracing::warn!(%error, "the store's log stays beside the database; the next start reads it");
    }
}

/// What the thread works with.
struct Desk<'t> {
    ledger: Ledger,
    totals: &'t Totals,
    /// What was promised and could not be written yet. It keeps its room in the queue.
    held: VecDeque<Job>,
    /// Whether it was said that something waits.
    warned: bool,
    next_try: Instant,
    pause: Duration,
}

impl Desk<'_> {
    /// The next job. Gives up waiting when what is held is to be tried again, which comes before any job: jobs may never
    /// cease to come.
    fn next(&self, waiting: &mpsc::Receiver<Job>) -> Result<Job, mpsc::RecvTimeoutError> {
        if self.held.is_empty() {
            return waiting.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected);
        }
        match self.next_try.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(mpsc::RecvTimeoutError::Timeout),
            pause => waiting.recv_timeout(pause),
        }
    }

    /// Writes a group, and holds what was promised and may be written later: answered batches, and findings, which judges
    /// are not asked for again while they are remembered.
    fn write(&mut self, group: Vec<Job>) {
        let entries: Vec<&Entry> = group.iter().map(|job| &job.entry).collect();
        let outcomes = self.ledger.write(&entries);
        self.totals.transactions.store(self.ledger.commits, Ordering::Relaxed);
        let mut told = Vec::with_capacity(group.len());
        for (job, outcome) in group.into_iter().zip(outcomes) {
            match outcome {
                Err(error) if job.promised && error.may_pass() => {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(%error, "what was answered already waits until it can be stored");
                    }
                    if self.held.is_empty() {
                        self.next_try = Instant::now() + self.pause;
                    }
                    self.held.push_back(job);
                }
                outcome => told.push((job, outcome)),
            }
        }
        // Before anybody hears of this group: what is counted then includes it.
        self.count_held();
        for (job, outcome) in told {
            finish(job, outcome, self.totals);
        }
        self.ledger.tidy();
    }

    /// Tries a group of what is held.
    fn try_again(&mut self) {
        let group = gather(|| self.held.pop_front());
        let (tried, left) = (group.len(), self.held.len());
        self.write(group);
        let failed = self.held.len().saturating_sub(left);
        self.pause = if failed < tried { RETRY.0 } else { self.pause.saturating_mul(2).min(RETRY.1) };
        self.next_try = Instant::now() + if failed < tried { Duration::ZERO } else { self.pause };
        if self.held.is_empty() {
            self.warned = false;
            tracing::info!("all that waited is stored");
        }
    }

    /// Loses what is held.
    fn give_up(&mut self) {
        for job in std::mem::take(&mut self.held) {
            finish(job, Err(StoreError::Closed), self.totals);
        }
        self.count_held();
    }

    fn count_held(&self) {
        let batches = self.held.iter().filter(|job| matches!(job.entry, Entry::Batch(_))).count();
        self.totals.held_batches.store(batches as u64, Ordering::Relaxed);
    }
}

/// What there is, up to the limits of a transaction.
fn gather(mut next: impl FnMut() -> Option<Job>) -> Vec<Job> {
    let (mut bytes, mut group) = (0, Vec::new());
    while group.len() < GROUP_ENTRIES
        && bytes < GROUP_BYTES
        && let Some(job) = next()
    {
        bytes += job.bytes();
        group.push(job);
    }
    group
}

/// Counts the verdict, gives the room back, and tells who waits; a failure that nobody waits for is logged.
fn finish(Job { entry, promised, room, done }: Job, outcome: Result<(), StoreError>, totals: &Totals) {
    let add = |total: &AtomicU64, n: usize| total.fetch_add(n as u64, Ordering::Relaxed);
    match (&entry, &outcome) {
        (Entry::Batch(batch), Ok(())) => {
            add(&totals.batches, 1);
            add(&totals.scores, batch.scores.len());
        }
        (Entry::Batch(_), Err(_)) => {
            add(&totals.failures, 1);
            add(&totals.lost_batches, usize::from(promised));
        }
        (Entry::Finding(_), Ok(())) => _ = add(&totals.findings, 1),
        (Entry::Finding(_), Err(error)) => totals.lost(&error.to_string()),
        (Entry::References(_), _) => {}
    }
    drop(room);
    if let Some(Err(Err(error))) = done.map(|done| done.send(outcome)) {
        let batch = if let Entry::Batch(batch) = &entry { Some(batch.id) } else { None };
        log_untold(batch, &error);
    }
}

/// Says what nobody waits to be told.
pub(super) fn log_untold(batch: Option<BatchId>, error: &StoreError) {
    if let Some(batch) = batch {
        tracing::error!(%batch, %error, "a batch was not stored");
    } else {
        tracing::error!(%error, "references by prompt were not stored");
    }
}
