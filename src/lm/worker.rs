//! The one thread that owns a model. In: requests from any task, bounded by the tokens that wait. Out: their results.
//!
//! Whatever waits is scored together; texts in the making get a token between batches. A request whose asker is gone is
//! dropped. A request that fails, fails alone.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::LmError;
use super::engine::{Engine, LabelLogprobs};
use super::generate::{GenerateRequest, Generated, Generator};

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

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Worker {
    /// Starts a thread that makes its engine and warms it up. Returns when it is ready.
    /// `queue_tokens` bounds what waits.
    ///
    /// # Errors
    /// Whatever making the engine gives.
    pub fn start(
        make: impl FnOnce() -> Result<Engine, LmError> + Send + 'static,
        queue_tokens: u32,
    ) -> Result<Self, LmError> {
        let (jobs, incoming) = mpsc::channel();
        let (ready, made) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let run = move || {
            let engine = make().and_then(|mut engine| {
                engine
                    .label_logprobs(&[(&[0, 0], &[0])])
                    .map_or_else(
                        |error| match error {
                            // A reward model has no labels; it warms up by a reward.
                            LmError::Unsupported(_) => engine.rewards(&[&[0, 0]]).map(|_| ()),
                            error => Err(error),
                        },
                        |_| Ok(()),
                    )
                    .map(|()| engine)
            });
            match engine {
                Ok(engine) => {
                    theirs.alive.store(true, Relaxed);
                    let _ = ready.send(Ok(()));
                    // A panic is a bug in the engine: the server says it is not ready, and goes on with the rest.
                    let served = std::panic::catch_unwind(AssertUnwindSafe(|| serve(engine, &incoming, &theirs)));
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
        *self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Texts in the making and who waits for them.
#[derive(Default)]
struct Texts {
    generator: Generator,
    waiting: HashMap<u64, (Reply<Generated>, OwnedSemaphorePermit)>,
    /// Not joined yet, for want of room.
    outside: Vec<(Box<GenerateRequest>, Reply<Generated>, OwnedSemaphorePermit)>,
}

fn serve(mut engine: Engine, incoming: &Receiver<Job>, shared: &Shared) {
    let mut texts = Texts::default();
    loop {
        let idle = texts.waiting.is_empty() && texts.outside.is_empty();
        let wait = if idle { Duration::from_secs(3600) } else { Duration::ZERO };
        let mut jobs = Vec::new();
        match incoming.recv_timeout(wait) {
            Ok(job) => jobs.push(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if idle => return,
            Err(RecvTimeoutError::Disconnected) => {}
        }
        jobs.extend(incoming.try_iter());
        let began = Instant::now();
        let failures = score(&mut engine, jobs, &mut texts) + texts.step(&mut engine);
        let mut numbers = shared.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let work = engine.work();
        (numbers.asked_tokens, numbers.computed_tokens) = (work.asked_tokens, work.computed_tokens);
        (numbers.batches, numbers.generated_tokens) = (work.batches, work.generated_tokens);
        numbers.kept_tokens = engine.kept_tokens() as u64;
        numbers.busy_seconds += began.elapsed().as_secs_f64();
        numbers.failures += failures;
    }
}

/// Scores all prompts and conversations together; puts texts aside. Gives the number of failures.
fn score(engine: &mut Engine, jobs: Vec<Job>, texts: &mut Texts) -> u64 {
    let (mut labels, mut rewards) = (Vec::new(), Vec::new());
    let mut failures = 0;
    for Job { work, _room: room } in jobs {
        match work {
            Work::Labels { reply, .. } if reply.is_closed() => {}
            Work::Reward { reply, .. } if reply.is_closed() => {}
            Work::Labels { prompt, labels: wanted, reply } => match engine.check(&prompt) {
                Ok(()) => labels.push(((prompt, wanted), reply, room)),
                Err(error) => failures += fail(reply, error),
            },
            Work::Reward { conversation, reply } => match engine.check(&conversation) {
                Ok(()) => rewards.push((conversation, reply, room)),
                Err(error) => failures += fail(reply, error),
            },
            Work::Text { request, reply } => texts.outside.push((request, reply, room)),
        }
    }
    failures += together(engine, labels, |engine, prompts| {
        let prompts: Vec<(&[u32], &[u32])> = prompts.iter().map(|(p, l)| (p.as_slice(), l.as_slice())).collect();
        engine.label_logprobs(&prompts)
    });
    failures += together(engine, rewards, |engine, conversations| {
        engine.rewards(&conversations.iter().map(|c| c.as_slice()).collect::<Vec<_>>())
    });
    failures
}

fn fail<T>(reply: Reply<T>, error: LmError) -> u64 {
    let _ = reply.send(Err(Arc::new(error)));
    1
}

/// Runs all of one kind at once, and each alone if that fails, so that one bad request fails no other.
fn together<Q, A>(
    engine: &mut Engine,
    asked: Vec<(Q, Reply<A>, OwnedSemaphorePermit)>,
    mut run: impl FnMut(&mut Engine, &[&Q]) -> Result<Vec<A>, LmError>,
) -> u64 {
    if asked.is_empty() {
        return 0;
    }
    let questions: Vec<&Q> = asked.iter().map(|(question, ..)| question).collect();
    if let Ok(answers) = run(engine, &questions) {
        for ((_, reply, _), answer) in asked.into_iter().zip(answers) {
            let _ = reply.send(Ok(answer));
        }
        return 0;
    }
    let mut failures = 0;
    for (question, reply, _room) in asked {
        match run(engine, &[&question]).map(|mut answers| answers.pop()) {
            Ok(Some(answer)) => drop(reply.send(Ok(answer))),
            Ok(None) => failures += fail(reply, LmError::NotFinite("a missing answer")),
            Err(error) => failures += fail(reply, error),
        }
    }
    failures
}

impl Texts {
    /// Lets in who fits, gives every text a token, and hands out those that are done.
    fn step(&mut self, engine: &mut Engine) -> u64 {
        let mut failures = self.let_in(engine);
        let gone: Vec<u64> =
            self.waiting.iter().filter(|(_, (reply, _))| reply.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.waiting.remove(&id);
            self.generator.leave(engine, id);
        }
        match self.generator.step(engine) {
            Ok(done) => {
                for mut text in done {
                    let Some((reply, _)) = self.waiting.remove(&text.id) else { continue };
                    match text.failed.take() {
                        Some(error) => failures += fail(reply, error),
                        None => drop(reply.send(Ok(text))),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, (reply, _)) in self.waiting.drain() {
                    let _ = reply.send(Err(error.clone()));
                    failures += 1;
                }
            }
        }
        failures
    }

    fn let_in(&mut self, engine: &mut Engine) -> u64 {
        let mut failures = 0;
        let mut left = Vec::new();
        for (request, reply, room) in self.outside.drain(..) {
            if reply.is_closed() {
                continue;
            }
            match self.generator.join(engine, *request) {
                Ok(Ok(id)) => drop(self.waiting.insert(id, (reply, room))),
                Ok(Err(request)) => left.push((Box::new(request), reply, room)),
                Err(error) => failures += fail(reply, error),
            }
        }
        self.outside = left;
        failures
    }
}
