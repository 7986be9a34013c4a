//! A batch on the CPU in pieces that threads take side by side. In: a packed batch and what computes one. Out: what the
//! batch as a whole would give, bit for bit. A piece goes through all layers on its own, so that its numbers stay in a
//! core's cache and nobody waits between operations.

use std::collections::HashSet;

use candle_core::Tensor;
use rayon::prelude::*;

use super::LmError;
use super::packed::Packed;
use super::plain;

/// Tokens of a piece, about: enough for products at full speed.
const TOKENS: usize = 256;

/// Some segments of a batch, as a batch of their own.
#[derive(Debug, Default)]
struct Piece {
    /// Their places in the whole.
    segments: Vec<usize>,
    packed: Packed,
}

/// The states of every segment's last row, `[segments, hidden]`, by `run`, which gives those of a piece.
pub(super) fn forward_last(
    packed: &Packed,
    run: impl Fn(&Packed) -> Result<Tensor, LmError> + Sync,
) -> Result<Tensor, LmError> {
    let mut order = Vec::with_capacity(packed.segments.len());
    let mut states = Vec::new();
    for pieces in waves(packed).map(|wave| cut(packed, &wave)) {
        let done: Vec<Tensor> = match pieces.as_slice() {
            // Too few for all threads: they go one after the other, and each product takes all.
            pieces if pieces.len() < rayon::current_num_threads() => {
                pieces.iter().map(|piece| run(&piece.packed)).collect::<Result<_, _>>()?
            }
            pieces => pieces.par_iter().map(|piece| run(&piece.packed)).collect::<Result<_, _>>()?,
        };
        states.extend(done);
        order.extend(pieces.into_iter().flat_map(|piece| piece.segments));
    }
    let states = Tensor::cat(&states, 0)?;
    if order.is_sorted() {
        return Ok(states);
    }
    let mut places = vec![0; order.len()];
    for (row, segment) in order.into_iter().enumerate() {
        if let Some(place) = places.get_mut(segment) {
            *place = row;
        }
    }
    plain::rows(&states, &places)
}

/// The segments that others build on, then the others.
fn waves(packed: &Packed) -> impl Iterator<Item = Vec<usize>> {
    let prefixes: HashSet<usize> =
        packed.segments.iter().filter_map(|segment| segment.prefix).map(|prefix| prefix.start).collect();
    let (first, rest): (Vec<usize>, Vec<usize>) = (0..packed.segments.len())
        .partition(|index| packed.segments.get(*index).is_some_and(|segment| prefixes.contains(&segment.own.start)));
    [first, rest].into_iter().filter(|wave| !wave.is_empty())
}

/// Pieces of about equal size.
fn cut(packed: &Packed, wave: &[usize]) -> Vec<Piece> {
    let tokens = |index: &usize| packed.segments.get(*index).map_or(0, |segment| segment.rows.len());
    let all: usize = wave.iter().map(tokens).sum();
    let target = all.div_ceil((all / TOKENS).max(1));
    let mut pieces: Vec<Piece> = Vec::new();
    for &index in wave {
        let Some(segment) = packed.segments.get(index) else { continue };
        if pieces.last().is_none_or(|piece| piece.packed.tokens.len() >= target) {
            pieces.push(Piece::default());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.segments.push(index);
            let tokens = packed.tokens.get(segment.rows.clone()).unwrap_or_default();
            piece.packed.push(tokens, segment.own, segment.prefix);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::kv::Span;

    fn batch() -> Packed {
        let mut packed = Packed::default();
        let prefix = Span { start: 0, len: 40 };
        packed.push(&[1; 40], prefix, None);
        packed.push(&[2; 300], Span { start: 40, len: 300 }, Some(prefix));
        packed.push(&[3; 300], Span { start: 340, len: 300 }, None);
        packed.push(&[4; 10], Span { start: 640, len: 10 }, Some(prefix));
        packed
    }

    #[test]
    fn what_others_build_on_comes_first() {
        assert_eq!(waves(&batch()).collect::<Vec<_>>(), [vec![0], vec![1, 2, 3]]);
    }

    #[test]
    fn a_wave_is_cut_into_pieces_that_keep_every_segment() {
        let packed = batch();
        let pieces = cut(&packed, &[1, 2, 3]);
        let segments: Vec<_> = pieces.iter().map(|piece| piece.segments.clone()).collect();
        assert_eq!(segments, [vec![1, 2], vec![3]], "305 tokens each would be equal");
        assert_eq!(pieces[0].packed.tokens.len(), 600);
        assert_eq!(pieces[1].packed.segments[0].prefix, packed.segments[3].prefix);
    }

    #[test]
    fn the_states_come_back_in_the_order_of_the_segments() {
        // Each segment's "state" is its first token.
        let first = |packed: &Packed| {
            let tokens: Vec<f32> = packed.segments.iter().map(|s| packed.tokens[s.rows.start] as f32).collect();
            Ok(Tensor::new(tokens, &candle_core::Device::Cpu)?.unsqueeze(1)?)
        };
        let mut packed = Packed::default();
        let prefix = Span { start: 50, len: 4 };
        packed.push(&[7; 6], Span { start: 0, len: 6 }, None);
        packed.push(&[8; 4], prefix, None);
        packed.push(&[9; 2], Span { start: 60, len: 2 }, Some(prefix));
        let states = forward_last(&packed, first).unwrap().squeeze(1).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(states, [7.0, 8.0, 9.0]);
    }
}
