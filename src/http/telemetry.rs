//! What an operator sees: request ids, Prometheus metrics, and a log line where something failed.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::batch::Scored;
use super::error::Problem;
use super::server::App;

/// The header that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// The id of the current request, in its extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name(String);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Name,
    method: Name,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RubricLabels {
    rubric: Name,
    outcome: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    rubric: Name,
    stage: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: Name,
}

/// All metrics of the server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    trajectories: Family<RubricLabels, Counter>,
    reached: Family<StageLabels, Counter>,
    passed: Family<StageLabels, Counter>,
    item_errors: Family<CodeLabels, Counter>,
    in_flight: Gauge,
    bytes_in_flight: Gauge,
    store_queue_bytes: Gauge,
    store_commits: Gauge,
    store_failures: Gauge,
}

fn latency_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("gradus");
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(latency_buckets as fn() -> Histogram),
            trajectories: Family::default(),
            reached: Family::default(),
            passed: Family::default(),
            item_errors: Family::default(),
            in_flight: Gauge::default(),
            bytes_in_flight: Gauge::default(),
            store_queue_bytes: Gauge::default(),
            store_commits: Gauge::default(),
            store_failures: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests by route, method and status", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to answer, by route",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "trajectories",
            "Trajectories by rubric and outcome (valid, invalid)",
            metrics.trajectories.clone(),
        );
        registry.register("stage_reached", "Trajectories that a stage scored", metrics.reached.clone());
        registry.register("stage_passed", "Trajectories that reached a stage's threshold", metrics.passed.clone());
        registry.register("item_errors", "Trajectories that could not be scored, by code", metrics.item_errors.clone());
        registry.register("requests_in_flight", "Scoring requests in flight", metrics.in_flight.clone());
        registry.register_with_unit("in_flight", "Body bytes in flight", Unit::Bytes, metrics.bytes_in_flight.clone());
        registry.register_with_unit(
            "store_queue",
            "Bytes that wait for the store",
            Unit::Bytes,
            metrics.store_queue_bytes.clone(),
        );
        registry.register("store_commits", "Transactions of the store since start", metrics.store_commits.clone());
        registry.register(
            "store_failures",
            "Failed transactions of the store since start",
            metrics.store_failures.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts a scored request. Inline rubrics share one label: their names come from clients.
    pub fn count(&self, scored: &Scored) {
        let rubric = &scored.settings.rubric;
        let name = || Name(if scored.settings.inline { "inline".to_owned() } else { rubric.name.to_string() });
        let valid = scored.rows.iter().filter(|row| row.valid).count();
        for (outcome, n) in [("valid", valid), ("invalid", scored.rows.len() - valid)] {
            if n > 0 {
                let labels = RubricLabels { rubric: name(), outcome: Name(outcome.to_owned()) };
                self.trajectories.get_or_create(&labels).inc_by(n as u64);
            }
        }
        if !scored.settings.inline {
            for (stage, tally) in rubric.stages.iter().zip(&scored.tallies) {
                let labels = StageLabels { rubric: name(), stage: Name(stage.name.to_string()) };
                self.reached.get_or_create(&labels).inc_by(u64::from(tally.reached));
                self.passed.get_or_create(&labels).inc_by(u64::from(tally.passed));
            }
        }
        for (code, n) in &scored.errors {
            self.item_errors.get_or_create(&CodeLabels { code: Name(code.as_str().to_owned()) }).inc_by(*n);
        }
    }

    /// The metrics as text, in the OpenMetrics format.
    pub fn text(&self, app: &App) -> String {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.in_flight.set(gauge(app.limits.requests.load(Ordering::Relaxed) as u64));
        self.bytes_in_flight.set(gauge(app.limits.bytes_in_flight() as u64));
        if let Some(store) = &app.store {
            let counters = store.counters();
            self.store_queue_bytes.set(gauge(counters.queue_bytes));
            self.store_commits.set(gauge(counters.transactions));
            self.store_failures.set(gauge(counters.failures));
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The outermost layer: names the request, counts it, and writes the body of a problem.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
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
    let mut response = name_problems(next.run(request).await, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    app.metrics
        .seconds
        .get_or_create(&RouteLabels { route: Name(route.clone()) })
        .observe(began.elapsed().as_secs_f64());
    app.metrics.requests.get_or_create(&RequestLabels { route: Name(route), method: Name(method), status }).inc();
    response
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
    if status.is_server_error() {
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
            Problem::new(status, "method", "Method not allowed", "this path has other methods; see GET /openapi.json")
        }
        StatusCode::NOT_FOUND => Problem::not_found("no-route", "there is nothing at this path; see GET /openapi.json"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            let detail = "the content encoding is not supported; send gzip, zstd, or none";
            Problem::new(status, "encoding", "Unsupported media type", detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            status,
            "too-large",
            "The body is too large",
            "the body is larger than this path takes; a rubric has 256 KiB at most",
        ),
        _ if status.is_server_error() => Problem::internal("the request failed; the server's log has its id"),
        _ => Problem::new(status, "bad-request", "Bad request", "the request cannot be read; see GET /openapi.json"),
    }
}
