//! Schemas as a whole: the rules by name, hostile input, and properties that hold for any input.

mod declared;
mod hostile;
mod rules;

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn schema(schema: &Value) -> Schema {
    Schema::new(&schema.to_string(), Formats::Annotate)
}

fn valid(schema: &Value, arguments: &Value) -> bool {
    match self::schema(schema).check(arguments) {
        Check::Valid => true,
        Check::Invalid(violations) => {
            assert!(!violations.is_empty() && violations.len() <= MAX_VIOLATIONS);
            false
        }
        Check::Problem(problem) => panic!("{schema}: {problem} at {:?}", problem.pointer),
    }
}

fn violations(schema: &Value, arguments: &Value) -> Vec<Violation> {
    match self::schema(schema).check(arguments) {
        Check::Invalid(violations) => violations,
        other => panic!("{other:?}"),
    }
}

/// The code and the pointer of the problem that checking meets.
fn problem(schema: &Value, arguments: &Value) -> (ProblemCode, String) {
    problem_of_text(&schema.to_string(), arguments)
}

fn problem_of_text(text: &str, arguments: &Value) -> (ProblemCode, String) {
    match Schema::new(text, Formats::Annotate).check(arguments) {
        Check::Problem(problem) => {
            assert!(!problem.message.is_empty() && problem.message.len() <= MAX_MESSAGE_BYTES + 4);
            (problem.code, problem.pointer)
        }
        other => panic!("{other:?}"),
    }
}

fn is_unsupported(schema: &Value, arguments: &Value) -> bool {
    problem(schema, arguments).0 == ProblemCode::Unsupported
}

/// Runs `test` on a thread with the stack that a worker has.
fn on_worker_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).expect("a thread").join().expect("no overflow");
}

fn nested(levels: usize, innermost: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(innermost, |value, _| wrap(value))
}

/// Any JSON, with the words of schemas where names stand.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "$ref",
        "#",
        "#/$defs/a",
        "$defs",
        "a",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "enum",
        "const",
        "required",
        "pattern",
        "patternProperties",
        "additionalProperties",
        "$id",
        "$anchor",
        "$schema",
        "$dynamicRef",
        "$dynamicAnchor",
        "unevaluatedProperties",
        "dependentSchemas",
        "object",
        "string",
        "integer",
        "^a+$",
        "(?=a)*",
        "http://json-schema.org/draft-07/schema#",
        "http://x/#f",
        "#a",
        "minimum",
        "multipleOf",
        "uniqueItems",
        "contains",
        "prefixItems",
        "propertyNames",
        "format",
        "regex",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        word.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn anything_is_a_verdict(schema in any_json(), arguments in any_json(), assert_format: bool) {
        let formats = if assert_format { Formats::Assert } else { Formats::Annotate };
        let schema = Schema::new(&schema.to_string(), formats);
        let check = schema.check(&arguments);
        prop_assert_eq!(&check, &schema.check(&arguments));
        if let Check::Invalid(violations) = check {
            prop_assert!(!violations.is_empty() && violations.len() <= MAX_VIOLATIONS);
            for violation in violations {
                prop_assert!(arguments.pointer(&violation.pointer).is_some(), "{:?}", violation);
            }
        }
        let mut text = String::new();
        let _ = write!(text, "{:?}", schema.declared("a"));
    }

    #[test]
    fn any_text_is_a_verdict(text in ".{0,40}", pattern in "[(?=!<>:)\\[\\]{}0-9,a-c|*+.\\\\^$kpPdDwWsS-]{0,24}") {
        let _ = Schema::new(&text, Formats::Annotate).check(&json!({}));
        let schema = json!({"properties": {"x": {"pattern": pattern}}, "patternProperties": {pattern.clone(): {"type": "string"}}});
        let schema = Schema::new(&schema.to_string(), Formats::Assert);
        let _ = (schema.check(&json!({"x": "aabbcc", "a": text})), schema.declared("x"));
    }
}
