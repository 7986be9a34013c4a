//! One file per resource: each handler with its description in the OpenAPI document.

pub(crate) mod health;
pub(crate) mod reward;
pub(crate) mod rubrics;
pub(crate) mod runs;
