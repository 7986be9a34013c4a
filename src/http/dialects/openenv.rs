//! `OpenEnv`: `POST /step` and `POST /reset`, an environment of one step. The action is the whole conversation; its reward
//! ends the episode. What cannot be scored has reward `null`.

use std::borrow::Cow;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::LabelDoc;
use super::fields::Parts;
use super::label::Label;
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written};
use super::results::{Results, written};
use super::{Dialect, Incoming, serve};
use crate::http::app::App;
use crate::http::error::{Problem, ProblemWire};
use crate::http::schema::{JsonObject, MessageDoc};
use crate::http::wire::{OnInvalid, Pointed};

/// A step. Other fields are taken and ignored.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = StepRequest, example = json!({"action": {"messages": [{"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "<answer>Paris</answer>"}], "ground_truth": "Paris"}, "timeout_s": 30, "request_id": "x"}))]
pub(crate) struct StepRequestDoc {
    /// What the policy did.
    action: ActionDoc,
    /// Seconds after which the answer is 504, where the query has no `deadline_ms`.
    #[schema(required = false)]
    timeout_s: Option<f64>,
    /// Ignored.
    #[schema(required = false)]
    request_id: Option<String>,
}

/// What the policy did. Without a right answer the table of `POST /references` is asked.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = Action, example = json!({"messages": [{"role": "assistant", "content": "<answer>Paris</answer>"}], "ground_truth": "Paris"}))]
pub(crate) struct ActionDoc {
    /// The conversation.
    messages: Vec<MessageDoc>,
    /// What is right; the other names that a label has for it, its `group` and its `group_size` are taken here, too.
    #[schema(required = false)]
    ground_truth: Option<LabelDoc>,
    /// The tools that were offered.
    #[schema(required = false)]
    tools: Option<Vec<JsonObject>>,
}

/// What a step came to.
#[derive(Serialize, ToSchema)]
#[schema(as = StepResponse, example = json!({"observation": {"messages": []}, "reward": 0.93, "done": true}))]
pub(crate) struct StepResponse {
    /// Nothing is seen of this environment.
    observation: Observation,
    /// The reward; `null` where there is none.
    reward: Option<f64>,
    /// Whether the episode is over: after every step.
    done: bool,
}

/// What is seen: nothing.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Observation, example = json!({"messages": []}))]
pub(crate) struct Observation {
    /// Empty.
    #[schema(value_type = Vec<JsonObject>)]
    messages: [(); 0],
}

struct OpenEnv {
    deadline_ms: Option<u64>,
}

impl Dialect for OpenEnv {
    const ON_INVALID: OnInvalid = OnInvalid::Null;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 2)?;
        let body = parts.object(body)?;
        let action = body.needed("action")?.object("/action")?;
        let Some(messages) = action.raw_of("messages") else {
            return Err(Pointed::shape("/action", "the field `messages` is missing; add the conversation"));
        };
        let raw_item = RawItem {
            written: Written::Messages(Cow::Borrowed(messages)),
            label: Label::of_fields(action),
            ..RawItem::default()
        };
        Ok((Self { deadline_ms: body.raw_of("timeout_s").map(milliseconds).transpose()? }, vec![raw_item]))
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let reward = results.outcomes.first().and_then(super::results::Outcome::reward);
        written(&StepResponse { observation: Observation::default(), reward, done: true })
    }
}

/// Seconds as milliseconds.
fn milliseconds(raw: &str) -> Result<u64, Pointed> {
    let seconds: Option<f64> = serde_json::from_str(raw).ok();
    let read = seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
    read.and_then(|duration| u64::try_from(duration.as_millis()).ok())
        .ok_or_else(|| Pointed::shape("/timeout_s", format!("{raw} is no time in seconds; it must be 0 or more")))
}

/// Score a conversation as a step of an `OpenEnv` environment.
#[utoipa::path(post, path = "/step", tag = "dialects", operation_id = "openenv_step", params(Options, Repeatable),
    request_body(content = StepRequestDoc, description = "The whole conversation as one action"),
    responses(
        (status = 200, description = "The reward, and the end of the episode", body = StepResponse),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn step(incoming: Incoming) -> Result<Response, Problem> {
    serve::<OpenEnv>(incoming).await
}

/// Begin an episode: there is nothing to see before its only step. The body is ignored.
#[utoipa::path(post, path = "/reset", tag = "dialects", operation_id = "openenv_reset",
    responses((status = 200, description = "Nothing to see", body = StepResponse)))]
pub(crate) async fn reset(State(app): State<App>, headers: HeaderMap) -> Result<Json<StepResponse>, Problem> {
    app.tokens.require_api(&headers)?;
    Ok(Json(StepResponse { observation: Observation::default(), reward: None, done: false }))
}
