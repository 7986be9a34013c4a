//! The HTTP contract, end to end: every test starts the real binary and talks to it as a client does. One file per topic;
//! `contract.rs` holds the rules that every response keeps, whatever was asked.
#![allow(clippy::needless_pass_by_value, reason = "values made with json!() are handed over where they are made")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

#[path = "http_api/alternatives.rs"]
mod alternatives;
#[path = "http_api/contract.rs"]
mod contract;
#[path = "http_api/determinism.rs"]
mod determinism;
#[path = "http_api/hostile.rs"]
mod hostile;
#[path = "http_api/idempotency.rs"]
mod idempotency;
#[path = "http_api/invalid.rs"]
mod invalid;
#[path = "http_api/items.rs"]
mod items;
#[path = "http_api/openapi.rs"]
mod openapi;
#[path = "http_api/operation.rs"]
mod operation;
#[path = "http_api/problems.rs"]
mod problems;
#[path = "http_api/proportion.rs"]
mod proportion;
#[path = "http_api/responses.rs"]
mod responses;
#[path = "http_api/rubrics.rs"]
mod rubrics;
#[path = "http_api/runs.rs"]
mod runs;
#[path = "http_api/transport.rs"]
mod transport;
