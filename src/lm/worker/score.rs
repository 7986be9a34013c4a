//! One turn of a model's thread: prompts and conversations scored together, texts put aside. In: jobs. Out: their
//! replies.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::texts::Texts;
use super::{Job, Outbox, Reply, Work};
use crate::lm::LmError;
use crate::lm::model::Model;

/// Scores all prompts and conversations together; puts texts aside.
pub(super) fn score(model: &mut Model, jobs: impl Iterator<Item = Job>, texts: &mut Texts, outbox: &mut Outbox) {
    let (mut labels, mut rewards) = (Vec::new(), Vec::new());
    for Job { work, _room: room } in jobs {
        match work {
            Work::Labels { prompt, labels: wanted, reply } => match model.check(&prompt) {
                Ok(()) => labels.push(((prompt, wanted), reply, room)),
                Err(error) => outbox.put(reply, Err(Arc::new(error))),
            },
            Work::Reward { conversation, reply } => match model.check(&conversation) {
                Ok(()) => rewards.push((conversation, reply, room)),
                Err(error) => outbox.put(reply, Err(Arc::new(error))),
            },
            Work::Text { request, reply } => texts.wait(request, reply, room),
        }
    }
    together(model, labels, outbox, |model, prompts| {
        let prompts: Vec<(&[u32], &[u32])> = prompts.iter().map(|(p, l)| (p.as_slice(), l.as_slice())).collect();
        model.label_logprobs(&prompts)
    });
    together(model, rewards, outbox, |model, conversations| {
        model.rewards(&conversations.iter().map(|c| c.as_slice()).collect::<Vec<_>>())
    });
}

/// Runs all of one kind at once, and each alone if that fails, so that one bad request fails no other.
fn together<Q, A: 'static>(
    model: &mut Model,
    asked: Vec<(Q, Reply<A>, OwnedSemaphorePermit)>,
    outbox: &mut Outbox,
    mut run: impl FnMut(&mut Model, &[&Q]) -> Result<Vec<A>, LmError>,
) {
    if asked.is_empty() {
        return;
    }
    let questions: Vec<&Q> = asked.iter().map(|(question, ..)| question).collect();
    if let Ok(answers) = run(model, &questions) {
        for ((_, reply, _), answer) in asked.into_iter().zip(answers) {
            outbox.put(reply, Ok(answer));
        }
        return;
    }
    for (question, reply, _room) in asked {
        let answer = run(model, &[&question])
            .and_then(|mut answers| answers.pop().ok_or(LmError::NotFinite("a missing answer")));
        outbox.put(reply, answer.map_err(Arc::new));
    }
}
