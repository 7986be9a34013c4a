//! What the Berkeley function-calling leaderboard says is right. In: its truths and the calls that were made; out: reference
//! calls of the native request. A truth names for each argument the values that are right; the reference has the one that was
//! made, where that is among them. Names have `_` for `.`, as models must write them.

use serde_json::{Map, Value, json};

use super::comparison::{Comparison, Language};
use super::turn::{Made, plain_name};
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
    let comparison = Comparison::new(language);
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

#[cfg(test)]
mod tests {
    use super::super::turn::Turn;
    use super::Language::{Java, Python};
    use super::*;
    use crate::stages::MAX_MATCHED_CALLS;

    fn made_of(calls: &str) -> Vec<Made> {
        Turn::new(None, Some(calls)).made
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
        let references = reference_calls(r#"[{"math.add": {}}]"#, &[], Python).unwrap();
        assert_eq!(references, [json!({"name": "math_add", "arguments": {}})]);
    }

    #[test]
    fn any_call_is_right_where_one_is_wanted() {
        assert_eq!(any_of(&made_of(MADE)), [json!({"name": "f", "arguments": {"n": 7}})]);
        assert_eq!(any_of(&[]), [json!({"name": "any call", "arguments": {}})]);
    }
}
