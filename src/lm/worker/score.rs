//! One turn of a model's thread: prompts and conversations scored together, texts put aside. In: jobs. Out: their
//! replies, and how many failed.

use tokio::sync::OwnedSemaphorePermit;

use super::texts::Texts;
use super::{Job, Reply, Work, fail};
use crate::lm::LmError;
use crate::lm::model::Model;

/// Scores all prompts and conversations together; puts texts aside. Gives the number of failures.
pub(super) fn score(model: &mut Model, jobs: impl Iterator<Item = Job>, texts: &mut Texts) -> u64 {
    let (mut labels, mut rewards) = (Vec::new(), Vec::new());
    let mut failures = 0;
    for Job { work, _room: room } in jobs {
        match work {
            Work::Labels { prompt, labels: wanted, reply } => match model.check(&prompt) {
                Ok(()) => labels.push(((prompt, wanted), reply, room)),
                Err(error) => failures += fail(reply, error),
            },
            Work::Reward { conversation, reply } => match model.check(&conversation) {
                Ok(()) => rewards.push((conversation, reply, room)),
                Err(error) => failures += fail(reply, error),
            },
            Work::Text { request, reply } => texts.wait(request, reply, room),
        }
    }
    failures += together(model, labels, |model, prompts| {
        let prompts: Vec<(&[u32], &[u32])> = prompts.iter().map(|(p, l)| (p.as_slice(), l.as_slice())).collect();
        model.label_logprobs(&prompts)
    });
    failures += together(model, rewards, |model, conversations| {
        model.rewards(&conversations.iter().map(|c| c.as_slice()).collect::<Vec<_>>())
    });
    failures
}

/// Runs all of one kind at once, and each alone if that fails, so that one bad request fails no other.
fn together<Q, A>(
    model: &mut Model,
    asked: Vec<(Q, Reply<A>, OwnedSemaphorePermit)>,
    mut run: impl FnMut(&mut Model, &[&Q]) -> Result<Vec<A>, LmError>,
) -> u64 {
    if asked.is_empty() {
        return 0;
    }
    let questions: Vec<&Q> = asked.iter().map(|(question, ..)| question).collect();
    if let Ok(answers) = run(model, &questions) {
        for ((_, reply, _), answer) in asked.into_iter().zip(answers) {
            let _ = reply.send(Ok(answer));
        }
        return 0;
    }
    let mut failures = 0;
    for (question, reply, _room) in asked {
        match run(model, &[&question]).map(|mut answers| answers.pop()) {
            Ok(Some(answer)) => drop(reply.send(Ok(answer))),
            Ok(None) => failures += fail(reply, LmError::NotFinite("a missing answer")),
            Err(error) => failures += fail(reply, error),
        }
    }
    failures
}
