//! Generation with continuous batching: sequences join and leave between steps, and every step gives each a token.
//!
//! A step runs the prompts of those that joined and the last tokens of the others as one packed batch. What a sequence
//! may say, and when it is done, is its [`Guide`]'s to decide.

use super::LmError;
use super::engine::Engine;
use super::kv::Span;
use super::limits::OF_CONTEXT;
use super::packed::Packed;
use super::prefix::Hit;
use super::sample::{Choice, Drawn, Mask, Sampling};
use super::text::Text;

/// What a sequence may say next, and what follows from what it said.
pub trait Guide: Send + std::any::Any {
    /// The tokens that may come next; `None`: any.
    ///
    /// # Errors
    /// Why no token can follow.
    fn allowed(&mut self) -> Result<Option<Mask>, LmError>;

    /// Tokens whose log-probabilities are wanted at this place, before one is drawn.
    fn watched(&mut self) -> Vec<u32> {
        Vec::new()
    }

    /// Takes what was asked for by [`Self::watched`].
    fn watch(&mut self, _logprobs: Vec<f64>) {}

    /// Takes a drawn token.
    ///
    /// # Errors
    /// When the token breaks the guide's own rules.
    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError>;
}

/// Lets a text say whatever comes, until its tokens run out.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnconstrainedGuide;

impl Guide for UnconstrainedGuide {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        Ok(None)
    }

    fn accept(&mut self, _: Drawn) -> Result<Next, LmError> {
        Ok(Next::Draw)
    }
}

/// What comes after a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The model goes on.
    Draw,
    /// These tokens are put into its mouth, at least one; then it goes on.
    Say(Vec<u32>),
    /// The same, and the token that was drawn is taken back.
    Instead(Vec<u32>),
    /// The sequence is done.
    Stop,
}

/// A text to be made.
pub struct GenerateRequest {
    /// What stands before it; not empty.
    pub prompt: Vec<u32>,
    /// Most tokens, those that the guide says included.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What it may say.
    pub guide: Box<dyn Guide>,
}

/// What became of a text that was to join those in the making.
pub enum Joined {
    /// It did; its tokens come under this id.
    As(u64),
    /// There is no room yet: try again when others have left.
    NoRoom(GenerateRequest),
}

/// A text that is made.
pub struct Generated {
    /// Who asked, as [`Generator::join`] gave it out.
    pub id: u64,
    /// The tokens after the prompt.
    pub tokens: Vec<u32>,
    /// For each, its natural log-probability; `None` for one that the guide said.
    pub logprobs: Vec<Option<f64>>,
    /// Whether the guide was done; otherwise `max_tokens` ran out.
    pub finished: bool,
    /// The guide, with what it gathered.
    pub guide: Box<dyn Guide>,
    /// Set when the sequence failed.
    pub failed: Option<LmError>,
}

/// Sequences in the making.
#[derive(Default)]
pub struct Generator {
    running: Vec<Running>,
    next_id: u64,
}

struct Running {
    text: Text,
    own: Span,
    hit: Option<Hit>,
    /// Tokens whose keys are in their slots.
    filled: usize,
}

impl Generator {
    /// How many sequences are in the making.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Lets a sequence join, if there is room.
    ///
    /// # Errors
    /// [`LmError::TooLong`] when it can never fit, [`LmError::Unsupported`] for an empty prompt.
    pub fn join(&mut self, engine: &mut Engine, request: GenerateRequest) -> Result<Joined, LmError> {
        let total = request.prompt.len() + request.max_tokens;
        let context = engine.decoder().config().context;
        let slots = (engine.pool.slots(), "that the key-value cache holds");
        Text::check(&request, [(context, OF_CONTEXT), slots])?;
        let before = request.prompt.split_last().map_or(&[][..], |(_, before)| before);
        let Some((own, hit)) = room(engine, before, total) else { return Ok(Joined::NoRoom(request)) };
        let known = hit.map_or(0, |hit| hit.span.len);
        self.next_id += 1;
        self.running.push(Running { text: Text::new(self.next_id, request), own, hit, filled: known });
        Ok(Joined::As(self.next_id))
    }

    /// Lets a sequence go whose text nobody waits for any more.
    pub fn leave(&mut self, engine: &mut Engine, id: u64) {
        if let Some(at) = self.running.iter().position(|running| running.text.id() == id) {
            self.running.swap_remove(at).free(engine);
        }
    }

    /// Gives every sequence a token, and those back that are done.
    ///
    /// # Errors
    /// When the device fails: all sequences are given up.
    pub fn step(&mut self, engine: &mut Engine) -> Result<Vec<Generated>, LmError> {
        match self.draw(engine) {
            Ok(done) => Ok(done),
            Err(error) => {
                self.running.drain(..).for_each(|running| running.free(engine));
                Err(error)
            }
        }
    }

    fn draw(&mut self, engine: &mut Engine) -> Result<Vec<Generated>, LmError> {
        if self.running.is_empty() {
            return Ok(Vec::new());
        }
        let mut packed = Packed::default();
        self.running.iter_mut().for_each(|running| running.pack(&mut packed));
        let rows: Vec<usize> = (0..self.running.len()).collect();
        engine.work.asked_tokens += packed.tokens.len() as u64;
        engine.work.generated_tokens += rows.len() as u64;
        let states = engine.forward(&packed)?;
        let logits = engine.decoder().logits(&states, &rows)?;
        let choices = self.running.iter_mut().enumerate().map(|(row, running)| running.text.choice(&logits, row));
        let choices: Vec<Result<Choice, LmError>> = choices.collect();
        let drawn = engine.decoder().draw(&logits, &choices)?;
        let mut done = Vec::new();
        let mut going = Vec::with_capacity(self.running.len());
        for ((mut running, choice), drawn) in self.running.drain(..).zip(choices).zip(drawn) {
            match choice.and(drawn).and_then(|drawn| running.text.take(drawn)) {
                Ok(false) => going.push(running),
                Ok(true) => done.push(running.finish(engine, None)),
                Err(error) => done.push(running.finish(engine, Some(error))),
            }
        }
        self.running = going;
        Ok(done)
    }
}

/// Slots for a text of `total` tokens that begins with `before`: for the rest of it where its beginning is kept.
fn room(engine: &mut Engine, before: &[u32], total: usize) -> Option<(Span, Option<Hit>)> {
    let (prefixes, pool) = (&mut engine.prefixes, &mut engine.pool);
    if let Some(hit) = prefixes.find(before) {
        if let Some(own) = prefixes.take(total - hit.span.len, pool) {
            return Some((own, Some(hit)));
        }
        // What is kept may itself be in the way: a text that could begin alone would wait for ever.
        prefixes.unpin(hit);
    }
    prefixes.take(total, pool).map(|own| (own, None))
}

impl Running {
    /// Adds what is not computed yet to a batch, as one segment.
    fn pack(&mut self, packed: &mut Packed) {
        let prefix = self.hit.map(|hit| hit.span);
        let known = prefix.map_or(0, |prefix| prefix.len);
        let tokens = self.text.tokens();
        let new = tokens.get(self.filled..).unwrap_or_default();
        packed.push(new, Span { start: self.own.start, len: tokens.len() - known }, prefix);
        self.filled = tokens.len();
    }

    fn finish(self, engine: &mut Engine, failed: Option<LmError>) -> Generated {
        self.free(engine);
        self.text.finish(failed)
    }

    fn free(&self, engine: &mut Engine) {
        engine.pool.give_back(self.own);
        if let Some(hit) = self.hit {
            engine.prefixes.unpin(hit);
        }
    }
}
