//! A linear layer with its backward: a weight, and low-rank adapters where they are learnt.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::ops::Ops;
use super::parameters::{Gradients, Id, Parameters};
use crate::lm::LmError;

/// Where a linear layer's numbers are.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    /// `[out, in]`.
    pub(super) weight: Id,
    /// Adapters of the parts of a packed weight, top to bottom, apart from each other.
    pub(super) adapters: Vec<Adapter>,
}

/// A low-rank addition to some rows of a weight: `scale * B A` (LoRA, arXiv:2106.09685).
#[derive(Debug, Clone)]
pub(super) struct Adapter {
    /// The rows of the weight.
    pub(super) rows: Range<usize>,
    /// `[rank, in]`.
    pub(super) a: Id,
    /// `[rows, rank]`.
    pub(super) b: Id,
    /// alpha / rank.
    pub(super) scale: f64,
}

impl Linear {
    /// `[rows, in]` to `[rows, out]`.
    pub(super) fn forward(&self, parameters: &Parameters, x: &Tensor) -> Result<Tensor, LmError> {
        let y = x.matmul(&parameters.value(self.weight).t()?)?;
        if self.adapters.is_empty() {
            return Ok(y);
        }
        Ok((&y + self.added(parameters, x, y.dim(1)?)?)?)
    }

    /// What the adapters add, `[rows, out]`.
    fn added(&self, parameters: &Parameters, x: &Tensor, out: usize) -> Result<Tensor, LmError> {
        let (mut parts, mut at) = (Vec::new(), 0);
        let zeros = |width: usize| Tensor::zeros((x.dim(0)?, width), x.dtype(), x.device());
        for adapter in &self.adapters {
            if adapter.rows.start > at {
                parts.push(zeros(adapter.rows.start - at)?);
            }
            let inner = x.matmul(&parameters.value(adapter.a).t()?)?;
            parts.push((inner.matmul(&parameters.value(adapter.b).t()?)? * adapter.scale)?);
            at = adapter.rows.end;
        }
        if out > at {
            parts.push(zeros(out - at)?);
        }
        Ok(Tensor::cat(&parts, 1)?)
    }

    /// Gives `d_x`; adds to the totals of what is learnt.
    pub(super) fn backward(
        &self,
        ops: &Ops,
        parameters: &Parameters,
        x: &Tensor,
        d_y: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor, LmError> {
        let mut d_x = d_y.matmul(parameters.value(self.weight))?;
        if let Some(total) = gradients.total(self.weight) {
            ops.weight_gradient(d_y, x, total)?;
        }
        for adapter in &self.adapters {
            let (a, b) = (parameters.value(adapter.a), parameters.value(adapter.b));
            let d_part = (d_y.narrow(1, adapter.rows.start, adapter.rows.len())?.contiguous()? * adapter.scale)?;
            let inner = x.matmul(&a.t()?)?;
            let d_inner = d_part.matmul(b)?;
            if let Some(total) = gradients.total(adapter.b) {
                ops.weight_gradient(&d_part, &inner, total)?;
            }
            if let Some(total) = gradients.total(adapter.a) {
                ops.weight_gradient(&d_inner, x, total)?;
            }
            d_x = (d_x + d_inner.matmul(a)?)?;
        }
        Ok(d_x)
    }

    /// The weight with what its adapters add, `[out, in]`: what an engine without adapters computes with. Added in float32 at
    /// least and rounded once, to the weight's own format.
    pub(super) fn merged(&self, parameters: &Parameters) -> Result<Tensor, LmError> {
        let weight = parameters.value(self.weight);
        if self.adapters.is_empty() {
            return Ok(weight.clone());
        }
        let exact = if weight.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let value = |id| parameters.value(id).to_dtype(exact);
        let (mut parts, mut at) = (Vec::new(), 0);
        for adapter in &self.adapters {
            parts.push(weight.narrow(0, at, adapter.rows.start - at)?);
            let added = value(adapter.b)?.matmul(&value(adapter.a)?)?;
            let own = weight.narrow(0, adapter.rows.start, adapter.rows.len())?.to_dtype(exact)?;
            parts.push((own + (added * adapter.scale)?)?.to_dtype(weight.dtype())?);
            at = adapter.rows.end;
        }
        parts.push(weight.narrow(0, at, weight.dim(0)? - at)?);
        parts.retain(|part| part.elem_count() > 0);
        Ok(Tensor::cat(&parts, 0)?)
    }
}
