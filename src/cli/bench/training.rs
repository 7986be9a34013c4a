//! How fast, and how right, a policy-gradient step is on this machine.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::verify::small_models;
use super::{Shape, median, name, tokens};
use crate::lm::training::{Activations, AdamW, AdamWConfig, Gradients, Predictions, Sequences, TrainableDecoder};
use crate::lm::{ModelConfig, Weights};
use crate::train::algorithm::{Algorithm, LossConfig, Tokens};

/// Sequences of a step, as the PyTorch peer has them.
const SEQUENCES: usize = 16;
/// Tokens of a sequence.
const LENGTH: usize = 1024;

/// Sequences that predict every token but the first.
fn batch(lengths: &[usize], vocab: u32) -> (Sequences, Predictions) {
    let (mut batch, mut predictions) = (Sequences::default(), Predictions::default());
    for (index, length) in lengths.iter().enumerate() {
        let ids: Vec<u32> = tokens(*length, (index, 5)).into_iter().map(|token| token % vocab).collect();
        let rows = batch.push(&ids);
        ids.iter().enumerate().skip(1).for_each(|(place, token)| predictions.push(&rows, place, *token));
    }
    (batch, predictions)
}

/// One policy-gradient step: log-probabilities, clipped loss, backward, AdamW; 16 sequences of 1,024 tokens.
pub(super) fn measure(shape: Shape, activations: Activations, device: &Device, repeats: usize) -> anyhow::Result<()> {
    let config = ModelConfig { context: 2 * LENGTH, ..shape.config()? };
    let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
    let model = TrainableDecoder::new(config.clone(), &Weights::random(&config, None, dtype, device))?;
    let mut model = model.keeping(activations);
    let mut optimizer = AdamW::new(&model, AdamWConfig::default())?;
    let at_once = if shape == Shape::Small { 8 } else { 4 };
    let (batch, predictions) = batch(&vec![LENGTH; at_once], 150_000);
    let mut seconds = Vec::new();
    for _ in 0..repeats + 2 {
        let began = Instant::now();
        let mut gradients = Gradients::zeros(model.parameters())?;
        for _ in 0..SEQUENCES / at_once {
            gradient(&model, &batch, &predictions, &mut gradients)?;
        }
        optimizer.step(&mut model, &gradients, 1e-6)?;
        device.synchronize()?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    let median = median(seconds.split_off(2))?;
    let rate = (SEQUENCES * LENGTH) as f64 / median;
    say!(
        "{}",
        json!({"work": "train", "shape": name(&shape), "activations": activations, "seconds": median, "tokens_per_s": rate})
    );
    Ok(())
}

/// Adds a clipped policy gradient with made-up advantages; gives the log-probabilities.
fn gradient(
    model: &TrainableDecoder,
    batch: &Sequences,
    predictions: &Predictions,
    gradients: &mut Gradients,
) -> anyhow::Result<Vec<f64>> {
    let pass = model.forward(batch, predictions)?;
    let logprobs = pass.outputs()?.logprobs;
    let count = logprobs.len();
    let wave = |index: usize| (index as f64 * 0.37).sin();
    let columns = Tokens {
        // A policy that moved a little since.
        old_logprobs: logprobs.iter().enumerate().map(|(index, logprob)| logprob + 0.1 * wave(7 * index)).collect(),
        advantages: (0..count).map(wave).collect(),
        weights: vec![1.0 / count as f64; count],
        logprobs: logprobs.clone(),
        ..Tokens::default()
    };
    let slopes = Algorithm::Grpo.loss(&columns, &LossConfig::of(Algorithm::Grpo))?;
    pass.backward(&slopes.d_logprobs, &[], gradients)?;
    Ok(logprobs)
}

/// Compares log-probabilities and gradients with the CPU's in float32, for small models; true when they agree as far as
/// bfloat16 can.
pub(super) fn verify(device: &Device) -> anyhow::Result<bool> {
    // bfloat16 has 8 bits: a parameter's gradient may be off by a few parts in a hundred of its length.
    const GRADIENT: f64 = 0.05;
    const LOGPROB: f64 = 0.1;
    let mut right = true;
    for (name, config) in small_models().into_iter().filter(|(name, _)| ["qwen2", "qwen3", "llama"].contains(name)) {
        let config = ModelConfig::from_json(&config.to_string())?;
        let (batch, predictions) = batch(&[3, 130, 64, 1, 257, 90], 2048);
        let run = |device: &Device, dtype: DType| -> anyhow::Result<_> {
            let model = TrainableDecoder::new(config.clone(), &Weights::random(&config, Some(1), dtype, device))?;
            let mut gradients = Gradients::zeros(model.parameters())?;
            let logprobs = gradient(&model, &batch, &predictions, &mut gradients)?;
            Ok((logprobs, gradients.by_file_name(model.parameters())?))
        };
        let (here, there) = (run(&Device::Cpu, DType::F32)?, run(device, DType::BF16)?);
        let off = here.0.iter().zip(&there.0).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let mut worst = (0.0, String::new());
        for (parameter, wanted) in &here.1 {
            let Some(found) = there.1.get(parameter) else { anyhow::bail!("{parameter} has no gradient there") };
            let miss = length(&(found.to_device(&Device::Cpu)? - wanted)?)? / length(wanted)?.max(1e-12);
            if miss > worst.0 {
                worst = (miss, parameter.clone());
            }
        }
        right &= off <= LOGPROB && worst.0 <= GRADIENT;
        say!("{}", json!({"verify_training": name, "logprob_off": off, "gradient_off": worst.0, "of": worst.1}));
    }
    Ok(right)
}

fn length(tensor: &Tensor) -> anyhow::Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}
