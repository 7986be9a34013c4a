//! How large a value is, in the terms of the cost model. In: decoded arguments; out: counts, in one pass. Knows no
//! schema.

use serde_json::{Map, Value};

/// Deepest nesting of arguments that is checked; the JSON parsers stop there as well.
pub(super) const MAX_DEPTH: usize = 128;

/// Units of one match that runs into the backtracking limit.
pub(super) const BACKTRACKING_UNITS: f64 = 16_384.0;

/// Bytes of a text that are a unit.
pub(super) const UNIT_BYTES: f64 = 16.0;

/// Bytes that one violation takes beside the value and the pointer that it repeats.
pub(super) const VIOLATION_BYTES: f64 = 128.0;

/// Integers up to here are exact in a double, which is what the validator hashes.
const EXACT_INTEGERS: u64 = 1 << 53;

/// The size of a value.
#[derive(Debug, Default)]
pub(super) struct Size {
    /// Values, and a sixteenth of the bytes in strings and keys.
    pub(super) units: f64,
    /// Levels below the root.
    pub(super) depth: usize,
    /// Bytes that reporting each value once takes: itself and its pointer.
    pub(super) report_bytes: f64,
    /// Units that comparing the elements of every array takes, where their hashes can be made equal.
    pub(super) comparing: f64,
    /// Units that the steps of matching every string once take, with an engine that backtracks.
    pub(super) backtracking: f64,
    /// Pairs of bytes of every string, which it may go through where it looks ahead at each step.
    pub(super) squares: f64,
}

impl Size {
    /// Measures `value`; none if it nests deeper than [`MAX_DEPTH`].
    pub(super) fn of(value: &Value) -> Option<Self> {
        let mut size = Self::default();
        size.add(value, 0, 0)?;
        Some(size)
    }

    /// Adds a value whose pointer has `path` bytes; returns its own bytes.
    fn add(&mut self, value: &Value, depth: usize, path: usize) -> Option<f64> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.depth = self.depth.max(depth);
        self.units += 1.0;
        let bytes = match value {
            Value::String(text) => {
                self.text(text);
                VIOLATION_BYTES + text.len() as f64
            }
            Value::Array(items) => self.items(items, depth, path)?,
            Value::Object(members) => self.members(members, depth, path)?,
            _ => VIOLATION_BYTES,
        };
        self.report_bytes += bytes + path as f64;
        Some(bytes)
    }

    fn items(&mut self, items: &[Value], depth: usize, path: usize) -> Option<f64> {
        let before = self.units;
        let mut bytes = VIOLATION_BYTES;
        for item in items {
            bytes += self.add(item, depth + 1, path + 4)?;
        }
        let alike = items.iter().filter(|item| may_hash_alike(item)).count();
        self.comparing += alike as f64 * (self.units - before);
        Some(bytes)
    }

    fn members(&mut self, members: &Map<String, Value>, depth: usize, path: usize) -> Option<f64> {
        let mut bytes = VIOLATION_BYTES;
        for (key, member) in members {
            self.text(key);
            bytes += key.len() as f64 + self.add(member, depth + 1, path + key.len() + 1)?;
        }
        Some(bytes)
    }

    fn text(&mut self, text: &str) {
        self.units += text_units(text);
        self.backtracking += BACKTRACKING_UNITS;
        self.squares += squares(text);
    }
}

/// Units of a string or a key.
pub(super) fn text_units(text: &str) -> f64 {
    text.len() as f64 / UNIT_BYTES
}

/// Pairs of bytes of a string.
pub(super) fn squares(text: &str) -> f64 {
    let length = text.len() as f64;
    length * length
}

/// Units of a value without its parts.
pub(super) fn own_units(value: &Value) -> f64 {
    1.0 + value.as_str().map_or(0.0, text_units)
}

/// Units of going through the parts of a value once, and not into them.
pub(super) fn parts_units(value: &Value) -> f64 {
    match value {
        Value::Array(items) => items.len() as f64,
        Value::Object(members) => members.keys().map(|name| 1.0 + text_units(name)).sum(),
        _ => 0.0,
    }
}

/// Bytes that reporting a value takes, without its pointer.
pub(super) fn report_bytes(value: &Value) -> f64 {
    bytes_in(value, VIOLATION_BYTES)
}

/// Bytes that a copy of a value takes, about.
pub(super) fn copied_bytes(value: &Value) -> f64 {
    bytes_in(value, 64.0)
}

/// Bytes of the strings and names in a value.
pub(super) fn text_bytes(value: &Value) -> f64 {
    bytes_in(value, 0.0)
}

/// The same, and as many for `each` value.
fn bytes_in(value: &Value, each: f64) -> f64 {
    each + match value {
        Value::String(text) => text.len() as f64,
        Value::Array(items) => items.iter().map(|item| bytes_in(item, each)).sum(),
        Value::Object(members) => members.iter().map(|(name, member)| name.len() as f64 + bytes_in(member, each)).sum(),
        _ => 0.0,
    }
}

/// How many values a value is, itself among them.
pub(super) fn values_in(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values_in).sum(),
        Value::Object(members) => members.values().map(values_in).sum(),
        _ => 0,
    }
}

/// Whether the validator can give many different values of this kind the same hash: it hashes integers as doubles, nested
/// containers without their boundaries, and in a container `null`, booleans and `{}` as numbers.
fn may_hash_alike(value: &Value) -> bool {
    let ambiguous = |value: &Value| !value.is_string() && !value.is_number() || exceeds_doubles(value);
    match value {
        Value::Array(items) => items.iter().any(ambiguous),
        Value::Object(members) => members.values().any(ambiguous),
        value => exceeds_doubles(value),
    }
}

fn exceeds_doubles(value: &Value) -> bool {
    let magnitude = value.as_u64().or_else(|| value.as_i64().map(i64::unsigned_abs));
    magnitude.is_some_and(|magnitude| magnitude > EXACT_INTEGERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_counts_levels_below_the_root() {
        assert_eq!(Size::of(&json!(1)).map(|size| size.depth), Some(0));
        assert_eq!(Size::of(&json!({"a": [1]})).map(|size| size.depth), Some(2));
        let deep = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
        assert!(Size::of(&deep(MAX_DEPTH)).is_some());
        assert!(Size::of(&deep(MAX_DEPTH + 1)).is_none());
    }

    #[test]
    fn only_values_that_may_hash_alike_are_compared() {
        let comparing = |value: &Value| Size::of(value).map(|size| size.comparing);
        assert_eq!(comparing(&json!([1, "a", {"b": 1}, ["c"], null])), Some(0.0));
        assert_eq!(comparing(&json!([[[]], [[], []]])), Some(10.0 + 0.0));
        assert!(comparing(&json!([u64::MAX, u64::MAX - 1])) > Some(0.0));
        assert!(comparing(&json!([i64::MIN])) > Some(0.0));
        assert!(comparing(&json!([[0, false], {"a": null}])) > Some(0.0));
    }
}
