//! How many elements of an array a check of `uniqueItems` compares. In: an array; out: units of work. Compares nothing
//! itself.
//!
//! The validator hashes the elements and compares those of equal hash, and short arrays each with each. What it hashes alike
//! though it differs is known: numbers as doubles, nested arrays without their boundaries, and `null`, booleans and objects as
//! numbers.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::size;

/// Elements up to which the validator compares each with each.
const SHORT: usize = 15;

/// The number as which `null` is hashed.
const NULL: u64 = 3_221_225_473;

/// Units of hashing a value.
const HASHING: f64 = 0.5;

/// The work of one check.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Likeness {
    /// Units of work.
    pub(super) units: f64,
    /// Values inside.
    pub(super) values: usize,
}

impl Likeness {
    /// Of the elements of an array.
    pub(super) fn of(items: &[Value]) -> Self {
        let mut whole = Self::default();
        let mut groups = HashMap::<u64, f64>::new();
        for item in items {
            let mut hasher = DefaultHasher::new();
            let mut hashed = Self::default();
            hashed.hash(item, &mut hasher);
            let group = groups.entry(hasher.finish()).or_insert(0.0);
            // Those before it that may be equal, or all of a short array.
            let compared = if items.len() <= SHORT { items.len() as f64 } else { *group };
            *group += 1.0;
            whole.units += hashed.units * (HASHING + compared);
            whole.values += hashed.values;
        }
        whole
    }

    /// Hashes alike what the validator hashes alike, and counts what is hashed.
    fn hash(&mut self, value: &Value, hasher: &mut DefaultHasher) {
        self.units += size::own_units(value) + size::parts_units(value);
        self.values += 1;
        match value {
            Value::Null => NULL.hash(hasher),
            Value::Bool(value) => u64::from(*value).hash(hasher),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                // Zero has two signs and is one number.
                (if number == 0.0 { 0 } else { number.to_bits() }).hash(hasher);
            }
            Value::String(text) => text.hash(hasher),
            Value::Array(items) => items.iter().for_each(|item| self.hash(item, hasher)),
            Value::Object(members) => {
                let mut sum = 0_u64;
                for (name, member) in members {
                    let mut inner = DefaultHasher::new();
                    name.hash(&mut inner);
                    self.hash(member, &mut inner);
                    sum = sum.wrapping_add(inner.finish());
                }
                sum.hash(hasher);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn units(items: impl Iterator<Item = Value>) -> f64 {
        Likeness::of(&items.collect::<Vec<_>>()).units
    }

    #[test]
    fn only_what_the_validator_hashes_alike_is_compared() {
        let different = units((0..1000).map(|at| json!({"id": at, "tags": ["a"], "o": {"x": at}})));
        assert!(different < 20_000.0, "{different}");
        // Their boundaries are not hashed.
        let arrays = units((0..1000).map(|at| if at % 2 == 0 { json!([[], [1]]) } else { json!([[1]]) }));
        assert!(arrays > 1_000_000.0, "{arrays}");
        // All begin alike.
        let bit = |number: i32, bit: i32| if number >> bit & 1 == 0 { json!(false) } else { json!(0) };
        let booleans = units((0..1000).map(|at| (0..10).map(|place| bit(at, place)).collect()));
        assert!(booleans > 1_000_000.0, "{booleans}");
        let empty = units(
            (0..1000)
                .map(|at| (0..10).map(|place| if at >> place & 1 == 0 { json!({}) } else { json!(0.0) }).collect()),
        );
        assert!(empty > 1_000_000.0, "{empty}");
        let beyond_doubles = units((0..1000).map(|at| json!(u64::MAX - at % 500)));
        assert!(beyond_doubles > 400_000.0, "{beyond_doubles}");
        assert!(units((0..1000).map(|at| json!(if at % 2 == 0 { 0.0 } else { -0.0 }))) > 400_000.0);
    }

    #[test]
    fn short_arrays_are_compared_each_with_each() {
        assert!(units((0..15).map(|at| json!(at))) > 225.0);
        assert!(units((0..16).map(|at| json!(at))) < 20.0);
    }
}
