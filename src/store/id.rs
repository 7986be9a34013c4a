//! Names of what is stored: a batch (one scored request) and a score (one trajectory of it). In: the time and
//! a salt, from the caller; out: ids that sort by time. Knows no clock and no database.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StoreError;

/// Low bits of a [`BatchId`] that tell apart the batches of one millisecond.
const COUNTER_BITS: u32 = 20;

/// Latest time that an id takes from a clock: the year 2109.
const LATEST_MS: u64 = 1 << 42;

/// Most scores of one batch.
pub const MAX_SCORES: usize = 1 << 20;

/// The id of one scored request: Unix milliseconds, then 20 bits of a counter. Sorts by time, prints as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(u64);

impl BatchId {
    /// The id as databases keep it; never negative.
    pub(super) fn to_column(self) -> i64 {
        self.0.cast_signed()
    }

    /// The id from its column.
    pub(super) fn from_column(value: i64) -> Self {
        Self(value.cast_unsigned())
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The hash that names a trajectory, whatever its id. Prints, and is stored, as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash(pub u128);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| plain);
        number.map(Self).ok_or_else(|| D::Error::custom("a hash has 32 hex digits"))
    }
}

/// Makes batch ids: always larger than the last one, also when the clock steps back.
#[derive(Debug)]
pub struct BatchIds {
    last: AtomicU64,
    salt: u64,
}

impl BatchIds {
    /// A source whose ids come after `last`. The `salt` (20 bits are used) is where each millisecond starts to
    /// count, so that two processes that write to one database do not meet; nor where `last` is ahead of their clocks.
    pub fn new(last: Option<BatchId>, salt: u64) -> Self {
        let salt = salt & ((1 << COUNTER_BITS) - 1);
        // Counting on from `last` itself, two processes that found the same one would draw the same ids.
        let start = |last: BatchId| (((last.0 >> COUNTER_BITS) + 1) << COUNTER_BITS) | salt;
        Self { last: AtomicU64::new(last.map_or(0, start)), salt }
    }

    /// The next id, at `now_ms` Unix milliseconds.
    pub fn next(&self, now_ms: i64) -> BatchId {
        // A clock before 1970 counts on from the last id; one past 2109 stops there, which leaves 2^62 ids above it.
        let now = u64::try_from(now_ms).unwrap_or(0).min(LATEST_MS);
        let floor = (now << COUNTER_BITS) | self.salt;
        let step = |last: u64| floor.max(last.wrapping_add(1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(step(last)));
        BatchId(step(last.unwrap_or_else(|last| last)))
    }
}

/// The id of one score: its batch and its place in it. Prints as `<16 hex digits>-<index>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScoreId {
    /// The batch that the score belongs to.
    pub batch: BatchId,
    /// Place of the trajectory in its request, from 0.
    pub index: u32,
}

impl fmt::Display for ScoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.batch, self.index)
    }
}

impl FromStr for ScoreId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        parse_score_id(text).ok_or_else(|| StoreError::ScoreId { text: super::error::excerpt(text) })
    }
}

/// Takes only what `Display` prints, so that a score has one name.
fn parse_score_id(text: &str) -> Option<ScoreId> {
    let (batch, index) = text.split_once('-')?;
    let batch = BatchId::from_column(i64::from_str_radix(batch, 16).ok()?);
    let id = ScoreId { batch, index: index.parse().ok()? };
    (id.to_string() == text).then_some(id)
}
