//! `llama3_json`: call objects after `<|python_tag|>`, or bare at the start of the message (rules L1 to L4). In: a
//! [`Scan`]; out: its attempts.

use memchr::memchr_iter;

use super::broken::follows_call;
use super::call::{self, Reading};
use super::codes::Fault;
use super::cursor::{self, Cursor};
use super::elements::{Grammar, Place, Shape};
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::Scan;
use super::written::{self, Break};
use super::{ErrorCode, Malformed};

const TAG: &str = "<|python_tag|>";

/// What stands before the objects, and so what an object that is no call means (L4).
#[derive(Debug, Clone, Copy)]
enum Lead {
    /// The tag at this offset: it promises calls.
    Tag(usize),
    /// The start of the message: such an object is an answer.
    Start,
}

impl Lead {
    /// What is looked for where the objects break.
    fn shape(self) -> Shape {
        let grammar = match self {
            Self::Tag(_) => Grammar::Objects,
            Self::Start => Grammar::BareObjects,
        };
        Shape { grammar, openers: &[TAG], tags: Tags::Think }
    }
}

/// The parser of the format.
pub(super) fn llama3_json(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([TAG], Tags::Think, Stops::StartAndOpeners);
    while let Some(mark) = walk.next(scan) {
        let next = match mark {
            Mark::Start { at } if scan.rest(at).starts_with('{') => objects(scan, at, Lead::Start),
            Mark::Start { at } => at,
            Mark::Opener { at, end, .. } => objects(scan, end, Lead::Tag(at)),
        };
        walk.resume(next);
    }
}

/// Reads objects from `at` on, separated by blanks and `;`; where the walk goes on.
fn objects(scan: &mut Scan<'_, '_>, at: usize, lead: Lead) -> usize {
    let mut object = at;
    // The first attempt includes the tag.
    let mut start = match lead {
        Lead::Tag(tag) => tag,
        Lead::Start => at,
    };
    // Where the attempt before ended.
    let mut before: Option<usize> = None;
    // Whether an object ended before this one and nothing but blanks stands between: a `;` announces another call (L3).
    let mut spaced = false;
    loop {
        let Reading { call, end, repairs } = match call::read(scan, object) {
            Ok(reading) => reading,
            // Text behind the objects, which happens to begin with a brace (L2).
            Err(_) if matches!(lead, Lead::Start) && spaced && !follows_call(Cursor::new(scan.text, object)) => {
                return object;
            }
            Err(fault) => {
                let broken = Break { fault, whole: Vec::new(), at: object, place: Place::Element };
                written::record(scan, start, lead.shape(), broken);
                return object;
            }
        };
        let is_answer = |malformed: &Malformed| {
            matches!((lead, malformed.code), (Lead::Start, ErrorCode::MissingName | ErrorCode::MissingArguments))
        };
        if call.as_ref().is_err_and(is_answer) {
            before = None;
        } else {
            // What separates calls is no answer.
            if let Some(before) = before.replace(end) {
                scan.wrap(before..start);
            }
            scan.push(start..end, if call.is_ok() { repairs } else { Vec::new() }, call);
        }
        object = skip_separators(scan.text, end);
        spaced = scan.text.get(end..object).is_some_and(|between| !between.contains(';'));
        start = object;
        if !scan.rest(object).starts_with('{') {
            match lead {
                Lead::Tag(_) => unexpected(scan, object, lead),
                Lead::Start if !spaced => announced(scan, object, lead),
                Lead::Start => {}
            }
            return end;
        }
    }
}

/// Records what stands behind the objects after a tag, up to another tag or reasoning: it should be calls, too (L4).
fn unexpected(scan: &mut Scan<'_, '_>, at: usize, lead: Lead) {
    let rest = scan.rest(at);
    let marker = |at: &usize| [TAG, "<think>", "</think>"].iter().any(|marker| rest[*at..].starts_with(marker));
    let end = memchr_iter(b'<', rest.as_bytes()).find(marker);
    let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().trim_end();
    if !text.is_empty() {
        let fault = Fault::new(ErrorCode::UnexpectedText, at, "text after the calls that the tag promises");
        let broken = Break { fault: fault.clone(), whole: Vec::new(), at, place: Place::Behind };
        let mut elements = written::elements(scan, lead.shape(), broken);
        match elements.last_mut() {
            Some(last) => last.end = last.end.max(at + text.len()),
            None => elements.push(at..at + text.len()),
        }
        written::push(scan, at, elements, fault);
    }
}

/// Records objects that a `;` announces, where something else stands behind the one before.
fn announced(scan: &mut Scan<'_, '_>, at: usize, lead: Lead) {
    let fault = Fault::new(ErrorCode::UnexpectedText, at, "text between the objects");
    let broken = Break { fault: fault.clone(), whole: Vec::new(), at, place: Place::Behind };
    let elements = written::elements(scan, lead.shape(), broken);
    let start = elements.first().map_or(at, |first| first.start);
    written::push(scan, start, elements, fault);
}

/// Passes blanks and semicolons (L3).
fn skip_separators(text: &str, mut at: usize) -> usize {
    loop {
        at = cursor::skip_blanks(text, at);
        match text.as_bytes().get(at) {
            Some(b';') => at += 1,
            _ => return at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, tolerant};
    use crate::trajectory::ToolFormat::Llama3Json;

    #[test]
    fn l1_the_tag_may_stand_anywhere() {
        let text = "I call <|python_tag|>{\"name\":\"f\",\"parameters\":{\"a\":1}}<|eom_id|>";
        assert_eq!(calls(Llama3Json, text), [("f".into(), json!({"a": 1}))]);
    }

    #[test]
    fn l2_l3_bare_objects() {
        let one = r#"{"name":"f","parameters":{}}"#;
        assert_eq!(codes(Llama3Json, &format!("<think>x</think>\n{one}; {one}\n{one} done")), ["ok", "ok", "ok"]);
        assert_eq!(codes(Llama3Json, &format!("Sure: {one}")), [""; 0]);
    }

    #[test]
    fn l4_an_object_that_is_no_call() {
        assert_eq!(codes(Llama3Json, r#"{"answer": 42}"#), [""; 0]);
        for name in [r#""Bob""#, "null", r#"{"first": "A"}"#, r#""""#, r#""\u0041""#, "[]"] {
            assert_eq!(codes(Llama3Json, &format!(r#"{{"name": {name}, "age": 3}}"#)), [""; 0], "{name}");
            let tolerant = tolerant(Llama3Json, &format!(r#"{{"name": {name}, "age": 3,}}"#));
            assert!(tolerant.is_empty(), "{name}");
        }
        assert_eq!(codes(Llama3Json, r#"{"name": null, "parameters": {}}"#), ["bad_name"]);
        assert_eq!(codes(Llama3Json, r#"<|python_tag|>{"name": null}"#), ["missing_arguments"]);
        assert_eq!(codes(Llama3Json, r#"<|python_tag|>{"answer": 42}"#), ["missing_name"]);
        assert_eq!(codes(Llama3Json, "<|python_tag|>print(1)"), ["json_syntax"]);
        assert_eq!(codes(Llama3Json, r#"{"name": "f", "parameters": {"#), ["truncated"]);
        let call = r#"{"name":"f","parameters":{}}"#;
        for behind in [format!(", {call}"), format!("}}; {call}"), " oops".to_owned()] {
            assert_eq!(
                codes(Llama3Json, &format!("<|python_tag|>{call}{behind}")),
                ["ok", "unexpected_text"],
                "{behind}"
            );
            assert_eq!(codes(Llama3Json, &format!("{call}{behind}")), ["ok"], "{behind}");
        }
        let text = format!("<|python_tag|>{call} oops <|python_tag|>{call}<think>x</think><|eom_id|>");
        assert_eq!(codes(Llama3Json, &text), ["ok", "unexpected_text", "ok"]);
        assert_eq!(codes(Llama3Json, r#"{"name": "f", "parameters": 3}"#), ["bad_arguments"]);
    }

    #[test]
    fn l2_braces_behind_the_objects_are_content() {
        let one = r#"{"name":"f","parameters":{}}"#;
        for text in ["{x | x > 0} is a set.", "{ name } stands for it.", "{names: all}", "{{ template }}"] {
            assert_eq!(codes(Llama3Json, &format!("{one}\n{text}")), ["ok"], "{text}");
            assert_eq!(codes(Llama3Json, &format!("<|python_tag|>{one}\n{text}")).len(), 2, "{text}");
        }
        for broken in [
            "{",
            "{\"na",
            "{'name': 'f', 'parameters': {}}",
            "{name: \"f\", parameters: {}}",
            "{{\"name\": \"f\"",
            "{“name”: “f”, “parameters”: {}}",
            "{name=\"f\"}",
            "{function: \"f\", args: {}}",
            "; {f()}",
        ] {
            assert_eq!(codes(Llama3Json, &format!("{one}\n{broken}")).len(), 2, "{broken}");
        }
    }

    #[test]
    fn g4_objects_before_the_break_stay() {
        let one = r#"{"name":"f","parameters":{}}"#;
        assert_eq!(codes(Llama3Json, &format!("{one};{{\"name\"; {one}")), ["ok", "json_syntax", "json_syntax"]);
        assert_eq!(codes(Llama3Json, &format!("{one}; x; {one}; {one}")), ["ok", "unexpected_text", "unexpected_text"]);
        assert_eq!(codes(Llama3Json, &format!("{one}; {{\"name\"; {{\"a\": 1}}; done")), ["ok", "json_syntax"]);
        assert_eq!(
            codes(Llama3Json, &format!("<|python_tag|>{one} x {one}; {one} y")),
            ["ok", "unexpected_text", "unexpected_text"]
        );
    }

    #[test]
    fn t2_a_template_opened_reasoning_restarts_the_message() {
        let one = r#"{"name":"f","parameters":{}}"#;
        assert_eq!(codes(Llama3Json, &format!("{one} hm </think>\n{one}")), ["ok"]);
        assert_eq!(codes(Llama3Json, &format!("hm </think>{one}</think>")), ["ok"]);
    }
}
