//! *Could not score* is never a number made up: `valid`, `errors`, and what `on_invalid` makes of it.

use serde_json::{Value, json};

use super::contract::{close, score, score_one};
use crate::common::{Server, answering, saying, stable, with};

/// Items that cannot be read, each with the place of its fault inside the item.
fn malformed() -> Vec<(Value, &'static str)> {
    let message = |message: Value| json!({"messages": [message]});
    vec![
        (json!(7), ""),
        (json!("text"), ""),
        (json!([]), ""),
        (json!(null), ""),
        (json!({"messages": 3}), "/messages"),
        (json!({"messages": "text"}), "/messages"),
        (json!({"messages": [3]}), "/messages/0"),
        (message(json!({"content": "no role"})), "/messages/0"),
        (message(json!({"role": "narrator", "content": "x"})), "/messages/0/role"),
        (message(json!({"role": 1, "content": "x"})), "/messages/0/role"),
        (message(json!({"role": "assistant", "content": 5})), "/messages/0/content"),
        (message(json!({"role": "user", "content": 5})), "/messages/0/content"),
        (message(json!({"role": "user", "content": {}})), "/messages/0/content"),
        (message(json!({"role": "tool", "content": {"text": "x"}})), "/messages/0/content"),
        (message(json!({"role": "assistant", "tool_calls": 5})), "/messages/0/tool_calls"),
        (message(json!({"role": "assistant", "content": "a", "tool_calls": "x"})), "/messages/0/tool_calls"),
        (message(json!({"role": "assistant", "tool_calls": {}})), "/messages/0/tool_calls"),
        (with(answering("Paris"), "tool_format", json!("morse")), "/tool_format"),
        (with(answering("Paris"), "references", json!({"a": 1})), "/references"),
        (with(answering("Paris"), "references", json!([["Paris"]])), "/references"),
        (with(answering("Paris"), "truncated", json!("yes")), "/truncated"),
        (with(answering("Paris"), "response_tokens", json!(-1)), "/response_tokens"),
        (with(answering("Paris"), "response", json!("both")), "/response"),
        (json!({"prompt": "?", "response": 4}), "/response"),
        (json!({"prompt": 4, "response": "x"}), "/prompt"),
    ]
}

#[test]
fn a_malformed_item_has_an_error_that_points_at_it() {
    let server = Server::start(&[]);
    for (item, place) in malformed() {
        let response = score(&server, &json!({"trajectories": [answering("Paris"), item]}));
        let result = &response["results"][1];
        assert_eq!((&result["valid"], &result["reward"]), (&json!(false), &Value::Null), "{item}");
        assert_eq!(result["errors"][0]["code"], "item_malformed", "{item}");
        let pointer = result["errors"][0]["pointer"].as_str().unwrap();
        assert!(pointer.starts_with(&format!("/trajectories/1{place}")), "{pointer} for {item}");
        assert_eq!(response["rewards"][0], 1.0);
    }
}

#[test]
fn a_list_is_no_object() {
    let server = Server::start(&[]);
    for item in [
        json!({"messages": [["assistant", "<answer>Paris</answer>", null, null]], "references": ["Paris"]}),
        json!({"messages": [{"role": "assistant", "content": [["text", "<answer>Paris</answer>", null]]}], "references": ["Paris"]}),
        with(answering("Paris"), "reference_calls", json!([["f", {}]])),
    ] {
        let result = score_one(&server, item.clone());
        assert_eq!(result["errors"][0]["code"], "item_malformed", "{item}");
    }
    let response = score(&server, &json!({"trajectories": [["fromlist", "grp"]]}));
    assert!(response["results"][0]["id"].is_null() && response["groups"] == json!([]), "{response}");
    server.reward(&json!([null, null, null, null, null, null, null, []])).problem(422);
    server.reward(&json!({"curriculum": [3, {}], "trajectories": []})).problem(422);
}

#[test]
fn one_bad_item_never_fails_its_batch() {
    let server = Server::start(&[]);
    let alone = stable(&score_one(&server, answering("Paris")));
    let mut items = Vec::new();
    for (item, _) in malformed() {
        items.extend([answering("Paris"), item]);
    }
    let response = score(&server, &json!({"trajectories": items}));
    for (index, result) in response["results"].as_array().unwrap().iter().enumerate() {
        if index % 2 == 0 {
            assert_eq!(stable(result), alone, "the neighbour at {index}");
        } else {
            assert_eq!(result["valid"], false, "{index}");
        }
    }
}

#[test]
fn a_malformed_item_keeps_its_names_where_they_can_be_read() {
    let server = Server::start(&[]);
    let item = json!({"id": "x", "group": 5, "messages": 3});
    let response = score(&server, &json!({"trajectories": [item]}));
    assert_eq!(response["results"][0]["id"], "x");
    assert_eq!(response["results"][0]["group"], "5");
}

#[test]
fn on_invalid_null_is_the_default_and_gives_null() {
    let server = Server::start(&[]);
    for request in [json!({}), json!({"on_invalid": "null"})] {
        let request = with(request, "trajectories", json!([answering("Paris"), 7]));
        assert_eq!(score(&server, &request)["rewards"], json!([1.0, null]));
    }
}

#[test]
fn on_invalid_zero_gives_the_rubrics_lowest_reward() {
    let server = Server::start(&[]);
    let request = json!({"on_invalid": "zero", "trajectories": [answering("Paris"), 7]});
    let response = score(&server, &request);
    assert_eq!(response["rewards"], json!([1.0, 0.0]));
    assert_eq!(response["results"][1]["valid"], false, "and it still says that it could not be scored");
    let rubric = json!({"name": "signed", "reward": {"min": -2.0, "max": 1.0}, "stages": [{"kind": "exact_match", "weight": 1}]});
    let request = json!({"rubric": rubric, "on_invalid": "zero", "trajectories": [answering("Paris"), 7]});
    assert_eq!(score(&server, &request)["rewards"], json!([1.0, -2.0]));
}

#[test]
fn on_invalid_mean_gives_the_mean_of_the_groups_valid_rewards() {
    let server = Server::start(&[]);
    let of = |group: &str, item: Value| with(item, "group", json!(group));
    let bad = |group: &str| json!({"group": group, "messages": 3});
    let request = json!({"rubric": "binary_em", "on_invalid": "mean", "trajectories": [
        of("a", answering("Paris")), bad("a"), of("a", answering("Lyon")), of("a", answering("Paris")), of("b", answering("Lyon")), bad("b"), bad("c")]});
    let response = score(&server, &request);
    assert!(close(response["rewards"][1].as_f64().unwrap(), 2.0 / 3.0));
    assert_eq!(response["rewards"][5], 0.0);
    assert!(response["rewards"][6].is_null(), "a group without a valid reward has no mean, and none is made up");
    assert_eq!(response["groups"][0]["n"], 3, "statistics count valid rewards only");
    assert_eq!(response["groups"][2], json!({"group": "c", "n": 0, "mean": null, "std": null, "value": null}));
}

#[test]
fn a_reward_that_was_filled_in_is_made_of_that() {
    let server = Server::start(&[]);
    // What stands for the reward, and what it is made of, in the words of a call that comes behind them.
    let words = json!({"reward": null, "components": {}});
    let call = json!({"function": {"name": "f", "arguments": words}});
    let unanswerable = json!({"id": "\"reward\":null", "group": "\"components\":{}",
        "messages": [{"role": "assistant", "content": words.to_string(), "tool_calls": [call]}], "tools": [{"name": "f"}]});
    let rubric = json!({"name": "signed", "reward": {"min": -2.0, "max": 1.0}, "stages": [{"kind": "exact_match", "weight": 1}]});
    let request = json!({"rubric": rubric, "on_invalid": "zero", "trajectories": [unanswerable, 7]});
    let response = score(&server, &request);
    for result in response["results"].as_array().unwrap() {
        assert_eq!((&result["valid"], &result["reward"]), (&json!(false), &json!(-2.0)));
        assert_eq!(result["components"], json!({"filled": -2.0}));
    }
    assert_eq!(response["results"][0]["tool_calls"][0]["arguments"], words);
}

#[test]
fn on_invalid_error_fails_the_whole_request_with_422() {
    let server = Server::start(&[]);
    let request = json!({"on_invalid": "error", "trajectories": [answering("Paris"), {"messages": 3}]});
    let problem = server.reward(&request).problem(422);
    assert!(problem["pointer"].as_str().unwrap().starts_with("/trajectories/1"), "{problem}");
    let counted = server.metric("gradus_item_errors_total", &[("code", "item_malformed")]);
    assert!((counted - 1.0).abs() < 0.5, "it counts, though the request has no results: {counted}");
    let invalid = [("rubric", "short_form_qa"), ("outcome", "invalid")];
    let counted = server.metric("gradus_trajectories_total", &invalid);
    assert!((counted - 1.0).abs() < 0.5, "so does its item: {counted}");
    let fine = json!({"on_invalid": "error", "trajectories": [answering("Paris"), saying("no answer")]});
    score(&server, &fine);
}

#[test]
fn on_invalid_error_is_503_with_retry_after_when_the_judge_is_down() {
    let server = Server::start(&[]);
    let request = json!({"rubric": "long_form_qa", "on_invalid": "error", "trajectories": [answering("Paris")]});
    let answer = server.reward(&request);
    answer.problem(503);
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
}

#[test]
fn an_unknown_on_invalid_is_a_wrong_shape() {
    let server = Server::start(&[]);
    for wrong in [json!("guess"), json!(5), json!(1.5), json!(true), json!([]), json!({}), json!({"zero": null})] {
        let problem = server.reward(&json!({"on_invalid": wrong, "trajectories": []})).problem(422);
        assert_eq!(problem["pointer"], "/on_invalid", "{wrong}");
    }
}

#[test]
fn an_empty_batch_gives_empty_lists() {
    let server = Server::start(&[]);
    for on_invalid in ["null", "zero", "mean", "error"] {
        let response = score(&server, &json!({"trajectories": [], "on_invalid": on_invalid}));
        for field in ["rewards", "results", "groups"] {
            assert_eq!(response[field], json!([]));
        }
    }
}
