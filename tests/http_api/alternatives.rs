//! Rules that allow, or refuse, several things, and defaults: one test for each that no other file has.

use super::contract::score;
use crate::common::{Database, Server, answering, hermes, saying, with};
use serde_json::{Value, json};

/// A rubric whose answer stands in its tag.
fn rubric(stages: Value) -> Value {
    json!({"name": "t", "answer": {"from": "answer_tag"}, "stages": stages})
}

/// An item that answers, with references.
fn item(answer: &str, references: Value) -> Value {
    with(saying(&format!("<answer>{answer}</answer>")), "references", references)
}

/// The first result of a request of one item.
fn result(server: &Server, rubric: Value, item: Value) -> Value {
    score(server, &json!({"rubric": rubric, "trajectories": [item]}))["results"][0].clone()
}

#[track_caller]
fn assert_reward(result: &Value, wanted: f64) {
    let reward = result["reward"].as_f64().unwrap_or_else(|| panic!("{result:#}"));
    assert!((reward - wanted).abs() < 1e-4, "{reward}, not {wanted}");
}

#[test]
fn options_that_a_stage_leaves_out_have_their_defaults() {
    let server = Server::start(&[]);
    let alone = |mut stage: Value, answer: &str, reference: &str| {
        stage["weight"] = json!(1);
        result(&server, rubric(json!([stage])), item(answer, json!([reference])))
    };
    // BLEU is its brevity penalty alone, exp(1 - 3/2); the cap is one half.
    assert_reward(&alone(json!({"kind": "la_bleu"}), "x y", "x y z"), 0.5 * (-0.5_f64).exp());
    assert_reward(&alone(json!({"kind": "bleu"}), "a b", "a b"), 1.0);
    // Precisions 4/4 and, where nothing matches, 0.1 of 3, 2 and 1.
    let wanted = (0.1_f64 / 3.0 * 0.1 / 2.0 * 0.1).powf(0.25);
    assert_reward(&alone(json!({"kind": "bleu", "smoothing": "floor"}), "a b c d", "a c b d"), wanted);
}

#[test]
fn an_expression_has_both_comparisons_with_equality() {
    let server = Server::start(&[]);
    for (expr, wanted) in
        [("exact_match <= 1", 1.0), ("exact_match >= 1", 1.0), ("exact_match < 1", 0.0), ("exact_match > 1", 0.0)]
    {
        let stages = json!([{"kind": "expr", "name": "e", "weight": 1, "expr": expr}]);
        assert_reward(&result(&server, rubric(stages), item("x", json!(["x"]))), wanted);
    }
}

#[test]
fn weights_are_parts_of_their_sum() {
    let server = Server::start(&[]);
    for (weights, parts) in [
        ([0.5, 0.5, 0.25], [0.4, 0.4, 0.2]),
        ([0.1, 0.1, 0.2], [0.25, 0.25, 0.5]),
        ([3.0, 3.0, 6.0], [0.25, 0.25, 0.5]),
    ] {
        let stages: Vec<Value> = ["exact_match", "f1", "answer_format"]
            .iter()
            .zip(weights)
            .map(|(kind, weight)| json!({"kind": kind, "weight": weight, "threshold": 0}))
            .collect();
        let found = result(&server, rubric(json!(stages)), item("x", json!(["y"])));
        for (stage, part) in found["stages"].as_array().unwrap().iter().zip(parts) {
            assert!((stage["weight"].as_f64().unwrap() - part).abs() < 1e-9, "{found:#}");
        }
    }
}

#[test]
fn a_threshold_may_move_with_mastery() {
    let server = Server::start(&[]);
    let mut rubric = rubric(json!([
        {"kind": "f1", "weight": 1, "threshold": 0}, {"kind": "answer_format", "weight": 1}]));
    rubric["schedules"] = json!([{"over": "mastery.f1", "of": "threshold", "stage": "f1", "points": [[0, 0], [1, 1]]}]);
    let at = |mastery: f64| {
        let request = json!({"rubric": rubric, "curriculum": {"mastery": {"f1": mastery}},
            "trajectories": [item("x y", json!(["x z"]))]});
        score(&server, &request)["results"][0].clone()
    };
    assert_reward(&at(0.0), 0.75);
    assert_reward(&at(1.0), 0.25);
}

#[test]
fn a_response_may_be_as_long_as_the_limit() {
    let server = Server::start(&[]);
    let mut rubric = rubric(json!([{"kind": "exact_match", "weight": 1}]));
    rubric["penalties"] = json!([{"kind": "overlong", "weight": 1, "max_tokens": 10, "cache_tokens": 0}]);
    for (tokens, wanted) in [(10, 1.0), (11, 0.0)] {
        let item = with(item("x", json!(["x"])), "response_tokens", json!(tokens));
        assert_reward(&result(&server, rubric.clone(), item), wanted);
    }
}

#[test]
fn components_add_up_to_the_reward_from_the_lowest_on() {
    let server = Server::start(&[]);
    let mut rubric = rubric(json!([{"kind": "exact_match", "weight": 1}]));
    rubric["reward"] = json!({"min": 0.5, "max": 1.0});
    let found = result(&server, rubric, item("x", json!(["y"])));
    assert_eq!(found["reward"], 0.5);
    let sum: f64 = found["components"].as_object().unwrap().values().map(|part| part.as_f64().unwrap()).sum();
    assert_eq!(sum, 0.5, "{found:#}");
}

#[test]
fn what_is_reported_without_references_is_nothing() {
    let server = Server::start(&[]);
    let mut rubric = rubric(json!([{"kind": "answer_format", "weight": 1}]));
    rubric["report"] = json!(["f1"]);
    let found = result(&server, rubric, item("x", json!([])));
    assert_eq!((&found["reward"], &found["metrics"]["f1"]), (&json!(1.0), &json!(0.0)), "{found:#}");
}

#[test]
fn the_answer_is_the_last_turns() {
    let server = Server::start(&[]);
    let turns = json!({"messages": [
        {"role": "assistant", "content": "<answer>Paris</answer>"}, {"role": "user", "content": "?"},
        {"role": "assistant", "content": "hm"}], "references": ["Paris"]});
    let found = result(&server, rubric(json!([{"kind": "exact_match", "weight": 1}])), turns);
    assert_eq!((&found["answer"]["text"], &found["reward"]), (&Value::Null, &json!(0.0)), "{found:#}");
}

#[test]
fn what_a_message_says_of_itself_wins() {
    let server = Server::start(&[]);
    let parse = rubric(json!([{"kind": "tool_parse", "weight": 1}]));
    let native = json!({"messages": [{"role": "assistant", "content": hermes("g", &json!({})),
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]});
    let found = result(&server, parse.clone(), native);
    assert_eq!((&found["parse"]["format"], &found["tool_calls"][0]["name"]), (&json!("openai"), &json!("f")));
    assert_eq!(found["parse"]["attempts"], 1);
    // An item's format wins over its rubric's.
    let mut by_hermes = parse;
    by_hermes["calls"] = json!({"format": "hermes"});
    let found = result(&server, by_hermes, with(saying("[f()]"), "tool_format", json!("pythonic")));
    assert_eq!((&found["parse"]["format"], &found["parse"]["attempts"]), (&json!("pythonic"), &json!(1)));
    // A part without a type is text.
    let parts =
        json!({"messages": [{"role": "assistant", "content": [{"text": "<answer>x</answer>"}]}], "references": ["x"]});
    assert_reward(&result(&server, rubric(json!([{"kind": "exact_match", "weight": 1}])), parts), 1.0);
}

#[test]
fn what_a_loop_wrote_into_a_response_is_told_by_its_lines() {
    let server = Server::start(&[]);
    let react = json!({"name": "t", "answer": {"from": "final_answer"}, "calls": {"format": "react"},
        "stages": [{"kind": "answer_format", "weight": 1}]});
    for (response, answer) in [
        ("Thought: x\nFinal Answer: the Observation: 5", "the Observation: 5"),
        ("Thought: x\nAction: f\nAction Input: {}\nObservation: r\nFinal Answer: Paris", "Paris"),
        ("Thought: x\nAction: f\nAction Input: {}\nObservation: r\nThought: y\nFinal Answer: Paris", "Paris"),
    ] {
        let found = result(&server, react.clone(), json!({"prompt": "Q", "response": response}));
        assert_eq!(found["answer"]["text"], answer, "{response}");
    }
    // What follows no search is no result.
    let item = json!({"prompt": "Q", "response": "<search>q</search> so <information>it</information> <answer>x</answer>",
        "tool_format": "search_r1", "references": ["x"]});
    let found = result(&server, rubric(json!([{"kind": "exact_match", "weight": 1}])), item);
    assert_eq!((&found["answer"]["text"], &found["answer"]["message"]), (&json!("x"), &json!(1)), "{found:#}");
}

#[test]
fn stages_of_what_could_not_be_scored_are_in_no_pass_rate() {
    let database = Database::new();
    let server = database.serve(&[]);
    let two = rubric(json!([{"kind": "answer_format", "weight": 1}, {"kind": "exact_match", "weight": 1}]));
    let bare = json!({"messages": [{"role": "assistant", "content": "<answer>Paris</answer>"}]});
    let items = json!([item("Paris", json!(["Paris"])), bare]);
    let answer = score(&server, &json!({"rubric": two, "run_id": "r", "step": 1, "trajectories": items}));
    assert_eq!(answer["results"][1]["valid"], false);
    let overall = server.get("/runs/r").ok()["overall"].clone();
    assert_eq!(overall["valid"], 1);
    for stage in overall["stages"].as_array().unwrap() {
        assert_eq!((&stage["reached"], &stage["passed"], &stage["pass_rate"]), (&json!(1), &json!(1), &json!(1.0)));
    }
    server.get("/runs/r/scores?min_reward=NaN").problem(400);
    server.get("/runs/r/scores?max_reward=nan").problem(400);
}

#[test]
fn the_admins_token_scores_as_well() {
    let server = Server::start(&["--api-token", "open", "--admin-token", "sesame"]);
    server.post_as("sesame", "/reward", &json!({"trajectories": [answering("Paris")]})).ok();
}
