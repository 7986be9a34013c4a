//! The decoder in training: a forward pass that remembers, and its backward.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::batch::{Predictions, Sequences};
use super::head::{Head, HeadOutputs, column};
use super::layer::{Context, Layer, Trace};
use super::linear::Linear;
use super::ops::{Ops, Plan};
use super::parameters::{Gradients, Id, Parameters};
use crate::lm::LmError;
use crate::lm::config::{Family, HeadKind, ModelConfig};
use crate::lm::decoder::Decoder;
use crate::lm::rope::RopeTable;
use crate::lm::weights::Weights;

/// What is kept of a forward pass for the backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// What each layer computed: fastest.
    #[default]
    Keep,
    /// Each layer's input; the layer is computed again in the backward. A fifth of the memory, a third more time.
    Recompute,
}

/// A model that learns. Families: Qwen2, Qwen3, Llama.
#[derive(Debug)]
pub struct TrainableDecoder {
    pub(super) config: ModelConfig,
    pub(super) parameters: Parameters,
    pub(super) layers: Vec<Layer>,
    embedding: Id,
    head: Head,
    rope: RopeTable,
    ops: Ops,
    activations: Activations,
}

/// What a pass says of its predictions, on the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenOutputs {
    /// Natural logarithm of each target's probability, at the temperature.
    pub logprobs: Vec<f64>,
    /// Entropy of each row's distribution, in nats.
    pub entropies: Vec<f64>,
    /// The critic's value of each row; empty without a critic.
    pub values: Vec<f64>,
}

/// A forward pass that can go back.
pub struct Pass<'d> {
    decoder: &'d TrainableDecoder,
    plan: Plan<'d>,
    batch: &'d Sequences,
    predictions: &'d Predictions,
    kept: Vec<Kept>,
    said: HeadOutputs,
}

enum Kept {
    All(Box<Trace>),
    Input(Tensor),
}

impl TrainableDecoder {
    /// Loads a Hugging Face directory: float32 on the CPU, bfloat16 on a GPU.
    ///
    /// # Errors
    /// [`LmError`] names the key, the tensor or the file that is wrong.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, LmError> {
        Self::load_as(dir, device, if device.is_cpu() { DType::F32 } else { DType::BF16 })
    }

    /// Loads a Hugging Face directory in some float format: on the CPU float32, or float64 to check numbers by.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_as(dir: &Path, device: &Device, dtype: DType) -> Result<Self, LmError> {
        Self::new(ModelConfig::read(dir)?, &Weights::open(dir, dtype, device)?)
    }

    /// Takes a model's weights.
    ///
    /// # Errors
    /// [`LmError::Weight`] for one that is missing or has another shape; [`LmError::Unsupported`] for a family that is not
    /// trained here, a window or a reward head.
    pub fn new(config: ModelConfig, weights: &Weights) -> Result<Self, LmError> {
        check(&config)?;
        let mut parameters = Parameters::default();
        let (hidden, vocab) = (config.hidden, config.vocab);
        let mut one = |name: &str, shape: &[usize]| -> Result<Id, LmError> {
            let rows = shape.first().copied().unwrap_or(0);
            Ok(parameters.add(vec![(name.to_owned(), rows)], weights.get(name, shape)?))
        };
        let embedding = one("model.embed_tokens.weight", &[vocab, hidden])?;
        let norm = one("model.norm.weight", &[hidden])?;
        let vocabulary = if config.tied { embedding } else { one("lm_head.weight", &[vocab, hidden])? };
        let layers = (0..config.layers).map(|index| layer(index, &config, weights, &mut parameters));
        let layers = layers.collect::<Result<_, _>>()?;
        let head = Head { norm, vocabulary, value: None, temperature: 1.0, eps: config.norm_eps };
        let rope = RopeTable::new(&config, config.context, weights.device())?;
        let ops = Ops::for_device(weights.device())?;
        // The kernels rotate in float32 whatever the activations are.
        let dtype = if weights.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let rope = RopeTable { cos: rope.cos.to_dtype(dtype)?, sin: rope.sin.to_dtype(dtype)? };
        Ok(Self { config, parameters, layers, embedding, head, rope, ops, activations: Activations::default() })
    }

    /// Sets what is kept of a forward pass.
    #[must_use]
    pub fn keeping(mut self, activations: Activations) -> Self {
        self.activations = activations;
        self
    }

    /// Sets what logits are divided by, which must be what the sampler divides them by. Above 0.
    #[must_use]
    pub fn at_temperature(mut self, temperature: f64) -> Self {
        self.head.temperature = temperature;
        self
    }

    /// Adds a critic on the last norm, `[hidden]` numbers.
    ///
    /// # Errors
    /// [`LmError::Compute`] for another count.
    pub fn with_value_head(mut self, weights: &[f32]) -> Result<Self, LmError> {
        let embedding = self.parameters.value(self.embedding);
        let value = Tensor::from_slice(weights, (1, self.config.hidden), embedding.device())?;
        let value = value.to_dtype(embedding.dtype())?;
        self.head.value = Some(self.parameters.add(vec![("value_head.weight".to_owned(), 1)], value));
        Ok(self)
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its numbers.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    pub(super) fn parts_mut(&mut self) -> (&Ops, &mut Parameters) {
        (&self.ops, &mut self.parameters)
    }

    #[cfg(test)]
    pub(super) fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Takes every parameter's numbers by [`Parameter::name`](super::Parameter::name), as a checkpoint holds them.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] when one is missing or has another shape.
    pub fn restore(&mut self, values: &BTreeMap<String, Tensor>) -> Result<(), LmError> {
        for parameter in self.parameters.iter_mut() {
            let name = parameter.name();
            match values.get(&name).filter(|value| value.shape() == parameter.value.shape()) {
                Some(value) => {
                    let (dtype, device) = (parameter.value.dtype(), parameter.value.device().clone());
                    parameter.value = value.to_dtype(dtype)?.to_device(&device)?;
                }
                None => {
                    return Err(LmError::Unsupported(format!(
                        "the checkpoint lacks `{name}`, or it has another shape"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        self.parameters.value(self.embedding).device()
    }

    /// The Euclidean norm of gradients.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn gradient_norm(&self, gradients: &Gradients) -> Result<f64, LmError> {
        gradients.norm(&self.ops)
    }

    /// What the model says of the predictions; remembers nothing.
    ///
    /// # Errors
    /// [`LmError::TooLong`] for a sequence beyond the context; [`LmError::Compute`].
    pub fn score(&self, batch: &Sequences, predictions: &Predictions) -> Result<TokenOutputs, LmError> {
        self.check(batch)?;
        if predictions.is_empty() {
            return Ok(TokenOutputs::default());
        }
        let plan = self.ops.plan(batch, &self.config, &self.rope)?;
        let context = self.context(&plan);
        let mut state = self.embedded(batch)?;
        for layer in &self.layers {
            state = layer.forward(&context, &state)?.0;
        }
        self.head.forward(&self.ops, &self.parameters, &state, predictions)?.outputs()
    }

    /// A pass that can go back.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn forward<'d>(&'d self, batch: &'d Sequences, predictions: &'d Predictions) -> Result<Pass<'d>, LmError> {
        self.check(batch)?;
        let plan = self.ops.plan(batch, &self.config, &self.rope)?;
        let context = self.context(&plan);
        let (mut state, mut kept) = (self.embedded(batch)?, Vec::with_capacity(self.layers.len()));
        for layer in &self.layers {
            let (next, trace) = layer.forward(&context, &state)?;
            kept.push(match self.activations {
                Activations::Keep => Kept::All(Box::new(trace)),
                Activations::Recompute => Kept::Input(state),
            });
            state = next;
        }
        let said = self.head.forward(&self.ops, &self.parameters, &state, predictions)?;
        Ok(Pass { decoder: self, plan, batch, predictions, kept, said })
    }

    /// A decoder with these numbers, adapters merged, for generation.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn snapshot(&self) -> Result<Decoder, LmError> {
        let weights = Weights::given(self.merged()?, self.device());
        Decoder::new(self.config.clone(), &weights, None)
    }

    /// A copy that shares nothing, and learns nothing: a reference.
    ///
    /// # Errors
    /// [`LmError::Compute`] when the device's memory is too small.
    pub fn frozen(&self) -> Result<Self, LmError> {
        let mut parameters = self.parameters.clone();
        parameters.freeze_all();
        for parameter in parameters.iter_mut() {
            // On a GPU a step writes into the parameters where they are.
            parameter.value = parameter.value.copy()?;
        }
        Ok(Self {
            config: self.config.clone(),
            parameters,
            layers: self.layers.clone(),
            embedding: self.embedding,
            head: self.head.clone(),
            rope: self.rope.clone(),
            ops: Ops::for_device(self.device())?,
            activations: self.activations,
        })
    }

    fn context<'c>(&'c self, plan: &'c Plan<'c>) -> Context<'c> {
        Context { parameters: &self.parameters, config: &self.config, plan }
    }

    fn embedded(&self, batch: &Sequences) -> Result<Tensor, LmError> {
        crate::lm::plain::embed(self.parameters.value(self.embedding), &batch.tokens)
    }

    fn check(&self, batch: &Sequences) -> Result<(), LmError> {
        let longest = batch.rows.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        self.config.check(longest, &batch.tokens)
    }
}

impl HeadOutputs {
    fn outputs(&self) -> Result<TokenOutputs, LmError> {
        let values = self.values.as_ref().map_or(Ok(Vec::new()), column)?;
        Ok(TokenOutputs { logprobs: column(&self.logprobs)?, entropies: column(&self.entropies)?, values })
    }
}

impl Pass<'_> {
    /// What the model says of the predictions.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn outputs(&self) -> Result<TokenOutputs, LmError> {
        self.said.outputs()
    }

    /// Adds to `gradients` what a loss has, given its derivatives by each log-probability and, with a critic, by each value.
    ///
    /// # Errors
    /// [`LmError::Compute`]; [`LmError::NotFinite`] when a derivative is no number.
    pub fn backward(self, d_logprobs: &[f64], d_values: &[f64], gradients: &mut Gradients) -> Result<(), LmError> {
        if d_logprobs.iter().chain(d_values).any(|slope| !slope.is_finite()) {
            return Err(LmError::NotFinite("the derivative of the loss by a token's log-probability or value"));
        }
        let (decoder, ops) = (self.decoder, &self.decoder.ops);
        let context = decoder.context(&self.plan);
        let to_device = |slopes: &[f64]| {
            let dtype = self.said.logprobs.dtype();
            Tensor::new(slopes, &Device::Cpu)?.to_dtype(dtype)?.to_device(decoder.device())
        };
        let d_values = (!d_values.is_empty()).then(|| to_device(d_values)).transpose()?;
        let mut d_state = decoder.head.backward(
            ops,
            &decoder.parameters,
            (&self.said, self.predictions, self.batch.tokens.len()),
            (&to_device(d_logprobs)?, d_values.as_ref()),
            gradients,
        )?;
        drop(self.said);
        // Popped, so that a layer's activations are gone once they are used.
        let mut kept = self.kept;
        for layer in decoder.layers.iter().rev() {
            let trace = match kept.pop() {
                Some(Kept::All(trace)) => *trace,
                Some(Kept::Input(input)) => layer.forward(&context, &input)?.1,
                None => break,
            };
            d_state = layer.backward(&context, &trace, &d_state, gradients)?;
        }
        match gradients.total(decoder.embedding) {
            Some(total) => ops.embedding_backward(&d_state, &self.batch.tokens, total),
            None => Ok(()),
        }
    }
}

/// A model that cannot be trained here.
fn check(config: &ModelConfig) -> Result<(), LmError> {
    let why = match (config.family, config.head) {
        (Family::Gemma2 | Family::Mistral, _) => "this model family; known are Qwen2, Qwen3 and Llama",
        (_, HeadKind::SequenceClassification { .. }) => "a reward model; the policy must be a language model",
        _ if config.windows.iter().any(Option::is_some) => {
            "sliding-window attention; set `use_sliding_window` to false"
        }
        _ => return Ok(()),
    };
    Err(LmError::Unsupported(format!("training knows no {why}")))
}

/// Takes a layer's weights.
fn layer(index: usize, config: &ModelConfig, weights: &Weights, parameters: &mut Parameters) -> Result<Layer, LmError> {
    let base = format!("model.layers.{index}.");
    let (hidden, dim, inner) = (config.hidden, config.head_dim, config.intermediate);
    let mut packed = |parts: &[(&str, usize)], kind: &str, width: Option<usize>| -> Result<Id, LmError> {
        let parts: Vec<(String, usize)> =
            parts.iter().map(|(name, rows)| (format!("{base}{name}.{kind}"), *rows)).collect();
        let value = weights.stack(&parts, width)?;
        Ok(parameters.add(parts, value))
    };
    let heads = [
        ("self_attn.q_proj", config.heads * dim),
        ("self_attn.k_proj", config.kv_heads * dim),
        ("self_attn.v_proj", config.kv_heads * dim),
    ];
    let mlp = [("mlp.gate_proj", inner), ("mlp.up_proj", inner)];
    let bare = |weight| Linear { weight, adapters: Vec::new() };
    let input_norm = packed(&[("input_layernorm", hidden)], "weight", None)?;
    let qkv = bare(packed(&heads, "weight", Some(hidden))?);
    let qkv_bias = if config.qkv_bias { Some(packed(&heads, "bias", None)?) } else { None };
    let head_norms = if config.family == Family::Qwen3 {
        let mut norm = |name| packed(&[(name, dim)], "weight", None);
        Some((norm("self_attn.q_norm")?, norm("self_attn.k_norm")?))
    } else {
        None
    };
    Ok(Layer {
        input_norm,
        qkv,
        qkv_bias,
        head_norms,
        output: bare(packed(&[("self_attn.o_proj", hidden)], "weight", Some(config.heads * dim))?),
        mlp_norm: packed(&[("post_attention_layernorm", hidden)], "weight", None)?,
        gate_up: bare(packed(&mlp, "weight", Some(hidden))?),
        down: bare(packed(&[("mlp.down_proj", hidden)], "weight", Some(inner))?),
    })
}
