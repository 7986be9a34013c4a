//! A group's curve: the mean over seeds with its band. In: a group, a metric, an axis. Out: points, ready to draw.

use super::group::Group;
use super::options::XAxis;
use super::statistics::{Estimate, interpolate};
use crate::train::metrics::Metric;

/// From how many seeds on the band is an interval of the mean: with two, Student's t is 12.7 standard errors wide.
const INTERVAL_FROM: usize = 3;

/// Points of a curve over tokens or seconds, where no two seeds were measured at the same place.
const GRID: usize = 200;

/// What a band shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Band {
    /// The 95% interval of the mean over seeds, by Student's t.
    Interval,
    /// The least and the largest seed.
    MinMax,
    /// One seed: no band.
    None,
}

/// A place on a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where: a step, tokens, or seconds.
    pub x: f64,
    /// The mean over the seeds that have data there.
    pub mean: f64,
    /// The band's lower and upper end; none where too few seeds are left for the group's kind of band.
    pub band: Option<(f64, f64)>,
    /// How many seeds have data there.
    pub n: usize,
}

/// A group's curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The group's name.
    pub name: String,
    /// Which colour and dash it gets: the group's place among all groups, the same in every picture.
    pub style: usize,
    /// What its band shows.
    pub band: Band,
    /// Its points, ascending in x; at least one.
    pub points: Vec<Point>,
}

impl Curve {
    /// Most and fewest seeds along the curve.
    pub fn seeds(&self) -> (usize, usize) {
        let counts = || self.points.iter().map(|point| point.n);
        (counts().max().unwrap_or(0), counts().min().unwrap_or(0))
    }
}

/// Runs' curves by seed, those of one seed together.
type Seeds = Vec<Vec<Vec<(f64, f64)>>>;

/// The curve of a group over its seeds, or none if no run has the metric. Every seed counts from its first to its last
/// measurement, linear between; the mean is over those present.
pub(super) fn curve(group: &Group, style: usize, metric: &Metric, x: XAxis) -> Option<Curve> {
    let of = |x: XAxis| -> Seeds {
        let runs = group.seeds.values().map(|runs| runs.iter().map(|run| run.points(metric, x)));
        let some = |runs: Vec<Vec<_>>| runs.into_iter().filter(|points| !points.is_empty()).collect::<Vec<_>>();
        runs.map(|runs| some(runs.collect())).filter(|runs| !runs.is_empty()).collect()
    };
    let seeds = of(x);
    let band = match seeds.len() {
        0 => return None,
        1 => Band::None,
        n if n < INTERVAL_FROM => Band::MinMax,
        _ => Band::Interval,
    };
    let places = match x {
        XAxis::Step => measured(&seeds),
        XAxis::Tokens | XAxis::Seconds => even(&seeds, &of(XAxis::Step)),
    };
    let mut points: Vec<Point> = Vec::new();
    for x in places {
        let heights: Vec<f64> = seeds.iter().filter_map(|runs| seed_height(runs, x)).collect();
        // Between a seed that ended and one that starts later there may be nobody.
        let Some(estimate) = Estimate::of(&heights) else { continue };
        points.push(Point { x, mean: estimate.mean, band: ends(band, &heights, estimate), n: estimate.n });
    }
    (!points.is_empty()).then(|| Curve { name: group.name.clone(), style, band, points })
}

/// The mean height of a seed's runs at x, over those that have data there.
fn seed_height(runs: &[Vec<(f64, f64)>], x: f64) -> Option<f64> {
    let heights: Vec<f64> = runs.iter().filter_map(|points| interpolate(points, x)).collect();
    Estimate::of(&heights).map(|estimate| estimate.mean)
}

fn ends(band: Band, heights: &[f64], estimate: Estimate) -> Option<(f64, f64)> {
    match band {
        Band::Interval if heights.len() >= INTERVAL_FROM => {
            estimate.half_width.map(|half| (estimate.mean - half, estimate.mean + half))
        }
        Band::MinMax if heights.len() > 1 => {
            let least = heights.iter().copied().fold(f64::INFINITY, f64::min);
            Some((least, heights.iter().copied().fold(f64::NEG_INFINITY, f64::max)))
        }
        _ => None,
    }
}

/// Wherever a seed was measured.
fn measured(seeds: &Seeds) -> Vec<f64> {
    let mut places: Vec<f64> = seeds.iter().flatten().flatten().map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// Even places over tokens or seconds. No two seeds start and end at the same place there, and a mean over the last to
/// arrive would only show who was slow: the curve goes from where the last starts to where the first of those ends that
/// went through all steps. `steps` are the same curves over steps.
fn even(seeds: &Seeds, steps: &Seeds) -> Vec<f64> {
    let last = |points: &Vec<(f64, f64)>| points.last().map_or(0.0, |point| point.0);
    let final_step = steps.iter().flatten().map(last).fold(0.0, f64::max);
    let all = seeds.iter().flatten().zip(steps.iter().flatten());
    let to = all
        .filter(|(_, steps)| last(steps) == final_step)
        .map(|(points, _)| last(points))
        .fold(f64::INFINITY, f64::min);
    let starts = seeds.iter().flatten().filter_map(|points| points.first()).map(|point| point.0);
    let from = starts.fold(0.0, f64::max).min(to);
    (0..=GRID).map(|index| (from + (to - from) * index as f64 / GRID as f64).min(to)).collect()
}
