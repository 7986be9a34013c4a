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
use super::endpoint::{Call, Endpoint, Metered, Quoting, RequestPermit};
use super::failure::{Failure, FailureKind};
use crate::judge::deadline::Deadline;
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
    pub(super) async fn ask<T: DeserializeOwned + Metered, A: Quoting>(
        &self,
        call: &Call,
        deadline: &Deadline,
        read: impl Fn(T) -> Result<A, Failure>,
    ) -> Result<(A, Usage), Failure> {
        let (mut failed, mut last): (Vec<(&Endpoint, FailureKind)>, Option<Failure>) = (Vec::new(), None);
        let mut attempt = 1;
        loop {
            let permit = match self.acquire(call.tokens, deadline, &failed).await {
                Ok(permit) => permit,
                Err(failure) => return Err(failure.after(last.as_ref())),
            };
            let endpoint = permit.endpoint();
            let failure = match permit.ask(call, deadline, attempt > 1, &read).await {
                Ok(answer) => {
                    // It was no fault of the request then.
                    refusing(&failed).for_each(Endpoint::refused_in_vain);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            failed.push((endpoint, failure.kind));
            let refusal = last.take_if(|last| last.kind == FailureKind::Rejected);
            let tries = attempt < self.retry.attempts && Instant::now() < deadline.at();
            if !tries || !self.is_tried_again(failure.kind, &failed, deadline.at()) {
                return Err(failure.after(refusal.as_ref()));
            }
            // Jitter needs no seed: no score depends on it. An endpoint that is not asked again needs no rest.
            let draw = if failure.kind.is_transient() { fastrand::f64() } else { 0.0 };
            let pause = self.retry.pause(attempt, draw);
            if pause >= deadline.at().saturating_duration_since(Instant::now()) {
                let late = Failure::new(FailureKind::OutOfTime, "out of time before the next try");
                return Err(late.after(Some(&failure)).after(refusal.as_ref()));
            }
            sleep(pause).await;
            last = refusal.or(Some(failure));
            attempt += 1;
        }
    }

    /// Whether an inquiry that failed like this is tried again. What a second endpoint refuses is the request's fault.
    fn is_tried_again(&self, kind: FailureKind, failed: &[(&Endpoint, FailureKind)], deadline: Instant) -> bool {
        let refused = refusing(failed).count();
        kind.is_transient() || kind.is_its_own() && refused < 2 && self.has_another(failed, deadline)
    }

    /// A permit of the best endpoint: of those that this inquiry `failed` at the least. Chosen anew after each wait: another one
    /// may be the best by then.
    async fn acquire(
        &self,
        tokens: u64,
        deadline: &Deadline,
        failed: &[(&Endpoint, FailureKind)],
    ) -> Result<RequestPermit<'_>, Failure> {
        let times = |endpoint: &Endpoint| failed.iter().filter(|(other, _)| ptr::eq(*other, endpoint)).count();
        loop {
            let mut probed = pin!(self.probed.notified());
            // From here on no word of a probe is missed.
            probed.as_mut().enable();
            let now = Instant::now();
            let by = deadline.at();
            if by <= now {
                return Err(Failure::new(FailureKind::OutOfTime, "out of time before a request was sent"));
            }
            let askable = self.endpoints.iter().filter(|endpoint| may_do(endpoint, failed));
            let loads = askable.filter_map(|endpoint| Some((endpoint.load(tokens, now)?, endpoint)));
            let best = loads.min_by_key(|(load, endpoint)| (load.wait, times(endpoint), *load));
            let in_time = best.filter(|(load, _)| now + load.wait < by);
            if let Some((_, endpoint)) = in_time.filter(|(_, endpoint)| endpoint.pause(now).is_zero()) {
                match endpoint.acquire(tokens, deadline).await? {
                    Some(permit) => return Ok(permit),
                    None => continue,
                }
            }
            let paused = in_time.map(|(_, endpoint)| now + endpoint.pause(now));
            let Some(until) = self.waits_until(paused, failed, now, by) else {
                let late =
                    |(_, endpoint): (_, &Endpoint)| endpoint.out_of_time("waiting for it to take requests again");
                return Err(best.map_or_else(|| self.none_open(), late));
            };
            if timeout_at(until, probed).await.is_err() && Instant::now() >= deadline.at() {
                return Err(self.none_open());
            }
        }
    }

    /// Until when to wait, unless a probe ends before, where every endpoint is left alone or `paused` until then: until the
    /// first may be tried. None where none would be well before `deadline`.
    fn waits_until(
        &self,
        paused: Option<Instant>,
        failed: &[(&Endpoint, FailureKind)],
        now: Instant,
        deadline: Instant,
    ) -> Option<Instant> {
        let askable = || self.endpoints.iter().filter(|endpoint| may_do(endpoint, failed));
        let over = askable().filter_map(|endpoint| endpoint.worth_waiting_for(now)).min();
        paused.or(over.filter(|over| *over < deadline))?;
        let tried = askable().filter_map(Endpoint::left_alone_until).filter(|until| *until > now).min();
        [paused, tried, Some(deadline)].into_iter().flatten().min()
    }

    /// Whether there is another endpoint than those that cannot do it, which may be asked before `deadline`.
    fn has_another(&self, failed: &[(&Endpoint, FailureKind)], deadline: Instant) -> bool {
        let now = Instant::now();
        let in_time = |endpoint: &Endpoint| match endpoint.load(0, now) {
            Some(load) => now + load.wait < deadline,
            None => endpoint.worth_waiting_for(now).is_some_and(|until| until < deadline),
        };
        self.endpoints.iter().any(|endpoint| may_do(endpoint, failed) && in_time(endpoint))
    }

    fn none_open(&self) -> Failure {
        let (kinds, said): (Vec<FailureKind>, Vec<String>) =
            self.endpoints.iter().filter_map(Endpoint::last_failure).unzip();
        let message = format!("no endpoint is asked at present, each failed too often; last: {}", said.join("; "));
        let denied = !kinds.is_empty() && kinds.iter().all(|kind| *kind == FailureKind::Denied);
        Failure::new(if denied { FailureKind::Denied } else { FailureKind::NoneOpen }, message)
    }
}

/// Whether an endpoint has not shown that it cannot do what an inquiry wants.
fn may_do(endpoint: &Endpoint, failed: &[(&Endpoint, FailureKind)]) -> bool {
    !failed.iter().any(|(other, kind)| ptr::eq(*other, endpoint) && kind.is_its_own())
}

/// Those of the endpoints that refused the request.
fn refusing<'a>(failed: &[(&'a Endpoint, FailureKind)]) -> impl Iterator<Item = &'a Endpoint> {
    failed.iter().filter(|(_, kind)| *kind == FailureKind::Rejected).map(|(endpoint, _)| *endpoint)
}
