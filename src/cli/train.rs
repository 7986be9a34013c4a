//! `gradus train`: a run from its configuration to its model, and a look at the rollouts of a step.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::paint::printable;
use super::stop::{self, Stop};
use crate::config::{ConfigError, File, Scoring, ScoringFlags};
use crate::judge::Judges;
use crate::train::metrics::{Metric, StepMetrics};
use crate::train::{Run, RunOptions, TrainConfig, record};

/// Train a policy with the scores that Gradus gives.
///
/// The configuration of the run is the file of --config. A run that was stopped goes on from its newest checkpoint.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seed, in place of the file's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Steps, in place of the file's; 1 or more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Folder of the run, in place of the file's
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Go on although the configuration, the seed or the rubric changed since the run was stopped, or it ended early
    #[arg(long)]
    force: bool,
    /// Show the rollouts of a step that was written down, with their staged rewards, and do nothing else
    #[arg(long, value_name = "STEP")]
    inspect: Option<u64>,
    /// With --inspect: how many rollouts
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
    /// No progress bar; a line for each evaluation
    #[arg(long)]
    quiet: bool,
    /// The process that started this one, whose end stops it, too
    #[arg(long, hide = true, value_name = "PID")]
    parent: Option<i32>,
    #[command(flatten)]
    scoring: TrainScoring,
}

/// How this process scores: the options of scoring that a run has a use for.
#[derive(Debug, clap::Args)]
struct TrainScoring {
    /// Directory of rubric files (*.toml), in addition to the shipped ones; a file of the same name wins
    #[arg(long, env = "GRADUS_RUBRICS", value_name = "DIR")]
    rubrics: Option<PathBuf>,
    /// Threads that score, and that compute on the CPU [default: one per core]
    #[arg(long, env = "GRADUS_THREADS", value_name = "N")]
    threads: Option<usize>,
    /// The judge named "default": a model's directory, a GGUF file, a name on the Hugging Face hub, or URL#MODEL of an
    /// OpenAI-compatible server
    #[arg(long, env = "GRADUS_JUDGE", value_name = "DIR|GGUF|HUB_ID|URL#MODEL")]
    judge: Option<String>,
    /// Memory for judges' past answers, in bytes [default: 67108864]
    #[arg(long, env = "GRADUS_JUDGE_CACHE_BYTES", value_name = "BYTES")]
    judge_cache_bytes: Option<u64>,
}

impl TrainScoring {
    /// What has an effect where a server scores. The rest is warned of, and not refused: in an environment it may be meant
    /// for that server.
    fn of_remote(self) -> Self {
        let given = [
            (self.rubrics.is_some(), "--rubrics (GRADUS_RUBRICS)"),
            (self.judge.is_some(), "--judge (GRADUS_JUDGE)"),
            (self.judge_cache_bytes.is_some(), "--judge-cache-bytes (GRADUS_JUDGE_CACHE_BYTES)"),
        ];
        for (_, option) in given.into_iter().filter(|(is_given, _)| *is_given) {
            tracing::warn!("{option} has no effect, since the server at reward.url scores; give it to that server");
        }
        Self { rubrics: None, threads: self.threads, judge: None, judge_cache_bytes: None }
    }

    fn compose(self) -> Result<Scoring, ConfigError> {
        let Self { rubrics, threads, judge, judge_cache_bytes } = self;
        let flags = ScoringFlags { rubrics, threads, judge, judge_cache_bytes, ..ScoringFlags::default() };
        Scoring::compose(flags, &File::default())
    }
}

pub(super) fn run(args: Args, config: Option<&PathBuf>) -> anyhow::Result<ExitCode> {
    let path = config.context("name the run's configuration: gradus train --config FILE")?;
    let mut config = TrainConfig::parse(path)?;
    config.seed = args.seed.unwrap_or(config.seed);
    config.steps = args.steps.unwrap_or(config.steps);
    config.output = args.output.unwrap_or(config.output);
    let config = config.checked(path)?;
    if let Some(step) = args.inspect {
        return inspect(&config, step, args.show);
    }
    let stop = Stop::listen("stops after this step; a second signal ends it at once", |code| stop::end(code))?;
    args.parent.map_or(Ok(()), stop::with_parent)?;
    let options = options(&config, args.scoring, args.force)?;
    let steps = config.steps;
    let run = Run::open(config, &options)?;
    let progress = Progress::new(steps, args.quiet);
    let ended = run.go(&mut |metrics| progress.show(metrics), &|| stop.times() > 0);
    progress.bar.finish_and_clear();
    let ended = ended?;
    if ended.stopped {
        say!("stopped at step {}; the same command goes on", ended.steps);
        return Ok(stop.code());
    }
    let share = |value: Option<f64>| value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.3}"));
    if let Some(why) = &ended.early {
        say!("stopped early: {why}");
    }
    let (done, best, model) = (ended.steps, share(ended.best), ended.model.display());
    if ended.before == done {
        say!("nothing to do: {done} of {steps} steps are done; best held-out exact match {best}; model in {model}");
    } else {
        say!("{done} steps; held-out exact match {} (best {best}); model in {model}", share(ended.exact_match));
    }
    Ok(ExitCode::SUCCESS)
}

fn options(config: &TrainConfig, flags: TrainScoring, force: bool) -> anyhow::Result<RunOptions> {
    let flags = if config.reward.url.is_some() { flags.of_remote() } else { flags };
    let scoring = flags.compose()?;
    super::scoring_threads(&scoring)?;
    let token = |field: &str, name: Option<&String>| {
        let missing = |name: &String| format!("{field} names {name}, which is not in the environment");
        name.map(|name| std::env::var(name).with_context(|| missing(name))).transpose()
    };
    let reward_token = token("reward.token_env", config.reward.token_env.as_ref())?;
    let rollout_server = config.rollout_server.as_ref();
    let rollout_token = token("rollout_server.token_env", rollout_server.and_then(|server| server.token_env.as_ref()))?;
    if config.reward.url.is_some() {
        return Ok(RunOptions { judges: (Judges::none(), None), rubric: None, reward_token, rollout_token, force });
    }
    let catalog = super::catalog(&scoring)?;
    let rubric = Some(super::named_or_file(&catalog, &config.reward.rubric).context("reward.rubric")?);
    let judges = super::open_judges(&scoring.judges, None)?;
    let runtime = if judges.is_empty() { None } else { Some(Arc::new(super::runtime()?)) };
    Ok(RunOptions { judges: (judges, runtime), rubric, reward_token, rollout_token, force })
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    bar: ProgressBar,
    lines: bool,
}

impl Progress {
    fn new(steps: u64, quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {eta} {msg}") {
            bar.set_style(style);
        }
        Self { bar, lines: !shown }
    }

    fn show(&self, metrics: &StepMetrics) {
        let shown = [
            (Metric::RewardMean, "reward"),
            (Metric::EvalExactMatch, "exact match"),
            (Metric::GroupsZeroAdvantage, "zero advantage"),
            (Metric::PolicyLoss, "loss"),
            (Metric::PolicyKl, "KL"),
            (Metric::PolicyEntropy, "entropy"),
            (Metric::SpeedTokensPerSecond, "tokens/s"),
        ];
        let value = |(metric, name): &(Metric, &str)| {
            let value = metrics.get(metric)?;
            Some(if value.abs() >= 100.0 { format!("{name} {value:.0}") } else { format!("{name} {value:.3}") })
        };
        let message = shown.iter().filter_map(value).collect::<Vec<_>>().join(", ");
        self.bar.set_position(metrics.step());
        if self.lines && metrics.get(&Metric::EvalExactMatch).is_some() {
            say!("step {}: {message}", metrics.step());
        }
        if !self.lines {
            self.bar.set_message(message);
        }
    }
}

/// Shows rollouts, the groups one after the other.
fn inspect(config: &TrainConfig, step: u64, most: usize) -> anyhow::Result<ExitCode> {
    let records = record::read(&config.output, step)?;
    for record in records.iter().take(most) {
        let reward = record.scored.reward.map_or_else(|| "none".to_owned(), |reward| format!("{reward:.3}"));
        say!(
            "== {}: reward {reward}; group mean {:.3}, std {:.3}, value {:.3}, counted {} times; right: {}",
            printable(&record.task),
            record.group_mean,
            record.group_std,
            record.group_value,
            record.multiplicity,
            printable(&record.answers.join(" | "))
        );
        for message in &record.messages {
            say!("{:>9} {}", message.role, printable(&message.content));
        }
        for stage in &record.scored.stages {
            let state = match (stage.open, stage.passed) {
                (false, _) => "closed",
                (true, true) => "passed",
                (true, false) => "failed",
            };
            say!("  {:<16} {:.3} {state}", stage.name, stage.score);
        }
        if let Some(reason) = &record.scored.reason {
            say!("  {}", printable(reason));
        }
        if record.truncated {
            say!("  cut off by rollout.max_tokens");
        }
    }
    say!("{} of {} rollouts of step {step}", records.len().min(most), records.len());
    Ok(ExitCode::SUCCESS)
}
