//! The root-mean-square norm, the gated activation and addition in place.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, InplaceOp2, Layout, Shape, Tensor};

use super::{contiguous, contiguous_mut, exp, lane_sum, over_rows, over_rows_mut};
use crate::lm::LmError;
use crate::lm::config::Activation;

/// A row over the root of its mean square, times a weight.
#[derive(Debug, Clone, Copy)]
struct Norm {
    eps: f32,
}

/// One over the root of a row's mean square.
#[inline(always)]
pub(super) fn norm_factor(row: &[f32], eps: f32) -> f32 {
    let mean_square = lane_sum(row, |number| number * number) / row.len() as f32;
    1.0 / (mean_square + eps).sqrt()
}

/// The activated first half of each row times its second half.
#[derive(Debug, Clone, Copy)]
struct Gated(Activation);

impl Gated {
    #[inline(always)]
    fn row(self, row: &[f32], out: &mut [f32]) {
        let (gate, up) = row.split_at(row.len() / 2);
        let pairs = out.iter_mut().zip(gate.iter().zip(up));
        match self.0 {
            Activation::Silu => pairs.for_each(|(out, (gate, up))| *out = gate / (1.0 + exp(-gate)) * up),
            Activation::GeluTanh => pairs.for_each(|(out, (gate, up))| *out = gelu_tanh(*gate) * up),
        }
    }
}

/// The tanh approximation of GELU (Hendrycks and Gimpel, 2016).
fn gelu_tanh(x: f32) -> f32 {
    let inner = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

/// Addition in place.
#[derive(Debug, Clone, Copy)]
struct Add;

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (numbers, weight) = (contiguous(x, x_layout)?, contiguous(weight, weight_layout)?);
        let out = over_rows(numbers, weight.len(), weight.len(), |row, out| {
            let factor = norm_factor(row, self.eps);
            out.iter_mut()
                .zip(row.iter().zip(weight))
                .for_each(|(out, (number, weight))| *out = number * factor * weight);
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let numbers = contiguous(storage, layout)?;
        let (rows, width) = layout.shape().dims2()?;
        let out = over_rows(numbers, width, width / 2, |row, out| self.row(row, out));
        Ok((CpuStorage::F32(out), Shape::from((rows, width / 2))))
    }
}

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        total: &mut CpuStorage,
        total_layout: &Layout,
        added: &CpuStorage,
        added_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (total, added) = (contiguous_mut(total, total_layout)?, contiguous(added, added_layout)?);
        let width = total_layout.dims().last().copied().unwrap_or(1);
        over_rows_mut(total, width, |index, total| {
            let added = added.get(index * width..).unwrap_or_default();
            total.iter_mut().zip(added).for_each(|(total, added)| *total += added);
        });
        Ok(())
    }
}

/// The root-mean-square norm over the last dimension.
pub(in crate::lm) fn norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
    Ok(x.contiguous()?.apply_op2_no_bwd(weight, &Norm { eps: eps as f32 })?)
}

/// The activated first half of the columns of `[rows, 2 * inner]` times the second half.
pub(in crate::lm) fn gated(gate_up: &Tensor, activation: Activation) -> Result<Tensor, LmError> {
    Ok(gate_up.apply_op1_no_bwd(&Gated(activation))?)
}

/// `total += added`, both of one shape. `total` is nobody else's.
pub(in crate::lm) fn add(total: &Tensor, added: &Tensor) -> Result<(), LmError> {
    Ok(total.inplace_op2(added, &Add)?)
}
