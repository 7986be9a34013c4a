//! Reading a response text that holds several turns: what a rollout loop appended between the policy's own
//! words (tool results, user turns) in the markers of a chat template.
//!
//! In: the response as one string. Out: messages whose spans count bytes of that string. A marker that is a token of the
//! format's models separates wherever it stands; what may as well be text about templates separates only where a turn
//! could end. Does not look into tool calls further than to tell their strings and values.

use std::borrow::Cow;

use memchr::{memchr2, memchr3, memmem};

use super::markers::{self, Found, MAX_HEADER_BYTES};
use super::quoted::Quoted;
use super::{Content, Message, Role, ToolFormat, Turn};

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
/// A text whose format is named as harmony stays whole: its parser tells the speakers apart itself. Where nobody named the
/// format, give `auto`: what separates must not depend on what the policy's text looks like. Positions in each turn plus its
/// `offset` are positions in `response`. There is always at least one policy turn.
pub fn split_response(response: &str, format: ToolFormat) -> Vec<Message<'_>> {
    let mut segments = Vec::new();
    if format == ToolFormat::Harmony {
        push(&mut segments, Role::Assistant, 0, response);
    } else {
        Splitter::new(response, format).split(&mut segments);
    }
    if !segments.iter().any(|segment| matches!(segment, Message::Policy(_))) {
        segments.push(policy(response.len(), ""));
    }
    segments
}

/// A response on its way through.
struct Splitter<'a> {
    text: &'a str,
    format: ToolFormat,
    /// Where the segment under way starts.
    start: usize,
    quoted: Quoted<'a>,
    /// Blocks, by the place of their marker, whose closer does not come any more.
    unclosed: u32,
}

impl<'a> Splitter<'a> {
    fn new(text: &'a str, format: ToolFormat) -> Self {
        Self { text, format, start: 0, quoted: Quoted::new(text, format), unclosed: 0 }
    }

    fn split(mut self, segments: &mut Vec<Message<'a>>) {
        let text = self.text;
        let (mut speaker, mut at) = (Role::Assistant, 0);
        while let Some(found) = self.next_candidate(at) {
            self.quoted.pass(found);
            let Some(switch) = self.switch_at(found) else {
                at = found + 1;
                continue;
            };
            push(segments, speaker, self.start, &text[self.start..found]);
            let before = speaker;
            (speaker, at) = (switch.speaker, found + switch.length);
            if let Some((end, resume)) = switch.block_end {
                push(segments, Role::Tool, at, &text[at..end]);
                // Whoever was speaking goes on: a block inside a user's turn does not make the rest of it the policy's.
                (speaker, at) = (before, resume);
            }
            self.start = at;
            self.quoted.restart(at);
        }
        push(segments, speaker, self.start, &text[self.start..]);
    }

    /// The next byte at which a marker could start.
    fn next_candidate(&self, from: usize) -> Option<usize> {
        let rest = self.text.as_bytes().get(from..)?;
        let found = match self.format {
            ToolFormat::React => memchr3(b'<', b'[', b'O', rest),
            _ => memchr2(b'<', b'[', rest),
        };
        found.map(|position| from + position)
    }

    fn switch_at(&mut self, at: usize) -> Option<Switch> {
        let rest = &self.text[at..];
        if rest.starts_with('O') {
            return self.observation(at);
        }
        let found = markers::at_start(rest)?;
        if found.is_plain() {
            return self.plain_block(at, &found);
        }
        let end = at + found.length;
        // A line that ends with a marker, as in many templates, is no sentence about it.
        let ends_line = matches!(self.text.as_bytes().get(end), None | Some(b'\n'));
        let separates =
            found.is_token_of(self.format) || (!self.quoted.in_region(at) && (ends_line || self.may_end_turn(at)));
        if !separates {
            return None;
        }
        // A result whose closer was cut off runs to the end: it is not the policy's text either way.
        let to_the_end = (self.text.len(), self.text.len());
        let block_end = found.closer().map(|close| self.close(end, close).unwrap_or(to_the_end));
        Some(Switch { length: found.length, speaker: found.speaker, block_end })
    }

    /// An `Observation:` of the tool, up to the next label of the policy's.
    fn observation(&self, at: usize) -> Option<Switch> {
        const LABEL: &str = "Observation:";
        let after = self.text[at..].strip_prefix(LABEL)?;
        if !starts_line(self.text, at) || self.quoted.in_region(at) {
            return None;
        }
        let end = at + LABEL.len() + react_resume(after);
        Some(Switch { length: LABEL.len(), speaker: Role::Tool, block_end: Some((end, end)) })
    }

    /// A block in characters that the policy may write about. A whole one is honoured wherever it does not stand in reasoning,
    /// a value or a string, so that no text before it makes a tool's result the policy's. One without its end is a
    /// result that was cut off if it stands where a turn could end, and otherwise text.
    fn plain_block(&mut self, at: usize, found: &Found) -> Option<Switch> {
        let own = found.is_token_of(self.format);
        if self.quoted.in_region(at) || (found.is_bracketed() && !own) {
            return None;
        }
        let apart = self.may_end_turn(at);
        if !apart && (!own || self.quoted.in_string(at)) {
            return None;
        }
        let start = at + found.length;
        let bit = 1 << found.index;
        let closed = if self.unclosed & bit == 0 { self.close(start, found.closer()?) } else { None };
        let block_end = match closed {
            Some(end) => end,
            None if apart && !found.is_question() && !self.text[..at].trim_start().is_empty() => {
                (self.text.len(), self.text.len())
            }
            None => {
                self.unclosed |= bit;
                return None;
            }
        };
        Some(Switch { length: found.length, speaker: Role::Tool, block_end: Some(block_end) })
    }

    /// Where a block's content ends before its closer, and where that ends.
    fn close(&self, start: usize, close: &str) -> Option<(usize, usize)> {
        let end = start + memmem::find(&self.text.as_bytes()[start..], close.as_bytes())?;
        Some((end, end + close.len()))
    }

    /// Whether a turn could end before `at`: at the start of a line, after a token that ends turns, after a call.
    fn may_end_turn(&mut self, at: usize) -> bool {
        const CALL_ENDS: [&str; 5] =
            ["</tool_call>", "</function>", "</search>", "<|action_end|>", "<|tool_calls_section_end|>"];
        let before = self.text[self.start..at].trim_end_matches([' ', '\t']);
        match before.as_bytes().last() {
            None | Some(b'\n') => true,
            Some(b'>') => {
                before.ends_with("｜>") || END_TOKENS.iter().chain(&CALL_ENDS).any(|token| before.ends_with(token))
            }
            Some(b'}' | b']') => !self.quoted.in_string(at),
            _ => false,
        }
    }
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
mod tests;
