//! What attention needs around its two products: keys and values by head, and the weights from the scores.

use candle_core::{CpuStorage, CustomOp1, InplaceOp1, Layout, Shape, Tensor};

use super::{contiguous, contiguous_mut, exp, lane_max, lane_sum, over_rows_mut};
use crate::lm::LmError;
use crate::lm::kv::Span;

/// Softmax of `[.., groups * rows, keys]` over the keys that each row sees.
#[derive(Debug, Clone, Copy)]
pub(in crate::lm) struct MaskedSoftmax {
    /// Query rows; a head's groups follow each other.
    pub(in crate::lm) rows: usize,
    /// Position of the first row.
    pub(in crate::lm) first: usize,
    /// How many positions back a row sees, itself included.
    pub(in crate::lm) window: Option<usize>,
    /// Factor of the scores.
    pub(in crate::lm) scale: f32,
    /// Soft cap of the scaled scores.
    pub(in crate::lm) softcap: Option<f32>,
}

impl MaskedSoftmax {
    #[inline(always)]
    fn row(&self, index: usize, scores: &mut [f32]) {
        let position = self.first + index % self.rows;
        let end = (position + 1).min(scores.len());
        let start = self.window.map_or(0, |window| (position + 1).saturating_sub(window)).min(end);
        let (before, rest) = scores.split_at_mut(start);
        let (seen, after) = rest.split_at_mut(end - start);
        before.fill(0.0);
        after.fill(0.0);
        match self.softcap {
            Some(cap) => seen.iter_mut().for_each(|score| *score = cap * (*score * self.scale / cap).tanh()),
            None => seen.iter_mut().for_each(|score| *score *= self.scale),
        }
        let most = lane_max(seen);
        for score in &mut *seen {
            *score = exp(*score - most);
        }
        // Over the whole row: its lanes are at the same places, however much of it is masked.
        let factor = 1.0 / lane_sum(scores, |weight| weight);
        for weight in scores {
            *weight *= factor;
        }
    }
}

impl InplaceOp1 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let width = layout.dims().last().copied().unwrap_or(1);
        over_rows_mut(contiguous_mut(storage, layout)?, width, |index, scores| self.row(index, scores));
        Ok(())
    }
}

/// Turns scores into the weights of attention. They are nobody else's.
pub(in crate::lm) fn masked_softmax(scores: &Tensor, mask: MaskedSoftmax) -> Result<(), LmError> {
    Ok(scores.inplace_op1(&mask)?)
}

/// How a sequence's keys, or its values, are laid out for a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lm) enum Gathered {
    /// `[heads, dim, keys]`.
    Keys,
    /// `[heads, keys, dim]`.
    Values,
}

#[derive(Debug, Clone, Copy)]
struct Gather<'s> {
    as_what: Gathered,
    spans: &'s [Span],
    heads: usize,
    /// Places, of which those behind the spans' are zero.
    keys: usize,
}

impl CustomOp1 for Gather<'_> {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, pool: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let numbers = contiguous(pool, layout)?;
        let (_, width) = layout.shape().dims2()?;
        let (heads, keys, dim) = (self.heads, self.keys, width / self.heads.max(1));
        let mut out = vec![0f32; heads * keys * dim];
        let slots = self.spans.iter().flat_map(|span| span.start..span.start + span.len);
        for (key, slot) in slots.enumerate() {
            let row = numbers.get(slot * width..(slot + 1) * width).unwrap_or_default();
            for (row, out) in row.chunks_exact(dim).zip(out.chunks_exact_mut(keys * dim)) {
                match self.as_what {
                    Gathered::Keys => {
                        let column = out.iter_mut().skip(key).step_by(keys);
                        column.zip(row).for_each(|(out, number)| *out = *number);
                    }
                    Gathered::Values => {
                        let place = out.iter_mut().skip(key * dim).take(dim);
                        place.zip(row).for_each(|(out, number)| *out = *number);
                    }
                }
            }
        }
        let shape = match self.as_what {
            Gathered::Keys => (heads, dim, keys),
            Gathered::Values => (heads, keys, dim),
        };
        Ok((CpuStorage::F32(out), shape.into()))
    }
}

/// The rows of some spans of a pool, `[slots, heads * dim]`, by head, with zeros behind them up to `keys`.
pub(in crate::lm) fn gathered(
    pool: &Tensor,
    spans: &[Span],
    heads: usize,
    keys: usize,
    as_what: Gathered,
) -> Result<Tensor, LmError> {
    Ok(pool.apply_op1_no_bwd(&Gather { as_what, spans, heads, keys })?)
}
