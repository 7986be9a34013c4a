//! Where a model directory keeps its chat template and the names of its special tokens.
//!
//! In: a directory in Hugging Face's layout. Out: [`ChatSource`]. Reads files; knows no template engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ChatTemplateError;

/// The special tokens that chat templates write by name (`bos_token`, ..) and their text.
pub type SpecialTokens = BTreeMap<String, String>;

/// The template whose name is used when none is asked for.
const DEFAULT: &str = "default";
/// Longest file that is read, in bytes: the largest tokenizer files have some tens of megabytes.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// A chat template's text with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChatSource {
    /// The file that it stands in.
    pub(super) path: PathBuf,
    /// Jinja.
    pub(super) template: String,
    /// Text of the special tokens.
    pub(super) tokens: SpecialTokens,
}

/// Finds the template in a model directory. A file of its own goes before the key in the tokenizer's configuration, as
/// `transformers` has it.
pub(super) fn find(directory: &Path, name: Option<&str>) -> Result<ChatSource, ChatTemplateError> {
    let config_path = directory.join("tokenizer_config.json");
    let config = read_json(&config_path)?;
    let tokens = tokens(config.as_ref(), read_json(&directory.join("special_tokens_map.json"))?.as_ref());
    let jinja_path = directory.join("chat_template.jinja");
    let json_path = directory.join("chat_template.json");
    if let (None | Some(DEFAULT), Some(template)) = (name, read(&jinja_path)?) {
        return Ok(ChatSource { path: jinja_path, template, tokens });
    }
    let json = read_json(&json_path)?;
    for (path, file) in [(&config_path, &config), (&json_path, &json)] {
        if let Some(value) = file.as_ref().and_then(|file| file.get("chat_template")).filter(|value| !value.is_null()) {
            return Ok(ChatSource { template: choose(path, value, name)?, path: path.clone(), tokens });
        }
    }
    Err(ChatTemplateError::Missing { looked_at: vec![jinja_path, config_path, json_path] })
}

/// The template itself, or the one of that name in a list of named ones.
fn choose(path: &Path, value: &Value, name: Option<&str>) -> Result<String, ChatTemplateError> {
    let malformed = |message: &str| ChatTemplateError::Malformed { path: path.to_owned(), message: message.to_owned() };
    if let (Some(template), None | Some(DEFAULT)) = (value.as_str(), name) {
        return Ok(template.to_owned());
    }
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    match value {
        Value::String(template) => _ = named.insert(DEFAULT, template),
        Value::Array(list) => {
            for entry in list {
                let text = |key| entry.get(key).and_then(Value::as_str);
                let (Some(name), Some(template)) = (text("name"), text("template")) else {
                    return Err(malformed("an entry of `chat_template` needs the strings `name` and `template`"));
                };
                named.insert(name, template);
            }
        }
        _ => return Err(malformed("`chat_template` must be a string or a list of {name, template}")),
    }
    let wanted = name.unwrap_or(DEFAULT);
    named.get(wanted).map(|template| (*template).to_owned()).ok_or_else(|| ChatTemplateError::NoSuchTemplate {
        path: path.to_owned(),
        name: wanted.to_owned(),
        known: named.into_keys().map(str::to_owned).collect(),
    })
}

/// Every `.._token` key, as a string or as an object with `content`; the tokenizer's configuration wins.
fn tokens(config: Option<&Map<String, Value>>, map: Option<&Map<String, Value>>) -> SpecialTokens {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
    let entries = map.into_iter().chain(config).flatten();
    entries.filter(|(key, _)| key.ends_with("_token")).filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect()
}

/// A JSON object; `None` when there is no such file.
fn read_json(path: &Path) -> Result<Option<Map<String, Value>>, ChatTemplateError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let message = |error: serde_json::Error| ChatTemplateError::Malformed {
        path: path.to_owned(),
        message: format!("it is no JSON object: {error}"),
    };
    serde_json::from_str(&text).map(Some).map_err(message)
}

fn read(path: &Path) -> Result<Option<String>, ChatTemplateError> {
    let unreadable =
        |error: std::io::Error| ChatTemplateError::Unreadable { path: path.to_owned(), message: error.to_string() };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            let message = format!("it has {} bytes, more than the limit of {MAX_FILE_BYTES}", metadata.len());
            return Err(ChatTemplateError::Unreadable { path: path.to_owned(), message });
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(unreadable)
}
