//! Token by token to text that is always whole characters.
//!
//! In: one id after the other. Out: the text that each completes. A token may end inside a character: its bytes wait for
//! the next ones.

use super::{SpecialText, Tokenizer, TokenizerError};

/// What decoders write for bytes that are no character, or not yet.
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;
/// Tokens that one unfinished character can reach over: it lacks a byte of at most four, and every token has one.
const MAX_PENDING: usize = 3;

/// Decodes a stream of tokens; what it gives out joins to what [`Tokenizer::decode`] gives for all of them.
#[derive(Debug, Clone)]
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    special: SpecialText,
    /// The tokens shown last, which decide how the next ones are written, and those that wait.
    ids: Vec<u32>,
    /// How many of `ids` are shown.
    shown: usize,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, special: SpecialText) -> Self {
        Self { tokenizer, special, ids: Vec::new(), shown: 0 }
    }

    /// Takes one token and gives the text that is complete by now, often none.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let whole = self.tokenizer.decode(&self.ids, self.special)?;
        if !whole.ends_with(INCOMPLETE) {
            return self.show(self.ids.len());
        }
        // What waits longer than any character needs is broken, and is shown as such.
        let settled = self.ids.len().saturating_sub(MAX_PENDING);
        if settled > self.shown { self.show(settled) } else { Ok(String::new()) }
    }

    /// The rest: an unfinished character comes out as U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        self.show(self.ids.len())
    }

    /// Shows the tokens before `end` that are not shown yet, and forgets those whose influence is over.
    fn show(&mut self, end: usize) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(self.ids.get(..self.shown).unwrap_or_default(), self.special)?;
        let mut text = self.tokenizer.decode(self.ids.get(..end).unwrap_or_default(), self.special)?;
        let shared = before.chars().zip(text.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        self.ids.drain(..self.shown);
        self.shown = end - self.shown;
        Ok(text.split_off(shared))
    }
}
