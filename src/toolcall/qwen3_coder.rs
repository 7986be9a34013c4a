//! `qwen3_coder`: a function and its parameters, each in tags that name it (rules X1 to X5). In: a [`Scan`]; out: its attempts.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use memchr::memchr;
use serde_json::{Map, Value};

use super::call::{Read, Reading};
use super::codes::Fault;
use super::cursor::Cursor;
use super::react::starts_line;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::tagged::{record, unopened};
use super::xml::{Frame, MARKERS, insert, unclosed};
use super::{Call, ErrorCode, Repair, blocks, lenient, typed};

const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
/// Of a block that lacks its first tag.
const FUNCTION_MARKERS: Markers = Markers { opener: FUNCTION, closer: FUNCTION_END, others: blocks::none };
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";

/// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`. Models often forget the first
/// tag: what is a whole block otherwise is an attempt, too, and right only in tolerant mode.
pub(super) fn qwen3_coder(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([MARKERS.opener, FUNCTION], Tags::Think, Stops::Openers);
    let mut doomed = None;
    // Whether a function was met in the malformed block.
    let mut has_function = false;
    while let Some(Mark::Opener { which, at, end }) = walk.next(scan) {
        let opened = which == 0;
        if !opened && !is_function(scan.text, at) {
            continue;
        }
        // What stands in a malformed block belongs to it, and is an attempt behind its first function (G4).
        let inside = scan.parsed.attempts.last().map(|attempt| attempt.span.end).filter(|end| !opened && at < *end);
        if let Some(end) = inside {
            if std::mem::replace(&mut has_function, true) {
                let fault = Fault::new(ErrorCode::UnexpectedText, at, "another function between the tags of a call");
                scan.push(at..end, Vec::new(), Err(fault.named(None)));
            }
            continue;
        }
        has_function = false;
        let mut cursor = Cursor::new(scan.text, if opened { end } else { at });
        let frame = if opened { Frame::Tags } else { Frame::None };
        let read = scan.budget.if_kept(|| read_block(scan, &mut cursor, frame, &mut doomed));
        match read {
            read if opened => walk.resume(record(scan, at..end, MARKERS, read)),
            Ok(Reading { call: Ok(call), end, repairs })
                if has_parameters(&call) || !repairs.contains(&Repair::MissingCloser) =>
            {
                unopened(scan, at..end, (call, repairs), "`<function=` without `<tool_call>` before it");
                walk.resume(end);
            }
            // What breaks in it makes it no less an attempt, but somebody may write about it within a line.
            Err(fault) if starts_line(scan.text, at) => _ = record(scan, at..end, FUNCTION_MARKERS, Err(fault)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether a call has parameters: a function without tags around it and without these is one that is only written about.
fn has_parameters(call: &Call<'_>) -> bool {
    call.arguments.as_object().is_some_and(|arguments| !arguments.is_empty())
}

/// Whether the `<function=` at `at` is one whose parameters are tags: a name, and then a parameter, be it broken, or nothing.
pub(super) fn is_function(text: &str, at: usize) -> bool {
    let mut cursor = Cursor::new(text, at);
    if tag_name(&mut cursor, FUNCTION).is_err() {
        return false;
    }
    cursor.skip_blanks();
    let is_parameter =
        |rest: &str| rest.is_empty() || rest.starts_with(['=', '>']) || rest.starts_with(char::is_whitespace);
    cursor.rest().strip_prefix("<parameter").is_some_and(is_parameter) || cursor.rest().starts_with(FUNCTION_END)
}

/// A stretch of `<parameter=` tags after which a block broke, and how. Whatever came before, every parser that gets
/// to one of these tags reads on in the same way as far as it breaks, and so breaks in the same way: without this memory, a text of
/// nothing but openers would be read to its end from each of them.
type Doomed = Option<(RangeInclusive<usize>, Fault)>;

fn read_block<'t>(scan: &Scan<'t, '_>, cursor: &mut Cursor<'t>, frame: Frame, doomed: &mut Doomed) -> Read<'t> {
    cursor.skip_blanks();
    let name = tag_name(cursor, FUNCTION).map_err(|fault| (fault, None))?;
    let mut parameters = None;
    match read_parameters(scan, cursor, (name, frame), doomed.as_ref(), &mut parameters) {
        Ok((arguments, repairs)) => {
            let call = Call { name: Cow::Borrowed(name), arguments: Value::Object(arguments) };
            Ok(Reading { call: Ok(call), end: cursor.at, repairs })
        }
        Err(fault) => {
            if let Some((first, last)) = parameters {
                *doomed = Some((first..=last, fault.clone()));
            }
            Err((fault, Some(name)))
        }
    }
}

/// Reads the parameters and both closers; `seen` becomes the places of the first and the last `<parameter=`.
fn read_parameters(
    scan: &Scan<'_, '_>,
    cursor: &mut Cursor<'_>,
    (tool, frame): (&str, Frame),
    doomed: Option<&(RangeInclusive<usize>, Fault)>,
    seen: &mut Option<(usize, usize)>,
) -> Result<(Map<String, Value>, Vec<Repair>), Fault> {
    let mut arguments = Map::new();
    let mut repairs = Vec::new();
    scan.budget.take_exceeded();
    loop {
        cursor.skip_blanks();
        if cursor.rest().starts_with(PARAMETER) {
            if let Some((places, fault)) = doomed
                && places.contains(&cursor.at)
            {
                return Err(fault.clone());
            }
            *seen = Some((seen.map_or(cursor.at, |(first, _)| first), cursor.at));
            let at = cursor.at;
            let key = tag_name(cursor, PARAMETER)?;
            let text = read_value(cursor)?;
            let declared = scan.offered.declared(tool, key);
            let value = typed::read(scan, trim_newlines(text), declared, &mut repairs);
            insert(scan, &mut arguments, (at, key), value)?;
            continue;
        }
        let ended = cursor.eat(FUNCTION_END);
        let end = cursor.at;
        if ended {
            cursor.skip_blanks();
        }
        if !cursor.eat(MARKERS.closer) {
            if ended && frame == Frame::None {
                cursor.at = end;
                lenient::note(&mut repairs, Repair::MissingCloser);
            } else {
                unclosed(scan, cursor, frame, &mut repairs)?;
            }
        }
        return Ok((arguments, repairs));
    }
}

/// `<function=name>` or `<parameter=name>`, the name trimmed.
fn tag_name<'t>(cursor: &mut Cursor<'t>, tag: &'static str) -> Result<&'t str, Fault> {
    if !cursor.eat(tag) {
        let code = if cursor.cut(tag) { ErrorCode::Truncated } else { ErrorCode::UnexpectedText };
        return Err(Fault::new(code, cursor.at, format!("no `{tag}`")));
    }
    let start = cursor.at;
    let name = cursor.until2(b'>', b'<');
    let Some(name) = name else {
        return Err(Fault::new(ErrorCode::Truncated, cursor.text.len(), format!("the text ends inside `{tag}`")));
    };
    if !cursor.eat_byte(b'>') {
        return Err(Fault::new(ErrorCode::UnexpectedText, cursor.at, format!("no `>` after the name in `{tag}`")));
    }
    match name.trim() {
        "" => Err(Fault::new(ErrorCode::BadName, start, format!("an empty name in `{tag}`"))),
        name => Ok(name),
    }
}

/// A value up to `</parameter>`, which is passed, or to another tag that ends it.
fn read_value<'t>(cursor: &mut Cursor<'t>) -> Result<&'t str, Fault> {
    let rest = cursor.rest();
    let mut length = 0;
    while let Some(step) = rest.as_bytes().get(length..).and_then(|ahead| memchr(b'<', ahead)) {
        length += step;
        let (value, tail) = rest.split_at_checked(length).unwrap_or((rest, ""));
        if [PARAMETER_END, PARAMETER, FUNCTION_END, MARKERS.closer].iter().any(|tag| tail.starts_with(tag)) {
            cursor.at += length;
            cursor.eat(PARAMETER_END);
            return Ok(value);
        }
        length += 1;
    }
    Err(Fault::new(ErrorCode::Truncated, cursor.text.len(), "the text ends inside a parameter's value"))
}

/// Without exactly one newline on each side (X1).
fn trim_newlines(value: &str) -> &str {
    let value = value.strip_prefix('\n').unwrap_or(value);
    value.strip_suffix('\n').unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, tolerant};
    use crate::trajectory::ToolFormat::Qwen3Coder;

    #[test]
    fn x1_x5_qwen3_coder() {
        let text = "<tool_call>\n<function=f>\n<parameter=a>\n\nx &amp; </tool\n\n</parameter>\n<parameter= b >y\
                    <parameter=c>z\n</function>\n</tool_call> <tool_call><function=g></tool_call>";
        assert_eq!(
            calls(Qwen3Coder, text),
            [("f".into(), json!({"a": "\nx &amp; </tool\n", "b": "y", "c": "z"})), ("g".into(), json!({}))]
        );
    }

    #[test]
    fn x5_anything_else_in_the_block_is_malformed() {
        for (text, code) in [
            ("<tool_call>{}</tool_call>", "unexpected_text"),
            ("<tool_call><function=></function></tool_call>", "bad_name"),
            ("<tool_call><function=f>x</function></tool_call>", "unexpected_text"),
            ("<tool_call><function=f></function>x</tool_call>", "unexpected_text"),
            ("<tool_call><function=f></function>", "missing_closer"),
            ("<tool_call><function=f><parameter=a>x", "truncated"),
            ("<tool_call><function=f", "truncated"),
            ("<tool_call>", "truncated"),
        ] {
            assert_eq!(codes(Qwen3Coder, text), [code], "{text}");
        }
        let two = "<tool_call><function=f></function><function=g></function></tool_call>";
        assert_eq!(codes(Qwen3Coder, two), ["unexpected_text"; 2]);
        assert_eq!(tolerant(Qwen3Coder, "<tool_call><function=f></function>"), [vec!["missing_closer"]]);
        let text = "<tool_call><function=f>x<tool_call><function=g></function></tool_call>";
        assert_eq!(codes(Qwen3Coder, text), ["unexpected_text", "ok"]);
    }

    #[test]
    fn a_function_without_the_first_tag_is_an_attempt() {
        let bare = "I look.\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n</tool_call>";
        assert_eq!(codes(Qwen3Coder, bare), ["unexpected_text"]);
        assert_eq!(tolerant(Qwen3Coder, bare), [vec!["missing_opener"]]);
        let whole = "<tool_call><function=g></function></tool_call>";
        assert_eq!(codes(Qwen3Coder, &format!("{bare}\n{whole}")), ["unexpected_text", "ok"]);
        for text in ["<function=f></function>", "<function=f></function>x</tool_call>"] {
            assert_eq!(codes(Qwen3Coder, text), [""; 0], "{text}");
            assert!(tolerant(Qwen3Coder, text).is_empty(), "{text}");
        }
        let function = "<function=f>\n<parameter=a>\nx\n</parameter>\n</function>";
        let two = format!("{function}\n{function} done");
        assert_eq!(codes(Qwen3Coder, &two), ["unexpected_text", "unexpected_text"]);
        assert_eq!(
            tolerant(Qwen3Coder, &two),
            [vec!["missing_opener", "missing_closer"], vec!["missing_opener", "missing_closer"]]
        );
        for (text, code) in [
            ("<function=f>\n<parameter=a>\nx\n</parameter>\noops\n</function>\n</tool_call>", "unexpected_text"),
            ("<function=f>\n<parameter=a>\nx\n</parameter> Done.", "unexpected_text"),
            ("<function=f><parameter=>x</parameter></function></tool_call>", "bad_name"),
            ("<function=f><parameter a>x</parameter></function></tool_call>", "unexpected_text"),
        ] {
            assert_eq!(codes(Qwen3Coder, text), [code], "{text}");
            assert!(tolerant(Qwen3Coder, text).is_empty(), "{text}");
            assert_eq!(codes(Qwen3Coder, &format!("{text}\n{whole}")).len(), 2, "{text}");
        }
        assert_eq!(codes(Qwen3Coder, "<function=f><parameter=a>x"), ["truncated"]);
        // Tags that are named in prose, and calls of another format.
        assert_eq!(codes(Qwen3Coder, "Write <function=name> first. <function=f>{}</function>"), [""; 0]);
        assert_eq!(calls(Qwen3Coder, &format!("<think>{bare}</think>{whole}")), [("g".into(), json!({}))]);
        let value = "<tool_call><function=f><parameter=a><function=g></parameter></function></tool_call>";
        assert_eq!(calls(Qwen3Coder, value), [("f".into(), json!({"a": "<function=g>"}))]);
    }
}
