//! What endpoints are sent. In: an inquiry and the configuration; out: the body of a request. Own JSON in place of typed
//! structs: vLLM and `SGLang` take fields that `OpenAI` does not have.

use serde_json::{Map, Value, json};

use super::config::{Config, Conversation, Flavor};
use super::endpoint::Call;
use super::special::sendable;
use super::transport::Route;
use crate::judge::inquiry::{ChatRole, PromptMessage};

/// Characters of a token, about.
const CHARS_PER_TOKEN: u64 = 4;

/// A chat request that ends after one token, whose distribution is wanted.
pub(super) fn label_logprobs(config: &Config, messages: &[PromptMessage], labels: &[String]) -> Call {
    let mut body = chat(config, messages, 1);
    body.insert("logprobs".to_owned(), true.into());
    body.insert("top_logprobs".to_owned(), config.top_logprobs.into());
    if config.flavor == Flavor::Vllm {
        let ids: Option<Vec<u32>> = labels.iter().map(|label| config.label_token_ids.get(label).copied()).collect();
        // An older vLLM ignores it and gives the likeliest tokens.
        if let Some(ids) = ids {
            body.insert("logprob_token_ids".to_owned(), ids.into());
        }
    }
    turn_thinking_off(config, &mut body);
    call(Route::Chat, body, messages, 1)
}

/// A chat request for a JSON object that names one of the labels.
pub(super) fn label_json(config: &Config, messages: &[PromptMessage], labels: &[String]) -> Call {
    let properties = json!({ "verdict": { "type": "string", "enum": labels } });
    let mut call = json_chat(config, messages, &properties, config.max_reply_tokens);
    if let Some(body) = call.body.as_object_mut() {
        turn_thinking_off(config, body);
    }
    call
}

/// A chat request for reasoning and then a label.
pub(super) fn reasoned_label(
    config: &Config,
    messages: &[PromptMessage],
    labels: &[String],
    (thinking_tokens, seed): (u32, u64),
) -> Call {
    // Reasoning stands before the verdict, as named and by the alphabet: it must be written first.
    let properties = json!({ "reasoning": { "type": "string" }, "verdict": { "type": "string", "enum": labels } });
    let most = config.max_reply_tokens.saturating_add(thinking_tokens);
    let mut call = json_chat(config, messages, &properties, most);
    if let Some(body) = call.body.as_object_mut() {
        // Endpoints read seeds as signed.
        body.insert("seed".to_owned(), (seed & i64::MAX.unsigned_abs()).into());
    }
    call
}

/// A chat request for an order of the numbers 1 to `candidates`.
pub(super) fn order(config: &Config, messages: &[PromptMessage], candidates: usize) -> Call {
    let numbers: Vec<usize> = (1..=candidates).collect();
    let properties = json!({ "order": { "type": "array", "items": { "type": "integer", "enum": numbers } } });
    // A number, a comma and a space are at most this many tokens.
    let list_tokens = u32::try_from(candidates).unwrap_or(u32::MAX).saturating_mul(8);
    json_chat(config, messages, &properties, config.max_reply_tokens.saturating_add(list_tokens))
}

/// A request for the raw output of a reward model at vLLM, which applies the model's template.
pub(super) fn reward_messages(config: &Config, messages: &[PromptMessage]) -> Call {
    let mut body = Map::new();
    body.insert("model".to_owned(), config.model.as_str().into());
    body.insert("messages".to_owned(), chat_messages(config, messages));
    // Otherwise a single output comes through a sigmoid, several through a softmax.
    body.insert("use_activation".to_owned(), false.into());
    insert_template_kwargs(config, &mut body);
    call(Route::Classify, body, messages, 0)
}

/// A request for the raw output of a reward model at `SGLang`, which takes text as it is.
pub(super) fn reward_text(config: &Config, messages: &[PromptMessage], conversation: Conversation) -> Call {
    let mut body = Map::new();
    body.insert("model".to_owned(), config.model.as_str().into());
    body.insert("text".to_owned(), written(config, messages, conversation).into());
    call(Route::Classify, body, messages, 0)
}

fn json_chat(config: &Config, messages: &[PromptMessage], properties: &Value, max_tokens: u32) -> Call {
    let required: Vec<String> = properties.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    let schema = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    let format = json!({
        "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema },
    });
    let mut body = chat(config, messages, max_tokens);
    body.insert("response_format".to_owned(), format);
    call(Route::Chat, body, messages, max_tokens)
}

fn chat(config: &Config, messages: &[PromptMessage], max_tokens: u32) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".to_owned(), config.model.as_str().into());
    body.insert("messages".to_owned(), chat_messages(config, messages));
    body.insert("temperature".to_owned(), config.temperature.into());
    if config.temperature > 0.0 {
        // The same question gets the same answer, where an endpoint can; reasoning brings a seed of its own.
        body.insert("seed".to_owned(), 0.into());
    }
    // OpenAI's newer models refuse the old name; others may not know the new one.
    let limit = if config.flavor == Flavor::Openai { "max_completion_tokens" } else { "max_tokens" };
    body.insert(limit.to_owned(), max_tokens.into());
    if config.flavor != Flavor::Openai {
        insert_template_kwargs(config, &mut body);
        if messages.last().is_some_and(|message| message.role == ChatRole::Assistant) {
            body.insert("continue_final_message".to_owned(), true.into());
            body.insert("add_generation_prompt".to_owned(), false.into());
        }
    }
    body
}

/// A template that opens a space for thinking puts it where the label is due, and nobody granted tokens for it.
fn turn_thinking_off(config: &Config, body: &mut Map<String, Value>) {
    if config.flavor != Flavor::Openai {
        let mut kwargs = config.chat_template_kwargs.clone();
        kwargs.entry("enable_thinking").or_insert(Value::Bool(false));
        body.insert("chat_template_kwargs".to_owned(), kwargs.into());
    }
}

fn insert_template_kwargs(config: &Config, body: &mut Map<String, Value>) {
    if !config.chat_template_kwargs.is_empty() {
        body.insert("chat_template_kwargs".to_owned(), config.chat_template_kwargs.clone().into());
    }
}

fn chat_messages(config: &Config, messages: &[PromptMessage]) -> Value {
    messages
        .iter()
        .map(|message| json!({ "role": message.role.as_str(), "content": sendable(message, &config.special_tokens) }))
        .collect::<Vec<_>>()
        .into()
}

fn call(route: Route, body: Map<String, Value>, messages: &[PromptMessage], reply_tokens: u32) -> Call {
    let chars: u64 = messages.iter().map(|message| message.text.chars().count() as u64).sum();
    Call { route, body: body.into(), tokens: chars / CHARS_PER_TOKEN + u64::from(reply_tokens) }
}

/// The conversation as the model's template would write it.
fn written(config: &Config, messages: &[PromptMessage], conversation: Conversation) -> String {
    let write = |message: &PromptMessage| {
        let (role, said) = (message.role.as_str(), sendable(message, &config.special_tokens));
        match conversation {
            Conversation::Chatml => format!("<|im_start|>{role}\n{said}<|im_end|>\n"),
            Conversation::Llama3 => format!("<|start_header_id|>{role}<|end_header_id|>\n\n{said}<|eot_id|>"),
        }
    };
    messages.iter().map(write).collect()
}
