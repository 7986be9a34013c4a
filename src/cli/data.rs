//! `gradus data`: worlds to learn in.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::train::data::hops::{Hops, HopsConfig};

/// What data.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// A made-up world of people, places and works: its corpus, questions of one to three hops, demonstrations, and a
    /// tokenizer for a small fresh policy
    Hops(HopsArgs),
}

/// Settings of the world. The same seed gives the same bytes.
#[derive(Debug, clap::Args)]
pub(super) struct HopsArgs {
    /// Folder that the files go to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What everything is drawn from [default: 7]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// People, an even number; the last fifth is asked about in held-out questions only [default: 500]
    #[arg(long, value_name = "N")]
    people: Option<usize>,
    /// Questions to learn from [default: 2000]
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// Questions to evaluate on [default: 384]
    #[arg(long, value_name = "N")]
    held_out: Option<usize>,
    /// Demonstrations [default: 3000]
    #[arg(long, value_name = "N")]
    demonstrations: Option<usize>,
    /// Share of the demonstrations with a flaw, from 0 to 1 [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    flawed: Option<f64>,
    /// Replace the files of another world that are in the folder
    #[arg(long)]
    force: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Hops(args) = command;
    let usual = HopsConfig::default();
    let config = HopsConfig {
        seed: args.seed.unwrap_or(usual.seed),
        people: args.people.unwrap_or(usual.people),
        train: args.train.unwrap_or(usual.train),
        held_out: args.held_out.unwrap_or(usual.held_out),
        demonstrations: args.demonstrations.unwrap_or(usual.demonstrations),
        flawed: args.flawed.unwrap_or(usual.flawed),
        ..usual
    };
    let hops = Hops::generate(config)?;
    if let Some(other) = hops.other_file(&args.out)?.filter(|_| !args.force) {
        let path = args.out.join(other);
        anyhow::bail!(
            "{}: is there already, of a world with other settings or of something else: name another --out, or replace it with \
             --force",
            path.display()
        );
    }
    hops.write(&args.out)?;
    say!("{}: {} demonstrations; see README.md there", args.out.display(), hops.demonstrations().len());
    Ok(ExitCode::SUCCESS)
}
