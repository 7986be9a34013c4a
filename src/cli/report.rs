//! `gradus report`: curves and tables of trainings, over seeds.

use std::path::PathBuf;
use std::process::ExitCode;

use super::paint::printable;
use crate::train::metrics::{Metric, glossary};
use crate::train::report::{GroupBy, REPORT_FILE, ReportOptions, XAxis, report};

/// Draw the curves of trainings and compare them over seeds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folders of runs, or folders in which runs lie
    #[arg(value_name = "RUN", required_unless_present = "glossary")]
    runs: Vec<PathBuf>,
    /// Where the page and the pictures go
    #[arg(long, value_name = "DIR", default_value = "report")]
    out: PathBuf,
    /// A metric to draw, such as reward/mean; may be repeated [default: exact match, reward, zero-advantage groups, KL,
    /// entropy, length]
    #[arg(long = "metric", value_name = "METRIC")]
    metrics: Vec<Metric>,
    /// Which runs are one curve
    #[arg(long, default_value = "group")]
    group_by: GroupBy,
    /// What curves run over
    #[arg(long, default_value = "step")]
    x: XAxis,
    /// The group to compare the others with [default: all pairs of up to four groups, or each with the best]
    #[arg(long, value_name = "GROUP")]
    baseline: Option<String>,
    /// The held-out exact match that counts as reached, from 0 to 1 [default: the runs' own]
    #[arg(long, value_name = "SHARE")]
    threshold: Option<f64>,
    /// Print what every metric means, and do nothing else
    #[arg(long)]
    glossary: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.glossary {
        super::say_text(&glossary());
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = ReportOptions {
        group_by: args.group_by,
        x: args.x,
        baseline: args.baseline,
        threshold: args.threshold,
        ..ReportOptions::default()
    };
    if !args.metrics.is_empty() {
        options.metrics = args.metrics;
    }
    let found = report(&args.runs, &options)?;
    found.write(&args.out)?;
    super::say_text(&printable(&found.markdown));
    for error in &found.left_out {
        note!("gradus: left out: {}", printable(&error.to_string()));
    }
    note!("gradus: wrote {}; pictures: {}", args.out.join(REPORT_FILE).display(), found.pictures.len());
    Ok(ExitCode::SUCCESS)
}
