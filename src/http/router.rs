//! The API on one page: every path, its handler, the layers around them, and the OpenAPI document.

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use tower::ServiceBuilder;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::app::App;
use super::decompress::decompress;
use super::dialects;
use super::documented::Shared;
use super::error::{Problem, ProblemWire};
use super::handlers::{advantages, health, prompts, references, reward, rubrics, runs, scores};
use super::linger::hear_out;
use super::paced::pace;
use super::telemetry::observe;

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
    security((), ("api" = []), ("api_key" = [])),
    paths(
        reward::score_trajectories,
        rubrics::list_rubrics, rubrics::get_rubric, rubrics::check_rubric, rubrics::put_rubric,
        runs::list_runs, runs::get_run, scores::list_scores, scores::get_score,
        advantages::compute_advantages, prompts::list_prompts, prompts::sample_prompts,
        references::load_references,
        dialects::get_reward, dialects::score_sample, dialects::score_evaluation, dialects::reward, dialects::evaluate,
        dialects::verify, dialects::seed_session, dialects::aggregate_metrics, dialects::reverify_mode,
        dialects::run_grader, dialects::validate_grader, dialects::classify, dialects::embeddings,
        dialects::compute_score, dialects::score_columns, dialects::verify_answer, dialects::step, dialects::reset,
        health::healthz, health::alive, health::readyz, health::metrics,
    ),
    components(schemas(ProblemWire, dialects::Format)),
    modifiers(&Tokens, &Shared),
    tags(
        (name = "scoring", description = "Score trajectories"),
        (name = "rubrics", description = "What is scored by"),
        (name = "runs", description = "What was scored before"),
        (name = "vspo", description = "Advantages, and what prompts are worth"),
        (name = "dialects", description = "What existing trainers already send; each scores as `POST /reward` does. Query parameters choose what their bodies have no place for."),
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
        let key = ApiKeyValue::with_description("X-Api-Key", "The same token");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    }
}

/// The OpenAPI document, as committed under `openapi/`.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// What existing trainers send.
fn dialect_routes() -> Router<App> {
    Router::new()
        .route("/get_reward", post(dialects::get_reward))
        .route("/slime", post(dialects::score_sample))
        .route("/v1/score/evaluation", post(dialects::score_evaluation))
        .route("/eval-protocol/reward", post(dialects::reward))
        .route("/eval-protocol/evaluate", post(dialects::evaluate))
        .route("/verify", post(dialects::verify))
        .route("/seed_session", post(dialects::seed_session))
        .route("/aggregate_metrics", post(dialects::aggregate_metrics))
        .route("/reverify_mode", get(dialects::reverify_mode))
        .route("/v1/fine_tuning/alpha/graders/run", post(dialects::run_grader))
        .route("/v1/fine_tuning/alpha/graders/validate", post(dialects::validate_grader))
        .route("/classify", post(dialects::classify))
        .route("/v1/embeddings", post(dialects::embeddings))
        .route("/verl", post(dialects::compute_score))
        .route("/trl", post(dialects::score_columns))
        .route("/verify_answer", post(dialects::verify_answer))
        .route("/step", post(dialects::step))
        .route("/reset", post(dialects::reset))
}

/// Every route.
pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/reward", post(reward::score_trajectories))
        .merge(dialect_routes())
        .route("/references", post(references::load_references))
        .route("/advantages", post(advantages::compute_advantages))
        .route("/rubrics", get(rubrics::list_rubrics))
        .route("/rubrics/check", post(rubrics::check_rubric))
        .route("/rubrics/{name}", get(rubrics::get_rubric).put(rubrics::put_rubric))
        .route("/runs", get(runs::list_runs))
        .route("/runs/{run_id}", get(runs::get_run))
        .route("/runs/{run_id}/scores", get(scores::list_scores))
        .route("/runs/{run_id}/prompts", get(prompts::list_prompts))
        .route("/runs/{run_id}/sample", post(prompts::sample_prompts))
        .route("/scores/{id}", get(scores::get_score))
        .route("/healthz", get(health::healthz))
        .route("/health", get(health::alive))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/", get(async || Redirect::temporary("/docs/")))
        // The page asks nobody else: the validator of Swagger is a service on the web.
        .merge(
            SwaggerUi::new("/docs")
                .url("/openapi.json", document())
                .config(utoipa_swagger_ui::Config::default().validator_url("none")),
        )
        .fallback(async || Problem::no_route())
        // As one layer, the outermost first: a request passes each layer that a router has for itself through a box.
        .layer(
            ServiceBuilder::new()
                .layer(axum::middleware::from_fn_with_state(app.clone(), observe))
                .layer(axum::middleware::from_fn(hear_out))
                .layer(CatchPanicLayer::new())
                .layer(axum::middleware::from_fn_with_state(app.clone(), decompress))
                .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
                .layer(axum::middleware::from_fn(pace)),
        )
        .with_state(app)
}
