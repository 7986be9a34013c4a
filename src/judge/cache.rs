//! Answers to inquiries, each asked for once. Where an answer comes from, in the order in which that is looked for:
//!
//! | it is | found by | counts as |
//! |---|---|---|
//! | kept in memory | [`Kept::at_hand`] | a hit |
//! | under way for another request, which is joined (see `single_flight`) | [`SingleFlight::ask`] | a hit, wherever that request gets it |
//! | kept beyond this process | [`Kept::recall`], once for all who wait | a hit |
//! | the judge's | `ask`, once for all who wait, and kept | a miss; for those who joined a hit |
//!
//! A failure goes to all who wait and is not kept. One kind is asked again: that the judge took too long for a request that was
//! joined, whose time began before ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::Found;
use super::deadline::Deadline;
use super::inquiry::{Finding, Form, Inquiry};
use super::kept::{FindingStore, Kept, Keys};
use super::single_flight::SingleFlight;
use crate::stages::{Unavailable, UnavailableCode};

/// How often an answer was known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Answers that were known.
    pub hits: u64,
    /// Questions that a judge was asked, however many waited for the answer.
    pub misses: u64,
}

/// Findings by inquiry.
pub(super) struct Cache {
    kept: Kept,
    running: SingleFlight<Answer>,
    hits: AtomicU64,
    /// Shared with what is under way.
    misses: Arc<AtomicU64>,
}

/// What came of looking further than memory.
#[derive(Debug, Clone)]
struct Answer {
    finding: Arc<Finding>,
    /// Where it is from: the judge, or what was kept.
    is_asked: bool,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache of about this many bytes.
    pub(super) fn new(bytes: u64, store: Option<Arc<dyn FindingStore>>) -> Self {
        let kept = Kept::new(bytes, store);
        Self { kept, running: SingleFlight::default(), hits: AtomicU64::new(0), misses: Arc::default() }
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts { hits: self.hits.load(Relaxed), misses: self.misses.load(Relaxed) }
    }

    /// The finding of an inquiry, from here or from `ask`; none where there is none by `deadline`. `ask` is given until when
    /// anybody waits. `form` is the one in which the judge answers; before it has answered anything that may not be known, and
    /// what was kept in either is taken.
    pub(super) async fn get<F>(
        &self,
        identity: &str,
        inquiry: &Inquiry,
        form: Option<Form>,
        deadline: Instant,
        ask: impl FnOnce(Arc<Inquiry>, Deadline) -> F + Clone + Send + 'static,
    ) -> Option<Result<Found, Unavailable>>
    where
        F: Future<Output = Result<Finding, Unavailable>> + Send + 'static,
    {
        let keys = Keys::new(identity, inquiry);
        let key = keys.likely(form);
        if let Some(known) = self.kept.at_hand(&key).await {
            return Some(Ok(self.found(&known, true)));
        }
        let begin = |until| {
            let looking = Looking { keys: keys.clone(), form, kept: self.kept.clone(), misses: self.misses.clone() };
            looking.for_answer(Arc::new(inquiry.clone()), until, ask.clone())
        };
        let (mut begun, mut answer) = self.running.ask(key, deadline, begin).await;
        if !begun && is_late(answer.as_ref()) && Instant::now() < deadline {
            // The judge's time for a question began with another one's. Once: all of them share what is asked now, so that a
            // judge that hangs takes its time twice, and not once for each who waits.
            (begun, answer) = self.running.ask(key, deadline, begin).await;
        }
        Some(answer?.map(|answer| self.found(&answer.finding, !(begun && answer.is_asked))))
    }

    /// An answer as it is given out: a hit for whoever did not have the judge asked, be it known before or shared.
    fn found(&self, finding: &Finding, hit: bool) -> Found {
        if hit {
            self.hits.fetch_add(1, Relaxed);
        }
        Found { finding: finding.clone(), hit }
    }
}

/// Whether the judge took too long.
fn is_late(answer: Option<&Result<Answer, Unavailable>>) -> bool {
    matches!(answer, Some(Err(unavailable)) if unavailable.code == UnavailableCode::Timeout)
}

/// A question under way, for all who wait: it holds what it needs itself, as whoever began it may be gone before it ends.
struct Looking {
    keys: Keys,
    form: Option<Form>,
    kept: Kept,
    misses: Arc<AtomicU64>,
}

impl Looking {
    async fn for_answer<F>(
        self,
        inquiry: Arc<Inquiry>,
        until: Deadline,
        ask: impl FnOnce(Arc<Inquiry>, Deadline) -> F,
    ) -> Result<Answer, Unavailable>
    where
        F: Future<Output = Result<Finding, Unavailable>> + Send,
    {
        // It may have been found since somebody looked.
        if let Some(finding) = self.kept.at_hand(&self.keys.likely(self.form)).await {
            return Ok(Answer { finding, is_asked: false });
        }
        if let Some(finding) = self.kept.recall(&self.keys, &inquiry.want, self.form).await {
            return Ok(Answer { finding, is_asked: false });
        }
        self.misses.fetch_add(1, Relaxed);
        let finding = Arc::new(ask(inquiry.clone(), until).await?);
        self.kept.keep(&self.keys, &inquiry.want, &finding).await;
        Ok(Answer { finding, is_asked: true })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::judge::inquiry::{AnswerForm, BackendAnswer, ChatRole, PromptMessage, Usage};

    fn in_a_minute() -> Instant {
        Instant::now() + std::time::Duration::from_mins(1)
    }

    const WANTED: Option<Form> = Some(Form::AsWanted);

    fn inquiry(text: &str) -> Inquiry {
        let message = PromptMessage { role: ChatRole::User, text: text.to_owned(), untrusted: Vec::new() };
        Inquiry {
            messages: vec![message],
            want: AnswerForm::Labels(["Yes".to_owned(), "No".to_owned()].into()),
            fewer: [].into(),
        }
    }

    fn finding(said: BackendAnswer) -> Finding {
        Finding { said, usage: Usage::default() }
    }

    #[derive(Debug, Default)]
    struct Shelf(Mutex<std::collections::HashMap<[u8; 32], Vec<u8>>>);

    impl FindingStore for Shelf {
        fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(key).cloned()
        }

        fn put(&self, key: &[u8; 32], value: &[u8]) {
            self.0.lock().unwrap().insert(*key, value.to_owned());
        }
    }

    #[tokio::test]
    async fn equal_questions_at_the_same_time_are_asked_once() {
        let (cache, asked) = (Cache::new(1 << 20, None), Arc::new(AtomicUsize::new(0)));
        let inquiry = inquiry("one");
        let get = async || {
            let asked = asked.clone();
            let ask = move |_, _| async move {
                asked.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
                Ok(finding(BackendAnswer::Reward(1.5)))
            };
            cache.get("judge", &inquiry, WANTED, in_a_minute(), ask).await.unwrap()
        };
        let (a, b) = tokio::join!(get(), get());
        assert_eq!((asked.load(Relaxed), a.unwrap().hit, b.unwrap().hit), (1, false, true));
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 1 });
    }

    #[tokio::test]
    async fn another_judge_or_another_question_is_another_entry() {
        let cache = Cache::new(1 << 20, None);
        let get = async |identity, text, raw| {
            let ask = move |_, _| async move { Ok(finding(BackendAnswer::Reward(raw))) };
            cache.get(identity, &inquiry(text), WANTED, in_a_minute(), ask).await.unwrap().unwrap()
        };
        for (identity, text, raw) in [("a", "x", 1.0), ("b", "x", 2.0), ("a", "y", 3.0)] {
            let found = get(identity, text, raw).await;
            assert_eq!((found.finding.said, found.hit), (BackendAnswer::Reward(raw), false));
        }
        assert!(get("b", "x", 9.0).await.hit);
    }

    /// One that asks the same with more time does not fail with whoever asked first.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_another_request_is_not_ours() {
        let cache = Cache::new(1 << 20, None);
        let inquiry = inquiry("one");
        let get = async |seconds| {
            let ask = |_, _| async {
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                Ok(finding(BackendAnswer::Reward(1.0)))
            };
            let deadline = Instant::now() + std::time::Duration::from_secs(seconds);
            cache.get("judge", &inquiry, WANTED, deadline, ask).await
        };
        let (a, b) = tokio::join!(get(1), get(9));
        assert!(a.is_none());
        let b = b.unwrap().unwrap();
        assert_eq!((b.finding.said, b.hit), (BackendAnswer::Reward(1.0), true));
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 1 }, "it was asked, though who began it is gone");
        assert!(get(9).await.unwrap().unwrap().hit, "it is kept");
        assert_eq!(cache.counts(), CacheCounts { hits: 2, misses: 1 });
    }

    /// A judge takes so long for a question at most, from when it was begun: one that joins late has its own time.
    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_judge_takes_for_another_request_is_not_ours() {
        let (cache, asked) = (Cache::new(1 << 20, None), Arc::new(AtomicUsize::new(0)));
        let seconds = std::time::Duration::from_secs;
        let inquiry = inquiry("one");
        let get = async |after| {
            let asked = asked.clone();
            tokio::time::sleep(seconds(after)).await;
            let ask = move |_, _| async move {
                if asked.fetch_add(1, Relaxed) == 0 {
                    tokio::time::sleep(seconds(3)).await;
                    return Err(Unavailable { code: UnavailableCode::Timeout, message: "it hangs".to_owned() });
                }
                Ok(finding(BackendAnswer::Reward(0.9)))
            };
            cache.get("judge", &inquiry, WANTED, Instant::now() + seconds(9), ask).await.unwrap()
        };
        let (first, late, later) = tokio::join!(get(0), get(2), get(2));
        assert!(first.is_err(), "it was its time");
        assert_eq!(
            [late, later].map(|found| found.unwrap().finding.said),
            [BackendAnswer::Reward(0.9), BackendAnswer::Reward(0.9)]
        );
        assert_eq!(asked.load(Relaxed), 2, "they share one question");
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_judge_that_hangs_takes_its_time_twice_at_most() {
        let (cache, asked, start) = (Cache::new(1 << 20, None), Arc::new(AtomicUsize::new(0)), Instant::now());
        let inquiry = inquiry("one");
        let get = async || {
            let asked = asked.clone();
            let ask = move |_, _| async move {
                asked.fetch_add(1, Relaxed);
                tokio::time::sleep(std::time::Duration::from_secs(3)).await;
                Err(Unavailable { code: UnavailableCode::Timeout, message: "it hangs".to_owned() })
            };
            cache.get("judge", &inquiry, WANTED, in_a_minute(), ask).await.unwrap()
        };
        let (a, b, c, d) = tokio::join!(get(), get(), get(), get());
        assert!([a, b, c, d].iter().all(Result::is_err));
        assert_eq!((asked.load(Relaxed), start.elapsed().as_secs()), (2, 6));
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let cache = Cache::new(1 << 20, None);
        let broken = |_, _| async { Err(Unavailable { code: UnavailableCode::Timeout, message: "late".to_owned() }) };
        assert!(cache.get("a", &inquiry("x"), WANTED, in_a_minute(), broken).await.unwrap().is_err());
        let well = |_, _| async { Ok(finding(BackendAnswer::Reward(0.0))) };
        assert!(!cache.get("a", &inquiry("x"), WANTED, in_a_minute(), well).await.unwrap().unwrap().hit);
    }

    #[tokio::test]
    async fn what_was_kept_outlives_the_cache() {
        let shelf = Arc::new(Shelf::default());
        let all = [
            BackendAnswer::Labels(vec![-0.5, f64::NEG_INFINITY]),
            BackendAnswer::Chosen { label: 1, reasoning: "because".to_owned(), logprobs: None },
            BackendAnswer::Chosen { label: 0, reasoning: String::new(), logprobs: Some(vec![-0.1, -3.0]) },
            BackendAnswer::Reward(-2.25),
            BackendAnswer::Order(vec![2, 0, 1]),
        ];
        for (n, said) in all.iter().enumerate() {
            let cache = Cache::new(1 << 20, Some(shelf.clone()));
            let said = finding(said.clone());
            let ask = |_, _| async { Ok(said) };
            cache.get("a", &inquiry(&n.to_string()), None, in_a_minute(), ask).await.unwrap().unwrap();
        }
        assert_eq!(shelf.0.lock().unwrap().len(), all.len(), "what is answered is kept");
        for (n, said) in all.iter().enumerate() {
            let cache = Cache::new(1 << 20, Some(shelf.clone()));
            let asked = |_, _| async { panic!("it is known") };
            let found = cache.get("a", &inquiry(&n.to_string()), None, in_a_minute(), asked).await.unwrap().unwrap();
            assert_eq!((&found.finding.said, found.hit), (said, true));
        }
    }

    /// Whether labels have probabilities may change between two processes: a label alone is then none that was weighed.
    #[tokio::test]
    async fn a_label_alone_is_kept_apart_from_probabilities() {
        let shelf = Arc::new(Shelf::default());
        let alone = BackendAnswer::Chosen { label: 1, reasoning: String::new(), logprobs: None };
        let weighed = BackendAnswer::Labels(vec![-0.5, -1.0]);
        let (inquiry, asked) = (inquiry("x"), Arc::new(AtomicUsize::new(0)));
        let get = async |cache: &Cache, form, said: &BackendAnswer| {
            let (said, asked) = (finding(said.clone()), asked.clone());
            let ask = move |_, _| async move {
                asked.fetch_add(1, Relaxed);
                Ok(said)
            };
            cache.get("a", &inquiry, form, in_a_minute(), ask).await.unwrap().unwrap().finding.said
        };
        let cache = Cache::new(1 << 20, Some(shelf.clone()));
        // The first answer tells which form it is.
        assert_eq!(get(&cache, None, &alone).await, alone);
        for cache in [cache, Cache::new(1 << 20, Some(shelf.clone()))] {
            assert_eq!(get(&cache, Some(Form::LabelAlone), &weighed).await, alone, "it is known");
            assert_eq!(get(&cache, WANTED, &weighed).await, weighed);
            assert_eq!(get(&cache, Some(Form::LabelAlone), &weighed).await, alone);
        }
        assert_eq!(asked.load(Relaxed), 2);
        shelf.0.lock().unwrap().retain(|_, kept| kept.starts_with(b"{\"chosen\""));
        let cache = Cache::new(1 << 20, Some(shelf));
        assert_eq!(get(&cache, None, &weighed).await, alone, "either is taken before the first answer");
        assert_eq!(get(&cache, WANTED, &weighed).await, weighed);
    }
}
