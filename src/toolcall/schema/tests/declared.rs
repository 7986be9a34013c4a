//! Rules X2 and X3: the types that a schema declares for a parameter.

use super::*;

const NONE: Declared = Declared::EMPTY;

#[test]
fn x2_types_come_from_everywhere() {
    let schema = schema(&json!({
        "$defs": {"count": {"type": "integer"}, "either": {"oneOf": [{"$ref": "#/$defs/count"}, {"type": "null"}]}},
        "properties": {
            "single": {"type": "string"},
            "list": {"type": ["integer", "null"]},
            "enum": {"enum": ["a", 1, 1.5, null, true, [], {}]},
            "const": {"const": 3},
            "any": {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
            "all": {"allOf": [{"type": "array"}, {"minItems": 1}]},
            "ref": {"$ref": "#/$defs/either"},
            "not": {"not": {"type": "string"}},
            "free": true
        },
        "patternProperties": {"^x_": {"type": "object"}, "_n$": {"type": "number"}},
        "additionalProperties": {"type": "boolean"}
    }));
    let all =
        Declared::NULL | Declared::BOOLEAN | Declared::INTEGER | Declared::NUMBER | Declared::OBJECT | Declared::ARRAY;
    let expected = [
        ("single", Declared::STRING),
        ("list", Declared::INTEGER | Declared::NULL),
        ("enum", all | Declared::STRING),
        ("const", Declared::INTEGER),
        ("any", Declared::NUMBER | Declared::BOOLEAN),
        ("all", Declared::ARRAY),
        ("ref", Declared::INTEGER | Declared::NULL),
        ("not", NONE),
        ("free", NONE),
        ("x_a", Declared::OBJECT),
        ("x_n", Declared::OBJECT | Declared::NUMBER),
        ("other", NONE),
    ];
    for (parameter, types) in expected {
        assert_eq!(schema.declared(parameter), types, "{parameter}");
    }
}

#[test]
fn x2_the_object_itself_may_be_composed() {
    let schema = schema(&json!({"$ref": "#/$defs/a", "allOf": [{"properties": {"y": {"type": "integer"}}}],
        "$defs": {"a": {"properties": {"x": {"type": "string"}, "y": {"type": "null"}}}}}));
    assert_eq!(schema.declared("x"), Declared::STRING);
    assert_eq!(schema.declared("y"), Declared::INTEGER | Declared::NULL);
}

#[test]
fn x3_unusable_schemas_declare_nothing() {
    for broken in [json!({"properties": {"x": {"type": "strin"}}}), json!({"$ref": "#"}), json!(true), json!(5)] {
        assert_eq!(schema(&broken).declared("x"), NONE);
    }
    let cyclic = json!({"properties": {"x": {"type": "array", "items": {"$ref": "#"}}}});
    assert_eq!(schema(&cyclic).declared("x"), Declared::ARRAY);
}

#[test]
fn x2_a_schema_that_is_wrong_elsewhere_still_says_its_types() {
    let schema =
        schema(&json!({"properties": {"n": {"type": "integer"}, "x": {"type": "float"}, "y": {"$ref": "#/a"}}}));
    assert!(schema.problem().is_some());
    assert_eq!(schema.declared("n"), Declared::INTEGER);
    assert_eq!([schema.declared("x"), schema.declared("y"), schema.declared("z")], [Declared::EMPTY; 3]);
}
