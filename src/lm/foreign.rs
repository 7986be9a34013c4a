//! Models that run through `candle-transformers`: GGUF files, and architectures that our own decoder does not know.
//!
//! In: prompts. Out: log-probabilities of labels, and texts. One sequence at a time and nothing shared: right, and slow
//! beside [`Engine`](super::Engine). What was read for one prompt is forgotten before the next.

mod layout;
mod network;
mod safetensors;

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use self::layout::Layout;
use self::network::Network;
use super::LmError;
use super::engine::{EngineCounters, LabelLogprobs};
use super::generate::{GenerateRequest, Generated, Joined};
use super::gguf::Gguf;
use super::limits::{OF_CONTEXT, check_length, check_vocabulary};
use super::sample::{self, Choice};
use super::text::Text;

/// Tokens that are read at a time, most first. Few sizes, each at multiples of itself: the models' code keeps a mask for
/// every size and place that it met.
const PIECES: [usize; 5] = [256, 64, 16, 4, 1];

/// A model of `candle-transformers`.
pub struct Foreign {
    network: Network,
    device: Device,
    vocab: usize,
    context: usize,
    ends: Vec<u32>,
    hash: blake3::Hash,
    work: EngineCounters,
    writing: Option<Writing>,
    texts: u64,
}

/// The text in the making.
struct Writing {
    text: Text,
    /// Tokens that the model has read.
    read: usize,
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreign").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Foreign {
    /// Whether a directory's configuration names a model that runs here and not in our own decoder.
    pub fn knows(model_type: &str) -> bool {
        safetensors::ModelType::of(model_type).is_some()
    }

    /// Loads a GGUF file, a directory with exactly one, or a directory of safetensors. `context` bounds the positions.
    ///
    /// # Errors
    /// [`LmError`] names the file, the option, the key or the tensor that is wrong or not supported.
    pub fn load(path: &Path, device: &Device, context: usize) -> Result<Self, LmError> {
        let Some(file) = Gguf::find(path)? else {
            let loaded = safetensors::load(path, safetensors::read_config(path)?, device, context)?;
            let layout = (loaded.vocab, loaded.context);
            return Ok(Self::new(loaded.network, device, layout, (loaded.ends, loaded.hash)));
        };
        let mut gguf = Gguf::open(&file)?;
        let layout = Layout::check(&mut gguf, context)?;
        let known = (gguf.ends(), gguf.hash()?);
        let network = Network::from_gguf(gguf, layout.architecture, device)?;
        Ok(Self::new(network, device, (layout.vocab, layout.context), known))
    }

    fn new(
        network: Network,
        device: &Device,
        (vocab, context): (usize, usize),
        (ends, hash): (Vec<u32>, blake3::Hash),
    ) -> Self {
        let device = device.clone();
        Self { network, device, vocab, context, ends, hash, work: EngineCounters::default(), writing: None, texts: 0 }
    }

    /// Size of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Longest sequence, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens that end a text, as the model's file names them.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// A hash of the whole GGUF file, or of all weights that were taken.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// What was done so far.
    pub fn work(&self) -> EngineCounters {
        self.work
    }

    /// Whether a text is in the making: prompts that are scored meanwhile make the model read it anew.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether a sequence can be computed at all.
    ///
    /// # Errors
    /// [`LmError::TooLong`], or [`LmError::Unsupported`] for an empty one and for tokens beyond the vocabulary.
    pub fn check(&self, tokens: &[u32]) -> Result<(), LmError> {
        if tokens.is_empty() {
            return Err(LmError::Unsupported("an empty prompt has no next token".to_owned()));
        }
        check_length(tokens.len(), self.context)?;
        check_vocabulary(tokens, self.vocab)
    }

    /// The log-probabilities of each prompt's labels as its next token, one prompt after the other.
    pub fn label_logprobs(&mut self, prompts: &[(&[u32], &[u32])]) -> Vec<Result<LabelLogprobs, LmError>> {
        if let Some(writing) = &mut self.writing {
            writing.read = 0;
        }
        prompts.iter().map(|(prompt, labels)| self.labels(prompt, labels)).collect()
    }

    fn labels(&mut self, prompt: &[u32], labels: &[u32]) -> Result<LabelLogprobs, LmError> {
        self.check(prompt)?;
        check_vocabulary(labels, self.vocab)?;
        self.work.batches += 1;
        let logits = self.read(prompt, 0)?.get(0)?.to_vec1::<f32>()?;
        let total = sample::log_sum_exp(&logits);
        let logprob = |label: &u32| logits.get(*label as usize).map_or(f64::NAN, |logit| f64::from(*logit) - total);
        let logprobs: Vec<f64> = labels.iter().map(logprob).collect();
        if logprobs.iter().any(|value| value.is_nan()) {
            return Err(LmError::NotFinite("a label's log-probability"));
        }
        Ok(LabelLogprobs { logprobs })
    }

    /// Lets a text begin; there is no room while another is in the making.
    ///
    /// # Errors
    /// [`LmError::TooLong`] when it can never fit, [`LmError::Unsupported`] for a prompt that is none.
    pub fn join(&mut self, request: GenerateRequest) -> Result<Joined, LmError> {
        Text::check(&request, [(self.context, OF_CONTEXT); 2])?;
        self.check(&request.prompt)?;
        if self.writing.is_some() {
            return Ok(Joined::NoRoom(request));
        }
        self.texts += 1;
        self.writing = Some(Writing { text: Text::new(self.texts, request), read: 0 });
        Ok(Joined::As(self.texts))
    }

    /// Lets a text go that nobody waits for any more.
    pub fn leave(&mut self, id: u64) {
        self.writing.take_if(|writing| writing.text.id() == id);
    }

    /// Gives the text a token, and it back when it is done.
    pub fn step(&mut self) -> Option<Generated> {
        let mut writing = self.writing.take()?;
        match self.write(&mut writing) {
            Ok(false) => {
                self.writing = Some(writing);
                None
            }
            Ok(true) => Some(writing.text.finish(None)),
            Err(error) => Some(writing.text.finish(Some(error))),
        }
    }

    fn write(&mut self, writing: &mut Writing) -> Result<bool, LmError> {
        let tokens = writing.text.tokens();
        let logits = self.read(tokens, writing.read)?;
        writing.read = tokens.len();
        self.work.batches += 1;
        self.work.generated_tokens += 1;
        let choice: Choice = writing.text.choice(&logits, 0)?;
        let drawn = sample::draw_rows(&logits.to_vec2::<f32>()?, &[Ok(choice)]).pop();
        writing.text.take(drawn.unwrap_or(Err(LmError::NotFinite("a missing row")))?)
    }

    /// The logits after the last of `tokens`, `[1, vocab]`, of which the model has read the first `known` just before.
    fn read(&mut self, tokens: &[u32], known: usize) -> Result<Tensor, LmError> {
        if known == 0 {
            self.network.forget();
            self.work.asked_tokens += tokens.len() as u64;
        }
        let mut done = known;
        let mut logits = None;
        while let Some(rest) = tokens.get(done..).filter(|rest| !rest.is_empty()) {
            // After the prompt one by one: Qwen 3's code on the CPU cannot take several after a single one.
            let fits = |size: &usize| *size <= rest.len() && (known == 0 || *size == 1);
            let size = PIECES.into_iter().find(fits).unwrap_or(1);
            let piece = Tensor::new(rest.get(..size).unwrap_or(rest), &self.device)?.unsqueeze(0)?;
            logits = Some(self.network.forward(&piece, done)?);
            done += size;
            self.work.computed_tokens += size as u64;
        }
        let logits = logits.ok_or(LmError::NotFinite("a missing row"))?;
        Ok(logits.to_dtype(DType::F32)?.reshape((1, self.vocab))?)
    }
}
