//! A hash for long text keys. In: bytes; out: 64 bits that depend on a random seed. Not cryptographic: whoever knows
//! no seed cannot aim at collisions, and a map that uses it compares its keys in full anyway.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Builds hashers that share one random seed.
#[derive(Debug, Clone)]
pub(super) struct TextHash {
    seed: [u64; 4],
}

impl TextHash {
    /// A fresh random seed.
    #[allow(clippy::disallowed_methods, reason = "a hash key: no score depends on it")]
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self { seed: [0_u64, 1, 2, 3].map(|lane| random.hash_one(lane)) }
    }
}

impl BuildHasher for TextHash {
    type Hasher = TextHasher;

    fn build_hasher(&self) -> TextHasher {
        TextHasher { seed: self.seed, lanes: self.seed }
    }
}

/// Four lanes, so that the multiplications overlap.
#[derive(Debug)]
pub(super) struct TextHasher {
    seed: [u64; 4],
    lanes: [u64; 4],
}

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<64>();
        for block in blocks {
            let (pairs, _) = block.as_chunks::<16>();
            for ((lane, seed), pair) in self.lanes.iter_mut().zip(self.seed).zip(pairs) {
                *lane = mixed(*lane, seed, pair);
            }
        }
        let (pairs, rest) = rest.as_chunks::<16>();
        for ((lane, seed), pair) in self.lanes.iter_mut().zip(self.seed).zip(pairs) {
            *lane = mixed(*lane, seed, pair);
        }
        let mut last = [0_u8; 16];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let [.., lane] = &mut self.lanes;
        *lane = mixed(*lane ^ bytes.len() as u64, self.seed[0], &last);
    }

    fn finish(&self) -> u64 {
        let [a, b, c, d] = self.lanes;
        fold(fold(a ^ self.seed[1], b) ^ self.seed[2], fold(c ^ self.seed[3], d) ^ self.seed[0])
    }
}

fn mixed(lane: u64, seed: u64, pair: &[u8; 16]) -> u64 {
    let pair = u128::from_le_bytes(*pair);
    let (low, high) = halves(pair);
    fold(low ^ lane, high ^ seed).wrapping_add(lane.rotate_left(23))
}

/// Both halves of the product.
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = halves(u128::from(a) * u128::from(b));
    low ^ high
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn halves(wide: u128) -> (u64, u64) {
    (wide as u64, (wide >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_and_length_counts() {
        let hash = TextHash::new();
        let text = "0123456789abcdef".repeat(20);
        let mut seen = HashSet::new();
        for length in 0..=text.len() {
            assert!(seen.insert(hash.hash_one(&text[..length])), "length {length}");
        }
        for position in 0..text.len() {
            let mut changed = text.clone();
            changed.replace_range(position..=position, "X");
            assert!(seen.insert(hash.hash_one(changed.as_str())), "position {position}");
        }
        assert!(!seen.insert(hash.hash_one(text.as_str())));
    }
}
