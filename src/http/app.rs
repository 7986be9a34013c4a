//! What the handlers share: the engine, the store, the limits, the counts.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::auth::Tokens;
use super::batch::Engine;
use super::cohorts::{self, Cohorts};
use super::error::Problem;
use super::handlers::references;
use super::idempotency::Idempotency;
use super::limits::{self, Limits};
use super::log_throttle::LogThrottle;
use super::metrics::Metrics;
use super::references::References;
use crate::store::Store;

/// Memory for answers to requests with an idempotency key, in bytes.
const IDEMPOTENCY_BYTES: u64 = 64 << 20;

/// Settings of the server beside its engine and store.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What it takes at once.
    pub limits: limits::Config,
    /// Who may do what.
    pub tokens: Tokens,
}

/// What the handlers share.
pub struct Shared {
    /// Scores.
    pub engine: Engine,
    /// Keeps scores, if any are kept.
    pub store: Option<Store>,
    /// What is taken at once.
    pub limits: Limits,
    /// Who may do what.
    pub tokens: Tokens,
    /// Answers that may be given again.
    pub idempotency: Idempotency,
    /// Counts.
    pub metrics: Metrics,
    /// What the log was told of items that could not be scored.
    pub(super) unscored: LogThrottle,
    /// Right answers by prompt.
    pub references: References,
    /// Groups that wait for their members.
    pub(crate) cohorts: Cohorts,
    draining: CancellationToken,
    last_call: CancellationToken,
    /// How much work goes on whether or not its client is there.
    going_on: watch::Sender<usize>,
    next_request: AtomicU64,
    salt: u64,
}

/// A handle to what the handlers share.
#[derive(Clone)]
pub struct App(Arc<Shared>);

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// One piece of work that goes on, until it is dropped.
struct GoingOn(App);

impl Drop for GoingOn {
    fn drop(&mut self) {
        self.0.going_on.send_modify(|works| *works -= 1);
    }
}

impl App {
    /// A server that is not yet listening. Blocks while it reads what the store keeps by prompt; where that cannot be
    /// read, the log says so.
    pub fn new(engine: Engine, store: Option<Store>, config: Config) -> Self {
        let metrics = Metrics::new(&engine.judges, store.clone());
        let app = Self(Arc::new(Shared {
            engine,
            store,
            limits: Limits::new(config.limits),
            tokens: config.tokens,
            idempotency: Idempotency::new(IDEMPOTENCY_BYTES),
            metrics,
            unscored: LogThrottle::default(),
            references: References::default(),
            cohorts: Cohorts::default(),
            draining: CancellationToken::new(),
            last_call: CancellationToken::new(),
            going_on: watch::Sender::new(0),
            next_request: AtomicU64::new(0),
            salt: RandomState::new().hash_one(std::process::id()),
        }));
        if let Some(store) = &app.store {
            references::restore(store, &app.references);
        }
        app
    }

    /// A fresh request id, 16 hex digits.
    pub fn new_request_id(&self) -> String {
        let n = self.next_request.fetch_add(1, Ordering::Relaxed);
        // An odd factor spreads consecutive numbers over all digits and never repeats one.
        format!("{:016x}", (n ^ self.salt).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// From now on new work is refused, and groups are scored with the members that they have.
    pub fn drain(&self) {
        self.draining.cancel();
        cohorts::settle_all(self);
    }

    /// Whether the signal to stop came.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Ends the requests that still wait for a judge: soon nobody would hear of them.
    pub fn call_last(&self) {
        self.last_call.cancel();
    }

    /// Waits until there is no time left to wait for a judge.
    pub async fn last_call(&self) {
        self.last_call.cancelled().await;
    }

    /// Starts work that goes on though its client leaves, and that the end of the server waits for.
    pub(super) fn go_on(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.going_on.send_modify(|works| *works += 1);
        let counted = GoingOn(self.clone());
        tokio::spawn(async move {
            work.await;
            drop(counted);
        });
    }

    /// Waits until nothing of that is left.
    pub(super) async fn all_done(&self) {
        // The sender is there as long as this is.
        let _ = self.going_on.subscribe().wait_for(|works| *works == 0).await;
    }

    /// Refuses new work once the signal to stop came.
    ///
    /// # Errors
    /// 503.
    pub fn refuse_when_draining(&self) -> Result<(), Problem> {
        if self.is_draining() { Err(Problem::draining()) } else { Ok(()) }
    }
}

#[cfg(test)]
impl App {
    /// A server with the shipped rubrics and no judge.
    pub(crate) fn plain(store: Option<Store>) -> Self {
        let engine = Engine::new(crate::rubric::Catalog::open(None).unwrap(), 1 << 20);
        Self::new(engine, store, Config::default())
    }
}
