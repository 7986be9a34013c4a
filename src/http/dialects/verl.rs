//! verl's normal path: `POST /verl`, what a `compute_score` of a few lines hands on, one sample or a list of them. The
//! answer is flat, with the same keys for every item, and always has `score` and `acc`.

use std::borrow::Cow;
use std::fmt;

use axum::response::Response;
use serde::Serialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;

use super::docs::LabelDoc;
use super::fields::{Parts, Value};
use super::label::Label;
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written};
use super::results::{Named, Outcome, Results, written};
use super::{Dialect, Incoming, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::schema::JsonObject;
use crate::http::wire::{OnInvalid, Pointed};

/// A sample, or a list of them.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = VerlRequest, example = json!({"solution_str": "<answer>Paris</answer>", "ground_truth": "Paris"}))]
pub(crate) enum VerlRequestDoc {
    /// One.
    One(Box<VerlSampleDoc>),
    /// Some.
    #[schema(title = "VerlSamples")]
    Many(Vec<VerlSampleDoc>),
}

/// A score for a sample, or a list for a list.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = VerlResponse, example = json!({"score": 0.93, "acc": 1.0, "valid": 1.0, "tool_parse": 1.0, "la_bleu": 0.9}))]
pub(crate) enum VerlResponseDoc {
    /// One.
    One(Box<VerlScoreDoc>),
    /// Some, in the order of the samples.
    #[schema(title = "VerlScores")]
    Many(Vec<VerlScoreDoc>),
}

/// One sample, as `compute_score` gets it.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(Serialize, ToSchema)]
#[schema(as = VerlSample, example = json!({"data_source": "nq", "solution_str": "<answer>Paris</answer>", "ground_truth": "Paris",
    "extra_info": {"num_turns": 3, "index": 42}}))]
pub(crate) struct VerlSampleDoc {
    /// Ignored.
    #[schema(required = false)]
    data_source: Option<String>,
    /// What the policy wrote, without special tokens or with them.
    solution_str: String,
    /// What is right.
    #[schema(required = false)]
    ground_truth: Option<LabelDoc>,
    /// `prompt`, `tools`, and the group as `group`, `group_id`, `uid` or `index`; the rest is ignored.
    #[schema(required = false, value_type = JsonObject)]
    extra_info: Option<serde_json::Value>,
}

/// `score`, `acc`, `valid`, and every metric: the same keys for every item.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(Serialize, ToSchema)]
#[schema(as = VerlScore, example = json!({"score": 0.93, "acc": 1.0, "valid": 1.0, "tool_parse": 1.0, "la_bleu": 0.9}))]
pub(crate) struct VerlScoreDoc {
    /// The reward; null only where it could not be scored and `on_invalid` is `null`.
    #[schema(required = true)]
    score: Option<f64>,
    /// `exact_match` where the rubric measures it, else the score; 0 where the sample could not be scored.
    acc: f64,
    /// 1 where the sample could be scored, else 0.
    valid: f64,
    /// Score per stage and reported measure.
    #[serde(flatten)]
    metrics: std::collections::BTreeMap<String, f64>,
}

struct Verl {
    list: bool,
}

impl Dialect for Verl {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    // Its client waits for 300 s.
    const DEADLINE_MS: Option<u64> = Some(290_000);

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 3)?;
        let body = parts.value(body);
        if !body.raw().starts_with('[') {
            return Ok((Self { list: false }, vec![raw_item(body, format_args!(""))?]));
        }
        // One that is no sample is that sample's affair.
        let raw_items = body
            .inside()
            .enumerate()
            .map(|(place, body)| raw_item(body, format_args!("/{place}")).unwrap_or_else(|wrong| unread(body, &wrong)));
        Ok((Self { list: true }, raw_items.collect()))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let all: Vec<_> = results.outcomes.iter().map(|outcome| fields(outcome, results.options)).collect();
        match all.first() {
            Some(first) if !self.list => written(first),
            _ => written(&all),
        }
    }
}

fn raw_item<'b>(body: Value<'_, 'b>, pointer: fmt::Arguments<'_>) -> Result<RawItem<'b>, Pointed> {
    let body = body.object(pointer)?;
    let written = Written::response(body.needed("solution_str")?.raw());
    let info = body.get("extra_info").map(|info| info.object(format_args!("{pointer}/extra_info"))).transpose()?;
    let raw = |name: &str| info?.raw_of(name).map(Cow::Borrowed);
    Ok(RawItem {
        prompt: raw("prompt"),
        written,
        tools: raw("tools"),
        label: label(body, info),
        truncated: raw("truncated"),
        ..RawItem::default()
    })
}

/// What is right, and the group, which verl's data set has elsewhere.
fn label<'b>(body: Value<'_, 'b>, info: Option<Value<'_, 'b>>) -> Label<'b> {
    let label = body.raw_of("ground_truth").map(Label::of_raw).unwrap_or_default();
    let group = info.map(|info| Label::of_group(info, &["group", "group_id", "uid", "index"]));
    label.or(group.unwrap_or_default())
}

/// A sample that is none: its group does not wait for it in vain, and it is kept as it was sent.
fn unread<'b>(body: Value<'_, 'b>, wrong: &Pointed) -> RawItem<'b> {
    let fault = Some(wrong.to_string());
    // What is no JSON would spoil what is kept of the others.
    if serde_json::from_str::<IgnoredAny>(body.raw()).is_err() {
        return RawItem { fault, ..RawItem::default() };
    }
    let info = body.get("extra_info").filter(|info| info.object("").is_ok());
    RawItem {
        prompt: info.and_then(|info| info.raw_of("prompt")).map(Cow::Borrowed),
        written: Written::Response(Cow::Borrowed(body.raw())),
        label: label(body, info),
        fault,
        ..RawItem::default()
    }
}

fn fields<'s>(outcome: &Outcome<'s>, options: &Options) -> Named<'s, Option<f64>> {
    Named {
        own: vec![
            ("score", outcome.number(options)),
            ("acc", Some(accuracy(outcome))),
            ("valid", Some(outcome.validity())),
        ],
        metrics: outcome.metrics().map(|(name, score)| (name, Some(score))).collect(),
    }
}

/// `exact_match`, where a stage or a reported measure has that name, else the score: as the Python adapter has it.
fn accuracy(outcome: &Outcome<'_>) -> f64 {
    if !outcome.valid() {
        return 0.0;
    }
    let exact = outcome.metrics().find(|(name, _)| *name == "exact_match");
    exact.map_or_else(|| outcome.fallback(), |(_, score)| score)
}

/// Score what verl's `compute_score` gets.
#[utoipa::path(post, path = "/verl", tag = "dialects", operation_id = "verl_compute_score", params(Options, Repeatable),
    request_body(content = VerlRequestDoc, description = "The arguments of `compute_score`, or a list of them"),
    responses(
        (status = 200, description = "The score, or a list of them", body = VerlResponseDoc),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn compute_score(incoming: Incoming) -> Result<Response, Problem> {
    serve::<Verl>(incoming).await
}
