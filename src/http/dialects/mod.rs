//! What existing trainers already send. One file per trainer: it reads its own body into items of the native request and
//! writes the native results in its own words. In between there is nothing but the way of `POST /reward`.
//!
//! [`serve`] is that way: options from the query, items, the engine (or a cohort, where the group counts), the answer.

mod classify;
mod docs;
mod eval_protocol;
mod fields;
mod graders;
mod label;
mod llama_factory;
mod nemo_gym;
mod openenv;
mod openrlhf;
mod options;
mod pipeline_rl;
mod prepare;
mod raw_item;
mod results;
mod slime;
mod trl;
mod unscored;
mod verl;

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::rejection::ExtensionRejection;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::{Extension, RequestExt};
use serde::Deserialize;
use tokio::sync::oneshot;

use self::options::Options;
use self::prepare::{GroupOfItems, Prepared, Refused, count, prepare};
use self::raw_item::RawItem;
use self::results::{Results, Scoring};
use self::unscored::Unscored;
use super::app::App;
use super::batch::{Due, Scored};
use super::cohorts::{self, CohortKey, Coming, Joining, MemberScores};
use super::error::Problem;
use super::handlers::json;
use super::idempotency::{self, Answer};
use super::kind::Kind;
use super::limits::AbandonOnDrop;
use super::scoring::{self, Job, by_size, in_time, log_untold, scoring_failed};
use super::telemetry::RequestId;
use super::wire::{OnInvalid, Pointed, read_as};
use crate::store::Idempotency;
use crate::toolcall::values_bytes;

pub(super) use classify::{__path_classify, __path_embeddings, classify, embeddings};
pub(super) use eval_protocol::{__path_evaluate, __path_reward, evaluate, reward};
pub(super) use graders::{__path_run_grader, __path_validate_grader, run_grader, validate_grader};
pub(super) use llama_factory::{__path_score_evaluation, score_evaluation};
pub(super) use nemo_gym::{
    __path_aggregate_metrics, __path_reverify_mode, __path_seed_session, __path_verify, aggregate_metrics,
    reverify_mode, seed_session, verify,
};
pub(super) use openenv::{__path_reset, __path_step, reset, step};
pub(super) use openrlhf::{__path_get_reward, get_reward};
pub(super) use options::Format;
pub(super) use pipeline_rl::{__path_verify_answer, verify_answer};
pub(super) use slime::{__path_score_sample, score_sample};
pub(super) use trl::{__path_score_columns, score_columns};
pub(super) use verl::{__path_compute_score, compute_score};

/// What a trainer sends and wants back.
trait Dialect: Sized + Send + Sync + 'static {
    /// What an item without a score gets where the query does not say.
    const ON_INVALID: OnInvalid;
    /// How long an answer may take where the query does not say, in milliseconds: less than its client waits, if that is known.
    const DEADLINE_MS: Option<u64> = None;
    /// The rubric where neither the query nor the body names one; `None` is the server's.
    const RUBRIC: Option<&'static str> = None;
    /// The body's list that has an entry for each item, where the answer has one for each though nothing was scored.
    const LIST: Option<&'static str> = None;
    /// Whether its client tries again whatever is not 200: where `on_invalid` is `error`, an item without a score is 503
    /// then, whether or not that may help.
    const RETRIES_ALL: bool = false;
    /// Whether the answer has the body in it, which is kept until then.
    const ECHOES: bool = false;

    /// Reads a body: what to remember for the answer, and the items.
    ///
    /// # Errors
    /// When the body as a whole is none of this dialect.
    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed>;

    /// The rubric that the body names.
    fn rubric(&self) -> Option<&str> {
        None
    }

    /// The trainer's step, where the body says it.
    fn step(&self) -> Option<u64> {
        None
    }

    /// How long the body gives the answer, in milliseconds; the query wins.
    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    /// The answer's JSON; `body` is empty where it is not echoed.
    fn write(&self, body: &str, results: &Results<'_>) -> Vec<u8>;

    /// The answer where there are no scores.
    ///
    /// # Errors
    /// The problem, where the client does well to hear of it.
    fn failed(problem: Problem, _unscored: &Unscored) -> Result<Response, Problem> {
        Err(problem)
    }
}

/// A request on its way to an answer.
struct Asked<D> {
    prepared: Prepared<D>,
    /// How long its body is.
    bytes: usize,
    arrived: Instant,
    due: Option<Due>,
    request_id: String,
}

/// A request as it comes to a dialect, which alone can say what is wrong with it.
pub(super) struct Incoming {
    app: App,
    id: RequestId,
    request: Request,
}

impl FromRequest<App> for Incoming {
    type Rejection = ExtensionRejection;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ExtensionRejection> {
        let Extension(id) = request.extract_parts().await?;
        Ok(Self { app: app.clone(), id, request })
    }
}

/// Answers a request in a dialect.
async fn serve<D: Dialect>(Incoming { app, id, request }: Incoming) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (mut items, request_id) = (0, id.0.clone());
    let answer = respond::<D>(&app, id, &parts, body, &mut items).await;
    answer.map(json).or_else(|problem| {
        let (kind, detail) = (problem.kind(), problem.detail().to_owned());
        let told = D::failed(problem, &unscored::<D>(&app, &parts.uri, items))?;
        // The status of the answer cannot say so.
        app.metrics.count_told_as_reward(kind);
        let (route, kind) = (parts.uri.path(), kind.name());
        tracing::warn!(request_id, route, kind, detail, "nothing was scored; the client was told so as a reward");
        Ok(told)
    })
}

/// Reads a request and answers it; tells how many items it has as soon as that is known.
async fn respond<D: Dialect>(
    app: &App,
    id: RequestId,
    parts: &Parts,
    body: Body,
    items: &mut usize,
) -> Result<Bytes, Problem> {
    let arrived = Instant::now();
    app.tokens.require_api(&parts.headers)?;
    app.refuse_when_draining()?;
    let mut admission = app.limits.admit(&parts.headers)?;
    // Before anything else is refused: that may be answered by 200 and an entry for each item.
    let body = admission.read(&parts.headers, body).await?;
    let (key, mut options) = match (idempotency::key(&parts.headers), Options::read(&parts.uri)) {
        (Ok(key), Ok(options)) => (key, options),
        (Err(problem), _) | (_, Err(problem)) => {
            *items = by_size(body.len(), move || Ok(count::<D>(&body))).await?;
            return Err(problem);
        }
    };
    options.settle(D::ON_INVALID, D::DEADLINE_MS);
    let bytes = body.len();
    let (promise, body) = match key {
        None => (None, body),
        Some(key) => {
            let uri = parts.uri.clone();
            let promise = move || Ok((Some(Idempotency { key, body_hash: hash(&uri, &body) }), body));
            by_size(bytes, promise).await?
        }
    };
    if let Some(promise) = &promise {
        // Before anything is read: a repeat costs no more than its hash.
        match app.idempotency.known(&promise.key, promise.body_hash).await {
            Ok(None) => {}
            Ok(Some(answer)) => return Ok(admission.hold(answer)),
            Err(problem) => {
                *items = by_size(bytes, move || Ok(count::<D>(&body))).await?;
                return Err(problem);
            }
        }
    }
    // However late it is: only then is it known for how many items there must be an entry, and scoring asks for the time.
    let prepared = match read::<D>(app, body, options).await {
        Ok(prepared) => prepared,
        Err(refused) => {
            *items = refused.items;
            return Err(refused.problem);
        }
    };
    *items = prepared.items.len();
    let due = app.limits.due(arrived, prepared.options.deadline_ms);
    let asked = Asked { prepared, bytes, arrived, due, request_id: id.0 };
    let Some(promise) = promise else { return Ok(admission.hold(answer(app, asked, None).await?)) };
    let work = app.clone();
    let (tell, told) = oneshot::channel();
    // On a task of its own: what is stored has an answer for whoever repeats the request, though its client left or heard
    // that it is late. What the client's deadline bounds is how long that one waits.
    app.go_on(async move {
        let request_id = asked.request_id.clone();
        let answered = repeatable(&work, asked, &promise).await;
        if let Err((Err(problem), _)) = tell.send((answered, admission)) {
            log_untold(&request_id, &problem);
        }
    });
    let answered = async { told.await.map_err(|_| scoring_failed()) };
    let (answered, admission) = in_time(due, Problem::answered_late, answered).await?;
    Ok(admission.hold(answered?))
}

/// Answers from memory where the key is known, and scores otherwise.
async fn repeatable<D: Dialect>(app: &App, asked: Asked<D>, promise: &Idempotency) -> Result<Bytes, Problem> {
    // In a place of its own: whoever waits for it would be as large as it is, more than once.
    let make = Box::pin(async {
        let body = answer(app, asked, Some(promise)).await?;
        Ok(Arc::new(Answer { body_hash: promise.body_hash, body }))
    });
    app.idempotency.answer(&promise.key, promise.body_hash, make).await
}

/// What is known of a request that has no scores.
fn unscored<D: Dialect>(app: &App, uri: &Uri, items: usize) -> Unscored {
    let mut options = Options::readable(uri);
    options.settle(D::ON_INVALID, D::DEADLINE_MS);
    let name = options.rubric.as_deref().or(D::RUBRIC).unwrap_or(&app.engine.default_rubric);
    let rubric = app.engine.catalog.get(name);
    Unscored { items, options, rubric }
}

/// Scores a body and writes the answer.
async fn answer<D: Dialect>(app: &App, asked: Asked<D>, promise: Option<&Idempotency>) -> Result<Bytes, Problem> {
    let bytes = asked.bytes;
    // What is at fault has its place in the native request, which the client never saw.
    let (prepared, scores) = score(app, asked, promise).await.map_err(Problem::without_pointer)?;
    by_size(bytes, move || {
        let results = Results::new(&prepared, &scores)?;
        Ok(prepared.dialect.write(&prepared.body, &results).into())
    })
    .await
}

/// What a key stands for: the query chooses as much as the body does.
fn hash(uri: &Uri, body: &str) -> [u8; 32] {
    let url = uri.path_and_query().map_or("", |url| url.as_str());
    let mut hasher = blake3::Hasher::new();
    hasher.update(url.as_bytes()).update(b"\0").update(body.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Reads a body, on the work threads where that takes long.
async fn read<D: Dialect>(app: &App, body: String, options: Options) -> Result<Prepared<D>, Refused> {
    let app = app.clone();
    by_size(body.len(), move || Ok(prepare(&app, body, options))).await?
}

/// Scores the items: at once where each stands for itself, else each with its group.
async fn score<D>(
    app: &App,
    asked: Asked<D>,
    promise: Option<&Idempotency>,
) -> Result<(Prepared<D>, Vec<Scoring>), Problem> {
    let Asked { mut prepared, arrived, due, request_id, .. } = asked;
    let groups = prepared.take_groups();
    if !groups.is_empty() {
        let coming = Coming { arrived, due, request_id, patient: promise.is_some() };
        let scores = score_in_groups(app, &prepared, groups, &coming).await?;
        return Ok((prepared, scores));
    }
    let gone = AbandonOnDrop::default();
    let job = Job {
        items: prepared.places(),
        body: prepared.take_request(),
        arrived: None,
        // Whoever repeats a request with a key has more time than its first client.
        due: if promise.is_some() { app.limits.due(arrived, None) } else { due },
        request_id,
        idempotency: promise.cloned(),
        all_valid: prepared.options.on_invalid() == OnInvalid::Error,
        facts: true,
        abandoned: gone.0.clone(),
    };
    let scored = match promise {
        None => scoring::score(app, job).await?,
        Some(promise) => score_once(app, job, promise).await?,
    };
    let scored = Arc::new(scored);
    let scores = (0..prepared.items.len()).map(|row| Scoring { scored: scored.clone(), row }).collect();
    Ok((prepared, scores))
}

/// Scores a request with a key, and waits until the scores are stored. Where the store has the key already, from another
/// server or from before a restart, it has these scores: they are the answer, and are neither stored nor counted again.
async fn score_once(app: &App, job: Job, promise: &Idempotency) -> Result<Scored, Problem> {
    let mut storing = scoring::begin(app, job).await?;
    match storing.stored().await {
        Err(taken) if taken.kind() == Kind::IdempotencyConflict => {
            let Some(store) = &app.store else { return Err(taken) };
            match store.idempotent(&promise.key).await? {
                Some(stored) if stored.body_hash == promise.body_hash => {}
                _ => return Err(idempotency::conflict(&promise.key)),
            }
        }
        stored => stored?,
    }
    Ok(storing.scored)
}

/// Every group of the request waits for its members elsewhere; the request waits for all its groups.
async fn score_in_groups<D>(
    app: &App,
    prepared: &Prepared<D>,
    mut groups: Vec<GroupOfItems>,
    coming: &Coming,
) -> Result<Vec<Scoring>, Problem> {
    let joining = groups.iter_mut().map(|group| {
        let key = CohortKey { envelope: prepared.envelope.clone(), group: group.name.clone() };
        let joining = Joining {
            items: std::mem::take(&mut group.text),
            count: group.members.len(),
            size: group.size,
            patience: prepared.options.patience(coming.due),
            request: coming.clone(),
        };
        cohorts::join(app, key, joining)
    });
    let shares = all(joining.collect()).await?;
    let mut places: Vec<Option<Scoring>> = (0..prepared.items.len()).map(|_| None).collect();
    for (group, MemberScores { scored, first }) in groups.iter().zip(shares) {
        for (row, member) in (first..).zip(&group.members) {
            if let Some(place) = places.get_mut(*member) {
                *place = Some(Scoring { scored: scored.clone(), row });
            }
        }
    }
    places.into_iter().collect::<Option<_>>().ok_or_else(|| Problem::internal("an item was lost; please report this"))
}

/// Waits for all, in order; they run side by side.
async fn all<T, E>(futures: Vec<impl Future<Output = Result<T, E>>>) -> Result<Vec<T>, E> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, place) in running.iter_mut().zip(&mut done).filter(|(_, place)| place.is_none()) {
            if let std::task::Poll::Ready(result) = future.as_mut().poll(context) {
                match result {
                    Ok(value) => *place = Some(value),
                    Err(error) => return std::task::Poll::Ready(Err(error)),
                }
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
    })
    .await?;
    Ok(done.into_iter().flatten().collect())
}

/// Most bytes of memory for the values in a body of a dialect that reads it as values.
const MAX_VALUES_BYTES: usize = 64 << 20;

/// Reads a body's object, all of whose values are kept; what keeps little is read by [`read_as`].
fn object<'b, T: Deserialize<'b>>(body: &'b str) -> Result<T, Pointed> {
    if values_bytes(body, MAX_VALUES_BYTES).is_none() {
        let message = format!("too many values: they take more than {} MiB of memory", MAX_VALUES_BYTES >> 20);
        return Err(Pointed::shape("", message));
    }
    read_as(body)
}

/// A problem that is told as a reward, for clients that try again whatever is not 200: where that cannot help, and nobody
/// asked for errors.
///
/// # Errors
/// The problem, where it is told as one.
fn as_reward(problem: Problem, unscored: &Unscored) -> Result<Problem, Problem> {
    if unscored.options.on_invalid() == OnInvalid::Error || !is_permanent(&problem) {
        return Err(problem);
    }
    Ok(problem)
}

/// Whether trying again cannot help: what clients that retry everything must not be told by a status.
fn is_permanent(problem: &Problem) -> bool {
    matches!(
        problem.status(),
        StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
    )
}
