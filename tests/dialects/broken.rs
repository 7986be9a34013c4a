//! Bodies that are broken in part, or as a whole: one item never spoils the others, and what is said of it stands in the
//! body that was sent, or nowhere.

use gradus::store::{Config as StoreConfig, Store};
use serde_json::{Value, json};

use crate::common::{Database, Server, program};

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
        let answer = server.post(&format!("{path}?rubric=binary_em"), &body).ok();
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
    server.post("/v1/score/evaluation", &json!({"messages": [whole, null]})).ok();
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
        server.post("/verl", &broken).problem(422);
    }
}

/// Whoever looks at what was stored finds the group, the reason in the words of the dialect, and what was sent.
#[test]
fn what_a_dialect_refuses_is_kept_with_its_reason() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    let label = json!({"references": ["Paris"], "group": "g"});
    let open_rlhf = json!({"query": ["no marker at all"], "labels": [label]});
    let verl = json!([{"solution_str": null, "ground_truth": "Paris", "extra_info": {"uid": "g"}, "note": "my own"}]);
    for (path, body, why) in [
        ("/get_reward", open_rlhf, "nothing says where the prompt ends"),
        ("/verl", verl, "the field `solution_str` is missing; add it"),
    ] {
        server.post(&format!("{path}?rubric=binary_em&run_id=run{path}"), &body).ok();
        let run = path.replace('/', "%2F");
        let rows = server.get(&format!("/runs/run{run}/scores")).ok();
        let row = &rows["items"][0];
        assert_eq!(row["group"], "g", "{rows}");
        let score = server.get(&format!("/scores/{}", row["score_id"].as_str().unwrap())).ok();
        let error = &score["result"]["errors"][0];
        assert_eq!(error["code"], "item_malformed");
        assert!(error["message"].as_str().unwrap().starts_with(why), "{error}");
        assert_eq!(error["pointer"], "/trajectories/0", "{error}");
    }
    server.terminate();
    server.wait();
    let config = StoreConfig { url: database.url.clone(), ..StoreConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (run, sent) in [("run/get_reward", "no marker at all"), ("run/verl", "my own")] {
        let store = Store::open_to_read(&config).unwrap().unwrap();
        let stored = runtime.block_on(async { store.replay(run).next().await }).unwrap().unwrap();
        let request = String::from_utf8(stored.request).unwrap();
        assert!(request.contains(sent) && request.contains("\"group\":\"g\""), "{request}");
        let again = program().args(["score", "--replay", run, "--store", &database.url]).output().unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
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
        let problem = server.post(path, &body).problem(status);
        assert_eq!(problem["pointer"], Value::Null, "{path}: {problem}");
    }
    let named = server.post("/trl?rubric=a%20at%20line%201%20column%202", &plain).problem(404);
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
