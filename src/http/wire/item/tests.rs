//! Items, read in passing and exactly: what is read, and where what is wrong is pointed at.

use proptest::prelude::*;

use super::*;

/// Items with all that may stand in them, most of them right, some with a piece that is wrong or odd.
fn item() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        r#""a""#,
        r#""""#,
        r#""\u00e4\n\"x\"""#,
        r#""<answer>7</answer>""#,
        r#""\ud800""#,
        "null",
        "7",
        "-1.50",
        "true",
        "[]",
        r#"["a","\n",3]"#,
        r#"[{"type":"text","text":"a\\"},{"type":"thinking","thinking":"b"}]"#,
        r#"{"a":[1,{"b":null}]}"#,
        r#"[{"name":"f","arguments":{"x":1e400}}]"#,
        r#"[{"name":"f"}]"#,
        "\"\u{1}\"",
        "01",
        "1e400",
        "[1,]",
        "\"hermes\"",
    ]);
    let role = prop::sample::select(vec![r#""assistant""#, r#""user""#, r#""tool""#, r#""assi\u0073tant""#, "5"]);
    let key = |names: Vec<&'static str>| prop::sample::select(names);
    let message_key =
        key(vec!["content", "content", "reasoning", "reasoning_content", "tool_calls", "name", "role", r"\u0072ole"]);
    let field = (message_key, text.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    let message = (role, prop::collection::vec(field, 0..4), any::<bool>()).prop_map(|(role, fields, first)| {
        let role = [format!("\"role\":{role}")];
        let all = if first { [&role[..], &fields].concat() } else { [&fields[..], &role].concat() };
        format!("{{ {} }}", all.join(" , "))
    });
    let messages = prop::collection::vec(message, 0..4).prop_map(|all| format!("\"messages\":[{}]", all.join(",")));
    let item_key = key(vec![
        "id",
        "group",
        "prompt",
        "response",
        "tools",
        "references",
        "golds",
        "ground_truth",
        "reference_calls",
        "tool_format",
        "truncated",
        "response_tokens",
        "metadata",
        "other",
        r"\u0069d",
    ]);
    let field = (item_key, text).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    (prop::collection::vec(field, 0..4), prop::option::weighted(0.8, messages), "[ \n]{0,2}", "(|x|,|\\})").prop_map(
        |(fields, messages, blank, after)| {
            format!("{blank}{{{}}}{blank}{after}", fields.into_iter().chain(messages).collect::<Vec<_>>().join(","))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn an_item_read_in_passing_is_the_item_that_serde_reads(raw in item()) {
        let given = Given::of(&raw);
        let exact = serde_json::from_str::<ItemFields<'_>>(&raw);
        if let Some(passed) = &given.fields {
            prop_assert_eq!(format!("{passed:?}"), format!("{:?}", exact.unwrap()));
        } else if exact.is_ok() {
            let odd = raw.contains(r#""\u0072ole""#) || raw.contains(r#""\u0069d""#) || raw.contains("\"response\":null");
            prop_assert!(odd, "read exactly, but not in passing");
        }
    }
}

#[test]
fn references_under_two_names_are_the_same_or_none() {
    let read = |fields: &str| {
        let raw = format!("{{\"prompt\":\"q\",\"response\":\"a\",{fields}}}");
        let given = Given::of(&raw);
        let exact = Given::unread(&raw);
        assert_eq!(given.fields.is_some(), serde_json::from_str::<ItemFields<'_>>(&raw).is_ok(), "{raw}");
        let [given, exact] = [given, exact].map(|given| {
            let read = given.read("", ToolFormat::Auto);
            read.map(|item| item.trajectory.references.join("|")).map_err(|wrong| wrong.pointer)
        });
        assert_eq!(given, exact, "{raw}");
        given
    };
    for fields in [
        r#""references":["a"],"golds":[]"#,
        r#""golds":[],"references":["a"]"#,
        r#""references":"a","golds":null,"ground_truth":["a"]"#,
    ] {
        assert_eq!(read(fields), Ok("a".to_owned()), "{fields}");
    }
    let read_in_order = read(r#""references":["a","b"],"golds":["b","a","b"]"#);
    assert_eq!(read_in_order, read(r#""references":["a","b"]"#), "one is enough, in whatever order they stand");
    assert_eq!(read(r#""references":[],"golds":[]"#), Ok(String::new()));
    assert_eq!(read(r#""references":["a"],"ground_truth":["b"]"#), Err("/ground_truth".to_owned()));
    assert_eq!(read(r#""ground_truth":["a","b"],"golds":"a""#), Err("/golds".to_owned()));
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let wrong = |raw: &str| Given::of(raw).read("", ToolFormat::Auto).map(drop).unwrap_err();
    let null = wrong(r#"{"messages":[],"references":["a",null]}"#);
    assert_eq!(null.pointer, "/references");
    assert_eq!(null.message, "element 1: a string or a number is expected, not null");
    for (raw, pointer) in [
        (r#"{"prompt":[{"role":"user"},{"content":"q"}],"response":"a"}"#, "/prompt/1"),
        (r#"{"prompt":7,"response":"a"}"#, "/prompt"),
        (r#"{"messages":[{"content":[{"text":7}],"role":"assistant"}]}"#, "/messages/0/content/0/text"),
        (r#"{"messages":[{"role":"assistant","content":[{"text":7}]}]}"#, "/messages/0/content/0/text"),
        (r#"{"messages":[{"content":7,"role":"assistant"}]}"#, "/messages/0/content"),
    ] {
        assert_eq!(wrong(raw).pointer, pointer, "{raw}");
    }
}

#[test]
fn usual_items_are_read_in_passing() {
    let raw = r#"{"id": 7, "group": "g", "messages": [{"role": "user", "content": "q"},
        {"role": "assistant", "content": "a \"b\"", "reasoning_content": null, "tool_calls": []}],
        "tools": [], "references": ["x", 1], "truncated": false, "response_tokens": 3, "metadata": {"k": []}}"#;
    assert!(Given::of(raw).fields.is_some());
    assert!(
        Given::of(r#"{"prompt": [{"role": "user", "content": "q"}], "response": "a", "mine": 1}"#).fields.is_some()
    );
    assert!(Given::of(r#"{"messages": [{"content": "no role"}]}"#).fields.is_none());
}
