//! Small tokenizers of the usual kinds, made here: files as Hugging Face writes them.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;

/// Splits as the tokenizers of Qwen and Llama 3 do: contractions, words, digits, punctuation, lines, spaces.
const WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What the byte-level tokenizer has one token for, besides single bytes. `Ġ` is a space and `Ċ` a line end there.
const MERGED: [&str; 12] =
    ["Yes", "ĠYes", "No", "ĠNo", "Match", "ĠMatch", "im", "start", "end", "answer", "Ġanswer", "ĊĊ"];

pub(super) static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(&byte_level_file()));
pub(super) static METASPACE: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(&metaspace_file()));
pub(super) static PREPEND: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(&prepend_file()));
pub(super) static WORD_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(&word_level_file()));

fn tokenizer(file: &Value) -> Tokenizer {
    Tokenizer::from_json(Path::new("tokenizer.json"), file.to_string().as_bytes()).unwrap()
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special})
}

/// Byte-level BPE with the special tokens of `ChatML`, and tokens for thinking and tool calls that are added but not special.
pub(super) fn byte_level_file() -> Value {
    let (vocabulary, merges) = merged(byte_alphabet(), &MERGED);
    let first = vocabulary.len();
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|token| (token, true));
    let others = ["<think>", "</think>", "<tool_call>", "</tool_call>"].map(|token| (token, false));
    let added: Vec<_> = specials
        .into_iter()
        .chain(others)
        .enumerate()
        .map(|(at, (token, special))| added(first + at, token, special))
        .collect();
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": bpe(&vocabulary, &merges),
    })
}

/// BPE over words that begin with `▁`, with bytes to fall back to, as Llama 2 and Mistral have it: `<s>` and `</s>` stand in
/// the vocabulary itself.
fn metaspace_file() -> Value {
    let letters = ('a'..='z').chain('A'..='Z').chain("▁:[]/<>.|é".chars()).map(String::from);
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let base = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"].map(str::to_owned).into_iter().chain(bytes).chain(letters);
    let (vocabulary, merges) = merged(base.collect(), &["Yes", "▁Yes", "No", "▁No", "▁right"]);
    let added: Vec<_> = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
        .iter()
        .enumerate()
        .map(|(id, token)| added(id, token, true))
        .collect();
    let mut model = bpe(&vocabulary, &merges);
    model["unk_token"] = json!("<unk>");
    model["byte_fallback"] = json!(true);
    model["fuse_unk"] = json!(true);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": model,
    })
}

/// The same vocabulary with a normaliser that writes `▁` for spaces and before every part, as the older files of that family
/// have it, and one added token that is looked for after it.
fn prepend_file() -> Value {
    let mut file = metaspace_file();
    file["pre_tokenizer"] = Value::Null;
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let tokens = file["added_tokens"].as_array_mut().unwrap();
    tokens[2]["normalized"] = json!(true);
    file
}

/// Whole words, special ones among them; lower case before anything else, and one added token that is looked for after it.
fn word_level_file() -> Value {
    let words = ["[unk]", "[SEP]", "hello", "world", "<go>", "[sep]"];
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let mut go = added(4, "<go>", false);
    go["normalized"] = json!(true);
    let mut sep = added(5, "[sep]", true);
    sep["rstrip"] = json!(true);
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "[unk]", true), go, sep],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[unk]"},
    })
}

fn bpe(vocabulary: &[String], merges: &[[String; 2]]) -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges})
}

/// A vocabulary and the merges that build up these words: a space in front of a word that is there already, all others
/// letter by letter.
fn merged(mut vocabulary: Vec<String>, words: &[&str]) -> (Vec<String>, Vec<[String; 2]>) {
    let mut merges = Vec::new();
    for word in words {
        let splits = word.char_indices().map(|(at, _)| word.split_at(at)).filter(|(left, _)| !left.is_empty());
        let has = |vocabulary: &[String], token: &str| vocabulary.iter().any(|known| known == token);
        let mut pairs: Vec<(String, String)> = match splits.clone().next() {
            Some((space, rest)) if has(&vocabulary, rest) => vec![(space.to_owned(), rest.to_owned())],
            _ => splits.map(|(left, rest)| (left.to_owned(), rest.chars().take(1).collect())).collect(),
        };
        pairs.retain(|(left, right)| !has(&vocabulary, &format!("{left}{right}")));
        for (left, right) in pairs {
            vocabulary.push(format!("{left}{right}"));
            merges.push([left, right]);
        }
    }
    (vocabulary, merges)
}

/// The visible character that stands for each byte in byte-level vocabularies.
fn byte_alphabet() -> Vec<String> {
    let visible = |byte: u32| (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
    let mut hidden = 256..;
    let characters = (0..256).map(|byte| if visible(byte) { byte } else { hidden.next().unwrap() });
    characters.map(|code| char::from_u32(code).unwrap().to_string()).collect()
}
