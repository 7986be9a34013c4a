//! `glm45`: the tool's name, and then keys and values in tags (rules X1 to X5). In: a [`Scan`]; out: its attempts.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::call::{Read, Reading};
use super::codes::Fault;
use super::cursor::Cursor;
use super::find::find_iter;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::tagged::record;
use super::xml::{Frame, MARKERS, insert, unclosed};
use super::{Call, ErrorCode, typed};

const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";

/// `<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`.
pub(super) fn glm45(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([MARKERS.opener], Tags::Think, Stops::Openers);
    while let Some(Mark::Opener { at, end, .. }) = walk.next(scan) {
        let mut cursor = Cursor::new(scan.text, end);
        let read = read_block(scan, &mut cursor);
        walk.resume(record(scan, at..end, Markers { others, ..MARKERS }, read));
    }
}

/// Where a tool's name, the block's own or one that is offered, stands between the value of a pair and the next pair.
fn others(scan: &Scan<'_, '_>, text: &str) -> Vec<usize> {
    let own = text.split(['\n', '<']).next().unwrap_or_default().trim();
    let begins = |key: usize| {
        let head = text.get(..key)?.trim_end();
        let (pairs, between) = head.split_at_checked(head.rfind('>')? + 1)?;
        let name = between.trim_start();
        let names = !name.is_empty() && (name == own || scan.offered.offers(name));
        (names && pairs.ends_with(VALUE_END)).then_some(head.len() - name.len())
    };
    find_iter(text.as_bytes(), KEY).filter_map(begins).take(scan.max_calls).collect()
}

fn read_block<'t>(scan: &Scan<'t, '_>, cursor: &mut Cursor<'t>) -> Read<'t> {
    let start = cursor.at;
    let Some(name) = cursor.until2(b'\n', b'<') else {
        let code = if scan.rest(start).trim().is_empty() { ErrorCode::Truncated } else { ErrorCode::MissingCloser };
        return Err((Fault::new(code, scan.text.len(), "the text ends after the tool's name"), None));
    };
    let name = name.trim();
    if name.is_empty() {
        return Err((Fault::new(ErrorCode::BadName, start, "the tool's name is empty"), None));
    }
    // Any name will do that could be one: a call of another format, or a sentence, is none.
    let may_name = |c: char| c.is_alphanumeric() || "_-.:/@+#$".contains(c);
    if !name.chars().all(may_name) && !scan.offered.offers(name) {
        return Err((Fault::new(ErrorCode::BadName, start, "no name where the tool's should stand"), None));
    }
    let named = |fault| (fault, Some(name));
    let mut arguments = Map::new();
    let mut repairs = Vec::new();
    scan.budget.take_exceeded();
    loop {
        cursor.skip_blanks();
        if cursor.rest().starts_with(KEY) {
            let at = cursor.at;
            let (key, value) = read_pair(cursor).map_err(named)?;
            let value = typed::read(scan, value, scan.offered.declared(name, key), &mut repairs);
            insert(scan, &mut arguments, (at, key), value).map_err(named)?;
            continue;
        }
        if !cursor.eat(MARKERS.closer) {
            unclosed(scan, cursor, Frame::Tags, &mut repairs).map_err(named)?;
        }
        let call = Call { name: Cow::Borrowed(name), arguments: Value::Object(arguments) };
        return Ok(Reading { call: Ok(call), end: cursor.at, repairs });
    }
}

/// A key and its value, both trimmed (X1).
fn read_pair<'t>(cursor: &mut Cursor<'t>) -> Result<(&'t str, &'t str), Fault> {
    let start = cursor.at;
    cursor.eat(KEY);
    let key = cursor.until2(b'<', b'<').unwrap_or_default().trim();
    for tag in [KEY_END, VALUE] {
        cursor.skip_blanks();
        if !cursor.eat(tag) {
            let code = if cursor.cut(tag) { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
            return Err(Fault::new(code, cursor.at, format!("no `{tag}`")));
        }
    }
    if key.is_empty() {
        return Err(Fault::new(ErrorCode::BadName, start, "an empty `<arg_key>`"));
    }
    let rest = cursor.rest();
    // Markers in a value are data, but a second `<arg_value>` says that the first was never closed.
    let tag = find_iter(rest.as_bytes(), "arg_value>").find_map(|tail| {
        let before = rest.get(..tail)?;
        (before.ends_with('<') || before.ends_with("</")).then_some(before)
    });
    let Some(before) = tag else {
        return Err(Fault::new(ErrorCode::Truncated, cursor.text.len(), "the text ends inside a value"));
    };
    match before.strip_suffix("</") {
        Some(value) => {
            cursor.at += value.len() + VALUE_END.len();
            Ok((key, value.trim()))
        }
        None => Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "a value without `</arg_value>`")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes};
    use crate::trajectory::ToolFormat::Glm45;

    #[test]
    fn x5_glm45() {
        let text = "a<tool_call>f\n<arg_key> k </arg_key>\n<arg_value> </tool_call> v\n</arg_value>\n</tool_call><tool_call>g</tool_call>";
        assert_eq!(calls(Glm45, text), [("f".into(), json!({"k": "</tool_call> v"})), ("g".into(), json!({}))]);
        for (text, code) in [
            ("<tool_call>f\nx</tool_call>", "unexpected_text"),
            ("<tool_call>\nf</tool_call>", "bad_name"),
            ("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "bad_name"),
            ("<tool_call>f<arg_key>k</arg_key></tool_call>", "unexpected_text"),
            ("<tool_call>f<arg_key>k</arg_key><arg_value>v</tool_call>", "truncated"),
            ("<tool_call>f\n", "missing_closer"),
            ("<tool_call>f", "missing_closer"),
        ] {
            assert_eq!(codes(Glm45, text), [code], "{text}");
        }
        let words =
            "<tool_call>t\n<arg_key>s</arg_key>\n<arg_value>if arg_value>0: /arg_value></arg_value>\n</tool_call>";
        assert_eq!(calls(Glm45, words), [("t".into(), json!({"s": "if arg_value>0: /arg_value>"}))]);
        let unclosed = "<tool_call>f<arg_key>k</arg_key><arg_value>v</tool_call>";
        let good = "<tool_call>g<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>";
        assert_eq!(codes(Glm45, &format!("{unclosed}{good}")), ["unexpected_text", "ok"]);
    }
}
