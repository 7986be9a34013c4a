//! What was written in a list that breaks: none of it is a call, and each element is an attempt (rule G4), or to break a list
//! would pay. In: a [`Scan`] and where a list breaks; out: its attempts. Knows no syntax.

use std::ops::Range;

use super::codes::Fault;
use super::elements::{Place, Shape, starts};
use super::scan::Scan;

/// Where a list breaks, and why.
#[derive(Debug)]
pub(super) struct Break {
    pub(super) fault: Fault,
    /// The elements before it, which were read.
    pub(super) whole: Vec<Range<usize>>,
    pub(super) at: usize,
    pub(super) place: Place,
}

/// Records each element of a list that breaks as a malformed attempt, the first one from `start` on; one attempt for a list
/// without any.
pub(super) fn record(scan: &mut Scan<'_, '_>, start: usize, shape: Shape, broken: Break) {
    let fault = broken.fault.clone();
    let stop = scan.text.floor_char_boundary(fault.at.max(broken.at));
    let mut elements = elements(scan, shape, broken);
    if elements.is_empty() {
        elements.push(start..stop);
    }
    push(scan, start, elements, fault);
}

/// Records these elements as malformed attempts, the first one from `start` on.
pub(super) fn push(scan: &mut Scan<'_, '_>, start: usize, elements: Vec<Range<usize>>, fault: Fault) {
    let Some(end) = elements.last().map(|last| last.end) else { return };
    let malformed = fault.named(None);
    let mut from = Some(start);
    for element in elements {
        scan.push(from.take().unwrap_or(element.start)..element.end, Vec::new(), Err(malformed.clone()));
    }
    scan.wrap(start..end);
}

/// The elements of a list that breaks, at most one more than are looked at. Each ends where the next one begins, and the last one
/// where its brackets close, as far as that can be told without its strings. Words alone are none of the only one: they are content.
pub(super) fn elements(scan: &Scan<'_, '_>, shape: Shape, broken: Break) -> Vec<Range<usize>> {
    let Break { whole: mut elements, at, place, .. } = broken;
    let (starts, end) = starts(scan.text, shape, (at, place), scan.max_calls);
    let text = scan.text.get(..end).unwrap_or_default();
    for (index, &start) in starts.iter().enumerate() {
        if starts.len() == 1
            && elements.is_empty()
            && !text.get(start..).is_some_and(|rest| rest.contains(['{', '[', '(']))
        {
            elements.push(start..start);
            break;
        }
        let end = starts.get(index + 1).map_or_else(|| own_end(text, start), |next| *next);
        let written = text.get(start..end).unwrap_or_default();
        let written = written.trim_end_matches(is_separator);
        let element = written.trim_start_matches(|c| c == '}' || is_separator(c));
        elements.push(start + written.len() - element.len()..start + written.len());
    }
    elements
}

/// Where the brackets of the element at `at` close, or the text ends.
pub(super) fn own_end(text: &str, at: usize) -> usize {
    let mut depth = 0_usize;
    for (place, byte) in text.bytes().enumerate().skip(at) {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            // The list's.
            b']' if depth <= 1 && place > at => return place,
            b'}' | b')' if depth == 0 && place > at => return place,
            b'}' | b']' | b')' if depth <= 1 => return place + 1,
            b'}' | b']' | b')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn is_separator(c: char) -> bool {
    matches!(c, ',' | ';') || c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::super::laws::{codes, parsed};
    use super::super::{NoTools, Options, parse};
    use crate::trajectory::ParseMode;
    use crate::trajectory::ToolFormat::{self, Granite, Llama3Json, Mistral, Phi4Mini, Pythonic};

    /// A format's list: what stands before the elements, what an element is around its value, what separates two, and the end.
    const LISTS: [(ToolFormat, [&str; 5]); 8] = [
        (Mistral, ["[TOOL_CALLS][", "{\"name\": \"f\", \"arguments\": {\"a\": ", "}}", ", ", "]"]),
        (Mistral, ["[TOOL_CALLS] [\n", "{\"arguments\":{\"a\":", "},\"id\":\"x1\",\"name\":\"f\"}", ",\n", "\n]"]),
        (Granite, ["<|tool_call|>[", "{\"name\": \"f\", \"arguments\": {\"a\": ", "}}", ", ", "]"]),
        (Phi4Mini, ["functools[", "{\"name\": \"f\", \"arguments\": {\"b\": {}, \"a\": ", "}}", ",", "]"]),
        (Llama3Json, ["<|python_tag|>", "{\"name\": \"f\", \"parameters\": {\"a\": ", "}}", "; ", ""]),
        (
            Llama3Json,
            ["<|python_tag|>", "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": ", "}}", ";", ""],
        ),
        (Pythonic, ["[", "f(a=", ")", ", ", "]"]),
        (Pythonic, ["[\n", "f.g(b={}, a=", ", c=1)", ",\n", "\n]"]),
    ];

    fn list(at: usize, values: &[&str]) -> String {
        let [before, opens, closes, between, end] = LISTS[at].1;
        let elements: Vec<_> = values.iter().map(|value| format!("{opens}{value}{closes}")).collect();
        format!("{before}{}{end}", elements.join(between))
    }

    fn value() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "1",
            "\"x\"",
            "\"\"",
            "\"a, b: c\"",
            "\"it's so\"",
            "\"say \\\"so\\\"\"",
            "[1, 2]",
            "[]",
            "{\"k\": {\"l\": \"m\"}}",
            "[{\"k\": \"é\"}]",
            "[\"u\", \"v\"]",
        ])
    }

    /// What marks another attempt is data in an element that was read, and ends one that breaks: none overlaps another.
    #[test]
    fn markers_in_elements_make_no_attempts_overlap() {
        let lists = [
            (Phi4Mini, "functools[{\"==n\": \"<|tool_call|>s\",},[9{\"> {\"]<|end|>"),
            (Phi4Mini, "functools[{\"name\": \"f\", \"arguments\": {\"a\": \"<|tool_call|>[\"}}, {\"name\": f}]"),
            (Phi4Mini, "functools[{\"name\": f, \"a\": \"\\<|tool_call|>[1]\"}, {\"b\": 1}]"),
            (Mistral, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": \"[TOOL_CALLS]\"}}, {\"name\": f}]"),
            (Mistral, "[TOOL_CALLS][{\"name\": f, \"a\": \"\\[TOOL_CALLS][1]\"}, {\"b\": 1}]"),
        ];
        for (format, text) in lists {
            for mode in [ParseMode::Strict, ParseMode::Tolerant] {
                let options = Options { format, mode, ..Options::default() };
                let mut from = 0;
                for attempt in parse(text, &options, &NoTools).attempts {
                    assert!(from <= attempt.span.start && attempt.span.start < attempt.span.end, "{text}: {attempt:?}");
                    from = attempt.span.end;
                }
            }
        }
        let data = "functools[{\"name\": \"f\", \"arguments\": {\"a\": \"<|tool_call|>[\"}}, {\"name\": f}]";
        assert_eq!(codes(Phi4Mini, data).len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        /// Whatever one byte is, each element is an attempt; that one may be two or none.
        #[test]
        fn no_byte_hides_the_elements_behind_it(
            form in 0..LISTS.len(),
            values in proptest::collection::vec(value(), 1..6),
            place in any::<proptest::sample::Index>(),
            byte in proptest::option::of("[ -~\n]"),
        ) {
            let text = list(form, &values);
            let (format, [before, opens, _, _, end]) = LISTS[form];
            // Without `[name(` a message is none of Python's (Y6).
            let before = before.len() + if format == Pythonic { opens.find('(').map_or(0, |at| at + 1) } else { 0 };
            let place = text.floor_char_boundary(before + place.index(text.len() - before));
            // Text behind a list is content, but not of these.
            let ends = byte.as_deref() == Some("]") && !matches!(format, Llama3Json | Pythonic);
            prop_assume!(!ends || place + end.len() >= text.len());
            let width = text[place..].chars().next().map_or(0, char::len_utf8);
            let broken = [&text[..place], byte.as_deref().unwrap_or_default(), &text[place + width..]].concat();
            // A list in the list is one element.
            prop_assume!(!broken.contains(",[{"));
            let found = codes(format, &broken).len();
            let few = values.len();
            prop_assert!(found + 1 >= few && found <= few + 1, "{found} of {few}: {broken}");
        }

        #[test]
        fn a_list_without_its_end_or_with_a_broken_element_holds_as_many(
            form in 0..LISTS.len(),
            values in proptest::collection::vec(value(), 1..6),
            which in any::<proptest::sample::Index>(),
        ) {
            let (format, [before, opens, _, _, end]) = LISTS[form];
            let text = list(form, &values);
            let cut = &text[..text.len() - end.len()];
            prop_assert_eq!(codes(format, cut).len(), values.len(), "{}", cut);
            let mut broken = values.clone();
            broken[which.index(values.len())] = "$";
            let text = list(form, &broken);
            let attempts = parsed(format, &text).attempts;
            prop_assert_eq!(attempts.len(), values.len(), "{}", text);
            // Each takes its element.
            let mut at = before.len();
            for attempt in &attempts {
                let start = at + text[at..].find(opens).unwrap();
                at = start + opens.len();
                prop_assert!(attempt.span.start <= start && attempt.span.end >= at, "{} {:?}", text, attempt);
            }
        }
    }
}
