//! The traps of the trainers' formats, by their numbers. Trap 15 is `labels.rs`, trap 16 `cohorts.rs`.

use serde_json::{Map, Value, json};

use super::contents::{contents, prompt_messages, server, templated_prompt, tools};
use crate::common::{Server, post_bytes};

/// Rubrics with everything that makes a reward more than a sum of stages.
fn shaped() -> Server {
    let server = Server::start(&["--admin-token", "secret"]);
    let rubric = "[reward]\nmin = -0.5\nmax = 2.0\n\
        [[stages]]\nkind = \"tool_parse\"\nweight = 1\nthreshold = 0.5\n\
        [[stages]]\nkind = \"exact_match\"\nweight = 3\n\
        [[penalties]]\nkind = \"repeat_calls\"\nweight = 3.0\nmax = 9.0\n";
    server.add_rubric("shaped", rubric);
    server
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

#[test]
fn trap_1_an_empty_shard_of_openrlhf_is_200_with_empty_lists() {
    let server = Server::start(&[]);
    for body in [json!({"query": []}), json!({"query": [], "prompts": [], "labels": []})] {
        let answer = server.post("/get_reward", &body).ok();
        assert_eq!((&answer["rewards"], &answer["scores"]), (&json!([]), &json!([])));
        assert!(answer["extra_logs"].is_object());
    }
    assert_eq!(server.post("/trl", r#"{"completions": []}"#).ok()["rewards"], json!([]));
    assert_eq!(server.post("/v1/score/evaluation", r#"{"messages": []}"#).ok()["scores"], json!([]));
    assert_eq!(server.post("/verl", "[]").ok(), json!([]));
}

#[test]
fn the_scores_of_openrlhf_are_its_rewards_within_0_and_1() {
    let server = shaped();
    let query = ["<answer>Paris</answer>", "<answer>Lyon</answer>"].map(|answer| format!("q{answer}"));
    let body =
        json!({"query": [query[0], query[1], 7], "prompts": ["q", "q", "q"], "labels": ["Paris", "Paris", "Paris"]});
    let answer = server.post("/get_reward?rubric=shaped", &body).ok();
    assert_eq!((&answer["rewards"], &answer["scores"]), (&json!([2.0, 0.125, -0.5]), &json!([1.0, 0.125, 0.0])));
}

#[test]
fn trap_2_every_item_of_verl_has_the_same_keys() {
    let server = Server::start(&[]);
    let of = |text: &str| json!({"data_source": "nq", "solution_str": text, "ground_truth": "Paris"});
    let items =
        json!([of("<answer>Paris</answer>"), of("?"), of("<tool_call>{</tool_call>"), {"solution_str": 7}, of("")]);
    let answer = server.post("/verl", &items).ok();
    let all = answer.as_array().unwrap();
    assert_eq!(all.len(), 5);
    for item in all {
        assert_eq!(keys(item), keys(&all[0]));
        assert!(item.as_object().unwrap().values().all(Value::is_number), "{item}");
    }
    assert_eq!((&all[0]["score"], &all[0]["acc"], &all[0]["valid"]), (&json!(1.0), &json!(1.0), &json!(1.0)));
    assert_eq!((&all[3]["score"], &all[3]["acc"], &all[3]["valid"]), (&json!(0.0), &json!(0.0), &json!(0.0)));
    // One alone has the same keys, too; in a list it is answered by a list.
    assert_eq!(keys(&server.post("/verl", &json!([of("?")])).ok()[0]), keys(&all[0]));
    assert_eq!(keys(&server.post("/verl", &of("?")).ok()), keys(&all[0]));
}

#[test]
fn acc_of_verl_is_exact_match_where_the_rubric_measures_it_and_else_the_score() {
    let server = shaped();
    let near = "[answer]\nfrom = \"answer_tag\"\n[[stages]]\nkind = \"f1\"\nweight = 1\n";
    server.add_rubric("near", near);
    server.add_rubric("reported", &format!("report = [\"exact_match\"]\n{near}"));
    let found = |rubric: &str, said: &str| {
        let body = json!({"solution_str": format!("<answer>{said}</answer>"), "ground_truth": "Paris"});
        server.post(&format!("/verl?rubric={rubric}"), &body).ok()
    };
    // None of these rubrics has a threshold that a wrong answer could miss.
    let wrong = found("shaped", "Lyon");
    assert_eq!((&wrong["acc"], &wrong["exact_match"], &wrong["valid"]), (&json!(0.0), &json!(0.0), &json!(1.0)));
    assert_eq!(found("reported", "Paris")["acc"], 1.0);
    let near = found("reported", "Paris it is");
    assert!(near["score"].as_f64().unwrap() > 0.0, "{near}");
    assert_eq!(near["acc"], 0.0);
    let near = found("near", "Paris it is");
    assert!(near["score"].as_f64().unwrap() > 0.0, "{near}");
    assert_eq!(near["acc"], near["score"]);
    // What could not be scored is not right, whatever it gets.
    let invalid = server.post("/verl?rubric=shaped", r#"{"solution_str": 7, "ground_truth": "Paris"}"#).ok();
    assert_eq!((&invalid["score"], &invalid["acc"], &invalid["valid"]), (&json!(-0.5), &json!(0.0), &json!(0.0)));
}

#[test]
fn trap_3_the_components_of_nemo_sum_to_the_reward() {
    let server = shaped();
    let call = || json!({"type": "function_call", "name": "search", "arguments": "{\"query\": \"x\"}", "call_id": "c"});
    let said = |text: &str| json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]});
    let mut clamped = 0;
    for calls in 0..5 {
        for text in ["<answer>Paris</answer>", "<answer>Lyon</answer>", "?"] {
            let mut output: Vec<Value> = (0..calls).map(|_| call()).collect();
            output.push(said(text));
            let body = json!({"responses_create_params": {"input": "q", "tools": tools(true)}, "response": {"output": output}, "expected_answer": "Paris"});
            let answer = server.post("/verify?rubric=shaped", &body).ok();
            let parts = answer["reward_components"].as_object().unwrap();
            let sum: f64 = parts.values().map(|part| part.as_f64().unwrap()).sum();
            let reward = answer["reward"].as_f64().unwrap();
            assert!((sum - reward).abs() <= (1e-5 * reward.abs()).max(1e-6), "{sum} is not {reward}: {answer}");
            clamped += usize::from(parts["clamp"] != 0.0);
        }
    }
    assert!(clamped > 0, "no reward was clamped: the test says too little");
}

#[test]
fn trap_4_no_answer_has_a_number_that_is_none() {
    let server = server(&[]);
    for content in contents() {
        for call in content.calls() {
            let text = server.post(&call.path, &call.body).text();
            for word in ["NaN", "Infinity", "inf"] {
                assert!(!text.contains(&format!(":{word}")) && !text.contains(&format!("[{word}")), "{text}");
            }
        }
    }
    // A formula that is no number is an error, not a null.
    let grader = json!({"type": "multi", "name": "m", "graders": {}, "calculate_output": "0 / 0"});
    let body = json!({"grader": grader, "model_sample": ""});
    assert_eq!(server.post("/v1/fine_tuning/alpha/graders/run", &body).ok()["reward"], 0.0);
}

#[test]
fn trap_5_what_can_never_be_scored_is_200_where_the_client_retries_4xx() {
    let server = Server::start(&[]);
    let shard = json!({"query": ["a", "b"], "labels": ["x", "y"]}).to_string();
    let sample = json!({"prompt": "q", "response": "a", "label": "x"}).to_string();
    let rewards = server.post("/get_reward?rubric=nobody", &shard).ok();
    assert_eq!((&rewards["rewards"], &rewards["scores"]), (&json!([0.0, 0.0]), &json!([0.0, 0.0])));
    assert!(rewards["error"].as_str().unwrap().contains("nobody"));
    assert_eq!(server.post("/slime?rubric=nobody", &sample).ok(), json!(0.0));
    assert_eq!(server.post("/slime?rubric=nobody&on_invalid=null", &sample).ok(), Value::Null);
    // A list of no rewards is none for a shard whose queries cannot be counted.
    for (broken, status) in [("{", 400), ("[]", 422), ("{\"response\"", 400), ("{}", 422)] {
        assert_eq!(server.post("/slime", broken).ok(), json!(0.0), "{broken}");
        server.post("/get_reward", broken).problem(status);
    }
    let small = Server::start(&["--max-body-bytes", "30"]);
    small.post("/get_reward", &shard).problem(413);
    assert_eq!(small.post("/slime", &sample).ok(), json!(0.0));
    small.post("/slime?on_invalid=error", &sample).problem(413);
    let packed = |path: &str| server.post_raw(path, "Content-Encoding: br\r\n", sample.as_bytes());
    assert_eq!(packed("/slime").ok(), json!(0.0));
    packed("/slime?on_invalid=error").problem(415);
    packed("/get_reward").problem(415);
    // An item that cannot be read is a number among the others.
    let odd = json!({"query": ["q</s>", 7], "prompts": ["q", "q"], "labels": ["x", "x"]}).to_string();
    let answer = server.post("/get_reward", &odd).ok();
    assert_eq!(
        (&answer["rewards"], &answer["extra_logs"]["valid"]),
        (&json!([0.2, 0.0]), &json!([1.0, 0.0])),
        "{answer}"
    );
    // Who asks for errors gets them.
    server.post("/get_reward?rubric=nobody&on_invalid=error", &shard).problem(404);
    // No status says so: the metrics do.
    let metrics = server.get("/metrics").text();
    let counted = |kind: &str| {
        let line = format!("gradus_refusals_told_as_reward_total{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u32>().ok())
    };
    assert!(counted("unknown-rubric").is_some_and(|n| n >= 2), "{metrics}");
    assert!(counted("bad-json").is_some_and(|n| n >= 1) && counted("not-scored") == Some(0), "{metrics}");
    server.post("/slime?on_invalid=error", "{").problem(400);
    // An item without a score is 503 then, even one that never gets one.
    server.post("/get_reward?on_invalid=error", &odd).problem(503);
    server.post("/slime?on_invalid=error", r#"{"response": 7, "label": "x"}"#).problem(503);
    server.post("/slime?rubric=long_form_qa&on_invalid=error", &json!({"response": "x", "label": "x"})).problem(503);
}

#[test]
fn trap_5_a_url_that_is_wrong_is_200_unless_it_asks_for_errors() {
    let server = shaped();
    let shard = json!({"query": ["a", "b"], "labels": ["x", "y"]}).to_string();
    let sample = json!({"prompt": "q", "response": "a", "label": "x"}).to_string();
    for wrong in ["rubrik=x", "tool_format=bogus", "step=x", "group_size=0", "rubric=shaped&rubric=shaped"] {
        let lowest = if wrong.contains("shaped") { -0.5 } else { 0.0 };
        assert_eq!(server.post(&format!("/slime?{wrong}"), &sample).ok(), json!(lowest), "{wrong}");
        assert_eq!(server.post(&format!("/slime?{wrong}&on_invalid=null"), &sample).ok(), Value::Null);
        let path = format!("/get_reward?rubric=shaped&{wrong}");
        assert_eq!(server.post(&path, &shard).ok()["rewards"], json!([-0.5, -0.5]), "{wrong}");
        for path in [format!("/slime?{wrong}&on_invalid=error"), format!("/get_reward?on_invalid=error&{wrong}")] {
            server.post(&path, &shard).problem(400);
        }
    }
    let dict = server.post("/slime?format=dict&rubric=shaped&bogus=1", &sample).ok();
    assert_eq!((&dict["score"], &dict["valid"]), (&json!(-0.5), &json!(0.0)));
}

#[test]
fn trap_5_a_broken_request_is_worth_no_more_than_a_wrong_answer() {
    let server = shaped();
    let wrong = json!({"response": "<answer>Lyon</answer>", "label": "Paris"}).to_string();
    let keys_of_a_score = server.post("/slime?rubric=shaped&format=dict", &wrong).ok();
    for broken in ["{", "[]", "{}"] {
        assert_eq!(server.post("/slime?rubric=shaped", broken).ok(), json!(-0.5), "{broken}");
        assert_eq!(server.post("/slime?rubric=shaped&on_invalid=mean", broken).ok(), json!(-0.5), "{broken}");
        let dict = server.post("/slime?rubric=shaped&format=dict", broken).ok();
        assert_eq!((&dict["score"], &dict["valid"]), (&json!(-0.5), &json!(0.0)), "{broken}");
        assert_eq!(keys(&dict), keys(&keys_of_a_score), "{broken}");
        let null = server.post("/slime?rubric=shaped&format=dict&on_invalid=null", broken).ok();
        assert_eq!((&null["score"], &null["valid"]), (&Value::Null, &json!(0.0)), "{broken}");
    }
    let alone = json!({"response": 7, "label": "x"}).to_string();
    assert_eq!(server.post("/slime?rubric=shaped&on_invalid=mean", &alone).ok(), json!(-0.5), "there is no mean");
    // Of a rubric that there is not, nobody knows the lowest reward.
    assert_eq!(server.post("/slime?rubric=nobody&format=dict", &wrong).ok(), json!({"score": 0.0, "valid": 0.0}));
    // One entry for each query, as far as they can be counted.
    for odd in [
        json!({"query": ["a", "b"], "prompts": ["a"]}),
        json!({"query": ["a", "b"], "labels": ["x", "y", "z"]}),
        json!({"query": ["a", "b"], "prompts": "a"}),
    ] {
        let answer = server.post("/get_reward?rubric=shaped", &odd).ok();
        assert_eq!((&answer["rewards"], &answer["scores"]), (&json!([-0.5, -0.5]), &json!([0.0, 0.0])), "{odd}");
        assert_eq!(answer["extra_logs"]["valid"], json!([0.0, 0.0]), "{odd}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    assert_eq!(server.post("/get_reward?rubric=shaped", r#"{"query": []}"#).ok()["rewards"], json!([]));
    server.post("/get_reward?rubric=shaped", r#"{"query": "a"}"#).problem(422);
}

#[test]
fn trap_6_reward_model_servers_say_4xx_and_never_5xx_to_a_bad_request() {
    let server = Server::start(&[]);
    for path in ["/classify", "/v1/embeddings"] {
        server.post(path, "{}").problem(422);
        server.post(path, "{").problem(400);
        server.post(&format!("{path}?rubric=nobody"), r#"{"input": "x"}"#).problem(404);
        assert_eq!(server.post(path, r#"{"input": [7, "no markers"]}"#).status, 200);
    }
}

#[test]
fn only_what_may_pass_is_worth_trying_again() {
    let server = Server::start(&[]);
    // A judge that is away may come back; what is malformed stays so.
    let right = json!({"solution_str": "x", "ground_truth": "x"}).to_string();
    server.post("/verl?rubric=long_form_qa&on_invalid=error", &right).problem(503);
    server.post("/verl?on_invalid=error", r#"{"solution_str": 7, "ground_truth": "x"}"#).problem(422);
}

#[test]
fn trap_7_a_request_that_waits_is_answered_when_the_server_stops() {
    let mut server = Server::start(&[]);
    let body = json!({"prompt": "q", "response": "<answer>x</answer>", "label": "x"}).to_string();
    let mut waiting = server.connect();
    let path = "/slime?on_invalid=mean&group_size=2&group_wait_ms=60000";
    waiting.write(post_bytes(path, "", body.as_bytes()));
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 1.0);
    std::thread::sleep(std::time::Duration::from_millis(50));
    server.terminate();
    let answer = waiting.read().expect("an answer, not a closed connection");
    assert_eq!((answer.status, answer.json()), (200, json!(1.0)));
    assert!(server.wait().success());
}

#[test]
fn trap_8_the_answer_comes_before_the_clients_deadline() {
    let server = Server::start(&[]);
    let body = json!({"prompt": "q", "response": "<answer>x</answer>", "label": "x"}).to_string();
    let began = std::time::Instant::now();
    // Nobody else comes: half of the deadline is for waiting, the other half for scoring.
    let answer = server.post("/slime?on_invalid=mean&group_size=2&deadline_ms=2000", &body);
    assert_eq!(answer.ok(), json!(1.0));
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    server.post("/slime?deadline_ms=0", &body).problem(504);
}

#[test]
fn trap_9_texts_score_alike_with_and_without_special_tokens() {
    let server = Server::start(&[]);
    for content in contents() {
        let text = content.text();
        let score = |text: String| {
            let body = json!({"solution_str": text, "ground_truth": "Paris", "extra_info": {"tools": tools(false)}});
            server.post("/verl", &body).ok()["score"].clone()
        };
        let wanted = score(text.clone());
        for tail in ["<|im_end|>", "<|im_end|>\n", "<|im_end|>\n<|endoftext|><|endoftext|>", "</s>", "<pad><pad>"] {
            assert_eq!(score(format!("{text}{tail}")), wanted, "{} with {tail:?}", content.name);
        }
        // What decoding without special tokens leaves of a template's turns.
        let bare = text.replace("<|im_end|>", "").replace("<|im_start|>", "");
        if !content.steps.iter().any(|step| matches!(step, super::contents::Step::Tool(_))) {
            assert_eq!(score(bare), wanted, "{}", content.name);
        }
    }
}

/// As Python writes what is not ASCII, and others what HTML has a meaning for.
#[test]
fn special_tokens_go_however_they_are_written() {
    let server = Server::start(&["--admin-token", "secret"]);
    server.add_rubric("last", "[answer]\nfrom = \"last_message\"\n[[stages]]\nkind = \"exact_match\"\nweight = 1\n");
    let escaped = |text: &str, ascii: bool| {
        let unit = |unit: &mut u16| format!("\\u{unit:04x}");
        let escape = |c: char| c.encode_utf16(&mut [0; 2]).iter_mut().map(unit).collect::<String>();
        let write = |c: char| if c.is_ascii() && (ascii || !"<>".contains(c)) { c.to_string() } else { escape(c) };
        text.chars().map(write).collect::<String>()
    };
    let prompt = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    for token in ["<｜▁pad▁｜>", "<pad>", "<|im_end|>\n<｜end▁of▁sentence｜>"] {
        let (text, whole) = (format!("Paris{token}"), format!("{prompt}Paris{token}"));
        for (path, body, reward) in [
            ("/slime", json!({"prompt": "q", "response": text, "label": "Paris"}), ""),
            ("/verl", json!({"solution_str": text, "ground_truth": "Paris"}), "/score"),
            ("/get_reward", json!({"query": [whole], "labels": ["Paris"]}), "/rewards/0"),
            ("/get_reward", json!({"query": [whole], "prompts": [prompt], "labels": ["Paris"]}), "/rewards/0"),
            ("/trl", json!({"completions": [text], "columns": {"answer": ["Paris"]}}), "/rewards/0"),
        ] {
            for body in [body.to_string(), escaped(&body.to_string(), true), escaped(&body.to_string(), false)] {
                let answer = server.post(&format!("{path}?rubric=last"), &body).ok();
                assert_eq!(answer.pointer(reward), Some(&json!(1.0)), "{path}: {body}");
            }
        }
    }
}

#[test]
fn trap_10_only_what_the_policy_wrote_is_scored() {
    let server = server(&[]);
    let leak = &contents()[1];
    for call in leak.calls() {
        let query = if call.path.contains('?') { "&rubric=binary_em" } else { "?rubric=binary_em" };
        let answer = server.post(&format!("{}{query}", call.path), &call.body).ok();
        assert_eq!(answer.pointer(call.reward), Some(&json!(0.0)), "{}: the tool's answer counted", call.dialect);
    }
    // Nor is what an assistant said before, in the prompt.
    let mut prompt = prompt_messages();
    prompt.as_array_mut().unwrap().push(json!({"role": "assistant", "content": "<answer>Paris</answer>"}));
    prompt.as_array_mut().unwrap().push(json!({"role": "user", "content": "Sure?"}));
    let body = json!({"prompts": [prompt], "completions": [[{"role": "assistant", "content": "Yes."}]], "columns": {"ground_truth": ["Paris"]}});
    assert_eq!(server.post("/trl?rubric=binary_em", &body).ok()["rewards"], json!([0.0]));
    let body = json!({"responses_create_params": {"input": prompt}, "expected_answer": "Paris",
        "response": {"output": [{"type": "message", "role": "assistant", "content": "Yes."}]}});
    assert_eq!(server.post("/verify?rubric=binary_em", &body).ok()["reward"], 0.0);
}

#[test]
fn trap_11_error_bodies_of_llama_factory_have_scores() {
    let server = Server::start(&[]);
    let body = json!({"messages": ["a", "b"]}).to_string();
    let problem = server.post("/v1/score/evaluation?rubric=nobody", &body).problem(404);
    assert_eq!(problem["scores"], json!([0.0, 0.0]));
    assert_eq!(server.post("/v1/score/evaluation?on_invalid=error", &body).problem(422)["scores"], json!([0.0, 0.0]));
    assert_eq!(server.post("/v1/score/evaluation", "{").problem(400)["scores"], json!([]));
    for wrong in ["tool_format=bogus", "bogus=1", "on_invalid=guess"] {
        let path = format!("/v1/score/evaluation?{wrong}");
        assert_eq!(server.post(&path, &body).problem(400)["scores"], json!([0.0, 0.0]), "{wrong}");
        assert_eq!(server.post(&path, "{").problem(400)["scores"], json!([]), "{wrong}");
    }
    assert_eq!(
        server.post_raw("/v1/score/evaluation", "Content-Encoding: br\r\n", body.as_bytes()).problem(415)["scores"],
        json!([])
    );
    let odd = json!({"messages": ["a", "b"], "model": 7}).to_string();
    assert_eq!(server.post("/v1/score/evaluation", &odd).problem(422)["scores"], json!([0.0, 0.0]));
    // A broken request is worth no more than a wrong answer.
    let server = shaped();
    for (wrong, score) in [("", json!(-0.5)), ("&on_invalid=null", Value::Null)] {
        let problem = server.post(&format!("/v1/score/evaluation?rubric=shaped&bogus=1{wrong}"), &body).problem(400);
        assert_eq!(problem["scores"], json!([score, score]));
    }
    let server = Server::start(&["--api-token", "secret"]);
    assert_eq!(server.post("/v1/score/evaluation", &body).problem(401)["scores"], json!([]));
}

#[test]
fn trap_12_the_metrics_of_eval_protocol_are_within_0_and_1() {
    let server = shaped();
    for content in contents() {
        for call in content.calls().iter().filter(|call| call.dialect.starts_with("eval-protocol")) {
            let answer = server.post(&format!("{}?rubric=shaped", call.path), &call.body).ok();
            for metric in answer["metrics"].as_object().unwrap().values() {
                assert!((0.0..=1.0).contains(&metric["score"].as_f64().unwrap()), "{answer}");
                assert!(metric["reason"].is_string() && metric["is_score_valid"] == true);
            }
        }
    }
    let invalid = server.post("/eval-protocol/reward", r#"{"messages": [{"role": "user", "content": "q"}]}"#).ok();
    assert_eq!((&invalid["is_score_valid"], &invalid["score"]), (&json!(false), &json!(0.0)));
    assert!(invalid["error"].as_str().unwrap().starts_with("item_malformed"), "{invalid}");
    assert!(invalid["metrics"].as_object().unwrap().values().all(|metric| metric["is_score_valid"] == false));
    let invalid = server.post("/eval-protocol/reward?rubric=shaped", r#"{"messages": []}"#).ok();
    assert_eq!(invalid["score"], -0.5, "the lowest there is");
}

#[test]
fn trap_13_trl_gets_null_for_what_cannot_be_scored_and_no_error() {
    let server = Server::start(&[]);
    let body = json!({"prompts": ["q", "q", "q"], "completions": ["<answer>Paris</answer>", 7, [{"role": "user", "content": "x"}]],
        "columns": {"ground_truth": ["Paris", "Paris", "Paris"], "other": [1, 2, 3]}, "num_generations": 3, "global_step": 120});
    let answer = server.post("/trl", &body).ok();
    assert_eq!(answer["rewards"], json!([1.0, null, null]));
    assert_eq!(answer["metrics"]["exact_match"], json!([1.0, null, null]));
    // A judge that is down is no zero.
    let answer = server.post("/trl?rubric=long_form_qa", &body).ok();
    assert_eq!(answer["rewards"], json!([null, null, null]));
    let problem = server.post("/trl", &json!({"completions": ["a"], "columns": {"ground_truth": []}})).problem(422);
    assert_eq!(problem["pointer"], "/columns/ground_truth");
    let uneven = json!({"completions": ["a", "b"], "prompts": ["q"]});
    assert_eq!(server.post("/trl", &uneven).problem(422)["pointer"], "/prompts");
}

#[test]
fn trap_14_bodies_may_be_large_and_packed() {
    let server = Server::start(&[]);
    let filler = "word ".repeat(700_000);
    let body =
        json!({"prompt": templated_prompt(), "response": format!("{filler}<answer>Paris</answer>"), "label": "Paris"})
            .to_string();
    assert!(body.len() > 3 << 20);
    assert_eq!(server.post("/slime?rubric=binary_em", &body).ok(), json!(1.0));
    let packed = zstd::encode_all(body.as_bytes(), 3).unwrap();
    assert_eq!(server.post_raw("/slime?rubric=binary_em", "Content-Encoding: zstd\r\n", &packed).json(), json!(1.0));
}

#[test]
fn unknown_fields_of_nemo_come_back_byte_for_byte() {
    let server = Server::start(&[]);
    let odd = r#"{ "b":1.50 , "a":[ 1e3, "\u00e9" ], "instance_config" : 7}"#;
    let body = format!(
        r#"{{"zz": {odd}, "responses_create_params": {{"input": "q", "metadata": {{"x" :  0.10}}}}, "response": {{"output": [{{"type": "message", "role": "assistant", "content": "<answer>Paris</answer>"}}], "usage":null}}, "expected_answer": "Paris", "reward": 0.25, "mask_sample": true, "_ng_failure_class": "transient"}}"#
    );
    let text = server.post("/verify", &body).text();
    assert!(text.contains(&format!("\"zz\":{odd}")), "{text}");
    assert!(text.contains(r#"{"input": "q", "metadata": {"x" :  0.10}}"#), "{text}");
    // What an earlier verification said is replaced.
    assert_eq!(text.matches("\"reward\"").count(), 1, "{text}");
    let answer: Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["reward"], &answer["mask_sample"]), (&json!(1.0), &json!(false)));
    assert!(!answer.contains_key("_ng_failure_class"), "{text}");
}

/// The answer is JSON whatever the body was: what nobody reads is echoed as well.
#[test]
fn nemo_is_told_of_a_body_that_is_no_json_where_nobody_reads_it() {
    let server = Server::start(&[]);
    let body = |odd: &str| {
        format!(
            r#"{{"x": {odd}, "responses_create_params": {{"input": "q"}}, "response": {{"output": [{{"type": "message", "role": "assistant", "content": "<answer>Paris</answer>"}}]}}, "expected_answer": "Paris"}}"#
        )
    };
    assert_eq!(server.post("/verify", &body("[[[[1]]]]")).ok()["x"], json!([[[[1]]]]));
    for odd in ["tru", "01", "NaN", "[[[[tru]]]]", r#""\q""#, "\"a\nb\""] {
        let problem = server.post("/verify", &body(odd)).problem(400);
        assert!(problem["detail"].as_str().unwrap().contains("line 1") || odd.contains('\n'), "{odd}: {problem}");
    }
}

/// The settings of an instance are copied, not read: they take no more memory than they have bytes.
#[test]
fn nemo_gets_its_settings_back_as_they_were_with_the_mask() {
    let server = Server::start(&[]);
    let body = r#"{"responses_create_params": {"input": "q"}, "response": {"output": [{"role": "assistant", "content": 7}]}, "instance_config": {"a":  [1.0, {"b": 1e3}], "mask_sample": false, "\u0063": null}}"#;
    let text = server.post("/verify", body).text();
    assert!(text.contains(r#""instance_config":{"a":[1.0, {"b": 1e3}],"\u0063":null,"mask_sample":true}"#), "{text}");
    assert!(server.post("/verify", &body.replace("[1.0,", "[1.0 1.0,")).status == 400);
}

#[test]
fn nemo_hears_that_a_failed_judge_is_no_measurement() {
    let server = Server::start(&[]);
    let body = json!({"responses_create_params": {"input": "q"}, "expected_answer": "Paris", "instance_config": {"x": 1},
        "response": {"output": [{"type": "message", "role": "assistant", "content": "Paris."}]}});
    let answer = server.post("/verify?rubric=long_form_qa", &body).ok();
    assert_eq!((&answer["reward"], &answer["_ng_failure_class"]), (&json!(0.0), &json!("judge_failed")));
    assert_eq!(answer["_ng_failure_judge_error"], "unavailable");
    assert_eq!(answer["instance_config"], json!({"x": 1, "mask_sample": true}));
    assert!(answer.get("reward_components").is_none(), "{answer}");
}

#[test]
fn what_nemo_cannot_score_is_0_whatever_the_lowest_reward_is() {
    let server = shaped();
    // There is nothing to compare with; and what an earlier verification said is gone.
    let body = json!({"responses_create_params": {"input": "q"}, "reward": 1.0, "reward_components": {"exact_match": 1.0},
        "response": {"output": [{"type": "message", "role": "assistant", "content": "<answer>Paris</answer>"}]}});
    let verify = |query: &str| server.post(&format!("/verify?rubric=shaped{query}"), &body).ok();
    for query in ["", "&on_invalid=null"] {
        let answer = verify(query);
        assert_eq!((&answer["reward"], &answer["mask_sample"]), (&json!(0.0), &json!(true)), "{query}");
        assert_eq!(answer["_ng_failure_class"], "verify_failed");
        assert_eq!(answer["instance_config"], json!({"mask_sample": true}));
        assert!(answer.get("reward_components").is_none(), "{answer}");
    }
    // Who asks for the rubric's lowest reward gets it.
    let answer = verify("&on_invalid=zero");
    assert_eq!((&answer["reward"], &answer["mask_sample"]), (&json!(-0.5), &json!(true)));
}

/// It answered, with nothing: that is no fault of the request.
#[test]
fn a_policy_that_did_nothing_is_scored() {
    let server = Server::start(&[]);
    let stopped = json!({"reason": "max_output_tokens"});
    for (output, details) in
        [(json!([]), json!(null)), (json!([]), stopped), (json!([{"type": "web_search_call", "id": "w"}]), json!(null))]
    {
        let body = json!({"responses_create_params": {"input": "q"}, "expected_answer": "Paris",
            "response": {"output": output, "incomplete_details": details}});
        let answer = server.post("/verify?rubric=binary_em", &body).ok();
        assert_eq!((&answer["reward"], &answer["mask_sample"]), (&json!(0.0), &json!(false)), "{answer}");
    }
    let body = "{\"completions\": [[], [ ], \"\"], \"columns\": {\"answer\": [\"Paris\", \"Paris\", \"Paris\"]}}";
    assert_eq!(server.post("/trl?rubric=binary_em", body).ok()["rewards"], json!([0.0, 0.0, 0.0]));
    let body = json!({"prompt": "q", "response": "", "label": "Paris"}).to_string();
    let dict = server.post("/slime?rubric=binary_em&format=dict", &body).ok();
    assert_eq!((&dict["score"], &dict["valid"]), (&json!(0.0), &json!(1.0)));
}

#[test]
fn a_metric_never_takes_the_place_of_a_field() {
    let server = Server::start(&["--admin-token", "secret"]);
    let rubric = "[[stages]]\nkind = \"exact_match\"\nname = \"score\"\nweight = 1\n[[stages]]\nkind = \"f1\"\nname = \"reward\"\nweight = 1\n[[stages]]\nkind = \"la_bleu\"\nname = \"response\"\nweight = 1\n";
    server.add_rubric("clash", rubric);
    let verl = json!({"solution_str": "<answer>Paris it is</answer>", "ground_truth": "Paris"});
    let text = server.post("/verl?rubric=clash", &verl).text();
    assert_eq!(text.matches("\"score\"").count(), 1, "{text}");
    assert!(text.contains("\"metric_score\""), "{text}");
    let nemo = json!({"responses_create_params": {"input": "q"}, "expected_answer": "Paris",
        "response": {"output": [{"type": "message", "role": "assistant", "content": "<answer>Paris</answer>"}]}});
    let text = server.post("/verify?rubric=clash", &nemo).text();
    assert_eq!(text.matches("\"reward\":").count(), 2, "the field, and the component of that name: {text}");
    let answer: Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["response"], answer["metric_response"].is_number()), (&nemo["response"], true), "{text}");
}
