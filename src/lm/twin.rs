//! The decoder's operations in plain tensor operations: what runs on the CPU, and the oracle of the fused kernels.
//!
//! Inference only: several of these operations have no backward.

use candle_core::{D, DType, Tensor};
use candle_nn::ops::rms_norm;
use rayon::prelude::*;

use super::LmError;
use super::config::ModelConfig;
use super::cpu::{self, MaskedSoftmax};
use super::kv::{LayerKv, Span};
use super::ops::HeadWeights;
use super::packed::{Packed, Segment, narrow};
use super::rope::RopeTable;

/// What the operations need to know of a batch, made once for all layers.
#[derive(Debug)]
pub(super) struct TwinPlan<'p> {
    packed: &'p Packed,
    config: &'p ModelConfig,
    /// `[rows, head_dim / 2]`.
    cos: Tensor,
    sin: Tensor,
}

impl<'p> TwinPlan<'p> {
    pub(super) fn new(packed: &'p Packed, config: &'p ModelConfig, rope: &RopeTable) -> Result<Self, LmError> {
        let positions = Tensor::new(packed.positions(), rope.cos.device())?;
        let cos = rope.cos.index_select(&positions, 0)?;
        let sin = rope.sin.index_select(&positions, 0)?;
        Ok(Self { packed, config, cos, sin })
    }

    /// Splits `[rows, qkv_width]` into heads, norms and rotates them, and puts keys and values into their slots.
    /// Gives the queries, `[rows, heads, head_dim]`.
    pub(super) fn rotate_and_store(
        &self,
        qkv: &Tensor,
        weights: &HeadWeights<'_>,
        kv: &LayerKv,
    ) -> Result<Tensor, LmError> {
        let config = self.config;
        let qkv = weights.bias.map_or(Ok(qkv.clone()), |bias| qkv.broadcast_add(bias))?;
        let (rows, dim, norms) = (qkv.dim(0)?, config.head_dim, weights.norms);
        let heads = |start: usize, count: usize, norm: Option<&Tensor>| -> Result<Tensor, LmError> {
            let part = qkv.narrow(1, start * dim, count * dim)?.contiguous()?.reshape((rows, count, dim))?;
            let part = norm.map_or(Ok(part.clone()), |weight| rms_norm(&part, weight, config.norm_eps as f32))?;
            Ok(candle_nn::rotary_emb::rope_thd(&part.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0)?)
        };
        let q = heads(0, config.heads, norms.map(|(q, _)| q))?;
        let k = heads(config.heads, config.kv_heads, norms.map(|(_, k)| k))?.flatten_from(1)?;
        let v = qkv.narrow(1, (config.heads + config.kv_heads) * dim, config.kv_heads * dim)?.contiguous()?;
        for segment in &self.packed.segments {
            let (start, len) = (segment.rows.start, segment.rows.len());
            let slot = segment.written().start;
            kv.k.slice_set(&k.narrow(0, start, len)?.contiguous()?, 0, slot)?;
            kv.v.slice_set(&v.narrow(0, start, len)?.contiguous()?, 0, slot)?;
        }
        Ok(q)
    }

    /// Causal attention of every segment over its prefix and its own tokens: `[rows, heads * head_dim]`.
    pub(super) fn attention(&self, q: &Tensor, kv: &LayerKv, window: Option<usize>) -> Result<Tensor, LmError> {
        let one = |segment: &Segment| self.attend(segment, q, kv, window);
        let parts: Vec<Tensor> = self.packed.segments.par_iter().map(one).collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// One segment's attention.
    ///
    /// The numbers of a row are the same, bit for bit, however many keys behind it are masked: the sums run over keys in
    /// their order, in pieces at fixed places, and a masked key adds an exact zero.
    fn attend(&self, segment: &Segment, q: &Tensor, kv: &LayerKv, window: Option<usize>) -> Result<Tensor, LmError> {
        let config = self.config;
        let (heads, groups, dim) = (config.kv_heads, config.heads / config.kv_heads, config.head_dim);
        let (rows, keys) = (segment.rows.len(), padded(segment.total()));
        // Query heads that share a key head become rows of one product: [kv_heads, groups * rows, head_dim].
        let q = q.narrow(0, segment.rows.start, rows)?.reshape((rows, heads, groups, dim))?;
        let q = q.permute((1, 2, 0, 3))?.contiguous()?.reshape((heads, groups * rows, dim))?;
        let of = |pool: &Tensor| -> Result<Tensor, LmError> {
            let at = |span: Span| pool.narrow(0, span.start, span.len);
            let mut parts = vec![at(segment.own)?];
            if let Some(prefix) = segment.prefix {
                parts.insert(0, at(prefix)?);
            }
            if keys > segment.total() {
                let shape = (keys - segment.total(), heads * dim);
                parts.push(Tensor::zeros(shape, pool.dtype(), pool.device())?);
            }
            Ok(Tensor::cat(&parts, 0)?.reshape((keys, heads, dim))?)
        };
        let k = of(&kv.k)?.permute((1, 2, 0))?.contiguous()?;
        let v = of(&kv.v)?.transpose(0, 1)?.contiguous()?;
        let mask = MaskedSoftmax {
            rows,
            first: segment.before(),
            window,
            scale: config.attention_scale as f32,
            softcap: config.attention_softcap.map(|cap| cap as f32),
        };
        let weights = cpu::masked_softmax(&q.matmul(&k)?, mask)?;
        let out = if keys <= PIECE {
            weights.matmul(&v)?
        } else {
            let piece = |start: usize| {
                let len = PIECE.min(keys - start);
                weights.narrow(2, start, len)?.contiguous()?.matmul(&v.narrow(1, start, len)?.contiguous()?)
            };
            let mut sums = piece(0)?;
            for start in (PIECE..keys).step_by(PIECE) {
                sums = (sums + piece(start)?)?;
            }
            sums
        };
        let out = out.reshape((heads, groups, rows, dim))?.permute((2, 0, 1, 3))?.contiguous()?;
        Ok(out.reshape((rows, heads * groups * dim))?)
    }
}

/// Keys that are summed up in one product. The library's product adds so many in their order.
const PIECE: usize = 256;

/// Keys with what is added to them: a product over one or two takes another way, with another rounding.
fn padded(keys: usize) -> usize {
    keys.next_multiple_of(4)
}

/// Root-mean-square norm over the last dimension.
pub(super) fn norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
    Ok(rms_norm(&x.contiguous()?, weight, eps as f32)?)
}

/// `x` times the transpose of a weight `[out, in]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor, LmError> {
    Ok(x.matmul(&weight.t()?)?)
}

/// A weight as [`linear`] wants it: on the CPU its transpose is contiguous, since only then a row's product is the same,
/// bit for bit, in a batch of any size.
pub(super) fn laid_out(weight: Tensor) -> Result<Tensor, LmError> {
    if weight.device().is_cpu() { Ok(weight.t()?.contiguous()?.t()?) } else { Ok(weight) }
}

/// The rows of a table.
pub(super) fn embed(table: &Tensor, tokens: &[u32]) -> Result<Tensor, LmError> {
    Ok(table.index_select(&Tensor::new(tokens, table.device())?, 0)?)
}

/// Some rows, each once.
pub(super) fn rows(x: &Tensor, wanted: &[usize]) -> Result<Tensor, LmError> {
    let wanted: Vec<u32> = wanted.iter().map(|row| narrow(*row)).collect();
    Ok(x.index_select(&Tensor::new(wanted, x.device())?, 0)?)
}

/// Natural logarithms of softmax over the last dimension, in float32.
pub(super) fn log_softmax(logits: &Tensor) -> Result<Tensor, LmError> {
    Ok(candle_nn::ops::log_softmax(&logits.to_dtype(DType::F32)?, D::Minus1)?)
}
