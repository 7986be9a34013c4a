//! What is scored and how, without a server and without a judge: calls, texts, rewards, and the shipped rubrics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]
#![allow(clippy::needless_pass_by_value, reason = "values made with json!() are handed over where they are made")]

mod incentives;
mod no_judge;
mod rubrics;
mod shaping;
mod text_sacrebleu;
mod toolcall_rules;
mod toolcall_time;
mod trajectories;

use gradus::http::batch::{Engine, Overrides, Stop};
use gradus::rubric::Catalog;
use gradus::stages::Judge;
use serde_json::{Value, json};

use self::no_judge::NoJudge;

/// An engine with the shipped rubrics.
fn engine() -> Engine {
    Engine::new(Catalog::open(None).unwrap(), 8 << 20)
}

/// The response to a request.
fn response(engine: &Engine, request: &str, judge: &dyn Judge) -> Value {
    let scored = engine.score(request, &Overrides::default(), &Stop::default(), judge).unwrap();
    serde_json::from_slice(&scored.body).unwrap()
}

/// A call in the hermes format.
fn hermes(name: &str, arguments: &Value) -> String {
    format!("<tool_call>{}</tool_call>", json!({"name": name, "arguments": arguments}))
}
