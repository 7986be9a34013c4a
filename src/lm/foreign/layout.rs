//! What a GGUF file must hold for each architecture. In: its header. Out: a checked [`Layout`]. A tensor or an option that
//! the model's code would pass over is an error that names it: the numbers would be wrong without it.

use candle_core::quantized::gguf_file::Value;

use crate::lm::LmError;
use crate::lm::gguf::Gguf;

/// Longest context of a model out of a GGUF file, in tokens: its code keeps every attention mask that it made, up to
/// twice the square of this in bytes.
const MAX_CONTEXT: usize = 16_384;
/// Of Llama, whose rotary table has this length.
const MAX_LLAMA_CONTEXT: usize = candle_transformers::models::quantized_llama::MAX_SEQ_LEN;
/// Of Phi 3, whose keys take the memory of the whole context at once.
const MAX_PHI3_CONTEXT: usize = 4096;
/// Most layers: more is a broken file.
const MAX_LAYERS: usize = 1024;

/// The architectures that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Llama 2 and 3.0, and what is converted to it, such as Mistral.
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// Phi 3 with its plain rotary embedding.
    Phi3,
}

/// A model's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) architecture: Architecture,
    /// Size of the vocabulary.
    pub(super) vocab: usize,
    /// Longest sequence, in tokens.
    pub(super) context: usize,
}

/// The widths that the tensors are made of.
#[derive(Debug, Clone, Copy)]
struct Widths {
    hidden: usize,
    inner: usize,
    queries: usize,
    keys: usize,
    head: usize,
    layers: usize,
}

impl Architecture {
    fn of(gguf: &Gguf) -> Result<Self, LmError> {
        match gguf.text("general.architecture") {
            Some("llama") => Ok(Self::Llama),
            Some("qwen2") => Ok(Self::Qwen2),
            Some("qwen3") => Ok(Self::Qwen3),
            Some("phi3") => Ok(Self::Phi3),
            Some(other) => Err(gguf.wrong(format!(
                "`general.architecture` is {other:?}; GGUF files of llama, qwen2, qwen3 and phi3 run here. Use the \
                 model's safetensors, or a server such as vLLM"
            ))),
            None => Err(gguf.wrong("`general.architecture` is missing")),
        }
    }

    /// How its options are prefixed.
    fn prefix(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Phi3 => "phi3",
        }
    }

    fn most_context(self) -> usize {
        match self {
            Self::Llama => MAX_LLAMA_CONTEXT,
            Self::Phi3 => MAX_PHI3_CONTEXT,
            Self::Qwen2 | Self::Qwen3 => MAX_CONTEXT,
        }
    }

    /// A layer's tensors and their shapes.
    fn layer(self, w: Widths) -> Vec<(&'static str, Vec<usize>)> {
        let mut all = vec![
            ("attn_norm.weight", vec![w.hidden]),
            ("attn_output.weight", vec![w.hidden, w.queries]),
            ("ffn_norm.weight", vec![w.hidden]),
            ("ffn_down.weight", vec![w.hidden, w.inner]),
        ];
        if self == Self::Phi3 {
            all.push(("attn_qkv.weight", vec![w.queries + 2 * w.keys, w.hidden]));
            all.push(("ffn_up.weight", vec![2 * w.inner, w.hidden]));
            return all;
        }
        all.extend([
            ("attn_q.weight", vec![w.queries, w.hidden]),
            ("attn_k.weight", vec![w.keys, w.hidden]),
            ("attn_v.weight", vec![w.keys, w.hidden]),
            ("ffn_gate.weight", vec![w.inner, w.hidden]),
            ("ffn_up.weight", vec![w.inner, w.hidden]),
        ]);
        match self {
            Self::Qwen2 => all.extend([
                ("attn_q.bias", vec![w.queries]),
                ("attn_k.bias", vec![w.keys]),
                ("attn_v.bias", vec![w.keys]),
            ]),
            Self::Qwen3 => all.extend([("attn_q_norm.weight", vec![w.head]), ("attn_k_norm.weight", vec![w.head])]),
            Self::Llama | Self::Phi3 => {}
        }
        all
    }
}

impl Layout {
    /// Checks a file's options and tensors, and writes into its options what the model's code is to read there: `context`
    /// bounds the positions.
    ///
    /// # Errors
    /// [`LmError::Gguf`] names the option, [`LmError::Weight`] the tensor.
    pub(super) fn check(gguf: &mut Gguf, context: usize) -> Result<Self, LmError> {
        let architecture = Architecture::of(gguf)?;
        let options = Options { gguf, architecture };
        let heads = options.size("attention.head_count")?;
        let kv_heads = options.size_or("attention.head_count_kv", heads)?;
        let hidden = options.size("embedding_length")?;
        let head = options.size_or("attention.key_length", hidden / heads)?;
        options.refuse_unknown(hidden, heads, head)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(
                options.wrong("attention.head_count_kv", format!("is {kv_heads}, which does not divide {heads}"))
            );
        }
        let (inner, layers) = (options.size("feed_forward_length")?, options.size("block_count")?);
        if layers > MAX_LAYERS {
            return Err(options.wrong("block_count", format!("is {layers}; {MAX_LAYERS} is the most")));
        }
        let window = options.size_or("attention.sliding_window", usize::MAX)?;
        // Within the window it makes no difference; beyond it the model's code would see too much.
        let context = context.min(options.size("context_length")?).min(window).min(architecture.most_context());
        let widths = Widths { hidden, inner, queries: heads * head, keys: kv_heads * head, head, layers };
        let vocab = check_tensors(gguf, architecture, widths)?;
        let mut set = |key: &str, value: usize| {
            let value = Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
            gguf.content.metadata.insert(format!("{}.{key}", architecture.prefix()), value);
        };
        set("context_length", context);
        set("attention.head_count_kv", kv_heads);
        set("attention.key_length", head);
        set("rope.dimension_count", head);
        // Qwen 3's code makes its rotary table in float16 unless the file says that it is one of float32.
        gguf.content.metadata.insert("general.dtype".to_owned(), Value::U32(0));
        Ok(Self { architecture, vocab, context })
    }
}

/// Reads options of an architecture.
struct Options<'g> {
    gguf: &'g Gguf,
    architecture: Architecture,
}

impl Options<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.prefix())
    }

    fn wrong(&self, key: &str, problem: impl std::fmt::Display) -> LmError {
        self.gguf.wrong(format!("`{}` {problem}", self.key(key)))
    }

    fn size_or(&self, key: &str, otherwise: usize) -> Result<usize, LmError> {
        let full = self.key(key);
        if !self.gguf.content.metadata.contains_key(&full) {
            return Ok(otherwise);
        }
        let size = self.gguf.number(&full).filter(|size| (1..=1 << 24).contains(size));
        let size = size.and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| self.wrong(key, format!("must be a whole number from 1 to {}", 1 << 24)))
    }

    fn size(&self, key: &str) -> Result<usize, LmError> {
        match self.size_or(key, 0)? {
            0 => Err(self.wrong(key, "is missing")),
            size => Ok(size),
        }
    }

    /// Options that would change the numbers and that the model's code passes over.
    fn refuse_unknown(&self, hidden: usize, heads: usize, head: usize) -> Result<(), LmError> {
        let passed_over = |key: &str, value: String| {
            self.wrong(key, format!("is {value}, which the model's code passes over; use the model's safetensors"))
        };
        if let Some(kind) = self.gguf.text(&self.key("rope.scaling.type")).filter(|kind| *kind != "none") {
            return Err(passed_over("rope.scaling.type", format!("{kind:?}")));
        }
        for (key, neutral) in [("rope.scaling.factor", 1.0), ("rope.scale_linear", 1.0), ("rope.freq_base", 10_000.0)] {
            let matters = key != "rope.freq_base" || self.architecture == Architecture::Phi3;
            let value = self.gguf.fraction(&self.key(key));
            if let Some(value) = value.filter(|value| matters && *value != neutral) {
                return Err(passed_over(key, value.to_string()));
            }
        }
        if self.size_or("expert_count", 1)? > 1 {
            return Err(passed_over("expert_count", "more than 1".to_owned()));
        }
        for key in ["rope.dimension_count", "attention.value_length"] {
            let value = self.size_or(key, head)?;
            if value != head {
                return Err(passed_over(key, format!("{value} where heads are {head} wide")));
            }
        }
        if self.architecture != Architecture::Qwen3 && head * heads != hidden {
            return Err(passed_over(
                "attention.key_length",
                format!("{head} for {heads} heads in a width of {hidden}"),
            ));
        }
        if !head.is_multiple_of(2) {
            return Err(self.wrong("attention.key_length", format!("is {head}; rotary embeddings need an even number")));
        }
        Ok(())
    }
}

/// Checks that all tensors are there in their shapes, and none besides. Gives the size of the vocabulary.
fn check_tensors(gguf: &Gguf, architecture: Architecture, widths: Widths) -> Result<usize, LmError> {
    let tensors = &gguf.content.tensor_infos;
    let embedding = tensors.get("token_embd.weight").map(|info| info.shape.dims());
    let vocab = match embedding {
        Some([vocab, _]) => *vocab,
        Some(other) => return Err(gguf.wrong_tensor("token_embd.weight", format!("has the shape {other:?}"))),
        None => return Err(gguf.wrong_tensor("token_embd.weight", "is missing")),
    };
    let mut wanted = vec![
        ("token_embd.weight".to_owned(), vec![vocab, widths.hidden]),
        ("output_norm.weight".to_owned(), vec![widths.hidden]),
    ];
    if tensors.contains_key("output.weight") || architecture == Architecture::Phi3 {
        wanted.push(("output.weight".to_owned(), vec![vocab, widths.hidden]));
    }
    for layer in 0..widths.layers {
        let layer = architecture.layer(widths).into_iter().map(|(name, shape)| (format!("blk.{layer}.{name}"), shape));
        wanted.extend(layer);
    }
    for (name, shape) in &wanted {
        match tensors.get(name).map(|info| info.shape.dims()) {
            Some(found) if found == shape => {}
            Some(found) => {
                let problem = format!("has the shape {found:?}; the file's options ask for {shape:?}");
                return Err(gguf.wrong_tensor(name, problem));
            }
            None => {
                return Err(gguf.wrong_tensor(name, format!("is missing; it should have the shape {shape:?}")));
            }
        }
    }
    let known: std::collections::HashSet<&String> = wanted.iter().map(|(name, _)| name).collect();
    let mut unknown: Vec<&String> = tensors.keys().filter(|name| !known.contains(name)).collect();
    unknown.sort_unstable();
    match unknown.first() {
        Some(name) => {
            let problem = "is one that the model's code passes over: without it the numbers would be wrong. Use the \
                           model's safetensors, or a server such as vLLM";
            Err(gguf.wrong_tensor(name, problem))
        }
        None => Ok(vocab),
    }
}
