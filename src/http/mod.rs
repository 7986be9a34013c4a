//! The HTTP API: the only place that knows Axum and the API's field names.
//!
//! A request enters at `server`, is routed on one page (`router`), read and written by [`wire`], scored by [`batch`].

mod app;
mod auth;
pub mod batch;
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
mod metrics;
mod prompt;
mod references;
mod router;
mod schema;
mod scoring;
mod server;
mod spare;
mod telemetry;
pub mod wire;

pub use app::{App, Config};
pub use auth::Tokens;
pub use kind::Kind as ProblemKind;
pub use limits::Config as LimitsConfig;
pub use router::document;
pub use server::serve;
