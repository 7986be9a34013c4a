//! `tojson` as `transformers` has it: Python's `json.dumps` with `ensure_ascii=False`.
//!
//! In: a template's value, and the options `indent`, `separators` and `sort_keys`. Out: JSON text as Python spaces it, no HTML
//! escapes. Untrusted text, for which placeholders stand, is escaped when it is put back, as `ensure_ascii=False` does.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::lm::untrusted;

/// Widest indentation, in spaces: it multiplies with the depth.
const MAX_INDENT: usize = 16;
/// Bytes that one unit of the engine's fuel pays for.
const BYTES_PER_FUEL: usize = 64;

/// The filter.
#[allow(clippy::needless_pass_by_value)] // the engine hands its options over
pub(super) fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (ensure_ascii, sort_keys): (Option<bool>, Option<bool>) =
        (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let wrong = |message: &str| Error::new(ErrorKind::InvalidOperation, message.to_owned());
    if ensure_ascii == Some(true) {
        return Err(wrong("tojson(ensure_ascii=true) is not supported: take the option out"));
    }
    let [between_items, behind_key] = match separators {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
        Some(two) => two.try_into().map_err(|_| wrong("tojson's separators are two texts"))?,
    };
    let indent = indent.map(|indent| indent.min(MAX_INDENT));
    let python = Python { indent, between_items, behind_key, depth: 0, has_items: false };
    let text = if sort_keys == Some(true) {
        let mut value = serde_json::to_value(value).map_err(|error| unwritten(&error))?;
        value.sort_all_objects();
        write(&value, python)?
    } else {
        write(value, python)?
    };
    state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
    Ok(Value::from_safe_string(untrusted::escaped_in_json(text)))
}

fn write(value: &impl Serialize, formatter: Python) -> Result<String, Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)).map_err(|error| unwritten(&error))?;
    String::from_utf8(bytes).map_err(|error| unwritten(&error))
}

fn unwritten(error: &impl ToString) -> Error {
    Error::new(ErrorKind::BadSerialization, error.to_string())
}

/// How Python spaces JSON and writes its numbers.
struct Python {
    /// Spaces of a level; none for all on one line.
    indent: Option<usize>,
    between_items: String,
    behind_key: String,
    depth: usize,
    /// Whether the list or object that was written last holds anything.
    has_items: bool,
}

impl Python {
    fn item<W: ?Sized + io::Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.between_items.as_bytes())?;
        }
        self.line(writer)
    }

    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        write!(writer, "\n{:width$}", "", width = indent * self.depth)
    }

    fn begin<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        (self.depth, self.has_items) = (self.depth + 1, false);
        writer.write_all(bracket)
    }

    fn end<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.has_items {
            self.line(writer)?;
        }
        writer.write_all(bracket)
    }
}

impl Formatter for Python {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let digits = format!("{value:e}");
        match digits.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) {
            Some((digits, exponent)) if !(-4..16).contains(&exponent) => write!(writer, "{digits}e{exponent:+03}"),
            _ => write!(writer, "{value:?}"),
        }
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_items = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.behind_key.as_bytes())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_items = true;
        Ok(())
    }
}
