//! One text in the making: what was said so far, what may come next, and when it is done. In: logits and drawn tokens.
//! Out: choices, and in the end a [`Generated`]. Knows no keys, no batch and no model.

use candle_core::Tensor;

use super::LmError;
use super::generate::{GenerateRequest, Generated, Next};
use super::sample::{self, Choice, Drawn};

/// A text in the making.
pub(super) struct Text {
    id: u64,
    request: GenerateRequest,
    /// Prompt and all that came after it.
    tokens: Vec<u32>,
    logprobs: Vec<Option<f64>>,
    stopped: bool,
}

impl Text {
    pub(super) fn new(id: u64, request: GenerateRequest) -> Self {
        let tokens = request.prompt.clone();
        Self { id, request, tokens, logprobs: Vec::new(), stopped: false }
    }

    /// Whether a text can be made at all; `limits` are in tokens, each with what has it.
    pub(super) fn check(request: &GenerateRequest, limits: [(usize, &'static str); 2]) -> Result<(), LmError> {
        if request.prompt.is_empty() || request.max_tokens == 0 {
            return Err(LmError::Unsupported("a text needs a prompt and at least one token".to_owned()));
        }
        let total = request.prompt.len() + request.max_tokens;
        match limits.into_iter().find(|(limit, _)| total > *limit) {
            Some((limit, of)) => Err(LmError::TooLong { tokens: total, limit, of }),
            None => Ok(()),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Prompt and all that came after it.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What may come next, after the guide has seen what it watches. `logits` is `[rows, vocab]`.
    pub(super) fn choice(&mut self, logits: &Tensor, row: usize) -> Result<Choice, LmError> {
        let guide = &mut self.request.guide;
        let watched = guide.watched();
        if !watched.is_empty() {
            let logits = logits.get(row)?.to_vec1::<f32>()?;
            let total = sample::log_sum_exp(&logits);
            let logprob =
                |token: &u32| logits.get(*token as usize).map_or(f64::NEG_INFINITY, |l| f64::from(*l) - total);
            let logprobs: Vec<f64> = watched.iter().map(logprob).collect();
            if logprobs.iter().any(|value| value.is_nan()) {
                return Err(LmError::NotFinite("a label's log-probability"));
            }
            guide.watch(logprobs);
        }
        Ok(Choice { sampling: self.request.sampling, step: self.logprobs.len() as u64, mask: guide.allowed()? })
    }

    /// Takes the next token; true when the text is done.
    pub(super) fn take(&mut self, drawn: Drawn) -> Result<bool, LmError> {
        let guide = &mut self.request.guide;
        self.tokens.push(drawn.token);
        self.logprobs.push(Some(drawn.logprob));
        let said = match guide.accept(drawn)? {
            Next::Stop => {
                self.stopped = true;
                return Ok(true);
            }
            Next::Draw => Vec::new(),
            Next::Say(tokens) => tokens,
            Next::Instead(tokens) => {
                self.tokens.pop();
                self.logprobs.pop();
                tokens
            }
        };
        let room = self.request.max_tokens.saturating_sub(self.logprobs.len());
        self.tokens.extend(said.iter().take(room));
        self.logprobs.extend(said.iter().take(room).map(|_| None));
        Ok(self.logprobs.len() >= self.request.max_tokens)
    }

    pub(super) fn finish(self, failed: Option<LmError>) -> Generated {
        let tokens = self.tokens.get(self.request.prompt.len()..).unwrap_or_default().to_vec();
        let (id, logprobs, finished) = (self.id, self.logprobs, self.stopped);
        Generated { id, tokens, logprobs, finished, guide: self.request.guide, failed }
    }
}
