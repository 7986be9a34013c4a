//! The queue of waiting entries and the one thread that writes them. In: batches and findings from any task; out: each
//! batch's verdict after the transaction that holds it. While one transaction syncs, the next entries gather: they share
//! the next sync. Knows no SQL.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::insert::Ledger;
use crate::store::record::{Entry, Finding};
use crate::store::{Batch, BatchId, Counters, Durability, StoreError, StoredReference};

/// Most entries in one transaction: bounds how long the first one waits and how much is undone on a failure.
const GROUP_ENTRIES: usize = 256;

/// Most bytes of entries in one transaction.
const GROUP_BYTES: usize = 32 << 20;

/// How long the first retry of a batch that was promised waits, and the longest that any does.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long promised batches are tried again once the store is to close.
const LAST_TRIES: Duration = Duration::from_secs(10);

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

/// An entry on its way, the room it takes in the queue, and who wants to know: nobody, of a finding.
struct Job {
    entry: Entry,
    /// Whether nobody who could repeat it waits: what may pass is no reason to lose it.
    promised: bool,
    room: OwnedSemaphorePermit,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Job {
    /// About the memory that its entry takes: of one larger than the queue, what the queue is.
    fn bytes(&self) -> usize {
        self.room.num_permits() * UNIT
    }
}

/// The end that waits for an entry's outcome. Where that came and was not heard, since nobody waits or whoever waited gave
/// up, a failure is logged; one that comes later is logged by whoever sends it.
struct Verdict {
    /// Nothing for references.
    batch: Option<BatchId>,
    outcome: oneshot::Receiver<Result<(), StoreError>>,
}

impl Verdict {
    async fn wait(&mut self) -> Result<(), StoreError> {
        (&mut self.outcome).await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.outcome.close();
        if let Ok(Err(error)) = self.outcome.try_recv() {
            log_untold(self.batch, &error);
        }
    }
}

/// Says what nobody waits to be told.
fn log_untold(batch: Option<BatchId>, error: &StoreError) {
    if let Some(batch) = batch {
        tracing::error!(%batch, %error, "a batch was not stored");
    } else {
        tracing::error!(%error, "references by prompt were not stored");
    }
}

#[derive(Default)]
struct Totals {
    batches: AtomicU64,
    scores: AtomicU64,
    transactions: AtomicU64,
    failures: AtomicU64,
    findings: AtomicU64,
    lost_findings: AtomicU64,
    lost_batches: AtomicU64,
    held_batches: AtomicU64,
}

impl Totals {
    /// Counts a finding that was not written. Says so the first time, the second, the fourth: a queue that is full stays
    /// so for a while.
    fn lost(&self, why: &str) {
        let lost = self.lost_findings.fetch_add(1, Ordering::Relaxed) + 1;
        if lost.is_power_of_two() {
            tracing::warn!(lost, why, "a judge's finding was not kept; the judge is asked again when it is needed");
        }
    }
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

    /// The writing end of a store that is only read: it takes nothing.
    pub(super) fn none() -> Self {
        let room = Semaphore::new(0);
        room.close();
        Self {
            jobs: Mutex::default(),
            thread: Mutex::default(),
            room: Arc::new(room),
            units: 0,
            durability: Durability::Off,
            totals: Arc::default(),
        }
    }

    /// Queues a batch and waits as long as the durability asks.
    pub(super) async fn append(&self, batch: Batch) -> Result<(), StoreError> {
        // A key must be known to be taken before the client hears of success, whatever the durability.
        let waits = self.durability == Durability::Commit || batch.idempotency.is_some();
        let mut verdict = self.queue(Some(batch.id), Entry::Batch(Box::new(batch)), !waits).await?;
        if waits { verdict.wait().await } else { Ok(()) }
    }

    /// Queues references and waits until they are written.
    pub(super) async fn keep(&self, references: Vec<StoredReference>) -> Result<(), StoreError> {
        self.queue(None, Entry::References(references), false).await?.wait().await
    }

    /// Queues an entry as soon as there is room.
    async fn queue(&self, batch: Option<BatchId>, entry: Entry, promised: bool) -> Result<Verdict, StoreError> {
        let room = Arc::clone(&self.room).acquire_many_owned(self.units_of(&entry)).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (done, outcome) = oneshot::channel();
        let verdict = Verdict { batch, outcome };
        self.send(Job { entry, promised, room, done: Some(done) })?;
        Ok(verdict)
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
        lock(&self.jobs).as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(StoreError::Closed)
    }

    /// Whether batches are taken and written.
    pub(super) fn is_running(&self) -> bool {
        lock(&self.jobs).is_some() && lock(&self.thread).as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes nothing more and waits until what is queued is written. Blocks.
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
            findings: read(&self.totals.findings),
            lost_findings: read(&self.totals.lost_findings),
            lost_batches: read(&self.totals.lost_batches),
            held_batches: read(&self.totals.held_batches),
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

/// The thread: ends when the queue is closed, and nothing is held.
fn work(ledger: Ledger, waiting: &mpsc::Receiver<Job>, totals: &Totals) {
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
        String::from_utf8(lock(&lines).clone()).unwrap()
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
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
        let verdict = || {
            let (done, outcome) = oneshot::channel();
            (done, Verdict { batch: Some(id), outcome })
        };
        let early = logged(|| {
            let (done, verdict) = verdict();
            done.send(failed()).unwrap();
            drop(verdict);
        });
        assert!(early.contains(&id.to_string()) && early.contains("a batch was not stored"), "{early}");
        let (done, gone) = verdict();
        drop(gone);
        assert_eq!(done.send(failed()), Err(failed()), "the sender is given it back, and logs it");
        let heard = logged(|| {
            let (done, mut verdict) = verdict();
            done.send(failed()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert_eq!(runtime.block_on(verdict.wait()), failed());
        });
        assert_eq!(heard, "");
    }
}
