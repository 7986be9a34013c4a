//! Python literals as JSON values (rule Y1), and stepping over Python that is no literal. In: a [`Cursor`]; out: a
//! value, or a [`Fault`] that says why the text is none. Knows no call.

use memchr::{memchr2, memchr3};
use serde_json::{Map, Number, Value};

use super::ErrorCode;
use super::budget::{Budget, too_many};
use super::codes::Fault;
use super::cursor::Cursor;
use super::json::DEEPEST;

/// Reads the literal at the cursor. After a fault the cursor stands anywhere.
pub(super) fn literal(cursor: &mut Cursor<'_>, depth: usize, budget: &Budget) -> Result<Value, Fault> {
    if depth > DEEPEST {
        return Err(Fault::new(ErrorCode::TooDeep, cursor.at, "values nest too deep"));
    }
    match cursor.peek() {
        Some(b'[') => list(cursor, depth, budget),
        Some(b'{') => dict(cursor, depth, budget),
        Some(b'"' | b'\'') => strings(cursor, Escapes::Decoded),
        Some(b'-' | b'.' | b'0'..=b'9') => number(cursor),
        _ => word(cursor),
    }
}

fn list(cursor: &mut Cursor<'_>, depth: usize, budget: &Budget) -> Result<Value, Fault> {
    let mut elements = Vec::new();
    cursor.at += 1;
    cursor.skip_blanks();
    while !cursor.eat_byte(b']') {
        budget.element(elements.len()).ok_or_else(|| too_many(cursor.at))?;
        elements.push(literal(cursor, depth + 1, budget)?);
        separator(cursor, b']')?;
    }
    Ok(Value::Array(elements))
}

fn dict(cursor: &mut Cursor<'_>, depth: usize, budget: &Budget) -> Result<Value, Fault> {
    let mut object = Map::new();
    cursor.at += 1;
    cursor.skip_blanks();
    while !cursor.eat_byte(b'}') {
        let start = cursor.at;
        budget.entry(object.len()).ok_or_else(|| too_many(start))?;
        let Value::String(key) = literal(cursor, depth + 1, budget)? else {
            return Err(Fault::new(ErrorCode::NotALiteral, start, "a dict key that is no string"));
        };
        cursor.skip_blanks();
        if !cursor.eat_byte(b':') {
            return Err(not_a_literal(cursor));
        }
        cursor.skip_blanks();
        object.insert(key, literal(cursor, depth + 1, budget)?);
        separator(cursor, b'}')?;
    }
    Ok(Value::Object(object))
}

/// Passes a comma, or stops before the closing bracket.
fn separator(cursor: &mut Cursor<'_>, closing: u8) -> Result<(), Fault> {
    cursor.skip_blanks();
    if cursor.eat_byte(b',') {
        cursor.skip_blanks();
        return Ok(());
    }
    if cursor.peek() == Some(closing) { Ok(()) } else { Err(not_a_literal(cursor)) }
}

fn not_a_literal(cursor: &Cursor<'_>) -> Fault {
    if cursor.is_at_end() {
        return Fault::new(ErrorCode::Truncated, cursor.at, "the text ends inside a value");
    }
    Fault::new(ErrorCode::NotALiteral, cursor.at, "no Python literal")
}

fn word(cursor: &mut Cursor<'_>) -> Result<Value, Fault> {
    let start = *cursor;
    let word = identifier(cursor);
    let quoted = matches!(cursor.peek(), Some(b'"' | b'\''));
    match word {
        "True" | "true" => Ok(Value::Bool(true)),
        "False" | "false" => Ok(Value::Bool(false)),
        "None" | "null" => Ok(Value::Null),
        _ if quoted && let Some(escapes) = prefix(word) => strings(cursor, escapes),
        _ => Err(not_a_literal(&start)),
    }
}

/// Passes an identifier; empty if none stands here.
pub(super) fn identifier<'t>(cursor: &mut Cursor<'t>) -> &'t str {
    let rest = cursor.rest();
    let starts = rest.chars().next().is_some_and(|first| first == '_' || first.is_alphabetic());
    let inside = |character: char| character == '_' || character.is_alphanumeric();
    let length = if starts { rest.find(|character| !inside(character)).unwrap_or(rest.len()) } else { 0 };
    cursor.at += length;
    rest.get(..length).unwrap_or_default()
}

fn number(cursor: &mut Cursor<'_>) -> Result<Value, Fault> {
    let start = *cursor;
    let negative = cursor.eat_byte(b'-');
    if negative {
        cursor.skip_blanks();
    }
    let rest = cursor.rest();
    let hex = rest.starts_with("0x") || rest.starts_with("0X");
    let mut previous = 0;
    let length = rest
        .bytes()
        .take_while(|&byte| {
            let exponent = !hex && matches!(previous, b'e' | b'E') && matches!(byte, b'+' | b'-');
            previous = byte;
            exponent || byte == b'.' || byte == b'_' || byte.is_ascii_alphanumeric()
        })
        .count();
    cursor.at += length;
    let token = rest.get(..length).unwrap_or_default();
    let lower = token.to_ascii_lowercase();
    let number = match lower.as_bytes() {
        [b'0', b'x', ..] => integer(&lower, 2, 16, negative),
        [b'0', b'o', ..] => integer(&lower, 2, 8, negative),
        [b'0', b'b', ..] => integer(&lower, 2, 2, negative),
        _ if lower.contains(['.', 'e']) => float(&lower, negative),
        bytes if bytes.first() == Some(&b'0') && bytes.iter().any(|byte| matches!(byte, b'1'..=b'9')) => None,
        _ => integer(&lower, 0, 10, negative),
    };
    match number {
        Some(Ok(number)) => Ok(Value::Number(number)),
        Some(Err(())) => Err(Fault::new(ErrorCode::JsonNumber, start.at, "a number beyond the range of a double")),
        None => Err(not_a_literal(&start)),
    }
}

/// A number; `Err` beyond the range of a double, `None` if the digits are no number.
type Parsed = Option<Result<Number, ()>>;

fn integer(token: &str, prefix: usize, radix: u32, negative: bool) -> Parsed {
    let digits = token.get(prefix..)?;
    // Python allows an underscore after the prefix.
    let digits = if prefix > 0 { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let digits = without_underscores(digits, radix)?;
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let signed = if negative { format!("-{digits}") } else { digits };
    if let Ok(number) = i64::from_str_radix(&signed, radix) {
        return Some(Ok(number.into()));
    }
    if let Ok(number) = u64::from_str_radix(&signed, radix) {
        return Some(Ok(number.into()));
    }
    let double = if radix == 10 {
        signed.parse().unwrap_or(f64::INFINITY)
    } else {
        let magnitude = signed.trim_start_matches('-').chars().filter_map(|digit| digit.to_digit(radix));
        let sign = if negative { -1.0 } else { 1.0 };
        sign * magnitude.fold(0.0, |sum: f64, digit| sum * f64::from(radix) + f64::from(digit))
    };
    Some(Number::from_f64(double).ok_or(()))
}

fn float(token: &str, negative: bool) -> Parsed {
    let token = without_underscores(token, 10)?;
    let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-');
    let double: f64 = if token.bytes().all(plain) { token.parse().ok()? } else { return None };
    Some(Number::from_f64(if negative { -double } else { double }).ok_or(()))
}

/// The token without its underscores, each of which must stand between two digits.
fn without_underscores(token: &str, radix: u32) -> Option<String> {
    let bytes = token.as_bytes();
    let digit =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|byte| char::from(*byte).is_digit(radix));
    let good = |(at, byte): (usize, &u8)| *byte != b'_' || (digit(at.checked_sub(1)) && digit(at.checked_add(1)));
    bytes.iter().enumerate().all(good).then(|| token.replace('_', ""))
}

/// What backslashes in a string mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Decoded,
    Raw,
}

/// What the word before a quote says of its string; `None` for bytes and what is formatted.
fn prefix(word: &str) -> Option<Escapes> {
    match word {
        "" | "u" | "U" => Some(Escapes::Decoded),
        "r" | "R" => Some(Escapes::Raw),
        _ => None,
    }
}

/// Reads a string and those behind it: Python takes adjacent ones for one.
fn strings(cursor: &mut Cursor<'_>, escapes: Escapes) -> Result<Value, Fault> {
    let mut text = string(cursor, escapes)?;
    loop {
        let mut next = *cursor;
        next.skip_blanks();
        let escapes = prefix(identifier(&mut next));
        let Some(escapes) = escapes.filter(|_| matches!(next.peek(), Some(b'"' | b'\''))) else {
            return Ok(Value::String(text));
        };
        text.push_str(&string(&mut next, escapes)?);
        *cursor = next;
    }
}

fn string(cursor: &mut Cursor<'_>, escapes: Escapes) -> Result<String, Fault> {
    let inner_start = cursor.at;
    let Some(inner) = quoted(cursor) else {
        return Err(Fault::new(ErrorCode::Truncated, cursor.text.len(), "a string without its closing quote"));
    };
    if escapes == Escapes::Raw || !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    match decode(inner) {
        Ok(text) => Ok(text),
        Err(BadEscape::Surrogate) => {
            Err(Fault::new(ErrorCode::JsonSurrogate, inner_start, "an unpaired surrogate in a string"))
        }
        Err(BadEscape::Other) => Err(Fault::new(ErrorCode::NotALiteral, inner_start, "a bad escape in a string")),
    }
}

/// Passes a string and gives what stands between its quotes; `None` if it does not end.
pub(super) fn quoted<'t>(cursor: &mut Cursor<'t>) -> Option<&'t str> {
    let quote = cursor.peek()?;
    let rest = cursor.rest();
    let bytes = rest.as_bytes();
    let triple = bytes.starts_with(&[quote; 3]);
    let width = if triple { 3 } else { 1 };
    let mut at = width;
    loop {
        let ahead = bytes.get(at..)?;
        at += if triple { memchr2(quote, b'\\', ahead) } else { memchr3(quote, b'\\', b'\n', ahead) }?;
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'\n' => return None,
            _ if triple && !bytes.get(at..)?.starts_with(&[quote; 3]) => at += 1,
            _ => break,
        }
    }
    cursor.at += at + width;
    rest.get(width..at)
}

enum BadEscape {
    Surrogate,
    Other,
}

fn decode(inner: &str) -> Result<String, BadEscape> {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut characters = escape.chars();
        let (decoded, length) = match characters.next() {
            Some('\n') => (None, 1),
            Some('n') => (Some('\n'), 1),
            Some('t') => (Some('\t'), 1),
            Some('r') => (Some('\r'), 1),
            Some('a') => (Some('\x07'), 1),
            Some('b') => (Some('\x08'), 1),
            Some('f') => (Some('\x0c'), 1),
            Some('v') => (Some('\x0b'), 1),
            Some(quote @ ('\\' | '\'' | '"')) => (Some(quote), 1),
            Some('0'..='7') => octal(escape),
            Some('x') => (Some(char::from_u32(hex(escape, 2)?).ok_or(BadEscape::Other)?), 3),
            Some('u') => unicode(escape)?,
            Some('U') => (Some(char::from_u32(hex(escape, 8)?).ok_or(BadEscape::Other)?), 9),
            Some('N') | None => return Err(BadEscape::Other),
            // An unknown escape stands for itself, backslash included.
            Some(_) => (Some('\\'), 0),
        };
        text.extend(decoded);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    Ok(text)
}

/// One to three octal digits.
fn octal(escape: &str) -> (Option<char>, usize) {
    let length = escape.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    let code = escape.get(..length).and_then(|digits| u32::from_str_radix(digits, 8).ok());
    (code.and_then(char::from_u32), length)
}

/// The code of `xHH`, `uHHHH` or `UHHHHHHHH`.
fn hex(escape: &str, digits: usize) -> Result<u32, BadEscape> {
    let digits = escape.get(1..=digits).ok_or(BadEscape::Other)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(BadEscape::Other);
    }
    u32::from_str_radix(digits, 16).map_err(|_| BadEscape::Other)
}

/// `uHHHH`, or two of them that are a surrogate pair, as policies that think in JSON write them.
fn unicode(escape: &str) -> Result<(Option<char>, usize), BadEscape> {
    let high = hex(escape, 4)?;
    if let Some(character) = char::from_u32(high) {
        return Ok((Some(character), 5));
    }
    let low = match escape.get(5..).and_then(|rest| rest.strip_prefix("\\u")) {
        Some(_) => hex(escape.get(6..).unwrap_or_default(), 4)?,
        None => return Err(BadEscape::Surrogate),
    };
    if !(0xD800..0xDC00).contains(&high) || !(0xDC00..0xE000).contains(&low) {
        return Err(BadEscape::Surrogate);
    }
    let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    Ok((char::from_u32(code), 11))
}
