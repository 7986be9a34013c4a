//! The trainer: a policy acts in an environment, a rubric scores what it did, and an algorithm makes it better.
//!
//! ```text
//! Task -> env -> Rollout -> Group -> [Scored] -> advantage -> plan (VSPO) -> Sample -> loss -> AdamW -> checkpoint
//! ```
//!
//! In: a configuration file. Out: a folder with metrics, rollouts, checkpoints and a model that transformers and our
//! judge load. In reading order: [`run`] is the whole, `step` one step in run order, [`rollout`] and [`mod@env`] what the
//! policy does, [`reward`] what it is worth, `groups` which rollouts count, [`algorithm`] the losses, `update` how the
//! parameters move, [`checkpoint`] how a run is stopped and goes on, [`metrics`] and [`report`] how it is seen.
//!
//! Everything that is drawn is a pure function of the run's seed and of what it is drawn for, so that a resumed run is,
//! on the CPU, the same to the bit.

pub mod algorithm;
pub mod checkpoint;
mod client;
pub mod config;
pub mod data;
mod demonstrations;
mod durable;
pub mod env;
mod error;
mod evaluation;
pub mod experience;
pub mod experiment;
mod groups;
mod guards;
mod measured;
pub mod metrics;
mod overlong;
mod parts;
mod policy;
mod protocol;
pub mod record;
pub mod report;
pub mod reward;
pub mod rollout;
pub mod run;
mod seeds;
mod state;
mod step;
mod update;

pub use config::TrainConfig;
pub use error::TrainError;
pub use policy::Policy;
pub use protocol::Protocol;
pub use run::{Ended, Run, RunOptions};
