//! `/runs`: which training runs were scored, and how well each does.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::stored::{Parameters, bad_query, limit, store, unknown_run};
use crate::http::app::App;
use crate::http::error::Problem;
use crate::rubric::version_of;
use crate::store::{self, DEFAULT_WINDOW, MAX_WINDOW};

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
    /// When the first of its batches to be stored was scored, in Unix milliseconds.
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
            rubric_versions: run.rubric_hashes.iter().map(|hash| version_of(hash).to_owned()).collect(),
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
    #[schema(value_type = BTreeMap<String, f64>)]
    mastery: BTreeMap<String, f64>,
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
    /// `passed` over the valid scores by rubrics that have the stage, from 0 to 1.
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
    /// The latest steps that have scores, 1 to 10000; 10 where absent.
    #[param(minimum = 1, maximum = 10000)]
    window: Option<u32>,
}

/// List runs.
#[utoipa::path(get, path = "/runs", tag = "runs", operation_id = "list_runs", params(RunsQuery),
    responses(
        (status = 200, description = "A page of runs", body = RunPage),
        (status = 400, description = "A bad parameter or cursor"),
        (status = 404, description = "The server stores nothing")))]
pub(crate) async fn list_runs(
    State(app): State<App>,
    Parameters(parameters): Parameters<RunsQuery>,
) -> Result<Json<RunPage>, Problem> {
    let page = store(&app)?.runs(parameters.cursor.as_deref(), limit(parameters.limit)?).await?;
    Ok(Json(RunPage { items: page.items.into_iter().map(RunSummary::from).collect(), next_cursor: page.next_cursor }))
}

/// Show a run with its mastery per stage.
#[utoipa::path(get, path = "/runs/{run_id}", tag = "runs", operation_id = "get_run",
    params(("run_id" = String, Path, description = "Name of the run"), RunQuery),
    responses(
        (status = 200, description = "The run", body = RunDetail),
        (status = 404, description = "No such run")))]
pub(crate) async fn get_run(
    State(app): State<App>,
    Path(run_id): Path<String>,
    Parameters(parameters): Parameters<RunQuery>,
) -> Result<Json<RunDetail>, Problem> {
    let window = parameters.window.unwrap_or(DEFAULT_WINDOW);
    if !(1..=MAX_WINDOW).contains(&window) {
        return Err(bad_query(format!("window = {window} is out of range; it must be from 1 to {MAX_WINDOW}")));
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
