//! `GET /healthz`, `/readyz`, `/metrics`: for whoever operates the server.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::app::App;
use crate::http::error::{Problem, ProblemWire};

/// What a health check says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0", "store": "sqlite"}))]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
    /// `sqlite` or `none`.
    store: &'static str,
}

fn health(app: &App) -> Json<Health> {
    let store = if app.store.is_some() { "sqlite" } else { "none" };
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION"), store })
}

/// Is the process alive?
#[utoipa::path(get, path = "/healthz", tag = "operation", operation_id = "healthz",
    responses((status = 200, description = "Alive", body = Health)))]
pub(crate) async fn healthz(State(app): State<App>) -> Json<Health> {
    health(&app)
}

/// Can it score? Not while it drains, nor when its store is closed.
#[utoipa::path(get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Draining, or the store is not open", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Health>, Problem> {
    app.refuse_when_draining()?;
    if app.store.as_ref().is_some_and(|store| !store.ready()) {
        return Err(Problem::unavailable("store", "the store is closed", 5));
    }
    Ok(health(&app))
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, kind)],
        app.metrics.text(&app.limits, app.store.as_ref().map(crate::store::Store::counters)),
    )
        .into_response()
}
