//! From rewards to what a trainer multiplies its gradients by: statistics of groups, group advantages, the VSPO plan
//! and generalised advantage estimation.
//!
//! In: rewards, values, masks and a seed. Out: numbers. Pure: the server and the trainer share it, so that both give
//! the same numbers. Knows no request, no tensor and no token.

mod gae;
mod group;
mod plan;
mod prompts;
mod seeded;
mod statistics;

pub use gae::{Episode, Gae, GaeConfig, gae};
pub use group::{Formula, group_advantages};
pub use plan::{Mode, Plan, PlanConfig, PlanConfigError, Sampling, plan, smoothing_factor, systematic_draws};
pub use prompts::PromptHistory;
pub use seeded::unit_from_seed;
pub use statistics::{Deviation, EPSILON, GroupStatistics};
