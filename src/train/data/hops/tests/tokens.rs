//! The tokenizer loses nothing, is short where it matters, and its template writes what a rollout reads.

use std::str::FromStr;
use std::sync::LazyLock;

use minijinja::Environment as Templates;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use proptest::prelude::*;
use tokenizers::Tokenizer;

use super::*;
use crate::lm::chat_template::{ChatMessage, ChatOptions, ChatTemplate};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_str(&HOPS.tokenizer().tokenizer).unwrap());

fn tokens(text: &str) -> Vec<String> {
    TOKENIZER.encode(text, false).unwrap().get_tokens().to_vec()
}

fn decode(ids: &[u32], without_special: bool) -> String {
    TOKENIZER.decode(ids, without_special).unwrap()
}

/// The conversation as the chat template writes it.
fn render(messages: &Value, answer: bool) -> String {
    let config: Value = serde_json::from_str(&HOPS.tokenizer().config).unwrap();
    let mut templates = Templates::new();
    // As Hugging Face sets them.
    templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap());
    let template = config["chat_template"].as_str().unwrap();
    let tools: Value = serde_json::from_str(HOPS.tools_json()).unwrap();
    let variables = json!({ "messages": messages, "tools": tools, "add_generation_prompt": answer });
    templates.render_str(template, minijinja::Value::from(Serde(variables))).unwrap()
}

#[test]
fn ids_are_dense_and_few() {
    let files = HOPS.tokenizer();
    assert_eq!(TOKENIZER.get_vocab_size(true), files.vocabulary_size, "no piece twice");
    let last = TOKENIZER.get_vocab(true).into_values().max().unwrap() as usize;
    assert_eq!(last + 1, files.vocabulary_size);
    assert!(files.vocabulary_size < 512, "{}", files.vocabulary_size);
    assert_eq!(TOKENIZER.token_to_id(END_TOKEN).map(|id| id as usize), Some(files.end_id));
    assert_eq!(TOKENIZER.token_to_id(PAD_TOKEN).map(|id| id as usize), Some(files.pad_id));
}

#[test]
fn a_name_and_a_year_are_three_tokens_wherever_they_stand() {
    let mut names = BTreeSet::from(["1900", "1999"]);
    names.extend(HOPS.environment().passages().iter().map(|passage| passage.title.as_str()));
    for name in names {
        let whole: Vec<String> = tokens(name);
        assert_eq!(whole.len(), 3, "{name}: {whole:?}");
        for (before, after) in
            [(" of ", "\"}}"), (" is ", "</tool_response>"), ("<answer>", "</answer>"), (" of ", "?")]
        {
            let all = tokens(&format!("{before}{name}{after}"));
            assert_eq!((all.len(), all.get(1..4)), (5, Some(whole.as_slice())), "{before}{name}{after}: {all:?}");
        }
    }
}

#[test]
fn a_call_is_made_of_the_pieces_that_can_be_wrong() {
    let call = r#"<tool_call>{"name": "search", "arguments": {"query": "employer of Bafidu"}}</tool_call>"#;
    assert_eq!(
        tokens(call),
        [
            "<tool_call>",
            "{\"name\":Ġ\"",
            "search",
            "\",Ġ\"arguments\":Ġ{\"query\":Ġ\"",
            "employer",
            "ĠofĠ",
            "Ba",
            "fi",
            "du",
            "\"}}",
            "</tool_call>"
        ]
    );
    for text in [UNKNOWN_TOOL, NOTHING_FOUND, MALFORMED_CALL, "lookup", "\"}", "country", "\n"] {
        assert_eq!(tokens(text).len(), 1, "{text:?}");
    }
}

#[test]
fn an_episode_of_three_hops_is_about_120_tokens() {
    let episode = |demonstration: &Demonstration| {
        let messages = serde_json::to_value(&demonstration.messages).unwrap();
        tokens(&render(&messages, false)).len()
    };
    let longest = HOPS.demonstrations().iter().filter(|found| found.flaws.is_empty()).map(episode).max().unwrap();
    assert!((100..=120).contains(&longest), "{longest}");
    let flawed = HOPS.demonstrations().iter().map(episode).max().unwrap();
    assert!(flawed <= longest, "{flawed}: an error is no longer than a passage");
}

#[test]
fn the_template_writes_tool_results_in_one_user_turn_and_no_tools() {
    let messages = json!([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q?"},
        {"role": "assistant", "content": "<tool_call>..</tool_call>"},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"type": "function", "function": {"name": "search", "arguments": "{\"query\": \"x\"}"}},
        ]},
    ]);
    let written = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ?<|im_end|>\n\
                   <|im_start|>assistant\n<tool_call>..</tool_call><|im_end|>\n\
                   <|im_start|>user\n<tool_response>one</tool_response><tool_response>two</tool_response><|im_end|>\n\
                   <|im_start|>assistant\n<tool_call>{\"name\": \"search\", \"arguments\": {\"query\": \"x\"}}</tool_call><|im_end|>\n";
    assert_eq!(render(&messages, false), written);
    assert_eq!(render(&messages, true), format!("{written}<|im_start|>assistant\n"));
}

#[test]
fn the_engine_reads_the_files_and_writes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    HOPS.write(folder.path()).unwrap();
    let folder = folder.path().join("tokenizer");
    let tokenizer = crate::lm::tokenizer::Tokenizer::load(&folder).unwrap();
    let template = ChatTemplate::load(&folder).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), HOPS.tokenizer().vocabulary_size);

    let demonstration = HOPS.demonstrations().first().unwrap();
    let said = demonstration.messages.iter();
    let messages: Vec<ChatMessage<'_>> =
        said.map(|said| ChatMessage { role: said.role, text: &said.content, untrusted: &[] }).collect();
    let options = ChatOptions { tools: Some(HOPS.tools_json().to_owned()), ..ChatOptions::default() };
    let rendered = template.render(&messages, &options).unwrap();
    let written = render(&serde_json::to_value(&demonstration.messages).unwrap(), true);
    assert_eq!(rendered.text, written);
    let ids = tokenizer.encode_prompt(&rendered).unwrap();
    assert_eq!(ids, TOKENIZER.encode(written.as_str(), false).unwrap().get_ids());
    let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), written);
}

#[test]
fn marks_survive_decoding_and_control_tokens_can_be_left_out() {
    let text = "<|im_start|>assistant\n<tool_call>x</tool_call><|im_end|>";
    let ids = TOKENIZER.encode(text, false).unwrap().get_ids().to_vec();
    assert_eq!(decode(&ids, false), text);
    assert_eq!(decode(&ids, true), "assistant\n<tool_call>x</tool_call>");
}

proptest! {
    #[test]
    fn encoding_and_decoding_give_back_any_text(text in "(\\PC|[\\x00-\\x7f]|<tool_call>|<\\|im_end\\|>|Ba|fi| of |<0x41>|Ġ|▁){0,40}") {
        let ids = TOKENIZER.encode(text.as_str(), false).unwrap().get_ids().to_vec();
        prop_assert_eq!(decode(&ids, false), text);
    }
}
