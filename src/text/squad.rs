//! Exact match and F1 of `SQuAD` v1.1. In: an answer and its references; out: the best over the references. Knows no
//! tokenizer: `SQuAD` has its own idea of a word.

use std::borrow::Cow;

use super::overlap::{Clip, spans};
use super::scratch::{self, Scratch};
use super::{unicode, without_repeats};

/// Both `SQuAD` scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Squad {
    /// See [`exact_match`].
    pub exact_match: bool,
    /// See [`f1`], in [0, 1].
    pub f1: f64,
}

/// Whether the normalised answer equals a normalised reference.
///
/// An answer and a reference that are both nothing but articles and punctuation are equal: a reference `A` is an
/// article.
pub fn exact_match<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    if references.iter().any(|reference| reference.as_ref() == answer) {
        return true;
    }
    scratch::with(|scratch| {
        let longest = scratch.read(references);
        longest.is_some_and(|limit| normalize_into(answer, &mut scratch.answer, limit) && scratch.is_exact_match())
    })
}

/// The harmonic mean of precision and recall of the normalised answer's words, in [0, 1], for the best reference.
///
/// 0 where no word is shared, so also where both sides are empty.
pub fn f1<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    squad(answer, references).f1
}

/// [`exact_match`] and [`f1`] from one normalisation.
pub fn squad<S: AsRef<str>>(answer: &str, references: &[S]) -> Squad {
    if has_long_word(answer) && references.iter().any(|reference| reference.as_ref() == answer) {
        return Squad { exact_match: true, f1: 1.0 };
    }
    scratch::with(|scratch| {
        scratch.read(references);
        normalize_into(answer, &mut scratch.answer, usize::MAX);
        if scratch.is_exact_match() {
            // All words are shared, if there are any.
            return Squad { exact_match: true, f1: if scratch.answer.is_empty() { 0.0 } else { 1.0 } };
        }
        Squad { exact_match: false, f1: scratch.best_f1() }
    })
}

/// Whether there is a word that normalisation surely keeps: one that is longer than an article. Deleting punctuation only
/// makes words longer.
fn has_long_word(text: &str) -> bool {
    text.as_bytes().split(|byte| !byte.is_ascii_alphanumeric()).any(|word| word.len() > "the".len())
}

/// `SQuAD`'s normal form: lower case, no ASCII punctuation, no articles, single blanks between words.
pub fn normalize(text: &str) -> String {
    let mut out = Vec::new();
    normalize_into(text, &mut out, usize::MAX);
    String::from_utf8_lossy(&out).into_owned()
}

impl Scratch {
    /// Normalises the references; the length of the longest one, if there is any.
    fn read<S: AsRef<str>>(&mut self, references: &[S]) -> Option<usize> {
        let (mut begin, mut longest) = (0, None);
        self.answer.clear();
        self.references.clear();
        self.reference_ends.clear();
        for reference in without_repeats(references) {
            normalize_into(reference, &mut self.references, usize::MAX);
            self.reference_ends.push(self.references.len());
            longest = longest.max(Some(self.references.len() - begin));
            begin = self.references.len();
        }
        longest
    }

    fn is_exact_match(&self) -> bool {
        spans(&self.reference_ends).any(|(start, end)| self.references.get(start..end) == Some(&self.answer))
    }

    fn best_f1(&mut self) -> f64 {
        let overlap = &mut self.overlap;
        overlap.clear();
        for (start, end) in spans(&self.reference_ends) {
            let reference = self.references.get(start..end).unwrap_or_default();
            words(reference).for_each(|word| overlap.push_reference_token(word));
            overlap.end_reference();
        }
        words(&self.answer).for_each(|word| overlap.push_hypothesis_token(word));
        overlap.count(1, Clip::EachReference);
        let answer_words = overlap.hypothesis_len() as f64;
        let scores = overlap.reference_lens().zip(overlap.matches()).map(|(reference_words, &shared)| {
            let precision = f64::from(shared) / answer_words;
            let recall = f64::from(shared) / reference_words as f64;
            if shared == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
        });
        scores.fold(0.0, f64::max)
    }
}

/// The words of a normal form.
fn words(normal: &[u8]) -> impl Iterator<Item = &[u8]> {
    normal.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// What normalisation does with a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// ASCII punctuation.
    Drop,
    Space,
    /// A letter or a digit.
    Word,
    /// A control character: neither a word nor white space.
    Control,
    /// Not ASCII: the character decides.
    Wide,
}

static ACTIONS: [Action; 256] = {
    let mut actions = [Action::Wide; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        actions[byte as usize] = match byte {
            9..=13 | 28..=32 => Action::Space,
            _ if byte.is_ascii_alphanumeric() => Action::Word,
            _ if byte.is_ascii_punctuation() => Action::Drop,
            _ => Action::Control,
        };
        byte += 1;
    }
    actions
};

/// Appends the normal form of `text`. Stops and returns `false` once it is known to be longer than `limit` bytes.
fn normalize_into(text: &str, out: &mut Vec<u8>, limit: usize) -> bool {
    // ASCII is lowered below, byte by byte. Beyond it, lower case depends on the neighbours (the Greek final sigma).
    let lowered = if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) };
    let begin = out.len();
    out.reserve(lowered.len() + 1);
    let mut normal = Normal { begin, word: begin, run: begin, out };
    let mut at = 0;
    while let Some(&byte) = lowered.as_bytes().get(at) {
        at += 1;
        match ACTIONS[usize::from(byte)] {
            // Bit 5 is set in all letters and digits but the upper-case letters, so setting it lowers those.
            Action::Word => normal.out.push(byte | 0x20),
            Action::Drop => {}
            Action::Space => {
                normal.end_run();
                normal.blank();
                if normal.len() > limit.saturating_add(1) {
                    return false;
                }
            }
            Action::Control => normal.other(&[byte]),
            Action::Wide => {
                let rest = lowered.get(at - 1..).unwrap_or_default();
                let Some(c) = rest.chars().next() else { break };
                at += c.len_utf8() - 1;
                normal.wide(c);
            }
        }
    }
    normal.finish() <= limit
}

/// A normal form that is being written.
struct Normal<'a> {
    out: &'a mut Vec<u8>,
    /// Where it begins in `out`.
    begin: usize,
    /// Where its last word begins, that is what blanks delimit.
    word: usize,
    /// Where its last run of letters and digits begins, that is what `\b` delimits.
    run: usize,
}

impl Normal<'_> {
    fn len(&self) -> usize {
        self.out.len() - self.begin
    }

    /// Ends a run of letters and digits, and makes it a blank if it is an article: `\b(a|an|the)\b`.
    #[inline]
    fn end_run(&mut self) {
        if matches!(self.out.get(self.run..), Some(b"a" | b"an" | b"the")) {
            self.out.truncate(self.run);
            self.blank();
        }
        self.run = self.out.len();
    }

    /// Ends a word, if there is one, with a blank.
    #[inline]
    fn blank(&mut self) {
        if self.out.len() > self.word {
            self.out.push(b' ');
        }
        self.word = self.out.len();
        self.run = self.out.len();
    }

    /// A character that is neither a word's nor white space: it stays, and articles can stand beside it.
    fn other(&mut self, bytes: &[u8]) {
        self.end_run();
        self.out.extend_from_slice(bytes);
        self.run = self.out.len();
    }

    fn wide(&mut self, c: char) {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        if unicode::is_word(c) {
            self.out.extend_from_slice(bytes);
        } else if unicode::is_space(c) {
            self.end_run();
            self.blank();
        } else {
            self.other(bytes);
        }
    }

    /// Ends the text and returns its length.
    fn finish(mut self) -> usize {
        self.end_run();
        self.blank();
        if self.len() > 0 {
            self.out.pop();
        }
        self.len()
    }
}
