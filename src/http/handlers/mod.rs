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
use axum::http::request::Parts;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::Problem;
use super::kind::Kind;
use super::limits::{Admission, require_json};

/// Lets a client in and reads its body, within the limits on what is in flight.
///
/// # Errors
/// 401 and 403 for a token, 503 when draining, 413, 429 and 400 for the body.
pub(crate) async fn read_text(app: &App, request: Request) -> Result<(Admission, String), Problem> {
    let (parts, body) = let_in(app, request)?;
    admit(app, &parts, body).await
}

/// The same, of a path that takes no parameters in its URL.
///
/// # Errors
/// As [`read_text`], and [`refuse_query`].
pub(crate) async fn read_text_alone(app: &App, request: Request) -> Result<(Admission, String), Problem> {
    let (parts, body) = let_in(app, request)?;
    refuse_query(&parts.uri)?;
    admit(app, &parts, body).await
}

/// The same, of a path that takes JSON alone.
///
/// # Errors
/// As [`read_text_alone`], and 415.
pub(crate) async fn read_json(app: &App, request: Request) -> Result<(Admission, String), Problem> {
    let (parts, body) = let_in(app, request)?;
    refuse_query(&parts.uri)?;
    require_json(&parts.headers)?;
    admit(app, &parts, body).await
}

/// The token comes first: whoever has none is told nothing else.
///
/// # Errors
/// 401 and 403 for a token, 503 when draining.
pub(crate) fn let_in(app: &App, request: Request) -> Result<(Parts, Body), Problem> {
    let (parts, body) = request.into_parts();
    app.tokens.require_api(&parts.headers)?;
    app.refuse_when_draining()?;
    Ok((parts, body))
}

async fn admit(app: &App, parts: &Parts, body: Body) -> Result<(Admission, String), Problem> {
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
