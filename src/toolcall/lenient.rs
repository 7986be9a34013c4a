//! JSON as policies get it wrong and deployed parsers take it: what tolerant mode adds to strict JSON. In: a text and an
//! offset; out: the value, where it ends and what was put right; nothing if it cannot be read even so. Takes trailing
//! commas, single quotes, comments and Python's literals; everything else stays as strict as [`json`].
//! Knows no call.

use memchr::memchr;
use serde_json::{Map, Value};

use super::budget::Budget;
use super::cursor::Cursor;
use super::find::find;
use super::json::DEEPEST;
use super::{Repair, json};

/// A value that was read leniently.
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) end: usize,
    pub(super) repairs: Vec<Repair>,
}

/// Reads one value at `at`. Takes the bytes that it looks at, and the values, from the budget and gives up when that is
/// spent.
pub(super) fn read(text: &str, at: usize, budget: &Budget) -> Option<Found> {
    budget.take_exceeded();
    if !budget.has_fuel() {
        return None;
    }
    let mut reader = Reader { cursor: Cursor::new(text, at), repairs: Vec::new(), budget };
    let room = budget.room();
    let value = reader.blanks().and_then(|()| reader.value(0));
    if value.is_none() {
        budget.rewind(room);
    }
    budget.burn(reader.cursor.at.saturating_sub(at) + 1);
    Some(Found { value: value?, end: reader.cursor.at, repairs: reader.repairs })
}

/// Reads a text that is one value and nothing else but blanks and comments.
pub(super) fn read_whole(text: &str, budget: &Budget) -> Option<Found> {
    let room = budget.room();
    let mut found = read(text, 0, budget)?;
    let mut reader = Reader { cursor: Cursor::new(text, found.end), repairs: found.repairs, budget };
    let whole = reader.blanks().is_some() && reader.cursor.is_at_end();
    found.repairs = reader.repairs;
    if !whole {
        budget.rewind(room);
    }
    whole.then_some(found)
}

/// Adds a repair that is not on the list yet.
pub(super) fn note(repairs: &mut Vec<Repair>, repair: Repair) {
    if !repairs.contains(&repair) {
        repairs.push(repair);
    }
}

struct Reader<'t, 'b> {
    cursor: Cursor<'t>,
    repairs: Vec<Repair>,
    budget: &'b Budget,
}

impl Reader<'_, '_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        match self.cursor.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' | b'\'' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut object = Map::new();
        self.cursor.at += 1;
        self.blanks()?;
        while !self.cursor.eat_byte(b'}') {
            if !matches!(self.cursor.peek(), Some(b'"' | b'\'')) {
                return None;
            }
            self.budget.entry(object.len())?;
            let key = self.string()?;
            self.blanks()?;
            if !self.cursor.eat_byte(b':') {
                return None;
            }
            self.blanks()?;
            let value = self.value(depth + 1)?;
            object.insert(key, value);
            self.separator(b'}')?;
        }
        Some(Value::Object(object))
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut elements = Vec::new();
        self.cursor.at += 1;
        self.blanks()?;
        while !self.cursor.eat_byte(b']') {
            self.budget.element(elements.len())?;
            elements.push(self.value(depth + 1)?);
            self.separator(b']')?;
        }
        Some(Value::Array(elements))
    }

    /// Passes a comma, or stops before the closing bracket.
    fn separator(&mut self, closing: u8) -> Option<()> {
        self.blanks()?;
        if self.cursor.peek() == Some(closing) {
            return Some(());
        }
        if !self.cursor.eat_byte(b',') {
            return None;
        }
        self.blanks()?;
        if self.cursor.peek() == Some(closing) {
            note(&mut self.repairs, Repair::TrailingComma);
        }
        Some(())
    }

    /// A string in double quotes, as JSON has it, or in single quotes.
    fn string(&mut self) -> Option<String> {
        let start = self.cursor;
        let inner = self.cursor.in_quotes(false)?;
        if start.peek() == Some(b'"') {
            return decode(start.rest().get(..inner.len() + 2)?);
        }
        note(&mut self.repairs, Repair::SingleQuotes);
        decode(&requote(inner))
    }

    fn number(&mut self) -> Option<Value> {
        let rest = self.cursor.rest();
        let length =
            rest.bytes().take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        self.cursor.at += length;
        json::read_whole(rest.get(..length)?, self.budget).ok()
    }

    fn word(&mut self) -> Option<Value> {
        let literals = [
            ("true", Value::Bool(true), false),
            ("false", Value::Bool(false), false),
            ("null", Value::Null, false),
            ("True", Value::Bool(true), true),
            ("False", Value::Bool(false), true),
            ("None", Value::Null, true),
        ];
        let (_, value, python) = literals.into_iter().find(|(word, ..)| self.cursor.eat(word))?;
        if matches!(self.cursor.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_')) {
            return None;
        }
        if python {
            note(&mut self.repairs, Repair::PythonLiteral);
        }
        Some(value)
    }

    /// Passes blanks and comments; fails at a comment that does not end.
    fn blanks(&mut self) -> Option<()> {
        loop {
            self.cursor.skip_blanks();
            let rest = self.cursor.rest();
            let length = if rest.starts_with("/*") {
                find(rest.as_bytes(), "*/").map(|end| end + 2)
            } else if rest.starts_with("//") || rest.starts_with('#') {
                Some(memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len()))
            } else {
                return Some(());
            };
            // An unfinished comment was looked at up to the end of the text; the budget has to know.
            self.cursor.at += length.unwrap_or(rest.len());
            length?;
            note(&mut self.repairs, Repair::Comment);
        }
    }
}

/// A quoted JSON string, decoded strictly.
fn decode(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

/// The inside of a single-quoted string as a JSON string.
fn requote(inner: &str) -> String {
    let mut quoted = String::with_capacity(inner.len() + 2);
    quoted.push('"');
    let mut escaped = false;
    for character in inner.chars() {
        match (escaped, character) {
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (true, '\'') => quoted.push('\''),
            (true, character) => {
                quoted.push('\\');
                quoted.push(character);
            }
            (false, '"') => quoted.push_str("\\\""),
            (false, character) => quoted.push(character),
        }
        escaped = false;
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lenient(text: &str) -> Option<(Value, Vec<Repair>)> {
        read_whole(text, &Budget::new(super::super::Room::default(), 0)).map(|found| (found.value, found.repairs))
    }

    #[test]
    fn repairs_what_policies_write() {
        let cases = [
            ("{\"a\": [1, 2,],}", json!({"a": [1, 2]}), vec![Repair::TrailingComma]),
            ("{'a': 'it\\'s \"x\"\\n'}", json!({"a": "it's \"x\"\n"}), vec![Repair::SingleQuotes]),
            ("{\"a\": 1 // one\n, /* two */ \"b\": 2}", json!({"a": 1, "b": 2}), vec![Repair::Comment]),
            ("[True, False, None]", json!([true, false, null]), vec![Repair::PythonLiteral]),
            ("{\"a\": null}", json!({"a": null}), vec![]),
        ];
        for (text, value, repairs) in cases {
            assert_eq!(lenient(text), Some((value, repairs)), "{text}");
        }
    }

    #[test]
    fn stays_strict_otherwise() {
        for text in
            ["{a: 1}", "[,]", "[1 2]", "[01]", "[+1]", "['\\q']", "[\"a", "[Trueish]", "{\"a\"}", "/*", "['a\nb']"]
        {
            assert_eq!(lenient(text), None, "{text}");
        }
        assert_eq!(lenient(&"[".repeat(100_000)), None);
    }
}
