//! The program as others see it: every test starts it, talks to its port, or reads what it prints. One folder per contract.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]
#![allow(clippy::needless_pass_by_value, reason = "values made with json!() are handed over where they are made")]

mod cli;
mod common;
mod dialects;
mod http_api;
