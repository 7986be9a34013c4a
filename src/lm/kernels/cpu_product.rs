//! Matrix products on the CPU, by the library that candle's own use. In: float32 numbers with their strides. Out: rows of
//! a contiguous matrix. candle's call asks the system for its cores at every product, which costs a small model more
//! than the product.
//!
//! A row's numbers do not depend on how many rows there are: one alone, which the library would treat in another way, is
//! computed twice.
#![expect(unsafe_code, reason = "the library takes pointers")]

use candle_core::bail;
use gemm::{Parallelism, gemm};

/// A matrix in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'m> {
    /// Its numbers, from the first one on.
    pub(super) numbers: &'m [f32],
    /// Rows and columns.
    pub(super) shape: (usize, usize),
    /// Numbers from a row to the next, and from a column to the next.
    pub(super) strides: (usize, usize),
}

impl Matrix<'_> {
    /// Whether all of it lies within its numbers.
    fn fits(&self) -> bool {
        let ((rows, columns), (down, across)) = (self.shape, self.strides);
        rows == 0 || columns == 0 || (rows - 1) * down + (columns - 1) * across < self.numbers.len()
    }
}

/// What becomes of what stands in a total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It stays, and the product is added.
    Kept,
    /// It may be anything.
    Overwritten,
}

/// `a` times `b` into `total`, whose rows are contiguous. On all threads, or on this one where the others have work of
/// their own: on rayon's.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, total: &mut [f32], before: Before) -> candle_core::Result<()> {
    let ((rows, inner), (of_b, columns)) = (a.shape, b.shape);
    if inner != of_b || total.len() != rows * columns || !a.fits() || !b.fits() {
        bail!("a product of {:?} and {:?} does not fit {} numbers", a.shape, b.shape, total.len());
    }
    if rows == 1 && inner > 0 {
        let mut twice = vec![0f32; 2 * columns];
        let pair = Matrix { shape: (2, inner), strides: (0, a.strides.1), ..a };
        multiply(pair, b, &mut twice, Before::Overwritten)?;
        let pairs = total.iter_mut().zip(&twice);
        match before {
            Before::Kept => pairs.for_each(|(total, number)| *total += number),
            Before::Overwritten => pairs.for_each(|(total, number)| *total = *number),
        }
        return Ok(());
    }
    let parallelism = match rayon::current_thread_index() {
        Some(_) => Parallelism::None,
        None => Parallelism::Rayon(rayon::current_num_threads()),
    };
    let stride = |stride: usize| isize::try_from(stride).unwrap_or(isize::MAX);
    let keep = before == Before::Kept;
    // SAFETY: both factors lie within their numbers and the total is as large as the product, as was checked; the total is
    // borrowed for writing, so that nothing else sees it.
    unsafe {
        gemm(
            rows,
            columns,
            inner,
            total.as_mut_ptr(),
            1,
            stride(columns),
            keep,
            a.numbers.as_ptr(),
            stride(a.strides.1),
            stride(a.strides.0),
            b.numbers.as_ptr(),
            stride(b.strides.1),
            stride(b.strides.0),
            if keep { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5).collect()
    }

    fn plain(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
        let at = |m: Matrix<'_>, row, column| m.numbers[row * m.strides.0 + column * m.strides.1];
        let cell = |row, column| (0..a.shape.1).map(|k| at(a, row, k) * at(b, k, column)).sum::<f32>();
        (0..a.shape.0).flat_map(|row| (0..b.shape.1).map(move |column| cell(row, column))).collect()
    }

    #[test]
    fn a_product_is_what_it_is_by_definition_and_a_row_is_the_same_alone() {
        let (x, w) = (numbers(9 * 40, 1), numbers(40 * 24, 2));
        // The weight lies transposed.
        let (a, b) = (
            Matrix { numbers: &x, shape: (9, 40), strides: (40, 1) },
            Matrix { numbers: &w, shape: (40, 24), strides: (1, 40) },
        );
        let mut total = vec![0.0; 9 * 24];
        multiply(a, b, &mut total, Before::Overwritten).unwrap();
        for (found, wanted) in total.iter().zip(plain(a, b)) {
            assert!((found - wanted).abs() < 1e-5, "{found} for {wanted}");
        }
        for row in 0..9 {
            let one = Matrix { numbers: &x[row * 40..], shape: (1, 40), strides: (40, 1) };
            let mut alone = vec![0.0; 24];
            multiply(one, b, &mut alone, Before::Overwritten).unwrap();
            assert_eq!(alone, total[row * 24..(row + 1) * 24]);
            multiply(one, b, &mut alone, Before::Kept).unwrap();
            let doubled: Vec<f32> = total[row * 24..(row + 1) * 24].iter().map(|number| 2.0 * number).collect();
            assert_eq!(alone, doubled);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = numbers(40, 1);
        let matrix = |shape| Matrix { numbers: &x, shape, strides: (8, 1) };
        assert!(multiply(matrix((5, 8)), matrix((5, 8)), &mut [0.0; 40], Before::Overwritten).is_err());
        assert!(multiply(matrix((6, 8)), matrix((8, 4)), &mut [0.0; 24], Before::Overwritten).is_err());
        assert!(multiply(matrix((5, 5)), matrix((5, 8)), &mut [0.0; 39], Before::Overwritten).is_err());
    }
}
