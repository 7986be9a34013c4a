//! Reference numbers of tiny models, as PyTorch computed them.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use crate::common::package;

/// The folder with a subfolder per model.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("GRADUS_GOLDENS").map_or_else(|| package("tests/goldens"), PathBuf::from)
}

/// The names of all models in the folder.
pub(crate) fn models() -> Vec<String> {
    let holds_model = |path: &Path| path.join("config.json").exists() && path.join("expected.safetensors").exists();
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = entries
        .filter(|path| holds_model(path))
        .map(|path| path.file_name().unwrap().to_str().unwrap().into())
        .collect();
    names.sort();
    names
}

/// What PyTorch says of a batch; the fields that a model has no numbers for are empty.
pub(crate) struct Expected {
    input_ids: Vec<Vec<i64>>,
    mask: Vec<Vec<i64>>,
    /// `[batch, time, vocab]`.
    pub logits: Vec<Vec<Vec<f32>>>,
    /// `[batch, time - 1]`, of the token that comes next.
    pub logprobs: Vec<Vec<f32>>,
    /// `[batch, time - 1]`.
    pub entropy: Vec<Vec<f32>>,
    /// The first sequence's beginning and its greedy continuation.
    pub greedy: Vec<u32>,
    /// `[batch]`, of a reward model.
    pub scores: Vec<f32>,
}

impl Expected {
    /// Reads a model's `expected.safetensors`.
    pub(crate) fn load(dir: &Path) -> Self {
        let tensors = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
        let float = |name: &str| tensors.get(name).map(|tensor| tensor.to_dtype(DType::F32).unwrap());
        let matrix = |name: &str| float(name).map_or_else(Vec::new, |tensor| tensor.to_vec2().unwrap());
        let whole = |name: &str| tensors[name].to_vec2::<i64>().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap();
        Self {
            input_ids: whole("input_ids"),
            mask: whole("attention_mask"),
            logits: float("logits").map_or_else(Vec::new, |tensor| tensor.to_vec3().unwrap()),
            logprobs: matrix("logprobs"),
            entropy: matrix("entropy"),
            greedy: tensors
                .get("greedy")
                .map_or_else(Vec::new, |tensor| flat(tensor).to_vec1::<i64>().unwrap().into_iter().map(id).collect()),
            scores: float("scores").map_or_else(Vec::new, |tensor| flat(&tensor).to_vec1().unwrap()),
        }
    }

    /// The sequences without their padding.
    pub(crate) fn sequences(&self) -> Vec<Vec<u32>> {
        let real = |(ids, mask): (&Vec<i64>, &Vec<i64>)| {
            ids.iter().zip(mask).filter(|(_, mask)| **mask == 1).map(|(token, _)| id(*token)).collect()
        };
        self.input_ids.iter().zip(&self.mask).map(real).collect()
    }

    /// The column of a sequence's `i`-th token.
    pub(crate) fn place(&self, sequence: usize, i: usize) -> usize {
        let real = self.mask[sequence].iter().enumerate().filter(|(_, mask)| **mask == 1);
        real.map(|(column, _)| column).nth(i).unwrap()
    }
}

fn id(token: i64) -> u32 {
    u32::try_from(token).unwrap()
}
