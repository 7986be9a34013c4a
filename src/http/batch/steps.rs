//! How requests share the cores. In: the parts of a request and what to do with each; out: the results, in order.
//!
//! A large request goes through the cores in steps of well below a millisecond that wait for nothing. The steps of all
//! requests stand in one queue, first come first served, and a request has only a few there at a time: small requests pass
//! between the steps of large ones, and cores that are free take the next step of any. Knows nothing of scoring.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of request that one step goes through, about.
const STEP_BYTES: usize = 64 * 1024;
/// A request of at most this many steps is not worth cutting while all cores have work without it.
const WHOLE_STEPS: usize = 4;
/// Steps that one request has in the queue, per core: the cores need the next one at hand, and other requests wait for
/// those in front of them.
const QUEUED_STEPS: usize = 4;
/// Large requests under way, per core; more wait with nothing but their body. With one for each, the cores have work while
/// one of them reads its outline or writes its answer.
const LARGE_REQUESTS: usize = 1;

/// The requests that are being scored.
#[derive(Debug)]
pub struct Load {
    running: AtomicUsize,
    large: Semaphore,
}

impl Default for Load {
    fn default() -> Self {
        Self { running: AtomicUsize::new(0), large: Semaphore::new(LARGE_REQUESTS * rayon::current_num_threads()) }
    }
}

/// A request that is being scored, until it is dropped.
pub(in crate::http) struct Running<'a> {
    load: &'a Load,
    /// Held by one that is to go in steps.
    large: Option<SemaphorePermit<'a>>,
}

impl Load {
    /// Lets a request of this many bytes begin: at once if it is small, else in its turn.
    pub(in crate::http) async fn begin(&self, bytes: usize) -> Running<'_> {
        let busy = self.running.load(Ordering::Relaxed) >= rayon::current_num_threads();
        let whole = bytes <= STEP_BYTES || (busy && bytes <= WHOLE_STEPS * STEP_BYTES);
        // The semaphore is never closed: there is always a permit.
        let large = if whole { None } else { self.large.acquire().await.ok() };
        self.running.fetch_add(1, Ordering::Relaxed);
        Running { load: self, large }
    }
}

impl Running<'_> {
    /// Whether it is to go in steps, from a thread that may wait for them; else as a whole, on one of the work threads.
    pub(in crate::http) fn in_steps(&self) -> bool {
        self.large.is_some()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.load.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Cuts a row of things of these sizes in bytes into steps: consecutive ranges that cover it.
pub(super) fn cut(sizes: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut steps: Vec<Range<usize>> = Vec::new();
    let mut room = 0;
    for (at, bytes) in sizes.into_iter().enumerate() {
        match steps.last_mut() {
            Some(step) if bytes <= room => step.end = at + 1,
            _ => {
                steps.push(at..at + 1);
                room = STEP_BYTES;
            }
        }
        room = room.saturating_sub(bytes);
    }
    steps
}

/// Does every step: here and now on a work thread, since one that waits would take up other requests' work in the middle of
/// this; else on the work threads, a few steps at a time, while this thread waits.
pub(super) fn in_turns<R: Send>(steps: &[Range<usize>], work: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    if rayon::current_thread_index().is_some() {
        return steps.iter().cloned().map(work).collect();
    }
    let few = QUEUED_STEPS * rayon::current_num_threads();
    let mut done: Vec<Option<R>> = steps.iter().map(|_| None).collect();
    let (tell, told) = mpsc::channel();
    rayon::in_place_scope_fifo(|scope| {
        for (place, (step, done)) in steps.iter().zip(&mut done).enumerate() {
            if place >= few {
                // One for every step that ended: this waits for the next, and no core for the slowest.
                let _ = told.recv();
            }
            let (work, ended) = (&work, Ended(tell.clone()));
            scope.spawn_fifo(move |_| {
                let _ended = ended;
                *done = Some(work(step.clone()));
            });
        }
    });
    done.into_iter().flatten().collect()
}

/// Says that a step ended, be it in a panic.
struct Ended(mpsc::Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens once the last step is in the queue.
        let _ = self.0.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_everything_in_order() {
        assert!(cut([]).is_empty());
        assert_eq!(cut([0, 1, STEP_BYTES - 1, 1]), [0..3, 3..4]);
        assert_eq!(cut([STEP_BYTES * 9, 1, STEP_BYTES * 9]), [0..1, 1..2, 2..3]);
        let steps = cut(vec![1000; 1000]);
        assert_eq!(steps.iter().cloned().flatten().collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
        assert!(steps.iter().all(|step| step.len() <= STEP_BYTES / 1000));
    }

    #[test]
    fn results_come_in_order_from_whatever_thread() {
        let steps = cut(vec![STEP_BYTES; 100]);
        let expected: Vec<usize> = (0..100).collect();
        let work = |step: Range<usize>| (step.start, rayon::current_thread_index().is_some());
        let outside = in_turns(&steps, work);
        assert_eq!(outside.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
        assert!(outside.iter().all(|(_, on_work_thread)| *on_work_thread));
        let inside = rayon::scope(|_| in_turns(&steps, |step| (step.start, rayon::current_thread_index())));
        assert!(inside.iter().all(|(_, thread)| *thread == inside.first().and_then(|(_, thread)| *thread)));
        assert_eq!(inside.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn only_large_requests_wait_for_a_turn() {
        let load = Load::default();
        let cores = rayon::current_num_threads();
        let mut running = Vec::new();
        for _ in 0..cores {
            running.push(load.begin(STEP_BYTES + 1).await);
        }
        assert!(running.iter().all(Running::in_steps), "a core is free for each");
        assert!(!load.begin(STEP_BYTES).await.in_steps());
        assert!(!load.begin(WHOLE_STEPS * STEP_BYTES).await.in_steps(), "all cores have work");
        for _ in cores..LARGE_REQUESTS * cores {
            running.push(load.begin(usize::MAX).await);
        }
        let one_more = tokio::time::timeout(std::time::Duration::from_millis(20), load.begin(usize::MAX));
        assert!(one_more.await.is_err());
        running.pop();
        assert!(load.begin(usize::MAX).await.in_steps());
    }
}
