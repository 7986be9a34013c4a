//! Texts, and the thread that owns a model.

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use gradus::lm::{
    Drawn, Foreign, GenerateRequest, Generated, Generator, Guide, Joined, LmError, Mask, Model, Next, Sampling, Worker,
};

use super::build::{CONTEXT, Tiny};

const GREEDY: Sampling = Sampling { temperature: 0.0, seed: 0 };

/// Puts words in after the third token, takes the sixth back, and stops after `most`.
struct Steered {
    drawn: usize,
    most: usize,
    seen: Vec<f64>,
}

impl Guide for Steered {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        Ok(Some(vec![u32::MAX; 3]))
    }

    fn watched(&mut self) -> Vec<u32> {
        if self.drawn == 4 { vec![1, 2, 3] } else { Vec::new() }
    }

    fn watch(&mut self, logprobs: Vec<f64>) {
        self.seen = logprobs;
    }

    fn accept(&mut self, _: Drawn) -> Result<Next, LmError> {
        self.drawn += 1;
        Ok(match self.drawn {
            3 => Next::Say(vec![7, 8, 9]),
            6 => Next::Instead(vec![10, 11]),
            drawn if drawn >= self.most => Next::Stop,
            _ => Next::Draw,
        })
    }
}

fn request(prompt: &[u32], max_tokens: usize, sampling: Sampling) -> GenerateRequest {
    let guide = Box::new(Steered { drawn: 0, most: 20, seen: Vec::new() });
    GenerateRequest { prompt: prompt.to_vec(), max_tokens, sampling, guide }
}

fn seen(done: Generated) -> Vec<f64> {
    let guide: Box<dyn std::any::Any> = done.guide;
    guide.downcast::<Steered>().unwrap().seen
}

fn foreign(architecture: &str) -> (Foreign, Tiny) {
    let family = if architecture == "phi3" { "llama" } else { architecture };
    let tiny = Tiny::new(family, 1e4);
    let dir = tempfile::tempdir().unwrap();
    let path = tiny.gguf(architecture).write(&dir.path().join("model.gguf"), GgmlDType::F32);
    (Foreign::load(&path, &Device::Cpu, CONTEXT).unwrap(), tiny)
}

fn write(model: &mut Foreign, request: GenerateRequest) -> Generated {
    assert!(matches!(model.join(request).unwrap(), Joined::As(_)));
    loop {
        if let Some(done) = model.step() {
            return done;
        }
    }
}

fn prompt(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 17 + len) % 96).collect()
}

#[test]
fn a_guided_text_is_the_one_that_our_own_decoder_makes() {
    for architecture in ["llama", "qwen2", "qwen3", "phi3"] {
        let (mut model, tiny) = foreign(architecture);
        for (len, sampling) in [(1, GREEDY), (70, GREEDY), (300, Sampling { temperature: 1.0, seed: 5 })] {
            let done = write(&mut model, request(&prompt(len), 40, sampling));
            let (mut engine, mut texts) = (tiny.engine(), Generator::default());
            assert!(matches!(texts.join(&mut engine, request(&prompt(len), 40, sampling)).unwrap(), Joined::As(_)));
            let ours = loop {
                if let Some(done) = texts.step(&mut engine).unwrap().pop() {
                    break done;
                }
            };
            assert_eq!(done.tokens, ours.tokens, "{architecture} after {len}");
            assert!(done.finished && done.failed.is_none());
            assert_eq!(done.logprobs.iter().filter(|logprob| logprob.is_none()).count(), 5);
            let off = seen(done).iter().zip(seen(ours)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-3, "{architecture}: {off}");
        }
    }
}

#[test]
fn one_text_at_a_time_and_scoring_in_between_changes_nothing() {
    let (mut model, _) = foreign("qwen3");
    let alone = write(&mut model, request(&prompt(30), 15, GREEDY));
    assert!(matches!(model.join(request(&prompt(30), 15, GREEDY)).unwrap(), Joined::As(_)));
    assert!(model.is_writing());
    assert!(matches!(model.join(request(&prompt(5), 5, GREEDY)).unwrap(), Joined::NoRoom(_)));
    let before = model.label_logprobs(&[(&[1, 2, 3], &[4, 5])]).pop().unwrap().unwrap();
    assert!(model.step().is_none());
    assert_eq!(model.label_logprobs(&[(&[1, 2, 3], &[4, 5])]).pop().unwrap().unwrap(), before);
    let done = loop {
        if let Some(done) = model.step() {
            break done;
        }
    };
    assert_eq!(done.tokens, alone.tokens);
    assert_eq!((done.tokens.len(), done.finished, model.is_writing()), (15, false, false));
}

#[test]
fn a_text_that_cannot_fit_is_refused_and_one_that_is_dropped_leaves() {
    let (mut model, _) = foreign("qwen2");
    let refused = model.join(request(&prompt(500), 13, GREEDY)).err().unwrap();
    assert!(matches!(refused, LmError::TooLong { tokens: 513, limit: 512, .. }), "{refused}");
    assert!(model.join(request(&[], 3, GREEDY)).is_err());
    assert!(model.join(request(&[96], 3, GREEDY)).is_err());
    let Joined::As(id) = model.join(request(&prompt(9), 9, GREEDY)).unwrap() else { panic!("there is room") };
    model.leave(id + 1);
    assert!(model.is_writing());
    model.leave(id);
    assert!(!model.is_writing() && model.step().is_none());
}

#[tokio::test]
async fn a_thread_scores_and_writes_in_turn_and_drops_what_nobody_waits_for() {
    let (mut model, _) = foreign("llama");
    let scored = model.label_logprobs(&[(&prompt(20), &[1, 2])]).pop().unwrap().unwrap();
    let written = write(&mut model, request(&prompt(12), 30, GREEDY)).tokens;
    let (model, _) = foreign("llama");
    let worker = Worker::start(move || Ok(Model::from(model)), 10_000).unwrap();
    let guide = Box::new(Steered { drawn: 0, most: usize::MAX, seen: Vec::new() });
    let gone = GenerateRequest { prompt: prompt(40), max_tokens: 400, sampling: GREEDY, guide };
    tokio::select! {
        biased;
        _ = worker.text(gone) => panic!("so many tokens take longer"),
        () = std::future::ready(()) => {}
    }
    let texts = [(); 2].map(|()| worker.text(request(&prompt(12), 30, GREEDY)));
    let labels = [(); 3].map(|()| worker.labels(prompt(20), vec![1, 2]));
    let [first, second] = texts;
    let [a, b, c] = labels;
    let (a, first, b, second, c) = tokio::join!(a, first, b, second, c);
    for found in [a, b, c] {
        assert_eq!(found.unwrap(), scored);
    }
    for text in [first, second] {
        assert_eq!(text.ok().unwrap().tokens, written);
    }
    let failed = worker.labels(vec![96], vec![1]).await.unwrap_err();
    assert!(failed.to_string().contains("beyond the vocabulary"), "{failed}");
    let failed = worker.reward(prompt(3)).await.unwrap_err();
    assert!(failed.to_string().contains("no rewards"), "{failed}");
    // An answer goes out before it is counted.
    while worker.queued_tokens() > 0 || worker.numbers().failures < 2 {
        tokio::task::yield_now().await;
    }
    assert!(worker.alive());
    assert_eq!((worker.numbers().failures, worker.numbers().kept_tokens), (2, 0));
    assert!(worker.numbers().generated_tokens < 100, "{:?}", worker.numbers());
}
