//! Reward servers that stand between a run and the real one: they lose its answers, change them, or give none.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::*;

/// An address before a server at which `reward` answers for it. It outlives the test, and must not keep the server alive.
pub(crate) fn before(server: &Arc<Server>, reward: axum::routing::MethodRouter) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let known = Arc::downgrade(server);
    let rubric = move |axum::extract::Path(name): axum::extract::Path<String>| {
        let known = known.upgrade().unwrap();
        async move { tokio::task::spawn_blocking(move || known.get(&format!("/rubrics/{name}")).text()).await.unwrap() }
    };
    let app = axum::Router::new().route("/rubrics/{name}", axum::routing::get(rubric)).route("/reward", reward);
    std::thread::spawn(move || runtime.block_on(async { axum::serve(listener, app).await }));
    url
}

/// One that is given each request's key and a way to ask the real server, and says the status and the answer.
fn between(
    server: &Arc<Server>,
    reward: impl Fn(&str, &dyn Fn() -> Value) -> (u16, Value) + Send + Sync + 'static,
) -> String {
    let (known, reward) = (Arc::downgrade(server), Arc::new(reward));
    let answer = move |headers: HeaderMap, body: String| {
        let (server, reward) = (known.upgrade().unwrap(), reward.clone());
        let answer = move || {
            let key = headers["idempotency-key"].to_str().unwrap();
            let ask = || server.post_with(&[("Idempotency-Key", key)], "/reward", &body).json();
            let (status, answer) = reward(key, &ask);
            (StatusCode::from_u16(status).unwrap(), answer.to_string())
        };
        async move { tokio::task::spawn_blocking(answer).await.unwrap() }
    };
    before(server, axum::routing::post(answer))
}

/// One that fails from one request on.
pub(crate) fn failing(server: &Arc<Server>, answers: usize) -> String {
    let asked = AtomicUsize::new(0);
    between(
        server,
        move |_, ask| {
            if asked.fetch_add(1, Ordering::SeqCst) < answers { (200, ask()) } else { (503, Value::Null) }
        },
    )
}

/// One whose answers are changed on their way.
pub(crate) fn altering(server: &Arc<Server>, change: fn(&mut Value)) -> String {
    between(server, move |_, ask| {
        let mut answer = ask();
        change(&mut answer);
        (200, answer)
    })
}

/// The keys that a server heard.
type Keys = Arc<Mutex<Vec<String>>>;

/// One whose first answer to each request is lost.
pub(crate) fn losing(server: &Arc<Server>) -> (String, Keys) {
    let keys = Keys::default();
    let heard = keys.clone();
    let url = between(server, move |key, ask| {
        let answer = ask();
        let mut heard = heard.lock().unwrap();
        heard.push(key.to_owned());
        // Every other one is a repeat.
        (if heard.len() % 2 == 0 { 200 } else { 502 }, answer)
    });
    (url, keys)
}

/// One whose first answers have no reward.
pub(crate) fn blind(server: &Arc<Server>, answers: usize) -> (String, Keys) {
    let keys = Keys::default();
    let heard = keys.clone();
    let url = between(server, move |key, ask| {
        let mut answer = ask();
        let mut heard = heard.lock().unwrap();
        heard.push(key.to_owned());
        if heard.len() <= answers {
            answer["rewards"].as_array_mut().unwrap().fill(Value::Null);
        }
        (200, answer)
    });
    (url, keys)
}
