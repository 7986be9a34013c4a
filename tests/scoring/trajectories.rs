//! Trajectories as real models write them, each with a snapshot of its whole report.
//!
//! The bodies are in `tests/cases/trajectories`, the reports beside them in `snapshots`. A snapshot says what happened;
//! the table in that folder's README says what should: whoever accepts a change reads both.

use gradus::http::batch::Engine;
use serde_json::Value;

use super::{NoJudge, engine, response};

/// The response without what differs from run to run.
fn report(engine: &Engine, body: &str) -> Value {
    let mut response = response(engine, body, &NoJudge);
    for result in response["results"].as_array_mut().unwrap() {
        result["latency_ms"] = Value::from(0);
    }
    // The reviewed reports have their keys sorted.
    response.sort_all_objects();
    response
}

#[test]
fn reports_are_as_reviewed() {
    let engine = engine();
    insta::with_settings!({ snapshot_path => "../cases/trajectories/snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::glob!("../cases/trajectories", "*.json", |path| {
            let body = std::fs::read_to_string(path).unwrap();
            insta::assert_json_snapshot!(report(&engine, &body));
        });
    });
}
