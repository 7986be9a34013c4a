//! How right a judge's scores are, and how sure a mean is. In: scores with the truth, or plain numbers. Out: the usual
//! statistics; `None` where there is nothing to compute them from. Pure: knows no judge and no file.

use serde::Serialize;

/// From here on a score is a verdict of Match.
pub(super) const VERDICT_CUT: f64 = 0.5;

/// Bins of the calibration error, equally wide.
const BINS: usize = 10;
/// The standard normal's 97.5% quantile.
const Z: f64 = 1.959_963_984_540_054;
/// Samples of a bootstrap. Efron and Tibshirani, An Introduction to the Bootstrap (1993), ask for 1,000 for an interval.
const RESAMPLES: usize = 2000;
/// Fewest values that an interval is drawn from: a bootstrap of fewer is far too narrow.
const MIN_RESAMPLED: usize = 10;
/// Seed of the bootstrap: the same numbers give the same interval.
const SEED: u64 = 2026;

/// The score that a judge gave, and the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    /// From 0 to 1, read as the probability of Match.
    pub(super) score: f64,
    /// Whether the label is Match.
    pub(super) is_match: bool,
}

/// Verdicts by truth, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Confusion {
    /// Match, taken for Match.
    pub match_as_match: usize,
    /// Match, taken for Mismatch.
    pub match_as_mismatch: usize,
    /// Mismatch, taken for Match: what a policy in training would exploit.
    pub mismatch_as_match: usize,
    /// Mismatch, taken for Mismatch.
    pub mismatch_as_mismatch: usize,
}

impl Confusion {
    pub(super) fn of(judged: &[Judged]) -> Self {
        let mut counts = Self::default();
        for one in judged {
            let count = match (one.is_match, one.score >= VERDICT_CUT) {
                (true, true) => &mut counts.match_as_match,
                (true, false) => &mut counts.match_as_mismatch,
                (false, true) => &mut counts.mismatch_as_match,
                (false, false) => &mut counts.mismatch_as_mismatch,
            };
            *count += 1;
        }
        counts
    }

    /// All verdicts.
    pub fn total(&self) -> usize {
        self.match_as_match + self.match_as_mismatch + self.mismatch_as_match + self.mismatch_as_mismatch
    }

    /// Verdicts that are right.
    pub fn right(&self) -> usize {
        self.match_as_match + self.mismatch_as_mismatch
    }

    /// The share of verdicts that are right.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.right(), self.total())
    }

    /// Agreement with the labels beyond chance, -1 to 1: `(p_o - p_e) / (1 - p_e)`, Cohen (1960), A Coefficient of
    /// Agreement for Nominal Scales, equation 1. `None` where chance alone always agrees: one label, and no other verdict.
    pub fn kappa(&self) -> Option<f64> {
        let observed = self.accuracy()?;
        let labelled = share(self.match_as_match + self.match_as_mismatch, self.total())?;
        let judged = share(self.match_as_match + self.mismatch_as_match, self.total())?;
        let chance = labelled * judged + (1.0 - labelled) * (1.0 - judged);
        (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
    }
}

/// The Brier score, 0 (best) to 1: `mean (score - truth)^2`. Brier (1950), Verification of Forecasts Expressed in Terms
/// of Probability, in the form for one of two outcomes, which is half of his.
pub(super) fn brier(judged: &[Judged]) -> Option<f64> {
    mean(judged.iter().map(|one| (one.score - f64::from(u8::from(one.is_match))).powi(2)))
}

/// The expected calibration error, 0 (best) to 1, over ten equally wide bins of the score:
/// `sum_b n_b / n |mean score in b - share of Match in b|`. Naeini, Cooper and Hauskrecht (2015), Obtaining Well
/// Calibrated Probabilities Using Bayesian Binning. The last bin holds 1.
pub(super) fn calibration_error(judged: &[Judged]) -> Option<f64> {
    let mut gaps = [0.0; BINS];
    for one in judged {
        // A score lies in 0..=1, so that the product fits.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to BINS")]
        let bin = ((one.score * BINS as f64) as usize).min(BINS - 1);
        if let Some(gap) = gaps.get_mut(bin) {
            // n_b times the difference of two means in b is the difference of the sums.
            *gap += one.score - f64::from(u8::from(one.is_match));
        }
    }
    let total: f64 = gaps.iter().map(|gap| gap.abs()).sum();
    (!judged.is_empty()).then(|| total / judged.len() as f64)
}

/// The 95% interval of a share: Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
pub(super) fn share_interval(hits: usize, total: usize) -> Option<[f64; 2]> {
    let (n, p) = (total as f64, share(hits, total)?);
    let (middle, scale) = (p + Z * Z / (2.0 * n), 1.0 + Z * Z / n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some([((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)])
}

/// The 95% percentile interval of a mean by the bootstrap (Efron and Tibshirani 1993, section 13.3), seeded. `None` for
/// fewer than ten values.
pub(super) fn mean_interval(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < MIN_RESAMPLED {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut drawn = || values.get(random.usize(..values.len())).copied().unwrap_or_default();
    let mut means: Vec<f64> = std::iter::repeat_with(|| {
        let sum: f64 = std::iter::repeat_with(&mut drawn).take(values.len()).sum();
        sum / values.len() as f64
    })
    .take(RESAMPLES)
    .collect();
    means.sort_by(f64::total_cmp);
    // A fortieth of them lies beyond either end.
    let beyond = RESAMPLES / 40;
    Some([*means.get(beyond)?, *means.get(RESAMPLES - 1 - beyond)?])
}

/// The arithmetic mean.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.into_iter().fold((0.0, 0_usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// A part of a whole; none of nothing.
pub(super) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(f64, bool)]) -> Vec<Judged> {
        pairs.iter().map(|&(score, is_match)| Judged { score, is_match }).collect()
    }

    #[track_caller]
    fn close(found: Option<f64>, wanted: f64) {
        assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-12), "{found:?} is not {wanted}");
    }

    /// The table of two readers of 50 grant proposals: `p_o = 35/50`, `p_e = 0.5 x 0.6 + 0.5 x 0.4`.
    #[test]
    fn kappa_is_what_agreement_is_worth_beyond_chance() {
        let counts =
            Confusion { match_as_match: 20, match_as_mismatch: 5, mismatch_as_match: 10, mismatch_as_mismatch: 15 };
        close(counts.accuracy(), 0.7);
        close(counts.kappa(), 0.4);
        let opposite = Confusion { match_as_mismatch: 7, mismatch_as_match: 7, ..Confusion::default() };
        close(opposite.kappa(), -1.0);
        let always = Confusion { match_as_match: 6, mismatch_as_match: 4, ..Confusion::default() };
        close(always.kappa(), 0.0);
    }

    #[test]
    fn kappa_of_one_label_and_one_verdict_is_undefined() {
        assert_eq!(Confusion { match_as_match: 9, ..Confusion::default() }.kappa(), None);
        assert_eq!((Confusion::default().accuracy(), Confusion::default().kappa()), (None, None));
    }

    #[test]
    fn one_half_is_a_verdict_of_match() {
        let counts = Confusion::of(&judged(&[(0.5, true), (0.5, false), (0.499, true), (0.0, false)]));
        let wanted =
            Confusion { match_as_match: 1, match_as_mismatch: 1, mismatch_as_match: 1, mismatch_as_mismatch: 1 };
        assert_eq!((counts, counts.right()), (wanted, 2));
    }

    /// (0.1^2 + 0.4^2 + 0.2^2 + 1^2) / 4.
    #[test]
    fn brier_is_the_mean_squared_error() {
        close(brier(&judged(&[(0.9, true), (0.6, true), (0.2, false), (1.0, false)])), 1.21 / 4.0);
        assert_eq!(brier(&[]), None);
    }

    /// Bins: [0.9, 1]: scores 0.9 and 1.0, one Match of two, gap 0.45 x 2; [0.6, 0.7): 0.65 and 0.65, both Match,
    /// gap 0.35 x 2; [0, 0.1): 0.05, none, gap 0.05. Over five scores.
    #[test]
    fn the_calibration_error_weighs_bins_by_what_is_in_them() {
        let scores = [(0.9, true), (1.0, false), (0.65, true), (0.65, true), (0.05, false)];
        close(calibration_error(&judged(&scores)), (0.9 + 0.7 + 0.05) / 5.0);
        // In one bin too much and too little cancel out: that is what a bin is.
        close(calibration_error(&judged(&[(0.50, true), (0.50, false)])), 0.0);
        assert_eq!(calibration_error(&[]), None);
    }

    /// 8 of 10: centre (0.8 + 0.192073) / 1.384146, half width 1.959964 x sqrt(0.016 + 0.0096036) / 1.384146.
    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        let [low, high] = share_interval(8, 10).unwrap();
        assert!((low - 0.490_162).abs() < 1e-5 && (high - 0.943_318).abs() < 1e-5, "{low} {high}");
        let [low, high] = share_interval(5, 5).unwrap();
        assert!((high - 1.0).abs() < 1e-12 && (low - 0.565_518).abs() < 1e-5, "{low} {high}");
        assert_eq!(share_interval(0, 0), None);
    }

    /// 50 zeros and 50 ones: the mean's standard error is 0.05, so that the interval is near 0.5 +- 0.098.
    #[test]
    fn the_interval_of_a_mean_is_that_of_the_normal_where_there_is_one() {
        let values: Vec<f64> = (0..100_u32).map(|n| f64::from(n % 2)).collect();
        let [low, high] = mean_interval(&values).unwrap();
        assert!((low - 0.402).abs() < 0.015 && (high - 0.598).abs() < 0.015, "{low} {high}");
        assert_eq!(mean_interval(&values), Some([low, high]), "the same numbers, the same interval");
        assert_eq!(mean_interval(&[0.25; 12]), Some([0.25, 0.25]));
        assert_eq!(mean_interval(&values[..9]), None);
    }
}
