//! The trainer's losses and gradients against PyTorch, on the CPU. `GRADUS_GOLDENS` names another folder of the same form,
//! of any shape.
//!
//! A surrogate is a sum of terms of both signs that nearly cancel: float32 is held to the tolerance relative to the terms,
//! float64 to the tolerance relative to their sum.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use gradus::advantage::smoothing_factor;
use gradus::lm::training::{Gradients, Predictions, Sequences, TrainableDecoder};
use gradus::train::algorithm::{Algorithm, LossConfig, Tokens};
use serde_json::Value;

use super::goldens;

/// Relative: what the two machines may differ by in `float32`.
const LOSS: f64 = 1e-5;
/// Relative to the gradient's norm.
const GRADIENT: f64 = 1e-3;

struct Golden {
    tensors: HashMap<String, Tensor>,
    numbers: Value,
    batch: Sequences,
    predictions: Predictions,
    /// Row and column of each prediction.
    places: Vec<(usize, usize)>,
}

impl Golden {
    fn load() -> Self {
        let folder = goldens::folder();
        let tensors = candle_core::safetensors::load(folder.join("losses.safetensors"), &Device::Cpu).unwrap();
        let text = std::fs::read_to_string(folder.join("losses.json")).unwrap();
        let integers = |name: &str| tensors[name].to_vec2::<i64>().unwrap();
        let action = tensors["action_mask"].to_vec2::<f32>().unwrap();
        let (mut batch, mut predictions, mut places) = (Sequences::default(), Predictions::default(), Vec::new());
        for (b, (ids, mask)) in integers("input_ids").iter().zip(integers("attention_mask")).enumerate() {
            let real = mask.iter().filter(|mask| **mask == 1).count();
            let ids: Vec<u32> = ids.iter().take(real).map(|id| u32::try_from(*id).unwrap()).collect();
            let rows = batch.push(&ids);
            for (t, wanted) in action[b].iter().enumerate().filter(|(_, wanted)| **wanted == 1.0) {
                assert!(*wanted == 1.0 && t + 1 < real);
                predictions.push(&rows, t + 1, ids[t + 1]);
                places.push((b, t));
            }
        }
        Self { tensors, numbers: serde_json::from_str(&text).unwrap(), batch, predictions, places }
    }

    fn policy(&self, algorithm: Algorithm, dtype: DType) -> TrainableDecoder {
        let decoder = TrainableDecoder::load_as(&goldens::folder().join("qwen2"), &Device::Cpu, dtype).unwrap();
        if !algorithm.has_critic() {
            return decoder;
        }
        decoder.with_value_head(&self.tensors["value_head"].to_vec1::<f32>().unwrap()).unwrap()
    }

    fn parameter(&self, name: &str) -> f64 {
        self.numbers["params"][name].as_f64().unwrap()
    }

    fn column(&self, name: &str) -> Vec<f64> {
        let table = self.tensors[name].to_dtype(DType::F64).unwrap();
        match table.rank() {
            1 => self.places.iter().map(|(b, _)| table.to_vec1::<f64>().unwrap()[*b]).collect(),
            _ => self.places.iter().map(|(b, t)| table.to_vec2::<f64>().unwrap()[*b][*t]).collect(),
        }
    }

    fn config(&self, algorithm: Algorithm) -> LossConfig {
        let usual = LossConfig::of(algorithm);
        let clip_high = match algorithm {
            Algorithm::Dapo => self.parameter("dapo_eps_high"),
            Algorithm::Cispo => self.parameter("cispo_eps_high"),
            _ => self.parameter("eps_high"),
        };
        LossConfig {
            clip_low: if algorithm == Algorithm::Cispo { usual.clip_low } else { self.parameter("eps_low") },
            clip_high,
            kl_coefficient: if usual.kl_coefficient == 0.0 { 0.0 } else { self.parameter("kl_beta") },
            value_clip: self.parameter("vf_clip"),
            value_coefficient: self.parameter("vf_coef"),
            ..usual
        }
    }

    /// The weights of a token mean; for VSPO those of its multiplicities.
    fn weights(&self, algorithm: Algorithm) -> (Vec<f64>, Vec<f64>) {
        let even = vec![1.0 / self.places.len() as f64; self.places.len()];
        if algorithm != Algorithm::Vspo {
            return (even.clone(), even);
        }
        let (gamma, w_max) = (self.parameter("gamma_smooth"), self.parameter("w_max"));
        let copies = self.column("multiplicity");
        let total: f64 = copies.iter().sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let factor = |copies: &f64| smoothing_factor(*copies as u32, gamma, w_max) / total;
        (copies.iter().map(factor).collect(), copies.iter().map(|copies| copies / total).collect())
    }

    fn check(&self, algorithm: Algorithm, dtype: DType) {
        let name = algorithm.name();
        let policy = self.policy(algorithm, dtype);
        let pass = policy.forward(&self.batch, &self.predictions).unwrap();
        let outputs = pass.outputs().unwrap();
        let (weights, kl_weights) = self.weights(algorithm);
        let tokens = Tokens {
            logprobs: outputs.logprobs,
            old_logprobs: self.column("old_logprobs"),
            reference_logprobs: self.column("ref_logprobs"),
            advantages: self.column("advantages"),
            weights,
            kl_weights,
            values: outputs.values,
            old_values: self.column("old_values"),
            returns: self.column("returns"),
        };
        let slopes = algorithm.loss(&tokens, &self.config(algorithm)).unwrap();
        let wanted = self.numbers[name]["loss"].as_f64().unwrap();
        let terms = tokens.weights.iter().zip(&tokens.advantages).map(|(weight, advantage)| (weight * advantage).abs());
        let size = if dtype == DType::F64 { wanted.abs() } else { wanted.abs().max(terms.sum()) };
        assert!((slopes.loss - wanted).abs() <= LOSS * size, "{name} in {dtype:?}: {} is not {wanted}", slopes.loss);
        let mut gradients = Gradients::zeros(policy.parameters()).unwrap();
        pass.backward(&slopes.d_logprobs, &slopes.d_values, &mut gradients).unwrap();
        let found = gradients.by_file_name(policy.parameters()).unwrap();
        // The reference's norm is over the model, without its critic.
        let squares = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
        let model = found.iter().filter(|(name, _)| *name != "value_head.weight");
        let norm = model.map(|(_, gradient)| squares(gradient).unwrap()).sum::<f64>().sqrt();
        let wanted = self.numbers[name]["grad_norm"].as_f64().unwrap();
        assert!((norm - wanted).abs() <= GRADIENT * wanted, "{name}: a gradient's norm of {norm} is not {wanted}");
        let mut compared = 0;
        for (key, wanted) in &self.tensors {
            let Some(parameter) = key.strip_prefix(&format!("grad.{name}.")) else { continue };
            let wanted = wanted.to_dtype(DType::F64).unwrap();
            let miss = (found[parameter].to_dtype(DType::F64).unwrap() - &wanted).unwrap();
            let (miss, length) = (squares(&miss).unwrap().sqrt(), squares(&wanted).unwrap().sqrt());
            assert!(miss <= GRADIENT * length, "{name} in {dtype:?}: {parameter} is off by {miss}");
            compared += 1;
        }
        assert!(compared > 0, "{name}: nothing to compare with");
    }
}

macro_rules! goldens_losses {
    ($($test:ident: $algorithm:ident,)*) => {$(
        #[test]
        fn $test() {
            let golden = Golden::load();
            golden.check(Algorithm::$algorithm, DType::F32);
            golden.check(Algorithm::$algorithm, DType::F64);
        }
    )*};
}

goldens_losses! {
    goldens_losses_sft: Sft,
    goldens_losses_ppo: Ppo,
    goldens_losses_grpo: Grpo,
    goldens_losses_dapo: Dapo,
    goldens_losses_cispo: Cispo,
    goldens_losses_vspo: Vspo,
}
