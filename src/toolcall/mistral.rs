//! `mistral`: `[TOOL_CALLS]` with a list of call objects (old form) or with `name{..}` (new form), told apart by what
//! follows the marker (rules M1, M2, M4). In: a [`Scan`]; out: its attempts.

use std::ops::Range;

use super::codes::Fault;
use super::cursor::Cursor;
use super::elements::{Grammar, Shape};
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::{ErrorCode, blocks, call, lists, tagged};

const MARKERS: Markers = Markers { opener: "[TOOL_CALLS]", closer: "", others };
const LIST: Shape = Shape { grammar: Grammar::List, openers: &[MARKERS.opener], tags: Tags::ThinkAndBrackets };
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

/// Of either form.
fn others(scan: &Scan<'_, '_>, text: &str) -> Vec<usize> {
    let listed = blocks::objects(scan, text);
    if listed.is_empty() { blocks::arguments(scan, text) } else { listed }
}

/// The parser of the format.
pub(super) fn mistral(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([MARKERS.opener], Tags::ThinkAndBrackets, Stops::Openers);
    while let Some(Mark::Opener { at, end, .. }) = walk.next(scan) {
        let mut cursor = Cursor::new(scan.text, end);
        cursor.skip_blanks();
        let rest = cursor.rest();
        let markers = [ARGS, CALL_ID, MARKERS.opener];
        let is_list = rest.starts_with('[') && !markers.iter().any(|marker| rest.starts_with(marker));
        let next = if is_list { lists::read(scan, at..cursor.at, LIST) } else { named(scan, at..end, cursor) };
        walk.resume(next);
    }
}

fn named<'t>(scan: &mut Scan<'t, '_>, opener: Range<usize>, mut cursor: Cursor<'t>) -> usize {
    let read = match name(&mut cursor) {
        Ok(name) => call::read_named(scan, name, cursor.at),
        // An object, or several, where a list should stand (M4).
        Err(fault) if scan.rest(fault.at).starts_with('{') => {
            lists::without_bracket(scan, opener.start, LIST, fault);
            return opener.end;
        }
        Err(fault) => Err((fault, None)),
    };
    tagged::record(scan, opener, MARKERS, read)
}

/// The name of the new form; afterwards the cursor stands where the arguments start.
fn name<'t>(cursor: &mut Cursor<'t>) -> Result<&'t str, Fault> {
    let start = cursor.at;
    let end = cursor.text.len();
    let Some(name) = cursor.until2(b'{', b'[') else {
        let prose = cursor.rest().trim().contains(char::is_whitespace);
        let code = if prose { ErrorCode::UnexpectedText } else { ErrorCode::Truncated };
        return Err(Fault::new(code, end, "no call after `[TOOL_CALLS]`"));
    };
    let name = name.trim();
    if name.is_empty() {
        return Err(Fault::new(ErrorCode::MissingName, start, "neither a list nor a name after `[TOOL_CALLS]`"));
    }
    if name.contains(char::is_whitespace) {
        return Err(Fault::new(ErrorCode::UnexpectedText, start, "text, but no call after `[TOOL_CALLS]`"));
    }
    if cursor.eat(CALL_ID) {
        // The id is not needed; it ends at the next marker.
        cursor.until2(b'[', b'{');
        if cursor.peek() == Some(b'{') {
            return Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "no `[ARGS]` after the call's id"));
        }
    }
    if cursor.peek() == Some(b'[') && !cursor.eat(ARGS) {
        return Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "neither `{` nor `[ARGS]` after the name"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed};
    use crate::trajectory::ToolFormat::Mistral;

    #[test]
    fn m1_old_form() {
        let text = r#"ok [TOOL_CALLS] [{"name":"f","arguments":{"a":1}},{"name":"g","arguments":{}}] text</s>"#;
        assert_eq!(calls(Mistral, text), [("f".into(), json!({"a": 1})), ("g".into(), json!({}))]);
    }

    #[test]
    fn m2_new_form() {
        let text = "[TOOL_CALLS]f{\"a\":\"[TOOL_CALLS]\"}[TOOL_CALLS]g[ARGS]{} [TOOL_CALLS]h[CALL_ID]x1[ARGS]{}</s>";
        assert_eq!(
            calls(Mistral, text),
            [("f".into(), json!({"a": "[TOOL_CALLS]"})), ("g".into(), json!({})), ("h".into(), json!({}))]
        );
        for (text, code) in [
            ("[TOOL_CALLS]", "truncated"),
            ("[TOOL_CALLS] I would call f", "unexpected_text"),
            ("[TOOL_CALLS][]", "unexpected_text"),
            ("[TOOL_CALLS]f", "truncated"),
            ("[TOOL_CALLS]f{\"a\"", "truncated"),
            ("[TOOL_CALLS]f[1]", "unexpected_text"),
            ("[TOOL_CALLS]f[CALL_ID]x{}", "unexpected_text"),
            ("[TOOL_CALLS]f[ARGS][]", "not_an_object"),
        ] {
            assert_eq!(codes(Mistral, text), [code], "{text}");
        }
    }

    #[test]
    fn m4_a_single_object_is_malformed() {
        assert_eq!(codes(Mistral, r#"[TOOL_CALLS]{"name":"f","arguments":{}}"#), ["missing_name"]);
        assert_eq!(codes(Mistral, "[TOOL_CALLS][TOOL_CALLS]f{}"), ["missing_name", "ok"]);
    }

    #[test]
    fn t5_bracket_think_tags_are_reasoning() {
        let text = "[THINK]a [TOOL_CALLS]f{}[/THINK]<think>[TOOL_CALLS]f{}</think>[TOOL_CALLS]g{}";
        assert_eq!(calls(Mistral, text), [("g".into(), json!({}))]);
        assert_eq!(parsed(Mistral, text).reasoning, [0..32, 32..62]);
    }
}
