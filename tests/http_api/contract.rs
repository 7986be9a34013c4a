//! What holds for every answer of `POST /reward`: names and order of fields, and the sums and orders between them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::Server;

const RESULT: [&str; 17] = [
    "id",
    "group",
    "reward",
    "valid",
    "stage_reached",
    "failed_stage",
    "reason",
    "stages",
    "metrics",
    "components",
    "tool_calls",
    "parse",
    "answer",
    "steps",
    "errors",
    "cache",
    "latency_ms",
];
const STAGE: [&str; 7] = ["name", "score", "weight", "threshold", "open", "passed", "detail"];
const CALL: [&str; 9] = ["message", "index", "span", "name", "arguments", "parsed", "known", "schema_valid", "errors"];

/// Scores a request and holds the response against all rules.
#[track_caller]
pub(crate) fn score(server: &Server, request: &Value) -> Value {
    let response = server.reward(request).ok();
    check(request, &response);
    response
}

/// Scores one trajectory with the default rubric.
#[track_caller]
pub(crate) fn score_one(server: &Server, trajectory: Value) -> Value {
    score(server, &serde_json::json!({"trajectories": [trajectory]}))["results"][0].clone()
}

/// Equal within a relative 1e-9.
pub(crate) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} must be a number"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} must be a list"))
}

fn sum(value: &Value) -> f64 {
    value.as_object().unwrap().values().map(number).sum()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "the field {field} is missing in {value}");
    }
}

/// Every rule that needs nothing but the request and the response.
pub(crate) fn check(request: &Value, response: &Value) {
    has(response, &["rubric", "rewards", "results", "groups", "curriculum"]);
    has(&response["rubric"], &["name", "version"]);
    has(&response["curriculum"], &["step", "mastery"]);
    let trajectories = list(&request["trajectories"]);
    let results = list(&response["results"]);
    assert_eq!(results.len(), trajectories.len());
    assert_eq!(list(&response["rewards"]).len(), results.len());
    for (index, (trajectory, result)) in trajectories.iter().zip(results).enumerate() {
        assert_eq!(response["rewards"][index], result["reward"]);
        assert_eq!(keys(&result["metrics"]), keys(&results[0]["metrics"]), "metrics of result {index}");
        for name in ["id", "group"] {
            match &trajectory[name] {
                Value::String(text) => assert_eq!(result[name], **text),
                Value::Number(number) => assert_eq!(result[name], number.to_string()),
                _ => assert!(result[name].is_null()),
            }
        }
        check_result(result);
    }
    check_groups(results, &response["groups"]);
}

fn check_result(result: &Value) {
    has(result, &RESULT);
    number(&result["latency_ms"]);
    assert!(result["cache"] == "hit" || result["cache"] == "miss");
    check_stages(result);
    check_calls(result);
    has(&result["answer"], &["text", "message"]);
    if result["valid"] == true {
        assert!(list(&result["errors"]).is_empty());
        let reward = number(&result["reward"]);
        assert!(close(sum(&result["components"]), reward), "components do not sum to {reward}: {result}");
        let shaped: f64 = list(&result["stages"]).iter().map(|s| number(&s["score"]) * number(&s["weight"])).sum();
        let steps: f64 = list(&result["steps"]).iter().map(|step| number(&step["reward"])).sum();
        assert!(
            close(steps, shaped) || list(&result["steps"]).is_empty() && close(shaped, 0.0),
            "steps {steps}, shaped {shaped}: {result}"
        );
    } else {
        assert_eq!(result["valid"], false);
        assert!(!list(&result["errors"]).is_empty());
        for error in list(&result["errors"]) {
            has(error, &["code", "message", "pointer", "stage"]);
            assert!(error["code"].is_string() && error["message"].is_string());
            assert!(error["pointer"].as_str().is_some_and(|pointer| pointer.starts_with('/')), "{error}");
        }
        match result["reward"].as_f64() {
            None => assert_eq!(result["components"], serde_json::json!({})),
            Some(reward) => assert_eq!(result["components"], serde_json::json!({"filled": reward})),
        }
    }
}

/// `open_1 = 1, open_{k+1} = open_k * [s_k >= t_k]`; closed stages are not evaluated.
fn check_stages(result: &Value) {
    let stages = list(&result["stages"]);
    let weights: f64 = stages.iter().map(|stage| number(&stage["weight"])).sum();
    assert!(close(weights, 1.0), "weights sum to {weights}");
    if result["valid"] == false {
        return;
    }
    let (mut open, mut reached, mut failed) = (true, &Value::Null, &Value::Null);
    for stage in stages {
        has(stage, &STAGE);
        let (score, threshold) = (number(&stage["score"]), number(&stage["threshold"]));
        assert!((0.0..=1.0).contains(&score) && (0.0..=1.0).contains(&threshold), "{stage}");
        assert_eq!(stage["open"], open, "{result}");
        assert_eq!(stage["passed"], open && score >= threshold, "{result}");
        assert_eq!(result["metrics"][stage["name"].as_str().unwrap()], stage["score"]);
        if open {
            reached = &stage["name"];
        } else {
            assert!(close(score, 0.0), "a closed stage scores 0: {stage}");
        }
        if open && score < threshold {
            failed = &stage["name"];
            open = false;
        }
    }
    assert_eq!(&result["stage_reached"], reached);
    assert_eq!(&result["failed_stage"], failed);
    assert_eq!(result["reason"].is_null(), failed.is_null(), "a failure has a reason: {result}");
}

fn check_calls(result: &Value) {
    let calls = list(&result["tool_calls"]);
    has(&result["parse"], &["ok", "format", "attempts", "errors"]);
    let mut before = (0, 0);
    for (place, call) in calls.iter().enumerate() {
        has(call, &CALL);
        let at = (call["message"].as_u64().unwrap(), call["index"].as_u64().unwrap());
        assert!(place == 0 || at > before, "attempts come in order: {result}");
        before = at;
        let span = list(&call["span"]);
        assert!(span.len() == 2 && span[0].as_u64() <= span[1].as_u64(), "{call}");
        if call["parsed"] == false {
            assert!(call["arguments"].is_null() && !list(&call["errors"]).is_empty(), "{call}");
            assert!(call["schema_valid"] == false, "{call}");
        } else {
            assert!(call["arguments"].is_object() && call["name"].is_string(), "{call}");
        }
        assert_eq!(call["schema_valid"] == true, list(&call["errors"]).is_empty(), "{call}");
        for error in list(&call["errors"]) {
            has(error, &["code", "message"]);
        }
    }
    if result["valid"] == true {
        let left_out =
            |list: &str| result["left_out"][list].as_u64().map_or(0, |count| usize::try_from(count).unwrap());
        assert_eq!(result["parse"]["attempts"], calls.len() + left_out("tool_calls"));
        let malformed = calls.iter().any(|call| call["parsed"] == false);
        assert!(!malformed || result["parse"]["ok"] == false, "{result}");
        assert_eq!(result["parse"]["ok"] == false, !list(&result["parse"]["errors"]).is_empty());
    }
}

/// Count, mean, population deviation and V = (1 - mean) * std of the valid rewards, for rubrics whose highest reward is 1.
fn check_groups(results: &[Value], groups: &Value) {
    let mut expected: Vec<&str> = Vec::new();
    let mut rewards: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for result in results {
        let Some(group) = result["group"].as_str() else { continue };
        if !rewards.contains_key(group) {
            expected.push(group);
        }
        let rewards = rewards.entry(group).or_default();
        if result["valid"] == true {
            rewards.push(number(&result["reward"]));
        }
    }
    assert_eq!(list(groups).iter().map(|group| group["group"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    for group in list(groups) {
        let rewards = &rewards[group["group"].as_str().unwrap()];
        let n = rewards.len() as f64;
        assert_eq!(group["n"], rewards.len());
        if rewards.is_empty() {
            assert!(["mean", "std", "value"].iter().all(|name| group[*name].is_null()), "{group}");
            continue;
        }
        let mean = rewards.iter().sum::<f64>() / n;
        let std = (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!(close(number(&group["mean"]), mean) && close(number(&group["std"]), std), "{group}: {rewards:?}");
        assert!(close(number(&group["value"]), (1.0 - mean) * std), "{group}: {rewards:?}");
    }
}
