//! `OpenRLHF`: `POST /get_reward`, columns of whole texts (`query`), their prompts and labels. Its client retries every
//! status but 200, and takes numbers only: what cannot be scored is a number, too, unless `on_invalid` says otherwise.

use std::borrow::Cow;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::LabelDoc;
use super::fields::{Parts, Value, one_for_each};
use super::label::{self, Label};
use super::options::{Options, Repeatable};
use super::raw_item::{RawItem, Written, quoted};
use super::results::{Named, Outcome, Results, written};
use super::unscored::Unscored;
use super::{Dialect, Incoming, as_reward, json, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::prompt::{strip_trailing_tokens, without_trailing_tokens};
use crate::http::wire::{OnInvalid, Pointed};

/// A shard of rollouts.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = OpenRlhfRequest, example = json!({"query": ["<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<answer>Paris</answer><|im_end|>"],
    "prompts": ["<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"], "labels": ["Paris"]}))]
pub(crate) struct OpenRlhfRequestDoc {
    /// Prompt and response as one text, special tokens included; may be empty.
    query: Vec<String>,
    /// The prompt of each; without them the markers of the chat template tell where the response begins.
    #[schema(required = false)]
    prompts: Option<Vec<String>>,
    /// What is right for each; without them, and for an empty text, the table of `POST /references` is asked.
    #[schema(required = false)]
    labels: Option<Vec<Option<LabelDoc>>>,
}

/// Rewards of a shard, in order.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenRlhfResponse, example = json!({"rewards": [0.93], "scores": [0.93], "extra_logs": {"valid": [1.0], "tool_parse": [1.0], "la_bleu": [0.9]}}))]
pub(crate) struct OpenRlhfResponse<'s> {
    /// The rewards.
    rewards: Vec<Option<f64>>,
    /// The same, cut to 0..1, for dynamic filtering.
    scores: Vec<Option<f64>>,
    /// `valid` and every metric, a list each.
    #[schema(value_type = std::collections::BTreeMap<String, Vec<f64>>)]
    extra_logs: Named<'s, Vec<f64>>,
    /// Why nothing was scored; absent where something was.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'s str>,
}

struct OpenRlhf;

impl Dialect for OpenRlhf {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    // Its client waits for 180 s.
    const DEADLINE_MS: Option<u64> = Some(170_000);
    const LIST: Option<&'static str> = Some("query");
    const RETRIES_ALL: bool = true;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 2 + label::DEPTH)?;
        let body = parts.object(body)?;
        let query = body.needed("query")?.list("/query")?.raws();
        let (prompts, labels) = (body.values_of("prompts")?, body.values_of("labels")?);
        for (name, list) in [("prompts", &prompts), ("labels", &labels)] {
            if !list.is_empty() {
                one_for_each(list.len(), query.len(), "of `query`", format_args!("/{name}"))?;
            }
        }
        let raw_item = |(place, query)| {
            let prompt = prompts.get(place).copied().map(Value::raw);
            // What it sends of a data set whose labels it was not told of (`label = ""` without `--data.label_key`).
            let label = labels.get(place).copied().filter(|label: &Value<'_, '_>| label.raw() != "\"\"");
            raw_item(query, prompt, Label::read(label))
        };
        let raw_items = query.into_iter().enumerate().map(raw_item).collect();
        Ok((Self, raw_items))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let rewards = results.numbers();
        let metrics = results.metric_columns(|_, score| score.unwrap_or(0.0));
        let valid = results.outcomes.iter().map(Outcome::validity).collect();
        written(&OpenRlhfResponse {
            scores: cut(&rewards),
            rewards,
            extra_logs: Named { own: vec![("valid", valid)], metrics },
            error: None,
        })
    }

    fn failed(problem: Problem, unscored: &Unscored) -> Result<Response, Problem> {
        let problem = as_reward(problem, unscored)?;
        // Of a body that could not be read nobody knows how many rewards are wanted.
        if unscored.items == 0 {
            return Err(problem);
        }
        let zeros = || vec![0.0; unscored.items];
        let rewards = vec![unscored.reward(); unscored.items];
        let metrics = unscored.metric_names().map(|name| (name, zeros())).collect();
        let extra_logs = Named { own: vec![("valid", zeros())], metrics };
        Ok(json(written(&OpenRlhfResponse {
            scores: cut(&rewards),
            rewards,
            extra_logs,
            error: Some(problem.detail()),
        })))
    }
}

/// Rewards within 0 and 1.
fn cut(rewards: &[Option<f64>]) -> Vec<Option<f64>> {
    rewards.iter().map(|reward| reward.map(|reward| reward.clamp(0.0, 1.0))).collect()
}

/// An item of a whole text and its prompt, both raw JSON.
fn raw_item<'b>(query: &'b str, prompt: Option<&'b str>, label: Label<'b>) -> RawItem<'b> {
    let whole = || RawItem { label: label.clone(), ..RawItem::whole(query) };
    let Some(prompt) = prompt.filter(|prompt| prompt.starts_with('"')) else { return whole() };
    match response_after(query, prompt) {
        Some(response) => {
            RawItem { prompt: Some(Cow::Borrowed(prompt)), written: response, label, ..RawItem::default() }
        }
        None => whole(),
    }
}

/// What a text has after its prompt, without the tokens at its end; all raw JSON.
fn response_after<'b>(query: &'b str, prompt: &str) -> Option<Written<'b>> {
    // Written by one client, equal texts are written alike: nothing need be decoded.
    if let Some(rest) = query.strip_prefix(prompt.strip_suffix('"')?) {
        return Some(Written::Inside(without_trailing_tokens(rest.strip_suffix('"')?)));
    }
    let decode = |raw: &str| serde_json::from_str::<String>(raw).ok();
    let rest = quoted(decode(query)?.strip_prefix(&decode(prompt)?)?);
    Some(Written::Response(Cow::Owned(strip_trailing_tokens(&rest).into_owned())))
}

/// Score a shard as `OpenRLHF` sends it.
///
/// What cannot be scored gets the rubric's lowest reward, and so does every query of a request that can never be scored (0
/// where there is no such rubric): this client retries whatever is not 200. With `on_invalid=error` a shard with an item
/// that cannot be scored is 503, and such a request has the status that it has at `POST /reward`; so has one whose queries
/// cannot be counted, since its body is too large or no JSON.
#[utoipa::path(post, path = "/get_reward", tag = "dialects", operation_id = "openrlhf_get_reward", params(Options, Repeatable),
    request_body(content = OpenRlhfRequestDoc, description = "The body of `--reward.remote_url`"),
    responses(
        (status = 200, description = "Rewards in order", body = OpenRlhfResponse<'static>),
        (status = 503, description = "Draining, or an item has no score and `on_invalid` is `error`", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn get_reward(incoming: Incoming) -> Result<Response, Problem> {
    serve::<OpenRlhf>(incoming).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_what_follows_the_prompt() {
        let found = |query: &str, prompt: &str| match response_after(query, prompt)? {
            Written::Inside(inside) => Some(format!("\"{inside}\"")),
            Written::Response(raw) => Some(raw.into_owned()),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(r#""Q: 1\nA: 2</s>""#, r#""Q: 1\nA: ""#).unwrap(), r#""2""#);
        // The same text, escaped in another way.
        assert_eq!(found(r#""Qé:2""#, r#""Q\u00e9:""#).unwrap(), r#""2""#);
        assert_eq!(found(r#""another text""#, r#""Q""#), None);
        assert_eq!(found(r#""Q""#, r#""Q""#).unwrap(), r#""""#);
    }
}
