//! What models of several families are shown, in tokens.

use std::collections::BTreeSet;

use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;

/// Turns as Llama 3 writes them.
const HEADERS: &str = "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ \
                       message.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt \
                       %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

/// A model whose tokens are bytes and `special`; its `generation_config.json` names `ends`.
pub(in crate::train) fn protocol(template: &str, special: &[&str], ends: &[&str]) -> Protocol {
    opened(&files(template, special, ends))
}

fn opened(dir: &tempfile::TempDir) -> Protocol {
    let config = json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 64, "vocab_size": 512,
    });
    Protocol::load(dir.path(), &ModelConfig::from_json(&config.to_string()).unwrap(), "[]").unwrap()
}

/// Its files.
pub(in crate::train) fn files(template: &str, special: &[&str], ends: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    let vocabulary: serde_json::Map<_, _> = bytes.iter().map(char::to_string).zip((0..).map(Into::into)).collect();
    let id = |at: usize| bytes.len() + at;
    let added = |(at, token): (usize, &&str)| {
        json!({"id": id(at), "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": special.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": []},
    });
    let ends: Vec<usize> = ends.iter().map(|end| id(special.iter().position(|token| token == end).unwrap())).collect();
    for (name, text) in [
        ("tokenizer.json", tokenizer.to_string()),
        ("generation_config.json", json!({"eos_token_id": ends}).to_string()),
        ("chat_template.jinja", template.to_owned()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// As Llama 3 Instruct: what ends a text comes first, and its template ends turns with another token.
pub(in crate::train) fn llama() -> Protocol {
    let ends = ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"];
    protocol(HEADERS, &[&ends[..], &["<|start_header_id|>", "<|end_header_id|>"]].concat(), &ends)
}

/// As models that always reason: the template opens the reasoning of a turn, but not behind a tool's result.
pub(in crate::train) fn reasoner() -> Protocol {
    let template = "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}{% if messages[-1].role != \
                    'tool' %}<|assistant|><think>\n{% endif %}";
    protocol(template, &["<|end|>", "<|assistant|>", "<think>", "</think>"], &["<|end|>"])
}

/// As Llama 3.1: what is said stands there as JSON.
pub(in crate::train) fn in_json() -> Protocol {
    let template = "{% for message in messages %}{% if message.role == 'tool' %}{{ message.content | tojson }}{% else \
                    %}{{ message.content }}{% endif %}<|end|>{% endfor %}";
    protocol(template, &["<|end|>"], &["<|end|>"])
}

fn shown(protocol: &Protocol, tokens: Result<Vec<u32>, TrainError>) -> String {
    protocol.text(&tokens.unwrap()).unwrap()
}

fn started(protocol: &Protocol, start: Result<TurnStart, TrainError>) -> String {
    shown(protocol, start.map(|start| start.tokens))
}

#[test]
fn a_turn_ends_as_the_template_ends_it() {
    let llama = llama();
    assert_eq!(shown(&llama, llama.turn("Hi")), "Hi<|eot_id|>");
    let after =
        "<|start_header_id|>tool<|end_header_id|>\n\n42<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(started(&llama, llama.after_turn(&["42".to_owned()])), after);
    // As Qwen2.5 before it was instructed: only the end of a text is named.
    let chatml = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>\n{% endfor %}";
    let qwen = protocol(chatml, &["<|endoftext|>", "<|im_start|>", "<|im_end|>"], &["<|endoftext|>"]);
    assert_eq!(shown(&qwen, qwen.turn("Hi")), "Hi<|im_end|>");
    assert_eq!(started(&qwen, qwen.after_turn(&["42".to_owned()])), "\n<|im_start|>42<|im_end|>\n");
}

#[test]
fn what_stands_before_the_end_of_a_turn_belongs_to_the_turn() {
    // As DeepSeek-Coder's.
    let lines = "{% for message in messages %}{% if message.role == 'assistant' %}{{ message.content }}\n<|EOT|>\n{% else \
                 %}### {{ message.role }}:\n{{ message.content }}\n{% endif %}{% endfor %}### Response:";
    let coder = protocol(lines, &["<|begin|>", "<|EOT|>"], &["<|EOT|>"]);
    assert_eq!(shown(&coder, coder.turn("Hi")), "Hi\n<|EOT|>");
    let after = "\n### tool:\nthe <|EOT|>\n### Response:";
    assert_eq!(started(&coder, coder.after_turn(&["the <|EOT|>".to_owned()])), after);
    // What a tool says is no end of the turn before it.
    let bare = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}";
    let bare = protocol(bare, &["<|EOT|>"], &["<|EOT|>"]);
    assert_eq!(started(&bare, bare.after_turn(&["<|EOT|>".to_owned()])), "\ntool: <|EOT|>\n");
}

#[test]
fn a_result_that_says_what_stands_for_a_turn_is_a_result() {
    let llama = llama();
    let result = format!("see {TURN} there");
    let plain = started(&llama, llama.after_turn(&["42".to_owned()]));
    assert_eq!(started(&llama, llama.after_turn(std::slice::from_ref(&result))), plain.replace("42", &result));
    // A template that puts results before the turn would make it a part of the next prompt's beginning.
    let backwards = "{% for message in messages | reverse %}{{ message.content }}\n{% endfor %}";
    let backwards = protocol(backwards, &["<|end|>"], &["<|end|>"]);
    assert!(backwards.after_turn(&[result]).is_err());
}

/// Shows whether it was given tools, and which.
pub(in crate::train) fn tooled() -> Protocol {
    let template = "{% if tools is not none %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% else \
                    %}none {% endif %}{% for message in messages %}{{ message.content }}<|end|>{% endfor %}";
    protocol(template, &["<|end|>"], &["<|end|>"])
}

#[test]
fn the_template_is_given_the_tools() {
    let asked = [Message { role: Role::User, text: "Hi".to_owned() }];
    let opened = |protocol: &Protocol| started(protocol, protocol.prompt(&asked));
    let named = |name: &str| json!([{"type": "function", "function": {"name": name}}]).to_string();
    let (none, search) = (tooled(), tooled().with_tools(&named("search")).unwrap());
    assert_eq!((opened(&none), opened(&search)), ("none Hi<|end|>".to_owned(), "search Hi<|end|>".to_owned()));
    assert_eq!(opened(&search.with_tools("[]").unwrap()), "none Hi<|end|>");
    assert_eq!(started(&search, search.after_turn(&["42".to_owned()])), "42<|end|>");
    assert!(search.with_tools("{}").unwrap_err().to_string().contains("no JSON list"));
}

#[test]
fn a_result_in_json_is_json() {
    let protocol = in_json();
    let result = "[1] The \"seat\"\n<|end|>";
    let after = protocol.after_turn(&[result.to_owned()]).unwrap().tokens;
    let text = protocol.text(&after).unwrap();
    assert_eq!(serde_json::from_str::<String>(text.strip_suffix("<|end|>").unwrap()).unwrap(), result);
    assert_eq!(after.iter().filter(|token| protocol.ends(**token)).count(), 1, "a result ends no turn");
}

#[test]
fn a_turn_begins_with_what_the_template_wrote_of_it() {
    let asks = |text: &str| vec![Message { role: Role::User, text: text.to_owned() }];
    let begun = |start: Result<TurnStart, TrainError>| start.unwrap().begun;
    let (reasoner, llama) = (reasoner(), llama());
    assert_eq!(begun(reasoner.prompt(&asks("Hi"))), "<think>\n");
    assert_eq!(begun(reasoner.after_turn(&["42".to_owned()])), "");
    assert_eq!(begun(llama.prompt(&asks("Hi"))), "");
    // Whoever asks does not open it.
    let bare = protocol("{% for message in messages %}{{ message.content }}{% endfor %}", &["<|end|>"], &["<|end|>"]);
    assert_eq!(begun(bare.prompt(&asks("Is it <think>"))), "");
    assert_eq!(begun(bare.after_turn(&["<think>".to_owned()])), "");
}

/// BPE over words that begin with `▁`, as Llama 2 has it.
fn with_words(dir: &tempfile::TempDir, normalizer: &Value, pre_tokenizer: &Value) -> Protocol {
    let path = dir.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let letters = "▁\n:Hiaestorlu42".chars();
    let vocabulary = letters.map(String::from).chain(["▁Hi".to_owned(), "▁H".to_owned(), "Hi".to_owned()]);
    let vocabulary: serde_json::Map<_, _> = vocabulary.zip((0..).map(Into::into)).collect();
    file["model"]["vocab"] = vocabulary.into();
    file["model"]["merges"] = json!([["▁", "H"], ["▁H", "i"], ["H", "i"]]);
    (file["normalizer"], file["pre_tokenizer"], file["decoder"]) =
        (normalizer.clone(), pre_tokenizer.clone(), Value::Null);
    std::fs::write(&path, file.to_string()).unwrap();
    opened(dir)
}

/// A template for it.
const LINES: &str =
    "{% for message in messages %}{{ message.role }}:{{ message.content }}<|end|>\n{% endfor %}assistant:\n";

/// As `SentencePiece`'s: only what a text begins with, and what follows a space, begins with one.
pub(in crate::train) fn words() -> Protocol {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    with_words(&files(LINES, &["<|end|>"], &["<|end|>"]), &Value::Null, &metaspace)
}

#[test]
fn a_turn_has_the_tokens_that_it_has_in_its_conversation() {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    for (normalizer, pre_tokenizer, behind_end) in [(Value::Null, metaspace, "\n"), (prepend, Value::Null, "▁\n")] {
        let dir = files(LINES, &["<|end|>"], &["<|end|>"]);
        let protocol = with_words(&dir, &normalizer, &pre_tokenizer);
        let named = |tokens: Vec<u32>| -> String {
            let names: Vec<String> = tokens.iter().map(|id| protocol.tokenizer.id_to_token(*id).unwrap()).collect();
            names.join("|")
        };
        assert_eq!(named(protocol.turn("Hi Hi").unwrap()), "Hi|▁Hi|<|end|>");
        let after = named(protocol.after_turn(&["42".to_owned()]).unwrap().tokens);
        let wanted: Vec<String> = behind_end.chars().map(String::from).collect();
        assert!(after.starts_with(&format!("{}|t|o|o|l|:|4|2|<|end|>", wanted.join("|"))), "{after}");
    }
}

#[test]
fn where_the_template_writes_no_end_the_first_is_taken() {
    let lines = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}";
    let plain = protocol(lines, &["<|end_of_text|>", "<|eot_id|>"], &["<|end_of_text|>", "<|eot_id|>"]);
    assert_eq!(shown(&plain, plain.turn("Hi")), "Hi<|end_of_text|>");
    assert_eq!(started(&plain, plain.after_turn(&["42".to_owned()])), "\ntool: 42\n");
}
