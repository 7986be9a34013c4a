//! The models of `candle-transformers` behind one call. In: tokens and their first position. Out: the logits after the last
//! of them. Each keeps the keys of what it has read until it is told to forget.

use candle_core::{Device, Tensor};
use candle_transformers::models::{
    olmo2, phi3, quantized_llama, quantized_phi3, quantized_qwen2, quantized_qwen3, smol::smollm3,
};

use super::layout::Architecture;
use crate::lm::LmError;
use crate::lm::gguf::{Gguf, guarded};

/// A loaded model.
pub(super) enum Network {
    GgufLlama(Box<quantized_llama::ModelWeights>),
    GgufQwen2(Box<quantized_qwen2::ModelWeights>),
    GgufQwen3(Box<quantized_qwen3::ModelWeights>),
    GgufPhi3(Box<quantized_phi3::ModelWeights>),
    Phi3(Box<phi3::Model>),
    Olmo2(Box<olmo2::Model>),
    SmolLm3(Box<smollm3::ModelForCausalLM>),
}

impl Network {
    /// Loads a GGUF file whose layout was checked.
    pub(super) fn from_gguf(gguf: Gguf, architecture: Architecture, device: &Device) -> Result<Self, LmError> {
        let path = gguf.path().to_owned();
        let mut file = std::fs::File::open(&path).map_err(|error| LmError::file(&path, error))?;
        let (content, file) = (gguf.content, &mut file);
        guarded(&path, "cannot be loaded", || match architecture {
            Architecture::Llama => {
                quantized_llama::ModelWeights::from_gguf(content, file, device).map(Box::new).map(Self::GgufLlama)
            }
            Architecture::Qwen2 => {
                quantized_qwen2::ModelWeights::from_gguf(content, file, device).map(Box::new).map(Self::GgufQwen2)
            }
            Architecture::Qwen3 => {
                quantized_qwen3::ModelWeights::from_gguf(content, file, device).map(Box::new).map(Self::GgufQwen3)
            }
            Architecture::Phi3 => {
                quantized_phi3::ModelWeights::from_gguf(false, content, file, device).map(Box::new).map(Self::GgufPhi3)
            }
        })
    }

    /// The logits after the last of `tokens`, `[1, tokens]`, of which the first stands at `position`; those before it were
    /// read by earlier calls. Gives `[1, vocab]`, or `[1, 1, vocab]`.
    pub(super) fn forward(&mut self, tokens: &Tensor, position: usize) -> candle_core::Result<Tensor> {
        match self {
            Self::GgufLlama(model) => model.forward(tokens, position),
            Self::GgufQwen2(model) => model.forward(tokens, position),
            Self::GgufQwen3(model) => model.forward(tokens, position),
            Self::GgufPhi3(model) => model.forward(tokens, position),
            Self::Phi3(model) => model.forward(tokens, position),
            Self::Olmo2(model) => model.forward(tokens, position),
            Self::SmolLm3(model) => model.forward(tokens, position),
        }
    }

    /// Forgets what was read.
    pub(super) fn forget(&mut self) {
        match self {
            Self::GgufLlama(model) => model.clear_kv_cache(),
            Self::GgufQwen2(model) => model.clear_kv_cache(),
            Self::GgufQwen3(model) => model.clear_kv_cache(),
            // It forgets by itself at position 0.
            Self::GgufPhi3(_) => {}
            Self::Phi3(model) => model.clear_kv_cache(),
            Self::Olmo2(model) => model.clear_kv_cache(),
            Self::SmolLm3(model) => model.clear_kv_cache(),
        }
    }
}
