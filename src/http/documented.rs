//! What the OpenAPI document says of many paths alike: the problems that every one of them can answer with, in which form, and
//! which objects take no other fields. In: the document as the handlers describe it. Out: the same, complete. What a handler says
//! of a status itself stays.

use axum::http::Method;
use utoipa::Modify;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, Type};
use utoipa::openapi::{ContentBuilder, Header, ObjectBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Schema};

use super::error::PROBLEM_JSON;

/// Paths that need no token and read no body.
const OPEN: [&str; 5] = ["/healthz", "/health", "/readyz", "/metrics", "/reverify_mode"];

/// Paths whose body nobody reads.
const UNREAD: [&str; 2] = ["/seed_session", "/reset"];

/// Objects that are refused with a field that they do not know.
const CLOSED: [&str; 3] = ["RewardRequest", "Curriculum", "ReferenceCall"];

/// Completes the document.
pub(super) struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let PathItem { get, post, put, .. } = item;
            for (method, operation) in [(Method::GET, get), (Method::POST, post), (Method::PUT, put)] {
                if let Some(operation) = operation {
                    complete(operation, &problems(path, &method, is_repeatable(operation)));
                }
            }
        }
        let components = document.components.get_or_insert_default();
        for name in CLOSED {
            if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(name) {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

type Problems = Vec<(&'static str, &'static str)>;

/// The problems that a path can answer with, by status.
fn problems(path: &str, method: &Method, repeatable: bool) -> Problems {
    if OPEN.contains(&path) {
        return Vec::new();
    }
    let mut all = vec![("401", "A token is needed"), ("403", "The token is wrong")];
    let is_read = method != Method::GET && !UNREAD.contains(&path);
    if is_read {
        all.extend([
            ("400", "The body, or a parameter, cannot be read"),
            ("408", "The body came too slowly"),
            ("413", "The body is too large"),
            ("415", "The content type or encoding is not supported"),
            ("429", "Too much is in flight; see Retry-After"),
        ]);
    }
    if path.contains('{') {
        all.push(("400", "A part of the path, or a parameter, cannot be read"));
    }
    if is_read && method == Method::POST && path != "/rubrics/check" {
        all.push(("503", "Draining, or the store failed; see Retry-After"));
    }
    if repeatable {
        all.extend([
            ("404", "No such rubric"),
            ("409", "The idempotency key was used for another request"),
            ("422", "The request has the wrong shape, or an item could not be scored and `on_invalid` is `error`"),
            ("504", "The deadline passed"),
        ]);
    }
    if path.starts_with("/runs") || path.starts_with("/scores") {
        all.push(("503", "The store failed; see Retry-After"));
    }
    if method == Method::PUT {
        all.extend([
            ("409", "There are too many rubrics"),
            ("503", "The directory of rubrics cannot be written; see Retry-After"),
        ]);
    }
    all
}

/// Whether it scores: what scores takes a key that makes it repeatable.
fn is_repeatable(operation: &Operation) -> bool {
    let is_key = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(found) if found.name == "Idempotency-Key");
    operation.parameters.iter().flatten().any(is_key)
}

/// Adds what the operation does not say itself.
fn complete(operation: &mut Operation, problems: &[(&str, &str)]) {
    let responses = &mut operation.responses.responses;
    for (status, description) in problems {
        let said = || ResponseBuilder::new().description(*description).build().into();
        responses.entry((*status).to_owned()).or_insert_with(said);
    }
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        if let RefOr::T(response) = response
            && response.content.is_empty()
        {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            response.content.insert(PROBLEM_JSON.to_owned(), content.into());
        }
    }
    // The statuses of problems that may pass.
    for status in ["429", "503"] {
        if let Some(RefOr::T(response)) = responses.get_mut(status) {
            let mut seconds = Header::new(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build());
            seconds.description = Some("After how many seconds to try again, where that may help".to_owned());
            response.headers.insert("Retry-After".to_owned(), seconds.into());
        }
    }
}
