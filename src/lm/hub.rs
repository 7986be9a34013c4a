//! Models of the Hugging Face hub by their names. In: `OWNER/NAME` or `OWNER/NAME@REVISION`. Out: a model directory, from
//! the cache that Hugging Face's own tools share, or downloaded into it.
//!
//! What is in the cache is used without asking anybody. Reads no environment: the caller says what is there.

mod download;
mod transfer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use self::download::Download;
use super::weights::index_files;

/// The hub's own address.
const ENDPOINT: &str = "https://huggingface.co";
/// The revision of a name without one.
const MAIN: &str = "main";
/// Longest index of shards that is read, in bytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// A model's name on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    owner: String,
    name: String,
    revision: String,
}

/// Where models are looked for.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// The cache's directory; `None`: nothing can be kept.
    pub cache: Option<PathBuf>,
    /// What private and gated models need.
    pub token: Option<SecretString>,
    /// Whether the cache alone is used.
    pub offline: bool,
    /// How long to wait before a request that failed is made again.
    pub retry_delay: Duration,
}

/// A model of the hub cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No such model or revision.
    #[error("{endpoint} has no model `{id}` at the revision `{revision}`; check both")]
    Missing {
        /// Which hub.
        endpoint: String,
        /// Owner and name.
        id: String,
        /// Which revision.
        revision: String,
    },
    /// The model lacks a file.
    #[error("the model `{id}` at the revision `{revision}` has no file {file}; a model with safetensors is needed")]
    NoFile {
        /// Owner and name.
        id: String,
        /// Which revision.
        revision: String,
        /// The file.
        file: String,
    },
    /// The hub does not say who may read it.
    #[error(
        "the model `{id}` does not exist or needs a token ({status}): set HF_TOKEN to one of an account that may read it"
    )]
    NeedsToken {
        /// Owner and name.
        id: String,
        /// What the hub said.
        status: u16,
    },
    /// The hub answers with something else than the file.
    #[error("{file} of the model `{id}`: {problem}")]
    Reply {
        /// Owner and name.
        id: String,
        /// The file.
        file: String,
        /// What came instead, and what may help.
        problem: String,
    },
    /// The connection broke off, more than once.
    #[error(
        "{file} of the model `{id}` was cut off: {got} of {wanted} bytes came ({reason}); start again to go on where it \
         stopped"
    )]
    CutOff {
        /// Owner and name.
        id: String,
        /// The file.
        file: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that there are.
        wanted: u64,
        /// What the last attempt ended with.
        reason: String,
    },
    /// The cache cannot be read or written.
    #[error("the model cache: {}: {reason}; choose another directory with HF_HOME", .path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// There is nowhere to keep a model.
    #[error("there is no directory for downloaded models; set HF_HOME")]
    NoCache,
    /// The model is not in the cache and must not be fetched.
    #[error("the model `{id}` at the revision `{revision}` is not in the cache, and HF_HUB_OFFLINE is set")]
    Offline {
        /// Owner and name.
        id: String,
        /// Which revision.
        revision: String,
    },
}

impl HubId {
    /// Reads a name: two parts, with or without a revision. `None` for anything else, such as a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (owner, name) = id.split_once('/')?;
        let fits = |part: &str| is_plain(part) && part.len() <= 96;
        let revision_fits = revision.len() <= 200 && revision.split('/').all(is_plain);
        (fits(owner) && fits(name) && revision_fits).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// Owner and name.
    fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.owner, self.name, self.revision)
    }
}

/// Whether a text can be a file's name anywhere and means no other directory.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.chars().all(plain) && !text.starts_with(['.', '-']) && !text.contains("..")
}

impl Hub {
    /// As Hugging Face's own tools have it: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`,
    /// `HF_HUB_OFFLINE`, and `HF_TOKEN` or the file `token` that their login leaves. `variable` knows the values.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(user()?.join("huggingface")));
        let kept = || std::fs::read_to_string(home.as_ref()?.join("token")).ok();
        let token = variable("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned());
        let offline = variable("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
        let endpoint = variable("HF_ENDPOINT").filter(|endpoint| !endpoint.is_empty());
        Self {
            endpoint: endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub"))),
            token: token.filter(|token| !token.is_empty()).map(SecretString::from),
            offline: matches!(offline.as_str(), "1" | "true" | "yes" | "on"),
            retry_delay: Duration::from_secs(1),
        }
    }

    /// A model's directory. What is not in the cache yet is downloaded, which takes its time.
    ///
    /// # Errors
    /// [`HubError`] names the model and what is wrong with it, the connection or the cache.
    pub fn find(&self, id: &HubId) -> Result<PathBuf, HubError> {
        let cache = self.cache.as_ref().ok_or(HubError::NoCache)?;
        let folder = cache.join(format!("models--{}--{}", id.owner, id.name));
        if let Some(found) = cached(&folder, &id.revision) {
            return Ok(found);
        }
        if self.offline {
            return Err(HubError::Offline { id: id.id(), revision: id.revision.clone() });
        }
        // A thread of its own, because the caller may run inside a runtime or not.
        let fetched = std::thread::scope(|scope| scope.spawn(|| self.fetch(id, folder)).join());
        fetched.unwrap_or_else(|_| Err(self.no_client(id, "the download's thread panicked; please report it")))
    }

    fn fetch(&self, id: &HubId, folder: PathBuf) -> Result<PathBuf, HubError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.no_client(id, error))?;
        let download = Download::new(self, id, folder).map_err(|error| self.no_client(id, error))?;
        runtime.block_on(download.all())
    }

    fn no_client(&self, id: &HubId, reason: impl fmt::Display) -> HubError {
        let problem = format!("cannot ask {}: {reason}", self.endpoint);
        HubError::Reply { id: id.id(), file: "config.json".to_owned(), problem }
    }
}

/// A model's directory in the cache, when all that it needs is there.
fn cached(folder: &Path, revision: &str) -> Option<PathBuf> {
    let named = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
    let commit = named.as_deref().map_or(revision, str::trim);
    let snapshot = is_plain(commit).then(|| folder.join("snapshots").join(commit))?;
    let has = |name: &str| snapshot.join(name).is_file();
    let index = snapshot.join("model.safetensors.index.json");
    let weights =
        if index.is_file() { shards(&index).ok()?.iter().all(|name| has(name)) } else { has("model.safetensors") };
    (has("config.json") && has("tokenizer.json") && weights).then_some(snapshot)
}

/// The files that an index names.
fn shards(index: &Path) -> Result<Vec<String>, String> {
    let size = std::fs::metadata(index).map_err(|error| error.to_string())?.len();
    if size > MAX_INDEX_BYTES {
        return Err(format!("it has {size} bytes; {MAX_INDEX_BYTES} is the most"));
    }
    let names = index_files(index)?;
    match names.iter().find(|name| !is_plain(name) || !name.ends_with(".safetensors")) {
        Some(name) => Err(format!("its `weight_map` names {name:?}, which is no *.safetensors file beside it")),
        None => Ok(names),
    }
}
