//! One file per resource: each handler with its description in the OpenAPI document.

pub(crate) mod advantages;
pub(crate) mod health;
pub(crate) mod prompts;
pub(crate) mod references;
pub(crate) mod reward;
pub(crate) mod rubrics;
pub(crate) mod runs;
pub(crate) mod scores;
mod stored;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::Problem;
use super::kind::Kind;
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

/// Refuses parameters in the URL of a path that has none: whoever writes `?rubric=` there would be scored by another one.
///
/// # Errors
/// 400.
pub(crate) fn refuse_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => {
            let detail = format!(
                "{} takes no parameters in its URL; put what they say into fields of the body: GET /openapi.json has them",
                uri.path()
            );
            Err(Problem::new(Kind::BadQuery, detail))
        }
    }
}

/// An answer whose JSON is written already.
pub(crate) fn json(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}
