//! Rewards worked out by hand, stage by stage and penalty by penalty, through the whole pipeline with inline rubrics.

use serde_json::{Value, json};

use super::{NoJudge, engine, hermes, response};

fn score(request: Value) -> Value {
    response(&engine(), &request.to_string(), &NoJudge)
}

/// The result of one trajectory with one stage (or several) and penalties.
fn result(stages: Value, extra: Value, text: &str, fields: Value) -> Value {
    let mut rubric = json!({"name": "test", "stages": stages});
    rubric.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let mut trajectory = json!({
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}],
        "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}],
        "references": ["Paris"],
    });
    trajectory.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    score(json!({"rubric": rubric, "trajectories": [trajectory]}))["results"][0].clone()
}

fn near(value: &Value, expected: f64) {
    let found = value.as_f64().unwrap_or(f64::NAN);
    assert!((found - expected).abs() < 1e-12, "{value} is not {expected}");
}

fn call(name: &str, arguments: Value) -> String {
    hermes(name, &arguments)
}

const RIGHT: &str = "<answer>Paris</answer>";

fn exact() -> Value {
    json!([{"kind": "exact_match", "weight": 1.0}])
}

/// 0 up to `L_max - L_cache`, then linear to 1 at `L_max`; times the weight.
#[test]
fn overlong_grows_over_the_cache() {
    let penalties = json!({"penalties": [{"kind": "overlong", "weight": 0.5, "max_tokens": 100, "cache_tokens": 40}]});
    for (tokens, reward) in [(0, 1.0), (60, 1.0), (61, 1.0 - 0.5 / 40.0), (80, 0.75), (100, 0.5), (9999, 0.5)] {
        near(&result(exact(), penalties.clone(), RIGHT, json!({"response_tokens": tokens}))["reward"], reward);
    }
    near(&result(exact(), penalties.clone(), RIGHT, json!({"truncated": true}))["reward"], 0.5);
    let unknown = result(exact(), penalties, RIGHT, json!({}));
    assert_eq!(
        (&unknown["valid"], &unknown["errors"][0]["pointer"]),
        (&json!(false), &json!("/trajectories/0/response_tokens"))
    );
}

#[test]
fn calls_beyond_the_budget_cost_whether_they_parse_or_not() {
    let penalties = json!({"penalties": [{"kind": "call_budget", "calls": 1, "weight": 0.1, "max": 0.25}]});
    let broken = "<tool_call>{</tool_call>";
    for (calls, reward) in [(vec![], 1.0), (vec![broken], 1.0), (vec![broken; 2], 0.9), (vec![broken; 9], 0.75)] {
        near(&result(exact(), penalties.clone(), &(calls.concat() + RIGHT), json!({}))["reward"], reward);
    }
}

#[test]
fn a_repeat_is_equal_by_value() {
    let penalties = json!({"penalties": [{"kind": "repeat_calls", "weight": 0.1}]});
    let of =
        |calls: &[String]| result(exact(), penalties.clone(), &(calls.concat() + RIGHT), json!({}))["reward"].clone();
    near(&of(&[call("f", json!({"a": 1, "b": 2})), call("f", json!({"b": 2.0, "a": 1}))]), 0.9);
    near(&of(&[call("f", json!({"a": 1})), call("f", json!({"a": 2})), call("g", json!({"a": 1}))]), 1.0);
}

#[test]
fn the_range_is_kept_by_a_clamp_that_shows() {
    let extra =
        json!({"reward": {"min": -1.0, "max": 1.0}, "penalties": [{"kind": "call_budget", "calls": 0, "weight": 5.0}]});
    let found = result(exact(), extra, &(call("f", json!({})) + "<answer>Rome</answer>"), json!({}));
    near(&found["reward"], -1.0);
    near(&found["components"]["base"], -1.0);
    near(&found["components"]["call_budget"], -5.0);
    near(&found["components"]["clamp"], 5.0);
}

/// Strict refuses the trailing comma, tolerant repairs it for the repaired credit.
#[test]
fn a_repaired_call_earns_the_repaired_credit() {
    let text = "<tool_call>{\"name\": \"f\", \"arguments\": {},}</tool_call>";
    let stages = json!([{"kind": "tool_parse", "weight": 1.0, "repaired_credit": 0.3}]);
    near(&result(stages.clone(), json!({}), text, json!({}))["reward"], 0.0);
    let tolerant = result(stages, json!({"calls": {"mode": "tolerant"}}), text, json!({}));
    near(&tolerant["reward"], 0.3);
    assert_eq!(tolerant["tool_calls"][0]["repairs"], json!(["trailing_comma"]));
    let gated = json!([{"kind": "tool_parse", "weight": 1.0, "threshold": 1.0, "repaired_credit": 0.3}]);
    let stopped = result(gated, json!({"calls": {"mode": "tolerant"}}), text, json!({}));
    let reason = stopped["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("had to be repaired (trailing_comma)"), "{stopped}");
}

#[test]
fn binary_cuts_and_expr_combines() {
    let text = "<answer>Paris France</answer>";
    // F1 of {paris, france} and {paris} is 2/3.
    near(&result(json!([{"kind": "f1", "weight": 1.0}]), json!({}), text, json!({}))["reward"], 2.0 / 3.0);
    for (cut, reward) in [(0.66, 1.0), (0.67, 0.0)] {
        near(
            &result(json!([{"kind": "binary", "of": "f1", "cut": cut, "weight": 1.0}]), json!({}), text, json!({}))["reward"],
            reward,
        );
    }
    let stages = json!([
        {"kind": "answer_format", "weight": 1.0},
        {"kind": "expr", "expr": "answer_format * max(0.5, f1) - 0.1", "weight": 1.0}
    ]);
    near(&result(stages, json!({}), text, json!({}))["reward"], 0.5 + 0.5 * (2.0 / 3.0 - 0.1));
}

/// 0.6 + 0.3 + 0.1 is less than 1 in binary, and 0.7 + 0.7 + 0.7 less than 2.1.
#[test]
fn rounding_closes_no_gate() {
    let stages = json!([
        {"name": "mix", "kind": "expr", "expr": "0.6*exact_match + 0.3*f1 + 0.1*answer_format", "threshold": 1.0, "weight": 1.0},
        {"kind": "exact_match", "weight": 9.0}
    ]);
    let found = result(stages, json!({}), RIGHT, json!({}));
    assert_eq!((&found["reward"], &found["stages"][0]["passed"]), (&json!(1.0), &json!(true)), "{found}");
    let repaired = "<tool_call>{\"name\": \"f\", \"arguments\": {},}</tool_call>";
    let credit = |credit: f64, calls: usize| {
        let stages = json!([
            {"kind": "tool_parse", "repaired_credit": credit, "threshold": credit, "weight": 1.0},
            {"kind": "binary", "of": "tool_parse", "repaired_credit": credit, "cut": credit, "weight": 1.0}
        ]);
        let text = repaired.repeat(calls) + RIGHT;
        result(stages, json!({"calls": {"mode": "tolerant"}}), &text, json!({}))["stages"].clone()
    };
    for share in [0.1, 0.35, 0.55, 0.7, 0.8] {
        for calls in 1..12 {
            let stages = credit(share, calls);
            assert_eq!([&stages[0]["passed"], &stages[1]["score"]], [&json!(true), &json!(1.0)], "{share} {calls}");
        }
    }
    let below = json!([{"kind": "expr", "expr": "1 - 0.000001", "threshold": 1.0, "weight": 1.0}]);
    assert_eq!(result(below, json!({}), RIGHT, json!({}))["stages"][0]["passed"], json!(false));
}

#[test]
fn tool_match_by_mode_and_order() {
    let (f, g) = (call("f", json!({"a": 1})), call("g", json!({})));
    let wanted = json!({"reference_calls": [{"name": "g", "arguments": {}}, {"name": "f", "arguments": {"a": 1}}]});
    let of = |mode: &str, ordered: bool, text: &str| {
        let stages = json!([{"kind": "tool_match", "mode": mode, "ordered": ordered, "weight": 1.0}]);
        result(stages, json!({}), text, wanted.clone())["reward"].clone()
    };
    let both = f.clone() + &g;
    near(&of("strict", false, &both), 1.0);
    near(&of("strict", true, &both), 0.0);
    near(&of("fractional", true, &both), 0.5);
    near(&of("f1", false, &(both.clone() + &call("f", json!({"a": 2})))), 2.0 * 2.0 / 5.0);
    near(&of("fractional", false, &(both.clone() + &f)), 1.0);
    near(&of("strict", false, &(both.clone() + &f)), 0.0);
    // Name right, argument wrong: (1 + 0) / (1 + 1) of one reference, nothing of the other.
    near(&of("fractional", false, &call("f", json!({"a": 2}))), 0.25);
    near(&of("f1", false, "none"), 0.0);
    near(&of("jaccard", false, &both), 1.0);
    near(&of("jaccard", false, &(both.clone() + &f)), 2.0 / 3.0);
    near(&of("jaccard", false, &call("f", json!({"a": 2}))), 0.5 / 2.5);
    near(&of("jaccard", false, "none"), 0.0);
    // A repeat is no near miss of another reference, and nor is its original in its stead.
    let wanted =
        json!({"reference_calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 2}}]});
    let stages = |mode: &str| json!([{"kind": "tool_match", "mode": mode, "weight": 1.0}]);
    let twice = f.clone() + &call("f", json!({"a": 1.0}));
    near(&result(stages("jaccard"), json!({}), &twice, wanted.clone())["reward"], 1.0 / 3.0);
    near(&result(stages("f1"), json!({}), &twice, wanted)["reward"], 2.0 * 1.5 / 4.0);
}

/// A call whose tool is not offered is no valid one, and matches all the same.
#[test]
fn a_call_that_is_not_valid_earns_the_invalid_credit() {
    let fields = json!({"reference_calls": [{"name": "h", "arguments": {}}, {"name": "g", "arguments": {}}]});
    let text = call("h", json!({})) + &call("g", json!({}));
    for (mode, credit, reward) in
        [("f1", 1.0, 1.0), ("f1", 0.5, 0.75), ("fractional", 0.0, 0.5), ("jaccard", 0.5, 0.6), ("strict", 0.9, 0.0)]
    {
        let stages = json!([{"kind": "tool_match", "mode": mode, "invalid_credit": credit, "weight": 1.0}]);
        near(&result(stages, json!({}), &text, fields.clone())["reward"], reward);
    }
}

#[test]
fn thresholds_and_weights_follow_the_position() {
    let rubric = json!({"name": "moving",
    "stages": [{"kind": "answer_format", "weight": 1.0}, {"kind": "exact_match", "weight": 1.0}],
    "schedules": [
        {"stage": "exact_match", "of": "weight", "over": "step", "points": [[0, 1.0], [100, 3.0]]},
        {"stage": "answer_format", "of": "weight", "over": "mastery.answer_format", "points": [[0.5, 1.0], [1.0, 0.5]]}
    ]});
    let trajectory =
        json!({"messages": [{"role": "assistant", "content": "<answer>Rome</answer>"}], "references": ["Paris"]});
    let reward = |curriculum: Value| {
        let response = score(json!({"rubric": rubric, "curriculum": curriculum, "trajectories": [trajectory]}));
        (response["rewards"][0].clone(), response["warnings"].as_array().map_or(0, Vec::len))
    };
    let (early, warned) = reward(json!({}));
    near(&early, 1.0 / 2.0);
    assert_eq!(warned, 2, "each position that a schedule lacks is said");
    let (late, warned) = reward(json!({"step": 50, "mastery": {"answer_format": 1.0}}));
    near(&late, 0.5 / 2.5);
    assert_eq!(warned, 0);
}

/// The share of the calls goes to the turns that made them, the rest to the last.
#[test]
fn steps_sum_to_the_shaped_reward() {
    let messages = json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": call("f", json!({}))},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": call("g", json!({})) + &call("f", json!({}))},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": RIGHT}
    ]);
    for kind in [json!({"kind": "tool_parse"}), json!({"kind": "binary", "of": "tool_parse", "cut": 1.0})] {
        let mut stages = json!([kind, {"kind": "exact_match", "weight": 1.0}]);
        stages[0]["weight"] = json!(3.0);
        let found = result(stages, json!({}), "", json!({"messages": messages}));
        for (step, (message, reward)) in [(1, 0.25), (3, 0.5), (5, 0.25)].into_iter().enumerate() {
            assert_eq!(found["steps"][step]["message"], message);
            near(&found["steps"][step]["reward"], reward);
        }
    }
}
