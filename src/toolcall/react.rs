//! `react`: `Action:` and `Action Input:` lines (rules A1 to A5). In: a [`Scan`]; out: its attempts.

use std::borrow::Cow;
use std::ops::Range;

use super::codes::Fault;
use super::cursor::Cursor;
use super::find::find;
use super::harmony::MESSAGE;
use super::lenient::Found;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::Scan;
use super::{Call, ErrorCode, Malformed, call};

const ACTION: &str = "Action:";
const INPUT: &str = "Action Input:";
const OBSERVATION: &str = "Observation:";
const LABELS: [&str; 6] = [ACTION, INPUT, OBSERVATION, "Thought:", "Final Answer:", "Question:"];

/// How far the pair is read that counts.
enum Pair {
    /// No action yet.
    Sought,
    /// The label of an action stands here: what comes next?
    Begun(Range<usize>),
    /// An action that starts here has an input that is none: where does it end?
    Broken(usize, Malformed),
    /// It is read, or comes no more.
    Done,
}

/// The parser of the format.
pub(super) fn react(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new(LABELS, Tags::Think, Stops::Openers);
    let mut pair = Pair::Sought;
    while let Some(Mark::Opener { which, at, end }) = walk.next(scan) {
        // Reasoning that the template opened takes back what stood in it.
        if walk.take_restart() {
            pair = Pair::Sought;
        }
        if matches!(pair, Pair::Done) || !starts_line(scan.text, at) {
            continue;
        }
        let label = LABELS.get(which).copied().unwrap_or_default();
        pair = match (pair, label) {
            (Pair::Begun(action), INPUT) => match read_pair(scan, &action, at, end) {
                Ok(stop) => {
                    walk.resume(stop);
                    Pair::Done
                }
                Err(malformed) => Pair::Broken(action.start, malformed),
            },
            (pair, label) => {
                let found = settle(scan, pair, at);
                match label {
                    ACTION if !found => Pair::Begun(at..end),
                    OBSERVATION => Pair::Done,
                    _ if found => Pair::Done,
                    _ => Pair::Sought,
                }
            }
        };
    }
    settle(scan, pair, scan.text.len());
}

/// Whether only blanks stand between the start of the line, or reasoning, or the start of a message of harmony, and `at`.
pub(super) fn starts_line(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_end_matches([' ', '\t']);
    before.is_empty() || before.ends_with('\n') || ["</think>", MESSAGE].iter().any(|tag| before.ends_with(tag))
}

/// Records an action that the label at `at`, or the end of the text, leaves without an input, or whose input is malformed; whether
/// it had one.
fn settle(scan: &mut Scan<'_, '_>, pair: Pair, at: usize) -> bool {
    match pair {
        Pair::Begun(action) => {
            let (name, stop) = name(scan.text, action.end, at);
            let fault = Fault::new(ErrorCode::MissingArguments, at, "an `Action:` without its `Action Input:`");
            scan.push(action.start..stop, Vec::new(), Err(fault.named(Some(name))));
            false
        }
        Pair::Broken(start, malformed) => {
            scan.push(start..at, Vec::new(), Err(malformed));
            true
        }
        Pair::Sought | Pair::Done => false,
    }
}

/// What stands between `Action:`, which ends at `from`, and the next label, reasoning left out, and where it ends.
fn name(text: &str, from: usize, label: usize) -> (&str, usize) {
    let said = text.get(from..label).unwrap_or_default();
    let said = find(said.as_bytes(), "<think>").and_then(|thought| said.get(..thought)).unwrap_or(said).trim_end();
    (said.trim_start(), from + said.len())
}

/// Reads the action whose label is `action`, and its input, whose label stands at `at` and ends at `end`; where the pair ends.
fn read_pair(scan: &mut Scan<'_, '_>, action: &Range<usize>, at: usize, end: usize) -> Result<usize, Malformed> {
    let (name, _) = name(scan.text, action.end, at);
    let result = if name.is_empty() || name.contains('\n') {
        Err(Fault::new(ErrorCode::BadName, action.end, "the name after `Action:` is empty or more than a line"))
    } else {
        read_input(scan, end)
    };
    let found = result.map_err(|fault| fault.named(Some(name)))?;
    let call = Call { name: Cow::Borrowed(name), arguments: found.value };
    scan.push(action.start..found.end, found.repairs, Ok(call));
    Ok(found.end)
}

/// The object after `Action Input:`, which reaches to the next label (A2).
fn read_input(scan: &Scan<'_, '_>, at: usize) -> Result<Found, Fault> {
    let found = call::read_arguments(scan, at)?;
    let mut cursor = Cursor::new(scan.text, found.end);
    cursor.skip_blanks();
    let rest = cursor.rest();
    let label = LABELS.iter().any(|label| rest.starts_with(label)) && starts_line(scan.text, cursor.at);
    if cursor.is_at_end() || label || rest.starts_with("<think>") || rest.starts_with("</think>") {
        return Ok(found);
    }
    Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "text after the JSON object of `Action Input:`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed};
    use crate::trajectory::ToolFormat::React;

    #[test]
    fn a1_only_the_first_pair_before_the_first_observation() {
        let text = "Thought: I should\n  Action:  f \n Action Input: {\"a\":\n 1}\nObservation: x\nAction: g\nAction Input: {}";
        assert_eq!(calls(React, text), [("f".into(), json!({"a": 1}))]);
        assert_eq!(codes(React, "Action: f\nAction Input: {}\nAction: g\nAction Input: {}"), ["ok"]);
        assert_eq!(codes(React, "Observation: x\nAction: f\nAction Input: {}"), [""; 0]);
        assert_eq!(codes(React, "My Action: f\naction: f\n"), [""; 0]);
        assert_eq!(codes(React, "<think>Action: f\n</think>\nAction: g\nAction Input: {}"), ["ok"]);
    }

    #[test]
    fn t1_reasoning_between_the_labels() {
        let input = "Action Input: {\"a\":\"x\"}";
        assert_eq!(codes(React, &format!("Action: f <think>\n{input}\n</think>")), ["missing_arguments"]);
        for between in ["\n<think>\nThought: a\n</think>\n", "<think>hm</think>\n", "<think>\nAction: g\n</think>"] {
            let text = format!("Action: f{between}{input}");
            assert_eq!(calls(React, &text), [("f".into(), json!({"a": "x"}))], "{text}");
            assert_eq!(parsed(React, &text).reasoning.len(), 1, "{text}");
        }
        let broken = parsed(React, "Action: f\nAction Input: x\n<think>\nThought: a\n</think>\nThought: b");
        assert_eq!(broken.attempts[0].span, 0..54);
        assert_eq!(codes(React, "Action: f\n</think>Action: g\nAction Input: {}"), ["ok"]);
    }

    #[test]
    fn a2_a3_the_input_is_an_object() {
        assert_eq!(codes(React, "Action: f\nAction Input: {}\nThought: so"), ["ok"]);
        assert_eq!(codes(React, "Action: f\nAction Input: Paris"), ["json_syntax"]);
        assert_eq!(codes(React, "Action: f\nAction Input: {} and\nThought: so"), ["unexpected_text"]);
        assert_eq!(codes(React, "Action: f\nAction Input: [1]"), ["not_an_object"]);
        assert_eq!(codes(React, "Action: f\nAction Input: {\"a\""), ["truncated"]);
        assert_eq!(codes(React, "Action: f\nAction Input:"), ["truncated"]);
    }

    #[test]
    fn a4_a5_action_without_input_and_input_without_action() {
        assert_eq!(codes(React, "Action: f\nThought: hm"), ["missing_arguments"]);
        assert_eq!(codes(React, "Action: f"), ["missing_arguments"]);
        assert_eq!(codes(React, "Action:\nAction Input: {}"), ["bad_name"]);
        assert_eq!(codes(React, "Action Input: {}"), [""; 0]);
        assert_eq!(codes(React, "Final Answer: 4"), [""; 0]);
    }
}
