//! The HTTP contract, end to end: every test starts the real binary and talks to it as a client does. One file per topic;
//! `contract.rs` holds the rules that every response keeps, whatever was asked.

mod advantages;
mod alternatives;
mod contract;
mod determinism;
mod hostile;
mod idempotency;
mod invalid;
mod items;
pub(crate) mod openapi;
mod operation;
mod problems;
mod proportion;
mod responses;
mod rubrics;
mod runs;
mod texts;
mod transport;
