//! The decoder's operations in plain tensor operations: what runs on the CPU, and the oracle of the fused kernels.
//!
//! Inference only: several of these operations have no backward.

use candle_core::{D, DType, Tensor};
use candle_nn::ops::rms_norm;
use rayon::prelude::*;

use super::LmError;
use super::config::ModelConfig;
use super::cpu::{self, Gathered, HeadRotation, MaskedSoftmax, Runs};
use super::kv::{LayerKv, Span};
use super::ops::HeadWeights;
use super::packed::{Packed, Segment, narrow};
use super::rope::RopeTable;

/// What the operations need to know of a batch, made once for all layers.
#[derive(Debug)]
pub(super) struct PlainPlan<'p> {
    packed: &'p Packed,
    config: &'p ModelConfig,
    /// `[rows, head_dim / 2]`.
    cos: Tensor,
    sin: Tensor,
}

impl<'p> PlainPlan<'p> {
    pub(super) fn new(packed: &'p Packed, config: &'p ModelConfig, rope: &RopeTable) -> Result<Self, LmError> {
        let positions = Tensor::new(packed.positions(), rope.cos.device())?;
        let cos = rope.cos.index_select(&positions, 0)?;
        let sin = rope.sin.index_select(&positions, 0)?;
        Ok(Self { packed, config, cos, sin })
    }

    /// Splits `[rows, qkv_width]`, which is nobody else's, into heads, norms and rotates them, and puts keys and values into
    /// their slots. Gives the queries, `[rows, heads * head_dim]`.
    pub(super) fn rotate_and_store(
        &self,
        qkv: &Tensor,
        weights: &HeadWeights<'_>,
        kv: &LayerKv,
    ) -> Result<Tensor, LmError> {
        let ModelConfig { heads, kv_heads, head_dim, norm_eps, .. } = *self.config;
        let numbers = |weight: &Tensor| weight.to_vec1::<f32>();
        let rotation = HeadRotation {
            heads,
            kv_heads,
            head_dim,
            bias: weights.bias.map(numbers).transpose()?,
            norms: weights.norms.map(|(q, k)| Ok::<_, LmError>((numbers(q)?, numbers(k)?))).transpose()?,
            eps: norm_eps as f32,
        };
        cpu::rotate(qkv, &self.cos, &self.sin, &rotation)?;
        let run = |segment: &Segment| (segment.rows.start, segment.written().start, segment.rows.len());
        let runs: Vec<_> = self.packed.segments.iter().map(run).collect();
        cpu::put(&kv.k, qkv, Runs { column: heads * head_dim, runs: &runs })?;
        cpu::put(&kv.v, qkv, Runs { column: (heads + kv_heads) * head_dim, runs: &runs })?;
        Ok(qkv.narrow(1, 0, heads * head_dim)?.contiguous()?)
    }

    /// Causal attention of every segment over its prefix and its own tokens: `[rows, heads * head_dim]`.
    pub(super) fn attention(&self, q: &Tensor, kv: &LayerKv, window: Option<usize>) -> Result<Tensor, LmError> {
        let one = |segment: &Segment| self.attend(segment, q, kv, window);
        let parts: Vec<Tensor> = self.packed.segments.par_iter().map(one).collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// One segment's attention, some of its rows at a time: what they do not see is not computed.
    ///
    /// The numbers of a row are the same, bit for bit, however many keys behind it are masked: the sums run over keys in
    /// their order, in pieces at fixed places, and a masked key adds an exact zero.
    fn attend(&self, segment: &Segment, q: &Tensor, kv: &LayerKv, window: Option<usize>) -> Result<Tensor, LmError> {
        let (heads, keys) = (self.config.kv_heads, padded(segment.total()));
        let spans: Vec<Span> = segment.prefix.into_iter().chain([segment.own]).collect();
        let k = cpu::gathered(&kv.k, &spans, heads, keys, Gathered::Keys)?;
        let v = cpu::gathered(&kv.v, &spans, heads, keys, Gathered::Values)?;
        let (all, before) = (segment.rows.len(), segment.before());
        let blocks = all.div_ceil(QUERY_ROWS);
        let block = |index: usize| {
            let (start, end) = (all * index / blocks, all * (index + 1) / blocks);
            let q = q.narrow(0, segment.rows.start + start, end - start)?;
            let seen = padded(before + end).min(keys);
            self.attend_rows(&q, before + start, (&k.narrow(2, 0, seen)?, &v.narrow(1, 0, seen)?), window)
        };
        let parts: Vec<Tensor> = (0..blocks).map(block).collect::<Result<_, LmError>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The attention of consecutive rows of one sequence, the first of which stands at position `first`.
    fn attend_rows(
        &self,
        q: &Tensor,
        first: usize,
        (k, v): (&Tensor, &Tensor),
        window: Option<usize>,
    ) -> Result<Tensor, LmError> {
        let config = self.config;
        let (heads, groups, dim) = (config.kv_heads, config.heads / config.kv_heads, config.head_dim);
        let (rows, keys) = (q.dim(0)?, k.dim(2)?);
        // Query heads that share a key head become rows of one product: [kv_heads, groups * rows, head_dim].
        let q = q.reshape((rows, heads, groups, dim))?;
        let q = q.permute((1, 2, 0, 3))?.contiguous()?.reshape((heads, groups * rows, dim))?;
        let weights = cpu::product(&q, k)?;
        let mask = MaskedSoftmax {
            rows,
            first,
            window,
            scale: config.attention_scale as f32,
            softcap: config.attention_softcap.map(|cap| cap as f32),
        };
        cpu::masked_softmax(&weights, mask)?;
        let piece = |start: usize| -> Result<Tensor, LmError> {
            let len = PIECE.min(keys - start);
            cpu::product(&weights.narrow(2, start, len)?, &v.narrow(1, start, len)?)
        };
        let out = piece(0)?;
        for start in (PIECE..keys).step_by(PIECE) {
            cpu::add(&out, &piece(start)?)?;
        }
        let out = out.reshape((heads, groups, rows, dim))?.permute((2, 0, 1, 3))?.contiguous()?;
        Ok(out.reshape((rows, heads * groups * dim))?)
    }
}

/// Rows of queries that are computed together, at most: with fewer, less is computed for nothing, in smaller products.
const QUERY_ROWS: usize = 64;

/// Keys that are summed up in one product. The library's product adds so many in their order.
const PIECE: usize = 256;

/// Keys with what is added to them: a product over one or two takes another way, with another rounding.
fn padded(keys: usize) -> usize {
    keys.next_multiple_of(4)
}

/// Root-mean-square norm over the last dimension.
pub(super) fn norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
    if x.device().is_cpu() { cpu::norm(x, weight, eps) } else { Ok(rms_norm(&x.contiguous()?, weight, eps as f32)?) }
}

/// `x`, `[rows, in]`, times the transpose of a weight `[out, in]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor, LmError> {
    let weight = weight.t()?;
    if x.device().is_cpu() { cpu::product(&x.contiguous()?, &weight) } else { Ok(x.matmul(&weight)?) }
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
