//! `OpenAI`'s graders: run and validated as the stock client does.

use serde_json::{Value, json};

use crate::common::Server;

const RUN: &str = "/v1/fine_tuning/alpha/graders/run";
const VALIDATE: &str = "/v1/fine_tuning/alpha/graders/validate";

fn similarity(metric: &str) -> Value {
    json!({"type": "text_similarity", "name": "b", "input": "{{sample.output_text}}", "reference": "{{item.ref}}", "evaluation_metric": metric})
}

fn run(server: &Server, grader: Value, sample: &str) -> Value {
    server.post(RUN, &json!({"grader": grader, "model_sample": sample, "item": {"ref": "Paris"}})).ok()
}

#[test]
fn the_answer_has_every_field_of_the_clients_model() {
    let server = Server::start(&[]);
    let answer = run(&server, similarity("bleu"), "Paris");
    assert_eq!((&answer["reward"], &answer["sub_rewards"]), (&json!(1.0), &json!({})));
    let metadata = &answer["metadata"];
    assert_eq!(
        (&metadata["name"], &metadata["type"], &metadata["scores"]),
        (&json!("b"), &json!("text_similarity"), &json!({"b": 1.0}))
    );
    assert_eq!(metadata["errors"].as_object().unwrap().len(), 14);
    assert!(metadata["errors"].as_object().unwrap().values().all(|error| *error == false || error.is_null()));
    assert!(metadata["execution_time"].is_number() && metadata["token_usage"].is_null());
    assert_eq!(answer["model_grader_token_usage_per_model"], json!({}));
}

#[test]
fn multi_puts_parts_together() {
    let server = Server::start(&[]);
    let check = json!({"type": "string_check", "name": "c", "input": "{{ sample.output_text }}", "reference": "{{ item.ref }}", "operation": "ilike"});
    let multi = json!({"type": "multi", "name": "m", "graders": {"a": similarity("f1"), "b": check}, "calculate_output": "0.25 * a + 0.75 * b"});
    let answer = run(&server, multi, "paris it is");
    assert_eq!((&answer["reward"], &answer["sub_rewards"]), (&json!(0.875), &json!({"a": 0.5, "b": 1.0})));
}

#[test]
fn what_goes_wrong_is_a_flag() {
    let server = Server::start(&[]);
    let multi = |formula: &str| json!({"type": "multi", "name": "m", "graders": {"a": similarity("f1")}, "calculate_output": formula});
    for formula in ["a +", "nobody", "1 / 0", "__import__('os')"] {
        let answer = run(&server, multi(formula), "Paris");
        assert_eq!(
            (&answer["reward"], &answer["metadata"]["errors"]["formula_parse_error"]),
            (&json!(0.0), &json!(true)),
            "{formula}"
        );
    }
    let unknown =
        json!({"type": "string_check", "name": "c", "input": "{{item.nothing}}", "reference": "x", "operation": "eq"});
    assert_eq!(run(&server, unknown, "x")["metadata"]["errors"]["invalid_variable_error"], true);
    // A megabyte, 45,000 times.
    let long = "{{sample.output_text}}".repeat(45_000);
    let long = json!({"type": "string_check", "name": "c", "input": long, "reference": "x", "operation": "eq"});
    let errors = &run(&server, long, &"x".repeat(1 << 20))["metadata"]["errors"];
    assert_eq!((&errors["other_error"], &errors["invalid_variable_error"]), (&json!(true), &json!(false)));
}

#[test]
fn code_and_models_are_refused_by_name() {
    let server = Server::start(&[]);
    for (grader, words) in [
        (json!({"type": "python", "name": "p", "source": "import os"}), "python"),
        (json!({"type": "score_model", "name": "s", "model": "m", "input": []}), "score_model"),
        (
            json!({"type": "text_similarity", "name": "t", "input": "", "reference": "", "evaluation_metric": "cosine"}),
            "cosine",
        ),
        (json!({"type": "haruspex"}), "haruspex"),
    ] {
        for (path, body) in
            [(VALIDATE, json!({"grader": grader})), (RUN, json!({"grader": grader, "model_sample": ""}))]
        {
            let problem = server.post(path, &body).refused(400, words);
            // What the `openai` package shows.
            assert_eq!(problem["error"]["message"], problem["detail"]);
        }
    }
}

#[test]
fn a_grader_that_can_be_run_is_valid() {
    let server = Server::start(&[]);
    let body = json!({"grader": similarity("bleu")});
    assert_eq!(server.post(VALIDATE, &body).ok(), body);
}

#[test]
fn a_grader_without_end_is_not_read() {
    let server = Server::start(&[]);
    let grader =
        json!({"type": "string_check", "name": "c", "input": "x".repeat(1 << 20), "reference": "x", "operation": "eq"});
    for (path, body) in [(VALIDATE, json!({"grader": grader})), (RUN, json!({"grader": grader, "model_sample": "x"}))] {
        let problem = server.post(path, &body).refused(422, "at most 1048576");
        assert_eq!(problem["pointer"], "/grader");
    }
}
