//! From a stage's entry in the file to a [`Stage`]: its options checked, foreign ones refused.

use super::check_judge;
use super::check_value::{Result, only, shown, unit, word};
use super::error::RubricError;
use super::file::{NumberOrOff, StageFile};
use crate::stages::{Expr, MatchMode, Measure, Stage, ToolMatch};
use crate::text::{Bleu, LaBleu, Smoothing, Tokenizer};

/// What `binary` can cut: every kind of stage but `binary` and `expr`.
const MEASURES: &str = "tool_parse, tool_schema, tool_match, answer_format, exact_match, f1, bleu, la_bleu, judge";

/// The stage of an entry at a JSON pointer; `earlier` are the names of the stages before it.
pub(super) fn stage(file: &StageFile, at: &str, earlier: &[&str]) -> Result<Stage> {
    let options = file;
    match file.kind.as_str() {
        "judge" => check_judge::judge(options, at),
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

fn binary(options: &StageFile, at: &str) -> Result<Stage> {
    let of = options.of.as_deref().unwrap_or("exact_match");
    let threshold = unit(options.cut.unwrap_or(0.5), &format!("{at}/cut"))?;
    let inner = StageFile { of: None, cut: None, ..options.clone() };
    let of = match of {
        "judge" => check_judge::judge(&inner, at)?,
        kind if default_measure(kind).is_none() => {
            return Err(RubricError::at(format!("{at}/of"), format!("{kind:?} is no measure; one of: {MEASURES}")));
        }
        kind => Stage::Measure(measure(kind, &inner, at)?),
    };
    Ok(Stage::Binary { of: Box::new(of), threshold })
}

/// The measure of this name with default settings.
pub(super) fn default_measure(kind: &str) -> Option<Measure> {
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
            let message = format!("{other:?} is no kind of stage; one of: {MEASURES}, binary, expr");
            return Err(RubricError::at(format!("{at}/kind"), message));
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
        let message = format!("{} is out of range; it must be from 0 to 1e6", shown(value));
        return Err(RubricError::at(format!("{at}/smoothing_value"), message));
    }
    if options.smoothing_value.is_some() && matches!(smoothing, "none" | "exp") {
        let message = format!("smoothing {smoothing:?} has no value; leave it out, or use floor or add-k");
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
