//! Reading a response text that holds several turns: what a rollout loop appended between the policy's own
//! words (tool results, user turns) in the markers of a chat template.
//!
//! In: the response as one string. Out: messages whose spans count bytes of that string. A marker that is a token of some
//! template separates wherever it stands, even where the policy only writes about it: that costs the policy its words, and
//! the other way round a policy could make a tool's words its own. Does not look into tool calls.

use std::borrow::Cow;

use memchr::{memchr_iter, memchr2, memchr3, memmem};

use super::markers::{self, Block, Family, Found, MAX_HEADER_BYTES, Standing, TURN_ENDS};
use super::{Content, Message, Role, Thinking, ToolFormat, Turn};

/// What a marker at some position means.
struct Switch {
    /// Bytes of the marker.
    length: usize,
    to: To,
}

enum To {
    /// Somebody speaks from here on, in a turn of this family.
    Speaker(Role, Family),
    /// Where the content of a block ends, where whoever spoke before goes on, and whose turn began inside it.
    Block { end: usize, resume: usize, inside: Option<(Role, Family)> },
}

/// What opens reasoning. Templates of models that always reason write it for them.
pub const THINK: &str = "<think>";

/// What ends reasoning.
pub const THINK_END: &str = "</think>";

/// Whether a prompt that ends with this text of the template's own opens reasoning.
pub fn opens_thinking(prompt_end: &str) -> bool {
    prompt_end.trim_end().ends_with(THINK)
}

/// What a response follows on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Before<'p> {
    /// The end of the prompt, as it was written; empty where that is not known.
    pub prompt_end: &'p str,
    /// Whether the prompt opened reasoning, in which the first turn begins then, and its parts behind results of tools, up
    /// to the first closer.
    pub thinking: bool,
}

/// Splits a response into turns at the markers of chat templates; where the prompt ends with one, at those of its template
/// only.
///
/// A text whose format is named as harmony stays whole: its parser tells the speakers apart itself. Where nobody named the
/// format, give `auto`: what separates must not depend on what the policy's text looks like. Positions in each turn plus its
/// `offset` are positions in `response`. There is always at least one policy turn.
pub fn split_response<'r>(response: &'r str, format: ToolFormat, before: Before<'_>) -> Vec<Message<'r>> {
    let mut segments = Vec::new();
    let mut next_turn = None;
    if format == ToolFormat::Harmony {
        push(&mut segments, Role::Assistant, 0, response);
    } else {
        next_turn = Splitter::new(response, format, markers::asked(before.prompt_end)).split(&mut segments);
    }
    // Reasoning that the prompt opened is left open by a first turn of nothing.
    let own = |segment: &Message<'_>| matches!(segment, Message::Policy(_));
    if let Some(turn) = &mut next_turn
        && before.thinking
        && !segments.iter().take(*turn).any(own)
    {
        segments.insert(0, policy(0, ""));
        *turn += 1;
    }
    if !segments.iter().any(own) {
        segments.push(policy(response.len(), ""));
    }
    if before.thinking {
        let turn = next_turn.unwrap_or(segments.len());
        mark_reasoning(segments.iter_mut().take(turn));
    }
    segments
}

/// Marks the parts of a turn up to the first one that ends its reasoning; the last one where none does.
fn mark_reasoning<'m, 'a: 'm>(turn: impl Iterator<Item = &'m mut Message<'a>>) {
    let policy = |message: &'m mut Message<'a>| match message {
        Message::Policy(part) => Some(part),
        Message::Other { .. } => None,
    };
    let mut parts: Vec<&mut Turn<'_>> = turn.filter_map(policy).collect();
    let end = parts.iter().position(|part| part.text.contains(THINK_END)).unwrap_or(parts.len().saturating_sub(1));
    for (index, part) in parts.iter_mut().enumerate().take(end + 1) {
        part.thinking = if index == end { Thinking::Begins } else { Thinking::Within };
    }
}

/// A response on its way through.
struct Splitter<'a> {
    text: &'a str,
    format: ToolFormat,
    /// The segment under way: who speaks, since where, and in a turn of which family, unless it is the policy's.
    speaker: Role,
    start: usize,
    family: Option<Family>,
    /// The family of the policy's template, where that is known.
    template: Option<Family>,
    /// Whether something in the segment may be a call, as far as was looked.
    called: bool,
    looked: usize,
    /// Blocks, by their places, whose closer does not come any more.
    unclosed: u32,
}

impl<'a> Splitter<'a> {
    fn new(text: &'a str, format: ToolFormat, template: Option<Family>) -> Self {
        let (speaker, start, looked) = (Role::Assistant, 0, 0);
        Self { text, format, speaker, start, family: None, template, called: false, looked, unclosed: 0 }
    }

    /// Adds the segments, and says how many belong to the turn that the text begins in, where that is not all of it.
    fn split(mut self, segments: &mut Vec<Message<'a>>) -> Option<usize> {
        let (text, mut at) = (self.text, 0);
        let mut next_turn = None;
        while let Some(found) = self.next_candidate(at) {
            let Some(Switch { length, to }) = self.switch_at(found) else {
                at = found + 1;
                continue;
            };
            push(segments, self.speaker, self.start, &text[self.start..found]);
            let inside = found + length;
            match to {
                To::Speaker(speaker, family) => {
                    next_turn.get_or_insert(segments.len());
                    self.family = (speaker != Role::Assistant).then_some(family);
                    (self.speaker, self.called, at) = (speaker, false, inside);
                }
                // Whoever was speaking goes on: a block inside a user's turn does not make the rest of it the policy's. Nor does
                // one that the policy opened and somebody else's turn closed.
                To::Block { end, resume, inside: turn } => {
                    if let (Role::Assistant, Some((speaker, family))) = (self.speaker, turn)
                        && speaker != Role::Assistant
                    {
                        next_turn.get_or_insert(segments.len());
                        (self.speaker, self.family) = (speaker, Some(family));
                    }
                    // A result may be empty: nothing was found.
                    segments.push(others(Role::Tool, &text[inside..end]));
                    // Another result may follow.
                    (self.called, at) = (true, resume);
                }
            }
            (self.start, self.looked) = (at, at);
        }
        push(segments, self.speaker, self.start, &text[self.start..]);
        next_turn
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
        match markers::at_start(rest, self.format)? {
            // A page that shows another template's markers gives nobody the floor.
            Found::Opening { family, .. } if self.family.or(self.template).is_some_and(|own| own != family) => None,
            Found::Opening { family, length, speaker } => Some(Switch { length, to: To::Speaker(speaker, family) }),
            Found::Block { block, length, index } => {
                let (end, resume) = self.block(at, length, block, 1 << index)?;
                let inside = (resume > end).then(|| self.turn_inside(at + length, end, block)).flatten();
                Some(Switch { length, to: To::Block { end, resume, inside } })
            }
            Found::Message { .. } if self.speaker != Role::Assistant => None,
            Found::Message { .. } if self.template.is_some_and(|own| own != Family::Harmony) => None,
            Found::Message { length } => {
                let end = at + length + message_end(&rest[length..]);
                Some(Switch { length, to: To::Block { end, resume: end, inside: None } })
            }
        }
    }

    /// Turns that begin at or after a place, behind a token that ends one: where, who speaks, and in which family.
    fn turns(&self, from: usize) -> impl Iterator<Item = (usize, Role, Family)> {
        let (text, format, template) = (self.text, self.format, self.template);
        memchr_iter(b'<', &text.as_bytes()[from..]).map(move |at| from + at).filter_map(move |at| {
            let Found::Opening { family, speaker, .. } = markers::at_start(&text[at..], format)? else { return None };
            let before = text[from..at].trim_end();
            let begins = TURN_ENDS.iter().any(|token| before.ends_with(token));
            (begins && template.is_none_or(|own| own == family)).then_some((at, speaker, family))
        })
    }

    /// Whose turn began in a block that the policy opened and left open, so that the closer is that of another one, which stands
    /// in that turn. A page that only shows turns has no such block.
    fn turn_inside(&self, start: usize, end: usize, block: &Block) -> Option<(Role, Family)> {
        if block.standing != Standing::AfterCall {
            return None;
        }
        let inner = memmem::rfind(&self.text.as_bytes()[start..end], block.open.as_bytes())?;
        let turn = self.turns(start).take_while(|(at, ..)| *at < start + inner).last();
        turn.map(|(_, speaker, family)| (speaker, family))
    }

    /// An `Observation:` of the tool, up to the next label of the policy's. In a turn of somebody else it is a word of theirs:
    /// their turn ends where their template says.
    fn observation(&self, at: usize) -> Option<Switch> {
        const LABEL: &str = "Observation:";
        if self.speaker != Role::Assistant || !starts_line(self.text, at) {
            return None;
        }
        let after = self.text[at..].strip_prefix(LABEL)?;
        let end = at + LABEL.len() + react_resume(after);
        Some(Switch { length: LABEL.len(), to: To::Block { end, resume: end, inside: None } })
    }

    /// Where the content of the block at `at` ends and where its speaker goes on, if it is one.
    fn block(&mut self, at: usize, length: usize, block: &Block, bit: u32) -> Option<(usize, usize)> {
        let foreign = block.family.zip(self.template).is_some_and(|(own, template)| own != template);
        if foreign || !self.stands(at, block.standing) {
            return None;
        }
        let start = at + length;
        let closer = (self.unclosed & bit == 0)
            .then(|| memmem::find(&self.text.as_bytes()[start..], block.close.as_bytes()))
            .flatten();
        if let Some(end) = closer {
            return Some((start + end, start + end + block.close.len()));
        }
        self.unclosed |= bit;
        // A result whose closer was cut off runs to the next turn, or to the end: it is not the policy's text either way.
        let follows = self.called || matches!(block.standing, Standing::Anywhere | Standing::AfterSearch);
        let cut = block.may_be_cut && follows && self.speaker == Role::Assistant;
        cut.then(|| self.turns(start).next().map_or(self.text.len(), |(end, ..)| end)).map(|end| (end, end))
    }

    /// Whether a block may stand at `at`.
    fn stands(&mut self, at: usize, standing: Standing) -> bool {
        let before = self.text[self.start..at].trim_end();
        match standing {
            Standing::Anywhere => true,
            Standing::Bracketed if !self.has_brackets() => TURN_ENDS.iter().any(|token| before.ends_with(token)),
            Standing::AfterCall if self.template.is_some() && self.speaker == Role::Assistant => false,
            Standing::AfterCall | Standing::Bracketed => self.may_have_called(at),
            Standing::AfterSearch => {
                matches!(self.format, ToolFormat::Auto | ToolFormat::SearchR1) && before.ends_with("</search>")
            }
        }
    }

    /// Whether markers in square brackets are the format's own.
    fn has_brackets(&self) -> bool {
        use ToolFormat::{Auto, Mistral, Openai, React, SearchR1};
        matches!(self.format, Mistral | Auto | React | SearchR1 | Openai)
    }

    /// Whether the segment has, up to `at`, what every call ends with: a result comes after one. Looks at every byte once.
    fn may_have_called(&mut self, at: usize) -> bool {
        const ENDS: [&str; 3] = ["</tool_call>", "</function>", "</search>"];
        if self.called || self.speaker != Role::Assistant {
            return true;
        }
        let (seen, bytes) = (self.looked, self.text.as_bytes());
        self.looked = at;
        let new = &bytes[seen..at];
        let tag = |place: usize| {
            let rest = &self.text[seen + place..];
            // In harmony the assistant goes on after a thought.
            let goes_on = rest.strip_prefix("<|end|>").is_some_and(|next| next.starts_with("<|start|>assistant"));
            !goes_on && ENDS.iter().chain(&TURN_ENDS).any(|end| rest.starts_with(end))
        };
        self.called = memchr2(b'}', b')', new).is_some() || memchr_iter(b'<', new).any(tag);
        self.called
    }
}

/// Where a message of harmony ends: at the next one, or where it says so.
fn message_end(text: &str) -> usize {
    const ENDS: [&str; 4] = ["<|start|>", "<|end|>", "<|call|>", "<|return|>"];
    let mut bars = memmem::find_iter(text.as_bytes(), "<|");
    bars.find(|place| ENDS.iter().any(|end| text[*place..].starts_with(end))).unwrap_or(text.len())
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
    Message::Policy(Turn {
        text: Cow::Borrowed(text),
        offset,
        reasoning: None,
        native_calls: None,
        thinking: Thinking::Outside,
    })
}

/// Whether a segment says nothing.
fn is_blank(text: &str) -> bool {
    let mut rest = text.trim();
    while let Some(shorter) = TURN_ENDS.iter().find_map(|token| rest.strip_prefix(token)) {
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
        role => others(role, text),
    });
}

fn others(role: Role, text: &str) -> Message<'_> {
    Message::Other { role, content: Content::Text(Cow::Borrowed(text)) }
}

#[cfg(test)]
mod tests;
