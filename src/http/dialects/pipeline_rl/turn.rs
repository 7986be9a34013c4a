//! The policy's turn. In: the text of a rollout, and the calls that its server took out of it; out: one message as the native
//! request has it, and the calls in it. `PipelineRL`'s own prompt asks for calls as text, which no server takes out.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr_iter;
use serde_json::{Map, Value, json};

use crate::http::dialects::MAX_VALUES_BYTES;
use crate::stages::MAX_MATCHED_CALLS;
use crate::toolcall::values_bytes;

/// A call as it was made: its name, and its arguments.
pub(super) type Made = (String, Map<String, Value>);

/// What calls stand between in a text.
const OPENER: &str = "<tool_calls>";
const CLOSER: &str = "</tool_calls>";

/// What the policy did.
pub(super) struct Turn {
    /// The conversation, JSON.
    pub(super) messages: String,
    /// The calls that can be read; of many those that are matched with references.
    pub(super) made: Vec<Made>,
}

impl Turn {
    /// Takes raw JSON; what is of another kind than it should be is left to the native reader, which says so.
    pub(super) fn new(generation: Option<&str>, tool_calls: Option<&str>) -> Self {
        let mut content = Cow::Borrowed(generation.unwrap_or("null"));
        let calls = tool_calls.unwrap_or("[]");
        let mut found: Vec<Value> = serde_json::from_str(calls).unwrap_or_default();
        let mut changed = false;
        if found.is_empty()
            && (calls == "null" || calls.starts_with('['))
            && let Some(text) = generation.and_then(|raw| serde_json::from_str::<String>(raw).ok())
            && let Some((rest, written)) = written_calls(&text)
        {
            content = Value::from(rest).to_string().into();
            (found, changed) = (written, true);
        }
        for call in &mut found {
            changed |= rename(call);
        }
        let mut left = MAX_VALUES_BYTES;
        let made = found.iter().filter_map(|call| made(call, &mut left)).take(MAX_MATCHED_CALLS).collect();
        let calls = if changed { Value::from(found).to_string().into() } else { Cow::Borrowed(calls) };
        let messages = format!(r#"[{{"role":"assistant","content":{content},"tool_calls":{calls}}}]"#);
        Self { messages, made }
    }
}

/// The calls of the last block that is not empty, as native calls, and the text without it. What is no call stays what it is,
/// for the native reader to refuse.
fn written_calls(text: &str) -> Option<(String, Vec<Value>)> {
    let mut found = None;
    let mut at = 0;
    while let Some(opener) = find_tag(text, OPENER, at) {
        let Some(closer) = find_tag(text, CLOSER, opener.end) else { break };
        let inside = text.get(opener.end..closer.start)?.trim();
        if !inside.is_empty() {
            found = Some((opener.start..closer.end, inside));
        }
        at = closer.end;
    }
    let (block, inside) = found?;
    let rest = [text.get(..block.start)?, text.get(block.end..)?].concat();
    let mut left = MAX_VALUES_BYTES;
    let calls = match read_value(inside, &mut left) {
        Some(Value::Array(items)) => items.into_iter().flat_map(native).collect(),
        Some(item) => native(item),
        None => vec![Value::from(inside)],
    };
    Some((rest, calls))
}

/// Where the tag stands first from `at` on, in capitals or not.
fn find_tag(text: &str, tag: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let stands =
        |start: &usize| bytes.get(*start..start + tag.len()).is_some_and(|it| it.eq_ignore_ascii_case(tag.as_bytes()));
    let start = memchr_iter(b'<', bytes.get(at..)?).map(|found| at + found).find(stands)?;
    Some(start..start + tag.len())
}

/// What JSON in a string holds; `None` where that is none, or takes more memory than is left.
fn read_value(json: &str, left: &mut usize) -> Option<Value> {
    *left -= values_bytes(json, *left)?;
    serde_json::from_str(json).ok()
}

/// A written call as the native request has it: `{"name", "arguments"}`, an object whose `function` is one, or the
/// leaderboard's `{name: arguments, ..}`.
fn native(item: Value) -> Vec<Value> {
    let Value::Object(fields) = item else { return vec![item] };
    if fields.contains_key("function") {
        return vec![Value::Object(fields)];
    }
    if fields.contains_key("name") && fields.contains_key("arguments") {
        return vec![json!({"function": fields})];
    }
    let call = |(name, arguments): (String, Value)| json!({"function": {"name": name, "arguments": arguments}});
    fields.into_iter().map(call).collect()
}

/// A function's name as a model may write it.
pub(super) fn plain_name(name: &str) -> String {
    name.replace('.', "_")
}

/// Spells the name of a call as references have it; says whether that changed it.
fn rename(call: &mut Value) -> bool {
    let Some(Value::String(name)) = call.pointer_mut("/function/name") else { return false };
    let plain = plain_name(name);
    let renamed = *name != plain;
    *name = plain;
    renamed
}

fn made(call: &Value, left: &mut usize) -> Option<Made> {
    let function = call.get("function")?;
    let arguments = match function.get("arguments")? {
        Value::Object(arguments) => arguments.clone(),
        Value::String(text) => match read_value(text, left)? {
            Value::Object(arguments) => arguments,
            _ => return None,
        },
        _ => return None,
    };
    Some((function.get("name")?.as_str()?.to_owned(), arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(generation: &str, calls: Option<&str>) -> (Value, Vec<Made>) {
        let turn = Turn::new(Some(&json!(generation).to_string()), calls);
        let messages: Value = serde_json::from_str(&turn.messages).unwrap_or_default();
        (messages.get(0).cloned().unwrap_or_default(), turn.made)
    }

    fn names(made: &[Made]) -> Vec<(&str, String)> {
        made.iter().map(|(name, arguments)| (name.as_str(), Value::Object(arguments.clone()).to_string())).collect()
    }

    #[test]
    fn calls_are_read_from_the_text_where_the_server_took_none_out() {
        let text = r#"Well. <tool_calls>[{"name": "math.add", "arguments": {"a": 1}}, {"function": {"name": "f", "arguments": "{\"b\": 2}"}}, {"g": {}, "h": {"c": 3}}]</tool_calls> Done."#;
        for calls in [None, Some("null"), Some("[]")] {
            let (message, made) = turn(text, calls);
            assert_eq!(message["content"], "Well.  Done.");
            let found = [("math_add", r#"{"a":1}"#), ("f", r#"{"b":2}"#), ("g", "{}"), ("h", r#"{"c":3}"#)];
            assert_eq!(names(&made), found.map(|(name, arguments)| (name, arguments.to_owned())));
            assert_eq!(message["tool_calls"].as_array().map(Vec::len), Some(4));
        }
        let native = r#"[{"function":{"name":"f","arguments":"{\"x\": 1e400}"}}]"#;
        let (message, made) = turn(text, Some(native));
        assert_eq!((message["content"].as_str(), made.len()), (Some(text), 0));
        assert_eq!(message["tool_calls"].to_string(), native);
    }

    #[test]
    fn the_last_block_that_is_not_empty_counts() {
        let made = |text: &str| turn(text, None).1.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let block = |name: &str| format!("<tool_calls>[{{\"name\":\"{name}\",\"arguments\":{{}}}}]</TOOL_CALLS>");
        assert_eq!(made(&(block("a") + &block("b") + "<tool_calls> </tool_calls>")), ["b"]);
        assert_eq!(made("<tool_calls>[]</tool_calls>"), Vec::<String>::new());
        assert_eq!(made("<tool_calls>{\"name\":\"a\",\"arguments\":{}}</tool_calls>"), ["a"]);
    }

    #[test]
    fn what_is_no_call_is_left_to_the_native_reader() {
        let calls = |text: &str| turn(text, None).0["tool_calls"].clone();
        assert_eq!(calls("<tool_calls>[{\"name\": </tool_calls>"), json!(["[{\"name\":"]));
        assert_eq!(
            calls("<tool_calls>[7, {\"f\": 1}]</tool_calls>"),
            json!([7, {"function": {"name": "f", "arguments": 1}}])
        );
        assert_eq!(calls("no block"), json!([]));
        let turn = Turn::new(Some("7"), Some("{\"a\":1}"));
        assert_eq!(turn.messages, r#"[{"role":"assistant","content":7,"tool_calls":{"a":1}}]"#);
    }
}
