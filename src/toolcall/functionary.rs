//! `functionary_v31`, `<function=name>{..}</function>`, and `functionary_v32`, `>>>name` and an object on the next line.
//! In: a [`Scan`]; out: its attempts.

use std::ops::Range;

use super::codes::Fault;
use super::cursor::Cursor;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::tagged::{Closing, closed, record};
use super::{ErrorCode, blocks, call};

const V31: Markers = Markers { opener: "<function=", closer: "</function>", others: blocks::arguments };
const V32: Markers = Markers { opener: ">>>", closer: "", others: blocks::arguments };

/// `<function=name>{..}</function>` (U1).
pub(super) fn v31(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([V31.opener], Tags::Think, Stops::Openers);
    while let Some(Mark::Opener { at, end, .. }) = walk.next(scan) {
        let mut cursor = Cursor::new(scan.text, end);
        let name = match cursor.until3(b'>', b'<', b'\n') {
            Some(name) if cursor.eat_byte(b'>') => Ok(name.trim()),
            Some(_) => Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "no `>` after the function's name")),
            None => Err(Fault::new(ErrorCode::Truncated, scan.text.len(), "the text ends inside the function's name")),
        };
        walk.resume(named_block(scan, at..end, V31, name, cursor.at));
    }
}

/// `>>>name`, a newline and an object; `>>>all` is content (U2), in which `>>>` may be the prompt of a Python shell.
pub(super) fn v32(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([V32.opener], Tags::Think, Stops::StartAndOpeners);
    let mut in_content = false;
    while let Some(mark) = walk.next(scan) {
        in_content &= !walk.take_restart();
        let next = match mark {
            Mark::Start { at } => {
                in_content = is_content(scan.rest(at));
                hide_all(scan, at..at);
                first_recipient(scan, at)
            }
            Mark::Opener { at, .. } if in_content && !is_recipient(scan.text, at) => continue,
            Mark::Opener { at, end, .. } => {
                in_content = is_content(scan.rest(end));
                hide_all(scan, at..end);
                recipient(scan, at..end)
            }
        };
        walk.resume(next);
    }
}

/// Whether a name alone on its line follows the `>>>` at `at`, unlike in the prompt of a Python shell, and unlike what closes
/// three brackets of a language's types.
pub(super) fn is_recipient(text: &str, at: usize) -> bool {
    let line = text.get(at + V32.opener.len()..).unwrap_or_default();
    let is_of_name = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '/');
    let length = line.chars().take(200).take_while(is_of_name).map(char::len_utf8).sum();
    let name = line.get(..length).unwrap_or_default();
    let after = line.get(length..).unwrap_or_default().trim_start_matches([' ', '\t', '\r']);
    name.contains(|c: char| c.is_alphabetic() || c == '_') && after.starts_with('\n')
}

/// Whether the recipient that `text` starts with is everybody.
fn is_content(text: &str) -> bool {
    let line = text.split(['\n', '>', '{']).next().unwrap_or_default();
    line.split_whitespace().next() == Some("all")
}

/// Takes the line that addresses everybody, with its marker, from what is said to them.
fn hide_all(scan: &mut Scan<'_, '_>, opener: Range<usize>) {
    let is_blank = |c: char| c != '\n' && c.is_whitespace();
    let rest = scan.rest(opener.end);
    let Some(after) = rest.trim_start_matches(is_blank).strip_prefix("all") else { return };
    let after = after.trim_start_matches(is_blank);
    if after.starts_with('\n') {
        scan.wrap(opener.start..opener.end + rest.len() - after.len());
    }
}

/// The first `>>>` may be missing, since the prompt's template writes it: a name alone on its line, then `{`.
fn first_recipient(scan: &mut Scan<'_, '_>, at: usize) -> usize {
    let mut cursor = Cursor::new(scan.text, at);
    let Some(line) = cursor.until3(b'\n', b'>', b'{') else { return at };
    let name = line.trim();
    if name.is_empty() || name == "all" || name.contains(char::is_whitespace) || !cursor.eat_byte(b'\n') {
        return at;
    }
    cursor.skip_blanks();
    if cursor.peek() == Some(b'{') { named_block(scan, at..at, V32, Ok(name), cursor.at) } else { at }
}

fn recipient(scan: &mut Scan<'_, '_>, opener: Range<usize>) -> usize {
    let mut cursor = Cursor::new(scan.text, opener.end);
    if is_content(cursor.rest()) {
        return opener.end;
    }
    let line = cursor.until3(b'\n', b'>', b'{');
    let name = match line {
        Some(name) if cursor.eat_byte(b'\n') => Ok(name.trim()),
        Some(_) => Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, "no newline after the recipient's name")),
        None => Err(Fault::new(ErrorCode::Truncated, scan.text.len(), "the text ends inside the recipient's name")),
    };
    named_block(scan, opener, V32, name, cursor.at)
}

/// Reads arguments at `at` for the tool `name`; where the walk goes on.
fn named_block<'t>(
    scan: &mut Scan<'t, '_>,
    opener: Range<usize>,
    markers: Markers,
    name: Result<&'t str, Fault>,
    at: usize,
) -> usize {
    let read = match name {
        Ok("") => Err((Fault::new(ErrorCode::BadName, opener.end, "the function's name is empty"), None)),
        Ok(name) => call::read_named(scan, name, at),
        Err(fault) => Err((fault, None)),
    };
    let read = read.map(|reading| closed(scan, markers, Closing::Required, reading));
    record(scan, opener, markers, read)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes};
    use crate::trajectory::ToolFormat::{FunctionaryV31, FunctionaryV32};

    #[test]
    fn u1_functionary_v31() {
        let text = "a<function= f >{\"a\": \"</function>\"}</function><function=g>{}\n</function>";
        assert_eq!(calls(FunctionaryV31, text), [("f".into(), json!({"a": "</function>"})), ("g".into(), json!({}))]);
        for (text, code) in [
            ("<function=>{}</function>", "bad_name"),
            ("<function=f>{}", "missing_closer"),
            ("<function=f>[]</function>", "not_an_object"),
            ("<function=f>{", "truncated"),
            ("<function=f", "truncated"),
            ("<function=f</function>", "unexpected_text"),
        ] {
            assert_eq!(codes(FunctionaryV31, text), [code], "{text}");
        }
    }

    #[test]
    fn u2_functionary_v32() {
        let text = "all\nHello {x}>>>f\n{\"a\": \">>>g\"}>>>all\nbye >>>g\n{}";
        assert_eq!(calls(FunctionaryV32, text), [("f".into(), json!({"a": ">>>g"})), ("g".into(), json!({}))]);
        assert_eq!(calls(FunctionaryV32, "f\n{\"a\":1}"), [("f".into(), json!({"a": 1}))]);
        assert_eq!(codes(FunctionaryV32, "Hello\nthere"), [""; 0]);
        for lead in [">>>", ""] {
            let shell = format!("{lead}all\nIn Python:\n>>> print(1)\n>>>\n1\n");
            assert_eq!(codes(FunctionaryV32, &shell), [""; 0]);
            assert_eq!(codes(FunctionaryV32, &format!("{shell}>>>f\n{{}}>>>g {{}}")), ["ok", "unexpected_text"]);
        }
        for text in
            ["Arc<Map<Id, Vec<M>>>,\n{}", "add<<<g, b>>>(\n{});", "k<<<g, b>>>();\n", "a: f<g<h<i>>>\n", ">>>1\n2"]
        {
            assert_eq!(crate::toolcall::detect(text), None, "{text}");
        }
        assert_eq!(calls(crate::trajectory::ToolFormat::Auto, ">>>查询天气\n{}"), [("查询天气".into(), json!({}))]);
        assert_eq!(codes(FunctionaryV32, ">>>f {}"), ["unexpected_text"]);
        assert_eq!(codes(FunctionaryV32, ">>>f\nno"), ["json_syntax"]);
        assert_eq!(codes(FunctionaryV32, ">>>f"), ["truncated"]);
        assert_eq!(codes(FunctionaryV32, "f\n{"), ["truncated"]);
    }
}
