//! Model directories whose `model_type` our own decoder does not know. In: config.json and safetensors. Out: a
//! [`Network`] in float32. An option that the model's code would pass over is an error that names it.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Error, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use candle_transformers::models::{olmo2, phi3, smol::smollm3};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::network::Network;
use crate::lm::LmError;
use crate::lm::config::{Keys, read_file};
use crate::lm::ends::listed_tokens;
use crate::lm::gguf::guarded;
use crate::lm::weights::Weights;

/// Most layers: more is a broken file.
const MAX_LAYERS: usize = 1024;

/// The model types that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelType {
    /// Phi 3 and Phi 4 with a plain rotary embedding.
    Phi3,
    /// `OLMo` 2.
    Olmo2,
    /// `SmolLM3`.
    SmolLm3,
}

/// A loaded model with what is known of it.
pub(super) struct Loaded {
    pub(super) network: Network,
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) ends: Vec<u32>,
    pub(super) hash: blake3::Hash,
}

impl ModelType {
    /// The type of that name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "phi3" => Some(Self::Phi3),
            "olmo2" => Some(Self::Olmo2),
            "smollm3" => Some(Self::SmolLm3),
            _ => None,
        }
    }
}

/// Reads a directory's configuration.
pub(super) fn read_config(dir: &Path) -> Result<Map<String, Value>, LmError> {
    serde_json::from_str(&read_file(dir)?).map_err(|e| LmError::config("", format!("is no JSON object: {e}")))
}

/// Loads a directory; `context` bounds the positions.
pub(super) fn load(
    dir: &Path,
    mut config: Map<String, Value>,
    device: &Device,
    context: usize,
) -> Result<Loaded, LmError> {
    let name = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let model_type = ModelType::of(name).ok_or_else(|| {
        let known = "qwen2, qwen3, llama, mistral and gemma2, and through candle-transformers phi3, olmo2 and smollm3";
        LmError::config("model_type", format!("is {name:?}; known are {known}"))
    })?;
    let ends = listed_tokens(config.get("eos_token_id"));
    let context = prepare(&mut config, model_type, context)?;
    let vocab = Keys(&config).size("vocab_size")?;
    let config = Value::Object(config);
    // Tables of positions made in bfloat16 would be off from position 257 on: float32 on a GPU too.
    let weights = Arc::new(Weights::open(dir, DType::F32, device)?);
    let builder = VarBuilder::from_backend(Box::new(OwnWeights(weights.clone())), DType::F32, device.clone());
    let what = "the model cannot be made";
    let network = match model_type {
        ModelType::Phi3 => {
            let config: phi3::Config = parse(&config)?;
            Network::Phi3(Box::new(guarded(dir, what, || phi3::Model::new(&config, builder))?))
        }
        ModelType::Olmo2 => {
            let config: olmo2::Config = parse(&config)?;
            Network::Olmo2(Box::new(guarded(dir, what, || olmo2::Model::new(&config, builder))?))
        }
        ModelType::SmolLm3 => {
            let config: smollm3::Config = parse(&config)?;
            Network::SmolLm3(Box::new(guarded(dir, what, || smollm3::ModelForCausalLM::new(&config, builder))?))
        }
    };
    Ok(Loaded { network, vocab, context, ends, hash: weights.hash() })
}

/// Checks the options and brings them into the form that the model's code reads. Gives the context.
fn prepare(config: &mut Map<String, Value>, model_type: ModelType, context: usize) -> Result<usize, LmError> {
    refuse_unknown(config)?;
    let sizes = Keys(config);
    let (hidden, heads) = (sizes.size("hidden_size")?, sizes.size("num_attention_heads")?);
    let kv_heads = sizes.size("num_key_value_heads")?;
    if !hidden.is_multiple_of(2 * heads) || !heads.is_multiple_of(kv_heads) {
        let problem =
            format!("is {heads}, with {kv_heads} key-value heads in a width of {hidden}: they do not divide it");
        return Err(LmError::config("num_attention_heads", problem));
    }
    if sizes.size_or("head_dim", hidden / heads)? != hidden / heads {
        return Err(passed_over(config, "head_dim"));
    }
    if sizes.size("num_hidden_layers")? > MAX_LAYERS {
        return Err(LmError::config("num_hidden_layers", format!("is more than {MAX_LAYERS}")));
    }
    // The 5.x form keeps the base among rope's options.
    let base = config.get("rope_parameters").and_then(|rope| rope.get("rope_theta")).cloned();
    if let Some(base) = base {
        config.insert("rope_theta".to_owned(), base);
    }
    config.insert("rope_scaling".to_owned(), Value::Null);
    // The models' code takes one where several may stand, and does nothing with it.
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        config.remove(key);
    }
    if model_type == ModelType::Olmo2 {
        for (key, otherwise) in [("attention_bias", false), ("tie_word_embeddings", false)] {
            config.entry(key).or_insert(Value::Bool(otherwise));
        }
    }
    // Within the window it makes no difference; beyond it the model's code would see too much.
    let window = match config.get("use_sliding_window") {
        Some(Value::Bool(false)) => usize::MAX,
        _ => Keys(config).size_or("sliding_window", usize::MAX)?,
    };
    let context = context.min(Keys(config).size("max_position_embeddings")?).min(window);
    config.insert("max_position_embeddings".to_owned(), context.into());
    config.insert("use_sliding_window".to_owned(), Value::Bool(false));
    Ok(context)
}

/// Options that would change the numbers and that the models' code passes over or gets wrong.
fn refuse_unknown(config: &Map<String, Value>) -> Result<(), LmError> {
    for key in ["quantization_config", "clip_qkv"] {
        if config.get(key).is_some_and(|value| !value.is_null()) {
            return Err(passed_over(config, key));
        }
    }
    for key in ["rope_scaling", "rope_parameters"] {
        let kind = |name| config.get(key).and_then(|rope| rope.get(name)).and_then(Value::as_str);
        if kind("rope_type").or(kind("type")).is_some_and(|kind| kind != "default") {
            return Err(passed_over(config, key));
        }
    }
    let whole = Value::from(1.0);
    let read = config.get("partial_rotary_factor").filter(|factor| !factor.is_null()).unwrap_or(&whole);
    if config
        .get("rope_parameters")
        .and_then(|rope| rope.get("partial_rotary_factor"))
        .is_some_and(|factor| factor != read)
    {
        return Err(passed_over(config, "rope_parameters"));
    }
    let head = config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    match head {
        Some(name) if !name.ends_with("ForCausalLM") => Err(LmError::config(
            "architectures",
            format!("is {name:?}; only language models (ForCausalLM) run for this model_type"),
        )),
        _ => Ok(()),
    }
}

fn passed_over(config: &Map<String, Value>, key: &str) -> LmError {
    let value: String = config.get(key).map(ToString::to_string).unwrap_or_default().chars().take(200).collect();
    LmError::config(key, format!("is {value}, which is not supported for this model_type; use a server such as vLLM"))
}

fn parse<T: DeserializeOwned>(config: &Value) -> Result<T, LmError> {
    serde_path_to_error::deserialize(config).map_err(|error| {
        let key = error.path().to_string();
        LmError::config(&key, format!("is wrong: {}", error.into_inner()))
    })
}

/// Our weights as `candle-transformers` takes them: checked, hashed, one at a time.
struct OwnWeights(Arc<Weights>);

impl SimpleBackend for OwnWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.0.get(name, shape.dims()).map_err(Error::wrap)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        Err(Error::msg(format!("tensor `{name}` is asked for without a shape")))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.has(name)
    }
}
