//! A server that a run depends on: one that cannot be reached is waited for, then the run stops with its state saved.
//!
//! In: a path and a JSON body. Out: the answer, or in words why there is none. Knows no reward and no rollout.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Longest that one answer is waited for.
const LONGEST_ANSWER: Duration = Duration::from_mins(10);

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// A bearer token, where it wants one.
    pub token: Option<String>,
    /// How long it is waited for while it cannot be reached.
    pub patience: Duration,
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
}

/// Why a request will have no answer.
struct Refused {
    why: String,
    /// Whether its key is that of a request with another body.
    is_taken: bool,
}

impl From<Refused> for String {
    fn from(refused: Refused) -> Self {
        refused.why
    }
}

/// Why a request had no answer.
enum Failure {
    /// It may have one later.
    Later(String),
    /// It never will.
    Never(Refused),
}

impl Client {
    /// A client, and the runtime in which its caller waits for it; nothing is sent yet.
    ///
    /// # Errors
    /// When this machine cannot make one.
    pub(super) fn new(endpoint: Endpoint) -> Result<(Self, Runtime), String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy for what is outside has no business between two machines of a cluster.
        let http = reqwest::Client::builder().timeout(LONGEST_ANSWER).no_proxy().build();
        let http = http.map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let url = endpoint.url.trim_end_matches('/').to_owned();
        Ok((Self { http, endpoint: Endpoint { url, ..endpoint } }, runtime))
    }

    /// The server's address.
    pub(super) fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Asks with GET until there is an answer, a refusal, or no patience left.
    ///
    /// # Errors
    /// The refusal, or how long was waited for what.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        self.read(path, &self.patiently(path, || self.http.get(self.address(path))).await?)
    }

    /// The same with POST.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, String> {
        self.read(path, &self.patiently(path, || self.http.post(self.address(path)).json(body)).await?)
    }

    /// The same for what is to be done once: every attempt says `key`, by which the server knows the request again.
    /// `None` where it knows another request by it.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<Option<T>, String> {
        let request = || self.http.post(self.address(path)).header("Idempotency-Key", key).json(body);
        match self.patiently(path, request).await {
            Ok(answer) => self.read(path, &answer).map(Some),
            Err(refused) if refused.is_taken => Ok(None),
            Err(refused) => Err(refused.why),
        }
    }

    /// The same, whatever is answered, as long as it is no refusal.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn tell(&self, path: &str, body: &Value) -> Result<(), String> {
        self.patiently(path, || self.http.post(self.address(path)).json(body)).await?;
        Ok(())
    }

    fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint.url)
    }

    fn read<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T, String> {
        let wrong =
            |error| format!("{}: an answer of another kind ({error}): {}", self.address(path), beginning(answer));
        serde_json::from_slice(answer).map_err(wrong)
    }

    async fn patiently(&self, path: &str, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Vec<u8>, Refused> {
        let (began, mut pause) = (Instant::now(), Duration::from_millis(250));
        let Endpoint { url, patience, .. } = &self.endpoint;
        loop {
            match self.send(request()).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Never(refused)) => {
                    return Err(Refused { why: format!("{}: {}", self.address(path), refused.why), ..refused });
                }
                Err(Failure::Later(why)) if began.elapsed() + pause > *patience => {
                    let waited = patience.as_secs();
                    let why = format!("{url} gave no answer for {waited} s: {why}; start it and resume the run");
                    return Err(Refused { why, is_taken: false });
                }
                Err(Failure::Later(why)) => {
                    tracing::warn!("{url}: {why}; asking again in {} ms", pause.as_millis());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, Failure> {
        let request = match &self.endpoint.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let later = |error: reqwest::Error| {
            // An address that is none will not become one.
            let is_never = error.is_builder();
            let why = error.without_url().to_string();
            if is_never { Failure::Never(Refused { why, is_taken: false }) } else { Failure::Later(why) }
        };
        let answer = request.send().await.map_err(later)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(later)?;
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        let why = format!("{status}: {}", beginning(&bytes));
        let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        let is_taken = status == reqwest::StatusCode::CONFLICT;
        Err(if again { Failure::Later(why) } else { Failure::Never(Refused { why, is_taken }) })
    }
}

/// As much of an answer as an error shows.
fn beginning(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(..answer.len().min(400)).unwrap_or_default()).into_owned()
}
