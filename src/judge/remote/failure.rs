//! What can go wrong with an inquiry, and what follows from it: another try, a mark against the endpoint, the reason that
//! the caller reads. In: statuses, broken connections, unreadable replies; out: [`Unavailable`].

use std::time::Duration;

use super::breaker::FailureDuration;
use crate::stages::{Unavailable, UnavailableCode};

/// Most characters that a message takes over from an endpoint.
const MAX_QUOTE_CHARS: usize = 300;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FailureKind {
    /// No connection, or it was closed before a reply.
    Connection,
    /// The reply stopped in the middle.
    Cut,
    /// No reply until the deadline, or for as long as one request may take.
    Hang,
    /// 409, 425, 429: the endpoint is well and has no time.
    Busy,
    /// 408 and 5xx.
    Server,
    /// 401, 403, 404 and redirects: the configuration does not fit the endpoint.
    Denied,
    /// Any other 4xx: the endpoint does not want this request. Whether another one would, it does not say.
    Rejected,
    /// A reply that is too long, no JSON, or not of the protocol.
    Garbage,
    /// A reply of another model, or of another kind, than the judge's first one.
    Changed,
    /// A reply of the protocol without a verdict: refused, cut short, off the labels.
    NoVerdict,
    /// The deadline passed, or would have, before a request could be sent.
    OutOfTime,
    /// Every endpoint failed too often to be asked now.
    NoneOpen,
}

impl FailureKind {
    /// The name in accounts.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Cut => "cut",
            Self::Hang => "hang",
            Self::Busy => "busy",
            Self::Server => "server",
            Self::Denied => "denied",
            Self::Rejected => "rejected",
            Self::Garbage => "garbage",
            Self::Changed => "changed",
            Self::NoVerdict => "no_verdict",
            Self::OutOfTime => "out_of_time",
            Self::NoneOpen => "none_open",
        }
    }

    /// What a status that is no success means.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            409 | 425 | 429 => Self::Busy,
            408 | 500..=599 => Self::Server,
            300..=399 | 401 | 403 | 404 => Self::Denied,
            _ => Self::Rejected,
        }
    }

    /// Whether another try may end well. A model asked the same again says the same again, so replies are not.
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::Connection | Self::Cut | Self::Hang | Self::Busy | Self::Server)
    }

    /// Whether another endpoint may do better, though this one will not.
    pub(super) fn is_its_own(self) -> bool {
        matches!(self, Self::Denied | Self::Rejected | Self::Garbage | Self::Changed)
    }

    /// Whether the endpoint may be well again in a moment.
    pub(super) fn duration(self) -> FailureDuration {
        if matches!(self, Self::Hang | Self::Denied | Self::Changed) {
            FailureDuration::Lasting
        } else {
            FailureDuration::Brief
        }
    }

    /// Whether it counts against the endpoint's health, or shows that it lives.
    pub(super) fn is_against_endpoint(self) -> bool {
        match self {
            Self::Connection | Self::Cut | Self::Hang | Self::Server | Self::Denied | Self::Garbage | Self::Changed => {
                true
            }
            Self::Busy | Self::Rejected | Self::NoVerdict | Self::OutOfTime | Self::NoneOpen => false,
        }
    }

    /// No answer in time, or an answer that is no verdict.
    fn code(self) -> UnavailableCode {
        match self {
            Self::Connection | Self::Hang | Self::Busy | Self::Server | Self::OutOfTime | Self::NoneOpen => {
                UnavailableCode::Timeout
            }
            Self::Denied => UnavailableCode::NotConfigured,
            Self::Cut | Self::Rejected | Self::Garbage | Self::Changed | Self::NoVerdict => UnavailableCode::NoVerdict,
        }
    }
}

/// Why a request, or a whole inquiry, brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    /// What kind.
    pub(super) kind: FailureKind,
    /// What happened, in words; quotes of the endpoint are bounded.
    pub(super) message: String,
    /// How long the endpoint asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// A failure in our own words.
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// A reply of the protocol that holds no verdict.
    pub(super) fn no_verdict(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NoVerdict, message)
    }

    /// Says who failed.
    pub(super) fn told_by(mut self, endpoint: &str) -> Self {
        self.message = format!("{endpoint}: {}", self.message);
        self
    }

    /// Adds what went wrong before. What one endpoint refused and no other one answered is refused.
    pub(super) fn after(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier {
            self.message = format!("{}; before that: {}", self.message, earlier.message);
            self.kind = if earlier.kind == FailureKind::Rejected { earlier.kind } else { self.kind };
        }
        self
    }

    /// The caller's view of it.
    pub(super) fn unavailable(self, model: &str) -> Unavailable {
        Unavailable { code: self.kind.code(), message: format!("judge `{model}`: {}", self.message) }
    }
}

/// An endpoint's words for a message: one line, bounded.
pub(super) fn quote(text: &str) -> String {
    let mut chars = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char });
    let mut line: String = chars.by_ref().take(MAX_QUOTE_CHARS).collect();
    if chars.next().is_some() {
        line.push_str("...");
    }
    line
}
