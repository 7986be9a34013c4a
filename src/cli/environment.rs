//! Variables of the environment that nobody reads: a misspelt one would be passed over in silence, where a misspelt option or key
//! of a file is refused. In: the environment; out: the names that look like ours and are not.

use std::ffi::OsString;

use clap::{Command, CommandFactory};

use super::Cli;
use crate::judge::{self, JudgeConfig};

/// What the names of our variables begin with.
const OURS: &str = "GRADUS_";

/// Variables of the Python client, which may share the server's environment.
const CLIENTS: [&str; 7] = [
    "GRADUS_URL",
    "GRADUS_TOKEN",
    "GRADUS_RUN_ID",
    "GRADUS_DEADLINE_MS",
    "GRADUS_CONCURRENCY",
    "GRADUS_FALLBACK",
    "GRADUS_VSPO_SEED",
];

/// How the variables begin that Kubernetes sets for a service called `gradus`.
const SERVICES: [&str; 2] = ["GRADUS_SERVICE_", "GRADUS_PORT_"];

/// Tells the log of variables that are neither an option's nor a judge's key.
pub(super) fn warn_of_unknown(judges: &judge::Config) {
    let keys: Vec<&str> = judges.judges.values().flat_map(JudgeConfig::key_variables).collect();
    // Kubernetes sets this one, too, to an address.
    let is_service =
        |(name, value): &(OsString, OsString)| name == "GRADUS_PORT" && value.to_string_lossy().starts_with("tcp://");
    let all = std::env::vars_os().filter(|variable| !is_service(variable));
    let names = all.filter_map(|(name, _)| name.into_string().ok());
    for name in unknown(names).into_iter().filter(|name| !keys.contains(&name.as_str())) {
        tracing::warn!(
            name,
            "no option is set by this variable of the environment; `gradus serve --help` has those that are"
        );
    }
}

fn unknown(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = Vec::new();
    collect(&Cli::command(), &mut known);
    let is_theirs = |name: &str| CLIENTS.contains(&name) || SERVICES.iter().any(|prefix| name.starts_with(prefix));
    names.filter(|name| name.starts_with(OURS) && !is_theirs(name) && !known.contains(name)).collect()
}

/// The variables of a command's options and of its subcommands'.
fn collect(command: &Command, known: &mut Vec<String>) {
    known.extend(command.get_arguments().filter_map(|option| Some(option.get_env()?.to_str()?.to_owned())));
    command.get_subcommands().for_each(|command| collect(command, known));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_variables_are_found() {
        let names =
            ["GRADUS_LISTN", "GRADUS_LISTEN", "GRADUS_LOG", "GRADUS_RUBRIC", "GRADUS_URL", "HOME", "GRADUS_STORES"];
        let services = ["GRADUS_SERVICE_HOST", "GRADUS_PORT_8080_TCP"];
        let names = names.into_iter().chain(services);
        assert_eq!(unknown(names.map(str::to_owned)), ["GRADUS_LISTN", "GRADUS_STORES"]);
    }
}
