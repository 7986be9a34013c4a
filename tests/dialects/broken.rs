//! Bodies that are broken in part, or as a whole: one item never spoils the others, and what is said of it stands in the
//! body that was sent, or nowhere.

use serde_json::{Value, json};

use crate::common::Server;

const PROMPT: &str = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";

#[test]
fn a_text_that_is_null_is_one_item_without_a_score() {
    let server = Server::start(&[]);
    let whole = format!("{PROMPT}<answer>Paris</answer>");
    for (path, body, valid) in [
        (
            "/trl",
            json!({"completions": ["<answer>Paris</answer>", null], "columns": {"answer": ["Paris", null]}}),
            "/rewards",
        ),
        ("/get_reward", json!({"query": [whole, null], "labels": ["Paris", null]}), "/extra_logs/valid"),
    ] {
        let answer = server.post(&format!("{path}?rubric=binary_em"), &body.to_string()).ok();
        let found = answer.pointer(valid).unwrap();
        assert_eq!(found[0], 1.0, "{path}: {answer}");
        assert!(found[1].is_null() || found[1] == 0.0, "{path}: {answer}");
    }
    // Without a label nothing at all is left of it.
    let answer = server.post("/trl?rubric=binary_em", "{\"completions\":[\"<answer>Paris</answer>\",null]}").ok();
    assert_eq!(answer["rewards"].as_array().map(Vec::len), Some(2), "{answer}");
    let body = json!({"input": [whole, null]}).to_string();
    server.post("/classify", &body).ok();
    server.post("/v1/embeddings", &body).ok();
    server.post("/v1/score/evaluation", &json!({"messages": [whole, null]}).to_string()).ok();
}

#[test]
fn of_a_list_of_samples_one_that_is_none_is_one_without_a_score() {
    let server = Server::start(&[]);
    let right = json!({"solution_str": "<answer>Paris</answer>", "ground_truth": "Paris"});
    for broken in [
        json!({"ground_truth": "Paris"}),
        json!({"solution_str": null, "ground_truth": "Paris"}),
        json!({"solution_str": "a", "extra_info": 7}),
        json!(7),
    ] {
        let list = json!([right, broken]).to_string();
        let answer = server.post("/verl?rubric=binary_em", &list).ok();
        assert_eq!((&answer[0]["score"], &answer[0]["valid"]), (&json!(1.0), &json!(1.0)), "{broken}");
        assert_eq!((&answer[1]["score"], &answer[1]["valid"]), (&json!(0.0), &json!(0.0)), "{broken}");
        let problem = server.post("/verl?on_invalid=error", &list).problem(422);
        assert!(problem["detail"].as_str().unwrap().starts_with("item 1: item_malformed: "), "{problem}");
        server.post("/verl", &broken.to_string()).problem(422);
    }
}

/// The native request that a dialect makes has fields that its body has not.
#[test]
fn a_problem_points_into_the_body_that_was_sent_or_nowhere() {
    let server = Server::start(&[]);
    let (plain, late) = (json!({"completions": ["a"]}), json!({"completions": ["a"], "global_step": u64::MAX}));
    for (path, body, status) in [
        ("/trl?rubric=nope", &plain, 404),
        ("/trl", &late, 422),
        ("/trl?run_id=", &plain, 400),
        ("/trl?step=9223372036854775808", &plain, 400),
    ] {
        let problem = server.post(path, &body.to_string()).problem(status);
        assert_eq!(problem["pointer"], Value::Null, "{path}: {problem}");
    }
    let named = server.post("/trl?rubric=a%20at%20line%201%20column%202", &plain.to_string()).problem(404);
    let detail = named["detail"].as_str().unwrap();
    assert!(detail.contains("\"a at line 1 column 2\"; GET /rubrics"), "{detail}");
    let problem = server.post("/trl", "{\"completions\":[NaN]}").problem(400);
    assert_eq!((&problem["detail"], &problem["pointer"]), (&json!("expected value"), &Value::Null), "{problem}");
    let problem = server.post("/trl", "{\"completions\":[\"a\"],\"num_generations\":-1}").problem(422);
    assert_eq!(problem["pointer"], "/num_generations");
    let nested = json!({"messages": [], "kwargs": {"rubric": 7}}).to_string();
    assert_eq!(server.post("/eval-protocol/evaluate", &nested).problem(422)["pointer"], "/kwargs/rubric");
    assert!(!problem["detail"].as_str().unwrap().contains("column"), "{problem}");
}

#[test]
fn a_body_that_is_no_json_is_told_from_one_of_another_shape() {
    let server = Server::start(&[]);
    for path in ["/get_reward?on_invalid=error", "/trl", "/v1/score/evaluation", "/slime?on_invalid=error", "/verl"] {
        for body in ["nope", "", "{", "'a'"] {
            let problem = server.post(path, body).problem(400);
            assert_eq!(problem["type"], "urn:gradus:problem:bad-json", "{path} {body:?}");
        }
        server.post(path, "7").problem(422);
    }
}
