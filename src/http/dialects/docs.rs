//! Shapes that several dialects share, for the OpenAPI document. Nothing is built from them.
#![allow(dead_code, reason = "these types exist for their schemas")]

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::schema::{JsonObject, TextOrNumber};

/// What is right: an answer (text, number or boolean), a list of answers, or an object with more; an object may also come
/// as a JSON string.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Label, example = json!({"references": ["Paris"], "group": "q42"}))]
pub(crate) enum LabelDoc {
    /// An answer, or an object written as a string.
    Text(String),
    /// An answer that is a number.
    Number(f64),
    /// An answer that is true or false.
    Boolean(bool),
    /// Acceptable answers.
    #[schema(title = "Answers")]
    List(Vec<TextOrNumber>),
    /// More than answers.
    Object(LabelObjectDoc),
}

/// What is right, and what belongs to it. The answers may also be called `golds`, `ground_truth`, `target`, `answer`,
/// `answers`, `expected_answer` or `golden_answers` (the first in this order that there is), the group `group_id`.
#[derive(Serialize, ToSchema)]
#[schema(as = LabelObject, example = json!({"references": ["Paris"], "group": "q42", "group_size": 8}))]
pub(crate) struct LabelObjectDoc {
    /// Acceptable answers.
    #[schema(required = false)]
    references: Option<Vec<TextOrNumber>>,
    /// Calls that a right trajectory makes.
    #[schema(required = false, value_type = Vec<JsonObject>)]
    reference_calls: Option<Vec<Value>>,
    /// The tools that were offered; the list may be written as a string.
    #[schema(required = false, value_type = Vec<JsonObject>)]
    tools: Option<Vec<Value>>,
    /// The prompt's group.
    #[schema(required = false)]
    group: Option<String>,
    /// How many rollouts the group has.
    #[schema(required = false)]
    group_size: Option<usize>,
}

/// A conversation with its tools, as several trainers send it.
#[derive(Serialize, ToSchema)]
#[schema(as = TextOrMessages, example = json!("<answer>Paris</answer>"))]
#[serde(untagged)]
pub(crate) enum TextOrMessagesDoc {
    /// Text.
    Text(String),
    /// Messages.
    #[schema(title = "Messages", value_type = Vec<JsonObject>)]
    Messages(Vec<Value>),
}

/// One text, or several.
#[derive(Serialize, ToSchema)]
#[schema(as = TextOrTexts, example = json!(["<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<answer>Paris</answer>"]))]
#[serde(untagged)]
pub(crate) enum TextOrTextsDoc {
    /// One.
    One(String),
    /// Several.
    #[schema(title = "Texts")]
    Several(Vec<String>),
}
