//! The texts that a model's thread has in the making, and who waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Outbox, Reply};
use crate::lm::generate::{GenerateRequest, Generated, Joined};
use crate::lm::model::Model;

/// Texts in the making and who waits for them.
#[derive(Default)]
pub(super) struct Texts {
    waiting: HashMap<u64, (Reply<Generated>, OwnedSemaphorePermit)>,
    /// Not joined yet, for want of room; in the order in which they came.
    outside: VecDeque<(Box<GenerateRequest>, Reply<Generated>, OwnedSemaphorePermit)>,
}

impl Texts {
    /// Whether no text is in the making and none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.outside.is_empty()
    }

    /// Puts a text in the queue.
    pub(super) fn wait(&mut self, request: Box<GenerateRequest>, reply: Reply<Generated>, room: OwnedSemaphorePermit) {
        self.outside.push_back((request, reply, room));
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

    /// In their order: short ones that passed by a long one could keep it out for ever.
    fn let_in(&mut self, model: &mut Model, outbox: &mut Outbox) {
        self.outside.retain(|(_, reply, _)| !reply.is_closed());
        while let Some((request, reply, room)) = self.outside.pop_front() {
            match model.join(*request) {
                Ok(Joined::As(id)) => drop(self.waiting.insert(id, (reply, room))),
                Ok(Joined::NoRoom(request)) => return self.outside.push_front((Box::new(request), reply, room)),
                Err(error) => outbox.put(reply, Err(Arc::new(error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::lm::{Decoder, Engine, LmError, ModelConfig, Sampling, UnconstrainedGuide, Weights};

    /// A model with room for 64 tokens at a time.
    fn model() -> Model {
        let config = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "max_position_embeddings": 64, "vocab_size": 16}"#;
        let weights = Weights::fresh(1, DType::F32, &Device::Cpu);
        let decoder = Decoder::new(ModelConfig::from_json(config).unwrap(), &weights, None).unwrap();
        Model::from(Engine::new(decoder, 64, 64).unwrap())
    }

    #[test]
    fn a_long_text_is_not_passed_by() {
        let (mut model, mut texts) = (model(), Texts::default());
        let room = Arc::new(Semaphore::new(3));
        let ask = |texts: &mut Texts, max_tokens| {
            let sampling = Sampling { temperature: 0.0, seed: 0 };
            let request =
                GenerateRequest { prompt: vec![1, 2], max_tokens, sampling, guide: Box::new(UnconstrainedGuide) };
            let (reply, result) = oneshot::channel::<Result<Generated, Arc<LmError>>>();
            texts.wait(Box::new(request), reply, room.clone().try_acquire_owned().unwrap());
            result
        };
        // 40 of 64, then 50 for which there is no room yet, and 4 for which there is.
        let [mut first, mut long, mut short] = [38, 48, 2].map(|tokens| ask(&mut texts, tokens));
        let mut outbox = Outbox::default();
        texts.step(&mut model, &mut outbox);
        assert_eq!((texts.waiting.len(), texts.outside.len()), (1, 2));
        while !texts.is_empty() {
            texts.step(&mut model, &mut outbox);
        }
        outbox.send();
        let made = |result: &mut oneshot::Receiver<Result<Generated, Arc<LmError>>>| {
            result.try_recv().unwrap().map(|text| text.tokens.len()).ok()
        };
        assert_eq!([&mut first, &mut long, &mut short].map(made), [38, 48, 2].map(Some));
    }
}
