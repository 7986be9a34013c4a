//! The decoder: tokens of a packed batch to hidden states, and those to logits or rewards. Inference only.
//!
//! One code for all families; what differs between them is in [`ModelConfig`] and in which weights a layer has. On the
//! CPU it computes in float32 with plain tensor operations, on a GPU in 16 bits with fused kernels. The state that the
//! layers add to is float32 on both, and so are the products that are added to it: rounded after every layer, it would
//! lose what a deep model's layers add, and some models' states are beyond float16.
//!
//! The 16 bits are those of the weights. A judge's are float16 whatever its files have: bfloat16's numbers fit it (those
//! below 6e-5 to within 3e-8), and what is rounded on the way has eight times the precision. A policy in training keeps
//! its bfloat16.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::LmError;
use super::config::{Family, HeadKind, ModelConfig};
use super::kernels::Fused;
use super::kv::KvPool;
use super::ops::{Addition, HeadWeights, Plan};
use super::packed::Packed;
use super::pieces;
use super::plain;
use super::rope::RopeTable;
use super::sample::{self, Choice, Drawn};
use super::weights::Weights;

/// A model in memory.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    /// Float32, as the states are.
    norm: Tensor,
    head: Head,
    rope: RopeTable,
    fused: Option<Fused>,
    hash: blake3::Hash,
}

/// One layer's weights. A packed weight is `[out, in]`, its parts one under the other.
#[derive(Debug)]
struct Layer {
    input_norm: Tensor,
    qkv: Tensor,
    qkv_bias: Option<Tensor>,
    head_norms: Option<(Tensor, Tensor)>,
    output: Tensor,
    /// Gemma 2 norms what the attention gives before it is added.
    after_attention: Option<Tensor>,
    mlp_norm: Tensor,
    gate_up: Tensor,
    down: Tensor,
    /// Gemma 2 norms what the feed-forward layer gives before it is added.
    after_mlp: Option<Tensor>,
}

#[derive(Debug)]
enum Head {
    /// `[vocab, hidden]`.
    LanguageModel(Tensor),
    /// `[labels, hidden]`, in float32.
    Classification(Tensor),
}

/// Which rows' states the last layer gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    /// Every segment's last one.
    Last,
}

impl Decoder {
    /// Loads a Hugging Face directory: float32 on the CPU, float16 on a GPU. `context` bounds the positions.
    ///
    /// # Errors
    /// [`LmError`] names the key, the tensor or the file that is wrong.
    pub fn load(dir: &Path, device: &Device, context: Option<usize>) -> Result<Self, LmError> {
        let config = ModelConfig::read(dir)?;
        let dtype = if device.is_cpu() { DType::F32 } else { DType::F16 };
        let weights = Weights::open(dir, dtype, device)?;
        Self::new(config, &weights, context)
    }

    /// Takes a model's weights.
    ///
    /// # Errors
    /// [`LmError::Weight`] for one that is missing or has another shape.
    pub fn new(mut config: ModelConfig, weights: &Weights, context: Option<usize>) -> Result<Self, LmError> {
        config.context = context.map_or(config.context, |context| context.min(config.context));
        let device = weights.device().clone();
        let base = if weights.has("embed_tokens.weight") { "" } else { "model." };
        let embedding = weights.get(&format!("{base}embed_tokens.weight"), &[config.vocab, config.hidden])?;
        let layer = |index| Layer::new(&format!("{base}layers.{index}."), &config, weights);
        let layers = (0..config.layers).map(layer).collect::<Result<_, _>>()?;
        let norm = norm_weight(weights, &format!("{base}norm.weight"), config.hidden, config.family)?;
        let norm = norm.to_dtype(DType::F32)?;
        let head = Head::new(&config, weights, &embedding)?;
        let rope = RopeTable::new(&config, config.context, &device)?;
        let fused = Fused::for_device(&device, &config, embedding.dtype())?;
        Ok(Self { embedding, layers, norm, head, rope, fused, hash: weights.hash(), config })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The number format of its activations.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// A hash of all its weights.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// Runs the layers over a batch, filling the slots of its tokens. Gives the last layer's states of all rows,
    /// `[rows, hidden]` in float32, before the last norm.
    ///
    /// # Errors
    /// [`LmError::TooLong`] for a sequence beyond the context; [`LmError::Compute`].
    pub fn forward(&self, packed: &Packed, pool: &mut KvPool) -> Result<Tensor, LmError> {
        self.check(packed)?;
        self.run(packed, pool, Rows::All)
    }

    /// The same, but gives the states of every segment's last row only, `[segments, hidden]`: the last layer computes no
    /// others.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_last(&self, packed: &Packed, pool: &mut KvPool) -> Result<Tensor, LmError> {
        self.check(packed)?;
        match self.fused {
            Some(_) => self.run(packed, pool, Rows::Last),
            None => pieces::forward_last(packed, |piece| self.run(piece, pool, Rows::Last)),
        }
    }

    fn run(&self, packed: &Packed, pool: &KvPool, wanted: Rows) -> Result<Tensor, LmError> {
        let config = &self.config;
        let new_plan = |packed| Plan::new(self.fused.as_ref(), packed, config, &self.rope);
        let plan = new_plan(packed)?;
        let last = (wanted == Rows::Last).then(|| packed.last_rows());
        let last = last.as_ref().map(|(last, rows)| Ok::<_, LmError>((new_plan(last)?, rows))).transpose()?;
        let mut state = plain::embed(&self.embedding, &packed.tokens)?.to_dtype(DType::F32)?;
        if config.family == Family::Gemma2 {
            // The factor is rounded to the weights' format, as the reference does.
            let factor = Tensor::new((config.hidden as f32).sqrt(), state.device())?.to_dtype(self.dtype())?;
            state = state.broadcast_mul(&factor.to_dtype(DType::F32)?)?;
        }
        let layers = self.layers.iter().zip(&pool.layers).zip(&config.windows);
        for (index, ((layer, kv), window)) in layers.enumerate() {
            let x = plan.norm(&state, &layer.input_norm, config.norm_eps)?;
            let weights = HeadWeights { bias: layer.qkv_bias.as_ref(), norms: layer.head_norms.as_ref() };
            let mut q = plan.rotate_and_store(&plain::linear(&x, &layer.qkv)?, &weights, kv)?;
            let mut plan = &plan;
            if let Some((last_plan, rows)) = last.as_ref().filter(|_| index + 1 == config.layers) {
                (q, state) = (plain::rows(&q, rows)?, plain::rows(&state, rows)?);
                plan = last_plan;
            }
            let attended = plan.attention(&q, kv, *window)?;
            let addition = |weight, norm| Addition { weight, norm, eps: config.norm_eps };
            plan.add_linear(&state, &attended, &addition(&layer.output, layer.after_attention.as_ref()))?;
            let x = plan.norm(&state, &layer.mlp_norm, config.norm_eps)?;
            let fed = plan.gated(&plain::linear(&x, &layer.gate_up)?, config)?;
            plan.add_linear(&state, &fed, &addition(&layer.down, layer.after_mlp.as_ref()))?;
        }
        Ok(state)
    }

    fn check(&self, packed: &Packed) -> Result<(), LmError> {
        let longest = packed.segments.iter().map(super::packed::Segment::total).max().unwrap_or(0);
        self.config.check(longest, &packed.tokens)
    }

    /// The last norm of some rows of the states, `[rows, hidden]` in float32.
    fn normed(&self, states: &Tensor, rows: &[usize]) -> Result<Tensor, LmError> {
        plain::norm(&plain::rows(states, rows)?, &self.norm, self.config.norm_eps)
    }

    /// The logits of some rows of the states, `[rows, vocab]`, in float32.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for a reward model.
    pub fn logits(&self, states: &Tensor, rows: &[usize]) -> Result<Tensor, LmError> {
        self.project(&self.normed(states, rows)?, self.vocabulary_head()?)
    }

    fn vocabulary_head(&self) -> Result<&Tensor, LmError> {
        match &self.head {
            Head::LanguageModel(head) => Ok(head),
            Head::Classification(_) => {
                Err(LmError::Unsupported("this model gives rewards and no tokens; use mode `reward_model`".to_owned()))
            }
        }
    }

    /// The logits of normed rows for the tokens of a head, `[tokens, hidden]`, computed in the head's number format.
    fn project(&self, normed: &Tensor, head: &Tensor) -> Result<Tensor, LmError> {
        self.capped(plain::linear(&normed.to_dtype(head.dtype())?, head)?.to_dtype(DType::F32)?)
    }

    fn capped(&self, logits: Tensor) -> Result<Tensor, LmError> {
        match self.config.logit_softcap {
            Some(cap) => Ok(((logits / cap)?.tanh()? * cap)?),
            None => Ok(logits),
        }
    }

    /// The natural logarithms of some tokens' probabilities, for some rows of the states: for each row its own tokens.
    ///
    /// On a GPU the tokens' own logits are computed in float32: rounded to bfloat16, a logit near 4 would be off by up to
    /// 0.016, to float16 by 0.002. The sum over the vocabulary needs no such care.
    ///
    /// # Errors
    /// As [`Self::logits`].
    pub fn token_logprobs(&self, states: &Tensor, rows: &[usize], tokens: &[&[u32]]) -> Result<Vec<Vec<f64>>, LmError> {
        let (normed, head) = (self.normed(states, rows)?, self.vocabulary_head()?);
        let logits = self.project(&normed, head)?;
        if self.fused.is_none() {
            let logprobs = plain::log_softmax(&logits)?.to_vec2::<f32>()?;
            let of = |(row, tokens): (&Vec<f32>, &&[u32])| {
                tokens.iter().map(|token| row.get(*token as usize).map_or(f64::NAN, |lp| f64::from(*lp))).collect()
            };
            return Ok(logprobs.iter().zip(tokens).map(of).collect());
        }
        let total = logits.log_sum_exp(1)?.to_vec1::<f32>()?;
        let mut wanted: Vec<u32> = tokens.concat();
        wanted.sort_unstable();
        wanted.dedup();
        let head = head.index_select(&Tensor::new(wanted.as_slice(), head.device())?, 0)?.to_dtype(DType::F32)?;
        let exact = self.project(&normed, &head)?.to_vec2::<f32>()?;
        let place = |token: &u32| wanted.binary_search(token).unwrap_or(usize::MAX);
        let of = |((row, total), tokens): ((&Vec<f32>, &f32), &&[u32])| {
            let logit = |token: &u32| row.get(place(token)).map_or(f64::NAN, |logit| f64::from(*logit));
            tokens.iter().map(|token| logit(token) - f64::from(*total)).collect()
        };
        Ok(exact.iter().zip(&total).zip(tokens).map(of).collect())
    }

    /// A token for every row of logits, `[rows, vocab]`.
    pub(super) fn draw(
        &self,
        logits: &Tensor,
        choices: &[Result<Choice, LmError>],
    ) -> Result<Vec<Result<Drawn, LmError>>, LmError> {
        match &self.fused {
            Some(fused) => fused.draw(logits, choices),
            None => Ok(sample::draw_rows(&logits.to_vec2::<f32>()?, choices)),
        }
    }

    /// What a reward model says of some rows of the states, `[rows, labels]`, in float32.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for a language model.
    pub fn rewards(&self, states: &Tensor, rows: &[usize]) -> Result<Tensor, LmError> {
        let x = self.normed(states, rows)?;
        match &self.head {
            Head::LanguageModel(_) => {
                let why = "this model gives tokens and no rewards; use mode `label_logprob` or `generate`";
                Err(LmError::Unsupported(why.to_owned()))
            }
            Head::Classification(head) => Ok(plain::linear(&x, head)?),
        }
    }
}

impl Layer {
    fn new(base: &str, config: &ModelConfig, weights: &Weights) -> Result<Self, LmError> {
        let (hidden, dim, gemma) = (config.hidden, config.head_dim, config.family == Family::Gemma2);
        let heads = config.heads * dim;
        let qkv = |kind: &str| {
            let part = |name: &str, heads: usize| (format!("{base}self_attn.{name}_proj.{kind}"), heads * dim);
            [part("q", config.heads), part("k", config.kv_heads), part("v", config.kv_heads)]
        };
        let norm = |name: &str, width| norm_weight(weights, &format!("{base}{name}.weight"), width, config.family);
        let linear =
            |name: &str, shape: &[usize]| plain::laid_out(weights.get(&format!("{base}{name}.weight"), shape)?);
        let mlp = |name: &str| (format!("{base}mlp.{name}_proj.weight"), config.intermediate);
        let qkv_bias = config.qkv_bias.then(|| weights.stack(&qkv("bias"), None)).transpose()?;
        let head_norms = (config.family == Family::Qwen3)
            .then(|| Ok::<_, LmError>((norm("self_attn.q_norm", dim)?, norm("self_attn.k_norm", dim)?)))
            .transpose()?;
        Ok(Self {
            input_norm: norm("input_layernorm", hidden)?,
            qkv: plain::laid_out(weights.stack(&qkv("weight"), Some(hidden))?)?,
            qkv_bias,
            head_norms,
            output: linear("self_attn.o_proj", &[hidden, heads])?,
            after_attention: gemma.then(|| norm("post_attention_layernorm", hidden)).transpose()?,
            mlp_norm: norm(if gemma { "pre_feedforward_layernorm" } else { "post_attention_layernorm" }, hidden)?,
            gate_up: plain::laid_out(weights.stack(&[mlp("gate"), mlp("up")], Some(hidden))?)?,
            down: linear("mlp.down_proj", &[hidden, config.intermediate])?,
            after_mlp: gemma.then(|| norm("post_feedforward_layernorm", hidden)).transpose()?,
        })
    }
}

/// A norm's weight. Gemma stores it less 1.
fn norm_weight(weights: &Weights, name: &str, width: usize, family: Family) -> Result<Tensor, LmError> {
    let weight = weights.get(name, &[width])?;
    Ok(if family == Family::Gemma2 { (weight + 1.0)? } else { weight })
}

impl Head {
    fn new(config: &ModelConfig, weights: &Weights, embedding: &Tensor) -> Result<Self, LmError> {
        let hidden = config.hidden;
        match config.head {
            HeadKind::LanguageModel if config.tied => Ok(Self::LanguageModel(plain::laid_out(embedding.clone())?)),
            HeadKind::LanguageModel => {
                Ok(Self::LanguageModel(plain::laid_out(weights.get("lm_head.weight", &[config.vocab, hidden])?)?))
            }
            HeadKind::SequenceClassification { labels } => {
                // Small beside a vocabulary's: it keeps the states' number format.
                let score = weights.get("score.weight", &[labels, hidden])?.to_dtype(DType::F32)?;
                Ok(Self::Classification(plain::laid_out(score)?))
            }
        }
    }
}
