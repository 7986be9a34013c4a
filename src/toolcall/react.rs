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
    let mut labels = Labels { text: scan.text, found: None };
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
            let (next, pair) = action(scan, &mut labels, at, end);
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

/// What comes next in a text.
#[derive(Debug, Clone, Copy)]
struct Next {
    /// A label at the start of a line, and which it is.
    label: Option<(usize, &'static str)>,
    /// Where the line before it ends, or the text.
    newline: usize,
    /// Where what is said before it ends, but for blanks.
    said: usize,
}

/// The labels of a text, looked for from front to back: many actions may stand before one label.
struct Labels<'t> {
    text: &'t str,
    /// From where was looked last, and what was found.
    found: Option<(usize, Next)>,
}

impl<'t> Labels<'t> {
    /// The next line after `at` that starts with a label.
    fn next(&mut self, at: usize) -> Next {
        let known = self.found.filter(|(from, next)| (*from..=next.newline).contains(&at));
        self.found.insert(known.unwrap_or_else(|| (at, Self::look(self.text, at)))).1
    }

    fn look(text: &'t str, at: usize) -> Next {
        let rest = text.get(at..).unwrap_or_default();
        let found = memchr::memchr_iter(b'\n', rest.as_bytes()).find_map(|newline| {
            let line = rest.get(newline + 1..)?.trim_start_matches([' ', '\t']);
            let name = LABELS.iter().find(|known| line.starts_with(**known))?;
            Some((at + newline, (text.len() - line.len(), *name)))
        });
        let newline = found.map_or(text.len(), |(newline, _)| newline);
        let said = text.get(..newline).unwrap_or_default().trim_end().len();
        Next { label: found.map(|(_, label)| label), newline, said }
    }
}

/// Reads the action whose label ends at `end`; where the walk goes on, and whether it was a pair with its input.
fn action(scan: &mut Scan<'_, '_>, labels: &mut Labels<'_>, at: usize, end: usize) -> (usize, bool) {
    let next = labels.next(end);
    let stop = next.said.max(end);
    let name = scan.text.get(end..stop).unwrap_or_default().trim_start();
    let Some((input, INPUT)) = next.label else {
        let place = next.label.map_or(scan.text.len(), |(label, _)| label);
        let fault = Fault::new(ErrorCode::MissingArguments, place, "an `Action:` without its `Action Input:`");
        scan.push(at..stop, Vec::new(), Err(fault.named(Some(name))));
        return (end, false);
    };
    let result = if name.is_empty() || name.contains('\n') {
        Err(Fault::new(ErrorCode::BadName, end, "the name after `Action:` is empty or more than a line"))
    } else {
        read_input(scan, labels, input + INPUT.len())
    };
    match result {
        Ok((arguments, stop, repairs)) => {
            scan.push(at..stop, repairs, Ok(Call { name: Cow::Borrowed(name), arguments }));
            (stop, true)
        }
        Err(fault) => {
            let stop = labels.next(input).label.map_or(scan.text.len(), |(label, _)| label);
            scan.push(at..stop, Vec::new(), Err(fault.named(Some(name))));
            (end, true)
        }
    }
}

/// The object after `Action Input:`, which reaches to the next label (A2).
fn read_input(
    scan: &Scan<'_, '_>,
    labels: &mut Labels<'_>,
    at: usize,
) -> Result<(serde_json::Value, usize, Vec<Repair>), Fault> {
    let found = call::read_arguments(scan, at)?;
    let mut cursor = Cursor::new(scan.text, found.end);
    cursor.skip_blanks();
    let label = labels.next(found.end).label.is_some_and(|(label, _)| label == cursor.at);
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
