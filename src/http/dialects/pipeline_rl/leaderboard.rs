//! What the Berkeley function-calling leaderboard says is right. In: its functions, its truths and the calls that were made;
//! out: tools and reference calls of the native request. A truth names for each argument the values that are right; the
//! reference has the one that was made, where that is among them.
//!
//! Strings are the same whatever their case, blanks and most punctuation, as in the leaderboard's own comparison, and names
//! with `_` for `.`, as models must write them.

use serde_json::{Map, Value, json};

use super::turn::Made;
use crate::stages::json_equal;
use crate::trajectory::MAX_REFERENCE_CALLS;

/// A truth's list: itself, or what stands in an object beside the id of its entry.
pub(super) fn list(truth: &str) -> &str {
    #[derive(serde::Deserialize)]
    struct Entry<'t> {
        #[serde(borrow)]
        ground_truth: &'t serde_json::value::RawValue,
    }
    let entry = truth.starts_with('{').then(|| serde_json::from_str::<Entry<'_>>(truth).ok()).flatten();
    entry.map(|entry| entry.ground_truth.get()).filter(|list| list.starts_with('[')).unwrap_or(truth)
}

/// Reference calls as the native request has them: for each argument the value that a call of this name made, where that
/// is among the right ones, else the first right one. `None` where the truth is no list of calls. One that is too long is
/// compared with nothing: the native reader refuses it, and says why.
pub(super) fn reference_calls(truth: &str, made: &[Made]) -> Option<String> {
    let truth: Vec<Map<String, Value>> = serde_json::from_str(truth).ok()?;
    let made = if truth.len() > MAX_REFERENCE_CALLS { &[] } else { made };
    let mut calls = Vec::with_capacity(truth.len());
    for call in truth {
        let (name, Value::Object(arguments)) = call.into_iter().next()? else { return None };
        let name = plain_name(&name);
        let of_name: Vec<_> = made.iter().filter(|(made, _)| *made == name).map(|(_, arguments)| arguments).collect();
        // The call that has the most right values is the one that the reference is about.
        let right = |made: &&&Map<String, Value>| {
            arguments.iter().filter(|(argument, values)| is_right(values, made.get(*argument))).count()
        };
        let nearest = of_name.iter().max_by_key(right).copied();
        let chosen: Map<String, Value> = arguments
            .iter()
            .filter_map(|(argument, values)| {
                Some((argument.clone(), choose(values, nearest.and_then(|made| made.get(argument)))?))
            })
            .collect();
        calls.push(json!({"name": name, "arguments": chosen}));
    }
    Some(Value::from(calls).to_string())
}

/// Reference calls where any call is right: those that were made, or one that nobody makes.
pub(super) fn any_of(made: &[Made]) -> String {
    let call = |(name, arguments): &Made| json!({"name": name, "arguments": arguments});
    let calls: Vec<Value> = made.iter().take(MAX_REFERENCE_CALLS).map(call).collect();
    Value::from(if calls.is_empty() { vec![json!({"name": "any call", "arguments": {}})] } else { calls }).to_string()
}

/// A function's name as a model may write it.
pub(super) fn plain_name(name: &str) -> String {
    name.replace('.', "_")
}

/// Functions as tools: their names as models write them, their parameters as JSON Schema.
pub(super) fn as_tools(functions: &mut Value) {
    for function in functions.as_array_mut().into_iter().flatten() {
        if let Some(Value::String(name)) = function.get_mut("name") {
            *name = plain_name(name);
        }
        as_json_schema(function);
    }
}

/// The leaderboard writes `dict`, `float` and `tuple` where JSON Schema has `object`, `number` and `array`, and `any` for
/// no constraint.
fn as_json_schema(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let kind = match fields.get("type").and_then(Value::as_str) {
                Some("dict") => Some("object"),
                Some("float") => Some("number"),
                Some("tuple") => Some("array"),
                _ => None,
            };
            if let Some(kind) = kind {
                fields.insert("type".to_owned(), kind.into());
            } else if fields.get("type").is_some_and(|kind| kind == "any") {
                fields.remove("type");
            }
            fields.values_mut().for_each(as_json_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(as_json_schema),
        _ => {}
    }
}

fn alternatives(values: &Value) -> &[Value] {
    values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice)
}

/// Whether a made value, or leaving it out, is right.
fn is_right(values: &Value, made: Option<&Value>) -> bool {
    match made {
        Some(made) => alternatives(values).iter().any(|right| is_same(right, made)),
        None => may_be_absent(values),
    }
}

/// Whether a value is the right one, which inside an object names alternatives again.
fn is_same(right: &Value, made: &Value) -> bool {
    match (right, made) {
        (Value::String(right), Value::String(made)) => plain(right).eq(plain(made)),
        (Value::Array(right), Value::Array(made)) => {
            right.len() == made.len() && right.iter().zip(made).all(|(right, made)| is_same(right, made))
        }
        (Value::Object(right), Value::Object(made)) => {
            right.iter().all(|(name, values)| is_right(values, made.get(name)))
                && made.keys().all(|name| right.contains_key(name))
        }
        (right, made) => json_equal(right, made),
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

fn choose(values: &Value, made: Option<&Value>) -> Option<Value> {
    match made {
        Some(made) if is_right(values, Some(made)) => Some(made.clone()),
        None if may_be_absent(values) => None,
        _ => alternatives(values).iter().find(|value| **value != "").or(alternatives(values).first()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::turn::Turn;
    use super::*;
    use crate::stages::MAX_MATCHED_CALLS;

    fn made_of(calls: &str) -> Vec<Made> {
        Turn::new(None, Some(calls)).made
    }

    const MADE: &str = r#"[{"function": {"name": "f", "arguments": {"n": 7}}}]"#;

    fn references(truth: &Value, made: &Value) -> Value {
        let calls = json!([{"function": {"name": "f", "arguments": made.to_string()}}]).to_string();
        serde_json::from_str::<Value>(&reference_calls(&truth.to_string(), &made_of(&calls)).unwrap()).unwrap()
    }

    #[test]
    fn a_made_value_among_the_right_ones_is_the_reference() {
        let truth = json!([{"f": {"unit": ["C", "celsius"], "n": [1]}}]);
        let found = references(&truth, &json!({"unit": "celsius", "n": 2}));
        assert_eq!(found, json!([{"name": "f", "arguments": {"unit": "celsius", "n": 1}}]));
        assert_eq!(references(&truth, &json!({}))[0]["arguments"], json!({"unit": "C", "n": 1}));
    }

    #[test]
    fn the_empty_string_means_that_it_may_be_left_out() {
        let truth = json!([{"f": {"limit": ["", 10]}}]);
        assert_eq!(references(&truth, &json!({}))[0]["arguments"], json!({}));
        assert_eq!(references(&truth, &json!({"limit": 5}))[0]["arguments"], json!({"limit": 10}));
    }

    #[test]
    fn many_calls_are_compared_as_far_as_they_are_matched() {
        let call = |n: usize| json!({"function": {"name": "f", "arguments": {"n": n}}});
        let truth = json!([{"f": {"n": [0, 7]}}]);
        let chosen = |wrong: usize| {
            let calls: Vec<Value> = (0..wrong).map(|_| call(1)).chain([call(7)]).collect();
            reference_calls(&truth.to_string(), &made_of(&Value::from(calls).to_string())).unwrap()
        };
        assert_eq!(chosen(MAX_MATCHED_CALLS - 1), r#"[{"name":"f","arguments":{"n":7}}]"#);
        assert_eq!(chosen(MAX_MATCHED_CALLS), r#"[{"name":"f","arguments":{"n":0}}]"#);
    }

    /// Each of its calls would be compared with each of those made, only to be refused.
    #[test]
    fn a_truth_that_is_too_long_is_compared_with_nothing() {
        let chosen = |length: usize| {
            let truth = Value::from(vec![json!({"f": {"n": [0, 7]}}); length]);
            let calls: Value =
                serde_json::from_str(&reference_calls(&truth.to_string(), &made_of(MADE)).unwrap()).unwrap();
            assert_eq!(calls.as_array().unwrap().len(), length);
            calls[0]["arguments"]["n"].clone()
        };
        assert_eq!((chosen(MAX_REFERENCE_CALLS), chosen(MAX_REFERENCE_CALLS + 1)), (json!(7), json!(0)));
    }

    #[test]
    fn answers_are_no_calls() {
        assert_eq!(reference_calls("[\"Paris\"]", &[]), None);
    }

    #[test]
    fn values_are_the_same_by_the_leaderboards_rules() {
        let right = |values: Value, made: Value| is_right(&values, Some(&made));
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
        assert!(right(json!([[{"a": [1]}, {"a": [2, 3]}]]), json!([{"a": 1}, {"a": 3}])));
    }

    #[test]
    fn a_truth_may_stand_in_its_entry() {
        assert_eq!(list(r#"{"id": "simple_3", "ground_truth": [{"f": {}}]}"#), r#"[{"f": {}}]"#);
        for other in ["[1]", "null", r#"{"ground_truth": {"target": ["x"]}}"#, r#"{"answer": "x"}"#] {
            assert_eq!(list(other), other);
        }
    }

    #[test]
    fn names_are_those_that_models_write() {
        let mut functions =
            json!([{"name": "math.add", "parameters": {"type": "dict", "properties": {"name": {"type": "string"}}}}]);
        as_tools(&mut functions);
        assert_eq!(
            (&functions[0]["name"], &functions[0]["parameters"]["type"]),
            (&json!("math_add"), &json!("object"))
        );
        assert_eq!(reference_calls(r#"[{"math.add": {}}]"#, &[]).unwrap(), r#"[{"name":"math_add","arguments":{}}]"#);
    }

    #[test]
    fn any_call_is_right_where_one_is_wanted() {
        assert_eq!(any_of(&made_of(MADE)), r#"[{"name":"f","arguments":{"n":7}}]"#);
        assert_eq!(any_of(&[]), r#"[{"name":"any call","arguments":{}}]"#);
    }

    #[test]
    fn types_become_those_of_json_schema() {
        let mut schema = json!({"type": "dict", "properties": {"x": {"type": "float"}, "type": {"type": "any"}}});
        as_json_schema(&mut schema);
        assert_eq!(schema, json!({"type": "object", "properties": {"x": {"type": "number"}, "type": {}}}));
    }
}
