//! What stands in a GGUF file beside the weights. In: a path. Out: its options by name, the shapes of its tensors, its
//! tokenizer, chat template and end tokens. Every tensor that is listed lies whole within the file. Knows no architecture.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;

use super::LmError;
use super::chat_template::{ChatTemplate, ChatTemplateError, SpecialTokens};
use super::tokenizer::Tokenizer;

/// The header of a GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    pub(super) content: Content,
}

impl Gguf {
    /// The GGUF file that a path means: the file itself, or the only one of a directory that has no safetensors.
    ///
    /// # Errors
    /// [`LmError::Gguf`] when there are several to choose from.
    pub fn find(path: &Path) -> Result<Option<PathBuf>, LmError> {
        let has = |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
        if !path.is_dir() {
            return Ok(has(path, "gguf").then(|| path.to_owned()));
        }
        let entries = std::fs::read_dir(path).map_err(|error| LmError::file(path, error))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        if files.iter().any(|file| has(file, "safetensors")) {
            return Ok(None);
        }
        files.retain(|file| has(file, "gguf"));
        match files.len() {
            0 | 1 => Ok(files.pop()),
            count => {
                let problem = format!("holds {count} GGUF files; name the one that is meant");
                Err(LmError::Gguf { path: path.to_owned(), problem })
            }
        }
    }

    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`LmError::File`] when it cannot be opened, [`LmError::Gguf`] when it is no GGUF file or was cut off.
    pub fn open(path: &Path) -> Result<Self, LmError> {
        let file = File::open(path).map_err(|error| LmError::file(path, error))?;
        let size = file.metadata().map_err(|error| LmError::file(path, error))?.len();
        let content = guarded(path, "is no GGUF file, or was cut off", || Content::read(&mut BufReader::new(file)))?;
        let gguf = Self { path: path.to_owned(), content };
        for (name, info) in &gguf.content.tensor_infos {
            gguf.check_whole(name, info, size)?;
        }
        if gguf.number("split.count").is_some_and(|count| count > 1) {
            return Err(gguf.wrong("is one part of several; join them with `llama-gguf-split --merge`"));
        }
        Ok(gguf)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A hash of the whole file.
    ///
    /// # Errors
    /// [`LmError::File`] when it cannot be read.
    pub fn hash(&self) -> Result<blake3::Hash, LmError> {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(&self.path).and_then(|file| hasher.update_reader(file).map(|_| ()));
        read.map_err(|error| LmError::file(&self.path, error))?;
        Ok(hasher.finalize())
    }

    /// The tokenizer inside, where the file says enough of it: byte-level ones of Qwen 2 and 3 and of Llama 3.
    ///
    /// # Errors
    /// [`LmError::Gguf`] for any other, whose splitting into words the file only names.
    pub fn tokenizer(&self) -> Result<Tokenizer, LmError> {
        let beside = "put the model's tokenizer.json beside the file";
        let (kind, words) = (self.text("tokenizer.ggml.model"), self.text("tokenizer.ggml.pre"));
        let mut metadata = self.content.metadata.clone();
        match (kind, words) {
            (Some("gpt2"), Some("qwen2")) => {}
            (Some("gpt2"), Some("llama-bpe" | "llama3" | "llama-v3")) => {
                metadata.insert("tokenizer.ggml.pre".to_owned(), Value::String("llama3".to_owned()));
                metadata.insert("tokenizer.ggml.ignore_merges".to_owned(), Value::Bool(true));
            }
            (kind, words) => {
                let named = |name: Option<&str>| name.map_or("none".to_owned(), |name| format!("{name:?}"));
                let (kind, words) = (named(kind), named(words));
                return Err(self.wrong(format!(
                    "has a tokenizer of a kind that cannot be made from it (tokenizer.ggml.model {kind}, \
                     tokenizer.ggml.pre {words}); {beside}"
                )));
            }
        }
        let (magic, tensor_infos) = (self.content.magic, HashMap::new());
        let content = Content { magic, metadata, tensor_infos, tensor_data_offset: 0 };
        let what = "has a broken tokenizer; put the model's tokenizer.json beside the file";
        let inner = guarded(&self.path, what, || tokenizers::Tokenizer::from_gguf(&content))?;
        let json = inner.to_string(false).map_err(|error| self.wrong(format!("{what}: {error}")))?;
        Tokenizer::from_json(&self.path, json.as_bytes()).map_err(|error| self.wrong(error.to_string()))
    }

    /// The chat template inside.
    ///
    /// # Errors
    /// When there is none, or it is broken.
    pub fn chat_template(&self) -> Result<ChatTemplate, ChatTemplateError> {
        match self.text("tokenizer.chat_template") {
            Some(source) => ChatTemplate::compile(&self.path, source, self.special_tokens()),
            None => Err(ChatTemplateError::Missing { looked_at: vec![self.path.clone()] }),
        }
    }

    /// The tokens that end a text.
    pub fn ends(&self) -> Vec<u32> {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        keys.iter().filter_map(|key| u32::try_from(self.number(key)?).ok()).collect()
    }

    fn special_tokens(&self) -> SpecialTokens {
        let Some(Value::Array(words)) = self.content.metadata.get("tokenizer.ggml.tokens") else {
            return SpecialTokens::new();
        };
        let text = |kind: &str| {
            let id = usize::try_from(self.number(&format!("tokenizer.ggml.{kind}_id"))?).ok()?;
            Some((kind.to_owned(), words.get(id)?.to_string().ok()?.clone()))
        };
        // The padding is `padding_token_id` in files, and no template writes it.
        ["bos_token", "eos_token"].into_iter().filter_map(text).collect()
    }

    /// A whole number of the options.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let value = self.content.metadata.get(key)?;
        value.to_u64().ok().or_else(|| u64::try_from(i64::from(value.to_i32().ok()?)).ok())
    }

    /// A fraction of the options.
    pub(super) fn fraction(&self, key: &str) -> Option<f32> {
        self.content.metadata.get(key)?.to_f32().ok()
    }

    /// A text of the options.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key)?.to_string().ok().map(String::as_str)
    }

    /// An error that names the file.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> LmError {
        LmError::Gguf { path: self.path.clone(), problem: problem.into() }
    }

    /// An error that names a tensor.
    pub(super) fn wrong_tensor(&self, name: &str, problem: impl Into<String>) -> LmError {
        LmError::Weight { path: self.path.clone(), name: name.to_owned(), problem: problem.into() }
    }

    fn check_whole(&self, name: &str, info: &TensorInfo, size: u64) -> Result<(), LmError> {
        let elements = info.shape.dims().iter().try_fold(1u64, |all, dim| all.checked_mul(u64::try_from(*dim).ok()?));
        let blocks = elements.map(|count| count.div_ceil(info.ggml_dtype.block_size() as u64));
        let bytes = blocks.and_then(|blocks| blocks.checked_mul(info.ggml_dtype.type_size() as u64));
        let start = self.content.tensor_data_offset.checked_add(info.offset);
        match start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes)) {
            Some(end) if end <= size => Ok(()),
            end => {
                let end = end.map_or("beyond any file".to_owned(), |end| format!("at byte {end}"));
                Err(self.wrong_tensor(name, format!("ends {end}, and the file has {size}; it was not copied whole")))
            }
        }
    }
}

/// Runs the library's code over a file; it panics over some that are broken.
pub(super) fn guarded<T>(path: &Path, what: &str, run: impl FnOnce() -> candle_core::Result<T>) -> Result<T, LmError> {
    let wrong = |why: String| LmError::Gguf { path: path.to_owned(), problem: format!("{what}: {why}") };
    match std::panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(|error| wrong(error.to_string())),
        Err(_) => Err(wrong("the library gave up on it".to_owned())),
    }
}
