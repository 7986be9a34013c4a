//! What the operations of training take and give, the same in a build with CUDA and in one without. Only names for
//! tensors and numbers: the operations themselves are `TrainKernels`'.

use candle_core::Tensor;

/// How many heads attention has, and how wide they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadShape {
    /// Heads of queries; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and of values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl HeadShape {
    /// Columns of a packed projection: the heads of queries, keys and values.
    pub(super) fn packed_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// What a norm was computed from.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormInput<'t> {
    /// `[.., width]`, bf16.
    pub x: &'t Tensor,
    /// `[width]`, bf16.
    pub weight: &'t Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

/// Cosines and sines of each row's position, `[rows, head_dim / 2]`, float32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Angles<'t> {
    /// The cosines.
    pub cos: &'t Tensor,
    /// The sines.
    pub sin: &'t Tensor,
}

/// Which way heads are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rotation {
    /// As the model does.
    Forward,
    /// Back: what turns the gradient of the rotated heads into that of the heads.
    Inverse,
}

/// A packed projection taken apart, or its gradient; bf16.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    /// `[rows, heads * head_dim]`.
    pub q: Tensor,
    /// `[rows, kv_heads * head_dim]`.
    pub k: Tensor,
    /// `[rows, kv_heads * head_dim]`.
    pub v: Tensor,
}

/// What attention gives.
#[derive(Debug, Clone)]
pub(super) struct Attended {
    /// `[rows, heads * head_dim]`, bf16.
    pub output: Tensor,
    /// Natural log-sum-exp of each row's scaled scores, `[rows, heads]`, float32.
    pub lse: Tensor,
}

/// What the logits of each row say of its target; natural logarithms of softmax(logits / temperature), float32.
#[derive(Debug, Clone)]
pub(super) struct TokenScores {
    /// `[rows]`; not finite for a target beyond the vocabulary.
    pub logprob: Tensor,
    /// `[rows]`, in nats.
    pub entropy: Tensor,
    /// Log-sum-exp of the logits over the temperature, `[rows]`.
    pub lse: Tensor,
}

/// A parameter and what the optimiser keeps of it, all of one number of elements; updated in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdamwTensors<'t> {
    /// The lowest 16 bits of the parameter in float32, as i16.
    pub low_bits: &'t Tensor,
    /// Float32.
    pub first_moment: &'t Tensor,
    /// Float32.
    pub second_moment: &'t Tensor,
    /// Float32; read only.
    pub gradient: &'t Tensor,
    /// What the model computes with: the parameter rounded to bf16, half away from zero, so that with `low_bits` it is
    /// known to the bit.
    pub weight: &'t Tensor,
}

/// The numbers of one step of `AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AdamwStep {
    /// Positive, or 0 for none.
    pub learning_rate: f64,
    /// Share of the first moment that is kept, in `0..1`.
    pub beta1: f64,
    /// Share of the second moment that is kept, in `0..1`.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled: the parameter shrinks by `learning_rate * weight_decay` of itself.
    pub weight_decay: f64,
    /// Counted from 1.
    pub step: u32,
    /// What the gradient is multiplied by first: below 1 where it is clipped.
    pub gradient_scale: f64,
}
