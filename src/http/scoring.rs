//! A request's body on its way to a result: scored on the work threads, again whenever its judges have answered, and
//! stored. The one way to a score in the server: `POST /reward` and every dialect come through [`score`].
//!
//! In: the text of a native request. Out: what scoring made of it. Knows no path and no header.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::app::App;
use super::batch::{BatchError, Due, Overrides, Scored, Stop};
use super::error::Problem;
use crate::judge::Session;
use crate::locks;
use crate::stages::NoScoreCode;
use crate::store::{Batch, BatchId, Compressed, Idempotency, ScoreRows, StoreError, Untold, now_ms};

/// A request that is to be scored.
#[derive(Default)]
pub(crate) struct Job {
    /// The native request, JSON.
    pub(crate) body: String,
    /// When it arrived, where the body's own deadline counts, from here; what a dialect prepares is due by `due` alone.
    pub(crate) arrived: Option<Instant>,
    /// When the answer is due, as far as that is known before the body is read: nobody waits for its turn longer.
    pub(crate) due: Option<Due>,
    /// The id of the HTTP request.
    pub(crate) request_id: String,
    /// Set when the client sent an idempotency key.
    pub(crate) idempotency: Option<Idempotency>,
    /// Whether an item without a score makes the answer an error, of which nothing is stored: it is sent again.
    pub(crate) all_valid: bool,
    /// Where the items stand in the body, where that is known.
    pub(crate) items: Vec<Range<usize>>,
    /// Whether the rows are to have their facts, as a dialect needs them.
    pub(crate) facts: bool,
    /// Set when nobody waits for the answer any more.
    pub(crate) abandoned: Arc<AtomicBool>,
}

/// A request that was scored, and whose scores are stored and counted, whether or not anybody waits for that.
pub(crate) struct Storing {
    /// What scoring made of it.
    pub(crate) scored: Scored,
    /// When the answer is due.
    due: Option<Due>,
    /// Where there is something to wait for.
    outcome: Option<JoinHandle<Result<(), Untold>>>,
}

impl Storing {
    /// Waits until the scores are stored, but not longer than until the answer is due; who is late may wait on.
    ///
    /// # Errors
    /// 504 when it is late, and why they could not be stored.
    pub(crate) async fn in_time(&mut self) -> Result<(), Problem> {
        in_time(self.due, Problem::stored_late, self.stored()).await
    }

    /// Waits until the scores are stored, however long that takes.
    ///
    /// # Errors
    /// Why they could not be.
    pub(crate) async fn stored(&mut self) -> Result<(), Problem> {
        let Some(outcome) = &mut self.outcome else { return Ok(()) };
        let stored = outcome.await;
        self.outcome = None;
        let stored = stored.map_err(Problem::internal)?;
        stored.map_err(|untold| untold.tell().into())
    }
}

/// Scores a request, makes the scores durable and counts them.
///
/// # Errors
/// When the request as a whole has no answer; a bad item is no error but a result that says so.
pub(crate) async fn score(app: &App, job: Job) -> Result<Scored, Problem> {
    let mut storing = begin(app, job).await?;
    storing.in_time().await?;
    Ok(storing.scored)
}

/// Scores a request and begins to store the scores.
///
/// # Errors
/// As [`score`], but for what becomes of the scores in the store.
pub(crate) async fn begin(app: &App, job: Job) -> Result<Storing, Problem> {
    let stop = Stop { arrived: job.arrived, early: job.due, abandoned: job.abandoned.clone(), ..Stop::default() };
    let batch = app.store.as_ref().map(|store| store.next_id(now_ms()));
    let mut pass = Pass { job, batch, created_at_ms: now_ms(), stop, session: Session::default() };
    let (scored, batch) = loop {
        let result;
        (result, pass) = pass.take_turn(app).await?;
        // A result with questions left open is none.
        let answered = pass.session.put_to(&app.engine.judges, pass.stop.judges_answer_by.get().copied());
        let was_asked = tokio::select! {
            biased;
            was_asked = answered => was_asked,
            () = app.last_call() => return Err(Problem::draining()),
        };
        if !was_asked {
            break result?;
        }
    };
    // The body is packed in the batch: no second one waits for the disk.
    let due = pass.stop.due();
    app.limits.buffers.keep(std::mem::take(&mut pass.job.body));
    tell_unscored(app, &scored.counts.errors, &scored.counts.rubric, &pass.job.request_id);
    let refused = pass.refuses(&scored);
    drop(pass);
    if refused {
        app.metrics.count_unanswered(&scored.counts.rubric, &scored.counts.errors);
        return Ok(Storing { scored, due, outcome: None });
    }
    // Counted only when it is stored: what was not is sent again, and counted then.
    let (Some(store), Some(batch)) = (&app.store, batch) else {
        app.metrics.count(&scored.counts);
        return Ok(Storing { scored, due, outcome: None });
    };
    // The queue may be full: what is not in it when its answer is due, or its client leaves, is not stored.
    let queued = in_time(due, Problem::stored_late, async { Ok(store.queue(batch).await?) }).await?;
    if queued.is_promised() {
        app.metrics.count(&scored.counts);
        return Ok(Storing { scored, due, outcome: None });
    }
    let (work, counts) = (app.clone(), scored.counts.clone());
    let outcome = tokio::spawn(async move {
        queued.written().await?;
        work.metrics.count(&counts);
        Ok(())
    });
    Ok(Storing { scored, due, outcome: Some(outcome) })
}

/// Tells the log of items that could not be scored: most trainers' paths have no place for the reason.
fn tell_unscored(app: &App, errors: &[(NoScoreCode, u64)], rubric: &str, request_id: &str) {
    for (code, n) in errors {
        if let Some(items) = app.unscored.add(*code, *n, Instant::now()) {
            let code = code.as_str();
            tracing::warn!(
                request_id,
                code,
                items,
                rubric,
                "items could not be scored; more of them are told once a minute"
            );
        }
    }
}

/// Says what nobody was there to be told, where it is the server's.
pub(crate) fn log_untold(request_id: &str, problem: &Problem) {
    if problem.status().is_server_error() {
        let (kind, detail) = (problem.kind().name(), problem.detail());
        tracing::error!(request_id, kind, detail, "a request failed, and its client was no longer there to hear of it");
    }
}

/// Waits no longer than until the answer is due, and says then what is late. For what ends by itself where nobody waits for
/// it.
pub(crate) async fn in_time<T>(
    due: Option<Due>,
    late: fn(Due) -> Problem,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match due {
        None => work.await,
        Some(due) => timeout_at(due.at.into(), work).await.map_err(|_| late(due))?,
    }
}

/// A request on its way through scoring, which goes over it again when its judges have answered.
struct Pass {
    job: Job,
    /// What its batch is stored as; `None` where there is no store.
    batch: Option<BatchId>,
    created_at_ms: i64,
    stop: Stop,
    session: Session,
}

impl Pass {
    /// Goes over the request when it is its turn, and gives itself back for the next time.
    async fn take_turn(self, app: &App) -> Result<(Result<(Scored, Option<Batch>), Problem>, Self), Problem> {
        let (work, bytes) = (app.clone(), self.job.body.len());
        let due = self.stop.due();
        let start = |job| app.engine.load.start(bytes, job);
        in_time(due, Problem::scored_late, in_turn(start, self, move |pass: Self| (pass.run(&work), pass))).await
    }

    fn run(&self, app: &App) -> Result<(Scored, Option<Batch>), Problem> {
        let Job { body, facts, items, idempotency, request_id, .. } = &self.job;
        let batch_id = self.batch.map(|id| id.to_string());
        let overrides = Overrides { batch_id: batch_id.as_deref(), facts: *facts, items, ..Overrides::default() };
        let scored = app.engine.score(body, &overrides, &self.stop, &self.session);
        // Where questions are open this was not the last pass.
        let done = !self.session.has_questions();
        if let (Err(BatchError::Invalid { errors, rubric, .. }), true) = (&scored, done) {
            app.metrics.count_unanswered(rubric, errors);
            tell_unscored(app, errors, rubric, request_id);
        }
        let scored = scored.map_err(|error| match error {
            // A dialect's client never saw the text in which this is a place.
            BatchError::Request(wrong) if *facts => BatchError::Request(wrong.without_place()),
            error => error,
        })?;
        // Nothing to keep of an empty batch, but for the promise of its key; nor of one that is not done, or is refused.
        let kept = done && (!scored.rows.is_empty() || idempotency.is_some()) && !self.refuses(&scored);
        let batch = self.batch.filter(|_| kept).map(|id| self.to_batch(app, &scored, id)).transpose()?;
        Ok((scored, batch))
    }

    /// Whether what came of the request is told as an error.
    fn refuses(&self, scored: &Scored) -> bool {
        self.job.all_valid && scored.counts.invalid > 0
    }

    /// Packs a scored request for the store; on the work threads, since it compresses.
    fn to_batch(&self, app: &App, scored: &Scored, id: BatchId) -> Result<Batch, StoreError> {
        let (job, settings) = (&self.job, &scored.settings);
        let keep = app.store.as_ref().is_some_and(crate::store::Store::keeps_trajectories);
        let judges = self.session.judges_asked();
        let scores = scored.rows.iter().map(|row| scored.stored(row));
        Ok(Batch {
            id,
            request_id: job.request_id.clone(),
            created_at_ms: self.created_at_ms,
            run_id: settings.run_id.clone(),
            step: settings.position.step.and_then(|step| i64::try_from(step).ok()),
            position: settings.position_json().to_string(),
            rubric_name: settings.rubric.name.to_string(),
            rubric_hash: settings.rubric.hash.to_string(),
            rubric_json: settings.rubric.json.clone(),
            engine_version: env!("CARGO_PKG_VERSION"),
            judges: (!judges.is_empty()).then(|| serde_json::json!(judges).to_string()),
            request: keep.then(|| Compressed::new(job.body.as_bytes())).transpose()?,
            response: Compressed::new(&scored.body)?,
            idempotency: job.idempotency.clone(),
            scores: ScoreRows::new(id, scores)?,
            stages: scored.counts.stages.clone(),
        })
    }
}

/// Work on larger texts is done on the work threads: on a small one it takes less time than handing it over.
const INLINE_BYTES: usize = 64 * 1024;

/// Does work that grows with a text of this many bytes: here where that is short, else on the work threads.
pub(crate) async fn by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= INLINE_BYTES { work() } else { on_work_threads(work).await }
}

/// Runs blocking work on rayon's threads. What it holds, a body mostly, is let go when nobody waits for it any more.
pub(crate) async fn on_work_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    in_turn(rayon::spawn, work, |work| work()).await?
}

/// Something that waits for its turn on another thread. Whoever stops waiting takes it out: the queue holds no body of a
/// request that has its answer, or needs none.
struct Waiting<T>(Arc<Mutex<Option<T>>>);

impl<T> Waiting<T> {
    fn take(&self) -> Option<T> {
        locks::lock(&self.0).take()
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Does work with something when it is its turn. A panic in it is a bug of ours, and one failed request, not a dead server.
async fn in_turn<W: Send + 'static, T: Send + 'static>(
    start: impl FnOnce(Box<dyn FnOnce() + Send>),
    with: W,
    work: impl FnOnce(W) -> T + Send + 'static,
) -> Result<T, Problem> {
    let waiting = Waiting(Arc::new(Mutex::new(Some(with))));
    let turn = Waiting(waiting.0.clone());
    let (answer, wait) = tokio::sync::oneshot::channel();
    start(Box::new(move || {
        let _ = answer.send(catch_unwind(AssertUnwindSafe(move || turn.take().map(work))));
    }));
    wait.await.ok().and_then(Result::ok).flatten().ok_or_else(scoring_failed)
}

pub(crate) fn scoring_failed() -> Problem {
    Problem::internal("scoring failed; please report this with the request")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Store;

    /// Else what could not be scored would be what its key stands for, and a repeat that can be scored would not be stored.
    #[tokio::test]
    async fn an_answer_that_is_an_error_has_no_key() {
        let store = Store::in_memory();
        let app = App::plain(Some(store.clone()));
        for (items, all_valid, promised) in [("7", true, false), ("7", false, true), ("", true, true)] {
            let key = format!("{items}{all_valid}");
            let job = Job {
                body: format!("{{\"trajectories\":[{items}]}}"),
                arrived: Some(Instant::now()),
                idempotency: Some(Idempotency { key: key.clone(), body_hash: [0; 32] }),
                all_valid,
                facts: true,
                ..Job::default()
            };
            score(&app, job).await.unwrap();
            assert_eq!(store.idempotent(&key).await.unwrap().is_some(), promised, "{key}");
        }
    }

    /// A turn that comes after the answer was due finds nothing to do, and the queue holds nothing meanwhile.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_longer_than_until_the_answer_is_due() {
        let (mut queue, body) = (Vec::new(), Arc::new(()));
        let due = Due::of(Instant::now(), Some(400), 300_000);
        let turn = in_turn(|job| queue.push(job), body.clone(), |_| panic!("nobody wants it any more"));
        let late: Result<(), Problem> = in_time(due, Problem::scored_late, turn).await;
        let problem = late.unwrap_err();
        assert_eq!(problem.status(), axum::http::StatusCode::GATEWAY_TIMEOUT);
        assert!(problem.detail().contains("not scored within 400 ms"), "{}", problem.detail());
        assert_eq!((queue.len(), Arc::strong_count(&body)), (1, 1));
        for job in queue {
            job();
        }
    }

    /// A request gives its share of the bytes in flight back when its client leaves: a queue that went on holding its body
    /// would have no bound.
    #[test]
    fn work_that_nobody_waits_for_is_let_go() {
        let body = Arc::new(());
        let held = body.clone();
        let work = on_work_threads(move || {
            drop(held);
            Ok(())
        });
        // Whoever asks from rayon's only thread has its turn only afterwards.
        let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let counted = threads.install(|| {
            let mut work = Box::pin(work);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(work.as_mut().poll(&mut context).is_pending());
            let queued = Arc::strong_count(&body);
            drop(work);
            (queued, Arc::strong_count(&body))
        });
        assert_eq!(counted, (2, 1));
    }

    #[tokio::test]
    async fn a_turn_that_comes_in_time_gives_what_it_made() {
        let due = Due::of(Instant::now(), None, 300_000);
        let turn = in_turn(|job| drop(std::thread::spawn(job)), 20, |n| n + 1);
        assert_eq!(in_time(due, Problem::scored_late, turn).await.unwrap(), 21);
        assert_eq!(in_time(None, Problem::scored_late, async { Ok(Duration::ZERO) }).await.unwrap(), Duration::ZERO);
    }
}
