//! Working space that a thread keeps between calls, so that scoring a usual answer allocates nothing. Changes no
//! result.

use std::cell::Cell;

use super::names::Seed;
use super::overlap::Overlap;

/// A thread keeps its space up to this many bytes: one huge text must not pin memory for good.
const KEEP_BYTES: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Buffers for one call.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) overlap: Overlap,
    /// The normalised answer.
    pub(super) answer: Vec<u8>,
    /// The normalised references, one after the other, and where each ends.
    pub(super) references: Vec<u8>,
    pub(super) reference_ends: Vec<usize>,
}

impl Scratch {
    fn new() -> Self {
        Self {
            overlap: Overlap::new(Seed::random()),
            answer: Vec::new(),
            references: Vec::new(),
            reference_ends: Vec::new(),
        }
    }

    fn capacity_bytes(&self) -> usize {
        self.answer.capacity()
            + self.references.capacity()
            + self.reference_ends.capacity() * size_of::<usize>()
            + self.overlap.capacity_bytes()
    }
}

/// Lends `work` the thread's space, or a new one where it is lent already or the thread is ending. Contents are stale.
pub(super) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let kept = KEPT.try_with(Cell::take).ok().flatten();
    let mut scratch = kept.unwrap_or_else(|| Box::new(Scratch::new()));
    let result = work(&mut scratch);
    if scratch.capacity_bytes() <= KEEP_BYTES {
        // Fails only while the thread is ending, when there is nothing to keep it for.
        let _ = KEPT.try_with(|kept| kept.set(Some(scratch)));
    }
    result
}
