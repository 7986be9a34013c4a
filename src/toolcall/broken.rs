//! Whether a JSON object that does not parse was to be a call: what a policy breaks must not pay as if it had not tried. In: a
//! cursor at the object; out: yes or no. Knows the keys of a call.

use super::cursor::Cursor;
use super::expression::skip_expression;
use super::python::{identifier, quoted};

/// Whether the broken JSON object at the cursor was to be a call: one with the keys of a call, in any order and quotes, as
/// far as it can be read.
pub(super) fn opens_call(mut cursor: Cursor<'_>) -> bool {
    let (mut name, mut arguments) = (false, false);
    pass_braces(&mut cursor);
    let object = cursor.rest();
    loop {
        cursor.skip_blanks();
        let Some(key) = key(&mut cursor) else { break };
        name |= key == "name";
        arguments |= is_arguments(key);
        if skip_expression(&mut cursor, b'}').is_err() || !cursor.eat_byte(b',') {
            break;
        }
    }
    if !(name && arguments) {
        // What breaks hides the keys behind it, as a line that ends inside a string does.
        for keys in [keys_of(object, true), keys_of(object, false)] {
            name |= keys.contains(&"name");
            arguments |= keys.iter().any(|key| is_arguments(key));
        }
    }
    name && arguments
}

/// Whether broken JSON behind a call was to be another one: it begins as an object does, in whatever quotes, or with the key of a
/// name, or has the keys of a call.
pub(super) fn follows_call(cursor: Cursor<'_>) -> bool {
    let mut inside = cursor;
    pass_braces(&mut inside);
    let quote = inside.rest().chars().next().is_none_or(|first| matches!(first, '"' | '\'' | '“' | '”' | '‘' | '’'));
    quote || begins_with_name(inside) || opens_call(cursor)
}

/// Passes a key, its colon and blanks.
fn key<'t>(cursor: &mut Cursor<'t>) -> Option<&'t str> {
    let key = match cursor.peek() {
        Some(b'"' | b'\'') => quoted(cursor),
        _ => Some(identifier(cursor)).filter(|key| !key.is_empty()),
    };
    cursor.skip_blanks();
    let key = key.filter(|_| cursor.eat_byte(b':'));
    cursor.skip_blanks();
    key
}

fn begins_with_name(mut cursor: Cursor<'_>) -> bool {
    let is_name = matches!(identifier(&mut cursor), "name" | "function");
    cursor.skip_blanks();
    is_name && matches!(cursor.peek(), Some(b':' | b'='))
}

/// Whether an object begins with braces and nothing between them.
pub(super) fn opens_twice(mut cursor: Cursor<'_>) -> bool {
    cursor.eat_byte(b'{') && {
        cursor.skip_blanks();
        cursor.peek() == Some(b'{')
    }
}

/// Passes the brace of an object and blanks; a brace too many opens the same object.
fn pass_braces(cursor: &mut Cursor<'_>) {
    while cursor.eat_byte(b'{') {
        cursor.skip_blanks();
    }
}

fn is_arguments(key: &str) -> bool {
    matches!(key, "parameters" | "arguments")
}

/// The keys in quotes of a broken object, from behind its brace to where that is closed, or to a blank line. Where strings have
/// no lines, one that its line does not close is none.
fn keys_of(object: &str, strings_have_lines: bool) -> Vec<&str> {
    let (mut keys, mut depth, mut cursor) = (Vec::new(), 1_usize, Cursor::new(object, 0));
    // Quotes that are not closed.
    let mut open = Vec::new();
    while let Some(byte) = cursor.peek() {
        match byte {
            b'"' | b'\'' if !open.contains(&byte) => {
                if let Some(text) = cursor.in_quotes(strings_have_lines) {
                    let mut behind = cursor;
                    behind.skip_blanks();
                    // The colon may be what is missing.
                    if depth == 1 && matches!(behind.peek(), Some(b':' | b'=' | b'"' | b'\'' | b'{')) {
                        keys.push(text);
                    }
                    continue;
                }
                // Nothing closes it, and so no later one of its kind, up to the next line at least.
                open.push(byte);
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => break,
            b'}' | b']' => depth -= 1,
            b'\n' if cursor.rest().starts_with("\n\n") => break,
            b'\n' if !strings_have_lines => open.clear(),
            _ => {}
        }
        cursor.at = object.ceil_char_boundary(cursor.at + 1);
    }
    keys
}
