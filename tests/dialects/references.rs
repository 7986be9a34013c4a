//! The table of references: for trainers that send no ground truth.

use serde_json::{Value, json};

use super::contents::{QUESTION, contents, reference_line, templated_prompt, tools};
use crate::common::{Database, Server, hermes, with};

fn score(server: &Server, text: &str) -> Value {
    let body = json!({"model": "m", "messages": [text]});
    server.post("/v1/score/evaluation?rubric=binary_em", &body).ok()["scores"][0].clone()
}

fn whole(answer: &str) -> String {
    format!("{}<answer>{answer}</answer><|im_end|>", templated_prompt())
}

#[test]
fn a_restart_keeps_the_table() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    let earlier = json!({"prompt": QUESTION, "references": ["Lyon"]}).to_string();
    assert_eq!(server.post("/references", &earlier).ok(), json!({"lines": 1, "replaced": 0, "prompts": 1}));
    let answer = server.post("/references", &reference_line()).ok();
    assert_eq!(answer, json!({"lines": 1, "replaced": 1, "prompts": 1}));
    assert_eq!(score(&server, &whole("Paris")), 1.0);
    server.crash();
    let server = database.serve(&[]);
    assert_eq!(score(&server, &whole("Paris")), 1.0);
    assert_eq!(score(&server, &whole("Lyon")), 0.0);
}

#[test]
fn an_entry_that_was_damaged_is_left_out_and_said() {
    let database = Database::new();
    let lines = format!("{}\n{}", reference_line(), json!({"prompt": "another", "references": ["x"]}));
    let mut server = database.serve(&[]);
    server.post("/references", &lines).ok();
    server.terminate();
    server.wait();
    let change = "UPDATE prompt_references SET value = 'x' WHERE value LIKE '%Paris%'";
    assert_eq!(database.open().execute(change, []).unwrap(), 1);
    let server = database.serve(&[]);
    server.wait_until(|server| server.log().contains("references by prompt are damaged"));
    let answer = server.post("/references", &lines).ok();
    assert_eq!(answer, json!({"lines": 2, "replaced": 1, "prompts": 2}));
    assert_eq!(score(&server, &whole("Paris")), 1.0);
}

/// Whichever of them was loaded last.
#[test]
fn of_two_prompts_that_begin_a_text_the_longer_one_counts() {
    let server = Server::start(&[]);
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let longer = json!([turn("user", QUESTION), turn("assistant", "Which France?"), turn("user", "The old one.")]);
    for (prompt, answer) in [(longer, "Paris"), (json!(QUESTION), "Lyon")] {
        server.post("/references", &json!({"prompt": prompt, "references": [answer]})).ok();
    }
    let text = format!(
        "{}Which France?<|im_end|>\n<|im_start|>user\nThe old one.<|im_end|>\n<|im_start|>assistant\n<answer>Paris</answer><|im_end|>",
        templated_prompt()
    );
    assert_eq!((score(&server, &text), score(&server, &whole("Lyon"))), (json!(1.0), json!(1.0)));
}

#[test]
fn a_prompt_is_known_in_any_form() {
    let llama = format!(
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<answer>Paris</answer><|eot_id|>"
    );
    for prompt in [json!(QUESTION), json!(templated_prompt()), json!([{"role": "user", "content": QUESTION}])] {
        let server = Server::start(&[]);
        server.post("/references", &json!({"prompt": prompt, "references": ["Paris"]})).ok();
        assert_eq!(score(&server, &whole("Paris")), 1.0, "{prompt}");
        assert_eq!(score(&server, &llama), 1.0, "{prompt}");
    }
}

#[test]
fn a_later_line_replaces_and_a_label_wins() {
    let server = Server::start(&[]);
    let line = |reference: &str| json!({"prompt": QUESTION, "references": [reference]}).to_string();
    server.post("/references", &line("Lyon")).ok();
    let answer = server.post("/references", &format!("{}\n\n{}\n", line("Nice"), line("Paris"))).ok();
    assert_eq!((&answer["lines"], &answer["replaced"], &answer["prompts"]), (&json!(2), &json!(2), &json!(1)));
    assert_eq!(score(&server, &whole("Paris")), 1.0);
    let body = json!({"query": [whole("Lyon")], "prompts": [templated_prompt()], "labels": ["Lyon"]});
    assert_eq!(server.post("/get_reward?rubric=binary_em", &body).ok()["rewards"], json!([1.0]));
}

#[test]
fn a_bad_line_refuses_the_upload_and_is_named() {
    let server = Server::start(&[]);
    for (line, words) in [
        ("{", "EOF"),
        ("{\"references\": [\"x\"]}", "neither `prompt` nor `messages`"),
        ("{\"prompt\": \"q\"}", "neither `references` nor"),
        ("{\"prompt\": 7, \"references\": [\"x\"]}", "neither a text nor messages"),
        ("{\"prompt\": [], \"references\": [\"x\"]}", "neither a text nor messages"),
        (
            "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}, 7], \"references\": [\"x\"]}",
            "message 1 of its prompt",
        ),
        ("{\"messages\": [{\"role\": \"nobody\"}], \"references\": [\"x\"]}", "message 0 of its prompt"),
        // Else every item of this prompt would be one that cannot be read.
        ("{\"prompt\": \"q\", \"golds\": [\"x\", 7, [\"y\"]]}", "/references element 2: "),
        ("{\"prompt\": \"q\", \"references\": {\"a\": 1}}", "/references "),
        ("{\"prompt\": \"q\", \"reference_calls\": [{\"name\": \"f\"}, {\"nam\": \"f\"}]}", "/reference_calls/1"),
        ("{\"prompt\": \"q\", \"references\": [\"x\"], \"group\": {\"a\": 1}}", "/group "),
        (
            &format!("{{\"prompt\": \"q\", \"references\": [\"x\"], \"group\": \"{}\"}}", "g".repeat(300)),
            "a name of 300 bytes",
        ),
        ("{\"prompt\": \"q\", \"references\": [\"x\"], \"tools\": 5}", "/tools give a list of tools"),
        ("{\"prompt\": \"q\", \"references\": [\"x\"], \"tools\": \"5\"}", "/tools give a list of tools"),
        (
            &format!("{{\"prompt\": \"q\", \"references\": [\"x\", \"{}\"]}}", "y".repeat(300_000)),
            "/references/1 reference 1 has 300000 bytes",
        ),
        ("{\"prompt\": \"q\", \"references\": [\"x\"], \"refrences\": []}", "unknown field"),
        ("[]", "expected an object"),
    ] {
        let problem = server.post("/references", &format!("{}\n\n{line}", reference_line())).problem(422);
        assert_eq!(problem["line"], 3, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words) && detail.contains("line 3"), "{detail}");
    }
    // Nothing was taken.
    let body = json!({"messages": [whole("Paris")]});
    let scores = server.post("/v1/score/evaluation?rubric=binary_em&on_invalid=null", &body).ok();
    assert_eq!(scores["scores"], json!([null]));
}

/// Else the trainer is scored by it until the server is started again, and then no more.
#[test]
fn what_could_not_be_stored_is_not_known() {
    let database = Database::new();
    let server = database.serve(&[]);
    let database = database.open();
    database.execute_batch("ALTER TABLE prompt_references RENAME TO elsewhere").unwrap();
    server.post("/references", &reference_line()).problem(503);
    database.execute_batch("ALTER TABLE elsewhere RENAME TO prompt_references").unwrap();
    let answer = server.post("/references", &reference_line()).ok();
    assert_eq!(answer, json!({"lines": 1, "replaced": 0, "prompts": 1}), "nothing of the first upload was taken");
    assert_eq!(score(&server, &whole("Paris")), 1.0);
}

#[test]
fn a_text_without_markers_says_nothing_of_its_prompt() {
    let server = Server::start(&[]);
    let body = json!({"query": ["What? Paris"]}).to_string();
    server.post("/get_reward?on_invalid=error", &body).refused(503, "where the prompt ends");
    assert_eq!(server.post("/get_reward", &body).ok()["rewards"], json!([0.0]));
}

#[test]
fn tools_and_calls_come_from_the_table_too() {
    let server = Server::start(&[]);
    server.post("/references", &reference_line()).ok();
    let content = &contents()[3];
    let native = server.reward(&content.native()).ok()["rewards"][0].clone();
    let body = json!({"input": format!("{}{}", templated_prompt(), content.text())});
    assert_eq!(server.post("/classify", &body).ok()["data"][0]["probs"][0], native);
}

#[test]
fn calls_alone_may_be_what_is_right() {
    let server = Server::start(&[]);
    let line = json!({"prompt": QUESTION, "tools": tools(false), "reference_calls": [{"name": "search", "arguments": {"query": "x"}}]});
    server.post("/references", &line).ok();
    let reward = |query: &str| {
        let body = json!({"input": format!("{}{}", templated_prompt(), hermes("search", &json!({"query": query})))});
        server.post("/classify?rubric=tool_use", &body).ok()["data"][0]["probs"][0].as_f64().unwrap()
    };
    assert!(reward("y") < reward("x") && reward("x") == 1.0, "{} and {}", reward("y"), reward("x"));
}

/// Else it would be judged by two truths at once.
#[test]
fn an_item_that_says_what_is_right_takes_no_truth_from_the_table() {
    let server = Server::start(&[]);
    let call = |query: &str| json!([{"name": "search", "arguments": {"query": query}}]);
    let line = json!({"prompt": "q", "references": ["Paris"], "reference_calls": call("x"), "tools": tools(false)});
    server.post("/references", &line).ok();
    let valid = |rubric: &str, label: Value| {
        let response = format!("{}<answer>Paris</answer>", hermes("search", &json!({"query": "x"})));
        let body = json!({"prompt": "q", "response": response, "label": label});
        server.post(&format!("/slime?format=dict&on_invalid=mean&rubric={rubric}"), &body).ok()["valid"].clone()
    };
    let other = |field: &str, truth: Value| with(json!({"tools": tools(false)}), field, truth);
    let (calls, answers) = (other("reference_calls", call("x")), other("references", json!(["Paris"])));
    for (rubric, other) in [("binary_em", calls), ("tool_use", answers)] {
        assert_eq!((valid(rubric, json!(null)), valid(rubric, other)), (json!(1.0), json!(0.0)), "{rubric}");
    }
}

/// A data set that has its labels, and its tools once for each prompt.
#[test]
fn an_item_that_says_what_is_right_takes_tools_and_group_from_the_table() {
    let server = Server::start(&["--store", "sqlite::memory:"]);
    let line = json!({"prompt": "q", "references": ["Lyon"], "tools": tools(false), "group": "of the table"});
    server.post("/references", &line).ok();
    let response = format!("{}<answer>Paris</answer>", hermes("search", &json!({"query": "x"})));
    let ask = |prompt: &str, label: Value| {
        let body = json!({"prompt": prompt, "response": response, "label": label});
        server.post("/slime?format=dict&rubric=short_form_qa&run_id=run", &body).ok()
    };
    for label in [json!("Paris"), json!({"references": ["Paris"], "group": "its own"})] {
        let answer = ask("q", label);
        assert_eq!((&answer["tool_schema"], &answer["score"]), (&json!(1.0), &json!(1.0)), "{answer}");
    }
    assert_eq!(ask("q", json!({"references": ["Paris"], "tools": []}))["tool_schema"], 0.0, "its own tools win");
    assert_eq!(ask("another", json!("Paris"))["tool_schema"], 0.0);
    let rows = server.get("/runs/run/scores").ok();
    let groups: Vec<&Value> = rows["items"].as_array().unwrap().iter().map(|row| &row["group"]).collect();
    assert_eq!(groups[..3], ["of the table", "its own", "of the table"], "{rows}");
}

#[test]
fn a_group_of_the_table_is_the_items() {
    let server = Server::start(&[]);
    for prompt in ["one", "two"] {
        let line = json!({"prompt": prompt, "references": ["Paris"], "group": "both"});
        server.post("/references", &line).ok();
    }
    let body = json!({"prompts": ["one", "two"], "completions": ["<answer>Paris</answer>", 7]});
    let answer = server.post("/trl?rubric=binary_em&on_invalid=mean", &body).ok();
    assert_eq!(answer["rewards"], json!([1.0, 1.0]), "the mean of the group that both are in");
}

#[test]
fn what_the_table_adds_is_bounded() {
    let server = Server::start(&[]);
    let references: Vec<String> = (0..64).map(|at| format!("{at}{}", "x".repeat(60_000))).collect();
    server.post("/references", &json!({"prompt": "q", "references": references})).ok();
    let ask = |items: usize| {
        let body = json!({"prompts": vec!["q"; items], "completions": vec!["a"; items]});
        server.post("/trl?rubric=binary_em&on_invalid=error", &body)
    };
    assert_eq!(ask(4).ok()["rewards"], json!([0.0, 0.0, 0.0, 0.0]));
    ask(40).refused(422, "send fewer at once");
    ask(5000).refused(422, "4096");
}
