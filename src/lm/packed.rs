//! A batch without padding: the tokens of several sequences one after the other, and where each finds its keys.
//!
//! A sequence is `[shared prefix | own tokens]`. The prefix's keys lie in slots that were filled before, or are filled by
//! an earlier segment of the same batch; its own lie in a contiguous span of which the batch's rows are the last.

use std::ops::Range;

use super::kv::Span;

/// Consecutive rows of a batch that belong to one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The rows.
    pub rows: Range<usize>,
    /// The slots of the sequence's own tokens up to and including these rows.
    pub own: Span,
    /// The slots of what stands before them.
    pub prefix: Option<Span>,
}

impl Segment {
    /// Tokens of the sequence before the first row.
    pub fn before(&self) -> usize {
        self.prefix.map_or(0, |prefix| prefix.len) + self.own.len - self.rows.len()
    }

    /// Tokens of the sequence up to and including the last row.
    pub fn total(&self) -> usize {
        self.before() + self.rows.len()
    }

    /// The slots that the rows' keys go to.
    pub fn written(&self) -> Span {
        let len = self.rows.len();
        Span { start: self.own.start + self.own.len - len, len }
    }
}

/// Tokens of several sequences, packed.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    /// One per row.
    pub tokens: Vec<u32>,
    /// In the order of their rows.
    pub segments: Vec<Segment>,
}

impl Packed {
    /// Adds tokens of a sequence. `own` are the slots of its own tokens up to and including these.
    /// Gives the rows that they became.
    pub fn push(&mut self, tokens: &[u32], own: Span, prefix: Option<Span>) -> Range<usize> {
        let rows = self.tokens.len()..self.tokens.len() + tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.segments.push(Segment { rows: rows.clone(), own, prefix });
        rows
    }

    /// The last row of every segment, as a batch of its own: what the last layer has to compute, once the keys of all rows
    /// are in their slots. Its tokens are those of the rows.
    pub(super) fn last_rows(&self) -> (Self, Vec<usize>) {
        let mut last = Self::default();
        let mut rows = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let row = segment.rows.end.saturating_sub(1);
            last.push(self.tokens.get(row..=row).unwrap_or_default(), segment.own, segment.prefix);
            rows.push(row);
        }
        (last, rows)
    }

    /// Each row's position in its sequence.
    pub fn positions(&self) -> Vec<u32> {
        self.segments.iter().flat_map(|segment| (segment.before()..segment.total()).map(narrow)).collect()
    }

    /// Each row's slot.
    pub fn slots(&self) -> Vec<u32> {
        let slots = |segment: &Segment| {
            let written = segment.written();
            (written.start..written.start + written.len).map(narrow)
        };
        self.segments.iter().flat_map(slots).collect()
    }
}

/// Positions and slots fit 32 bits: a pool beyond that would not fit any device.
pub(super) fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
