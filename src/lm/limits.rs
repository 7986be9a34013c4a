//! What a model can read: sequences within its context, tokens within its vocabulary. In: numbers. Out: an error that
//! names them.

use super::LmError;

/// What has the limit of a sequence.
pub(super) const OF_CONTEXT: &str = "of the model's context";

/// Refuses a sequence beyond the context.
pub(super) fn check_length(tokens: usize, context: usize) -> Result<(), LmError> {
    if tokens > context {
        return Err(LmError::TooLong { tokens, limit: context, of: OF_CONTEXT });
    }
    Ok(())
}

/// Refuses tokens beyond the vocabulary.
pub(super) fn check_vocabulary(tokens: &[u32], vocab: usize) -> Result<(), LmError> {
    match tokens.iter().find(|token| **token as usize >= vocab) {
        Some(token) => Err(LmError::Unsupported(format!(
            "token {token} is beyond the vocabulary of {vocab}; tokenizer.json belongs to another model"
        ))),
        None => Ok(()),
    }
}
