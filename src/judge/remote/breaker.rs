//! The circuit breaker of an endpoint. In: outcomes and the time; out: whether it may be asked, and whether it is worth waiting
//! for. Reads no clock.
//!
//! An endpoint that fails is left alone for a moment only, and for twice as long each time that it is tried in vain. Until
//! that has grown to the whole cool-down, the outage may be a restart or a burst of errors, which inquiries wait out; from then
//! on it is an outage that nobody waits for.

use std::time::Duration;

use tokio::time::Instant;

/// By how much the first pause of an outage is shorter than the last: it doubles up to it.
const FIRST_PART: u32 = 16;

/// When to leave an endpoint alone, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Failures in a row that open the breaker. At least 1.
    pub(super) failures: u32,
    /// How long it stays open at most.
    pub(super) cool_down: Duration,
    /// Silence that is shorter, to whoever asks, is none of its failures.
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

/// What a failure says of the time to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureDuration {
    /// It may be over in a moment.
    Brief,
    /// It will not be: the endpoint is silent, or does not serve what it is asked for.
    Lasting,
}

/// The state of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Well: this many failures in a row so far.
    Closed(u32),
    /// Left alone for `pause`, which ends then.
    Open { until: Instant, pause: Duration },
    /// One request is finding out, after this pause. Where it is silent until then, the next one may.
    HalfOpen { pause: Duration, until: Instant },
}

impl Breaker {
    /// Whether a request would be let through.
    pub(super) fn admits(self, now: Instant) -> bool {
        self.left_alone_until().is_none_or(|until| now >= until)
    }

    /// When it lets the next one try, where it does not now.
    pub(super) fn left_alone_until(self) -> Option<Instant> {
        match self {
            Self::Closed(_) => None,
            Self::Open { until, .. } | Self::HalfOpen { until, .. } => Some(until),
        }
    }

    /// Lets a request through, or not.
    pub(super) fn enter(&mut self, policy: Policy, now: Instant) -> Option<Entry> {
        match *self {
            Self::Closed(_) => Some(Entry::Regular),
            Self::Open { until, pause } | Self::HalfOpen { until, pause } if now >= until => {
                *self = Self::HalfOpen { pause, until: now + policy.patience };
                Some(Entry::Probe)
            }
            Self::Open { .. } | Self::HalfOpen { .. } => None,
        }
    }

    /// When an outage may be over, at the earliest; none where there is none, or it is not to be waited for.
    pub(super) fn worth_waiting_for(self, policy: Policy, now: Instant) -> Option<Instant> {
        match self {
            Self::Closed(_) => None,
            Self::Open { until, pause } => (pause < policy.cool_down).then_some(until),
            Self::HalfOpen { pause, .. } => (pause < policy.cool_down).then_some(now),
        }
    }

    /// The endpoint answered. Once open, only the probe's word counts: others may have been asked long ago.
    pub(super) fn succeed(&mut self, entry: Entry) {
        if entry == Entry::Probe || matches!(self, Self::Closed(_)) {
            *self = Self::Closed(0);
        }
    }

    /// The endpoint failed.
    pub(super) fn fail(&mut self, entry: Entry, duration: FailureDuration, policy: Policy, now: Instant) {
        let pause = match *self {
            Self::Closed(failures) if failures + 1 < policy.failures => {
                *self = Self::Closed(failures + 1);
                return;
            }
            Self::Closed(_) => policy.cool_down / FIRST_PART,
            Self::HalfOpen { pause, .. } | Self::Open { pause, .. } if entry == Entry::Probe => pause.saturating_mul(2),
            Self::Open { .. } | Self::HalfOpen { .. } => return,
        };
        let pause = if duration == FailureDuration::Lasting { policy.cool_down } else { pause.min(policy.cool_down) };
        *self = Self::Open { until: now + pause, pause };
    }

    /// The request ended before it found out anything: another one may probe at once.
    pub(super) fn abandon(&mut self, entry: Entry, now: Instant) {
        if let (Entry::Probe, Self::Open { pause, .. } | Self::HalfOpen { pause, .. }) = (entry, *self) {
            *self = Self::Open { until: now, pause };
        }
    }
}
