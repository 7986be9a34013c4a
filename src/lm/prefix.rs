//! Sequences whose keys and values are kept after their request, so that a later one that begins alike starts further on.
//!
//! Any beginning of a kept sequence can be used: a key depends only on the tokens before it. Least recently used go first.

use super::kv::{KvPool, Span};
use super::shared_prefix::{MIN_SHARED, common};

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

    /// Takes slots, dropping kept sequences until there is room; none when those in use leave too little, and then none is
    /// dropped in vain.
    pub(super) fn take(&mut self, len: usize, pool: &mut KvPool) -> Option<Span> {
        if let Some(span) = pool.take(len) {
            return Some(span);
        }
        let idle = self.entries.values().filter(|entry| entry.pins == 0).map(|entry| entry.span);
        if !pool.would_hold(len, idle) {
            return None;
        }
        while self.evict(pool) {
            if let Some(span) = pool.take(len) {
                return Some(span);
            }
        }
        None
    }

    /// Tokens kept.
    pub(super) fn tokens(&self) -> usize {
        self.entries.values().map(|entry| entry.tokens.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::lm::ModelConfig;

    /// A pool of 100 slots.
    fn pool() -> KvPool {
        let config = r#"{"model_type": "llama", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
            "num_attention_heads": 1, "max_position_embeddings": 8, "vocab_size": 8}"#;
        KvPool::new(&ModelConfig::from_json(config).unwrap(), 100, DType::F32, &Device::Cpu).unwrap()
    }

    /// Fills the slots with spans in use and kept sequences (`true`), one behind the other.
    fn filled(spans: &[(usize, bool)]) -> (PrefixCache, KvPool) {
        let (mut cache, mut pool) = (PrefixCache::default(), pool());
        for (token, (len, kept)) in (0..).zip(spans) {
            let span = pool.take(*len).unwrap();
            if *kept {
                cache.keep(vec![token; *len], span, &mut pool);
            }
        }
        (cache, pool)
    }

    #[test]
    fn what_is_kept_makes_room_and_nothing_is_dropped_in_vain() {
        let (mut cache, mut pool) = filled(&[(40, false), (20, true), (20, true)]);
        assert_eq!(cache.take(61, &mut pool), None);
        assert_eq!((cache.tokens(), pool.free_slots()), (40, 20), "all of it would not be enough");
        assert_eq!(cache.take(60, &mut pool), Some(Span { start: 40, len: 60 }));
        assert_eq!((cache.tokens(), pool.free_slots()), (0, 0));
    }

    #[test]
    fn pieces_that_are_apart_make_no_room() {
        let (mut cache, mut pool) = filled(&[(30, true), (30, false), (20, true)]);
        assert_eq!(cache.take(41, &mut pool), None, "70 slots, of which 40 lie together");
        assert_eq!(cache.tokens(), 50);
        assert!(cache.take(40, &mut pool).is_some());
    }
}
