//! `gradus runs`: lists the runs of a database, and removes one. A server may write to it meanwhile.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;

use super::paint::printable_line;
use crate::config::{self, File, StoreFlags};
use crate::store::{self, Durability, MAX_PAGE, RemovalError, RunSummary, Store};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the runs, the latest begun first
    List {
        #[command(flatten)]
        store: StoreFlags,
    },
    /// Remove runs: their scores, requests and answers. Their room is used again; the file does not shrink
    Remove {
        /// Names of runs
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<String>,
        #[command(flatten)]
        store: StoreFlags,
    },
}

pub(super) fn run(command: Command, file: &File) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { store } => list(&database(store, file)?),
        Command::Remove { runs, store } => remove(&runs, &database(store, file)?),
    }
}

/// The settings of a database that is there.
pub(super) fn database(flags: StoreFlags, file: &File) -> anyhow::Result<store::Config> {
    let settings = config::store(flags, file);
    if let Some(path) = settings.file()?
        && !path.exists()
    {
        bail!("there is no database {}; name the one that the server wrote with --store sqlite:FILE", path.display());
    }
    Ok(settings)
}

fn list(settings: &store::Config) -> anyhow::Result<ExitCode> {
    let Some(store) = Store::open_to_read(settings)? else { bail!("--store none keeps no runs; name the database") };
    let runtime = super::runtime()?;
    let now = SystemTime::now();
    say!("{:>12} {:>10} {:>9} {:>11}  run", "trajectories", "last step", "reward", "last scored");
    let mut cursor = None;
    loop {
        let page = runtime.block_on(store.runs(cursor.as_deref(), MAX_PAGE))?;
        for run in &page.items {
            say!("{}", line(run, now));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    runtime.block_on(store.close());
    Ok(ExitCode::SUCCESS)
}

fn line(run: &RunSummary, now: SystemTime) -> String {
    let step = run.last_step.map_or_else(|| "-".to_owned(), |step| step.to_string());
    let reward = run.mean_reward.map_or_else(|| "-".to_owned(), |reward| format!("{reward:.4}"));
    let scored = UNIX_EPOCH + Duration::from_millis(u64::try_from(run.last_created_at_ms).unwrap_or(0));
    // A clock that was set back makes it now.
    let ago = ago(now.duration_since(scored).unwrap_or_default());
    format!("{:>12} {step:>10} {reward:>9} {ago:>11}  {}", run.n, printable_line(&run.run_id))
}

/// How long ago, in the largest unit of which it is at least two.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = [("d", 86_400), ("h", 3_600), ("min", 60)].into_iter().find(|(_, length)| seconds >= 2 * length);
    let (unit, length) = unit.unwrap_or(("s", 1));
    format!("{} {unit} ago", seconds / length)
}

fn remove(runs: &[String], settings: &store::Config) -> anyhow::Result<ExitCode> {
    // What a server is told to keep is nothing to this.
    let kept = store::Config { durability: Durability::Commit, ..settings.clone() };
    let Some(store) = Store::open(&kept)? else { bail!("--store none keeps no runs; name the database") };
    let mut unknown = 0;
    for run in runs {
        let shown = printable_line(run);
        let removed = store.remove_run(run).map_err(|RemovalError { batches, error }| {
            let what = match batches {
                0 => format!("nothing of {shown} was removed"),
                _ => format!("{shown} is removed in part ({batches} batches); the same command goes on"),
            };
            anyhow::Error::new(error).context(what)
        })?;
        if let Some(removed) = removed {
            say!("{shown}: {} batches removed, {} trajectories", removed.batches, removed.scores);
        } else {
            unknown += 1;
            note!("there is no run {shown:?} in {}; `gradus runs list` lists those there are", settings.url);
        }
    }
    super::runtime()?.block_on(store.close());
    Ok(if unknown == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_unit() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s ago", "119 s ago", "2 min ago", "119 min ago", "2 h ago", "47 h ago", "2 d ago"]);
    }
}
