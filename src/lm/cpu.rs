//! The operations of the CPU's path that would be many passes over memory as tensor operations: the norm, what a
//! projection becomes before attention, masked softmax, the gated activation, and addition in place. In float32, over
//! rows, on rayon's threads where there is enough to do, with the widest vectors that the processor has.
//!
//! A row's numbers depend on nothing but the row: the sums run in lanes at fixed places, and a masked key adds an exact
//! zero, so that a row is the same, bit for bit, in any batch.
#![expect(clippy::inline_always, reason = "a loop gets the vectors of `wide` only where it is compiled into it")]

mod attention;
mod heads;
mod products;
mod rows;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, Layout, bail};
use rayon::prelude::*;

pub(super) use self::attention::{Gathered, MaskedSoftmax, gathered, masked_softmax};
pub(super) use self::heads::{HeadRotation, Runs, put, rotate};
pub(super) use self::products::{add_product, product};
pub(super) use self::rows::{add, gated, norm};

/// Numbers below which one thread is faster.
const PARALLEL: usize = 1 << 15;
/// Partial sums of a row.
const LANES: usize = 8;

/// e^x within 2e-7 of itself, for x up to 0 where it matters; 0 below -87. Nothing but arithmetic, so that it runs in
/// vectors: 2^n by the exponent's bits, the rest by a polynomial (Cephes, `expf`).
#[inline(always)]
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

/// The sum of a row of numbers made of its own, in lanes by place.
#[inline(always)]
fn lane_sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, number)| *lane += of(*number));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, number)| *lane += of(*number));
    lanes.iter().sum()
}

/// The largest of a row, in lanes by place.
#[inline(always)]
fn lane_max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, number)| *lane = lane.max(*number));
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Runs a loop compiled for the widest vectors that this processor has. The numbers are the same: products and sums are
/// not fused.
#[inline(always)]
fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(vectors) = pulp::x86::V3::try_new() {
        return vectors.vectorize(work);
    }
    work()
}

/// All numbers of a storage.
fn numbers_of(storage: &CpuStorage) -> candle_core::Result<&[f32]> {
    let CpuStorage::F32(numbers) = storage else { bail!("the CPU's path computes in float32") };
    Ok(numbers)
}

/// A tensor's numbers, its last dimension contiguous and its rows in their order.
fn contiguous<'s>(storage: &'s CpuStorage, layout: &Layout) -> candle_core::Result<&'s [f32]> {
    let numbers = numbers_of(storage)?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(numbers.get(start..end).unwrap_or_default()),
        None => bail!("the tensor is not contiguous"),
    }
}

/// The same, to be written.
fn contiguous_mut<'s>(storage: &'s mut CpuStorage, layout: &Layout) -> candle_core::Result<&'s mut [f32]> {
    let CpuStorage::F32(numbers) = storage else { bail!("the CPU's path computes in float32") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(numbers.get_mut(start..end).unwrap_or_default()),
        None => bail!("the tensor is not contiguous"),
    }
}

/// Runs `row` over the rows of `numbers`, each of `width`, which become rows of `out_width`.
fn over_rows(numbers: &[f32], width: usize, out_width: usize, row: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0f32; numbers.len() / width.max(1) * out_width];
    let part = |from: &[f32], to: &mut [f32]| {
        let rows = from.chunks_exact(width.max(1)).zip(to.chunks_exact_mut(out_width.max(1)));
        wide(|| rows.for_each(|(from, to)| row(from, to)));
    };
    match rows_at_once(numbers.len(), width) {
        None => part(numbers, &mut out),
        Some(rows) => {
            let parts = numbers.par_chunks(rows * width).zip(out.par_chunks_mut(rows * out_width));
            parts.for_each(|(from, to)| part(from, to));
        }
    }
    out
}

/// Runs `row` over the rows of `numbers`, each of `width`, in place. It is given the row's index.
fn over_rows_mut(numbers: &mut [f32], width: usize, row: impl Fn(usize, &mut [f32]) + Sync) {
    let part = |first: usize, part: &mut [f32]| {
        let rows = part.chunks_exact_mut(width.max(1)).enumerate();
        wide(|| rows.for_each(|(index, numbers)| row(first + index, numbers)));
    };
    match rows_at_once(numbers.len(), width) {
        None => part(0, numbers),
        Some(rows) => {
            numbers.par_chunks_mut(rows * width).enumerate().for_each(|(at, numbers)| part(at * rows, numbers));
        }
    }
}

/// Rows that a thread takes at a time; none where one thread takes all.
fn rows_at_once(numbers: usize, width: usize) -> Option<usize> {
    (numbers >= PARALLEL && width > 0).then(|| PARALLEL / 2 / width + 1)
}
