//! Keeps a trajectory's text from speaking a model's special tokens. In: a message; out: its text as it may be sent. A
//! server is given text and reads special tokens wherever they stand, so those in untrusted text are broken up by a space
//! after their first character. Knows no tokenizer: the common ones are listed, others are named in the configuration.

use std::borrow::Cow;

use crate::judge::inquiry::PromptMessage;

/// What special tokens look like: beginnings where a whole family shares one, whole tokens elsewhere.
const COMMON: [&str; 31] = [
    // Qwen, Llama 3, Phi, gpt-oss; DeepSeek writes the full-width bar.
    "<|",
    "<\u{ff5c}",
    // Llama 2, Mistral
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<<SYS>>",
    "<</SYS>>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[THINK]",
    "[/THINK]",
    // Gemma
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    // Reasoning and tools
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
];

/// The text of a message in which nothing untrusted is one of the special tokens, common or `own`.
pub(super) fn sendable<'m>(message: &'m PromptMessage, own: &[String]) -> Cow<'m, str> {
    let special = |rest: &str| {
        COMMON.iter().any(|token| rest.starts_with(token)) || own.iter().any(|token| rest.starts_with(token.as_str()))
    };
    let text = &message.text;
    let untrusted = message.untrusted.iter().flat_map(|range| {
        let part = text.get(range.clone()).unwrap_or_default();
        part.char_indices().map(|(at, char)| (range.start + at, char))
    });
    // Only where a token begins inside untrusted text; it may end beyond.
    let breaks =
        untrusted.filter(|(at, _)| text.get(*at..).is_some_and(special)).map(|(at, char)| at + char.len_utf8());
    let (mut sendable, mut done) = (String::new(), 0);
    for at in breaks {
        sendable.push_str(text.get(done..at).unwrap_or_default());
        sendable.push(' ');
        done = at;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    sendable.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(sendable)
}
