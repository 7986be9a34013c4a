//! What is right, as datasets say it: text, number, list, object, and an object written as a string.

use serde_json::{Value, json};

use crate::common::Server;

fn slime(server: &Server, response: &str, label: Value) -> Value {
    let body = json!({"prompt": "?", "response": format!("<answer>{response}</answer>"), "label": label});
    server.post("/slime?rubric=binary_em", &body.to_string()).ok()
}

#[test]
fn trap_15_labels_may_be_str_num_list_dict_or_a_json_string() {
    let server = Server::start(&[]);
    for label in [
        json!("Paris"),
        json!(["Lyon", "Paris"]),
        json!({"ground_truth": "Paris"}),
        json!({"ground_truth": {"target": ["Paris"]}}),
        json!({"references": ["Paris"], "group": "g"}),
        json!("{\"references\": [\"Paris\"], \"tools\": [], \"group_id\": \"g\"}"),
        json!("{\"ground_truth\": \"Paris\"}"),
    ] {
        assert_eq!(slime(&server, "Paris", label.clone()), 1.0, "{label}");
        assert_eq!(slime(&server, "Lisbon", label.clone()), 0.0, "{label}");
    }
    assert_eq!(slime(&server, "42", json!(42)), 1.0);
    assert_eq!(slime(&server, "0.5", json!(0.5)), 1.0);
    assert_eq!(slime(&server, "true", json!(true)), 1.0);
}

#[test]
fn an_object_without_a_known_key_is_no_label() {
    let server = Server::start(&[]);
    let body = json!({"response": "<answer>Paris</answer>", "label": {"colour": "red"}});
    let answer = server.post("/slime?format=dict", &body.to_string()).ok();
    assert_eq!((&answer["valid"], &answer["score"]), (&json!(0.0), &json!(0.0)));
    // As a text it is an answer like any other.
    assert_eq!(slime(&server, "{\"colour\": \"red\"}", json!("{\"colour\": \"red\"}")), 1.0);
}

#[test]
fn a_missing_label_is_not_made_up() {
    let server = Server::start(&[]);
    for label in [json!(null), json!({"group": "g"})] {
        let body = json!({"response": "<answer>Paris</answer>", "label": label});
        let answer = server.post("/slime?rubric=binary_em&format=dict", &body.to_string()).ok();
        assert_eq!(answer["valid"], 0.0, "{label}");
    }
}

#[test]
fn trl_s_columns_may_stand_where_a_reward_function_has_them() {
    let server = Server::start(&[]);
    let columns = json!({"ground_truth": ["Paris"], "tools": [[]]});
    let mut beside = json!({"prompts": ["Capital?"], "completions": ["<answer>Paris</answer>"]});
    let mut inside = beside.clone();
    inside["columns"] = columns.clone();
    beside.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    for body in [&inside, &beside] {
        assert_eq!(server.post("/trl", &body.to_string()).ok()["rewards"], json!([1.0]), "{body}");
    }
    // Where there are columns, what stands beside them is something else.
    inside["tools"] = json!([{"type": "function", "function": {"name": "f"}}, 5]);
    assert_eq!(server.post("/trl", &inside.to_string()).ok()["rewards"], json!([1.0]));
    beside["ground_truth"] = json!(["Paris", "Lyon"]);
    let problem = server.post("/trl", &beside.to_string()).problem(422);
    assert_eq!(problem["pointer"], "/ground_truth", "{problem}");
}

#[test]
fn an_empty_list_of_answers_hides_no_other() {
    let server = Server::start(&[]);
    for label in
        [json!({"references": [], "golds": ["Paris"]}), json!({"golds": [ ], "target": "Paris", "answer": null})]
    {
        assert_eq!(slime(&server, "Paris", label.clone()), json!(1.0), "{label}");
    }
    assert_eq!(slime(&server, "Paris", json!({"references": []})), json!(0.0));
}
