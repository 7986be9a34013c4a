//! The circuit breaker of an endpoint. In: outcomes and the time; out: whether it may be asked. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

/// When to leave an endpoint alone, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Failures in a row that open the breaker. At least 1.
    pub(super) failures: u32,
    /// How long it stays open.
    pub(super) cool_down: Duration,
    /// Silence that is shorter is none of its failures.
    pub(super) patience: Duration,
}

/// On what terms a request was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Like all others.
    Regular,
    /// Alone, to find out whether the endpoint is well again.
    Probe,
}

/// The state of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Well: this many failures in a row so far.
    Closed(u32),
    /// Left alone until then.
    Open(Instant),
    /// One request is finding out.
    HalfOpen,
}

impl Breaker {
    /// Whether a request would be let through.
    pub(super) fn admits(self, now: Instant) -> bool {
        match self {
            Self::Closed(_) => true,
            Self::Open(until) => now >= until,
            Self::HalfOpen => false,
        }
    }

    /// Lets a request through, or not.
    pub(super) fn enter(&mut self, now: Instant) -> Option<Entry> {
        match *self {
            Self::Closed(_) => Some(Entry::Regular),
            Self::Open(until) if now >= until => {
                *self = Self::HalfOpen;
                Some(Entry::Probe)
            }
            Self::Open(_) | Self::HalfOpen => None,
        }
    }

    /// The endpoint answered. Once open, only the probe's word counts: others may have been asked long ago.
    pub(super) fn succeed(&mut self, entry: Entry) {
        if entry == Entry::Probe || matches!(self, Self::Closed(_)) {
            *self = Self::Closed(0);
        }
    }

    /// The endpoint failed.
    pub(super) fn fail(&mut self, entry: Entry, policy: Policy, now: Instant) {
        match *self {
            Self::Closed(failures) if failures + 1 < policy.failures => *self = Self::Closed(failures + 1),
            Self::Closed(_) => *self = Self::Open(now + policy.cool_down),
            _ if entry == Entry::Probe => *self = Self::Open(now + policy.cool_down),
            Self::Open(_) | Self::HalfOpen => {}
        }
    }

    /// The request ended before it found out anything: another one may probe at once.
    pub(super) fn abandon(&mut self, entry: Entry, now: Instant) {
        if entry == Entry::Probe {
            *self = Self::Open(now);
        }
    }
}
