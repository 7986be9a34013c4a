//! The OpenAPI document: the committed one is the generated one, its examples are valid, and what goes over the wire is
//! what it says.

use std::collections::BTreeMap;
use std::process::Command;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::common::{Database, Server, answering, case_requests, package, with};

fn generated() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_gradus")).arg("openapi").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A schema of the document, which may refer to its components.
pub(crate) fn validator(document: &Value, schema: &Value) -> Validator {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{error}"))
}

fn component(document: &Value, name: &str) -> Validator {
    assert!(document["components"]["schemas"][name].is_object(), "there is no schema {name}");
    validator(document, &json!({"$ref": format!("#/components/schemas/{name}")}))
}

/// What is wrong with an instance, a line each.
pub(crate) fn errors(validator: &Validator, instance: &Value) -> Vec<String> {
    validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The schema of a path's response.
fn response_schema(document: &Value, method: &str, path: &str, status: &str) -> Value {
    let response = &document["paths"][path][method]["responses"][status]["content"];
    let content = response.as_object().unwrap_or_else(|| panic!("{method} {path} has no response {status}"));
    content.values().next().unwrap()["schema"].clone()
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let path = package("openapi/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let same = serde_json::from_str::<Value>(&committed).is_ok_and(|committed| committed == generated());
    assert!(
        same,
        "{} differs from the code; regenerate it: cargo run -- openapi > openapi/openapi.json",
        path.display()
    );
}

#[test]
fn the_served_document_is_the_generated_one() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/openapi.json").ok(), generated());
}

#[test]
fn every_native_endpoint_is_in_the_document() {
    let document = generated();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (method, path) in [
        ("post", "/reward"),
        ("get", "/rubrics"),
        ("get", "/rubrics/{name}"),
        ("put", "/rubrics/{name}"),
        ("post", "/rubrics/check"),
        ("get", "/runs"),
        ("get", "/runs/{run_id}"),
        ("get", "/runs/{run_id}/scores"),
        ("get", "/scores/{id}"),
        ("post", "/advantages"),
        ("get", "/runs/{run_id}/prompts"),
        ("post", "/runs/{run_id}/sample"),
        ("post", "/references"),
        ("get", "/healthz"),
        ("get", "/health"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    ] {
        let operation = &document["paths"][path][method];
        assert!(operation["summary"].as_str().or(operation["description"].as_str()).is_some(), "{method} {path}");
        assert!(operation["operationId"].is_string(), "{method} {path}");
    }
    let statuses = document["paths"]["/reward"]["post"]["responses"].as_object().unwrap();
    for status in ["200", "400", "401", "403", "404", "409", "413", "415", "422", "429", "503", "504"] {
        assert!(statuses.contains_key(status), "{status}");
    }
}

#[test]
fn every_schema_and_property_has_a_description() {
    let document = generated();
    let mut missing = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let mut parts = vec![schema];
        parts.extend(schema["allOf"].as_array().into_iter().flatten());
        if !parts.iter().any(|part| part["description"].is_string()) {
            missing.push(name.clone());
        }
        for (property, schema) in parts.iter().filter_map(|part| part["properties"].as_object()).flatten() {
            let beside = schema["oneOf"].as_array().into_iter().flatten().any(|one| one["description"].is_string());
            if !schema["description"].is_string() && !beside {
                missing.push(format!("{name}.{property}"));
            }
        }
    }
    assert!(missing.is_empty(), "no description: {missing:?}");
}

#[test]
fn every_schema_has_an_example_that_validates() {
    let document = generated();
    let mut wrong = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let examples: Vec<&Value> =
            schema.get("example").into_iter().chain(schema["examples"].as_array().into_iter().flatten()).collect();
        if examples.is_empty() {
            wrong.push(format!("{name}: no example"));
        }
        let validator = component(&document, name);
        for example in examples {
            wrong.extend(errors(&validator, example).into_iter().map(|error| format!("{name}{error}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_example_of_a_property_validates() {
    let document = generated();
    let mut wrong = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
            let Some(example) = schema.get("example") else { continue };
            wrong.extend(
                errors(&validator(&document, schema), example).into_iter().map(|e| format!("{name}.{property}{e}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_example_request_scores() {
    let server = Server::start(&[]);
    let example = generated()["components"]["schemas"]["RewardRequest"]["example"].clone();
    assert_eq!(server.reward(&example).ok()["rewards"], json!([1.0]));
}

#[test]
fn requests_and_responses_are_what_the_document_says() {
    let server = Server::start(&[]);
    let document = generated();
    let (request_schema, response_schema) =
        (component(&document, "RewardRequest"), component(&document, "RewardResponse"));
    // One entry per place, whatever its indices and however often it came up.
    let mut wrong: BTreeMap<String, String> = BTreeMap::new();
    let mut note = |kind: &str, errors: Vec<String>| {
        for error in errors {
            let (place, message) = error.split_once(':').unwrap_or((&error, ""));
            let place: String = place.chars().filter(|c| !c.is_ascii_digit()).collect();
            wrong.entry(format!("{kind} {place}")).or_insert_with(|| message.chars().take(200).collect());
        }
    };
    let mut requests = case_requests();
    let odd = json!({"curriculum": {"step": 3, "mastery": {"tool_parse": 0.5}}, "on_invalid": "zero", "deadline_ms": 60_000, "trajectories": [
        with(with(answering("Paris"), "id", json!(4)), "group", json!(5)), {"prompt": "?", "response": "<answer>4</answer>", "references": [4, "four"]}]});
    requests.push(("odd".to_owned(), odd));
    let inline = json!({"rubric": {"name": "x", "stages": [{"kind": "exact_match", "weight": 1}]}, "trajectories": []});
    requests.push(("inline".to_owned(), inline));
    for (_, request) in &requests {
        note("request", errors(&request_schema, request));
        note("response", errors(&response_schema, &server.reward(request).ok()));
    }
    let invalid = server.reward(&json!({"trajectories": [7]})).ok();
    note("response", errors(&response_schema, &invalid));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_wrong_request_is_none_for_the_document_either() {
    let schema = component(&generated(), "RewardRequest");
    for request in [
        json!([]),
        json!({}),
        json!({"trajectories": {}}),
        json!({"trajectories": [], "step": "x"}),
        json!({"trajectories": [], "on_invalid": "guess"}),
        json!({"trajectories": [], "trajectorys": []}),
        json!({"trajectories": [], "curriculum": {"stage": 3}}),
        json!({"trajectories": [{"messages": [{"role": "assistant", "reasoning": 5}]}]}),
    ] {
        assert!(!schema.is_valid(&request), "{request}");
    }
}

#[test]
fn problems_are_what_the_document_says() {
    let server = Server::start(&[]);
    let schema = component(&generated(), "Problem");
    for answer in [
        server.post("/reward", "{"),
        server.post("/reward", "{}"),
        server.get("/nothing"),
        server.get("/reward"),
        server.get("/rubrics/nobody"),
    ] {
        assert_eq!(errors(&schema, &answer.json()), Vec::<String>::new());
    }
}

/// A path with its query, headers and a body.
type Asked = (String, Vec<(&'static str, &'static str)>, String);

/// What an operation is asked with, beside its own path: paths with their queries, headers and bodies, right and wrong.
fn odd_requests(template: &str, is_read: bool) -> Vec<Asked> {
    let with_names = |name: &str| {
        ["{name}", "{run_id}", "{id}"].iter().fold(template.to_owned(), |path, part| path.replace(part, name))
    };
    let (path, json) = (with_names("a"), ("Content-Type", "application/json"));
    let (right, wrong) = (("Authorization", "Bearer s"), ("Authorization", "Bearer wrong"));
    let failing = format!("{path}?on_invalid=error");
    let mut all = vec![(path.clone(), vec![json], "{}".to_owned()), (path.clone(), vec![json, wrong], "{}".to_owned())];
    for path in [path.clone(), with_names("%ff"), failing.clone(), format!("{path}?window=0&on_invalid=guess&limit=0")]
    {
        for body in ["{}", "[[", "", r#"{"query":["x"],"messages":[],"trajectories":[7]}"#] {
            all.push((path.clone(), vec![json, right], body.to_owned()));
        }
    }
    if is_read {
        for path in [path, failing.clone()] {
            all.push((path.clone(), vec![json, right], "x".repeat(600_000)));
            all.push((path.clone(), vec![json, right, ("Content-Encoding", "br")], "{}".to_owned()));
            all.push((path, vec![("Content-Type", "text/plain"), right], "{}".to_owned()));
        }
        all.push((format!("{failing}&rubric=nobody"), vec![json, right], "{}".to_owned()));
    }
    all
}

#[test]
fn every_status_that_occurs_is_in_the_document() {
    let database = Database::new();
    let server = database.serve(&["--api-token", "t", "--admin-token", "s", "--max-body-bytes", "100000"]);
    let document = generated();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let is_read = method != "GET" && template != "/seed_session" && template != "/reset";
            for (path, headers, body) in odd_requests(template, is_read) {
                let body = (method != "GET").then_some(body.as_bytes());
                let status = server.send(&method, &path, &headers, body).status;
                let told = operation["responses"].get(status.to_string()).is_some();
                assert!(told, "{method} {path} is answered with {status}, which {template} does not tell");
            }
        }
    }
}

#[test]
fn the_other_endpoints_answer_what_the_document_says() {
    let database = Database::new();
    let server = database.serve(&["--admin-token", "secret"]);
    let document = generated();
    let request = json!({"run_id": "r", "step": 4, "trajectories": [answering("Paris"), 7]});
    let score_id = server.reward(&request).ok()["results"][0]["score_id"].as_str().unwrap().to_owned();
    let score_path = format!("/scores/{score_id}");
    for (template, path) in [
        ("/rubrics", "/rubrics"),
        ("/rubrics/{name}", "/rubrics/short_form_qa"),
        ("/runs", "/runs"),
        ("/runs/{run_id}", "/runs/r"),
        ("/runs/{run_id}/scores", "/runs/r/scores"),
        ("/runs/{run_id}/prompts", "/runs/r/prompts"),
        ("/scores/{id}", &score_path),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
    ] {
        let schema = validator(&document, &response_schema(&document, "get", template, "200"));
        assert_eq!(errors(&schema, &server.get(path).ok()), Vec::<String>::new(), "{path}");
    }
    let text = "name = \"mine\"\n[[stages]]\nkind = \"exact_match\"\nweight = 1\n";
    let checked = validator(&document, &response_schema(&document, "post", "/rubrics/check", "200"));
    for text in [text, "name = 3"] {
        let answer =
            server.send("POST", "/rubrics/check", &[("Content-Type", "application/toml")], Some(text.as_bytes()));
        assert_eq!(errors(&checked, &answer.ok()), Vec::<String>::new());
    }
    let headers = [("Content-Type", "application/toml"), ("Authorization", "Bearer secret")];
    let answer = server.send("PUT", "/rubrics/mine", &headers, Some(text.as_bytes()));
    let schema = validator(&document, &response_schema(&document, "put", "/rubrics/{name}", "200"));
    assert_eq!(errors(&schema, &answer.ok()), Vec::<String>::new());
}
