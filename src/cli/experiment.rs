//! `gradus experiment`: comparisons that anybody can run again.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::paint::printable;
use super::stop::Stop;
use crate::train::experiment::{Control, ExperimentConfig, run as run_experiment};
use crate::train::report::{ReportOptions, report};

/// What experiment.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The paper's comparison in a small world: SFT, PPO, GRPO, DAPO, CISPO and VSPO, each with the binary and the staged
    /// reward, and VSPO's ablations, over seeds. Settings may stand in the file of --config
    Paper(PaperArgs),
}

/// Settings; those of the file otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct PaperArgs {
    /// Folder of the experiment; what is done in it is not done again
    #[arg(long, value_name = "DIR", default_value = "experiment")]
    out: PathBuf,
    /// Runs at a time; 1 or more
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Steps of each run; 1 or more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Seeds of every run; 1 or more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Only runs whose names begin so, such as vspo-prs; may be repeated
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
}

pub(super) fn run(command: Command, config: Option<&PathBuf>) -> anyhow::Result<ExitCode> {
    let Command::Paper(args) = command;
    let mut settings = match config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            toml::from_str::<ExperimentConfig>(&text).with_context(|| path.display().to_string())?
        }
        None => ExperimentConfig::default(),
    };
    settings.jobs = args.jobs.map_or(settings.jobs, NonZeroUsize::get);
    settings.steps = args.steps.unwrap_or(settings.steps);
    if let Some(seeds) = args.seeds {
        (settings.main_seeds, settings.other_seeds) = (seeds, seeds);
    }
    if !args.only.is_empty() {
        settings.only = args.only;
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let stop = Stop::listen("stops when its runs have saved what they did; a second signal ends them at once", |_| ())?;
    // While the world is made, and while the report is.
    stop.set_idle(true);
    let told = || {
        stop.set_idle(false);
        match stop.times() {
            0 => Control::GoOn,
            1 => Control::Stop,
            _ => Control::End,
        }
    };
    let outcome = run_experiment(&settings, &args.out, &program, &mut |line| say!("{}", printable(line)), &told)?;
    stop.set_idle(true);
    for (name, why) in &outcome.failed {
        note!("gradus: {name} failed: {}", printable(why));
    }
    if outcome.stopped {
        say!("stopped with {} runs done; the same command goes on", outcome.done.len());
        return Ok(stop.code());
    }
    if outcome.done.is_empty() {
        anyhow::bail!("no run is done");
    }
    let found =
        report(&outcome.done, &ReportOptions { threshold: Some(settings.threshold), ..ReportOptions::default() })?;
    let folder = args.out.join("report");
    found.write(&folder)?;
    super::say_text(&printable(&found.markdown));
    say!("written to {}", folder.display());
    Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
