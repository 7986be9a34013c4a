//! `pythonic`: a message that is `[name(key=value), ..]` (rules Y1 to Y6, F2). In: a [`Scan`]; out: its attempts.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::budget::{Budget, too_many};
use super::call::Reading;
use super::codes::Fault;
use super::cursor::Cursor;
use super::elements::{Grammar, Place, Shape};
use super::expression::skip_expression;
use super::lists::{self, Commas};
use super::python::{identifier, literal};
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::Scan;
use super::written::{self, Break};
use super::{Attempt, Call, ErrorCode, Malformed};

const START: &str = "<|python_start|>";
const END: &str = "<|python_end|>";
const LIST: Shape = Shape { grammar: Grammar::Calls, openers: &[], tags: Tags::Think };

/// The parser of the format.
pub(super) fn pythonic(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([], Tags::Think, Stops::StartAndOpeners);
    while let Some(Mark::Start { at }) = walk.next(scan) {
        let Some(list) = list_start(scan.text, at) else { continue };
        match document(scan, list) {
            Ok((calls, end)) => {
                scan.push_all(calls);
                scan.wrap(at..end);
                walk.resume(end);
            }
            Err(broken) => written::record(scan, at, LIST, broken),
        }
    }
}

/// Whether a message that starts at `at` is a list of calls to its end, reasoning aside, as far as its first and last bytes
/// tell; or was to be one, and is cut off.
pub(super) fn is_message(text: &str, at: usize) -> bool {
    let Some(list) = list_start(text, at) else { return false };
    let end = text.get(..list + said_bytes(text.get(list..).unwrap_or_default())).unwrap_or_default().trim_end();
    end.strip_suffix(END).unwrap_or(end).trim_end().ends_with(']') || is_cut(text, list)
}

/// Bytes of a list, or a text that looks like one, before the reasoning that ends it, if it ends so.
fn said_bytes(list: &str) -> usize {
    let (mut said, mut opens) = (list.trim_end(), true);
    while let Some(inside) = said.strip_suffix("</think>") {
        let opener = if opens { inside.rfind("<think>") } else { None };
        opens = opener.is_some();
        // A closer without an opener ends reasoning of the template's, or is content; a list may stand before either.
        said = inside.get(..opener.unwrap_or(inside.len())).unwrap_or_default().trim_end();
    }
    said.len()
}

/// Whether the list at `at` has a call with a named argument, and does not end.
fn is_cut(text: &str, at: usize) -> bool {
    let mut cursor = Cursor::new(text, at + 1);
    let mut named = false;
    loop {
        cursor.skip_blanks();
        named |= has_named_argument(cursor);
        match skip_expression(&mut cursor, b']') {
            Ok(()) if cursor.eat_byte(b',') => {}
            Ok(()) => return false,
            Err(fault) => return named && fault.code == ErrorCode::Truncated,
        }
    }
}

/// Passes `name(` and blanks, if that stands at the cursor.
fn opens_call(cursor: &mut Cursor<'_>) -> bool {
    let opens = dotted_name(cursor).is_some() && {
        cursor.skip_blanks();
        cursor.eat_byte(b'(')
    };
    cursor.skip_blanks();
    opens
}

/// Whether `name(key=` stands at the cursor.
fn has_named_argument(mut cursor: Cursor<'_>) -> bool {
    let key = opens_call(&mut cursor) && !identifier(&mut cursor).is_empty();
    cursor.skip_blanks();
    key && cursor.peek() == Some(b'=')
}

/// Whether `name()` or `name(key=` stands at the cursor; before a quote the `=` may be what is missing.
pub(super) fn begins_call(mut cursor: Cursor<'_>) -> bool {
    let opens = opens_call(&mut cursor);
    let key = !identifier(&mut cursor).is_empty();
    cursor.skip_blanks();
    opens && matches!((key, cursor.peek()), (false, Some(b')')) | (true, Some(b'=' | b'"' | b'\'')))
}

/// Where the `[` of `[name(` stands, if the message at `at` starts with that (Y5, Y6).
fn list_start(text: &str, at: usize) -> Option<usize> {
    let mut cursor = Cursor::new(text, at);
    cursor.eat(START);
    cursor.skip_blanks();
    let start = cursor.at;
    if !cursor.eat_byte(b'[') {
        return None;
    }
    cursor.skip_blanks();
    opens_call(&mut cursor).then_some(start)
}

/// A name, possibly dotted (Y3).
fn dotted_name<'t>(cursor: &mut Cursor<'t>) -> Option<&'t str> {
    let start = cursor.at;
    loop {
        if identifier(cursor).is_empty() {
            return None;
        }
        if !cursor.eat_byte(b'.') {
            return cursor.text.get(start..cursor.at);
        }
    }
}

/// Reads the whole list, which must end the message; gives its elements, at most one more than are looked at, and the end.
fn document<'t>(scan: &Scan<'t, '_>, at: usize) -> Result<(Vec<Attempt<'t>>, usize), Break> {
    let (elements, mut end) = lists::document(scan, at, Commas::MayEnd, |at| {
        let mut cursor = Cursor::new(scan.text, at);
        let call = element(&mut cursor, &scan.budget)?;
        Ok(Reading { call, end: cursor.at, repairs: Vec::new() })
    })?;
    let mut cursor = Cursor::new(scan.text, end);
    cursor.skip_blanks();
    if cursor.eat(END) {
        end = cursor.at;
    }
    if !only_reasoning(cursor.rest()) {
        let fault = Fault::new(ErrorCode::UnexpectedText, cursor.at, "text after the list of calls");
        return Err(Break { fault, whole: lists::spans(elements), at: cursor.at, place: Place::End });
    }
    Ok((elements, end))
}

/// Whether `rest` is blank but for reasoning; a stray closer makes all before it reasoning, so it may stand, too.
fn only_reasoning(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start();
        let Some(inside) = rest.strip_prefix("<think>") else {
            return rest.is_empty() || rest.starts_with("</think>");
        };
        match inside.split_once("</think>") {
            Some((_, after)) => rest = after,
            None => return true,
        }
    }
}

/// Reads an element. What is no call is stepped over, so that it costs its neighbours nothing.
fn element<'t>(cursor: &mut Cursor<'t>, budget: &Budget) -> Result<Result<Call<'t>, Malformed>, Fault> {
    let (start, room) = (*cursor, budget.room());
    let name = dotted_name(cursor);
    cursor.skip_blanks();
    if let Some(name) = name
        && cursor.eat_byte(b'(')
    {
        let arguments = arguments(cursor, budget)?;
        if arguments.is_err() {
            budget.rewind(room);
        }
        let end = *cursor;
        cursor.skip_blanks();
        if matches!(cursor.peek(), Some(b',' | b']')) {
            *cursor = end;
            return Ok(match arguments {
                Ok(arguments) => Ok(Call { name: Cow::Borrowed(name), arguments: Value::Object(arguments) }),
                Err(fault) => Err(fault.named(Some(name))),
            });
        }
    }
    *cursor = start;
    budget.rewind(room);
    skip_expression(cursor, b']')?;
    Ok(Err(Fault::new(ErrorCode::NotAnObject, start.at, "an element that is no call").named(None)))
}

/// Reads arguments up to and with `)`: the outer fault breaks the document, the inner one this call.
fn arguments(cursor: &mut Cursor<'_>, budget: &Budget) -> Result<Result<Map<String, Value>, Fault>, Fault> {
    let mut arguments = Map::new();
    let mut first_fault = None;
    cursor.skip_blanks();
    while !cursor.eat_byte(b')') {
        let start = cursor.at;
        match argument(cursor, budget)? {
            Ok((key, value)) if budget.entry(arguments.len()).is_some() => {
                arguments.insert(key.to_owned(), value);
            }
            Ok(_) => {
                budget.take_exceeded();
                first_fault = first_fault.or(Some(too_many(start)));
            }
            Err(fault) => first_fault = first_fault.or(Some(fault)),
        }
        cursor.skip_blanks();
        if cursor.eat_byte(b',') {
            cursor.skip_blanks();
        } else if cursor.peek() != Some(b')') {
            return Err(Commas::MayEnd.missing(cursor));
        }
    }
    Ok(first_fault.map_or(Ok(arguments), Err))
}

/// Reads `key=value`; faults as in [`arguments`].
fn argument<'t>(cursor: &mut Cursor<'t>, budget: &Budget) -> Result<Result<(&'t str, Value), Fault>, Fault> {
    let start = *cursor;
    let key = identifier(cursor);
    cursor.skip_blanks();
    if key.is_empty() || cursor.rest().starts_with("==") || !cursor.eat_byte(b'=') {
        *cursor = start;
        skip_expression(cursor, b')')?;
        let what = "a positional argument or `**`; name every argument";
        return Ok(Err(Fault::new(ErrorCode::PositionalArgument, start.at, what)));
    }
    cursor.skip_blanks();
    let value = *cursor;
    let room = budget.room();
    let fault = match literal(cursor, 0, budget) {
        Ok(found) => {
            cursor.skip_blanks();
            if matches!(cursor.peek(), Some(b',' | b')')) {
                return Ok(Ok((key, found)));
            }
            Fault::new(ErrorCode::NotALiteral, value.at, "an expression where a literal should stand")
        }
        Err(fault) => fault,
    };
    *cursor = value;
    budget.take_exceeded();
    budget.rewind(room);
    skip_expression(cursor, b')')?;
    Ok(Err(fault))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed};
    use crate::trajectory::ToolFormat::Pythonic;

    #[test]
    fn y1_literals() {
        let text = "[ f ( a = 'it\\'s', b=\"\"\"x\n\"y\"\"\"\", c=r'\\d', d=-1_000, e=0xFF, f=[1., .5, 1e3,], \
                    g={'k': None, \"l\": {}}, h=True, i=false, j=null, k=u'\\u00e9\\x41\\101\\q', l=18446744073709551615, ), ]";
        let text = text.replace("\"\"\"\"", "\"\"\"");
        assert_eq!(
            calls(Pythonic, &text),
            [(
                "f".into(),
                json!({
                    "a": "it's", "b": "x\n\"y", "c": "\\d", "d": -1000, "e": 255, "f": [1.0, 0.5, 1000.0],
                    "g": {"k": null, "l": {}}, "h": true, "i": false, "j": null, "k": "éAA\\q", "l": u64::MAX
                })
            )]
        );
    }

    #[test]
    fn y1_adjacent_strings_are_one() {
        let text = "[f(a='x' \"y\"\n r'\\d' U'\\x41', b={'k' 'l': ['m' 'n', 'o']}, c='' '')]";
        let expected = json!({"a": "xy\\dA", "b": {"kl": ["mn", "o"]}, "c": ""});
        assert_eq!(calls(Pythonic, text), [("f".into(), expected)]);
    }

    #[test]
    fn y1_everything_else_is_malformed() {
        for value in [
            "1+1",
            "x",
            "(1,)",
            "(1)",
            "{1}",
            "b'x'",
            "f'x'",
            "+1",
            "{1: 2}",
            "007",
            "1__0",
            "1_",
            "g()",
            "--1",
            "1j",
            "'a' b'b'",
            "'a' f'b'",
            "b'a' 'b'",
            "'\\N{DASH}'",
            "[x]",
            "lambda: 1",
            "not True",
            "0x",
            "1e",
            "1_e5",
            "1e_5",
        ] {
            assert_eq!(codes(Pythonic, &format!("[f(a={value}), g()]")), ["not_a_literal", "ok"], "{value}");
        }
        assert_eq!(codes(Pythonic, "[f(a=1e999)]"), ["json_number"]);
        assert_eq!(codes(Pythonic, "[f(a='\\ud800')]"), ["json_surrogate"]);
        assert_eq!(codes(Pythonic, &format!("[f(a={}1{})]", "[".repeat(300), "]".repeat(300))), ["too_deep"]);
    }

    #[test]
    fn y2_positional_arguments_are_malformed() {
        assert_eq!(
            codes(Pythonic, "[f(1), g(**x), h(*y), i(a == 1), j(a=1)]"),
            ["positional_argument", "positional_argument", "positional_argument", "positional_argument", "ok"]
        );
    }

    #[test]
    fn y3_y5_y6_names_and_messages() {
        assert_eq!(calls(Pythonic, "<|python_start|>[a.b.c()]<|python_end|><|eot_id|>"), [("a.b.c".into(), json!({}))]);
        for content in ["[1, 2]", "f(a=1)", "Sure: [f()]", "[f]", "[]", "[a-b()]"] {
            assert_eq!(codes(Pythonic, content), [""; 0], "{content}");
        }
    }

    #[test]
    fn f2_pythonic_starts_and_ends_the_message() {
        assert_eq!(codes(Pythonic, "[f()] done"), ["unexpected_text"]);
        assert_eq!(codes(Pythonic, "<think>a</think>\n[f()]\n"), ["ok"]);
        assert_eq!(codes(Pythonic, "[f()] x</think>[g()]"), ["ok"]);
    }

    #[test]
    fn g4_a_pythonic_list_is_one_document() {
        assert_eq!(codes(Pythonic, "[f(), g(a=']"), ["truncated"; 2]);
        assert_eq!(codes(Pythonic, "[f(), g(]"), ["unexpected_text"; 2]);
        assert_eq!(codes(Pythonic, "[f(), , g()]"), ["unexpected_text"; 2]);
        assert_eq!(codes(Pythonic, "[f(), 3, g().x, h()]"), ["ok", "not_an_object", "not_an_object", "ok"]);
        for broken in [
            "g(b \"x\")",
            "g(a=1) h(b=2)",
            "g(a=1 b=2)",
            "g(=1)",
            "g(a=$x)",
            "g(a=1 x)",
            "g(x.y=1)",
            "g(a=b=1)",
            "g(a='x' y)",
            "g(a=x {1})",
            "g(a=print x)",
            "g(1 2)",
        ] {
            assert_eq!(
                codes(Pythonic, &format!("[f(), {broken}, h()]")).len(),
                3 + usize::from(broken.contains(") h")),
                "{broken}"
            );
        }
        for whole in [
            "x if y else z",
            "not x",
            "lambda y: y + 1",
            "[i for i in x if i != 2]",
            "k(z=1, *y)",
            "'a' r'b' f\"c\"",
            "x[1:2].y",
            "a <= b == c",
            "(y := 3)",
            "{'a': 1, **b}",
            "ä.ö",
            "-x ** ~2",
        ] {
            assert_eq!(codes(Pythonic, &format!("[f(a={whole}), h()]")), ["not_a_literal", "ok"], "{whole}");
        }
        assert_eq!(parsed(Pythonic, "[f(), g()]").attempts[1].span, 6..9);
    }

    #[test]
    fn t4_think_tags_in_strings_are_data() {
        assert_eq!(calls(Pythonic, "[f(a='</think>')]"), [("f".into(), json!({"a": "</think>"}))]);
    }
}
