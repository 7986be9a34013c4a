//! `OpenAI`'s graders: `POST /v1/fine_tuning/alpha/graders/run` and `/validate`, as the stock `openai` package calls them.
//! They grade two texts, not a trajectory: no rubric, no stages, nothing is stored.

mod formula;
mod grader;
mod template;

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use self::grader::{Grade, GradeError, Grader, Refusal};
use self::template::{FillError, Variables};
use super::object;
use crate::http::app::App;
use crate::http::error::{Problem, ProblemWire};
use crate::http::handlers::read_text;
use crate::http::kind::Kind;
use crate::http::schema::JsonObject;
use crate::http::scoring::on_work_threads;

/// A grader with a sample.
#[derive(Deserialize, ToSchema)]
#[schema(as = RunGraderRequest, example = json!({"grader": {"type": "text_similarity", "name": "b", "input": "{{sample.output_text}}", "reference": "{{item.ref}}", "evaluation_metric": "bleu"},
    "model_sample": "Paris", "item": {"ref": "Paris"}}))]
pub(crate) struct RunRequest {
    /// `string_check`, `text_similarity` (`bleu`; also `la_bleu`, `f1` and `exact_match`) or `multi`.
    #[schema(value_type = JsonObject)]
    #[serde(deserialize_with = "bounded")]
    grader: Value,
    /// What the model wrote.
    model_sample: String,
    /// The dataset's row.
    #[schema(required = false, value_type = JsonObject)]
    #[serde(default)]
    item: Value,
}

/// How the sample was graded.
#[derive(Serialize, ToSchema)]
#[schema(as = RunGraderResponse, example = json!({"reward": 1.0, "sub_rewards": {}, "model_grader_token_usage_per_model": {}, "metadata": {
    "name": "b", "type": "text_similarity", "execution_time": 0.001, "scores": {"b": 1.0}, "sampled_model_name": null, "token_usage": null,
    "errors": no_errors()}}))]
pub(crate) struct RunResponse {
    /// The score; 0 where there is none, see `metadata.errors`.
    reward: f64,
    /// Scores of the parts of a `multi` grader.
    #[schema(value_type = BTreeMap<String, f64>)]
    sub_rewards: BTreeMap<String, f64>,
    /// How it came about.
    metadata: GraderMetadata,
    /// Empty: no model is asked.
    #[schema(value_type = JsonObject)]
    model_grader_token_usage_per_model: BTreeMap<String, Value>,
}

/// How a score came about.
#[derive(Serialize, ToSchema)]
#[schema(as = GraderMetadata, example = json!({"name": "b", "type": "text_similarity", "execution_time": 0.001, "scores": {"b": 1.0}, "sampled_model_name": null, "token_usage": null,
    "errors": no_errors()}))]
pub(crate) struct GraderMetadata {
    /// What went wrong.
    errors: GraderErrors,
    /// Seconds.
    execution_time: f64,
    /// The grader's.
    name: String,
    /// Null: no model is asked.
    sampled_model_name: Option<String>,
    /// The score by the grader's name.
    #[schema(value_type = BTreeMap<String, f64>)]
    scores: BTreeMap<String, f64>,
    /// Null: no model is asked.
    token_usage: Option<u64>,
    /// The grader's type.
    #[serde(rename = "type")]
    kind: &'static str,
}

/// What went wrong; false or null where nothing did.
#[allow(clippy::struct_excessive_bools, reason = "the client's shape")]
#[derive(Default, Serialize, ToSchema)]
#[schema(as = GraderErrors, example = json!(no_errors()))]
pub(crate) struct GraderErrors {
    /// The formula cannot be read, or its value is no number.
    formula_parse_error: bool,
    /// A template names what there is not.
    invalid_variable_error: bool,
    /// Never.
    model_grader_parse_error: bool,
    /// Never.
    model_grader_refusal_error: bool,
    /// Never.
    model_grader_server_error: bool,
    /// Never.
    model_grader_server_error_details: Option<String>,
    /// The templates come to texts that are too long.
    other_error: bool,
    /// Never.
    python_grader_runtime_error: bool,
    /// Never.
    python_grader_runtime_error_details: Option<String>,
    /// Never.
    python_grader_server_error: bool,
    /// Never.
    python_grader_server_error_type: Option<String>,
    /// Never.
    sample_parse_error: bool,
    /// Never.
    truncated_observation_error: bool,
    /// Never.
    unresponsive_reward_error: bool,
}

/// What the examples have.
fn no_errors() -> Value {
    json!(GraderErrors::default())
}

/// A grader.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ValidateGrader, example = json!({"grader": {"type": "string_check", "name": "c", "input": "{{sample.output_text}}", "reference": "{{item.ref}}", "operation": "eq"}}))]
pub(crate) struct ValidateRequest {
    /// As for running it.
    #[schema(value_type = JsonObject)]
    #[serde(deserialize_with = "bounded")]
    grader: Value,
}

/// Most bytes of a grader: read as values it takes many times as much.
const MAX_GRADER_BYTES: usize = 1 << 20;

fn bounded<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    if raw.len() > MAX_GRADER_BYTES {
        let message = format!("the grader has {} bytes; at most {MAX_GRADER_BYTES} are read", raw.len());
        return Err(serde::de::Error::custom(message));
    }
    serde_json::from_str(raw).map_err(serde::de::Error::custom)
}

impl From<Refusal> for Problem {
    /// The `openai` package reads `error`.
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let error = json!({"message": message, "type": "invalid_request_error", "param": "grader", "code": "unsupported_grader"});
        Self::new(Kind::UnsupportedGrader, message).at("/grader").with("error", error)
    }
}

fn run(request: &RunRequest) -> Result<RunResponse, Refusal> {
    let began = Instant::now();
    let grader = Grader::read(&request.grader)?;
    let graded = grader.grade(&Variables::new(&request.model_sample, &request.item));
    let errors = GraderErrors {
        formula_parse_error: matches!(graded, Err(GradeError::Formula(_))),
        invalid_variable_error: matches!(graded, Err(GradeError::Template(FillError::UnknownVariable(_)))),
        other_error: matches!(graded, Err(GradeError::Template(FillError::TooLong { .. }))),
        ..GraderErrors::default()
    };
    let Grade { score, parts } = graded.unwrap_or(Grade { score: 0.0, parts: BTreeMap::new() });
    let metadata = GraderMetadata {
        errors,
        execution_time: began.elapsed().as_secs_f64(),
        name: grader.name().to_owned(),
        sampled_model_name: None,
        scores: BTreeMap::from([(grader.name().to_owned(), score)]),
        token_usage: None,
        kind: grader.kind(),
    };
    let model_grader_token_usage_per_model = BTreeMap::new();
    Ok(RunResponse { reward: score, sub_rewards: parts, metadata, model_grader_token_usage_per_model })
}

/// Run a grader on a sample.
#[utoipa::path(post, path = "/v1/fine_tuning/alpha/graders/run", tag = "dialects", operation_id = "openai_run_grader",
    request_body(content = RunRequest, description = "A grader with a sample"),
    responses(
        (status = 200, description = "The score", body = RunResponse),
        (status = 400, description = "A grader that this server does not run; the document has `error`, too", body = ProblemWire, content_type = "application/problem+json"),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn run_grader(State(app): State<App>, request: Request) -> Result<Json<RunResponse>, Problem> {
    let (_admission, text) = read_text(&app, request).await?;
    // Long texts take their time to compare.
    on_work_threads(move || Ok(run(&object(&text)?)?)).await.map(Json)
}

/// Check a grader.
#[utoipa::path(post, path = "/v1/fine_tuning/alpha/graders/validate", tag = "dialects", operation_id = "openai_validate_grader",
    request_body(content = ValidateRequest, description = "A grader"),
    responses(
        (status = 200, description = "The grader, which can be run", body = ValidateRequest),
        (status = 400, description = "A grader that this server does not run; the document has `error`, too", body = ProblemWire, content_type = "application/problem+json"),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn validate_grader(
    State(app): State<App>,
    request: Request,
) -> Result<Json<ValidateRequest>, Problem> {
    let (_admission, text) = read_text(&app, request).await?;
    let validate = move || {
        let request: ValidateRequest = object(&text)?;
        Grader::read(&request.grader)?;
        Ok(request)
    };
    on_work_threads(validate).await.map(Json)
}
