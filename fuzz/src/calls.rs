//! The laws of tool-call parsing and answer extraction. In: a format and the text of a turn; out: a panic if spans leave
//! the text, come out of order, or if the modes disagree where nothing had to be repaired.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use gradus::toolcall::answer::{AnswerFrom, extract, search_r1_format};
use gradus::toolcall::schema::SchemaCache;
use gradus::toolcall::tools::ToolSet;
use gradus::toolcall::{Options, Parsed, detect, parse, parse_native};
use gradus::trajectory::{Before, Message, ParseMode, ToolFormat, split_response};

const MAX_CALLS: usize = 64;
const MAX_MESSAGE_BYTES: usize = 1000;

/// Tools with a parameter of each type, under the names that the seeds use.
static TOOLS: LazyLock<Arc<ToolSet>> = LazyLock::new(|| {
    let list = r##"[
        {"name": "f", "parameters": {"type": "object", "properties": {
            "a": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "number"}, "b": {"type": "boolean"},
            "o": {"type": "object"}, "l": {"type": "array"}, "z": {"type": ["null", "integer"]},
            "r": {"$ref": "#/$defs/any"}}, "patternProperties": {"^p": {"enum": [1, "one", null, true]}},
            "$defs": {"any": {"anyOf": [{"type": "integer"}, {"type": "array"}]}}}},
        {"name": "search", "parameters": {"type": "object", "required": ["query"], "additionalProperties": false,
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}}},
        {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
        {"name": "ping"}]"##;
    SchemaCache::new(1 << 20).tools(list, false)
});

/// The format of a choice.
pub fn format(choice: usize) -> ToolFormat {
    let formats = ToolFormat::ALL;
    formats[choice % formats.len()]
}

/// A turn in a format: both modes keep the laws, and agree where strict parsing finds nothing wrong.
pub fn turn(format: ToolFormat, text: &str) {
    let [strict, tolerant] = [ParseMode::Strict, ParseMode::Tolerant]
        .map(|mode| parse(text, &Options { format, mode, max_calls: MAX_CALLS, ..Options::default() }, &**TOOLS));
    both_modes(&strict, &tolerant, text);
    if format == ToolFormat::Auto {
        assert_eq!(strict.format, detect(text), "auto parses what detection finds");
    }
    if let Some(found) = strict.format.filter(|_| format == ToolFormat::Auto) {
        let named = parse(text, &Options { format: found, mode: ParseMode::Strict, max_calls: MAX_CALLS, ..Options::default() }, &**TOOLS);
        assert!(strict.attempts.len() <= named.attempts.len(), "auto finds no attempt that its format does not");
    }
    turns(format, text);
}

/// The native calls of a message.
pub fn native(json: &str) {
    let [strict, tolerant] = [ParseMode::Strict, ParseMode::Tolerant]
        .map(|mode| parse_native(json, &Options { mode, max_calls: MAX_CALLS, ..Options::default() }, &**TOOLS));
    both_modes(&strict, &tolerant, json);
}

/// Every place of an answer, with what the format hides.
pub fn answers(format: ToolFormat, text: &str) {
    let parsed = parse(text, &Options { format, mode: ParseMode::Strict, max_calls: MAX_CALLS, ..Options::default() }, &**TOOLS);
    let hidden = parsed.hidden();
    for place in AnswerFrom::ALL {
        let Some((answer, range)) = extract(text, parsed.format, &hidden, place) else { continue };
        let around = text.get(range).unwrap_or_else(|| panic!("{place}: the answer's bytes are in the text"));
        assert!(answer.len() <= around.len(), "{place}: an answer is not longer than the bytes it takes");
        // A message of harmony's final channel is the answer as it stands (E5).
        if place != AnswerFrom::HarmonyFinal {
            assert_eq!(answer.trim(), answer, "{place}: an answer is trimmed");
        }
        if hidden.is_empty() {
            assert_eq!(answer, around, "{place}: with nothing hidden the answer is the text as it stands");
        }
        if place == AnswerFrom::SearchR1 {
            assert!(search_r1_format(text), "an answer of the whole format needs the format");
        }
    }
}

fn both_modes(strict: &Parsed<'_>, tolerant: &Parsed<'_>, text: &str) {
    for parsed in [strict, tolerant] {
        attempts(parsed, text);
        ascending("hidden", &parsed.hidden(), text);
        ascending("reasoning", &parsed.reasoning, text);
        if let Some(open) = &parsed.reasoning_open {
            assert_eq!(Some(open), parsed.reasoning.last(), "open reasoning is the last");
        }
    }
    assert!(strict.attempts.iter().all(|attempt| attempt.repairs.is_empty()), "strict parsing repairs nothing");
    // Where values are plain text, any text is right for strict parsing, and a list in Python's words is one that is repaired.
    let plain_values = matches!(strict.format, Some(ToolFormat::Qwen3Coder | ToolFormat::Glm45));
    let repaired = tolerant.attempts.iter().any(|attempt| !attempt.repairs.is_empty());
    if strict.ok() && plain_values && repaired {
        assert!(tolerant.ok() && strict.attempts.len() == tolerant.attempts.len(), "only values are repaired");
    } else if strict.ok() {
        assert_eq!(strict, tolerant, "what is right as it stands is the same in both modes");
    }
}

fn attempts(parsed: &Parsed<'_>, text: &str) {
    let spans: Vec<Range<usize>> = parsed.attempts.iter().map(|attempt| attempt.span.clone()).collect();
    ascending("attempts", &spans, text);
    assert!(parsed.attempts.len() <= MAX_CALLS + 1, "the limit on calls holds");
    for attempt in &parsed.attempts {
        match &attempt.result {
            Err(malformed) => assert!(malformed.message.len() < MAX_MESSAGE_BYTES, "messages are bounded"),
            Ok(call) => {
                assert!(!call.name.is_empty(), "a call has a name");
                assert!(call.arguments.is_object(), "arguments are an object");
                // serde_json writes what is no finite number as null, so a change would show here.
                let again = serde_json::from_str::<serde_json::Value>(&call.arguments.to_string());
                assert!(again.is_ok(), "arguments can be written and read again");
                if let Some(tool) = TOOLS.get(&call.name) {
                    tool.check(&call.arguments);
                }
            }
        }
    }
}

fn ascending(what: &str, ranges: &[Range<usize>], text: &str) {
    let mut from = 0;
    for range in ranges {
        assert!(from <= range.start && range.start <= range.end, "{what} ascend and do not overlap: {ranges:?}");
        assert!(text.get(range.clone()).is_some(), "{what} lie in the text, at characters: {ranges:?}");
        from = range.end;
    }
}

/// A response of several turns: each stands where its offset says.
fn turns(format: ToolFormat, text: &str) {
    let messages = split_response(text, format, Before::default());
    let mut from = 0;
    let mut policy_turns = 0;
    for message in &messages {
        if let Message::Policy(turn) = message {
            assert!(from <= turn.offset, "turns ascend");
            let found = text.get(turn.offset..turn.offset + turn.text.len());
            assert_eq!(found, Some(&*turn.text), "a turn stands where its offset says");
            from = turn.offset + turn.text.len();
            policy_turns += 1;
        }
    }
    assert!(policy_turns > 0, "there is always a policy turn");
}
