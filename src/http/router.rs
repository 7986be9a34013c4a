//! The API on one page: every path, its handler, the layers around them, and the OpenAPI document.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::app::App;
use super::error::{Problem, ProblemWire};
use super::handlers::{health, reward, rubrics, runs};
use super::telemetry::observe;
use crate::rubric::MAX_RUBRIC_BYTES;

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Gradus",
        description = "Scores the trajectories of LLM agents in progressive stages: do the tool calls parse, do they satisfy their JSON Schema, is the answer where it should be, is it right. Errors of a whole request are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact()
    ),
    servers((url = "/")),
    security((), ("api" = [])),
    paths(
        reward::score_trajectories,
        rubrics::list_rubrics, rubrics::get_rubric, rubrics::check_rubric, rubrics::put_rubric,
        runs::list_runs, runs::get_run, runs::list_scores, runs::get_score,
        health::healthz, health::readyz, health::metrics,
    ),
    components(schemas(ProblemWire)),
    modifiers(&Tokens),
    tags(
        (name = "scoring", description = "Score trajectories"),
        (name = "rubrics", description = "What is scored by"),
        (name = "runs", description = "What was scored before"),
        (name = "operation", description = "Health and metrics"),
    )
)]
struct Document;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = |text: &str| {
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build())
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("admin", bearer("The token given as --admin-token"));
        components.add_security_scheme("api", bearer("The token given as --api-token, where the server has one"));
    }
}

/// The OpenAPI document, as committed under `openapi/`.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Every route.
pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/reward", post(reward::score_trajectories).layer(DefaultBodyLimit::disable()))
        .route("/rubrics", get(rubrics::list_rubrics))
        .route("/rubrics/check", post(rubrics::check_rubric))
        .route("/rubrics/{name}", get(rubrics::get_rubric).put(rubrics::put_rubric))
        .route("/runs", get(runs::list_runs))
        .route("/runs/{run_id}", get(runs::get_run))
        .route("/runs/{run_id}/scores", get(runs::list_scores))
        .route("/scores/{id}", get(runs::get_score))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/", get(async || Redirect::temporary("/docs/")))
        // The page asks nobody else: the validator of Swagger is a service on the web.
        .merge(
            SwaggerUi::new("/docs")
                .url("/openapi.json", document())
                .config(utoipa_swagger_ui::Config::default().validator_url("none")),
        )
        .fallback(async || Problem::not_found("no-route", "there is nothing at this path; see GET /openapi.json"))
        .layer(DefaultBodyLimit::max(2 * MAX_RUBRIC_BYTES))
        .layer(CompressionLayer::new())
        .layer(RequestDecompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(axum::middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}
