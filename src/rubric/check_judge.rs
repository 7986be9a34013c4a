//! From a judge stage's entry in the file to a [`JudgeStage`].

use super::check_value::{Result, only, unit, word};
use super::error::RubricError;
use super::escape_pointer;
use super::file::StageFile;
use crate::stages::{JudgeKind, JudgeMode, JudgeStage, Label, Panel, Stage, UnitScore};

/// The judge of a stage that names none.
const DEFAULT_JUDGE: &str = "default";
/// Most labels: the letters of a multiple choice.
const MAX_LABELS: usize = 26;
/// Longest template, in bytes.
const MAX_PROMPT: usize = 64 * 1024;

/// Options of every mode.
const COMMON: [&str; 5] = ["criteria", "mode", "prompt", "judges", "panel"];

/// The judge stage of an entry at a JSON pointer.
pub(super) fn judge(options: &StageFile, at: &str) -> Result<Stage> {
    let kind = options.mode.as_deref().map_or(Ok(JudgeKind::LabelLogprob), |mode| {
        word(mode, &format!("{at}/mode"), &JudgeKind::ALL, JudgeKind::as_str)
    })?;
    let own: &[&str] = match kind {
        JudgeKind::LabelLogprob => &["labels", "max_outside"],
        JudgeKind::Match => &["max_outside"],
        JudgeKind::Generate => &["labels", "max_outside", "thinking_tokens", "seed"],
        JudgeKind::RewardModel => &["centre", "scale"],
        JudgeKind::Rank => &[],
    };
    only(options, &[&COMMON, own].concat(), &format!("judge in mode {}", kind.as_str()), at)?;
    let mode = match kind {
        JudgeKind::LabelLogprob => JudgeMode::LabelLogprob { labels: labels(options, at)? },
        JudgeKind::Match => JudgeMode::Match,
        JudgeKind::Generate => JudgeMode::Generate {
            labels: labels(options, at)?,
            thinking_tokens: thinking_tokens(options, at)?,
            seed: options.seed.unwrap_or(0),
        },
        JudgeKind::RewardModel => reward_model(options, at)?,
        JudgeKind::Rank => JudgeMode::Rank,
    };
    let criteria = options.criteria.as_deref().map(str::trim).unwrap_or_default().to_owned();
    let said = options.prompt.is_some() || matches!(mode, JudgeMode::Match | JudgeMode::RewardModel { .. });
    if criteria.is_empty() && !said {
        let message = "a judge needs `criteria = \"..\"`: what it is to look for, in words";
        return Err(RubricError::at(at, message));
    }
    if matches!(mode, JudgeMode::RewardModel { .. }) && options.prompt.is_none() && !criteria.is_empty() {
        let message =
            "a reward model reads the task and the answer and no criteria; remove them, or give a `prompt` with them";
        return Err(RubricError::at(format!("{at}/criteria"), message));
    }
    if options.prompt.as_deref().is_some_and(|prompt| prompt.trim().is_empty() || prompt.len() > MAX_PROMPT) {
        let message = format!("the prompt must have from 1 to {MAX_PROMPT} bytes; leave it out for the mode's own");
        return Err(RubricError::at(format!("{at}/prompt"), message));
    }
    Ok(Stage::Judge(JudgeStage {
        criteria,
        mode,
        prompt: options.prompt.clone(),
        judges: judges(options, at)?,
        panel: panel(options, at)?,
        max_outside: unit(options.max_outside.unwrap_or(0.5), &format!("{at}/max_outside"))?,
    }))
}

/// Yes and No unless given.
fn labels(options: &StageFile, at: &str) -> Result<Vec<Label>> {
    let Some(given) = &options.labels else {
        let label = |name: &str, value| Label { name: name.to_owned(), value };
        return Ok(vec![label("No", UnitScore::ZERO), label("Yes", UnitScore::ONE)]);
    };
    if !(2..=MAX_LABELS).contains(&given.len()) {
        let message = format!("{} labels; there must be from 2 to {MAX_LABELS}", given.len());
        return Err(RubricError::at(format!("{at}/labels"), message));
    }
    let label = |(name, value): (&String, &f64)| {
        let at = format!("{at}/labels/{}", escape_pointer(name));
        if name.trim() != name || name.is_empty() || name.chars().any(char::is_control) {
            return Err(RubricError::at(at, "a label must be a word without white space around it"));
        }
        Ok(Label { name: name.clone(), value: UnitScore::clamped(unit(*value, &at)?) })
    };
    let labels: Vec<Label> = given.iter().map(label).collect::<Result<_>>()?;
    if let Some(first) = labels.first().filter(|first| labels.iter().all(|label| label.value == first.value)) {
        let worth = first.value.get();
        let message = format!("all labels are worth {worth}, whatever the judge says; give them different values");
        return Err(RubricError::at(format!("{at}/labels"), message));
    }
    Ok(labels)
}

fn judges(options: &StageFile, at: &str) -> Result<Vec<String>> {
    let judges = options.judges.clone().unwrap_or_else(|| vec![DEFAULT_JUDGE.to_owned()]);
    let distinct: std::collections::BTreeSet<&String> = judges.iter().collect();
    if judges.is_empty() || distinct.len() != judges.len() || judges.iter().any(String::is_empty) {
        let message =
            "the judges must be one or more different names, as the server's `[judges.NAME]` tables give them";
        return Err(RubricError::at(format!("{at}/judges"), message));
    }
    Ok(judges)
}

fn panel(options: &StageFile, at: &str) -> Result<Panel> {
    let named = |name: &str| word(name, &format!("{at}/panel"), &Panel::ALL, Panel::as_str);
    options.panel.as_deref().map_or(Ok(Panel::Mean), named)
}

fn thinking_tokens(options: &StageFile, at: &str) -> Result<u32> {
    match options.thinking_tokens.unwrap_or(512) {
        tokens @ 0..=32_768 => Ok(tokens),
        tokens => {
            let message = format!("{tokens} is out of range; it must be from 0 to 32768");
            Err(RubricError::at(format!("{at}/thinking_tokens"), message))
        }
    }
}

fn reward_model(options: &StageFile, at: &str) -> Result<JudgeMode> {
    let (centre, scale) = (options.centre.unwrap_or(0.0), options.scale.unwrap_or(1.0));
    if !centre.is_finite() {
        return Err(RubricError::at(format!("{at}/centre"), format!("{centre} is no number to centre on")));
    }
    if !(scale.is_finite() && scale > 0.0) {
        return Err(RubricError::at(format!("{at}/scale"), format!("{scale} is out of range; it must be above 0")));
    }
    Ok(JudgeMode::RewardModel { centre, scale })
}
