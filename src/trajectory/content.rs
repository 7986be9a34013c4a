//! What a message says, decoded from the raw JSON of its content and of its tool calls. In: a JSON string, `null` or a list of
//! parts; out: text. Only judges, and people, read it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Content, Turn};

/// Whether a part of a message's content is text, by its `type`: without one it is.
pub fn is_text_part(kind: Option<&str>) -> bool {
    matches!(kind, None | Some("text" | "input_text" | "output_text"))
}

impl Content<'_> {
    /// The text, parts joined; empty where there is none. What cannot be decoded stays as it was sent.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json("null") => Cow::Borrowed(""),
            Self::Json(raw) => serde_json::from_str::<Said>(raw).map_or(Cow::Borrowed(*raw), |said| Cow::Owned(said.0)),
        }
    }
}

impl Turn<'_> {
    /// The text, and behind it a line for each of the message's own `tool_calls`: its name and its arguments as JSON. What is
    /// no such call stands there as it was sent.
    pub fn text_with_calls(&self) -> Cow<'_, str> {
        let Some(raw) = self.native_calls else { return Cow::Borrowed(&*self.text) };
        let calls: Vec<&RawValue> = match serde_json::from_str::<Option<Vec<&RawValue>>>(raw) {
            Ok(calls) => calls.unwrap_or_default(),
            Err(_) => serde_json::from_str(raw).into_iter().collect(),
        };
        let lines = calls.into_iter().map(|call| {
            let named = serde_json::from_str::<NativeCall<'_>>(call.get());
            named.map_or_else(|_| call.get().to_owned(), |call| call.function.line())
        });
        let text = Some(self.text.to_string()).filter(|text| !text.is_empty());
        Cow::Owned(text.into_iter().chain(lines).collect::<Vec<_>>().join("\n"))
    }
}

#[derive(Deserialize)]
struct NativeCall<'a> {
    #[serde(borrow)]
    function: NativeFunction<'a>,
}

#[derive(Deserialize)]
struct NativeFunction<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl NativeFunction<'_> {
    fn line(&self) -> String {
        let raw = self.arguments.map_or("{}", RawValue::get);
        // Most send the arguments as a text that holds the JSON.
        let text = serde_json::from_str::<String>(raw);
        let arguments = Some(text.as_deref().unwrap_or(raw)).filter(|arguments| !arguments.trim().is_empty());
        format!("{{\"name\": {}, \"arguments\": {}}}", self.name, arguments.unwrap_or("{}"))
    }
}

struct Said(String);

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SaidVisitor;
        impl<'de> Visitor<'de> for SaidVisitor {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Said, E> {
                Ok(Said(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Said, A::Error> {
                let mut joined = String::new();
                while let Some(part) = list.next_element::<&RawValue>()? {
                    // Images and the like say nothing.
                    let part = Some(part.get()).filter(|raw| raw.starts_with('{'));
                    if let Some(part) = part.and_then(|raw| serde_json::from_str::<Part<'_>>(raw).ok())
                        && is_text_part(part.kind.as_deref())
                    {
                        joined.push_str(part.text.as_deref().unwrap_or_default());
                    }
                }
                Ok(Said(joined))
            }
        }
        deserializer.deserialize_any(SaidVisitor)
    }
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::Thinking;

    #[test]
    fn calls_in_a_field_of_their_own_stand_behind_the_text() {
        for (text, calls, said) in [
            ("Let me see.", None, "Let me see."),
            ("Let me see.", Some("null"), "Let me see."),
            ("Let me see.", Some("[]"), "Let me see."),
            (
                "Let me see.",
                Some(
                    r#"[{"type":"function","function":{"name":"f","arguments":"{\"q\": \"\u00f6\"}"}}, {"function":{"name":"g","arguments":""}}]"#,
                ),
                "Let me see.\n{\"name\": \"f\", \"arguments\": {\"q\": \"\u{f6}\"}}\n{\"name\": \"g\", \"arguments\": {}}",
            ),
            ("", Some(r#"[{"function":{"name":"f","arguments":{"q":1}}}]"#), r#"{"name": "f", "arguments": {"q":1}}"#),
            ("", Some(r#"[7,{"function":"f"}]"#), "7\n{\"function\":\"f\"}"),
            ("a", Some(r#"{"name":"f"}"#), "a\n{\"name\":\"f\"}"),
        ] {
            let turn = Turn {
                text: text.into(),
                offset: 0,
                reasoning: Some("hidden".into()),
                native_calls: calls,
                thinking: Thinking::Outside,
            };
            assert_eq!(turn.text_with_calls(), said);
        }
    }

    #[test]
    fn content_is_decoded_however_it_was_escaped() {
        for (raw, text) in [
            (r#""Gr\u00f6\u00dfte?\nSay \"x\"""#, "Größte?\nSay \"x\""),
            ("\"Größte?\"", "Größte?"),
            ("null", ""),
            ("[]", ""),
            (
                r#"[{"type":"text","text":"a\u0020"},{"type":"image_url","image_url":{"url":"u"}},{"text":"b"},"c"]"#,
                "a b",
            ),
            // No text at all: half a character.
            (r#""\ud800""#, r#""\ud800""#),
        ] {
            assert_eq!(Content::Json(raw).text(), text, "{raw}");
        }
        assert_eq!(Content::Text("\"a\"".into()).text(), "\"a\"");
    }
}
