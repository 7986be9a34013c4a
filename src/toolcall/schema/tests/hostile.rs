//! Schemas and arguments made to hang, overflow or exhaust, and large ones that are not.

use super::rules::DRAFTS;
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

/// Definitions `d0` to `d{length}`, each made from the reference to the next; the root refers to the first.
fn chain(length: usize, link: impl Fn(&Value) -> Value, mut root: Value) -> Value {
    let definitions: serde_json::Map<_, _> = (0..length)
        .map(|at| (format!("d{at}"), link(&json!({"$ref": format!("#/$defs/d{}", at + 1)}))))
        .chain([(format!("d{length}"), json!({"properties": {"a": {"type": "integer"}}}))])
        .collect();
    root["$ref"] = json!("#/$defs/d0");
    root["$defs"] = definitions.into();
    root
}

#[test]
fn tracking_through_references_stays_on_the_stack_and_ends() {
    let links: [fn(&Value) -> Value; 6] = [
        |next| next.clone(),
        |next| json!({"allOf": [next]}),
        |next| json!({"dependentSchemas": {"a": next}}),
        |next| json!({"if": next, "then": next, "else": true}),
        |next| json!({"allOf": [next, next]}),
        |next| json!({"allOf": [next], "unevaluatedProperties": {"$ref": "#/$defs/d0"}}),
    ];
    on_worker_stack(move || {
        for (link, keyword) in
            links.iter().flat_map(|link| [(link, "unevaluatedProperties"), (link, "unevaluatedItems")])
        {
            for length in [2, 8, 60, 120, 300, 1000, 3000] {
                let schema = self::schema(&chain(length, link, json!({keyword: false})));
                match schema.check(&json!({"a": 1})) {
                    Check::Problem(problem) => {
                        assert_eq!(problem.code, ProblemCode::Unsupported, "{problem}");
                        assert!(length > 2, "{problem}");
                        // A fault of the schema, whatever the arguments, or too much for these.
                        let of_arguments = || problem.message.contains("checking these arguments");
                        assert!(schema.problem().map_or_else(of_arguments, |found| *found == problem), "{problem}");
                    }
                    check => assert_eq!(check, Check::Valid),
                }
            }
        }
    });
}

#[test]
fn ways_through_tracked_definitions_are_counted() {
    on_worker_stack(|| {
        let twice = |next: &Value| json!({"allOf": [next, next], "unevaluatedProperties": false});
        assert!(is_unsupported(&chain(14, twice, json!({})), &json!({})));
        let mut wide = chain(3, |next| json!({"allOf": [next, next]}), json!({}));
        let tracked = json!({"$ref": "#/$defs/d0", "unevaluatedProperties": false});
        for (properties, supported) in [(5, true), (200, false)] {
            let properties = (0..properties).map(|at| (format!("p{at}"), tracked.clone()));
            wide["properties"] = properties.collect::<serde_json::Map<_, _>>().into();
            assert_eq!(self::schema(&wide).problem().is_none(), supported);
        }
        // What people write: objects in objects, each closed, and a base that is extended.
        let closed = nested(
            20,
            json!({"type": "string"}),
            |inner| json!({"allOf": [{"$ref": "#/$defs/base"}], "properties": {"n": inner}, "unevaluatedProperties": false}),
        );
        let schema =
            json!({"properties": {"x": closed}, "$defs": {"base": {"properties": {"id": {"type": "integer"}}}}});
        assert!(valid(&schema, &json!({"x": {"id": 1, "n": {"id": 2}}})));
        assert!(!valid(&schema, &json!({"x": {"id": 1, "n": {"id": 2, "m": 3}}})));
    });
}

/// The compiler nests nine targets of references, each as deep as a text can be.
#[test]
fn deep_definitions_that_refer_to_each_other_stay_on_the_stack() {
    on_worker_stack(|| {
        for keyword in ["additionalProperties", "items", "contains", "not"] {
            for (deep, length) in [(60, 3), (60, 12), (110, 12), (120, 40)] {
                let definition = |next: &Value| nested(deep, next.clone(), |inner| json!({keyword: inner}));
                let tracked = |next: &Value| {
                    nested(deep, next.clone(), |inner| json!({keyword: inner, "unevaluatedProperties": false}))
                };
                for schema in [chain(length, definition, json!({})), chain(length, tracked, json!({}))] {
                    match self::schema(&schema).check(&json!({"a": {}})) {
                        Check::Problem(problem) => assert_eq!(problem.code, ProblemCode::Unsupported, "{problem}"),
                        Check::Valid | Check::Invalid(_) => {}
                    }
                }
            }
        }
    });
}

#[test]
fn dynamic_references_times_anchors_are_bounded() {
    let named = |n: usize, anchor: Value, reference: Value| {
        let anchors: serde_json::Map<_, _> = (0..n).map(|at| (format!("a{at}"), anchor.clone())).collect();
        let properties: serde_json::Map<_, _> = (0..n).map(|at| (format!("p{at}"), reference.clone())).collect();
        json!({"$defs": anchors, "properties": properties})
    };
    let dynamic = |n| named(n, json!({"$dynamicAnchor": "a"}), json!({"$dynamicRef": "#a"}));
    let mut recursive = named(2000, json!({"$recursiveAnchor": true}), json!({"$recursiveRef": "#"}));
    recursive["$schema"] = json!("https://json-schema.org/draft/2019-09/schema");
    assert!(is_unsupported(&dynamic(2000), &json!({})) && is_unsupported(&recursive, &json!({})));
    assert!(valid(&dynamic(20), &json!({"p3": 1})));
}

/// Whatever the order in which the compiler comes to them.
#[test]
fn ways_through_documents_are_counted() {
    on_worker_stack(|| {
        // By the name of the outer document, from inside of another one.
        let through_the_root = |n: usize| {
            let link = |at: usize| {
                let next = |step: usize| json!({"$ref": format!("root#/$defs/a/$defs/k{}", at + step)});
                (format!("k{at}"), json!({"properties": {"x": next(1), "y": next(2)}}))
            };
            let links: serde_json::Map<_, _> =
                (0..n).map(link).chain([0, 1].map(|end| (format!("k{}", n + end), json!(true)))).collect();
            json!({"$id": "https://example.com/root", "$ref": "a#/$defs/k0", "$defs": {"a": {"$id": "a", "$defs": links}}})
        };
        assert!(valid(&through_the_root(5), &json!({"x": {"y": 1}})));
        assert!(is_unsupported(&through_the_root(300), &json!({})));
        // A node that is reached first on one way, and compiled again behind another.
        let names = ["a", "b", "c", "d"];
        let levels = |count: usize| -> serde_json::Map<String, Value> {
            let refer = |at: usize| {
                let next = |name: &str| (name.to_owned(), json!({"$ref": format!("{name}.json#/$defs/l{}", at + 1)}));
                let back = ("back".to_owned(), json!({"$ref": "https://example.com/#/$defs/X"}));
                json!({"properties": names.iter().map(|name| next(name)).chain([back]).collect::<serde_json::Map<_, _>>()})
            };
            (0..count).map(|at| (format!("l{at}"), refer(at))).chain([(format!("l{count}"), json!(true))]).collect()
        };
        let grid = |count: usize| {
            let mut defs: serde_json::Map<_, _> = names
                .iter()
                .map(|name| ((*name).to_owned(), json!({"$id": format!("{name}.json"), "$defs": levels(count)})))
                .collect();
            defs.insert("P1".into(), json!({"properties": {"p": {"$ref": "#/$defs/P2"}}}));
            defs.insert("P2".into(), json!({"properties": {"p": {"$ref": "a.json#/$defs/l0"}}}));
            defs.insert("X".into(), json!({"properties": {"p": {"$ref": "a.json#/$defs/l0"}}}));
            json!({"$id": "https://example.com/", "properties": {"a": {"$ref": "#/$defs/P1"}, "z": {"$ref": "#/$defs/X"}}, "$defs": defs})
        };
        assert!(is_unsupported(&grid(3), &json!({})));
    });
}

#[test]
fn data_with_ids_costs_nothing_much() {
    let rows = |n: usize| -> Vec<Value> { (0..n).map(|at| json!({"$id": format!("u{at}")})).collect() };
    assert!(valid(&json!({"properties": {"x": {"enum": rows(4000)}}}), &json!({"x": {"$id": "u7"}})));
    assert!(is_unsupported(&json!({"properties": {"x": {"enum": rows(5000)}}}), &json!({})));
}

#[test]
fn references_from_one_id_to_another_are_counted() {
    on_worker_stack(|| {
        let resource = |name: &str, other: &str, links: usize| {
            let link = |at: usize| (format!("k{at}"), json!({"$ref": format!("{other}#/$defs/k{}", at + 1)}));
            let links: serde_json::Map<_, _> =
                (0..links).map(link).chain([(format!("k{links}"), json!(true))]).collect();
            json!({"$id": name, "$defs": links})
        };
        let both = |links| {
            let (a, b) = (resource("a.json", "b.json", links), resource("b.json", "a.json", links));
            let properties: serde_json::Map<_, _> =
                (0..links).map(|at| (format!("p{at}"), json!({"$ref": format!("a.json#/$defs/k{at}")}))).collect();
            json!({"$id": "https://example.com/", "properties": properties, "$defs": {"a": a, "b": b}})
        };
        assert!(valid(&both(5), &json!({"p0": 1})));
        assert!(is_unsupported(&both(300), &json!({})));
        // Each level refers to the next one in every resource: a way for every sequence of resources.
        let names = ["a", "b", "c", "d", "e"];
        let level = |at: usize| {
            names
                .map(|name| (name.to_owned(), json!({"$ref": format!("{name}.json#/$defs/l{}", at + 1)})))
                .into_iter()
                .collect()
        };
        let levels = |count: usize| -> serde_json::Map<String, Value> {
            let level = |at| (format!("l{at}"), json!({"properties": Value::Object(level(at))}));
            (0..count).map(level).chain([(format!("l{count}"), json!(true))]).collect()
        };
        let all = |count| {
            let resources: serde_json::Map<_, _> = names
                .map(|name| (name.to_owned(), json!({"$id": format!("{name}.json"), "$defs": levels(count)})))
                .into_iter()
                .collect();
            json!({"$id": "https://example.com/", "$ref": "a.json#/$defs/l0", "$defs": resources})
        };
        assert!(valid(&all(3), &json!({})));
        assert!(is_unsupported(&all(12), &json!({})));
        // Schemas that refer to each other are one each.
        let tree = json!({"$id": "https://example.com/tree", "properties": {"node": {"$ref": "node"}}, "$defs": {
            "node": {"$id": "node", "properties": {"tree": {"$ref": "tree"}, "value": {"type": "string"}}}}});
        assert!(valid(&tree, &json!({"node": {"tree": {"node": {"value": "x"}}}})));
        assert!(!valid(&tree, &json!({"node": {"tree": {"node": {"value": 1}}}})));
    });
}

#[test]
fn the_schema_that_is_bounded_is_the_one_that_is_evaluated() {
    on_worker_stack(|| {
        let schema = |mut bar: Value, decoy: Value| {
            bar["$id"] = json!("d/bar.json");
            json!({"$id": "https://example.com/a.json", "properties": {"x": {"$ref": "d/foo.json"}}, "$defs": {
                "foo": {"$id": "d/foo.json", "$ref": "bar.json"}, "bar": bar, "decoy": decoy}})
        };
        let number = schema(json!({"type": "number"}), json!({}));
        assert!(valid(&number, &json!({"x": 1})) && !valid(&number, &json!({"x": "1"})));
        let cycle = schema(json!({"allOf": [{"$ref": "#"}]}), json!({"$id": "d/d/bar.json", "type": "string"}));
        assert!(is_unsupported(&cycle, &json!({"x": 1})));
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
        assert_eq!(problem_of_text(&open, &json!({})).0, ProblemCode::Unsupported);
        let closed = format!("{}true{}", "{\"allOf\":[".repeat(60), "]}".repeat(60));
        assert_eq!(Schema::new(&closed, Formats::Annotate).check(&json!({})), Check::Valid);
        let deeper = format!("{}true{}", "{\"allOf\":[".repeat(64), "]}".repeat(64));
        assert_eq!(problem_of_text(&deeper, &json!({})).0, ProblemCode::Unsupported);
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
        (0..100).map(|number| (number.to_string(), json!({"$id": format!("s{number}")}))).collect();
    assert!(is_unsupported(&json!({"$defs": ids}), &json!({})));
    let rows: Vec<_> = (0..100).map(|number| json!({"id": format!("u{number}")})).collect();
    assert!(valid(&json!({"properties": {"x": {"examples": rows, "enum": rows}}}), &json!({"x": {"id": "u7"}})));
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

/// Each took seconds.
#[test]
fn v3_what_backtracking_scans_is_bounded() {
    let mut state = 1_u32;
    let mut any = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    let mixed: String = (0..4000).map(|_| any()).collect();
    let password = r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[@$!%]).{8,}";
    for (pattern, text) in [
        ("(?=(a|b)*a(a|b){300}x)a", mixed.clone()),
        ("(?=(a|b)*a(a|b){50}x)a", mixed.clone()),
        (r"(z)\1|(a|b)*a(a|b){200}x", mixed),
        ("(?<!(a|b)*)c", "a".repeat(17_000)),
        (password, "a".repeat(15_000)),
        // Short texts, and many engines at each step.
        (&format!("(?:{}a)*c", "(?=[ab]*b)".repeat(30)), "a".repeat(500) + "b0"),
        (&format!("(?:{}a)*c", "(?=[ab]*b)".repeat(200)), "b".to_owned()),
    ] {
        assert!(is_unsupported(&json!({"properties": {"x": {"pattern": pattern}}}), &json!({"x": text})), "{pattern}");
        let names = json!({"patternProperties": {pattern: false}});
        assert!(is_unsupported(&names, &json!({text: 1})), "{pattern}");
    }
    for (pattern, text, matches) in [
        (password, format!("{}Z9!", "a".repeat(4000)), true),
        (password, "a".repeat(4000), false),
        ("^(?:(?!DROP).)*$", "a".repeat(5000), true),
        (r"(\w+)\s\1", "ab cd ".repeat(1000), false),
        (
            r"BEGIN[\s\S]+-----END CERTIFICATE-----(?![\s\S])",
            format!("BEGIN{}-----END CERTIFICATE-----", "a\n".repeat(3000)),
            true,
        ),
        (r"<(\w+)[^>]*>[\s\S]*?</\1>", format!("<b x>{}</b>", "a".repeat(6000)), true),
        (r"(?!javascript:)https?://[\w.-]+(?:/[\w./?%&=-]*)?", format!("https://a.b/{}", "c/".repeat(3000)), true),
    ] {
        let schema = json!({"properties": {"x": {"pattern": pattern}}});
        assert_eq!(valid(&schema, &json!({"x": text})), matches, "{pattern}");
    }
}

#[test]
fn v3_patterns_with_engines_of_their_own_are_counted() {
    let many = |n: usize| {
        let pattern = |at| (format!("p{at}"), json!({"pattern": format!("(?=[\\w]b)(?=c)(?!{at})")}));
        json!({"properties": (0..n).map(pattern).collect::<serde_json::Map<_, _>>()})
    };
    assert!(valid(&many(150), &json!({})));
    assert!(is_unsupported(&many(3000), &json!({})));
}

#[test]
fn what_is_wrong_with_names_is_counted_with_the_object_that_has_them() {
    let arguments = |n: usize| (0..n).map(|at| (format!("k{at}"), json!({"a": at, "b": [at]}))).collect::<Value>();
    for schema in [
        json!({"propertyNames": {"type": "integer"}}),
        json!({"oneOf": [{"propertyNames": {"type": "integer"}}]}),
        json!({"anyOf": [{"propertyNames": {"pattern": "^[A-Z]"}}, {"type": "null"}]}),
    ] {
        let listed = violations(&schema, &arguments(50));
        assert!(
            !listed.is_empty() && listed.iter().all(|violation| !violation.message.contains("too large")),
            "{listed:?}"
        );
        let many = violations(&schema, &arguments(5000));
        assert!(many.len() == 1 && many[0].message.contains("too large to list where"), "{many:?}");
    }
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
    let nested: Vec<_> = (0..20_000).map(|number| json!([[number], {"a": [number]}])).collect();
    assert!(valid(&unique, &json!({"x": nested})));
    let twice = [&nested[..], &nested[7..8]].concat();
    assert!(!valid(&unique, &json!({"x": twice})));
    // Arrays in arrays hash alike without what is in them, so only comparing would tell these apart.
    let bit = |number: i32, bit: i32| if number >> bit & 1 == 0 { json!([]) } else { json!([[]]) };
    let alike = |number| (0..15).map(|at| bit(number, at)).collect::<Value>();
    assert!(is_unsupported(&unique, &json!({"x": (0..20_000).map(alike).collect::<Vec<_>>()})));
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

/// What people write for trees, filters and closed types: a bound by the size of the arguments alone was far too high.
#[test]
fn branches_that_end_cost_nothing_below() {
    on_worker_stack(|| {
        let comparison = |op| json!({"required": ["op", "field"], "properties": {"op": {"const": op}, "field": {"type": "string"}}, "additionalProperties": false});
        let several = |name: &str| json!({"required": [name], "properties": {name: {"items": {"$ref": "#/$defs/f"}}}, "additionalProperties": false});
        let branches = ["and", "or", "nor"]
            .into_iter()
            .map(several)
            .chain(["eq", "ne", "gt", "lt", "ge", "le"].into_iter().map(comparison));
        let filter = json!({"$ref": "#/$defs/f", "$defs": {"f": {"oneOf": branches.collect::<Vec<_>>()}}});
        let leaf = |op: &str| json!({"op": op, "field": "a"});
        let query = |levels, last: Value| {
            nested(levels, last, |inner| json!({"and": [inner, {"or": [leaf("eq"), leaf("gt")]}]}))
        };
        assert!(valid(&filter, &query(30, leaf("le"))));
        let found = violations(&filter, &query(5, leaf("like")));
        assert!(!found[0].message.contains("too large to list"), "{found:?}");

        let kinds: Vec<_> = (0..20).map(|kind| format!("block{kind}")).collect();
        let block = |kind: &String| {
            json!({"required": ["type", kind], "properties": {"type": {"const": kind},
            kind: {"properties": {"children": {"items": {"$ref": "#/$defs/block"}}}}}})
        };
        let blocks = json!({"$ref": "#/$defs/block", "$defs": {"block": {"anyOf": kinds.iter().map(block).collect::<Vec<_>>()}}});
        let page = nested(
            8,
            json!({"type": "block3", "block3": {}}),
            |inner| json!({"type": "block7", "block7": {"children": [inner, inner]}}),
        );
        assert!(valid(&blocks, &page));

        let level = |at: usize| {
            (
                format!("l{at}"),
                json!({"allOf": [{"$ref": format!("#/$defs/l{}", at - 1)}, {"properties": {format!("p{at}"): {"type": "string"}}}]}),
            )
        };
        let mut types: serde_json::Map<_, _> = (1..=8).map(level).collect();
        types.insert("l0".to_owned(), json!({"properties": {"id": {"type": "string"}}, "required": ["id"]}));
        types.insert("last".to_owned(), json!({"allOf": [{"$ref": "#/$defs/l8"}], "unevaluatedProperties": false}));
        let closed = json!({"properties": {"rows": {"items": {"$ref": "#/$defs/last"}}}, "$defs": types});
        let row = json!({"id": "a", "p1": "b", "p4": "c", "p8": "d"});
        assert!(valid(&closed, &json!({"rows": vec![row.clone(); 200]})));
        let mut wrong = row;
        wrong["p9"] = json!("e");
        assert_eq!(violations(&closed, &json!({"rows": [wrong]}))[0].pointer, "/rows/0");

        let tree = json!({"$id": "https://example.com/strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": false,
            "$defs": {"tree": {"$id": "tree", "$dynamicAnchor": "node", "type": "object",
                "properties": {"data": true, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}}}}});
        let grown = |data: Value| nested(7, json!({"data": data}), |inner| json!({"children": [inner, inner]}));
        assert!(valid(&tree, &grown(json!(1))));
        assert!(!valid(&tree, &nested(3, json!({"dat": 1}), |inner| json!({"children": [inner]}))));
        let plain = json!({"$dynamicAnchor": "n", "properties": {"n": {"$dynamicRef": "#n"}}});
        assert!(valid(&plain, &nested(50, json!({}), |inner| json!({"n": inner}))));
    });
}

/// The subschemas of `chain`, each made from the next one as often as `times`.
fn ways(keyword: &str, times: usize, length: usize, last: &Value) -> Value {
    let mut schema = chain(length, |next| json!({keyword: vec![next; times]}), json!({}));
    schema["$defs"][format!("d{length}")] = last.clone();
    schema
}

#[test]
fn what_is_beyond_all_bounds_is_still_too_much() {
    on_worker_stack(|| {
        let endless = |tracked: Value| {
            let mut schema = ways("anyOf", 2, 300, &json!({"uniqueItems": true}));
            schema["properties"] = json!({"z": tracked});
            schema
        };
        assert!(is_unsupported(&endless(json!({})), &json!({})));
        // Rates that are no number would be below any limit.
        assert!(is_unsupported(&endless(json!({"unevaluatedItems": true})), &json!({})));
    });
}

#[test]
fn what_is_worked_out_of_branches_is_counted() {
    on_worker_stack(|| {
        let mut told_apart = ways("allOf", 12, 7, &json!({"required": ["k"]}));
        told_apart["properties"] = json!({"a": {"anyOf": vec![json!({"$ref": "#/$defs/d0"}); 3]}});
        told_apart.as_object_mut().unwrap().remove("$ref");
        assert!(is_unsupported(&told_apart, &json!({})));
        let names =
            |count: usize| -> serde_json::Map<_, _> { (0..count).map(|at| (format!("n{at}"), json!({}))).collect() };
        let alike = |names_each: usize, branches: usize| {
            json!({"$defs": {"p": {"properties": names(names_each)}},
            "properties": {"a": {"oneOf": vec![json!({"$ref": "#/$defs/p"}); branches]}}})
        };
        assert!(is_unsupported(&alike(8000, 4000), &json!({})) && valid(&alike(100, 50), &json!({})));
        let merged = |count: usize| json!({"allOf": [{"properties": names(count)}, {"properties": {"x": {}}}]});
        assert!(is_unsupported(&merged(20_000), &json!({})) && valid(&merged(2000), &json!({})));
        let patterns: serde_json::Map<_, _> = (0..5000).map(|at| (format!("^{at:05}"), json!(true))).collect();
        let covered = json!({"allOf": [{"$ref": "#/$defs/p"}], "anyOf": [{"$ref": "#/$defs/p"}], "unevaluatedProperties": false,
            "$defs": {"p": {"patternProperties": patterns}}});
        assert!(is_unsupported(&covered, &json!({})));
        assert!(is_unsupported(&json!({"allOf": vec![json!({}); 50_000]}), &json!({})));
    });
}

#[test]
fn what_goes_through_members_is_counted() {
    on_worker_stack(|| {
        let members: serde_json::Map<_, _> = (0..5000).map(|at| (format!("k{at}"), json!(1))).collect();
        for last in [
            json!({"allOf": [{"properties": {"a": true}}, {"properties": {"b": true}}]}),
            json!({"properties": {"a": true}}),
        ] {
            assert!(is_unsupported(&ways("anyOf", 2, 14, &last), &members.clone().into()), "{last}");
        }
        let long = "x".repeat(900_000);
        assert!(is_unsupported(&ways("anyOf", 2, 14, &json!({"const": {"a": long}})), &json!({"a": long})));
        let media = json!({"$schema": DRAFTS[2], "items": {"allOf": vec![json!({"contentMediaType": "application/json"}); 100]}});
        let text = format!("[{}1]", "1,".repeat(100_000));
        assert!(is_unsupported(&json!({"properties": {"a": media}}), &json!({"a": [text]})));
    });
}

#[test]
fn listing_is_bounded_by_its_work_and_by_what_it_copies() {
    on_worker_stack(|| {
        let summed_up = |schema: &Value, arguments: &Value| {
            violations(schema, arguments).first().is_some_and(|found| found.message.contains("too large to list"))
        };
        let numbers: Vec<_> = (0..50_000).map(|at| json!(f64::from(at) + 0.5)).collect();
        let mut asked_again = ways("anyOf", 1, 200, &json!({"enum": numbers}));
        asked_again["additionalProperties"] = json!({"$ref": asked_again["$ref"]});
        asked_again.as_object_mut().unwrap().remove("$ref");
        let members: serde_json::Map<_, _> = (0..50).map(|at| (format!("a{at}"), json!(-1.5))).collect();
        assert!(summed_up(&asked_again, &members.clone().into()));
        for copied in [
            json!({"not": {"type": "number", "description": "x".repeat(500_000)}}),
            json!({"required": ["x".repeat(300_000), "y".repeat(300_000)], "type": "string"}),
            json!({"const": "x".repeat(500_000)}),
        ] {
            assert!(summed_up(&json!({"additionalProperties": copied}), &members.clone().into()));
        }
        let name = "x".repeat(5000);
        assert!(is_unsupported(
            &json!({"dependentSchemas": {name: {"properties": {"r": {"type": "string"}}}}}),
            &json!({})
        ));
    });
}

#[test]
fn elements_that_hash_alike_are_counted() {
    let unique = json!({"properties": {"x": {"uniqueItems": true}}});
    let bits = |number: i32, other: &Value| {
        (0..14).map(|bit| if number >> bit & 1 == 0 { json!(0) } else { other.clone() }).collect::<Value>()
    };
    for other in [json!(false), json!({}), json!(-0.0), json!([])] {
        let items: Vec<_> = (0..8000).map(|number| bits(number, &other)).collect();
        match schema(&unique).check(&json!({"x": items})) {
            Check::Problem(problem) => assert_eq!(problem.code, ProblemCode::Unsupported),
            check => assert!(matches!(check, Check::Invalid(_)), "equal ones end it: {other}"),
        }
    }
    let rows: Vec<_> = (0..3000).map(|at| json!({"id": at, "active": at % 2 == 0, "note": null, "o": {}})).collect();
    assert!(valid(&unique, &json!({"x": rows})));
}

#[test]
fn nothing_is_counted_when_nothing_is_left() {
    let schema = schema(&json!({"allOf": vec![json!({"properties": {"a": {"type": "integer"}}}); 50]}));
    let mut left = 0.0;
    let check = schema.check_within(&json!({"a": 1}), &mut left);
    assert!(matches!(&check, Check::Problem(problem) if problem.message.contains("make fewer calls")), "{check:?}");
    assert_eq!(left, 0.0);
    // What is listed is taken from it, too.
    let mut left = TRAJECTORY_BUDGET;
    assert_eq!(schema.check_within(&json!({"a": 1}), &mut left), Check::Valid);
    let once = TRAJECTORY_BUDGET - left;
    let mut left = TRAJECTORY_BUDGET;
    assert!(matches!(schema.check_within(&json!({"a": "x"}), &mut left), Check::Invalid(_)));
    assert!(TRAJECTORY_BUDGET - left > 1.5 * once);
}

/// Where every branch goes on, it is as much as it seems.
#[test]
fn branches_that_go_on_are_counted() {
    on_worker_stack(|| {
        let branch = |op: i32| json!({"properties": {"op": {"const": op}, "a": {"$ref": "#"}}});
        for keyword in ["anyOf", "oneOf", "allOf"] {
            let schema = json!({keyword: [branch(1), branch(2), branch(3)]});
            let of = |levels| nested(levels, json!({"op": 0}), |inner| json!({"op": 0, "a": inner}));
            assert!(!valid(&schema, &of(4)));
            assert!(is_unsupported(&schema, &of(20)));
        }
    });
}

#[test]
fn every_list_of_alternatives_is_in_the_cost() {
    let alternatives: Vec<_> = (0..5000).map(|number| json!({"required": [format!("r{number}")]})).collect();
    let schema = json!({"properties": {"x": {"items": {"oneOf": alternatives}}}});
    assert!(!valid(&schema, &json!({"x": [{}]})));
    assert!(is_unsupported(&schema, &json!({"x": vec![json!({}); 5000]})));
}

#[test]
fn the_calls_of_a_trajectory_share_a_budget() {
    let given_up = (0..100).map(|at| json!({"pattern": format!(r"^(?:a|aa)+(?!.)b{at}")}));
    let schema = schema(&json!({"properties": {"a": {"anyOf": given_up.chain([json!({})]).collect::<Vec<_>>()}}}));
    let mut left = TRAJECTORY_BUDGET;
    let verdicts: Vec<_> = (0..10).map(|_| schema.check_within(&json!({"a": "b"}), &mut left)).collect();
    assert_eq!(verdicts.first(), Some(&Check::Valid));
    let Some(Check::Problem(problem)) = verdicts.last() else { panic!("{verdicts:?}") };
    assert!(problem.message.contains("make fewer calls"), "{problem}");
    assert_eq!(schema.check(&json!({"a": "b"})), Check::Valid, "of another trajectory");
}

#[test]
fn many_missing_names_are_not_listed_one_by_one() {
    let names: Vec<_> = (0..60_000).map(|at| format!("p{at}")).collect();
    let found = violations(&json!({"required": names}), &json!({}));
    assert!(found.len() == 1 && found[0].message.contains("too large to list"), "{found:?}");
    assert_eq!(violations(&json!({"required": ["a", "b"]}), &json!({})).len(), 2);
}
