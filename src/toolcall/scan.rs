//! The state of one parse: the text, what was asked, and the attempts found so far. In: spans and results from the
//! format families; out: the [`Parsed`]. Knows no format's syntax.

use std::ops::Range;

use super::blocks::Others;
use super::budget::{Budget, Room};
use super::codes::Fault;
use super::find::find;
use super::written::own_end;
use super::{Attempt, Call, ErrorCode, Malformed, Offered, Options, Parsed, Repair};
use crate::trajectory::{ParseMode, TURN_ENDS, ToolFormat};

/// One parse under way.
pub(super) struct Scan<'t, 'o> {
    pub(super) text: &'t str,
    pub(super) mode: ParseMode,
    pub(super) offered: &'o dyn Offered,
    pub(super) parsed: Parsed<'t>,
    /// Whether the text begins in reasoning; the walk over it begins with that.
    pub(super) thinking: bool,
    pub(super) budget: Budget,
    /// What was left when the last attempt was recorded.
    settled: Room,
    pub(super) max_calls: usize,
}

/// The markers around a format's calls, for finding where a malformed one ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Markers {
    pub(super) opener: &'static str,
    /// Empty for a format without one.
    pub(super) closer: &'static str,
    /// How the calls behind the first one begin in a block that breaks.
    pub(super) others: Others,
}

impl<'t, 'o> Scan<'t, 'o> {
    pub(super) fn new(text: &'t str, options: &Options, offered: &'o dyn Offered) -> Self {
        let budget = Budget::new(options.room, text.len());
        Self {
            text,
            mode: options.mode,
            thinking: options.thinking,
            offered,
            parsed: Parsed::default(),
            budget,
            settled: options.room,
            max_calls: options.max_calls,
        }
    }

    /// The parsed text. What calls took that are not kept is left to the next one.
    pub(super) fn finish(self, format: Option<ToolFormat>) -> Parsed<'t> {
        let room = if self.parsed.too_many { self.settled } else { self.budget.room() };
        Parsed { format, room, ..self.parsed }
    }

    pub(super) fn tolerant(&self) -> bool {
        self.mode == ParseMode::Tolerant
    }

    /// The text from `at` on; empty beyond the end.
    pub(super) fn rest(&self, at: usize) -> &'t str {
        self.text.get(at..).unwrap_or_default()
    }

    /// Records an attempt. A malformed one before it that was thought to reach further ends where this one starts; what
    /// was taken for the values of a malformed one is given back.
    pub(super) fn push(&mut self, span: Range<usize>, repairs: Vec<Repair>, result: Result<Call<'t>, Malformed>) {
        if result.is_err() {
            self.budget.rewind(self.settled);
        }
        self.record(span, repairs, result);
        if !self.parsed.too_many {
            self.settled = self.budget.room();
        }
    }

    /// Records the attempts of a list that was read as a whole, with nothing taken but for those that are well-formed.
    pub(super) fn push_all(&mut self, attempts: impl IntoIterator<Item = Attempt<'t>>) {
        for Attempt { span, repairs, result } in attempts {
            self.record(span, repairs, result);
        }
        self.settled = self.budget.room();
    }

    fn record(&mut self, span: Range<usize>, repairs: Vec<Repair>, result: Result<Call<'t>, Malformed>) {
        if self.parsed.too_many {
            return;
        }
        if let Some(last) = self.parsed.attempts.last_mut() {
            last.span.end = last.span.end.min(span.start);
        }
        if self.parsed.attempts.len() < self.max_calls {
            if self.parsed.attempts.is_empty() {
                // Most turns have one.
                self.parsed.attempts.reserve_exact(1);
            }
            self.parsed.attempts.push(Attempt { span, repairs, result });
            return;
        }
        self.parsed.too_many = true;
        let what = format!("more than {} call attempts; the rest is ignored", self.max_calls);
        let result = Err(Fault::new(ErrorCode::TooManyCalls, span.start, what).named(None));
        self.parsed.attempts.push(Attempt { span, repairs: Vec::new(), result });
    }

    /// Records what stands around calls that were recorded: a list, or a section.
    pub(super) fn wrap(&mut self, span: Range<usize>) {
        self.parsed.wrappings.push(span);
    }

    /// Records a malformed attempt that starts at `at` and whose opening marker ends at `body`. It reaches to its closer
    /// if that comes before the next opener, and otherwise to where reading stopped. Each other call in the block is an attempt, too.
    pub(super) fn fail(&mut self, at: usize, body: usize, markers: Markers, stop: usize, malformed: Malformed) {
        let rest = self.rest(body);
        let next = find(rest.as_bytes(), markers.opener).unwrap_or(rest.len());
        let own = rest.as_bytes().get(..next).unwrap_or_default();
        let closer = find(own, markers.closer).filter(|_| !markers.closer.is_empty());
        let block = rest.get(..closer.unwrap_or(next)).unwrap_or_default();
        let others = (markers.others)(self, block);
        let end = match (closer, others.last()) {
            (Some(closer), _) => body + closer + markers.closer.len(),
            (None, Some(last)) => body + own_end(block, *last),
            (None, None) => self.text.floor_char_boundary(stop.clamp(body, body + next)),
        };
        let mut start = at;
        for other in others {
            let next = body + other;
            self.push(start..next, Vec::new(), Err(malformed.clone()));
            start = next;
        }
        self.push(start..end, Vec::new(), Err(malformed));
    }

    /// Forgets every attempt: the text up to here turned out to be reasoning.
    pub(super) fn forget(&mut self) {
        self.budget.rewind_all();
        self.settled = self.budget.room();
        self.parsed.attempts.clear();
        self.parsed.wrappings.clear();
        self.parsed.too_many = false;
    }

    /// Forgets the attempts from this one on: they stand where nothing is a call.
    pub(super) fn take_back(&mut self, from: usize) {
        if self.parsed.attempts.len() > from {
            self.parsed.attempts.truncate(from);
            self.parsed.too_many = false;
        }
    }

    /// Whether nothing but blanks and reasoning stands in `range`.
    pub(super) fn is_blank(&self, range: Range<usize>) -> bool {
        let blank = |start: usize, end: usize| self.text.get(start..end).is_none_or(|gap| gap.trim().is_empty());
        let mut end = range.end;
        for reasoning in self.parsed.reasoning.iter().rev() {
            if reasoning.start < range.start {
                break;
            }
            if reasoning.end <= end {
                if !blank(reasoning.end, end) {
                    return false;
                }
                end = reasoning.start;
            }
        }
        blank(range.start, end)
    }
}

/// Tokens of GLM that begin the next turn, at which its models stop.
const NEXT_TURNS: [&str; 2] = ["<|observation|>", "<|user|>"];

/// The text without the end-of-turn tokens at its end, and the blanks around them.
pub(super) fn drop_end_tokens(text: &str, format: ToolFormat) -> &str {
    let mut kept = text;
    loop {
        let trimmed = kept.trim_end();
        // The last two bytes of these tokens, the end of DeepSeek's bar among them; most texts end otherwise.
        let last = |bytes: &[u8]| {
            matches!(bytes, [.., b'|' | b's' | b'n' | b'2' | 0x9C, b'>'] | [.., b'|', b']'] | [.., b'~', b'['])
        };
        if !last(trimmed.as_bytes()) {
            return kept;
        }
        // `<|end|>` closes a harmony segment; dropping it there would say that the segment was cut off.
        let token = TURN_ENDS.iter().chain(&NEXT_TURNS).find(|token| {
            trimmed.ends_with(**token) && !(**token == "<|end|>" && matches!(format, ToolFormat::Harmony))
        });
        match token.and_then(|token| trimmed.strip_suffix(token)) {
            Some(shorter) => kept = shorter,
            None => return kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_end_tokens_are_dropped_repeatedly() {
        assert_eq!(drop_end_tokens("a<|im_end|>\n<|endoftext|>\n", ToolFormat::Hermes), "a");
        assert_eq!(drop_end_tokens("a</s> b", ToolFormat::Hermes), "a</s> b");
        assert_eq!(drop_end_tokens("a \n", ToolFormat::Hermes), "a \n");
        assert_eq!(drop_end_tokens("a<|end|>", ToolFormat::Harmony), "a<|end|>");
        assert_eq!(drop_end_tokens("a<|end|>", ToolFormat::Phi4Mini), "a");
        for token in TURN_ENDS.iter().chain(&NEXT_TURNS) {
            assert_eq!(drop_end_tokens(&format!("a{token}"), ToolFormat::Hermes), "a");
        }
    }
}
