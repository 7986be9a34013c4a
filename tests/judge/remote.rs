//! A judge behind an `OpenAI`-compatible endpoint, by the shipped rubric `long_form_qa`.

use std::time::Duration;

use tokio::runtime::Runtime;
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::common::{Database, answering, post_bytes, with};

/// An endpoint whose answers are given in turn; the last one stays.
struct Endpoint {
    runtime: Runtime,
    server: MockServer,
}

impl Endpoint {
    fn new(replies: Vec<ResponseTemplate>) -> Self {
        let endpoint = Self::mute();
        let last = replies.len() - 1;
        for (index, reply) in replies.into_iter().enumerate() {
            let mock = Mock::given(method("POST")).and(path("/v1/chat/completions")).respond_with(reply);
            endpoint.mount(if index < last { mock.up_to_n_times(1) } else { mock });
        }
        endpoint
    }

    /// One that answers nothing yet.
    fn mute() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(MockServer::start());
        Self { runtime, server }
    }

    fn mount(&self, mock: Mock) {
        self.runtime.block_on(mock.mount(&self.server));
    }

    fn url(&self) -> String {
        format!("{}/v1", self.server.uri())
    }

    /// A server that asks this endpoint for the model `judge`.
    fn start(&self) -> Server {
        Server::start(&["--judge", &format!("{}#judge", self.url())])
    }

    /// The same with more lines in its table of the configuration file.
    fn start_with(&self, lines: &str) -> Server {
        configured(&format!("{lines}\nendpoints = [{{ url = \"{}\" }}]\n", self.url()))
    }

    fn sent(&self) -> Vec<Value> {
        let requests = self.runtime.block_on(self.server.received_requests()).unwrap();
        requests.iter().map(|request| request.body_json().unwrap()).collect()
    }
}

/// A server whose configuration file has these lines in the table of its judge.
fn configured(lines: &str) -> Server {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[judges.default]\nmodel = \"judge\"\n{lines}")).unwrap();
    Server::start(&["--config", file.path().to_str().unwrap()])
}

/// A chat reply with one choice.
fn chat(choice: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "judge-7b", "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 64}},
    }))
}

fn content(text: &str) -> ResponseTemplate {
    chat(json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}))
}

/// A reply whose next token is one of these with these probabilities.
fn next_token(probabilities: &[(&str, f64)]) -> ResponseTemplate {
    let top: Vec<Value> = probabilities.iter().map(|(t, p)| json!({"token": t, "logprob": p.ln()})).collect();
    chat(json!({
        "index": 0, "message": {"role": "assistant", "content": probabilities[0].0}, "finish_reason": "length",
        "logprobs": {"content": [{"token": probabilities[0].0, "logprob": probabilities[0].1.ln(), "top_logprobs": top}]},
    }))
}

fn judged_once(server: &Server) -> Value {
    server.reward(&by("long_form_qa", &[capital(RIGHT)])).ok()["results"][0].clone()
}

#[track_caller]
fn assert_reward(result: &Value, wanted: f64) {
    let reward = result["reward"].as_f64().unwrap_or_else(|| panic!("{result:#}"));
    assert!((reward - wanted).abs() < 1e-9, "{reward}, not {wanted}");
}

#[test]
fn probabilities_of_the_labels_become_the_score() {
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 0.8), ("No", 0.1), ("Perhaps", 0.1)])]);
    let server = endpoint.start();
    let result = judged_once(&server);
    assert_reward(&result, 0.3 + 0.7 * 8.0 / 9.0);
    let detail = &judged(&result)["detail"];
    for (name, wanted) in [("p(Yes)", 8.0 / 9.0), ("p(No)", 1.0 / 9.0), ("outside", 0.1)] {
        assert!((detail[name].as_f64().unwrap() - wanted).abs() < 1e-9, "{name} in {detail}");
    }
    assert_eq!((judged_once(&server)["cache"].clone(), endpoint.sent().len()), (json!("hit"), 1));
    let sent = &endpoint.sent()[0];
    assert_eq!((&sent["model"], &sent["logprobs"], &sent["temperature"]), (&json!("judge"), &json!(true), &json!(0.0)));
    let prompt = sent["messages"].to_string();
    assert!(prompt.contains(RIGHT) && prompt.contains("Canberra"), "{prompt}");
}

#[test]
fn an_endpoint_without_probabilities_is_asked_for_json() {
    let endpoint = Endpoint::mute();
    let asks = |part: Value| Mock::given(method("POST")).and(body_partial_json(part));
    endpoint.mount(asks(json!({"logprobs": true})).respond_with(content("Yes")));
    endpoint.mount(
        asks(json!({"response_format": {"type": "json_schema"}})).respond_with(content("{\"verdict\": \"Yes\"}")),
    );
    let server = endpoint.start();
    assert_reward(&judged_once(&server), 1.0);
    let response = server.reward(&by("long_form_qa", &[capital(WRONG)])).ok();
    assert_reward(&response["results"][0], 1.0);
    assert_eq!(endpoint.sent().len(), 3, "it is not asked for probabilities again");
}

#[test]
fn a_failure_of_the_endpoint_is_tried_again() {
    let busy = ResponseTemplate::new(429).insert_header("retry-after", "0");
    let endpoint = Endpoint::new(vec![ResponseTemplate::new(500), busy, next_token(&[("Yes", 1.0)])]);
    let server = endpoint.start_with("backoff_ms = 1\nbackoff_max_ms = 2");
    assert_reward(&judged_once(&server), 1.0);
    let url = endpoint.url();
    let of = |name: &str, more: &[(&str, &str)]| {
        server.metric(name, &[&[("judge", "default"), ("endpoint", url.as_str())], more].concat())
    };
    assert_eq!(of("gradus_judge_endpoint_requests_total", &[]), 3.0);
    assert_eq!(of("gradus_judge_endpoint_retries_total", &[]), 2.0);
    assert_eq!(of("gradus_judge_endpoint_failures_total", &[("kind", "server")]), 1.0);
    assert_eq!(of("gradus_judge_endpoint_failures_total", &[("kind", "busy")]), 1.0);
    assert_eq!(of("gradus_judge_endpoint_tokens_total", &[("kind", "prompt")]), 100.0);
    assert_eq!(of("gradus_judge_endpoint_tokens_total", &[("kind", "cached")]), 64.0);
    assert_eq!(of("gradus_judge_endpoint_outstanding", &[]), 0.0);
    assert_eq!(of("gradus_judge_endpoint_circuit", &[("state", "closed")]), 1.0);
    assert_eq!(of("gradus_judge_ready", &[]), 0.0, "no sample has both labels");
    assert_eq!(server.metric("gradus_judge_ready", &[("judge", "default")]), 1.0);
}

#[test]
fn what_the_tokens_cost_is_counted() {
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 1.0)])]);
    let server = configured(&format!(
        "[[judges.default.endpoints]]\nurl = \"{}\"\n\
         prompt_price_per_million = 2.0\ncompletion_price_per_million = 10.0\n",
        endpoint.url()
    ));
    judged_once(&server);
    let cost = server.metric("gradus_judge_endpoint_cost_total", &[]);
    assert!((cost - (100.0 * 2.0 + 10.0) / 1e6).abs() < 1e-12, "{cost}");
}

#[test]
fn a_refusal_is_no_verdict_and_is_not_kept() {
    let refusal = chat(json!({
        "index": 0, "message": {"role": "assistant", "content": null, "refusal": "I cannot grade this."},
        "finish_reason": "stop",
    }));
    let endpoint = Endpoint::new(vec![refusal, next_token(&[("Yes", 1.0)])]);
    let server = endpoint.start();
    assert_no_score(&judged_once(&server), "judge_no_verdict", &["I cannot grade this.", "judge `judge`"]);
    let later = judged_once(&server);
    assert_reward(&later, 1.0);
    assert_eq!(later["cache"], "miss");
}

#[test]
fn what_is_no_verdict_is_never_a_number() {
    let cut = ResponseTemplate::new(200).set_body_raw("{\"model\": \"judge-7b\", \"choi", "application/json");
    let null = chat(json!({
        "message": {"content": "Yes"}, "finish_reason": "length",
        "logprobs": {"content": [{"token": "Yes", "logprob": null, "top_logprobs": [{"token": "Yes", "logprob": null}]}]},
    }));
    for (reply, says) in [
        (cut, "the reply is no JSON"),
        (ResponseTemplate::new(200).set_body_json(json!([])), "not of the protocol"),
        (null, "log-probability"),
        (next_token(&[("Perhaps", 0.9), ("Yes", 0.05)]), "0.950"),
        (ResponseTemplate::new(400).set_body_json(json!({"error": {"message": "too long for me"}})), "too long for me"),
    ] {
        let endpoint = Endpoint::new(vec![reply]);
        assert_no_score(&judged_once(&endpoint.start()), "judge_no_verdict", &[says]);
    }
}

#[test]
fn a_judge_that_changes_its_model_is_refused() {
    let other = ResponseTemplate::new(200).set_body_json(json!({
        "model": "judge-8b", "choices": [{"message": {"content": "Yes"}, "finish_reason": "length",
        "logprobs": {"content": [{"token": "Yes", "logprob": 0.0, "top_logprobs": [{"token": "Yes", "logprob": 0.0}]}]}}],
    }));
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 1.0)]), other]);
    let server = endpoint.start();
    assert_reward(&judged_once(&server), 1.0);
    let response = server.reward(&by("long_form_qa", &[capital(WRONG)])).ok();
    assert_no_score(&response["results"][0], "judge_no_verdict", &["judge-7b", "judge-8b"]);
}

#[test]
fn an_endpoint_that_hangs_is_given_up_and_holds_nobody_up() {
    let slow = next_token(&[("Yes", 1.0)]).set_delay(Duration::from_mins(10));
    let endpoint = Endpoint::new(vec![slow]);
    let server = endpoint.start_with("deadline_ms = 1000");
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| judged_once(&server));
        server.wait_until(|server| server.metric("gradus_judge_endpoint_outstanding", &[]) > 0.5);
        let response = server.reward(&json!({"trajectories": [answering("Paris")]})).ok();
        assert_eq!(response["rewards"], json!([1.0]), "meanwhile, without a judge");
        assert_no_score(&hanging.join().unwrap(), "judge_timeout", &["deadline"]);
    });
    assert_eq!(server.metric("gradus_judge_endpoint_failures_total", &[("kind", "hang")]), 1.0);
    assert_eq!(server.metric("gradus_judge_endpoint_outstanding", &[]), 0.0);
}

#[test]
fn a_request_whose_deadline_passes_has_no_number() {
    let slow = next_token(&[("Yes", 1.0)]).set_delay(Duration::from_mins(10));
    let endpoint = Endpoint::new(vec![slow]);
    let server = endpoint.start();
    let request = with(by("long_form_qa", &[capital(RIGHT), capital("")]), "deadline_ms", json!(2000));
    let response = server.reward(&request).ok();
    assert_no_score(&response["results"][0], "judge_timeout", &["deadline"]);
    assert_eq!(response["results"][1]["valid"], true, "the other one needs no judge");
    let request = with(request, "on_invalid", json!("error"));
    assert!(server.reward(&request).problem(503)["detail"].as_str().unwrap().starts_with("judge_timeout"));
}

fn slime_bytes(deadline_ms: u64) -> (String, String) {
    let body = json!({"prompt": "What is the capital of Australia?", "response": RIGHT, "label": "Canberra"});
    (format!("/slime?rubric=long_form_qa&run_id=r&deadline_ms={deadline_ms}"), body.to_string())
}

#[test]
fn a_request_with_a_key_goes_on_after_its_deadline() {
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 1.0)]).set_delay(Duration::from_secs(2))]);
    let server = endpoint.start();
    let (path, body) = slime_bytes(500);
    let keyed = || server.post_with(&[("Idempotency-Key", "k")], &path, &body);
    let late = keyed().problem(504);
    assert!(late["detail"].as_str().unwrap().starts_with("not answered within 500 ms"), "{late}");
    assert!(server.metric("gradus_requests_in_flight", &[]) >= 1.0);
    server.wait_until(|server| server.metric("gradus_trajectories_total", &[]) > 0.5);
    server.wait_until(|server| server.metric("gradus_in_flight_bytes", &[]) == 0.0);
    assert_eq!(keyed().ok(), json!(1.0));
    assert_eq!(endpoint.sent().len(), 1);
}

#[test]
fn the_end_waits_for_a_request_with_a_key_whose_client_left() {
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 1.0)]).set_delay(Duration::from_secs(2))]);
    let database = Database::new();
    let mut server = database.serve(&["--judge", &format!("{}#judge", endpoint.url())]);
    let (path, body) = slime_bytes(60_000);
    let mut gone = server.connect();
    gone.write(post_bytes(&path, "Idempotency-Key: k\r\n", body.as_bytes()));
    server.wait_until(|server| server.metric("gradus_judge_endpoint_outstanding", &[]) > 0.5);
    drop(gone);
    server.terminate();
    assert!(server.wait().success());
    let server = database.serve(&[]);
    assert_eq!(server.get("/runs/r").json()["n"], 1);
}

#[test]
fn what_is_no_verdict_is_an_error_of_the_judge_where_errors_are_asked_for() {
    let endpoint = Endpoint::new(vec![ResponseTemplate::new(200).set_body_json(json!([]))]);
    let request = with(by("long_form_qa", &[capital(RIGHT)]), "on_invalid", json!("error"));
    let answer = endpoint.start().reward(&request);
    assert!(answer.problem(503)["detail"].as_str().unwrap().starts_with("judge_no_verdict"), "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
}

/// That a judge is still to be asked is no error of the item.
#[test]
fn where_errors_are_asked_for_a_verdict_that_comes_is_counted_as_none() {
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 1.0)])]);
    let mut server = endpoint.start();
    let request = with(by("long_form_qa", &[capital(RIGHT)]), "on_invalid", json!("error"));
    assert_reward(&server.reward(&request).ok()["results"][0], 1.0);
    assert_eq!(server.metric("gradus_item_errors_total", &[]), 0.0);
    assert_eq!(server.metric("gradus_trajectories_total", &[]), 1.0);
    // At its end all that it logged is written.
    server.terminate();
    assert!(server.wait().success());
    assert!(!server.log().contains("could not be scored"), "{}", server.log());
}

#[test]
fn nobody_is_asked_about_an_answer_that_is_not_there() {
    let endpoint = Endpoint::new(vec![next_token(&[("Yes", 1.0)])]);
    let stage = json!({"kind": "judge", "mode": "label_logprob", "criteria": "It is right.", "weight": 1});
    let rubric = json!({"name": "judged", "answer": {"from": "answer_tag"}, "stages": [stage]});
    let item = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "hm"}]});
    let result = endpoint.start().reward(&json!({"rubric": rubric, "trajectories": [item]})).ok()["results"][0].clone();
    assert_reward(&result, 0.0);
    assert_eq!(endpoint.sent().len(), 0);
}

#[test]
fn nobody_listening_is_a_timeout_that_names_the_endpoint() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&["--judge", &format!("http://{free}/v1#judge")]);
    assert_no_score(&judged_once(&server), "judge_timeout", &[&free.to_string()]);
}
