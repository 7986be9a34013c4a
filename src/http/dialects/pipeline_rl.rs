//! `PipelineRL`: `POST /verify_answer`, calls against reference calls in the words of the Berkeley function-calling
//! leaderboard, where a reference names for each argument the values that are right.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::draft::{Draft, Written};
use super::label::Label;
use super::options::{Options, Repeatable};
use super::sheet::{Outcome, Sheet, written};
use super::{Dialect, object, serve};
use crate::http::app::App;
use crate::http::error::{Problem, ProblemWire};
use crate::http::schema::{JsonObject, NativeToolCallDoc};
use crate::http::telemetry::RequestId;
use crate::http::wire::{OnInvalid, Pointed};
use crate::stages::MAX_MATCHED_CALLS;
use crate::trajectory::MAX_REFERENCE_CALLS;

/// One rollout.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = VerifyAnswerRequest, example = json!({"generation": "", "model_name": "model",
    "reward_context": {"category": "parallel", "is_relevance": false,
        "function": [{"name": "search", "description": "", "parameters": {"type": "dict", "properties": {"q": {"type": "string"}}, "required": ["q"]}}],
        "ground_truth": [{"search": {"q": ["x"]}}, {"search": {"q": ["y"]}}]},
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{\"q\":\"x\"}"}}]}))]
pub(crate) struct VerifyAnswerRequestDoc {
    /// What the policy wrote.
    #[schema(required = false)]
    generation: Option<String>,
    /// What was offered (`function`) and what is right (`ground_truth`: a list of calls, each argument with the values
    /// that are right, the empty string meaning that it may be left out; or answers).
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
    /// There is neither a call nor an answer.
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
}

struct PipelineRl;

impl Dialect for PipelineRl {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    const DEADLINE_MS: Option<u64> = None;
    const RUBRIC: Option<&'static str> = Some("tool_use");

    fn read(body: &str) -> Result<(Self, Vec<Draft<'_>>), Pointed> {
        let body: Body<'_> = object(body)?;
        let content = body.generation.map_or("null", RawValue::get);
        let calls = body.tool_calls.map_or("[]", RawValue::get);
        let turn = format!("[{{\"role\":\"assistant\",\"content\":{content},\"tool_calls\":{calls}}}]");
        let context = body.reward_context;
        let truth = context.ground_truth.map_or("null", RawValue::get);
        let label = match Some(truth).filter(|truth| truth.starts_with('[')) {
            Some(truth) => reference_calls(truth, &made(calls)),
            None => None,
        };
        let label = match label {
            Some(calls) => Label { reference_calls: Some(calls.into()), ..Label::default() },
            None => Label::of_raw(truth),
        };
        let tools = context.function.map(|mut tools| {
            as_json_schema(&mut tools);
            tools.to_string().into()
        });
        let draft = Draft { written: Written::Messages(turn.into()), tools, label, ..Draft::default() };
        Ok((Self, vec![draft]))
    }

    fn write(&self, _: &str, sheet: &Sheet<'_>) -> Vec<u8> {
        let answer = |outcome: &Outcome<'_>| {
            let response =
                VerifyAnswerResponse { answer_status: status(outcome), partial_score: outcome.number(sheet.options) };
            written(&response)
        };
        sheet.outcomes.first().map_or_else(Vec::new, answer)
    }
}

fn status(outcome: &Outcome<'_>) -> AnswerStatus {
    let facts = outcome.facts();
    if !outcome.valid() || !facts.parse_ok {
        AnswerStatus::Unparsable
    } else if outcome.passed() {
        AnswerStatus::Correct
    } else if facts.attempts == 0 && !facts.answered {
        AnswerStatus::NoAnswer
    } else {
        AnswerStatus::Wrong
    }
}

/// The calls that were made: name and arguments; of many those that are matched with references.
fn made(calls: &str) -> Vec<(String, Map<String, Value>)> {
    let calls: Vec<Value> = serde_json::from_str(calls).unwrap_or_default();
    let call = |call: &Value| {
        let function = call.get("function")?;
        let arguments = match function.get("arguments")? {
            Value::Object(arguments) => arguments.clone(),
            Value::String(text) => serde_json::from_str(text).ok()?,
            _ => return None,
        };
        Some((function.get("name")?.as_str()?.to_owned(), arguments))
    };
    calls.iter().filter_map(call).take(MAX_MATCHED_CALLS).collect()
}

/// Reference calls as the native request has them: for each argument the value that a call of this name made, where that
/// is among the right ones, else the first right one. `None` where the truth is no list of calls. One that is too long is
/// compared with nothing: the native reader refuses it, and says why.
fn reference_calls(truth: &str, made: &[(String, Map<String, Value>)]) -> Option<String> {
    let truth: Vec<Map<String, Value>> = serde_json::from_str(truth).ok()?;
    let made = if truth.len() > MAX_REFERENCE_CALLS { &[] } else { made };
    let mut calls = Vec::with_capacity(truth.len());
    for call in truth {
        let (name, Value::Object(arguments)) = call.into_iter().next()? else { return None };
        let of_name: Vec<_> = made.iter().filter(|(made, _)| *made == name).map(|(_, arguments)| arguments).collect();
        // The call that has the most right values is the one that the reference is about.
        let right = |made: &&&Map<String, Value>| {
            arguments.iter().filter(|(argument, values)| is_right(values, made.get(*argument))).count()
        };
        let nearest = of_name.iter().max_by_key(right).copied();
        let chosen: Map<String, Value> = arguments
            .iter()
            .filter_map(|(argument, values)| {
                Some((argument.clone(), choose(values, nearest.and_then(|made| made.get(argument)))?))
            })
            .collect();
        calls.push(serde_json::json!({"name": name, "arguments": chosen}));
    }
    Some(Value::from(calls).to_string())
}

fn alternatives(values: &Value) -> &[Value] {
    values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice)
}

/// Whether a made value, or leaving it out, is right.
fn is_right(values: &Value, made: Option<&Value>) -> bool {
    match made {
        Some(made) => alternatives(values).contains(made),
        None => may_be_absent(values),
    }
}

/// The empty string among several right values says that the argument may be left out.
fn may_be_absent(values: &Value) -> bool {
    values.as_array().is_some_and(|values| values.iter().any(|value| value == ""))
}

fn choose(values: &Value, made: Option<&Value>) -> Option<Value> {
    match made {
        Some(made) if is_right(values, Some(made)) => Some(made.clone()),
        None if may_be_absent(values) => None,
        _ => alternatives(values).iter().find(|value| **value != "").or(alternatives(values).first()).cloned(),
    }
}

/// The leaderboard writes `dict`, `float` and `tuple` where JSON Schema has `object`, `number` and `array`, and `any` for
/// no constraint.
fn as_json_schema(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let kind = match fields.get("type").and_then(Value::as_str) {
                Some("dict") => Some("object"),
                Some("float") => Some("number"),
                Some("tuple") => Some("array"),
                _ => None,
            };
            if let Some(kind) = kind {
                fields.insert("type".to_owned(), kind.into());
            } else if fields.get("type").is_some_and(|kind| kind == "any") {
                fields.remove("type");
            }
            fields.values_mut().for_each(as_json_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(as_json_schema),
        _ => {}
    }
}

/// Verify calls as `PipelineRL` sends them; by the rubric `tool_use` where the query names none.
#[utoipa::path(post, path = "/verify_answer", tag = "dialects", operation_id = "pipeline_rl_verify_answer", params(Options, Repeatable),
    request_body(content = VerifyAnswerRequestDoc, description = "A rollout with what is right"),
    responses(
        (status = 200, description = "The score", body = VerifyAnswerResponse),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn verify_answer(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    serve::<PipelineRl>(app, id, request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MADE: &str = r#"[{"function": {"name": "f", "arguments": {"n": 7}}}]"#;

    fn references(truth: &Value, made: &Value) -> Value {
        let calls = json!([{"function": {"name": "f", "arguments": made.to_string()}}]).to_string();
        serde_json::from_str::<Value>(&reference_calls(&truth.to_string(), &super::made(&calls)).unwrap()).unwrap()
    }

    #[test]
    fn a_made_value_among_the_right_ones_is_the_reference() {
        let truth = json!([{"f": {"unit": ["C", "celsius"], "n": [1]}}]);
        let found = references(&truth, &json!({"unit": "celsius", "n": 2}));
        assert_eq!(found, json!([{"name": "f", "arguments": {"unit": "celsius", "n": 1}}]));
        assert_eq!(references(&truth, &json!({}))[0]["arguments"], json!({"unit": "C", "n": 1}));
    }

    #[test]
    fn the_empty_string_means_that_it_may_be_left_out() {
        let truth = json!([{"f": {"limit": ["", 10]}}]);
        assert_eq!(references(&truth, &json!({}))[0]["arguments"], json!({}));
        assert_eq!(references(&truth, &json!({"limit": 5}))[0]["arguments"], json!({"limit": 10}));
    }

    #[test]
    fn many_calls_are_compared_as_far_as_they_are_matched() {
        let call = |n: usize| json!({"function": {"name": "f", "arguments": {"n": n}}});
        let truth = json!([{"f": {"n": [0, 7]}}]);
        let chosen = |wrong: usize| {
            let calls: Vec<Value> = (0..wrong).map(|_| call(1)).chain([call(7)]).collect();
            reference_calls(&truth.to_string(), &super::made(&Value::from(calls).to_string())).unwrap()
        };
        assert_eq!(chosen(MAX_MATCHED_CALLS - 1), r#"[{"name":"f","arguments":{"n":7}}]"#);
        assert_eq!(chosen(MAX_MATCHED_CALLS), r#"[{"name":"f","arguments":{"n":0}}]"#);
    }

    /// Each of its calls would be compared with each of those made, only to be refused.
    #[test]
    fn a_truth_that_is_too_long_is_compared_with_nothing() {
        let chosen = |length: usize| {
            let truth = Value::from(vec![json!({"f": {"n": [0, 7]}}); length]);
            let calls: Value =
                serde_json::from_str(&reference_calls(&truth.to_string(), &super::made(MADE)).unwrap()).unwrap();
            assert_eq!(calls.as_array().unwrap().len(), length);
            calls[0]["arguments"]["n"].clone()
        };
        assert_eq!((chosen(MAX_REFERENCE_CALLS), chosen(MAX_REFERENCE_CALLS + 1)), (json!(7), json!(0)));
    }

    #[test]
    fn answers_are_no_calls() {
        assert_eq!(reference_calls("[\"Paris\"]", &[]), None);
    }

    #[test]
    fn types_become_those_of_json_schema() {
        let mut schema = json!({"type": "dict", "properties": {"x": {"type": "float"}, "type": {"type": "any"}}});
        as_json_schema(&mut schema);
        assert_eq!(schema, json!({"type": "object", "properties": {"x": {"type": "number"}, "type": {}}}));
    }
}
