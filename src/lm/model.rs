//! What a worker's thread runs: our own engine, or a model of `candle-transformers`.
//!
//! The engine computes whatever waits together. A foreign model takes one request after the other, and its texts are
//! finished before anything else is begun.

use super::LmError;
use super::engine::{Engine, EngineCounters, LabelLogprobs};
use super::foreign::Foreign;
use super::generate::{GenerateRequest, Generated, Generator, Joined};

/// A model with its texts in the making.
pub enum Model {
    /// Our own decoder.
    Engine(Box<Engine>, Generator),
    /// Through `candle-transformers`.
    Foreign(Box<Foreign>),
}

impl From<Engine> for Model {
    fn from(engine: Engine) -> Self {
        Self::Engine(Box::new(engine), Generator::default())
    }
}

impl From<Foreign> for Model {
    fn from(foreign: Foreign) -> Self {
        Self::Foreign(Box::new(foreign))
    }
}

impl Model {
    /// How many requests are begun in one turn of those that wait, given the tokens of each: few enough that answers leave,
    /// texts go on and whoever comes meanwhile is taken up soon.
    pub(super) fn turn(&self, waiting: impl Iterator<Item = usize>) -> usize {
        match self {
            Self::Engine(engine, _) => within(engine.turn_tokens(), waiting),
            Self::Foreign(foreign) => usize::from(!foreign.is_writing()).min(waiting.count()),
        }
    }

    pub(super) fn check(&self, tokens: &[u32]) -> Result<(), LmError> {
        match self {
            Self::Engine(engine, _) => engine.check(tokens),
            Self::Foreign(foreign) => foreign.check(tokens),
        }
    }

    pub(super) fn label_logprobs(&mut self, prompts: &[(&[u32], &[u32])]) -> Result<Vec<LabelLogprobs>, LmError> {
        match self {
            Self::Engine(engine, _) => engine.label_logprobs(prompts),
            Self::Foreign(foreign) => foreign.label_logprobs(prompts).into_iter().collect(),
        }
    }

    pub(super) fn rewards(&mut self, conversations: &[&[u32]]) -> Result<Vec<Vec<f64>>, LmError> {
        match self {
            Self::Engine(engine, _) => engine.rewards(conversations),
            Self::Foreign(_) => {
                Err(LmError::Unsupported("this model gives tokens and no rewards; use another mode".to_owned()))
            }
        }
    }

    /// As [`Generator::join`].
    pub(super) fn join(&mut self, request: GenerateRequest) -> Result<Joined, LmError> {
        match self {
            Self::Engine(engine, texts) => texts.join(engine, request),
            Self::Foreign(foreign) => foreign.join(request),
        }
    }

    /// As [`Generator::leave`].
    pub(super) fn leave(&mut self, id: u64) {
        match self {
            Self::Engine(engine, texts) => texts.leave(engine, id),
            Self::Foreign(foreign) => foreign.leave(id),
        }
    }

    /// As [`Generator::step`].
    pub(super) fn step(&mut self) -> Result<Vec<Generated>, LmError> {
        match self {
            Self::Engine(engine, texts) => texts.step(engine),
            Self::Foreign(foreign) => Ok(foreign.step().into_iter().collect()),
        }
    }

    pub(super) fn work(&self) -> EngineCounters {
        match self {
            Self::Engine(engine, _) => engine.work(),
            Self::Foreign(foreign) => foreign.work(),
        }
    }

    pub(super) fn kept_tokens(&self) -> usize {
        match self {
            Self::Engine(engine, _) => engine.kept_tokens(),
            Self::Foreign(_) => 0,
        }
    }
}

/// How many come before these tokens are used up; one that is longer is one, however few there are: else nothing would ever
/// begin.
fn within(tokens: usize, waiting: impl Iterator<Item = usize>) -> usize {
    let mut tokens = tokens.max(1);
    let begins = |needed: &usize| {
        let left = tokens > 0;
        tokens = tokens.saturating_sub(*needed);
        left
    };
    waiting.take_while(begins).count()
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn a_turn_ends_where_its_tokens_do() {
        let turn = |waiting: &[usize]| within(10, waiting.iter().copied());
        assert_eq!([turn(&[]), turn(&[100, 1]), turn(&[4, 5, 6, 7]), turn(&[5, 5, 1])], [0, 1, 3, 2]);
        assert_eq!(turn(&[0, 0, 0, 10, 0]), 4, "texts wait elsewhere");
        assert_eq!(within(0, [100, 1].into_iter()), 1, "something begins");
    }
}
