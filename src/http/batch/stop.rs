//! When to give up on a request: its deadline, and a client that went away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::BatchError;
use crate::http::wire::RewardRequest;

/// When to give up on a request.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// When it arrived, if its own deadline counts.
    pub arrived: Option<Instant>,
    /// The longest it may take, in milliseconds.
    pub max_ms: Option<u64>,
    /// Set when nobody waits for the answer any more.
    pub abandoned: Arc<AtomicBool>,
    /// Set by scoring: when a judge must have answered, so that there is time left to score with its answer.
    pub judges_answer_by: Arc<OnceLock<Instant>>,
}

impl Stop {
    pub(super) fn answer_by(&self, deadline: &Deadline<'_>) {
        if let Some((at, limit_ms)) = deadline.at {
            let reserve = Duration::from_millis((limit_ms / 20).clamp(5, 500));
            let _ = self.judges_answer_by.set(at.checked_sub(reserve).unwrap_or(at));
        }
    }
}

/// The moment after which nobody wants the answer.
pub(super) struct Deadline<'a> {
    at: Option<(Instant, u64)>,
    abandoned: &'a AtomicBool,
}

impl<'a> Deadline<'a> {
    pub(super) fn new(request: &RewardRequest<'_>, stop: &'a Stop) -> Self {
        let limit = [request.deadline_ms, stop.max_ms].into_iter().flatten().min();
        let at = stop
            .arrived
            .zip(limit)
            .and_then(|(arrived, limit)| Some((arrived.checked_add(Duration::from_millis(limit))?, limit)));
        Self { at, abandoned: &stop.abandoned }
    }

    pub(super) fn check(&self) -> Result<(), BatchError> {
        match self.at {
            _ if self.abandoned.load(Ordering::Relaxed) => Err(BatchError::Abandoned),
            Some((at, limit_ms)) if Instant::now() >= at => Err(BatchError::Deadline { limit_ms }),
            _ => Ok(()),
        }
    }
}
