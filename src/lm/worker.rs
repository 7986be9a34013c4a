//! The one thread that owns a model. In: requests from any task, bounded by the tokens that wait. Out: their results.
//!
//! What waits is scored together, a few batches in a turn; between turns answers leave, texts in the making get a token, and
//! requests whose askers are gone are dropped. A request that fails, fails alone.

mod score;
mod texts;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::texts::Texts;
use super::LmError;
use super::engine::LabelLogprobs;
use super::generate::{GenerateRequest, Generated};
use super::model::Model;
use crate::locks;

/// A failure, as everybody who waited for it gets it.
pub type Failure = Arc<LmError>;

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// The handle of a model's thread; cheap to clone. The thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Worker {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
    capacity: u32,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    alive: AtomicBool,
    numbers: Mutex<WorkerNumbers>,
}

/// What a worker has done and has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorkerNumbers {
    /// Tokens of all requests, shared and kept ones included.
    pub asked_tokens: u64,
    /// Tokens that went through the layers.
    pub computed_tokens: u64,
    /// Batches.
    pub batches: u64,
    /// Tokens of texts that were made.
    pub generated_tokens: u64,
    /// Seconds of computing.
    pub busy_seconds: f64,
    /// Tokens whose keys are kept.
    pub kept_tokens: u64,
    /// Requests that failed.
    pub failures: u64,
}

struct Job {
    work: Work,
    _room: OwnedSemaphorePermit,
}

enum Work {
    Labels { prompt: Vec<u32>, labels: Vec<u32>, reply: Reply<LabelLogprobs> },
    Reward { conversation: Vec<u32>, reply: Reply<Vec<f64>> },
    Text { request: Box<GenerateRequest>, reply: Reply<Generated> },
}

impl Work {
    /// Tokens that it needs in the turn that takes it up; those of a text come one by one.
    fn tokens(&self) -> usize {
        match self {
            Self::Labels { prompt, .. } => prompt.len(),
            Self::Reward { conversation, .. } => conversation.len(),
            Self::Text { .. } => 0,
        }
    }

    /// Whether nobody waits for it any more.
    fn is_dropped(&self) -> bool {
        match self {
            Self::Labels { reply, .. } => reply.is_closed(),
            Self::Reward { reply, .. } => reply.is_closed(),
            Self::Text { reply, .. } => reply.is_closed(),
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Worker {
    /// Starts a thread that makes its model and warms it up. Returns when it is ready.
    /// `queue_tokens` bounds what waits.
    ///
    /// # Errors
    /// Whatever making the model gives.
    pub fn start(
        make: impl FnOnce() -> Result<Model, LmError> + Send + 'static,
        queue_tokens: u32,
    ) -> Result<Self, LmError> {
        let (jobs, incoming) = mpsc::channel();
        let (ready, made) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let run = move || {
            match make().and_then(warmed_up) {
                Ok(model) => {
                    theirs.alive.store(true, Relaxed);
                    let _ = ready.send(Ok(()));
                    // A panic is a bug in the engine: the server says it is not ready, and goes on with the rest.
                    let served = std::panic::catch_unwind(AssertUnwindSafe(|| serve(model, &incoming, &theirs)));
                    theirs.alive.store(false, Relaxed);
                    if served.is_err() {
                        tracing::error!("the model's thread panicked; its judge is down until a restart");
                    }
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        let spawned = std::thread::Builder::new().name("lm".to_owned()).spawn(run);
        spawned.map_err(|e| LmError::Unsupported(format!("cannot start the model's thread: {e}")))?;
        let gone = || LmError::Unsupported("the model's thread ended while it loaded".to_owned());
        made.recv().map_err(|_| gone())??;
        let capacity = queue_tokens.max(1);
        Ok(Self { jobs, room: Arc::new(Semaphore::new(capacity as usize)), capacity, shared })
    }

    /// Whether the thread is there.
    pub fn alive(&self) -> bool {
        self.shared.alive.load(Relaxed)
    }

    /// Tokens that wait or are worked on.
    pub fn queued_tokens(&self) -> u64 {
        u64::from(self.capacity) - self.room.available_permits() as u64
    }

    /// What was done so far.
    pub fn numbers(&self) -> WorkerNumbers {
        *locks::lock(&self.shared.numbers)
    }

    /// The log-probabilities of labels after a prompt.
    ///
    /// # Errors
    /// [`LmError`] of this prompt alone.
    pub async fn labels(&self, prompt: Vec<u32>, labels: Vec<u32>) -> Result<LabelLogprobs, Failure> {
        let tokens = prompt.len();
        self.ask(tokens, |reply| Work::Labels { prompt, labels, reply }).await
    }

    /// What a reward model says of a conversation.
    ///
    /// # Errors
    /// As [`Self::labels`].
    pub async fn reward(&self, conversation: Vec<u32>) -> Result<Vec<f64>, Failure> {
        let tokens = conversation.len();
        self.ask(tokens, |reply| Work::Reward { conversation, reply }).await
    }

    /// A text after a prompt.
    ///
    /// # Errors
    /// As [`Self::labels`].
    pub async fn text(&self, request: GenerateRequest) -> Result<Generated, Failure> {
        let tokens = request.prompt.len() + request.max_tokens;
        self.ask(tokens, |reply| Work::Text { request: Box::new(request), reply }).await
    }

    /// Waits for room, hands the work over and waits for the result.
    async fn ask<T>(&self, tokens: usize, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, Failure> {
        let down = || Arc::new(LmError::Unsupported("the model's thread is down; restart the server".to_owned()));
        let room = u32::try_from(tokens).unwrap_or(u32::MAX).clamp(1, self.capacity);
        let room = self.room.clone().acquire_many_owned(room).await.map_err(|_| down())?;
        let (reply, result) = oneshot::channel();
        self.jobs.send(Job { work: work(reply), _room: room }).map_err(|_| down())?;
        result.await.map_err(|_| down())?
    }
}

/// A model that has computed something.
fn warmed_up(mut model: Model) -> Result<Model, LmError> {
    match model.label_logprobs(&[(&[0, 0], &[0])]) {
        Ok(_) => Ok(model),
        // A reward model has no labels; it warms up by a reward.
        Err(LmError::Unsupported(_)) => model.rewards(&[&[0, 0]]).map(|_| model),
        Err(error) => Err(error),
    }
}

fn serve(mut model: Model, incoming: &Receiver<Job>, shared: &Shared) {
    let mut texts = Texts::default();
    let mut waiting: VecDeque<Job> = VecDeque::new();
    loop {
        let idle = waiting.is_empty() && texts.is_empty();
        let wait = if idle { Duration::from_hours(1) } else { Duration::ZERO };
        match incoming.recv_timeout(wait) {
            Ok(job) => waiting.push_back(job),
            Err(RecvTimeoutError::Disconnected) if idle => return,
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
        waiting.extend(incoming.try_iter());
        waiting.retain(|job| !job.work.is_dropped());
        let now = model.turn(waiting.iter().map(|job| job.work.tokens()));
        let began = Instant::now();
        let mut outbox = Outbox::default();
        score::score(&mut model, waiting.drain(..now), &mut texts, &mut outbox);
        texts.step(&mut model, &mut outbox);
        let mut numbers = locks::lock(&shared.numbers);
        let work = model.work();
        (numbers.asked_tokens, numbers.computed_tokens) = (work.asked_tokens, work.computed_tokens);
        (numbers.batches, numbers.generated_tokens) = (work.batches, work.generated_tokens);
        numbers.kept_tokens = model.kept_tokens() as u64;
        numbers.busy_seconds += began.elapsed().as_secs_f64();
        numbers.failures += outbox.failures;
        drop(numbers);
        outbox.send();
    }
}

/// The replies of a turn, which leave when its numbers are written: who has an answer finds it counted.
#[derive(Default)]
struct Outbox {
    replies: Vec<Box<dyn FnOnce()>>,
    failures: u64,
}

impl Outbox {
    /// Puts a reply in; an error counts as a failure.
    fn put<T: 'static>(&mut self, reply: Reply<T>, result: Result<T, Arc<LmError>>) {
        self.failures += u64::from(result.is_err());
        // Nobody listens any more to one that was given up.
        self.replies.push(Box::new(move || drop(reply.send(result))));
    }

    fn send(self) {
        self.replies.into_iter().for_each(|reply| reply());
    }
}
