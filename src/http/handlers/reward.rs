//! `POST /reward`: lets the request in, scores it on the work threads, stores the scores, answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::app::App;
use crate::http::batch::{Overrides, Scored, Stop};
use crate::http::error::Problem;
use crate::http::idempotency::{self, Answer};
use crate::http::limits::{AbandonOnDrop, require_json};
use crate::http::schema::{RewardRequestDoc, RewardResponseDoc};
use crate::http::telemetry::RequestId;
use crate::judge::Session;
use crate::store::{Batch, BatchId, Compressed, Idempotency, ScoreRow, StageTally, StoreError};

/// Score trajectories.
///
/// Results come in request order. One bad item never fails its batch: it gets `valid: false` and an entry in `errors`.
/// The same request with the same rubric version and curriculum position gives the same rewards, bit for bit.
#[utoipa::path(
    post, path = "/reward", tag = "scoring", operation_id = "score_trajectories",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key returns the stored answer without scoring or counting it again."),
        ("X-Request-Id" = Option<String>, Header, description = "Names the request in logs and in the response; made where absent."),
    ),
    request_body(content = RewardRequestDoc, description = "Trajectories with what to score them by. May be gzip or zstd encoded."),
    responses(
        (status = 200, description = "Scored, in request order", body = RewardResponseDoc),
        (status = 400, description = "Not JSON, or not UTF-8", body = crate::http::error::ProblemWire, content_type = "application/problem+json"),
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
    require_json(&parts.headers)?;
    let key = idempotency::key(&parts.headers)?;
    let mut admission = app.limits.admit(&parts.headers)?;
    let body = admission.read(&parts.headers, body).await?;
    let answer = match key {
        None => score(&app, body, arrived, id.0, None).await?,
        Some(key) => repeatable(&app, body, arrived, id.0, &key).await?,
    };
    Ok(json(answer))
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Answers from memory or the store where the key is known, and scores otherwise.
async fn repeatable(app: &App, body: String, arrived: Instant, id: String, key: &str) -> Result<Bytes, Problem> {
    let body_hash = *blake3::hash(body.as_bytes()).as_bytes();
    let make = async {
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
    };
    app.idempotency.answer(key, body_hash, make).await
}

/// The answer that the store has under a key.
async fn stored(app: &App, key: &str) -> Result<Option<Arc<Answer>>, Problem> {
    let Some(store) = &app.store else { return Ok(None) };
    let stored = store.idempotent(key).await?;
    Ok(stored.map(|stored| Arc::new(Answer { body_hash: stored.body_hash, body: stored.response.into() })))
}

/// Scores a body and makes the scores durable.
async fn score(
    app: &App,
    body: String,
    arrived: Instant,
    request_id: String,
    idempotency: Option<Idempotency>,
) -> Result<Bytes, Problem> {
    let abandoned = AbandonOnDrop::default();
    let stop = Stop {
        arrived: Some(arrived),
        max_ms: Some(app.limits.config.max_deadline_ms),
        abandoned: abandoned.0.clone(),
        ..Stop::default()
    };
    let batch_id = app.store.as_ref().map(|store| store.next_id(app.now_ms()));
    let stamp = batch_id.map(|id| Stamp { id, request_id, created_at_ms: app.now_ms(), idempotency });
    let mut pass = Pass { body, stamp, stop, session: Session::default() };
    let (scored, batch) = loop {
        let work = app.clone();
        let (result, back) = on_work_threads(move || Ok((pass.run(&work), pass))).await?;
        pass = back;
        // A result with questions left open is none.
        if !pass.session.put_to(&app.engine.judges, pass.stop.judges_answer_by.get().copied()).await {
            break result?;
        }
    };
    if let (Some(store), Some(batch)) = (&app.store, batch) {
        store.append(batch).await?;
    }
    app.metrics.count(&scored);
    Ok(Bytes::from(scored.body))
}

/// What names a stored batch.
#[derive(Clone)]
struct Stamp {
    id: BatchId,
    request_id: String,
    created_at_ms: i64,
    idempotency: Option<Idempotency>,
}

/// A request on its way through scoring, which goes over it again when its judges have answered.
struct Pass {
    body: String,
    stamp: Option<Stamp>,
    stop: Stop,
    session: Session,
}

impl Pass {
    fn run(&self, app: &App) -> Result<(Scored, Option<Batch>), Problem> {
        let batch_id = self.stamp.as_ref().map(|stamp| stamp.id.to_string());
        let overrides = Overrides { batch_id: batch_id.as_deref(), ..Overrides::default() };
        let scored = app.engine.score(&self.body, &overrides, &self.stop, &self.session)?;
        // Nothing to keep of an empty batch, but for the promise of its key; nor of one that is not done.
        let kept =
            |stamp: &&Stamp| !self.session.has_questions() && (!scored.rows.is_empty() || stamp.idempotency.is_some());
        let stamp = self.stamp.as_ref().filter(kept);
        let batch = stamp.map(|stamp| self.to_batch(app, &scored, stamp.clone())).transpose()?;
        Ok((scored, batch))
    }

    /// Packs a scored request for the store; on the work threads, since it compresses.
    fn to_batch(&self, app: &App, scored: &Scored, stamp: Stamp) -> Result<Batch, StoreError> {
        let settings = &scored.settings;
        let stage = |index: Option<usize>| {
            index.and_then(|index| settings.rubric.stages.get(index)).map(|stage| stage.name.to_string().into())
        };
        let keep = app.store.as_ref().is_some_and(crate::store::Store::keeps_trajectories);
        let judges = self.session.judges_asked();
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Ok(Batch {
            id: stamp.id,
            request_id: stamp.request_id,
            created_at_ms: stamp.created_at_ms,
            run_id: settings.run_id.clone(),
            step: settings.position.step.and_then(|step| i64::try_from(step).ok()),
            position: position_json(settings),
            rubric_name: settings.rubric.name.to_string(),
            rubric_hash: settings.rubric.hash.to_string(),
            rubric_json: settings.rubric.json.clone(),
            engine_version: env!("CARGO_PKG_VERSION"),
            judges: (!judges.is_empty()).then(|| serde_json::json!(judges).to_string()),
            request: keep.then(|| Compressed::new(self.body.as_bytes())).transpose()?,
            response: Compressed::new(&scored.body)?,
            idempotency: stamp.idempotency,
            scores: scored
                .rows
                .iter()
                .map(|row| ScoreRow {
                    trajectory_id: row.id.clone(),
                    group: row.group.clone(),
                    reward: row.reward,
                    valid: row.valid,
                    stage_reached: stage(row.stage_reached),
                    failed_stage: stage(row.failed_stage),
                    content_hash: row.content_hash,
                    result: offset(row.result.start)..offset(row.result.end),
                })
                .collect(),
            stages: settings
                .rubric
                .stages
                .iter()
                .zip(&scored.tallies)
                .map(|(stage, tally)| StageTally {
                    stage: stage.name.to_string().into(),
                    reached: tally.reached,
                    passed: tally.passed,
                    score_sum: tally.score_sum,
                })
                .collect(),
        })
    }
}

fn position_json(settings: &crate::http::batch::Settings) -> String {
    serde_json::json!({"step": settings.position.step, "mastery": settings.position.mastery}).to_string()
}

/// Runs blocking work on rayon's threads. A panic there is a bug of ours, and one failed request, not a dead server.
pub(crate) async fn on_work_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let (answer, wait) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
    });
    match wait.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(Problem::internal("scoring failed; please report this with the request")),
    }
}
