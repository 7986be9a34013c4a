//! What is known of a metric besides its value: name, unit, range and a sentence; and the glossary made of these.

use std::fmt::Write;

use super::metric::Metric;

/// What a metric is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Points of the rubric's reward.
    Reward,
    /// A part of a whole: 1 is all of it.
    Share,
    /// Natural-logarithm units of information, per token.
    Nats,
    /// A quotient, a norm or a factor.
    Dimensionless,
    /// The objective's own unit.
    Loss,
    /// Things that are counted: groups, calls, turns.
    Count,
    /// Tokens.
    Tokens,
    /// Tokens per second.
    TokensPerSecond,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The unit as an axis shows it.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Reward => "reward",
            Self::Share => "share",
            Self::Nats => "nats per token",
            Self::Dimensionless => "no unit",
            Self::Loss => "loss",
            Self::Count => "count",
            Self::Tokens => "tokens",
            Self::TokensPerSecond => "tokens/s",
            Self::Seconds => "s",
        }
    }
}

/// Which values a metric can take. Documentation, and the limits of an axis; not enforced, since rounding may overstep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Any finite number.
    Any,
    /// 0 or more.
    NonNegative,
    /// 0 to 1.
    Unit,
}

impl Range {
    /// The least value, where there is one.
    pub fn min(self) -> Option<f64> {
        matches!(self, Self::NonNegative | Self::Unit).then_some(0.0)
    }

    /// The largest value, where there is one.
    pub fn max(self) -> Option<f64> {
        (self == Self::Unit).then_some(1.0)
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::NonNegative => "0 or more",
            Self::Unit => "0 to 1",
        }
    }
}

/// What is known of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Its name in files and in TensorBoard; `<name>` stands for what varies in a family.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// Which values it can take.
    pub range: Range,
    /// What it says, in a sentence.
    pub text: &'static str,
}

const GLOSSARY_HEAD: &str = "\
# Metrics

What a training run records at every step, in `metrics.jsonl` and for TensorBoard. `gradus report --glossary` prints
this page from the list in `src/train/metrics/metric.rs`. A metric that an algorithm does not have is left out of the
step; an `eval/` metric stands at the steps at which the policy was evaluated.

| metric | unit | range | meaning |
|---|---|---|---|
";

/// The glossary of all metrics, as a Markdown document.
pub fn glossary() -> String {
    let mut text = String::from(GLOSSARY_HEAD);
    for Definition { name, unit, range, text: meaning } in Metric::definitions() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{name}` | {} | {} | {meaning} |", unit.symbol(), range.symbol());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_one_row_and_a_sentence() {
        let glossary = glossary();
        let share = "| `eval/exact_match` | share | 0 to 1 | Share of the held-out questions that the greedy policy answers \
                     exactly right. |\n";
        assert!(glossary.starts_with("# Metrics\n") && glossary.contains(share), "{glossary}");
        for Definition { name, text, .. } in Metric::definitions() {
            assert_eq!(glossary.matches(&format!("| `{name}` |")).count(), 1, "{name}");
            assert!(text.ends_with('.') && text.len() > 20 && !text.contains('|'), "{name}: {text}");
        }
    }
}
