//! Schemas and arguments grown from bytes, so that a mutated byte is another keyword and never a syntax error. In:
//! bytes; out: a schema, and arguments that have a chance to meet it.

use serde_json::{Map, Value, json};

const MAX_DEPTH: usize = 5;
const NAMES: [&str; 6] = ["a", "b", "ab", "é", "$ref", "a/b~c"];
const STRINGS: [&str; 8] =
    ["", "a", "ab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "é", "2025-01-01", "x@y.z", "\u{0}\u{1F600}"];
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
const PATTERNS: [&str; 10] =
    ["^a", "b$", "^(a+)+$", "(?=a)a", "[", "\\p{L}+", "^.{2,8}$", "(a|a)*b", "(?<=a)b\\1", "a{1000}{1000}"];
const REFERENCES: [&str; 7] =
    ["#", "#/$defs/a", "#/properties/a", "#/$defs/b", "#anchor", "http://example.org/s.json", "#/nowhere"];
const DRAFTS: [&str; 6] = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
    "http://example.org/dialect",
];
const LIMITS: [f64; 8] = [0.0, 1.0, 2.0, 3.0, -1.0, 0.1, 1e308, 4_294_967_296.0];

/// Bytes that are used up as they decide; zeros behind their end, so that everything grown is finite.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() % from.len()]
    }
}

/// A schema.
pub fn schema(bytes: &mut Bytes<'_>) -> Value {
    let mut schema = subschema(bytes, 0);
    if let Value::Object(members) = &mut schema {
        if bytes.next() % 4 == 1 {
            members.insert("$schema".to_owned(), json!(bytes.pick(&DRAFTS)));
        }
        if bytes.next() % 2 == 1 {
            members.insert("$defs".to_owned(), json!({"a": subschema(bytes, 1), "b": subschema(bytes, 1)}));
        }
    }
    schema
}

/// Arguments; an object, as a call has them.
pub fn arguments(bytes: &mut Bytes<'_>) -> Value {
    Value::Object(object(bytes, 0))
}

fn subschema(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    if depth >= MAX_DEPTH {
        return json!(true);
    }
    let mut members = Map::new();
    for _ in 0..1 + bytes.next() % 4 {
        let (keyword, value) = keyword(bytes, depth + 1);
        members.insert(keyword.to_owned(), value);
    }
    Value::Object(members)
}

fn keyword(bytes: &mut Bytes<'_>, depth: usize) -> (&'static str, Value) {
    let single = ["not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames"];
    let looser = ["unevaluatedProperties", "unevaluatedItems", "additionalItems", "contentSchema"];
    let several = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
    let keyed = ["properties", "patternProperties", "dependentSchemas", "definitions", "dependencies"];
    let bounds = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
    let sizes = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains"];
    match bytes.next() % 14 {
        0 => ("type", json!(bytes.pick(&TYPES))),
        1 => ("type", json!([bytes.pick(&TYPES), bytes.pick(&TYPES)])),
        2 => (bytes.pick(&single), subschema(bytes, depth)),
        3 => (bytes.pick(&looser), subschema(bytes, depth)),
        4 => (bytes.pick(&several), json!([subschema(bytes, depth), subschema(bytes, depth)])),
        5 => {
            let (keyword, name) = (bytes.pick(&keyed), bytes.pick(&NAMES));
            let name = if keyword == "patternProperties" { bytes.pick(&PATTERNS) } else { name };
            (keyword, json!({name: subschema(bytes, depth)}))
        }
        6 => (bytes.pick(&bounds), json!(bytes.pick(&LIMITS))),
        7 => (bytes.pick(&sizes), json!(bytes.next() % 4)),
        8 => ("pattern", json!(bytes.pick(&PATTERNS))),
        9 => (bytes.pick(&["$ref", "$dynamicRef", "$recursiveRef"]), json!(bytes.pick(&REFERENCES))),
        10 => (bytes.pick(&["$id", "$anchor", "$dynamicAnchor"]), json!(bytes.pick(&["anchor", "a", "http://x.y/"]))),
        11 => ("enum", json!([value(bytes, depth), value(bytes, depth)])),
        12 => (bytes.pick(&["const", "default", "required", "uniqueItems"]), value(bytes, depth)),
        _ => ("format", json!(bytes.pick(&["date", "email", "regex", "uri", "no-format"]))),
    }
}

fn object(bytes: &mut Bytes<'_>, depth: usize) -> Map<String, Value> {
    (0..bytes.next() % 4).map(|_| (bytes.pick(&NAMES).to_owned(), value(bytes, depth + 1))).collect()
}

fn value(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    match bytes.next() % 7 {
        0 => Value::Null,
        1 => json!(bytes.next() % 2 == 1),
        2 => json!(bytes.next()),
        3 => json!(bytes.pick(&LIMITS)),
        4 => json!(bytes.pick(&STRINGS)),
        5 if depth < MAX_DEPTH => (0..bytes.next() % 5).map(|_| value(bytes, depth + 1)).collect(),
        6 if depth < MAX_DEPTH => Value::Object(object(bytes, depth)),
        _ => json!("a"),
    }
}
