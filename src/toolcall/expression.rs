//! Python expressions where a literal should stand: stepped over, so that they cost their neighbours nothing. In: a cursor;
//! out: where the expression ends, or that Python could not read it either. Evaluates nothing.

use super::ErrorCode;
use super::codes::Fault;
use super::cursor::Cursor;
use super::python::quoted;

/// Words that join values, or stand before one.
const OPERATORS: [&str; 12] =
    ["and", "or", "not", "in", "is", "if", "else", "for", "lambda", "await", "async", "yield"];

/// What stands before the next token of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing, or what a value may follow.
    Open,
    /// A value.
    Value,
    /// A string, which another one may follow.
    Text,
}

/// Steps over an expression up to a comma or `closing` outside brackets. A fault where it is none in Python, as far as can be
/// told without a grammar: brackets and strings that do not match, two values side by side, a character that no token has.
pub(super) fn skip_expression(cursor: &mut Cursor<'_>, closing: u8) -> Result<(), Fault> {
    let start = cursor.at;
    let unexpected = |at: usize, what: &'static str| Err(Fault::new(ErrorCode::UnexpectedText, at, what));
    let mut open = Vec::new();
    let mut before = Before::Open;
    while let Some(byte) = cursor.peek() {
        match byte {
            b'"' | b'\'' => {
                if before == Before::Value {
                    return unexpected(cursor.at, "two values side by side");
                }
                if quoted(cursor).is_none() {
                    return Err(Fault::new(ErrorCode::Truncated, cursor.at, "a string without its closing quote"));
                }
                before = Before::Text;
                continue;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | 0x80.. => {
                before = token(cursor, before)?;
                continue;
            }
            b'{' if before != Before::Open => return unexpected(cursor.at, "two values side by side"),
            b'(' | b'[' | b'{' => {
                open.push(match byte {
                    b'(' => b')',
                    b'[' => b']',
                    _ => b'}',
                });
                before = Before::Open;
            }
            b',' if open.is_empty() => break,
            b')' | b']' | b'}' => match open.pop() {
                Some(expected) if expected == byte => before = Before::Value,
                None if byte == closing => break,
                _ => return unexpected(cursor.at, "a bracket that closes nothing"),
            },
            b'=' | b'!' if cursor.rest().get(1..2) == Some("=") => {
                cursor.at += 1;
                before = Before::Open;
            }
            // Of a call inside.
            b'=' if open.is_empty() => return unexpected(cursor.at, "`=` after what is no name"),
            b'$' | b'?' | b'`' | b';' | b'!' => return unexpected(cursor.at, "a character that Python does not know"),
            _ if byte.is_ascii_whitespace() => {}
            _ => {
                // `<=`, `>=` and `:=`.
                let compared = matches!(byte, b'<' | b'>' | b':') && cursor.rest().get(1..2) == Some("=");
                cursor.at += usize::from(compared);
                before = Before::Open;
            }
        }
        cursor.at += 1;
    }
    if cursor.is_at_end() {
        return Err(Fault::new(ErrorCode::Truncated, cursor.at, "the text ends inside the list of calls"));
    }
    if cursor.text.get(start..cursor.at).is_none_or(|skipped| skipped.trim().is_empty()) {
        return unexpected(start, "nothing where a value should stand");
    }
    Ok(())
}

/// Steps over a name, a number, or what stands before the quote of a string; what stands before the next token then.
fn token(cursor: &mut Cursor<'_>, before: Before) -> Result<Before, Fault> {
    let start = cursor.at;
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.') || !c.is_ascii();
    let rest = cursor.rest();
    let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
    let word = rest.get(..length).unwrap_or_default();
    cursor.at += length;
    if word == "." || OPERATORS.contains(&word) {
        return Ok(Before::Open);
    }
    let prefix = length <= 2 && word.bytes().all(|byte| b"rRbBuUfF".contains(&byte));
    if prefix && before != Before::Value && matches!(cursor.peek(), Some(b'"' | b'\'')) {
        return Ok(before);
    }
    // What stands behind a dot belongs to the value before it.
    if before == Before::Open || word.starts_with('.') {
        return Ok(Before::Value);
    }
    Err(Fault::new(ErrorCode::UnexpectedText, start, "two values side by side"))
}
