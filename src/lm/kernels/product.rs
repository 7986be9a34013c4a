//! The product that a layer ends with: 16-bit factors, a float32 sum. Where a sum's own 16 bits would be too few, it is
//! added to what is there without being rounded or cut off at float16's range.

use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType,
};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{DType, Tensor};

use super::launch::pointer;
use crate::lm::LmError;
use crate::lm::cpu_product::Before;

/// `x` (`[rows, in]`) times the transpose of `weight` (`[out, in]`), both float16 or both bfloat16, into `total`
/// (`[rows, out]`, float32).
pub(super) fn product(
    device: &CudaDevice,
    x: &Tensor,
    weight: &Tensor,
    total: &Tensor,
    before: Before,
) -> Result<(), LmError> {
    let ((rows, ins), (outs, _)) = (x.dims2()?, weight.dims2()?);
    let kind = match (x.dtype(), weight.dtype()) {
        (DType::F16, DType::F16) => cudaDataType::CUDA_R_16F,
        (DType::BF16, DType::BF16) => cudaDataType::CUDA_R_16BF,
        (x, weight) => return Err(LmError::Unsupported(format!("a product of {x:?} and {weight:?} has no kernel"))),
    };
    if weight.dim(1)? != ins || total.dims() != [rows, outs] || total.dtype() != DType::F32 {
        return Err(LmError::Unsupported(format!(
            "a product of {:?} and {:?} does not fit {:?} {:?}",
            x.dims(),
            weight.dims(),
            total.dtype(),
            total.dims()
        )));
    }
    if rows == 0 {
        return Ok(());
    }
    let size = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let (m, n, k) = (size(outs), size(rows), size(ins));
    let one: *const f32 = &1.0;
    let keep: *const f32 = if before == Before::Kept { &1.0 } else { &0.0 };
    let (x, weight, total) = (pointer(x)? as *const _, pointer(weight)? as *const _, pointer(total)? as *mut _);
    // Row-major [a, b] is column-major [b, a]: total' = weight x'.
    // SAFETY: the three matrices are of the sizes said, as was checked, and the handle is of the stream on which they are
    // made, used and freed; the factors are read before the call returns.
    unsafe {
        gemm_ex(
            *device.cublas_handle().handle(),
            cublasOperation_t::CUBLAS_OP_T,
            cublasOperation_t::CUBLAS_OP_N,
            m,
            n,
            k,
            one.cast(),
            weight,
            kind,
            k,
            x,
            kind,
            k,
            keep.cast(),
            total,
            cudaDataType::CUDA_R_32F,
            m,
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
        .w()?;
    }
    Ok(())
}
