//! An item of a request: its text to a trajectory.
//!
//! Items are read one by one, so that a bad one is an error of its own. Strings are borrowed where JSON allows it; what
//! nobody scores (tool results, metadata) is skipped without being decoded.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny};
use serde_json::value::RawValue;

use super::field::{self, Fields, Passed, Value};
use super::message::{MAX_MESSAGES, MessageWire, read_messages};
use super::pointed::{Pointed, excerpt, pointed, pointed_below, without_place};
use super::request::{MAX_NAME_BYTES, check_name};
use super::rollout::{read_prompt, read_prompt_response, written_end};
use super::text::{Bounded, Object, References, Scalar, Text, Whole};
use super::walk::Walk;
use crate::toolcall::{self, values_bytes};
use crate::trajectory::{MAX_REFERENCE_CALLS, ReferenceCall, ToolFormat, Trajectory, check_references};

/// One item, read.
#[derive(Debug)]
pub struct Item<'a> {
    /// The client's id.
    pub id: Option<Cow<'a, str>>,
    /// The client's group.
    pub group: Option<Cow<'a, str>>,
    /// The trajectory.
    pub trajectory: Trajectory<'a>,
    /// Whether the tools are the item's own.
    pub own_tools: bool,
    /// Fields that this server does not know; at most a few.
    pub unknown_fields: Vec<String>,
    /// Where a message has calls that this server does not read, if one has; in words.
    pub unread_calls: Option<&'static str>,
}

/// An item of a body.
#[derive(Debug)]
pub struct Given<'a> {
    /// Its text.
    pub raw: &'a str,
    /// What stands in it, where that was read in passing.
    fields: Option<ItemFields<'a>>,
}

impl<'a> Given<'a> {
    /// An item that nobody has looked into.
    pub fn unread(raw: &'a str) -> Self {
        Self { raw, fields: None }
    }

    /// The item that a text is.
    pub fn of(raw: &'a str) -> Self {
        let mut walk = Walk::new(raw);
        Self { raw, fields: field::in_passing(&mut walk).filter(|_| walk.is_done()) }
    }

    /// The item at these bytes of the walk's text; `None` where there are no such bytes.
    pub(super) fn at(walk: &mut Walk<'a>, range: &Range<usize>) -> Option<Self> {
        walk.resume_at(range.start);
        let fields = field::in_passing(walk).filter(|_| walk.start() == range.end);
        walk.resume_at(range.end);
        Some(Self { raw: walk.since(range.start)?, fields })
    }

    /// The item that comes next; `None` where it does not even end.
    pub(super) fn next(walk: &mut Walk<'a>) -> Option<Self> {
        let start = walk.start();
        let fields = field::in_passing(walk);
        if fields.is_none() {
            walk.pass_from(start)?;
        }
        Some(Self { raw: walk.since(start)?, fields })
    }

    /// Why a dialect refused it, if it did.
    fn refusal(&self) -> Option<Pointed> {
        let reason = self.raw.strip_prefix("{\"")?.strip_prefix(REFUSED)?.strip_prefix("\":")?;
        let Text(reason) = serde_json::Deserializer::from_str(reason).into_iter().next()?.ok()?;
        Some(Pointed::shape("", excerpt(&reason)))
    }

    /// As [`Self::read`], for an item that a dialect has prepared, and may have refused.
    ///
    /// # Errors
    /// As that, and why it was refused.
    pub fn read_prepared(self, tools: &'a str, format: ToolFormat) -> Result<Item<'a>, Pointed> {
        self.refusal().map_or_else(|| self.read(tools, format), Err)
    }

    /// Reads it. `tools` is the raw tool list of the request, for items without their own, and `format` the rubric's, for
    /// those that name none.
    ///
    /// # Errors
    /// With a JSON pointer into the item.
    pub fn read(self, tools: &'a str, format: ToolFormat) -> Result<Item<'a>, Pointed> {
        let fields = match self.fields {
            Some(fields) => fields,
            None => serde_json::from_str(self.raw).map_err(|error| Pointed {
                message: excerpt(&without_place(&error)),
                ..pointed::<ItemFields<'_>>(self.raw, &error)
            })?,
        };
        fields.into_item(tools, format)
    }
}

/// The id and group of an item that could not be read whole, as far as they can be had and are short enough to be told.
pub fn read_names(raw: &str) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    #[derive(Deserialize)]
    struct Names<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        group: Option<&'a RawValue>,
    }
    let scalar = |raw: Option<&'_ RawValue>| {
        let read = raw.and_then(|raw| serde_json::from_str::<Scalar<'_>>(raw.get()).ok());
        read.filter(|name| name.0.len() <= MAX_NAME_BYTES).map(|name| name.0.into_owned().into())
    };
    let read = serde_json::from_str::<Object<Names<'_>>>(raw);
    read.map_or((None, None), |Object(names)| (scalar(names.id), scalar(names.group)))
}

#[derive(Debug, Default)]
pub(super) struct ItemFields<'a> {
    id: Option<Scalar<'a>>,
    group: Option<Scalar<'a>>,
    messages: Option<Bounded<MessageWire<'a>, MAX_MESSAGES>>,
    prompt: Option<&'a str>,
    response: Option<Text<'a>>,
    tools: Option<&'a str>,
    references: Option<References<'a>>,
    reference_calls: Option<ReferenceCalls<'a>>,
    tool_format: Option<Text<'a>>,
    truncated: Option<bool>,
    response_tokens: Option<Whole>,
    unknown: Vec<String>,
}

const UNKNOWN_FIELDS_KEPT: usize = 4;

/// A field of an item that a dialect refused: why, in words. Stands before all others; from anybody else it is an unknown field.
pub(in crate::http) const REFUSED: &str = "$refused";

impl<'de> Deserialize<'de> for ItemFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        field::exactly(deserializer)
    }
}

impl<'a> Fields<'a> for ItemFields<'a> {
    const EXPECTED: &'static str = "a trajectory object";

    fn read<V: Value<'a>>(&mut self, name: &str, value: V) -> Result<(), V::Error> {
        match name {
            "id" => self.id = value.read()?,
            "group" => self.group = value.read()?,
            "messages" => self.messages = value.read()?,
            "prompt" => self.prompt = value.raw()?,
            "response" => self.response = value.read()?,
            "tools" => self.tools = value.familiar()?,
            "references" | "golds" | "ground_truth" => value.put_references(&mut self.references)?,
            "reference_calls" => self.reference_calls = value.read()?,
            "tool_format" => self.tool_format = value.read()?,
            "truncated" => self.truncated = value.read()?,
            "response_tokens" => self.response_tokens = value.read()?,
            "metadata" => _ = value.raw()?,
            other => {
                self.note_unknown(other);
                value.raw()?;
            }
        }
        Ok(())
    }
}

impl<'a> ItemFields<'a> {
    /// The format of a response whose first marker the prompt's template has written, where nobody names another: functionary's
    /// ends with it, and what follows has no other.
    fn prompted_format(&self, format: ToolFormat) -> Option<ToolFormat> {
        let raw = self.prompt.filter(|_| format == ToolFormat::Auto && self.response.is_some())?;
        // Before anything is decoded.
        let end = raw.as_bytes().last_chunk::<6>()?;
        if end[4] != b'>' && !end.starts_with(b"u003") {
            return None;
        }
        let near = raw.get(raw.floor_char_boundary(raw.len().saturating_sub(64))..)?;
        if !near.contains("end_header_id") && !near.contains("\\u") {
            return None;
        }
        written_end(raw).ends_with("<|end_header_id|>\n\n>>>").then_some(ToolFormat::FunctionaryV32)
    }

    fn note_unknown(&mut self, field: &str) {
        if self.unknown.len() < UNKNOWN_FIELDS_KEPT {
            let field: String = field.chars().take(64).collect();
            if !self.unknown.contains(&field) {
                self.unknown.push(field);
            }
        }
    }

    fn into_item(self, request_tools: &'a str, format: ToolFormat) -> Result<Item<'a>, Pointed> {
        for (name, pointer) in [(&self.id, "/id"), (&self.group, "/group")] {
            if let Some(Scalar(name)) = name {
                check_name(name, pointer)?;
            }
        }
        if self.messages.is_some() && self.response.is_some() {
            return Err(Pointed::shape("/response", "give either `messages` or `response`, not both"));
        }
        let tool_format = match &self.tool_format {
            Some(name) => Some(
                name.0
                    .parse()
                    .map_err(|e: crate::trajectory::UnknownFormat| Pointed::shape("/tool_format", e.to_string()))?,
            ),
            None => None,
        };
        let tool_format = self.prompted_format(tool_format.unwrap_or(format)).or(tool_format);
        let mut unread_calls = None;
        let messages = match (self.messages, self.response) {
            (Some(messages), _) => {
                unread_calls = messages.0.iter().find_map(MessageWire::unread_calls);
                let mut context = read_prompt(self.prompt)?;
                let messages = read_messages(messages.0, "/messages")?;
                if context.is_empty() {
                    messages
                } else {
                    context.extend(messages);
                    context
                }
            }
            (None, Some(response)) => read_prompt_response(self.prompt, response, tool_format.unwrap_or(format))?,
            (None, None) => Vec::new(),
        };
        let reference_calls = self.reference_calls.map(|calls| {
            calls
                .0
                .into_iter()
                .map(|Object(call)| ReferenceCall { name: call.name.0, arguments: call.arguments.0 })
                .collect()
        });
        let own_tools = self.tools.is_some();
        let trajectory = Trajectory {
            messages,
            tools: self.tools.unwrap_or(request_tools),
            references: self.references.map_or_else(Vec::new, |references| references.0),
            reference_calls,
            tool_format,
            truncated: self.truncated.unwrap_or(false),
            response_tokens: self.response_tokens.map(|Whole(tokens)| tokens),
        };
        let trajectory = trajectory.checked().map_err(|e| Pointed::shape(e.pointer(), e.to_string()))?;
        Ok(Item {
            id: self.id.map(|id| id.0),
            group: self.group.map(|group| group.0),
            trajectory,
            own_tools,
            unknown_fields: self.unknown,
            unread_calls,
        })
    }
}

type ReferenceCalls<'a> = Bounded<Object<ReferenceCallWire<'a>>, MAX_REFERENCE_CALLS>;

impl<'a> Passed<'a> for Option<ReferenceCalls<'a>> {}

/// What is kept for a prompt until there are items of it, raw.
pub(in crate::http) struct Kept<'a> {
    /// Acceptable answers.
    pub(in crate::http) references: Option<&'a RawValue>,
    /// Calls that a right trajectory makes.
    pub(in crate::http) reference_calls: Option<&'a RawValue>,
    /// The tools that are offered.
    pub(in crate::http) tools: Option<&'a RawValue>,
    /// The group.
    pub(in crate::http) group: Option<&'a RawValue>,
}

/// Whether what is kept for a prompt can be read as an item's: else every item of the prompt would be one that cannot be.
///
/// # Errors
/// With the field and the place in it.
pub(in crate::http) fn check_kept(kept: &Kept<'_>) -> Result<(), Pointed> {
    fn read<'a, T: Deserialize<'a>>(at: &str, raw: Option<&'a RawValue>) -> Result<Option<T>, Pointed> {
        let Some(raw) = raw.map(RawValue::get) else { return Ok(None) };
        serde_json::from_str(raw).map_err(|error| pointed_below::<T>(at, raw, &error))
    }
    let references = read::<References<'_>>("/references", kept.references)?.unwrap_or_default();
    check_references(&references.0).map_err(|wrong| Pointed::shape(wrong.pointer(), wrong.to_string()))?;
    read::<ReferenceCalls<'_>>("/reference_calls", kept.reference_calls)?;
    if let Some(Scalar(group)) = read("/group", kept.group)? {
        check_name(&group, "/group")?;
    }
    match kept.tools.map(RawValue::get) {
        Some(tools) if list_of(tools).is_none() => Err(Pointed::shape("/tools", "give a list of tools")),
        _ => Ok(()),
    }
}

/// A JSON list, or the one that a text holds, as data sets have it; `None` for anything else.
pub(in crate::http) fn list_of(raw: &str) -> Option<Cow<'_, str>> {
    let list = if raw.starts_with('"') { serde_json::from_str::<Text<'_>>(raw).ok()?.0 } else { Cow::Borrowed(raw) };
    let is_list = || raw.starts_with('[') || serde_json::from_str::<Vec<IgnoredAny>>(&list).is_ok();
    is_list().then_some(list)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceCallWire<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
}

/// Most bytes of memory for the values in the arguments of one reference call: all those of a trajectory are compared at
/// once.
const MAX_ARGUMENTS_BYTES: usize = 1 << 20;

/// The text of an object.
#[derive(Debug)]
struct Arguments<'a>(&'a str);

impl Default for Arguments<'_> {
    fn default() -> Self {
        Self("{}")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Arguments<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if values_bytes(raw, MAX_ARGUMENTS_BYTES).is_none() {
            let most = MAX_ARGUMENTS_BYTES >> 20;
            return Err(D::Error::custom(format_args!("too many values: they take more than {most} MiB of memory")));
        }
        toolcall::read_object(raw).map(|_| Self(raw)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
