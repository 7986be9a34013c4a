//! `NeMo` Gym: `POST /verify` and what a resources server answers beside it. The answer is the body, every field as it was
//! sent, with the reward and the metrics added. What cannot be scored has reward 0, whatever the rubric's lowest is, unless
//! the query asks for another one; it says that it is no measurement.

mod aggregate;
mod responses_api;

use std::borrow::Cow;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use self::responses_api::{prompt, rollout};
use super::docs::LabelDoc;
use super::fields::{Parts, Value};
use super::label::{COLUMNS, Label};
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written, quoted};
use super::results::{Named, Outcome, Results, written};
use super::{Dialect, Incoming, serve};
use crate::http::app::App;
use crate::http::error::{Problem, ProblemWire};
use crate::http::schema::JsonObject;
use crate::http::wire::{OnInvalid, Pointed};

pub(crate) use self::aggregate::{__path_aggregate_metrics, aggregate_metrics};

/// Fields of a body that name the group.
const GROUPS: [&str; 3] = ["group", "group_id", "_ng_task_index"];
/// What the answer says itself: a body that is verified again may have them from before.
const OWN: [&str; 7] = [
    "reward",
    "reward_components",
    "mask_sample",
    "failure_kind",
    "failure_reason",
    "_ng_failure_class",
    "_ng_failure_judge_error",
];
/// Fields that a metric must not replace.
const RESERVED: [&str; 3] = ["responses_create_params", "response", "instance_config"];

/// A rollout in the words of the Responses API. Every other field is kept and sent back.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = VerifyRequest, example = json!({
    "responses_create_params": {"input": [{"role": "user", "content": "What is the capital of France?"}],
        "tools": [{"type": "function", "name": "search", "parameters": {}, "strict": true}]},
    "response": {"id": "r", "created_at": 0, "model": "m", "object": "response", "output": [
        {"type": "function_call", "name": "search", "arguments": "{\"q\":\"x\"}", "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "Paris"},
        {"type": "message", "role": "assistant", "id": "m1", "status": "completed", "content": [{"type": "output_text", "text": "<answer>Paris</answer>", "annotations": []}]}]},
    "expected_answer": "Paris"}))]
pub(crate) struct VerifyRequestDoc {
    /// What the policy was given: `input`, `instructions` and `tools` are read.
    #[schema(value_type = JsonObject)]
    responses_create_params: serde_json::Value,
    /// What it did: `output` is read.
    #[schema(value_type = JsonObject)]
    response: serde_json::Value,
    /// What is right. Of `references`, `golds`, `ground_truth`, `target`, `answer`, `answers`, `expected_answer`,
    /// `golden_answers`, `solution` and `label` the first that there is counts.
    #[schema(required = false)]
    expected_answer: Option<LabelDoc>,
}

/// The body, with these fields added, and a field per metric.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema, Serialize)]
#[schema(as = VerifyResponse, example = json!({
    "responses_create_params": {"input": []}, "response": {"output": []}, "expected_answer": "Paris", "reward": 0.93, "tool_parse": 1.0,
    "reward_components": {"tool_parse": 0.1, "la_bleu": 0.83}, "mask_sample": false}))]
pub(crate) struct VerifyResponseDoc {
    /// As sent.
    #[schema(value_type = JsonObject)]
    responses_create_params: serde_json::Value,
    /// As sent.
    #[schema(value_type = JsonObject)]
    response: serde_json::Value,
    /// The reward; 0 where there is none, or what the query's `on_invalid` asks for (`zero` is the rubric's lowest).
    reward: f64,
    /// What the reward is made of; they sum to it. Absent where there is none.
    #[schema(required = false)]
    reward_components: Option<std::collections::BTreeMap<String, f64>>,
    /// Whether the reward says nothing about the policy.
    mask_sample: bool,
    /// `judge_failed` or `verify_failed`; absent where the reward is one.
    #[serde(rename = "_ng_failure_class")]
    #[schema(required = false)]
    failure_class: Option<String>,
    /// `timeout`, `unavailable` or `no_verdict`, of a judge.
    #[serde(rename = "_ng_failure_judge_error")]
    #[schema(required = false)]
    failure_judge_error: Option<String>,
    /// Why there is no reward.
    #[schema(required = false)]
    failure_reason: Option<String>,
}

/// Levels of a body that are looked into: the body, `response`, `output`, and the items of that.
const DEPTH: usize = 4;

struct NemoGym {
    parts: Parts,
}

impl Dialect for NemoGym {
    // No reward at all: the answer has 0 for it.
    const ON_INVALID: OnInvalid = OnInvalid::Null;
    const ECHOES: bool = true;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, DEPTH)?;
        let raw_item = raw_item(parts.object(body)?)?;
        Ok((Self { parts }, vec![raw_item]))
    }

    fn write(&self, body: &str, results: &Results<'_>) -> Vec<u8> {
        results.outcomes.first().map_or_else(Vec::new, |outcome| answer(self.parts.value(body), outcome))
    }
}

fn raw_item<'b>(body: Value<'_, 'b>) -> Result<RawItem<'b>, Pointed> {
    let params = body.needed("responses_create_params")?.object("/responses_create_params")?;
    let response = body.needed("response")?.object("/response")?;
    let output = response.needed("output")?.list("/response/output")?;
    let raw = |field: Option<Value<'_, 'b>>| field.map(Value::raw).map(Cow::Borrowed);
    // A row may have fields of its own that are called as a label is elsewhere.
    let answers = Label::read(body.first(&[&["expected_answer"], COLUMNS].concat()));
    let about = Label {
        reference_calls: raw(body.get("reference_calls")),
        group: raw(body.first(&GROUPS)),
        ..Label::default()
    };
    let details = response.raw_of("incomplete_details");
    let truncated = details.is_some_and(|details| details.contains("max_output_tokens"));
    Ok(RawItem {
        prompt: params.get("input").map(|input| prompt(params.raw_of("instructions"), input)),
        written: Written::Messages(rollout(output)?.into()),
        tools: raw(params.get("tools")),
        label: answers.or(about),
        truncated: truncated.then_some(Cow::Borrowed("true")),
        response_tokens: raw(response.get("usage").and_then(|usage| usage.get("output_tokens"))),
        ..RawItem::default()
    })
}

/// The body with what was found.
fn answer(body: Value<'_, '_>, outcome: &Outcome<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.raw().len() + 1024);
    out.push(b'{');
    let metric = |(name, score)| {
        let taken = RESERVED.contains(&name) || OWN.contains(&name);
        (if taken { Cow::Owned(format!("metric_{name}")) } else { Cow::Borrowed(name) }, score)
    };
    let metrics: Vec<(Cow<'_, str>, f64)> = outcome.metrics().map(metric).collect();
    let failed = !outcome.valid();
    let ours = |name: &str| {
        OWN.contains(&name) || failed && name == "instance_config" || metrics.iter().any(|(metric, _)| metric == name)
    };
    for field in body.inside().filter(|field| !ours(&field.key())) {
        put(&mut out, field.raw_key(), field.raw().as_bytes());
    }
    put(&mut out, "reward", &written(&outcome.reward().unwrap_or(0.0)));
    for (name, score) in &metrics {
        put(&mut out, name, &written(score));
    }
    match outcome.fault() {
        None => put(&mut out, "reward_components", &written(&components(outcome))),
        Some((code, message)) => put_failure(&mut out, body, code, message),
    }
    put(&mut out, "mask_sample", if failed { b"true" } else { b"false" });
    out.pop();
    out.push(b'}');
    out
}

/// Appends a field by what stands between the quotes of its key; names of ours need no escapes.
fn put(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    for part in [b"\"", key.as_bytes(), b"\":", value, b","] {
        out.extend_from_slice(part);
    }
}

fn components<'s>(outcome: &Outcome<'s>) -> Named<'s, f64> {
    Named { own: Vec::new(), metrics: outcome.components().collect() }
}

fn put_failure(out: &mut Vec<u8>, body: Value<'_, '_>, code: &str, message: &str) {
    match code.strip_prefix("judge_") {
        Some(error) => {
            put(out, "_ng_failure_class", b"\"judge_failed\"");
            put(out, "_ng_failure_judge_error", quoted(error).as_bytes());
        }
        None => put(out, "_ng_failure_class", b"\"verify_failed\""),
    }
    put(out, "failure_reason", quoted(&format!("{code}: {message}")).as_bytes());
    // The trainer looks for the mask here, too.
    out.extend_from_slice(b"\"instance_config\":{");
    let config = body.get("instance_config").filter(|config| config.raw().starts_with('{'));
    for field in config.into_iter().flat_map(Value::inside).filter(|field| field.key() != "mask_sample") {
        put(out, field.raw_key(), field.raw().as_bytes());
    }
    out.extend_from_slice(b"\"mask_sample\":true},");
}

/// Verify a rollout as `NeMo` Gym sends it.
#[utoipa::path(post, path = "/verify", tag = "dialects", operation_id = "nemo_gym_verify", params(Options, Repeatable),
    request_body(content = VerifyRequestDoc, description = "A verify request; unknown fields are kept"),
    responses(
        (status = 200, description = "The request with its reward", body = VerifyResponseDoc),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn verify(incoming: Incoming) -> Result<Response, Problem> {
    serve::<NemoGym>(incoming).await
}

/// An empty object.
#[derive(Serialize, ToSchema)]
#[schema(as = SeedSessionResponse, example = json!({}))]
pub(crate) struct SeedSessionResponse {}

/// Begin a session: there is none, since verification needs no state.
#[utoipa::path(post, path = "/seed_session", tag = "dialects", operation_id = "nemo_gym_seed_session",
    responses((status = 200, description = "Nothing to remember", body = SeedSessionResponse)))]
pub(crate) async fn seed_session(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<SeedSessionResponse>, Problem> {
    app.tokens.require_api(&headers)?;
    Ok(Json(SeedSessionResponse {}))
}

/// Whether rollouts can be verified again: yes, from what is in them.
#[utoipa::path(get, path = "/reverify_mode", tag = "dialects", operation_id = "nemo_gym_reverify_mode",
    responses((status = 200, description = "`stateless`", body = String, content_type = "application/json")))]
pub(crate) async fn reverify_mode() -> Json<&'static str> {
    Json("stateless")
}
