//! A rollout in the words of the Responses API. In: raw items of its `input` and `output`. Out: raw JSON of chat messages.
//! Knows no score.

use std::borrow::Cow;

use serde::Deserialize;

use crate::http::dialects::fields::Value;
use crate::http::dialects::raw_item::{NO_WORDS, quoted};
use crate::http::wire::{Pointed, Text};

/// One item of `input` or `output`; which fields it has depends on its type. Every field is raw JSON.
#[derive(Clone, Copy)]
struct ResponseItem<'t, 'b>(Value<'t, 'b>);

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Reasoning,
    Message,
    Call,
    Result,
}

impl<'t, 'b> ResponseItem<'t, 'b> {
    /// The items of a list.
    fn list(list: Value<'t, 'b>, pointer: &str) -> Result<Vec<Self>, Pointed> {
        let item = |(place, item): (usize, Value<'t, 'b>)| item.object(format_args!("{pointer}/{place}")).map(Self);
        list.inside().enumerate().map(item).collect()
    }

    fn kind(&self) -> Option<Kind> {
        Some(match self.0.raw_of("type") {
            Some("\"reasoning\"") => Kind::Reasoning,
            Some("\"function_call\"") => Kind::Call,
            Some("\"function_call_output\"") => Kind::Result,
            Some("\"message\"") => Kind::Message,
            None if self.0.raw_of("role").is_some() => Kind::Message,
            _ => return None,
        })
    }

    fn is_of_assistant(&self) -> bool {
        self.0.raw_of("role").is_none_or(|role| role == "\"assistant\"")
    }

    /// As a message of its role.
    fn message(&self) -> String {
        message(self.0.raw_of("role").unwrap_or("\"user\""), self.0.raw_of("content").unwrap_or("null"))
    }

    /// What a tool gave back. A value that is no text is its JSON.
    fn result(&self) -> String {
        let output = self.0.raw_of("output").unwrap_or("\"\"");
        let content = if output.starts_with(['"', '[']) { Cow::Borrowed(output) } else { Cow::Owned(quoted(output)) };
        message("\"tool\"", &content)
    }

    /// A call as chat messages have it. What is missing stays so: the native reader says what is wrong.
    fn call(&self) -> String {
        let field = |name: &str| self.0.raw_of(name).map(|raw| format!("\"{name}\":{raw}"));
        let fields: Vec<String> = ["name", "arguments"].into_iter().filter_map(field).collect();
        let id = self.0.raw_of("call_id").unwrap_or("null");
        format!("{{\"id\":{id},\"type\":\"function\",\"function\":{{{}}}}}", fields.join(","))
    }
}

/// What the policy was given: `input` is a text or a list of items, `instructions` a system message.
pub(super) fn prompt<'b>(instructions: Option<&'b str>, input: Value<'_, 'b>) -> Cow<'b, str> {
    let is_list = input.raw().starts_with('[');
    if instructions.is_none() && !is_list {
        return Cow::Borrowed(input.raw());
    }
    let mut messages: Vec<String> = instructions.iter().map(|raw| message("\"system\"", raw)).collect();
    if is_list {
        // What is no list of items stays as it is: the native reader says so.
        let Ok(items) = ResponseItem::list(input, "") else { return Cow::Borrowed(input.raw()) };
        messages.extend(items.iter().filter_map(|item| match item.kind() {
            Some(Kind::Message) => Some(item.message()),
            Some(Kind::Result) => Some(item.result()),
            // Earlier calls and thoughts say nothing about what was asked.
            _ => None,
        }));
    } else {
        messages.push(message("\"user\"", input.raw()));
    }
    Cow::Owned(format!("[{}]", messages.join(",")))
}

/// A message of a role and a content, both raw JSON.
fn message(role: &str, content: &str) -> String {
    ["{\"role\":", role, ",\"content\":", content, "}"].concat()
}

/// One turn of the policy on its way to a message.
#[derive(Default)]
struct Turn<'b> {
    reasoning: String,
    content: Option<&'b str>,
    calls: Vec<String>,
    last: Option<Kind>,
}

impl Turn<'_> {
    fn flush(&mut self, messages: &mut Vec<String>) {
        let turn = std::mem::take(self);
        if turn.last.is_none() {
            return;
        }
        let mut text = format!("{{\"role\":\"assistant\",\"content\":{}", turn.content.unwrap_or("null"));
        if !turn.reasoning.is_empty() {
            text.push_str(",\"reasoning_content\":");
            text.push_str(&quoted(&turn.reasoning));
        }
        if !turn.calls.is_empty() {
            text.push_str(",\"tool_calls\":[");
            text.push_str(&turn.calls.join(","));
            text.push(']');
        }
        messages.push(text + "}");
    }
}

/// What the policy did: reasoning, a message and calls, in this order, are one turn. One that did nothing, or of which no
/// token was left, has said nothing: that is scored as such.
///
/// # Errors
/// When an item of `output` is no object.
pub(super) fn rollout(output: Value<'_, '_>) -> Result<String, Pointed> {
    let items = ResponseItem::list(output, "/response/output")?;
    let (mut messages, mut turn, mut silent) = (Vec::with_capacity(items.len()), Turn::default(), true);
    for item in &items {
        let Some(kind) = item.kind() else { continue };
        let another = turn.last > Some(kind) || turn.last == Some(Kind::Message) && kind == Kind::Message;
        if another || kind == Kind::Result || !item.is_of_assistant() {
            turn.flush(&mut messages);
        }
        match kind {
            Kind::Result => messages.push(item.result()),
            Kind::Message if !item.is_of_assistant() => messages.push(item.message()),
            Kind::Reasoning => turn.reasoning += &texts(item.0.first(&["content", "summary"]).map(Value::raw)),
            Kind::Message => turn.content = item.0.raw_of("content"),
            Kind::Call => turn.calls.push(item.call()),
        }
        if kind != Kind::Result && item.is_of_assistant() {
            turn.last = Some(kind);
            silent = false;
        }
    }
    turn.flush(&mut messages);
    if silent {
        messages.push(NO_WORDS.to_owned());
    }
    Ok(format!("[{}]", messages.join(",")))
}

/// The texts of parts, joined.
fn texts(parts: Option<&str>) -> String {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, default)]
        text: Option<Text<'a>>,
    }
    let Some(raw) = parts else { return String::new() };
    let parts: Vec<Part<'_>> = serde_json::from_str(raw).unwrap_or_default();
    parts.into_iter().filter_map(|part| part.text).map(|text| text.0.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use super::super::super::fields::Parts;

    fn messages(items: &serde_json::Value) -> serde_json::Value {
        let text = items.to_string();
        let parts = Parts::read(&text, 2).unwrap();
        serde_json::from_str(&rollout(parts.value(&text)).unwrap()).unwrap()
    }

    #[test]
    fn reasoning_message_and_calls_are_one_turn() {
        let found = messages(&json!([
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "name": "search", "arguments": "{}", "call_id": "c1"},
            {"type": "function_call", "name": "search", "arguments": "{}", "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "Paris"},
            {"type": "function_call_output", "call_id": "c2", "output": {"a": 1}},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Paris"}]}
        ]));
        assert_eq!(found.as_array().unwrap().len(), 4, "{found}");
        assert_eq!(found[0]["reasoning_content"], "Hm.");
        assert_eq!(found[0]["tool_calls"].as_array().unwrap().len(), 2);
        assert_eq!(found[2], json!({"role": "tool", "content": "{\"a\":1}"}));
        assert_eq!(found[3]["content"][0]["text"], "Paris");
    }

    #[test]
    fn who_did_nothing_said_nothing() {
        let result = json!({"type": "function_call_output", "call_id": "c1", "output": "Paris"});
        for items in [json!([]), json!([{"type": "web_search_call", "id": "w"}]), json!([result])] {
            let found = messages(&items);
            assert_eq!(found.as_array().unwrap().last(), Some(&json!({"role": "assistant", "content": ""})), "{items}");
        }
        assert_eq!(messages(&json!([{"type": "reasoning", "summary": []}])).as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_thought_after_a_call_begins_another_turn() {
        let found = messages(&json!([
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c1"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "So."}], "summary": []},
            {"type": "message", "role": "assistant", "content": "done"}
        ]));
        assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
        assert_eq!(found[1], json!({"role": "assistant", "content": "done", "reasoning_content": "So."}));
    }

    #[test]
    fn an_input_becomes_the_prompt() {
        let read = |instructions: Option<&str>, input: &str| {
            let parts = Parts::read(input, 2).unwrap();
            serde_json::from_str::<serde_json::Value>(&prompt(instructions, parts.value(input))).unwrap()
        };
        assert_eq!(read(None, "\"q\""), json!("q"));
        assert_eq!(read(Some("\"be brief\""), "\"q\"")[1], json!({"role": "user", "content": "q"}));
        let found = read(None, r#"[{"role":"user","content":"q"},{"type":"reasoning","summary":[]}]"#);
        assert_eq!(found, json!([{"role": "user", "content": "q"}]));
        // What its tools gave back before is something that it was given.
        let found = read(
            None,
            r#"[{"role":"user","content":"q"},{"type":"function_call","name":"f","arguments":"{}"},{"type":"function_call_output","output":"7"}]"#,
        );
        assert_eq!(found, json!([{"role": "user", "content": "q"}, {"role": "tool", "content": "7"}]));
    }

    #[test]
    fn what_a_user_says_in_between_is_the_users() {
        let said = |role: &str, text: &str| json!({"type": "message", "role": role, "content": text});
        let found = messages(&json!([
            said("assistant", "Which?"),
            said("user", "Both."),
            said("assistant", "a"),
            said("assistant", "b")
        ]));
        let wanted = [("assistant", "Which?"), ("user", "Both."), ("assistant", "a"), ("assistant", "b")];
        assert_eq!(
            found,
            wanted
                .map(|(role, text)| json!({"role": role, "content": text}))
                .into_iter()
                .collect::<serde_json::Value>()
        );
    }
}
