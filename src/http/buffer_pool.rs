//! Room of large bodies that is used again for the next ones: fresh memory costs a page fault for every 4 KB. In: bodies
//! that nobody reads any more; out: empty ones with room. What is not wanted for a moment is freed.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::locks;

/// Bodies that are worth keeping, by their room in bytes: the allocator keeps smaller ones itself, and a larger one is rare.
const WORTH: std::ops::RangeInclusive<usize> = (256 << 10)..=(16 << 20);
/// Most bytes that are kept; and most that are lent to bodies of which not all has come.
const MOST_BYTES: usize = 32 << 20;
/// How long a body is kept: a trainer that sends one batch after the other comes sooner.
const KEPT: Duration = Duration::from_millis(100);

/// Bodies that were read.
#[derive(Debug, Clone, Default)]
pub(super) struct BufferPool(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The latest one last.
    kept: Vec<(Instant, String)>,
    lent_bytes: usize,
}

/// Says, when dropped, that all of a body has come, or nothing more will.
#[derive(Debug)]
pub(super) struct Lease {
    pool: BufferPool,
    bytes: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().lent_bytes -= self.bytes;
    }
}

impl BufferPool {
    /// An empty text with room for as many bytes, and for no more than twice as many: it takes memory from the start,
    /// which clients that only announce a body must not hold without bound.
    pub(super) fn take(&self, bytes: usize) -> Option<(String, Lease)> {
        let mut state = self.lock();
        let fits = |text: &String| (bytes..=2 * bytes).contains(&text.capacity());
        let place = state.kept.iter().rposition(|(_, text)| fits(text))?;
        let lent_bytes = state.lent_bytes + state.kept.get(place)?.1.capacity();
        if lent_bytes > MOST_BYTES {
            return None;
        }
        state.lent_bytes = lent_bytes;
        let text = state.kept.remove(place).1;
        let lease = Lease { pool: self.clone(), bytes: text.capacity() };
        Some((text, lease))
    }

    /// Fresh room for as many bytes; where it will be kept, for an eighth more: batches are of about one size. What is not
    /// written to takes no memory.
    pub(super) fn fresh(bytes: usize) -> String {
        String::with_capacity(if WORTH.contains(&bytes) { bytes + bytes / 8 } else { bytes })
    }

    /// Keeps the room of a text for a while; must be called in a runtime.
    pub(super) fn keep(&self, mut text: String) {
        if !WORTH.contains(&text.capacity()) {
            return;
        }
        text.clear();
        let mut state = self.lock();
        if state.kept.iter().map(|(_, text)| text.capacity()).sum::<usize>() + text.capacity() > MOST_BYTES {
            return;
        }
        state.kept.push((Instant::now(), text));
        drop(state);
        let pool = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            pool.lock().kept.retain(|(since, _)| since.elapsed() < KEPT);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locks::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pool: &BufferPool) -> usize {
        pool.lock().kept.len()
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_used_again_and_not_kept_for_long() {
        let pool = BufferPool::default();
        assert!(pool.take(1 << 20).is_none());
        let mut text = BufferPool::fresh(1 << 20);
        text.push_str("a body");
        let room = text.capacity();
        pool.keep(text);
        let (text, _) = pool.take((1 << 20) + 100_000).unwrap();
        assert_eq!((text.as_str(), text.capacity(), kept(&pool)), ("", room, 0), "one of about the same size fits");
        pool.keep(text);
        assert!(pool.take(2 << 20).is_none(), "what is kept is too small");
        assert!(pool.take(300 << 10).is_none(), "a small one does not get the room of a large one");
        assert_eq!(kept(&pool), 1);
        tokio::time::sleep(KEPT / 2).await;
        pool.keep(BufferPool::fresh(1 << 20));
        tokio::time::sleep(KEPT / 2 + Duration::from_millis(1)).await;
        assert_eq!(kept(&pool), 1, "the first one went");
        tokio::time::sleep(KEPT).await;
        assert_eq!(kept(&pool), 0);
    }

    #[tokio::test]
    async fn little_is_kept_and_lent() {
        let pool = BufferPool::default();
        for room in [0, 100 << 10, 17 << 20] {
            pool.keep(String::with_capacity(room));
        }
        assert_eq!(kept(&pool), 0, "too small or too large");
        let keep = || (0..5).for_each(|_| pool.keep(String::with_capacity(10 << 20)));
        keep();
        assert_eq!(kept(&pool), 3);
        let waiting: Vec<_> = (0..3).map(|_| pool.take(10 << 20).unwrap()).collect();
        keep();
        assert!(pool.take(10 << 20).is_none(), "those who have it have not sent their bodies");
        drop(waiting);
        assert!(pool.take(10 << 20).is_some());
    }
}
