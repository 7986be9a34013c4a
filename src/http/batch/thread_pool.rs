//! The threads for large requests, at most as many as cores. In: jobs; out: each done, on one of them. Knows nothing of
//! requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak, mpsc};
use std::{fmt, thread};

use crate::locks;

/// What a thread is to do; it must not panic.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Threads that start when they are first needed, and end with the pool. Whoever has rested least gets the next job: each
/// keeps memory of what it did last, and what nobody needs should stay untouched.
#[derive(Debug, Default)]
pub(super) struct ThreadPool(Mutex<State>);

#[derive(Default)]
struct State {
    /// Jobs that no thread has taken, the oldest first.
    jobs: VecDeque<Job>,
    /// Threads without a job, the last one that had one last.
    resting: Vec<mpsc::Sender<Job>>,
    threads: usize,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jobs, resting, threads } = self;
        f.debug_struct("State")
            .field("jobs", &jobs.len())
            .field("resting", &resting.len())
            .field("threads", threads)
            .finish()
    }
}

impl ThreadPool {
    /// Does a job as soon as a thread has none.
    pub(super) fn start(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        if let Some(thread) = state.resting.pop() {
            // It waits for nothing else, and does not end before the pool.
            let _ = thread.send(job);
            return;
        }
        state.jobs.push_back(job);
        if state.threads < rayon::current_num_threads() {
            let pool = Arc::downgrade(self);
            let name = format!("large-{}", state.threads);
            match thread::Builder::new().name(name).spawn(move || work(&pool)) {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    tracing::warn!("a thread for large requests could not be started: {error}");
                    if state.threads == 0 {
                        // Later than the small requests, but done.
                        state.jobs.drain(..).for_each(rayon::spawn);
                    }
                }
            }
        }
    }

    /// The next job, or where it will come from.
    fn next(&self) -> Result<Job, mpsc::Receiver<Job>> {
        let mut state = self.lock();
        state.jobs.pop_front().ok_or_else(|| {
            let (give, take) = mpsc::channel();
            state.resting.push(give);
            take
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locks::lock(&self.0)
    }
}

fn work(pool: &Weak<ThreadPool>) {
    give_way();
    while let Some(next) = pool.upgrade().map(|pool| pool.next()) {
        match next.or_else(|later| later.recv()) {
            Ok(job) => job(),
            // The pool is gone.
            Err(mpsc::RecvError) => return,
        }
    }
}

/// Lowers this thread's priority: a core that a small request or a connection asks for is theirs at once, not after the
/// system's next look. Where it is refused, they wait some milliseconds longer.
#[cfg(target_os = "linux")]
fn give_way() {
    // Among equals a thread keeps its core for as long as it takes; with more, a busy machine would hardly get to it.
    const STEPS: i32 = 5;
    if let Err(error) = rustix::process::nice(STEPS) {
        tracing::debug!("the priority of a thread for large requests stays as it is: {error}");
    }
}

/// Elsewhere priorities belong to whole processes.
#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_job_after_the_other_needs_one_thread() {
        let pool = Arc::new(ThreadPool::default());
        let (done, names) = mpsc::channel();
        let mut seen = Vec::new();
        for _ in 0..20 {
            let done = done.clone();
            pool.start(Box::new(move || done.send(thread::current().name().map(str::to_owned)).unwrap()));
            seen.push(names.recv().unwrap());
            while pool.lock().resting.is_empty() {
                thread::yield_now();
            }
        }
        assert_eq!((seen[0].as_deref(), pool.lock().threads), (Some("large-0"), 1));
        seen.dedup();
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn threads_end_with_the_crew_and_what_was_begun_is_done() {
        thread_local! {
            /// Dropped when the thread ends.
            static ALIVE: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) };
        }
        let pool = Arc::new(ThreadPool::default());
        let (done, ends) = mpsc::channel();
        let (alive, threads) = mpsc::channel();
        for job in 0..3 * rayon::current_num_threads() {
            let (done, alive) = (done.clone(), alive.clone());
            pool.start(Box::new(move || {
                ALIVE.set(Some(alive));
                done.send(job).unwrap();
            }));
        }
        drop((done, alive));
        let mut jobs: Vec<usize> = ends.iter().collect();
        jobs.sort_unstable();
        assert_eq!(jobs, (0..3 * rayon::current_num_threads()).collect::<Vec<_>>());
        assert_eq!(threads.try_recv(), Err(mpsc::TryRecvError::Empty), "they rest");
        drop(pool);
        assert_eq!(threads.recv_timeout(Duration::from_secs(30)), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
