//! Reading `POST /reward`: bytes to a request whose items are still raw, and each item to a trajectory.
//!
//! Items are read one by one, so that a bad one is an error of its own. Strings are borrowed where JSON allows it; what
//! nobody scores (tool results, metadata) is skipped without being decoded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::message::{MAX_MESSAGES, MessageWire, read_messages};
use super::pointed::{Pointed, excerpt, pointed, without_place};
use super::rollout::{read_prompt, read_prompt_response};
use super::text::{Bounded, Choice, Object, References, Scalar, Text, Whole, whole};
use super::walk::{Walk, present};
use crate::rubric::escape_pointer;
use crate::toolcall::{self, values_bytes};
use crate::trajectory::{MAX_REFERENCE_CALLS, ReferenceCall, ToolFormat, Trajectory};

/// What `reward` holds for an item that could not be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = json!("null"))]
pub enum OnInvalid {
    /// `null`.
    #[default]
    Null,
    /// The rubric's lowest reward.
    Zero,
    /// The mean of the group's valid rewards; `null` where there is none.
    Mean,
    /// Nothing: the whole request fails.
    Error,
}

/// The curriculum position, as clients send it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurriculumWire {
    /// The trainer's step.
    #[serde(deserialize_with = "whole")]
    pub step: Option<u64>,
    /// Pass rate per stage, from 0 to 1.
    #[serde(deserialize_with = "few")]
    pub mastery: BTreeMap<String, f64>,
}

/// Reads pass rates, and keeps no more of them than tells that there are too many.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = BTreeMap<String, f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while kept.len() <= MAX_MASTERY
                && let Some((stage, value)) = map.next_entry()?
            {
                kept.insert(stage, value);
            }
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }
    deserializer.deserialize_map(Few)
}

/// A request with its items still raw.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRequest<'a> {
    /// A rubric's name, `name@version`, or a whole rubric.
    #[serde(borrow, default)]
    pub rubric: Option<&'a RawValue>,
    /// The training run.
    #[serde(borrow, default)]
    pub run_id: Option<Text<'a>>,
    /// The trainer's step.
    #[serde(default, deserialize_with = "whole")]
    pub step: Option<u64>,
    /// Replaces `step`.
    #[serde(default)]
    pub curriculum: Option<Object<CurriculumWire>>,
    /// Milliseconds from the request's arrival.
    #[serde(default, deserialize_with = "whole")]
    pub deadline_ms: Option<u64>,
    /// What to do about items that cannot be scored.
    #[serde(default)]
    pub on_invalid: Option<Choice<OnInvalid>>,
    /// Tools of all trajectories that bring none of their own.
    #[serde(borrow, default)]
    pub tools: Option<&'a RawValue>,
    /// The items.
    #[serde(borrow, deserialize_with = "items")]
    pub trajectories: Vec<&'a RawValue>,
}

/// Most trajectories of a request.
pub const MAX_TRAJECTORIES: usize = 4096;
/// Room that the messages of a trajectory get at once.
const USUAL_MESSAGES: usize = 8;
/// Longest id, group, run or stage, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Most pass rates of a request; twice as many as a rubric has stages.
const MAX_MASTERY: usize = 64;
/// Largest step: what a database keeps.
const MAX_STEP: u64 = i64::MAX.unsigned_abs();

fn items<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    Bounded::<&'de RawValue, MAX_TRAJECTORIES>::deserialize(deserializer).map(|list| list.0)
}

/// Refuses names that nobody could use in a URL or a table.
pub(super) fn check_name(name: &str, pointer: &str) -> Result<(), Pointed> {
    if name.len() > MAX_NAME_BYTES {
        let message = format!("a name of {} bytes is longer than the limit of {MAX_NAME_BYTES}", name.len());
        return Err(Pointed::shape(pointer, message));
    }
    Ok(())
}

/// Reads a request.
///
/// # Errors
/// With a JSON pointer, and whether it is the syntax or the shape that is wrong.
pub fn read_request(body: &str) -> Result<RewardRequest<'_>, Pointed> {
    let request = read_object(body)?;
    if let Some(Text(run_id)) = &request.run_id {
        check_name(run_id, "/run_id")?;
        if run_id.is_empty() {
            return Err(Pointed::shape("/run_id", "the name of a run must not be empty; leave the field out for none"));
        }
    }
    check_step(request.step, "/step")?;
    if let Some(Object(curriculum)) = &request.curriculum {
        check_step(curriculum.step, "/curriculum/step")?;
        check_mastery(&curriculum.mastery)?;
    }
    Ok(request)
}

fn check_step(step: Option<u64>, pointer: &str) -> Result<(), Pointed> {
    match step.filter(|step| *step > MAX_STEP) {
        Some(step) => Err(Pointed::shape(pointer, format!("{step} is out of range; a step is at most {MAX_STEP}"))),
        None => Ok(()),
    }
}

fn check_mastery(mastery: &BTreeMap<String, f64>) -> Result<(), Pointed> {
    const PLACE: &str = "/curriculum/mastery";
    if mastery.len() > MAX_MASTERY {
        return Err(Pointed::shape(PLACE, format!("more pass rates than the limit of {MAX_MASTERY}")));
    }
    for (stage, value) in mastery {
        let pointer = || format!("{PLACE}/{}", escape_pointer(stage));
        check_name(stage, &pointer())?;
        if !(0.0..=1.0).contains(value) {
            return Err(Pointed::shape(pointer(), format!("{value} is no pass rate; it must be from 0 to 1")));
        }
    }
    Ok(())
}

fn read_object(body: &str) -> Result<RewardRequest<'_>, Pointed> {
    let read = serde_json::from_str::<Object<RewardRequest<'_>>>(body);
    read.map(|request| request.0).map_err(|error| pointed::<Object<RewardRequest<'_>>>(body, &error))
}

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
        Self { raw, fields: ItemFields::walk(&mut walk).filter(|_| walk.is_done()) }
    }

    /// The item at these bytes of the walk's text; `None` where there are no such bytes.
    pub(super) fn at(walk: &mut Walk<'a>, range: &Range<usize>) -> Option<Self> {
        walk.resume_at(range.start);
        let fields = ItemFields::walk(walk).filter(|_| walk.start() == range.end);
        walk.resume_at(range.end);
        Some(Self { raw: walk.since(range.start)?, fields })
    }

    /// The item that comes next; `None` where it does not even end.
    pub(super) fn next(walk: &mut Walk<'a>) -> Option<Self> {
        let start = walk.start();
        let fields = ItemFields::walk(walk);
        if fields.is_none() {
            walk.pass_from(start)?;
        }
        Some(Self { raw: walk.since(start)?, fields })
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
    reference_calls: Option<Bounded<Object<ReferenceCallWire<'a>>, MAX_REFERENCE_CALLS>>,
    tool_format: Option<Text<'a>>,
    truncated: Option<bool>,
    response_tokens: Option<Whole>,
    unknown: Vec<String>,
}

const UNKNOWN_FIELDS_KEPT: usize = 4;

impl<'de> Deserialize<'de> for ItemFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = ItemFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a trajectory object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ItemFields<'de>, A::Error> {
                let mut fields = ItemFields::default();
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        "id" => fields.id = map.next_value()?,
                        "group" => fields.group = map.next_value()?,
                        "messages" => fields.messages = map.next_value()?,
                        "prompt" => fields.prompt = map.next_value::<Option<&RawValue>>()?.map(RawValue::get),
                        "response" => fields.response = map.next_value()?,
                        "tools" => fields.tools = map.next_value::<Option<&RawValue>>()?.map(RawValue::get),
                        // Null means absent, also under a second name.
                        "references" | "golds" | "ground_truth" => {
                            fields.references = map.next_value::<Option<_>>()?.or(fields.references);
                        }
                        "reference_calls" => fields.reference_calls = map.next_value()?,
                        "tool_format" => fields.tool_format = map.next_value()?,
                        "truncated" => fields.truncated = map.next_value()?,
                        "response_tokens" => fields.response_tokens = map.next_value::<Option<Whole>>()?,
                        "metadata" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        other => {
                            fields.note_unknown(other);
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> ItemFields<'a> {
    /// Reads an item in passing, as its `Deserialize` does; `None` where it is unusual.
    fn walk(walk: &mut Walk<'a>) -> Option<Self> {
        let mut fields = Self::default();
        walk.object(|walk, key| {
            match key {
                "id" => Scalar::walk(walk, &mut fields.id)?,
                "group" => Scalar::walk(walk, &mut fields.group)?,
                "messages" => {
                    let mut messages = Vec::with_capacity(USUAL_MESSAGES);
                    walk.list(|walk| {
                        messages.push(MessageWire::walk(walk)?);
                        (messages.len() <= MAX_MESSAGES).then_some(())
                    })?;
                    fields.messages = Some(Bounded(messages));
                }
                "prompt" => fields.prompt = present(walk.value()?),
                "response" => fields.response = Some(Text(walk.string()?)),
                "tools" => fields.tools = present(walk.familiar_value()?),
                "references" | "golds" | "ground_truth" => References::walk(walk, &mut fields.references)?,
                "reference_calls" => fields.reference_calls = serde_json::from_str(walk.value()?).ok()?,
                "tool_format" => fields.tool_format = serde_json::from_str(walk.value()?).ok()?,
                "truncated" => fields.truncated = serde_json::from_str(walk.value()?).ok()?,
                "response_tokens" => fields.response_tokens = serde_json::from_str(walk.value()?).ok()?,
                "metadata" => drop(walk.value()?),
                other => {
                    fields.note_unknown(other);
                    walk.value()?;
                }
            }
            Some(())
        })?;
        Some(fields)
    }

    fn note_unknown(&mut self, field: &str) {
        if self.unknown.len() < UNKNOWN_FIELDS_KEPT {
            self.unknown.push(field.chars().take(64).collect());
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
        let messages = match (self.messages, self.response) {
            (Some(messages), _) => {
                let mut context = read_prompt(self.prompt)?;
                context.extend(read_messages(messages.0, "/messages")?);
                context
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
        })
    }
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
mod tests {
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
        let message_key = key(vec![
            "content",
            "content",
            "reasoning",
            "reasoning_content",
            "tool_calls",
            "name",
            "role",
            r"\u0072ole",
        ]);
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
        (prop::collection::vec(field, 0..4), prop::option::weighted(0.8, messages), "[ \n]{0,2}", "(|x|,|\\})")
            .prop_map(|(fields, messages, blank, after)| {
                format!("{blank}{{{}}}{blank}{after}", fields.into_iter().chain(messages).collect::<Vec<_>>().join(","))
            })
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
}
