//! Gradus scores the trajectories of LLM agents in progressive stages, for whoever trains them.
//!
//! # The way of a request, and of a training step
//!
//! ```text
//! wire -> Trajectory -> Evidence -> [Outcome] -> Reward -> Report -> store record -> wire
//! Task -> env -> Rollout -> Group -> [Report] -> advantage -> plan (VSPO) -> Sample -> loss -> AdamW -> checkpoint
//! ```
//!
//! # Modules, in the order in which a trajectory meets them
//!
//! The number is a module's rank: a module uses only modules of a strictly lower rank (`tests/architecture.rs`).
//!
//! | rank | module | what it is |
//! |---|---|---|
//! | 0 | [`named`] | closed lists of things with names |
//! | 0 | [`locks`] | locks, whoever panicked with one |
//! | 0 | [`trajectory`] | what is scored |
//! | 1 | [`toolcall`] | policy text to tool calls; arguments against JSON Schema; answers |
//! | 1 | [`text`] | normalisation, tokenizers, BLEU, exact match, F1 |
//! | 2 | [`stages`] | what each stage asks and how it scores; the judge's port |
//! | 3 | [`shaping`] | gates, weights, penalties, curriculum |
//! | 3 | [`files`] | files that are replaced whole or not at all |
//! | 4 | [`rubric`] | rubric files to validated rubrics |
//! | 5 | [`score`] | the pipeline |
//! | 6 | [`lm`] | language models on candle: decoder, scoring, generation |
//! | 7 | [`judge`] | who answers the judge stages: models here and endpoints elsewhere, cached |
//! | 7 | [`store`] | scores in and out of a database |
//! | 7 | [`advantage`] | group statistics, VSPO's plan, GAE |
//! | 8 | [`http`] | the server and its wire format |
//! | 8 | [`train`] | policies, environments, rollouts and the algorithms that learn from scores |
//! | 9 | [`config`] | flags, environment, file |
//! | 10 | [`cli`] | the commands |
//!
//! # Invariants
//!
//! 1. `trajectory` to `shaping`, and `advantage`, do no IO, read no clock, hold no global; randomness is an argument. One
//!    exception, which changes no result: a thread keeps its working space, and the key of its hash tables (`text::scratch`).
//! 2. A policy's broken output is data with a low score, never an `Err`. A judge that fails is `Unavailable`, never 0.
//! 3. A score depends only on (trajectory, rubric hash, curriculum position, judge identity, seed); with a judge stage in mode
//!    `rank`, also on the other answers of its group. The server keeps no curriculum state: the client sends the position and
//!    the report echoes it.
//! 4. There is one scoring path. Serialisation lives at the edges (`http`, `store`, `rubric`, checkpoints).
//! 5. candle's fused inference ops (`softmax_last_dim`, `rms_norm` and `RmsNorm::forward`, `layer_norm`, `rope`, `sdpa`,
//!    flash attention) have no backward: `backward()` returns `Ok` and the gradient is silently missing, and a residual path
//!    hides it. They stand behind one inference switch; the training path is checked, per parameter, against goldens and
//!    finite differences.
//! 6. Schemas are compiled once and never fetched: jsonschema's http and file resolving is off.
//! 7. `#[cfg(feature = ..)]` stands on `mod` lines and in Cargo.toml, not inside functions.

#[macro_use]
pub mod named;

#[warn(clippy::disallowed_methods)]
pub mod advantage;
pub mod cli;
pub mod config;
pub mod files;
pub mod http;
pub mod judge;
pub mod lm;
pub mod locks;
pub mod rubric;
pub mod score;
#[warn(clippy::disallowed_methods)]
pub mod shaping;
#[warn(clippy::disallowed_methods)]
pub mod stages;
pub mod store;
#[warn(clippy::disallowed_methods)]
pub mod text;
#[warn(clippy::disallowed_methods)]
pub mod toolcall;
pub mod train;
#[warn(clippy::disallowed_methods)]
pub mod trajectory;
