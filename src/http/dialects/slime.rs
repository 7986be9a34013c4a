//! slime and miles: `POST /slime`, one sample. The answer is a bare number, or an object with `?format=dict`. Its client
//! retries every status but 200 for minutes: what cannot be scored is a number, too, unless `on_invalid` says otherwise.

use std::borrow::Cow;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::{LabelDoc, TextOrMessagesDoc};
use super::fields::Parts;
use super::label::{self, Label};
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written};
use super::results::{Named, Results, written};
use super::unscored::Unscored;
use super::{Dialect, Incoming, as_reward, json, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::wire::{OnInvalid, Pointed};

/// One sample. Fields that are not known are ignored.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = SlimeRequest, example = json!({"prompt": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "response": "<answer>Paris</answer><|im_end|>", "label": "Paris"}))]
pub(crate) struct SlimeRequestDoc {
    /// What the policy was given, templated text or messages.
    #[schema(required = false)]
    prompt: Option<TextOrMessagesDoc>,
    /// What it wrote.
    response: String,
    /// What is right; without it the table of `POST /references` is asked.
    #[schema(required = false)]
    label: Option<LabelDoc>,
}

/// A reward: a number, or an object with `format=dict`.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SlimeResponse, example = json!(0.93))]
pub(crate) enum SlimeResponseDoc {
    /// The reward.
    Number(Option<f64>),
    /// `score`, `valid` and every metric: for `--reward-key score`.
    #[schema(title = "SlimeScores")]
    Dict(std::collections::BTreeMap<String, Option<f64>>),
}

struct Slime;

impl Dialect for Slime {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    // Its client waits for 120 s.
    const DEADLINE_MS: Option<u64> = Some(110_000);
    const RETRIES_ALL: bool = true;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 1 + label::DEPTH)?;
        let body = parts.object(body)?;
        let raw_item = RawItem {
            prompt: body.raw_of("prompt").map(Cow::Borrowed),
            written: Written::response(body.needed("response")?.raw()),
            label: Label::read(body.get("label")),
            ..RawItem::default()
        };
        Ok((Self, vec![raw_item]))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let reward = results.numbers().first().copied().flatten();
        match results.outcomes.first() {
            Some(outcome) if results.options.wants_dict() => {
                let valid = Some(outcome.validity());
                let metrics = outcome.metrics().map(|(name, score)| (name, Some(score))).collect();
                written(&Named { own: vec![("score", reward), ("valid", valid)], metrics })
            }
            _ => written(&reward),
        }
    }

    fn failed(problem: Problem, unscored: &Unscored) -> Result<Response, Problem> {
        as_reward(problem, unscored)?;
        let reward = unscored.reward();
        if !unscored.options.wants_dict() {
            return Ok(json(written(&reward)));
        }
        let metrics = unscored.metric_names().map(|name| (name, Some(0.0))).collect();
        Ok(json(written(&Named { own: vec![("score", reward), ("valid", Some(0.0))], metrics })))
    }
}

/// Score a sample as slime and miles send it.
///
/// What cannot be scored gets the rubric's lowest reward, and so does a request that can never be scored (0 where there is
/// no such rubric), and the server's log says why: this client retries whatever is not 200. With `on_invalid=error` a
/// sample that cannot be scored is 503, and such a request has the status that it has at `POST /reward`.
#[utoipa::path(post, path = "/slime", tag = "dialects", operation_id = "slime_score", params(Options, Repeatable),
    request_body(content = SlimeRequestDoc, description = "The body of `--rm-type remote_rm`"),
    responses(
        (status = 200, description = "The reward", body = SlimeResponseDoc),
        (status = 503, description = "Draining, or the sample has no score and `on_invalid` is `error`", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn score_sample(incoming: Incoming) -> Result<Response, Problem> {
    serve::<Slime>(incoming).await
}
