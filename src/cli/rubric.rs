//! `gradus rubric`: check, explain, list, show.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::explain;
use super::judges::LazyJudges;
use super::paint::printable_line;
use super::say_text;
use crate::config::{File, Scoring, ScoringFlags};
use crate::judge::rubric::read_toml;
use crate::rubric::SHIPPED;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Check rubric files; errors have line and column
    Check {
        /// Rubric files (TOML)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say why a trajectory gets its reward, stage by stage, with its text highlighted
    Explain {
        /// A rubric file, or the name of a rubric
        #[arg(value_name = "FILE")]
        rubric: String,
        /// A trajectory: JSON, or the first line of a .jsonl file, or - for standard input, which may be either; a whole
        /// request body works, too
        #[arg(value_name = "TRAJECTORY")]
        trajectory: PathBuf,
        /// Curriculum step to score at
        #[arg(long, value_name = "N")]
        step: Option<u64>,
        #[command(flatten)]
        scoring: ScoringFlags,
    },
    /// List the rubrics by name
    List {
        #[command(flatten)]
        scoring: ScoringFlags,
    },
    /// Print a rubric's file, to start your own from
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        scoring: ScoringFlags,
    },
}

pub(super) fn run(command: Command, file: &File) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { files } => Ok(check(&files)),
        Command::Explain { rubric, trajectory, step, scoring } => {
            let scoring = Scoring::compose(scoring, file)?;
            let engine = super::engine(&scoring)?;
            explain::run(&engine, &LazyJudges::new(&scoring, None), &rubric, &trajectory, step)
        }
        Command::List { scoring } => list(&Scoring::compose(scoring, file)?),
        Command::Show { name, scoring } => show(&name, &Scoring::compose(scoring, file)?),
    }
}

fn check(files: &[PathBuf]) -> ExitCode {
    let mut wrong = 0;
    for path in files {
        let shown = path.display();
        match std::fs::read_to_string(path).map_err(|error| error.to_string()) {
            Err(error) => {
                wrong += 1;
                note!("{shown}: {error}");
            }
            Ok(text) => match read_toml(&text) {
                Ok(rubric) => {
                    say!("{shown}: {}@{} is fine, {} stages", rubric.name, rubric.version, rubric.stages.len());
                }
                Err(error) => {
                    wrong += 1;
                    let place = error.location.map_or_else(String::new, |at| format!(":{}:{}", at.line, at.column));
                    note!("{shown}{place}: {}", printable_line(&error.message));
                }
            },
        }
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list(scoring: &Scoring) -> anyhow::Result<ExitCode> {
    let rubrics = super::catalog(scoring)?.current();
    let width = rubrics.iter().map(|rubric| rubric.name.len()).max().unwrap_or(0);
    for rubric in rubrics {
        say!("{:width$}  {}  {}", rubric.name, rubric.version, printable_line(rubric.description.trim()));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(name: &str, scoring: &Scoring) -> anyhow::Result<ExitCode> {
    let known = super::catalog(scoring)?.current();
    if !known.iter().any(|rubric| *rubric.name == *name) {
        bail!("no rubric is called {name:?}; `gradus rubric list` lists those there are");
    }
    let own = scoring.rubrics.as_ref().map(|directory| directory.join(format!("{name}.toml")));
    match (own.filter(|path| path.exists()), SHIPPED.iter().find(|(shipped, _)| *shipped == name)) {
        (None, Some((_, text))) => say_text(text),
        (Some(path), _) => {
            let text = std::fs::read_to_string(&path);
            say_text(&text.with_context(|| format!("cannot read {}", path.display()))?);
        }
        (None, None) => bail!("the file of the rubric {name:?} is gone"),
    }
    Ok(ExitCode::SUCCESS)
}
