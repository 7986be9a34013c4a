//! Where in a JSON text something is wrong: serde's errors with a JSON pointer (RFC 6901).

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::text::Object;
use crate::rubric::{self, json_pointer};
use crate::toolcall::schema::bounded_pointer;

/// Whether a text is no JSON at all, or JSON of the wrong shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// No JSON.
    Syntax,
    /// JSON of another shape than expected.
    Shape,
}

/// An error with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointed {
    /// What kind of error.
    pub wrong: Wrong,
    /// A JSON pointer into the text that was read; cut where it is very long.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

impl Pointed {
    /// An error of shape.
    pub fn shape(pointer: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        let (pointer, message) = (bounded_pointer(pointer.as_ref()), excerpt(message.as_ref()));
        Self { wrong: Wrong::Shape, pointer, message }
    }

    /// Without the line and the column that serde's words end with.
    #[must_use]
    pub fn without_place(mut self) -> Self {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_place = |place: &str| {
            place.split_once(" column ").is_some_and(|(line, column)| is_number(line) && is_number(column))
        };
        let said = self.message.rsplit_once(" at line ").filter(|(_, place)| is_place(place));
        self.message.truncate(said.map_or(self.message.len(), |(said, _)| said.len()));
        self
    }
}

impl fmt::Display for Pointed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.pointer.is_empty() { "" } else { " " };
        write!(f, "{}{gap}{}", self.pointer, self.message)
    }
}

/// Longest text of an error: parsers quote what they did not like, whole.
const MAX_MESSAGE_CHARS: usize = 400;

/// The text, or its start.
pub(in crate::http) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text.to_owned(),
    }
}

/// What an error says, without the line and the column: they count from a part of the body that its sender cannot see. A half
/// of a surrogate pair goes by a name that one can look up.
pub(in crate::http) fn without_place(error: &serde_json::Error) -> String {
    let said = rubric::without_place(error);
    match &*said {
        "unexpected end of hex escape" | "lone leading surrogate in hex escape" => {
            "a string has half of a surrogate pair, such as \\ud83d without \\ude00 behind it; send the whole character"
                .to_owned()
        }
        said => said.to_owned(),
    }
}

/// Reads a text that is an object.
///
/// # Errors
/// With a JSON pointer to what is wrong.
pub fn read_as<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Pointed> {
    let read = serde_json::from_str::<Object<T>>(text);
    read.map(|object| object.0).map_err(|error| pointed::<Object<T>>(text, &error))
}

/// Finds the place of an error that reading `text` as `T` gave, by reading it again with its path watched: only bad
/// input pays for that. A text that has the wrong shape and then breaks off is no JSON.
pub fn pointed<'de, T: Deserialize<'de>>(text: &'de str, error: &serde_json::Error) -> Pointed {
    if let (Category::Data, Err(error)) = (error.classify(), serde_json::from_str::<IgnoredAny>(text)) {
        return Pointed { wrong: Wrong::Syntax, pointer: String::new(), message: excerpt(&error.to_string()) };
    }
    let wrong = match error.classify() {
        Category::Data => Wrong::Shape,
        Category::Io | Category::Syntax | Category::Eof => Wrong::Syntax,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let pointer = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => String::new(),
        Err(error) => json_pointer(error.path()),
    };
    Pointed { wrong, pointer, message: excerpt(&error.to_string()) }
}

/// The same for a text that stands at a place in a larger one, which is JSON.
pub(super) fn pointed_below<'de, T: Deserialize<'de>>(at: &str, text: &'de str, error: &serde_json::Error) -> Pointed {
    Pointed::shape(at.to_owned() + &pointed::<T>(text, error).pointer, without_place(error))
}
