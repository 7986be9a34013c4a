//! All endpoints of a judge. In: a request; out: the reply of whichever endpoint gave one. Chooses the least busy of those
//! that are well, tries again where that may help, elsewhere if it can, waits out an outage that has just begun, and gives up as
//! soon as it is clear that the deadline will pass.

use std::pin::pin;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::accounting::EndpointSnapshot;
use super::endpoint::{Call, Endpoint, Metered, Turn};
use super::failure::{Failure, FailureKind};
use crate::judge::inquiry::Usage;

/// How often to try, and how long to pause between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Most requests for one inquiry. At least 1.
    pub(super) attempts: u32,
    /// Longest pause before the first retry.
    pub(super) first: Duration,
    /// Where the doubling ends.
    pub(super) most: Duration,
}

impl Retry {
    /// The pause after the `attempt`th request (from 1): full jitter, that is `draw` (0 to 1) of a doubling bound.
    pub(super) fn pause(self, attempt: u32, draw: f64) -> Duration {
        let doubling = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.first.saturating_mul(doubling).min(self.most).mul_f64(draw.clamp(0.0, 1.0))
    }
}

/// The endpoints of a judge.
#[derive(Debug)]
pub(super) struct Pool {
    endpoints: Vec<Endpoint>,
    retry: Retry,
    /// Told when a probe of an endpoint has ended.
    probed: Arc<Notify>,
}

impl Pool {
    /// A pool of endpoints, which tell `probed` when a probe has ended. At least one.
    pub(super) fn new(endpoints: Vec<Endpoint>, retry: Retry, probed: Arc<Notify>) -> Self {
        Self { endpoints, retry, probed }
    }

    /// What the endpoints were asked so far, in the order of the configuration.
    pub(super) fn snapshot(&self) -> Vec<EndpointSnapshot> {
        self.endpoints.iter().map(Endpoint::snapshot).collect()
    }

    /// Asks until there is an answer: what `read` makes of a reply.
    ///
    /// # Errors
    /// The failure of the last request, or why none could be sent.
    pub(super) async fn ask<T: DeserializeOwned + Metered, A>(
        &self,
        call: &Call,
        deadline: Instant,
        read: impl Fn(T) -> Result<A, Failure>,
    ) -> Result<(A, Usage), Failure> {
        let mut earlier: Option<(Failure, &Endpoint)> = None;
        let mut attempt = 1;
        loop {
            let failed = earlier.as_ref().map(|(_, endpoint)| *endpoint);
            let turn = match self.turn(call.tokens, deadline, failed).await {
                Ok(turn) => turn,
                Err(failure) => return Err(failure.after(earlier.as_ref().map(|(failure, _)| failure))),
            };
            let endpoint = turn.endpoint();
            let failure = match turn.ask(call, deadline, attempt > 1, &read).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let is_tried_again =
                failure.kind.is_transient() || failure.kind.is_its_own() && self.has_another(endpoint, deadline);
            if !is_tried_again || attempt >= self.retry.attempts || Instant::now() >= deadline {
                return Err(failure);
            }
            // Jitter needs no seed: no score depends on it.
            let pause = self.retry.pause(attempt, fastrand::f64());
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                let late = Failure::new(FailureKind::OutOfTime, "out of time before the next try");
                return Err(late.after(Some(&failure)));
            }
            sleep(pause).await;
            earlier = Some((failure, endpoint));
            attempt += 1;
        }
    }

    /// A turn at the best endpoint, at one that has not just `failed` where there is another. Chosen anew after each wait:
    /// another one may be the best by then.
    async fn turn(&self, tokens: u64, deadline: Instant, failed: Option<&Endpoint>) -> Result<Turn<'_>, Failure> {
        loop {
            let now = Instant::now();
            if deadline <= now {
                return Err(Failure::new(FailureKind::OutOfTime, "out of time before a request was sent"));
            }
            let loads = self.endpoints.iter().filter_map(|endpoint| Some((endpoint.load(tokens, now)?, endpoint)));
            let left = deadline.saturating_duration_since(now);
            let just_failed = |endpoint: &Endpoint| failed.is_some_and(|failed| ptr::eq(failed, endpoint));
            let best = loads.min_by_key(|(load, endpoint)| (load.wait, just_failed(endpoint), *load));
            let Some((load, endpoint)) = best else {
                self.wait_for_one(deadline).await?;
                continue;
            };
            if load.wait >= left {
                return Err(endpoint.out_of_time("waiting for it to take requests again"));
            }
            let pause = endpoint.pause(now);
            if !pause.is_zero() {
                sleep(pause).await;
            } else if let Some(turn) = endpoint.turn(tokens, deadline).await? {
                return Ok(turn);
            }
        }
    }

    /// Waits, where every endpoint is left alone, until one may be tried, or a probe has ended.
    async fn wait_for_one(&self, deadline: Instant) -> Result<(), Failure> {
        let mut probed = pin!(self.probed.notified());
        // From here on no word is missed.
        probed.as_mut().enable();
        let now = Instant::now();
        if self.endpoints.iter().any(|endpoint| endpoint.admits(now)) {
            return Ok(());
        }
        let first = self.endpoints.iter().filter_map(|endpoint| endpoint.worth_waiting_for(now)).min();
        if first.is_none_or(|first| first >= deadline) {
            return Err(self.none_open());
        }
        let tried = self.endpoints.iter().filter_map(Endpoint::left_alone_until).min();
        let _ = timeout_at(tried.map_or(deadline, |tried| tried.min(deadline)), probed).await;
        if Instant::now() < deadline { Ok(()) } else { Err(self.none_open()) }
    }

    /// Whether an endpoint beside this one may be asked before `deadline`.
    fn has_another(&self, endpoint: &Endpoint, deadline: Instant) -> bool {
        let now = Instant::now();
        let in_time = |other: &Endpoint| other.load(0, now).is_some_and(|load| now + load.wait < deadline);
        self.endpoints.iter().any(|other| !ptr::eq(other, endpoint) && in_time(other))
    }

    fn none_open(&self) -> Failure {
        let last: Vec<String> = self.endpoints.iter().filter_map(Endpoint::last_failure).collect();
        let message = format!("no endpoint is asked at present, each failed too often; last: {}", last.join("; "));
        Failure::new(FailureKind::NoneOpen, message)
    }
}
