//! What the Berkeley function-calling leaderboard says is right. In: its functions, its truths and the calls that were made;
//! out: tools and reference calls of the native request. A truth names for each argument the values that are right; the
//! reference has the one that was made, where that is among them.
//!
//! Strings are the same whatever their case, blanks and most punctuation, as in the leaderboard's own comparison, and names
//! with `_` for `.`, as models must write them.

use std::cell::Cell;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::turn::{Made, plain_name};
use crate::stages::json_equal;
use crate::trajectory::MAX_REFERENCE_CALLS;

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

/// A right call: its name, and for each argument the values that are right.
struct Right<'c> {
    name: String,
    arguments: Map<String, Value>,
    comparison: &'c Comparison,
}

/// Reference calls as the native request has them: for each argument the value that the call made which the reference is
/// about, where that is among the right ones, else the first right one. `None` where the truth is no list of calls. One that
/// is too long is compared with nothing: the native reader refuses it, and says why.
pub(super) fn reference_calls(truth: &str, made: &[Made], language: Language) -> Option<Vec<Value>> {
    let truth: Vec<Map<String, Value>> = serde_json::from_str(truth).ok()?;
    let comparison = Comparison { language, left: Cell::new(COMPARED_BYTES) };
    let right = |call: Map<String, Value>| match call.into_iter().next()? {
        (name, Value::Object(arguments)) => Some(Right { name: plain_name(&name), arguments, comparison: &comparison }),
        _ => None,
    };
    let truth: Vec<Right<'_>> = truth.into_iter().map(right).collect::<Option<_>>()?;
    let made = if truth.len() > MAX_REFERENCE_CALLS { &[] } else { made };
    Some(truth.iter().zip(assign(&truth, made)).map(|(right, made)| right.reference(made)).collect())
}

/// Which call each right one is about, none twice: the first that is all right, as the leaderboard has it, else the one of
/// those left that has most right arguments.
fn assign<'m>(truth: &[Right<'_>], made: &'m [Made]) -> Vec<Option<&'m Map<String, Value>>> {
    let mut left: Vec<Option<&Made>> = made.iter().map(Some).collect();
    let mut take = |fits: &dyn Fn(&Made) -> Option<usize>| {
        let fits = left.iter().enumerate().filter_map(|(at, made)| Some((fits((*made)?)?, at)));
        let (_, best) = fits.max_by_key(|(count, at)| (*count, std::cmp::Reverse(*at)))?;
        left.get_mut(best)?.take().map(|(_, arguments)| arguments)
    };
    let all_right: Vec<_> = truth.iter().map(|right| take(&|made| right.is_made_by(made).then_some(0))).collect();
    let others = truth.iter().zip(all_right);
    others.map(|(right, found)| found.or_else(|| take(&|made| right.count_in(made)))).collect()
}

impl Right<'_> {
    /// Whether a call has all that is right and nothing else.
    fn is_made_by(&self, (name, arguments): &Made) -> bool {
        *name == self.name
            && arguments.keys().all(|argument| self.arguments.contains_key(argument))
            && self.arguments.iter().all(|(argument, values)| self.comparison.is_right(values, arguments.get(argument)))
    }

    /// How many arguments are right in a call of this name.
    fn count_in(&self, (name, arguments): &Made) -> Option<usize> {
        let right = |(argument, values): &(&String, &Value)| self.comparison.is_right(values, arguments.get(*argument));
        (*name == self.name).then(|| self.arguments.iter().filter(right).count())
    }

    /// The native call.
    fn reference(&self, made: Option<&Map<String, Value>>) -> Value {
        let chosen = self.arguments.iter().filter_map(|(argument, values)| {
            Some((argument.clone(), self.comparison.choose(values, made.and_then(|made| made.get(argument)))?))
        });
        json!({"name": self.name, "arguments": chosen.collect::<Map<_, _>>()})
    }
}

/// Reference calls where any call is right: those that were made, or one that nobody makes.
pub(super) fn any_of(made: &[Made]) -> Vec<Value> {
    let call = |(name, arguments): &Made| json!({"name": name, "arguments": arguments});
    let calls: Vec<Value> = made.iter().take(MAX_REFERENCE_CALLS).map(call).collect();
    if calls.is_empty() { vec![json!({"name": "any call", "arguments": {}})] } else { calls }
}

/// Functions as tools: their names as models write them, their parameters as JSON Schema. What the reference calls have is
/// allowed: the leaderboard's truths have values that its own schemas do not.
pub(super) fn as_tools(functions: &mut Value, references: &[Value]) {
    let mut right: HashMap<&str, Vec<&Value>> = HashMap::new();
    // More are refused.
    for reference in references.iter().take(MAX_REFERENCE_CALLS) {
        right.entry(reference["name"].as_str().unwrap_or_default()).or_default().push(&reference["arguments"]);
    }
    for function in functions.as_array_mut().into_iter().flatten() {
        as_json_schema(function);
        let Some(Value::String(name)) = function.get_mut("name") else { continue };
        *name = plain_name(name);
        // Of several functions of one name the first counts.
        let Some(right) = right.remove(name.as_str()) else { continue };
        let Some(Value::Object(properties)) = function.pointer_mut("/parameters/properties") else { continue };
        for (argument, schema) in properties {
            let values = right.iter().filter_map(|arguments| arguments.get(argument));
            // The empty string says that there is no value.
            let values: Vec<_> = values.filter(|value| **value != "").collect();
            if !values.is_empty() {
                *schema = json!({"anyOf": [schema.take(), {"enum": values}]});
            }
        }
    }
}

/// The leaderboard writes `dict`, `float` and `tuple` where JSON Schema has `object`, `number` and `array`; what else JSON
/// Schema does not know, `any` and the types of Java and JavaScript, is no constraint.
fn as_json_schema(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            match fields.get("type").and_then(Value::as_str) {
                Some("dict") => _ = fields.insert("type".to_owned(), "object".into()),
                Some("float") => _ = fields.insert("type".to_owned(), "number".into()),
                Some("tuple") => _ = fields.insert("type".to_owned(), "array".into()),
                Some("object" | "array" | "string" | "number" | "integer" | "boolean" | "null") | None => {}
                Some(_) => _ = fields.remove("type"),
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

/// Compares what was made with what is right, until it has compared enough.
struct Comparison {
    language: Language,
    /// Bytes that may still be compared.
    left: Cell<usize>,
}

impl Comparison {
    /// Whether a made value, or leaving it out, is right.
    fn is_right(&self, values: &Value, made: Option<&Value>) -> bool {
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

    fn choose(&self, values: &Value, made: Option<&Value>) -> Option<Value> {
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

#[cfg(test)]
mod tests {
    use super::super::turn::Turn;
    use super::Language::{Java, Python};
    use super::*;
    use crate::stages::MAX_MATCHED_CALLS;

    fn made_of(calls: &str) -> Vec<Made> {
        Turn::new(None, Some(calls)).made
    }

    fn new(language: Language) -> Comparison {
        Comparison { language, left: Cell::new(COMPARED_BYTES) }
    }

    const MADE: &str = r#"[{"function": {"name": "f", "arguments": {"n": 7}}}]"#;

    fn references(truth: &Value, made: &Value) -> Value {
        let calls = json!([{"function": {"name": "f", "arguments": made.to_string()}}]).to_string();
        reference_calls(&truth.to_string(), &made_of(&calls), Python).unwrap().into()
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
            reference_calls(&truth.to_string(), &made_of(&Value::from(calls).to_string()), Python).unwrap()
        };
        assert_eq!(chosen(MAX_MATCHED_CALLS - 1), [json!({"name": "f", "arguments": {"n": 7}})]);
        assert_eq!(chosen(MAX_MATCHED_CALLS), [json!({"name": "f", "arguments": {"n": 0}})]);
    }

    /// Each of its calls would be compared with each of those made, only to be refused.
    #[test]
    fn a_truth_that_is_too_long_is_compared_with_nothing() {
        let chosen = |length: usize| {
            let truth = Value::from(vec![json!({"f": {"n": [0, 7]}}); length]);
            let calls = reference_calls(&truth.to_string(), &made_of(MADE), Python).unwrap();
            assert_eq!(calls.len(), length);
            calls[0]["arguments"]["n"].clone()
        };
        assert_eq!((chosen(MAX_REFERENCE_CALLS), chosen(MAX_REFERENCE_CALLS + 1)), (json!(7), json!(0)));
    }

    #[test]
    fn answers_are_no_calls() {
        assert_eq!(reference_calls("[\"Paris\"]", &[], Python), None);
    }

    #[test]
    fn values_are_the_same_by_the_leaderboards_rules() {
        let right = |values: Value, made: Value| new(Python).is_right(&values, Some(&made));
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
        let written = |values: Value, made: &str| new(Java).is_right(&values, Some(&json!(made)));
        assert!(written(json!([true]), "true") && written(json!([[1, 2]]), "[1, 2]") && !written(json!([5]), "6"));
        assert!(written(json!(["5"]), "5") && !right(json!([5]), json!("5")) && !written(json!([5]), "\"5\""));
        assert!(right(json!([[{"a": [1]}, {"a": [2, 3]}]]), json!([{"a": 1}, {"a": 3}])));
    }

    #[test]
    fn comparing_ends() {
        let made = |text: String| made_of(&json!([{"function": {"name": "f", "arguments": {"q": text}}}]).to_string());
        let chosen = |right: Value, made: &[Made], language| {
            let truth = json!([{"f": {"q": right}}]).to_string();
            reference_calls(&truth, made, language).unwrap()[0]["arguments"]["q"].clone()
        };
        // The last one is right, and is not come to.
        let numbers = |last: i32| (0..20_000).map(|_| json!(1)).chain([json!(last)]).collect::<Vec<_>>();
        let list = made(Value::from(numbers(2)).to_string());
        assert_eq!(chosen([numbers(1), vec![numbers(2).into()]].concat().into(), &list, Java), json!(1));
        let blanks = made(" ".repeat(40_000) + "b");
        assert_eq!(chosen([vec![json!("a"); 10_000], vec![json!("b")]].concat().into(), &blanks, Python), json!("a"));
        assert_eq!(chosen(json!(["a", "b"]), &blanks, Python), json!(" ".repeat(40_000) + "b"));
    }

    /// The same call is right for several truths, by case here and by alternatives there.
    #[test]
    fn each_truth_is_about_a_call_of_its_own() {
        let call = |name: &str, kind: Value| json!({"function": {"name": name, "arguments": {"kind": kind}}});
        let chosen = |truth: Value, calls: Value| {
            let found = reference_calls(&truth.to_string(), &made_of(&calls.to_string()), Python).unwrap();
            found.iter().map(|call| call["arguments"]["kind"].clone()).collect::<Vec<_>>()
        };
        let truth = |kinds: &[Value]| kinds.iter().map(|kind| json!({"f": {"kind": kind}})).collect::<Value>();
        let letters = ["AA", "Aa", "aa"].map(|kind| call("f", json!(kind)));
        assert_eq!(chosen(truth(&[json!(["AA"]), json!(["Aa"]), json!(["aa"])]), letters.into()), ["AA", "Aa", "aa"]);
        let calls = json!([call("g", json!("b")), call("f", json!("b")), call("f", json!("a"))]);
        assert_eq!(chosen(truth(&[json!(["a", "c"]), json!(["b"])]), calls.clone()), ["a", "b"]);
        assert_eq!(chosen(truth(&[json!(["x"]), json!(["a", "y"]), json!(["z"])]), calls), ["x", "a", "z"]);
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
        as_tools(&mut functions, &[]);
        assert_eq!(
            (&functions[0]["name"], &functions[0]["parameters"]["type"]),
            (&json!("math_add"), &json!("object"))
        );
        let references = reference_calls(r#"[{"math.add": {}}]"#, &[], Python).unwrap();
        assert_eq!(references, [json!({"name": "math_add", "arguments": {}})]);
    }

    #[test]
    fn any_call_is_right_where_one_is_wanted() {
        assert_eq!(any_of(&made_of(MADE)), [json!({"name": "f", "arguments": {"n": 7}})]);
        assert_eq!(any_of(&[]), [json!({"name": "any call", "arguments": {}})]);
    }

    #[test]
    fn what_is_right_is_allowed() {
        let mut functions = json!([{"name": "f", "parameters": {"type": "dict", "properties": {
            "unit": {"type": "string", "enum": ["s", "ms"]}, "n": {"type": "integer"}}}}]);
        as_tools(
            &mut functions,
            &[json!({"name": "f", "arguments": {"unit": "N/A"}}), json!({"name": "f", "arguments": {"unit": null}})],
        );
        let properties = json!({"n": {"type": "integer"},
            "unit": {"anyOf": [{"type": "string", "enum": ["s", "ms"]}, {"enum": ["N/A", null]}]}});
        assert_eq!(functions[0]["parameters"]["properties"], properties);
    }

    #[test]
    fn types_become_those_of_json_schema() {
        let mut schema = json!({"type": "dict", "properties": {"x": {"type": "float"}, "type": {"type": "any"}, "m": {"type": "HashMap"}}});
        as_json_schema(&mut schema);
        assert_eq!(schema, json!({"type": "object", "properties": {"x": {"type": "number"}, "type": {}, "m": {}}}));
    }
}
