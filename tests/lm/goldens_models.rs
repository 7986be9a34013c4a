//! The decoder against PyTorch, in float32 on the CPU: logits, log-probabilities, entropies, greedy continuations and
//! reward scores of ragged batches, for every architecture. `GRADUS_GOLDENS` names another folder of the same form.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use gradus::lm::{Decoder, Engine, KvPool, Packed};

use super::goldens::{Expected, folder, models};

/// Largest difference of a log-probability, absolute.
const LOGPROB: f32 = 1e-4;

fn decoder(dir: &Path) -> Decoder {
    Decoder::load(dir, &Device::Cpu, None).unwrap()
}

/// All sequences of a ragged batch in one packed forward; gives the states and each sequence's first row.
fn forward(decoder: &Decoder, sequences: &[Vec<u32>]) -> (Tensor, Vec<usize>) {
    let mut pool = KvPool::new(decoder.config(), 1024, decoder.dtype(), decoder.device()).unwrap();
    let mut packed = Packed::default();
    let starts = sequences.iter().map(|tokens| {
        let span = pool.take(tokens.len()).unwrap();
        packed.push(tokens, span, None).start
    });
    let starts: Vec<usize> = starts.collect();
    (decoder.forward(&packed, &mut pool).unwrap(), starts)
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
    row.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
}

/// PyTorch has no number where its own padding left a windowed row nothing to attend to.
fn close(what: &str, at: (usize, usize), got: f64, wanted: f32, tolerance: f32) {
    assert!(got.is_finite(), "{what} at {at:?} is {got}");
    if wanted.is_nan() {
        return;
    }
    assert!((got - f64::from(wanted)).abs() <= f64::from(tolerance), "{what} at {at:?}: {got} is not {wanted}");
}

fn check_language_model(dir: &Path) {
    let (decoder, expected) = (decoder(dir), Expected::load(dir));
    let sequences = expected.sequences();
    let (states, starts) = forward(&decoder, &sequences);
    for (b, tokens) in sequences.iter().enumerate() {
        let rows: Vec<usize> = (starts[b]..starts[b] + tokens.len()).collect();
        let logits = decoder.logits(&states, &rows).unwrap().to_vec2::<f32>().unwrap();
        for (i, row) in logits.iter().enumerate() {
            let t = expected.place(b, i);
            // A logit is a log-probability and a constant: the same tolerance, relative above 1.
            for (v, logit) in row.iter().enumerate() {
                let wanted = expected.logits[b][t][v];
                close("logit", (b, i), f64::from(*logit), wanted, LOGPROB * wanted.abs().max(1.0));
            }
            if i + 1 < tokens.len() {
                let logprobs = log_softmax(row);
                close("log-probability", (b, i), logprobs[tokens[i + 1] as usize], expected.logprobs[b][t], LOGPROB);
                let entropy: f64 = logprobs.iter().map(|lp| -lp.exp() * lp).sum();
                close("entropy", (b, i), entropy, expected.entropy[b][t], LOGPROB);
            }
        }
    }
    let known = expected.logits.iter().flatten().filter(|row| row.iter().all(|logit| logit.is_finite())).count();
    assert!(known * 2 > expected.logits.iter().flatten().count(), "only {known} rows have reference numbers");
    check_greedy(&decoder, &sequences[0], &expected.greedy);
}

/// The continuation token by token, from the keys of the tokens before.
fn check_greedy(decoder: &Decoder, first: &[u32], greedy: &[u32]) {
    let prompt = first.iter().zip(greedy).take_while(|(a, b)| a == b).count();
    let mut pool = KvPool::new(decoder.config(), 256, decoder.dtype(), decoder.device()).unwrap();
    let mut own = pool.take(greedy.len()).unwrap();
    let mut done = 0;
    for at in prompt..greedy.len() {
        let mut packed = Packed::default();
        own.len = at;
        let row = packed.push(&greedy[done..at], own, None).end - 1;
        done = at;
        let states = decoder.forward(&packed, &mut pool).unwrap();
        let logits = decoder.logits(&states, &[row]).unwrap().get(0).unwrap().to_vec1::<f32>().unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best, greedy[at] as usize, "greedy token {at}");
    }
}

fn check_reward_model(dir: &Path) {
    let (decoder, expected) = (decoder(dir), Expected::load(dir));
    let sequences = expected.sequences();
    let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let rewards = Engine::new(decoder, 1024, 4096).unwrap().rewards(&slices).unwrap();
    for (b, reward) in rewards.iter().enumerate() {
        close("reward", (b, 0), reward[0], expected.scores[b], LOGPROB * expected.scores[b].abs().max(1.0));
    }
}

fn check(name: &str) {
    let dir: PathBuf = folder().join(name);
    // Another folder may hold other models; `goldens_models_every_one_in_the_folder` checks that it holds some.
    if !dir.exists() && std::env::var_os("GRADUS_GOLDENS").is_some() {
        return;
    }
    if Expected::load(&dir).scores.is_empty() { check_language_model(&dir) } else { check_reward_model(&dir) }
}

macro_rules! goldens {
    ($($test:ident $name:literal),* $(,)?) => { $(#[test] fn $test() { check($name) })* };
}

goldens! {
    goldens_models_qwen2 "qwen2",
    goldens_models_qwen3 "qwen3",
    goldens_models_llama3 "llama3",
    goldens_models_mistral "mistral",
    goldens_models_gemma2 "gemma2",
    goldens_models_qwen2_reward "qwen2_reward",
    goldens_models_qwen3_reward "qwen3_reward",
    goldens_models_llama_reward "llama_reward",
}

#[test]
fn goldens_models_every_one_in_the_folder() {
    let names = models();
    assert!(!names.is_empty(), "{} holds no model", folder().display());
    for name in names {
        check(&name);
    }
}

/// Log-probabilities of all tokens after each sequence, from an engine.
fn label_logprobs(dir: &Path, calls: &[Vec<Vec<u32>>], slots: usize, batch: usize) -> (Vec<Vec<f64>>, Engine) {
    let mut engine = Engine::new(decoder(dir), slots, batch).unwrap();
    let labels: Vec<u32> = (0..64).collect();
    let mut all = Vec::new();
    for call in calls {
        let prompts: Vec<(&[u32], &[u32])> = call.iter().map(|tokens| (tokens.as_slice(), labels.as_slice())).collect();
        all.extend(engine.label_logprobs(&prompts).unwrap().into_iter().map(|found| found.logprobs));
    }
    (all, engine)
}

/// Three prompts, five answers to each.
fn rollouts() -> Vec<Vec<u32>> {
    let token = |seed: usize| u32::try_from((seed * 7919 + 13) % 251).unwrap();
    let rollout = |prompt: usize, answer: usize| {
        let shared = (0..20 + 3 * prompt).map(|i| token(i + 100 * prompt));
        let own = (0..4 + 2 * answer).map(|i| token(i * 31 + 1000 * (answer + 1) + prompt));
        shared.chain(own).collect()
    };
    (0..15).map(|i| rollout(i % 3, i / 3)).collect()
}

#[test]
fn goldens_models_packed_and_shared_equals_one_by_one_bit_for_bit() {
    for name in models() {
        let dir = folder().join(&name);
        if !Expected::load(&dir).scores.is_empty() {
            continue;
        }
        let all = rollouts();
        let alone: Vec<Vec<Vec<u32>>> = all.iter().map(|one| vec![one.clone()]).collect();
        let one_by_one: Vec<Vec<f64>> =
            alone.iter().flat_map(|one| label_logprobs(&dir, std::slice::from_ref(one), 512, 512).0).collect();
        let (together, engine) = label_logprobs(&dir, std::slice::from_ref(&all), 2048, 2048);
        assert!(together == one_by_one, "{name}: shared in a batch");
        assert!(engine.work().computed_tokens * 2 < engine.work().asked_tokens, "{:?}", engine.work());
        let (in_turn, engine) = label_logprobs(&dir, &alone, 2048, 2048);
        assert!(in_turn == one_by_one, "{name}: kept from call to call");
        assert!(engine.work().computed_tokens * 3 < engine.work().asked_tokens * 2, "{:?}", engine.work());
        let (crowded, _) = label_logprobs(&dir, &[all.clone(), all], 64, 40);
        assert!(crowded == [one_by_one.clone(), one_by_one].concat(), "{name}: with hardly any room");
    }
}
