//! How requests share the cores. In: the work on a request, and the parts of a large one; out: the results, in order.
//!
//! A small request is scored as a whole on one of rayon's threads. Large ones have threads of their own, one per core: the
//! system gives both kinds their share, so that small ones need not wait for large ones to end, and what a core has read of
//! a request is in its cache still when it scores it. Cores that nobody needs take steps of large requests off their
//! threads. Knows nothing of scoring.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use super::thread_pool::ThreadPool;

/// Bytes of request that one step goes through, about: what a free core takes at a time, well below a millisecond.
const STEP_BYTES: usize = 64 * 1024;
/// A request of more bytes than this is large.
const SMALL_BYTES: usize = 2 * STEP_BYTES;
/// Steps that stand ready for each free core: the next one is to be at hand when it ends one.
const READY_STEPS: usize = 2;

/// The requests that are being scored.
#[derive(Debug, Default)]
pub struct Load {
    /// Requests that have a core or wait for one.
    running: Arc<AtomicUsize>,
    large: Arc<ThreadPool>,
}

impl Load {
    /// Does the work on a request of this many bytes, soon, on another thread. It must not panic.
    pub(in crate::http) fn start(&self, bytes: usize, work: impl FnOnce() + Send + 'static) {
        let running = Counted::new(&self.running);
        let job = move || {
            work();
            drop(running);
        };
        if bytes <= SMALL_BYTES {
            rayon::spawn(job);
        } else {
            self.large.start(Box::new(job));
        }
    }

    /// Cores that no request has.
    fn free_cores(&self) -> usize {
        rayon::current_num_threads().saturating_sub(self.running.load(Ordering::Relaxed).max(1))
    }
}

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub(in crate::http) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(in crate::http) fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

/// Does every step: here, and on cores that are free meanwhile. On one of rayon's threads all of it is done here, since one
/// that waits there would take up other requests' work in the middle of this.
pub(super) fn each<R: Send>(steps: &[Range<usize>], load: &Load, work: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    if rayon::current_thread_index().is_some() {
        return steps.iter().cloned().map(work).collect();
    }
    let (next, ready) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take = || {
        let place = next.fetch_add(1, Ordering::Relaxed);
        steps.get(place).map(|step| (place, work(step.clone())))
    };
    let (give, given) = mpsc::channel();
    let mut done = Vec::with_capacity(steps.len());
    rayon::in_place_scope(|scope| {
        loop {
            let left = steps.len().saturating_sub(next.load(Ordering::Relaxed) + 1);
            let wanted = left.min(READY_STEPS * load.free_cores());
            for _ in ready.load(Ordering::Relaxed)..wanted {
                ready.fetch_add(1, Ordering::Relaxed);
                let (take, ready, give) = (&take, &ready, give.clone());
                scope.spawn(move |_| {
                    // Nobody has stopped listening: the scope outlives this.
                    let _ = take().map(|result| give.send(result));
                    ready.fetch_sub(1, Ordering::Relaxed);
                });
            }
            match take() {
                Some(result) => done.push(result),
                None => break,
            }
        }
    });
    done.extend(given.try_iter());
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

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
        let (steps, load) = (cut(vec![STEP_BYTES; 100]), Load::default());
        let expected: Vec<usize> = (0..100).collect();
        let slow = |step: Range<usize>| {
            std::thread::sleep(Duration::from_micros(100));
            (step.start, rayon::current_thread_index())
        };
        let outside = each(&steps, &load, slow);
        assert_eq!(outside.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
        assert!(outside.iter().any(|(_, thread)| thread.is_none()), "its own thread works too");
        let helped = outside.iter().any(|(_, thread)| thread.is_some());
        assert_eq!(helped, load.free_cores() > 0, "free cores help");
        let inside = rayon::scope(|_| each(&steps, &load, slow));
        assert!(inside.iter().all(|(_, thread)| *thread == inside.first().and_then(|(_, thread)| *thread)));
        assert_eq!(inside.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn nobody_helps_while_every_core_has_a_request() {
        let load = Load::default();
        let _running: Vec<_> = (0..rayon::current_num_threads()).map(|_| Counted::new(&load.running)).collect();
        let steps = cut(vec![STEP_BYTES; 20]);
        assert!(each(&steps, &load, |_| rayon::current_thread_index()).iter().all(Option::is_none));
    }

    #[test]
    fn a_small_request_passes_large_ones_that_hold_every_core() {
        let load = Load::default();
        let (begun, beginnings) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let ends = Arc::new(Mutex::new(ends));
        for _ in 0..2 * rayon::current_num_threads() {
            let (begun, ends) = (begun.clone(), ends.clone());
            load.start(SMALL_BYTES + 1, move || {
                begun.send(rayon::current_thread_index()).unwrap();
                let _ = ends.lock().map(|ends| ends.recv());
            });
        }
        let threads: Vec<_> = beginnings.iter().take(rayon::current_num_threads()).collect();
        assert!(threads.iter().all(Option::is_none), "large ones have their own");
        assert_eq!(load.free_cores(), 0);
        let (small, done) = mpsc::channel();
        load.start(SMALL_BYTES, move || small.send(rayon::current_thread_index()).unwrap());
        assert!(done.recv_timeout(Duration::from_secs(30)).unwrap().is_some());
        assert!(beginnings.try_recv().is_err(), "the other large ones wait for their turn");
        drop(end);
        assert_eq!(beginnings.iter().take(rayon::current_num_threads()).count(), rayon::current_num_threads());
    }
}
