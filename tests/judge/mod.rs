//! Judges, end to end: the real server with the small judge of `tests/small_judge`, or with an endpoint made up by
//! wiremock. What is right scores high, what fails is no number, and nothing is asked twice.

mod broken_models;
mod local;
mod remembered;
mod remote;

use serde_json::{Value, json};

use crate::common::{Server, package};

/// The rubric of `tests/small_judge`.
const SMALL: &str = "small_long_form_qa";

/// The options for a server with the small judge and its rubric.
struct SmallJudge {
    rubrics: tempfile::TempDir,
    model: String,
}

impl SmallJudge {
    fn new() -> Self {
        let rubrics = tempfile::tempdir().unwrap();
        std::fs::copy(package("tests/small_judge/rubric.toml"), rubrics.path().join("small_long_form_qa.toml"))
            .unwrap();
        Self { rubrics, model: package("tests/small_judge").to_str().unwrap().to_owned() }
    }

    fn start(&self, more: &[&str]) -> Server {
        let rubrics = self.rubrics.path().to_str().unwrap();
        Server::start(&[&["--judge", &self.model, "--rubrics", rubrics], more].concat())
    }
}

/// A trajectory that answers a question in its last message.
fn answers(question: &str, reference: &str, answer: &str) -> Value {
    json!({
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "references": [reference],
    })
}

fn capital(answer: &str) -> Value {
    answers("What is the capital of Australia?", "Canberra", answer)
}

const RIGHT: &str = "The capital of Australia is Canberra.";
const WRONG: &str = "Sydney is the capital of Australia.";

/// A request by a rubric of this name.
fn by(rubric: &str, trajectories: &[Value]) -> Value {
    json!({"rubric": rubric, "trajectories": trajectories})
}

#[track_caller]
fn results(response: &Value) -> &Vec<Value> {
    response["results"].as_array().unwrap()
}

/// The judge stage of a result.
#[track_caller]
fn judged(result: &Value) -> &Value {
    result["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == "judge").unwrap()
}

/// That a result has no number, and why: the code, and words of the message.
#[track_caller]
fn assert_no_score(result: &Value, code: &str, says: &[&str]) {
    assert_eq!((&result["valid"], &result["reward"]), (&json!(false), &Value::Null), "{result:#}");
    assert_eq!(
        (&result["errors"][0]["code"], &result["errors"][0]["stage"]),
        (&json!(code), &json!("judge")),
        "{result:#}"
    );
    let message = result["errors"][0]["message"].as_str().unwrap();
    for part in says {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
}
