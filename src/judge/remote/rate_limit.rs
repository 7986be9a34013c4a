//! Limits per minute. In: costs and the time; out: how long to wait. Reads no clock and does not wait itself.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds a minute's worth and starts full. It lends: whoever takes more than there is waits until
/// the debt is paid, so that waiters go in the order in which they came.
#[derive(Debug, Clone)]
struct TokenBucket {
    per_minute: f64,
    level: f64,
    at: Instant,
}

impl TokenBucket {
    fn new(per_minute: u32, now: Instant) -> Self {
        Self { per_minute: f64::from(per_minute), level: f64::from(per_minute), at: now }
    }

    /// How long until `cost` could be taken. One that is larger than the bucket counts as the whole bucket: it goes
    /// alone in its minute rather than never.
    fn wait(&mut self, cost: f64, now: Instant) -> Duration {
        self.refill(now);
        self.until(cost.min(self.per_minute) - self.level)
    }

    /// Takes `cost` and says how long to wait before it may be spent.
    fn take(&mut self, cost: f64, now: Instant) -> Duration {
        let wait = self.wait(cost, now);
        self.level -= cost.min(self.per_minute);
        wait
    }

    /// Corrects what was taken: `more` on top of it, or less if negative. The debt is bounded by a minute, whatever a
    /// reply claims.
    fn correct(&mut self, more: f64) {
        self.level = (self.level - more).clamp(self.level.min(-self.per_minute), self.per_minute);
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_minute / 60.0).min(self.per_minute);
        self.at = self.at.max(now);
    }

    fn until(&self, missing: f64) -> Duration {
        Duration::try_from_secs_f64((missing / self.per_minute * 60.0).max(0.0)).unwrap_or(Duration::MAX)
    }
}

/// An endpoint's limits of requests and tokens per minute.
#[derive(Debug, Clone)]
pub(super) struct RateLimit {
    requests: Option<TokenBucket>,
    tokens: Option<TokenBucket>,
}

impl RateLimit {
    /// Limits per minute; none means none.
    pub(super) fn new(requests: Option<u32>, tokens: Option<u32>, now: Instant) -> Self {
        Self {
            requests: requests.map(|limit| TokenBucket::new(limit, now)),
            tokens: tokens.map(|limit| TokenBucket::new(limit, now)),
        }
    }

    /// How long a request of so many tokens would have to wait.
    pub(super) fn wait(&mut self, tokens: u64, now: Instant) -> Duration {
        self.each(tokens, |bucket, cost| bucket.wait(cost, now))
    }

    /// Books a request of so many tokens and says how long to wait before it is sent.
    pub(super) fn take(&mut self, tokens: u64, now: Instant) -> Duration {
        self.each(tokens, |bucket, cost| bucket.take(cost, now))
    }

    /// Takes back a booking whose request was never sent.
    pub(super) fn give_back(&mut self, tokens: u64) {
        self.each(tokens, |bucket, cost| {
            bucket.correct(-cost.min(bucket.per_minute));
            Duration::ZERO
        });
    }

    /// Puts the tokens that were spent in place of those that were booked.
    pub(super) fn correct(&mut self, booked: u64, spent: u64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.correct(spent as f64 - (booked as f64).min(bucket.per_minute));
        }
    }

    fn each(&mut self, tokens: u64, mut act: impl FnMut(&mut TokenBucket, f64) -> Duration) -> Duration {
        let requests = self.requests.as_mut().map(|bucket| act(bucket, 1.0));
        let tokens = self.tokens.as_mut().map(|bucket| act(bucket, tokens as f64));
        requests.max(tokens).unwrap_or(Duration::ZERO)
    }
}
