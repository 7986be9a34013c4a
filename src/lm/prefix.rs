//! Sequences whose keys and values are kept after their request, so that a later one that begins alike starts further on.
//!
//! Any beginning of a kept sequence can be used: a key depends only on the tokens before it. Least recently used go first.

use super::kv::{KvPool, Span};
use super::share::{MIN_SHARED, common};

/// Sequences kept at most: finding a match looks at each.
const MAX_ENTRIES: usize = 512;

#[derive(Debug)]
struct Entry {
    tokens: Vec<u32>,
    span: Span,
    used: u64,
    pins: usize,
}

/// A kept beginning of a sequence. Its entry stays until it is unpinned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    /// The slots of the common tokens.
    pub(super) span: Span,
    id: u64,
}

/// The kept sequences.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    entries: std::collections::BTreeMap<u64, Entry>,
    next: u64,
    clock: u64,
}

impl PrefixCache {
    /// The longest kept beginning of `tokens`, pinned; none below the length that is worth it.
    pub(super) fn find(&mut self, tokens: &[u32]) -> Option<Hit> {
        let found = self.entries.iter().map(|(id, entry)| (common(&entry.tokens, tokens), *id));
        let (len, id) =
            found.max_by_key(|(len, id)| (*len, std::cmp::Reverse(*id))).filter(|(len, _)| *len >= MIN_SHARED)?;
        self.clock += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.used = self.clock;
        entry.pins += 1;
        Some(Hit { span: Span { start: entry.span.start, len }, id })
    }

    /// Lets go of a hit.
    pub(super) fn unpin(&mut self, hit: Hit) {
        if let Some(entry) = self.entries.get_mut(&hit.id) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    /// Keeps a sequence, whose slots belong to the cache from now on.
    pub(super) fn keep(&mut self, tokens: Vec<u32>, span: Span, pool: &mut KvPool) {
        let covered = |entry: &Entry| common(&entry.tokens, &tokens) == tokens.len();
        if self.entries.values().any(covered) {
            return pool.give_back(span);
        }
        if self.entries.len() >= MAX_ENTRIES && !self.evict(pool) {
            return pool.give_back(span);
        }
        self.clock += 1;
        self.next += 1;
        self.entries.insert(self.next, Entry { tokens, span, used: self.clock, pins: 0 });
    }

    /// Drops the least recently used sequence that nobody holds; false when there is none.
    pub(super) fn evict(&mut self, pool: &mut KvPool) -> bool {
        let idle = self.entries.iter().filter(|(_, entry)| entry.pins == 0);
        let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id) else { return false };
        if let Some(entry) = self.entries.remove(&oldest) {
            pool.give_back(entry.span);
        }
        true
    }

    /// Takes slots, dropping kept sequences until there is room; none when those in use leave too little.
    pub(super) fn take(&mut self, len: usize, pool: &mut KvPool) -> Option<Span> {
        loop {
            if let Some(span) = pool.take(len) {
                return Some(span);
            }
            if !self.evict(pool) {
                return None;
            }
        }
    }

    /// Tokens kept.
    pub(super) fn tokens(&self) -> usize {
        self.entries.values().map(|entry| entry.tokens.len()).sum()
    }
}
