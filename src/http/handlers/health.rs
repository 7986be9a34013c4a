//! `GET /healthz` (and `/health`), `/readyz`, `/metrics`: for whoever operates the server.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::kind::Kind;
use crate::http::metrics::TextFormat;
use crate::judge::JudgeState;
use crate::store::{self, Store};

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

/// Is the process alive? The same under the name that `PipelineRL` asks for.
#[utoipa::path(get, path = "/health", tag = "operation", operation_id = "health",
    responses((status = 200, description = "Alive", body = Health)))]
pub(crate) async fn alive(State(app): State<App>) -> Json<Health> {
    health(&app)
}

/// Can it score? Not while it drains, nor when its store is closed or could not write the last scores, nor when a judge on this
/// machine is down. Judges are loaded and warmed up before the server listens.
#[utoipa::path(get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Draining, the store is closed or fails, or a judge is down")))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Health>, Problem> {
    app.refuse_when_draining()?;
    if let Some(store) = &app.store {
        check_store(store)?;
    }
    match judges_down(&app.engine.judges.states()) {
        None => Ok(health(&app)),
        Some(down) => Err(Problem::new(Kind::Judge, down)),
    }
}

/// Refuses while the store does not write. Where no request comes it would never know that it can again: it is asked to try.
fn check_store(store: &Store) -> Result<(), Problem> {
    let detail = match store.health() {
        store::Health::Writing => return Ok(()),
        store::Health::Failing => {
            store.probe();
            "the last scores could not be stored; the log says why. It is tried again each time that this is asked"
        }
        store::Health::Closed => "the store is closed",
    };
    Err(Problem::new(Kind::Store, detail))
}

/// Which judges cannot answer, in words; `None` when all can.
fn judges_down(states: &BTreeMap<String, JudgeState>) -> Option<String> {
    let down: Vec<String> = states.iter().filter(|(_, s)| !s.ready).map(|(name, _)| format!("{name:?}")).collect();
    match down.len() {
        0 => None,
        1 => Some(format!("the judge {} is down; the log says why, and a restart loads it again", down.concat())),
        _ => Some(format!("the judges {} are down; the log says why, and a restart loads them again", down.join(", "))),
    }
}

/// Whether an `Accept` names the format and does not refuse it.
fn names_openmetrics(accepted: &str) -> bool {
    accepted.split(',').any(|accepted| {
        let mut parts = accepted.split(';').map(str::trim);
        let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        named && !parts.any(|part| matches!(part.strip_prefix("q="), Some("0" | "0.0" | "0.00" | "0.000")))
    })
}

/// Metrics for Prometheus.
///
/// In the `OpenMetrics` format where `Accept` names it, else in the classic text format.
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "All metrics", content((String = "text/plain"), (String = "application/openmetrics-text")))))]
pub(crate) async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (format, kind) = if accepted.any(names_openmetrics) {
        (TextFormat::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (TextFormat::Classic, "text/plain; version=0.0.4; charset=utf-8")
    };
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(&app.limits, format)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_named_as_a_whole_and_can_be_refused() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert!(names_openmetrics(prometheus) && names_openmetrics("text/plain, Application/OpenMetrics-Text"));
        for other in ["*/*", "application/openmetrics-texts", "application/openmetrics-text; q=0, text/plain"] {
            assert!(!names_openmetrics(other), "{other}");
        }
    }

    fn states(ready: &[(&str, bool)]) -> BTreeMap<String, JudgeState> {
        let state = |ready| JudgeState {
            ready,
            identity: String::new(),
            queued_tokens: 0,
            numbers: None,
            endpoints: Vec::new(),
        };
        ready.iter().map(|(name, ready)| ((*name).to_owned(), state(*ready))).collect()
    }

    #[test]
    fn a_server_is_ready_while_all_its_judges_are() {
        assert_eq!(judges_down(&states(&[])), None);
        assert_eq!(judges_down(&states(&[("default", true), ("second", true)])), None);
    }

    #[test]
    fn a_server_whose_store_is_closed_is_not_ready() {
        let store = Store::in_memory();
        let app = App::plain(Some(store.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert!(readyz(State(app.clone())).await.is_ok());
            store.close().await;
            assert_eq!(readyz(State(app)).await.unwrap_err().kind(), Kind::Store);
        });
    }

    #[test]
    fn a_judge_that_is_down_is_named() {
        let one = judges_down(&states(&[("default", false), ("second", true)])).unwrap();
        assert!(one.contains("\"default\"") && !one.contains("second"), "{one}");
        let both = judges_down(&states(&[("default", false), ("second", false)])).unwrap();
        assert!(both.contains("\"default\", \"second\""), "{both}");
    }
}
