//! The way from text to tokens, in which an added token is looked for in trusted text only.
//!
//! In: a text and its pieces. Out: token ids. These are the library's own steps (added tokens, normaliser, pre-tokenizer,
//! model) run on the whole text at once, so that a boundary between trusted and untrusted text changes nothing else: words
//! and merges reach over it as they always do.

use std::ops::Range;

use tokenizers::normalizer::Range as TextRange;
use tokenizers::{
    Model, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Result, Token,
};

use super::Tokenizer;
use crate::lm::untrusted::{Origin, Piece};

/// An added token in a text: the bytes that it takes, surrounding white space that it swallows included.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    bytes: Range<usize>,
    id: u32,
}

/// Against which text an added token is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    AsWritten,
    Normalised,
}

impl Tokenizer {
    pub(super) fn encode_pieces(&self, text: &str, pieces: &[Piece<'_>], untrusted: &[Range<usize>]) -> Result<Vec<u32>> {
        let mut pretokenized = PreTokenizedString::from(text);
        let found = self.find(pieces, Stage::AsWritten);
        pretokenized.split(|_, whole| cut(&whole, &found))?;
        let found = self.find(pieces, Stage::Normalised);
        pretokenized.split(|_, mut part| {
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut part)?;
            }
            cut(&part, &inside(&part, &found))
        })?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pretokenized)?;
        }
        pretokenized.tokenize(|word| self.tokenize_word(word, untrusted))?;
        Ok(pretokenized.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// The added tokens of the trusted pieces, in order.
    fn find(&self, pieces: &[Piece<'_>], stage: Stage) -> Vec<Found> {
        let wanted = |id: &u32| self.added.get(id).is_some_and(|t| t.normalized == (stage == Stage::Normalised));
        if !self.added.keys().any(|id| wanted(id)) {
            return Vec::new();
        }
        let normalizer: Option<&NormalizerWrapper> = match stage {
            Stage::AsWritten => None,
            Stage::Normalised => self.inner.get_normalizer(),
        };
        let mut all = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.origin == Origin::Trusted) {
            let parts = self.inner.get_added_vocabulary().extract_and_normalize(normalizer, piece.text);
            for (_, (start, end), tokens) in parts.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                let id = tokens.as_ref().and_then(|tokens| tokens.first()).map(|token| token.id);
                if let Some(id) = id.filter(wanted) {
                    all.push(Found { bytes: piece.start + start..piece.start + end, id });
                }
            }
        }
        all
    }

    /// The model's tokens of one word. A vocabulary may list a special token among its words, and then untrusted text must
    /// not be that word: it is spelt out.
    fn tokenize_word(&self, word: &NormalizedString, untrusted: &[Range<usize>]) -> Result<Vec<Token>> {
        let tokens = self.inner.get_model().tokenize(word.get())?;
        let (start, end) = word.offsets_original();
        let next = untrusted.partition_point(|range| range.end <= start);
        let is_ours = untrusted.get(next).is_none_or(|range| range.start >= end);
        if is_ours || !tokens.iter().any(|token| self.control.contains(&token.id)) {
            return Ok(tokens);
        }
        let mut spelt = Vec::with_capacity(word.get().len());
        let mut buffer = [0; 4];
        for (at, c) in word.get().char_indices() {
            for mut token in self.inner.get_model().tokenize(c.encode_utf8(&mut buffer))? {
                token.offsets = (at, at + c.len_utf8());
                spelt.push(token);
            }
        }
        Ok(spelt)
    }
}

/// The tokens that stand in one part of the text, in the part's own bytes.
fn inside(part: &NormalizedString, found: &[Found]) -> Vec<Found> {
    let (start, end) = part.offsets_original();
    let first = found.partition_point(|found| found.bytes.start < start);
    let inside = found.iter().skip(first).take_while(|found| found.bytes.end <= end);
    let local = inside.filter_map(|found| {
        let original = found.bytes.start - start..found.bytes.end - start;
        Some(Found { bytes: part.convert_offsets(TextRange::Original(original))?, id: found.id })
    });
    local.collect()
}

/// A text cut at the tokens found in it; their bytes count its normalised form.
fn cut(text: &NormalizedString, found: &[Found]) -> Result<Vec<(NormalizedString, Option<Vec<Token>>)>> {
    let slice = |bytes: Range<usize>| {
        let wrong = || format!("bytes {}..{} cannot be cut out of the text", bytes.start, bytes.end);
        text.slice(TextRange::Normalized(bytes.clone())).ok_or_else(wrong)
    };
    let mut parts = Vec::with_capacity(2 * found.len() + 1);
    let mut done = 0;
    for Found { bytes, id } in found {
        if done < bytes.start {
            parts.push((slice(done..bytes.start)?, None));
        }
        let part = slice(bytes.clone())?;
        let token = Token::new(*id, part.get().to_owned(), (0, part.get().len()));
        parts.push((part, Some(vec![token])));
        done = bytes.end;
    }
    if done < text.get().len() {
        parts.push((slice(done..text.get().len())?, None));
    }
    Ok(parts)
}
