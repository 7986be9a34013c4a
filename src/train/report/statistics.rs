//! The statistics of the report: means with intervals over seeds, and what one curve is summed up by. Pure.
//!
//! In: numbers. Out: numbers. Knows no run and no metric. The quantiles of Student's t come from `statrs`.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean over seeds and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// How many seeds.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the 95% interval of the mean by Student's t; none for one seed.
    pub half_width: Option<f64>,
}

impl Estimate {
    /// The mean of one value per seed; none for no value. Assumes that seeds are independent and about normal.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let half_width = t_quantile(n - 1).map(|t| {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            t * (variance / n as f64).sqrt()
        });
        Some(Self { n, mean, half_width })
    }

    /// Whether the interval leaves 0 out; false where there is no interval.
    pub(super) fn excludes_zero(&self) -> bool {
        self.half_width.is_some_and(|half| self.mean.abs() > half)
    }
}

/// The 97.5% quantile of Student's t; none for no degree of freedom.
pub(super) fn t_quantile(degrees: usize) -> Option<f64> {
    StudentsT::new(0.0, 1.0, degrees as f64).ok().map(|t| t.inverse_cdf(0.975))
}

/// The height of a curve at x, linear between its points; none outside of them. The points ascend in x.
pub(super) fn interpolate(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let index = points.partition_point(|point| point.0 < x);
    let right = points.get(index)?;
    if right.0 == x {
        return Some(right.1);
    }
    let left = points.get(index.checked_sub(1)?)?;
    Some(left.1 + (right.1 - left.1) * (x - left.0) / (right.0 - left.0))
}

/// The area under a curve (trapezoids) divided by its width, so that it has the curve's own unit; none for less than
/// two points.
pub(super) fn mean_height(points: &[(f64, f64)]) -> Option<f64> {
    let width = points.last()?.0 - points.first()?.0;
    let area: f64 = points
        .windows(2)
        .map(|pair| match pair {
            [left, right] => (right.0 - left.0) * f64::midpoint(left.1, right.1),
            _ => 0.0,
        })
        .sum();
    (width > 0.0).then(|| area / width)
}

/// The x of the first point that is at least this high.
pub(super) fn first_reaching(points: &[(f64, f64)], height: f64) -> Option<f64> {
    points.iter().find(|point| point.1 >= height).map(|point| point.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0)
    }

    /// `scipy.stats.t.ppf(0.975, df)`.
    #[test]
    fn quantiles_of_students_t() {
        for (degrees, wanted) in [
            (1, 12.706_204_736_174_694),
            (2, 4.302_652_729_749_462),
            (3, 3.182_446_305_283_707_8),
            (4, 2.776_445_105_197_793_4),
            (9, 2.262_157_162_798_205),
            (30, 2.042_272_456_301_237_8),
            (1000, 1.962_339_080_826_408_3),
        ] {
            let found = t_quantile(degrees).unwrap();
            assert!(close(found, wanted), "{degrees}: {found} is not {wanted}");
        }
        assert_eq!(t_quantile(0), None);
    }

    /// `scipy.stats.t.interval(0.95, n - 1, mean, scipy.stats.sem(values))`.
    #[test]
    fn the_interval_of_a_mean() {
        let found = Estimate::of(&[0.71, 0.75, 0.69, 0.78, 0.72]).unwrap();
        assert_eq!(found.n, 5);
        assert!(close(found.mean, 0.73) && close(found.half_width.unwrap(), 0.043_899_451_654_254_18), "{found:?}");
        // By hand: mean 1, variance 2, t = 12.706.
        let two = Estimate::of(&[0.0, 2.0]).unwrap();
        assert!(close(two.mean, 1.0) && close(two.half_width.unwrap(), 12.706_204_736_174_7), "{two:?}");
    }

    #[test]
    fn one_seed_has_no_interval_and_none_no_mean() {
        assert_eq!(Estimate::of(&[0.5]), Some(Estimate { n: 1, mean: 0.5, half_width: None }));
        assert_eq!(Estimate::of(&[]), None);
        assert!(!Estimate { n: 1, mean: 0.5, half_width: None }.excludes_zero());
        assert!(Estimate::of(&[0.5, 0.5, 0.5]).unwrap().excludes_zero());
    }

    #[test]
    fn a_curve_is_linear_between_its_points_and_ends_with_them() {
        let points = [(0.0, 1.0), (10.0, 2.0), (20.0, 0.0)];
        assert_eq!(interpolate(&points, 0.0), Some(1.0));
        assert_eq!(interpolate(&points, 5.0), Some(1.5));
        assert_eq!(interpolate(&points, 15.0), Some(1.0));
        assert_eq!(interpolate(&points, 20.0), Some(0.0));
        assert_eq!((interpolate(&points, -1.0), interpolate(&points, 21.0)), (None, None));
        assert_eq!(interpolate(&[], 0.0), None);
    }

    #[test]
    fn the_mean_height_weighs_by_width() {
        // 10 wide at 1.5, 30 wide at 2.5: (15 + 75) / 40.
        assert_eq!(mean_height(&[(0.0, 1.0), (10.0, 2.0), (40.0, 3.0)]), Some(2.25));
        assert_eq!(mean_height(&[(5.0, 0.5)]), None);
        assert_eq!(mean_height(&[]), None);
    }

    #[test]
    fn the_first_step_at_the_threshold() {
        let points = [(0.0, 0.1), (10.0, 0.6), (20.0, 0.5), (30.0, 0.7)];
        assert_eq!(first_reaching(&points, 0.6), Some(10.0));
        assert_eq!(first_reaching(&points, 0.65), Some(30.0));
        assert_eq!(first_reaching(&points, 0.8), None);
    }
}
