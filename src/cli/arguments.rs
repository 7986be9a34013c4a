//! The command line and the environment. In: both, as they are. Out: the command with its options, or what is wrong with
//! which of them, in words that need no knowledge of Rust.

use std::error::Error as _;
use std::ffi::OsString;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};

use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, Error, FromArgMatches};

use super::Cli;

/// What an option is of which there must be one at least.
const NO_ZERO: &str = "give a whole number, 1 or more";
/// What an option is that counts something.
const WHOLE_NUMBER: &str = "give a whole number, 0 or more, without a unit";
/// What an option is that measures something.
const NUMBER: &str = "give a number, such as 0.5";

/// What the command line says. Without a command it serves: then the options, and the environment, are those of `serve`.
pub(super) fn read() -> Result<Cli, Error> {
    use ErrorKind::UnknownArgument;
    let given: Vec<OsString> = std::env::args_os().collect();
    let plain = match parse(&given) {
        Ok(cli) if cli.command.is_none() => None,
        Err(error) if error.kind() == UnknownArgument => Some(error),
        parsed => return parsed,
    };
    let mut serving = given;
    serving.insert(1.min(serving.len()), "serve".into());
    // A variable of the environment that cannot be is said, not skipped.
    parse(&serving).map_err(|wrong| plain.filter(|_| wrong.kind() == UnknownArgument).unwrap_or(wrong))
}

fn parse(given: &[OsString]) -> Result<Cli, Error> {
    let mut command = settled(Cli::command());
    let matches = match command.try_get_matches_from_mut(given) {
        // A variable that is empty is one that can be set.
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Cli::command().try_get_matches_from(given)?,
        Err(error) => return Err(explained(error, &command, given)),
        Ok(matches) => matches,
    };
    Cli::from_arg_matches(&matches).map_err(|error| explained(error, &command, given))
}

/// A command for which a variable that is empty is not set, as Compose files write one that need not be (`${X:-}`), and for
/// which `-1` is a value. An empty secret stays: it was forgotten, and is no wish for an open server.
fn settled(command: Command) -> Command {
    let option = |option: Arg| {
        let empty = option.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        let option = if empty && !option.is_hide_env_values_set() { option.env(Resettable::Reset) } else { option };
        let takes = option.get_action().takes_values() && !option.is_positional();
        if takes { option.allow_negative_numbers(true) } else { option }
    };
    command.mut_args(option).mut_subcommands(settled)
}

/// An error about a value with what would do, and with the variable that it is from.
fn explained(error: Error, command: &Command, given: &[OsString]) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (Some(option), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return error;
    };
    let wanted = error.source().and_then(|reason| match reason.downcast_ref().map(ParseIntError::kind) {
        Some(IntErrorKind::Zero) => Some(NO_ZERO),
        Some(_) => Some(WHOLE_NUMBER),
        None => reason.is::<ParseFloatError>().then_some(NUMBER),
    });
    let name = option.split([' ', '=']).next().unwrap_or_default();
    let variable = variable_of(name, command).filter(|variable| {
        let is_it = |given: &OsString| given.to_string_lossy().split('=').next() == Some(name);
        std::env::var_os(variable).is_some_and(|found| *found == *value) && !given.iter().any(is_it)
    });
    let from = variable.map(|variable| format!("the value is from {variable} in the environment"));
    let tips: Vec<StyledStr> = wanted.map(str::to_owned).into_iter().chain(from).map(StyledStr::from).collect();
    if tips.is_empty() {
        return error;
    }
    // What the number's type says stands in the error, and cannot be taken out of it.
    let mut told = if wanted.is_some() { Error::new(error.kind()).with_cmd(command) } else { error };
    told.insert(ContextKind::InvalidArg, ContextValue::String(option));
    told.insert(ContextKind::InvalidValue, ContextValue::String(value));
    told.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    told
}

/// The variable of an option, `--NAME`; commands that share the option share the variable, too.
fn variable_of(name: &str, command: &Command) -> Option<String> {
    let known = command.get_arguments().find(|known| known.get_long() == name.strip_prefix("--"));
    let variable = known.and_then(|known| Some(known.get_env()?.to_str()?.to_owned()));
    variable.or_else(|| command.get_subcommands().find_map(|command| variable_of(name, command)))
}
