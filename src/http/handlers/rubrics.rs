//! `/rubrics`: what the server scores by; looking, checking, and (with the admin token) changing.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::Limited;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::kind::Kind;
use crate::http::limits::Admission;
use crate::http::schema::JsonObject;
use crate::http::scoring::on_work_threads;
use crate::judge::rubric::{read_json, read_toml};
use crate::rubric::{MAX_RUBRIC_BYTES, Rubric, RubricError};
use crate::stages::{Measure, Stage};

/// Most bytes of a body that is a rubric: one that is a little too long hears of it as of any other mistake in it.
const MAX_BODY_BYTES: usize = 2 * MAX_RUBRIC_BYTES;

/// A rubric at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "short_form_qa", "version": "b3-5f0c1e9a", "description": "Short-form QA with tools",
    "stages": ["tool_parse", "tool_schema", "answer_format", "la_bleu"], "curriculum": false, "default": true}))]
pub(crate) struct RubricSummary {
    /// Its name.
    name: String,
    /// Its current version: a hash of its content.
    version: String,
    /// What it is for.
    description: String,
    /// Its stages, in order.
    stages: Vec<String>,
    /// Whether weights or thresholds move with the curriculum position.
    curriculum: bool,
    /// Whether requests that name no rubric get it.
    default: bool,
}

/// A rubric, whole.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "binary_em", "version": "b3-5f0c1e9a", "description": "1 if right", "stages": ["exact_match"], "curriculum": false, "default": false, "versions": ["b3-5f0c1e9a"], "signatures": {}, "rubric": {"name": "binary_em", "stages": [{"kind": "exact_match", "weight": 1.0}]}}))]
pub(crate) struct RubricDetail {
    /// The rubric at a glance.
    #[serde(flatten)]
    summary: RubricSummary,
    /// Versions that can be pinned as `name@version`, the current one last.
    versions: Vec<String>,
    /// Signatures of its text metrics, by stage: enough to get the same numbers from sacreBLEU.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    signatures: std::collections::BTreeMap<String, String>,
    /// Its JSON form, complete with defaults: can be sent back as an inline rubric.
    #[schema(value_type = JsonObject)]
    rubric: Box<RawValue>,
}

/// What a check found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"valid": false, "name": null, "version": null,
    "errors": [{"message": "1.5 is out of range; it must be from 0 to 1", "pointer": "/stages/0/threshold", "line": 8, "column": 13}]}))]
pub(crate) struct RubricCheck {
    /// Whether it can be used.
    valid: bool,
    /// Its name, when valid.
    name: Option<String>,
    /// Its version, when valid.
    version: Option<String>,
    /// What is wrong; empty when valid.
    errors: Vec<RubricCheckError>,
}

/// What is wrong with a rubric.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"message": "1.5 is out of range; it must be from 0 to 1", "pointer": "/stages/0/threshold", "line": 8, "column": 13}))]
pub(crate) struct RubricCheckError {
    /// What is wrong, the value, and the fix.
    message: String,
    /// The field, as a JSON pointer.
    pointer: String,
    /// Line from 1.
    line: Option<usize>,
    /// Column in characters from 1.
    column: Option<usize>,
}

/// What became of a rubric that was put.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "mine", "version": "b3-0a1b2c3d", "persisted": true}))]
pub(crate) struct RubricPut {
    /// Its name.
    name: String,
    /// Its version.
    version: String,
    /// Whether it was written to the rubrics directory; false: it is gone after a restart.
    persisted: bool,
}

fn summary(app: &App, rubric: &Rubric) -> RubricSummary {
    RubricSummary {
        name: rubric.name.to_string(),
        version: rubric.version.to_string(),
        description: rubric.description.clone(),
        stages: rubric.stages.iter().map(|stage| stage.name.to_string()).collect(),
        curriculum: rubric.has_curriculum(),
        default: app.engine.default_rubric == *rubric.name,
    }
}

fn signatures(rubric: &Rubric) -> std::collections::BTreeMap<String, String> {
    let signature = |stage: &Stage| match stage {
        Stage::Measure(Measure::Bleu(bleu)) => Some(bleu.signature(1)),
        Stage::Measure(Measure::LaBleu(la_bleu)) => Some(la_bleu.signature()),
        _ => None,
    };
    rubric.stages.iter().filter_map(|stage| Some((stage.name.to_string(), signature(&stage.stage)?))).collect()
}

/// List rubrics.
#[utoipa::path(get, path = "/rubrics", tag = "rubrics", operation_id = "list_rubrics",
    responses((status = 200, description = "The current version of every rubric", body = Vec<RubricSummary>)))]
pub(crate) async fn list_rubrics(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<Vec<RubricSummary>>, Problem> {
    app.tokens.require_api(&headers)?;
    Ok(Json(app.engine.catalog.current().iter().map(|rubric| summary(&app, rubric)).collect()))
}

/// Show a rubric, whole.
#[utoipa::path(get, path = "/rubrics/{name}", tag = "rubrics", operation_id = "get_rubric",
    params(("name" = String, Path, description = "`name` or `name@version`")),
    responses(
        (status = 200, description = "The rubric", body = RubricDetail),
        (status = 404, description = "No such rubric")))]
pub(crate) async fn get_rubric(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<RubricDetail>, Problem> {
    app.tokens.require_api(&headers)?;
    let rubric = app.engine.catalog.get(&name).ok_or_else(|| Problem::unknown_rubric(&name))?;
    let raw = RawValue::from_string(rubric.json.to_string()).map_err(Problem::internal)?;
    let versions = app.engine.catalog.versions(&rubric.name).iter().map(ToString::to_string).collect();
    Ok(Json(RubricDetail { summary: summary(&app, &rubric), versions, signatures: signatures(&rubric), rubric: raw }))
}

/// Reads a body that is a rubric, as text.
///
/// # Errors
/// As any other body: [`Admission::read`].
async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<(Admission, String), Problem> {
    let told = |problem: Problem| {
        if problem.kind() != Kind::TooLarge {
            return problem;
        }
        let most = app.limits.config.max_body_bytes;
        let most = if most < MAX_RUBRIC_BYTES {
            format!("{most} bytes at most, by --max-body-bytes")
        } else {
            format!("{} KiB at most", MAX_RUBRIC_BYTES >> 10)
        };
        let detail = format!("the body is larger than this path takes; a rubric has {most}");
        Problem::new(Kind::TooLarge, detail)
    };
    let mut admission = app.limits.admit(headers).map_err(told)?;
    let body = Body::new(Limited::new(body, MAX_BODY_BYTES));
    let text = admission.read(headers, body).await.map_err(told)?;
    Ok((admission, text))
}

/// JSON where the content type says so, else TOML.
fn read(headers: &HeaderMap, text: &str) -> Result<Rubric, RubricError> {
    if is_json(headers) { read_json(text) } else { read_toml(text) }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| kind.contains("json"))
}

/// Check a rubric file without keeping it.
#[utoipa::path(post, path = "/rubrics/check", tag = "rubrics", operation_id = "check_rubric",
    request_body(content((String = "application/toml"), (serde_json::Value = "application/json")), description = "A rubric file (TOML), or its JSON form"),
    responses((status = 200, description = "What the check found", body = RubricCheck)))]
pub(crate) async fn check_rubric(State(app): State<App>, request: Request) -> Result<Json<RubricCheck>, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    app.tokens.require_api(&headers)?;
    let (_admission, text) = read_body(&app, &headers, body).await?;
    // Reading one tries its templates and patterns out.
    let rubric = on_work_threads(move || Ok(read(&headers, &text))).await?;
    Ok(Json(match rubric {
        Ok(rubric) => RubricCheck {
            valid: true,
            name: Some(rubric.name.to_string()),
            version: Some(rubric.version.to_string()),
            errors: Vec::new(),
        },
        Err(error) => RubricCheck { valid: false, name: None, version: None, errors: vec![check_error(error)] },
    }))
}

fn check_error(error: RubricError) -> RubricCheckError {
    RubricCheckError {
        message: error.message,
        pointer: error.pointer,
        line: error.location.map(|location| location.line),
        column: error.location.map(|location| location.column),
    }
}

/// Add a rubric, or change one: the new version is current, earlier ones can still be pinned.
#[utoipa::path(put, path = "/rubrics/{name}", tag = "rubrics", operation_id = "put_rubric",
    params(("name" = String, Path, description = "The rubric's name, as in the file")),
    request_body(content((String = "application/toml"), (serde_json::Value = "application/json")), description = "A rubric file (TOML), or its JSON form"),
    security(("admin" = [])),
    responses(
        (status = 200, description = "It is current now", body = RubricPut),
        (status = 401, description = "The admin token is needed"),
        (status = 403, description = "The token is wrong, or the server has none"),
        (status = 422, description = "The rubric has an error")))]
pub(crate) async fn put_rubric(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<RubricPut>, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    app.tokens.require_admin(&headers)?;
    let (_admission, text) = read_body(&app, &headers, body).await?;
    let (rubric, headers, text) = on_work_threads(move || Ok((read(&headers, &text), headers, text))).await?;
    let rubric = rubric?;
    if *rubric.name != *name {
        return Err(Problem::shape(
            "/name",
            format!("the rubric calls itself {:?}, the path says {name:?}; make them equal", rubric.name),
        ));
    }
    let toml = to_toml(&headers, text, &rubric)?;
    let work = app.clone();
    let put = tokio::task::spawn_blocking(move || work.engine.catalog.put(rubric, &toml)).await;
    let (rubric, persisted): (Arc<Rubric>, bool) = put.map_err(Problem::internal)??;
    Ok(Json(RubricPut { name: rubric.name.to_string(), version: rubric.version.to_string(), persisted }))
}

/// The directory holds TOML files, whatever was sent.
fn to_toml(headers: &HeaderMap, text: String, rubric: &Rubric) -> Result<String, Problem> {
    if !is_json(headers) {
        return Ok(text);
    }
    let value: toml::Value = serde_json::from_str(&rubric.json).map_err(Problem::internal)?;
    toml::to_string_pretty(&value).map_err(Problem::internal)
}
