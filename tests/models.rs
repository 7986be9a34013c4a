//! Language models, and what uses them: the engine, judges, and the trainer, all on the CPU.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]
#![allow(clippy::needless_pass_by_value, reason = "values made with json!() are handed over where they are made")]

mod common;
mod judge;
mod lm;
mod train;
