//! Why a stage failed, in words for people. In: a report. Out: a sentence that begins with the stage's name. Decides nothing.

use std::borrow::Cow;
use std::fmt::Write;

use super::Report;
use crate::rubric::{Rubric, RubricStage};
use crate::stages::{CallVerdict, Evidence, Measure, Outcome};
use crate::toolcall::clip;

impl Report<'_> {
    /// Why the failed stage failed, in words.
    pub fn reason(&self, rubric: &Rubric) -> Option<String> {
        let failed = self.failed_stage()?;
        let (outcome, plan) = self.outcomes.get(failed).zip(self.plan.get(failed))?;
        let why = self.evidence.as_ref().map_or(Cow::Borrowed(""), |e| explain(rubric.stages.get(failed), outcome, e));
        let name = rubric.stages.get(failed).map_or("", |stage| &stage.name);
        let mut reason = String::with_capacity(name.len() + why.len() + 48);
        reason.push_str(name);
        let (score, threshold) = (outcome.score.get(), plan.threshold);
        // Nothing is below what looks the same.
        let push = if same_thousandths(score, threshold) { push_whole } else { push_thousandths };
        reason.push_str(" scored ");
        push(score, &mut reason);
        reason.push_str(", below its threshold ");
        push(threshold, &mut reason);
        reason.push_str(&why);
        Some(reason)
    }
}

/// Whether two numbers are written alike with three digits.
fn same_thousandths(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-3 && format!("{one:.3}") == format!("{other:.3}")
}

/// Writes a number with all its digits.
fn push_whole(number: f64, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{number}");
}

/// Writes a number from 0 to 1 with three digits, as `{:.3}` does, which takes some twenty times as long.
fn push_thousandths(number: f64, out: &mut String) {
    let scaled = number * 1e3;
    // Near the middle between two numbers, rounding depends on digits that the product has lost.
    if number.is_sign_negative() || !(0.0..9.0).contains(&number) || (scaled.fract() - 0.5).abs() < 1e-6 {
        // Writing to a string cannot fail.
        let _ = write!(out, "{number:.3}");
        return;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9000")]
    let rounded = scaled.round() as u32;
    for place in [1000, 100, 10, 1] {
        out.extend(char::from_digit(rounded / place % 10, 10));
        if place == 1000 {
            out.push('.');
        }
    }
}

fn explain(stage: Option<&RubricStage>, outcome: &Outcome, evidence: &Evidence<'_>) -> Cow<'static, str> {
    let Some(stage) = stage else { return Cow::Borrowed("") };
    let first = match stage.stage.measure() {
        Some(Measure::ToolParse { .. }) => first_malformed(evidence).or_else(|| first_repaired(evidence)),
        Some(Measure::ToolSchema) => first_violation(evidence),
        Some(Measure::AnswerFormat) if evidence.answer.is_none() => {
            Some("the last turn has no answer in the place where the rubric looks for it".to_owned())
        }
        Some(Measure::AnswerFormat) if evidence.answer.as_ref().is_some_and(|a| a.text.is_empty()) => {
            Some("the answer is empty".to_owned())
        }
        Some(Measure::AnswerFormat) => Some("there is an answer, but the blocks around it are out of order".to_owned()),
        Some(Measure::ToolMatch(_)) => outcome.detail.first().map(|(_, matched)| {
            let wanted = evidence.trajectory.reference_calls.as_ref().map_or(0, Vec::len);
            let calls = evidence.calls().count();
            let wrong = first_malformed(evidence).or_else(|| first_violation(evidence));
            let wrong = wrong.map_or_else(String::new, |wrong| format!("; {wrong}"));
            format!("the best assignment of {calls} calls to {wanted} reference calls matches {matched:.3}{wrong}")
        }),
        _ if stage.stage.asks_for_answer() && evidence.answer.is_none() => Some("there is no answer".to_owned()),
        _ => None,
    };
    first.map_or(Cow::Borrowed(""), |first| Cow::Owned(format!(": {first}")))
}

fn first_malformed(evidence: &Evidence<'_>) -> Option<String> {
    evidence.turns.iter().find_map(|turn| {
        let call = turn.parsed.attempts.iter().find_map(|attempt| {
            let malformed = attempt.result.as_ref().err()?;
            let start = attempt.span.start + turn.offset;
            Some(format!("message {}, byte {start}: {} ({})", turn.message, malformed.message, malformed.code.as_str()))
        });
        let open = || {
            let open = turn.parsed.reasoning_open.as_ref()?;
            let start = open.start + turn.offset;
            Some(format!("message {}, byte {start}: reasoning is never closed (reasoning_open)", turn.message))
        };
        call.or_else(open)
    })
}

fn first_repaired(evidence: &Evidence<'_>) -> Option<String> {
    evidence.turns.iter().find_map(|turn| {
        let attempt = turn.parsed.attempts.iter().find(|attempt| !attempt.repairs.is_empty())?;
        let repairs: Vec<&str> = attempt.repairs.iter().map(|repair| repair.as_str()).collect();
        let (message, start) = (turn.message, attempt.span.start + turn.offset);
        Some(format!("message {message}, byte {start}: the call had to be repaired ({})", repairs.join(", ")))
    })
}

fn first_violation(evidence: &Evidence<'_>) -> Option<String> {
    evidence.turns.iter().find_map(|turn| {
        turn.parsed.attempts.iter().zip(&turn.verdicts).find_map(|(attempt, verdict)| {
            let call = attempt.result.as_ref().ok()?;
            // Names and places are the policy's words, of any length.
            match verdict {
                CallVerdict::UnknownTool => Some(format!(
                    "message {}: the tool {:?} is not offered (unknown_tool)",
                    turn.message,
                    call.short_name()
                )),
                CallVerdict::Violations(violations) => violations.first().map(|violation| {
                    let (message, name, pointer) = (turn.message, call.short_name(), clip(&violation.pointer));
                    format!("message {message}: {name} at {pointer:?}: {} (schema_violation)", violation.message)
                }),
                CallVerdict::TooCostly(problem) => Some(format!(
                    "message {}: {}: {} (schema_unsupported)",
                    turn.message,
                    call.short_name(),
                    problem.message
                )),
                _ => None,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::push_thousandths;

    fn written(number: f64) -> String {
        let mut text = String::new();
        push_thousandths(number, &mut text);
        text
    }

    proptest! {
        #[test]
        fn three_digits_are_those_that_rust_writes(number in 0.0..1.0_f64, half in 0..2000_u32, any in any::<f64>()) {
            let near_a_middle = f64::from(half) / 2000.0;
            for number in [number, near_a_middle, near_a_middle.next_up(), near_a_middle.next_down(), any, 0.0, 1.0] {
                prop_assert_eq!(written(number), format!("{number:.3}"));
            }
        }
    }
}
