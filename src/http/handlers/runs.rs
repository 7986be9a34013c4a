//! `/runs` and `/scores`: what was scored before.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::http::app::App;
use crate::http::error::{Problem, ProblemWire};
use crate::http::kind::Kind;
use crate::store::{self, DEFAULT_WINDOW, Filter, ScoreId, Store, StoreError};

/// A training run at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"run_id": "exp-17", "n": 512, "valid": 510, "mean_reward": 0.61, "min_reward": 0.1, "max_reward": 1.0,
    "first_created_at_ms": 1_750_000_000_000_i64, "last_created_at_ms": 1_750_000_600_000_i64, "last_step": 120, "rubric_versions": ["b3-5f0c1e9a"]}))]
pub(crate) struct RunSummary {
    /// Name of the run.
    run_id: String,
    /// Scores.
    n: u64,
    /// Valid scores.
    valid: u64,
    /// Mean reward of the valid scores.
    mean_reward: Option<f64>,
    /// Smallest reward of the valid scores.
    min_reward: Option<f64>,
    /// Largest reward of the valid scores.
    max_reward: Option<f64>,
    /// When its first batch was scored, in Unix milliseconds.
    first_created_at_ms: i64,
    /// When its last batch was scored, in Unix milliseconds.
    last_created_at_ms: i64,
    /// The largest step seen.
    last_step: Option<i64>,
    /// Versions of the rubrics it was scored with.
    rubric_versions: Vec<String>,
}

impl From<store::RunSummary> for RunSummary {
    fn from(run: store::RunSummary) -> Self {
        Self {
            run_id: run.run_id,
            n: run.n,
            valid: run.valid,
            mean_reward: run.mean_reward,
            min_reward: run.min_reward,
            max_reward: run.max_reward,
            first_created_at_ms: run.first_created_at_ms,
            last_created_at_ms: run.last_created_at_ms,
            last_step: run.last_step,
            rubric_versions: run.rubric_hashes.iter().map(|hash| version(hash)).collect(),
        }
    }
}

/// A page of runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"items": [{"run_id": "exp-17", "n": 512, "valid": 510, "mean_reward": 0.61, "min_reward": 0.1, "max_reward": 1.0, "first_created_at_ms": 1_750_000_000_000_i64, "last_created_at_ms": 1_750_000_600_000_i64, "last_step": 120, "rubric_versions": ["b3-5f0c1e9a"]}], "next_cursor": null}))]
pub(crate) struct RunPage {
    /// Runs, the latest started first.
    items: Vec<RunSummary>,
    /// Pass it as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// A training run with its mastery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"run_id": "exp-17", "n": 512, "valid": 510, "mean_reward": 0.61, "min_reward": 0.1, "max_reward": 1.0, "first_created_at_ms": 1_750_000_000_000_i64, "last_created_at_ms": 1_750_000_600_000_i64, "last_step": 120, "rubric_versions": ["b3-5f0c1e9a"], "mastery": {"tool_parse": 0.96875}, "recent": {"steps": 10, "valid": 640, "stages": [{"stage": "tool_parse", "reached": 640, "passed": 620, "pass_rate": 0.96875, "mean_score": 0.98}]}, "overall": {"steps": 10, "valid": 640, "stages": [{"stage": "tool_parse", "reached": 640, "passed": 620, "pass_rate": 0.96875, "mean_score": 0.98}]}}))]
pub(crate) struct RunDetail {
    /// The run at a glance.
    #[serde(flatten)]
    summary: RunSummary,
    /// Pass rate per stage over the latest steps, or over the whole run where its requests name no step: send it back as
    /// `curriculum.mastery`.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    mastery: std::collections::BTreeMap<String, f64>,
    /// The latest steps, stage by stage.
    recent: Mastery,
    /// The whole run, stage by stage.
    overall: Mastery,
}

/// How well a run does at each stage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"steps": 10, "valid": 640, "stages": [{"stage": "tool_parse", "reached": 640, "passed": 620, "pass_rate": 0.96875, "mean_score": 0.98}]}))]
pub(crate) struct Mastery {
    /// How many steps it covers.
    steps: u64,
    /// Valid scores in them.
    valid: u64,
    /// One entry per stage.
    stages: Vec<StageMastery>,
}

/// How well a run does at one stage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"stage": "tool_parse", "reached": 640, "passed": 620, "pass_rate": 0.96875, "mean_score": 0.98}))]
pub(crate) struct StageMastery {
    /// Name of the stage.
    stage: String,
    /// Trajectories that reached it.
    reached: u64,
    /// Trajectories that passed it.
    passed: u64,
    /// `passed` over the valid scores, from 0 to 1.
    pass_rate: Option<f64>,
    /// Mean score of those that reached it, from 0 to 1.
    mean_score: Option<f64>,
}

impl From<store::Mastery> for Mastery {
    fn from(mastery: store::Mastery) -> Self {
        let stage = |stage: store::StageMastery| StageMastery {
            stage: stage.stage,
            reached: stage.reached,
            passed: stage.passed,
            pass_rate: stage.pass_rate,
            mean_score: stage.mean_score,
        };
        Self { steps: mastery.steps, valid: mastery.valid, stages: mastery.stages.into_iter().map(stage).collect() }
    }
}

/// A stored score without its result.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"score_id": "0000018b2c3d4e5f-0", "id": "q42-r3", "group": "q42", "reward": 0.93, "valid": true,
    "stage_reached": "la_bleu", "failed_stage": null, "content_hash": "00112233445566778899aabbccddeeff", "step": 120,
    "created_at_ms": 1_750_000_000_000_i64}))]
pub(crate) struct ScoreRow {
    /// Names the score.
    score_id: String,
    /// The client's id of the trajectory.
    id: Option<String>,
    /// The group it belongs to.
    group: Option<String>,
    /// The reward as it was sent.
    reward: Option<f64>,
    /// Whether it could be scored.
    valid: bool,
    /// The last stage that was reached.
    stage_reached: Option<String>,
    /// The stage that failed.
    failed_stage: Option<String>,
    /// Hash of the trajectory, 32 hex digits.
    content_hash: String,
    /// The trainer's step.
    step: Option<i64>,
    /// When it was scored, in Unix milliseconds.
    created_at_ms: i64,
}

impl From<store::StoredRow> for ScoreRow {
    fn from(store::StoredRow { id, score, step, created_at_ms }: store::StoredRow) -> Self {
        Self {
            score_id: id.to_string(),
            id: score.trajectory_id,
            group: score.group,
            reward: score.reward,
            valid: score.valid,
            stage_reached: score.stage_reached,
            failed_stage: score.failed_stage,
            content_hash: score.content_hash.to_string(),
            step,
            created_at_ms,
        }
    }
}

/// A page of scores.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"items": [{"score_id": "0000018b2c3d4e5f-0", "id": "q42-r3", "group": "q42", "reward": 0.93, "valid": true, "stage_reached": "la_bleu", "failed_stage": null, "content_hash": "00112233445566778899aabbccddeeff", "step": 120, "created_at_ms": 1_750_000_000_000_i64}], "next_cursor": null}))]
pub(crate) struct ScorePage {
    /// Scores, the oldest first. A page may be short, even empty, before the end.
    items: Vec<ScoreRow>,
    /// Pass it as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// A stored score with its result and all that it depended on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"score_id": "0000018b2c3d4e5f-0", "id": "q42-r3", "group": "q42", "reward": 0.93, "valid": true, "stage_reached": "la_bleu", "failed_stage": null, "content_hash": "00112233445566778899aabbccddeeff", "step": 120, "created_at_ms": 1_750_000_000_000_i64, "run_id": "exp-17", "request_id": "0193a1b2c3d4e5f6", "rubric": "short_form_qa", "rubric_version": "b3-5f0c1e9a", "engine_version": "0.1.0", "curriculum": {"step": 120, "mastery": {}}, "result": {"id": "q42-r3", "group": "q42", "score_id": "0000018b2c3d4e5f-0", "reward": 0.93, "valid": true, "stage_reached": "la_bleu",
    "failed_stage": null, "reason": null,
    "stages": [{"name": "tool_parse", "score": 1.0, "weight": 0.1, "threshold": 1.0, "open": true, "passed": true, "detail": {"attempts": 1.0, "malformed": 0.0}}],
    "metrics": {"tool_parse": 1.0}, "components": {"tool_parse": 0.1},
    "tool_calls": [{"message": 2, "index": 0, "span": [17, 99], "name": "search", "arguments": {"query": "capital of France"}, "parsed": true, "known": true, "schema_valid": true, "errors": []}],
    "parse": {"ok": true, "format": "hermes", "attempts": 1, "errors": []}, "answer": {"text": "Paris", "message": 4},
    "steps": [{"message": 2, "reward": 0.2}, {"message": 4, "reward": 0.73}], "errors": [], "cache": "miss", "latency_ms": 0.4}}))]
pub(crate) struct ScoreDetail {
    /// Its columns.
    #[serde(flatten)]
    row: ScoreRow,
    /// The run it belongs to.
    run_id: Option<String>,
    /// The request it came in.
    request_id: String,
    /// Name of the rubric.
    rubric: String,
    /// Version of the rubric.
    rubric_version: String,
    /// Version of the server that scored it.
    engine_version: String,
    /// The curriculum position.
    #[schema(value_type = crate::http::schema::CurriculumDoc)]
    curriculum: Box<RawValue>,
    /// The result as it was sent.
    #[schema(value_type = crate::http::wire::ResultWire<'static>)]
    result: Box<RawValue>,
}

/// Where a list goes on, and how much of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most, 1 to 1000; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Over how many steps mastery is taken.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunQuery {
    /// The latest steps that have scores, 1 or more; 10 where absent.
    #[param(minimum = 1)]
    window: Option<u32>,
}

/// Which scores of a run, where the list goes on, and how much of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScoresQuery {
    /// `next_cursor` of the page before. Scores are listed in the order in which their requests began: one that began earlier
    /// and is stored later (it is large, or its judge slow) is on no page that was read before, nor on a later one. To have
    /// all, page when the run is done, or by `step_from` and `step_to` when a step is.
    cursor: Option<String>,
    /// How many at most, 1 to 1000; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only this group.
    group: Option<String>,
    /// Only valid, or only invalid ones.
    valid: Option<bool>,
    /// Only rewards of at least this.
    min_reward: Option<f64>,
    /// Only rewards of at most this.
    max_reward: Option<f64>,
    /// Only those that failed at this stage.
    failed_stage: Option<String>,
    /// Only this step and later ones.
    step_from: Option<i64>,
    /// Only this step and earlier ones.
    step_to: Option<i64>,
}

const DEFAULT_LIMIT: usize = 100;

pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|query| query.0)
        .map_err(|error| bad_query(format!("{}; GET /openapi.json has this path's parameters", error.body_text())))
}

fn bad_query(detail: String) -> Problem {
    Problem::new(Kind::BadQuery, detail)
}

pub(super) fn limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=store::MAX_PAGE => Ok(limit),
        other => Err(bad_query(format!("limit = {other} is out of range; it must be from 1 to {}", store::MAX_PAGE))),
    }
}

pub(super) fn store(app: &App) -> Result<&Store, Problem> {
    app.store
        .as_ref()
        .ok_or_else(|| Problem::new(Kind::NoStore, "this server stores no scores; start it with --store sqlite:FILE"))
}

/// The version that a stored hash starts with.
fn version(hash: &str) -> String {
    hash.chars().take("b3-".len() + 8).collect()
}

pub(super) fn unknown_run(run_id: &str) -> Problem {
    let run_id: String = run_id.chars().take(128).collect();
    Problem::new(Kind::UnknownRun, format!("there is no run {run_id:?}; GET /runs lists those there are"))
}

/// List runs.
#[utoipa::path(get, path = "/runs", tag = "runs", operation_id = "list_runs", params(RunsQuery),
    responses(
        (status = 200, description = "A page of runs", body = RunPage),
        (status = 400, description = "A bad parameter or cursor", body = ProblemWire, content_type = "application/problem+json"),
        (status = 404, description = "The server stores nothing", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn list_runs(
    State(app): State<App>,
    headers: HeaderMap,
    parameters: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<Json<RunPage>, Problem> {
    app.tokens.require_api(&headers)?;
    let parameters = query(parameters)?;
    let page = store(&app)?.runs(parameters.cursor.as_deref(), limit(parameters.limit)?).await?;
    Ok(Json(RunPage { items: page.items.into_iter().map(RunSummary::from).collect(), next_cursor: page.next_cursor }))
}

/// Show a run with its mastery per stage.
#[utoipa::path(get, path = "/runs/{run_id}", tag = "runs", operation_id = "get_run",
    params(("run_id" = String, Path, description = "Name of the run"), RunQuery),
    responses(
        (status = 200, description = "The run", body = RunDetail),
        (status = 404, description = "No such run", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn get_run(
    State(app): State<App>,
    headers: HeaderMap,
    Path(run_id): Path<String>,
    parameters: Result<Query<RunQuery>, QueryRejection>,
) -> Result<Json<RunDetail>, Problem> {
    app.tokens.require_api(&headers)?;
    let window = query(parameters)?.window.unwrap_or(DEFAULT_WINDOW);
    if window == 0 {
        return Err(bad_query("window = 0 is out of range; it must be 1 or more".to_owned()));
    }
    let run = store(&app)?.run(&run_id, window).await?.ok_or_else(|| unknown_run(&run_id))?;
    let stages = if run.recent.steps == 0 { &run.overall.stages } else { &run.recent.stages };
    let rates = stages.iter().filter_map(|stage| Some((stage.stage.clone(), stage.pass_rate?)));
    Ok(Json(RunDetail {
        mastery: rates.collect(),
        summary: run.summary.into(),
        recent: run.recent.into(),
        overall: run.overall.into(),
    }))
}

/// List the scores of a run.
#[utoipa::path(get, path = "/runs/{run_id}/scores", tag = "runs", operation_id = "list_scores",
    params(("run_id" = String, Path, description = "Name of the run"), ScoresQuery),
    responses(
        (status = 200, description = "A page of scores", body = ScorePage),
        (status = 400, description = "A bad parameter or cursor", body = ProblemWire, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = ProblemWire, content_type = "application/problem+json"),
        (status = 500, description = "A stored batch is damaged", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn list_scores(
    State(app): State<App>,
    headers: HeaderMap,
    Path(run_id): Path<String>,
    parameters: Result<Query<ScoresQuery>, QueryRejection>,
) -> Result<Json<ScorePage>, Problem> {
    app.tokens.require_api(&headers)?;
    let parameters = query(parameters)?;
    for (bound, name) in [(parameters.min_reward, "min_reward"), (parameters.max_reward, "max_reward")] {
        if bound.is_some_and(f64::is_nan) {
            return Err(bad_query(format!("`{name}` is not a number; give one, or leave it out")));
        }
    }
    let store = store(&app)?;
    if store.run(&run_id, 1).await?.is_none() {
        return Err(unknown_run(&run_id));
    }
    let filter = Filter {
        group: parameters.group,
        valid: parameters.valid,
        min_reward: parameters.min_reward,
        max_reward: parameters.max_reward,
        failed_stage: parameters.failed_stage,
        step_from: parameters.step_from,
        step_to: parameters.step_to,
    };
    let page = store.run_scores(&run_id, filter, parameters.cursor.as_deref(), limit(parameters.limit)?).await;
    let page = page.map_err(|error| match error {
        StoreError::Damaged { batch, .. } => {
            let past = ScoreId { batch, index: u32::MAX };
            Problem::internal(format!("{error}; with `cursor={past}` the list goes on after it"))
        }
        error => error.into(),
    })?;
    Ok(Json(ScorePage { items: page.items.into_iter().map(ScoreRow::from).collect(), next_cursor: page.next_cursor }))
}

/// Show a score with its result and all that it depended on.
#[utoipa::path(get, path = "/scores/{id}", tag = "runs", operation_id = "get_score",
    params(("id" = String, Path, description = "`score_id` of a result")),
    responses(
        (status = 200, description = "The score", body = ScoreDetail),
        (status = 404, description = "No such score", body = ProblemWire, content_type = "application/problem+json"),
        (status = 500, description = "Its batch is damaged", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn get_score(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<ScoreDetail>, Problem> {
    app.tokens.require_api(&headers)?;
    let id: ScoreId = id.parse()?;
    let score = store(&app)?.score(id).await?.ok_or_else(|| {
        Problem::new(Kind::UnknownScore, format!("there is no score {id}; it is `score_id` of a result"))
    })?;
    let raw = |text: String| RawValue::from_string(text).map_err(|error| Problem::internal(error.to_string()));
    Ok(Json(ScoreDetail {
        row: score.row.into(),
        run_id: score.run_id,
        request_id: score.request_id,
        rubric: score.rubric_name,
        rubric_version: version(&score.rubric_hash),
        engine_version: score.engine_version,
        curriculum: raw(score.position)?,
        result: raw(score.result_json)?,
    }))
}
