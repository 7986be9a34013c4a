//! The shapes of requests and responses for the OpenAPI document, where the code reads or writes them by hand.
//!
//! Nothing is built from these types; a test holds real requests and responses against the document.
#![allow(dead_code, reason = "these types exist for their schemas")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::wire::{GroupWire, OnInvalid, ResultWire};
use crate::trajectory::ToolFormat;

/// A JSON object of any shape.
pub(crate) struct JsonObject;

impl PartialSchema for JsonObject {
    fn schema() -> RefOr<Schema> {
        let any = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(true)));
        any.description(Some("A JSON object of any shape")).examples([serde_json::json!({"key": "value"})]).into()
    }
}

impl ToSchema for JsonObject {
    fn name() -> Cow<'static, str> {
        "JsonObject".into()
    }
}

/// How calls are written, of [`ToolFormat::ALL`].
pub(crate) struct ToolFormatDoc;

impl PartialSchema for ToolFormatDoc {
    fn schema() -> RefOr<Schema> {
        let names =
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(ToolFormat::ALL.map(ToolFormat::as_str)));
        names.description(Some("How tool calls are written; `auto` detects it")).examples(["auto"]).into()
    }
}

impl ToSchema for ToolFormatDoc {
    fn name() -> Cow<'static, str> {
        "ToolFormat".into()
    }
}

/// Trajectories with what to score them by.
#[derive(ToSchema)]
#[schema(as = RewardRequest, example = json!({
    "rubric": "short_form_qa",
    "run_id": "exp-17",
    "step": 120,
    "trajectories": [{
        "id": "q42-r3",
        "group": "q42",
        "messages": [
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "<tool_call>{\"name\": \"search\", \"arguments\": {\"query\": \"capital of France\"}}</tool_call>"},
            {"role": "tool", "content": "Paris is the capital of France."},
            {"role": "assistant", "content": "<answer>Paris</answer>"}
        ],
        "tools": [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "required": ["query"]}}}],
        "references": ["Paris"]
    }]
}))]
pub(crate) struct RewardRequestDoc {
    /// A rubric's name, `name@version`, or a whole rubric (the JSON form of a rubric file). The server's default where absent.
    #[schema(required = false)]
    rubric: Option<RubricChoice>,
    /// The training run that the scores are kept under.
    #[schema(required = false, example = "exp-17")]
    run_id: Option<String>,
    /// The trainer's step.
    #[schema(required = false)]
    step: Option<u64>,
    /// The curriculum position. Its `step` stands instead of the one beside it; where there are both, they must be equal.
    #[schema(required = false)]
    curriculum: Option<CurriculumDoc>,
    /// Milliseconds from the request's arrival after which the answer is 504. It belongs before `trajectories`: behind them it
    /// is not known until it is the request's turn.
    #[schema(required = false)]
    deadline_ms: Option<u64>,
    /// What `reward` holds for an item that could not be scored.
    #[schema(required = false)]
    on_invalid: Option<OnInvalid>,
    /// Tools of all trajectories that bring none of their own.
    #[schema(required = false)]
    tools: Option<Vec<ToolDoc>>,
    /// What to score; may be empty.
    trajectories: Vec<TrajectoryDoc>,
}

/// A rubric by name, or a whole one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RubricChoice, example = json!("short_form_qa"))]
pub(crate) enum RubricChoice {
    /// `name` or `name@version`.
    #[schema(title = "RubricName")]
    Name(String),
    /// The JSON form of a rubric file.
    #[schema(title = "InlineRubric", value_type = JsonObject)]
    Inline(Value),
}

/// A curriculum position.
#[derive(ToSchema)]
#[schema(as = Curriculum, example = json!({"step": 120, "mastery": {"tool_parse": 0.97}}))]
pub(crate) struct CurriculumDoc {
    /// The trainer's step.
    step: Option<u64>,
    /// Pass rate per stage, from 0 to 1, as `GET /runs/{run_id}` reports it.
    #[schema(required = false)]
    mastery: BTreeMap<String, f64>,
}

/// One trajectory: `messages`, or `prompt` and `response`.
#[derive(ToSchema)]
#[schema(as = Trajectory, example = json!({
    "id": "q42-r3",
    "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<answer>4</answer>"}],
    "references": ["4"]
}))]
pub(crate) struct TrajectoryDoc {
    /// The client's name for it, a string or a number; returned as a string.
    #[schema(required = false)]
    id: Option<TextOrNumber>,
    /// The prompt's group: rollouts of one prompt share it. A string or a number; returned as a string.
    #[schema(required = false)]
    group: Option<TextOrNumber>,
    /// The conversation, as OpenAI chat messages. Only assistant messages are scored.
    #[schema(required = false)]
    messages: Option<Vec<MessageDoc>>,
    /// What the policy was given before the rollout, as text or messages; never scored. Beside `response`, or before `messages`.
    #[schema(required = false)]
    prompt: Option<PromptDoc>,
    /// Instead of `messages`: what the policy wrote, possibly with tool results between the markers of a chat template.
    #[schema(required = false)]
    response: Option<String>,
    /// The tools that were offered; win over those of the request.
    #[schema(required = false)]
    tools: Option<Vec<ToolDoc>>,
    /// Acceptable answers (also taken under `golds` and `ground_truth`).
    #[schema(required = false)]
    references: Option<Vec<TextOrNumber>>,
    /// Calls that a right trajectory makes, for `tool_match`; may be empty.
    #[schema(required = false)]
    reference_calls: Option<Vec<ReferenceCallDoc>>,
    /// How calls are written. The rubric's where absent.
    #[schema(required = false)]
    tool_format: Option<ToolFormatDoc>,
    /// Whether generation was cut off by a length limit.
    #[schema(required = false)]
    truncated: Option<bool>,
    /// How many tokens the policy wrote.
    #[schema(required = false)]
    response_tokens: Option<u64>,
    /// Columns of your own; ignored.
    #[schema(required = false, value_type = JsonObject)]
    metadata: Option<Value>,
}

/// A string, or a number that stands for its text; as a reference a whole one for its text without a fraction (42.0 for 42).
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TextOrNumber, example = json!("q42-r3"))]
pub(crate) enum TextOrNumber {
    /// Text.
    Text(String),
    /// A number.
    Number(f64),
}

/// Text, or messages.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Prompt, example = json!("What is the capital of France?"))]
pub(crate) enum PromptDoc {
    /// Text.
    Text(String),
    /// Messages.
    #[schema(title = "PromptMessages")]
    Messages(Vec<MessageDoc>),
}

/// An OpenAI chat message. Fields that are not listed here are taken and ignored; one that is listed makes its item malformed
/// where it has another type.
#[derive(Serialize, ToSchema)]
#[schema(as = Message, example = json!({"role": "assistant", "content": "<answer>Paris</answer>"}))]
pub(crate) struct MessageDoc {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schema(example = "assistant")]
    role: String,
    /// Text, null, or a list of parts, of which the text parts are joined.
    #[schema(required = false)]
    content: Option<ContentDoc>,
    /// Reasoning in a field of its own: never an answer, never searched for calls. Text, null, or a list of parts.
    #[schema(required = false)]
    reasoning_content: Option<ContentDoc>,
    /// The same under its other name; the first of the two that is not null counts.
    #[schema(required = false)]
    reasoning: Option<ContentDoc>,
    /// Native tool calls; `function.arguments` is a string or an object.
    #[schema(required = false, value_type = Option<Vec<NativeToolCallDoc>>)]
    tool_calls: Option<Value>,
}

/// Text, or a list of parts.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Content, example = json!("<answer>Paris</answer>"))]
pub(crate) enum ContentDoc {
    /// Text.
    Text(String),
    /// Parts, of which the text parts are joined.
    #[schema(title = "ContentParts")]
    Parts(Vec<ContentPartDoc>),
}

/// A part of a message's content. Text and reasoning are read; parts of other types are taken and ignored, with whatever
/// other fields they have.
#[derive(Serialize, ToSchema)]
#[schema(as = ContentPart, example = json!({"type": "text", "text": "<answer>Paris</answer>"}))]
pub(crate) struct ContentPartDoc {
    /// `text`, `output_text` or `input_text`; `thinking`, `reasoning` or `reasoning_text`; or another. `text` where absent.
    #[serde(rename = "type")]
    #[schema(required = false, example = "text")]
    kind: Option<String>,
    /// The text.
    #[schema(required = false)]
    text: Option<String>,
    /// The reasoning, where `text` does not have it.
    #[schema(required = false)]
    thinking: Option<String>,
}

/// A call as a field of its message. Other fields are taken and ignored.
#[derive(Serialize, ToSchema)]
#[schema(as = NativeToolCall, example = json!({"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{\"query\": \"capital of France\"}"}}))]
pub(crate) struct NativeToolCallDoc {
    /// Ignored.
    #[schema(required = false)]
    id: Option<String>,
    /// `function`.
    #[serde(rename = "type")]
    #[schema(required = false, example = "function")]
    kind: Option<String>,
    /// What is called.
    function: CalledFunctionDoc,
}

/// A function's name and what it is called with.
#[derive(Serialize, ToSchema)]
#[schema(as = CalledFunction, example = json!({"name": "search", "arguments": {"query": "capital of France"}}))]
pub(crate) struct CalledFunctionDoc {
    /// The tool's name.
    name: String,
    /// Its arguments.
    #[schema(required = false)]
    arguments: Option<CallArgumentsDoc>,
}

/// Arguments of a call.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = CallArguments, example = json!({"query": "capital of France"}))]
pub(crate) enum CallArgumentsDoc {
    /// JSON of an object, as text.
    #[schema(title = "CallArgumentsText")]
    Text(String),
    /// An object.
    #[schema(title = "CallArgumentsObject", value_type = JsonObject)]
    Object(Value),
}

/// A tool: `{"type": "function", "function": {"name", "parameters"}}`, the flat form of the Responses API, or a bare
/// `{"name", "parameters"}`, the schema of which may be called `input_schema` (Anthropic) or `inputSchema` (MCP) instead.
#[derive(ToSchema)]
#[schema(as = Tool, example = json!({"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}}}))]
pub(crate) struct ToolDoc {
    /// `function`.
    #[schema(required = false, rename = "type")]
    kind: Option<String>,
    /// The tool's name, description and JSON Schema.
    #[schema(required = false, value_type = JsonObject)]
    function: Option<Value>,
    /// The name, in the flat form.
    #[schema(required = false)]
    name: Option<String>,
    /// The JSON Schema of the arguments, in the flat form.
    #[schema(required = false, value_type = JsonObject)]
    parameters: Option<Value>,
}

/// A call that a right trajectory makes.
#[derive(ToSchema)]
#[schema(as = ReferenceCall, example = json!({"name": "search", "arguments": {"query": "capital of France"}}))]
pub(crate) struct ReferenceCallDoc {
    /// The tool's name.
    name: String,
    /// Its arguments.
    #[schema(required = false, value_type = JsonObject)]
    arguments: Option<Value>,
}

/// Which rubric scored.
#[derive(ToSchema, Serialize)]
#[schema(as = RubricRef, example = json!({"name": "short_form_qa", "version": "b3-5f0c1e9a"}))]
pub(crate) struct RubricRefDoc {
    /// Its name.
    name: String,
    /// Its version: a hash of its content. `name@version` pins it.
    version: String,
}

/// Scored trajectories, in request order.
#[derive(ToSchema)]
#[schema(as = RewardResponse, example = json!({"rubric": {"name": "short_form_qa", "version": "b3-5f0c1e9a"}, "rewards": [0.93],
    "results": [{"id": "q42-r3", "group": "q42", "score_id": "0000018b2c3d4e5f-0", "reward": 0.93, "valid": true, "stage_reached": "la_bleu",
    "failed_stage": null, "reason": null,
    "stages": [{"name": "tool_parse", "score": 1.0, "weight": 0.1, "threshold": 1.0, "open": true, "passed": true, "detail": {"attempts": 1.0, "malformed": 0.0}}],
    "metrics": {"tool_parse": 1.0}, "components": {"tool_parse": 0.1},
    "tool_calls": [{"message": 2, "index": 0, "span": [17, 99], "name": "search", "arguments": {"query": "capital of France"}, "parsed": true, "known": true, "schema_valid": true, "errors": []}],
    "parse": {"ok": true, "format": "hermes", "attempts": 1, "errors": []}, "answer": {"text": "Paris", "message": 4},
    "steps": [{"message": 2, "reward": 0.2}, {"message": 4, "reward": 0.73}], "errors": [], "cache": "miss", "latency_ms": 0.4}],
    "groups": [{"group": "q42", "n": 1, "mean": 0.93, "std": 0.0, "value": 0.0}], "curriculum": {"step": 120, "mastery": {}}}))]
pub(crate) struct RewardResponseDoc<'a> {
    /// Which rubric scored.
    rubric: RubricRefDoc,
    /// The rewards alone: `results[i].reward`.
    rewards: Vec<Option<f64>>,
    /// One result per trajectory.
    results: Vec<ResultWire<'a>>,
    /// Statistics of the valid rewards of every group that has a name.
    groups: Vec<GroupWire<'a>>,
    /// The curriculum position that was scored with.
    curriculum: CurriculumDoc,
    /// What was odd about the request, such as fields that are not known; absent where nothing was.
    #[schema(required = false)]
    warnings: Vec<String>,
}
