//! The decoder in training: log-probabilities of tokens, and the gradients of whatever is made of them.
//!
//! In: a model directory or a configuration, batches of token sequences, and the derivative of a loss by each token's
//! log-probability (and by each value). Out: log-probabilities, entropies, values; gradients of every trainable
//! parameter; parameters moved by AdamW. Knows no reward and no algorithm.
//!
//! The backward pass is written out by hand, layer by layer, since most of candle's fused operations record no backward:
//! a gradient would be missing without a word. Every operation is a pair (forward, backward) behind one switch
//! (`ops`): plain tensor operations on the CPU, kernels on a GPU. The plain ones are checked by finite differences in
//! float64, the kernels against PyTorch (`benches/kernels.py`).

mod adamw;
mod batch;
mod decoder;
mod head;
mod layer;
mod linear;
mod lora;
mod ops;
mod parameters;
mod plain;
#[cfg(test)]
mod tests;

pub use adamw::{AdamW, AdamWConfig, Moments};
pub use batch::{Predictions, Sequences};
pub use decoder::{Activations, Pass, TokenOutputs, TrainableDecoder};
pub use lora::LoraConfig;
pub use parameters::{Gradients, Parameter, Parameters};
