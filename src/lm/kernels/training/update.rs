//! The ends of a training step: log-probabilities and their gradient, gradients of weights, and the optimiser.

use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType,
};
use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{DType, Tensor};

use super::{TrainKernels, at, bf16_at, even};
use crate::lm::LmError;
use crate::lm::kernels::launch::{Argument, Grid, Library, pointer, upload, uploaded};
use crate::lm::train_ops::{AdamwStep, AdamwTensors, TokenScores};

const TOKEN_LOGPROB: &str = include_str!(concat!(env!("OUT_DIR"), "/token_logprob.ptx"));
const EMBEDDING_BACKWARD: &str = include_str!(concat!(env!("OUT_DIR"), "/embedding_backward.ptx"));
const OPTIMIZER: &str = include_str!(concat!(env!("OUT_DIR"), "/optimizer.ptx"));

/// Most blocks of a sum of squares: four for every multiprocessor of a large device, but the same on all, since their
/// number is part of the sum's order.
const SQUARE_BLOCKS: usize = 512;

/// The functions.
#[derive(Debug)]
pub(super) struct UpdateKernels {
    token_logprobs: CudaFunction,
    logits_backward: CudaFunction,
    embedding_backward: CudaFunction,
    adamw: CudaFunction,
    sum_of_squares: CudaFunction,
}

impl UpdateKernels {
    pub(super) fn load(device: &CudaDevice) -> Result<Self, LmError> {
        let logprob = Library::load(device, TOKEN_LOGPROB)?;
        let optimizer = Library::load(device, OPTIMIZER)?;
        Ok(Self {
            token_logprobs: logprob.function("token_logprobs_bf16", 0)?,
            logits_backward: logprob.function("logits_backward_bf16", 0)?,
            embedding_backward: Library::load(device, EMBEDDING_BACKWARD)?.function("embedding_backward_bf16", 0)?,
            adamw: optimizer.function("adamw", 0)?,
            sum_of_squares: optimizer.function("sum_of_squares", 0)?,
        })
    }
}

impl TrainKernels {
    /// What rows of logits, `[rows, vocab]` bf16, say of their targets, `[rows]` u32. `temperature` is above 0.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn token_logprobs(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        temperature: f64,
    ) -> Result<TokenScores, LmError> {
        let (rows, vocab) = logits.dims2()?;
        let new = || self.new_tensor::<f32>(rows);
        let scores = TokenScores { logprob: new()?, entropy: new()?, lse: new()? };
        let to = |tensor: &Tensor| pointer(tensor).map(Argument::Pointer);
        let arguments = [
            bf16_at("logits", logits)?,
            at("targets", targets, DType::U32, &[rows])?,
            to(&scores.logprob)?,
            to(&scores.entropy)?,
            to(&scores.lse)?,
            vocab.into(),
            inverse(temperature)?,
        ];
        self.launch(&self.update.token_logprobs, Grid::new((rows, 1, 1), 512), &arguments)?;
        Ok(scores)
    }

    /// Turns logits into their gradient, in place, from that of their targets' log-probabilities, `[rows]` float32; `lse` is
    /// what [`Self::token_logprobs`] gave. A row whose gradient is 0 becomes zeros.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn logits_backward(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        lse: &Tensor,
        d_logprob: &Tensor,
        temperature: f64,
    ) -> Result<(), LmError> {
        let (rows, vocab) = logits.dims2()?;
        if rows > usize::from(u16::MAX) {
            return Err(LmError::Unsupported(format!("{rows} rows of logits are too many at once; {} fit", u16::MAX)));
        }
        let arguments = [
            bf16_at("logits", logits)?,
            at("targets", targets, DType::U32, &[rows])?,
            at("lse", lse, DType::F32, &[rows])?,
            at("d_logprob", d_logprob, DType::F32, &[rows])?,
            vocab.into(),
            inverse(temperature)?,
        ];
        self.launch(&self.update.logits_backward, Grid::new((vocab.div_ceil(8192), rows, 1), 256), &arguments)
    }

    /// Adds a linear layer's weight gradient, `d_y` (`[rows, out]`, bf16) transposed times `x` (`[rows, in]`, bf16), to
    /// `total`, `[out, in]`, float32.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape; [`LmError::Compute`] from cuBLAS.
    pub(crate) fn weight_gradient(&self, d_y: &Tensor, x: &Tensor, total: &Tensor) -> Result<(), LmError> {
        let ((rows, outs), (_, ins)) = (d_y.dims2()?, x.dims2()?);
        at("x", x, DType::BF16, &[rows, ins])?;
        at("d_y", d_y, DType::BF16, &[rows, outs])?;
        at("the weight's gradient", total, DType::F32, &[outs, ins])?;
        let size = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        let (m, n, k) = (size(ins), size(outs), size(rows));
        let one: *const f32 = &1.0;
        let (bf16, float) = (cudaDataType::CUDA_R_16BF, cudaDataType::CUDA_R_32F);
        let (x, d_y, total) = (pointer(x)? as *const _, pointer(d_y)? as *const _, pointer(total)? as *mut _);
        // Row-major [a, b] is column-major [b, a]: total' += x' d_y.
        // SAFETY: the three matrices are of the sizes said, as was checked, and the handle is of the stream on which they
        // are made, used and freed; the factors are read before the call returns.
        unsafe {
            gemm_ex(
                *self.device.cublas_handle().handle(),
                cublasOperation_t::CUBLAS_OP_N,
                cublasOperation_t::CUBLAS_OP_T,
                m,
                n,
                k,
                one.cast(),
                x,
                bf16,
                m,
                d_y,
                bf16,
                n,
                one.cast(),
                total,
                float,
                m,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
            .w()?;
        }
        Ok(())
    }

    /// Adds the rows of `d_x`, `[rows, width]`, to the rows of their tokens in `total`, `[vocab, width]`, float32.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape, or a token beyond the vocabulary.
    pub(crate) fn embedding_backward(&self, d_x: &Tensor, tokens: &[u32], total: &Tensor) -> Result<(), LmError> {
        let ((_, width), (vocab, _)) = (d_x.dims2()?, total.dims2()?);
        even("d_x", width)?;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            return Err(LmError::Unsupported(format!("token {token} is beyond the vocabulary of {vocab}")));
        }
        let sorted = Sorted::new(tokens);
        // Kept in names: the kernel is queued before they are freed.
        let [distinct, starts, order] =
            [&sorted.distinct, &sorted.starts, &sorted.order].map(|numbers| upload(&self.device, numbers));
        let (distinct, starts, order) = (distinct?, starts?, order?);
        let list = |slice| Argument::Pointer(uploaded(&self.device, slice));
        let arguments = [
            at("d_x", d_x, DType::BF16, &[tokens.len(), width])?,
            list(&distinct),
            list(&starts),
            list(&order),
            at("the embedding's gradient", total, DType::F32, &[vocab, width])?,
            vocab.into(),
            width.into(),
        ];
        let grid = Grid::new((sorted.distinct.len(), width.div_ceil(1024), 1), 128);
        self.launch(&self.update.embedding_backward, grid, &arguments)
    }

    /// The sum of the squares of float32 tensors of any shape. Waits for the device, once.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for a tensor of another type; [`LmError::Compute`].
    pub(crate) fn sum_of_squares(&self, tensors: &[&Tensor]) -> Result<f64, LmError> {
        let blocks = |tensor: &&Tensor| tensor.elem_count().div_ceil(4096).min(SQUARE_BLOCKS);
        let total: usize = tensors.iter().map(blocks).sum();
        if total == 0 {
            return Ok(0.0);
        }
        let partial = self.new_tensor::<f64>(total)?;
        let mut first = pointer(&partial)?;
        for tensor in tensors {
            let blocks = blocks(tensor);
            let arguments =
                [at("a gradient", tensor, DType::F32, tensor.dims())?, Argument::Pointer(first), elements(tensor)];
            self.launch(&self.update.sum_of_squares, Grid::new((blocks, 1, 1), 256), &arguments)?;
            first += (blocks * size_of::<f64>()) as u64;
        }
        Ok(partial.to_vec1::<f64>()?.iter().sum())
    }

    /// One step of `AdamW` with decoupled decay, in place.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape, or step 0.
    pub(crate) fn adamw(&self, tensors: &AdamwTensors<'_>, step: &AdamwStep) -> Result<(), LmError> {
        if step.step == 0 {
            return Err(LmError::Unsupported("AdamW's steps are counted from 1, not 0".to_owned()));
        }
        let shape = tensors.weight.dims();
        let float = |name, tensor| at(name, tensor, DType::F32, shape);
        let correction = |beta: f64| (1.0 - beta.powf(f64::from(step.step))).recip();
        let arguments = [
            at("the low bits", tensors.low_bits, DType::I16, shape)?,
            float("the first moment", tensors.first_moment)?,
            float("the second moment", tensors.second_moment)?,
            float("the gradient", tensors.gradient)?,
            at("the weight", tensors.weight, DType::BF16, shape)?,
            elements(tensors.weight),
            step.learning_rate.into(),
            step.beta1.into(),
            step.beta2.into(),
            step.eps.into(),
            step.weight_decay.into(),
            correction(step.beta1).into(),
            correction(step.beta2).into(),
            step.gradient_scale.into(),
        ];
        let blocks = tensors.weight.elem_count().div_ceil(1024);
        self.launch(&self.update.adamw, Grid::new((blocks, 1, 1), 256), &arguments)
    }
}

/// How many elements a tensor has, for kernels that count beyond 32 bits.
fn elements(tensor: &Tensor) -> Argument {
    Argument::Long(i64::try_from(tensor.elem_count()).unwrap_or(i64::MAX))
}

/// The factor of logits that a temperature is.
fn inverse(temperature: f64) -> Result<Argument, LmError> {
    if temperature > 0.0 && temperature.is_finite() {
        return Ok(temperature.recip().into());
    }
    Err(LmError::Unsupported(format!("temperature {temperature} has no log-probabilities; it must be above 0")))
}

/// The rows of each token, in the order of the tokens and, of one token, of the rows.
#[derive(Debug, PartialEq, Eq)]
struct Sorted {
    /// Every token that occurs, once.
    distinct: Vec<u32>,
    /// Where each token's rows start in `order`; one more than tokens.
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl Sorted {
    fn new(tokens: &[u32]) -> Self {
        let mut pairs: Vec<(u32, u32)> = tokens.iter().copied().zip(0..).collect();
        pairs.sort_unstable();
        let mut sorted = Self { distinct: Vec::new(), starts: Vec::new(), order: Vec::new() };
        for (token, row) in pairs {
            if sorted.distinct.last() != Some(&token) {
                sorted.distinct.push(token);
                sorted.starts.push(sorted.order.len() as u32);
            }
            sorted.order.push(row);
        }
        sorted.starts.push(sorted.order.len() as u32);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_listed_by_token_in_their_order() {
        let sorted = Sorted::new(&[7, 2, 7, 9, 2, 7]);
        assert_eq!(sorted.distinct, [2, 7, 9]);
        assert_eq!(sorted.starts, [0, 2, 5, 6]);
        assert_eq!(sorted.order, [1, 4, 0, 2, 5, 3]);
    }
}
