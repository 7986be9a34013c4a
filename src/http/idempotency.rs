//! `Idempotency-Key`: a repeat gets the stored answer, and concurrent repeats wait for the first.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use moka::future::Cache;

use super::error::Problem;
use super::kind::Kind;

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

/// A request that has no answer. Those that waited for it under its key hear why, if their body is the same.
struct Failed {
    body_hash: [u8; 32],
    problem: Problem,
}

/// Answers by key.
#[derive(Debug, Clone)]
pub struct Idempotency {
    answers: Cache<String, Arc<Answer>>,
}

impl Idempotency {
    /// Keeps at most this many bytes of answers in memory, each for a day. Older ones are in the store, if there is one.
    pub fn new(max_bytes: u64) -> Self {
        let weigh =
            |key: &String, answer: &Arc<Answer>| u32::try_from(key.len() + answer.body.len() + 64).unwrap_or(u32::MAX);
        let answers = Cache::builder().max_capacity(max_bytes).weigher(weigh).time_to_live(Duration::from_hours(24));
        Self { answers: answers.build() }
    }

    /// The answer of this key: the stored one, or the one that `make` gives. Of several at once one makes it.
    ///
    /// # Errors
    /// 409 when the key was used for another body, or is by a request that came before; otherwise the problem that `make`
    /// gave, which is not kept.
    pub async fn answer(
        &self,
        key: &str,
        body_hash: [u8; 32],
        make: impl Future<Output = Result<Arc<Answer>, Problem>>,
    ) -> Result<Bytes, Problem> {
        let make = async { make.await.map_err(|problem| Failed { body_hash, problem }) };
        match self.answers.try_get_with_by_ref(key, make).await {
            Ok(answer) if answer.body_hash == body_hash => return Ok(answer.body.clone()),
            Err(failed) if failed.body_hash == body_hash => return Err(failed.problem.clone()),
            Ok(_) | Err(_) => {}
        }
        let detail = format!("the idempotency key {key:?} was used for another body; use a new key");
        Err(Problem::new(Kind::IdempotencyConflict, detail))
    }
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
    async fn another_bodys_failure_is_no_answer() {
        let answers = Idempotency::new(1 << 20);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (fail, fails) = tokio::sync::oneshot::channel::<()>();
        let first = answers.answer("key", [1; 32], async {
            let _ = begun.send(());
            let _ = fails.await;
            Err(Problem::shape("/a", "the first one's"))
        });
        let later = async {
            begins.await.unwrap();
            let make = async { Ok(Arc::new(Answer { body_hash: [2; 32], body: Bytes::from_static(b"mine") })) };
            let other = answers.answer("key", [2; 32], make);
            let same = answers.answer("key", [1; 32], async { Err(Problem::internal("runs once only")) });
            let end = async { fail.send(()).unwrap() };
            let (other, same, ()) = tokio::join!(other, same, end);
            (other, same)
        };
        let (first, (other, same)) = tokio::join!(first, later);
        assert_eq!(first.unwrap_err().detail(), "the first one's");
        assert_eq!(same.unwrap_err().detail(), "the first one's");
        assert_eq!(other.unwrap_err().status(), axum::http::StatusCode::CONFLICT);
        let again = async { Ok(Arc::new(Answer { body_hash: [2; 32], body: Bytes::from_static(b"mine") })) };
        assert_eq!(answers.answer("key", [2; 32], again).await.unwrap(), "mine", "the failure is not kept");
    }
}
