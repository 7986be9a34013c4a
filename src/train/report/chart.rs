//! A picture before it is drawn: titles, limits, tick labels, and where the labels of the curves stand. Pure.

use super::curve::{Band, Curve, Point};
use super::options::XAxis;
use crate::train::metrics::{Definition, Metric};

/// What one picture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The metric's name.
    pub title: String,
    /// What the metric says.
    pub subtitle: String,
    /// What x is, with its unit.
    pub x_title: String,
    /// What y is counted in.
    pub y_title: String,
    /// The limits of x; the first is the smaller.
    pub x: (f64, f64),
    /// The limits of y; the first is the smaller.
    pub y: (f64, f64),
    /// The curves, in limits.
    pub curves: Vec<Curve>,
}

impl Chart {
    /// The chart of a metric's curves. Bands are cut at the metric's range and x is put in a unit that reads well.
    pub fn new(metric: &Metric, x: XAxis, mut curves: Vec<Curve>) -> Self {
        let Definition { unit, range, text, .. } = metric.definition();
        let last = curves.iter().flat_map(|curve| &curve.points).map(|point| point.x).fold(0.0, f64::max);
        let (scale, x_title) = x_unit(x, last);
        let inside = |value: f64| {
            value.clamp(range.min().unwrap_or(-LARGEST), range.max().unwrap_or(LARGEST)).clamp(-LARGEST, LARGEST)
        };
        for point in curves.iter_mut().flat_map(|curve| &mut curve.points) {
            point.x /= scale;
            point.mean = point.mean.clamp(-LARGEST, LARGEST);
            point.band = point.band.map(|(low, high)| (inside(low), inside(high)));
        }
        let xs = spread(curves.iter().flat_map(|curve| &curve.points).map(|point| point.x));
        let ys = spread(curves.iter().flat_map(|curve| &curve.points).flat_map(heights));
        // The start of training belongs to the picture, unless the curves are far from it.
        let from = if xs.0 > 0.0 && xs.0 < 0.5 * xs.1 { 0.0 } else { xs.0 };
        let (x, y) = (apart((from, xs.1)), y_limits(ys, range.min() == Some(0.0), range.max()));
        let title = metric.to_string();
        Self { title, subtitle: text.to_owned(), x_title, y_title: unit.symbol().to_owned(), x, y, curves }
    }
}

/// Larger numbers than any chart can tell apart; keeps differences finite.
const LARGEST: f64 = 1e100;

fn heights(point: &Point) -> [f64; 3] {
    let (low, high) = point.band.unwrap_or((point.mean, point.mean));
    [low, point.mean, high]
}

/// The least and the largest of some numbers; 0 and 1 of none.
fn spread(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let ends =
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| (low.min(number), high.max(number)));
    if ends.0 <= ends.1 { ends } else { (0.0, 1.0) }
}

/// Limits that are so far apart that ticks between them are different numbers.
fn apart((low, high): (f64, f64)) -> (f64, f64) {
    let least = 1e-6 * low.abs().max(high.abs()).max(1e-9);
    if high - low >= least { (low, high) } else { (low - least.max(0.5), high + least.max(0.5)) }
}

/// Limits with room above and below. They start at 0 where the metric does, unless that would waste half of the height.
fn y_limits((low, high): (f64, f64), starts_at_zero: bool, max: Option<f64>) -> (f64, f64) {
    if low == high && starts_at_zero {
        let top = if high == 0.0 { 1.0 } else { 1.25 * high };
        return (0.0, top.min(max.unwrap_or(top)));
    }
    let (low, high) = apart((low, high));
    let room = 0.06 * (high - low);
    let low = match low {
        _ if starts_at_zero && low < 0.5 * high => 0.0,
        // Room below 0 would suggest that there are numbers.
        0.0.. => (low - room).max(0.0),
        _ => low - room,
    };
    (low, (high + room).min(max.unwrap_or(LARGEST).max(high)))
}

/// What x is divided by, and its title.
fn x_unit(x: XAxis, last: f64) -> (f64, String) {
    match x {
        XAxis::Step => (1.0, "training step".to_owned()),
        XAxis::Tokens => (1.0, "tokens written by the policy in training".to_owned()),
        XAxis::Seconds if last <= 600.0 => (1.0, "training time (s)".to_owned()),
        XAxis::Seconds if last <= 3.0 * 3600.0 => (60.0, "training time (min)".to_owned()),
        XAxis::Seconds => (3600.0, "training time (h)".to_owned()),
    }
}

/// A tick's label on an axis of this length: short, and free of rounding's tails.
pub(super) fn tick(value: f64, length: f64) -> String {
    let size = value.abs();
    if size < 1e-9 * length {
        return "0".to_owned();
    }
    let (divisor, letter) = match size {
        _ if !(1e-4..1e12).contains(&size) => return format!("{value:.1e}"),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e4.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    let text = format!("{:.6}", value / divisor);
    format!("{}{letter}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// How many seeds a curve has, and what its band is.
pub(super) fn band_text(curve: &Curve) -> String {
    let seeds = match curve.seeds() {
        (1, _) => "1 seed".to_owned(),
        (most, fewest) if fewest < most => format!("{fewest} to {most} seeds"),
        (most, _) => format!("{most} seeds"),
    };
    match curve.band {
        Band::Interval => format!("{seeds}; band: 95% interval"),
        Band::MinMax => format!("{seeds}; band: min to max"),
        Band::None => format!("{seeds}; no band"),
    }
}

/// The text on the bands, if it is the same for all curves: then it need not stand under each name.
pub(super) fn shared_band_text(curves: &[Curve]) -> Option<String> {
    let mut texts = curves.iter().map(band_text);
    let first = texts.next()?;
    texts.all(|text| text == first).then_some(first)
}

/// Moves labels apart: the heights nearest to these (least squares), in the same order, `gap` apart and between `top`
/// and `bottom`, or closer where they do not fit. In and out: pixels from above.
pub(super) fn move_apart(wanted: &[f64], gap: f64, (top, bottom): (f64, f64)) -> Vec<f64> {
    let gap = gap.min((bottom - top) / wanted.len().saturating_sub(1).max(1) as f64);
    let mut order: Vec<(usize, f64)> = wanted.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    // Less the gaps above it, a label must only not rise above the one before: labels that would are put together at
    // their mean (isotonic regression by pooling adjacent violators).
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (rank, (_, height)) in order.iter().enumerate() {
        let mut pool = (height - rank as f64 * gap, 1);
        while let Some(above) = pools.pop_if(|above| above.0 >= pool.0) {
            let count = above.1 + pool.1;
            pool = ((above.0 * above.1 as f64 + pool.0 * pool.1 as f64) / count as f64, count);
        }
        pools.push(pool);
    }
    let last = bottom - gap * wanted.len().saturating_sub(1) as f64;
    let heights = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.0.min(last).max(top), pool.1));
    let mut placed: Vec<(usize, f64)> = order
        .iter()
        .zip(heights)
        .enumerate()
        .map(|(rank, ((index, _), height))| (*index, height + rank as f64 * gap))
        .collect();
    placed.sort_by_key(|(index, _)| *index);
    placed.into_iter().map(|(_, height)| height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_short() {
        let label = |value| tick(value, 1.0);
        assert_eq!(label(0.1 + 0.2), "0.3");
        assert_eq!(label(-1e-17), "0");
        assert_eq!((label(1500.0), label(20_000.0), label(2.5e6)), ("1500".into(), "20k".into(), "2.5M".into()));
        assert_eq!(tick(1e-6, 1e-5), "1.0e-6");
    }

    #[test]
    fn limits_leave_room_and_stay_in_the_metrics_range() {
        assert_eq!(y_limits((0.2, 0.8), true, Some(1.0)), (0.0, 0.8 + 0.06 * (0.8 - 0.2)));
        assert_eq!(y_limits((0.2, 1.0), true, Some(1.0)), (0.0, 1.0));
        assert_eq!(y_limits((0.0, 0.0), true, Some(1.0)), (0.0, 1.0));
        assert!(y_limits((0.9, 0.95), true, Some(1.0)).0 > 0.8, "half of the height would be empty");
    }

    #[test]
    fn limits_of_equal_or_huge_numbers_are_apart() {
        for (low, high) in [(3.0, 3.0), (0.0, 0.0), (1e90, 1e90), (-5.0, -5.0), (1e12, 1e12 + 1e-3)] {
            let (low, high) = y_limits((low, high), false, None);
            assert!(low < high && (high - low).is_finite(), "{low} {high}");
            let (low, high) = apart((low, high));
            assert!(low < high, "{low} {high}");
        }
    }

    #[test]
    fn labels_move_apart_and_stay_inside() {
        assert_eq!(move_apart(&[10.0, 50.0], 20.0, (0.0, 100.0)), [10.0, 50.0]);
        assert_eq!(
            move_apart(&[52.0, 50.0], 20.0, (0.0, 100.0)),
            [61.0, 41.0],
            "by as little, in the order of the curves"
        );
        assert_eq!(move_apart(&[95.0, 99.0, 97.0], 20.0, (0.0, 100.0)), [60.0, 100.0, 80.0]);
        assert_eq!(
            move_apart(&[0.0; 5], 50.0, (0.0, 100.0)),
            [0.0, 25.0, 50.0, 75.0, 100.0],
            "closer where room lacks"
        );
        assert!(move_apart(&[], 20.0, (0.0, 100.0)).is_empty());
    }
}
