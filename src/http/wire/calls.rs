//! Writing what was found of a trajectory's calls: every attempt, and what does not parse. In: the evidence. Out: lists
//! for a result, as long as what they say is in proportion to what was sent; then a count.

use std::borrow::Cow;

use utoipa::ToSchema;

use super::json::put;
use crate::stages::{CallVerdict, Evidence, ParsedTurn};
use crate::toolcall::{Attempt, ErrorCode};

/// Bytes that a list of a result may take whatever the item is: some fifty broken calls.
const FREE_BYTES: usize = 8 << 10;

/// Bytes of a list for each byte of the item. A call that parses is said in a fifth of it; a broken one may have two bytes,
/// and an item thousands of them.
const BYTES_PER_BYTE: usize = 8;

/// Bytes of an entry beside its texts, about.
const ENTRY_BYTES: usize = 128;

/// One call attempt.
#[allow(clippy::struct_excessive_bools, reason = "the API's shape: four answers to four questions")]
#[derive(Debug, ToSchema)]
#[schema(as = ToolCall, example = json!({"message": 2, "index": 0, "span": [17, 99], "name": "search", "arguments": {"query": "capital of France"}, "parsed": true, "known": true, "schema_valid": true, "errors": []}))]
pub struct ToolCallWire<'a> {
    /// Index of its message.
    pub message: usize,
    /// Its place among the attempts of that message, from 0.
    pub index: usize,
    /// Start and end in bytes of the message's text (of `response` where that was sent; of the raw `tool_calls` array for
    /// native calls).
    pub span: [usize; 2],
    /// The tool's name, where it could be read.
    #[schema(required = true)]
    pub name: Option<&'a str>,
    /// The decoded arguments; null for a malformed attempt.
    #[schema(required = true, value_type = Option<crate::http::schema::JsonObject>)]
    pub arguments: Option<&'a serde_json::Value>,
    /// Whether it is well-formed.
    pub parsed: bool,
    /// Whether it is well-formed and the tool is offered.
    pub known: bool,
    /// Whether the arguments satisfy the tool's schema.
    pub schema_valid: bool,
    /// Whether it parses only after repairs (tolerant mode).
    #[schema(required = false)]
    pub repaired: bool,
    /// What was repaired.
    #[schema(required = false)]
    pub repairs: Vec<&'static str>,
    /// What is wrong with it; of many violations of its schema the first ones.
    pub errors: Vec<CallErrorWire<'a>>,
}

/// What is wrong with a call.
#[derive(Debug, ToSchema)]
#[schema(as = CallError, example = json!({"code": "schema_violation", "message": "\"five\" is not of type \"integer\"", "pointer": "/top_k", "schema_pointer": "/properties/top_k/type"}))]
pub struct CallErrorWire<'a> {
    /// One of the closed list of codes.
    #[schema(value_type = String, example = "json_syntax")]
    pub code: &'static str,
    /// What is wrong, for a human.
    pub message: Cow<'a, str>,
    /// JSON pointer into the arguments, for schema errors.
    #[schema(required = false)]
    pub pointer: Option<&'a str>,
    /// JSON pointer into the schema, for schema errors.
    #[schema(required = false)]
    pub schema_pointer: Option<&'a str>,
}

/// Whether everything parsed.
#[derive(Debug, ToSchema)]
#[schema(as = Parse, example = json!({"ok": true, "format": "hermes", "attempts": 1, "errors": []}))]
pub struct ParseWire<'a> {
    /// False if a call attempt is malformed, reasoning stays open, or there are too many calls.
    pub ok: bool,
    /// The format that was read; null where no turn has a call.
    #[schema(required = true)]
    pub format: Option<&'static str>,
    /// Call attempts in all turns.
    pub attempts: usize,
    /// What makes `ok` false; `left_out` of the result says how many are not listed, if any.
    pub errors: Vec<ParseErrorWire<'a>>,
}

/// Something that does not parse.
#[derive(Debug, ToSchema)]
#[schema(as = ParseError, example = json!({"code": "reasoning_open", "message": "reasoning is never closed", "message_index": 2, "span": [0, 512]}))]
pub struct ParseErrorWire<'a> {
    /// One of the closed list of codes.
    #[schema(value_type = String, example = "reasoning_open")]
    pub code: &'static str,
    /// What is wrong, for a human.
    pub message: Cow<'a, str>,
    /// Index of the message, as in `tool_calls`.
    pub message_index: usize,
    /// Start and end in bytes, as in `tool_calls`.
    pub span: [usize; 2],
}

/// What was left out of the lists of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToSchema)]
#[schema(as = LeftOut, example = json!({"tool_calls": 960, "call_errors": 0, "parse_errors": 960}))]
pub struct LeftOut {
    /// Call attempts, the last ones; `parse.attempts` counts them, too.
    pub tool_calls: usize,
    /// Errors of listed calls.
    pub call_errors: usize,
    /// Errors of `parse`, the last ones.
    pub parse_errors: usize,
}

put!(ToolCallWire<'_> { message, index, span, name, arguments, parsed, known, schema_valid, errors } optional { repaired, repairs });
put!(CallErrorWire<'_> { code, message } optional { pointer, schema_pointer });
put!(ParseWire<'_> { ok, format, attempts, errors });
put!(ParseErrorWire<'_> { code, message, message_index, span });
put!(LeftOut { tool_calls, call_errors, parse_errors });

/// The lists of a result.
pub(super) struct Lists<'a> {
    pub(super) tool_calls: Vec<ToolCallWire<'a>>,
    pub(super) parse: ParseWire<'a>,
    pub(super) left_out: Option<LeftOut>,
}

impl<'a> Lists<'a> {
    /// The lists of an item that was not read.
    pub(super) fn nothing() -> Self {
        let parse = ParseWire { ok: false, format: None, attempts: 0, errors: Vec::new() };
        Self { tool_calls: Vec::new(), parse, left_out: None }
    }

    /// The lists of an item of this many bytes.
    pub(super) fn of(evidence: &'a Evidence<'_>, bytes: usize) -> Self {
        let mut left_out = LeftOut::default();
        let attempts = evidence.turns.iter().map(|turn| turn.parsed.attempts.len()).sum();
        let tool_calls = tool_calls(evidence, attempts, Room::of(bytes), &mut left_out);
        let mut room = Room::of(bytes);
        let mut errors = Vec::new();
        for error in evidence.turns.iter().flat_map(parse_errors) {
            // That calls were not looked at is told always.
            let bounded = error.code == ErrorCode::TooManyCalls.as_str();
            if room.take(ENTRY_BYTES + error.message.len()) || bounded {
                errors.push(error);
            } else {
                left_out.parse_errors += 1;
            }
        }
        // There is always room for the first.
        let ok = errors.is_empty();
        let format = evidence.format.map(crate::trajectory::ToolFormat::as_str);
        let parse = ParseWire { ok, format, attempts, errors };
        Self { tool_calls, parse, left_out: Some(left_out).filter(|left_out| *left_out != LeftOut::default()) }
    }
}

/// Room that a list has left.
struct Room(usize);

impl Room {
    fn of(bytes: usize) -> Self {
        Self(bytes.saturating_mul(BYTES_PER_BYTE).saturating_add(FREE_BYTES))
    }

    /// Takes up room; false where none was left.
    fn take(&mut self, bytes: usize) -> bool {
        let had = self.0 > 0;
        self.0 = self.0.saturating_sub(bytes);
        had
    }
}

fn tool_calls<'a>(
    evidence: &'a Evidence<'_>,
    attempts: usize,
    mut room: Room,
    left_out: &mut LeftOut,
) -> Vec<ToolCallWire<'a>> {
    let mut all = Vec::with_capacity(attempts.min(room.0 / ENTRY_BYTES + 1));
    for turn in &evidence.turns {
        for (index, found) in turn.parsed.attempts.iter().zip(&turn.verdicts).enumerate() {
            if room.take(ENTRY_BYTES) {
                let (attempt, verdict) = found;
                let mut errors = call_errors(attempt, verdict);
                // The first one always: a call that is listed as wrong says why.
                let fits = |(place, error): &(usize, &CallErrorWire<'_>)| room.take(error.bytes()) || *place == 0;
                let kept = errors.iter().enumerate().take_while(fits).count();
                left_out.call_errors += errors.len() - kept;
                errors.truncate(kept);
                all.push(tool_call(turn, index, found, errors));
            } else {
                left_out.tool_calls += 1;
            }
        }
    }
    all
}

impl CallErrorWire<'_> {
    /// Bytes that it takes in an answer, about.
    fn bytes(&self) -> usize {
        let pointers = self.pointer.map_or(0, str::len) + self.schema_pointer.map_or(0, str::len);
        ENTRY_BYTES + self.message.len() + pointers
    }
}

fn tool_call<'a>(
    turn: &ParsedTurn<'_>,
    index: usize,
    (attempt, verdict): (&'a Attempt<'_>, &'a CallVerdict),
    errors: Vec<CallErrorWire<'a>>,
) -> ToolCallWire<'a> {
    let call = attempt.result.as_ref().ok();
    let name = match &attempt.result {
        Ok(call) => Some(&*call.name),
        Err(malformed) => malformed.name.as_deref(),
    };
    ToolCallWire {
        message: turn.message,
        index,
        span: [attempt.span.start + turn.offset, attempt.span.end + turn.offset],
        name,
        arguments: call.map(|call| &call.arguments),
        parsed: call.is_some(),
        known: !matches!(verdict, CallVerdict::Malformed | CallVerdict::UnknownTool),
        schema_valid: matches!(verdict, CallVerdict::Valid),
        repaired: !attempt.repairs.is_empty(),
        repairs: attempt.repairs.iter().map(|repair| repair.as_str()).collect(),
        errors,
    }
}

fn call_errors<'a>(attempt: &'a Attempt<'_>, verdict: &'a CallVerdict) -> Vec<CallErrorWire<'a>> {
    let plain = |code: &'static str, message: Cow<'a, str>| CallErrorWire {
        code,
        message,
        pointer: None,
        schema_pointer: None,
    };
    match (verdict, &attempt.result) {
        (_, Err(malformed)) => vec![plain(malformed.code.as_str(), Cow::Borrowed(&malformed.message))],
        (CallVerdict::Valid | CallVerdict::Malformed, Ok(_)) => Vec::new(),
        (CallVerdict::UnknownTool, Ok(call)) => {
            let message = format!("the tool {:?} is not offered", call.short_name());
            vec![plain(ErrorCode::UnknownTool.as_str(), message.into())]
        }
        (CallVerdict::Violations(violations), Ok(_)) => violations
            .iter()
            .map(|violation| CallErrorWire {
                code: ErrorCode::SchemaViolation.as_str(),
                message: Cow::Borrowed(&violation.message),
                pointer: Some(&violation.pointer),
                schema_pointer: Some(&violation.schema_pointer),
            })
            .collect(),
        (CallVerdict::TooCostly(problem) | CallVerdict::Problem { problem, .. }, Ok(_)) => {
            vec![CallErrorWire {
                code: problem.code.as_str(),
                message: Cow::Borrowed(&problem.message),
                pointer: None,
                schema_pointer: Some(&problem.pointer),
            }]
        }
    }
}

fn parse_errors<'a>(turn: &'a ParsedTurn<'_>) -> impl Iterator<Item = ParseErrorWire<'a>> {
    let entry = |code: ErrorCode, message: Cow<'a, str>, span: &std::ops::Range<usize>| ParseErrorWire {
        code: code.as_str(),
        message,
        message_index: turn.message,
        span: [span.start + turn.offset, span.end + turn.offset],
    };
    let malformed = turn.parsed.attempts.iter().filter_map(move |attempt| {
        let malformed = attempt.result.as_ref().err()?;
        Some(entry(malformed.code, Cow::Borrowed(&malformed.message), &attempt.span))
    });
    let open = turn.parsed.reasoning_open.as_ref();
    let open = open.map(move |span| entry(ErrorCode::ReasoningOpen, "reasoning is never closed".into(), span));
    malformed.chain(open)
}
