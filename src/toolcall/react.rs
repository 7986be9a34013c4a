//! `react`: `Action:` and `Action Input:` lines (rules A1 to A5). In: a [`Scan`]; out: its attempts.

use std::borrow::Cow;

use super::codes::Fault;
use super::cursor::Cursor;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::Scan;
use super::{Call, ErrorCode, Repair, call};

const ACTION: &str = "Action:";
const INPUT: &str = "Action Input:";
const OBSERVATION: &str = "Observation:";
const LABELS: [&str; 6] = [ACTION, INPUT, OBSERVATION, "Thought:", "Final Answer:", "Question:"];

/// The parser of the format.
pub(super) fn react(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([ACTION, OBSERVATION], Tags::Think, Stops::Openers);
    let mut done = false;
    while let Some(Mark::Opener { which, at, end }) = walk.next(scan) {
        // Reasoning that the template opened takes back what stood in it.
        done &= !walk.take_restart();
        if done || !starts_line(scan.text, at) {
            continue;
        }
        if which == 1 {
            done = true;
        } else {
            let (next, pair) = action(scan, at, end);
            walk.resume(next);
            done = pair;
        }
    }
}

/// Whether only blanks stand between the start of the line, or reasoning, and `at`.
pub(super) fn starts_line(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_end_matches([' ', '\t']);
    before.is_empty() || before.ends_with('\n') || before.ends_with("</think>")
}

/// The next line after `at` that starts with a label: where the label stands, and which it is.
fn next_label(text: &str, at: usize) -> Option<(usize, &'static str)> {
    let rest = text.get(at..)?;
    memchr::memchr_iter(b'\n', rest.as_bytes()).find_map(|newline| {
        let line = rest.get(newline + 1..)?;
        let label = line.trim_start_matches([' ', '\t']);
        let found = LABELS.iter().find(|known| label.starts_with(**known))?;
        Some((text.len() - label.len(), *found))
    })
}

/// Reads the action whose label ends at `end`; where the walk goes on, and whether it was a pair with its input.
fn action(scan: &mut Scan<'_, '_>, at: usize, end: usize) -> (usize, bool) {
    let label = next_label(scan.text, end);
    let name_end = label.map_or(scan.text.len(), |(label, _)| label);
    let name = scan.text.get(end..name_end).unwrap_or_default().trim();
    let Some((input, INPUT)) = label else {
        let fault = Fault::new(ErrorCode::MissingArguments, name_end, "an `Action:` without its `Action Input:`");
        let stop = end + scan.text.get(end..name_end).unwrap_or_default().trim_end().len();
        scan.push(at..stop, Vec::new(), Err(fault.named(Some(name))));
        return (end, false);
    };
    let result = if name.is_empty() || name.contains('\n') {
        Err(Fault::new(ErrorCode::BadName, end, "the name after `Action:` is empty or more than a line"))
    } else {
        read_input(scan, input + INPUT.len())
    };
    match result {
        Ok((arguments, stop, repairs)) => {
            scan.push(at..stop, repairs, Ok(Call { name: Cow::Borrowed(name), arguments }));
            (stop, true)
        }
        Err(fault) => {
            let stop = next_label(scan.text, input).map_or(scan.text.len(), |(label, _)| label);
            scan.push(at..stop, Vec::new(), Err(fault.named(Some(name))));
            (end, true)
        }
    }
}

/// The object after `Action Input:`, which reaches to the next label (A2).
fn read_input(scan: &Scan<'_, '_>, at: usize) -> Result<(serde_json::Value, usize, Vec<Repair>), Fault> {
    let found = call::read_arguments(scan, at)?;
    let mut cursor = Cursor::new(scan.text, found.end);
    cursor.skip_blanks();
    let label = next_label(scan.text, found.end).is_some_and(|(label, _)| label == cursor.at);
    if cursor.is_at_end() || label || cursor.rest().starts_with("<think>") || cursor.rest().starts_with("</think>") {
        return Ok((found.value, found.end, found.repairs));
    }
    Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "text after the JSON object of `Action Input:`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes};
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
