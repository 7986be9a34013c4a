//! Rollouts by our own engine: as many episodes at a time as its key-value cache holds, each joining as another leaves.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};

use super::{Episode, EpisodeContext, Opening, Rollout, RolloutConfig, RolloutRequest, Writer, opening};
use crate::lm::{Engine, GenerateRequest, Generated, Generator, Joined, Sampling};
use crate::train::TrainError;
use crate::train::protocol::TurnStart;

/// Runs episodes until all are done.
pub(super) fn collect(
    engine: &mut Engine,
    world: &EpisodeContext,
    openings: &BTreeMap<usize, Opening>,
    wanted: &[RolloutRequest],
    config: &RolloutConfig,
) -> Result<Vec<Rollout>, TrainError> {
    let mut generator = Generator::default();
    let mut found: Vec<Option<Rollout>> = wanted.iter().map(|_| None).collect();
    let mut places = BTreeMap::new();
    let mut waiting = wanted.iter().enumerate().collect::<VecDeque<_>>();
    let mut held: Option<(usize, GenerateRequest)> = None;
    loop {
        loop {
            let next = match held.take() {
                Some(held) => held,
                None => match waiting.pop_front() {
                    Some((index, wanted)) => (index, request(world, opening(openings, *wanted)?, *wanted, config)),
                    None => break,
                },
            };
            match generator.join(engine, next.1)? {
                Joined::As(id) => {
                    places.insert(id, next.0);
                }
                Joined::NoRoom(request) => {
                    held = Some((next.0, request));
                    break;
                }
            }
        }
        if generator.running() == 0 {
            break;
        }
        for generated in generator.step(engine)? {
            let index = places.remove(&generated.id);
            if let (Some(index), Some(wanted)) = (index, index.and_then(|index| wanted.get(index))) {
                let rollout = rollout(opening(openings, *wanted)?, *wanted, generated)?;
                if let Some(place) = found.get_mut(index) {
                    *place = Some(rollout);
                }
            }
        }
    }
    let missing = || TrainError::other("a rollout got lost: the key-value cache holds no single one");
    found.into_iter().map(|rollout| rollout.ok_or_else(missing)).collect()
}

fn request(
    world: &EpisodeContext,
    (messages, prompt): &Opening,
    wanted: RolloutRequest,
    config: &RolloutConfig,
) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.tokens.clone(),
        max_tokens: config.max_tokens,
        sampling: Sampling { temperature: config.temperature, seed: wanted.seed },
        guide: Box::new(Episode::new(world.clone(), messages.clone(), prompt.begun.clone())),
    }
}

fn rollout(
    (_, TurnStart { tokens: prompt, .. }): &Opening,
    wanted: RolloutRequest,
    generated: Generated,
) -> Result<Rollout, TrainError> {
    if let Some(error) = generated.failed {
        return Err(error.into());
    }
    let guide: Box<dyn Any> = generated.guide;
    let Ok(episode) = guide.downcast::<Episode>() else {
        return Err(TrainError::other("a rollout came back with a guide that is no episode"));
    };
    let writer = |logprob: Option<f64>| match logprob {
        Some(_) => Writer::Policy { logprob },
        None => Writer::Environment,
    };
    Ok(Rollout {
        task: wanted.task,
        prompt: prompt.len(),
        tokens: prompt.iter().chain(&generated.tokens).copied().collect(),
        writers: generated.logprobs.into_iter().map(writer).collect(),
        messages: episode.into_messages(),
        truncated: !generated.finished,
    })
}
