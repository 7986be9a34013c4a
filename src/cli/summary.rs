//! The summary of a scored file: stages as a table, rewards as a histogram.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::http::batch::{BatchError, Scored};
use crate::store::StageCounts;

const BINS: usize = 10;
const BAR: usize = 40;

/// What was scored with one version of one rubric.
#[derive(Debug, Default)]
struct Part {
    stages: Vec<StageCounts>,
    rewards: Vec<f64>,
    range: (f64, f64),
    invalid: usize,
    errors: BTreeMap<&'static str, u64>,
}

/// Adds up scored requests.
#[derive(Debug, Default)]
pub(super) struct Summary {
    parts: BTreeMap<String, Part>,
    /// Requests that have no answer, by whatever rubric they were to be scored.
    refused: usize,
    /// Why, where that was an item and `on_invalid` is `error`.
    refused_for: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub(super) fn add(&mut self, scored: &Scored) {
        let rubric = &scored.settings.rubric;
        let part = self.parts.entry(format!("{}@{}", rubric.name, rubric.version)).or_default();
        part.range = (rubric.range.min(), rubric.range.max());
        if part.stages.is_empty() {
            part.stages.clone_from(&scored.counts.stages);
        } else {
            for (sum, counts) in part.stages.iter_mut().zip(&scored.counts.stages) {
                sum.reached += counts.reached;
                sum.passed += counts.passed;
                sum.score_sum += counts.score_sum;
            }
        }
        part.rewards.extend(scored.rows.iter().filter(|row| row.valid).filter_map(|row| row.reward));
        part.invalid += scored.rows.iter().filter(|row| !row.valid).count();
        for (code, n) in &scored.counts.errors {
            *part.errors.entry(code.as_str()).or_default() += n;
        }
    }

    /// Counts a request that was refused.
    pub(super) fn refuse(&mut self, why: &BatchError) {
        self.refused += 1;
        if let BatchError::Invalid { errors, .. } = why {
            for (code, n) in errors {
                *self.refused_for.entry(code.as_str()).or_default() += n;
            }
        }
    }

    /// Whether nothing was scored.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many trajectories could not be scored.
    pub(super) fn invalid(&self) -> usize {
        self.parts.values().map(|part| part.invalid).sum()
    }

    /// The summary as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (rubric, part) in &self.parts {
            // Writing to a String cannot fail.
            let _ = part.write(rubric, &mut text);
        }
        if self.refused > 0 {
            let plural = if self.refused == 1 { "" } else { "s" };
            let _ = writeln!(text, "{} request{plural} refused", self.refused);
        }
        for (code, n) in &self.refused_for {
            let _ = writeln!(text, "  {n} x {code}");
        }
        text
    }
}

impl Part {
    fn write(&self, rubric: &str, out: &mut String) -> std::fmt::Result {
        let n = self.rewards.len();
        write!(out, "{rubric}: {n} scored, {} not", self.invalid)?;
        match n {
            0 => writeln!(out)?,
            _ => writeln!(out, "; mean reward {:.4}", self.rewards.iter().sum::<f64>() / n as f64)?,
        }
        let width = self.stages.iter().map(|counts| counts.stage.chars().count()).max().unwrap_or(0).max(5);
        writeln!(out, "  {:width$}  {:>8}  {:>8}  {:>6}", "stage", "reached", "passed", "mean")?;
        for counts in &self.stages {
            let mean = match counts.reached {
                0 => "-".to_owned(),
                reached => format!("{:.3}", counts.score_sum / f64::from(reached)),
            };
            writeln!(out, "  {:width$}  {:>8}  {:>8}  {mean:>6}", counts.stage, counts.reached, counts.passed)?;
        }
        if n > 0 {
            self.histogram(out)?;
        }
        for (code, n) in &self.errors {
            writeln!(out, "  {n} x {code}")?;
        }
        Ok(())
    }

    fn histogram(&self, out: &mut String) -> std::fmt::Result {
        let (low, high) = self.range;
        // Of its own each, since a sum of steps misses it by a rounding, and rewards lie on edges.
        let edge = |bin: usize| (low * (BINS - bin) as f64 + high * bin as f64) / BINS as f64;
        let mut counts = [0_usize; BINS];
        for reward in &self.rewards {
            let bin = (BINS - 1).min((1..BINS).take_while(|bin| *reward >= edge(*bin)).count());
            if let Some(count) = counts.get_mut(bin) {
                *count += 1;
            }
        }
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        writeln!(out, "  rewards")?;
        for (bin, count) in counts.iter().enumerate() {
            let (from, to) = (edge(bin), edge(bin + 1));
            let close = if bin + 1 == BINS { ']' } else { ')' };
            let bar = "█".repeat((count * BAR).div_ceil(most));
            writeln!(out, "{}", format!("  [{from:>6.2}, {to:>5.2}{close} {count:>8}  {bar}").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reward_on_an_edge_is_counted_above_it() {
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (-0.5, 1.5)] {
            for tenths in 0..=10_u8 {
                let reward = (low * f64::from(10 - tenths) + high * f64::from(tenths)) / 10.0;
                let part = Part { rewards: vec![reward], range: (low, high), ..Part::default() };
                let mut out = String::new();
                part.histogram(&mut out).unwrap();
                let full = out.lines().skip(1).position(|line| line.ends_with('█')).unwrap();
                assert_eq!(full, usize::from(tenths.min(9)), "{reward}\n{out}");
            }
        }
        let mut out = String::new();
        Part { rewards: vec![1.0], range: (0.0, 1.0), ..Part::default() }.histogram(&mut out).unwrap();
        assert!(out.lines().all(|line| !line.ends_with(' ')), "{out}");
        // As they are written.
        for (reward, bin) in [(0.3, 3), (0.6, 6), (0.7, 7)] {
            let part = Part { rewards: vec![reward], range: (0.0, 1.0), ..Part::default() };
            let mut out = String::new();
            part.histogram(&mut out).unwrap();
            assert!(out.lines().nth(bin + 1).unwrap().ends_with('█'), "{reward}\n{out}");
        }
    }
}
