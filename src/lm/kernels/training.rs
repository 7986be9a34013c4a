//! Training's operations, forward and backward, as plain functions: bf16 tensors on the device, float32 sums. The caller
//! knows the order of a decoder's layers; nothing here records a graph.
//!
//! Gradients of parameters are ADDED to float32 tensors that the caller keeps, in place. All sums run in a fixed order, so
//! that equal inputs give equal bits. Every tensor must be contiguous; widths are multiples of 8.

mod attention;
mod heads;
#[cfg(test)]
mod tests;
mod update;

use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::{DType, Device, Shape, Tensor};
use half::bf16;

use self::attention::AttentionKernels;
pub(crate) use self::attention::AttentionSegments;
use self::update::UpdateKernels;
use super::launch::{self, Argument, Grid, Library, pointer};
use super::{ACTIVATION, NORM};
use crate::lm::LmError;
use crate::lm::train_ops::NormInput;

const NORM_BACKWARD: &str = include_str!(concat!(env!("OUT_DIR"), "/norm_backward.ptx"));
const COLUMN_SUM: &str = include_str!(concat!(env!("OUT_DIR"), "/column_sum.ptx"));
const ROTATE: &str = include_str!(concat!(env!("OUT_DIR"), "/rotate.ptx"));

const NULL: Argument = Argument::Pointer(0);
/// Elements that a thread moves at a time.
const VECTOR: usize = 8;
/// Widest row of a norm.
const WIDEST: usize = 8192;

/// The kernels of training, loaded on one GPU.
#[derive(Debug)]
pub(crate) struct TrainKernels {
    device: CudaDevice,
    processors: usize,
    add_rms_norm: CudaFunction,
    rms_norm: CudaFunction,
    rms_norm_heads: CudaFunction,
    rms_norm_backward: CudaFunction,
    column_sums: CudaFunction,
    add_column_sums: CudaFunction,
    split_heads: CudaFunction,
    join_heads: CudaFunction,
    gated: CudaFunction,
    gated_backward: CudaFunction,
    attention: AttentionKernels,
    update: UpdateKernels,
}

impl TrainKernels {
    /// The kernels on a GPU; `None` on the CPU.
    ///
    /// # Errors
    /// [`LmError::Compute`] when they cannot be loaded.
    pub(crate) fn for_device(device: &Device) -> Result<Option<Self>, LmError> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let [norm, norm_backward, column_sum, rotate, activation] =
            [NORM, NORM_BACKWARD, COLUMN_SUM, ROTATE, ACTIVATION].map(|ptx| Library::load(device, ptx));
        let (norm, column_sum, rotate, activation) = (norm?, column_sum?, rotate?, activation?);
        Ok(Some(Self {
            add_rms_norm: norm.function("add_rms_norm_bf16", 0)?,
            rms_norm: norm.function("rms_norm_bf16", 0)?,
            rms_norm_heads: norm.function("rms_norm_heads_bf16", 0)?,
            rms_norm_backward: norm_backward?.function("rms_norm_backward_bf16", 0)?,
            column_sums: column_sum.function("column_sums_bf16", 0)?,
            add_column_sums: column_sum.function("add_column_sums", 0)?,
            split_heads: rotate.function("split_heads_bf16", 0)?,
            join_heads: rotate.function("join_heads_bf16", 0)?,
            gated: activation.function("swiglu_bf16", 0)?,
            gated_backward: activation.function("swiglu_backward_bf16", 0)?,
            attention: AttentionKernels::load(device)?,
            update: UpdateKernels::load(device)?,
            processors: launch::processors(device)?,
            device: device.clone(),
        }))
    }

    /// Root-mean-square norm of the last dimension, 8 to 8192 wide: `x / sqrt(mean(x^2) + eps) * weight`.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn rms_norm(&self, input: &NormInput<'_>) -> Result<Tensor, LmError> {
        let (rows, width) = norm_shape(input)?;
        let out = self.new_tensor::<bf16>(input.x.shape())?;
        let ends = [bf16_at("x", input.x)?, bf16_at("weight", input.weight)?, bf16_at("y", &out)?];
        let lanes = lanes(width);
        if lanes <= 32 {
            let rest = [rows.into(), width.into(), input.eps.into(), lanes.into()];
            let grid = Grid::new(((rows * lanes).div_ceil(256), 1, 1), 256);
            self.launch(&self.rms_norm_heads, grid, &[&ends, rest.as_slice()].concat())?;
        } else {
            let rest = [width.into(), input.eps.into(), Argument::Int(0)];
            self.launch(&self.rms_norm, Grid::new((rows, 1, 1), lanes), &[&ends, rest.as_slice()].concat())?;
        }
        Ok(out)
    }

    /// `x + delta`, rounded to bf16, and its norm.
    ///
    /// # Errors
    /// As [`Self::rms_norm`].
    pub(crate) fn add_rms_norm(&self, input: &NormInput<'_>, delta: &Tensor) -> Result<(Tensor, Tensor), LmError> {
        let (rows, width) = norm_shape(input)?;
        let sum = self.new_tensor::<bf16>(input.x.shape())?;
        let out = self.new_tensor::<bf16>(input.x.shape())?;
        let arguments = [
            bf16_at("x", input.x)?,
            at("delta", delta, DType::BF16, input.x.dims())?,
            bf16_at("sum", &sum)?,
            bf16_at("weight", input.weight)?,
            bf16_at("y", &out)?,
            width.into(),
            input.eps.into(),
            Argument::Int(0),
        ];
        let threads = (width / VECTOR).next_multiple_of(32);
        self.launch(&self.add_rms_norm, Grid::new((rows, 1, 1), threads), &arguments)?;
        Ok((sum, out))
    }

    /// The gradient of a norm's `x`, plus `d_residual` where there is one (the gradient that reaches `x` beside the
    /// norm). The weight's is added to `d_weight`, `[width]`, float32.
    ///
    /// # Errors
    /// As [`Self::rms_norm`].
    pub(crate) fn rms_norm_backward(
        &self,
        input: &NormInput<'_>,
        d_y: &Tensor,
        d_residual: Option<&Tensor>,
        d_weight: &Tensor,
    ) -> Result<Tensor, LmError> {
        let (rows, width) = norm_shape(input)?;
        let like_x = |name, tensor| at(name, tensor, DType::BF16, input.x.dims());
        let lanes = lanes(width);
        let threads = if lanes <= 32 { 256 } else { lanes };
        let slots = threads / lanes;
        // As many blocks as fit the device at once: each leaves one sum a slot.
        let blocks = rows.div_ceil(slots).min(self.processors * (1024 / threads).clamp(1, 8));
        let d_x = self.new_tensor::<bf16>(input.x.shape())?;
        let partial = self.new_tensor::<f32>((blocks * slots, width))?;
        let arguments = [
            bf16_at("x", input.x)?,
            bf16_at("weight", input.weight)?,
            like_x("d_y", d_y)?,
            d_residual.map_or(Ok(NULL), |tensor| like_x("d_residual", tensor))?,
            like_x("d_x", &d_x)?,
            Argument::Pointer(pointer(&partial)?),
            rows.into(),
            width.into(),
            input.eps.into(),
            lanes.into(),
        ];
        self.launch(&self.rms_norm_backward, Grid::new((blocks, 1, 1), threads), &arguments)?;
        self.add_columns(&partial, at("d_weight", d_weight, DType::F32, &[width])?)?;
        Ok(d_x)
    }

    /// Adds the sum of `d_y`'s rows, `[rows, width]`, to `d_bias`, `[width]`, float32.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn bias_backward(&self, d_y: &Tensor, d_bias: &Tensor) -> Result<(), LmError> {
        let (rows, width) = d_y.dims2()?;
        even("d_y", width)?;
        let columns = width.div_ceil(256);
        let chunks = rows.div_ceil(64).min((2 * self.processors).div_ceil(columns));
        let partial = self.new_tensor::<f32>((8 * chunks, width))?;
        let arguments = [bf16_at("d_y", d_y)?, Argument::Pointer(pointer(&partial)?), rows.into(), width.into()];
        self.launch(&self.column_sums, Grid::new((columns, chunks, 1), 256), &arguments)?;
        self.add_columns(&partial, at("d_bias", d_bias, DType::F32, &[width])?)
    }

    /// Adds the sums of the columns of `[count, width]`, float32, to a total.
    fn add_columns(&self, partial: &Tensor, total: Argument) -> Result<(), LmError> {
        let (count, width) = partial.dims2()?;
        let arguments = [Argument::Pointer(pointer(partial)?), total, count.into(), width.into()];
        self.launch(&self.add_column_sums, Grid::new((width.div_ceil(32), 1, 1), 1024), &arguments)
    }

    /// `silu(gate) * up` of a packed projection, `[rows, 2 * inner]`, gate first: `[rows, inner]`.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn gated(&self, gate_up: &Tensor) -> Result<Tensor, LmError> {
        let (rows, inner) = gated_shape(gate_up)?;
        let out = self.new_tensor::<bf16>((rows, inner))?;
        let arguments = [bf16_at("gate_up", gate_up)?, bf16_at("the gated values", &out)?, inner.into()];
        self.launch(&self.gated, Grid::new((rows, inner.div_ceil(2048), 1), 256), &arguments)?;
        Ok(out)
    }

    /// The gradient of [`Self::gated`]'s packed projection from its output's, `[rows, inner]`.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn gated_backward(&self, gate_up: &Tensor, d_y: &Tensor) -> Result<Tensor, LmError> {
        let (rows, inner) = gated_shape(gate_up)?;
        let out = self.new_tensor::<bf16>((rows, 2 * inner))?;
        let d_y = at("d_y", d_y, DType::BF16, &[rows, inner])?;
        let arguments = [bf16_at("gate_up", gate_up)?, d_y, bf16_at("d_gate_up", &out)?, inner.into()];
        self.launch(&self.gated_backward, Grid::new((rows, inner.div_ceil(2048), 1), 256), &arguments)?;
        Ok(out)
    }

    fn launch(&self, function: &CudaFunction, grid: Grid, arguments: &[Argument]) -> Result<(), LmError> {
        launch::launch(&self.device, function, grid, arguments)
    }

    /// A tensor for a kernel to fill.
    fn new_tensor<T: CudaDType + candle_core::cuda_backend::cudarc::driver::DeviceRepr>(
        &self,
        shape: impl Into<Shape>,
    ) -> Result<Tensor, LmError> {
        launch::uninitialised::<T>(&self.device, shape)
    }
}

/// Threads that share a row: whole warps, or for short rows a power of two.
fn lanes(width: usize) -> usize {
    let vectors = width / VECTOR;
    if vectors <= 32 { vectors.next_power_of_two() } else { vectors.next_multiple_of(32) }
}

/// Rows and width of a norm.
fn norm_shape(input: &NormInput<'_>) -> Result<(usize, usize), LmError> {
    let width = input.weight.dims1()?;
    even("x", width)?;
    if input.x.dims().last() != Some(&width) || width > WIDEST {
        return Err(LmError::Unsupported(format!(
            "x is {:?} and the norm's weight {width} wide; x must end in that width, at most {WIDEST}",
            input.x.dims()
        )));
    }
    Ok((input.x.elem_count() / width, width))
}

/// Rows and columns that [`TrainKernels::gated`] gives.
fn gated_shape(gate_up: &Tensor) -> Result<(usize, usize), LmError> {
    let (rows, width) = gate_up.dims2()?;
    even("gate_up", width / 2)?;
    Ok((rows, width / 2))
}

/// Rows must be whole vectors.
fn even(name: &str, width: usize) -> Result<(), LmError> {
    if width > 0 && width.is_multiple_of(VECTOR) {
        return Ok(());
    }
    Err(LmError::Unsupported(format!("{name} has rows of {width}; the kernels need a multiple of {VECTOR}")))
}

/// Where a bf16 tensor of any shape lies.
fn bf16_at(name: &str, tensor: &Tensor) -> Result<Argument, LmError> {
    at(name, tensor, DType::BF16, tensor.dims())
}

/// Where a tensor lies that must have a type and a shape, and start where 16 bytes can be read at once.
fn at(name: &str, tensor: &Tensor, dtype: DType, shape: &[usize]) -> Result<Argument, LmError> {
    if tensor.dtype() != dtype || tensor.dims() != shape || tensor.elem_count() == 0 {
        return Err(LmError::Unsupported(format!(
            "{name} is {:?} {:?}; the kernel needs {dtype:?} {shape:?}, not empty",
            tensor.dtype(),
            tensor.dims()
        )));
    }
    let start = pointer(tensor)?;
    if !start.is_multiple_of(16) {
        return Err(LmError::Unsupported(format!(
            "{name} does not start at a multiple of 16 bytes; make it contiguous"
        )));
    }
    Ok(Argument::Pointer(start))
}
