//! From a packed projection to rotated heads, and back.

use candle_core::{DType, Tensor};
use half::bf16;

use super::{NULL, TrainKernels, at, bf16_at};
use crate::lm::LmError;
use crate::lm::kernels::launch::{Argument, Grid};
use crate::lm::train_ops::{Angles, HeadShape, Heads, Rotation};

impl TrainKernels {
    /// Rotates heads, `[rows, heads, head_dim]`, half-split, each row by its own angles. `head_dim` is a multiple of 16.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn rotate(&self, x: &Tensor, angles: &Angles<'_>, direction: Rotation) -> Result<Tensor, LmError> {
        let (_, heads, head_dim) = x.dims3()?;
        let out = self.new_tensor::<bf16>(x.shape())?;
        let rest = head_numbers(x, Some(angles), HeadShape { heads, kv_heads: 0, head_dim }, direction)?;
        let starts = [bf16_at("x", x)?, NULL, bf16_at("rotated", &out)?, NULL, NULL];
        self.launch(&self.split_heads, rest.grid, &[&starts, rest.arguments.as_slice()].concat())?;
        Ok(out)
    }

    /// Takes a packed projection, `[rows, packed_width]`, apart, q first, adding a bias, `[packed_width]`; rotates q and k
    /// where there are angles.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn split_heads(
        &self,
        packed: &Tensor,
        bias: Option<&Tensor>,
        angles: Option<&Angles<'_>>,
        shape: HeadShape,
    ) -> Result<Heads, LmError> {
        let rows = packed.dim(0)?;
        let part = |heads: usize| self.new_tensor::<bf16>((rows, heads * shape.head_dim));
        let out = Heads { q: part(shape.heads)?, k: part(shape.kv_heads)?, v: part(shape.kv_heads)? };
        let width = shape.packed_width();
        let starts = [
            at("the packed projection", packed, DType::BF16, &[rows, width])?,
            bias.map_or(Ok(NULL), |bias| at("the bias", bias, DType::BF16, &[width]))?,
            bf16_at("q", &out.q)?,
            bf16_at("k", &out.k)?,
            bf16_at("v", &out.v)?,
        ];
        let rest = head_numbers(packed, angles, shape, Rotation::Forward)?;
        self.launch(&self.split_heads, rest.grid, &[&starts, rest.arguments.as_slice()].concat())?;
        Ok(out)
    }

    /// The backward of [`Self::split_heads`]: the gradient of the packed projection. The bias's is the sum of its rows.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn join_heads(
        &self,
        d_heads: &Heads,
        angles: Option<&Angles<'_>>,
        shape: HeadShape,
    ) -> Result<Tensor, LmError> {
        let rows = d_heads.q.dim(0)?;
        let packed = self.new_tensor::<bf16>((rows, shape.packed_width()))?;
        let part = |name, tensor, heads: usize| at(name, tensor, DType::BF16, &[rows, heads * shape.head_dim]);
        let starts = [
            bf16_at("the packed projection", &packed)?,
            part("d_q", &d_heads.q, shape.heads)?,
            part("d_k", &d_heads.k, shape.kv_heads)?,
            part("d_v", &d_heads.v, shape.kv_heads)?,
        ];
        let rest = head_numbers(&packed, angles, shape, Rotation::Inverse)?;
        self.launch(&self.join_heads, rest.grid, &[&starts, rest.arguments.as_slice()].concat())?;
        Ok(packed)
    }
}

/// How the kernels between a packed projection and its heads are launched.
struct HeadLaunch {
    grid: Grid,
    arguments: [Argument; 7],
}

/// The numbers that those kernels share, their angles checked.
fn head_numbers(
    packed: &Tensor,
    angles: Option<&Angles<'_>>,
    shape: HeadShape,
    direction: Rotation,
) -> Result<HeadLaunch, LmError> {
    let rows = packed.dim(0)?;
    let HeadShape { heads, kv_heads, head_dim } = shape;
    if !head_dim.is_multiple_of(16) {
        return Err(LmError::Unsupported(format!("heads of width {head_dim} cannot be rotated; 16 must divide it")));
    }
    let table = |name, tensor| at(name, tensor, DType::F32, &[rows, head_dim / 2]);
    let [cos, sin] = match angles {
        Some(angles) => [table("cos", angles.cos)?, table("sin", angles.sin)?],
        None => [NULL, NULL],
    };
    let turn = match direction {
        Rotation::Forward => 1.0,
        Rotation::Inverse => -1.0,
    };
    let threads = rows * (heads + 2 * kv_heads) * (head_dim / 16).next_power_of_two();
    Ok(HeadLaunch {
        grid: Grid::new((threads.div_ceil(256), 1, 1), 256),
        arguments: [cos, sin, rows.into(), heads.into(), kv_heads.into(), head_dim.into(), Argument::Float(turn)],
    })
}
