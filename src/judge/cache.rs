//! What judges said before. A finding is kept under the hash of the judge's identity, the inquiry and the form of the answer, in
//! memory and, if there is one, in a [`FindingStore`] that outlives the process. Equal inquiries at the same time are asked once, see
//! `single_flight`. Failures are not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Found;
use super::deadline::Deadline;
use super::inquiry::{AnswerForm, BackendAnswer, Finding, Form, Inquiry, Usage};
use super::single_flight::SingleFlight;
use crate::stages::{Unavailable, UnavailableCode};

/// Keeps findings beyond this process.
pub trait FindingStore: std::fmt::Debug + Send + Sync {
    /// What was kept under a key. Blocks.
    fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>>;

    /// Keeps a finding, or fails silently: then it is asked again one day. Returns at once, so that a finding is on its way
    /// before anything that was made of it.
    fn put(&self, key: &[u8; 32], value: &[u8]);
}

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
    /// What is under way: a finding, and whether a judge was asked for it.
    running: SingleFlight<(Arc<Finding>, bool)>,
    hits: AtomicU64,
    /// Shared with what is under way.
    misses: Arc<AtomicU64>,
}

/// What is known.
#[derive(Clone)]
struct Kept {
    findings: moka::future::Cache<[u8; 32], Arc<Finding>>,
    memory: Option<Arc<dyn FindingStore>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache of about this many bytes.
    pub(super) fn new(bytes: u64, memory: Option<Arc<dyn FindingStore>>) -> Self {
        let weigh = |_: &[u8; 32], finding: &Arc<Finding>| u32::try_from(weight(finding)).unwrap_or(u32::MAX);
        let findings = moka::future::Cache::builder().weigher(weigh).max_capacity(bytes).build();
        let kept = Kept { findings, memory };
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
        F: Future<Output = Result<Finding, Unavailable>> + Send,
    {
        let keys = Keys::new(identity, inquiry);
        let likely = keys.of(form.unwrap_or(Form::AsWanted));
        if let Some(known) = self.kept.findings.get(&likely).await {
            return Some(Ok(self.found(&known, true)));
        }
        let begin = |until| {
            let (kept, misses, keys, ask) = (self.kept.clone(), self.misses.clone(), keys.clone(), ask.clone());
            let inquiry = Arc::new(inquiry.clone());
            async move {
                if let Some(known) = kept.find(&keys, &inquiry.want, form).await {
                    return Ok((known, false));
                }
                // Here, as whoever began may be gone by the time that there is an answer.
                misses.fetch_add(1, Relaxed);
                let finding = Arc::new(ask(inquiry.clone(), until).await?);
                kept.keep(&keys, &inquiry.want, &finding, true).await;
                Ok((finding, true))
            }
        };
        let (mut begun, mut answer) = self.running.ask(likely, deadline, begin).await;
        let is_late = |answer: &Result<_, Unavailable>| {
            answer.as_ref().is_err_and(|unavailable| unavailable.code == UnavailableCode::Timeout)
        };
        if !begun && answer.as_ref().is_some_and(is_late) && Instant::now() < deadline {
            // The judge's time for a question began with another one's. Once: all of them share what is asked now, so that a
            // judge that hangs takes its time twice, and not once for each who waits.
            (begun, answer) = self.running.ask(likely, deadline, begin).await;
        }
        Some(answer?.map(|(finding, is_asked)| self.found(&finding, !(begun && is_asked))))
    }

    /// An answer as it is given out: a hit for whoever did not have the judge asked, be it known before or shared.
    fn found(&self, finding: &Finding, hit: bool) -> Found {
        if hit {
            self.hits.fetch_add(1, Relaxed);
        }
        Found { finding: finding.clone(), hit }
    }
}

impl Kept {
    /// What is known of an inquiry in this form, or in any.
    async fn find(&self, keys: &Keys, want: &AnswerForm, form: Option<Form>) -> Option<Arc<Finding>> {
        // It may have been found since somebody looked.
        if let Some(known) = self.findings.get(&keys.of(form.unwrap_or(Form::AsWanted))).await {
            return Some(known);
        }
        let known = Arc::new(self.recall_any(keys, want, form).await?);
        self.keep(keys, want, &known, false).await;
        Some(known)
    }

    /// Keeps a finding by the form that it has, which need not be the one that was likely; in memory alone, or beyond.
    async fn keep(&self, keys: &Keys, want: &AnswerForm, finding: &Arc<Finding>, beyond: bool) {
        let key = keys.of(finding.form(want));
        if beyond {
            self.remember(key, finding);
        }
        self.findings.insert(key, finding.clone()).await;
    }

    /// What was kept in this form, or in any.
    async fn recall_any(&self, keys: &Keys, want: &AnswerForm, form: Option<Form>) -> Option<Finding> {
        for kept_as in [Form::AsWanted, Form::LabelAlone] {
            if form.is_none_or(|form| form == kept_as)
                && let Some(known) = self.recall(keys.of(kept_as)).await
                && form.is_none_or(|form| form == known.form(want))
            {
                return Some(known);
            }
        }
        None
    }

    async fn recall(&self, key: [u8; 32]) -> Option<Finding> {
        let memory = self.memory.clone()?;
        let kept = tokio::task::spawn_blocking(move || memory.get(&key)).await.ok()??;
        from_bytes(&kept)
    }

    fn remember(&self, key: [u8; 32], finding: &Finding) {
        if let Some(memory) = &self.memory {
            memory.put(&key, &to_bytes(finding));
        }
    }
}

fn weight(finding: &Finding) -> usize {
    let said = match &finding.said {
        BackendAnswer::Labels(logprobs) => 8 * logprobs.len(),
        BackendAnswer::Chosen { reasoning, logprobs, .. } => {
            reasoning.len() + 8 * logprobs.as_ref().map_or(0, Vec::len)
        }
        BackendAnswer::Reward(_) => 0,
        BackendAnswer::Order(order) => 8 * order.len(),
    };
    256 + said
}

/// What an inquiry's answers are kept under: the hash of all that they depend on. Prompts may be long, so that one is hashed
/// once for all forms.
#[derive(Clone)]
struct Keys(blake3::Hasher);

impl Keys {
    fn new(identity: &str, inquiry: &Inquiry) -> Self {
        let mut keys = Self(blake3::Hasher::new());
        keys.part(identity);
        keys.part(&format!("{:?}", inquiry.want));
        for message in &inquiry.messages {
            keys.part(message.role.as_str());
            keys.part(&message.text);
            keys.part(&format!("{:?}", message.untrusted));
        }
        keys
    }

    /// The key of an answer in this form.
    fn of(&self, form: Form) -> [u8; 32] {
        let mut keys = self.clone();
        if form == Form::LabelAlone {
            keys.part("label alone");
        }
        *keys.0.finalize().as_bytes()
    }

    fn part(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
}

/// JSON has no infinity: a label that was not offered is null.
fn to_bytes(finding: &Finding) -> Vec<u8> {
    let numbers = |logprobs: &[f64]| -> Value { logprobs.iter().map(|lp| lp.is_finite().then_some(*lp)).collect() };
    let said = match &finding.said {
        BackendAnswer::Labels(logprobs) => json!({"labels": numbers(logprobs)}),
        BackendAnswer::Chosen { label, reasoning, logprobs } => {
            json!({"chosen": label, "reasoning": reasoning, "logprobs": logprobs.as_deref().map(numbers)})
        }
        BackendAnswer::Reward(raw) => json!({"reward": raw}),
        BackendAnswer::Order(order) => json!({"order": order}),
    };
    said.to_string().into_bytes()
}

fn from_bytes(bytes: &[u8]) -> Option<Finding> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let numbers = |value: &Value| -> Option<Vec<f64>> {
        let number = |value: &Value| if value.is_null() { Some(f64::NEG_INFINITY) } else { value.as_f64() };
        value.as_array()?.iter().map(number).collect()
    };
    let index = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let said = if let Some(labels) = value.get("labels") {
        BackendAnswer::Labels(numbers(labels)?)
    } else if let Some(chosen) = value.get("chosen") {
        BackendAnswer::Chosen {
            label: index(chosen)?,
            reasoning: value.get("reasoning")?.as_str()?.to_owned(),
            logprobs: match value.get("logprobs")? {
                Value::Null => None,
                logprobs => Some(numbers(logprobs)?),
            },
        }
    } else if let Some(raw) = value.get("reward") {
        BackendAnswer::Reward(raw.as_f64()?)
    } else {
        BackendAnswer::Order(value.get("order")?.as_array()?.iter().map(index).collect::<Option<_>>()?)
    };
    Some(Finding { said, usage: Usage::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::judge::inquiry::{ChatRole, PromptMessage};
    use crate::locks;

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
    struct MapStore(Mutex<std::collections::HashMap<[u8; 32], Vec<u8>>>);

    impl FindingStore for MapStore {
        fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
            locks::lock(&self.0).get(key).cloned()
        }

        fn put(&self, key: &[u8; 32], value: &[u8]) {
            locks::lock(&self.0).insert(*key, value.to_owned());
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
        let shelf = Arc::new(MapStore::default());
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
        assert_eq!(locks::lock(&shelf.0).len(), all.len(), "what is answered is kept");
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
        let shelf = Arc::new(MapStore::default());
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
        locks::lock(&shelf.0).retain(|_, kept| kept.starts_with(b"{\"chosen\""));
        let cache = Cache::new(1 << 20, Some(shelf));
        assert_eq!(get(&cache, None, &weighed).await, alone, "either is taken before the first answer");
        assert_eq!(get(&cache, WANTED, &weighed).await, weighed);
    }
}
