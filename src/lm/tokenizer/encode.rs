//! The way from text to tokens, in which an added token is looked for in trusted text only.
//!
//! In: a text and its pieces. Out: token ids. These are the library's own steps (added tokens, normaliser, pre-tokenizer,
//! model) run on the whole text at once, so that a boundary between trusted and untrusted text changes nothing else: words
//! and merges reach over it as they always do.

use std::ops::Range;

use tokenizers::normalizer::Range as TextRange;
use tokenizers::{
    Model, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Result, Token,
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
    pub(super) fn encode_pieces(
        &self,
        text: &str,
        pieces: &[Piece<'_>],
        untrusted: &[Range<usize>],
    ) -> Result<Vec<u32>> {
        let mut pretokenized = PreTokenizedString::from(text);
        let ours = pieces.iter().filter(|piece| piece.origin == Origin::Trusted);
        let found: Vec<Found> = ours.flat_map(|piece| self.find(piece.text, piece.start, Stage::AsWritten)).collect();
        pretokenized.split(|_, whole| cut(&whole, &found))?;
        pretokenized.split(|_, mut part| {
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut part)?;
            }
            let mut found = self.find(part.get(), 0, Stage::Normalised);
            found.retain(|found| is_ours(&part, found, untrusted));
            cut(&part, &found)
        })?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pretokenized)?;
        }
        pretokenized.tokenize(|word| self.tokenize_word(word, untrusted))?;
        Ok(pretokenized.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// The added tokens that are looked for at this stage, in order; `start` is added to their bytes.
    fn find(&self, text: &str, start: usize, stage: Stage) -> Vec<Found> {
        let wanted = |id: &u32| self.added.get(id).is_some_and(|t| t.normalized == (stage == Stage::Normalised));
        if !self.added.keys().any(wanted) {
            return Vec::new();
        }
        // The text is normalised already, or is not to be.
        let parts = self.inner.get_added_vocabulary().extract_and_normalize(None::<&NormalizerWrapper>, text);
        let splits = parts.get_splits(OffsetReferential::Original, OffsetType::Byte).into_iter();
        let found = splits.filter_map(|(_, (from, to), tokens)| {
            let id = tokens.as_ref()?.first()?.id;
            wanted(&id).then_some(Found { bytes: start + from..start + to, id })
        });
        found.collect()
    }

    /// The model's tokens of one word. A vocabulary may list a special token among its words, and then untrusted text must
    /// not be that word: it is spelt out.
    fn tokenize_word(&self, word: &NormalizedString, untrusted: &[Range<usize>]) -> Result<Vec<Token>> {
        let tokens = self.inner.get_model().tokenize(word.get())?;
        let (start, end) = word.offsets_original();
        if is_apart(&(start..end), untrusted) || !tokens.iter().any(|token| self.control.contains(&token.id)) {
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

/// Whether an added token found in a normalised text was written there by us alone.
fn is_ours(text: &NormalizedString, found: &Found, untrusted: &[Range<usize>]) -> bool {
    let (shift, _) = text.offsets_original();
    let original = text.convert_offsets(TextRange::Normalized(found.bytes.clone()));
    original.is_some_and(|bytes| is_apart(&(shift + bytes.start..shift + bytes.end), untrusted))
}

fn is_apart(bytes: &Range<usize>, untrusted: &[Range<usize>]) -> bool {
    let next = untrusted.partition_point(|range| range.end <= bytes.start);
    untrusted.get(next).is_none_or(|range| range.start >= bytes.end)
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
