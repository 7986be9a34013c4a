//! The HTTP API: the only place that knows Axum and the API's field names.
//!
//! A request enters at `server` over a `connection`, is routed on one page (`router`: the whole API), let in by `auth` and
//! `limits`, and taken up by one of the `handlers`, or by one of the `dialects`, which make it a native one. Both go through
//! `scoring`, which has the text read ([`wire`]) and scored ([`batch`]) on the work threads, again when judges have
//! answered, and stored. What fails becomes a problem (`kind`, `error`); `telemetry` gives it the request's id.

mod app;
mod auth;
pub mod batch;
mod buffer_pool;
mod cohorts;
mod connection;
mod decompress;
mod dialects;
mod documented;
mod error;
mod handlers;
mod idempotency;
mod kind;
mod limits;
mod linger;
mod log_throttle;
mod metrics;
mod paced;
mod prompt;
mod references;
mod router;
mod schema;
mod scoring;
mod server;
mod telemetry;
mod utf8;
pub mod wire;

pub use app::{App, Config};
pub use auth::Tokens;
pub use kind::Kind as ProblemKind;
pub use limits::Config as LimitsConfig;
pub use router::document;
pub use server::serve;
