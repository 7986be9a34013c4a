//! Chat messages: the policy's decoded, everybody else's only looked at.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::field::{self, Fields, Passed, Value};
use super::pointed::{Pointed, excerpt, pointed_below};
use super::text::{Bounded, Object, Text};
use super::walk::Walk;
use crate::trajectory::{Content, Message, Role, Thinking, Turn, is_text_part};

/// Most messages of a trajectory.
pub(super) const MAX_MESSAGES: usize = 4096;
/// Room that they get at once.
const USUAL_MESSAGES: usize = 8;

/// A chat message. Fields that say nothing about the score (`name`, `tool_call_id`, ..) are skipped.
#[derive(Debug, Default)]
pub(super) struct MessageWire<'a> {
    /// Always there in one that was read.
    role: Option<Text<'a>>,
    content: ContentWire<'a>,
    /// The field's name, and what it holds.
    reasoning: Option<(&'static str, &'a str)>,
    tool_calls: Option<&'a str>,
    /// Where calls stand instead, as other APIs have them.
    foreign_calls: Option<&'static str>,
}

/// A field in which other APIs, and clients of JavaScript, keep a message's calls; in words.
fn foreign_calls(field: &str) -> Option<&'static str> {
    match field {
        "function_call" => Some("`function_call`"),
        "tool_call" => Some("`tool_call`"),
        "toolCalls" => Some("`toolCalls`"),
        _ => None,
    }
}

/// A message's content: decoded at once where the role is known to be the policy's, else still raw.
#[derive(Debug)]
enum ContentWire<'a> {
    Raw(Option<&'a str>),
    Read(Parts<'a>),
}

impl Default for ContentWire<'_> {
    fn default() -> Self {
        Self::Raw(None)
    }
}

impl<'de> Deserialize<'de> for MessageWire<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let message: Self = field::exactly(deserializer)?;
        if message.role.is_none() {
            return Err(de::Error::missing_field("role"));
        }
        Ok(message)
    }
}

impl<'a> Fields<'a> for MessageWire<'a> {
    const EXPECTED: &'static str = "a message object";

    fn read<V: Value<'a>>(&mut self, name: &str, value: V) -> Result<(), V::Error> {
        match name {
            "role" => self.role = Some(value.read()?),
            "content" if self.role() == "assistant" => self.content = ContentWire::Read(value.read()?),
            "content" => self.content = ContentWire::Raw(value.familiar()?),
            // Servers send either name, or both with one of them null.
            "reasoning_content" => self.add_reasoning("reasoning_content", value.raw()?),
            "reasoning" => self.add_reasoning("reasoning", value.raw()?),
            "tool_calls" => self.tool_calls = value.raw()?,
            other => {
                let is_given = value.raw()?.is_some();
                self.foreign_calls = self.foreign_calls.or(foreign_calls(other).filter(|_| is_given));
            }
        }
        Ok(())
    }
}

impl<'a> Passed<'a> for Option<Bounded<MessageWire<'a>, MAX_MESSAGES>> {
    fn pass(walk: &mut Walk<'a>) -> Option<Self> {
        let mut messages = Vec::with_capacity(USUAL_MESSAGES);
        walk.list(|walk| {
            messages.push(field::in_passing(walk).filter(|message: &MessageWire<'_>| message.role.is_some())?);
            (messages.len() <= MAX_MESSAGES).then_some(())
        })?;
        Some(Some(Bounded(messages)))
    }
}

pub(super) fn read_messages<'a>(messages: Vec<MessageWire<'a>>, at: &str) -> Result<Vec<Message<'a>>, Pointed> {
    let message = |(index, message): (usize, MessageWire<'a>)| message.read(&|| format!("{at}/{index}"));
    messages.into_iter().enumerate().map(message).collect()
}

impl<'a> MessageWire<'a> {
    /// Who speaks, as sent.
    fn role(&self) -> &str {
        self.role.as_ref().map_or("", |role| &role.0)
    }

    fn add_reasoning(&mut self, name: &'static str, given: Option<&'a str>) {
        self.reasoning = self.reasoning.or(given.map(|given| (name, given)));
    }

    /// Where the policy's calls stand instead of `tool_calls`, if they do; in words.
    pub(super) fn unread_calls(&self) -> Option<&'static str> {
        if Role::from_name(self.role()) != Some(Role::Assistant) {
            return None;
        }
        let holds_calls = match &self.content {
            ContentWire::Read(parts) => parts.holds_calls,
            ContentWire::Raw(Some(raw)) if raw.starts_with('[') => {
                serde_json::from_str::<Parts<'_>>(raw).is_ok_and(|parts| parts.holds_calls)
            }
            ContentWire::Raw(_) => false,
        };
        self.foreign_calls.or_else(|| holds_calls.then_some("`content`, in parts of type `tool_use`,"))
    }

    fn read(self, at: &dyn Fn() -> String) -> Result<Message<'a>, Pointed> {
        let Some(role) = Role::from_name(self.role()) else {
            let known = "system, developer, user, assistant, tool";
            return Err(Pointed::shape(
                at() + "/role",
                format!("{:?} is no role; one of: {known}", excerpt(self.role())),
            ));
        };
        if role != Role::Assistant {
            let content = match self.content {
                ContentWire::Raw(raw) => raw.unwrap_or("null"),
                // Only where `role` came twice: nobody scores it.
                ContentWire::Read(_) => "null",
            };
            check_content(content, at)?;
            return Ok(Message::Other { role, content: Content::Json(content) });
        }
        let parts = match self.content {
            ContentWire::Read(parts) => parts,
            ContentWire::Raw(raw) => raw.map_or(Ok(Parts::default()), |raw| read_content(raw, at, "content"))?,
        };
        let field = self.reasoning.map(|(name, raw)| read_content(raw, at, name));
        let field = field.transpose()?.map(|parts| parts.text);
        if self.tool_calls.is_some_and(|raw| !raw.starts_with('[')) {
            return Err(Pointed::shape(at() + "/tool_calls", "`tool_calls` must be a list or null"));
        }
        let native_calls = self.tool_calls.filter(|raw| !is_empty_list(raw));
        let reasoning = field.or(parts.reasoning);
        Ok(Message::Policy(Turn { text: parts.text, offset: 0, reasoning, native_calls, thinking: Thinking::Outside }))
    }
}

fn is_empty_list(raw: &str) -> bool {
    raw.strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]")
}

/// A role's content that nobody scores needs no decoding, only a look at its kind.
fn check_content(raw: &str, at: &dyn Fn() -> String) -> Result<(), Pointed> {
    match raw.as_bytes().first() {
        Some(b'"' | b'[' | b'n') => Ok(()),
        _ => Err(wrong_content(at)),
    }
}

/// A message of a prompt: who speaks, and its text; content that is no text is empty.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct PromptMessage<'a> {
    /// Who speaks, as sent.
    #[serde(borrow)]
    pub(in crate::http) role: Text<'a>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

impl<'a> PromptMessage<'a> {
    /// Its text parts, joined.
    pub(in crate::http) fn text(&self) -> Cow<'a, str> {
        let read = |raw: &'a RawValue| serde_json::from_str::<Parts<'a>>(raw.get()).ok();
        self.content.and_then(read).unwrap_or_default().text
    }
}

fn wrong_content(at: &dyn Fn() -> String) -> Pointed {
    Pointed::shape(at() + "/content", "`content` must be a string, null, or a list of parts")
}

/// Content of an assistant message: its text parts joined, and its reasoning parts.
#[derive(Debug, Default)]
struct Parts<'a> {
    text: Cow<'a, str>,
    reasoning: Option<Cow<'a, str>>,
    /// Whether a part of it is a call, as Anthropic writes one.
    holds_calls: bool,
}

fn read_content<'a>(raw: &'a str, at: &dyn Fn() -> String, field: &str) -> Result<Parts<'a>, Pointed> {
    serde_json::from_str(raw).map_err(|error| pointed_below::<Parts<'_>>(&format!("{}/{field}", at()), raw, &error))
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartsVisitor;
        impl<'de> Visitor<'de> for PartsVisitor {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, null, or a list of parts")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Parts<'de>, E> {
                Ok(Parts { text: Cow::Borrowed(text), ..Parts::default() })
            }

            fn visit_str<E>(self, text: &str) -> Result<Parts<'de>, E> {
                Ok(Parts { text: Cow::Owned(text.to_owned()), ..Parts::default() })
            }

            fn visit_unit<E>(self) -> Result<Parts<'de>, E> {
                Ok(Parts::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parts<'de>, A::Error> {
                let mut joined = Parts::default();
                while let Some(Object(part)) = list.next_element()? {
                    joined.add(part);
                }
                Ok(joined)
            }
        }
        deserializer.deserialize_any(PartsVisitor)
    }
}

#[derive(Debug, Deserialize)]
struct PartWire<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
}

impl<'a> Passed<'a> for Parts<'a> {
    fn pass(walk: &mut Walk<'a>) -> Option<Self> {
        if walk.is_string() {
            return Some(Self { text: walk.string()?, ..Self::default() });
        }
        serde_json::from_str(walk.value()?).ok()
    }
}

impl<'a> Parts<'a> {
    fn add(&mut self, part: PartWire<'a>) {
        let kind = part.kind.as_ref().map(|kind| &*kind.0);
        match (kind, part.text, part.thinking) {
            (kind, Some(Text(text)), _) if is_text_part(kind) && self.text.is_empty() => self.text = text,
            (kind, Some(Text(text)), _) if is_text_part(kind) => self.text.to_mut().push_str(&text),
            (Some("thinking" | "reasoning" | "reasoning_text"), text, thinking) => {
                let Text(more) = thinking.or(text).unwrap_or(Text(Cow::Borrowed("")));
                self.reasoning.get_or_insert_default().to_mut().push_str(&more);
            }
            (Some("tool_use"), ..) => self.holds_calls = true,
            // Images and the like are kept by the client; there is nothing in them to score.
            _ => {}
        }
    }
}
