//! The command line: one file per command. In: arguments, environment, configuration file; out: an exit code.

/// Prints a line to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say_text(&format!("{}\n", format_args!($($text)*))) };
}

/// Prints a line to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::note_text(&format!("{}\n", format_args!($($text)*))) };
}

mod arguments;
mod bench;
mod data;
mod environment;
mod experiment;
mod explain;
mod findings;
mod judge;
mod judges;
mod log;
mod openapi;
mod paint;
mod replay;
mod report;
mod rubric;
mod runs;
mod score;
mod score_options;
mod score_output;
mod serve;
mod stop;
mod summary;
mod train;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use self::findings::StoredFindings;
use crate::config::{File, LogFormat, Scoring};
use crate::http::batch::{BatchError, Due, Engine};
use crate::judge::rubric::read_toml;
use crate::judge::{Config as JudgesConfig, ConfigError, FindingStore, Judges};
use crate::rubric::{Catalog, Rubric};
use crate::store::Store;

/// Scores the trajectories of LLM agents in progressive stages.
///
/// Without a command it serves. An option can also be set by the environment variable beside it, and those of the server in
/// a TOML file (--config); options win over the environment, the environment over the file. `train` and `experiment` read
/// files of their own from --config.
#[derive(Debug, Parser)]
#[command(name = "gradus", version, max_term_width = 100)]
struct Cli {
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "GRADUS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log to standard error: error, warn, info, debug, or a filter such as gradus=debug [default: info]
    #[arg(long, global = true, env = "GRADUS_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log
    #[arg(long, global = true, env = "GRADUS_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Score(score::Args),
    /// Check, explain, list and show rubrics
    #[command(subcommand)]
    Rubric(rubric::Command),
    /// List and remove the runs of a database
    #[command(subcommand)]
    Runs(runs::Command),
    /// Measure a judge
    #[command(subcommand)]
    Judge(judge::Command),
    /// Print the OpenAPI document
    Openapi,
    Bench(bench::Args),
    Train(train::Args),
    Report(report::Args),
    /// Make data to learn from
    #[command(subcommand)]
    Data(data::Command),
    /// Run a comparison of algorithms and rewards
    #[command(subcommand)]
    Experiment(experiment::Command),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // It may quote a file that is foreign.
            note!("gradus: {}", paint::printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let cli = arguments::read().unwrap_or_else(|error| error.exit());
    // The file of a training is the training's own.
    let own_file = matches!(cli.command, Some(Command::Train(_) | Command::Experiment(_)));
    let file = File::read(cli.config.as_deref().filter(|_| !own_file))?;
    let (filter, format) = file.log(cli.log.clone(), cli.log_format);
    log::start(&filter, format, matches!(cli.command, None | Some(Command::Serve(_))))?;
    let done = match command(cli, &file, format) {
        // Whoever reads the log as JSON reads why it ended there, too, unless it is switched off.
        Err(error) if format == LogFormat::Json && tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!(error = format!("{error:#}"), "gradus ends");
            Ok(ExitCode::FAILURE)
        }
        done => done,
    };
    log::end();
    done
}

fn command(cli: Cli, file: &File, log: LogFormat) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or_else(|| Command::Serve(serve::Args::default())) {
        Command::Serve(args) => serve::run(args, file, log),
        Command::Score(args) => score::run(args, file),
        Command::Rubric(command) => rubric::run(command, file),
        Command::Runs(command) => runs::run(command, file),
        Command::Judge(command) => judge::run(command, file),
        Command::Openapi => openapi::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Train(args) => train::run(args, cli.config.as_ref()),
        Command::Report(args) => report::run(args),
        Command::Data(command) => data::run(command),
        Command::Experiment(command) => experiment::run(command, cli.config.as_ref()),
    }
}

/// Prints to standard output. Whoever closed the pipe has read enough: that is no error, and changes no exit code.
fn say_text(text: &str) {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            log::end();
            note!("gradus: cannot write to standard output: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Prints to standard error. Where that cannot be written nobody can be told, and the work goes on.
fn note_text(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What the judges of a command wait on.
fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the judges' threads could not be started")?;
    let _guard = runtime.enter();
    survive_file_limits();
    Ok(runtime)
}

/// Lets a write beyond a limit on the size of files fail instead of ending the process. In a runtime.
fn survive_file_limits() {
    use tokio::signal::unix::{SignalKind, signal};
    // Whoever listens for the signal has taken its default away, for as long as the process lives.
    if let Err(error) = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())) {
        tracing::warn!(%error, "a limit on the size of files would end the process");
    }
}

/// Where judges keep what they said: in the store, if there is one.
fn memory(store: Option<&Store>) -> Option<Arc<dyn FindingStore>> {
    store.map(|store| -> Arc<dyn FindingStore> { Arc::new(StoredFindings { store: store.clone(), keeps: true }) })
}

/// The rubrics that there are.
fn catalog(scoring: &Scoring) -> anyhow::Result<Catalog> {
    Ok(Catalog::open_with(scoring.rubrics.as_deref(), read_toml)?)
}

/// The threads of all that this process computes in parallel.
fn scoring_threads(scoring: &Scoring) -> anyhow::Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(scoring.threads)
        .thread_name(|index| format!("score-{index}"))
        .build_global()
        .context("the scoring threads could not be started")
}

/// The engine that all scoring commands share, without a judge.
fn engine(scoring: &Scoring) -> anyhow::Result<Engine> {
    let catalog = catalog(scoring)?;
    anyhow::ensure!(
        catalog.get(&scoring.default_rubric).is_some(),
        "the default rubric {:?} does not exist; `gradus rubric list` lists those there are",
        scoring.default_rubric
    );
    scoring_threads(scoring)?;
    Ok(Engine {
        default_rubric: scoring.default_rubric.clone(),
        inline_rubrics: scoring.inline_rubrics,
        ..Engine::new(catalog, scoring.schema_cache_bytes)
    })
}

/// The judges, all of them, with the keys that the environment has.
fn open_judges(judges: &JudgesConfig, memory: Option<Arc<dyn FindingStore>>) -> Result<Judges, ConfigError> {
    Judges::open(judges, |name| std::env::var(name).ok(), memory)
}

/// The rubric to score by: a known one, or that of a file, which is added to the catalogue.
fn named_or_file(catalog: &Catalog, rubric: &str) -> anyhow::Result<Arc<Rubric>> {
    let path = Path::new(rubric);
    if path.extension().is_some_and(|extension| extension == "toml") {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {rubric}"))?;
        let read = read_toml(&text).map_err(|error| anyhow::anyhow!("{rubric}: {error}"))?;
        return Ok(catalog.insert(read)?);
    }
    catalog.get(rubric).with_context(|| {
        format!("there is no rubric {rubric:?}; give a .toml file, or a name from `gradus rubric list`")
    })
}

/// A batch error in words, for people.
fn said(error: BatchError) -> String {
    let text = match error {
        BatchError::Request(wrong) => wrong.to_string(),
        BatchError::UnknownRubric(name) => {
            format!("there is no rubric {name:?}; `gradus rubric list` lists those there are")
        }
        BatchError::Rubric(error) => format!("the rubric has an error: {error}"),
        BatchError::InlineRubric => "inline rubrics are switched off".to_owned(),
        BatchError::Deadline(Due { limit_ms, .. }) => format!("not scored within {limit_ms} ms"),
        BatchError::Abandoned => "interrupted".to_owned(),
        BatchError::Invalid { code, message, pointer, .. } => format!("{pointer} {code}: {message}"),
    };
    paint::printable_line(&text)
}
