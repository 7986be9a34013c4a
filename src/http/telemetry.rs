//! What an operator sees: request ids, Prometheus metrics, and a log line where something failed.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::Problem;
use super::kind::Kind;

/// The header that names a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a request without an answer is counted as; nobody receives it. The number is nginx's.
const ABANDONED: u16 = 499;
/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// The id of the current request, in its extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub String);

/// The outermost layer: names the request, counts it, and writes the body of a problem.
pub(super) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&app, &request);
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") => known.to_owned(),
        // Clients can invent methods without end.
        _ => "other".to_owned(),
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut pending = Pending { app: &app, names: Some((route, method)), began, id: &id };
    let response = next.run(request).await;
    let left = response.extensions().get::<Problem>().is_some_and(|problem| problem.kind() == Kind::Abandoned);
    let mut response = name_problems(response, &id);
    if left {
        return response;
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    pending.count(response.status().as_u16());
    response
}

/// A request that has no answer yet. Where it gets none, since its client went away, that is counted and said.
struct Pending<'a> {
    app: &'a App,
    /// The route and the method, until they are counted.
    names: Option<(String, String)>,
    began: Instant,
    id: &'a str,
}

impl Pending<'_> {
    fn count(&mut self, status: u16) {
        if let Some((route, method)) = self.names.take() {
            self.app.metrics.answered(&route, &method, status, self.began.elapsed());
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some((route, _)) = &self.names {
            let seconds = self.began.elapsed().as_secs_f64();
            let why = if self.app.is_draining() { "the server stopped" } else { "the client left" };
            tracing::info!(request_id = self.id, route, seconds, "abandoned: {why} before its answer");
            self.count(ABANDONED);
        }
    }
}

/// The client's id if it is printable and short, else a new one.
fn request_id(app: &App, request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic()) => {
            id.to_owned()
        }
        _ => app.new_request_id(),
    }
}

/// Writes the body of a problem; errors that axum made itself become problems too.
fn name_problems(mut response: Response, id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem
    } else {
        let problem = of_axum(status);
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.clone().into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        problem
    };
    // Whoever stops a server knows that it refuses requests.
    if status.is_server_error() && problem.kind() != Kind::Draining {
        tracing::error!(request_id = id, status = status.as_u16(), detail = ?problem.detail(), "request failed");
    } else {
        tracing::debug!(request_id = id, status = status.as_u16(), detail = ?problem.detail(), "request refused");
    }
    let body = problem.to_json(id);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = body.into();
    response
}

fn of_axum(status: StatusCode) -> Problem {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Kind::Method, "this path has other methods; see GET /openapi.json")
        }
        StatusCode::NOT_FOUND => Problem::no_route(),
        _ if status.is_server_error() => Problem::internal("the request failed; the server's log has its id"),
        _ => Problem::new(Kind::BadRequest, "the request cannot be read; see GET /openapi.json"),
    }
}
