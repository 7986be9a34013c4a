//! Clipped n-gram matches, the count under BLEU and F1. In: the tokens of the references, then those of the hypothesis;
//! out: how many n-grams of the hypothesis each reference, or all of them together, can account for. Knows no formula.
//!
//! Only what the references contain gets a number; the rest of a hypothesis is one and the same unknown. An n-gram is
//! the pair of the (n-1)-grams that it is made of, so pairs of numbers name it exactly, order by order and in place.
//! With N orders that takes O(N * tokens) time, and memory for one order at a time.

use std::cell::Cell;

use super::names::{Names, Seed, UNKNOWN};

/// What the matches of an n-gram are clipped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clip {
    /// Its count in a reference, for each reference.
    EachReference,
    /// Its largest count in any reference, as BLEU has it.
    LargestReference,
}

/// The counting table, reused from call to call.
#[derive(Debug)]
pub(super) struct Overlap {
    seed: Seed,
    /// Tokens of the references, by the hash of their bytes.
    vocabulary: Names,
    /// Their bytes, one after the other, and where each ends.
    token_bytes: Vec<u8>,
    token_ends: Vec<usize>,
    /// n-grams of the current order, by their two parts.
    ngrams: Names,
    /// Numbers of the n-grams that start at each token of the references; a reference of m tokens has m-n+1 of them.
    references: Vec<u32>,
    reference_ends: Vec<usize>,
    /// The same for the hypothesis, with each run of unknown ones drawn together into one.
    hypothesis: Vec<u32>,
    hypothesis_len: usize,
    /// By n-gram: its count in the hypothesis, and working space.
    counts: Vec<u32>,
    spare: Vec<u32>,
    /// Matches, `order` numbers for each reference or once for all.
    matches: Vec<u32>,
}

impl Overlap {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            seed,
            vocabulary: Names::new(),
            token_bytes: Vec::new(),
            token_ends: Vec::new(),
            ngrams: Names::new(),
            references: Vec::new(),
            reference_ends: Vec::new(),
            hypothesis: Vec::new(),
            hypothesis_len: 0,
            counts: Vec::new(),
            spare: Vec::new(),
            matches: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.vocabulary.clear();
        self.token_bytes.clear();
        self.token_ends.clear();
        self.references.clear();
        self.reference_ends.clear();
        self.hypothesis.clear();
        self.hypothesis_len = 0;
    }

    /// Bytes held, used or not.
    pub(super) fn capacity_bytes(&self) -> usize {
        let numbers = [&self.references, &self.hypothesis, &self.counts, &self.spare, &self.matches];
        numbers.iter().map(|numbers| numbers.capacity() * size_of::<u32>()).sum::<usize>()
            + (self.token_ends.capacity() + self.reference_ends.capacity()) * size_of::<usize>()
            + self.token_bytes.capacity()
            + self.vocabulary.capacity_bytes()
            + self.ngrams.capacity_bytes()
    }

    /// Adds a token to the reference that is being read.
    #[inline]
    pub(super) fn push_reference_token(&mut self, token: &[u8]) {
        let (bytes, ends) = (&self.token_bytes, &self.token_ends);
        let name = self.vocabulary.name(self.seed.bytes(token), |name| token_at(bytes, ends, name) == Some(token));
        if name as usize == self.token_ends.len() {
            self.token_bytes.extend_from_slice(token);
            self.token_ends.push(self.token_bytes.len());
        }
        self.references.push(name);
    }

    /// Ends a reference; all of them must have ended before the hypothesis begins.
    pub(super) fn end_reference(&mut self) {
        self.reference_ends.push(self.references.len());
    }

    /// Adds a token to the hypothesis.
    #[inline]
    pub(super) fn push_hypothesis_token(&mut self, token: &[u8]) {
        let (bytes, ends) = (&self.token_bytes, &self.token_ends);
        let name = self.vocabulary.find(self.seed.bytes(token), |name| token_at(bytes, ends, name) == Some(token));
        self.hypothesis_len += 1;
        if name != UNKNOWN || self.hypothesis.last() != Some(&UNKNOWN) {
            self.hypothesis.push(name);
        }
    }

    /// Tokens of the hypothesis.
    pub(super) fn hypothesis_len(&self) -> usize {
        self.hypothesis_len
    }

    /// Tokens of each reference.
    pub(super) fn reference_lens(&self) -> impl Iterator<Item = usize> {
        spans(&self.reference_ends).map(|(start, end)| end - start)
    }

    /// The counts of the last [`count`](Self::count): `order` numbers for each reference, or once for all.
    pub(super) fn matches(&self) -> &[u32] {
        &self.matches
    }

    /// Counts the matches of orders 1 to `order`, which is at least 1. Uses up the tokens, but not their numbers.
    pub(super) fn count(&mut self, order: usize, clip: Clip) {
        let rows = if clip == Clip::EachReference { self.reference_ends.len() } else { 1 };
        self.matches.clear();
        self.matches.resize(rows * order, 0);
        for n in 1..=order {
            if n > 1 {
                self.lengthen(n);
            }
            if !self.count_hypothesis(n) {
                break;
            }
            match clip {
                Clip::EachReference => self.match_each_reference(n, order),
                Clip::LargestReference => self.match_largest_reference(n),
            }
        }
    }

    /// From the (n-1)-grams to the n-grams.
    fn lengthen(&mut self, n: usize) {
        self.ngrams.clear();
        for (start, end) in spans(&self.reference_ends) {
            // m tokens have m-n+2 (n-1)-grams.
            let shorter = (end - start + 2).saturating_sub(n);
            let (seed, ngrams) = (self.seed, &mut self.ngrams);
            join_neighbours(self.references.get_mut(start..start + shorter).unwrap_or_default(), |first, second| {
                ngrams.name(seed.pair(first, second), |_| true)
            });
        }
        join_neighbours(&mut self.hypothesis, |first, second| {
            self.ngrams.find(self.seed.pair(first, second), |_| true)
        });
        self.hypothesis.pop();
    }

    /// Counts each n-gram in the hypothesis; `false` if it has none of the references', and so no longer one either.
    fn count_hypothesis(&mut self, n: usize) -> bool {
        let known = if n == 1 { self.vocabulary.len() } else { self.ngrams.len() };
        self.counts.clear();
        self.counts.resize(known, 0);
        let mut any = false;
        for &name in &self.hypothesis {
            if let Some(count) = self.counts.get_mut(name as usize) {
                *count = count.saturating_add(1);
                any = true;
            }
        }
        any
    }

    /// The numbers of a reference's n-grams. What the hypothesis lacks becomes unknown: no longer n-gram with it can
    /// match.
    #[inline]
    fn ngrams_of<'a>(references: &'a mut [u32], counts: &[u32], span: (usize, usize), n: usize) -> &'a [u32] {
        let names = references.get_mut(span.0..(span.1 + 1).saturating_sub(n)).unwrap_or_default();
        for name in &mut *names {
            if counts.get(*name as usize).is_none_or(|&count| count == 0) {
                *name = UNKNOWN;
            }
        }
        names
    }

    fn match_each_reference(&mut self, n: usize, order: usize) {
        // Here `spare` holds how many of the hypothesis's are left for this reference.
        self.spare.clone_from(&self.counts);
        let left = &mut self.spare;
        for (span, matches) in spans(&self.reference_ends).zip(self.matches.chunks_exact_mut(order)) {
            let names = Self::ngrams_of(&mut self.references, &self.counts, span, n);
            let mut matched = 0;
            for &name in names {
                if let Some(left) = left.get_mut(name as usize).filter(|left| **left > 0) {
                    *left -= 1;
                    matched += 1;
                }
            }
            if matched == 0 {
                continue;
            }
            if let Some(matches) = matches.get_mut(n - 1) {
                *matches = matched;
            }
            for &name in names {
                if let (Some(left), Some(&count)) = (left.get_mut(name as usize), self.counts.get(name as usize)) {
                    *left = count;
                }
            }
        }
    }

    fn match_largest_reference(&mut self, n: usize) {
        // Here `spare` holds how often this reference has had the n-gram so far, and the most that any has it.
        self.spare.clear();
        self.spare.resize(2 * self.counts.len(), 0);
        let (seen, largest) = self.spare.split_at_mut(self.counts.len());
        for span in spans(&self.reference_ends) {
            let names = Self::ngrams_of(&mut self.references, &self.counts, span, n);
            for &name in names {
                if let (Some(seen), Some(largest)) = (seen.get_mut(name as usize), largest.get_mut(name as usize)) {
                    *seen += 1;
                    *largest = (*largest).max(*seen);
                }
            }
            for &name in names {
                if let Some(seen) = seen.get_mut(name as usize) {
                    *seen = 0;
                }
            }
        }
        let matched = self.counts.iter().zip(largest).map(|(&count, &mut largest)| count.min(largest)).sum();
        if let Some(matches) = self.matches.get_mut(n - 1) {
            *matches = matched;
        }
    }
}

/// The bytes of a token.
#[inline]
fn token_at<'a>(bytes: &'a [u8], ends: &[usize], name: u32) -> Option<&'a [u8]> {
    let at = name as usize;
    let start = if at == 0 { 0 } else { *ends.get(at - 1)? };
    bytes.get(start..*ends.get(at)?)
}

/// Where each part begins and ends, from where each ends.
pub(super) fn spans(ends: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    ends.iter().scan(0, |start, &end| Some((std::mem::replace(start, end), end)))
}

/// Replaces each number but the last by what `name` says of it and its right neighbour, if both are known.
fn join_neighbours(numbers: &mut [u32], mut name: impl FnMut(u32, u32) -> u32) {
    for pair in Cell::from_mut(numbers).as_slice_of_cells().windows(2) {
        if let [first, second] = pair {
            let known = first.get() != UNKNOWN && second.get() != UNKNOWN;
            first.set(if known { name(first.get(), second.get()) } else { UNKNOWN });
        }
    }
}
