//! Which tokens end a text. In: a model directory and its tokenizer. Out: token ids.

use std::path::Path;

use serde_json::Value;

use super::tokenizer::Tokenizer;

/// The tokens that end a text: those of `generation_config.json`, of the model itself, and the chat's end of turn.
pub fn end_tokens(dir: &Path, tokenizer: &Tokenizer, configured: &[u32]) -> Vec<u32> {
    let text = std::fs::read_to_string(dir.join("generation_config.json")).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let named = listed_tokens(value.get("eos_token_id"));
    let turn = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "</s>", "<|endoftext|>"];
    let turn = turn.iter().filter_map(|token| tokenizer.token_to_id(token));
    let mut all: Vec<u32> = Vec::new();
    for token in named.into_iter().chain(configured.iter().copied()).chain(turn) {
        if !all.contains(&token) {
            all.push(token);
        }
    }
    all
}

/// The tokens that a value of a file names: one, or a list; what is no token is passed over.
pub(super) fn listed_tokens(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    }
}
