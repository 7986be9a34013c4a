//! From a stage's entry in the file to a [`Stage`]: its options checked, foreign ones refused.

use super::check_judge;
use super::check_value::{Result, only, shown, unit, word};
use super::error::RubricError;
use super::file::{NumberOrOff, StageFile};
use crate::stages::{Expr, MatchMode, Measure, Stage, ToolMatch};
use crate::text::{Bleu, LaBleu, Smoothing, Tokenizer};

/// A measure: its name, the options that it has, and how they are read.
type Kind = (&'static str, &'static [&'static str], fn(&StageFile, &str) -> Result<Measure>);

const MEASURES: [Kind; 8] = [
    ("tool_parse", &["repaired_credit"], tool_parse),
    ("tool_schema", &[], |_, _| Ok(Measure::ToolSchema)),
    ("tool_match", &["mode", "ordered", "invalid_credit"], tool_match),
    ("answer_format", &[], |_, _| Ok(Measure::AnswerFormat)),
    ("exact_match", &[], |_, _| Ok(Measure::ExactMatch)),
    ("f1", &[], |_, _| Ok(Measure::F1)),
    ("bleu", &["tokenizer", "lowercase", "smoothing", "smoothing_value", "effective_order", "max_ngram_order"], bleu),
    ("la_bleu", &["tokenizer", "lowercase", "slack", "floor", "cap"], la_bleu),
];

/// The names of all measures, for people.
pub(super) fn measure_names() -> String {
    MEASURES.map(|(name, ..)| name).join(", ")
}

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
            let message = format!("{kind:?} is no measure; one of: {}, judge", measure_names());
            return Err(RubricError::at(format!("{at}/of"), message));
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
    let Some((_, allowed, read)) = MEASURES.into_iter().find(|(name, ..)| *name == kind) else {
        let message = format!("{kind:?} is no kind of stage; one of: {}, judge, binary, expr", measure_names());
        return Err(RubricError::at(format!("{at}/kind"), message));
    };
    let measure = read(options, at)?;
    only(options, allowed, kind, at)?;
    Ok(measure)
}

fn tool_parse(options: &StageFile, at: &str) -> Result<Measure> {
    let repaired_credit = unit(options.repaired_credit.unwrap_or(0.5), &format!("{at}/repaired_credit"))?;
    Ok(Measure::ToolParse { repaired_credit })
}

fn tool_match(options: &StageFile, at: &str) -> Result<Measure> {
    let named = |mode: &str| word(mode, &format!("{at}/mode"), &MatchMode::ALL, MatchMode::as_str);
    let mode = options.mode.as_deref().map_or(Ok(MatchMode::F1), named)?;
    if mode == MatchMode::Jaccard && options.ordered == Some(true) {
        let message = "mode \"jaccard\" counts repeats wherever they stand; leave `ordered` out, or use another mode";
        return Err(RubricError::at(format!("{at}/ordered"), message));
    }
    let invalid_credit = unit(options.invalid_credit.unwrap_or(1.0), &format!("{at}/invalid_credit"))?;
    Ok(Measure::ToolMatch(ToolMatch { mode, ordered: options.ordered.unwrap_or(false), invalid_credit }))
}

fn tokenizer(options: &StageFile, at: &str) -> Result<Tokenizer> {
    let named = |name: &str| word(name, &format!("{at}/tokenizer"), &Tokenizer::ALL, Tokenizer::as_str);
    options.tokenizer.as_deref().map_or(Ok(Tokenizer::V13a), named)
}

fn smoothing(options: &StageFile, at: &str) -> Result<Smoothing> {
    let named = |name: &str| word(name, &format!("{at}/smoothing"), &Smoothing::ALL, Smoothing::name);
    let usual = options.smoothing.as_deref().map_or(Ok(Smoothing::Exp), named)?;
    let Some(value) = options.smoothing_value else { return Ok(usual) };
    let wrong = |message| Err(RubricError::at(format!("{at}/smoothing_value"), message));
    match usual.with_value(value) {
        Some(smoothing) if (0.0..=1e6).contains(&value) => Ok(smoothing),
        Some(_) => wrong(format!("{} is out of range; it must be from 0 to 1e6", shown(value))),
        None => wrong(format!("smoothing {:?} has no value; leave it out, or use floor or add-k", usual.name())),
    }
}

fn bleu(options: &StageFile, at: &str) -> Result<Measure> {
    let smoothing = smoothing(options, at)?;
    let max_ngram_order = options.max_ngram_order.unwrap_or(4);
    if !(1..=8).contains(&max_ngram_order) {
        let message = format!("{max_ngram_order} is out of range; it must be from 1 to 8");
        return Err(RubricError::at(format!("{at}/max_ngram_order"), message));
    }
    Ok(Measure::Bleu(Bleu {
        tokenizer: tokenizer(options, at)?,
        lowercase: options.lowercase.unwrap_or(false),
        smoothing,
        effective_order: options.effective_order.unwrap_or(true),
        max_ngram_order,
    }))
}

fn la_bleu(options: &StageFile, at: &str) -> Result<Measure> {
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
    Ok(Measure::LaBleu(LaBleu {
        tokenizer: tokenizer(options, at)?,
        lowercase: options.lowercase.unwrap_or(false),
        slack,
        floor,
        cap: unit(options.cap.unwrap_or(0.5), &format!("{at}/cap"))?,
    }))
}
