//! `/runs/{run_id}/scores` and `/scores`: what was stored of each trajectory.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::stored::{Parameters, bad_query, limit, store, unknown_run};
use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::kind::Kind;
use crate::rubric::version_of;
use crate::store::{Filter, ScoreId, StoreError, StoredRow};

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

impl From<StoredRow> for ScoreRow {
    fn from(StoredRow { id, score, step, created_at_ms }: StoredRow) -> Self {
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

/// List the scores of a run.
#[utoipa::path(get, path = "/runs/{run_id}/scores", tag = "runs", operation_id = "list_scores",
    params(("run_id" = String, Path, description = "Name of the run"), ScoresQuery),
    responses(
        (status = 200, description = "A page of scores", body = ScorePage),
        (status = 400, description = "A bad parameter or cursor"),
        (status = 404, description = "No such run"),
        (status = 500, description = "A stored batch is damaged")))]
pub(crate) async fn list_scores(
    State(app): State<App>,
    Path(run_id): Path<String>,
    Parameters(parameters): Parameters<ScoresQuery>,
) -> Result<Json<ScorePage>, Problem> {
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
        (status = 404, description = "No such score"),
        (status = 500, description = "Its batch is damaged")))]
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
    let raw = |text: String| RawValue::from_string(text).map_err(Problem::internal);
    Ok(Json(ScoreDetail {
        row: score.row.into(),
        run_id: score.run_id,
        request_id: score.request_id,
        rubric: score.rubric_name,
        rubric_version: version_of(&score.rubric_hash).to_owned(),
        engine_version: score.engine_version,
        curriculum: raw(score.position)?,
        result: raw(score.result_json)?,
    }))
}
