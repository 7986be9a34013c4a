//! The language-model engine, on candle: a decoder of our own, its weights, tokens and templates, the scoring path with
//! shared prefixes, and generation with continuous batching.
//!
//! In: a model directory, a GGUF file or a hub's name, and sequences of tokens. Out: log-probabilities, rewards, texts.
//! Knows no judge and no rubric.
#![allow(clippy::cast_possible_truncation, reason = "options are read as f64, and tensors hold float32")]

pub mod chat_template;
mod config;
mod constrain;
mod cpu;
#[path = "kernels/cpu_product.rs"]
mod cpu_product;
mod decoder;
mod device;
mod ends;
mod engine;
mod error;
mod foreign;
mod generate;
mod gguf;
mod hub;
pub mod jinja;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(not(feature = "cuda"))]
#[path = "no_kernels.rs"]
mod kernels;
mod kv;
mod limits;
mod model;
mod ops;
mod packed;
mod pieces;
mod plain;
mod prefix;
mod reason;
mod rope;
mod sample;
mod shared_prefix;
mod text;
pub mod tokenizer;
#[allow(dead_code, reason = "some of it is read by the kernels alone")]
mod train_ops;
pub mod training;
pub mod untrusted;
mod weights;
mod worker;

pub use config::{Family, HeadKind, ModelConfig};
pub use constrain::{Constraint, Constraints};
pub use decoder::Decoder;
pub use device::DeviceChoice;
pub use ends::end_tokens;
pub use engine::{Engine, EngineCounters, LabelLogprobs};
pub use error::LmError;
pub use foreign::Foreign;
pub use generate::{GenerateRequest, Generated, Generator, Guide, Joined, Next, UnconstrainedGuide};
pub use gguf::Gguf;
pub use hub::{Hub, HubError, HubId};
pub use kernels::cuda_device;
pub use kv::{KvPool, Span};
pub use model::Model;
pub use packed::{Packed, Segment};
pub use reason::{ReasonedLabel, Reasoning, SchemaGuide};
pub use sample::{Drawn, Mask, Sampling};
pub use weights::Weights;
pub use worker::{Failure, Worker, WorkerNumbers};
