//! All endpoints of a judge. In: a request; out: the reply of whichever endpoint gave one. Chooses the least busy of those
//! that are well, tries again where that may help, elsewhere if it can, waits out an outage that has just begun, and gives up as
//! soon as it is clear that the deadline will pass.

use std::ptr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

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
}

impl Pool {
    /// A pool of endpoints. At least one.
    pub(super) fn new(endpoints: Vec<Endpoint>, retry: Retry) -> Self {
        Self { endpoints, retry }
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
            let is_tried_again = failure.kind.is_transient()
                || failure.kind.is_of_the_endpoint() && self.has_another(endpoint, Instant::now());
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
            let best = loads.min_by_key(|(load, endpoint)| (load.wait >= left, just_failed(endpoint), *load));
            let Some((load, endpoint)) = best else {
                self.wait_for_one(now, deadline).await?;
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

    /// Waits, where every endpoint is left alone, for the one that may be well first.
    async fn wait_for_one(&self, now: Instant, deadline: Instant) -> Result<(), Failure> {
        let outages = self.endpoints.iter().filter_map(|endpoint| Some((endpoint.worth_waiting_for(now)?, endpoint)));
        let first = outages.min_by_key(|(until, _)| *until).filter(|(until, _)| *until < deadline);
        let (_, endpoint) = first.ok_or_else(|| self.none_open())?;
        endpoint.reopened(deadline).await;
        if Instant::now() < deadline { Ok(()) } else { Err(self.none_open()) }
    }

    /// Whether an endpoint beside this one may be asked.
    fn has_another(&self, endpoint: &Endpoint, now: Instant) -> bool {
        self.endpoints.iter().any(|other| !ptr::eq(other, endpoint) && other.load(0, now).is_some())
    }

    fn none_open(&self) -> Failure {
        let last: Vec<String> = self.endpoints.iter().filter_map(Endpoint::last_failure).collect();
        let message = format!("no endpoint is asked at present, each failed too often; last: {}", last.join("; "));
        Failure::new(FailureKind::NoneOpen, message)
    }
}
