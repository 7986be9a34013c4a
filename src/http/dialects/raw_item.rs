//! One item of the native request, as a dialect found it. In: raw JSON from the dialect's body. Out: the item's JSON.
//! Values are handed on as they came; the native reader decides what they are worth.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::label::Label;
use crate::http::prompt::{self, PromptKey, PromptTurn};
use crate::http::references::{Entry, References};
use crate::http::wire::{REFUSED, list_of};

/// What the policy wrote, raw JSON.
#[derive(Debug, Clone, Default)]
pub(super) enum Written<'b> {
    /// Nothing that could be found.
    #[default]
    Nothing,
    /// A text.
    Response(Cow<'b, str>),
    /// What stands between the quotes of a text.
    Inside(&'b str),
    /// Messages, of which those of the assistant are the policy's.
    Messages(Cow<'b, str>),
    /// A whole templated conversation as one text, the prompt included.
    Whole(&'b str),
}

/// The message of a policy that said nothing.
pub(super) const NO_WORDS: &str = r#"{"role":"assistant","content":""}"#;

impl<'b> Written<'b> {
    /// A text without the end and padding tokens at its end; what is no text stays as it is.
    pub(super) fn response(raw: &'b str) -> Self {
        match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            Some(inside) => Self::Inside(prompt::without_trailing_tokens(inside)),
            None => Self::Response(Cow::Borrowed(raw)),
        }
    }
}

/// One item; every field is raw JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct RawItem<'b> {
    /// What the policy was given: a text, templated or not, or messages.
    pub(super) prompt: Option<Cow<'b, str>>,
    /// What it wrote.
    pub(super) written: Written<'b>,
    /// The tools that were offered.
    pub(super) tools: Option<Cow<'b, str>>,
    /// What is right.
    pub(super) label: Label<'b>,
    /// Whether generation was cut off.
    pub(super) truncated: Option<Cow<'b, str>>,
    /// How many tokens the policy wrote.
    pub(super) response_tokens: Option<Cow<'b, str>>,
    /// Why it cannot be scored, where the dialect alone can tell.
    pub(super) fault: Option<String>,
}

/// What writing an item needs to know.
pub(super) struct ItemContext<'d> {
    /// Right answers by prompt.
    pub(super) references: &'d References,
    /// Whether an item without a group gets its prompt's key as one.
    pub(super) keyed: bool,
    /// Whether the query says how large a group is.
    pub(super) sized: bool,
    /// Whether somebody reads the prompt: then a templated one becomes messages.
    pub(super) judged: bool,
    /// How calls are written, if the query says so.
    pub(super) tool_format: Option<&'d str>,
}

/// What is remembered of an item that was written.
#[derive(Debug, Default)]
pub(super) struct ItemSummary {
    /// The group, as the native reader will name it.
    pub(super) group: Option<String>,
    /// How many rollouts the group has.
    pub(super) group_size: Option<usize>,
}

const NO_PROMPT: &str =
    "nothing says where the prompt ends: send it beside the text, or a text with the markers of a chat template";

impl<'b> RawItem<'b> {
    /// An item of which there is one text with everything in it, raw JSON.
    pub(super) fn whole(text: &'b str) -> Self {
        Self { written: Written::Whole(text), ..Self::default() }
    }

    /// Appends the item's JSON.
    pub(super) fn write(self, context: &ItemContext<'_>, out: &mut String) -> ItemSummary {
        let mut raw_item = self;
        let key = raw_item.divide(context);
        let known = key.and_then(|key| context.references.find(key));
        let known = known.as_deref();
        let group = raw_item.label.group.as_deref().map(Cow::Borrowed);
        let group = group.or_else(|| known?.group.as_ref().map(|raw| raw.get().into()));
        let group = group.or_else(|| key.filter(|_| context.keyed).map(|key| format!("\"{key}\"").into()));
        let summary = ItemSummary { group: group.as_deref().and_then(name_of), group_size: raw_item.label.group_size };
        out.push('{');
        // The native reader refuses it in these words: whoever looks at what was stored finds them beside what was sent.
        let label_fault = raw_item.label.fault.as_ref().filter(|_| !context.sized);
        if let Some(fault) = raw_item.fault.as_ref().or(label_fault) {
            put(out, REFUSED, Some(&quoted(fault)));
        }
        put(out, "group", group.as_deref());
        raw_item.put_text(context, out);
        raw_item.put_label(context, known, out);
        // The last comma. An item of which nothing is left, as of a text that is `null`, has none.
        if out.ends_with(',') {
            out.pop();
        }
        out.push('}');
        summary
    }

    /// Tells the prompt from the response where both are one text; gives the prompt's key where somebody asks for it.
    fn divide(&mut self, context: &ItemContext<'_>) -> Option<PromptKey> {
        if let Written::Whole(raw) = self.written {
            // What is no text at all stays as it is: the native reader says so.
            let Some(divided) = prompt::divide_raw(raw, context.references).ok()? else {
                self.fault = Some(NO_PROMPT.to_owned());
                return None;
            };
            let (before, inside) = raw.get(1..raw.len() - 1)?.split_at_checked(divided.response)?;
            // A judge reads the question, not the template around it.
            let prompt = if context.judged { messages_json(&divided.prompt) } else { ["\"", before, "\""].concat() };
            self.prompt = Some(Cow::Owned(prompt));
            self.written = Written::Inside(prompt::without_trailing_tokens(inside));
            return Some(divided.key);
        }
        let wanted = context.keyed || !context.references.is_empty();
        match (&self.prompt, &self.written) {
            (Some(prompt), _) if wanted => prompt::key_of(prompt),
            (None, Written::Messages(messages)) if wanted => prompt::key_of_conversation(messages, context.references),
            _ => None,
        }
    }

    /// Whether the item says what is right: then it is not judged by the table's answers.
    fn has_answers(&self) -> bool {
        self.label.references.is_some() || self.label.reference_calls.is_some()
    }

    fn put_text(&self, context: &ItemContext<'_>, out: &mut String) {
        if let Some(prompt) = self.prompt.as_deref() {
            // A judge reads the question, not the template around it.
            let turns = if context.judged && prompt.starts_with('"') { prompt::read_turns(prompt) } else { None };
            match turns {
                Some(turns) => put(out, "prompt", Some(&messages_json(&turns))),
                None => put(out, "prompt", Some(prompt)),
            }
        }
        match &self.written {
            Written::Nothing => put(out, "messages", Some("[]")),
            Written::Response(raw) => put(out, "response", Some(raw)),
            Written::Whole(raw) => put(out, "response", Some(raw)),
            Written::Inside(inside) => out.extend(["\"response\":\"", inside, "\","]),
            Written::Messages(raw) => put(out, "messages", Some(raw)),
        }
    }

    fn put_label(&self, context: &ItemContext<'_>, known: Option<&Entry>, out: &mut String) {
        let label = &self.label;
        let known =
            |of: fn(&Entry) -> &Option<Box<RawValue>>| known.and_then(|known| of(known).as_deref()).map(RawValue::get);
        let truth = |of| known(of).filter(|_| !self.has_answers());
        put(out, "references", label.references.as_deref().or_else(|| truth(|entry| &entry.references)));
        put(out, "reference_calls", label.reference_calls.as_deref().or_else(|| truth(|entry| &entry.reference_calls)));
        let tools = self.tools.as_deref().or(label.tools.as_deref()).or_else(|| known(|entry| &entry.tools));
        put(out, "tools", tools.map(|raw| list_of(raw).unwrap_or(raw.into())).as_deref());
        if let Some(format) = context.tool_format {
            put(out, "tool_format", Some(&quoted(format)));
        }
        put(out, "truncated", self.truncated.as_deref());
        put(out, "response_tokens", self.response_tokens.as_deref());
    }
}

/// Appends a field unless it is absent or null.
fn put(out: &mut String, name: &str, raw: Option<&str>) {
    if let Some(raw) = raw.filter(|raw| *raw != "null") {
        out.extend(["\"", name, "\":", raw, ","]);
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    // Writing a string cannot fail.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// Turns as a list of messages.
fn messages_json(turns: &[PromptTurn]) -> String {
    let message =
        |turn: &PromptTurn| format!("{{\"role\":\"{}\",\"content\":{}}}", turn.role.as_str(), quoted(&turn.text));
    format!("[{}]", turns.iter().map(message).collect::<Vec<_>>().join(","))
}

/// A group's name as the native reader gives it: a string's text, or a number as it stands.
fn name_of(raw: &str) -> Option<String> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'-' | b'0'..=b'9' => Some(raw.to_owned()),
        _ => None,
    }
}
