//! What is wrong with a rubric, and where: line and column of a file, or a JSON pointer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use crate::toolcall::schema::{bounded_pointer, escape_pointer};

/// Line and column of a text, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A rubric that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RubricError {
    /// What is wrong, the value, and the fix.
    pub message: String,
    /// The field at fault, as a JSON pointer; empty where the text cannot be read at all.
    pub pointer: String,
    /// Where that is in the text, if it has lines.
    pub location: Option<Location>,
}

impl fmt::Display for RubricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location {
            Some(Location { line, column }) => write!(f, "line {line}, column {column}: {}", self.message)?,
            None if self.pointer.is_empty() => f.write_str(&self.message)?,
            None => write!(f, "{}: {}", self.pointer, self.message)?,
        }
        Ok(())
    }
}

impl RubricError {
    /// An error at a field, by its JSON pointer.
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), pointer: pointer.into(), location: None }
    }

    /// The same error with its place in a TOML text.
    #[must_use]
    pub fn located_in(mut self, text: &str) -> Self {
        self.location = Some(locate(text, offset_of(text, &self.pointer)));
        self
    }

    /// The same error with its place in a JSON text.
    #[must_use]
    pub fn located_in_json(mut self, text: &str) -> Self {
        self.location = Some(locate(text, offset_in_json(text, &self.pointer)));
        self
    }
}

/// What a JSON error says, without the place that it ends with.
pub fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    in_words(text.strip_suffix(&place).unwrap_or(&text), "an object")
}

/// An error of serde in which the type that was expected goes by a name that its writer knows; `group` is what has keys.
pub fn in_words(said: &str, group: &str) -> String {
    let kinds = [
        ("u8", "a whole number from 0 to 255"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u64", "a whole number from 0"),
        ("usize", "a whole number from 0"),
        ("f64", "a number"),
        ("path string", "a string"),
        ("a sequence", "a list"),
        ("a map", group),
        ("an object", group),
    ];
    let Some((found, expected)) = said.rsplit_once(", expected ") else { return said.to_owned() };
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    // A group of keys goes by the name of its struct.
    let (word, rest) = match expected.strip_prefix("struct ") {
        Some(name) => (group, name.trim_start_matches(|c: char| c.is_ascii_alphanumeric())),
        None => match kinds.iter().find_map(|(kind, word)| Some((*word, expected.strip_prefix(kind)?))) {
            Some((word, rest)) if ends(rest) => (word, rest),
            _ => return said.to_owned(),
        },
    };
    format!("{found}, expected {word}{rest}")
}

/// The keys and indices of a JSON pointer.
fn keys_of(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~"))
}

/// Where the value at a JSON pointer starts in a JSON text; where there is none, its nearest ancestor. Where the text is no
/// JSON, the place up to which it is.
fn offset_in_json(text: &str, pointer: &str) -> usize {
    let mut here: &RawValue = match serde_json::from_str(text) {
        Ok(whole) => whole,
        Err(error) => {
            let line_starts = text.match_indices('\n').map(|(newline, _)| newline + 1);
            let start = std::iter::once(0).chain(line_starts).nth(error.line().saturating_sub(1)).unwrap_or(0);
            return text.floor_char_boundary(start + error.column().saturating_sub(1));
        }
    };
    for key in keys_of(pointer) {
        let raw = here.get();
        let next = if raw.starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
            key.parse::<usize>().ok().and_then(|index| list.get(index).copied())
        } else {
            let object: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(raw).unwrap_or_default();
            object.get(&*key).copied()
        };
        let Some(next) = next else { break };
        here = next;
    }
    // What was read is a part of the text.
    here.get().as_ptr().addr() - text.as_ptr().addr()
}

/// Line and column of a byte offset.
pub fn locate(text: &str, offset: usize) -> Location {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Location { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// Where the value at a JSON pointer starts; where there is none, its nearest ancestor.
fn offset_of(text: &str, pointer: &str) -> usize {
    let Ok(root) = DeTable::parse(text) else { return 0 };
    let mut offset = 0;
    let mut here: Option<&DeValue<'_>> = None;
    for (depth, key) in keys_of(pointer).enumerate() {
        let next = match (depth, here) {
            (0, _) => root.get_ref().get(&*key),
            (_, Some(DeValue::Table(table))) => table.get(&*key),
            (_, Some(DeValue::Array(list))) => key.parse::<usize>().ok().and_then(|index| list.get(index)),
            _ => None,
        };
        let Some(found) = next else { break };
        offset = found.span().start;
        here = Some(found.get_ref());
    }
    offset
}

/// The path of a serde error as a JSON pointer (RFC 6901), cut where it is very long: keys are anybody's.
pub fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let part = |segment: &Segment| match segment {
        Segment::Map { key } => format!("/{}", escape_pointer(key)),
        Segment::Seq { index } => format!("/{index}"),
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    };
    let whole: String = path.iter().map(part).collect();
    bounded_pointer(&whole)
}
