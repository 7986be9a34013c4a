//! Writing JSON fast: keys are literals, strings without escapes are copied, common numbers are known.
//!
//! Everything else goes through `serde_json`. A result has some hundred small values, and half of the time of a short
//! trajectory went into writing them.

use std::borrow::Cow;

use super::walk::special;

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
    ($name:ident { $($field:ident),* $(,)? } optional { $($option:ident),* $(,)? }) => {
        impl $crate::http::wire::json::Put for $name<'_> {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field,)* $($option,)* } = self;
                out.push(b'{');
                $(
                    out.extend_from_slice(concat!("\"", stringify!($field), "\":").as_bytes());
                    $crate::http::wire::json::Put::put($field, out);
                    out.push(b',');
                )*
                $(
                    if !$crate::http::wire::json::Put::is_absent($option) {
                        out.extend_from_slice(concat!("\"", stringify!($option), "\":").as_bytes());
                        $crate::http::wire::json::Put::put($option, out);
                        out.push(b',');
                    }
                )*
                // The last comma; every struct has a field that is always there.
                out.pop();
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
        if special(self.as_bytes(), 0).is_some() {
            by_serde(self, out);
            return;
        }
        out.push(b'"');
        out.extend_from_slice(self.as_bytes());
        out.push(b'"');
    }
}

impl Put for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        if self.to_bits() == 0 {
            out.extend_from_slice(b"0.0");
        } else if self.to_bits() == 1.0_f64.to_bits() {
            out.extend_from_slice(b"1.0");
        } else {
            by_serde(self, out);
        }
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
        by_serde(self, out);
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
        out.push(b'[');
        for (place, value) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            value.put(out);
        }
        out.push(b']');
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

/// Names with numbers, written as an object. The names are those of stages and the like: they need no escapes.
impl Put for super::Named<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (place, (name, number)) in self.0.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            name.put(out);
            out.push(b':');
            number.put(out);
        }
        out.push(b'}');
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
    fn common_numbers_are_written_as_serde_json_writes_them() {
        for number in [0.0, -0.0, 1.0, -1.0, 0.1, 1e-9, 1e300] {
            assert_eq!(written(&number), serde_json::to_vec(&number).unwrap());
        }
    }
}
