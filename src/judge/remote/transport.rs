//! The way to one endpoint. In: the body of a request; out: the JSON text of the reply, or what went wrong. Redirects are
//! not followed, no proxy is taken from the environment, replies are read up to a bound. Knows no inquiry and does not
//! try again.

use std::error::Error;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_openai::Client;
use async_openai::config::Config as Api;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use serde_json::value::RawValue;

use super::address::Address;
use super::failure::{Failure, FailureKind, quote};

/// Longest reply, decompressed, in bytes.
const MAX_REPLY_BYTES: usize = 4 << 20;
/// Longest time for which an endpoint's `Retry-After` keeps it from being asked.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

/// Fewest bytes of a key that is kept secret: what is shorter is a word that stands for none (`EMPTY`, `x`), and
/// would be found in any message.
const SECRET_CHARS: usize = 6;

/// What is asked of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// `POST {root}/chat/completions`.
    Chat,
    /// `POST /classify` beside the root.
    Classify,
}

/// The client through which every connection of every endpoint goes.
///
/// # Errors
/// What the library says when TLS cannot be set up.
pub(super) fn http_client(connect_timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    // The client takes the process's provider and panics without one. That one is there already is fine.
    _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(connect_timeout)
        .user_agent(concat!("gradus/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// One endpoint's address, key and client.
#[derive(Debug)]
pub(super) struct Transport {
    guarded: Guarded,
    api: Client<Credentials>,
    classify: String,
}

impl Transport {
    /// A way to `address`. An empty key is not sent.
    ///
    /// # Errors
    /// When the key cannot stand in a header.
    pub(super) fn new(
        client: &reqwest::Client,
        address: &Address,
        key: &SecretString,
    ) -> Result<Self, reqwest::header::InvalidHeaderValue> {
        let mut headers = HeaderMap::new();
        if !key.expose_secret().is_empty() {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let guarded = Guarded { client: client.clone(), key: key.clone() };
        let credentials = Credentials { root: address.root().to_owned(), key: key.clone(), headers };
        let api = Client::build(client.clone(), credentials).with_http_service(guarded.clone());
        Ok(Self { guarded, api, classify: address.classify() })
    }

    /// Sends one request and reads its reply: valid JSON, and no more is known of it.
    ///
    /// # Errors
    /// A broken connection, a status that is no success, a reply that is too long or no JSON.
    pub(super) async fn post(&self, route: Route, body: &Value) -> Result<Box<RawValue>, Failure> {
        match route {
            Route::Chat => self.api.chat().create_byot(body).await.map_err(into_failure),
            Route::Classify => {
                let request = self
                    .guarded
                    .client
                    .post(&self.classify)
                    .headers(self.api.config().headers.clone())
                    .json(body)
                    .build()
                    .map_err(|error| connection(&error.without_url()))?;
                json_text(&self.guarded.fetch(request).await?)
            }
        }
    }
}

impl Transport {
    /// Takes the key out of words of a reply that go on: into messages, answers and what is kept of them.
    pub(super) fn without_key(&self, words: String) -> String {
        self.guarded.without_key(words)
    }
}

/// What `async-openai` asks of a configuration. Its own ones read the environment.
#[derive(Debug)]
struct Credentials {
    root: String,
    key: SecretString,
    headers: HeaderMap,
}

impl Api for Credentials {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.root
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

/// Executes requests in place of `async-openai`'s own executor, which tries again by itself, reads replies of any length
/// and loses `Retry-After`.
#[derive(Debug, Clone)]
struct Guarded {
    client: reqwest::Client,
    key: SecretString,
}

impl Guarded {
    async fn fetch(&self, request: reqwest::Request) -> Result<Vec<u8>, Failure> {
        let mut response = self.client.execute(request).await.map_err(|error| connection(&error.without_url()))?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
        let body = read(&mut response).await;
        if status.is_success() {
            return body;
        }
        // What could be read of an error's body explains it; that it could not be read is no further failure.
        let said = self.without_key(said(&body.unwrap_or_default()));
        Err(Failure {
            kind: FailureKind::of_status(status.as_u16()),
            message: format!("status {status}: {}", quote(&said)),
            retry_after,
        })
    }

    /// Takes the key out of words that repeat it. Not out of bytes: there it may be written in many ways.
    fn without_key(&self, words: String) -> String {
        let key = self.key.expose_secret();
        if key.len() < SECRET_CHARS {
            return words;
        }
        let words = words.replace(key, "[key]");
        // A quote may end in the middle of it.
        let begun = (SECRET_CHARS..key.len()).rev().filter_map(|end| key.get(..end));
        match begun.map(|begun| format!("{begun}...")).find(|begun| words.contains(begun)) {
            Some(begun) => words.replace(&begun, "[key]..."),
            None => words,
        }
    }
}

impl tower::Service<HttpRequestFactory> for Guarded {
    type Response = reqwest::Response;
    type Error = Failure;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<reqwest::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let guarded = self.clone();
        Box::pin(async move {
            let request = factory.build().await.map_err(into_failure)?;
            let body = guarded.fetch(request).await?;
            // Checked here already: `async-openai` writes a reply that it cannot read to the log, whole.
            json_text(&body)?;
            Ok(http::Response::new(body).into())
        })
    }
}

impl From<Failure> for OpenAIError {
    fn from(failure: Failure) -> Self {
        Self::Boxed(Box::new(failure))
    }
}

fn into_failure(error: OpenAIError) -> Failure {
    match error {
        OpenAIError::Boxed(error) => match error.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(error) => Failure::new(FailureKind::Garbage, quote(&error.to_string())),
        },
        error => Failure::new(FailureKind::Garbage, quote(&error.to_string())),
    }
}

async fn read(response: &mut reqwest::Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cut(&error.without_url()))? {
        if body.len() + chunk.len() > MAX_REPLY_BYTES {
            let message = format!("the reply is longer than {MAX_REPLY_BYTES} bytes");
            return Err(Failure::new(FailureKind::Garbage, message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn json_text(body: &[u8]) -> Result<Box<RawValue>, Failure> {
    if body.is_empty() {
        return Err(Failure::new(FailureKind::Garbage, "the reply is empty"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(FailureKind::Garbage, format!("the reply is no JSON: {error}")))
}

/// What an error's body says: the message of `OpenAI`'s, vLLM's or `FastAPI`'s form, or else all of it.
fn said(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    ["/error/message", "/message", "/detail", "/error"]
        .iter()
        .find_map(|pointer| json.pointer(pointer)?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

fn connection(error: &reqwest::Error) -> Failure {
    Failure::new(FailureKind::Connection, format!("no connection, or closed before a reply: {}", causes(error)))
}

fn cut(error: &reqwest::Error) -> Failure {
    Failure::new(FailureKind::Cut, format!("the reply stopped in the middle: {}", causes(error)))
}

/// An error and what it came from: the first alone says little.
fn causes(error: &reqwest::Error) -> String {
    let chain = std::iter::successors(Some(error as &dyn Error), |error| Error::source(*error));
    quote(&chain.take(6).map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// Reads `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Option<Duration> {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        retry_after(&HeaderValue::from_str(text).expect("a header"), now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        assert_eq!(header("7"), Some(Duration::from_secs(7)));
        assert_eq!(header("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(header("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "a date in the past");
        assert_eq!(header("4000000000"), Some(MAX_RETRY_AFTER));
        assert_eq!(header("soon"), None);
        assert_eq!(header("-1"), None);
        assert_eq!(header("99999999999999999999999999"), None, "more than a number holds says nothing");
    }

    #[test]
    fn an_error_is_told_in_the_endpoints_words() {
        assert_eq!(said(br#"{"error":{"message":"no such model","code":404}}"#), "no such model");
        assert_eq!(said(br#"{"object":"error","message":"too long"}"#), "too long");
        assert_eq!(said(br#"{"detail":"Not Found"}"#), "Not Found");
        assert_eq!(said(b"upstream is gone"), "upstream is gone");
        assert_eq!(said(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }
}
