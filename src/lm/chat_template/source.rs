//! Where a model directory keeps its chat template and the names of its special tokens.
//!
//! In: a directory in Hugging Face's layout. Out: [`ChatSource`]. Reads files; knows no template engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ChatTemplateError;

/// The special tokens that chat templates write by name (`bos_token`, ..) and their text.
pub type SpecialTokens = BTreeMap<String, String>;

/// The name of the template for plain conversations, where there are several.
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
pub(super) fn find(directory: &Path) -> Result<ChatSource, ChatTemplateError> {
    let config_path = directory.join("tokenizer_config.json");
    let config = read_json(&config_path)?;
    let tokens = tokens(config.as_ref(), read_json(&directory.join("special_tokens_map.json"))?.as_ref());
    let jinja_path = directory.join("chat_template.jinja");
    let json_path = directory.join("chat_template.json");
    if let Some(template) = read(&jinja_path)? {
        return Ok(ChatSource { path: jinja_path, template, tokens });
    }
    let json = read_json(&json_path)?;
    for (path, file) in [(&config_path, &config), (&json_path, &json)] {
        if let Some(value) = file.as_ref().and_then(|file| file.get("chat_template")).filter(|value| !value.is_null()) {
            return Ok(ChatSource { template: choose(path, value)?, path: path.clone(), tokens });
        }
    }
    Err(ChatTemplateError::Missing { looked_at: vec![jinja_path, config_path, json_path] })
}

/// The template itself, or the default one of a list of named ones.
fn choose(path: &Path, value: &Value) -> Result<String, ChatTemplateError> {
    if let Some(template) = value.as_str() {
        return Ok(template.to_owned());
    }
    let list = value.as_array();
    let list = list.ok_or_else(|| malformed(path, "`chat_template` must be a string or a list of {name, template}"))?;
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in list {
        let text = |key| entry.get(key).and_then(Value::as_str);
        let (Some(name), Some(template)) = (text("name"), text("template")) else {
            return Err(malformed(path, "an entry of `chat_template` needs the strings `name` and `template`"));
        };
        named.insert(name, template);
    }
    let default = named.get(DEFAULT).map(|template| (*template).to_owned());
    default.ok_or_else(|| ChatTemplateError::NoDefault {
        path: path.to_owned(),
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
    serde_json::from_str(&text).map(Some).map_err(|error| malformed(path, format!("it is no JSON object: {error}")))
}

fn read(path: &Path) -> Result<Option<String>, ChatTemplateError> {
    let unreadable = |error: std::io::Error| malformed(path, format!("cannot be read: {error}"));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            let message = format!("it has {} bytes, more than the limit of {MAX_FILE_BYTES}", metadata.len());
            return Err(malformed(path, format!("cannot be read: {message}")));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(unreadable)
}

fn malformed(path: &Path, message: impl Into<String>) -> ChatTemplateError {
    ChatTemplateError::Malformed { path: path.to_owned(), message: message.into() }
}
