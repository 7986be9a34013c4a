//! eval-protocol (once reward-kit): `POST /eval-protocol/reward` and `POST /eval-protocol/evaluate`, one conversation.
//! The second nests what is not `messages` under `kwargs`. Scores of metrics are within 0..1, as its model demands.

use std::borrow::Cow;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::LabelDoc;
use super::fields::{Parts, Value};
use super::label::Label;
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written};
use super::results::{Named, Outcome, Results, written};
use super::{Dialect, Incoming, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::schema::{JsonObject, MessageDoc};
use crate::http::wire::{OnInvalid, Pointed};

/// One conversation. Fields that are not known are ignored.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = EvaluateRequest, example = json!({"messages": [{"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "<answer>Paris</answer>"}], "ground_truth": "Paris", "rubric": "short_form_qa"}))]
pub(crate) struct EvaluateRequestDoc {
    /// The conversation.
    messages: Vec<MessageDoc>,
    /// What is right; without it, and for a list of messages, the table of `POST /references` is asked.
    #[schema(required = false)]
    ground_truth: Option<LabelDoc>,
    /// A rubric's name.
    #[schema(required = false)]
    rubric: Option<String>,
    /// The tools that were offered.
    #[schema(required = false, value_type = Vec<JsonObject>)]
    tools: Option<Vec<serde_json::Value>>,
    /// The same fields once more, as `/evaluate` nests them.
    #[schema(required = false, value_type = JsonObject)]
    kwargs: Option<serde_json::Value>,
}

/// How the conversation was scored.
#[derive(Serialize, ToSchema)]
#[schema(as = EvaluateResult, example = json!({"score": 0.93, "is_score_valid": true, "reason": "stage=la_bleu",
    "metrics": {"exact_match": {"is_score_valid": true, "score": 1.0, "reason": "exact_match"}},
    "step_outputs": [{"step_index": 1, "base_reward": 0.1, "terminated": false, "metrics": {}, "reason": "ok"}], "error": null}))]
pub(crate) struct EvaluateResult<'s> {
    /// The reward; the rubric's lowest where there is none.
    score: f64,
    /// Whether it could be scored.
    is_score_valid: bool,
    /// The last stage that was reached, or why it failed.
    reason: String,
    /// Score per stage and reported measure.
    #[schema(value_type = std::collections::BTreeMap<String, MetricResult>)]
    metrics: Named<'s, MetricResult<'s>>,
    /// What each assistant message earned.
    step_outputs: Vec<StepOutput<'s>>,
    /// Why it could not be scored.
    error: Option<String>,
}

/// One metric.
#[derive(Serialize, ToSchema)]
#[schema(as = MetricResult, example = json!({"is_score_valid": true, "score": 1.0, "reason": "exact_match"}))]
pub(crate) struct MetricResult<'s> {
    /// Whether the conversation could be scored.
    is_score_valid: bool,
    /// From 0 to 1.
    score: f64,
    /// Its name.
    reason: &'s str,
}

/// What an assistant message earned.
#[derive(Serialize, ToSchema)]
#[schema(as = StepOutput, example = json!({"step_index": 1, "base_reward": 0.1, "terminated": false, "metrics": {}, "reason": "ok"}))]
pub(crate) struct StepOutput<'s> {
    /// Index of the message.
    step_index: usize,
    /// Its share of the shaped reward.
    base_reward: f64,
    /// Always false: a conversation that is scored has ended by itself.
    terminated: bool,
    /// Empty.
    #[schema(value_type = JsonObject)]
    metrics: std::collections::BTreeMap<&'s str, f64>,
    /// `ok`.
    reason: &'s str,
}

struct EvalProtocol {
    rubric: Option<String>,
}

impl Dialect for EvalProtocol {
    const ON_INVALID: OnInvalid = OnInvalid::Null;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 2)?;
        let body = parts.object(body)?;
        let nested = body.get("kwargs").map(|kwargs| kwargs.object("/kwargs")).transpose()?;
        let either = |name: &str| body.raw_of(name).or_else(|| nested?.raw_of(name));
        let is_truth = |truth: &&str| !is_conversation(truth);
        // A conversation must not hide what is right behind it.
        let nested_truth = || nested?.raw_of("ground_truth").filter(is_truth);
        let truth = body.raw_of("ground_truth").filter(is_truth).or_else(nested_truth);
        let raw_item = RawItem {
            written: Written::Messages(Cow::Borrowed(body.needed("messages")?.raw())),
            label: truth.map(Label::of_raw).unwrap_or_default(),
            tools: either("tools").map(Cow::Borrowed),
            ..RawItem::default()
        };
        let within = |wrong: Pointed| Pointed { pointer: ["/kwargs", &wrong.pointer].concat(), ..wrong };
        let inner = nested.map(|kwargs| kwargs.text_of("rubric")).transpose().map_err(within)?.flatten();
        let rubric = body.text_of("rubric")?.or(inner).map(Cow::into_owned);
        Ok((Self { rubric }, vec![raw_item]))
    }

    fn rubric(&self) -> Option<&str> {
        self.rubric.as_deref()
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        results.outcomes.first().map_or_else(Vec::new, |outcome| written(&result(outcome)))
    }
}

/// Whether this is a list of messages, or of nothing: a call without `ground_truth` sends all messages but the last one
/// under that name, which says nothing of what is right.
fn is_conversation(truth: &str) -> bool {
    let is_message = |value: Value<'_, '_>| value.raw().starts_with('{') && value.get("role").is_some();
    truth.starts_with('[') && Parts::read(truth, 2).is_ok_and(|parts| parts.value(truth).inside().all(is_message))
}

fn result<'s>(outcome: &Outcome<'s>) -> EvaluateResult<'s> {
    let facts = outcome.facts();
    let fault = outcome.fault().map(|(code, message)| format!("{code}: {message}"));
    let stage = || format!("stage={}", outcome.stage_reached().unwrap_or("none"));
    let metric = |(name, score): (&'s str, f64)| {
        (name, MetricResult { is_score_valid: outcome.valid(), score: score.clamp(0.0, 1.0), reason: name })
    };
    let step = |(message, reward): &(usize, f64)| StepOutput {
        step_index: *message,
        base_reward: *reward,
        terminated: false,
        metrics: std::collections::BTreeMap::new(),
        reason: "ok",
    };
    EvaluateResult {
        score: outcome.fallback(),
        is_score_valid: outcome.valid(),
        reason: fault.clone().or_else(|| facts.reason.clone()).unwrap_or_else(stage),
        metrics: Named { own: Vec::new(), metrics: outcome.metrics().map(metric).collect() },
        step_outputs: facts.steps.iter().map(step).collect(),
        error: fault,
    }
}

/// Score a conversation as eval-protocol's reward endpoint.
#[utoipa::path(post, path = "/eval-protocol/reward", tag = "dialects", operation_id = "eval_protocol_reward", params(Options, Repeatable),
    request_body(content = EvaluateRequestDoc, description = "A conversation and what is right"),
    responses(
        (status = 200, description = "The score", body = EvaluateResult<'static>),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn reward(incoming: Incoming) -> Result<Response, Problem> {
    serve::<EvalProtocol>(incoming).await
}

/// Score a conversation as eval-protocol's evaluate endpoint: extras may stand under `kwargs`.
#[utoipa::path(post, path = "/eval-protocol/evaluate", tag = "dialects", operation_id = "eval_protocol_evaluate", params(Options, Repeatable),
    request_body(content = EvaluateRequestDoc, description = "A conversation, and what is right under `kwargs`"),
    responses(
        (status = 200, description = "The score", body = EvaluateResult<'static>),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn evaluate(incoming: Incoming) -> Result<Response, Problem> {
    serve::<EvalProtocol>(incoming).await
}
