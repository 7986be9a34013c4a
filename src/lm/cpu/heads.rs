//! What becomes of a packed projection before attention: bias, norms of heads, rotation, and keys and values into their
//! slots.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor};

use super::rows::norm_factor;
use super::{contiguous, contiguous_mut, over_rows_mut};
use crate::lm::LmError;

/// What turns rows of `[heads of q | heads of k | heads of v]` into what attention takes.
#[derive(Debug, Clone)]
pub(in crate::lm) struct HeadRotation {
    /// Heads of queries.
    pub(in crate::lm) heads: usize,
    /// Heads of keys, and as many of values.
    pub(in crate::lm) kv_heads: usize,
    /// Elements of a head.
    pub(in crate::lm) head_dim: usize,
    /// Added first; as wide as a row.
    pub(in crate::lm) bias: Option<Vec<f32>>,
    /// Weights of the norms of each head of q and of k.
    pub(in crate::lm) norms: Option<(Vec<f32>, Vec<f32>)>,
    /// Of these norms.
    pub(in crate::lm) eps: f32,
}

impl HeadRotation {
    /// Half-split pairs, by the row's cosines and sines.
    #[inline(always)]
    fn row(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        if let Some(bias) = &self.bias {
            row.iter_mut().zip(bias).for_each(|(number, bias)| *number += bias);
        }
        let rotated = row.chunks_exact_mut(self.head_dim).take(self.heads + self.kv_heads);
        for (index, head) in rotated.enumerate() {
            if let Some((of_q, of_k)) = &self.norms {
                let factor = norm_factor(head, self.eps);
                let weight = if index < self.heads { of_q } else { of_k };
                head.iter_mut().zip(weight).for_each(|(number, weight)| *number = *number * factor * weight);
            }
            let (low, high) = head.split_at_mut(self.head_dim / 2);
            for ((low, high), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
                (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
            }
        }
    }
}

impl InplaceOp3 for HeadRotation {
    fn name(&self) -> &'static str {
        "head-rotation"
    }

    fn cpu_fwd(
        &self,
        qkv: &mut CpuStorage,
        layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (_, width) = layout.shape().dims2()?;
        let (cos, sin, half) = (contiguous(cos, cos_layout)?, contiguous(sin, sin_layout)?, self.head_dim / 2);
        over_rows_mut(contiguous_mut(qkv, layout)?, width, |index, row| {
            let angles = index * half..(index + 1) * half;
            let (cos, sin) = (cos.get(angles.clone()), sin.get(angles));
            self.row(row, cos.unwrap_or_default(), sin.unwrap_or_default());
        });
        Ok(())
    }
}

/// Adds the bias, norms the heads and rotates them, in a packed projection, `[rows, width]`, that is nobody else's.
/// `cos` and `sin`: `[rows, head_dim / 2]`.
pub(in crate::lm) fn rotate(qkv: &Tensor, cos: &Tensor, sin: &Tensor, rotation: &HeadRotation) -> Result<(), LmError> {
    Ok(qkv.inplace_op3(cos, sin, rotation)?)
}

/// Which columns of which rows go to which slots.
#[derive(Debug, Clone, Copy)]
pub(in crate::lm) struct Runs<'r> {
    /// The first column.
    pub(in crate::lm) column: usize,
    /// First row, first slot, and how many.
    pub(in crate::lm) runs: &'r [(usize, usize, usize)],
}

impl InplaceOp2 for Runs<'_> {
    fn name(&self) -> &'static str {
        "put"
    }

    fn cpu_fwd(
        &self,
        pool: &mut CpuStorage,
        pool_layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> candle_core::Result<()> {
        let ((_, width), (_, row_width)) = (pool_layout.shape().dims2()?, rows_layout.shape().dims2()?);
        let (pool, rows) = (contiguous_mut(pool, pool_layout)?, contiguous(rows, rows_layout)?);
        for (row, slot, len) in self.runs {
            let from = rows.chunks_exact(row_width).skip(*row).take(*len);
            let to = pool.chunks_exact_mut(width).skip(*slot).take(*len);
            for (from, to) in from.zip(to) {
                if let Some(from) = from.get(self.column..self.column + width) {
                    to.copy_from_slice(from);
                }
            }
        }
        Ok(())
    }
}

/// Copies columns of rows into the slots of a pool, as many as the pool is wide.
pub(in crate::lm) fn put(pool: &Tensor, rows: &Tensor, runs: Runs<'_>) -> Result<(), LmError> {
    Ok(pool.inplace_op2(rows, &runs)?)
}
