//! Numbering things in the order of their first sight. In: keys with their hashes; out: numbers from 0. Knows not what
//! a key stands for: where two things can share a key, the caller tells them apart.
//!
//! An own table, because the usual case has some ten keys: cleared in nanoseconds, no allocation after the first call,
//! and 4 bytes a slot. The hashes are secretly seeded, so that an answer cannot be written to make it slow.

use std::hash::{BuildHasher, RandomState};

/// What has no number. Numbers stay below it.
pub(super) const UNKNOWN: u32 = u32::MAX;

const FEWEST_SLOTS: usize = 64;

/// A key and where to look for it. A number has one key, but a key can have several numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    key: u64,
    hash: u64,
}

/// Numbers for keys: open addressing with linear probing, at most half full.
#[derive(Debug)]
pub(super) struct Names {
    slots: Vec<u32>,
    keys: Vec<Key>,
}

/// Two secret numbers. They decide how long a search takes, never what it finds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64, u64);

impl Seed {
    #[allow(clippy::disallowed_methods, reason = "a hash key: no score depends on it")]
    pub(super) fn random() -> Self {
        let state = RandomState::new();
        Self(state.hash_one(1_u8), state.hash_one(2_u8))
    }

    /// Mixes two words: the halves of their seeded 128-bit product.
    #[inline]
    fn fold(self, a: u64, b: u64) -> u64 {
        let product = u128::from(a ^ self.0) * u128::from(b ^ self.1);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        low ^ high
    }

    /// The key of two numbers, which no other two have.
    #[inline]
    pub(super) fn pair(self, first: u32, second: u32) -> Key {
        let key = (u64::from(first) << 32) | u64::from(second);
        Key { key, hash: self.fold(key, key.rotate_left(32)) }
    }

    /// The key of some bytes, which other bytes can have as well.
    #[inline]
    pub(super) fn bytes(self, bytes: &[u8]) -> Key {
        let mut state = bytes.len() as u64;
        let mut rest = bytes;
        while rest.len() > 16
            && let Some((block, tail)) = rest.split_first_chunk()
        {
            state = self.fold(state ^ u64::from_le_bytes(*block), state);
            rest = tail;
        }
        // At most 16 bytes are left: two words that may overlap cover them.
        let (low, high) = if let (Some(first), Some(last)) = (rest.first_chunk::<8>(), rest.last_chunk::<8>()) {
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
            (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
        } else {
            (rest.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte)), 0)
        };
        let hash = self.fold(low ^ state, high.wrapping_add(state));
        Key { key: hash, hash }
    }
}

impl Names {
    pub(super) fn new() -> Self {
        Self { slots: vec![UNKNOWN; FEWEST_SLOTS], keys: Vec::new() }
    }

    pub(super) fn clear(&mut self) {
        self.slots.truncate(FEWEST_SLOTS);
        self.slots.fill(UNKNOWN);
        self.keys.clear();
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes held, used or not.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.keys.capacity() * size_of::<Key>()
    }

    /// The number of a key, or [`UNKNOWN`]; `same` tells whether the thing numbered so is the one meant.
    #[inline]
    pub(super) fn find(&self, key: Key, same: impl Fn(u32) -> bool) -> u32 {
        self.probe(key, same).0
    }

    /// The number of a key, a new one if it has none; [`UNKNOWN`] if the numbers are used up.
    #[inline]
    pub(super) fn name(&mut self, key: Key, same: impl Fn(u32) -> bool) -> u32 {
        let (found, slot) = self.probe(key, same);
        if found != UNKNOWN {
            return found;
        }
        let name = u32::try_from(self.keys.len()).unwrap_or(UNKNOWN);
        if name != UNKNOWN {
            self.keys.push(key);
            if let Some(slot) = self.slots.get_mut(slot) {
                *slot = name;
            }
            if self.keys.len() * 2 > self.slots.len() {
                self.grow();
            }
        }
        name
    }

    /// The number and its slot, or [`UNKNOWN`] and the slot where it would be.
    #[inline]
    fn probe(&self, key: Key, same: impl Fn(u32) -> bool) -> (u32, usize) {
        // The number of slots is a power of two.
        let last = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let mut slot = key.hash as usize & last;
        loop {
            let name = self.slots.get(slot).copied().unwrap_or(UNKNOWN);
            if name == UNKNOWN || (self.keys.get(name as usize) == Some(&key) && same(name)) {
                return (name, slot);
            }
            slot = (slot + 1) & last;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(slots, UNKNOWN);
        for (name, &key) in (0_u32..).zip(&self.keys) {
            let (_, slot) = self.probe(key, |_| false);
            if let Some(slot) = self.slots.get_mut(slot) {
                *slot = name;
            }
        }
    }
}
