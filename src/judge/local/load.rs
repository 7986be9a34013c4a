//! Loads a judge's model from where it is: a directory, a GGUF file or the hub. In: the judge's settings. Out: its text
//! side, and what makes the model on the thread that will own it.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;

use super::LocalConfig;
use crate::judge::inquiry::LOCAL_READING;
use crate::judge::stated::{list, table, text};
use crate::lm::chat_template::{ChatTemplate, ChatTemplateError};
use crate::lm::tokenizer::Tokenizer;
use crate::lm::{
    Decoder, DeviceChoice, Engine, Foreign, Gguf, HeadKind, Hub, HubId, KvPool, LmError, Model, end_tokens,
};

/// What a judge is made of.
pub(super) struct Loaded {
    pub(super) tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
    pub(super) network: Network,
    /// Ends a text.
    pub(super) ends: Vec<u32>,
    /// The model with all its files, its template and options: whatever changes an answer.
    pub(super) identity: String,
}

/// A model before it has a thread.
pub(super) enum Network {
    Ours { decoder: Box<Decoder>, slots: usize, batch_tokens: usize },
    Foreign(Box<Foreign>),
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Loads all that a judge needs.
///
/// # Errors
/// What is wrong with the model, the device or the options, in words.
pub(super) fn load(config: &LocalConfig, hub: &Hub) -> Result<Loaded, String> {
    let device = config.device.open().map_err(|error| format!("device = \"cuda\": {error}"))?;
    let path = place(&config.model, hub)?;
    let gguf = Gguf::find(&path).map_err(said)?.map(|file| Gguf::open(&file)).transpose().map_err(said)?;
    let dir = match &gguf {
        Some(gguf) => gguf.path().parent().unwrap_or(Path::new(".")).to_owned(),
        None => path.clone(),
    };
    let tokenizer = tokenizer(&dir, gguf.as_ref())?;
    let network = match &gguf {
        Some(gguf) => foreign(gguf.path(), &device, config)?,
        None if is_foreign(&dir) => foreign(&dir, &device, config)?,
        None => ours(&dir, &device, config)?,
    };
    if tokenizer.vocabulary_size() > network.vocab() {
        return Err(format!(
            "tokenizer.json has {} tokens and config.json {}: they belong to different models",
            tokenizer.vocabulary_size(),
            network.vocab()
        ));
    }
    let template = template(&dir, gguf.as_ref())?;
    let ends = end_tokens(&dir, &tokenizer, network.ends());
    let model = model_hash(&network, &dir, &ends, &template);
    let number = number(&network, gguf.is_some(), &device);
    let identity = identity(model, number, &network, &template, config.temperature);
    Ok(Loaded { tokenizer, template, network, ends, identity })
}

/// Where a model is: what there is under its path goes before the hub.
fn place(model: &Path, hub: &Hub) -> Result<PathBuf, String> {
    match model.to_str().and_then(HubId::parse) {
        Some(id) if !model.exists() => hub.find(&id).map_err(|error| {
            format!("{}: there is no such directory, and as a model of the hub: {error}", model.display())
        }),
        _ if model.exists() => Ok(model.to_owned()),
        _ => Err(format!("{}: no such directory or file; a hub id is OWNER/NAME", model.display())),
    }
}

/// Files beside a GGUF file go before what stands in it.
fn tokenizer(dir: &Path, gguf: Option<&Gguf>) -> Result<Tokenizer, String> {
    match gguf {
        Some(gguf) if !dir.join("tokenizer.json").exists() => gguf.tokenizer().map_err(said),
        _ => Tokenizer::load(dir).map_err(said),
    }
}

fn template(dir: &Path, gguf: Option<&Gguf>) -> Result<ChatTemplate, String> {
    match (ChatTemplate::load(dir), gguf) {
        (Err(ChatTemplateError::Missing { mut looked_at }), Some(gguf)) => match gguf.chat_template() {
            Err(ChatTemplateError::Missing { looked_at: more }) => {
                looked_at.extend(more);
                Err(said(ChatTemplateError::Missing { looked_at }))
            }
            found => found.map_err(said),
        },
        (found, _) => found.map_err(said),
    }
}

/// Whether a directory's model is one that our own decoder leaves to others.
fn is_foreign(dir: &Path) -> bool {
    let config = read_json(&dir.join("config.json"));
    config.get("model_type").and_then(Value::as_str).is_some_and(Foreign::knows)
}

fn foreign(path: &Path, device: &Device, config: &LocalConfig) -> Result<Network, String> {
    Foreign::load(path, device, config.context).map(Box::new).map(Network::Foreign).map_err(said)
}

fn ours(dir: &Path, device: &Device, config: &LocalConfig) -> Result<Network, String> {
    let decoder = match Decoder::load(dir, device, Some(config.context)) {
        Err(LmError::Unsupported(reason)) if config.device == DeviceChoice::Auto && !device.is_cpu() => {
            tracing::warn!("{}: {reason}; it computes on the CPU instead", dir.display());
            return ours(dir, &Device::Cpu, config);
        }
        decoder => decoder.map_err(said)?,
    };
    let on_cpu = device.is_cpu();
    let kv_bytes = config.kv_bytes.unwrap_or(if on_cpu { 2 << 30 } else { 32 << 30 });
    let per_token = KvPool::bytes_per_token(decoder.config(), decoder.dtype()) as u64;
    let slots = usize::try_from(kv_bytes / per_token.max(1)).unwrap_or(usize::MAX).min(1 << 24);
    if slots < 256 {
        return Err(format!("kv_bytes = {kv_bytes} holds {slots} tokens; raise it to {} at least", 256 * per_token));
    }
    let batch_tokens = config.batch_tokens.unwrap_or(if on_cpu { 4096 } else { 32_768 });
    Ok(Network::Ours { decoder: Box::new(decoder), slots, batch_tokens })
}

impl Network {
    pub(super) fn vocab(&self) -> usize {
        match self {
            Self::Ours { decoder, .. } => decoder.config().vocab,
            Self::Foreign(foreign) => foreign.vocab(),
        }
    }

    pub(super) fn is_reward_model(&self) -> bool {
        match self {
            Self::Ours { decoder, .. } => decoder.config().head != HeadKind::LanguageModel,
            Self::Foreign(_) => false,
        }
    }

    /// Makes the model, on the thread that will own it.
    pub(super) fn into_model(self) -> Result<Model, LmError> {
        match self {
            Self::Ours { decoder, slots, batch_tokens } => Engine::new(*decoder, slots, batch_tokens).map(Model::from),
            Self::Foreign(foreign) => Ok(Model::from(*foreign)),
        }
    }

    /// Most tokens of one text, its answer included.
    pub(super) fn context(&self) -> usize {
        match self {
            Self::Ours { decoder, slots, .. } => decoder.config().context.min(*slots),
            Self::Foreign(foreign) => foreign.context(),
        }
    }

    fn ends(&self) -> &[u32] {
        match self {
            Self::Ours { decoder, .. } => &decoder.config().eos_tokens,
            Self::Foreign(foreign) => foreign.ends(),
        }
    }
}

/// A hash of the model: its weights, how they are computed with, and what makes its tokens. Of a GGUF file all of that stands in
/// the file; what lies beside it goes before.
fn model_hash(network: &Network, dir: &Path, ends: &[u32], template: &ChatTemplate) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    let weights = match network {
        Network::Ours { decoder, .. } => decoder.hash(),
        Network::Foreign(foreign) => foreign.hash(),
    };
    part(weights.as_bytes());
    for file in ["config.json", "tokenizer.json"] {
        // Whoever needs one has read it by now.
        part(&std::fs::read(dir.join(file)).unwrap_or_default());
    }
    let special_tokens = template.special_tokens().iter().map(|(name, token)| (name, text(token)));
    part(format!("{} {}", table(special_tokens), list(ends)).as_bytes());
    hasher.finalize()
}

/// The number format that a model computes in.
fn number(network: &Network, is_gguf: bool, device: &Device) -> &'static str {
    match (network, is_gguf, device.is_cpu()) {
        (Network::Ours { decoder, .. }, ..) => decoder.dtype().as_str(),
        (Network::Foreign(_), true, true) => "gguf-cpu",
        (Network::Foreign(_), true, false) => "gguf-gpu",
        (Network::Foreign(_), false, _) => "f32",
    }
}

fn identity(model: blake3::Hash, number: &str, network: &Network, template: &ChatTemplate, temperature: f64) -> String {
    let template = blake3::hash(template.source().as_bytes()).to_hex();
    // What is longer is cut: not as long as was asked for, but as there is room for.
    let context = network.context();
    let model = model.to_hex();
    format!(
        "local:{model:.16}:{template:.8}:{number}:context={context}:temperature={temperature}:reading={LOCAL_READING}"
    )
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of the small judge.
    struct Copy(tempfile::TempDir);

    impl Copy {
        fn new() -> Self {
            let (from, to) =
                (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/small_judge"), tempfile::tempdir().unwrap());
            for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file())
            {
                std::fs::copy(&file, to.path().join(file.file_name().unwrap())).unwrap();
            }
            Self(to)
        }

        fn change(&self, file: &str, from: &str, to: &str) {
            let path = self.0.path().join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        }

        fn identity(&self, change: impl Fn(&mut LocalConfig)) -> String {
            let mut config =
                LocalConfig { model: self.0.path().to_owned(), device: DeviceChoice::Cpu, ..LocalConfig::default() };
            change(&mut config);
            load(&config, &Hub::from_variables(|_| None)).map(|loaded| loaded.identity).unwrap()
        }
    }

    #[test]
    fn the_identity_changes_with_what_changes_answers_and_with_nothing_else() {
        let same = Copy::new().identity(|_| ());
        assert_eq!(same, Copy::new().identity(|_| ()));
        let parts: Vec<&str> = same.split(':').collect();
        let ["local", model, template, "f32", "context=1024", "temperature=0", "reading=3"] = parts[..] else {
            panic!("{same}")
        };
        assert_eq!((model.len(), template.len()), (16, 8));
        for (file, from, to) in [
            ("config.json", "\"rope_theta\": 10000.0", "\"rope_theta\": 1000000.0"),
            ("config.json", "1e-06", "1e-05"),
            ("tokenizer.json", "Mismatch|Match", "Match"),
            ("tokenizer_config.json", "\"bos_token\": null", "\"bos_token\": \"<|im_start|>\""),
            ("generation_config.json", "262", "261"),
            ("tokenizer_config.json", "<|im_end|>\\\\n", "<|im_end|>"),
        ] {
            let copy = Copy::new();
            copy.change(file, from, to);
            assert_ne!(copy.identity(|_| ()), same, "{file}: {to}");
        }
    }

    /// Texts are cut to what there is room for.
    #[test]
    fn the_identity_names_the_context_that_there_is() {
        let (copy, per_token) = (Copy::new(), 5 * 2 * 2 * 32 * 4);
        let same = copy.identity(|_| ());
        assert_eq!(copy.identity(|config| config.context = 2048), same, "the model reads no more");
        assert_eq!(copy.identity(|config| config.batch_tokens = Some(64)), same);
        let less = copy.identity(|config| config.kv_bytes = Some(512 * per_token));
        assert_eq!(less, same.replace("context=1024", "context=512"));
        assert_eq!(copy.identity(|config| config.context = 512), less);
        assert_ne!(copy.identity(|config| config.temperature = 0.5), same);
    }
}
