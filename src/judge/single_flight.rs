//! Questions that are under way. In: a question's key and how it is asked. Out: what came of it. Equal questions are asked
//! once, with all the time of whoever waits longest, and until nobody waits. Knows no judge and keeps nothing.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::deadline::Deadline;
use crate::locks;
use crate::stages::Unavailable;

/// How long a question whose last deadline has passed may take to say what became of it: it ends by itself then.
const LAST_WORDS: Duration = Duration::from_millis(100);

type Key = [u8; 32];
type Answer<A> = Result<A, Unavailable>;

/// Questions by their keys, each with an answer of type `A`.
#[derive(Debug)]
pub(super) struct SingleFlight<A> {
    running: Running<A>,
}

type Running<A> = Arc<Mutex<HashMap<Key, Run<A>>>>;

/// One question that is under way.
#[derive(Debug)]
struct Run<A> {
    told: watch::Sender<Option<Answer<A>>>,
    deadline: Deadline,
}

impl<A> Default for SingleFlight<A> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<A: Clone + Send + Sync + 'static> SingleFlight<A> {
    /// Waits until `deadline` for the answer to a question that is under way, or begins it: whether it did, and the answer;
    /// none where time was up. All who wait get the same one, a failure, too. Dropped, it waits no more.
    pub(super) async fn ask<F>(
        &self,
        key: Key,
        deadline: Instant,
        begin: impl FnOnce(Deadline) -> F,
    ) -> (bool, Option<Answer<A>>)
    where
        F: Future<Output = Answer<A>> + Send + 'static,
    {
        let (begun, mut told, run_until) = self.join(key, deadline, begin);
        let mut answered = timeout_at(deadline, told.wait_for(Option::is_some)).await.is_ok();
        if !answered && run_until.at() <= deadline {
            // It ends at the same moment, and says more than that time is up.
            answered = timeout(LAST_WORDS, told.wait_for(Option::is_some)).await.is_ok();
        }
        let answer = told.borrow().clone();
        let failed = || Err(Unavailable::no_verdict("the judge failed on this question; the server's log says more"));
        (begun, answered.then(|| answer.unwrap_or_else(failed)))
    }

    /// Joins a question that is under way, or begins it.
    fn join<F>(
        &self,
        key: Key,
        deadline: Instant,
        begin: impl FnOnce(Deadline) -> F,
    ) -> (bool, watch::Receiver<Option<Answer<A>>>, Deadline)
    where
        F: Future<Output = Answer<A>> + Send + 'static,
    {
        let mut running = locks::lock(&self.running);
        if let Some(run) = running.get(&key) {
            run.deadline.extend(deadline);
            return (false, run.told.subscribe(), run.deadline.clone());
        }
        let until = Deadline::new(deadline);
        let (told, receiver) = watch::channel(None);
        running.insert(key, Run { told: told.clone(), deadline: until.clone() });
        drop(running);
        let place = RunGuard { running: self.running.clone(), key, is_taken: true };
        tokio::spawn(run(begin(until.clone()), told, place));
        (true, receiver, until)
    }
}

/// Goes on for as long as anybody waits.
async fn run<A: Clone>(
    work: impl Future<Output = Answer<A>>,
    told: watch::Sender<Option<Answer<A>>>,
    mut place: RunGuard<A>,
) {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            answer = work.as_mut() => {
                place.leave_if(|| true);
                told.send_replace(Some(answer));
                return;
            }
            () = told.closed() => {
                // Somebody may have joined since.
                if place.leave_if(|| told.receiver_count() == 0) {
                    return;
                }
            }
        }
    }
}

/// A run's place among those that are under way; left when dropped, also by a panic.
struct RunGuard<A> {
    running: Running<A>,
    key: Key,
    is_taken: bool,
}

impl<A> RunGuard<A> {
    /// Leaves if it is so while nobody can join.
    fn leave_if(&mut self, may: impl FnOnce() -> bool) -> bool {
        let mut running = locks::lock(&self.running);
        if self.is_taken && may() {
            self.is_taken = false;
            running.remove(&self.key);
        }
        !self.is_taken
    }
}

impl<A> Drop for RunGuard<A> {
    fn drop(&mut self) {
        self.leave_if(|| true);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::time::sleep;

    use super::*;
    use crate::stages::UnavailableCode;

    const KEY: Key = [0; 32];

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    fn failure(message: &str) -> Unavailable {
        Unavailable { code: UnavailableCode::Timeout, message: message.to_owned() }
    }

    /// However often it is asked, a judge that hangs takes its own time once.
    #[tokio::test(start_paused = true)]
    async fn a_failure_is_everybodys() {
        let (flights, asked, start) = (SingleFlight::<u32>::default(), Arc::new(AtomicUsize::new(0)), Instant::now());
        let ask = || {
            flights.ask(KEY, after(60), |_| {
                let asked = asked.clone();
                async move {
                    asked.fetch_add(1, SeqCst);
                    sleep(Duration::from_secs(2)).await;
                    Err(failure("it hangs"))
                }
            })
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        assert_eq!([a.0, b.0, c.0], [true, false, false]);
        assert!([a.1, b.1, c.1].iter().all(|answer| *answer == Some(Err(failure("it hangs")))));
        assert_eq!((asked.load(SeqCst), start.elapsed().as_secs()), (1, 2));
        assert!(locks::lock(&flights.running).is_empty());
        ask().await.1.unwrap().unwrap_err();
        assert_eq!(asked.load(SeqCst), 2, "it is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_more_time_gets_what_another_one_began() {
        let flights = SingleFlight::default();
        let begin = |deadline: Deadline| async move {
            let slow = sleep(Duration::from_secs(5));
            deadline.timeout(slow).await.map(|()| 7).ok_or_else(|| failure("too slow"))
        };
        let hurried = flights.ask(KEY, after(1), begin);
        let patient = flights.ask(KEY, after(9), |_| async { panic!("it is under way") });
        let (hurried, patient) = tokio::join!(hurried, patient);
        assert_eq!((hurried, patient), ((true, None), (false, Some(Ok(7)))));
        // Alone it says for itself why there is nothing.
        assert_eq!(flights.ask(KEY, after(1), begin).await, (true, Some(Err(failure("too slow")))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_dropped() {
        struct Dropped(Arc<AtomicUsize>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let (flights, dropped) = (SingleFlight::<u32>::default(), Arc::new(AtomicUsize::new(0)));
        let begin = |_| {
            let guard = Dropped(dropped.clone());
            async move {
                let _guard = guard;
                pending().await
            }
        };
        let first = timeout(Duration::from_secs(1), flights.ask(KEY, after(60), begin));
        let second = timeout(Duration::from_secs(3), flights.ask(KEY, after(60), begin));
        let (first, second) = tokio::join!(first, async {
            let second = second.await;
            (second, dropped.load(SeqCst))
        });
        assert!(first.is_err() && second.0.is_err());
        assert_eq!(second.1, 0, "the second one waited");
        while dropped.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(locks::lock(&flights.running).is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_and_the_next_one_is_asked() {
        let flights = SingleFlight::default();
        let answer = flights.ask(KEY, after(60), |_| async { panic!("a bug") }).await.1;
        assert!(answer.unwrap().unwrap_err().message.contains("failed on this question"));
        assert_eq!(flights.ask(KEY, after(60), |_| async { Ok(1) }).await, (true, Some(Ok(1))));
    }
}
