//! The one thread that writes, and what it works with. In: queued entries; out: what came of each, after the transaction that
//! holds it. What was promised and cannot be written yet is held, and tried again. Knows no SQL, and not how entries queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::insert::TransactionWriter;
use crate::locks;
use crate::store::record::Entry;
use crate::store::{BatchId, Counters, StoreError};

/// Most entries in one transaction: bounds how long the first one waits and how much is undone on a failure.
const GROUP_ENTRIES: usize = 256;

/// Most bytes of entries in one transaction.
const GROUP_BYTES: usize = 32 << 20;

/// How long the first retry of a batch that was promised waits, and the longest that any does.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long what fails is tried again once the store is to close. What can be written is written however long that takes.
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
    /// Without what is there now: the file, and the queue.
    counters: Mutex<Counters>,
    /// Whether the last that somebody waited for could not be written, or the file was not there, and nothing was since.
    pub(super) failing: AtomicBool,
}

impl Totals {
    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        locks::lock(&self.counters)
    }

    /// Counts a finding that was not written. Says so the first time, the second, the fourth: a queue that is full stays
    /// so for a while.
    pub(super) fn lost(&self, why: &str) {
        let lost = {
            let mut counters = self.counters();
            counters.lost_findings += 1;
            counters.lost_findings
        };
        if lost.is_power_of_two() {
            tracing::warn!(lost, why, "a judge's finding was not kept; the judge is asked again when it is needed");
        }
    }
}

/// The thread: ends when the queue is closed, and nothing is held. `closing` is when it was asked to, before the queue is
/// closed.
pub(super) fn run(
    transactions: TransactionWriter,
    waiting: &mpsc::Receiver<Job>,
    closing: &OnceLock<Instant>,
    totals: &Totals,
) {
    let mut write_loop = WriteLoop {
        transactions,
        totals,
        closing,
        held: VecDeque::new(),
        warned: false,
        next_try: Instant::now(),
        pause: RETRY.0,
    };
    loop {
        let moved = match write_loop.next(waiting) {
            Ok(first) => {
                let mut first = Some(first);
                write_loop.write(gather(|| first.take().or_else(|| waiting.try_recv().ok())))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => write_loop.try_again(),
            Err(mpsc::RecvTimeoutError::Disconnected) if write_loop.held.is_empty() => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let pause = write_loop.next_try.saturating_duration_since(Instant::now());
                std::thread::sleep(pause.min(write_loop.time_left().unwrap_or_default()));
                write_loop.try_again()
            }
        };
        if !moved && write_loop.time_left() == Some(Duration::ZERO) {
            write_loop.give_up(waiting);
        }
    }
    // Where others keep the database, the end is due when it is.
    write_loop.transactions.wait_at_most(write_loop.time_left().unwrap_or(LAST_TRIES));
    if let Err(error) = write_loop.transactions.checkpoint() {
        match error {
            StoreError::Moved { .. } => {
                tracing::warn!(%error, "the log of a database that is not there stays beside its path; remove it before the next start, which would take it for the log of what is there");
            }
            error => tracing::warn!(%error, "the store's log stays beside the database; the next start reads it"),
        }
    }
}

/// What the thread works with.
struct WriteLoop<'t> {
    transactions: TransactionWriter,
    totals: &'t Totals,
    closing: &'t OnceLock<Instant>,
    /// What was promised and could not be written yet. It keeps its room in the queue.
    held: VecDeque<Job>,
    /// Whether it was said that something waits.
    warned: bool,
    next_try: Instant,
    pause: Duration,
}

impl WriteLoop<'_> {
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

    /// How long what fails is tried again; nothing before the store is to close.
    fn time_left(&self) -> Option<Duration> {
        self.closing.get().map(|asked| LAST_TRIES.saturating_sub(asked.elapsed()))
    }

    /// Writes a group, and holds what was promised and may be written later: answered batches, and findings, which judges
    /// are not asked for again while they are remembered. Gives whether anything came of it: false where each entry failed
    /// for a reason that may pass.
    fn write(&mut self, group: Vec<Job>) -> bool {
        let entries: Vec<&Entry> = group.iter().map(|job| &job.entry).collect();
        let commits = self.transactions.commits;
        let outcomes = self.write_entries(&entries);
        let upgraded = outcomes.iter().any(|outcome| matches!(outcome, Err(StoreError::Newer { .. })));
        if self.transactions.commits > commits {
            self.totals.failing.store(false, Ordering::Relaxed);
        } else if self.transactions.is_moved() || upgraded || group.iter().any(|job| !job.promised) {
            // What waits for a file that does not come back is lost when the process ends, and what a newer program's database does
            // not take at once: that is nothing to keep silent about.
            self.totals.failing.store(true, Ordering::Relaxed);
        }
        let moved = !outcomes.iter().all(|outcome| matches!(outcome, Err(error) if error.may_pass()));
        self.totals.counters().transactions = self.transactions.commits;
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
        self.transactions.copy_log_if_long();
        moved
    }

    /// Waits for another process for as long as the store was set up to, a while at a time: the end must not be kept waiting by
    /// what began to wait before it was asked for.
    fn write_entries(&mut self, entries: &[&Entry]) -> Vec<Result<(), StoreError>> {
        let mut left_to_wait = self.transactions.set_up_to_wait();
        let mut waited = Duration::ZERO;
        loop {
            // Where others keep the database, until the end; where it was free before, for as long as ever, also after that.
            let until_the_end = self.time_left().filter(|left| self.warned && !left.is_zero());
            let wait = until_the_end.unwrap_or(LAST_TRIES).min(left_to_wait);
            self.transactions.wait_at_most(wait);
            let mut outcomes = self.transactions.write(entries);
            let locked = outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Locked { .. })));
            left_to_wait = left_to_wait.saturating_sub(wait);
            if locked && !left_to_wait.is_zero() && self.closing.get().is_none() {
                waited += wait;
                continue;
            }
            for outcome in &mut outcomes {
                if let Err(StoreError::Locked { waited_ms, .. }) = outcome {
                    *waited_ms += u64::try_from(waited.as_millis()).unwrap_or(0);
                }
            }
            return outcomes;
        }
    }

    /// Tries a group of what is held.
    fn try_again(&mut self) -> bool {
        let group = gather(|| self.held.pop_front());
        let (tried, left) = (group.len(), self.held.len());
        let moved = self.write(group);
        let failed = self.held.len().saturating_sub(left);
        self.pause = if failed < tried { RETRY.0 } else { self.pause.saturating_mul(2).min(RETRY.1) };
        self.next_try = Instant::now() + if failed < tried { Duration::ZERO } else { self.pause };
        if self.held.is_empty() {
            self.warned = false;
            tracing::info!("all that waited is stored");
        }
        moved
    }

    /// Loses what is held and what is queued.
    fn give_up(&mut self, waiting: &mpsc::Receiver<Job>) {
        for job in std::mem::take(&mut self.held).into_iter().chain(waiting.try_iter()) {
            finish(job, Err(StoreError::Closed), self.totals);
        }
        self.count_held();
        self.transactions.wait_at_most(Duration::ZERO);
    }

    fn count_held(&self) {
        let batches = self.held.iter().filter(|job| matches!(job.entry, Entry::Batch(_))).count();
        self.totals.counters().held_batches = batches as u64;
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

/// Counts the outcome, gives the room back, and tells who waits; a failure that nobody waits for is logged.
fn finish(Job { entry, promised, room, done }: Job, outcome: Result<(), StoreError>, totals: &Totals) {
    match (&entry, &outcome) {
        (Entry::Batch(batch), Ok(())) => {
            let mut counters = totals.counters();
            counters.batches += 1;
            counters.scores += batch.scores.len() as u64;
        }
        // A batch is then the repeat that its key says it is, which whoever sent it expects: nothing failed.
        (Entry::Batch(_), Err(StoreError::IdempotencyTaken { .. })) | (Entry::References(_) | Entry::Probe, _) => {}
        (Entry::Batch(_), Err(_)) => {
            let mut counters = totals.counters();
            counters.failures += 1;
            counters.lost_batches += u64::from(promised);
        }
        (Entry::Finding(_), Ok(())) => totals.counters().findings += 1,
        (Entry::Finding(_), Err(error)) => totals.lost(&error.to_string()),
    }
    drop(room);
    if let Some(Err(Err(error))) = done.map(|done| done.send(outcome)) {
        let batch = if let Entry::Batch(batch) = &entry { Some(batch.id) } else { None };
        log_untold(batch, &error);
    }
}

/// Says what nobody waits to be told; that a repeat is one needs no telling.
pub(in crate::store) fn log_untold(batch: Option<BatchId>, error: &StoreError) {
    if matches!(error, StoreError::IdempotencyTaken { .. }) {
        return;
    }
    if let Some(batch) = batch {
        tracing::error!(%batch, %error, "a batch was not stored");
    } else {
        tracing::error!(%error, "references by prompt were not stored");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rusqlite::Connection;
    use tokio::sync::Semaphore;

    use super::super::connection::Place;
    use super::super::schema;
    use super::*;
    use crate::store::record::Finding;
    use crate::store::{Batch, BatchIds, Durability};

    /// More than one transaction takes.
    const QUEUED: usize = GROUP_ENTRIES * 3 + 1;

    fn transactions(place: &Place, busy_timeout_ms: u64) -> TransactionWriter {
        let mut connection = place.writer(busy_timeout_ms).unwrap();
        Place::configure(&connection, Durability::Relaxed).unwrap();
        schema::migrate(&mut connection, place).unwrap();
        TransactionWriter::new(connection, place.clone(), busy_timeout_ms)
    }

    /// Works on a queue of promised batches and a finding that was to be closed long ago.
    /// What came of it, and whether the store says that it fails.
    fn work_late(transactions: TransactionWriter) -> (Counters, bool) {
        let (queue, waiting) = mpsc::channel();
        let ids = BatchIds::new(None, 0);
        let batches = (0..QUEUED).map(|_| Entry::Batch(Box::new(Batch::empty(ids.next(1)))));
        let finding = Entry::Finding(Finding { key: [1; 32], value: vec![7], created_at_ms: 1 });
        for entry in batches.chain([finding]) {
            let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            assert!(queue.send(Job { entry, promised: true, room, done: None }).is_ok());
        }
        drop(queue);
        let closing = OnceLock::from(Instant::now().checked_sub(LAST_TRIES * 2).unwrap());
        let totals = Totals::default();
        run(transactions, &waiting, &closing, &totals);
        let counters = *totals.counters();
        (counters, totals.failing.into_inner())
    }

    #[test]
    fn a_transaction_takes_as_many_entries_as_fill_it_and_no_more() {
        let waiting = |entries: usize, bytes: usize| {
            let units = u32::try_from(bytes / UNIT).unwrap();
            let job = || Job {
                entry: Entry::Finding(Finding { key: [1; 32], value: Vec::new(), created_at_ms: 1 }),
                promised: true,
                room: Arc::new(Semaphore::new(units as usize)).try_acquire_many_owned(units).unwrap(),
                done: None,
            };
            let mut jobs: VecDeque<Job> = (0..entries).map(|_| job()).collect();
            (gather(|| jobs.pop_front()).len(), jobs.len())
        };
        assert_eq!(waiting(QUEUED, UNIT), (GROUP_ENTRIES, QUEUED - GROUP_ENTRIES));
        assert_eq!(waiting(5, GROUP_BYTES / 3 * 2), (2, 3));
        assert_eq!(waiting(2, GROUP_BYTES), (1, 1));
    }

    #[test]
    fn what_can_be_written_is_written_however_late_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("gradus.db"));
        let (counted, _) = work_late(transactions(&place, 1000));
        assert_eq!((counted.batches, counted.lost_batches), (QUEUED as u64, 0));
        assert_eq!((counted.findings, counted.lost_findings), (1, 0));
    }

    #[test]
    fn what_was_promised_to_a_database_that_is_newer_by_now_is_not_lost_in_silence() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("gradus.db"));
        let transactions = transactions(&place, 500);
        Connection::open(place.path()).unwrap().execute_batch("PRAGMA user_version = 999").unwrap();
        let (counted, is_failing) = work_late(transactions);
        assert_eq!((counted.batches, counted.lost_batches, is_failing), (0, QUEUED as u64, true));
    }

    #[test]
    fn what_others_keep_from_being_written_is_given_up_at_once_when_it_is_late() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("gradus.db"));
        let transactions = transactions(&place, 500);
        let other = Connection::open(place.path()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = Instant::now();
        let (counted, _) = work_late(transactions);
        // One try, not one for each group.
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
        assert_eq!((counted.batches, counted.lost_batches), (0, QUEUED as u64));
        assert_eq!((counted.findings, counted.lost_findings, counted.held_batches), (0, 1, 0));
    }
}
