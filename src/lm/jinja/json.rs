//! `tojson` as `transformers` has it: Python's `json.dumps` with `ensure_ascii=False`.
//!
//! In: a template's value. Out: JSON text, `, ` and `: ` between its parts, no HTML escapes. Untrusted text, for which
//! placeholders stand, is escaped when it is put back.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::lm::untrusted;

/// Widest indentation, in spaces: it multiplies with the depth.
const MAX_INDENT: usize = 16;
/// Bytes that one unit of the engine's fuel pays for.
const BYTES_PER_FUEL: usize = 64;

/// The filter.
#[allow(clippy::needless_pass_by_value)] // the engine hands its options over
pub(super) fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // What `transformers` always passes on: text stays readable, and keys keep their order.
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let text = match indent.map(|indent| b" ".repeat(indent.min(MAX_INDENT))) {
        Some(indent) => write(value, PrettyFormatter::with_indent(&indent))?,
        None => write(value, Spaced)?,
    };
    state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
    Ok(Value::from_safe_string(untrusted::escaped_in_json(text)))
}

fn write(value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let wrong = |message: String| Error::new(ErrorKind::BadSerialization, message);
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))
}

/// Python's default separators.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
