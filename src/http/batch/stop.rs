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
    /// When the answer is due as far as that is known before it is read; its own deadline may be sooner.
    pub early: Option<Due>,
    /// Set when nobody waits for the answer any more.
    pub abandoned: Arc<AtomicBool>,
    /// Set by scoring: when the answer is due.
    pub deadline: Arc<OnceLock<Due>>,
    /// Set by scoring: when a judge must have answered, so that there is time left to score with its answer.
    pub judges_answer_by: Arc<OnceLock<Instant>>,
}

/// The moment when an answer is due.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The moment.
    pub at: Instant,
    /// How long the request was given, in milliseconds.
    pub limit_ms: u64,
    /// Whether the limit is the server's and not the request's.
    pub servers: bool,
}

impl Due {
    /// When a request is due that arrived then, asks for so long, and is given the server's longest. `None` where the clock
    /// does not reach so far.
    pub(crate) fn of(arrived: Instant, wanted_ms: Option<u64>, longest_ms: u64) -> Option<Self> {
        let longest = Self::after(arrived, longest_ms, true);
        Self::sooner(wanted_ms.and_then(|wanted| Self::after(arrived, wanted, false)), longest)
    }

    fn after(arrived: Instant, limit_ms: u64, servers: bool) -> Option<Self> {
        Some(Self { at: arrived.checked_add(Duration::from_millis(limit_ms))?, limit_ms, servers })
    }

    /// The sooner one. Of equals the request's own: whoever sent it can change that.
    fn sooner(own: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (own, other) {
            (Some(own), Some(other)) if other.at < own.at => Some(other),
            (own, other) => own.or(other),
        }
    }
}

impl Stop {
    /// When the answer is due, as far as that is known by now.
    pub fn due(&self) -> Option<Due> {
        self.deadline.get().copied().or(self.early)
    }

    pub(super) fn answer_by(&self, deadline: &Deadline<'_>) {
        if let Some(due @ Due { at, limit_ms, .. }) = deadline.due {
            let _ = self.deadline.set(due);
            let reserve = Duration::from_millis((limit_ms / 20).clamp(5, 500));
            let _ = self.judges_answer_by.set(at.checked_sub(reserve).unwrap_or(at));
        }
    }
}

/// The moment after which nobody wants the answer.
pub(super) struct Deadline<'a> {
    due: Option<Due>,
    abandoned: &'a AtomicBool,
}

impl<'a> Deadline<'a> {
    pub(super) fn new(request: &RewardRequest<'_>, stop: &'a Stop) -> Self {
        let own = stop.arrived.zip(request.deadline_ms);
        let own = own.and_then(|(arrived, wanted_ms)| Due::after(arrived, wanted_ms, false));
        Self { due: Due::sooner(own, stop.early), abandoned: &stop.abandoned }
    }

    pub(super) fn check(&self) -> Result<(), BatchError> {
        self.check_at(Instant::now())
    }

    /// As [`Self::check`], for whoever knows what time it is.
    pub(super) fn check_at(&self, now: Instant) -> Result<(), BatchError> {
        match self.due {
            _ if self.abandoned.load(Ordering::Relaxed) => Err(BatchError::Abandoned),
            Some(due) if now >= due.at => Err(BatchError::Deadline(due)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Problem;
    use crate::http::wire::read_request;

    #[test]
    fn a_problem_says_whose_limit_it_was() {
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let said = |deadline_ms: u64, max_ms: u64| {
            let body = format!("{{\"trajectories\":[],\"deadline_ms\":{deadline_ms}}}");
            // Whether it is known before the body is read, or not.
            let early = [Due::of(past, Some(deadline_ms), max_ms), Due::of(past, None, max_ms)];
            let [said, again] = early.map(|early| {
                let stop = Stop { arrived: Some(past), early, ..Stop::default() };
                let error = Deadline::new(&read_request(&body).unwrap(), &stop).check().unwrap_err();
                Problem::from(error).detail().to_owned()
            });
            assert_eq!(said, again);
            said
        };
        assert!(said(9, 9).contains("raise `deadline_ms`"), "the server's is no shorter");
        assert!(said(7, 60_000).contains("not scored within 7 ms; send smaller batches or raise `deadline_ms`"));
        assert!(
            said(60_000, 9).contains("not scored within 9 ms; send smaller batches or have --max-deadline-ms raised")
        );
    }
}
