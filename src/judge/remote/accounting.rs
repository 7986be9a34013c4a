//! What an endpoint was asked and what it cost. In: outcomes; out: a snapshot for metrics. Knows no metric's name.

use std::collections::BTreeMap;
use std::time::Duration;

use super::breaker::Breaker;
use super::failure::FailureKind;
use crate::judge::inquiry::Usage;

/// What a million tokens cost, in any currency.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prices {
    /// Those read.
    pub(super) prompt: f64,
    /// Those written.
    pub(super) completion: f64,
}

/// Running totals of one endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) requests: u64,
    pub(super) retries: u64,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) usage: Usage,
}

impl Counters {
    /// Counts a request that is being sent.
    pub(super) fn sent(&mut self, is_retry: bool) {
        self.requests += 1;
        self.retries += u64::from(is_retry);
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, kind: FailureKind) {
        *self.failures.entry(kind.as_str()).or_default() += 1;
    }

    /// Adds the tokens of a reply. The numbers are the endpoint's word: they may be anything.
    pub(super) fn spent(&mut self, usage: Usage) {
        add(&mut self.usage, usage);
    }
}

/// Adds up tokens, as far as a number reaches.
pub(super) fn add(total: &mut Usage, more: Usage) {
    total.prompt_tokens = total.prompt_tokens.saturating_add(more.prompt_tokens);
    total.cached_tokens = total.cached_tokens.saturating_add(more.cached_tokens);
    total.completion_tokens = total.completion_tokens.saturating_add(more.completion_tokens);
}

/// Whether an endpoint is asked at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It is.
    Closed,
    /// It is not: it failed too often.
    Open,
    /// One request is finding out whether it is well again.
    HalfOpen,
}

impl Health {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl From<Breaker> for Health {
    fn from(breaker: Breaker) -> Self {
        match breaker {
            Breaker::Closed(_) => Self::Closed,
            Breaker::Open { .. } => Self::Open,
            Breaker::HalfOpen { .. } => Self::HalfOpen,
        }
    }
}

/// What one endpoint was asked so far. Totals since the start, but for `outstanding`, `health` and `paused`.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSnapshot {
    /// Its root, as configured. Holds no key.
    pub url: String,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Those of them that were retries of an inquiry.
    pub retries: u64,
    /// Failed requests by `FailureKind::as_str`.
    pub failures: BTreeMap<&'static str, u64>,
    /// Tokens, as the endpoint counts them.
    pub usage: Usage,
    /// What they cost, in the currency of the configured prices.
    pub cost: f64,
    /// Inquiries that are with the endpoint or wait for their turn there.
    pub outstanding: usize,
    /// Its circuit breaker.
    pub health: Health,
    /// For how long from now on it asked to be left alone (`Retry-After`).
    pub paused: Duration,
}

impl Prices {
    /// The cost of so many tokens.
    pub(super) fn cost(self, usage: Usage) -> f64 {
        (usage.prompt_tokens as f64 * self.prompt + usage.completion_tokens as f64 * self.completion) / 1e6
    }
}
