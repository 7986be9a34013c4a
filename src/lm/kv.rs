//! The keys and values of all layers, and who holds which places.
//!
//! A slot is the place of one token: a row of every layer's K and V. A sequence's own tokens lie in one contiguous span
//! of slots; a prefix that several sequences share lies in a span of its own. Who is done with a span frees it.

use candle_core::{DType, Device, Tensor};

use super::LmError;
use super::config::ModelConfig;

/// Places of consecutive tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first slot.
    pub start: usize,
    /// How many.
    pub len: usize,
}

impl Span {
    fn end(self) -> usize {
        self.start + self.len
    }
}

/// One layer's keys and values, each `[slots, kv_heads * head_dim]`.
#[derive(Debug)]
pub(super) struct LayerKv {
    pub(super) k: Tensor,
    pub(super) v: Tensor,
}

/// The keys and values of all layers.
#[derive(Debug)]
pub struct KvPool {
    pub(super) layers: Vec<LayerKv>,
    spans: Spans,
}

impl KvPool {
    /// A pool for `slots` tokens.
    ///
    /// # Errors
    /// [`LmError::Compute`] when the device's memory is too small.
    pub fn new(config: &ModelConfig, slots: usize, dtype: DType, device: &Device) -> Result<Self, LmError> {
        let width = config.kv_heads * config.head_dim;
        let zeros = || Tensor::zeros((slots, width), dtype, device);
        let layer = |_| Ok(LayerKv { k: zeros()?, v: zeros()? });
        let layers = (0..config.layers).map(layer).collect::<Result<_, LmError>>()?;
        Ok(Self { layers, spans: Spans::new(slots) })
    }

    /// How many tokens there is room for altogether.
    pub fn slots(&self) -> usize {
        self.spans.slots
    }

    /// How many slots are free, in however many pieces.
    pub fn free_slots(&self) -> usize {
        self.spans.free.iter().map(|span| span.len).sum()
    }

    /// Takes `len` consecutive slots, or none when no free piece is that long.
    pub fn take(&mut self, len: usize) -> Option<Span> {
        self.spans.take(len)
    }

    /// Gives a span back.
    pub fn give_back(&mut self, span: Span) {
        self.spans.give_back(span);
    }

    /// Whether [`Self::take`] would give `len` slots once these spans are given back too.
    pub(super) fn would_hold(&self, len: usize, given_back: impl Iterator<Item = Span>) -> bool {
        self.spans.longest_with(given_back) >= len
    }

    /// Copies a span's keys and values to the slots from `start` on.
    pub(super) fn copy(&mut self, from: Span, start: usize) -> Result<(), LmError> {
        for layer in &self.layers {
            for pool in [&layer.k, &layer.v] {
                // `copy` would clone the whole pool.
                pool.slice_set(&pool.narrow(0, from.start, from.len)?.force_contiguous()?, 0, start)?;
            }
        }
        Ok(())
    }

    /// Bytes that one token takes in all layers.
    pub fn bytes_per_token(config: &ModelConfig, dtype: DType) -> usize {
        2 * config.layers * config.kv_heads * config.head_dim * dtype.size_in_bytes()
    }
}

/// The free spans, ascending and never adjacent.
#[derive(Debug)]
struct Spans {
    slots: usize,
    free: Vec<Span>,
}

impl Spans {
    fn new(slots: usize) -> Self {
        let all = Span { start: 0, len: slots };
        Self { slots, free: if slots > 0 { vec![all] } else { Vec::new() } }
    }

    /// The smallest piece that is long enough, so that long ones stay.
    fn take(&mut self, len: usize) -> Option<Span> {
        let fits = self.free.iter().enumerate().filter(|(_, span)| span.len >= len);
        let at = fits.min_by_key(|(_, span)| span.len).map(|(at, _)| at)?;
        let span = self.free.get_mut(at)?;
        let taken = Span { start: span.start, len };
        span.start += len;
        span.len -= len;
        if span.len == 0 {
            self.free.remove(at);
        }
        Some(taken)
    }

    /// The longest free piece that there would be with some spans given back.
    fn longest_with(&self, given_back: impl Iterator<Item = Span>) -> usize {
        let mut free: Vec<Span> = self.free.iter().copied().chain(given_back).collect();
        free.sort_unstable_by_key(|span| span.start);
        let (mut piece, mut longest) = (Span { start: 0, len: 0 }, 0);
        for span in free {
            piece = if piece.end() == span.start { Span { len: piece.len + span.len, ..piece } } else { span };
            longest = longest.max(piece.len);
        }
        longest
    }

    fn give_back(&mut self, span: Span) {
        if span.len == 0 {
            return;
        }
        let at = self.free.partition_point(|free| free.start < span.start);
        self.free.insert(at, span);
        // Joined with the one after it, then with the one before.
        for left in [at, at.wrapping_sub(1)] {
            if let (Some(a), Some(b)) = (self.free.get(left).copied(), self.free.get(left.wrapping_add(1)).copied())
                && a.end() == b.start
            {
                self.free.remove(left + 1);
                if let Some(joined) = self.free.get_mut(left) {
                    joined.len = a.len + b.len;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_span_given_back_joins_its_neighbours() {
        let mut spans = Spans::new(10);
        let [a, b, c] = [3, 3, 4].map(|len| spans.take(len).unwrap());
        assert_eq!(spans.take(1), None);
        for span in [a, c, b] {
            spans.give_back(span);
        }
        assert_eq!(spans.free, [Span { start: 0, len: 10 }]);
    }

    #[test]
    fn the_smallest_piece_that_fits_is_taken() {
        let mut spans = Spans::new(20);
        let taken: Vec<Span> = [2, 8, 2, 8].iter().map(|len| spans.take(*len).unwrap()).collect();
        spans.give_back(taken[0]);
        spans.give_back(taken[3]);
        assert_eq!(spans.take(2), Some(Span { start: 0, len: 2 }));
    }

    proptest! {
        #[test]
        fn spans_never_overlap_and_none_is_lost(steps in prop::collection::vec((any::<bool>(), 1..9usize), 0..200)) {
            let mut spans = Spans::new(64);
            let mut held: Vec<Span> = Vec::new();
            for (take, n) in steps {
                if take {
                    held.extend(spans.take(n));
                } else if !held.is_empty() {
                    spans.give_back(held.swap_remove(n % held.len()));
                }
                let mut emptied = Spans { slots: 64, free: spans.free.clone() };
                held.iter().step_by(2).for_each(|span| emptied.give_back(*span));
                let longest = emptied.free.iter().map(|span| span.len).max().unwrap_or(0);
                prop_assert_eq!(spans.longest_with(held.iter().step_by(2).copied()), longest);
                let mut all: Vec<Span> = held.iter().chain(&spans.free).copied().collect();
                all.sort_by_key(|span| span.start);
                prop_assert_eq!(all.iter().map(|span| span.len).sum::<usize>(), 64);
                prop_assert!(all.windows(2).all(|pair| pair[0].end() == pair[1].start));
                prop_assert!(spans.free.windows(2).all(|pair| pair[0].end() < pair[1].start));
            }
        }
    }
}
