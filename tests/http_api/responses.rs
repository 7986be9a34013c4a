//! The response of `POST /reward`, field by field.

use serde_json::{Value, json};

use super::contract::{close, score, score_one};
use crate::common::{Server, answering, case_requests, hermes, saying, stable, tool, with};

fn search() -> Value {
    tool("search", json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}))
}

/// The example of the contract: reasoning, a search, the answer.
fn example(answer: &str) -> Value {
    let call = format!("<think>Look it up.</think>{}", hermes("search", &json!({"query": "capital of France"})));
    json!({
        "rubric": "short_form_qa", "run_id": "exp-17", "step": 120, "deadline_ms": 60_000, "on_invalid": "null", "tools": [],
        "trajectories": [{
            "id": "q42-r3", "group": "q42",
            "messages": [
                {"role": "system", "content": "Answer with a tool."},
                {"role": "user", "content": "What is the capital of France?"},
                {"role": "assistant", "content": call},
                {"role": "tool", "content": "Paris is the capital of France."},
                {"role": "assistant", "content": format!("<answer>{answer}</answer>")},
            ],
            "tools": [search()], "references": ["Paris"], "tool_format": "auto", "truncated": false,
            "response_tokens": 88, "metadata": {"anything": [1, null]},
        }],
    })
}

#[test]
fn the_example_has_a_result_that_explains_itself() {
    let server = Server::start(&[]);
    let request = example("Paris");
    let response = score(&server, &request);
    assert_eq!(response["rubric"]["name"], "short_form_qa");
    assert_eq!(response["rewards"], json!([1.0]));
    assert_eq!(response["curriculum"], json!({"step": 120, "mastery": {}}));
    assert_eq!(response["groups"], json!([{"group": "q42", "n": 1, "mean": 1.0, "std": 0.0, "value": 0.0}]));
    let result = &response["results"][0];
    assert_eq!(result["id"], "q42-r3");
    assert_eq!(result["group"], "q42");
    assert_eq!(result["stage_reached"], "la_bleu");
    assert!(result["failed_stage"].is_null() && result["reason"].is_null());
    for metric in ["tool_parse", "tool_schema", "answer_format", "exact_match", "la_bleu"] {
        assert_eq!(result["metrics"][metric], 1.0, "{metric}");
    }
    for (component, value) in [("tool_parse", 0.1), ("tool_schema", 0.1), ("answer_format", 0.1), ("la_bleu", 0.7)] {
        assert!(close(result["components"][component].as_f64().unwrap(), value), "{component}");
    }
    let content = request["trajectories"][0]["messages"][2]["content"].as_str().unwrap();
    let call = &result["tool_calls"][0];
    let span = [&call["span"][0], &call["span"][1]].map(|end| usize::try_from(end.as_u64().unwrap()).unwrap());
    let expected = json!({"message": 2, "index": 0, "span": span, "name": "search", "arguments": {"query": "capital of France"},
                          "parsed": true, "known": true, "schema_valid": true, "errors": []});
    assert_eq!(call, &expected);
    assert_eq!(&content[span[0]..span[1]], hermes("search", &json!({"query": "capital of France"})));
    assert_eq!(result["parse"], json!({"ok": true, "format": "hermes", "attempts": 1, "errors": []}));
    assert_eq!(result["answer"], json!({"text": "Paris", "message": 4}));
    let steps: Vec<(u64, f64)> = result["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["message"].as_u64().unwrap(), step["reward"].as_f64().unwrap()))
        .collect();
    assert_eq!(steps.iter().map(|step| step.0).collect::<Vec<_>>(), [2, 4]);
    // The turn with the call earns the shares of parsing and schema, the last one those of the answer.
    assert!(close(steps[0].1, 0.2) && close(steps[1].1, 0.8), "{steps:?}");
}

#[test]
fn a_wrong_answer_is_scored_low_and_is_not_invalid() {
    let server = Server::start(&[]);
    let result = &score(&server, &example("Lyon"))["results"][0];
    assert_eq!(result["valid"], true);
    assert!(close(result["reward"].as_f64().unwrap(), 0.3), "form alone: {}", result["reward"]);
    for text in ["I do not know.", "", "<answer></answer>", "<tool_call>{oops</tool_call>", "<think>never closed"] {
        let result = score_one(&server, saying(text));
        assert_eq!(result["valid"], true, "{text}");
        assert!(result["reward"].as_f64().unwrap() < 0.5, "{text}: {}", result["reward"]);
    }
}

#[test]
fn an_empty_answer_earns_what_no_answer_earns() {
    let server = Server::start(&[]);
    let none = &score_one(&server, saying("I do not know."));
    for text in ["<answer></answer>", "<answer> \n</answer>"] {
        let empty = &score_one(&server, saying(text));
        assert_eq!(empty["answer"]["text"], "", "{text}");
        assert_eq!((&empty["reward"], &empty["failed_stage"]), (&none["reward"], &json!("answer_format")), "{text}");
        assert!(empty["reason"].as_str().unwrap().ends_with("the answer is empty"), "{}", empty["reason"]);
    }
}

#[test]
fn malformed_attempts_are_listed_in_order_with_an_error() {
    let server = Server::start(&[]);
    let good = hermes("search", &json!({"query": "a"}));
    let text = format!("{good}<tool_call>{{\"name\": \"search\", }}</tool_call>{good}<tool_call>[]</tool_call>");
    let result = score_one(&server, with(saying(&text), "tools", json!([search()])));
    let parsed: Vec<bool> =
        result["tool_calls"].as_array().unwrap().iter().map(|call| call["parsed"] == true).collect();
    assert_eq!(parsed, [true, false, true, false]);
    assert_eq!(result["tool_calls"][1]["errors"][0]["code"], "json_syntax");
    assert_eq!(result["tool_calls"][3]["errors"][0]["code"], "not_an_object");
    assert_eq!(result["parse"]["ok"], false);
    assert_eq!(result["parse"]["attempts"], 4);
}

#[test]
fn open_reasoning_makes_parse_not_ok_without_any_call() {
    let server = Server::start(&[]);
    let result = score_one(&server, saying("<think>I wonder <answer>Paris</answer>"));
    assert_eq!(result["parse"]["ok"], false);
    assert_eq!(result["parse"]["attempts"], 0);
    assert_eq!(result["parse"]["errors"][0]["code"], "reasoning_open");
    assert!(result["answer"]["text"].is_null());
}

#[test]
fn a_closed_stage_is_not_reached_and_counts_0_under_the_same_keys() {
    let server = Server::start(&[]);
    let broken = with(saying("<tool_call>{</tool_call><answer>Paris</answer>"), "tools", json!([search()]));
    let response = score(&server, &json!({"trajectories": [broken, answering("Paris"), answering("Lyon"), 7]}));
    let result = &response["results"][0];
    assert_eq!(result["failed_stage"], "tool_parse");
    assert_eq!(result["stage_reached"], "tool_parse");
    assert!(result["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    assert_eq!(result["metrics"]["la_bleu"], 0.0);
    assert_eq!(result["reward"], 0.0);
}

#[test]
fn tool_calls_say_whether_the_tool_is_known_and_what_its_schema_refuses() {
    let server = Server::start(&[]);
    let text =
        [hermes("serch", &json!({})), hermes("search", &json!({"query": 3})), hermes("search", &json!({}))].concat();
    let result = score_one(&server, with(saying(&text), "tools", json!([search()])));
    let calls = result["tool_calls"].as_array().unwrap();
    assert_eq!((&calls[0]["known"], &calls[0]["schema_valid"]), (&json!(false), &json!(false)));
    assert_eq!(calls[0]["errors"][0]["code"], "unknown_tool");
    assert_eq!(calls[1]["known"], true);
    assert_eq!(calls[1]["errors"][0]["code"], "schema_violation");
    assert_eq!(calls[1]["errors"][0]["pointer"], "/query");
    assert_eq!(calls[2]["errors"][0]["pointer"], "", "a missing property is an error of the whole object");
    assert_eq!(result["parse"]["ok"], true);
    assert_eq!(result["failed_stage"], "tool_schema");
}

#[test]
fn penalties_are_negative_components_and_clamping_is_one_too() {
    let server = Server::start(&[]);
    let rubric = |weight: f64| {
        json!({
            "name": "strict", "stages": [{"kind": "exact_match", "weight": 1}],
            "penalties": [{"kind": "call_budget", "calls": 0, "weight": weight}],
        })
    };
    let call = hermes("search", &json!({"query": "a"}));
    let trajectory =
        |answer: &str| with(saying(&format!("{call}<answer>{answer}</answer>")), "tools", json!([search()]));
    let right = score(&server, &json!({"rubric": rubric(0.25), "trajectories": [trajectory("Paris")]}));
    assert_eq!(right["rewards"], json!([0.75]));
    assert_eq!(right["results"][0]["components"]["call_budget"], -0.25);
    let wrong = score(&server, &json!({"rubric": rubric(0.25), "trajectories": [trajectory("Lyon")]}));
    assert_eq!(wrong["rewards"], json!([0.0]), "clamped to the lowest reward");
    assert_eq!(wrong["results"][0]["components"]["clamp"], 0.25);
}

#[test]
fn a_range_other_than_0_to_1_still_sums_to_the_reward() {
    let server = Server::start(&[]);
    let rubric = json!({"name": "signed", "reward": {"min": -1.0, "max": 2.0}, "stages": [
        {"kind": "answer_format", "weight": 1}, {"kind": "exact_match", "weight": 1}]});
    let request = json!({"rubric": rubric, "trajectories": [answering("Paris"), answering("Lyon"), saying("None.")]});
    let response = score(&server, &request);
    assert_eq!(response["rewards"], json!([2.0, 0.5, -1.0]));
}

#[test]
fn groups_have_mean_deviation_and_value_of_their_rewards() {
    let server = Server::start(&[]);
    let of = |group: &str, answer: &str| with(answering(answer), "group", json!(group));
    let request = json!({"rubric": "binary_em", "trajectories": [
        of("b", "Paris"), of("a", "Lyon"), of("b", "Lyon"), of("a", "Nice"), answering("Paris"), of("b", "Paris"), of("b", "Nice")]});
    let response = score(&server, &request);
    assert_eq!(
        response["groups"],
        json!([
            {"group": "b", "n": 4, "mean": 0.5, "std": 0.5, "value": 0.25},
            {"group": "a", "n": 2, "mean": 0.0, "std": 0.0, "value": 0.0},
        ])
    );
}

#[test]
fn equal_trajectories_of_a_batch_are_scored_once_and_marked() {
    let server = Server::start(&[]);
    let twice = json!({"trajectories": [with(answering("Paris"), "id", json!("a")), with(answering("Paris"), "id", json!("b"))]});
    let response = score(&server, &twice);
    assert_eq!(response["results"][0]["cache"], "miss");
    assert_eq!(response["results"][1]["cache"], "hit");
    assert_eq!(stable(&response["results"][0]), stable(&response["results"][1]));
    assert_eq!(response["results"][1]["id"], "b");
}

#[test]
fn every_case_file_keeps_every_rule() {
    let server = Server::start(&[]);
    for (name, request) in case_requests() {
        let response = score(&server, &request);
        let judged = ["long_form_qa", "binary_judge"].iter().any(|rubric| request["rubric"] == *rubric);
        for result in response["results"].as_array().unwrap() {
            assert!(judged || result["valid"] == true, "{name}: {}", result["errors"]);
        }
    }
}

#[test]
fn without_a_judge_only_what_reaches_it_is_invalid() {
    let server = Server::start(&[]);
    let no_answer = with(saying("<tool_call>{\"name\": \"search\"</tool_call>"), "id", json!("closed"));
    let request = json!({"rubric": "long_form_qa", "trajectories": [answering("Paris is the capital."), no_answer]});
    let response = score(&server, &request);
    let judged = &response["results"][0];
    assert_eq!((&judged["valid"], &judged["reward"]), (&json!(false), &Value::Null));
    assert_eq!(judged["errors"][0]["code"], "judge_unavailable");
    assert_eq!(judged["errors"][0]["stage"], "judge");
    assert_eq!(response["results"][1]["valid"], true, "the judge is never asked about a closed stage");
}

/// What is left of a message when its calls are taken out is its answer: not the brackets around them.
#[test]
fn a_message_of_nothing_but_calls_is_no_answer() {
    let server = Server::start(&[]);
    let answer = |format: &str, text: &str| {
        let rubric = json!({"name": "r", "answer": {"from": "last_message"}, "calls": {"format": format},
            "stages": [{"kind": "answer_format", "weight": 1}]});
        score(&server, &json!({"rubric": rubric, "trajectories": [saying(text)]}))["results"][0]["answer"]["text"]
            .clone()
    };
    let one = r#"{"name":"f","arguments":{"a":1}}"#;
    let list = format!("[{one}, {one}]");
    let deepseek =
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let kimi = "<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>";
    for (format, text) in [
        ("hermes", format!("<tool_call>{one}</tool_call>")),
        ("mistral", format!("[TOOL_CALLS] {list}")),
        ("phi4_mini", format!("functools{list}")),
        ("phi4_mini", format!("<|tool_call|>{list}<|/tool_call|>")),
        ("auto", format!("<|tool_call|>{list}<|/tool_call|>")),
        ("granite", format!("<|tool_call|>{list}")),
        ("granite", format!("<tool_call>{list}</tool_call>")),
        ("llama3_json", format!("{one}; {one}")),
        ("deepseek_v31", deepseek.to_owned()),
        ("kimi_k2", kimi.to_owned()),
        ("pythonic", "<|python_start|>[f(a=1), g()]<|python_end|>".to_owned()),
    ] {
        assert_eq!(answer(format, &text), Value::Null, "{format}");
        if format != "pythonic" {
            assert_eq!(answer(format, &format!("{text} Done.")), "Done.", "{format}");
        }
    }
    for format in ["auto", "functionary_v32"] {
        assert_eq!(answer(format, ">>>all\nParis"), "Paris");
        assert_eq!(answer(format, ">>>f\n{}>>>all\nParis"), "Paris");
    }
    assert_eq!(answer("functionary_v32", "all\nParis>>>f\n{}"), "Paris");
    assert_eq!(answer("functionary_v32", "all is well"), "all is well");
    for text in ["<|python_tag|>Paris", "functools[Paris", "<function_call>Paris", ">>>f\nParis", "<|tool_call|>[Paris"]
    {
        assert_eq!(answer("auto", text), "Paris", "{text}");
    }
    let harmony = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>ok<|return|>";
    assert_eq!(answer("harmony", harmony), "ok");
    assert_eq!(answer("harmony", "Paris"), "Paris", "a server may have taken the markers out");
    assert_eq!(answer("llama3_json", &format!("{one} {{\"answer\": 42}} {one}")), r#"{"answer": 42}"#);
}
