//! Reading a response text that holds several turns: what a rollout loop appended between the policy's own
//! words (tool results, user turns) in the markers of a chat template.
//!
//! In: the response as one string. Out: messages whose spans count bytes of that string. A marker is a special
//! token of a template, so it is honoured wherever it stands. Does not look into tool calls.

use std::borrow::Cow;

use super::{Content, Message, Role, ToolFormat, Turn};

/// How a template says that somebody else speaks from here on.
enum Marker {
    /// `open ROLE.. close`: the next speaker's role by name; text up to `close` is the header. A name that is no role speaks
    /// for nobody that is scored.
    Header { open: &'static str, close: &'static str },
    /// `open NAME close`: the next speaker is this role, whatever the name, unless the name is a tool's.
    Named { open: &'static str, close: &'static str, role: Role },
    /// `open`: the next speaker is this role.
    Speaker { open: &'static str, role: Role },
    /// `open .. close`: one tool result, then the policy again.
    Block { open: &'static str, close: &'static str },
}

/// Turn markers of the chat templates of the supported model families.
const MARKERS: &[Marker] = &[
    Marker::Header { open: "<|im_start|>", close: "\n" },
    Marker::Header { open: "<|start_header_id|>", close: "<|end_header_id|>" },
    Marker::Header { open: "<|start_of_role|>", close: "<|end_of_role|>" },
    Marker::Header { open: "<start_of_turn>", close: "\n" },
    Marker::Header { open: "<|header_start|>", close: "<|header_end|>" },
    // Of anything that is not the policy: tools, under their own names, too.
    Marker::Named { open: "<|im_system|>", close: "<|im_middle|>", role: Role::Tool },
    Marker::Named { open: "<|im_user|>", close: "<|im_middle|>", role: Role::User },
    Marker::Named { open: "<|im_assistant|>", close: "<|im_middle|>", role: Role::Assistant },
    Marker::Speaker { open: "<|system|>", role: Role::System },
    Marker::Speaker { open: "<|user|>", role: Role::User },
    Marker::Speaker { open: "<|assistant|>", role: Role::Assistant },
    Marker::Speaker { open: "<|observation|>", role: Role::Tool },
    Marker::Speaker { open: "<|tool|>", role: Role::Tool },
    Marker::Speaker { open: "<|tool_response|>", role: Role::Tool },
    Marker::Speaker { open: "<｜User｜>", role: Role::User },
    Marker::Speaker { open: "<｜Assistant｜>", role: Role::Assistant },
    Marker::Block { open: "<｜tool▁outputs▁begin｜>", close: "<｜tool▁outputs▁end｜>" },
    Marker::Block { open: "<｜tool▁output▁begin｜>", close: "<｜tool▁output▁end｜>" },
    Marker::Block { open: "<tool_response>", close: "</tool_response>" },
    Marker::Block { open: "[TOOL_RESULTS]", close: "[/TOOL_RESULTS]" },
    Marker::Block { open: "[INST]", close: "[/INST]" },
];

/// Longest header between a role's markers, in bytes: `tool name=..` and the like.
const MAX_HEADER_BYTES: usize = 256;

/// What a marker at some position means.
struct Switch {
    /// Bytes of the marker.
    length: usize,
    speaker: Role,
    /// For a block: where its content ends and where the policy's text resumes.
    block_end: Option<(usize, usize)>,
}

/// Splits a response into turns at the markers of chat templates.
///
/// Harmony and Search-R1 texts stay whole: their parsers tell the speakers apart themselves. Positions in each
/// turn plus its `offset` are positions in `response`. There is always at least one policy turn.
pub fn split_response(response: &str, format: ToolFormat) -> Vec<Message<'_>> {
    let mut segments = Vec::new();
    if matches!(format, ToolFormat::Harmony | ToolFormat::SearchR1) {
        push(&mut segments, Role::Assistant, 0, response);
    } else {
        split(response, format == ToolFormat::React, &mut segments);
    }
    if !segments.iter().any(|segment| matches!(segment, Message::Policy(_))) {
        segments.push(policy(response.len(), ""));
    }
    segments
}

fn split<'a>(response: &'a str, react: bool, segments: &mut Vec<Message<'a>>) {
    let (mut speaker, mut start, mut at) = (Role::Assistant, 0, 0);
    while let Some(found) = next_candidate(response, at, react) {
        let Some(switch) = marker_at(response, found, react) else {
            at = found + 1;
            continue;
        };
        push(segments, speaker, start, &response[start..found]);
        let before = speaker;
        at = found + switch.length;
        (speaker, start) = (switch.speaker, at);
        if let Some((end, resume)) = switch.block_end {
            push(segments, Role::Tool, start, &response[start..end]);
            // Whoever was speaking goes on: a block inside a user's turn does not make the rest of it the policy's.
            (speaker, start, at) = (before, resume, resume);
        }
    }
    push(segments, speaker, start, &response[start..]);
}

/// The next byte at which a marker could start.
fn next_candidate(text: &str, from: usize, react: bool) -> Option<usize> {
    let rest = text.as_bytes().get(from..)?;
    let found = if react { memchr::memchr3(b'<', b'[', b'O', rest) } else { memchr::memchr2(b'<', b'[', rest) };
    found.map(|position| from + position)
}

fn marker_at(text: &str, at: usize, react: bool) -> Option<Switch> {
    let rest = &text[at..];
    if react && rest.starts_with("Observation:") && starts_line(text, at) {
        let length = "Observation:".len();
        let end = at + length + react_resume(&text[at + length..]);
        return Some(Switch { length, speaker: Role::Tool, block_end: Some((end, end)) });
    }
    // Most `<` and `[` open no marker at all: one look at the next byte saves the table.
    if !matches!(rest.as_bytes().get(1), Some(b'|' | b's' | b't' | b'T' | b'I' | 0xEF)) {
        return None;
    }
    MARKERS.iter().find_map(|marker| match *marker {
        Marker::Speaker { open, role } => {
            rest.starts_with(open).then_some(Switch { length: open.len(), speaker: role, block_end: None })
        }
        Marker::Header { open, close } => {
            let header = header(rest, open, close)?;
            let role = header.split(|c: char| c.is_whitespace() || c == ':' || c == '=').next()?;
            let speaker = Role::from_name(role).unwrap_or(Role::Tool);
            Some(Switch { length: open.len() + header.len() + close.len(), speaker, block_end: None })
        }
        Marker::Named { open, close, role } => {
            let header = header(rest, open, close)?;
            let speaker = if role == Role::Tool { Role::from_name(header).unwrap_or(role) } else { role };
            Some(Switch { length: open.len() + header.len() + close.len(), speaker, block_end: None })
        }
        Marker::Block { open, close } => {
            let body = rest.strip_prefix(open)?;
            let start = at + open.len();
            // A result whose closer was cut off runs to the end: it is not the policy's text either way.
            let (end, resume) = match memchr::memmem::find(body.as_bytes(), close.as_bytes()) {
                Some(end) => (start + end, start + end + close.len()),
                None => (text.len(), text.len()),
            };
            Some(Switch { length: open.len(), speaker: Role::Tool, block_end: Some((end, resume)) })
        }
    })
}

/// What stands between two markers at the start of a text, if they are near each other.
fn header<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let header = text.strip_prefix(open)?;
    let window = &header.as_bytes()[..header.len().min(MAX_HEADER_BYTES)];
    header.get(..memchr::memmem::find(window, close.as_bytes())?)
}

/// Where the policy speaks again after an `Observation:`: at the next label of its own.
fn react_resume(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let label = line.trim_start();
        if at > 0 && ["Thought:", "Action:", "Final Answer:"].iter().any(|own| label.starts_with(own)) {
            return at;
        }
        at += line.len();
    }
    text.len()
}

fn starts_line(text: &str, at: usize) -> bool {
    text[..at].bytes().rev().take(MAX_HEADER_BYTES).find(|b| !matches!(b, b' ' | b'\t')).is_none_or(|b| b == b'\n')
}

fn policy(offset: usize, text: &str) -> Message<'_> {
    Message::Policy(Turn { text: Cow::Borrowed(text), offset, reasoning: None, native_calls: None })
}

/// Tokens that end a turn. A segment of nothing else says nothing.
const END_TOKENS: [&str; 12] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
];

fn is_blank(text: &str) -> bool {
    let mut rest = text.trim();
    while let Some(shorter) = END_TOKENS.iter().find_map(|token| rest.strip_prefix(token)) {
        rest = shorter.trim_start();
    }
    rest.is_empty()
}

/// Adds a segment unless it is blank.
fn push<'a>(segments: &mut Vec<Message<'a>>, speaker: Role, start: usize, text: &'a str) {
    if is_blank(text) {
        return;
    }
    segments.push(match speaker {
        Role::Assistant => policy(start, text),
        role => Message::Other { role, content: Content::Text(Cow::Borrowed(text)) },
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speakers(response: &str, format: ToolFormat) -> Vec<(Role, &str)> {
        let show = |message| match message {
            Message::Policy(Turn { text: Cow::Borrowed(text), offset, .. }) => {
                assert_eq!(&response[offset..offset + text.len()], text);
                (Role::Assistant, text.trim())
            }
            Message::Other { role, content: Content::Text(Cow::Borrowed(text)) } => (role, text.trim()),
            other => panic!("borrowed text expected: {other:?}"),
        };
        split_response(response, format).into_iter().map(show).collect()
    }

    #[test]
    fn chatml_tool_turns_are_not_the_policys() {
        let text = "call<|im_end|>\n<|im_start|>user\n<tool_response>\n<answer>no</answer>\n</tool_response><|im_end|>\n<|im_start|>assistant\n<answer>yes</answer>";
        let found = speakers(text, ToolFormat::Hermes);
        let own: Vec<_> = found.iter().filter(|(role, _)| *role == Role::Assistant).map(|(_, text)| *text).collect();
        assert!(own.concat().contains("<answer>yes</answer>"), "{found:?}");
        assert!(!own.concat().contains("no</answer>"), "{found:?}");
    }

    #[test]
    fn a_block_inside_a_turn_changes_no_speaker() {
        let text = "call<|im_end|>\n<|im_start|>user\n<tool_response>r</tool_response>\n<answer>no</answer><|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n";
        let found = speakers(text, ToolFormat::Hermes);
        let user = (Role::User, "<answer>no</answer><|im_end|>");
        assert_eq!(
            found,
            [(Role::Assistant, "call<|im_end|>"), (Role::Tool, "r"), user, (Role::Assistant, "b<|im_end|>")]
        );
    }

    #[test]
    fn end_tokens_alone_are_no_turn() {
        let found =
            speakers("a<tool_response>r</tool_response><|im_end|>\n<|im_start|>assistant\nb", ToolFormat::Hermes);
        assert_eq!(found, [(Role::Assistant, "a"), (Role::Tool, "r"), (Role::Assistant, "b")]);
    }

    #[test]
    fn llama_headers_and_blocks() {
        let text = "a<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nr<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nb";
        let found = speakers(text, ToolFormat::Llama3Json);
        assert_eq!(found, [(Role::Assistant, "a<|eot_id|>"), (Role::Tool, "r<|eot_id|>"), (Role::Assistant, "b")]);
        let found = speakers("x[TOOL_RESULTS]{}[/TOOL_RESULTS] y", ToolFormat::Mistral);
        assert_eq!(found, [(Role::Assistant, "x"), (Role::Tool, "{}"), (Role::Assistant, "y")]);
    }

    #[test]
    fn deepseek_results_stand_alone_too() {
        let text = "a<｜end▁of▁sentence｜><｜tool▁output▁begin｜>r<｜tool▁output▁end｜>b";
        let found = speakers(text, ToolFormat::DeepseekV31);
        assert_eq!(found, [(Role::Assistant, "a<｜end▁of▁sentence｜>"), (Role::Tool, "r"), (Role::Assistant, "b")]);
    }

    #[test]
    fn llama_4_headers() {
        let text = "[f()]<|eot|><|header_start|>ipython<|header_end|>\n\nr<|eot|><|header_start|>assistant<|header_end|>\n\nb<|eot|>";
        let found = speakers(text, ToolFormat::Pythonic);
        assert_eq!(found, [(Role::Assistant, "[f()]<|eot|>"), (Role::Tool, "r<|eot|>"), (Role::Assistant, "b<|eot|>")]);
    }

    #[test]
    fn kimi_speakers_have_names_of_their_own() {
        let text = "a<|im_end|><|im_system|>get_weather<|im_middle|>r<|im_end|><|im_assistant|>Kimi<|im_middle|>b<|im_end|>\
                    <|im_system|>system<|im_middle|>s<|im_end|><|im_user|>assistant<|im_middle|>u";
        let found = speakers(text, ToolFormat::KimiK2);
        let expected = [
            (Role::Assistant, "a<|im_end|>"),
            (Role::Tool, "r<|im_end|>"),
            (Role::Assistant, "b<|im_end|>"),
            (Role::System, "s<|im_end|>"),
            (Role::User, "u"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_header_with_an_unknown_name_is_not_the_policys() {
        let found = speakers("a<|im_end|>\n<|im_start|>search_result\n<answer>x</answer>", ToolFormat::Hermes);
        assert_eq!(found, [(Role::Assistant, "a<|im_end|>"), (Role::Tool, "<answer>x</answer>")]);
    }

    #[test]
    fn a_cut_result_runs_to_the_end() {
        let found = speakers("x<tool_response>cut", ToolFormat::Hermes);
        assert_eq!(found, [(Role::Assistant, "x"), (Role::Tool, "cut")]);
    }

    #[test]
    fn react_observations_end_at_the_next_label() {
        let text = "Action: f\nAction Input: {}\nObservation: <answer>no</answer>\nmore\nThought: t\nFinal Answer: 4";
        let found = speakers(text, ToolFormat::React);
        assert_eq!(found[1], (Role::Tool, "<answer>no</answer>\nmore"));
        assert_eq!(found[2], (Role::Assistant, "Thought: t\nFinal Answer: 4"));
    }

    #[test]
    fn plain_text_is_one_turn_and_blank_text_still_has_one() {
        assert_eq!(speakers("a < b [c]", ToolFormat::Auto), [(Role::Assistant, "a < b [c]")]);
        assert_eq!(speakers("  ", ToolFormat::Auto), [(Role::Assistant, "")]);
        assert_eq!(speakers("<|im_start|>user\nhi", ToolFormat::Auto), [(Role::User, "hi"), (Role::Assistant, "")]);
    }
}
