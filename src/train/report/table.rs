//! The report's tables in Markdown: groups with intervals over seeds, and differences paired by seed. In: groups. Out:
//! text.

use std::fmt::Write;

use super::group::Group;
use super::measure::Measure;
use super::statistics::Estimate;

/// Up to so many groups, every pair is compared; with more, each with one.
const ALL_PAIRS: usize = 4;

/// The groups, the best final exact match first; groups without one come last, by name.
pub(super) fn sorted(groups: &[Group]) -> Vec<&Group> {
    let last = |group: &Group| estimate(group, Measure::Final, None).map_or(f64::NEG_INFINITY, |found| found.mean);
    let mut order: Vec<(f64, &Group)> = groups.iter().map(|group| (last(group), group)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    order.into_iter().map(|(_, group)| group).collect()
}

/// One row a group: every measure with its interval.
pub(super) fn summary(groups: &[&Group], threshold: Option<f64>) -> String {
    let mut text = head(&["group", "seeds"]);
    for group in groups {
        // Writing to a String cannot fail.
        let _ = write!(text, "| {} | {} |", escaped(&group.name), group.seeds.len());
        for measure in Measure::ALL {
            let _ = write!(text, " {} |", summary_cell(group, measure, threshold));
        }
        text.push('\n');
    }
    text
}

/// One row a pair of groups: the mean difference A - B over the seeds that both have, with its interval, in bold where
/// that leaves 0 out. `None` if there is nothing to compare.
pub(super) fn differences(groups: &[&Group], baseline: Option<&str>, threshold: Option<f64>) -> Option<String> {
    let mut text = head(&["A - B", "seeds"]);
    let pairs = pairs(groups, baseline);
    for (a, b) in &pairs {
        let shared = a.seeds.keys().filter(|seed| b.seeds.contains_key(seed)).count();
        let _ = write!(text, "| {} - {} | {shared} |", escaped(&a.name), escaped(&b.name));
        for measure in Measure::ALL {
            let _ = write!(text, " {} |", difference_cell(a, b, measure, threshold));
        }
        text.push('\n');
    }
    (!pairs.is_empty()).then_some(text)
}

/// A group's mean over its seeds.
pub(super) fn estimate(group: &Group, measure: Measure, threshold: Option<f64>) -> Option<Estimate> {
    let values: Vec<f64> = group.per_seed(|run| measure.of(run, threshold)).into_values().collect();
    Estimate::of(&values)
}

/// The mean difference over the seeds that both groups have a value for.
pub(super) fn paired(a: &Group, b: &Group, measure: Measure, threshold: Option<f64>) -> Option<Estimate> {
    let (a, b) = (a.per_seed(|run| measure.of(run, threshold)), b.per_seed(|run| measure.of(run, threshold)));
    let differences: Vec<f64> = a.iter().filter_map(|(seed, a)| b.get(seed).map(|b| a - b)).collect();
    Estimate::of(&differences)
}

fn pairs<'a>(groups: &[&'a Group], baseline: Option<&str>) -> Vec<(&'a Group, &'a Group)> {
    let others =
        |one: &'a Group| groups.iter().filter(move |group| group.name != one.name).map(move |group| (*group, one));
    if let Some(baseline) = baseline {
        return groups.iter().find(|group| group.name == baseline).map(|one| others(one).collect()).unwrap_or_default();
    }
    match groups {
        [best, ..] if groups.len() > ALL_PAIRS => others(best).map(|(other, best)| (best, other)).collect(),
        _ => {
            (groups.iter().enumerate()).flat_map(|(index, a)| groups.iter().skip(index + 1).map(|b| (*a, *b))).collect()
        }
    }
}

/// A mean over part of the seeds would flatter whoever fails often: of a threshold that not all reach, how many do is
/// said.
fn summary_cell(group: &Group, measure: Measure, threshold: Option<f64>) -> String {
    let Some(found) = estimate(group, measure, threshold) else {
        return no_value(group, measure, threshold);
    };
    let text = number(found, measure, false);
    if found.n < group.seeds.len() { format!("{} of {}: {text}", found.n, group.seeds.len()) } else { text }
}

fn no_value(group: &Group, measure: Measure, threshold: Option<f64>) -> String {
    let asked = measure == Measure::StepsToThreshold
        && group.runs().any(|run| threshold.or(run.info.threshold).is_some() && Measure::Final.of(run, None).is_some());
    if asked { format!("0 of {}", group.seeds.len()) } else { "–".to_owned() }
}

fn difference_cell(a: &Group, b: &Group, measure: Measure, threshold: Option<f64>) -> String {
    let Some(found) = paired(a, b, measure, threshold) else { return "–".to_owned() };
    let text = number(found, measure, true);
    let text = if found.excludes_zero() { format!("**{text}**") } else { text };
    let shared = a.seeds.keys().filter(|seed| b.seeds.contains_key(seed)).count();
    if found.n < shared { format!("{} of {shared}: {text}", found.n) } else { text }
}

/// Mean and half-width, such as `0.712 ± 0.031`.
fn number(found: Estimate, measure: Measure, signed: bool) -> String {
    let digits = measure.digits();
    let mean = if signed { format!("{:+.digits$}", found.mean) } else { format!("{:.digits$}", found.mean) };
    match found.half_width {
        Some(half) => format!("{mean} ± {half:.digits$}"),
        None => format!("{mean} (n/a)"),
    }
}

fn head(first: &[&str]) -> String {
    let titles: Vec<&str> = first.iter().copied().chain(Measure::ALL.map(Measure::title)).collect();
    // Names to the left, numbers to the right.
    format!("| {} |\n|---|{}\n", titles.join(" | "), "---:|".repeat(titles.len() - 1))
}

/// A name as Markdown text of one line.
pub(super) fn escaped(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if matches!(c, '\\' | '|' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '#' | '&') {
            text.push('\\');
        }
        text.push(if c.is_control() { ' ' } else { c });
    }
    text
}
