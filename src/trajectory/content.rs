//! What a message says, decoded from the raw JSON of its content. In: a JSON string, `null` or a list of parts; out: text.
//! Only judges, and people, read it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Content;

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
