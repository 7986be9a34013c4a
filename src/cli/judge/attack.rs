//! `gradus judge attack`: how far injected text moves a judge.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{Asking, Flags, interval, name_of, number, one_line, reasons, signed, text_of};
use crate::config::File;
use crate::judge::attack::{AttackReport, RuleOutcome, Shift, Trial, attack};
use crate::judge::examples::{SHIPPED_ATTACKS, read_attacks};

/// The exit code where there are too few pairs to say.
const UNDECIDED: u8 = 2;

/// Measure how far text that is injected into wrong answers moves a judge.
///
/// Each line of the file is an object with `id`, `kind`, `text` and `control`: a text of the same length that tries
/// nothing. Each text is put behind and before wrong answers, so is its control, and the scores are compared. The exit
/// code is 0 at PASS, 1 at FAIL and where more than half of the pairs got no verdict, and 2 at UNDECIDED: too few pairs.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Attacks, one JSON object a line [default: those that ship with the program]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Labelled examples, whose wrong answers are attacked [default: those that ship with the program]
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// Wrong answers for each attack; more of them see smaller shifts
    #[arg(long, value_name = "N", default_value_t = 5)]
    answers: usize,
    /// Take only the first N attacks
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: Args, file: &File) -> anyhow::Result<ExitCode> {
    let name = name_of(args.file.as_deref());
    let mut attacks = read_attacks(&text_of(args.file.as_deref(), SHIPPED_ATTACKS)?).with_context(|| name.clone())?;
    attacks.truncate(args.limit.unwrap_or(usize::MAX));
    let (examples, examples_name) = super::examples(args.examples.as_deref())?;
    let trial = Trial { attacks: &attacks, examples: &examples, answers: args.answers };
    let asking = Asking::open(args.flags, file)?;
    let report = asking.measure(async |judges, stage, count| attack(judges, stage, &trial, count).await)?;
    anyhow::ensure!(report.pairs > 0, "nothing to attack: {examples_name} has no wrong answer without an attack in it");
    let files = format!("{name} on wrong answers of {examples_name}");
    asking.print(&table(&report, &asking.asked_by, &files)?, &report)?;
    let measured = 2 * report.complete_pairs >= report.pairs && report.complete_pairs > 0;
    Ok(match report.rule {
        _ if !measured => ExitCode::FAILURE,
        RuleOutcome::Pass => ExitCode::SUCCESS,
        RuleOutcome::Fail => ExitCode::FAILURE,
        RuleOutcome::Undecided => ExitCode::from(UNDECIDED),
    })
}

fn table(report: &AttackReport, asked_by: &str, files: &str) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let AttackReport { attacks, pairs, complete_pairs, missing, .. } = report;
    writeln!(out, "judge     {}", one_line(&report.judge, usize::MAX))?;
    writeln!(out, "asked by  {asked_by}, mode {}", report.mode)?;
    writeln!(out, "attacks   {files}: {attacks} attacks, {pairs} pairs, {complete_pairs} complete")?;
    if !report.without_verdict.is_empty() {
        writeln!(
            out,
            "no verdict on {} plain answers, {} with a control, {} with an attack",
            missing.plain, missing.control, missing.attacked
        )?;
        reasons(&report.without_verdict, &mut out)?;
    }
    writeln!(out)?;
    shifts(report, &mut out)?;
    writeln!(out)?;
    worst(report, &mut out)?;
    rule(report, &mut out)?;
    Ok(out)
}

fn shifts(report: &AttackReport, out: &mut String) -> std::fmt::Result {
    let kinds = report.by_kind.iter().map(|(kind, shift)| (one_line(kind, 32), shift));
    let places = report.by_place.iter().map(|(place, shift)| (format!("all, {} the answer", place.as_str()), shift));
    let rows: Vec<(String, &Shift)> = kinds.chain(places).chain([("all".to_owned(), &report.overall)]).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    writeln!(
        out,
        "  {:width$}  {:>5}  {:>8}  {:>8}  {:>8}  {:18}  {:>8}  {:>8}",
        "", "", "attack", "control", "attack", "", "flipped", "by"
    )?;
    writeln!(
        out,
        "  {:width$}  {:>5}  {:>8}  {:>8}  {:>8}  {:18}  {:>8}  {:>8}",
        "kind", "pairs", "- plain", "- plain", "- ctrl", "95%", "by it", "control"
    )?;
    for (name, shift) in rows {
        writeln!(
            out,
            "  {name:width$}  {:>5}  {:>8}  {:>8}  {:>8}  {:18}  {:>8}  {:>8}",
            shift.pairs,
            signed(shift.attack_over_plain),
            signed(shift.control_over_plain),
            signed(shift.over_control),
            interval(shift.over_control_interval, signed),
            number(shift.flipped_by_attack),
            number(shift.flipped_by_control)
        )?;
    }
    Ok(())
}

fn worst(report: &AttackReport, out: &mut String) -> std::fmt::Result {
    if report.worst.is_empty() {
        return Ok(());
    }
    writeln!(out, "  worst, by attack - control")?;
    for attack in &report.worst {
        let (id, kind) = (one_line(&attack.id, 16), one_line(&attack.kind, 32));
        writeln!(out, "  {}  {id} ({kind}): {}", signed(attack.shift.over_control), one_line(&attack.text, 64))?;
    }
    writeln!(out)
}

fn rule(report: &AttackReport, out: &mut String) -> std::fmt::Result {
    let outcome = match report.rule {
        RuleOutcome::Pass => "PASS",
        RuleOutcome::Fail => "FAIL",
        RuleOutcome::Undecided => "UNDECIDED",
    };
    writeln!(
        out,
        "{outcome} on {} pairs: text that imitates a verdict raises the score by {} over as much other text, 95% {}",
        report.complete_pairs,
        signed(report.overall.over_control),
        interval(report.overall.over_control_interval, signed)
    )
}
