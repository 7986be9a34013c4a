//! What trainers send, end to end: every test starts the real binary and sends what the trainer's own code sends. One
//! file per promise; `contents.rs` has the same rollouts in the words of every trainer.
#![allow(clippy::needless_pass_by_value, reason = "values made with json!() are handed over where they are made")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

#[path = "dialects/answers.rs"]
mod answers;
#[path = "dialects/broken.rs"]
mod broken;
#[path = "dialects/cohorts.rs"]
mod cohorts;
#[path = "dialects/contents.rs"]
mod contents;
#[path = "dialects/documents.rs"]
mod documents;
#[path = "dialects/graders.rs"]
mod graders;
#[path = "dialects/labels.rs"]
mod labels;
#[path = "dialects/references.rs"]
mod references;
#[path = "dialects/repeats.rs"]
mod repeats;
#[path = "dialects/same.rs"]
mod same;
#[path = "dialects/traps.rs"]
mod traps;
