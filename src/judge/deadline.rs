//! Until when an answer is of use to anybody who waits for it. Several may wait for one answer, and whoever comes later may
//! have more time: the moment can move on while the answer is under way, and never back.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::{Instant, timeout_at};

use crate::locks;

/// A moment that may move on. Clones move together.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    latest: Arc<Mutex<Instant>>,
    /// It never moves beyond this.
    bound: Option<Instant>,
}

impl Deadline {
    /// This moment, until somebody has more time.
    pub(super) fn new(at: Instant) -> Self {
        Self { latest: Arc::new(Mutex::new(at)), bound: None }
    }

    /// The same, but no later than `bound`.
    pub(super) fn no_later_than(&self, bound: Instant) -> Self {
        let bound = self.bound.map_or(bound, |other| other.min(bound));
        Self { latest: self.latest.clone(), bound: Some(bound) }
    }

    /// The moment as it stands now.
    pub(super) fn at(&self) -> Instant {
        let latest = *self.latest();
        self.bound.map_or(latest, |bound| bound.min(latest))
    }

    /// Somebody waits until `at`.
    pub(super) fn extend(&self, at: Instant) {
        let mut latest = self.latest();
        *latest = at.max(*latest);
    }

    /// What comes of `work`; none if it is not done by then.
    pub(super) async fn timeout<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        loop {
            let at = self.at();
            match timeout_at(at, work.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_) if self.at() > at => {}
                Err(_) => return None,
            }
        }
    }

    fn latest(&self) -> MutexGuard<'_, Instant> {
        locks::lock(&self.latest)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_moves_on_for_who_waits_already_and_never_beyond_its_bound() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let deadline = Deadline::new(after(1));
        let bounded = deadline.no_later_than(after(9)).no_later_than(after(3));
        let ((), free, bound) = tokio::join!(
            async {
                deadline.extend(after(5));
                deadline.extend(after(2));
            },
            async { (deadline.timeout(pending::<()>()).await, Instant::now()) },
            async { (bounded.timeout(pending::<()>()).await, Instant::now()) },
        );
        assert_eq!((free, bound), ((None, after(5)), (None, after(3))));
        assert_eq!(Deadline::new(start).timeout(async { 1 }).await, Some(1), "what is done is taken");
    }
}
