//! When a made value is the right one, by the leaderboard's rules. In: a value and those that are right, JSON. Out: whether it
//! is among them. Strings are the same whatever their case, blanks and most punctuation.

use std::cell::Cell;

use serde_json::Value;

use crate::stages::json_equal;

/// Bytes of values that one rollout is compared with, both sides counted: some tens of milliseconds. Real ones need some
/// thousands; what comes later is compared with nothing.
const COMPARED_BYTES: usize = 4 << 20;

/// The language of the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// Values are JSON's.
    Python,
    /// Java or JavaScript: any value may be written as a text.
    Java,
}

/// Compares what was made with what is right, until it has compared enough.
pub(super) struct Comparison {
    language: Language,
    /// Bytes that may still be compared.
    left: Cell<usize>,
}

impl Comparison {
    pub(super) fn new(language: Language) -> Self {
        Self { language, left: Cell::new(COMPARED_BYTES) }
    }

    /// Whether a made value, or leaving it out, is right.
    pub(super) fn is_right(&self, values: &Value, made: Option<&Value>) -> bool {
        match made {
            Some(made) => {
                alternatives(values).iter().take_while(|_| self.left.get() > 0).any(|right| self.is_same(right, made))
            }
            None => may_be_absent(values),
        }
    }

    /// Whether a value is the right one, which inside an object names alternatives again.
    fn is_same(&self, right: &Value, made: &Value) -> bool {
        match (right, made) {
            (Value::String(right), Value::String(made)) => {
                self.may_compare(right.len() + made.len()) && plain(right).eq(plain(made))
            }
            (Value::Array(right), Value::Array(made)) => {
                self.may_compare(1)
                    && right.len() == made.len()
                    && right.iter().zip(made).all(|(right, made)| self.is_same(right, made))
            }
            (Value::Object(right), Value::Object(made)) => {
                self.may_compare(right.len() + made.len())
                    && right.iter().all(|(name, values)| self.is_right(values, made.get(name)))
                    && made.keys().all(|name| right.contains_key(name))
            }
            (right, Value::String(text)) if self.language == Language::Java => {
                self.may_compare(8 * text.len())
                    && serde_json::from_str::<Value>(text)
                        .is_ok_and(|made| !made.is_string() && self.is_same(right, &made))
            }
            (right, made) => self.may_compare(1) && json_equal(right, made),
        }
    }

    fn may_compare(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes + 16);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// The value that a reference has for an argument; `None` where it may be left out, and was.
    pub(super) fn choose(&self, values: &Value, made: Option<&Value>) -> Option<Value> {
        match made {
            Some(made) if self.is_right(values, Some(made)) => Some(made.clone()),
            None if may_be_absent(values) => None,
            _ => alternatives(values).iter().find(|value| **value != "").or(alternatives(values).first()).cloned(),
        }
    }
}

/// What counts of a string.
fn plain(text: &str) -> impl Iterator<Item = char> {
    let counts = text.chars().filter(|letter| !" ,./-_*^".contains(*letter));
    counts.flat_map(char::to_lowercase).map(|letter| if letter == '\'' { '"' } else { letter })
}

/// The empty string among several right values says that the argument may be left out.
fn may_be_absent(values: &Value) -> bool {
    values.as_array().is_some_and(|values| values.iter().any(|value| value == ""))
}

fn alternatives(values: &Value) -> &[Value] {
    values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::Language::{Java, Python};
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_the_same_by_the_leaderboards_rules() {
        let right = |values: Value, made: Value| Comparison::new(Python).is_right(&values, Some(&made));
        assert!(right(json!(["New York, NY", "NYC"]), json!("new york ny")) && !right(json!(["NYC"]), json!("NYCC")));
        assert!(right(json!(["it's"]), json!("it\"s")) && !right(json!(["a"]), json!(["a"])));
        assert!(right(json!([5]), json!(5.0)) && !right(json!([1]), json!(true)));
        assert!(right(json!([["A-1", 2], [3]]), json!(["a 1", 2])) && !right(json!([[1, 2]]), json!([1])));
        let nested = json!([{"city": ["Berlin", "berlin, DE"], "days": ["", 3]}]);
        assert!(right(nested.clone(), json!({"city": "Berlin DE"})));
        assert!(right(nested.clone(), json!({"city": "berlin", "days": 3})));
        assert!(
            !right(nested.clone(), json!({"city": "berlin", "days": 4})) && !right(nested.clone(), json!({"days": 3}))
        );
        assert!(!right(nested, json!({"city": "berlin", "unit": "C"})));
        let written = |values: Value, made: &str| Comparison::new(Java).is_right(&values, Some(&json!(made)));
        assert!(written(json!([true]), "true") && written(json!([[1, 2]]), "[1, 2]") && !written(json!([5]), "6"));
        assert!(written(json!(["5"]), "5") && !right(json!([5]), json!("5")) && !written(json!([5]), "\"5\""));
        assert!(right(json!([[{"a": [1]}, {"a": [2, 3]}]]), json!([{"a": 1}, {"a": 3}])));
    }
}
