//! Rules V1 to V8: what the drafts, formats, patterns, numbers, references and lengths mean, and where problems point.

use super::*;

pub(super) const DRAFTS: [&str; 5] = [
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
    // Classes mean the same beside lookaround and back references.
    for (text, class, other) in
        [("é", r"\W", r"\w"), ("\u{0663}", r"\D", r"\d"), ("\u{feff}", r"\s", r"\S"), ("\u{85}", r"\S", r"\s")]
    {
        for wrap in ["^(?!x)@$", "^[@]$", "^(?!x)[@]$", "^(?:(@))$", "@(?!y)", "(?<!y)@", r"^(@)(?:|\1)$"] {
            assert!(pattern(&wrap.replace('@', class), text), "{wrap} {class} {text:?}");
            assert!(!pattern(&wrap.replace('@', other), text), "{wrap} {other} {text:?}");
        }
    }
    // Flags are not ECMA's; what they mean stays.
    assert!(pattern(r"(?i)^(?!admin)[^\W_]+$", "user") && !pattern(r"(?i)^(?!x)\W$", "s"));
    let told = &violations(&json!({"pattern": r"^(?!x)\W.$"}), &json!("a"))[0];
    assert_eq!(told.message, r#""a" does not match "^(?!x)\W.$""#, "as it was written");
    assert!(!pattern("^(?!x).$", "\r") && !pattern("^(?!x).$", "\u{2028}") && pattern("^(?!x).$", "\u{85}"));
    assert!(pattern(r"^(?!.*\.\.)[\w.-]+@[\w-]+$", "a.b@c-d") && !pattern(r"^(?!.*\.\.)[\w.-]+@\w+$", "é.é@b"));
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
    assert!(!valid(&one, &json!({"n": true})) && !valid(&one, &json!({"m": true})) && !valid(&one, &json!({"n": "1"})));
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

/// Which of them the library names changes from one compilation to the next.
#[test]
fn v5_of_several_remote_references_the_report_is_always_the_same() {
    let schema = r##"{"properties": {"n": {"$ref": ")/$defs/N"}, "m": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"$ref": "//x"}}}"##;
    for _ in 0..20 {
        let compiled = Schema::new(schema, Formats::Annotate);
        let message = &compiled.problem().unwrap().message;
        assert!(message.ends_with("and nothing is fetched: `)/$defs/N` or `//x`"), "{message}");
    }
    for pair in [["::", "%"], ["http://[::", "http://a b"], ["urn:x:y", "%zz"], ["//x", "//x"], ["#none", "//x"]] {
        let [one, other] = pair;
        let schema = json!({"properties": {"a": {"$ref": one}, "b": {"$ref": other}, "c": {"$id": "::%"}}}).to_string();
        let first = Schema::new(&schema, Formats::Annotate).problem().cloned();
        for _ in 0..20 {
            assert_eq!(Schema::new(&schema, Formats::Annotate).problem().cloned(), first, "{pair:?}");
        }
    }
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
    let schema =
        json!({"required": ["q"], "properties": {"a/b": {"items": {"type": "integer"}}, "e": {"enum": ["x", "y"]}}});
    let mut found = violations(&schema, &json!({"a/b": [1, "two"], "e": "z".repeat(10_000)}));
    found.sort_by(|one, other| one.pointer.cmp(&other.pointer));
    let places: Vec<_> = found.iter().map(|found| (found.pointer.as_str(), found.schema_pointer.as_str())).collect();
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
