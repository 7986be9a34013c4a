//! The OpenAPI document of the dialects: every one is in it, its example is scored, and the answer is what it says.

use serde_json::json;

use crate::common::Server;
use crate::http_api::openapi::{errors, validator};

/// Every path of the dialects, in the order of the trainers.
const PATHS: [&str; 16] = [
    "/get_reward",
    "/slime",
    "/v1/score/evaluation",
    "/eval-protocol/reward",
    "/eval-protocol/evaluate",
    "/verify",
    "/aggregate_metrics",
    "/v1/fine_tuning/alpha/graders/run",
    "/v1/fine_tuning/alpha/graders/validate",
    "/classify",
    "/v1/embeddings",
    "/verl",
    "/trl",
    "/verify_answer",
    "/step",
    "/advantages",
];

#[test]
fn every_example_is_answered_as_the_document_says() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").ok();
    let component = |name: &str| document["components"]["schemas"][name]["example"].clone();
    for path in PATHS {
        let operation = &document["paths"][path]["post"];
        assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{path}");
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let example = component(schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap());
        let request = validator(&document, schema);
        assert_eq!(errors(&request, &example), Vec::<String>::new(), "{path}");
        let answer = server.post(path, &example).ok();
        let response = validator(&document, &operation["responses"]["200"]["content"]["application/json"]["schema"]);
        assert_eq!(errors(&response, &answer), Vec::<String>::new(), "{path}: {answer}");
    }
}

#[test]
fn every_dialect_that_scores_takes_the_same_parameters() {
    let document = Server::start(&[]).get("/openapi.json").ok();
    let scoring = PATHS
        .iter()
        .filter(|path| !path.contains("graders") && **path != "/aggregate_metrics" && **path != "/advantages");
    for path in scoring {
        let parameters = document["paths"][path]["post"]["parameters"].as_array().unwrap();
        let mut names: Vec<&str> = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let wanted = [
            "Idempotency-Key",
            "deadline_ms",
            "format",
            "group_size",
            "group_wait_ms",
            "on_invalid",
            "rubric",
            "run_id",
            "step",
            "tool_format",
        ];
        assert_eq!(names, wanted, "{path}");
    }
}

#[test]
fn the_companions_of_nemo_gym_answer() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/reverify_mode").ok(), json!("stateless"));
    assert_eq!(server.post("/seed_session", "{}").ok(), json!({}));
    let body =
        json!({"verify_responses": [{"_ng_task_index": 3, "reward": 1.0}, {"_ng_task_index": 3, "reward": 0.0}]});
    let answer = server.post("/aggregate_metrics", &body).ok();
    assert_eq!(answer["key_metrics"], json!({"mean/reward": 0.5}));
    assert_eq!(answer["group_level_metrics"][0]["_ng_task_index"], 3);
}

#[test]
fn a_token_opens_every_dialect_in_both_headers() {
    let server = Server::start(&["--api-token", "secret"]);
    let body = br#"{"query": []}"#;
    let send = |headers: &[(&str, &str)]| server.send("POST", "/get_reward", headers, Some(body)).status;
    assert_eq!(send(&[]), 401);
    assert_eq!(send(&[("X-Api-Key", "secret")]), 200);
    assert_eq!(send(&[("Authorization", "Bearer secret")]), 200);
    assert_eq!(send(&[("X-Api-Key", "wrong")]), 403);
    for path in ["/reset", "/seed_session"] {
        assert_eq!(server.send("POST", path, &[], Some(b"{}")).status, 401, "{path}");
        assert_eq!(server.send("POST", path, &[("X-Api-Key", "secret")], Some(b"{}")).status, 200, "{path}");
    }
}
