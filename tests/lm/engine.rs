//! The engine's laws: generation with continuous batching, guides, and the worker that owns a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use gradus::lm::tokenizer::Tokenizer;
use gradus::lm::{
    Constraints, Decoder, Engine, GenerateRequest, Generated, Generator, Joined, LmError, Model, ReasonedLabel,
    Reasoning, Sampling, SchemaGuide, UnconstrainedGuide, Worker,
};

use super::goldens;
use crate::common::package;

const GREEDY: Sampling = Sampling { temperature: 0.0, seed: 0 };

fn golden(name: &str) -> PathBuf {
    package("tests/goldens").join(name)
}

fn small_judge() -> PathBuf {
    package("tests/small_judge")
}

fn engine(dir: &Path, slots: usize) -> Engine {
    Engine::new(Decoder::load(dir, &Device::Cpu, None).unwrap(), slots, 4096).unwrap()
}

fn request(prompt: &[u32], max_tokens: usize, sampling: Sampling) -> GenerateRequest {
    GenerateRequest { prompt: prompt.to_vec(), max_tokens, sampling, guide: Box::new(UnconstrainedGuide) }
}

fn run(engine: &mut Engine, requests: Vec<GenerateRequest>) -> Vec<Generated> {
    let mut generator = Generator::default();
    for request in requests {
        assert!(matches!(generator.join(engine, request).unwrap(), Joined::As(_)));
    }
    finish(engine, &mut generator)
}

fn finish(engine: &mut Engine, generator: &mut Generator) -> Vec<Generated> {
    let mut done = Vec::new();
    while generator.running() > 0 {
        done.extend(generator.step(engine).unwrap());
    }
    done.sort_by_key(|text| text.id);
    done
}

#[test]
fn greedy_generation_continues_as_pytorch_does() {
    for name in ["qwen2", "qwen3", "llama3", "mistral", "gemma2"] {
        let expected = goldens::Expected::load(&golden(name));
        let first = &expected.sequences()[0];
        let prompt = first.iter().zip(&expected.greedy).take_while(|(a, b)| a == b).count();
        let (prompt, rest) = expected.greedy.split_at(prompt);
        let done = run(&mut engine(&golden(name), 512), vec![request(prompt, rest.len(), GREEDY)]);
        assert_eq!(done[0].tokens, rest, "{name}");
        assert!(!done[0].finished, "the guide never said that it was done");
    }
}

/// A seed gives the same text alone, among others, and when it joins late.
#[test]
fn a_text_does_not_depend_on_its_company() {
    let sampled = |seed| Sampling { temperature: 1.0, seed };
    let prompts: Vec<Vec<u32>> =
        (0..5u32).map(|i| (0..20 + 7 * i).map(|t| (t * 37 + i * 11) % 288).collect()).collect();
    let one = |i: usize| request(&prompts[i], 12, sampled(i as u64));
    let alone: Vec<Vec<u32>> =
        (0..5).map(|i| run(&mut engine(&golden("qwen3"), 256), vec![one(i)]).remove(0).tokens).collect();
    let mut together = engine(&golden("qwen3"), 1024);
    let all: Vec<Vec<u32>> =
        run(&mut together, (0..5).map(one).collect()).into_iter().map(|text| text.tokens).collect();
    assert_eq!(all, alone);
    let mut generator = Generator::default();
    let mut done = Vec::new();
    for i in 0..5 {
        assert!(matches!(generator.join(&mut together, one(i)).unwrap(), Joined::As(_)));
        done.extend(generator.step(&mut together).unwrap());
        done.extend(generator.step(&mut together).unwrap());
    }
    done.extend(finish(&mut together, &mut generator));
    done.sort_by_key(|text| text.id);
    assert_eq!(done.into_iter().map(|text| text.tokens).collect::<Vec<_>>(), alone);
    assert_ne!(alone[0], run(&mut together, vec![request(&prompts[0], 12, sampled(99))])[0].tokens);
}

#[test]
fn a_text_that_never_fits_is_refused_and_one_that_does_not_fit_yet_waits() {
    let mut engine = engine(&golden("qwen2"), 64);
    let mut generator = Generator::default();
    let error = generator.join(&mut engine, request(&[1; 40], 30, GREEDY)).err().unwrap();
    assert!(error.to_string().contains("64"), "{error}");
    assert!(generator.join(&mut engine, request(&[], 3, GREEDY)).is_err());
    assert!(matches!(generator.join(&mut engine, request(&[1; 30], 10, GREEDY)).unwrap(), Joined::As(_)));
    let Joined::NoRoom(waiting) = generator.join(&mut engine, request(&[2; 30], 10, GREEDY)).unwrap() else {
        panic!("there is room for one")
    };
    finish(&mut engine, &mut generator);
    assert!(matches!(generator.join(&mut engine, waiting).unwrap(), Joined::As(_)));
    finish(&mut engine, &mut generator);
}

#[test]
fn a_kept_sequence_that_is_in_the_way_of_its_own_continuation_is_dropped() {
    let mut engine = engine(&golden("qwen2"), 64);
    let kept: Vec<u32> = (1..41).collect();
    engine.label_logprobs(&[(&kept, &[1])]).unwrap();
    assert_eq!(engine.kept_tokens(), 40);
    // Its first 20 tokens are kept, but beside all 40 there is no room for the other 40 of this text.
    let text = run(&mut engine, vec![request(&kept[..21], 39, GREEDY)]).remove(0);
    assert_eq!(text.tokens.len(), 39);
}

fn constraints(tokenizer: &Tokenizer) -> Constraints {
    Constraints::new(tokenizer, 288, tokenizer.token_to_id("<|im_end|>").unwrap()).unwrap()
}

#[test]
fn a_text_is_held_to_its_schema() {
    let (tokenizer, mut engine) = (Tokenizer::load(&small_judge()).unwrap(), engine(&small_judge(), 2048));
    let schema = serde_json::json!({
        "type": "object", "required": ["n", "word"], "additionalProperties": false,
        "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 99}, "word": {"enum": ["yes", "no"]}},
    });
    for seed in 0..8 {
        let guide = Box::new(SchemaGuide::new(&constraints(&tokenizer), schema.clone()).unwrap());
        let prompt = tokenizer.encode_trusted("Give an object.").unwrap();
        let sampling = Sampling { temperature: 1.5, seed };
        let mut done = run(&mut engine, vec![GenerateRequest { prompt, max_tokens: 64, sampling, guide }]);
        let text = done.remove(0);
        assert!(text.finished && text.failed.is_none());
        let guide: Box<dyn std::any::Any> = text.guide;
        let value: serde_json::Value = serde_json::from_slice(guide.downcast::<SchemaGuide>().unwrap().text()).unwrap();
        assert!((10..=99).contains(&value["n"].as_i64().unwrap()), "{value}");
        assert!(["yes", "no"].contains(&value["word"].as_str().unwrap()), "{value}");
    }
}

#[test]
fn reasoning_keeps_its_budget_and_ends_in_a_label_with_its_distribution() {
    let (tokenizer, mut engine) = (Tokenizer::load(&small_judge()).unwrap(), engine(&small_judge(), 2048));
    let labels: Arc<[String]> = ["Match".to_owned(), "Mismatch".to_owned()].into();
    let ends = vec![tokenizer.token_to_id("<|im_end|>").unwrap()];
    let bridge = tokenizer.encode_trusted("\n\n").unwrap();
    for budget in [0, 1, 7] {
        let reasoning = Reasoning { ends: ends.clone(), bridge: bridge.clone(), budget };
        let guide = ReasonedLabel::new(&constraints(&tokenizer), labels.clone(), reasoning).unwrap();
        let prompt = tokenizer.encode_trusted("Is it right?").unwrap();
        let sampling = Sampling { temperature: 1.0, seed: 3 };
        let request = GenerateRequest { prompt, max_tokens: budget + 64, sampling, guide: Box::new(guide) };
        let text = run(&mut engine, vec![request]).remove(0);
        let said = tokenizer.decode(&text.tokens, gradus::lm::tokenizer::SpecialText::Shown).unwrap();
        assert!(text.finished, "{said:?} {:?}", text.failed);
        let drawn = text.logprobs.iter().filter(|logprob| logprob.is_some()).count();
        assert!(drawn <= budget.max(1) + 10, "{drawn} tokens were drawn with a budget of {budget}");
        let guide: Box<dyn std::any::Any> = text.guide;
        let guide = guide.downcast::<ReasonedLabel>().unwrap();
        assert!(guide.label().is_some());
        let mass: f64 = guide.logprobs().unwrap().iter().map(|logprob| logprob.exp()).sum();
        assert!(mass > 0.0 && mass <= 1.0 + 1e-6, "{mass}");
    }
}

fn worker(queue_tokens: u32) -> Worker {
    Worker::start(|| Ok(Model::from(engine(&golden("qwen2"), 512))), queue_tokens).unwrap()
}

#[tokio::test]
async fn a_request_that_fails_fails_alone() {
    let worker = worker(10_000);
    let good = || worker.labels(vec![1, 2, 3], vec![4, 5]);
    let (a, long, beyond, empty, b) = tokio::join!(
        good(),
        worker.labels(vec![1; 600], vec![4]),
        worker.labels(vec![1, 9999], vec![4]),
        worker.labels(Vec::new(), vec![4]),
        good()
    );
    assert_eq!(a.unwrap(), b.unwrap());
    assert!(matches!(*long.unwrap_err(), LmError::TooLong { tokens: 600, limit: 512, .. }));
    assert!(beyond.unwrap_err().to_string().contains("9999"));
    assert!(empty.is_err());
    assert!(worker.reward(vec![1]).await.unwrap_err().to_string().contains("reward"), "a language model");
    assert!(worker.alive());
    // Counted behind the answers.
    while worker.numbers().failures < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_frees_its_work() {
    let worker = worker(200);
    let text = worker.text(request(&[1, 2, 3], 190, GREEDY));
    let gone = tokio::time::timeout(Duration::from_millis(20), text).await;
    // The queue is full of the dropped text until its thread sees that nobody waits.
    let after = tokio::time::timeout(Duration::from_secs(20), worker.labels(vec![1; 100], vec![4])).await;
    assert!(after.unwrap().is_ok());
    if gone.is_err() {
        assert!(worker.numbers().generated_tokens < 190, "it was made to its end for nobody");
    }
    while worker.queued_tokens() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The thread takes a few batches at a time: answers leave while others wait, and those that are given up are not computed.
#[tokio::test]
async fn what_is_given_up_while_others_are_answered_is_not_computed() {
    let worker = worker(1_000_000);
    let asked = 4000;
    let mut waiting: Vec<_> = (0..asked)
        .map(|n| {
            let worker = worker.clone();
            tokio::spawn(async move { worker.labels(vec![1 + n % 50; 100], vec![4]).await })
        })
        .collect();
    assert!(waiting.remove(0).await.unwrap().is_ok());
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    while worker.queued_tokens() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let tokens = worker.numbers().asked_tokens;
    assert!(tokens < 100 * u64::from(asked), "all {tokens} tokens were computed");
}

#[test]
fn an_engine_that_cannot_be_made_is_an_error_of_the_start() {
    let failed = Worker::start(|| Err(LmError::Unsupported("no such thing".to_owned())), 10);
    assert!(failed.unwrap_err().to_string().contains("no such thing"));
}
