//! One file per resource: each handler with its description in the OpenAPI document.

pub(crate) mod advantages;
pub(crate) mod health;
pub(crate) mod prompts;
pub(crate) mod references;
pub(crate) mod reward;
pub(crate) mod rubrics;
pub(crate) mod runs;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::Problem;
use super::limits::Admission;

/// Lets a client in and reads its body, within the limits on what is in flight.
///
/// # Errors
/// 401 and 403 for a token, 503 when draining, 413, 429 and 400 for the body.
pub(crate) async fn read_text(app: &App, request: Request) -> Result<(Admission<'_>, String), Problem> {
    let (parts, body) = request.into_parts();
    app.tokens.require_api(&parts.headers)?;
    app.refuse_when_draining()?;
    let mut admission = app.limits.admit(&parts.headers)?;
    let text = admission.read(&parts.headers, body).await?;
    Ok((admission, text))
}

/// An answer whose JSON is written already.
pub(crate) fn json(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}
