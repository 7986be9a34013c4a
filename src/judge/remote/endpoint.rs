//! One endpoint under load: its permits, rate limit, health and accounts. In: a request; out: its reply, or why there is none.
//! Whoever waits here waits for this endpoint alone. Knows no other endpoint and does not try again.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use super::accounting::{Counters, EndpointSnapshot, Prices};
use super::breaker::{Breaker, Entry, FailureDuration, Policy};
use super::config::EndpointConfig;
use super::failure::{Failure, FailureKind};
use super::rate_limit::RateLimit;
use super::transport::{Route, Transport};
use crate::judge::deadline::Deadline;
use crate::judge::inquiry::Usage;
use crate::locks;

/// A request, ready to be sent to any endpoint.
#[derive(Debug)]
pub(super) struct Call {
    /// Where to.
    pub(super) route: Route,
    /// What.
    pub(super) body: Value,
    /// About how many tokens it will take, read and written.
    pub(super) tokens: u64,
}

/// A reply that says what it cost.
pub(super) trait Metered {
    /// The tokens spent.
    fn usage(&self) -> Usage;
}

/// What is made of a reply: it may quote words of it.
pub(super) trait Quoting {
    /// The same with other words.
    #[must_use]
    fn map_quoted(self, change: impl Fn(String) -> String) -> Self;
}

/// Probabilities quote nothing.
impl Quoting for Option<Vec<f64>> {
    fn map_quoted(self, _: impl Fn(String) -> String) -> Self {
        self
    }
}

/// An endpoint and its state.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    transport: Transport,
    permits: Semaphore,
    policy: Policy,
    /// Longest wait for one reply.
    longest: Option<Duration>,
    prices: Prices,
    state: Mutex<State>,
    /// Told when a probe has ended, of this endpoint or of another one of its judge.
    probed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    rate_limit: RateLimit,
    paused_until: Option<Instant>,
    outstanding: usize,
    /// Whether the last request was waited for in vain; none where it ended otherwise.
    silence: Option<Unanswered>,
    counters: Counters,
    last_failure: Option<(FailureKind, String)>,
}

/// Requests that are waited for in vain, whatever was sent.
#[derive(Debug, Clone, Copy)]
struct Unanswered {
    since: Instant,
    /// When the last one was given up.
    last: Instant,
}

impl State {
    fn pause(&self, now: Instant) -> Duration {
        self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// A request is sent. Time in which nobody asked is no silence, unless nobody was let through.
    fn sent(&mut self, is_retry: bool, entry: Entry, patience: Duration, now: Instant) {
        self.counters.sent(is_retry);
        let is_first = self.outstanding == 1 && entry == Entry::Regular;
        if let Some(silence) = self.silence.as_mut().filter(|silence| is_first && silence.last + patience < now) {
            silence.since = now;
        }
    }
}

/// How good a choice an endpoint is: the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    /// How long it wants to be left alone, or its rate limit demands.
    pub(super) wait: Duration,
    /// Inquiries that it has.
    pub(super) outstanding: usize,
    /// Whether it was silent last: callers in a hurry say nothing about its health, but another one may be quicker.
    silent: bool,
    /// Requests that it had, so that idle endpoints take turns.
    requests: u64,
}

impl Endpoint {
    /// An endpoint that was not asked yet.
    pub(super) fn new(
        config: &EndpointConfig,
        transport: Transport,
        policy: Policy,
        longest: Option<Duration>,
        probed: Arc<Notify>,
    ) -> Self {
        let rate_limit = RateLimit::new(config.requests_per_minute, config.tokens_per_minute, Instant::now());
        Self {
            url: config.url.clone(),
            transport,
            permits: Semaphore::new(config.max_concurrency as usize),
            policy,
            longest,
            prices: Prices {
                prompt: config.prompt_price_per_million.unwrap_or_default(),
                completion: config.completion_price_per_million.unwrap_or_default(),
            },
            state: Mutex::new(State {
                breaker: Breaker::Closed(0),
                rate_limit,
                paused_until: None,
                outstanding: 0,
                silence: None,
                counters: Counters::default(),
                last_failure: None,
            }),
            probed,
        }
    }

    /// What speaks against asking it now; none if it is not to be asked at all.
    pub(super) fn load(&self, tokens: u64, now: Instant) -> Option<Load> {
        let mut state = self.state();
        let wait = state.pause(now).max(state.rate_limit.wait(tokens, now));
        let (outstanding, silent, requests) = (state.outstanding, state.silence.is_some(), state.counters.requests);
        state.breaker.admits(now).then_some(Load { wait, outstanding, silent, requests })
    }

    /// How long it asked to be left alone.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.state().pause(now)
    }

    /// When its outage may be over, at the earliest; none where it has none, or it is not to be waited out.
    pub(super) fn worth_waiting_for(&self, now: Instant) -> Option<Instant> {
        self.state().breaker.worth_waiting_for(self.policy, now)
    }

    /// When it may be tried, where it is left alone until then.
    pub(super) fn left_alone_until(&self) -> Option<Instant> {
        self.state().breaker.left_alone_until()
    }

    /// Takes note that another one answered what this one refused.
    pub(super) fn refused_in_vain(&self) {
        let duration = FailureKind::Rejected.duration();
        self.state().breaker.fail(Entry::Regular, duration, self.policy, Instant::now());
    }

    /// The last failure that counted against it, or may have.
    pub(super) fn last_failure(&self) -> Option<(FailureKind, String)> {
        self.state().last_failure.clone()
    }

    /// What it was asked so far.
    pub(super) fn snapshot(&self) -> EndpointSnapshot {
        let state = self.state();
        let counters = &state.counters;
        EndpointSnapshot {
            url: self.url.clone(),
            requests: counters.requests,
            retries: counters.retries,
            failures: counters.failures.clone(),
            usage: counters.usage,
            cost: self.prices.cost(counters.usage),
            outstanding: state.outstanding,
            health: state.breaker.into(),
            paused: state.pause(Instant::now()),
        }
    }

    /// Waits until a request may be sent. None if the endpoint is, or while waiting became, one not to be asked.
    ///
    /// # Errors
    /// When that would be after `deadline`; at once if that is known at once.
    pub(super) async fn acquire(&self, tokens: u64, deadline: &Deadline) -> Result<Option<RequestPermit<'_>>, Failure> {
        let Some(mut permit) = self.enter() else { return Ok(None) };
        match deadline.timeout(self.permits.acquire()).await {
            Some(slot) => permit.slot = slot.ok(),
            None => return Err(self.out_of_time("waiting for one of its `max_concurrency` permits")),
        }
        let now = Instant::now();
        let wait = {
            let mut state = self.state();
            let left_alone = permit.entry == Entry::Regular && !matches!(state.breaker, Breaker::Closed(_));
            if left_alone || !state.pause(now).is_zero() {
                return Ok(None);
            }
            permit.booked = Some(tokens);
            state.rate_limit.take(tokens, now)
        };
        let left = deadline.at().saturating_duration_since(now);
        if left.is_zero() {
            return Err(self.out_of_time("before a request was sent"));
        }
        if wait >= left {
            return Err(self.out_of_time("waiting for its requests or tokens per minute"));
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(Some(permit))
    }

    /// A failure that never reached the endpoint.
    pub(super) fn out_of_time(&self, doing: &str) -> Failure {
        Failure::new(FailureKind::OutOfTime, format!("out of time {doing}")).told_by(&self.url)
    }

    fn enter(&self) -> Option<RequestPermit<'_>> {
        let mut state = self.state();
        let entry = state.breaker.enter(self.policy, Instant::now())?;
        state.outstanding += 1;
        Some(RequestPermit { endpoint: self, entry, slot: None, booked: None, outcome: Outcome::NotSent })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locks::lock(&self.state)
    }
}

/// The right to send one request. Dropped, it gives back what it took.
#[derive(Debug)]
pub(super) struct RequestPermit<'a> {
    endpoint: &'a Endpoint,
    entry: Entry,
    slot: Option<SemaphorePermit<'a>>,
    booked: Option<u64>,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    NotSent,
    Unknown,
    Known,
}

impl<'a> RequestPermit<'a> {
    /// Where it may be sent.
    pub(super) fn endpoint(&self) -> &'a Endpoint {
        self.endpoint
    }

    /// Sends the request, reads the reply with `read`, and keeps the accounts.
    ///
    /// # Errors
    /// What went wrong on the way, in the reply, or in `read`.
    pub(super) async fn ask<T: DeserializeOwned + Metered, A: Quoting>(
        mut self,
        call: &Call,
        deadline: &Deadline,
        is_retry: bool,
        read: impl Fn(T) -> Result<A, Failure>,
    ) -> Result<(A, Usage), Failure> {
        self.outcome = Outcome::Unknown;
        let sent_at = Instant::now();
        self.endpoint.state().sent(is_retry, self.entry, self.endpoint.policy.patience, sent_at);
        let longest = self.endpoint.longest.map(|longest| sent_at + longest);
        let until = longest.map_or_else(|| deadline.clone(), |longest| deadline.no_later_than(longest));
        let reply = until.timeout(self.endpoint.transport.post(call.route, &call.body)).await;
        let reply = reply.unwrap_or_else(|| {
            let is_limited = longest.is_some_and(|longest| longest < deadline.at());
            let until = if is_limited { "in `request_timeout_ms`" } else { "before the deadline" };
            Err(Failure::new(FailureKind::Hang, format!("no reply {until}")))
        });
        let reply: Result<T, Failure> = reply.and_then(|text| parse(&text));
        let usage = reply.as_ref().map(Metered::usage).ok();
        let answer = self.without_key(reply.and_then(read));
        self.settle(usage, answer.as_ref().err(), sent_at);
        match answer {
            Ok(answer) => Ok((answer, usage.unwrap_or_default())),
            Err(failure) => Err(failure.told_by(&self.endpoint.url)),
        }
    }

    /// Whatever is quoted of a reply, without the key: an endpoint may repeat what it was sent.
    fn without_key<A: Quoting>(&self, answer: Result<A, Failure>) -> Result<A, Failure> {
        let out = |words| self.endpoint.transport.without_key(words);
        match answer {
            Ok(answer) => Ok(answer.map_quoted(out)),
            Err(failure) => Err(Failure { message: out(failure.message), ..failure }),
        }
    }

    fn settle(&mut self, usage: Option<Usage>, failure: Option<&Failure>, sent_at: Instant) {
        self.outcome = Outcome::Known;
        let now = Instant::now();
        let state = &mut *self.endpoint.state();
        let is_silent = failure.is_some_and(|failure| failure.kind == FailureKind::Hang);
        let silent_since = state.silence.map(|silence| silence.since);
        state.silence = is_silent.then(|| Unanswered { since: silent_since.unwrap_or(now), last: now });
        // Who answers at last is not silent, and needs no probe to show it.
        let answered = if silent_since.is_some() { Entry::Probe } else { self.entry };
        if let Some(usage) = usage {
            state.counters.spent(usage);
            let spent = usage.prompt_tokens.saturating_add(usage.completion_tokens);
            // A reply that does not say what it took is taken at the estimate.
            if let (Some(booked), true) = (self.booked, spent > 0) {
                state.rate_limit.correct(booked, spent);
            }
        }
        let Some(failure) = failure else { return state.breaker.succeed(answered) };
        state.counters.failed(failure.kind);
        if let Some(pause) = failure.retry_after {
            state.paused_until = state.paused_until.max(Some(now + pause));
        }
        let is_refusal = failure.kind == FailureKind::Rejected;
        if is_refusal || failure.kind.is_against_endpoint() {
            state.last_failure = Some((failure.kind, format!("{}: {}", self.endpoint.url, failure.message)));
        }
        let policy = self.endpoint.policy;
        let is_in_a_hurry = is_silent && now.duration_since(sent_at) < policy.patience;
        if is_in_a_hurry && silent_since.is_none_or(|since| now.duration_since(since) < policy.patience) {
            // A caller in a hurry says nothing about the endpoint.
            state.breaker.abandon(self.entry, now);
        } else if failure.kind.is_against_endpoint() {
            // All of them together do; whether the endpoint is silent or too slow for them, the next one tries soon.
            let duration = if is_in_a_hurry { FailureDuration::Brief } else { failure.kind.duration() };
            state.breaker.fail(self.entry, duration, policy, now);
        } else if !is_refusal || answered == Entry::Probe {
            // Whose fault a refusal is shows at another endpoint; here it shows that this one lives, and no more.
            state.breaker.succeed(answered);
        }
    }
}

impl Drop for RequestPermit<'_> {
    fn drop(&mut self) {
        let mut state = self.endpoint.state();
        state.outstanding = state.outstanding.saturating_sub(1);
        if let (Outcome::NotSent, Some(tokens)) = (self.outcome, self.booked) {
            state.rate_limit.give_back(tokens);
        }
        if self.outcome != Outcome::Known {
            state.breaker.abandon(self.entry, Instant::now());
        }
        drop(state);
        if self.entry == Entry::Probe {
            self.endpoint.probed.notify_waiters();
        }
    }
}

fn parse<T: DeserializeOwned>(text: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(text.get()).map_err(|error| {
        Failure::new(FailureKind::Garbage, super::failure::quote(&format!("the reply is not of the protocol: {error}")))
    })
}
