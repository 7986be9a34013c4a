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
    /// An empty text with room for as many bytes.
    pub(super) fn take(&self, bytes: usize) -> String {
        if !WORTH.contains(&bytes) {
            return String::with_capacity(bytes);
        }
        // An eighth more, for the next one: batches are of about one size. What is not written to takes no memory.
        self.find(bytes).unwrap_or_else(|| String::with_capacity(bytes + bytes / 8))
    }

    fn find(&self, bytes: usize) -> Option<String> {
        let mut kept = self.lock();
        let place = kept.iter().rposition(|(_, text)| text.capacity() >= bytes)?;
        Some(kept.remove(place).1)
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
        let mut text = spare.take(1 << 20);
        text.push_str("a body");
        let room = text.capacity();
        spare.keep(text);
        let text = spare.take(300 << 10);
        assert_eq!((text.as_str(), text.capacity(), kept(&spare)), ("", room, 0));
        spare.keep(text);
        assert!(spare.take(2 << 20).capacity() >= 2 << 20, "what is kept is too small");
        assert_eq!(kept(&spare), 1);
        tokio::time::sleep(KEPT / 2).await;
        spare.keep(String::with_capacity(1 << 20));
        tokio::time::sleep(KEPT / 2 + Duration::from_millis(1)).await;
        assert_eq!(kept(&spare), 1, "the first one went");
        tokio::time::sleep(KEPT).await;
        assert_eq!(kept(&spare), 0);
    }

    #[tokio::test]
    async fn a_body_of_about_the_same_size_fits() {
        let spare = Spare::default();
        spare.keep(spare.take(1 << 20));
        assert!(spare.take((1 << 20) + 100_000).is_empty());
        assert_eq!(kept(&spare), 0, "it was taken");
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
