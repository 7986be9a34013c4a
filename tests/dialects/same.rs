//! The same content gives the same reward, in whatever words it comes and whoever else is asking.

use serde_json::{Value, json};

use crate::common::Server;
use crate::contents::{Content, contents, server};

fn native(server: &Server, content: &Content) -> Value {
    server.reward(&content.native()).ok()["rewards"][0].clone()
}

#[test]
fn every_dialect_gives_the_reward_of_the_native_request() {
    let server = server(&[]);
    let mut rewards = Vec::new();
    for content in contents() {
        let wanted = native(&server, &content);
        assert!(wanted.is_number());
        for call in content.calls() {
            assert_eq!(call.send(&server), wanted, "{} of {}", content.name, call.dialect);
        }
        rewards.push(wanted.to_string());
    }
    rewards.sort();
    rewards.dedup();
    assert!(rewards.len() >= 4, "the contents must be worth different rewards: {rewards:?}");
}

#[test]
fn one_four_and_sixty_four_clients_get_the_same_in_every_dialect() {
    let server = server(&[]);
    let contents = contents();
    let wanted: Vec<Value> = contents.iter().map(|content| native(&server, content)).collect();
    let (server, contents, wanted) = (&server, &contents, &wanted);
    for clients in [1_usize, 4, 64] {
        std::thread::scope(|scope| {
            for client in 0..clients {
                scope.spawn(move || {
                    let turn = client % contents.len();
                    assert_eq!(native(server, &contents[turn]), wanted[turn], "client {client} of {clients}");
                    for call in contents[turn].calls() {
                        let found = call.send(server);
                        assert_eq!(found, wanted[turn], "client {client} of {clients}, {}", call.dialect);
                    }
                });
            }
        });
    }
}

#[test]
fn metrics_are_those_of_the_native_result() {
    let server = server(&[]);
    let content = &contents()[2];
    let native = server.reward(&content.native()).ok()["results"][0]["metrics"].clone();
    let answers: Vec<Value> =
        content.calls().iter().map(|call| server.post(&call.path, &call.body.to_string()).ok()).collect();
    let of = |dialect: &str| {
        let place = content.calls().iter().position(|call| call.dialect == dialect).unwrap();
        answers[place].clone()
    };
    for (name, score) in native.as_object().unwrap() {
        assert_eq!(of("OpenRLHF")["extra_logs"][name], json!([score]));
        assert_eq!(of("slime, messages")[name], *score);
        assert_eq!(of("verl")[name], *score);
        assert_eq!(of("NeMo Gym")[name], *score);
        assert_eq!(of("TRL")["metrics"][name], json!([score]));
        assert_eq!(of("eval-protocol")["metrics"][name]["score"], *score);
    }
}

#[test]
fn calls_as_fields_are_worth_what_calls_in_text_are() {
    let server = server(&[]);
    let tools = crate::contents::tools(true);
    let verify = |arguments: &str| {
        let body = json!({"responses_create_params": {"input": crate::contents::QUESTION, "tools": tools}, "expected_answer": "Paris",
            "response": {"output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "<answer>Lyon</answer>"}]},
                {"type": "function_call", "name": "search", "arguments": arguments, "call_id": "c1"},
                {"type": "function_call_output", "call_id": "c1", "output": "Paris"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "<answer>Paris</answer>"}]}]}});
        server.post("/verify", &body.to_string()).ok()["reward"].clone()
    };
    let contents = contents();
    assert_eq!(verify("{\"query\": \"capital of France\"}"), native(&server, &contents[0]));
    assert_eq!(verify("{\"query\": 7}"), native(&server, &contents[3]));
}

#[test]
fn calls_of_pipeline_rl_are_matched_as_native_reference_calls() {
    let server = Server::start(&[]);
    let call = |query: &str| json!({"id": "c", "type": "function", "function": {"name": "search", "arguments": json!({"q": query}).to_string()}});
    let parameters = json!({"type": "dict", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    for (queries, status) in
        [(vec!["x", "y2"], "correct"), (vec!["x"], "wrong"), (vec!["x", "z"], "wrong"), (vec![], "no_answer")]
    {
        let calls: Vec<Value> = queries.iter().map(|query| call(query)).collect();
        let body = json!({"generation": "", "tool_calls": calls, "model_name": "m", "reward_context": {
            "category": "parallel", "is_relevance": false, "function": [{"name": "search", "description": "", "parameters": parameters}],
            "ground_truth": [{"search": {"q": ["x"]}}, {"search": {"q": ["y", "y2"]}}]}});
        let second = if queries.contains(&"y2") { "y2" } else { "y" };
        let native = json!({"rubric": "tool_use", "trajectories": [{
            "messages": [{"role": "assistant", "content": "", "tool_calls": calls}],
            "tools": [{"name": "search", "parameters": schema}],
            "reference_calls": [{"name": "search", "arguments": {"q": "x"}}, {"name": "search", "arguments": {"q": second}}]}]});
        let found = server.post("/verify_answer", &body.to_string()).ok();
        assert_eq!(found["partial_score"], server.reward(&native).ok()["rewards"][0], "{queries:?}");
        assert_eq!(found["answer_status"], status, "{queries:?}");
    }
}

/// As its own loader and its own prompt have it: the truth in its entry, dots in names, calls as text.
#[test]
fn rollouts_of_pipeline_rl_are_read_as_they_come() {
    let server = Server::start(&[]);
    let function = |name: &str| {
        json!({"name": name, "description": "", "parameters": {"type": "dict", "required": ["city"],
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}})
    };
    let verify = |generation: &str, context: Value| {
        let body =
            json!({"generation": generation, "tool_calls": null, "model_name": "model", "reward_context": context});
        let found = server.post("/verify_answer", &body.to_string()).ok();
        (found["answer_status"].as_str().unwrap().to_owned(), found["partial_score"].as_f64().unwrap())
    };
    let context = json!({"category": "live_simple", "is_relevance": false, "function": [function("weather.get"), function("news")],
        "ground_truth": {"id": "live_simple_1", "ground_truth": [{"weather.get": {"city": ["San Francisco, CA"], "days": ["", 3]}}]}});
    let text = |calls: &str| format!("<think>Let me see.</think>\n<tool_calls>{calls}</tool_calls>");
    let status = |calls: &str| verify(&text(calls), context.clone()).0;
    for right in [
        r#"[{"name": "weather_get", "arguments": {"city": "san francisco CA"}}]"#,
        r#"[{"name": "weather.get", "arguments": {"city": "San Francisco, CA", "days": 3}}]"#,
        r#"{"weather_get": {"city": "San Francisco, CA"}}"#,
    ] {
        assert_eq!(verify(&text(right), context.clone()), ("correct".to_owned(), 1.0), "{right}");
    }
    assert_eq!(status(r#"[{"name": "weather_get", "arguments": {"city": "Paris"}}]"#), "wrong");
    assert_eq!(status(r#"[{"name": "news", "arguments": {"city": "San Francisco, CA"}}]"#), "wrong");
    assert_eq!(status("[]"), "no_answer");
    assert_eq!(status(r#"[{"name": "weather_get", "arguments": {"city": "#), "unparsable");
    assert_eq!(verify("It is sunny.", context.clone()).0, "no_answer");

    let relevance = |category: &str| json!({"category": category, "is_relevance": true, "function": [function("news")], "ground_truth": null});
    let call = text(r#"[{"name": "news", "arguments": {"city": "Rome"}}]"#);
    assert_eq!(verify("I cannot help with that.", relevance("live_irrelevance")), ("correct".to_owned(), 1.0));
    assert_eq!(verify(&call, relevance("irrelevance")).0, "wrong");
    assert_eq!(verify(&call, relevance("live_relevance")), ("correct".to_owned(), 1.0));
    assert_eq!(verify("I cannot help with that.", relevance("live_relevance")).0, "no_answer");
}

#[test]
fn the_url_chooses_what_the_body_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("g.db").display());
    let server = server(&["--store", &url]);
    let query = "rubric=binary_em&run_id=exp-1&step=3&tool_format=hermes&deadline_ms=60000";
    for call in contents()[1].calls() {
        let join = if call.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{join}{query}", call.path);
        let answer = server.post(&path, &call.body.to_string()).ok();
        assert_eq!(answer.pointer(call.reward), Some(&json!(0.0)), "{}: {answer}", call.dialect);
    }
    let run = server.get("/runs/exp-1").ok();
    assert_eq!((&run["n"], &run["last_step"]), (&json!(contents()[1].calls().len()), &json!(3)), "{run}");
    // Without a group of their own, the rollouts of a prompt are its group, in whatever template it came.
    let items = server.get("/runs/exp-1/scores").ok()["items"].clone();
    let mut groups: Vec<&str> = items.as_array().unwrap().iter().filter_map(|item| item["group"].as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 1, "{groups:?}");
}

#[test]
fn a_dialects_score_can_be_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("g.db").display());
    let server = server(&["--store", &url]);
    let call = &contents()[0].calls()[0];
    server.post(&format!("{}?run_id=r", call.path), &call.body.to_string()).ok();
    let item = server.get("/runs/r/scores").ok()["items"][0].clone();
    let score = server.get(&format!("/scores/{}", item["score_id"].as_str().unwrap())).ok();
    assert_eq!(score["result"]["reward"], item["reward"]);
    assert_eq!(score["result"]["answer"]["text"], "Paris");
}
