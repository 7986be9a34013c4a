//! The operations of training in plain tensor operations, each forward with its backward: what runs on the CPU, in
//! float32 or float64, and the oracle of the kernels. Sums that parameters gather are added to a total.

use std::ops::Range;

use candle_core::{D, DType, Tensor};

use crate::lm::LmError;
use crate::lm::train_ops::{HeadShape, Heads};

/// 1 / sqrt(mean(x^2) + eps) of every row, `[rows, 1]`.
fn inverse_rms(x: &Tensor, eps: f64) -> Result<Tensor, LmError> {
    Ok(((x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?).recip()?)
}

/// Root-mean-square norm of the rows of `[rows, width]`.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
    Ok(x.broadcast_mul(&inverse_rms(x, eps)?)?.broadcast_mul(weight)?)
}

/// Gives `d_x`; adds to the weight's total.
pub(super) fn rms_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    d_y: &Tensor,
    d_weight: Option<&mut Tensor>,
) -> Result<Tensor, LmError> {
    let inverse = inverse_rms(x, eps)?;
    let unit = x.broadcast_mul(&inverse)?;
    if let Some(total) = d_weight {
        add(total, &(d_y * &unit)?.sum(0)?)?;
    }
    let weighted = d_y.broadcast_mul(weight)?;
    let along = (&weighted * &unit)?.mean_keepdim(D::Minus1)?;
    Ok((weighted - unit.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?)
}

/// Rotates the halves of every head of `[rows, heads, dim]`; `inverse` turns back, which is its own backward.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, inverse: bool) -> Result<Tensor, LmError> {
    let half = x.dim(2)? / 2;
    let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    let sin = if inverse { sin.neg()? } else { sin };
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Ok(Tensor::cat(&[first, second], 2)?)
}

fn halves(gate_up: &Tensor) -> Result<(Tensor, Tensor), LmError> {
    let inner = gate_up.dim(1)? / 2;
    Ok((gate_up.narrow(1, 0, inner)?.contiguous()?, gate_up.narrow(1, inner, inner)?.contiguous()?))
}

fn sigmoid(x: &Tensor) -> Result<Tensor, LmError> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// silu of the first half of the columns of `[rows, 2 * inner]` times the second half.
pub(super) fn gated(gate_up: &Tensor) -> Result<Tensor, LmError> {
    let (gate, up) = halves(gate_up)?;
    Ok(((&gate * sigmoid(&gate)?)? * up)?)
}

/// Gives `d_gate_up`.
pub(super) fn gated_backward(gate_up: &Tensor, d_y: &Tensor) -> Result<Tensor, LmError> {
    let (gate, up) = halves(gate_up)?;
    let sigmoid = sigmoid(&gate)?;
    let silu = (&gate * &sigmoid)?;
    // silu' = s + silu (1 - s)
    let slope = (&sigmoid + (&silu - (&silu * &sigmoid)?)?)?;
    let d_gate = ((d_y * &up)? * slope)?;
    Ok(Tensor::cat(&[d_gate, (d_y * silu)?], 1)?)
}

/// How queries meet keys.
#[derive(Debug, Clone, Copy)]
struct AttentionShape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    /// Factor of the scores.
    scale: f64,
}

impl AttentionShape {
    fn new((shape, scale): (HeadShape, f64)) -> Self {
        Self { heads: shape.heads, kv_heads: shape.kv_heads, dim: shape.head_dim, scale }
    }

    /// One sequence's heads: queries that share a key head are rows of one product, `[kv_heads, groups * rows, dim]`.
    fn queries(&self, q: &Tensor, rows: &Range<usize>) -> Result<Tensor, LmError> {
        let groups = self.heads / self.kv_heads;
        let q = q.narrow(0, rows.start, rows.len())?.reshape((rows.len(), self.kv_heads, groups, self.dim))?;
        Ok(q.permute((1, 2, 0, 3))?.contiguous()?.reshape((self.kv_heads, groups * rows.len(), self.dim))?)
    }

    /// Back to `[rows, heads * dim]`.
    fn rows(&self, q: &Tensor, rows: usize) -> Result<Tensor, LmError> {
        let groups = self.heads / self.kv_heads;
        let q = q.reshape((self.kv_heads, groups, rows, self.dim))?.permute((2, 0, 1, 3))?.contiguous()?;
        Ok(q.reshape((rows, self.heads * self.dim))?)
    }

    /// `[kv_heads, rows, dim]`.
    fn keys(&self, k: &Tensor, rows: &Range<usize>) -> Result<Tensor, LmError> {
        let k = k.narrow(0, rows.start, rows.len())?.reshape((rows.len(), self.kv_heads, self.dim))?;
        Ok(k.transpose(0, 1)?.contiguous()?)
    }

    fn key_rows(&self, k: &Tensor) -> Result<Tensor, LmError> {
        let rows = k.dim(1)?;
        Ok(k.transpose(0, 1)?.contiguous()?.reshape((rows, self.kv_heads * self.dim))?)
    }

    /// Causal softmax of the scores, `[kv_heads, groups * rows, rows]`.
    fn weights(&self, q: &Tensor, k: &Tensor) -> Result<Tensor, LmError> {
        let (rows, groups) = (k.dim(1)?, self.heads / self.kv_heads);
        let scores = (q.matmul(&k.t()?)? * self.scale)?;
        let seen = |row: usize, key: usize| if key <= row { 0f32 } else { f32::NEG_INFINITY };
        let mask: Vec<f32> =
            (0..groups * rows).flat_map(|row| (0..rows).map(move |key| seen(row % rows, key))).collect();
        let mask = Tensor::from_vec(mask, (groups * rows, rows), q.device())?.to_dtype(q.dtype())?;
        Ok(candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?)
    }
}

/// Causal attention of every sequence over itself, scores times a factor: `[rows, heads * dim]`.
pub(super) fn attention(heads: &Heads, sequences: &[Range<usize>], shape: (HeadShape, f64)) -> Result<Tensor, LmError> {
    let shape = AttentionShape::new(shape);
    let one = |rows: &Range<usize>| {
        let weights = shape.weights(&shape.queries(&heads.q, rows)?, &shape.keys(&heads.k, rows)?)?;
        shape.rows(&weights.matmul(&shape.keys(&heads.v, rows)?)?, rows.len())
    };
    let parts = sequences.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Gives the gradients of queries, keys and values.
pub(super) fn attention_backward(
    heads: &Heads,
    sequences: &[Range<usize>],
    shape: (HeadShape, f64),
    d_out: &Tensor,
) -> Result<Heads, LmError> {
    let shape = AttentionShape::new(shape);
    let mut parts: [Vec<Tensor>; 3] = Default::default();
    for rows in sequences {
        let (q, k) = (shape.queries(&heads.q, rows)?, shape.keys(&heads.k, rows)?);
        let (v, d_out) = (shape.keys(&heads.v, rows)?, shape.queries(d_out, rows)?);
        let weights = shape.weights(&q, &k)?;
        let d_v = weights.t()?.contiguous()?.matmul(&d_out)?;
        let d_weights = d_out.matmul(&v.t()?)?;
        let along = (&d_weights * &weights)?.sum_keepdim(D::Minus1)?;
        let d_scores = ((weights * d_weights.broadcast_sub(&along)?)? * shape.scale)?;
        let d_q = d_scores.matmul(&k)?;
        let d_k = d_scores.t()?.contiguous()?.matmul(&q)?;
        let found = [shape.rows(&d_q, rows.len())?, shape.key_rows(&d_k)?, shape.key_rows(&d_v)?];
        parts.iter_mut().zip(found).for_each(|(parts, part)| parts.push(part));
    }
    let [d_q, d_k, d_v] = parts;
    Ok(Heads { q: Tensor::cat(&d_q, 0)?, k: Tensor::cat(&d_k, 0)?, v: Tensor::cat(&d_v, 0)? })
}

/// Of `logits / temperature`, `[rows, vocab]`: each row's target's log-probability, its entropy, and ln sum exp.
pub(super) fn token_logprobs(logits: &Tensor, targets: &Tensor, temperature: f64) -> Result<[Tensor; 3], LmError> {
    let logits = (logits / temperature)?;
    let total = logits.log_sum_exp(D::Minus1)?;
    let all = logits.broadcast_sub(&total.unsqueeze(1)?)?;
    let own = all.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
    let entropy = (all.exp()? * &all)?.sum(D::Minus1)?.neg()?;
    Ok([own, entropy, total])
}

/// Gives `d_logits` of what was given to [`token_logprobs`].
pub(super) fn logits_backward(
    logits: &Tensor,
    targets: &Tensor,
    total: &Tensor,
    d_logprob: &Tensor,
    temperature: f64,
) -> Result<Tensor, LmError> {
    let probabilities = (logits / temperature)?.broadcast_sub(&total.unsqueeze(1)?)?.exp()?;
    let slopes = probabilities.neg()?.broadcast_mul(&d_logprob.unsqueeze(1)?)?;
    let slopes = slopes.scatter_add(&targets.unsqueeze(1)?, &d_logprob.unsqueeze(1)?, 1)?;
    Ok((slopes / temperature)?)
}

/// Adds `d_y^T x` to a weight's total, `[out, in]`.
pub(super) fn weight_gradient(d_y: &Tensor, x: &Tensor, total: &mut Tensor) -> Result<(), LmError> {
    add(total, &d_y.t()?.matmul(x)?)
}

/// Adds the rows of `d_x` to the rows of their tokens.
pub(super) fn embedding_backward(d_x: &Tensor, tokens: &[u32], total: &mut Tensor) -> Result<(), LmError> {
    *total = total.index_add(&Tensor::new(tokens, d_x.device())?, d_x, 0)?;
    Ok(())
}

/// The sum of the squares of all numbers.
pub(super) fn sum_of_squares(tensors: &[&Tensor]) -> Result<f64, LmError> {
    let one = |tensor: &&Tensor| Ok::<_, LmError>(tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?);
    tensors.iter().map(one).sum()
}

pub(super) fn add(total: &mut Tensor, part: &Tensor) -> Result<(), LmError> {
    *total = (&*total + part)?;
    Ok(())
}
