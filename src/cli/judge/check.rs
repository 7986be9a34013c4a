//! `gradus judge check`: a judge on labelled examples.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Asking, Flags, interval, number, one_line, reasons};
use crate::config::File;
use crate::judge::check::{Agreement, CheckReport, check};

/// Measure how right a judge is on labelled examples, how well calibrated, and how far it agrees with itself.
///
/// Each line of the file is an object with `id`, `question`, `references`, `answer`, `label` (Match or Mismatch), `kind`
/// and perhaps `paraphrase_of`. The exit code is 1 where more than half of the examples got no verdict.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Labelled examples, one JSON object a line [default: those that ship with the program]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take only the first N examples
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: Args, file: &File) -> anyhow::Result<ExitCode> {
    let (mut examples, name) = super::examples(args.file.as_deref())?;
    examples.truncate(args.limit.unwrap_or(usize::MAX));
    let asking = Asking::open(args.flags, file)?;
    let report = asking.measure(async |judges, stage, count| check(judges, stage, &examples, count).await)?;
    asking.print(&table(&report, &asking.asked_by, &name)?, &report)?;
    let measured = 2 * report.with_verdict >= report.examples && report.with_verdict > 0;
    Ok(if measured { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(report: &CheckReport, asked_by: &str, examples: &str) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "judge     {}", one_line(&report.judge, usize::MAX))?;
    writeln!(out, "asked by  {asked_by}, mode {}", report.mode)?;
    let speed = report.examples_per_s.map_or_else(String::new, |speed| format!("; {speed:.1} examples/s"));
    let without = report.examples - report.with_verdict;
    writeln!(out, "examples  {examples}: {} with a verdict, {without} without{speed}", report.with_verdict)?;
    reasons(&report.without_verdict, &mut out)?;
    writeln!(out)?;
    measures(report, &mut out)?;
    if !report.label_order_without_verdict.is_empty() {
        writeln!(out, "\n  without a verdict when the labels are reversed:")?;
        reasons(&report.label_order_without_verdict, &mut out)?;
    }
    writeln!(out)?;
    kinds(report, &mut out)?;
    Ok(out)
}

fn measures(report: &CheckReport, out: &mut String) -> std::fmt::Result {
    let mut row = |name: &str, value: String, remark: String| {
        writeln!(out, "{}", format!("  {name:26}  {value:>7}  {remark}").trim_end())
    };
    row("accuracy", number(report.accuracy), format!("95% {}", interval(report.accuracy_interval, number)))?;
    row("Cohen's kappa", number(report.kappa), String::new())?;
    row("expected calibration error", number(report.calibration_error), "10 bins".to_owned())?;
    row("Brier score", number(report.brier), String::new())?;
    let counts = report.confusion;
    let of = |wrong: usize, right: usize| format!("of {}", wrong + right);
    row(
        "Match taken for Mismatch",
        counts.match_as_mismatch.to_string(),
        of(counts.match_as_mismatch, counts.match_as_match),
    )?;
    row(
        "Mismatch taken for Match",
        counts.mismatch_as_match.to_string(),
        of(counts.mismatch_as_match, counts.mismatch_as_mismatch),
    )?;
    let mut agreement = |name: &str, found: &Agreement| {
        let (pairs, all) = (found.pairs, found.pairs + found.without_verdict);
        if 2 * pairs < all {
            // The few that have both verdicts need not be like the others.
            return row(name, number(None), format!("no measure: {pairs} of {all} pairs have both verdicts"));
        }
        let differ = number(found.mean_difference);
        row(
            name,
            number(found.equal_verdicts),
            format!("equal verdicts, {pairs} of {all} pairs; scores differ by {differ}"),
        )
    };
    agreement("agreement on paraphrases", &report.paraphrases)?;
    match &report.label_order {
        Some(found) => agreement("agreement on label order", found)?,
        None => row("agreement on label order", number(None), "the prompt lists no labels".to_owned())?,
    }
    match report.mass_outside {
        Some(mass) => row("mass outside the labels", number(Some(mass.mean)), format!("largest {:.4}", mass.largest)),
        None => row("mass outside the labels", number(None), "the judge does not tell".to_owned()),
    }
}

fn kinds(report: &CheckReport, out: &mut String) -> std::fmt::Result {
    let name = |kind: &str| one_line(kind, 32);
    let width = report.by_kind.keys().map(|kind| name(kind).chars().count()).max().unwrap_or(0).max(4);
    writeln!(out, "  {:width$}  {:>8}  {:>8}  {:>8}", "kind", "examples", "verdicts", "accuracy")?;
    for (kind, found) in &report.by_kind {
        let accuracy = number(found.accuracy);
        writeln!(out, "  {:width$}  {:>8}  {:>8}  {accuracy:>8}", name(kind), found.examples, found.with_verdict)?;
    }
    Ok(())
}
