//! `gradus judge`: measures judges, by the same questions that scoring asks.

mod attack;
mod bench;
mod check;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::paint::printable_line;
use super::{note_text, say_text};
use crate::config::{File, Scoring, ScoringFlags};
use crate::judge::Judges;
use crate::judge::check::{OnAnswered, Reason};
use crate::judge::examples::{Example, SHIPPED_EXAMPLES, read_examples};
use crate::rubric::Catalog;
use crate::stages::{JudgeMode, JudgeStage};

/// The rubric whose criteria count where none is named.
const DEFAULT_RUBRIC: &str = "long_form_qa";
/// Reasons for no verdict that are printed; JSON has all.
const REASONS_SHOWN: usize = 5;
/// Characters of a foreign text that are printed.
const TEXT_SHOWN: usize = 200;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Measure how right a judge is on labelled examples, how well calibrated, and how far it agrees with itself
    Check(check::Args),
    /// Measure how far text that is injected into wrong answers moves a judge
    Attack(attack::Args),
    /// Measure how many answers a judge takes a second
    Bench(bench::Args),
}

pub(super) fn run(command: Command, file: &File) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => check::run(args, file),
        Command::Attack(args) => attack::run(args, file),
        Command::Bench(args) => bench::run(args, file),
    }
}

/// Options of every measurement.
#[derive(Debug, clap::Args)]
struct Flags {
    /// Rubric whose first judge stage is asked: a name, name@version, or a rubric file [default: the criteria of
    /// `long_form_qa` in mode `match`]
    #[arg(long, short, value_name = "RUBRIC")]
    rubric: Option<String>,
    /// Write the report as JSON to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    scoring: ScoringFlags,
}

/// A stage with the judges that it asks.
struct Asking {
    judges: Judges,
    runtime: Runtime,
    stage: JudgeStage,
    /// Rubric, version and stage.
    asked_by: String,
    json: Option<PathBuf>,
}

impl Asking {
    fn open(flags: Flags, file: &File) -> anyhow::Result<Self> {
        let scoring = Scoring::compose(flags.scoring, file)?;
        let engine = super::engine(&scoring)?;
        let (asked_by, stage) = stage(&engine.catalog, flags.rubric.as_deref())?;
        let judges = super::open_judges(&scoring.judges, None)?;
        Ok(Self { judges, runtime: super::runtime()?, stage, asked_by, json: flags.json })
    }

    /// What a measurement gives, with the answers counted on a terminal meanwhile.
    fn measure<R>(
        &self,
        measurement: impl AsyncFnOnce(&Judges, &JudgeStage, &mut OnAnswered<'_>) -> R,
    ) -> anyhow::Result<R> {
        let bar = progress()?;
        let mut count = |answered| bar.inc(answered as u64);
        let report = self.runtime.block_on(measurement(&self.judges, &self.stage, &mut count));
        bar.finish_and_clear();
        Ok(report)
    }

    /// The report as JSON to where it is wanted, as a table to the terminal.
    fn print(&self, table: &str, report: &impl Serialize) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Asked<'a, R> {
            asked_by: &'a str,
            #[serde(flatten)]
            report: &'a R,
        }
        let json = || serde_json::to_string_pretty(&Asked { asked_by: &self.asked_by, report });
        match self.json.as_deref() {
            None => say_text(table),
            Some(path) if path == Path::new("-") => {
                say!("{}", json()?);
                note_text(table);
            }
            Some(path) => {
                let text = json()? + "\n";
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
                say_text(table);
            }
        }
        Ok(())
    }
}

/// The first judge stage of a rubric, and what to call it.
fn stage(catalog: &Catalog, rubric: Option<&str>) -> anyhow::Result<(String, JudgeStage)> {
    let found = super::named_or_file(catalog, rubric.unwrap_or(DEFAULT_RUBRIC))?;
    let judge = found.stages.iter().find_map(|stage| Some((&stage.name, stage.stage.judge()?)));
    let (stage, judge) =
        judge.with_context(|| format!("the rubric {:?} has no judge stage; name one that has", &*found.name))?;
    let asked_by = format!("{}@{}, stage {stage}", found.name, found.version);
    Ok(match rubric {
        Some(_) => (asked_by, judge.clone()),
        None => (asked_by, JudgeStage { mode: JudgeMode::Match, prompt: None, ..judge.clone() }),
    })
}

/// Labelled examples, and what their file is called in the report.
fn examples(path: Option<&Path>) -> anyhow::Result<(Vec<Example>, String)> {
    let name = name_of(path);
    Ok((read_examples(&text_of(path, SHIPPED_EXAMPLES)?).with_context(|| name.clone())?, name))
}

/// A file's text, or what is shipped where none is named.
fn text_of(path: Option<&Path>, shipped: &str) -> anyhow::Result<String> {
    match path {
        None => Ok(shipped.to_owned()),
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// What a file is called in the report.
fn name_of(path: Option<&Path>) -> String {
    path.map_or_else(|| "shipped".to_owned(), |path| path.display().to_string())
}

/// Counts answered questions on a terminal.
fn progress() -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} answers {per_sec}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// The lines on questions without a verdict.
fn reasons(reasons: &[Reason], out: &mut String) -> std::fmt::Result {
    use std::fmt::Write;
    for Reason { code, message, count } in reasons.iter().take(REASONS_SHOWN) {
        writeln!(out, "  {count} x {code}: {}", one_line(message, TEXT_SHOWN))?;
    }
    match reasons.len().saturating_sub(REASONS_SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} other reasons"),
    }
}

/// A foreign text, cut and on one line.
fn one_line(text: &str, max_chars: usize) -> String {
    let short: String = text.chars().take(max_chars).collect();
    let cut = if short.len() < text.len() { " .." } else { "" };
    printable_line(&short) + cut
}

/// A number of a table; a dash for none.
fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// A difference of a table.
fn signed(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:+.4}"))
}

/// A 95% interval of a table.
fn interval(ends: Option<[f64; 2]>, write: fn(Option<f64>) -> String) -> String {
    ends.map_or_else(|| "-".to_owned(), |[low, high]| format!("[{}, {}]", write(Some(low)), write(Some(high))))
}
