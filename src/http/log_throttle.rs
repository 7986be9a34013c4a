//! Lines of the log about what goes on and on: at most one a minute for each kind, with how many there were since the last.
//! In: kinds and counts; out: the counts that are to be told now.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::locks;
use crate::stages::NoScoreCode;

/// How long nothing more is told of a kind.
const QUIET: Duration = Duration::from_mins(1);

/// What was told of each kind, and when.
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Mutex<Vec<Throttled>>);

#[derive(Debug)]
struct Throttled {
    kind: NoScoreCode,
    at: Option<Instant>,
    since: u64,
}

impl LogThrottle {
    /// Adds some of a kind; how many there are to tell, if it is time.
    pub(super) fn add(&self, kind: NoScoreCode, more: u64, now: Instant) -> Option<u64> {
        let mut all = locks::lock(&self.0);
        let place = all.iter().position(|told| told.kind == kind).unwrap_or(all.len());
        if place == all.len() {
            all.push(Throttled { kind, at: None, since: 0 });
        }
        let told = all.get_mut(place)?;
        told.since += more;
        if told.at.is_some_and(|at| now.duration_since(at) < QUIET) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_at_once_and_then_once_a_minute() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        let (a, b) = (NoScoreCode::JudgeTimeout, NoScoreCode::ItemMalformed);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.add(a, 3, at(0)), Some(3));
        assert_eq!(throttle.add(a, 2, at(1)), None);
        assert_eq!(throttle.add(b, 1, at(2)), Some(1));
        assert_eq!(throttle.add(a, 5, at(59)), None);
        assert_eq!(throttle.add(a, 1, at(60)), Some(8));
        assert_eq!(throttle.add(a, 1, at(61)), None);
    }
}
