//! Schemas and arguments made to hang, overflow or exhaust, and large ones that are not.

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
    for pattern in [r"^(?=(a+)+$)b", r"(?=a)(a*)*\1b", r"^(([a-z])+.)+[A-Z]([a-z])+$(?!x)", r"^(?:a|a|b)*(?<!x)c$"] {
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
    let rows: Vec<_> = (0..2000).map(|id| json!({"id": id, "tags": ["a", "b"], "at": {"x": 1.5, "y": id}})).collect();
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
    let query = nested(5, json!({"field": "a"}), |inner| json!({"and": [inner, {"or": [{"not": {"field": "b"}}]}]}));
    assert!(valid(&filter, &query));
}

#[test]
fn every_list_of_alternatives_is_in_the_cost() {
    let alternatives: Vec<_> = (0..5000).map(|number| json!({"required": [format!("r{number}")]})).collect();
    let schema = json!({"properties": {"x": {"items": {"oneOf": alternatives}}}});
    assert!(!valid(&schema, &json!({"x": [{}]})));
    assert!(is_unsupported(&schema, &json!({"x": vec![json!({}); 5000]})));
}
