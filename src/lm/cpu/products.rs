//! Products as operations on tensors.

use candle_core::{CpuStorage, CustomOp2, InplaceOp3, Layout, Shape, Tensor, bail};

use super::{contiguous_mut, numbers_of};
use crate::lm::LmError;
use crate::lm::cpu_product::{Before, Matrix, multiply};

/// `[rows, in]` or `[batch, rows, in]` times `[in, columns]`, with as many batches.
#[derive(Debug, Clone, Copy)]
struct Product;

/// A matrix of a batch.
fn matrix<'m>(numbers: &'m [f32], layout: &Layout, index: usize) -> candle_core::Result<Matrix<'m>> {
    let (shape, strides, skip) = match (layout.dims(), layout.stride()) {
        ([rows, columns], [down, across]) => ((*rows, *columns), (*down, *across), 0),
        ([_, rows, columns], [next, down, across]) => ((*rows, *columns), (*down, *across), index * next),
        (dims, _) => bail!("a product of {dims:?} is not known"),
    };
    let numbers = numbers.get(layout.start_offset() + skip..).unwrap_or_default();
    Ok(Matrix { numbers, shape, strides })
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (a, b) = (numbers_of(a)?, numbers_of(b)?);
        let (rows, columns) = (matrix(a, a_layout, 0)?.shape.0, matrix(b, b_layout, 0)?.shape.1);
        let mut dims = a_layout.dims().to_vec();
        let batches = |layout: &Layout| if layout.dims().len() == 3 { layout.dims().first().copied() } else { None };
        if batches(a_layout) != batches(b_layout) {
            bail!("a product of {:?} and {:?} is not known", a_layout.dims(), b_layout.dims());
        }
        if let Some(last) = dims.last_mut() {
            *last = columns;
        }
        let mut out = vec![0f32; dims.iter().product()];
        for (index, out) in out.chunks_exact_mut((rows * columns).max(1)).enumerate() {
            multiply(matrix(a, a_layout, index)?, matrix(b, b_layout, index)?, out, Before::Overwritten)?;
        }
        Ok((CpuStorage::F32(out), dims.into()))
    }
}

/// A product that is added to what is there.
#[derive(Debug, Clone, Copy)]
struct AddProduct;

impl InplaceOp3 for AddProduct {
    fn name(&self) -> &'static str {
        "add-product"
    }

    fn cpu_fwd(
        &self,
        total: &mut CpuStorage,
        total_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (a, b) = (matrix(numbers_of(a)?, a_layout, 0)?, matrix(numbers_of(b)?, b_layout, 0)?);
        multiply(a, b, contiguous_mut(total, total_layout)?, Before::Kept)
    }
}

/// `a` times `b`, with any strides.
pub(in crate::lm) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor, LmError> {
    Ok(a.apply_op2_no_bwd(b, &Product)?)
}

/// `total += a * b`. `total`, `[rows, columns]`, is nobody else's.
pub(in crate::lm) fn add_product(total: &Tensor, a: &Tensor, b: &Tensor) -> Result<(), LmError> {
    Ok(total.inplace_op3(a, b, &AddProduct)?)
}
