//! Holding a text to a JSON schema, token by token, by llguidance. In: a model's tokenizer and a schema. Out: which tokens
//! may come next.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use super::LmError;
use super::sample::Mask;
use super::tokenizer::Tokenizer;

/// Makes constraints for one model.
#[derive(Clone)]
pub struct Constraints {
    factory: Arc<ParserFactory>,
    env: TokEnv,
}

/// One text's constraint.
pub struct Constraint {
    matcher: Matcher,
    env: TokEnv,
}

fn failed(what: &str, error: impl std::fmt::Display) -> LmError {
    LmError::Unsupported(format!("{what}: {error}"))
}

impl Constraints {
    /// Reads a tokenizer's vocabulary; `vocab` is the number of the model's logits, `end` the token that ends a text.
    ///
    /// # Errors
    /// When the vocabulary is none that texts can be made of.
    pub fn new(tokenizer: &Tokenizer, vocab: usize, end: u32) -> Result<Self, LmError> {
        let size = super::packed::narrow(vocab);
        let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&env).map_err(|e| failed("the vocabulary cannot be constrained", e))?;
        Ok(Self { factory: Arc::new(factory), env })
    }

    /// A constraint to the JSON texts of a schema, written without white space.
    ///
    /// # Errors
    /// When the schema cannot be held to.
    pub fn json(&self, mut schema: Value) -> Result<Constraint, LmError> {
        if let Some(object) = schema.as_object_mut() {
            object.insert("x-guidance".to_owned(), serde_json::json!({"whitespace_flexible": false}));
        }
        let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let mut matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(failed("the answer's schema cannot be held to", error));
        }
        // A schema that allows nothing shows here.
        matcher.compute_mask().map_err(|e| failed("the answer's schema allows nothing", e))?;
        Ok(Constraint { matcher, env: self.env.clone() })
    }
}

impl Constraint {
    /// The tokens that may come next.
    ///
    /// # Errors
    /// When none can.
    pub fn allowed(&mut self) -> Result<Mask, LmError> {
        let mask: SimpleVob = self.matcher.compute_mask_or_eos().map_err(|e| failed("the constraint failed", e))?;
        Ok(mask.as_slice().to_vec())
    }

    /// The token that must come next, where only one can.
    ///
    /// # Errors
    /// When none can.
    pub fn forced(&mut self) -> Result<Option<u32>, LmError> {
        let mask = self.allowed()?;
        let mut set = mask.iter().enumerate().filter(|(_, bits)| **bits != 0);
        match (set.next(), set.next()) {
            (Some((word, bits)), None) if bits.is_power_of_two() => {
                Ok(Some(super::packed::narrow(word * 32) + bits.trailing_zeros()))
            }
            _ => Ok(None),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// When it was not allowed.
    pub fn accept(&mut self, token: u32) -> Result<(), LmError> {
        self.matcher.consume_token(token).map_err(|e| failed("the constraint refused a token", e))
    }

    /// Whether the text is whole and nothing can follow.
    pub fn done(&mut self) -> bool {
        self.matcher.is_stopped() || self.matcher.is_accepting().unwrap_or(true)
    }

    /// The bytes of a token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.env.tok_trie().token(token)
    }
}

/// The bytes that a token stands for; those of special tokens are marked, so that no text is made of them.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    if let Some(added) = tokenizer.added_tokens().get(&id) {
        let mut bytes = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        bytes.extend_from_slice(added.content.as_bytes());
        return bytes;
    }
    tokenizer.token_bytes(id)
}
