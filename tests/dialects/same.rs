//! The same content gives the same reward, in whatever words it comes and whoever else is asking.

use serde_json::{Value, json};
use wiremock::MockServer;

use super::contents::{Content, contents, server};
use crate::common::{Database, Server};

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
    let answers: Vec<Value> = content.calls().iter().map(|call| server.post(&call.path, &call.body).ok()).collect();
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
    let tools = super::contents::tools(true);
    let verify = |arguments: &str| {
        let body = json!({"responses_create_params": {"input": super::contents::QUESTION, "tools": tools}, "expected_answer": "Paris",
            "response": {"output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "<answer>Lyon</answer>"}]},
                {"type": "function_call", "name": "search", "arguments": arguments, "call_id": "c1"},
                {"type": "function_call_output", "call_id": "c1", "output": "Paris"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "<answer>Paris</answer>"}]}]}});
        server.post("/verify", &body).ok()["reward"].clone()
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
        let found = server.post("/verify_answer", &body).ok();
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
        let found = server.post("/verify_answer", &body).ok();
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

    // Java's values may be written as texts.
    let lamp = json!({"name": "lamp", "description": "", "parameters": {"type": "dict", "properties": {"on": {"type": "boolean"}}}});
    let java = |category: &str| json!({"category": category, "is_relevance": false, "function": [lamp], "ground_truth": [{"lamp": {"on": [true]}}]});
    let call = text(r#"[{"name": "lamp", "arguments": {"on": "true"}}]"#);
    assert_eq!(
        (verify(&call, java("java")).0.as_str(), verify(&call, java("simple")).0.as_str()),
        ("correct", "wrong")
    );
}

#[test]
fn the_url_chooses_what_the_body_cannot() {
    let database = Database::new();
    let server = server(&["--store", &database.url]);
    let query = "rubric=binary_em&run_id=exp-1&step=3&tool_format=hermes&deadline_ms=60000";
    for call in contents()[1].calls() {
        let join = if call.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{join}{query}", call.path);
        let answer = server.post(&path, &call.body).ok();
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
fn the_url_says_how_calls_are_written() {
    let server = Server::start(&[]);
    let body = json!({"response": "[search(query=\"x\")]", "label": {"tools": super::contents::tools(false),
        "reference_calls": [{"name": "search", "arguments": {"query": "x"}}]}});
    for (format, reward) in [("pythonic", 1.0), ("hermes", 0.04)] {
        assert_eq!(
            server.post(&format!("/slime?rubric=tool_use&tool_format={format}"), &body).ok(),
            reward,
            "{format}"
        );
    }
}

/// A rubric by which the whole last message is the answer, and long ones cost.
fn exact() -> Server {
    let server = Server::start(&["--admin-token", "secret"]);
    let answer = "[answer]\nfrom = \"last_message\"\n[[stages]]\nkind = \"exact_match\"\nweight = 1\n";
    let penalty = "[[penalties]]\nkind = \"overlong\"\nweight = 0.5\nmax_tokens = 100\ncache_tokens = 40\n";
    for (name, rubric) in [("exact", answer.to_owned()), ("short", format!("{answer}{penalty}"))] {
        server.add_rubric(name, &rubric);
    }
    server.post("/references", &super::contents::reference_line()).ok();
    server
}

#[test]
fn end_and_padding_tokens_are_no_part_of_an_answer() {
    let server = exact();
    let prompt = super::contents::templated_prompt();
    for tail in ["", "<|im_end|>", "<|im_end|>\n<|endoftext|><|endoftext|>"] {
        let (text, whole) = (format!("Paris{tail}"), format!("{prompt}Paris{tail}"));
        for (path, body, reward) in [
            ("/get_reward", json!({"query": [whole], "prompts": [prompt], "labels": ["Paris"]}), "/rewards/0"),
            ("/get_reward", json!({"query": [whole], "labels": ["Paris"]}), "/rewards/0"),
            ("/slime", json!({"prompt": prompt, "response": text, "label": "Paris"}), ""),
            ("/v1/score/evaluation", json!({"messages": [whole]}), "/scores/0"),
            ("/classify", json!({"input": whole}), "/data/0/probs/0"),
            ("/verl", json!({"solution_str": text, "ground_truth": "Paris"}), "/score"),
            ("/trl", json!({"completions": [text], "columns": {"ground_truth": ["Paris"]}}), "/rewards/0"),
        ] {
            let answer = server.post(&format!("{path}?rubric=exact"), &body).ok();
            assert_eq!(answer.pointer(reward), Some(&json!(1.0)), "{path} with {tail:?}: {answer}");
        }
    }
}

#[test]
fn how_long_a_rollout_was_and_whether_it_was_cut_off_is_handed_on() {
    let server = exact();
    let verl = |info: Value| {
        let body = json!({"solution_str": "Paris", "ground_truth": "Paris", "extra_info": info});
        let answer = server.post("/verl?rubric=short", &body).ok();
        (answer["valid"].clone(), answer["score"].clone())
    };
    assert_eq!(verl(json!({"truncated": true})), (json!(1.0), json!(0.5)));
    assert_eq!(verl(json!({})).0, 0.0);
    let nemo = |more: Value| {
        let mut response = json!({"output": [{"type": "message", "role": "assistant", "content": "Paris"}]});
        response.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = json!({"responses_create_params": {"input": "q"}, "expected_answer": "Paris", "response": response});
        let answer = server.post("/verify?rubric=short", &body).ok();
        (answer["mask_sample"].clone(), answer["reward"].clone())
    };
    assert_eq!(nemo(json!({"usage": {"output_tokens": 80}})), (json!(false), json!(0.75)));
    assert_eq!(nemo(json!({"incomplete_details": {"reason": "max_output_tokens"}})), (json!(false), json!(0.5)));
    assert_eq!(nemo(json!({"incomplete_details": {"reason": "content_filter"}})).0, true);
}

#[test]
fn a_judge_reads_the_question_and_not_the_template_around_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = runtime.block_on(MockServer::start());
    let server = server(&["--judge", &format!("{}/v1#judge", endpoint.uri())]);
    let (prompt, mut asked) = (super::contents::templated_prompt(), 0);
    for rubric in ["long_form_qa", "binary_judge"] {
        for (path, body) in [
            ("/slime", json!({"prompt": prompt, "response": "Paris.", "label": "Paris"})),
            ("/classify", json!({"input": format!("{prompt}Paris.<|im_end|>")})),
        ] {
            server.post(&format!("{path}?rubric={rubric}"), &body).ok();
            let questions = runtime.block_on(endpoint.received_requests()).unwrap();
            assert!(questions.len() > asked, "{path} by {rubric}");
            for question in &questions[asked..] {
                let question = String::from_utf8_lossy(&question.body);
                assert!(question.contains(super::contents::QUESTION) && !question.contains("im_start"), "{question}");
            }
            asked = questions.len();
        }
    }
}

#[test]
fn the_url_wins_over_the_body() {
    let database = Database::new();
    let server = database.serve(&[]);
    let columns =
        json!({"completions": ["<answer>Paris</answer>"], "columns": {"ground_truth": ["Paris"]}, "global_step": 120});
    for (run, query, step) in [("url", "&step=3", 3), ("body", "", 120)] {
        server.post(&format!("/trl?run_id={run}{query}"), &columns).ok();
        assert_eq!(server.get(&format!("/runs/{run}")).ok()["last_step"], step);
    }
    let messages =
        json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "<answer>Paris</answer>"}]);
    let step = json!({"action": {"messages": messages, "ground_truth": "Paris"}, "timeout_s": 0}).to_string();
    server.post("/step", &step).problem(504);
    assert_eq!(server.post("/step?deadline_ms=60000", &step).ok()["reward"], 1.0);
    // Half a second is not none.
    assert_eq!(server.post("/step", &step.replace(":0}", ":0.9}")).ok()["reward"], 1.0);
    let named = json!({"messages": messages, "ground_truth": "Paris", "rubric": "nobody"}).to_string();
    server.post("/eval-protocol/reward", &named).problem(404);
    assert_eq!(server.post("/eval-protocol/reward?rubric=binary_em", &named).ok()["score"], 1.0);
}

#[test]
fn a_dialects_score_can_be_replayed() {
    let database = Database::new();
    let server = server(&["--store", &database.url]);
    let call = &contents()[0].calls()[0];
    server.post(&format!("{}?run_id=r", call.path), &call.body).ok();
    let item = server.get("/runs/r/scores").ok()["items"][0].clone();
    let score = server.get(&format!("/scores/{}", item["score_id"].as_str().unwrap())).ok();
    assert_eq!(score["result"]["reward"], item["reward"]);
    assert_eq!(score["result"]["answer"]["text"], "Paris");
}
