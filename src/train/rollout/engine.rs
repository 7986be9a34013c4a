//! Rollouts by our own engine: as many episodes at a time as its key-value cache holds, each joining as another leaves.

use std::any::Any;
use std::collections::BTreeMap;

use super::{Episode, EpisodeContext, Opened, Rollout, RolloutConfig, Writer, all};
use crate::lm::{Engine, GenerateRequest, Generated, Generator, Joined, Sampling};
use crate::train::TrainError;

/// Runs episodes until all are done.
pub(super) fn collect(
    engine: &mut Engine,
    world: &EpisodeContext,
    wanted: &[Opened],
    config: &RolloutConfig,
) -> Result<Vec<Rollout>, TrainError> {
    let mut generator = Generator::default();
    let mut found: Vec<Option<Rollout>> = wanted.iter().map(|_| None).collect();
    let mut places = BTreeMap::new();
    let mut waiting = wanted.iter().enumerate().map(|(index, wanted)| (index, request(world, wanted, config)));
    let mut held = None;
    loop {
        while let Some((index, request)) = held.take().or_else(|| waiting.next()) {
            match generator.join(engine, request)? {
                Joined::As(id) => {
                    places.insert(id, index);
                }
                Joined::NoRoom(request) => {
                    held = Some((index, request));
                    break;
                }
            }
        }
        if generator.running() == 0 {
            return all(found);
        }
        for generated in generator.step(engine)? {
            let Some(index) = places.remove(&generated.id) else { continue };
            if let (Some(wanted), Some(place)) = (wanted.get(index), found.get_mut(index)) {
                *place = Some(rollout(wanted, generated)?);
            }
        }
    }
}

fn request(world: &EpisodeContext, (wanted, opening): &Opened, config: &RolloutConfig) -> GenerateRequest {
    let (messages, prompt) = &**opening;
    GenerateRequest {
        prompt: prompt.tokens.clone(),
        max_tokens: config.max_tokens,
        sampling: Sampling { temperature: config.temperature, seed: wanted.seed },
        guide: Box::new(Episode::new(world.clone(), messages.clone(), prompt.begun.clone())),
    }
}

fn rollout((wanted, opening): &Opened, generated: Generated) -> Result<Rollout, TrainError> {
    let prompt = &opening.1.tokens;
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
