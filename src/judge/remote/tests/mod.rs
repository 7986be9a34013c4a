//! A remote judge against servers on this machine: what it asks, what it makes of answers, and what faults become.

mod answers;
mod faults;
mod labels;
mod load;
mod setup;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Config, EndpointConfig, Flavor, Remote};
use crate::judge::deadline::Deadline;
use crate::judge::inquiry::{AnswerForm, BackendAnswer, ChatRole, Finding, Inquiry, PromptMessage};
use crate::stages::{Unavailable, UnavailableCode};

/// An inquiry of one message, all of it untrusted.
fn inquiry(want: AnswerForm) -> Inquiry {
    inquiry_of(want, &[(ChatRole::User, "Is it so?")])
}

fn inquiry_of(want: AnswerForm, messages: &[(ChatRole, &str)]) -> Inquiry {
    let message = |(role, text): &(ChatRole, &str)| PromptMessage {
        role: *role,
        text: (*text).to_owned(),
        untrusted: std::iter::once(0..text.len()).collect(),
    };
    Inquiry { messages: messages.iter().map(message).collect(), want, fewer: [].into() }
}

fn labels() -> AnswerForm {
    AnswerForm::Labels(["Yes", "No"].map(str::to_owned).into())
}

fn reasoned() -> AnswerForm {
    AnswerForm::ReasonedLabel { labels: ["Yes", "No"].map(str::to_owned).into(), thinking_tokens: 100, seed: 7 }
}

fn order(candidates: usize) -> AnswerForm {
    AnswerForm::Order { candidates }
}

/// A configuration for tests: quick to try again.
fn config(urls: &[&str]) -> Config {
    Config {
        endpoints: urls
            .iter()
            .map(|url| EndpointConfig { url: (*url).to_owned(), ..EndpointConfig::default() })
            .collect(),
        model: "judge".to_owned(),
        flavor: Flavor::Vllm,
        backoff_ms: 1,
        backoff_max_ms: 2,
        ..Config::default()
    }
}

fn remote(config: Config) -> Remote {
    Remote::new(config, |_| None).expect("a configuration that is right")
}

async fn answer(remote: &Remote, want: AnswerForm) -> Result<Finding, Unavailable> {
    remote.answer(&inquiry(want), &in_a_minute()).await
}

fn in_a_minute() -> Deadline {
    within(Duration::from_mins(1))
}

fn within(time: Duration) -> Deadline {
    Deadline::new(Instant::now() + time)
}

/// The failure's code and a part of its message.
#[track_caller]
fn assert_unavailable(result: Result<Finding, Unavailable>, code: UnavailableCode, part: &str) {
    let unavailable = result.expect_err("no finding");
    assert_eq!(unavailable.code, code, "{unavailable}");
    assert!(unavailable.message.contains(part), "{unavailable}");
}

fn ln(probability: f64) -> f64 {
    probability.ln()
}

#[track_caller]
fn assert_labels(found: Result<Finding, Unavailable>, wanted: [f64; 2]) {
    let Ok(Finding { said: BackendAnswer::Labels(logprobs), .. }) = found else { panic!("no labels: {found:?}") };
    for (found, wanted) in logprobs.iter().zip(wanted) {
        assert!((found.exp() - wanted).abs() < 1e-12, "{logprobs:?}");
    }
    assert_eq!(logprobs.len(), 2);
}

fn chosen(found: Result<Finding, Unavailable>) -> (usize, String) {
    match found.expect("a finding").said {
        BackendAnswer::Chosen { label, reasoning, logprobs: None } => (label, reasoning),
        said => panic!("no choice: {said:?}"),
    }
}

/// A chat reply with one choice.
fn chat(choice: &Value) -> Value {
    json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "judge-1", "choices": [choice],
        "usage": { "prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": { "cached_tokens": 4 } },
    })
}

/// A chat reply whose content is `content`.
fn content(content: &str) -> Value {
    chat(&json!({ "index": 0, "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }))
}

/// A chat reply whose likeliest tokens are these; the first is the sampled one.
fn tokens(tokens: &[(&str, f64)]) -> Value {
    let listed: Vec<Value> =
        tokens.iter().map(|(token, logprob)| json!({ "token": token, "logprob": logprob })).collect();
    let (token, logprob) = tokens[0];
    chat(&json!({
        "message": { "content": token }, "finish_reason": "length",
        "logprobs": { "content": [{ "token": token, "logprob": logprob, "top_logprobs": listed }] },
    }))
}

fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

fn raw(body: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body.as_bytes().to_vec(), "application/json")
}

/// A server whose chat answers are these in turn; the last one stays.
async fn server(replies: Vec<ResponseTemplate>) -> MockServer {
    server_at("/v1/chat/completions", replies).await
}

async fn server_at(route: &str, replies: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let last = replies.len() - 1;
    for (index, reply) in replies.into_iter().enumerate() {
        let mock = Mock::given(method("POST")).and(path(route)).respond_with(reply);
        let mock = if index < last { mock.up_to_n_times(1) } else { mock };
        mock.mount(&server).await;
    }
    server
}

fn root(server: &MockServer) -> String {
    format!("{}/v1", server.uri())
}

/// The bodies that a server was sent.
async fn sent(server: &MockServer) -> Vec<Value> {
    let requests = server.received_requests().await.expect("recording is on");
    requests.iter().map(|request| request.body_json().expect("JSON")).collect()
}

/// One request to a server that replies like this: the answer, and what was sent.
async fn ask(
    config: impl FnOnce(&str) -> Config,
    want: AnswerForm,
    reply: &Value,
) -> (Result<Finding, Unavailable>, Value) {
    let server = server(vec![ok(reply)]).await;
    let found = answer(&remote(config(&root(&server))), want).await;
    (found, sent(&server).await.remove(0))
}

/// A server on a bare socket that answers when it is let: each permit of `release` is one reply.
struct Gate {
    url: String,
    arrived: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

impl Gate {
    /// Starts one whose every reply is this text, head and body.
    async fn open(reply: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let gate = Self { url, arrived: Arc::default(), gone: Arc::default(), release: Arc::new(Semaphore::new(0)) };
        let (arrived, gone, release) = (gate.arrived.clone(), gate.gone.clone(), gate.release.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (arrived, gone, release) = (arrived.clone(), gone.clone(), release.clone());
                tokio::spawn(serve(stream, reply.clone(), arrived, gone, release));
            }
        });
        gate
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    reply: String,
    arrived: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
) {
    read_request(&mut stream).await;
    arrived.fetch_add(1, Ordering::SeqCst);
    let mut byte = [0];
    tokio::select! {
        permit = release.acquire() => {
            permit.expect("an open semaphore").forget();
            _ = stream.write_all(reply.as_bytes()).await;
        }
        _ = stream.read(&mut byte) => { gone.fetch_add(1, Ordering::SeqCst); }
    }
}

async fn read_request(stream: &mut TcpStream) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
            if length.and_then(|length| length.parse().ok()).is_none_or(|length: usize| body.len() >= length) {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => seen.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}

/// A whole reply, head and body, after which the connection ends.
fn http(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Lets the other tasks of this test go on until it is so.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}
