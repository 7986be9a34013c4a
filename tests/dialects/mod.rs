//! What trainers send, end to end: every test starts the real binary and sends what the trainer's own code sends. One
//! file per promise; `contents.rs` has the same rollouts in the words of every trainer.

mod answers;
mod broken;
mod cohorts;
mod contents;
mod documents;
mod graders;
mod labels;
mod references;
mod repeats;
mod same;
mod traps;
