//! Answers are in proportion to what was sent: nothing that a request has once comes back once per item or per call, and
//! what is left out is counted.

use serde_json::{Value, json};

use super::contract::score_one;
use crate::common::{Server, answering, hermes, saying, tool, with};

/// Longest pointer that is told, in bytes.
const POINTER_BYTES: usize = 256;

/// Sends a body and gives the answer, which must be below a length in bytes.
#[track_caller]
fn below(server: &Server, body: &str, bytes: usize) -> Value {
    let answer = server.post("/reward", body);
    assert!(answer.body.len() < bytes, "{} bytes for {}", answer.body.len(), body.len());
    answer.ok()
}

/// Many trajectories, each of which makes these calls.
fn calling(tools: &Value, call: &str, calls: usize, trajectories: usize) -> String {
    let turn = saying(&call.repeat(calls));
    json!({"tools": tools, "trajectories": vec![turn; trajectories]}).to_string()
}

#[test]
fn tools_of_the_wrong_type_are_not_quoted_in_every_item() {
    let server = Server::start(&[]);
    let body = json!({"tools": "z".repeat(1 << 20), "trajectories": vec![answering("Paris"); 200]}).to_string();
    let response = below(&server, &body, 1 << 20);
    let error = &response["results"][199]["errors"][0];
    assert_eq!((&error["code"], &error["pointer"]), (&json!("item_malformed"), &json!("/tools")), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("JSON array") && message.len() < 400, "{message}");
}

#[test]
fn the_names_in_a_schema_are_not_told_once_per_call() {
    let server = Server::start(&[]);
    let name = "z".repeat(4000);
    let required: Vec<String> = (0..16).map(|n| format!("k{n}")).collect();
    let schema = json!({"$ref": format!("#/$defs/{name}"), "$defs": {&name: {"required": required}}});
    let response = below(&server, &calling(&json!([tool("f", schema)]), &hermes("f", &json!({})), 64, 1), 1 << 20);
    let errors = response["results"][0]["tool_calls"][0]["errors"].as_array().unwrap();
    assert!(!errors.is_empty());
    for error in errors {
        let pointer = error["schema_pointer"].as_str().unwrap();
        assert!(pointer.len() <= POINTER_BYTES && pointer.contains('…') && pointer.ends_with("/required"), "{pointer}");
    }
    let schema = json!({"properties": {"z".repeat(4000): {"type": "nope"}}});
    let response = below(&server, &calling(&json!([tool("f", schema)]), &hermes("f", &json!({})), 64, 8), 1 << 19);
    let error = &response["results"][0]["errors"][0];
    assert_eq!(error["code"], "schema_invalid");
    let pointer = error["pointer"].as_str().unwrap();
    assert!(
        pointer.starts_with("/tools/0/function/parameters/properties/zz") && pointer.ends_with("/type"),
        "{pointer}"
    );
}

#[test]
fn a_schema_with_endless_names_is_unsupported() {
    let server = Server::start(&[]);
    let schema = json!({"properties": {"z".repeat(900_000): {"type": "nope"}}});
    let response = below(&server, &calling(&json!([tool("f", schema)]), &hermes("f", &json!({})), 64, 8), 1 << 19);
    let error = &response["results"][0]["errors"][0];
    assert_eq!(error["code"], "schema_unsupported");
    assert!(error["message"].as_str().unwrap().contains("4096 bytes"), "{error}");
}

#[test]
fn a_schema_of_the_request_is_not_told_once_per_item() {
    let server = Server::start(&[]);
    let schema = json!({"properties": {"z".repeat(4000): {"type": "nope"}}});
    let items = 1000;
    let body = calling(&json!([tool("f", schema)]), &hermes("f", &json!({})), 1, items);
    let response = below(&server, &body, 2048 * items);
    for index in [0, items - 1] {
        let pointer = response["results"][index]["errors"][0]["pointer"].as_str().unwrap();
        assert!(pointer.len() <= POINTER_BYTES && pointer.matches('…').count() == 1, "{pointer}");
        assert!(pointer.starts_with("/tools/0/") && pointer.ends_with("/type"), "{pointer}");
    }
}

#[test]
fn a_name_that_is_not_known_is_not_told_whole() {
    let server = Server::start(&[]);
    let long = "z".repeat(1 << 20);
    for (path, body) in [
        ("/reward", json!({&long: 1, "trajectories": []})),
        ("/reward", json!({"curriculum": {&long: 1}, "trajectories": []})),
        ("/reward", json!({"curriculum": {"mastery": {&long: 0.5}}, "trajectories": []})),
        ("/reward", json!({"curriculum": {"mastery": {&long: 2}}, "trajectories": []})),
        ("/reward", json!({"rubric": {"name": "x", &long: 1}, "trajectories": []})),
        ("/reward", json!({"on_invalid": "error", "trajectories": [{"reference_calls": [{"name": "f", &long: 1}]}]})),
        ("/advantages", json!({&long: 1})),
        ("/advantages", json!({"algorithm": "grpo", "groups": [{"group": "a", "rewards": [], &long: 1}]})),
        ("/runs/r/sample", json!({&long: 1})),
    ] {
        let answer = server.post(path, &body);
        let problem = answer.problem(422);
        assert!(answer.body.len() < 4096, "{} bytes from {path}", answer.body.len());
        assert!(problem["pointer"].as_str().is_none_or(|pointer| pointer.len() <= POINTER_BYTES), "{problem}");
    }
    let item = with(answering("Paris"), "reference_calls", json!([{"name": "f", long: 1}]));
    below(&server, &json!({"trajectories": vec![item; 4]}).to_string(), 64 << 10);
}

#[test]
fn mastery_has_as_many_names_as_a_rubric_may_need() {
    let server = Server::start(&[]);
    let of = |names: usize| {
        let mastery: serde_json::Map<String, Value> = (0..names).map(|n| (format!("s{n}"), json!(0.5))).collect();
        server.reward(&json!({"curriculum": {"mastery": mastery}, "trajectories": []}))
    };
    of(64).ok();
    assert_eq!(of(65).problem(422)["pointer"], "/curriculum/mastery");
    let long = json!({"curriculum": {"mastery": {"s".repeat(257): 0.5}}, "trajectories": []});
    server.reward(&long).problem(422);
}

#[test]
fn thousands_of_broken_calls_are_counted_and_some_of_them_listed() {
    let server = Server::start(&[]);
    let calls = format!("[{}1]", "1,".repeat(255));
    let message = format!("{{\"role\":\"assistant\",\"tool_calls\":{calls}}}");
    let body = |turns: usize| {
        let messages = vec![&*message; turns].join(",");
        format!("{{\"trajectories\":[{{\"messages\":[{messages}]}}]}}")
    };
    // No more than that many are looked at, and all of them fit.
    let response = below(&server, &body(2000), 4 * body(2000).len());
    assert_eq!(response["results"][0]["parse"]["attempts"], 4097);
    assert!(response["results"][0].get("left_out").is_none());
    let response = below(&server, &body(15), 40 * body(15).len());
    let result = &response["results"][0];
    let (calls, parse) = (result["tool_calls"].as_array().unwrap(), &result["parse"]);
    let left_out = |list: &str| usize::try_from(result["left_out"][list].as_u64().unwrap()).unwrap();
    let attempts = usize::try_from(parse["attempts"].as_u64().unwrap()).unwrap();
    assert!(left_out("tool_calls") > 0 && calls.len() > 50);
    assert_eq!(calls.len() + left_out("tool_calls"), attempts);
    assert!(parse["errors"].as_array().unwrap().len() + left_out("parse_errors") >= attempts);
    assert!(
        calls
            .iter()
            .all(|call| call["errors"][0]["code"] == "not_an_object" || call["errors"][0]["code"] == "too_many_calls")
    );
    assert_eq!(parse["ok"], false);
    // Small items of one request have no more room each.
    let item = format!("{{\"messages\":[{{\"role\":\"assistant\",\"tool_calls\":[{}1]}}]}}", "1,".repeat(1000));
    let body = format!("{{\"trajectories\":[{}]}}", vec![item; 200].join(","));
    below(&server, &body, 30 * body.len());
}

#[test]
fn the_values_of_all_turns_have_one_room() {
    let server = Server::start(&[]);
    let arguments = format!("{{\"a\":[{}1]}}", "{\"\":1},".repeat(25_000));
    let call = format!(
        "{{\"role\":\"assistant\",\"tool_calls\":[{{\"function\":{{\"name\":\"f\",\"arguments\":{arguments}}}}}]}}"
    );
    let neighbour = answering("Paris");
    let body = format!("{{\"trajectories\":[{{\"messages\":[{}]}},{neighbour}]}}", vec![call; 4].join(","));
    let response = below(&server, &body, body.len());
    let codes: Vec<_> = response["results"][0]["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| &call["errors"][0]["code"])
        .collect();
    assert_eq!(codes, ["unknown_tool", "too_many_values", "too_many_values", "too_many_values"]);
    assert_eq!(response["results"][1]["reward"], 1.0);
}

#[test]
fn values_that_take_too_much_memory_are_named() {
    let server = Server::start(&[]);
    let many = |count: usize| format!("[{}1]", "{\"\":1},".repeat(count));
    let item = |values: &str| {
        format!(
            "{{\"messages\":[{{\"role\":\"assistant\",\"content\":\"\"}}],\"reference_calls\":[{{\"name\":\"f\"}},{{\"name\":\"f\",\"arguments\":{{\"a\":{values}}}}}]}}"
        )
    };
    let body = format!("{{\"trajectories\":[{},{}]}}", item(&many(3000)), item(&many(1000)));
    let response = below(&server, &body, 64 << 10);
    let error = &response["results"][0]["errors"][0];
    assert_eq!(
        (&error["code"], &error["pointer"]),
        (&json!("item_malformed"), &json!("/trajectories/0/reference_calls/1/arguments"))
    );
    assert!(error["message"].as_str().unwrap().contains("more than 1 MiB"), "{error}");
    assert!(response["results"][1]["errors"].as_array().unwrap().iter().all(|error| error["code"] != "item_malformed"));

    let grader = json!({"type": "string_check", "name": "c", "input": "{{sample.output_json.a[0]}}", "reference": "1", "operation": "eq"});
    let run = |sample: &str, item: &str| {
        let sample = json!(sample);
        let body = format!("{{\"grader\":{grader},\"model_sample\":{sample},\"item\":{{\"a\":{item}}}}}");
        server.post("/v1/fine_tuning/alpha/graders/run", &body)
    };
    assert_eq!(run("{\"a\":[1]}", &many(10)).ok()["reward"], 1.0);
    let much = many(100_000);
    run("", &much).refused(422, "more than 64 MiB");
    let graded = run(&format!("{{\"a\":{much}}}"), "1").ok();
    assert_eq!(graded["metadata"]["errors"]["invalid_variable_error"], true);

    let verify = |generation: &str, context: &str| {
        let body =
            format!("{{\"generation\":{},\"reward_context\":{{\"ground_truth\":{context}}}}}", json!(generation));
        server.post("/verify_answer", &body)
    };
    verify("", &much).problem(422);
    let written = format!("<tool_calls>[{{\"name\":\"f\",\"arguments\":{{\"a\":{much}}}}}]</tool_calls>");
    assert_eq!(verify(&written, "[{\"f\":{}}]").ok()["answer_status"], "unparsable");
}

#[test]
fn metrics_are_gathered_from_responses_of_any_size() {
    let server = Server::start(&[]);
    let response = |fields: &str| {
        format!("{{\"_ng_task_index\":0,\"reward\":1,\"output\":[{}1]{fields}}}", "{\"\":1},".repeat(10_000))
    };
    let body = format!(
        "{{\"verify_responses\":[{},{}]}}",
        response(",\"n\\u00e9\":18446744073709551615"),
        response(",\"reward\":\"x\",\"reward\":0")
    );
    let found = server.post("/aggregate_metrics", &body).ok();
    assert_eq!(found["key_metrics"], json!({"mean/reward": 0.5}));
    assert_eq!(found["group_level_metrics"][0]["max/né"], 18_446_744_073_709_551_615.0);
    assert_eq!(found["agent_metrics"].as_object().unwrap().len(), 8, "{found}");
}

#[test]
fn many_violations_take_little_room() {
    let server = Server::start(&[]);
    let required: Vec<String> =
        (0..16).map(|n| format!("a key with a long name, number {n}: {}", "z".repeat(100))).collect();
    let tools = json!([tool("f", json!({"required": required}))]);
    let body = calling(&tools, &hermes("f", &json!({})), 200, 50);
    let response = below(&server, &body, 40 * body.len());
    let result = &response["results"][0];
    assert!(result["left_out"]["tool_calls"].as_u64().unwrap() > 0);
    assert_eq!(result["tool_calls"][0]["errors"].as_array().unwrap().len(), 16);
    assert_eq!(result["parse"], json!({"ok": true, "format": "hermes", "attempts": 200, "errors": []}));
}

#[test]
fn nothing_is_left_out_of_what_policies_write() {
    let server = Server::start(&[]);
    let tools = json!([tool("search", json!({"type": "object", "required": ["query", "k"]}))]);
    for call in [
        hermes("search", &json!({})),
        "<tool_call>{\"name\": \"search\"}</tool_call>".to_owned(),
        "<tool_call>".to_owned(),
    ] {
        let result = score_one(&server, with(saying(&call.repeat(40)), "tools", tools.clone()));
        assert!(result.get("left_out").is_none(), "{call}");
    }
    let right = hermes("search", &json!({"query": "a", "k": 1}));
    let result = score_one(&server, with(saying(&right.repeat(256)), "tools", tools.clone()));
    assert_eq!(result["tool_calls"].as_array().unwrap().len(), 256);
    assert!(result.get("left_out").is_none());
}

#[test]
fn a_malformed_item_does_not_give_back_endless_names() {
    let server = Server::start(&[]);
    let long = "n".repeat(1 << 20);
    let response =
        below(&server, &json!({"trajectories": [{"id": &long, "group": &long, "messages": 3}]}).to_string(), 8 << 10);
    let result = &response["results"][0];
    assert!(result["id"].is_null() && result["group"].is_null() && response["groups"] == json!([]), "{result}");
    let kept = json!({"id": "i".repeat(256), "group": 7, "messages": 3});
    let response = below(&server, &json!({"trajectories": [kept]}).to_string(), 8 << 10);
    assert_eq!(
        (&response["results"][0]["id"], &response["results"][0]["group"]),
        (&json!("i".repeat(256)), &json!("7"))
    );
}
