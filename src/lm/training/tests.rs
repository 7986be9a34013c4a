//! Every operation's backward against finite differences in float64, and every parameter's gradient.

#![allow(clippy::indexing_slicing, reason = "tests may panic")]

use candle_core::{DType, Device, Tensor};

use super::linear::{Adapter, Linear};
use super::plain;
use super::*;
use crate::lm::config::ModelConfig;
use crate::lm::train_ops::{HeadShape, Heads};
use crate::lm::weights::Weights;

const STEP: f64 = 1e-5;

thread_local! {
    static DRAWN: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Numbers in -2 to 2, the same in every run: each test has a thread of its own.
fn random(shape: &[usize]) -> Tensor {
    let number = || {
        DRAWN.set(DRAWN.get() + 1);
        2.0 * (f64::from(DRAWN.get()) * 12.9898).sin()
    };
    let numbers: Vec<f64> = (0..shape.iter().product()).map(|_| number()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// The derivative of `sum(f(x) * along)` by each number of `x`, by central differences.
fn differences(x: &Tensor, along: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
    let (numbers, shape) = (x.flatten_all().unwrap().to_vec1::<f64>().unwrap(), x.shape().clone());
    let at = |index: usize, by: f64| {
        let mut moved = numbers.clone();
        moved[index] += by;
        let moved = Tensor::from_vec(moved, shape.clone(), &Device::Cpu).unwrap();
        (f(&moved) * along).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    (0..numbers.len()).map(|index| (at(index, STEP) - at(index, -STEP)) / (2.0 * STEP)).collect()
}

fn same(what: &str, found: &Tensor, wanted: &[f64]) {
    let found = found.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((found - wanted).abs() < 1e-6 * (1.0 + wanted.abs()), "{what}[{index}]: {found} is not {wanted}");
    }
}

#[test]
fn rms_norm_backward_is_its_derivative() {
    let (x, weight, d_y) = (random(&[3, 8]), random(&[8]), random(&[3, 8]));
    let mut total = Tensor::zeros(8, DType::F64, &Device::Cpu).unwrap();
    let d_x = plain::rms_norm_backward(&x, &weight, 1e-6, &d_y, Some(&mut total)).unwrap();
    same("x", &d_x, &differences(&x, &d_y, |x| plain::rms_norm(x, &weight, 1e-6).unwrap()));
    same("weight", &total, &differences(&weight, &d_y, |weight| plain::rms_norm(&x, weight, 1e-6).unwrap()));
}

#[test]
fn rotation_and_its_inverse() {
    let (x, d_y) = (random(&[3, 2, 8]), random(&[3, 2, 8]));
    let angles = random(&[3, 4]);
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let d_x = plain::rotate(&d_y, &cos, &sin, true).unwrap();
    same("x", &d_x, &differences(&x, &d_y, |x| plain::rotate(x, &cos, &sin, false).unwrap()));
}

#[test]
fn gated_backward_is_its_derivative() {
    let (x, d_y) = (random(&[3, 10]), random(&[3, 5]));
    let d_x = plain::gated_backward(&x, &d_y).unwrap();
    same("gate_up", &d_x, &differences(&x, &d_y, |x| plain::gated(x).unwrap()));
}

#[test]
fn attention_backward_is_its_derivative() {
    let meeting = (HeadShape { heads: 4, kv_heads: 2, head_dim: 4 }, 0.5);
    let sequences = [0..3, 3..4, 4..9];
    let heads = Heads { q: random(&[9, 16]), k: random(&[9, 8]), v: random(&[9, 8]) };
    let d_out = random(&[9, 16]);
    let found = plain::attention_backward(&heads, &sequences, meeting, &d_out).unwrap();
    let run = |heads: Heads| plain::attention(&heads, &sequences, meeting).unwrap();
    same("q", &found.q, &differences(&heads.q, &d_out, |q| run(Heads { q: q.clone(), ..heads.clone() })));
    same("k", &found.k, &differences(&heads.k, &d_out, |k| run(Heads { k: k.clone(), ..heads.clone() })));
    same("v", &found.v, &differences(&heads.v, &d_out, |v| run(Heads { v: v.clone(), ..heads.clone() })));
}

#[test]
fn logits_backward_is_its_derivative_at_any_temperature() {
    let (logits, d_logprob) = (random(&[4, 7]), random(&[4]));
    let targets = Tensor::new(&[0u32, 6, 3, 3], &Device::Cpu).unwrap();
    for temperature in [1.0, 0.7] {
        let [_, _, total] = plain::token_logprobs(&logits, &targets, temperature).unwrap();
        let found = plain::logits_backward(&logits, &targets, &total, &d_logprob, temperature).unwrap();
        let run = |logits: &Tensor| plain::token_logprobs(logits, &targets, temperature).unwrap()[0].clone();
        same("logits", &found, &differences(&logits, &d_logprob, run));
    }
}

#[test]
fn entropy_and_probability_of_a_known_row() {
    let logits = Tensor::new(&[[0f64, 0.0, 0.0, 0.0]], &Device::Cpu).unwrap();
    let targets = Tensor::new(&[2u32], &Device::Cpu).unwrap();
    let [own, entropy, total] = plain::token_logprobs(&logits, &targets, 1.0).unwrap();
    for (found, wanted) in [(own, -(4f64.ln())), (entropy, 4f64.ln()), (total, 4f64.ln())] {
        same("row", &found, &[wanted]);
    }
}

fn config(family: &str, tied: bool) -> ModelConfig {
    ModelConfig::from_json(&format!(
        r#"{{"model_type": "{family}", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 13,
            "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": {tied},
            "architectures": ["ForCausalLM"]}}"#
    ))
    .unwrap()
}

fn model(family: &str, tied: bool) -> TrainableDecoder {
    let config = config(family, tied);
    let weights = Weights::random(&config, Some(3), DType::F64, &Device::Cpu);
    TrainableDecoder::new(config, &weights).unwrap()
}

fn batch() -> (Sequences, Predictions) {
    let (mut batch, mut predictions) = (Sequences::default(), Predictions::default());
    for sequence in [&[1u32, 5, 2, 7, 7][..], &[4, 12, 0]] {
        let rows = batch.push(sequence);
        for (place, token) in sequence.iter().enumerate().skip(2) {
            predictions.push(&rows, place, *token);
        }
    }
    (batch, predictions)
}

/// A loss that is no plain sum, so that every term's slope differs.
fn loss(outputs: &TokenOutputs) -> f64 {
    let logprobs = outputs.logprobs.iter().enumerate().map(|(index, lp)| (index as f64 + 0.5) * lp);
    logprobs.sum::<f64>() + outputs.values.iter().map(|value| value * value).sum::<f64>()
}

/// Moves some numbers of every parameter, and compares the loss with what the gradients say.
fn check_whole(mut model: TrainableDecoder) {
    let (batch, predictions) = batch();
    let mut gradients = Gradients::zeros(model.parameters()).unwrap();
    let pass = model.forward(&batch, &predictions).unwrap();
    let outputs = pass.outputs().unwrap();
    let d_logprobs: Vec<f64> = (0..outputs.logprobs.len()).map(|index| index as f64 + 0.5).collect();
    let d_values: Vec<f64> = outputs.values.iter().map(|value| 2.0 * value).collect();
    pass.backward(&d_logprobs, &d_values, &mut gradients).unwrap();
    assert_eq!(outputs, model.score(&batch, &predictions).unwrap());
    let found: Vec<Option<Tensor>> = gradients.iter().map(Option::<&Tensor>::cloned).collect();
    for (index, gradient) in found.iter().enumerate() {
        let parameter = model.parameters().iter().nth(index).unwrap().clone();
        let Some(gradient) = gradient else {
            assert!(!parameter.trainable);
            continue;
        };
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(gradient.iter().any(|slope| slope.abs() > 1e-9), "{} has no gradient", parameter.name());
        let numbers = parameter.value.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in (0..numbers.len()).step_by(numbers.len().div_ceil(9)) {
            let mut moved = |by: f64| {
                let mut numbers = numbers.clone();
                numbers[at] += by;
                let value = Tensor::from_vec(numbers, parameter.value.shape().clone(), &Device::Cpu).unwrap();
                model.parameters_mut().iter_mut().nth(index).unwrap().value = value;
                loss(&model.score(&batch, &predictions).unwrap())
            };
            let wanted = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let (name, slope) = (parameter.name(), gradient[at]);
            assert!((slope - wanted).abs() < 1e-5 * (1.0 + wanted.abs()), "{name}[{at}]: {slope} is not {wanted}");
        }
        model.parameters_mut().iter_mut().nth(index).unwrap().value = parameter.value;
    }
}

#[test]
fn every_parameter_has_its_gradient() {
    check_whole(model("qwen2", true));
    check_whole(model("qwen3", false));
    check_whole(model("llama", false));
    check_whole(model("qwen3", true).keeping(Activations::Recompute).at_temperature(0.7));
}

#[test]
fn a_critic_has_its_gradient() {
    let weights: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
    check_whole(model("qwen2", true).with_value_head(&weights).unwrap());
}

#[test]
fn adapters_have_their_gradients_and_the_model_none() {
    let lora = LoraConfig { rank: 2, alpha: 4.0, ..LoraConfig::default() };
    let mut model = model("qwen3", true).with_lora(&lora, 1).unwrap();
    // B is zero at first, and A's gradient with it.
    for parameter in model.parameters_mut().iter_mut().filter(|parameter| parameter.trainable) {
        parameter.value = (&parameter.value + 0.1).unwrap();
    }
    assert_eq!(model.parameters().iter().filter(|parameter| parameter.trainable).count(), 2 * 2 * 7);
    check_whole(model);
}

#[test]
fn an_adapter_is_added_before_the_weight_is_rounded() {
    let rounded = |shape: &[usize], scale: f64| (random(shape) * scale).unwrap().to_dtype(DType::BF16).unwrap();
    let (weight, a, b) = (rounded(&[6, 16], 0.02), rounded(&[3, 16], 0.25), rounded(&[4, 3], 0.001));
    let exact = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
    let added = (exact(&b).matmul(&exact(&a)).unwrap() * 2.0).unwrap().pad_with_zeros(0, 1, 1).unwrap();
    let wanted = (exact(&weight) + added).unwrap().to_dtype(DType::BF16).unwrap();
    let mut parameters = Parameters::default();
    let [weight, a, b] = [weight, a, b].map(|value| parameters.add(Vec::new(), value));
    let linear = Linear { weight, adapters: vec![Adapter { rows: 1..5, a, b, scale: 2.0 }] };
    let merged = linear.merged(&parameters).unwrap();
    assert_eq!(merged.dtype(), DType::BF16);
    same("merged", &exact(&merged), &exact(&wanted).flatten_all().unwrap().to_vec1::<f64>().unwrap());
}
