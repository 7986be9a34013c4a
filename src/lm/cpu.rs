//! Two operations of the CPU's path that would be many passes over memory as tensor operations: masked softmax, and the
//! gated activation. In float32, over rows, on rayon's threads where there is enough to do.
//!
//! A row's numbers depend on nothing but the row: the sums run in lanes at fixed places, and a masked key adds an exact
//! zero, so that a row is the same, bit for bit, in any batch.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use super::LmError;
use super::config::Activation;

/// Numbers below which one thread is faster.
const PARALLEL: usize = 1 << 15;
/// Partial sums of a row.
const LANES: usize = 8;

/// e^x within 2e-7 of itself, for x up to 0 where it matters; 0 below -87. Nothing but arithmetic, so that it runs in
/// vectors: 2^n by the exponent's bits, the rest by a polynomial (Cephes, `expf`).
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 0.166_666_66) * r
        + 0.5;
    let power = f32::from_bits(((n as i32 + 127) << 23).cast_unsigned());
    (p * r * r + r + 1.0) * power
}

/// Softmax of `[.., groups * rows, keys]` over the keys that each row sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaskedSoftmax {
    /// Query rows; a head's groups follow each other.
    pub(super) rows: usize,
    /// Position of the first row.
    pub(super) first: usize,
    /// How many positions back a row sees, itself included.
    pub(super) window: Option<usize>,
    /// Factor of the scores.
    pub(super) scale: f32,
    /// Soft cap of the scaled scores.
    pub(super) softcap: Option<f32>,
}

impl MaskedSoftmax {
    fn row(&self, index: usize, scores: &[f32], out: &mut [f32]) {
        let position = self.first + index % self.rows;
        let end = (position + 1).min(scores.len());
        let start = self.window.map_or(0, |window| (position + 1).saturating_sub(window)).min(end);
        let (Some(seen), Some(weights)) = (scores.get(start..end), out.get_mut(start..end)) else { return };
        match self.softcap {
            Some(cap) => {
                let capped = |score: f32| cap * (score * self.scale / cap).tanh();
                weights.iter_mut().zip(seen).for_each(|(weight, score)| *weight = capped(*score));
            }
            None => weights.iter_mut().zip(seen).for_each(|(weight, score)| *weight = score * self.scale),
        }
        let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for weight in weights.iter_mut() {
            *weight = exp(*weight - most);
        }
        let factor = 1.0 / lane_sum(out);
        for weight in out.iter_mut() {
            *weight *= factor;
        }
    }
}

/// The sum of a row, in lanes by place.
fn lane_sum(row: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, number)| *lane += number);
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, number)| *lane += number);
    lanes.iter().sum()
}

/// The activated first half of each row times its second half.
#[derive(Debug, Clone, Copy)]
struct Gated(Activation);

impl Gated {
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

fn contiguous<'s>(storage: &'s CpuStorage, layout: &Layout) -> candle_core::Result<&'s [f32]> {
    let CpuStorage::F32(numbers) = storage else { bail!("the CPU's path computes in float32") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(numbers.get(start..end).unwrap_or_default()),
        None => bail!("the tensor is not contiguous"),
    }
}

/// Runs `row` over the rows of `numbers`, each of `width`, which become rows of `out_width`.
fn over_rows(
    numbers: &[f32],
    width: usize,
    out_width: usize,
    row: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut out = vec![0f32; numbers.len() / width.max(1) * out_width];
    let work = |(index, (from, to)): (usize, (&[f32], &mut [f32]))| row(index, from, to);
    if numbers.len() < PARALLEL {
        numbers.chunks_exact(width).zip(out.chunks_exact_mut(out_width)).enumerate().for_each(work);
    } else {
        let rows = numbers.par_chunks_exact(width).zip(out.par_chunks_exact_mut(out_width));
        rows.enumerate().with_min_len(PARALLEL / 2 / width.max(1) + 1).for_each(work);
    }
    out
}

impl CustomOp1 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let numbers = contiguous(storage, layout)?;
        let width = layout.dims().last().copied().unwrap_or(1);
        let out = over_rows(numbers, width, width, |index, scores, out| self.row(index, scores, out));
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let numbers = contiguous(storage, layout)?;
        let (rows, width) = layout.shape().dims2()?;
        let out = over_rows(numbers, width, width / 2, |_, row, out| self.row(row, out));
        Ok((CpuStorage::F32(out), Shape::from((rows, width / 2))))
    }
}

/// The weights of attention from its scores.
pub(super) fn masked_softmax(scores: &Tensor, mask: MaskedSoftmax) -> Result<Tensor, LmError> {
    Ok(scores.apply_op1_no_bwd(&mask)?)
}

/// The activated first half of the columns of `[rows, 2 * inner]` times the second half.
pub(super) fn gated(gate_up: &Tensor, activation: Activation) -> Result<Tensor, LmError> {
    Ok(gate_up.apply_op1_no_bwd(&Gated(activation))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};

    use super::*;

    fn random(shape: (usize, usize), scale: f64) -> Tensor {
        Tensor::randn(0f32, scale as f32, shape, &Device::Cpu).unwrap()
    }

    fn farthest(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn exp_is_within_its_bound() {
        for i in 0..=200_000 {
            let x = -87.0 + 87.0 * i as f32 / 200_000.0;
            let wanted = f64::from(x).exp();
            assert!((f64::from(exp(x)) / wanted - 1.0).abs() < 3e-7, "exp({x}) is {} for {wanted}", exp(x));
        }
        assert!(exp(-1e30) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn masked_softmax_is_that_of_tensor_operations() {
        for (rows, keys, window, softcap) in
            [(5, 12, None, None), (1, 40, Some(7), None), (9, 9, Some(3), Some(5.0)), (70, 600, None, Some(30.0))]
        {
            let mask = MaskedSoftmax { rows, first: keys - rows, window, scale: 0.3, softcap };
            let scores = random((2 * rows, keys), 4.0);
            let mut scaled = (&scores * 0.3).unwrap();
            if let Some(cap) = softcap {
                scaled = ((scaled / f64::from(cap)).unwrap().tanh().unwrap() * f64::from(cap)).unwrap();
            }
            let hidden = |row: usize, key: usize| {
                let position = keys - rows + row % rows;
                key > position || window.is_some_and(|window| key + window <= position)
            };
            let bias = (0..2 * rows).flat_map(|row| (0..keys).map(move |key| (row, key)));
            let bias: Vec<f32> =
                bias.map(|(row, key)| if hidden(row, key) { f32::NEG_INFINITY } else { 0.0 }).collect();
            let bias = Tensor::from_vec(bias, (2 * rows, keys), &Device::Cpu).unwrap();
            let wanted = candle_nn::ops::softmax((scaled + bias).as_ref().unwrap(), D::Minus1).unwrap();
            assert!(farthest(&masked_softmax(&scores, mask).unwrap(), &wanted) < 1e-6);
        }
    }

    #[test]
    fn gated_is_that_of_tensor_operations() {
        let x = random((130, 2 * 300), 3.0);
        let (gate, up) = (x.narrow(1, 0, 300).unwrap(), x.narrow(1, 300, 300).unwrap());
        let silu = (gate.silu().unwrap() * &up).unwrap();
        assert!(farthest(&gated(&x, Activation::Silu).unwrap(), &silu) < 1e-5);
        let gelu = (gate.gelu().unwrap() * &up).unwrap();
        assert!(farthest(&gated(&x, Activation::GeluTanh).unwrap(), &gelu) < 1e-5);
    }

    #[test]
    fn a_row_is_the_same_whatever_stands_behind_it() {
        let scores = random((4, 50), 3.0);
        let wide =
            masked_softmax(&scores, MaskedSoftmax { rows: 4, first: 20, window: None, scale: 1.0, softcap: None });
        let narrow = scores.narrow(1, 0, 24).unwrap().contiguous().unwrap();
        let narrow =
            masked_softmax(&narrow, MaskedSoftmax { rows: 4, first: 20, window: None, scale: 1.0, softcap: None });
        let wide = wide.unwrap().narrow(1, 0, 24).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(wide, narrow.unwrap().to_vec2::<f32>().unwrap());
    }
}
