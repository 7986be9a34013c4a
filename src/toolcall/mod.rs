//! Policy text to tool calls. In: the text of one assistant turn (or its native `tool_calls`) and a format; out: every
//! attempt at a call in text order, well-formed or not, and where the reasoning stands. One file per format family
//! on top of a few shared pieces:
//!
//! - `scan` collects attempts, `reasoning` walks from marker to marker outside reasoning, `cursor` reads text;
//! - `json` is strict JSON at an offset, `lenient` what tolerant parsing adds, `call` the call object, `written` what is recorded of a
//!   list that breaks, with its `elements`, and `blocks` the calls in a block that does;
//! - `detect` finds the format for `auto`, `broken` tells whether JSON that does not parse was to be a call; `answer`
//!   finds the final answer in what is left.
//!
//! The rules that are cited (`G1`, `T2`, ..) are stated in `docs/toolcalls.md`. Everything here takes time linear in the
//! text, whatever the text is. A broken call is data, never an `Err`. Knows no schema: whether a call satisfies its tool's
//! is asked of [`schema`] afterwards.

pub mod answer;
mod budget;
pub mod schema;
pub mod tools;

mod blocks;
mod broken;
mod call;
mod codes;
mod cursor;
mod detect;
mod elements;
mod expression;
mod find;
mod functionary;
mod glm45;
mod harmony;
mod json;
mod lenient;
mod lists;
mod llama;
mod mistral;
mod native;
mod offered;
mod python;
mod pythonic;
mod qwen3_coder;
mod react;
mod reasoning;
mod scan;
mod search_r1;
mod sections;
mod tagged;
mod typed;
mod visible;
mod written;
mod xml;

#[cfg(test)]
mod laws;

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Value};

use crate::trajectory::{ParseMode, ReferenceCall, THINK_END, ToolFormat};

pub use budget::Room;
pub(crate) use budget::values_bytes;
pub use codes::{ErrorCode, Malformed, Repair, clip};
pub use detect::{detect, detect_rollout};
pub use json::read_object;
pub use offered::{Declared, NoTools, Offered};

use scan::Scan;

/// How a turn is to be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The format, or [`ToolFormat::Auto`].
    pub format: ToolFormat,
    /// Strict, or with repairs.
    pub mode: ParseMode,
    /// The most attempts that are looked at; one more gives a `too_many_calls` error and the rest is ignored.
    pub max_calls: usize,
    /// Memory for the values of arguments; what does not fit gives a `too_many_values` error.
    pub room: Room,
    /// Whether the text begins in reasoning that its prompt opened.
    pub thinking: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: ToolFormat::Auto,
            mode: ParseMode::Strict,
            max_calls: 1024,
            room: Room::default(),
            thinking: false,
        }
    }
}

/// What a turn holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed<'t> {
    /// The format that applied; `None` when `auto` found no marker.
    pub format: Option<ToolFormat>,
    /// The attempts in text order; their spans ascend and do not overlap.
    pub attempts: Vec<Attempt<'t>>,
    /// The bytes that are reasoning, tags included (in harmony: the bodies of the analysis channel), ascending.
    pub reasoning: Vec<Range<usize>>,
    /// The last entry of `reasoning`, if it was opened and never closed.
    pub reasoning_open: Option<Range<usize>>,
    /// The bytes that other roles wrote, where the text is a whole trajectory (harmony), ascending.
    pub others: Vec<Range<usize>>,
    /// The bytes of lists and sections that hold calls, with their markers; what stands in them is no answer. Ascending.
    pub wrappings: Vec<Range<usize>>,
    /// Whether there were more attempts than [`Options::max_calls`].
    pub too_many: bool,
    /// What is left of [`Options::room`].
    pub room: Room,
}

impl<'t> Parsed<'t> {
    /// `parse_ok`: no attempt is malformed and no reasoning is left open.
    pub fn ok(&self) -> bool {
        self.reasoning_open.is_none() && !self.too_many && self.attempts.iter().all(|attempt| attempt.result.is_ok())
    }

    /// Whether an attempt that was repaired takes bytes of these ranges.
    fn repairs_within(&self, ranges: &[Range<usize>]) -> bool {
        let meets = |span: &Range<usize>| ranges.iter().any(|range| range.start < span.end && span.start < range.end);
        self.attempts.iter().any(|attempt| !attempt.repairs.is_empty() && meets(&attempt.span))
    }

    /// The well-formed calls in text order.
    pub fn calls(&self) -> impl Iterator<Item = &Call<'t>> {
        self.attempts.iter().filter_map(|attempt| attempt.result.as_ref().ok())
    }

    /// What is left out of all that the policy said when calls are, beside what is hidden anyway; ascending by their starts.
    pub fn hidden_with_calls(&self) -> Vec<Range<usize>> {
        self.hidden_and(self.attempts.iter().map(|attempt| &attempt.span).chain(&self.wrappings))
    }

    /// What a marked answer is never looked for in: beside what is hidden anyway the calls that were read, in whose arguments
    /// markers are data. Ascending by their starts.
    pub fn hidden_with_read_calls(&self) -> Cow<'_, [Range<usize>]> {
        if self.format == Some(ToolFormat::Openai) || self.calls().next().is_none() {
            return self.hidden();
        }
        let read = self.attempts.iter().filter(|attempt| attempt.result.is_ok());
        Cow::Owned(self.hidden_and(read.map(|attempt| &attempt.span)))
    }

    fn hidden_and<'p>(&'p self, more: impl Iterator<Item = &'p Range<usize>>) -> Vec<Range<usize>> {
        let mut ranges = self.hidden().into_owned();
        ranges.extend(more.cloned());
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    /// What an answer is never looked for in: reasoning and what other roles wrote, ascending.
    pub fn hidden(&self) -> Cow<'_, [Range<usize>]> {
        if self.others.is_empty() {
            return Cow::Borrowed(&self.reasoning);
        }
        let mut ranges = [self.reasoning.as_slice(), self.others.as_slice()].concat();
        ranges.sort_unstable_by_key(|range| range.start);
        Cow::Owned(ranges)
    }
}

/// One attempt at a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt<'t> {
    /// The bytes of the text that the attempt takes, markers included.
    pub span: Range<usize>,
    /// What tolerant parsing put right; empty in strict mode and for calls that are right as they stand.
    pub repairs: Vec<Repair>,
    /// The call, or why there is none.
    pub result: Result<Call<'t>, Malformed>,
}

/// A well-formed call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call<'t> {
    /// The tool's name; never empty.
    pub name: Cow<'t, str>,
    /// The arguments: always a [`Value::Object`].
    pub arguments: Value,
}

impl Call<'_> {
    /// The name for a message to people: at most its first 64 characters, since a policy may write megabytes.
    pub fn short_name(&self) -> &str {
        self.name.char_indices().nth(64).and_then(|(end, _)| self.name.get(..end)).unwrap_or(&self.name)
    }
}

/// The arguments of a reference call, which were found to be an object when it came.
pub fn reference_arguments(call: &ReferenceCall<'_>) -> Map<String, Value> {
    json::read_object(call.arguments).unwrap_or_default()
}

/// A text without the tokens that end a turn.
pub(crate) fn without_end_tokens(text: &str) -> &str {
    scan::drop_end_tokens(text, ToolFormat::Auto)
}

/// Parses the text of one assistant turn.
///
/// For `openai` the text is never searched for calls: only its reasoning is found, the calls come from
/// [`parse_native`].
///
/// Tolerant parsing repairs what strict parsing refuses, and touches nothing that it accepts but for values of XML formats
/// that are lists or objects only once repaired. Nor does it make calls of what strict parsing takes for reasoning.
pub fn parse<'t>(text: &'t str, options: &Options, offered: &impl Offered) -> Parsed<'t> {
    parse_as(format_of(text, options), text, options, offered)
}

/// The format that a text is read in: the one that is asked for, or the one that it shows.
pub fn format_of(text: &str, options: &Options) -> Option<ToolFormat> {
    match options.format {
        ToolFormat::Auto if options.thinking => detect::detect_said(text.split_once(THINK_END)?.1),
        ToolFormat::Auto => detect(text),
        format => Some(format),
    }
}

/// The second half of [`parse`], for callers that look for the formats of several texts before they read them.
pub fn parse_as<'t>(
    format: Option<ToolFormat>,
    text: &'t str,
    options: &Options,
    offered: &impl Offered,
) -> Parsed<'t> {
    if options.mode != ParseMode::Tolerant {
        return parse_as_told(format, text, options, offered);
    }
    let strict = parse_as_told(format, text, &Options { mode: ParseMode::Strict, ..*options }, offered);
    // Where values are plain text, any text is right for strict mode, so that only reading it again tells what to repair.
    let plain_values = matches!(format, Some(ToolFormat::Qwen3Coder | ToolFormat::Glm45));
    if strict.ok() && !plain_values {
        return strict;
    }
    let repaired = parse_as_told(format, text, options, offered);
    if repaired.repairs_within(&strict.reasoning) { strict } else { repaired }
}

fn parse_as_told<'t>(
    format: Option<ToolFormat>,
    text: &'t str,
    options: &Options,
    offered: &impl Offered,
) -> Parsed<'t> {
    let text = scan::drop_end_tokens(text, format.unwrap_or(options.format));
    let mut scan = Scan::new(text, options, offered);
    match format {
        None | Some(ToolFormat::Auto | ToolFormat::Openai) => reasoning::only(&mut scan),
        Some(ToolFormat::Hermes) => tagged::objects(&mut scan, tagged::HERMES),
        Some(ToolFormat::Qwen3Coder) => qwen3_coder::qwen3_coder(&mut scan),
        Some(ToolFormat::Glm45) => glm45::glm45(&mut scan),
        Some(ToolFormat::Llama3Json) => llama::llama3_json(&mut scan),
        Some(ToolFormat::Pythonic) => pythonic::pythonic(&mut scan),
        Some(ToolFormat::Mistral) => mistral::mistral(&mut scan),
        Some(ToolFormat::DeepseekV3) => sections::sections(&mut scan, &sections::DEEPSEEK_V3),
        Some(ToolFormat::DeepseekV31) => sections::sections(&mut scan, &sections::DEEPSEEK_V31),
        Some(ToolFormat::KimiK2) => sections::sections(&mut scan, &sections::KIMI_K2),
        Some(ToolFormat::Harmony) => harmony::harmony(&mut scan),
        Some(ToolFormat::Granite) => lists::granite(&mut scan),
        Some(ToolFormat::Granite20bFc) => tagged::objects(&mut scan, tagged::GRANITE_20B_FC),
        Some(ToolFormat::Phi4Mini) => lists::phi4_mini(&mut scan),
        Some(ToolFormat::Internlm) => tagged::internlm(&mut scan),
        Some(ToolFormat::FunctionaryV31) => functionary::v31(&mut scan),
        Some(ToolFormat::FunctionaryV32) => functionary::v32(&mut scan),
        Some(ToolFormat::React) => react::react(&mut scan),
        Some(ToolFormat::SearchR1) => search_r1::search_r1(&mut scan),
    }
    scan.finish(format)
}

/// Parses `message.tool_calls`, given as the raw JSON text of that field; spans are bytes of this text.
///
/// `options.format` is not looked at: native calls are always `openai`.
pub fn parse_native<'t>(tool_calls_json: &'t str, options: &Options, offered: &impl Offered) -> Parsed<'t> {
    let mut scan = Scan::new(tool_calls_json, options, offered);
    native::openai(&mut scan);
    scan.finish(Some(ToolFormat::Openai))
}
