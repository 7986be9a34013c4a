//! From the shape of a file to a [`Rubric`]: every value checked, every error at its field.

use std::collections::HashSet;
use std::sync::Arc;

use super::check_stage::{default_measure, measure_names, stage};
use super::check_value::{Result, shown, unit, word};
use super::error::RubricError;
use super::file::{PenaltyFile, RubricFile, ScheduleFile};
use super::resolved::resolved;
use super::{Rubric, RubricStage, Scheduled, plan_at};
use crate::shaping::{Over, Penalty, PenaltyKind, Position, RewardRange, Schedule};
use crate::stages::{Measure, Reading};
use crate::toolcall::answer::AnswerFrom;
use crate::trajectory::{ParseMode, ToolFormat};

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
        version: version_of(&hash).into(),
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

/// The version that a hash starts with.
pub fn version_of(hash: &str) -> &str {
    hash.get(..VERSION_BYTES).unwrap_or(hash)
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

fn weight(value: f64, pointer: &str) -> Result<f64> {
    amount(value, pointer, "no weight")
}

/// Large enough that the sum over stages has no trouble, small enough that it stays finite.
fn amount(value: f64, pointer: &str, otherwise: &str) -> Result<f64> {
    if (1e-9..=1e9).contains(&value) {
        return Ok(value);
    }
    Err(RubricError::at(pointer, format!("{} is {otherwise}; it must be from 1e-9 to 1e9", shown(value))))
}

fn reading(file: &RubricFile) -> Result<Reading> {
    let calls = &file.calls;
    if calls.max_calls == 0 || calls.max_calls > MAX_CALLS {
        let message = format!("{} is out of range; it must be from 1 to {MAX_CALLS}", calls.max_calls);
        return Err(RubricError::at("/calls/max_calls", message));
    }
    let mode = word(&calls.mode, "/calls/mode", &ParseMode::ALL, ParseMode::as_str)?;
    Ok(Reading {
        format: word(&calls.format, "/calls/format", &ToolFormat::ALL, ToolFormat::as_str)?,
        mode,
        max_calls: calls.max_calls,
        answer: word(&file.answer.from, "/answer/from", &AnswerFrom::ALL, AnswerFrom::as_str)?,
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
    amount(max, &format!("{at}/max"), "out of range")?;
    let own_name = file.name.as_deref().unwrap_or(&file.kind);
    name(own_name, &format!("{at}/name"))?;
    Ok((own_name.into(), Penalty { kind, weight: size, max }))
}

fn report(names: &[String], stages: &[RubricStage]) -> Result<Vec<(Arc<str>, Measure)>> {
    let measure = |(index, name): (usize, &String)| {
        let pointer = format!("/report/{index}");
        let measure = default_measure(name)
            .ok_or_else(|| RubricError::at(&pointer, format!("{name:?} is no measure; one of: {}", measure_names())))?;
        if stages.iter().any(|stage| *stage.name == **name) {
            return Err(RubricError::at(
                pointer,
                format!("{name:?} is a stage already, and reported as such; remove it here"),
            ));
        }
        if names.iter().take(index).any(|earlier| earlier == name) {
            return Err(RubricError::at(pointer, format!("{name:?} is reported already; remove it here")));
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
    let mut points = Vec::with_capacity(file.points.len());
    for (index, point) in file.points.iter().enumerate() {
        let pointer = format!("{at}/points/{index}");
        let &[place, value] = point.as_slice() else {
            let message = format!("{point:?} has {} numbers; a point is [PLACE, VALUE]", point.len());
            return Err(RubricError::at(pointer, message));
        };
        points.push((place, value));
        match file.of.as_str() {
            "weight" => weight(value, &pointer)?,
            "threshold" => unit(value, &pointer)?,
            other => {
                let message = format!("{other:?} does not move; one of: weight, threshold");
                return Err(RubricError::at(format!("{at}/of"), message));
            }
        };
    }
    let schedule =
        Schedule::new(over, points).map_err(|error| RubricError::at(format!("{at}/points"), error.to_string()))?;
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
