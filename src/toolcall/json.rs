//! Strict JSON (RFC 8259) at an offset of a text, read by `serde_json`. In: a text and an offset; out: the value and
//! where it ends, or a [`Fault`] with its place. Knows no call.

use std::fmt;

use memchr::memchr_iter;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::budget::Budget;
use super::codes::Fault;
use super::{ErrorCode, cursor};

/// Reads one value at `at`, blanks before it included, and says where it ends. What follows it is the caller's.
pub(super) fn read<'t, T: Deserialize<'t>>(text: &'t str, at: usize) -> Result<(T, usize), Fault> {
    let rest = text.get(at..).unwrap_or_default();
    let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<T>();
    match stream.next() {
        Some(Ok(value)) => Ok((value, at + stream.byte_offset())),
        Some(Err(error)) => before_text(rest, at, &error).ok_or_else(|| fault(rest, at, &error)),
        None => Err(Fault::new(ErrorCode::Truncated, text.len(), "the text ends where JSON should stand")),
    }
}

/// As [`read`], as far as the values fit in what the calls may take.
pub(super) fn read_within<'t, T: Deserialize<'t>>(
    text: &'t str,
    at: usize,
    budget: &Budget,
) -> Result<(T, usize), Fault> {
    budget.json(text.get(at..).unwrap_or_default(), at, || read(text, at))
}

/// The number or word that text follows at once: there is one, whatever the text is; the stream wants a delimiter.
fn before_text<'t, T: Deserialize<'t>>(rest: &'t str, at: usize, error: &serde_json::Error) -> Option<(T, usize)> {
    if !error.is_syntax() || !error.to_string().starts_with("trailing characters") {
        return None;
    }
    let end = place(rest, error) - 1;
    Some((serde_json::from_str(rest.get(..end)?).ok()?, at + end))
}

/// Reads a text that is one value and nothing else but blanks.
pub(super) fn read_whole(text: &str) -> Result<Value, Fault> {
    whole(text, read(text, 0))
}

/// As [`read_whole`], as far as the values fit in what the calls may take.
pub(super) fn read_whole_within(text: &str, budget: &Budget) -> Result<Value, Fault> {
    whole(text, read_within(text, 0, budget))
}

fn whole(text: &str, read: Result<(Strict, usize), Fault>) -> Result<Value, Fault> {
    let (Strict(value), end) = read?;
    if cursor::skip_blanks(text, end) < text.len() {
        return Err(Fault::new(ErrorCode::JsonSyntax, end, "text after the JSON value"));
    }
    Ok(value)
}

/// Translates an error of `serde_json`; its words are pinned by a test below.
fn fault(rest: &str, at: usize, error: &serde_json::Error) -> Fault {
    let words = error.to_string();
    let what = words.split(" at line ").next().unwrap_or_default().to_owned();
    let code = match what.as_str() {
        _ if error.is_eof() => ErrorCode::Truncated,
        "number out of range" => ErrorCode::JsonNumber,
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => ErrorCode::JsonSurrogate,
        "recursion limit exceeded" => ErrorCode::TooDeep,
        _ => ErrorCode::JsonSyntax,
    };
    let fault = Fault::new(code, at + rest.floor_char_boundary(place(rest, error)), format!("broken JSON: {what}"));
    if error.is_eof() { fault } else { fault.past() }
}

/// Bytes up to and with the one that an error is at.
fn place(rest: &str, error: &serde_json::Error) -> usize {
    let line = match error.line() {
        0 | 1 => 0,
        line => memchr_iter(b'\n', rest.as_bytes()).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    line + error.column()
}

/// A value read strictly: the last one of duplicate keys wins, and no key has a meaning of its own (`Value`'s own
/// reader gives one to a key that `serde_json` reserves for raw values).
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Strict(element)) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The methods of a visitor for which lists, numbers and words are all the same `value`; what is in a list is checked.
macro_rules! visit_scalars_and_lists {
    ($value:expr) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<$crate::toolcall::json::Checked>()?.is_some() {}
            Ok($value)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
}
pub(super) use visit_scalars_and_lists;

/// A value that must be valid but is not kept. Unlike `IgnoredAny` it checks numbers, surrogates and the depth.
pub(super) struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    visit_scalars_and_lists!(Checked);

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        while map.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> ErrorCode {
        read_whole(text).expect_err(text).code
    }

    #[test]
    fn j1_only_rfc_8259_is_json() {
        for text in [
            "[1,]",
            "{\"a\":1,}",
            "[1/**/]",
            "['a']",
            "{a:1}",
            "[True]",
            "[NaN]",
            "[Infinity]",
            "[+1]",
            "[.5]",
            "[007]",
            "[0x1]",
            r#"["\q"]"#,
            "[\"\u{1}\"]",
            "[\"\n\"]",
            "[1.]",
            "[1e]",
            "[-]",
            "[\u{a0}1]",
            "\u{feff}[1]",
            "[1] 2",
        ] {
            assert_eq!(code(text), ErrorCode::JsonSyntax, "{text}");
        }
    }

    #[test]
    fn j2_the_last_duplicate_wins() {
        assert_eq!(read_whole(r#"{"a":1,"b":2,"a":3}"#).unwrap(), serde_json::json!({"a": 3, "b": 2}));
    }

    #[test]
    fn j3_lone_surrogates_are_faults() {
        for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\u0041""#, r#"{"\udead":1}"#] {
            assert_eq!(code(text), ErrorCode::JsonSurrogate, "{text}");
            assert_eq!(read::<Checked>(text, 0).err().unwrap().code, ErrorCode::JsonSurrogate, "{text}");
        }
        assert_eq!(read_whole(r#""\ud83d\ude00""#).unwrap(), "😀");
    }

    #[test]
    fn j4_numbers() {
        assert_eq!(read_whole("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(read_whole("-9223372036854775808").unwrap(), i64::MIN);
        assert_eq!(read_whole("1e-400").unwrap(), 0.0);
        assert_eq!(read_whole("100000000000000000000").unwrap(), 1e20);
        assert_eq!(code("1e400"), ErrorCode::JsonNumber);
        assert_eq!(code(&format!("[{}]", "9".repeat(400))), ErrorCode::JsonNumber);
        assert_eq!(read::<Checked>("[1e400]", 0).err().unwrap().code, ErrorCode::JsonNumber);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(code(&deep), ErrorCode::TooDeep);
        assert_eq!(read::<Checked>(&deep, 0).err().unwrap().code, ErrorCode::TooDeep);
    }

    #[test]
    fn faults_have_places() {
        let fault = read::<Checked>("xx {\n\"a\":\n tru}", 3).err().unwrap();
        assert_eq!((fault.code, fault.at), (ErrorCode::JsonSyntax, 15));
        assert_eq!(code("{\"a\": \"b"), ErrorCode::Truncated);
        assert_eq!(code(" "), ErrorCode::Truncated);
    }

    #[test]
    fn no_key_is_special() {
        let text = r#"{"$serde_json::private::RawValue": "[1]"}"#;
        assert!(read_whole(text).unwrap().is_object());
    }
}
