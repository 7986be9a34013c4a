//! Writing JSON fast: keys are literals, what needs no escapes is copied, common numbers are known.
//!
//! Everything else goes through `serde_json`. A result has some hundred small values, and half of the time of a short
//! trajectory went into writing them.

use std::borrow::Cow;
use std::cell::RefCell;

use super::escapes::special;
use super::familiar::mix;

/// A value that writes itself as JSON.
pub(in crate::http) trait Put {
    /// Appends the JSON.
    fn put(&self, out: &mut Vec<u8>);

    /// Whether an optional field with this value is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// Gives a struct of [`Put`] fields its `Put`: all fields by name (one that is missing does not compile), `optional`
/// ones left out when absent.
macro_rules! put {
    ($name:ty { $($field:ident),* $(,)? } $(optional { $($option:ident),* })?) => {
        impl $crate::http::wire::json::Put for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field,)* $($($option,)*)? } = self;
                let start = out.len();
                $(
                    out.extend_from_slice(concat!(",\"", stringify!($field), "\":").as_bytes());
                    $crate::http::wire::json::Put::put($field, out);
                )*
                $($(
                    if !$crate::http::wire::json::Put::is_absent($option) {
                        out.extend_from_slice(concat!(",\"", stringify!($option), "\":").as_bytes());
                        $crate::http::wire::json::Put::put($option, out);
                    }
                )*)?
                $crate::http::wire::json::open(start, out);
                out.push(b'}');
            }
        }
    };
}
pub(super) use put;

/// What `serde_json` makes of a value whose writing cannot fail.
fn by_serde(value: impl serde::Serialize, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, &value);
}

impl Put for str {
    fn put(&self, out: &mut Vec<u8>) {
        out.reserve(self.len() + 2);
        out.push(b'"');
        let mut rest = self.as_bytes();
        while let Some(found) = special(rest, 0)
            && let Some((plain, [byte, after @ ..])) = rest.split_at_checked(found)
        {
            out.extend_from_slice(plain);
            escape(*byte, out);
            rest = after;
        }
        out.extend_from_slice(rest);
        out.push(b'"');
    }
}

/// Writes a byte that does not stand for itself.
fn escape(byte: u8, out: &mut Vec<u8>) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let digit = |place: u8| DIGITS.get(usize::from(byte >> place & 0xf)).copied().unwrap_or(b'0');
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(4), digit(0)]);
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

impl Put for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        if self.to_bits() == 0 {
            out.extend_from_slice(b"0.0");
        } else if self.to_bits() == 1.0_f64.to_bits() {
            out.extend_from_slice(b"1.0");
        } else {
            WRITTEN.with_borrow_mut(|written| written.put(*self, out));
        }
    }
}

thread_local! {
    /// The last numbers that this thread wrote. Weights, thresholds and most scores are the same few from result to result.
    static WRITTEN: RefCell<Written> = const { RefCell::new(Written([Number { bits: 0, text: [0; 24], length: 0 }; 64])) };
}

/// Numbers with their text, each in the place that its bits give it.
struct Written([Number; 64]);

#[derive(Clone, Copy)]
struct Number {
    bits: u64,
    /// The longest is as long as `-2.2250738585072014e-308`.
    text: [u8; 24],
    length: u8,
}

impl Written {
    fn put(&mut self, number: f64, out: &mut Vec<u8>) {
        let bits = number.to_bits();
        let place = usize::try_from(mix(0, bits) >> 58).unwrap_or(0);
        let Some(kept) = self.0.get_mut(place) else { return };
        if kept.bits != bits || kept.length == 0 {
            let mut rest = kept.text.as_mut_slice();
            // Cannot fail: there is room for the longest.
            let _ = serde_json::to_writer(&mut rest, &number);
            let left = rest.len();
            *kept = Number { bits, length: u8::try_from(kept.text.len() - left).unwrap_or(0), ..*kept };
        }
        // Copying all of it and taking back what is too much beats copying as many bytes as it has.
        let end = out.len() + usize::from(kept.length);
        out.extend_from_slice(&kept.text);
        out.truncate(end);
    }
}

impl Put for usize {
    fn put(&self, out: &mut Vec<u8>) {
        match u8::try_from(*self) {
            Ok(digit @ 0..=9) => out.push(b'0' + digit),
            _ => by_serde(self, out),
        }
    }
}

impl Put for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }

    fn is_absent(&self) -> bool {
        !*self
    }
}

impl Put for serde_json::Value {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => value.put(out),
            Self::Number(_) => by_serde(self, out),
            Self::String(text) => text.put(out),
            Self::Array(list) => list.put(out),
            Self::Object(object) => put_object(object, String::put, out),
        }
    }
}

impl Put for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_str().put(out);
    }
}

impl Put for Cow<'_, str> {
    fn put(&self, out: &mut Vec<u8>) {
        str::put(self, out);
    }
}

impl<T: Put + ?Sized> Put for &T {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }
}

impl<T: Put> Put for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(out),
            None => out.extend_from_slice(b"null"),
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Put> Put for [T] {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self, out);
    }
}

impl<T: Put, const N: usize> Put for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_slice().put(out);
    }
}

impl<T: Put> Put for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_slice().put(out);
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Values, written as a list.
pub(super) fn put_list<V: Put>(values: impl IntoIterator<Item = V>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (place, value) in values.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        value.put(out);
    }
    out.push(b']');
}

/// Names with values, written as an object.
pub(super) fn put_object<N, V: Put>(
    fields: impl IntoIterator<Item = (N, V)>,
    put_name: impl Fn(N, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let start = out.len();
    for (name, value) in fields {
        out.push(b',');
        put_name(name, out);
        out.push(b':');
        value.put(out);
    }
    open(start, out);
    out.push(b'}');
}

/// Writes a name that is known to need no escapes.
pub(super) fn put_plain(name: &str, out: &mut Vec<u8>) {
    debug_assert!(special(name.as_bytes(), 0).is_none(), "{name:?}");
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}

/// Makes the first comma since `start` the opening brace of an object, or adds it where there is none.
pub(super) fn open(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &(impl Put + ?Sized)) -> Vec<u8> {
        let mut out = Vec::new();
        value.put(&mut out);
        out
    }

    proptest! {
        #[test]
        fn strings_and_numbers_are_written_as_serde_json_writes_them(text in any::<String>(), number in any::<f64>(), count in any::<usize>()) {
            prop_assert_eq!(written(text.as_str()), serde_json::to_vec(&text).unwrap());
            prop_assert_eq!(written(&number), serde_json::to_vec(&number).unwrap());
            prop_assert_eq!(written(&count), serde_json::to_vec(&count).unwrap());
            prop_assert_eq!(written(&vec![Some(number), None]), serde_json::to_vec(&vec![Some(number), None]).unwrap());
        }
    }

    #[test]
    fn values_are_written_as_serde_json_writes_them() {
        let value = serde_json::json!({"a": [1, -2.5, u64::MAX, "\n\"ä"], "\u{1}": {}, "c": [[], null, true, {"d": {"e": 0.1}}]});
        assert_eq!(written(&value), serde_json::to_vec(&value).unwrap());
        assert_eq!(written(&value["c"][3]), br#"{"d":{"e":0.1}}"#);
    }

    #[test]
    fn common_numbers_are_written_as_serde_json_writes_them() {
        for number in [0.0, -0.0, 1.0, -1.0, 0.1, 1e-9, 1e300] {
            assert_eq!(written(&number), serde_json::to_vec(&number).unwrap());
        }
    }
}
