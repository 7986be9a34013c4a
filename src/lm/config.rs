//! A model's `config.json`, read into what the decoder needs. In: the JSON text of a Hugging Face configuration, of the
//! 4.x or the 5.x form. Out: a checked [`ModelConfig`]. An architecture or an option that would change the numbers and is
//! not implemented is an error that names its key, never ignored.

use std::path::Path;

use serde_json::{Map, Value};

use super::LmError;
use super::limits::{check_length, check_vocabulary};

#[cfg(test)]
mod tests;

/// The first layer with a window where a Qwen model does not name it, as transformers has it.
const USUAL_WINDOW_START: usize = 28;

/// The model families of which the decoder knows the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: root-mean-square norms on the heads of q and k.
    Qwen3,
    /// Llama 2 and 3.x.
    Llama,
    /// Mistral: a sliding window.
    Mistral,
    /// Gemma 2: norms around both halves of a layer, soft caps, alternating windows.
    Gemma2,
}

/// What stands on top of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// The vocabulary.
    LanguageModel,
    /// `labels` numbers from the last token.
    SequenceClassification {
        /// How many numbers.
        labels: usize,
    },
}

/// How rotary frequencies are scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided, short ones kept, a ramp between.
    Llama3 {
        /// By what long wavelengths are divided.
        factor: f64,
        /// Context over wavelength, below which a frequency is divided.
        low_freq_factor: f64,
        /// Context over wavelength, above which a frequency is kept.
        high_freq_factor: f64,
        /// The context that the model was first trained with, in tokens.
        original_context: f64,
    },
    /// `YaRN`.
    Yarn {
        /// How many times the original context.
        factor: f64,
        /// Rotations below which a frequency is divided.
        beta_slow: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// What cosine and sine are multiplied by.
        attention_factor: f64,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
        /// The context that the model was first trained with, in tokens.
        original_context: f64,
    },
}

/// The gate's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// A decoder's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub family: Family,
    /// What is on top.
    pub head: HeadKind,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Scaling of its frequencies.
    pub rope_scaling: RopeScaling,
    /// The activation of the feed-forward layer.
    pub activation: Activation,
    /// For each layer, how many positions back it sees, itself included; `None`: all.
    pub windows: Vec<Option<usize>>,
    /// Factor of the attention scores.
    pub attention_scale: f64,
    /// Soft cap of the attention scores.
    pub attention_softcap: Option<f64>,
    /// Soft cap of the logits.
    pub logit_softcap: Option<f64>,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Tokens that end a text, as config.json names them.
    pub eos_tokens: Vec<u32>,
}

impl ModelConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`LmError::Config`], naming the key.
    pub fn from_json(text: &str) -> Result<Self, LmError> {
        let value: Value = serde_json::from_str(text).map_err(|e| LmError::config("", format!("is no JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(LmError::config("", "is no object"));
        };
        Keys(&map).model()
    }

    /// Reads a model directory's `config.json`.
    ///
    /// # Errors
    /// [`LmError::File`], or [`LmError::Config`] naming the key.
    pub fn read(dir: &Path) -> Result<Self, LmError> {
        Self::from_json(&read_file(dir)?)
    }

    /// Refuses a batch with a sequence beyond the context, or a token beyond the vocabulary.
    pub(super) fn check(&self, longest: usize, tokens: &[u32]) -> Result<(), LmError> {
        check_length(longest, self.context)?;
        check_vocabulary(tokens, self.vocab)
    }
}

/// The text of a model directory's `config.json`.
pub(super) fn read_file(dir: &Path) -> Result<String, LmError> {
    let path = dir.join("config.json");
    std::fs::read_to_string(&path).map_err(|error| LmError::file(&path, error))
}

/// The options of a configuration.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    fn model(&self) -> Result<ModelConfig, LmError> {
        let family = self.family()?;
        let (hidden, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        let kv_heads = self.size_or("num_key_value_heads", heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(LmError::config(
                "num_key_value_heads",
                format!("is {kv_heads}, which does not divide {heads}"),
            ));
        }
        let head_dim = match (self.size_or("head_dim", 0)?, family) {
            (0, Family::Gemma2) => 256,
            (0, _) if hidden.is_multiple_of(heads) => hidden / heads,
            (0, _) => return Err(LmError::config("head_dim", "is missing, and heads do not divide hidden_size")),
            (dim, _) => dim,
        };
        if !head_dim.is_multiple_of(2) {
            return Err(LmError::config("head_dim", format!("is {head_dim}; rotary embeddings need an even number")));
        }
        let layers = self.size("num_hidden_layers")?;
        let rope = self.rope();
        let context = self.size("max_position_embeddings")?;
        let config = ModelConfig {
            family,
            head: self.head()?,
            hidden,
            intermediate: self.size("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab: self.size("vocab_size")?,
            context,
            norm_eps: self.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: rope.number("rope_theta")?.or(self.number("rope_theta")?).unwrap_or(10_000.0),
            rope_scaling: rope.rope_scaling(context)?,
            activation: self.activation(family)?,
            windows: self.windows(family, layers)?,
            attention_scale: match self.number("query_pre_attn_scalar")? {
                Some(scalar) if family == Family::Gemma2 => scalar.powf(-0.5),
                _ => (head_dim as f64).powf(-0.5),
            },
            attention_softcap: self.softcap("attn_logit_softcapping", family)?,
            logit_softcap: self.softcap("final_logit_softcapping", family)?,
            qkv_bias: self.qkv_bias(family)?,
            tied: self.flag("tie_word_embeddings")?.unwrap_or(family == Family::Gemma2),
            eos_tokens: self.tokens("eos_token_id")?,
        };
        self.refuse_unknown_options()?;
        Ok(config)
    }

    fn family(&self) -> Result<Family, LmError> {
        match self.text("model_type")? {
            Some("qwen2") => Ok(Family::Qwen2),
            Some("qwen3") => Ok(Family::Qwen3),
            Some("llama") => Ok(Family::Llama),
            Some("mistral") => Ok(Family::Mistral),
            Some("gemma2") => Ok(Family::Gemma2),
            Some(other) => Err(LmError::config(
                "model_type",
                format!(
                    "is {other:?}; known are qwen2, qwen3, llama, mistral and gemma2, and for judges phi3, olmo2 and smollm3. \
                     Serve another with vLLM or SGLang"
                ),
            )),
            None => Err(LmError::config("model_type", "is missing")),
        }
    }

    fn head(&self) -> Result<HeadKind, LmError> {
        let architectures = self.0.get("architectures").and_then(Value::as_array);
        let name = architectures.and_then(|names| names.first()).and_then(Value::as_str).unwrap_or("ForCausalLM");
        let named = self.0.get("id2label").and_then(Value::as_object).map(Map::len);
        let labels = named.map_or_else(|| self.size_or("num_labels", 2), Ok)?;
        match name {
            name if name.ends_with("ForCausalLM") => Ok(HeadKind::LanguageModel),
            name if name.ends_with("ForSequenceClassification") => Ok(HeadKind::SequenceClassification { labels }),
            // It says a number for each step, at a mark of its own (`<extra_0>`); at the last token it says nothing.
            name if name.ends_with("ForProcessRewardModel") => Err(LmError::config(
                "architectures",
                format!(
                    "is {name:?}: a process reward model rates the steps of an answer at marks between them, and is not \
                     supported; use a reward model of whole answers (ForSequenceClassification), or a language model \
                     (ForCausalLM) with the mode `label_logprob` or `generate`"
                ),
            )),
            other => Err(LmError::config(
                "architectures",
                format!("is {other:?}; known ends are ForCausalLM and ForSequenceClassification"),
            )),
        }
    }

    fn activation(&self, family: Family) -> Result<Activation, LmError> {
        let key = if family == Family::Gemma2 { "hidden_activation" } else { "hidden_act" };
        match (self.text(key)?, family) {
            (Some("gelu_pytorch_tanh"), _) | (None, Family::Gemma2) => Ok(Activation::GeluTanh),
            (Some("silu" | "swish") | None, _) => Ok(Activation::Silu),
            (Some(other), _) => {
                Err(LmError::config(key, format!("is {other:?}; known are silu and gelu_pytorch_tanh")))
            }
        }
    }

    fn qkv_bias(&self, family: Family) -> Result<bool, LmError> {
        match (self.flag("attention_bias")?.unwrap_or(false), family) {
            (_, Family::Qwen2) => Ok(true),
            (false, _) => Ok(false),
            (true, _) => Err(LmError::config("attention_bias", "is true, which is not supported for this model_type")),
        }
    }

    fn softcap(&self, key: &str, family: Family) -> Result<Option<f64>, LmError> {
        Ok(self.number(key)?.filter(|_| family == Family::Gemma2))
    }

    /// `layer_types` where given; otherwise each family's own rule.
    fn windows(&self, family: Family, layers: usize) -> Result<Vec<Option<usize>>, LmError> {
        let window = self.size_or("sliding_window", 0)?;
        let window = (window > 0).then_some(window);
        if let Some(types) = self.0.get("layer_types").and_then(Value::as_array) {
            if types.len() != layers {
                let problem = format!("has {} entries for {layers} layers", types.len());
                return Err(LmError::config("layer_types", problem));
            }
            return types.iter().map(|kind| Self::window_of(kind, window)).collect();
        }
        Ok(match family {
            Family::Llama => vec![None; layers],
            Family::Mistral => vec![window; layers],
            Family::Gemma2 => (0..layers).map(|layer| window.filter(|_| layer % 2 == 0)).collect(),
            Family::Qwen2 | Family::Qwen3 => {
                let Some(window) = window.filter(|_| self.0.get("use_sliding_window") == Some(&Value::Bool(true)))
                else {
                    return Ok(vec![None; layers]);
                };
                let first = match self.0.get("max_window_layers") {
                    Some(value) if value.as_u64() == Some(0) => 0,
                    _ => self.size_or("max_window_layers", USUAL_WINDOW_START)?,
                };
                (0..layers).map(|layer| (layer >= first).then_some(window)).collect()
            }
        })
    }

    fn window_of(kind: &Value, window: Option<usize>) -> Result<Option<usize>, LmError> {
        match (kind.as_str(), window) {
            (Some("full_attention"), _) => Ok(None),
            (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
            (Some("sliding_attention"), None) => Err(LmError::config("sliding_window", "is missing")),
            _ => Err(LmError::config(
                "layer_types",
                format!("has {kind}; known are \"full_attention\" and \"sliding_attention\""),
            )),
        }
    }

    /// 5.x keeps rope's options in `rope_parameters`, 4.x in `rope_scaling` with the base beside it.
    fn rope(&self) -> Keys<'_> {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let found = ["rope_parameters", "rope_scaling"].iter().find_map(|key| self.0.get(*key)?.as_object());
        Keys(found.unwrap_or(&NONE))
    }

    fn rope_scaling(&self, context: usize) -> Result<RopeScaling, LmError> {
        let kind = self.text("rope_type")?.or(self.text("type")?).unwrap_or("default");
        let factor =
            || self.number("factor")?.ok_or_else(|| LmError::config("factor", "is missing from rope's options"));
        let original = self.number("original_max_position_embeddings")?.unwrap_or(context as f64);
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: self.number("low_freq_factor")?.unwrap_or(1.0),
                high_freq_factor: self.number("high_freq_factor")?.unwrap_or(4.0),
                original_context: original,
            }),
            "yarn" => {
                let factor = factor()?;
                Ok(RopeScaling::Yarn {
                    factor,
                    beta_slow: self.number("beta_slow")?.unwrap_or(1.0),
                    beta_fast: self.number("beta_fast")?.unwrap_or(32.0),
                    attention_factor: self.attention_factor(factor)?,
                    truncate: self.flag("truncate")?.unwrap_or(true),
                    original_context: original,
                })
            }
            other => {
                Err(LmError::config("rope_type", format!("is {other:?}; known are default, linear, llama3 and yarn")))
            }
        }
    }

    /// `YaRN`'s; `mscale` and `mscale_all_dim` count together only, and 0 is as good as none, as transformers has it.
    fn attention_factor(&self, factor: f64) -> Result<f64, LmError> {
        let of = |scale: f64| 0.1 * scale * factor.max(1.0).ln() + 1.0;
        let given = |key: &str| match self.0.get(key).and_then(Value::as_f64) {
            Some(0.0) => Ok(None),
            _ => self.number(key),
        };
        let scales = given("mscale")?.zip(given("mscale_all_dim")?);
        let otherwise = scales.map_or_else(|| of(1.0), |(scale, all)| of(scale) / of(all));
        Ok(self.number("attention_factor")?.unwrap_or(otherwise))
    }

    /// Options that would change the numbers if they were passed over.
    fn refuse_unknown_options(&self) -> Result<(), LmError> {
        for keys in [self.0, self.rope().0] {
            if Keys(keys).number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
                return Err(LmError::config("partial_rotary_factor", "is not 1, which is not supported"));
            }
        }
        for key in ["mlp_bias", "use_bidirectional_attention"] {
            if self.flag(key)? == Some(true) {
                return Err(LmError::config(key, "is true, which is not supported"));
            }
        }
        if self.0.contains_key("quantization_config") {
            let problem =
                "is given: quantised safetensors are not supported; use the unquantised weights or a GGUF file";
            return Err(LmError::config("quantization_config", problem));
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<Option<&str>, LmError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(LmError::config(key, format!("is {other}; it must be a string"))),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, LmError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(LmError::config(key, format!("is {other}; it must be true or false"))),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, LmError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
                Some(number) => Ok(Some(number)),
                None => Err(LmError::config(key, format!("is {value}; it must be a number above 0"))),
            },
        }
    }

    /// A count, or `otherwise` where it is not given.
    pub(super) fn size_or(&self, key: &str, otherwise: usize) -> Result<usize, LmError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(otherwise),
            Some(value) => match value.as_u64().filter(|size| (1..=1 << 31).contains(size)) {
                Some(size) => Ok(usize::try_from(size).unwrap_or(usize::MAX)),
                None => Err(LmError::config(key, format!("is {value}; it must be a whole number above 0"))),
            },
        }
    }

    /// A count that must be given.
    pub(super) fn size(&self, key: &str) -> Result<usize, LmError> {
        match self.size_or(key, 0)? {
            0 => Err(LmError::config(key, "is missing")),
            size => Ok(size),
        }
    }

    fn tokens(&self, key: &str) -> Result<Vec<u32>, LmError> {
        let wrong =
            |value: &Value| LmError::config(key, format!("is {value}; it must be a token's number, or several"));
        let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong(value));
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(token).collect(),
            Some(value) => Ok(vec![token(value)?]),
        }
    }
}
