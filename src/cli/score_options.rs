//! The options of `gradus score`. In: the command line and the environment; out: what is to be scored, where the environment
//! never stands against the command line. Opens nothing.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, Error, FromArgMatches};

use crate::config::{ScoringFlags, StoreFlags};

/// Score a file of trajectories, or a stored run again.
///
/// Each line is a trajectory, or a whole request body with `trajectories`, which may bring its rubric and its curriculum
/// position along; a `.json` file is one of either, not a list. A line that is neither has a result too, which says so, and a
/// request that is refused has one for all of it. Lines may be packed by gzip or zstd. Nothing is stored. The exit code is 1
/// where a trajectory could not be scored or a replay differs.
#[derive(Debug, clap::Args)]
struct Given {
    /// Trajectories: a .jsonl or .json file, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "replay")]
    file: Option<PathBuf>,
    /// Rubric, whatever a request names: a name, name@version, or a rubric file [default: the request's, or --default-rubric]
    #[arg(long, short, env = "GRADUS_RUBRIC", value_name = "RUBRIC")]
    rubric: Option<String>,
    /// Curriculum step to score at, whatever a request says
    // A text until it is known whether it counts.
    #[arg(long, env = "GRADUS_STEP", value_name = "N")]
    step: Option<String>,
    /// Write one result per line to this file, which is FILE.partial until all are in it; - is standard output
    // Unlike a path it may be empty.
    #[arg(long, short, env = "GRADUS_OUT", value_name = "FILE")]
    out: Option<OsString>,
    /// Score the stored requests of this run again and report every difference
    #[arg(long, env = "GRADUS_REPLAY", value_name = "RUN")]
    replay: Option<String>,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    scoring: ScoringFlags,
}

/// What is to be scored.
#[derive(Debug)]
pub(super) enum Input {
    /// Trajectories.
    File {
        /// Where they are; - for standard input.
        file: PathBuf,
        /// The rubric, whatever they name.
        rubric: Option<String>,
        /// The curriculum step, whatever they say.
        step: Option<u64>,
        /// Where results go; - is standard output.
        out: Option<PathBuf>,
    },
    /// The stored requests of this run.
    Replay(String),
}

/// Options of `gradus score`.
#[derive(Debug)]
pub(super) struct Args {
    /// What is to be scored.
    pub(super) input: Input,
    /// Where scores are kept.
    pub(super) store: StoreFlags,
    /// How they are made.
    pub(super) scoring: ScoringFlags,
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        Given::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args_for_update(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let settled = settle(Given::from_arg_matches(matches)?, |name| Source::of(matches, name));
        settled.map_err(|error| error.format(&mut Given::augment_args(Command::new("gradus score"))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Where the value of an option is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Nowhere,
    Environment,
    CommandLine,
}

impl Source {
    fn of(matches: &ArgMatches, name: &str) -> Self {
        match matches.value_source(name) {
            Some(ValueSource::CommandLine) => Self::CommandLine,
            Some(ValueSource::EnvVariable) => Self::Environment,
            _ => Self::Nowhere,
        }
    }
}

/// Leaves out what the environment says against the command line.
fn settle(given: Given, source: impl Fn(&str) -> Source) -> Result<Args, Error> {
    let Given { file, rubric, step, out, replay, store, scoring } = given;
    let scored = [("file", "[FILE]"), ("rubric", "--rubric <RUBRIC>"), ("step", "--step <N>"), ("out", "--out <FILE>")];
    let asked = scored.into_iter().find(|(name, _)| source(name) == Source::CommandLine);
    let replay = match (source("replay"), asked) {
        (Source::CommandLine, Some((_, option))) => {
            let message = format!("the argument '{option}' cannot be used with '--replay <RUN>'\n");
            return Err(Error::raw(ErrorKind::ArgumentConflict, message));
        }
        (Source::Environment, Some(_)) => None,
        _ => replay,
    };
    if let Some(run) = replay {
        return Ok(Args { input: Input::Replay(run), store, scoring });
    }
    let Some(file) = file else {
        let message = "the following required arguments were not provided:\n  <FILE>\n";
        return Err(Error::raw(ErrorKind::MissingRequiredArgument, message));
    };
    let step = step.map(|step| read_step(&step)).transpose()?;
    let out = out.map(PathBuf::from);
    Ok(Args { input: Input::File { file, rubric, step, out }, store, scoring })
}

/// Reads a step as the command line reads any number, and with the same words where it is none.
fn read_step(text: &str) -> Result<u64, Error> {
    let mut command = Given::augment_args(Command::new("gradus score"));
    command.build();
    let option = command.get_arguments().find(|option| option.get_id() == "step");
    clap::value_parser!(u64).parse_ref(&command, option, text.as_ref())
}
