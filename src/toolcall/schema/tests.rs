//! The rules V1 to V8 and X2 on the drafts, and hostile schemas.

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

mod rules {
    use super::*;

    const DRAFTS: [&str; 5] = [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ];

    #[test]
    fn v1_the_default_is_2020_12() {
        let tuple = json!({"properties": {"x": {"prefixItems": [{"type": "integer"}], "items": false}}});
        assert!(valid(&tuple, &json!({"x": [1]})));
        assert!(!valid(&tuple, &json!({"x": ["a"]})));
        assert!(!valid(&tuple, &json!({"x": [1, 2]})));
        let dependent = json!({"dependentRequired": {"a": ["b"]}});
        assert!(!valid(&dependent, &json!({"a": 1})));
    }

    #[test]
    fn v1_all_drafts_by_their_uri() {
        for uri in DRAFTS {
            let object = json!({"$schema": uri, "type": "object", "required": ["q"],
                "properties": {"q": {"type": "string", "minLength": 2}}, "additionalProperties": false});
            assert!(valid(&object, &json!({"q": "ab"})), "{uri}");
            for broken in [json!({}), json!({"q": 1}), json!({"q": "a"}), json!({"q": "ab", "r": 1}), json!([])] {
                assert!(!valid(&object, &broken), "{uri}: {broken}");
            }
        }
        // Draft 4 spells exclusive bounds as a boolean, later ones as a number.
        let four = json!({"$schema": DRAFTS[0], "properties": {"n": {"minimum": 1, "exclusiveMinimum": true}}});
        assert!(!valid(&four, &json!({"n": 1})));
        let six = json!({"$schema": DRAFTS[1], "properties": {"n": {"exclusiveMinimum": 1}}});
        assert!(!valid(&six, &json!({"n": 1})));
        let seven = json!({"$schema": DRAFTS[2], "if": {"required": ["a"]}, "then": {"required": ["b"]}});
        assert!(!valid(&seven, &json!({"a": 1})) && valid(&seven, &json!({})));
        let array_items = json!({"$schema": DRAFTS[3], "properties": {"x": {"items": [{"type": "integer"}]}}});
        assert!(!valid(&array_items, &json!({"x": ["a"]})));
    }

    #[test]
    fn v1_an_unknown_draft_is_invalid() {
        let unknown = json!({"$schema": "https://example.com/my-dialect", "type": "object"});
        assert_eq!(problem(&unknown, &json!({})), (ProblemCode::Invalid, "/$schema".into()));
    }

    #[test]
    fn v2_format_is_an_annotation_unless_asserted() {
        for uri in DRAFTS {
            let mail = json!({"$schema": uri, "properties": {"to": {"format": "email"}}}).to_string();
            let arguments = json!({"to": "nobody"});
            assert_eq!(Schema::new(&mail, Formats::Annotate).check(&arguments), Check::Valid, "{uri}");
            assert!(matches!(Schema::new(&mail, Formats::Assert).check(&arguments), Check::Invalid(_)), "{uri}");
            let right = json!({"to": "a@example.com"});
            assert_eq!(Schema::new(&mail, Formats::Assert).check(&right), Check::Valid, "{uri}");
        }
        let unknown = Schema::new(r#"{"properties": {"x": {"format": "no-such"}}}"#, Formats::Assert);
        assert_eq!(unknown.check(&json!({"x": "?"})), Check::Valid);
    }

    #[test]
    fn v3_patterns_search_anywhere() {
        let digits = json!({"properties": {"x": {"pattern": "[0-9]{2}"}}});
        assert!(valid(&digits, &json!({"x": "ab12cd"})));
        assert!(!valid(&digits, &json!({"x": "ab1c2d"})));
        assert!(valid(&digits, &json!({"x": 5})), "a pattern is for strings only");
    }

    #[test]
    fn v3_patterns_are_ecma_262() {
        let pattern =
            |pattern: &str, text: &str| valid(&json!({"properties": {"x": {"pattern": pattern}}}), &json!({"x": text}));
        assert!(!pattern(r"^\d$", "\u{0663}"), "digits are ASCII");
        assert!(!pattern(r"^\w$", "é"), "words are ASCII");
        assert!(pattern(r"^\s$", "\u{feff}"), "white space is Unicode's");
        assert!(!pattern("^a$", "a\n"), "the end is the end");
        assert!(pattern(r"^\p{L}+$", "éß"));
        assert!(pattern(r"^\/api\/", "/api/x"));
        assert!(pattern(r"\cA", "\u{1}"));
        assert!(pattern("^(?!admin)[a-z]+$", "user") && !pattern("^(?!admin)[a-z]+$", "admins"));
        assert!(pattern(r"^(a+)-\1$", "aa-aa") && !pattern(r"^(a+)-\1$", "aa-a"));
        assert!(pattern(r"(?<=\$)\d+", "cost $5") && !pattern(r"(?<=\$)\d+", "cost 5"));
    }

    #[test]
    fn v3_a_broken_pattern_makes_the_schema_invalid() {
        for broken in ["(", "[a", "a{2,1}", "*a"] {
            let (code, pointer) = problem(&json!({"properties": {"x": {"pattern": broken}}}), &json!({}));
            assert_eq!((code, pointer.as_str()), (ProblemCode::Invalid, "/properties/x/pattern"), "{broken}");
        }
    }

    #[test]
    fn v4_numbers_compare_by_value() {
        for uri in &DRAFTS[1..] {
            let integer = json!({"$schema": uri, "properties": {"n": {"type": "integer"}}});
            for (text, expected) in [
                ("1", true),
                ("1.0", true),
                ("1e3", true),
                ("1.5", false),
                ("true", false),
                ("18446744073709551615", true),
                ("1e25", true),
            ] {
                let arguments: Value = serde_json::from_str(&format!("{{\"n\": {text}}}")).expect("JSON");
                assert_eq!(valid(&integer, &arguments), expected, "{uri}: {text}");
            }
        }
        let one = json!({"properties": {"n": {"enum": [1]}, "m": {"const": 1.0}, "u": {"uniqueItems": true}}});
        assert!(valid(&one, &json!({"n": 1.0, "m": 1, "u": [1, true, "1"]})));
        assert!(
            !valid(&one, &json!({"n": true})) && !valid(&one, &json!({"m": true})) && !valid(&one, &json!({"n": "1"}))
        );
        assert!(!valid(&one, &json!({"u": [1, 1.0]})));
        assert!(!valid(&one, &json!({"u": [{"a": 1}, {"a": 1.0}]})));
        let zero = json!({"properties": {"n": {"enum": [false, []]}}});
        assert!(!valid(&zero, &json!({"n": 0})) && valid(&zero, &json!({"n": false})));
    }

    #[test]
    fn v5_local_references_resolve() {
        let cases = [
            json!({"$defs": {"s": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/s"}}}),
            json!({"definitions": {"s": {"type": "string"}}, "properties": {"x": {"$ref": "#/definitions/s"}}}),
            json!({"$defs": {"s": {"$anchor": "here", "type": "string"}}, "properties": {"x": {"$ref": "#here"}}}),
            json!({"$defs": {"s": {"$dynamicAnchor": "here", "type": "string"}}, "properties": {"x": {"$dynamicRef": "#here"}}}),
            json!({"$defs": {"a/b~c": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a~1b~0c"}}}),
            json!({"$defs": {"a b%": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a%20b%25"}}}),
            json!({"properties": {"x": {"$ref": "#/properties/y"}, "y": {"type": "string"}}}),
            json!({"anything": {"s": {"type": "string"}}, "properties": {"x": {"$ref": "#/anything/s"}}}),
            json!({"$id": "https://example.com/a", "$defs": {"s": {"type": "string"}},
                "properties": {"x": {"$ref": "https://example.com/a#/$defs/s"}}}),
            json!({"$id": "https://example.com/a", "$defs": {"s": {"$id": "b", "type": "string"}}, "properties": {"x": {"$ref": "b"}}}),
            json!({"$schema": DRAFTS[2], "definitions": {"s": {"$id": "#here", "type": "string"}}, "properties": {"x": {"$ref": "#here"}}}),
            json!({"$schema": DRAFTS[0], "definitions": {"s": {"id": "#here", "type": "string"}}, "properties": {"x": {"$ref": "#here"}}}),
        ];
        for case in &cases {
            assert!(valid(case, &json!({"x": "a", "y": "b"})), "{case}");
            assert!(!valid(case, &json!({"x": 1})), "{case}");
        }
    }

    #[test]
    fn v5_keywords_beside_a_reference_apply() {
        let beside =
            json!({"$defs": {"s": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/s", "minLength": 2}}});
        assert!(
            !valid(&beside, &json!({"x": "a"}))
                && !valid(&beside, &json!({"x": 12}))
                && valid(&beside, &json!({"x": "ab"}))
        );
    }

    #[test]
    fn v5_remote_references_are_invalid_and_never_fetched() {
        for reference in [
            "https://example.com/schema.json",
            "http://127.0.0.1:1/x",
            "file:///etc/passwd",
            "other.json",
            "other.json#/a",
            "urn:x:y",
            "https://json-schema.org/draft/2020-12/schema",
            "http://json-schema.org/draft-07/schema#/definitions/nonNegativeInteger",
        ] {
            let (code, _) = problem(&json!({"properties": {"x": {"$ref": reference}}}), &json!({}));
            assert_eq!(code, ProblemCode::Invalid, "{reference}");
        }
        for reference in ["#/$defs/none", "#none", "#/properties/x/0/1", "::", "%"] {
            let (code, _) = problem(&json!({"properties": {"x": {"$ref": reference}}}), &json!({}));
            assert_eq!(code, ProblemCode::Invalid, "{reference}");
        }
        // Nothing is fetched for a definition that nobody uses either.
        let unused = json!({"$defs": {"s": {"$ref": "https://example.com/x"}}});
        assert_eq!(problem(&unused, &json!({})).0, ProblemCode::Invalid);
    }

    #[test]
    fn v6_unknown_keywords_are_ignored() {
        let schema = json!({"type": "object", "x-order": 1, "properties": {
            "x": {"type": "string", "nullable": true, "example": 5, "discriminator": {"propertyName": "k"}, "strict": []}}});
        assert!(valid(&schema, &json!({"x": "a"})));
        assert!(!valid(&schema, &json!({"x": null})), "nullable is not a keyword");
    }

    #[test]
    fn v7_defaults_are_not_applied() {
        let schema = json!({"required": ["x"], "properties": {"x": {"default": 1}}});
        assert!(!valid(&schema, &json!({})));
        assert!(valid(&json!({"properties": {"x": {"type": "string", "default": 1}}}), &json!({})));
    }

    #[test]
    fn v8_lengths_count_code_points() {
        let two = json!({"properties": {"x": {"minLength": 2, "maxLength": 2}}});
        for text in ["ab", "é\u{301}", "👍👍"] {
            assert!(valid(&two, &json!({"x": text})), "{text}");
        }
        for text in ["👍", "abc", "👨‍👩‍👧"] {
            assert!(!valid(&two, &json!({"x": text})), "{text}");
        }
    }

    #[test]
    fn a_schema_that_breaks_its_draft_is_invalid_with_a_pointer() {
        let cases = [
            (json!({"type": "strin"}), "/type"),
            (json!({"properties": {"x": {"minLength": -1}}}), "/properties/x/minLength"),
            (json!({"required": "x"}), "/required"),
            (json!({"properties": []}), "/properties"),
            (json!({"properties": {"x": 5}}), "/properties/x"),
            (json!({"items": {"anyOf": []}}), "/items/anyOf"),
        ];
        for (schema, pointer) in cases {
            assert_eq!(problem(&schema, &json!({})), (ProblemCode::Invalid, pointer.into()), "{schema}");
        }
        for text in ["", "{", "[]", "1", "null", "\"a\"", "{\"type\": \"\\ud800\"}", "{} {}"] {
            assert_eq!(problem_of_text(text, &json!({})).0, ProblemCode::Invalid, "{text}");
        }
    }

    #[test]
    fn violations_point_into_both_documents() {
        let schema = json!({"required": ["q"], "properties": {"a/b": {"items": {"type": "integer"}}, "e": {"enum": ["x", "y"]}}});
        let mut found = violations(&schema, &json!({"a/b": [1, "two"], "e": "z".repeat(10_000)}));
        found.sort_by(|one, other| one.pointer.cmp(&other.pointer));
        let places: Vec<_> =
            found.iter().map(|found| (found.pointer.as_str(), found.schema_pointer.as_str())).collect();
        let expected = [("", "/required"), ("/a~1b/1", "/properties/a~1b/items/type"), ("/e", "/properties/e/enum")];
        assert_eq!(places, expected);
        assert!(found.iter().all(|found| found.message.len() <= MAX_MESSAGE_BYTES + 4));
        let many = json!({"items": {"type": "integer"}});
        assert_eq!(violations(&many, &json!(vec!["a"; 100])).len(), MAX_VIOLATIONS);
    }

    #[test]
    fn recursive_schemas_work_on_finite_values() {
        let tree = json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["v"],
            "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}}});
        let list = nested(60, json!(null), |next| json!({"v": 1, "next": next}));
        assert!(valid(&tree, &list));
        let broken = nested(60, json!({"v": "one"}), |next| json!({"v": 1, "next": next}));
        assert!(!valid(&tree, &broken));
        let strict = json!({"$id": "https://example.com/strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": false,
            "$defs": {"tree": {"$id": "tree", "$dynamicAnchor": "node", "properties": {"next": {"$dynamicRef": "#node"}}}}});
        assert!(valid(&strict, &json!({"next": {"next": {}}})));
        assert!(!valid(&strict, &json!({"next": {"nxt": {}}})));
        let recursive = json!({"$schema": DRAFTS[3], "$recursiveAnchor": true, "properties": {"next": {"$recursiveRef": "#"}},
            "additionalProperties": false});
        assert!(valid(&recursive, &json!({"next": {"next": {}}})) && !valid(&recursive, &json!({"next": {"x": 1}})));
    }
}

mod declared {
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
        let all = Declared::NULL
            | Declared::BOOLEAN
            | Declared::INTEGER
            | Declared::NUMBER
            | Declared::OBJECT
            | Declared::ARRAY;
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
}

mod hostile {
    use super::*;

    #[test]
    fn cycles_that_never_descend_are_unsupported() {
        let cycles = [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"not": {"$ref": "#"}}),
            json!({"if": {"$ref": "#"}}),
            json!({"then": {"$ref": "#"}, "if": true}),
            json!({"dependentSchemas": {"a": {"$ref": "#"}}}),
            json!({"$dynamicAnchor": "a", "anyOf": [{"$dynamicRef": "#a"}]}),
            json!({"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": true, "oneOf": [{"$recursiveRef": "#"}]}),
            json!({"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            json!({"$id": "https://example.com/a", "allOf": [{"$ref": "https://example.com/a"}]}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": {"$ref": "#"}}}),
        ];
        on_worker_stack(move || {
            for cycle in &cycles {
                assert!(is_unsupported(cycle, &json!({"a": 1, "x": 1})), "{cycle}");
            }
        });
    }

    #[test]
    fn long_chains_of_references_do_not_overflow() {
        on_worker_stack(|| {
            for length in [100_usize, 900, 5000] {
                let mut definitions = serde_json::Map::new();
                for link in 0..length {
                    definitions.insert(format!("d{link}"), json!({"$ref": format!("#/$defs/d{}", link + 1)}));
                }
                definitions.insert(format!("d{length}"), json!({"type": "object", "required": ["a"]}));
                let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
                if length < 1000 {
                    assert!(valid(&schema, &json!({"a": 1})) && !valid(&schema, &json!({})));
                } else {
                    assert!(is_unsupported(&schema, &json!({})));
                }
            }
        });
    }

    #[test]
    fn deep_recursion_stays_on_the_stack() {
        on_worker_stack(|| {
            // Seven schemas nest per level: at 127 levels that is just below the limit.
            let node = json!({"allOf": [{"anyOf": [{"oneOf": [{"not": {"not": {"properties": {"n": {"$ref": "#/$defs/node"}}}}}]}]}]});
            let schema = json!({"$ref": "#/$defs/node", "$defs": {"node": node}});
            for levels in [100, 127] {
                let value = nested(levels, json!({}), |inner| json!({"n": inner}));
                match self::schema(&schema).check(&value) {
                    Check::Valid => {}
                    Check::Problem(problem) => assert_eq!(problem.code, ProblemCode::Unsupported),
                    Check::Invalid(violations) => panic!("{violations:?}"),
                }
            }
            let too_deep = nested(129, json!({}), |inner| json!({"n": inner}));
            assert!(is_unsupported(&json!({}), &too_deep));
        });
    }

    #[test]
    fn nested_schema_text_is_bounded() {
        on_worker_stack(|| {
            let open = "{\"not\":".repeat(100_000);
            assert_eq!(problem_of_text(&open, &json!({})).0, ProblemCode::Invalid);
            let closed = format!("{}true{}", "{\"allOf\":[".repeat(60), "]}".repeat(60));
            assert_eq!(Schema::new(&closed, Formats::Annotate).check(&json!({})), Check::Valid);
            let deeper = format!("{}true{}", "{\"allOf\":[".repeat(64), "]}".repeat(64));
            assert_eq!(problem_of_text(&deeper, &json!({})).0, ProblemCode::Invalid);
        });
    }

    #[test]
    fn oversized_schemas_are_unsupported() {
        let long = json!({"description": "x".repeat(limits::MAX_SCHEMA_BYTES)});
        assert!(is_unsupported(&long, &json!({})));
        let names: serde_json::Map<_, _> = (0..5000).map(|number| (number.to_string(), json!({}))).collect();
        let mut outer = serde_json::Map::new();
        outer.insert("n".repeat(100_000), json!({"properties": names}));
        assert!(is_unsupported(&json!({"properties": outer}), &json!({})));
        let ids: serde_json::Map<_, _> =
            (0..20).map(|number| (number.to_string(), json!({"$id": format!("s{number}")}))).collect();
        assert!(is_unsupported(&json!({"$defs": ids}), &json!({})));
        assert!(is_unsupported(&json!({"$id": format!("https://example.com/{}", "x".repeat(5000))}), &json!({})));
    }

    #[test]
    fn wide_schemas_compile() {
        let properties: serde_json::Map<_, _> =
            (0..10_000).map(|number| (format!("p{number}"), json!({"type": "string"}))).collect();
        let schema = json!({"properties": properties, "additionalProperties": false});
        assert!(valid(&schema, &json!({"p1": "a", "p9999": "b"})));
        assert!(!valid(&schema, &json!({"p1": 1})) && !valid(&schema, &json!({"q": 1})));
        assert_eq!(self::schema(&schema).declared("p77"), Declared::STRING);
    }

    #[test]
    fn exponential_schemas_are_bounded() {
        on_worker_stack(|| {
            // Each level applies the next one twice: 2^40 evaluations without a bound.
            let mut definitions = serde_json::Map::new();
            for level in 0..40 {
                let next = format!("#/$defs/d{}", level + 1);
                definitions.insert(format!("d{level}"), json!({"anyOf": [{"$ref": next}, {"$ref": next}]}));
            }
            definitions.insert("d40".into(), json!({"type": "string"}));
            let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
            assert!(is_unsupported(&schema, &json!({})));
            // The same through the levels of the value, and through tracking what was evaluated.
            let recursive = json!({"allOf": [{"properties": {"n": {"$ref": "#"}}}, {"properties": {"n": {"$ref": "#"}}}], "required": ["v"]});
            let value = nested(100, json!({}), |inner| json!({"n": inner, "v": 1}));
            assert!(is_unsupported(&recursive, &value));
            let tracking = json!({"allOf": [{"properties": {"n": {"$ref": "#"}}}, {"properties": {"n": {"$ref": "#"}}}], "unevaluatedProperties": false});
            assert!(is_unsupported(&tracking, &value));
        });
    }

    #[test]
    fn v3_catastrophic_patterns_are_unsupported() {
        for pattern in [r"^(?=(a+)+$)b", r"(?=a)(a*)*\1b", r"^(([a-z])+.)+[A-Z]([a-z])+$(?!x)", r"^(?:a|a|b)*(?<!x)c$"]
        {
            let schema = json!({"properties": {"x": {"pattern": pattern}}});
            let text = "a".repeat(3000);
            match self::schema(&schema).check(&json!({"x": text})) {
                Check::Invalid(_) | Check::Valid => {}
                Check::Problem(problem) => assert_eq!(problem.code, ProblemCode::Unsupported),
            }
        }
        let given_up = r"^(?:a|aa)+(?!.)b";
        for schema in [
            json!({"properties": {"x": {"pattern": given_up}}}),
            json!({"properties": {"x": {"not": {"pattern": given_up}}}}),
            json!({"properties": {"x": {"oneOf": [{"pattern": given_up}, {"type": "integer"}]}}}),
            json!({"properties": {"x": {"if": {"pattern": given_up}, "then": false}}}),
        ] {
            assert!(is_unsupported(&schema, &json!({"x": "a".repeat(40)})), "{schema}");
        }
        // Where the verdict does not hang on it, it does not matter.
        let beside = json!({"properties": {"x": {"anyOf": [{"pattern": given_up}, {"type": "string"}]}}});
        assert!(valid(&beside, &json!({"x": "a".repeat(40)})));
        // A linear engine decides this one.
        assert!(!valid(&json!({"properties": {"x": {"pattern": "^(a+)+$"}}}), &json!({"x": "a".repeat(5000) + "b"})));
    }

    #[test]
    fn v3_huge_repetitions_are_unsupported() {
        for pattern in ["a{1000}{1000}{1000}", "((a{100}){100}){100}", r"(\p{L}{100}){100}", "(?=(a{999}){999})"] {
            let (code, pointer) = problem(&json!({"properties": {"x": {"pattern": pattern}}}), &json!({}));
            assert_eq!((code, pointer.as_str()), (ProblemCode::Unsupported, "/properties/x"), "{pattern}");
            let (code, _) = problem(&json!({"patternProperties": {pattern: {}}}), &json!({}));
            assert_eq!(code, ProblemCode::Unsupported, "{pattern}");
        }
        let many: serde_json::Map<_, _> =
            (0..50).map(|number| (number.to_string(), json!({"pattern": format!("(ab{number}){{5000}}")}))).collect();
        assert!(is_unsupported(&json!({"properties": many}), &json!({})));
        assert!(valid(&json!({"properties": {"x": {"pattern": "^.{1,5000}$"}}}), &json!({"x": "abc".repeat(1000)})));
        assert!(is_unsupported(&json!({"properties": {"x": {"pattern": ".".repeat(4096)}}}), &json!({})));
    }

    #[test]
    fn large_arguments_are_decided() {
        let unique = json!({"properties": {"x": {"uniqueItems": true}}});
        let numbers: Vec<_> = (0..100_000).collect();
        assert!(valid(&unique, &json!({"x": numbers})));
        // Nested arrays all hash alike, so only comparing would tell them apart.
        let pairs: Vec<_> = (0..20_000).map(|number| json!([[number]])).collect();
        assert!(is_unsupported(&unique, &json!({"x": pairs})));
        let typed = json!({"properties": {"x": {"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}});
        assert!(!valid(&typed, &json!({"x": vec![1; 200_000]})));
        let text = "x".repeat(1 << 20);
        let keyed = json!({(text.as_str()): vec![1; 1000]});
        assert!(!valid(&json!({"additionalProperties": {"items": {"type": "string"}}}), &keyed));
        assert!(valid(&json!({"properties": {"x": {"type": "string", "minLength": 1}}}), &json!({"x": text})));
    }

    #[test]
    fn ordinary_large_arguments_are_no_problem() {
        let write_file = json!({"type": "object", "required": ["path", "content"], "additionalProperties": false, "properties": {
            "path": {"type": "string", "pattern": r"^(?!.*\.\.)[\w./-]+$", "maxLength": 4096},
            "content": {"type": "string"},
            "mode": {"enum": ["w", "a"], "default": "w"}}});
        let content = "let x = 1;\n".repeat(30_000);
        assert!(valid(&write_file, &json!({"path": "src/main.rs", "content": content})));
        let found = violations(&write_file, &json!({"path": "../main.rs", "content": content, "mode": "x"}));
        let places: Vec<_> = found.iter().map(|found| found.pointer.as_str()).collect();
        assert_eq!(places, ["/mode", "/path"]);
        let rows: Vec<_> =
            (0..2000).map(|id| json!({"id": id, "tags": ["a", "b"], "at": {"x": 1.5, "y": id}})).collect();
        let table = json!({"properties": {"rows": {"type": "array", "items": {"type": "object", "required": ["id"],
            "properties": {"id": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}},
                "at": {"$ref": "#/$defs/point"}}}}}, "$defs": {"point": {"properties": {"x": {"type": "number"}, "y": {"type": "number"}}}}});
        assert!(valid(&table, &json!({"rows": rows})));
        let flat: Vec<_> = (0..2000).map(|id| json!({"id": id, "name": "n"})).collect();
        assert!(valid(&json!({"properties": {"x": {"uniqueItems": true}}}), &json!({"x": flat})));
        let filter = json!({"$ref": "#/$defs/filter", "$defs": {"filter": {"anyOf": [
            {"required": ["and"], "properties": {"and": {"items": {"$ref": "#/$defs/filter"}}}},
            {"required": ["or"], "properties": {"or": {"items": {"$ref": "#/$defs/filter"}}}},
            {"required": ["not"], "properties": {"not": {"$ref": "#/$defs/filter"}}},
            {"required": ["field"], "properties": {"field": {"type": "string"}}}]}}});
        let query =
            nested(5, json!({"field": "a"}), |inner| json!({"and": [inner, {"or": [{"not": {"field": "b"}}]}]}));
        assert!(valid(&filter, &query));
    }

    #[test]
    fn every_list_of_alternatives_is_in_the_cost() {
        let alternatives: Vec<_> = (0..5000).map(|number| json!({"required": [format!("r{number}")]})).collect();
        let schema = json!({"properties": {"x": {"items": {"oneOf": alternatives}}}});
        assert!(!valid(&schema, &json!({"x": [{}]})));
        assert!(is_unsupported(&schema, &json!({"x": vec![json!({}); 5000]})));
    }
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
