//! The leaderboard's functions as tools of the native request: their names as models write them, their parameters as JSON
//! Schema.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::turn::plain_name;
use crate::trajectory::MAX_REFERENCE_CALLS;

/// Functions as tools. What the reference calls have is allowed: the leaderboard's truths have values that its own schemas do
/// not.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_models_write() {
        let mut functions =
            json!([{"name": "math.add", "parameters": {"type": "dict", "properties": {"name": {"type": "string"}}}}]);
        as_tools(&mut functions, &[]);
        assert_eq!(
            (&functions[0]["name"], &functions[0]["parameters"]["type"]),
            (&json!("math_add"), &json!("object"))
        );
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
