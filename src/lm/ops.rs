//! The one switch between the plain operations and the fused kernels. A [`Plan`] holds what a batch's operations need to
//! know, made once for all layers.

use candle_core::Tensor;

use super::LmError;
use super::config::ModelConfig;
use super::cpu;
use super::kernels::{Fused, FusedPlan};
use super::kv::LayerKv;
use super::packed::Packed;
use super::plain::{self, PlainPlan};
use super::rope::RopeTable;

/// How a batch is computed.
pub(super) enum Plan<'p> {
    /// With plain tensor operations.
    Plain(PlainPlan<'p>),
    /// With the kernels.
    Fused(FusedPlan<'p>),
}

/// What turns packed queries, keys and values into heads.
pub(super) struct HeadWeights<'w> {
    /// `[qkv_width]`.
    pub(super) bias: Option<&'w Tensor>,
    /// Norms of the heads of q and of k, `[head_dim]` each.
    pub(super) norms: Option<&'w (Tensor, Tensor)>,
}

/// What a part of a layer ends with.
pub(super) struct Addition<'w> {
    /// `[hidden, in]`.
    pub(super) weight: &'w Tensor,
    /// Gemma 2 norms the product before it is added: `[hidden]`.
    pub(super) norm: Option<&'w Tensor>,
    /// Of that norm.
    pub(super) eps: f64,
}

impl<'p> Plan<'p> {
    pub(super) fn new(
        fused: Option<&'p Fused>,
        packed: &'p Packed,
        config: &'p ModelConfig,
        rope: &'p RopeTable,
    ) -> Result<Self, LmError> {
        match fused {
            Some(fused) => Ok(Self::Fused(fused.plan(packed, config, rope)?)),
            None => Ok(Self::Plain(PlainPlan::new(packed, config, rope)?)),
        }
    }

    /// The norm of the state, `[rows, hidden]` in float32, in the number format of the weights.
    pub(super) fn norm(&self, state: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
        match self {
            Self::Plain(_) => plain::norm(state, weight, eps),
            Self::Fused(plan) => plan.norm(state, weight, eps),
        }
    }

    /// Adds a product to the state, in place: the state is nobody else's.
    pub(super) fn add_linear(&self, state: &Tensor, x: &Tensor, addition: &Addition<'_>) -> Result<(), LmError> {
        match self {
            Self::Plain(_) => {
                let Some(norm) = addition.norm else { return cpu::add_product(state, x, &addition.weight.t()?) };
                cpu::add(state, &plain::norm(&plain::linear(x, addition.weight)?, norm, addition.eps)?)
            }
            Self::Fused(plan) => plan.add_linear(state, x, addition),
        }
    }

    /// Splits `[rows, qkv_width]` into heads, norms and rotates them, and puts keys and values into their slots.
    /// The projection is nobody else's. Gives the queries, `[rows, heads * head_dim]`.
    pub(super) fn rotate_and_store(
        &self,
        qkv: &Tensor,
        weights: &HeadWeights<'_>,
        kv: &LayerKv,
    ) -> Result<Tensor, LmError> {
        match self {
            Self::Plain(plan) => plan.rotate_and_store(qkv, weights, kv),
            Self::Fused(plan) => plan.rotate_and_store(qkv, weights, kv),
        }
    }

    /// Causal attention of every segment over its prefix and its own tokens: `[rows, heads * head_dim]`.
    pub(super) fn attention(&self, q: &Tensor, kv: &LayerKv, window: Option<usize>) -> Result<Tensor, LmError> {
        match self {
            Self::Plain(plan) => plan.attention(q, kv, window),
            Self::Fused(plan) => plan.attention(q, kv, window),
        }
    }

    /// The activated first half of the columns times the second half.
    pub(super) fn gated(&self, gate_up: &Tensor, config: &ModelConfig) -> Result<Tensor, LmError> {
        match self {
            Self::Plain(_) => cpu::gated(gate_up, config.activation),
            Self::Fused(plan) => plan.gated(gate_up),
        }
    }
}
