//! A text without some of its ranges, and the way back from what is left to the whole. In: a text and ascending ranges
//! to hide; out: the visible text, and slices of it with their bytes in the whole. Copies only where pieces must be
//! joined. Knows no tags.

use std::borrow::Cow;
use std::ops::Range;

/// A text without its hidden ranges, and the way back.
pub(super) struct Visible<'t> {
    whole: &'t str,
    pub(super) text: Cow<'t, str>,
    /// The visible pieces of `whole`, in order; none is empty.
    pieces: Vec<Range<usize>>,
}

impl<'t> Visible<'t> {
    pub(super) fn new(whole: &'t str, hidden: &[Range<usize>]) -> Self {
        let mut pieces = Vec::with_capacity(hidden.len() + 1);
        let mut from = 0;
        for range in hidden.iter().chain([&(whole.len()..whole.len())]) {
            let end = range.start.min(whole.len());
            if from < end {
                pieces.push(from..end);
            }
            from = from.max(range.end);
        }
        let piece = |range: &Range<usize>| whole.get(range.clone()).unwrap_or_default();
        let text = match pieces.as_slice() {
            [] => Cow::Borrowed(""),
            [only] => Cow::Borrowed(piece(only)),
            several => Cow::Owned(several.iter().map(piece).collect()),
        };
        Self { whole, text, pieces }
    }

    /// A slice of the visible text, and the bytes of the whole text that it takes.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<(Cow<'t, str>, Range<usize>)> {
        let mut start = None;
        let mut passed = 0;
        for piece in &self.pieces {
            let reached = passed + piece.len();
            let place = |at: usize| piece.start + (at - passed);
            if start.is_none() && range.start < reached {
                start = Some(place(range.start));
            }
            if range.end <= reached
                && let Some(start) = start.or_else(|| (range.start <= reached).then(|| place(range.start)))
            {
                let bytes = start..place(range.end);
                let answer = if start >= piece.start {
                    Cow::Borrowed(self.whole.get(bytes.clone())?)
                } else {
                    Cow::Owned(self.text.get(range)?.to_owned())
                };
                return Some((answer, bytes));
            }
            passed = reached;
        }
        let end = self.pieces.last().map_or(0, |piece| piece.end);
        Some((Cow::Borrowed(""), end..end))
    }
}
