//! The texts that a model's thread has in the making, and who waits for them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Outbox, Reply};
use crate::lm::generate::{GenerateRequest, Generated};
use crate::lm::model::Model;

/// Texts in the making and who waits for them.
#[derive(Default)]
pub(super) struct Texts {
    waiting: HashMap<u64, (Reply<Generated>, OwnedSemaphorePermit)>,
    /// Not joined yet, for want of room.
    outside: Vec<(Box<GenerateRequest>, Reply<Generated>, OwnedSemaphorePermit)>,
}

impl Texts {
    /// Whether no text is in the making and none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.outside.is_empty()
    }

    /// Puts a text in the queue.
    pub(super) fn wait(&mut self, request: Box<GenerateRequest>, reply: Reply<Generated>, room: OwnedSemaphorePermit) {
        self.outside.push((request, reply, room));
    }

    /// Lets in who fits, gives every text a token, and hands out those that are done.
    pub(super) fn step(&mut self, model: &mut Model, outbox: &mut Outbox) {
        self.let_in(model, outbox);
        let gone: Vec<u64> =
            self.waiting.iter().filter(|(_, (reply, _))| reply.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.waiting.remove(&id);
            model.leave(id);
        }
        match model.step() {
            Ok(done) => {
                for mut text in done {
                    let Some((reply, _)) = self.waiting.remove(&text.id) else { continue };
                    let failed = text.failed.take().map(Arc::new);
                    outbox.put(reply, failed.map_or(Ok(text), Err));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, (reply, _)) in self.waiting.drain() {
                    outbox.put(reply, Err(error.clone()));
                }
            }
        }
    }

    fn let_in(&mut self, model: &mut Model, outbox: &mut Outbox) {
        let mut left = Vec::new();
        for (request, reply, room) in self.outside.drain(..) {
            if reply.is_closed() {
                continue;
            }
            match model.join(*request) {
                Ok(Ok(id)) => drop(self.waiting.insert(id, (reply, room))),
                Ok(Err(request)) => left.push((Box::new(request), reply, room)),
                Err(error) => outbox.put(reply, Err(Arc::new(error))),
            }
        }
        self.outside = left;
    }
}
