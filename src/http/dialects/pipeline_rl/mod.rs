//! `PipelineRL`: `POST /verify_answer`, calls against reference calls in the words of the Berkeley function-calling
//! leaderboard: [`turn`] finds the calls, [`leaderboard`] what is right, by [`comparison`] with them, and [`functions`] what was
//! offered.

mod comparison;
mod functions;
mod leaderboard;
mod turn;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use self::comparison::Language;
use self::turn::Turn;
use super::label::Label;
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written};
use super::results::{Outcome, Results, written};
use super::{Dialect, Incoming, object, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::schema::{JsonObject, NativeToolCallDoc};
use crate::http::wire::{OnInvalid, Pointed};

/// One rollout.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = VerifyAnswerRequest, example = json!({"generation": "", "model_name": "model",
    "reward_context": {"category": "parallel", "is_relevance": false,
        "function": [{"name": "search", "description": "", "parameters": {"type": "dict", "properties": {"q": {"type": "string"}}, "required": ["q"]}}],
        "ground_truth": [{"search": {"q": ["x"]}}, {"search": {"q": ["y"]}}]},
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{\"q\":\"x\"}"}}]}))]
pub(crate) struct VerifyAnswerRequestDoc {
    /// What the policy wrote. Where `tool_calls` has none, its calls are those of the last `<tool_calls>[..]</tool_calls>`, or
    /// in any other format.
    #[schema(required = false)]
    generation: Option<String>,
    /// What was offered (`function`) and what is right (`ground_truth`: a list of calls, each argument with the values
    /// that are right, the empty string meaning that it may be left out, by itself or as the `ground_truth` of an object; or
    /// answers). With `is_relevance` no call is right where the `category` says `irrelevance`, and any call where not.
    #[schema(value_type = JsonObject)]
    reward_context: Value,
    /// The calls that were made.
    #[schema(required = false, value_type = Vec<NativeToolCallDoc>)]
    tool_calls: Option<Vec<Value>>,
    /// Ignored.
    #[schema(required = false)]
    model_name: Option<String>,
}

/// How the rollout was scored.
#[derive(Serialize, ToSchema)]
#[schema(as = VerifyAnswerResponse, example = json!({"answer_status": "wrong", "partial_score": 0.5}))]
pub(crate) struct VerifyAnswerResponse {
    /// What became of it.
    answer_status: AnswerStatus,
    /// The reward.
    partial_score: Option<f64>,
}

/// What became of a rollout.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AnswerStatus, example = json!("wrong"))]
pub(crate) enum AnswerStatus {
    /// Every stage passed.
    Correct,
    /// A stage failed.
    Wrong,
    /// There is no call where one is right, or neither a call nor an answer.
    NoAnswer,
    /// A call does not parse, or the rollout could not be scored.
    Unparsable,
}

#[derive(Deserialize)]
struct Body<'b> {
    #[serde(borrow, default)]
    generation: Option<&'b RawValue>,
    #[serde(borrow)]
    reward_context: RewardContext<'b>,
    #[serde(borrow, default)]
    tool_calls: Option<&'b RawValue>,
}

#[derive(Deserialize)]
struct RewardContext<'b> {
    #[serde(default)]
    function: Option<Value>,
    #[serde(borrow, default)]
    ground_truth: Option<&'b RawValue>,
    #[serde(default)]
    is_relevance: Option<bool>,
    #[serde(default)]
    category: Option<Value>,
}

impl<'b> RewardContext<'b> {
    /// What is right and what was offered, given the calls that were made.
    fn read(self, turn: &Turn) -> (Label<'b>, Option<Value>) {
        let truth = leaderboard::list(self.ground_truth.map_or("null", RawValue::get));
        let relevance = self.is_relevance == Some(true);
        let category = self.category.as_ref().and_then(Value::as_str).unwrap_or_default();
        let language = if category.contains("java") { Language::Java } else { Language::Python };
        let calls = match relevance {
            true if category.contains("irrelevance") => Some(Vec::new()),
            true => Some(leaderboard::any_of(&turn.made)),
            false => leaderboard::reference_calls(truth, &turn.made, language),
        };
        let tools = self.function.map(|mut functions| {
            // Any call is right that fits its own schema.
            let right = calls.as_deref().filter(|_| !relevance).unwrap_or_default();
            functions::as_tools(&mut functions, right);
            functions
        });
        let label = match calls {
            Some(calls) => Label { reference_calls: Some(Value::from(calls).to_string().into()), ..Label::default() },
            None => Label::of_raw(truth),
        };
        (label, tools)
    }
}

struct PipelineRl {
    /// Whether some call is right.
    wants_calls: bool,
}

impl Dialect for PipelineRl {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    const RUBRIC: Option<&'static str> = Some("tool_use");

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let body: Body<'_> = object(body)?;
        let turn = Turn::new(body.generation.map(RawValue::get), body.tool_calls.map(RawValue::get));
        let (label, tools) = body.reward_context.read(&turn);
        let wants_calls = label.reference_calls.as_deref().is_some_and(|calls| calls != "[]");
        let tools = tools.map(|tools| tools.to_string().into());
        let raw_item = RawItem { written: Written::Messages(turn.messages.into()), tools, label, ..RawItem::default() };
        Ok((Self { wants_calls }, vec![raw_item]))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let answer = |outcome: &Outcome<'_>| {
            let response = VerifyAnswerResponse {
                answer_status: self.status(outcome),
                partial_score: outcome.number(results.options),
            };
            written(&response)
        };
        results.outcomes.first().map_or_else(Vec::new, answer)
    }
}

impl PipelineRl {
    fn status(&self, outcome: &Outcome<'_>) -> AnswerStatus {
        let facts = outcome.facts();
        if !outcome.valid() || !facts.parse_ok {
            AnswerStatus::Unparsable
        } else if outcome.passed() {
            AnswerStatus::Correct
        } else if facts.attempts == 0 && (self.wants_calls || !facts.answered) {
            AnswerStatus::NoAnswer
        } else {
            AnswerStatus::Wrong
        }
    }
}

/// Verify calls as `PipelineRL` sends them; by the rubric `tool_use` where the query names none.
#[utoipa::path(post, path = "/verify_answer", tag = "dialects", operation_id = "pipeline_rl_verify_answer", params(Options, Repeatable),
    request_body(content = VerifyAnswerRequestDoc, description = "A rollout with what is right"),
    responses(
        (status = 200, description = "The score", body = VerifyAnswerResponse),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn verify_answer(incoming: Incoming) -> Result<Response, Problem> {
    serve::<PipelineRl>(incoming).await
}
