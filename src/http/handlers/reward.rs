//! `POST /reward`: lets the request in, has it scored, and answers; once more from memory where a key says so.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::handlers::{json, refuse_query};
use crate::http::idempotency::{self, Answer};
use crate::http::limits::{AbandonOnDrop, require_json};
use crate::http::schema::{RewardRequestDoc, RewardResponseDoc};
use crate::http::scoring::{self, Job, by_size};
use crate::http::telemetry::RequestId;
use crate::store::Idempotency;

/// Score trajectories.
///
/// Results come in request order. One bad item never fails its batch: it gets `valid: false` and an entry in `errors`.
/// The same request with the same rubric version and curriculum position gives the same rewards, bit for bit.
#[utoipa::path(
    post, path = "/reward", tag = "scoring", operation_id = "score_trajectories",
    params(
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256, description = "A repeat with the same key returns the stored answer without scoring or counting it again."),
        ("X-Request-Id" = Option<String>, Header, description = "Names the request in logs and in the response; made where absent."),
    ),
    request_body(content = RewardRequestDoc, description = "Trajectories with what to score them by. May be gzip or zstd encoded."),
    responses(
        (status = 200, description = "Scored, in request order", body = RewardResponseDoc),
        (status = 400, description = "Not JSON, not UTF-8, or parameters in the URL", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 401, description = "A token is needed", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 403, description = "The token is wrong, or inline rubrics are off", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 404, description = "No such rubric", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 409, description = "The idempotency key was used for another body", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 415, description = "The content type or encoding is not supported", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 422, description = "The request has the wrong shape, or an item could not be scored and `on_invalid` is `error`", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 429, description = "Too much is in flight; see Retry-After", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 503, description = "Draining, the store failed, or the judge is down and `on_invalid` is `error`; see Retry-After", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
        (status = 504, description = "The deadline passed", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn score_trajectories(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    app.tokens.require_api(&parts.headers)?;
    app.refuse_when_draining()?;
    refuse_query(&parts.uri)?;
    require_json(&parts.headers)?;
    let key = idempotency::key(&parts.headers)?;
    let mut admission = app.limits.admit(&parts.headers)?;
    let body = admission.read(&parts.headers, body).await?;
    let answer = match key {
        None => score(&app, body, arrived, id.0, None).await?,
        Some(key) => repeatable(&app, body, arrived, id.0, &key).await?,
    };
    Ok(json(admission.hold(answer)))
}

/// Answers from memory or the store where the key is known, and scores otherwise.
async fn repeatable(app: &App, body: String, arrived: Instant, id: String, key: &str) -> Result<Bytes, Problem> {
    let bytes = body.len();
    let hash = move || Ok((*blake3::hash(body.as_bytes()).as_bytes(), body));
    let (body_hash, body) = by_size(bytes, hash).await?;
    // In a place of its own: whoever waits for it would be as large as it is, more than once.
    let make = Box::pin(async {
        if let Some(answer) = stored(app, key).await? {
            return Ok(answer);
        }
        let promise = Idempotency { key: key.to_owned(), body_hash, status: 200 };
        match score(app, body, arrived, id, Some(promise)).await {
            Ok(body) => Ok(Arc::new(Answer { body_hash, body })),
            // Another one was faster: a server on the same database, or this one for a client that went away.
            Err(problem) => match stored(app, key).await? {
                Some(answer) => Ok(answer),
                None => Err(problem),
            },
        }
    });
    app.idempotency.answer(key, body_hash, make).await
}

/// The answer that the store has under a key.
async fn stored(app: &App, key: &str) -> Result<Option<Arc<Answer>>, Problem> {
    let Some(store) = &app.store else { return Ok(None) };
    let stored = store.idempotent(key).await?;
    Ok(stored.map(|stored| Arc::new(Answer { body_hash: stored.body_hash, body: stored.response.into() })))
}

/// Scores a body; the answer is the engine's own.
async fn score(
    app: &App,
    body: String,
    arrived: Instant,
    request_id: String,
    idempotency: Option<Idempotency>,
) -> Result<Bytes, Problem> {
    let gone = AbandonOnDrop::default();
    let job =
        Job { body, arrived, request_id, idempotency, items: Vec::new(), facts: false, abandoned: gone.0.clone() };
    Ok(Bytes::from(scoring::score(app, job).await?.body))
}
