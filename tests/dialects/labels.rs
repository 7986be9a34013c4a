//! What is right, as datasets say it: text, number, list, object, and an object written as a string.

use serde_json::{Value, json};

use super::contents::{QUESTION, reference_line, templated_prompt, tools};
use crate::common::{Server, hermes};

fn slime(server: &Server, response: &str, label: Value) -> Value {
    let body = json!({"prompt": "?", "response": format!("<answer>{response}</answer>"), "label": label});
    server.post("/slime?rubric=binary_em", &body).ok()
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
        json!("\n\t{\"ground_truth\": \"Paris\"}\n"),
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
    let answer = server.post("/slime?format=dict", &body).ok();
    assert_eq!((&answer["valid"], &answer["score"]), (&json!(0.0), &json!(0.0)));
    // As a text it is an answer like any other.
    assert_eq!(slime(&server, "{\"colour\": \"red\"}", json!("{\"colour\": \"red\"}")), 1.0);
}

#[test]
fn a_missing_label_is_not_made_up() {
    let server = Server::start(&[]);
    for label in [json!(null), json!({"group": "g"})] {
        let body = json!({"response": "<answer>Paris</answer>", "label": label});
        let answer = server.post("/slime?rubric=binary_em&format=dict", &body).ok();
        assert_eq!(answer["valid"], 0.0, "{label}");
    }
}

#[test]
fn trl_s_number_of_generations_may_be_text_and_is_one_at_least() {
    let server = Server::start(&[]);
    let body =
        |n: Value| json!({"completions": ["<answer>Paris</answer>"], "ground_truth": ["Paris"], "num_generations": n});
    let ask = |n: Value| server.post("/trl?rubric=binary_em", &body(n));
    for n in [json!("8"), json!(8), json!(null)] {
        assert_eq!(ask(n.clone()).ok()["rewards"], json!([1.0]), "{n}");
    }
    for n in [json!(0), json!("0"), json!("x"), json!(-1)] {
        let problem = ask(n.clone()).refused(422, "give `num_generations` as a whole number");
        assert_eq!(problem["pointer"], "/num_generations", "{problem}");
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
        assert_eq!(server.post("/trl", &body).ok()["rewards"], json!([1.0]), "{body}");
    }
    // Where there are columns, what stands beside them is something else.
    inside["tools"] = json!([{"type": "function", "function": {"name": "f"}}, 5]);
    assert_eq!(server.post("/trl", &inside).ok()["rewards"], json!([1.0]));
    beside["ground_truth"] = json!(["Paris", "Lyon"]);
    let problem = server.post("/trl", &beside).problem(422);
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

/// What `OpenRLHF` sends where nobody told it of a column with labels, and eval-protocol for a call without `ground_truth`.
#[test]
fn what_stands_for_no_label_leaves_the_table_its_say() {
    let server = Server::start(&[]);
    let open_rlhf = |labels: Value| {
        let query = |answer: &str| format!("{}<answer>{answer}</answer><|im_end|>", templated_prompt());
        let body = json!({"query": [query("Paris"), query("Lyon")], "prompts": [templated_prompt(), templated_prompt()], "labels": labels});
        let answer = server.post("/get_reward?rubric=binary_em", &body).ok();
        (answer["rewards"].clone(), answer["extra_logs"]["valid"].clone())
    };
    let question = json!({"role": "user", "content": QUESTION});
    let eval_protocol = |truth: Value| {
        let messages = json!([question, {"role": "assistant", "content": "<answer>Paris</answer>"}]);
        let body = json!({"messages": messages, "ground_truth": truth, "rubric": "binary_em"});
        let answer = server.post("/eval-protocol/reward", &body).ok();
        (answer["score"].clone(), answer["error"].clone())
    };
    let context = || json!([question]);
    assert_eq!(open_rlhf(json!(["", ""])), (json!([0.0, 0.0]), json!([0.0, 0.0])), "there is nothing to compare with");
    assert!(eval_protocol(context()).1.as_str().unwrap().starts_with("references_missing"));
    server.post("/references", &reference_line()).ok();
    server.post("/references", &json!({"prompt": QUESTION, "references": ["Paris"]})).ok();
    assert_eq!(open_rlhf(json!(["", ""])), (json!([1.0, 0.0]), json!([1.0, 1.0])));
    assert_eq!(open_rlhf(json!(["Lyon", ""])), (json!([0.0, 0.0]), json!([1.0, 1.0])), "a label wins");
    assert_eq!(eval_protocol(context()), (json!(1.0), Value::Null));
    assert_eq!(eval_protocol(json!([])), (json!(1.0), Value::Null), "the context of a single message");
    assert_eq!(eval_protocol(json!(["Lyon"])), (json!(0.0), Value::Null), "a label wins");
    let nested = json!({"messages": [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "<answer>Paris</answer>"}],
        "ground_truth": context(), "kwargs": {"ground_truth": "Paris", "rubric": "binary_em"}});
    let answer = server.post("/eval-protocol/evaluate", &nested).ok();
    assert_eq!((&answer["score"], &answer["error"]), (&json!(1.0), &Value::Null), "a label behind a context");
    let (_, error) = eval_protocol(json!([question, "Paris"]));
    assert!(error.as_str().unwrap().starts_with("item_malformed"), "{error}");
}

/// Rows of a data set have other fields that are called as a label is elsewhere.
#[test]
fn a_trainer_s_own_field_comes_before_those_that_may_be_anything() {
    let server = Server::start(&[]);
    for (name, value) in
        [("answer", json!("It is Paris, because ..")), ("target", json!(3)), ("references", json!([""]))]
    {
        let said = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "<answer>Paris</answer>"}]});
        let mut row = json!({"responses_create_params": {"input": QUESTION}, "response": {"output": [said]}, "expected_answer": "Paris"});
        row[name] = value.clone();
        assert_eq!(server.post("/verify", &row).ok()["reward"], 1.0, "{name}");
        for own in ["ground_truth", "solution"] {
            let columns = json!({own: ["Paris"], name: [value]});
            let body = json!({"prompts": ["?"], "completions": ["<answer>Paris</answer>"], "columns": columns});
            assert_eq!(server.post("/trl", &body).ok()["rewards"], json!([1.0]), "{own}, {name}");
        }
    }
}

#[test]
fn a_label_that_is_json_text_is_read_wherever_it_stands() {
    let server = Server::start(&[]);
    for (truth, reward) in [("Paris", 1.0), ("Lyon", 0.0)] {
        let label = json!({"references": [truth], "group": "g"}).to_string();
        let said = json!([{"role": "assistant", "content": "<answer>Paris</answer>"}]);
        let output = json!([{"type": "message", "role": "assistant", "content": "<answer>Paris</answer>"}]);
        for (path, body, place) in [
            ("/step", json!({"action": {"messages": said, "ground_truth": label}}), "/reward"),
            ("/step", json!({"action": {"messages": said, "answer": {"ground_truth": {"target": truth}}}}), "/reward"),
            ("/verl", json!({"solution_str": "<answer>Paris</answer>", "ground_truth": label}), "/score"),
            ("/eval-protocol/reward", json!({"messages": said, "ground_truth": label}), "/score"),
            (
                "/verify",
                json!({"responses_create_params": {"input": "q"}, "response": {"output": output}, "expected_answer": label}),
                "/reward",
            ),
        ] {
            let answer = server.post(&format!("{path}?rubric=binary_em"), &body).ok();
            assert_eq!(answer.pointer(place), Some(&json!(reward)), "{path}: {answer}");
        }
    }
}

/// As the Python callables take them from the same data set.
#[test]
fn tools_may_be_json_text() {
    let server = Server::start(&[]);
    server
        .post("/references", &json!({"prompt": "known", "references": ["Paris"], "tools": tools(false).to_string()}))
        .ok();
    let response = format!("{}<answer>Paris</answer>", hermes("search", &json!({"query": "x"})));
    let valid = |tools: Value| {
        let label = json!({"references": ["Paris"], "tools": tools});
        let info = json!({"tools": tools});
        for (path, body, place) in [
            ("/slime", json!({"prompt": "q", "response": response, "label": label}), "/tool_schema"),
            ("/slime", json!({"prompt": "q", "response": response, "label": label.to_string()}), "/tool_schema"),
            ("/slime", json!({"prompt": "known", "response": response}), "/tool_schema"),
            ("/verl", json!({"solution_str": response, "ground_truth": "Paris", "extra_info": info}), "/tool_schema"),
            (
                "/trl",
                json!({"completions": [response], "columns": {"answer": ["Paris"], "tools": [tools]}}),
                "/metrics/tool_schema/0",
            ),
        ] {
            let answer = server.post(&format!("{path}?rubric=short_form_qa&format=dict"), &body).ok();
            assert_eq!(answer.pointer(place), Some(&json!(1.0)), "{path}: {answer}");
        }
    };
    valid(tools(false));
    valid(json!(tools(false).to_string()));
    for text in ["search", "[{", "{}"] {
        let body = json!({"completions": [response], "columns": {"answer": ["Paris"], "tools": [text]}});
        assert_eq!(server.post("/trl", &body).ok()["rewards"], json!([null]), "{text}");
    }
}

#[test]
fn of_a_field_that_is_sent_twice_the_last_counts() {
    let server = Server::start(&[]);
    let (right, wrong) = ("\"<answer>Paris</answer>\"", "\"<answer>Lyon</answer>\"");
    for (body, reward) in [
        (format!("{{\"response\": {wrong}, \"response\": {right}, \"label\": \"Paris\"}}"), 1.0),
        (format!("{{\"response\": {right}, \"respons\\u0065\": {wrong}, \"label\": \"Paris\"}}"), 0.0),
        (
            format!(
                "{{\"response\": {right}, \"label\": \"Lyon\", \"label\": {{\"answer\": \"Lyon\", \"answer\": \"Paris\"}}}}"
            ),
            1.0,
        ),
    ] {
        assert_eq!(server.post("/slime?rubric=binary_em", &body).ok(), json!(reward), "{body}");
    }
}
