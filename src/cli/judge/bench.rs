//! `gradus judge bench`: how many answers a judge takes a second.

use std::fmt::Write;
use std::process::ExitCode;

use super::{Asking, Flags};
use crate::config::File;
use crate::judge::bench::{Load, bench};
use crate::judge::examples::{SHIPPED_EXAMPLES, read_examples};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Answers that are judged, after a quarter as many that are not measured
    #[arg(long, default_value_t = 512, value_name = "N")]
    answers: usize,
    /// Answers to the same question, which share their prompt
    #[arg(long, default_value_t = 8, value_name = "N")]
    group: usize,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: Args, file: &File) -> anyhow::Result<ExitCode> {
    let asking = Asking::open(args.flags, file)?;
    let examples = read_examples(SHIPPED_EXAMPLES)?;
    let run = |answers| {
        let load = Load { answers, group: args.group };
        asking.runtime.block_on(bench(&asking.judges, &asking.stage, &examples, load, &mut |_| ()))
    };
    run(args.answers / 4);
    let report = run(args.answers);
    let mut table = String::new();
    writeln!(table, "asked by  {}", asking.asked_by)?;
    writeln!(
        table,
        "answers   {} with a verdict, {} without, groups of {}",
        report.judged, report.without_verdict, report.group
    )?;
    writeln!(table, "          {:.1} a second", report.answers_per_second)?;
    if report.asked_tokens_per_second > 0.0 {
        let (asked, computed) = (report.asked_tokens_per_second, report.computed_tokens_per_second);
        writeln!(table, "tokens    {asked:.0} a second asked, {computed:.0} computed, the rest shared or kept")?;
    }
    asking.print(&table, &report)?;
    Ok(if report.judged * 2 >= args.answers { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
