//! A rubric's file with every default written out: what is hashed and stored, so that a default that changes in the code
//! changes the version, too.

use super::RubricStage;
use super::file::{NumberOrOff, PenaltyFile, RubricFile, StageFile};
use crate::shaping::Penalty;
use crate::stages::{JudgeMode, JudgeStage, Label, Measure, Stage};

/// The file of a rubric, complete.
pub(super) fn resolved(
    file: RubricFile,
    stages: &[RubricStage],
    penalties: &[(std::sync::Arc<str>, Penalty)],
) -> RubricFile {
    let complete = |(file, stage): (StageFile, &RubricStage)| {
        with_options(StageFile { name: Some(stage.name.to_string()), ..file }, &stage.stage)
    };
    let penalty = |(file, (name, penalty)): (PenaltyFile, &(std::sync::Arc<str>, Penalty))| PenaltyFile {
        name: Some(name.to_string()),
        max: Some(penalty.max),
        ..file
    };
    RubricFile {
        stages: file.stages.into_iter().zip(stages).map(complete).collect(),
        penalties: file.penalties.into_iter().zip(penalties).map(penalty).collect(),
        ..file
    }
}

fn with_options(file: StageFile, stage: &Stage) -> StageFile {
    match stage {
        Stage::Measure(measure) => with_measure(file, measure),
        Stage::Judge(judge) => with_judge(file, judge),
        Stage::Binary { of, threshold } => {
            let kind = file.of.clone().unwrap_or_else(|| "exact_match".to_owned());
            with_options(StageFile { of: Some(kind), cut: Some(*threshold), ..file }, of)
        }
        Stage::Expr(_) => file,
    }
}

fn with_judge(file: StageFile, judge: &JudgeStage) -> StageFile {
    let file = StageFile {
        criteria: Some(judge.criteria.clone()),
        mode: Some(judge.mode.as_str().to_owned()),
        judges: Some(judge.judges.clone()),
        panel: Some(judge.panel.as_str().to_owned()),
        ..file
    };
    let named = |labels: &[Label]| Some(labels.iter().map(|label| (label.name.clone(), label.value.get())).collect());
    match &judge.mode {
        JudgeMode::LabelLogprob { labels } => {
            StageFile { labels: named(labels), max_outside: Some(judge.max_outside), ..file }
        }
        JudgeMode::Match => StageFile { max_outside: Some(judge.max_outside), ..file },
        JudgeMode::Generate { labels, thinking_tokens, seed } => StageFile {
            labels: named(labels),
            max_outside: Some(judge.max_outside),
            thinking_tokens: Some(*thinking_tokens),
            seed: Some(*seed),
            ..file
        },
        JudgeMode::RewardModel { centre, scale } => StageFile { centre: Some(*centre), scale: Some(*scale), ..file },
        JudgeMode::Rank => file,
    }
}

fn with_measure(file: StageFile, measure: &Measure) -> StageFile {
    match measure {
        Measure::ToolParse { repaired_credit } => StageFile { repaired_credit: Some(*repaired_credit), ..file },
        Measure::ToolMatch(config) => {
            StageFile {
                mode: Some(config.mode.as_str().to_owned()),
                ordered: Some(config.ordered),
                // Rubrics from before it could be said keep their versions.
                invalid_credit: Some(config.invalid_credit).filter(|credit| *credit < 1.0),
                ..file
            }
        }
        Measure::Bleu(bleu) => StageFile {
            tokenizer: Some(bleu.tokenizer.to_string()),
            lowercase: Some(bleu.lowercase),
            smoothing: Some(bleu.smoothing.name().to_owned()),
            smoothing_value: bleu.smoothing.value(),
            effective_order: Some(bleu.effective_order),
            max_ngram_order: Some(bleu.max_ngram_order),
            ..file
        },
        Measure::LaBleu(la_bleu) => {
            let off = || NumberOrOff::Word("off".to_owned());
            StageFile {
                tokenizer: Some(la_bleu.tokenizer.to_string()),
                lowercase: Some(la_bleu.lowercase),
                slack: Some(if la_bleu.slack.is_finite() { NumberOrOff::Number(la_bleu.slack) } else { off() }),
                floor: Some(la_bleu.floor),
                cap: Some(la_bleu.cap),
                ..file
            }
        }
        Measure::ToolSchema | Measure::AnswerFormat | Measure::ExactMatch | Measure::F1 => file,
    }
}
