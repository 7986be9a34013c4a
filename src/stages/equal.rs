//! When JSON values and calls are the same: by value, as JSON Schema has it. Pure; knows no stage.

use serde_json::{Number, Value};

use crate::toolcall::Call;

/// Equality of JSON values where 1 is 1.0 and true is not 1.
pub(crate) fn json_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => numbers_equal(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| json_equal(x, y)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, x)| b.get(key).is_some_and(|y| json_equal(x, y)))
        }
        _ => left == right,
    }
}

/// Equality of numbers by their values: 1 is 1.0, -0 is 0, and integers that differ do so even where their doubles agree.
fn numbers_equal(left: &Number, right: &Number) -> bool {
    let integer = |number: &Number| number.as_i128().or_else(|| number.as_u128().and_then(|n| i128::try_from(n).ok()));
    let same = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| a - b == 0.0);
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left == right,
        (None, None) => same(left.as_f64(), right.as_f64()),
        // No integer of JSON needs more than 64 bits: one that has no double of its own is none.
        (Some(integer), None) => same(exactly(integer), right.as_f64()),
        (None, Some(integer)) => same(left.as_f64(), exactly(integer)),
    }
}

/// The double that is this integer, if there is one.
fn exactly(integer: i128) -> Option<f64> {
    let spare = integer.unsigned_abs().checked_ilog2().map_or(0, |top| (top + 1).saturating_sub(f64::MANTISSA_DIGITS));
    (integer.trailing_zeros() >= spare).then_some(integer as f64)
}

/// What is the same for calls that are equal by value, and for no others.
pub(crate) fn identity<'c>(call: &'c Call<'_>) -> (&'c str, String) {
    // Equal arguments have equal texts once keys are sorted and 1.0 is written as 1.
    let mut arguments = canonical(&call.arguments);
    arguments.sort_all_objects();
    (&call.name, arguments.to_string())
}

/// The same value with whole numbers as integers.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0);
            // Beyond 64 bits JSON has no integers, and the cast gives none.
            #[allow(clippy::cast_possible_truncation, reason = "whole, and as large as it is it stays out of range")]
            let integer = whole.and_then(|whole| Number::from_i128(whole as i128));
            integer.map_or_else(|| value.clone(), Value::Number)
        }
        Value::Array(list) => list.iter().map(canonical).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), canonical(value))).collect(),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_equal_by_value() {
        assert!(json_equal(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})));
        assert!(!json_equal(&json!(true), &json!(1)));
        assert!(!json_equal(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)));
        assert!(!json_equal(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992.0)));
        assert!(json_equal(&json!(9_007_199_254_740_992_u64), &json!(9_007_199_254_740_992.0)));
        assert!(json_equal(&json!(u64::MAX - 2047), &json!(18_446_744_073_709_549_568.0)));
        assert!(json_equal(&json!(0), &json!(-0.0)) && json_equal(&json!(0.0), &json!(-0.0)));
        assert!(json_equal(&json!(-3), &json!(-3.0)) && !json_equal(&json!(-3), &json!(3.0)));
        assert!(!json_equal(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
    }
}
