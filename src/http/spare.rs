//! Room of large bodies that is used again for the next ones: fresh memory costs a page fault for every 4 KB. In: bodies
//! that nobody reads any more; out: empty ones with room. What is not wanted for a moment is freed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bodies that are worth keeping, by their room in bytes: the allocator keeps smaller ones itself, and a larger one is rare.
const WORTH: std::ops::RangeInclusive<usize> = (256 << 10)..=(16 << 20);
/// Most bytes that are kept.
const KEPT_BYTES: usize = 32 << 20;
/// How long a body is kept: a trainer that sends one batch after the other comes sooner.
const KEPT: Duration = Duration::from_millis(100);

/// Bodies that were read, the latest one last.
#[derive(Debug, Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<(Instant, String)>>>);

impl Spare {
    /// Whether a body of as many bytes is worth it.
    pub(super) fn is_worth(bytes: usize) -> bool {
        WORTH.contains(&bytes)
    }

    /// An empty text with room for as many bytes, and for no more than twice as many: it takes memory from the start.
    pub(super) fn take(&self, bytes: usize) -> Option<String> {
        let mut kept = self.lock();
        let place = kept.iter().rposition(|(_, text)| (bytes..=2 * bytes).contains(&text.capacity()))?;
        Some(kept.remove(place).1)
    }

    /// Fresh room for as many bytes and an eighth more, for the next one: batches are of about one size. What is not
    /// written to takes no memory.
    pub(super) fn fresh(bytes: usize) -> String {
        String::with_capacity(bytes + bytes / 8)
    }

    /// Keeps the room of a text for a while; must be called in a runtime.
    pub(super) fn keep(&self, mut text: String) {
        if !WORTH.contains(&text.capacity()) {
            return;
        }
        text.clear();
        let mut kept = self.lock();
        if kept.iter().map(|(_, text)| text.capacity()).sum::<usize>() + text.capacity() > KEPT_BYTES {
            return;
        }
        kept.push((Instant::now(), text));
        drop(kept);
        let spare = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            spare.lock().retain(|(since, _)| since.elapsed() < KEPT);
        });
    }

    /// Whatever a holder does, a list of empty texts is as good as another.
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(spare: &Spare) -> usize {
        spare.lock().len()
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_used_again_and_not_kept_for_long() {
        let spare = Spare::default();
        assert_eq!(spare.take(1 << 20), None);
        let mut text = Spare::fresh(1 << 20);
        text.push_str("a body");
        let room = text.capacity();
        spare.keep(text);
        let text = spare.take((1 << 20) + 100_000).unwrap();
        assert_eq!((text.as_str(), text.capacity(), kept(&spare)), ("", room, 0), "one of about the same size fits");
        spare.keep(text);
        assert_eq!(spare.take(2 << 20), None, "what is kept is too small");
        assert_eq!(spare.take(300 << 10), None, "a small one does not get the room of a large one");
        assert_eq!(kept(&spare), 1);
        tokio::time::sleep(KEPT / 2).await;
        spare.keep(Spare::fresh(1 << 20));
        tokio::time::sleep(KEPT / 2 + Duration::from_millis(1)).await;
        assert_eq!(kept(&spare), 1, "the first one went");
        tokio::time::sleep(KEPT).await;
        assert_eq!(kept(&spare), 0);
    }

    #[tokio::test]
    async fn little_is_kept() {
        let spare = Spare::default();
        for room in [0, 100 << 10, 17 << 20] {
            spare.keep(String::with_capacity(room));
        }
        assert_eq!(kept(&spare), 0, "too small or too large");
        for _ in 0..5 {
            spare.keep(String::with_capacity(10 << 20));
        }
        assert_eq!(kept(&spare), 3);
    }
}
