//! Low-rank adapters (LoRA, arXiv:2106.09685): the model is frozen, and each chosen weight gets `alpha / rank * B A`.
//! Saved as the PEFT library saves them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::decoder::TrainableDecoder;
use super::linear::{Adapter, Linear};
use crate::lm::LmError;
use crate::lm::weights::uniform;

/// Which weights get adapters, and how large.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the adapters, 1 or more.
    pub rank: usize,
    /// What `B A` is multiplied by, times the rank.
    pub alpha: f64,
    /// The weights: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`.
    pub target_modules: Vec<String>,
}

/// The weights of a layer that can have adapters.
const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, target_modules: MODULES.map(str::to_owned).to_vec() }
    }
}

impl LoraConfig {
    /// The first of its modules that there is not.
    pub fn unknown_module(&self) -> Option<&str> {
        self.target_modules.iter().map(String::as_str).find(|module| !MODULES.contains(module))
    }
}

impl TrainableDecoder {
    /// Freezes the model and adds adapters. `A` is random from `seed`, `B` is zero: the model says what it said before.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for a rank of 0 or an unknown module.
    pub fn with_lora(mut self, lora: &LoraConfig, seed: u64) -> Result<Self, LmError> {
        if lora.rank == 0 || lora.target_modules.is_empty() {
            return Err(LmError::Unsupported(
                "LoRA needs a rank of 1 or more and at least one target module".to_owned(),
            ));
        }
        if let Some(unknown) = lora.unknown_module() {
            return Err(LmError::Unsupported(format!(
                "LoRA knows no module {unknown:?}; known are {}",
                MODULES.join(", ")
            )));
        }
        self.parameters.freeze_all();
        let mut layers = self.layers.clone();
        for layer in &mut layers {
            for linear in [&mut layer.qkv, &mut layer.output, &mut layer.gate_up, &mut layer.down] {
                self.adapt(linear, lora, seed)?;
            }
        }
        self.layers = layers;
        Ok(self)
    }

    fn adapt(&mut self, linear: &mut Linear, lora: &LoraConfig, seed: u64) -> Result<(), LmError> {
        let weight = self.parameters.value(linear.weight).clone();
        let parts = self.parameters.iter().nth(linear.weight.0).map_or_else(Vec::new, |found| found.parts.clone());
        let (width, mut start) = (weight.dim(1)?, 0);
        for (name, rows) in parts {
            let range = start..start + rows;
            start = range.end;
            let Some(module) = name.strip_suffix(".weight") else { continue };
            if !lora.target_modules.iter().any(|wanted| module.ends_with(&format!(".{wanted}"))) {
                continue;
            }
            // Uniform in +-1/sqrt(in), as PEFT's Kaiming initialisation with a = sqrt(5) comes to.
            let bound = (width as f64).powf(-0.5);
            let mut hasher = blake3::Hasher::new();
            hasher.update(format!("{seed} {module}").as_bytes());
            let a = uniform(&hasher, lora.rank * width, |number| (bound * number) as f32);
            let a = Tensor::from_vec(a, (lora.rank, width), weight.device())?.to_dtype(weight.dtype())?;
            let b = Tensor::zeros((rows, lora.rank), weight.dtype(), weight.device())?;
            let named = |part: &str| format!("base_model.model.{module}.{part}.weight");
            let a = self.parameters.add(vec![(named("lora_A"), lora.rank)], a);
            let b = self.parameters.add(vec![(named("lora_B"), rows)], b);
            linear.adapters.push(Adapter { rows: range, a, b, scale: lora.alpha / lora.rank as f64 });
        }
        Ok(())
    }

    /// Every weight under its file name, adapters merged in; without adapters and critic.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn merged(&self) -> Result<BTreeMap<String, Tensor>, LmError> {
        let mut named = self.parameters.by_file_name()?;
        for layer in &self.layers {
            for linear in [&layer.qkv, &layer.output, &layer.gate_up, &layer.down] {
                if linear.adapters.is_empty() {
                    continue;
                }
                let merged = linear.merged(&self.parameters)?;
                let parts = self.parameters.iter().nth(linear.weight.0).map_or(&[][..], |found| &found.parts[..]);
                let mut start = 0;
                for (name, rows) in parts {
                    named.insert(name.clone(), merged.narrow(0, start, *rows)?.contiguous()?);
                    start += rows;
                }
            }
        }
        named.retain(|name, _| name.starts_with("model.") || name == "lm_head.weight");
        Ok(named)
    }

    /// The adapters under the names that PEFT gives them, in float32.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn adapters(&self) -> Result<BTreeMap<String, Tensor>, LmError> {
        let mut named = self.parameters.by_file_name()?;
        named.retain(|name, _| name.starts_with("base_model."));
        named.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?))).collect()
    }
}
