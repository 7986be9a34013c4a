//! Loads a judge's model from where it is: a directory, a GGUF file or the hub. In: the judge's settings. Out: its text
//! side, and what makes the model on the thread that will own it.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;

use super::LocalConfig;
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
    /// Weights, template and options: whatever changes an answer.
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
    let identity = identity(&network, (gguf.is_some(), &device), &template, config);
    Ok(Loaded { tokenizer, template, network, ends, identity })
}

/// Where a model is: what there is under its path goes before the hub.
fn place(model: &Path, hub: &Hub) -> Result<PathBuf, String> {
    match model.to_str().and_then(HubId::parse) {
        Some(id) if !model.exists() => hub.find(&id).map_err(|error| {
            format!("{}: there is no such directory, and as a model of the hub: {error}", model.display())
        }),
        _ => Ok(model.to_owned()),
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
    match (ChatTemplate::load(dir, None), gguf) {
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

fn identity(
    network: &Network,
    (is_gguf, device): (bool, &Device),
    template: &ChatTemplate,
    config: &LocalConfig,
) -> String {
    let (weights, number) = match network {
        Network::Ours { decoder, .. } => (decoder.hash(), decoder.dtype().as_str()),
        Network::Foreign(foreign) => match (is_gguf, device.is_cpu()) {
            (true, true) => (foreign.hash(), "gguf-cpu"),
            (true, false) => (foreign.hash(), "gguf-gpu"),
            (false, _) => (foreign.hash(), "f32"),
        },
    };
    let template = blake3::hash(template.source().as_bytes()).to_hex();
    let (context, temperature) = (config.context, config.temperature);
    format!("local:{:.16}:{template:.8}:{number}:context={context}:temperature={temperature}", weights.to_hex())
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
