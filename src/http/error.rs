//! Errors of a whole request: RFC 9457 problem documents. The one place that maps a module's error to a status.
//!
//! A [`Problem`] travels in the response's extensions; the outermost layer adds the request id and writes the body, so
//! that no handler needs to know it.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::batch::{BatchError, Due};
use super::kind::Kind;
use super::references::TableFull;
use super::wire::{Pointed, Wrong};
use crate::advantage::PlanConfigError;
use crate::rubric::{CatalogError, RubricError};
use crate::store::StoreError;
use crate::toolcall::schema::bounded_pointer;

/// Media type of problem documents.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request failed.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: String,
    pointer: Option<String>,
    /// What few problems have.
    more: Option<Box<More>>,
}

/// What few problems have.
#[derive(Debug, Clone, Default)]
struct More {
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    /// A member beside those of RFC 9457, for clients that look for their own.
    member: Option<(&'static str, serde_json::Value)>,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem, example = json!({"type": "urn:gradus:problem:unknown-rubric", "title": "Not found", "status": 404,
    "detail": "there is no rubric \"short\"; see GET /rubrics", "pointer": "/rubric", "request_id": "0193a1b2c3d4e5f6"}))]
pub(super) struct ProblemWire<'a> {
    /// The kind of problem, stable: a URN that ends in its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, the value, and the fix.
    pub detail: &'a str,
    /// JSON pointer into the request's body, where one field is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<&'a str>,
    /// Line from 1, where a text was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in characters from 1, where a text was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The id of the request, as in the header `X-Request-Id`.
    pub request_id: &'a str,
    /// What a trainer's client looks for in an error: `scores` for LLaMA-Factory, `error` for the `openai` package.
    #[serde(flatten)]
    #[schema(ignore)]
    pub members: BTreeMap<&'a str, &'a serde_json::Value>,
}

impl Problem {
    /// A problem.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), pointer: None, more: None }
    }

    /// The request's body has the wrong shape.
    pub fn shape(pointer: impl AsRef<str>, detail: impl Into<String>) -> Self {
        Self::new(Kind::WrongShape, detail).at(pointer)
    }

    /// No rubric has this name or version.
    pub fn unknown_rubric(name: &str) -> Self {
        let name: String = name.chars().take(128).collect();
        Self::new(Kind::UnknownRubric, format!("there is no rubric {name:?}; GET /rubrics lists those there are"))
    }

    /// Nothing is at the path.
    pub fn no_route() -> Self {
        Self::new(Kind::NoRoute, "there is nothing at this path; see GET /openapi.json")
    }

    /// A failure of this server.
    #[allow(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
    pub fn internal(detail: impl ToString) -> Self {
        Self::new(Kind::Internal, detail.to_string())
    }

    /// The server is stopping.
    pub fn draining() -> Self {
        let detail = "the server is shutting down; send the request to another one, or try again";
        Self::new(Kind::Draining, detail)
    }

    /// The request was not scored when its answer was due.
    pub fn scored_late(due: Due) -> Self {
        let Due { limit_ms, servers, .. } = due;
        Self::new(
            Kind::Deadline,
            format!("not scored within {limit_ms} ms; send smaller batches or {}", raise(servers)),
        )
    }

    /// The request was scored, but its scores were not stored when its answer was due.
    pub fn stored_late(due: Due) -> Self {
        let detail = format!(
            "scored, but not stored within {} ms: the scores may still be stored; repeat the request with the same \
             Idempotency-Key (without one it would be stored twice), or {}",
            due.limit_ms,
            raise(due.servers)
        );
        Self::new(Kind::Deadline, detail)
    }

    /// A request with a key was not answered when that was due, and goes on.
    pub fn answered_late(due: Due) -> Self {
        let detail = format!(
            "not answered within {} ms, but it may still be scored and stored: repeat the request with the same \
             Idempotency-Key to get its answer, send smaller batches or {}",
            due.limit_ms,
            raise(due.servers)
        );
        Self::new(Kind::Deadline, detail)
    }

    /// With the field at fault; a very long pointer is cut.
    #[must_use]
    pub fn at(mut self, pointer: impl AsRef<str>) -> Self {
        self.pointer = Some(bounded_pointer(pointer.as_ref())).filter(|pointer| !pointer.is_empty());
        self
    }

    /// Without the field at fault, which is one of another text than the client's.
    #[must_use]
    pub fn without_pointer(mut self) -> Self {
        self.pointer = None;
        self
    }

    /// With the line at fault, from 1, of a text that is read by lines.
    #[must_use]
    pub fn on_line(mut self, line: usize) -> Self {
        self.more.get_or_insert_default().place = Some((line, 1));
        self
    }

    /// With a member of a client's own.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: serde_json::Value) -> Self {
        self.more.get_or_insert_default().member = Some((name, value));
        self
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// What is wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The document's bytes.
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let place = self.more.as_ref().and_then(|more| more.place);
        let member = self.more.as_ref().and_then(|more| more.member.as_ref());
        let document = ProblemWire {
            kind: format!("urn:gradus:problem:{}", self.kind.name()),
            title: self.kind.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            pointer: self.pointer.as_deref(),
            line: place.map(|place| place.0),
            column: place.map(|place| place.1),
            request_id,
            members: member.into_iter().map(|(name, value)| (*name, value)).collect(),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// How a request gets more time.
fn raise(servers: bool) -> &'static str {
    if servers { "have --max-deadline-ms raised" } else { "raise `deadline_ms`" }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.kind.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == Kind::NoToken {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Pointed> for Problem {
    fn from(wrong: Pointed) -> Self {
        match wrong.wrong {
            Wrong::Syntax => Self::new(Kind::BadJson, wrong.message).at(wrong.pointer),
            Wrong::Shape => Self::shape(wrong.pointer, wrong.message),
        }
    }
}

impl From<RubricError> for Problem {
    fn from(error: RubricError) -> Self {
        let mut problem = Self::new(Kind::BadRubric, error.message.clone()).at(error.pointer.clone());
        if let Some(location) = error.location {
            problem.more.get_or_insert_default().place = Some((location.line, location.column));
        }
        problem
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Rubric { error, .. } => error.into(),
            CatalogError::Full => Self::new(Kind::TooManyRubrics, error.to_string()),
            CatalogError::Io { .. } => Self::new(Kind::RubricsDirectory, error.to_string()),
            CatalogError::Name { .. } => Self::internal(error),
        }
    }
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Request(wrong) => wrong.into(),
            BatchError::UnknownRubric(name) => Self::unknown_rubric(&name).at("/rubric"),
            BatchError::Rubric(error) => {
                let pointer = format!("/rubric{}", error.pointer);
                Self::from(error).at(pointer)
            }
            BatchError::InlineRubric => {
                let detail = "inline rubrics are switched off on this server; use the name of a rubric";
                Self::new(Kind::InlineRubric, detail).at("/rubric")
            }
            BatchError::Deadline(due) => Self::scored_late(due),
            BatchError::Abandoned => {
                Self::new(Kind::Abandoned, "the connection was closed before the answer was ready")
            }
            BatchError::Invalid { transient: true, code, message, pointer, .. } => {
                Self::new(Kind::NotScored, format!("{code}: {message}")).at(pointer)
            }
            BatchError::Invalid { transient: false, code, message, pointer, .. } => {
                Self::shape(pointer, format!("{code}: {message}"))
            }
        }
    }
}

impl From<TableFull> for Problem {
    fn from(error: TableFull) -> Self {
        Self::new(Kind::TooManyReferences, error.to_string())
    }
}

impl From<PlanConfigError> for Problem {
    fn from(error: PlanConfigError) -> Self {
        Self::shape(format!("/vspo/{}", error.field()), error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cursor { .. } => Self::new(Kind::BadCursor, format!("{error}; use `next_cursor` of a page")),
            StoreError::IdempotencyTaken { .. } => Self::new(Kind::IdempotencyConflict, error.to_string()),
            StoreError::ScoreId { .. } => Self::new(Kind::UnknownScore, error.to_string()),
            // Neither a later try nor another database makes it smaller.
            StoreError::Compress { .. } => Self::new(Kind::TooLarge, format!("{error}; send smaller batches")),
            StoreError::Batch { .. } => Self::internal(format!("the scores could not be stored: {error}")),
            // Nor does a later try mend it.
            StoreError::Damaged { .. } => Self::internal(error),
            error => Self::new(Kind::Store, format!("the store failed: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_can_never_do_is_not_to_be_tried_again() {
        let problem = Problem::from(StoreError::Compress { bytes: 9, limit: 8, detail: "too long".to_owned() });
        assert_eq!((problem.status(), problem.kind.retry_after_s()), (StatusCode::PAYLOAD_TOO_LARGE, None));
        let batch = crate::store::BatchIds::new(None, 0).next(1);
        let problem = Problem::from(StoreError::Damaged { batch, what: "row" });
        assert_eq!((problem.status(), problem.kind.retry_after_s()), (StatusCode::INTERNAL_SERVER_ERROR, None));
        let problem = Problem::from(StoreError::Closed);
        assert_eq!((problem.status(), problem.kind.retry_after_s()), (StatusCode::SERVICE_UNAVAILABLE, Some(5)));
        assert!(!problem.detail().contains("scores"), "it is read for more than scores: {}", problem.detail());
    }
}
