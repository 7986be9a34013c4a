//! The scoring path: sequences in, what the model says after each one's last token out.
//!
//! Sequences of a call that begin alike are computed with their common part once; a beginning that an earlier call left
//! in the cache is not computed again. One thread owns an engine.

use candle_core::Tensor;

use super::LmError;
use super::decoder::Decoder;
use super::kv::{KvPool, Span};
use super::packed::Packed;
use super::prefix::{Hit, PrefixCache};
use super::shared_prefix::{self, Group};

/// Batches that are begun before whoever waits is looked at again: enough to see which sequences begin alike.
const TURN_BATCHES: usize = 4;

/// A decoder with its keys and values.
#[derive(Debug)]
pub struct Engine {
    decoder: Decoder,
    pub(super) pool: KvPool,
    pub(super) prefixes: PrefixCache,
    batch_tokens: usize,
    pub(super) work: EngineCounters,
    use_kept: bool,
}

/// What an engine has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineCounters {
    /// Tokens of all sequences that came in.
    pub asked_tokens: u64,
    /// Tokens that went through the layers; the rest was shared or kept.
    pub computed_tokens: u64,
    /// Batches.
    pub batches: u64,
    /// Tokens of texts that were made.
    pub generated_tokens: u64,
}

/// Log-probabilities of the labels after a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelLogprobs {
    /// Natural logarithms over the whole vocabulary, in the order of the labels.
    pub logprobs: Vec<f64>,
}

/// The states of every segment's last row, and which of them belong to the sequences.
struct LastStates {
    states: Tensor,
    rows: Vec<usize>,
}

/// What a call holds of the pool until it is done.
#[derive(Default)]
struct HeldSpans {
    spans: Vec<Span>,
    hits: Vec<Hit>,
    /// To be kept after the call.
    keep: Vec<(Vec<u32>, Span)>,
}

impl Engine {
    /// An engine with room for `slots` tokens, which computes about `batch_tokens` of them at a time.
    ///
    /// # Errors
    /// [`LmError::Compute`] when the device's memory is too small.
    pub fn new(decoder: Decoder, slots: usize, batch_tokens: usize) -> Result<Self, LmError> {
        let pool = KvPool::new(decoder.config(), slots, decoder.dtype(), decoder.device())?;
        Ok(Self {
            decoder,
            pool,
            prefixes: PrefixCache::default(),
            batch_tokens,
            work: EngineCounters::default(),
            use_kept: true,
        })
    }

    /// Takes another model of the same shape: a policy that has learnt something. What was kept of the old one is dropped.
    pub fn replace(&mut self, decoder: Decoder) {
        while self.prefixes.evict(&mut self.pool) {}
        self.decoder = decoder;
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Whether a sequence can be computed at all.
    ///
    /// # Errors
    /// [`LmError::TooLong`], or [`LmError::Unsupported`] for an empty one and for tokens beyond the vocabulary.
    pub fn check(&self, tokens: &[u32]) -> Result<(), LmError> {
        if tokens.is_empty() {
            return Err(LmError::Unsupported("an empty prompt has no next token".to_owned()));
        }
        self.decoder.config().check(tokens.len(), tokens)?;
        let limit = self.pool.slots();
        if tokens.len() > limit {
            return Err(LmError::TooLong {
                tokens: tokens.len(),
                limit,
                of: "that the key-value cache holds at a time",
            });
        }
        Ok(())
    }

    /// What was done so far.
    pub fn work(&self) -> EngineCounters {
        self.work
    }

    /// Tokens whose keys are kept for later calls.
    pub fn kept_tokens(&self) -> usize {
        self.prefixes.tokens()
    }

    /// The log-probabilities of each prompt's labels as its next token.
    ///
    /// # Errors
    /// [`LmError`] for the whole call: an empty prompt, one that does not fit, or a failure of the device.
    pub fn label_logprobs(&mut self, prompts: &[(&[u32], &[u32])]) -> Result<Vec<LabelLogprobs>, LmError> {
        let tokens: Vec<&[u32]> = prompts.iter().map(|(tokens, _)| *tokens).collect();
        let vocab = self.decoder.config().vocab;
        if let Some(label) = prompts.iter().flat_map(|(_, labels)| *labels).find(|label| **label as usize >= vocab) {
            return Err(LmError::Unsupported(format!("label token {label} is beyond the vocabulary of {vocab}")));
        }
        let mut out: Vec<Option<LabelLogprobs>> = vec![None; prompts.len()];
        self.in_batches(&tokens, |engine, members, last| {
            let wanted = |member: &usize| prompts.get(*member).map_or(&[][..], |(_, labels)| labels);
            let wanted: Vec<&[u32]> = members.iter().map(wanted).collect();
            let found = engine.decoder.token_logprobs(&last.states, &last.rows, &wanted)?;
            for (&member, logprobs) in members.iter().zip(found) {
                if logprobs.iter().any(|value| value.is_nan()) {
                    return Err(LmError::NotFinite("a label's log-probability"));
                }
                if let Some(place) = out.get_mut(member) {
                    *place = Some(LabelLogprobs { logprobs });
                }
            }
            Ok(())
        })?;
        out.into_iter().map(|found| found.ok_or(LmError::NotFinite("a missing row"))).collect()
    }

    /// What a reward model says of each conversation, one number per label.
    ///
    /// # Errors
    /// As [`Self::label_logprobs`]; [`LmError::Unsupported`] for a language model.
    pub fn rewards(&mut self, conversations: &[&[u32]]) -> Result<Vec<Vec<f64>>, LmError> {
        let mut out: Vec<Vec<f64>> = vec![Vec::new(); conversations.len()];
        self.in_batches(conversations, |engine, members, last| {
            let rewards = engine.decoder.rewards(&last.states, &last.rows)?.to_vec2::<f32>()?;
            for (&member, rewards) in members.iter().zip(rewards) {
                if rewards.iter().any(|value| !value.is_finite()) {
                    return Err(LmError::NotFinite("a reward"));
                }
                if let Some(place) = out.get_mut(member) {
                    *place = rewards.into_iter().map(f64::from).collect();
                }
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Tokens of the sequences that are given to it at once, by one that others wait for.
    pub(super) fn turn_tokens(&self) -> usize {
        TURN_BATCHES * self.batch_tokens.min(self.pool.slots())
    }

    /// Runs sequences, whole groups at a time, about `batch_tokens` computed tokens together.
    fn in_batches(
        &mut self,
        sequences: &[&[u32]],
        mut take: impl FnMut(&mut Self, &[usize], LastStates) -> Result<(), LmError>,
    ) -> Result<(), LmError> {
        sequences.iter().try_for_each(|sequence| self.check(sequence))?;
        let most = self.batch_tokens.min(self.pool.slots());
        let mut batch: Vec<Group> = Vec::new();
        let mut planned = 0;
        for group in shared_prefix::group(sequences) {
            let cost = cost(&group, sequences);
            if planned > 0 && planned + cost > most {
                self.run(&batch, sequences, &mut take)?;
                batch.clear();
                planned = 0;
            }
            planned += cost;
            batch.push(group);
        }
        self.run(&batch, sequences, &mut take)
    }

    fn run(
        &mut self,
        groups: &[Group],
        sequences: &[&[u32]],
        take: &mut impl FnMut(&mut Self, &[usize], LastStates) -> Result<(), LmError>,
    ) -> Result<(), LmError> {
        if groups.is_empty() {
            return Ok(());
        }
        match self.run_once(groups, sequences, take, true) {
            // Pieces that are kept or in use leave no room for all of it at once: in turn, then without what is kept.
            Err(LmError::TooLong { .. }) if groups.len() > 1 => {
                groups.iter().try_for_each(|group| self.run(std::slice::from_ref(group), sequences, take))
            }
            Err(LmError::TooLong { .. }) => match groups {
                [Group { members, shared }] if *shared > 0 => members
                    .iter()
                    .try_for_each(|member| self.run(&[Group { members: vec![*member], shared: 0 }], sequences, take)),
                _ => {
                    while self.prefixes.evict(&mut self.pool) {}
                    self.run_once(groups, sequences, take, false)
                }
            },
            done => done,
        }
    }

    fn run_once(
        &mut self,
        groups: &[Group],
        sequences: &[&[u32]],
        take: &mut impl FnMut(&mut Self, &[usize], LastStates) -> Result<(), LmError>,
        use_kept: bool,
    ) -> Result<(), LmError> {
        self.use_kept = use_kept;
        let mut held = HeldSpans::default();
        let done = self.run_held(groups, sequences, take, &mut held);
        for hit in held.hits {
            self.prefixes.unpin(hit);
        }
        for span in held.spans {
            self.pool.give_back(span);
        }
        for (tokens, span) in held.keep {
            // What a failed call left in the slots is worth nothing.
            match &done {
                Ok(()) => self.prefixes.keep(tokens, span, &mut self.pool),
                Err(_) => self.pool.give_back(span),
            }
        }
        done
    }

    fn run_held(
        &mut self,
        groups: &[Group],
        sequences: &[&[u32]],
        take: &mut impl FnMut(&mut Self, &[usize], LastStates) -> Result<(), LmError>,
        held: &mut HeldSpans,
    ) -> Result<(), LmError> {
        let mut packed = Packed::default();
        let (mut members, mut rows) = (Vec::new(), Vec::new());
        for group in groups {
            let first = group.members.first().and_then(|first| sequences.get(*first)).copied().unwrap_or_default();
            let shared = self.prefix(first.get(..group.shared).unwrap_or_default(), &mut packed, held)?;
            for &member in &group.members {
                let sequence = sequences.get(member).copied().unwrap_or_default();
                self.work.asked_tokens += sequence.len() as u64;
                match shared {
                    Some(prefix) => {
                        let own = sequence.get(prefix.len..).unwrap_or_default();
                        let span = self.take(own.len())?;
                        held.spans.push(span);
                        packed.push(own, span, Some(prefix));
                    }
                    None => self.alone(sequence, &mut packed, held)?,
                }
                members.push(member);
                rows.push(packed.segments.len() - 1);
            }
        }
        let states = self.forward(&packed)?;
        take(self, &members, LastStates { states, rows })
    }

    /// Runs a batch whose slots the caller holds. Gives the states of every segment's last row.
    pub(super) fn forward(&mut self, packed: &Packed) -> Result<Tensor, LmError> {
        self.work.computed_tokens += packed.tokens.len() as u64;
        self.work.batches += 1;
        self.decoder.forward_last(packed, &mut self.pool)
    }

    /// The slots of a group's common part: kept ones, or new ones that this batch fills.
    fn prefix(&mut self, tokens: &[u32], packed: &mut Packed, held: &mut HeldSpans) -> Result<Option<Span>, LmError> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let hit = self.find(tokens);
        held.hits.extend(hit);
        match hit {
            Some(hit) if hit.span.len == tokens.len() => Ok(Some(hit.span)),
            hit => self.extend(tokens, hit, packed, held).map(Some),
        }
    }

    /// A sequence that shares nothing with its batch. Where most of it is kept, only the rest is computed, in place.
    fn alone(&mut self, tokens: &[u32], packed: &mut Packed, held: &mut HeldSpans) -> Result<(), LmError> {
        // The last token's row is wanted, so that it is computed in any case.
        let hit = self.find(tokens.split_last().map_or(&[], |(_, before)| before));
        held.hits.extend(hit);
        match hit {
            Some(hit) if hit.span.len * 2 >= tokens.len() => {
                let own = tokens.get(hit.span.len..).unwrap_or_default();
                let span = self.take(own.len())?;
                held.spans.push(span);
                packed.push(own, span, Some(hit.span));
                Ok(())
            }
            hit => self.extend(tokens, hit, packed, held).map(|_| ()),
        }
    }

    /// New slots for a sequence that will be kept, its beginning copied from a kept one.
    fn extend(
        &mut self,
        tokens: &[u32],
        hit: Option<Hit>,
        packed: &mut Packed,
        held: &mut HeldSpans,
    ) -> Result<Span, LmError> {
        let span = self.take(tokens.len())?;
        held.keep.push((tokens.to_vec(), span));
        let known = hit.map_or(0, |hit| hit.span.len);
        if let Some(hit) = hit {
            self.pool.copy(hit.span, span.start)?;
        }
        packed.push(tokens.get(known..).unwrap_or_default(), span, None);
        Ok(span)
    }

    fn find(&mut self, tokens: &[u32]) -> Option<Hit> {
        if self.use_kept { self.prefixes.find(tokens) } else { None }
    }

    fn take(&mut self, len: usize) -> Result<Span, LmError> {
        let limit = self.pool.slots();
        let full = || LmError::TooLong { tokens: len, limit, of: "that the key-value cache holds at a time" };
        self.prefixes.take(len, &mut self.pool).ok_or_else(full)
    }
}

/// Tokens that a group costs at most.
fn cost(group: &Group, sequences: &[&[u32]]) -> usize {
    let own = |member: &usize| sequences.get(*member).map_or(0, |sequence| sequence.len() - group.shared);
    group.shared + group.members.iter().map(own).sum::<usize>()
}
