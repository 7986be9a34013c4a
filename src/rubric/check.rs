//! From the shape of a file to a [`Rubric`]: every value checked, every error at its field.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use super::error::RubricError;
use super::file::{NumberOrOff, PenaltyFile, RubricFile, ScheduleFile, StageFile};
use super::resolved::resolved;
use super::{Rubric, RubricStage, Scheduled, plan_at};
use crate::shaping::{Over, Penalty, PenaltyKind, Position, RewardRange, Schedule};
use crate::stages::{Expr, JudgeStage, MatchMode, Measure, Reading, Stage, ToolMatch};
use crate::text::{Bleu, LaBleu, Smoothing, Tokenizer};
use crate::toolcall::answer::AnswerFrom;
use crate::trajectory::{ParseMode, ToolFormat};

type Result<T> = std::result::Result<T, RubricError>;

const KINDS: &str =
    "tool_parse, tool_schema, tool_match, answer_format, exact_match, f1, bleu, la_bleu, judge, binary, expr";
const MEASURES: &str = "tool_parse, tool_schema, tool_match, answer_format, exact_match, f1, bleu, la_bleu";
/// A version is this much of the hash: `b3-` and 8 hex digits.
const VERSION_BYTES: usize = 11;
const MAX_TOKENS: u64 = 1 << 40;
const MAX_STAGES: usize = 32;
const MAX_PENALTIES: usize = 8;
const MAX_CALLS: usize = 4096;
/// Names that components and paths use for themselves.
const RESERVED: [&str; 3] = ["base", "clamp", "check"];

pub(super) fn rubric(file: RubricFile) -> Result<Rubric> {
    name(&file.name, "/name")?;
    let range = RewardRange::new(file.reward.min, file.reward.max).ok_or_else(|| {
        let (min, max) = (file.reward.min, file.reward.max);
        RubricError::at(
            "/reward",
            format!("min = {min} and max = {max} are no range; both must be finite, within 1e6, and min below max"),
        )
    })?;
    let reading = reading(&file)?;
    let mut stages = stages(&file)?;
    for (index, schedule) in file.schedules.iter().enumerate() {
        apply_schedule(schedule, index, &mut stages)?;
    }
    let penalties = penalties(&file.penalties)?;
    let report = report(&file.report, &stages)?;
    unique_names(&stages, &penalties, &report)?;
    let plan = file.schedules.is_empty().then(|| plan_at(&stages, &Position::default()));
    let (hash, json) = identity(&resolved(file.clone(), &stages, &penalties));
    Ok(Rubric {
        name: file.name.into(),
        description: file.description,
        version: hash.get(..VERSION_BYTES).unwrap_or_default().into(),
        hash,
        json,
        reading,
        stages,
        penalties,
        report,
        range,
        plan,
    })
}

/// Hash and JSON form. The description is left out of the hash: it changes no score.
fn identity(file: &RubricFile) -> (Arc<str>, Arc<str>) {
    let text = |file: &RubricFile| serde_json::to_string(file).unwrap_or_default();
    let hash = blake3::hash(text(&RubricFile { description: String::new(), ..file.clone() }).as_bytes());
    (format!("b3-{}", hash.to_hex()).into(), text(file).into())
}

/// A name is used in metrics, columns and URLs.
fn name(name: &str, pointer: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || name.len() > 64 || !name.chars().all(fine) {
        let name: String = name.chars().take(80).collect();
        let message =
            format!("{name:?} is no name; use 1 to 64 ASCII letters, digits, `_`, `-` or `.`, a letter or digit first");
        return Err(RubricError::at(pointer, message));
    }
    if RESERVED.contains(&name) {
        return Err(RubricError::at(pointer, format!("{name:?} is reserved; choose another name")));
    }
    Ok(())
}

fn word<T: FromStr>(value: &str, pointer: &str, choices: &str) -> Result<T> {
    value.parse().map_err(|_| RubricError::at(pointer, format!("{value:?} is not known; one of: {choices}")))
}

fn unit(value: f64, pointer: &str) -> Result<f64> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(RubricError::at(pointer, format!("{value} is out of range; it must be from 0 to 1")))
}

/// A weight: large enough that the sum over stages has no trouble, small enough that it stays finite.
fn weight(value: f64, pointer: &str) -> Result<f64> {
    if (1e-9..=1e9).contains(&value) {
        return Ok(value);
    }
    Err(RubricError::at(pointer, format!("{value} is no weight; it must be from 1e-9 to 1e9")))
}

fn reading(file: &RubricFile) -> Result<Reading> {
    let calls = &file.calls;
    if calls.max_calls == 0 || calls.max_calls > MAX_CALLS {
        let message = format!("{} is out of range; it must be from 1 to {MAX_CALLS}", calls.max_calls);
        return Err(RubricError::at("/calls/max_calls", message));
    }
    let mode = match calls.mode.as_str() {
        "strict" => ParseMode::Strict,
        "tolerant" => ParseMode::Tolerant,
        other => {
            let message = format!("{other:?} is not known; one of: strict, tolerant");
            return Err(RubricError::at("/calls/mode", message));
        }
    };
    let formats = ToolFormat::ALL.map(ToolFormat::as_str).join(", ");
    let answers = AnswerFrom::ALL.map(AnswerFrom::as_str).join(", ");
    Ok(Reading {
        format: word(&calls.format, "/calls/format", &formats)?,
        mode,
        max_calls: calls.max_calls,
        answer: word(&file.answer.from, "/answer/from", &answers)?,
        assert_format: calls.assert_format,
    })
}

fn stages(file: &RubricFile) -> Result<Vec<RubricStage>> {
    if file.stages.is_empty() || file.stages.len() > MAX_STAGES {
        let message = format!("{} stages; a rubric has 1 to {MAX_STAGES}", file.stages.len());
        return Err(RubricError::at("/stages", message));
    }
    let mut stages: Vec<RubricStage> = Vec::new();
    for (index, file) in file.stages.iter().enumerate() {
        let at = format!("/stages/{index}");
        let own_name = file.name.as_deref().unwrap_or(&file.kind);
        name(own_name, &format!("{at}/name"))?;
        let earlier: Vec<&str> = stages.iter().map(|stage| &*stage.name).collect();
        stages.push(RubricStage {
            stage: stage(file, &at, &earlier)?,
            name: own_name.into(),
            weight: Scheduled::Fixed(weight(file.weight, &format!("{at}/weight"))?),
            threshold: Scheduled::Fixed(unit(file.threshold, &format!("{at}/threshold"))?),
        });
    }
    Ok(stages)
}

fn stage(file: &StageFile, at: &str, earlier: &[&str]) -> Result<Stage> {
    let options = file;
    match file.kind.as_str() {
        "judge" => {
            only(options, &["criteria"], "judge", at)?;
            judge(options, at)
        }
        "binary" => binary(options, at),
        "expr" => {
            only(options, &["expr"], "expr", at)?;
            let pointer = format!("{at}/expr");
            let text =
                options.expr.as_deref().ok_or_else(|| RubricError::at(at, "an `expr` stage needs `expr = \"..\"`"))?;
            Expr::parse(text, earlier, &default_measure)
                .map(Stage::Expr)
                .map_err(|e| RubricError::at(pointer, e.to_string()))
        }
        kind => measure(kind, options, at).map(Stage::Measure),
    }
}

/// Refuses options that the kind does not have: a silently ignored option is a wrong rubric.
fn only(options: &StageFile, allowed: &[&str], kind: &str, at: &str) -> Result<()> {
    let Some(extra) = options.given().into_iter().find(|option| !allowed.contains(option)) else { return Ok(()) };
    let has = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    Err(RubricError::at(format!("{at}/{extra}"), format!("`{kind}` has no option `{extra}`; its options: {has}")))
}

fn judge(options: &StageFile, at: &str) -> Result<Stage> {
    match options.criteria.as_deref().map(str::trim) {
        Some(criteria) if !criteria.is_empty() => Ok(Stage::Judge(JudgeStage { criteria: criteria.to_owned() })),
        _ => Err(RubricError::at(at, "a judge needs `criteria = \"..\"`: what it is to look for, in words")),
    }
}

fn binary(options: &StageFile, at: &str) -> Result<Stage> {
    let of = options.of.as_deref().unwrap_or("exact_match");
    let threshold = unit(options.cut.unwrap_or(0.5), &format!("{at}/cut"))?;
    let inner = StageFile { of: None, cut: None, ..options.clone() };
    let of = match of {
        "judge" => {
            only(&inner, &["criteria"], "binary of judge", at)?;
            judge(&inner, at)?
        }
        kind => Stage::Measure(measure(kind, &inner, &format!("{at}/of"))?),
    };
    Ok(Stage::Binary { of: Box::new(of), threshold })
}

/// The measure of this name with default settings.
fn default_measure(kind: &str) -> Option<Measure> {
    measure(kind, &StageFile::default(), "").ok()
}

fn measure(kind: &str, options: &StageFile, at: &str) -> Result<Measure> {
    let allowed: &[&str] = match kind {
        "tool_parse" => &["repaired_credit"],
        "tool_match" => &["mode", "ordered"],
        "bleu" => &["tokenizer", "lowercase", "smoothing", "smoothing_value", "effective_order", "max_ngram_order"],
        "la_bleu" => &["tokenizer", "lowercase", "slack", "floor", "cap"],
        _ => &[],
    };
    let measure = match kind {
        "tool_parse" => {
            let credit = options.repaired_credit.unwrap_or(0.5);
            Measure::ToolParse { repaired_credit: unit(credit, &format!("{at}/repaired_credit"))? }
        }
        "tool_schema" => Measure::ToolSchema,
        "tool_match" => Measure::ToolMatch(tool_match(options, at)?),
        "answer_format" => Measure::AnswerFormat,
        "exact_match" => Measure::ExactMatch,
        "f1" => Measure::F1,
        "bleu" => Measure::Bleu(bleu(options, at)?),
        "la_bleu" => Measure::LaBleu(la_bleu(options, at)?),
        other => {
            let message = format!("{other:?} is no kind of stage; one of: {KINDS}");
            let pointer = if at.ends_with("/of") { at.to_owned() } else { format!("{at}/kind") };
            return Err(RubricError::at(pointer, message));
        }
    };
    only(options, allowed, kind, at)?;
    Ok(measure)
}

fn tool_match(options: &StageFile, at: &str) -> Result<ToolMatch> {
    let mode = match options.mode.as_deref().unwrap_or("f1") {
        "strict" => MatchMode::Strict,
        "fractional" => MatchMode::Fractional,
        "f1" => MatchMode::F1,
        other => {
            let message = format!("{other:?} is not known; one of: strict, fractional, f1");
            return Err(RubricError::at(format!("{at}/mode"), message));
        }
    };
    Ok(ToolMatch { mode, ordered: options.ordered.unwrap_or(false) })
}

fn tokenizer(options: &StageFile, at: &str) -> Result<Tokenizer> {
    options
        .tokenizer
        .as_deref()
        .map_or(Ok(Tokenizer::V13a), |name| word(name, &format!("{at}/tokenizer"), "none, 13a, intl, zh, char"))
}

fn bleu(options: &StageFile, at: &str) -> Result<Bleu> {
    let smoothing = options.smoothing.as_deref().unwrap_or("exp");
    let value = options.smoothing_value.unwrap_or(match smoothing {
        "floor" => 0.1,
        _ => 1.0,
    });
    if !(0.0..=1e6).contains(&value) {
        let message = format!("{value} is out of range; it must be from 0 to 1e6");
        return Err(RubricError::at(format!("{at}/smoothing_value"), message));
    }
    let smoothing = match smoothing {
        "none" => Smoothing::None,
        "exp" => Smoothing::Exp,
        "floor" => Smoothing::Floor(value),
        "add-k" => Smoothing::AddK(value),
        other => {
            let message = format!("{other:?} is not known; one of: none, floor, add-k, exp");
            return Err(RubricError::at(format!("{at}/smoothing"), message));
        }
    };
    let max_ngram_order = options.max_ngram_order.unwrap_or(4);
    if !(1..=8).contains(&max_ngram_order) {
        let message = format!("{max_ngram_order} is out of range; it must be from 1 to 8");
        return Err(RubricError::at(format!("{at}/max_ngram_order"), message));
    }
    Ok(Bleu {
        tokenizer: tokenizer(options, at)?,
        lowercase: options.lowercase.unwrap_or(false),
        smoothing,
        effective_order: options.effective_order.unwrap_or(true),
        max_ngram_order,
    })
}

fn la_bleu(options: &StageFile, at: &str) -> Result<LaBleu> {
    let slack = match &options.slack {
        None => 1.0,
        Some(NumberOrOff::Word(word)) if word == "off" => f64::INFINITY,
        Some(NumberOrOff::Number(number)) if (0.0..=1e6).contains(number) => *number,
        Some(other) => {
            let shown = match other {
                NumberOrOff::Number(number) => number.to_string(),
                NumberOrOff::Word(word) => format!("{word:?}"),
            };
            let message = format!("{shown} is no slack; it must be from 0 to 1e6, or \"off\"");
            return Err(RubricError::at(format!("{at}/slack"), message));
        }
    };
    let floor = unit(options.floor.unwrap_or(0.0), &format!("{at}/floor"))?;
    if floor >= 1.0 {
        return Err(RubricError::at(format!("{at}/floor"), "1 is out of range; the floor must be below 1"));
    }
    Ok(LaBleu {
        tokenizer: tokenizer(options, at)?,
        lowercase: options.lowercase.unwrap_or(false),
        slack,
        floor,
        cap: unit(options.cap.unwrap_or(0.5), &format!("{at}/cap"))?,
    })
}

fn penalties(files: &[PenaltyFile]) -> Result<Vec<(Arc<str>, Penalty)>> {
    if files.len() > MAX_PENALTIES {
        let message = format!("{} penalties are more than the limit of {MAX_PENALTIES}", files.len());
        return Err(RubricError::at("/penalties", message));
    }
    files.iter().enumerate().map(|(index, file)| penalty(file, &format!("/penalties/{index}"))).collect()
}

fn penalty(file: &PenaltyFile, at: &str) -> Result<(Arc<str>, Penalty)> {
    let needed = |field: &str| RubricError::at(at, format!("`{}` needs `{field}`", file.kind));
    let kind = match file.kind.as_str() {
        "overlong" => {
            let max_tokens = file.max_tokens.ok_or_else(|| needed("max_tokens"))?;
            let cache_tokens = file.cache_tokens.ok_or_else(|| needed("cache_tokens"))?;
            if cache_tokens > max_tokens || max_tokens == 0 || max_tokens > MAX_TOKENS {
                let message = format!(
                    "cache_tokens = {cache_tokens} must be at most max_tokens = {max_tokens}, and that from 1 to {MAX_TOKENS}"
                );
                return Err(RubricError::at(format!("{at}/cache_tokens"), message));
            }
            PenaltyKind::Overlong { max_tokens, cache_tokens }
        }
        "repeat_calls" => PenaltyKind::RepeatCalls,
        "call_budget" => PenaltyKind::CallBudget { calls: file.calls.ok_or_else(|| needed("calls"))? },
        other => {
            let message = format!("{other:?} is no penalty; one of: overlong, repeat_calls, call_budget");
            return Err(RubricError::at(format!("{at}/kind"), message));
        }
    };
    let foreign = [
        ("max_tokens", file.max_tokens.is_some() && file.kind != "overlong"),
        ("cache_tokens", file.cache_tokens.is_some() && file.kind != "overlong"),
        ("calls", file.calls.is_some() && file.kind != "call_budget"),
    ];
    if let Some((field, _)) = foreign.into_iter().find(|(_, given)| *given) {
        return Err(RubricError::at(format!("{at}/{field}"), format!("`{}` has no option `{field}`", file.kind)));
    }
    let size = weight(file.weight, &format!("{at}/weight"))?;
    let max = file.max.unwrap_or(1e9);
    weight(max, &format!("{at}/max"))?;
    let own_name = file.name.as_deref().unwrap_or(&file.kind);
    name(own_name, &format!("{at}/name"))?;
    Ok((own_name.into(), Penalty { kind, weight: size, max }))
}

fn report(names: &[String], stages: &[RubricStage]) -> Result<Vec<(Arc<str>, Measure)>> {
    let measure = |(index, name): (usize, &String)| {
        let pointer = format!("/report/{index}");
        let measure = default_measure(name)
            .ok_or_else(|| RubricError::at(&pointer, format!("{name:?} is no measure; one of: {MEASURES}")))?;
        if stages.iter().any(|stage| *stage.name == **name) {
            return Err(RubricError::at(
                pointer,
                format!("{name:?} is a stage already, and reported as such; remove it here"),
            ));
        }
        Ok((name.as_str().into(), measure))
    };
    names.iter().enumerate().map(measure).collect()
}

fn apply_schedule(file: &ScheduleFile, index: usize, stages: &mut [RubricStage]) -> Result<()> {
    let at = format!("/schedules/{index}");
    let over = match file.over.strip_prefix("mastery.") {
        Some(stage) if stages.iter().any(|s| *s.name == *stage) => Over::Mastery(stage.to_owned()),
        None if file.over == "step" => Over::Step,
        _ => {
            let message = format!(
                "{:?} is nothing to run over; write \"step\", or \"mastery.NAME\" with the name of a stage",
                file.over
            );
            return Err(RubricError::at(format!("{at}/over"), message));
        }
    };
    for (point, (_, value)) in file.points.iter().enumerate() {
        let pointer = format!("{at}/points/{point}");
        match file.of.as_str() {
            "weight" => weight(*value, &pointer)?,
            "threshold" => unit(*value, &pointer)?,
            other => {
                let message = format!("{other:?} does not move; one of: weight, threshold");
                return Err(RubricError::at(format!("{at}/of"), message));
            }
        };
    }
    let schedule = Schedule::new(over, file.points.clone())
        .map_err(|error| RubricError::at(format!("{at}/points"), error.to_string()))?;
    let stage = stages.iter_mut().find(|stage| *stage.name == *file.stage).ok_or_else(|| {
        RubricError::at(format!("{at}/stage"), format!("{:?} is no stage of this rubric", file.stage))
    })?;
    let target = if file.of == "weight" { &mut stage.weight } else { &mut stage.threshold };
    if matches!(target, Scheduled::Moving(_)) {
        return Err(RubricError::at(at, format!("the {} of {:?} has a schedule already", file.of, file.stage)));
    }
    *target = Scheduled::Moving(schedule);
    Ok(())
}

fn unique_names(
    stages: &[RubricStage],
    penalties: &[(Arc<str>, Penalty)],
    report: &[(Arc<str>, Measure)],
) -> Result<()> {
    let mut seen = HashSet::new();
    let stages = stages.iter().enumerate().map(|(i, stage)| (&*stage.name, format!("/stages/{i}")));
    let penalties = penalties.iter().enumerate().map(|(i, (name, _))| (&**name, format!("/penalties/{i}")));
    let report = report.iter().enumerate().map(|(i, (name, _))| (&**name, format!("/report/{i}")));
    for (name, pointer) in stages.chain(penalties).chain(report) {
        if !seen.insert(name) {
            return Err(RubricError::at(
                pointer,
                format!("the name {name:?} is used twice; give one of them another `name`"),
            ));
        }
    }
    Ok(())
}
