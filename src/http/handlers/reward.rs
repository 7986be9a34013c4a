//! `POST /reward`: lets the request in, has it scored, and answers; once more from memory where a key says so.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::handlers::{json, let_in, refuse_query};
use crate::http::idempotency::{self, Answer};
use crate::http::kind::Kind;
use crate::http::limits::{AbandonOnDrop, require_json};
use crate::http::schema::{RewardRequestDoc, RewardResponseDoc};
use crate::http::scoring::{self, Job, by_size, in_time};
use crate::http::telemetry::RequestId;
use crate::http::wire::early_deadline_ms;
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
        (status = 400, description = "Not JSON, not UTF-8, or parameters in the URL"),
        (status = 403, description = "The token is wrong, or inline rubrics are off"),
        (status = 409, description = "The idempotency key was used for another body"),
        (status = 503, description = "Draining, the store failed, or the judge is down and `on_invalid` is `error`; see Retry-After"),
    )
)]
pub(crate) async fn score_trajectories(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let arrived = Instant::now();
    let (parts, body) = let_in(&app, request)?;
    refuse_query(&parts.uri)?;
    require_json(&parts.headers)?;
    let key = idempotency::key(&parts.headers)?;
    let mut admission = app.limits.admit(&parts.headers)?;
    let body = admission.read(&parts.headers, body).await?;
    let gone = AbandonOnDrop::default();
    let job = Job {
        due: app.limits.due(arrived, early_deadline_ms(&body)),
        body,
        arrived: Some(arrived),
        request_id: id.0,
        abandoned: gone.0.clone(),
        // Where `on_invalid` is `error`, nothing is stored of what is one.
        ..Job::default()
    };
    let answer = match key {
        None => scoring::score(&app, job).await?.body.into(),
        Some(key) => repeatable(&app, job, &key).await?,
    };
    Ok(json(admission.hold(answer)))
}

/// Answers from memory or the store where the key is known, and scores otherwise.
async fn repeatable(app: &App, job: Job, key: &str) -> Result<Bytes, Problem> {
    let (due, bytes) = (job.due, job.body.len());
    let hash = move || Ok((*blake3::hash(job.body.as_bytes()).as_bytes(), job));
    let (body_hash, job) = in_time(due, Problem::scored_late, by_size(bytes, hash)).await?;
    // In a place of its own: whoever waits for it would be as large as it is, more than once.
    let make = Box::pin(async {
        if let Some(answer) = in_time(due, Problem::scored_late, stored(app, key)).await? {
            return Ok(answer);
        }
        let promise = Idempotency { key: key.to_owned(), body_hash };
        match scoring::score(app, Job { idempotency: Some(promise), ..job }).await {
            Ok(scored) => Ok(Arc::new(Answer { body_hash, body: scored.body.into() })),
            // Another one was faster: a server on the same database, or this one for a client that went away.
            Err(problem) => match in_time(due, Problem::scored_late, stored(app, key)).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => Err(problem),
                // What was late first says more.
                Err(_) if problem.kind() == Kind::Deadline => Err(problem),
                Err(error) => Err(error),
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
