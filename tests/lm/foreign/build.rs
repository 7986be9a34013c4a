//! Tiny random models, as our own decoder, as GGUF files and as directories.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use gradus::lm::{Decoder, Engine, ModelConfig, Weights};
use serde_json::json;

pub(crate) const VOCAB: u32 = 96;
pub(crate) const CONTEXT: usize = 512;

/// A model of one of our decoder's families.
pub(crate) struct Tiny {
    pub config: ModelConfig,
    weights: Weights,
}

/// What a GGUF file holds.
#[derive(Clone)]
pub(crate) struct Content {
    pub options: Vec<(String, Value)>,
    pub tensors: Vec<(String, Tensor)>,
}

impl Tiny {
    /// `family` as config.json has it.
    pub(crate) fn new(family: &str, rope_theta: f64) -> Self {
        let config = json!({
            "model_type": family, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCAB,
            "max_position_embeddings": CONTEXT, "rope_theta": rope_theta, "rms_norm_eps": 1e-5,
        });
        let config = ModelConfig::from_json(&config.to_string()).unwrap();
        let weights = Weights::random(&config, Some(3), DType::F32, &Device::Cpu);
        Self { config, weights }
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::new(Decoder::new(self.config.clone(), &self.weights, None).unwrap(), 4096, 4096).unwrap()
    }

    /// A tensor by the name that it has in a Hugging Face directory.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Tensor {
        self.weights.get(name, shape).unwrap()
    }

    /// A layer's tensor.
    pub(crate) fn of_layer(&self, layer: usize, name: &str, shape: &[usize]) -> Tensor {
        self.get(&format!("model.layers.{layer}.{name}"), shape)
    }

    /// As llama.cpp's converter writes it.
    pub(crate) fn gguf(&self, architecture: &str) -> Content {
        let c = &self.config;
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), self.get("model.embed_tokens.weight", &[c.vocab, c.hidden])),
            ("output_norm.weight".to_owned(), self.get("model.norm.weight", &[c.hidden])),
            ("output.weight".to_owned(), self.get("lm_head.weight", &[c.vocab, c.hidden])),
        ];
        for layer in 0..c.layers {
            let of_layer = self.layer(architecture, layer).into_iter();
            tensors.extend(of_layer.map(|(name, tensor)| (format!("blk.{layer}.{name}"), tensor)));
        }
        let mut options = vec![("general.architecture".to_owned(), Value::String(architecture.to_owned()))];
        let mut set = |key: &str, value: Value| options.push((format!("{architecture}.{key}"), value));
        for (key, value) in [
            ("attention.head_count", c.heads),
            ("attention.head_count_kv", c.kv_heads),
            ("attention.key_length", c.head_dim),
            ("embedding_length", c.hidden),
            ("feed_forward_length", c.intermediate),
            ("block_count", c.layers),
            ("context_length", c.context),
            ("rope.dimension_count", c.head_dim),
        ] {
            set(key, Value::U32(u32::try_from(value).unwrap()));
        }
        set("attention.layer_norm_rms_epsilon", Value::F32(c.norm_eps as f32));
        set("rope.freq_base", Value::F32(c.rope_theta as f32));
        Content { options, tensors }
    }

    fn layer(&self, architecture: &str, layer: usize) -> Vec<(&'static str, Tensor)> {
        let c = &self.config;
        let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let get = |name: &str, shape: &[usize]| self.of_layer(layer, name, shape);
        let q = get("self_attn.q_proj.weight", &[queries, c.hidden]);
        let k = get("self_attn.k_proj.weight", &[keys, c.hidden]);
        let v = get("self_attn.v_proj.weight", &[keys, c.hidden]);
        let gate = get("mlp.gate_proj.weight", &[c.intermediate, c.hidden]);
        let up = get("mlp.up_proj.weight", &[c.intermediate, c.hidden]);
        let mut all = vec![
            ("attn_norm.weight", get("input_layernorm.weight", &[c.hidden])),
            ("attn_output.weight", get("self_attn.o_proj.weight", &[c.hidden, queries])),
            ("ffn_norm.weight", get("post_attention_layernorm.weight", &[c.hidden])),
            ("ffn_down.weight", get("mlp.down_proj.weight", &[c.hidden, c.intermediate])),
        ];
        if architecture == "phi3" {
            all.push(("attn_qkv.weight", Tensor::cat(&[&q, &k, &v], 0).unwrap()));
            all.push(("ffn_up.weight", Tensor::cat(&[&gate, &up], 0).unwrap()));
            return all;
        }
        let llama = architecture == "llama";
        let q = if llama { interleaved(&q, c.heads) } else { q };
        let k = if llama { interleaved(&k, c.kv_heads) } else { k };
        all.extend([("attn_q.weight", q), ("attn_k.weight", k), ("attn_v.weight", v)]);
        all.extend([("ffn_gate.weight", gate), ("ffn_up.weight", up)]);
        if architecture == "qwen2" {
            all.push(("attn_q.bias", get("self_attn.q_proj.bias", &[queries])));
            all.push(("attn_k.bias", get("self_attn.k_proj.bias", &[keys])));
            all.push(("attn_v.bias", get("self_attn.v_proj.bias", &[keys])));
        }
        if architecture == "qwen3" {
            all.push(("attn_q_norm.weight", get("self_attn.q_norm.weight", &[c.head_dim])));
            all.push(("attn_k_norm.weight", get("self_attn.k_norm.weight", &[c.head_dim])));
        }
        all
    }
}

/// Llama's rotary pairs stand side by side in a GGUF file.
fn interleaved(weight: &Tensor, heads: usize) -> Tensor {
    let (rows, width) = weight.dims2().unwrap();
    let pairs = weight.reshape((heads, 2, rows / heads / 2, width)).unwrap();
    pairs.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, width)).unwrap()
}

impl Content {
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.options.retain(|(found, _)| found != key);
        self.options.push((key.to_owned(), value));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.options.retain(|(found, _)| found != name);
        self.tensors.retain(|(found, _)| found != name);
        self
    }

    pub(crate) fn with(mut self, name: &str, shape: &[usize]) -> Self {
        self.tensors.retain(|(found, _)| found != name);
        self.tensors.push((name.to_owned(), Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()));
        self
    }

    /// Writes the file; matrices as `dtype`, the rest in float32.
    pub(crate) fn write(&self, path: &Path, dtype: GgmlDType) -> PathBuf {
        let quantised = |tensor: &Tensor| {
            let dtype = if tensor.rank() == 2 { dtype } else { GgmlDType::F32 };
            QTensor::quantize(tensor, dtype).unwrap()
        };
        let tensors: Vec<(&str, QTensor)> = self.tensors.iter().map(|(n, t)| (n.as_str(), quantised(t))).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let options: Vec<(&str, &Value)> = self.options.iter().map(|(key, value)| (key.as_str(), value)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &options, &tensors).unwrap();
        path.to_owned()
    }
}

/// Writes a model directory.
pub(crate) fn directory(dir: &Path, config: &serde_json::Value, tensors: &HashMap<String, Tensor>) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, dir.join("model.safetensors")).unwrap();
}
