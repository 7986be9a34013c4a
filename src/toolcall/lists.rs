//! A JSON list of call objects, one document (rule G4): `granite`, `phi4_mini` and mistral's old form. In: a [`Scan`];
//! out: its attempts.

use std::ops::Range;

use super::budget::too_many;
use super::call::{self, CallObject, Reading, Rules};
use super::codes::Fault;
use super::cursor::Cursor;
use super::elements::{Grammar, Place, Shape};
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::Scan;
use super::written::{self, Break};
use super::{Attempt, ErrorCode, lenient};
use serde_json::Value;

const PHI_TAG: &str = "<|tool_call|>";
const PHI_TAG_END: &str = "<|/tool_call|>";
const GRANITE: Shape = Shape { grammar: Grammar::List, openers: &[], tags: Tags::Think };
const PHI: Shape = Shape { grammar: Grammar::List, openers: &["functools[", PHI_TAG], tags: Tags::Think };

/// An optional tag at the start of the message, then the list (R1, F2).
pub(super) fn granite(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([], Tags::Think, Stops::StartAndOpeners);
    while let Some(Mark::Start { at }) = walk.next(scan) {
        let mut cursor = Cursor::new(scan.text, at);
        let tagged = cursor.eat("<|tool_call|>") || cursor.eat("<tool_call>");
        cursor.skip_blanks();
        let opens = cursor.peek() == Some(b'[');
        if opens && (tagged || holds_object(cursor) || holds_call(scan, cursor.at)) {
            let end = read(scan, at..cursor.at, GRANITE);
            if tagged {
                close(scan, end);
            }
            walk.resume(end);
        } else if tagged {
            no_list(scan, at, cursor, GRANITE);
            walk.resume(cursor.at);
        }
    }
}

/// Without a tag, only a list that opens with an object, or that has a call in it, is an attempt: prose may start with a
/// bracket, too.
fn holds_object(mut cursor: Cursor<'_>) -> bool {
    cursor.at += 1;
    cursor.skip_blanks();
    cursor.peek() == Some(b'{')
}

fn holds_call(scan: &Scan<'_, '_>, at: usize) -> bool {
    let room = scan.budget.room();
    let found = elements(scan, at).is_ok_and(|(elements, _)| elements.iter().any(|element| element.result.is_ok()));
    scan.budget.rewind(room);
    found
}

/// `functools[..]` anywhere; also between tags, or a list between tags without the word.
pub(super) fn phi4_mini(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new(["functools[", PHI_TAG], Tags::Think, Stops::Openers);
    while let Some(Mark::Opener { which, at, end }) = walk.next(scan) {
        let mut cursor = Cursor::new(scan.text, end);
        if which == 0 {
            cursor.at = end - 1;
        } else {
            cursor.skip_blanks();
            cursor.eat("functools");
        }
        if cursor.peek() != Some(b'[') {
            no_list(scan, at, cursor, PHI);
            continue;
        }
        let end = read(scan, at..cursor.at, PHI);
        if which == 1 {
            close(scan, end);
        }
        walk.resume(end);
    }
}

/// Records a tag that no list follows; it may lack its bracket.
fn no_list(scan: &mut Scan<'_, '_>, at: usize, cursor: Cursor<'_>, shape: Shape) {
    let (code, what) = if cursor.is_at_end() {
        (ErrorCode::Truncated, "the text ends before the list of calls")
    } else {
        (ErrorCode::UnexpectedText, "no list of calls after the tag")
    };
    without_bracket(scan, at, shape, Fault::new(code, cursor.at, what));
}

/// Records a marker that objects may follow, but no list: each of them is an attempt.
pub(super) fn without_bracket(scan: &mut Scan<'_, '_>, start: usize, shape: Shape, fault: Fault) {
    let at = fault.at;
    let place = if scan.rest(at).starts_with('{') { Place::Element } else { Place::End };
    if place == Place::Element {
        written::record(scan, start, shape, Break { fault, whole: Vec::new(), at, place });
    } else {
        scan.push(start..at, Vec::new(), Err(fault.named(None)));
    }
}

/// Records the tag that closes a list, if one stands at `end`.
fn close(scan: &mut Scan<'_, '_>, end: usize) {
    let mut cursor = Cursor::new(scan.text, end);
    cursor.skip_blanks();
    if cursor.eat(PHI_TAG_END) || cursor.eat("</tool_call>") {
        scan.wrap(end..cursor.at);
    }
}

/// Whether a tag at `at` is one of Phi's: granite writes the same one, and a list behind it, but starts the message with it.
pub(super) fn is_phi4_mini(text: &str, at: usize) -> bool {
    let rest = text.get(at..).and_then(|rest| rest.strip_prefix(PHI_TAG)).unwrap_or_default().trim_start();
    rest.starts_with("functools[") || (rest.starts_with(['[', '{']) && !starts_message(text, at))
}

/// Whether a tag at or behind `at` closes a list, as Phi does and granite does not.
pub(super) fn closes_list(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|rest| rest.contains(PHI_TAG_END))
}

/// Whether only reasoning and blanks stand before `at`, as far as the text directly before it tells.
pub(super) fn starts_message(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_end();
    before.is_empty() || before.ends_with("</think>")
}

/// Reads the list whose `[` stands at `opener.end` and records its elements; a syntax error makes each of them a malformed
/// attempt, the first one from `opener.start` on. Where the walk goes on.
pub(super) fn read(scan: &mut Scan<'_, '_>, opener: Range<usize>, shape: Shape) -> usize {
    let mut broken = match scan.budget.if_kept(|| elements(scan, opener.end)) {
        Ok((elements, end)) if elements.is_empty() => {
            let fault = Fault::new(ErrorCode::UnexpectedText, opener.end, "a list without a call");
            scan.push(opener.start..end, Vec::new(), Err(fault.named(None)));
            return end;
        }
        Ok((elements, end)) => {
            scan.push_all(elements);
            scan.wrap(opener.start..end);
            return end;
        }
        Err(broken) => broken,
    };
    if let Some(end) = read_leniently(scan, &opener) {
        return end;
    }
    if scan.tolerant() && scan.budget.take_exceeded() {
        broken.fault = too_many(opener.end);
    }
    // Whatever stands in an element that was read is data.
    let next = broken.whole.last().map_or(opener.end + 1, |last| last.end);
    written::record(scan, opener.start, shape, broken);
    next
}

/// What stands behind the commas of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commas {
    /// An element (JSON).
    Separate,
    /// An element, or the list's end (Python).
    MayEnd,
}

impl Commas {
    /// The fault of neither a comma nor a closing bracket at the cursor.
    pub(super) fn missing(self, cursor: &Cursor<'_>) -> Fault {
        const JSON: &str = "broken JSON: expected `,` or `]`";
        let (code, what) = match (self, cursor.is_at_end()) {
            (Self::Separate, true) => (ErrorCode::Truncated, JSON),
            (Self::Separate, false) => (ErrorCode::JsonSyntax, JSON),
            (Self::MayEnd, true) => (ErrorCode::Truncated, "the text ends inside the list of calls"),
            (Self::MayEnd, false) => (ErrorCode::UnexpectedText, "expected `,` or a closing bracket"),
        };
        Fault::new(code, cursor.at, what)
    }
}

/// A list that parses: its elements, at most one more than are looked at, and its end.
type List<'t> = (Vec<Attempt<'t>>, usize);

/// Reads the list whose `[` stands at `at`, each element by `element`.
pub(super) fn document<'t>(
    scan: &Scan<'t, '_>,
    at: usize,
    commas: Commas,
    element: impl Fn(usize) -> Result<Reading<'t>, Fault>,
) -> Result<List<'t>, Break> {
    let mut attempts: Vec<Attempt<'t>> = Vec::new();
    let mut cursor = Cursor::new(scan.text, at + 1);
    let mut may_end = true;
    let (fault, at, place) = loop {
        cursor.skip_blanks();
        if may_end && cursor.eat_byte(b']') {
            return Ok((attempts, cursor.at));
        }
        let (start, room) = (cursor.at, scan.budget.room());
        let Reading { call: result, end, repairs } = match element(start) {
            Ok(reading) => reading,
            Err(fault) => break (fault, start, Place::Element),
        };
        if attempts.len() <= scan.max_calls {
            attempts.push(Attempt { span: start..end, repairs, result });
        } else {
            scan.budget.rewind(room);
        }
        cursor.at = end;
        cursor.skip_blanks();
        let separated = cursor.eat_byte(b',');
        may_end = !separated || commas == Commas::MayEnd;
        if !separated && cursor.peek() != Some(b']') {
            break (commas.missing(&cursor), cursor.at, Place::Behind);
        }
    };
    Err(Break { fault, whole: spans(attempts), at, place })
}

/// Where attempts stand.
pub(super) fn spans(attempts: Vec<Attempt<'_>>) -> Vec<Range<usize>> {
    attempts.into_iter().map(|attempt| attempt.span).collect()
}

fn elements<'t>(scan: &Scan<'t, '_>, at: usize) -> Result<List<'t>, Break> {
    document(scan, at, Commas::Separate, |at| call::read(scan, at))
}

/// In tolerant mode, a list that does not parse strictly: each element carries the repairs of the whole.
fn read_leniently(scan: &mut Scan<'_, '_>, opener: &Range<usize>) -> Option<usize> {
    if !scan.tolerant() {
        return None;
    }
    let room = scan.budget.room();
    let found = lenient::read(scan.text, opener.end, &scan.budget)?;
    let elements = match found.value {
        Value::Array(elements) if !elements.is_empty() => elements,
        _ => {
            scan.budget.rewind(room);
            return None;
        }
    };
    let rules = Rules::new(scan, call::Blank::Fault);
    let mut start = opener.start;
    let read = elements.into_iter().take(scan.max_calls + 1).map(|element| {
        let mut repairs = found.repairs.clone();
        let object = CallObject::from_aliases(element, &mut repairs);
        let result = object.call(rules, opener.end, &mut repairs);
        // The places of the elements are not known: the first takes the list, the others its end.
        Attempt { span: std::mem::replace(&mut start, found.end)..found.end, repairs, result }
    });
    let attempts: Vec<_> = read.collect();
    scan.push_all(attempts);
    Some(found.end)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed, tolerant};
    use crate::trajectory::ToolFormat::{Auto, Granite, Phi4Mini};

    #[test]
    fn r1_granite() {
        let list = r#"[{"name":"f","arguments":{"a":1}}, {"name":"g","arguments":{}}]"#;
        for lead in ["", "<|tool_call|>", "<tool_call> ", "<think>x</think>\n<|tool_call|>\n"] {
            let text = format!("{lead}{list} text [1]");
            assert_eq!(calls(Granite, &text), [("f".into(), json!({"a": 1})), ("g".into(), json!({}))], "{text}");
        }
        assert_eq!(codes(Granite, &format!("Sure. <|tool_call|>{list}")), [""; 0]);
        assert_eq!(codes(Granite, "[1] says so"), [""; 0]);
        assert_eq!(codes(Granite, r#"[1, {"a": 2}]"#), [""; 0]);
        assert_eq!(codes(Granite, r#"[1, {"name":"f","arguments":{}}]"#), ["not_an_object", "ok"]);
        assert_eq!(codes(Granite, "<|tool_call|>"), ["truncated"]);
        assert_eq!(codes(Granite, "<|tool_call|>[]"), ["unexpected_text"]);
        assert_eq!(codes(Granite, "[]"), [""; 0]);
        assert_eq!(codes(Granite, r#"<|tool_call|>{"name":"f","arguments":{}}"#), ["unexpected_text"]);
    }

    #[test]
    fn g4_a_list_is_one_document() {
        let good = r#"{"name":"f","arguments":{}}"#;
        assert_eq!(codes(Granite, &format!("[{good}, {{\"name\"}}, {good}]")), ["json_syntax"; 3]);
        assert_eq!(
            codes(Granite, &format!("[{good}, 3, {{}}, [1], {good}]")),
            ["ok", "not_an_object", "missing_name", "not_an_object", "ok"]
        );
        assert_eq!(codes(Granite, &format!("[{good},]")), ["json_syntax"]);
        assert_eq!(codes(Granite, &format!("[{good}, {good}")), ["truncated"; 2]);
        assert_eq!(codes(Granite, &format!("<|tool_call|>{good}, {good}]")), ["unexpected_text"; 2]);
        assert_eq!(tolerant(Granite, &format!("[{good},]")), [vec!["trailing_comma"]]);
    }

    #[test]
    fn phi4_mini_text_around_is_content() {
        let text = r#"Sure functools[{"name":"f","arguments":{"a":"functools["}}] done"#;
        assert_eq!(calls(Phi4Mini, text), [("f".into(), json!({"a": "functools["}))]);
        assert_eq!(parsed(Phi4Mini, text).attempts[0].span, 15..58);
        assert_eq!(codes(Phi4Mini, "functools[]"), ["unexpected_text"]);
        let list = r#"[{"name":"f","arguments":{}}]"#;
        for text in
            [format!("<|tool_call|>functools{list}<|/tool_call|>"), format!("<|tool_call|>\n{list}<|/tool_call|>")]
        {
            assert_eq!(codes(Phi4Mini, &text), ["ok"], "{text}");
        }
        assert_eq!(codes(Phi4Mini, r#"<|tool_call|>{"name":"f","arguments":{}}<|/tool_call|>"#), ["unexpected_text"]);
        assert_eq!(codes(Phi4Mini, "<|tool_call|> "), ["truncated"]);
        assert_eq!(codes(Auto, &format!("Sure. <|tool_call|>{list}<|/tool_call|>")), ["ok"]);
        // Where granite has none, a list that a server left unclosed is Phi's, too.
        assert_eq!(codes(Auto, &format!("Sure. <|tool_call|>{list}<|end|>")), ["ok"]);
        assert_eq!(codes(Auto, "Sure. <|tool_call|>[{\"name\":\"f\",\"arguments\":{\"a\":}}]"), ["json_syntax"]);
        assert_eq!(codes(Auto, "Sure. <|tool_call|>{\"name\":\"f\",\"arguments\":{}}"), ["unexpected_text"]);
        assert_eq!(codes(Auto, "The token <|tool_call|> opens a list."), [""; 0]);
        assert_eq!(codes(Phi4Mini, "functools["), ["truncated"]);
    }
}
