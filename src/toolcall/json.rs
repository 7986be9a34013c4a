//! Strict JSON (RFC 8259) at an offset of a text, read by `serde_json`. In: a text and an offset; out: the value and
//! where it ends, or a [`Fault`] with its place. Knows no call.

use std::fmt;
use std::marker::PhantomData;

use memchr::memchr_iter;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::budget::{Budget, TOO_MANY};
use super::codes::Fault;
use super::{ErrorCode, Room, cursor};

/// Depth at which reading gives up, as `serde_json` does.
pub(super) const DEEPEST: usize = 127;

/// Reads one value at `at`, blanks before it included, and says where it ends. What follows it is the caller's, and so is a
/// bound for what the seed keeps.
pub(super) fn read<'t, S: DeserializeSeed<'t>>(text: &'t str, at: usize, seed: S) -> Result<(S::Value, usize), Fault> {
    let rest = text.get(at..).unwrap_or_default();
    if rest.trim_ascii_start().is_empty() {
        return Err(Fault::new(ErrorCode::Truncated, text.len(), "the text ends where JSON should stand"));
    }
    let mut reader = serde_json::Deserializer::from_str(rest);
    match seed.deserialize(&mut reader) {
        Ok(value) => Ok((value, at + reader.into_iter::<IgnoredAny>().byte_offset())),
        Err(error) => Err(fault(rest, at, &error)),
    }
}

/// Where the value at `at` ends that was too many: those behind it can be read. `None` for another fault, and where it does
/// not end.
pub(super) fn end_of_too_many(text: &str, at: usize, fault: &Fault) -> Option<usize> {
    (fault.code == ErrorCode::TooManyValues).then(|| read(text, at, CHECKED).ok())?.map(|(_, end)| end)
}

/// Reads a text that is one value and nothing else but blanks.
pub(super) fn read_whole(text: &str, budget: &Budget) -> Result<Value, Fault> {
    budget.if_kept(|| {
        let (value, end) = read(text, 0, Strict(budget))?;
        if cursor::skip_blanks(text, end) < text.len() {
            return Err(Fault::new(ErrorCode::JsonSyntax, end, "text after the JSON value"));
        }
        Ok(value)
    })
}

/// Reads a text that is an object, as a call's arguments are read; what its values may take is the caller's to bound.
///
/// # Errors
/// Says what is wrong with it.
pub fn read_object(text: &str) -> Result<Map<String, Value>, String> {
    match read_whole(text, &Budget::new(Room::default(), 0)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("no JSON object".to_owned()),
        Err(fault) => Err(fault.what.into_owned()),
    }
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
        TOO_MANY => {
            return Fault::new(ErrorCode::TooManyValues, at + rest.floor_char_boundary(place(rest, error)), TOO_MANY);
        }
        _ => ErrorCode::JsonSyntax,
    };
    // What has been read ends before the byte that is wrong; where the text has ended, all of it was read.
    let read = place(rest, error).saturating_sub(usize::from(!error.is_eof()));
    Fault::new(code, at + rest.floor_char_boundary(read), format!("broken JSON: {what}"))
}

/// Bytes up to and with the one that an error is at.
fn place(rest: &str, error: &serde_json::Error) -> usize {
    let line = match error.line() {
        0 | 1 => 0,
        line => memchr_iter(b'\n', rest.as_bytes()).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    line + error.column()
}

/// Reads a value strictly, as far as it fits in the budget: the last one of duplicate keys wins, and no key has a meaning
/// of its own (`Value`'s own reader gives one to a key that `serde_json` reserves for raw values).
#[derive(Clone, Copy)]
pub(super) struct Strict<'b>(pub(super) &'b Budget);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
        while let Some(element) = seq.next_element_seed(self)? {
            self.0.element(elements.len()).ok_or_else(|| A::Error::custom(TOO_MANY))?;
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.0.entry(object.len()).ok_or_else(|| A::Error::custom(TOO_MANY))?;
            object.insert(key, map.next_value_seed(self)?);
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

/// Reads a [`Checked`] value.
pub(super) const CHECKED: PhantomData<Checked> = PhantomData;

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

    fn read_whole(text: &str) -> Result<Value, Fault> {
        super::read_whole(text, &Budget::new(Room::default(), 0))
    }

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
            assert_eq!(read(text, 0, CHECKED).err().unwrap().code, ErrorCode::JsonSurrogate, "{text}");
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
        assert_eq!(read("[1e400]", 0, CHECKED).err().unwrap().code, ErrorCode::JsonNumber);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(code(&deep), ErrorCode::TooDeep);
        assert_eq!(read(&deep, 0, CHECKED).err().unwrap().code, ErrorCode::TooDeep);
    }

    #[test]
    fn faults_have_places() {
        let fault = read("xx {\n\"a\":\n tru}", 3, CHECKED).err().unwrap();
        assert_eq!((fault.code, fault.at), (ErrorCode::JsonSyntax, 14));
        assert_eq!(code("{\"a\": \"b"), ErrorCode::Truncated);
        assert_eq!(code(" "), ErrorCode::Truncated);
    }

    #[test]
    fn no_key_is_special() {
        let text = r#"{"$serde_json::private::RawValue": "[1]"}"#;
        assert!(read_whole(text).unwrap().is_object());
    }
}
