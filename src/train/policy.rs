//! The policy: a model that learns, and the files it came with. In: a configuration. Out: a trainable decoder, engines
//! with its numbers, a model directory that transformers and our judge load.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::TrainError;
use super::config::{Check, is_above_zero};
use crate::files;
use crate::lm::training::{Activations, LoraConfig, TrainableDecoder};
use crate::lm::{Engine, KvPool, ModelConfig, Weights};

/// Files of a model directory besides its weights.
pub(super) const FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
];
/// Bytes of keys and values that rollouts may hold.
const KV_BYTES_ON_GPU: usize = 32 << 30;
const KV_BYTES_ON_CPU: usize = 1 << 30;

/// The policy that learns: a model directory, or a fresh model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// A Hugging Face directory (Qwen2, Qwen3, Llama).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A fresh model, with the tokenizer of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<FreshModel>,
    /// Low-rank adapters; without them all parameters learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// What is kept of a forward pass.
    #[serde(default)]
    pub activations: Activations,
}

/// A model that has learnt nothing: Qwen3's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshModel {
    /// Directory with `tokenizer.json` and `tokenizer_config.json`.
    pub tokenizer: PathBuf,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; 64, 96, 128 or 256 on a GPU.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
}

impl PolicyConfig {
    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        let lora = |is_wrong: fn(&LoraConfig) -> bool| self.lora.as_ref().is_some_and(is_wrong);
        let mut all = vec![
            (
                self.model.is_some() == self.fresh.is_some(),
                "policy",
                "needs either `model` (a directory) or `fresh` (a new model), not both",
            ),
            (lora(|lora| lora.rank == 0), "policy.lora.rank", "is 0; it must be 1 or more"),
            (lora(|lora| !is_above_zero(lora.alpha)), "policy.lora.alpha", "must be above 0"),
            (
                lora(|lora| lora.target_modules.is_empty() || lora.unknown_module().is_some()),
                "policy.lora.target_modules",
                "must be one or more of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
            ),
        ];
        all.extend(self.fresh.as_ref().into_iter().flat_map(FreshModel::checks));
        all
    }
}

/// A model that learns.
pub struct Policy {
    /// Its numbers.
    pub decoder: TrainableDecoder,
    settings: PolicyConfig,
    config_json: String,
    /// Where its tokenizer and chat template are.
    files: PathBuf,
}

impl Policy {
    /// Loads or makes the policy. `temperature` is what its rollouts are drawn at; `with_critic` adds a value head of zeros.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn open(
        settings: &PolicyConfig,
        device: &Device,
        seed: u64,
        temperature: f64,
        with_critic: bool,
    ) -> Result<Self, TrainError> {
        let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let (decoder, config_json, files) = match (&settings.model, &settings.fresh) {
            (Some(dir), _) => {
                let path = dir.join("config.json");
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    TrainError::file(&path, format!("{error}; `policy.model` must be a Hugging Face directory"))
                })?;
                (TrainableDecoder::load(dir, device)?, text, dir.clone())
            }
            (None, Some(fresh)) => {
                let text = fresh.config_json()?;
                let config = ModelConfig::from_json(&text)?;
                let decoder = TrainableDecoder::new(config, &Weights::fresh(seed, dtype, device))?;
                (decoder, text, fresh.tokenizer.clone())
            }
            (None, None) => return Err(TrainError::other("the policy needs `model` or `fresh`")),
        };
        let mut decoder = decoder.keeping(settings.activations).at_temperature(temperature);
        if let Some(lora) = &settings.lora {
            decoder = decoder.with_lora(lora, seed)?;
        }
        if with_critic {
            let zeros = vec![0.0; decoder.config().hidden];
            decoder = decoder.with_value_head(&zeros)?;
        }
        Ok(Self { decoder, settings: settings.clone(), config_json, files })
    }

    /// Where its tokenizer and chat template are.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// An engine with its numbers, with room for `sequences` of `tokens` each where the device has it, for one in any case.
    ///
    /// # Errors
    /// When the device's memory is too small.
    pub fn engine(&self, sequences: usize, tokens: usize) -> Result<Engine, TrainError> {
        let decoder = self.decoder.snapshot()?;
        let bytes = KvPool::bytes_per_token(decoder.config(), decoder.dtype()).max(1);
        let most = if decoder.device().is_cpu() { KV_BYTES_ON_CPU } else { KV_BYTES_ON_GPU } / bytes;
        let slots = (sequences * tokens).min(most).max(tokens);
        let batch = if decoder.device().is_cpu() { 4096 } else { 32_768 };
        Ok(Engine::new(decoder, slots, batch)?)
    }

    /// Writes a model directory: `config.json`, safetensors, tokenizer and template; with LoRA the merged model, and the
    /// adapter besides.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, to: &Path) -> Result<(), TrainError> {
        std::fs::create_dir_all(to).map_err(|error| TrainError::file(to, error))?;
        for name in FILES {
            let from = self.files.join(name);
            if from.exists() {
                std::fs::copy(&from, to.join(name)).map_err(|error| TrainError::file(&to.join(name), error))?;
            }
        }
        let path = to.join("config.json");
        std::fs::write(&path, &self.config_json).map_err(|error| TrainError::file(&path, error))?;
        save(self.decoder.merged()?, &to.join("model.safetensors"))?;
        self.export_adapter(to)
    }

    /// Writes the adapter as PEFT has it, in a folder `adapter`; nothing without LoRA.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export_adapter(&self, to: &Path) -> Result<(), TrainError> {
        let Some(lora) = &self.settings.lora else { return Ok(()) };
        let dir = to.join("adapter");
        std::fs::create_dir_all(&dir).map_err(|error| TrainError::file(&dir, error))?;
        save(self.decoder.adapters()?, &dir.join("adapter_model.safetensors"))?;
        let base = self.settings.model.as_ref().map(|dir| dir.display().to_string());
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "target_modules": lora.target_modules,
        });
        let path = dir.join("adapter_config.json");
        std::fs::write(&path, format!("{config:#}\n")).map_err(|error| TrainError::file(&path, error))
    }
}

/// Writes tensors as safetensors, on the CPU, with the metadata that transformers asks for. The file has its name when it is
/// whole.
fn save(tensors: std::collections::BTreeMap<String, Tensor>, path: &Path) -> Result<(), TrainError> {
    let tensors: Result<Vec<(String, Tensor)>, candle_core::Error> =
        tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.contiguous()?))).collect();
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let partial = path.with_extension("partial");
    safetensors::serialize_to_file(tensors?, Some(metadata), &partial)
        .map_err(|error| TrainError::file(path, error))?;
    let named = std::fs::File::open(&partial).and_then(|file| file.sync_all());
    named.and_then(|()| files::rename(&partial, path)).map_err(|error| TrainError::file(path, error))
}

impl FreshModel {
    /// What it must not be.
    fn checks(&self) -> Vec<Check> {
        let sizes = [
            (self.hidden, "policy.fresh.hidden"),
            (self.intermediate, "policy.fresh.intermediate"),
            (self.layers, "policy.fresh.layers"),
            (self.heads, "policy.fresh.heads"),
            (self.kv_heads, "policy.fresh.kv_heads"),
            (self.head_dim, "policy.fresh.head_dim"),
            (self.context, "policy.fresh.context"),
        ];
        let mut all: Vec<Check> =
            sizes.into_iter().map(|(size, field)| (size == 0, field, "is 0; it must be 1 or more")).collect();
        all.push((!self.heads.is_multiple_of(self.kv_heads), "policy.fresh.kv_heads", "must divide `heads`"));
        all.push((!self.head_dim.is_multiple_of(2), "policy.fresh.head_dim", "must be even: positions turn pairs"));
        all
    }

    /// The `config.json` of this model, for transformers and for ourselves.
    fn config_json(&self) -> Result<String, TrainError> {
        let tokenizer = crate::lm::tokenizer::Tokenizer::load(&self.tokenizer)
            .map_err(|error| TrainError::other(format!("policy.fresh.tokenizer: {error}")))?;
        let end = crate::lm::end_tokens(&self.tokenizer, &tokenizer, &[]).first().copied();
        // A multiple of 8: what the GPU's matrix units like.
        let vocab = tokenizer.vocabulary_size().next_multiple_of(8);
        let config = json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": vocab,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "attention_bias": false,
            "tie_word_embeddings": true,
            "eos_token_id": end,
            "initializer_range": 0.02,
            "torch_dtype": "float32",
        });
        Ok(format!("{config:#}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::LmError;
    use crate::lm::chat_template::ChatTemplate;
    use crate::train::protocol::tests::files;

    fn fresh(tokenizer: &Path) -> Policy {
        let sizes = "hidden = 8\nintermediate = 8\nlayers = 1\nheads = 1\nkv_heads = 1\nhead_dim = 8\ncontext = 4096";
        let settings = format!("[fresh]\ntokenizer = {:?}\n{sizes}", tokenizer.display().to_string());
        Policy::open(&toml::from_str(&settings).unwrap(), &Device::Cpu, 0, 1.0, false).unwrap()
    }

    #[test]
    fn a_template_of_either_file_is_exported() {
        let from = files("{{ messages[0].content }}", &["<|end|>"], &["<|end|>"]);
        std::fs::remove_file(from.path().join("chat_template.jinja")).unwrap();
        let template = r#"{"chat_template": "{{ messages[0].content }}"}"#;
        std::fs::write(from.path().join("chat_template.json"), template).unwrap();
        let to = tempfile::tempdir().unwrap();
        fresh(from.path()).export(to.path()).unwrap();
        assert_eq!(ChatTemplate::load(to.path()).unwrap().source(), "{{ messages[0].content }}");
    }

    #[test]
    fn an_engine_takes_memory_for_its_rollouts_and_not_for_the_models_context() {
        let from = files("{{ messages[0].content }}", &["<|end|>"], &["<|end|>"]);
        let engine = fresh(from.path()).engine(3, 20).unwrap();
        assert!(engine.check(&[1; 60]).is_ok());
        assert!(matches!(engine.check(&[1; 61]), Err(LmError::TooLong { limit: 60, .. })));
    }
}
