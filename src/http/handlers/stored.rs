//! What the handlers that read the store have in common: their parameters, and what they answer where there is nothing.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::kind::Kind;
use crate::store::{MAX_PAGE, Store};

/// Items of a page where the query does not say.
const DEFAULT_LIMIT: usize = 100;

/// The parameters in a URL, for whoever has the token to read what is stored.
pub(crate) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        app.tokens.require_api(&parts.headers)?;
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(parameters)| Self(parameters))
            .map_err(|error| bad_query(format!("{}; GET /openapi.json has this path's parameters", error.body_text())))
    }
}

pub(super) fn bad_query(detail: String) -> Problem {
    Problem::new(Kind::BadQuery, detail)
}

/// How many items a page may have.
pub(super) fn limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        other => Err(bad_query(format!("limit = {other} is out of range; it must be from 1 to {MAX_PAGE}"))),
    }
}

/// The store, where there is one.
pub(super) fn store(app: &App) -> Result<&Store, Problem> {
    app.store
        .as_ref()
        .ok_or_else(|| Problem::new(Kind::NoStore, "this server stores no scores; start it with --store sqlite:FILE"))
}

pub(super) fn unknown_run(run_id: &str) -> Problem {
    let run_id: String = run_id.chars().take(128).collect();
    Problem::new(Kind::UnknownRun, format!("there is no run {run_id:?}; GET /runs lists those there are"))
}
