//! `Idempotency-Key`: a repeat gets the stored answer, and concurrent repeats wait for the first.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use moka::future::Cache;

use super::error::Problem;
use super::kind::Kind;
use crate::locks;

/// Longest key.
const MAX_KEY_BYTES: usize = 256;

/// An answer that may be given again.
#[derive(Debug)]
pub struct Answer {
    /// Hash of the body that it answers.
    pub body_hash: [u8; 32],
    /// The response's body.
    pub body: Bytes,
}

/// Answers by key.
#[derive(Debug, Clone)]
pub struct Idempotency {
    answers: Cache<String, Arc<Answer>>,
    in_flight: Arc<InFlight>,
}

/// The keys of requests that have no answer yet.
#[derive(Debug, Default)]
struct InFlight(Mutex<HashMap<String, SameBody>>);

/// Requests of one key with one body.
#[derive(Debug)]
struct SameBody {
    hash: [u8; 32],
    requests: usize,
}

/// One request among those in flight, until it is dropped.
struct Flight<'a> {
    all: &'a InFlight,
    key: &'a str,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, SameBody>> {
        locks::lock(&self.0)
    }

    /// Counts a request; `None` where the key is taken by one with another body.
    fn enter<'a>(&'a self, key: &'a str, hash: [u8; 32]) -> Option<Flight<'a>> {
        let mut keys = self.lock();
        let same = keys.entry(key.to_owned()).or_insert(SameBody { hash, requests: 0 });
        if same.hash != hash {
            return None;
        }
        same.requests += 1;
        Some(Flight { all: self, key })
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut keys = self.all.lock();
        if let Some(same) = keys.get_mut(self.key) {
            same.requests -= 1;
            if same.requests == 0 {
                keys.remove(self.key);
            }
        }
    }
}

impl Idempotency {
    /// Keeps at most this many bytes of answers in memory, each for a day. Older ones are in the store, if there is one.
    pub fn new(max_bytes: u64) -> Self {
        let weigh =
            |key: &String, answer: &Arc<Answer>| u32::try_from(key.len() + answer.body.len() + 64).unwrap_or(u32::MAX);
        let answers = Cache::builder().max_capacity(max_bytes).weigher(weigh).time_to_live(Duration::from_hours(24));
        Self { answers: answers.build(), in_flight: Arc::default() }
    }

    /// The answer of this key, where one is in memory.
    ///
    /// # Errors
    /// 409 when the key was used for another body, or is at this moment.
    pub async fn known(&self, key: &str, body_hash: [u8; 32]) -> Result<Option<Bytes>, Problem> {
        if self.in_flight.lock().get(key).is_some_and(|same| same.hash != body_hash) {
            return Err(conflict(key));
        }
        match self.answers.get(key).await {
            Some(answer) if answer.body_hash != body_hash => Err(conflict(key)),
            answer => Ok(answer.map(|answer| answer.body.clone())),
        }
    }

    /// The answer of this key: the stored one, or the one that `make` gives. Of several at once one makes it.
    ///
    /// # Errors
    /// 409 when the key was used for another body, or is at this moment; otherwise the problem that `make` gave, which is not
    /// kept.
    pub async fn answer(
        &self,
        key: &str,
        body_hash: [u8; 32],
        make: impl Future<Output = Result<Arc<Answer>, Problem>>,
    ) -> Result<Bytes, Problem> {
        // At once: another body's answer may be long in coming, and is none for this one.
        let Some(_flight) = self.in_flight.enter(key, body_hash) else { return Err(conflict(key)) };
        match self.answers.try_get_with_by_ref(key, make).await {
            Ok(answer) if answer.body_hash == body_hash => Ok(answer.body.clone()),
            Ok(_) => Err(conflict(key)),
            Err(problem) => Err((*problem).clone()),
        }
    }
}

/// The key stands for another request.
pub(super) fn conflict(key: &str) -> Problem {
    let detail = format!("the idempotency key {key:?} was used for another body; use a new key");
    Problem::new(Kind::IdempotencyConflict, detail)
}

/// The key of a request, if it has one.
///
/// # Errors
/// 400 when it is empty, too long or not printable.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_BYTES => Ok(Some(key.to_owned())),
        _ => {
            let detail = format!("an Idempotency-Key has 1 to {MAX_KEY_BYTES} printable ASCII characters");
            Err(Problem::new(Kind::BadKey, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks with a body that fails after a while, and meanwhile with another body under the same key.
    #[tokio::test]
    async fn another_body_waits_for_no_answer() {
        let answers = Idempotency::new(1 << 20);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (fail, fails) = tokio::sync::oneshot::channel::<()>();
        let first = answers.answer("key", [1; 32], async {
            let _ = begun.send(());
            let _ = fails.await;
            Err(Problem::shape("/a", "the first one's"))
        });
        let mine = || async { Ok(Arc::new(Answer { body_hash: [2; 32], body: Bytes::from_static(b"mine") })) };
        let later = async {
            begins.await.unwrap();
            let other = answers.answer("key", [2; 32], mine()).await;
            let same = answers.answer("key", [1; 32], async { Err(Problem::internal("runs once only")) });
            let end = async { fail.send(()).unwrap() };
            let (same, ()) = tokio::join!(same, end);
            (other, same)
        };
        let (first, (other, same)) = tokio::join!(first, later);
        assert_eq!(other.unwrap_err().status(), axum::http::StatusCode::CONFLICT);
        assert_eq!(first.unwrap_err().detail(), "the first one's");
        assert_eq!(same.unwrap_err().detail(), "the first one's");
        assert_eq!(answers.answer("key", [2; 32], mine()).await.unwrap(), "mine", "the failure is not kept");
        let other = answers.answer("key", [1; 32], async { Err(Problem::internal("is answered already")) }).await;
        assert_eq!(other.unwrap_err().status(), axum::http::StatusCode::CONFLICT);
        assert!(answers.in_flight.lock().is_empty());
    }

    /// Whoever gives up leaves nothing behind.
    #[tokio::test]
    async fn a_request_that_goes_away_frees_its_key() {
        let answers = Idempotency::new(1 << 20);
        let never = answers.answer("key", [1; 32], std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(1), never).await.is_err());
        let make = async { Ok(Arc::new(Answer { body_hash: [2; 32], body: Bytes::from_static(b"mine") })) };
        assert_eq!(answers.answer("key", [2; 32], make).await.unwrap(), "mine");
    }
}
