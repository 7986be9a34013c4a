//! Files of one model, from the hub into the cache. In: a name and the cache's folder for it. Out: a snapshot's directory.
//!
//! All files are of the commit that the revision stood for at first. A file has its name in the snapshot only when it is
//! whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use secrecy::ExposeSecret;

use super::transfer::{MAX_ATTEMPTS, Stopped, Transfer, explain, header, is_passing};
use super::{Hub, HubError, HubId, is_plain, shards};

/// Files that a model may have beside its weights.
const OPTIONAL: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];
const INDEX: &str = "model.safetensors.index.json";

/// One model's download.
pub(super) struct Download<'h> {
    hub: &'h Hub,
    id: &'h HubId,
    /// The model's folder of the cache.
    folder: PathBuf,
    /// Stays on the hub, whose headers tell of a file.
    asks: Client,
    /// Goes wherever the hub sends it.
    gets: Client,
}

/// What the hub says of a file.
struct Known {
    commit: String,
    /// Names its content.
    etag: String,
    /// In bytes.
    size: u64,
}

impl<'h> Download<'h> {
    pub(super) fn new(hub: &'h Hub, id: &'h HubId, folder: PathBuf) -> Result<Self, String> {
        // The client takes the process's provider and panics without one. That one is there already is fine.
        _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        if let Some(token) = &hub.token {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut bearer = bearer.map_err(|_| "HF_TOKEN holds characters that cannot be sent".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let client = |redirect: Policy| {
            Client::builder()
                .redirect(redirect)
                .default_headers(headers.clone())
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(Duration::from_mins(1))
                .user_agent(concat!("gradus/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| error.to_string())
        };
        let stay = Policy::custom(|attempt| {
            let here = attempt.previous().last().map(reqwest::Url::origin);
            if attempt.previous().len() < 10 && here == Some(attempt.url().origin()) {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        Ok(Self { hub, id, folder, asks: client(stay)?, gets: client(Policy::limited(10))? })
    }

    /// Fetches all that a model needs.
    pub(super) async fn all(&self) -> Result<PathBuf, HubError> {
        let config = self.ask(&self.id.revision, "config.json").await?;
        let config = config.ok_or_else(|| self.no_file("config.json"))?;
        let snapshot = self.folder.join("snapshots").join(&config.commit);
        tracing::info!(model = %self.id, directory = %snapshot.display(), "downloading the model");
        self.keep(&snapshot, "config.json", &config).await?;
        for name in OPTIONAL {
            self.file(&snapshot, &config.commit, name).await?;
        }
        if self.file(&snapshot, &config.commit, INDEX).await? {
            let names = shards(&snapshot.join(INDEX)).map_err(|problem| self.reply(INDEX, problem))?;
            for name in names {
                self.needed(&snapshot, &config.commit, &name).await?;
            }
        } else {
            self.needed(&snapshot, &config.commit, "model.safetensors").await?;
        }
        if self.id.revision != config.commit {
            let path = self.folder.join("refs").join(&self.id.revision);
            self.make_parent(&path)?;
            std::fs::write(&path, &config.commit).map_err(|error| cache(&path, &error))?;
        }
        Ok(snapshot)
    }

    async fn needed(&self, snapshot: &Path, commit: &str, name: &str) -> Result<(), HubError> {
        if self.file(snapshot, commit, name).await? { Ok(()) } else { Err(self.no_file(name)) }
    }

    /// Fetches a file; false when the model has none of that name.
    async fn file(&self, snapshot: &Path, commit: &str, name: &str) -> Result<bool, HubError> {
        if snapshot.join(name).is_file() {
            return Ok(true);
        }
        match self.ask(commit, name).await? {
            Some(known) => self.keep(snapshot, name, &known).await.map(|()| true),
            None => Ok(false),
        }
    }

    fn url(&self, revision: &str, name: &str) -> String {
        let revision = revision.replace('/', "%2F");
        format!("{}/{}/resolve/{revision}/{name}", self.hub.endpoint, self.id.id())
    }

    /// What the hub says of a file; `None` when the model has none of that name.
    async fn ask(&self, revision: &str, name: &str) -> Result<Option<Known>, HubError> {
        let mut attempt = 1;
        let response = loop {
            let sent = self.asks.head(self.url(revision, name)).send().await;
            let again = sent.as_ref().map_or(true, |response| is_passing(response.status()));
            if !again || attempt == MAX_ATTEMPTS {
                let cannot = |error: reqwest::Error| {
                    self.reply(name, format!("cannot ask {}: {}", self.hub.endpoint, explain(error)))
                };
                break sent.map_err(cannot)?;
            }
            attempt += 1;
            tokio::time::sleep(self.hub.retry_delay).await;
        };
        let status = response.status();
        if status == StatusCode::NOT_FOUND && header(&response, "x-error-code") == Some("EntryNotFound") {
            return Ok(None);
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(HubError::NeedsToken { id: self.id.id(), status: status.as_u16() })
            }
            StatusCode::NOT_FOUND if name != "config.json" => Ok(None),
            StatusCode::NOT_FOUND => Err(HubError::Missing {
                endpoint: self.hub.endpoint.clone(),
                id: self.id.id(),
                revision: self.id.revision.clone(),
            }),
            _ if status.is_success() || status.is_redirection() => self.known(&response, name).map(Some),
            _ => Err(self.reply(name, format!("the hub answers {status}"))),
        }
    }

    /// Large files stand elsewhere, and the hub's own headers tell of them.
    fn known(&self, response: &Response, name: &str) -> Result<Known, HubError> {
        let lacks = |what: &str| self.reply(name, format!("the reply has no {what}; check HF_ENDPOINT"));
        let commit = header(response, "x-repo-commit").filter(|commit| is_plain(commit));
        let etag = header(response, "x-linked-etag").or_else(|| header(response, ETAG.as_str()));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| is_plain(etag));
        let size = header(response, "x-linked-size").or_else(|| header(response, CONTENT_LENGTH.as_str()));
        Ok(Known {
            commit: commit.ok_or_else(|| lacks("commit (X-Repo-Commit)"))?.to_owned(),
            etag: etag.ok_or_else(|| lacks("ETag"))?.to_owned(),
            size: size.and_then(|size| size.parse().ok()).ok_or_else(|| lacks("size"))?,
        })
    }

    /// Brings a file's content into the cache and its name into the snapshot.
    async fn keep(&self, snapshot: &Path, name: &str, known: &Known) -> Result<(), HubError> {
        let place = snapshot.join(name);
        if place.is_file() {
            return Ok(());
        }
        let blob = self.folder.join("blobs").join(&known.etag);
        self.make_parent(&blob)?;
        self.make_parent(&place)?;
        if !blob.is_file() {
            self.content(name, known, &blob).await?;
        }
        // A link that leads nowhere is somebody's deleted blob.
        _ = std::fs::remove_file(&place);
        let target = Path::new("../../blobs").join(&known.etag);
        match std::os::unix::fs::symlink(target, &place) {
            Err(_) if place.is_file() => Ok(()),
            done => done.map_err(|error| cache(&place, &error)),
        }
    }

    async fn content(&self, name: &str, known: &Known, blob: &Path) -> Result<(), HubError> {
        let growing = blob.with_file_name(format!("{}.incomplete", known.etag));
        let url = self.url(&known.commit, name);
        let transfer = Transfer { client: &self.gets, url, size: known.size, growing: &growing };
        transfer.run(blob, self.hub.retry_delay).await.map_err(|stopped| match stopped {
            Stopped::Disk(error) => cache(&growing, &error),
            Stopped::CutOff { got, reason } => {
                HubError::CutOff { id: self.id.id(), file: name.to_owned(), got, wanted: known.size, reason }
            }
        })
    }

    fn make_parent(&self, path: &Path) -> Result<(), HubError> {
        let parent = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(|error| cache(parent, &error))
    }

    fn no_file(&self, name: &str) -> HubError {
        HubError::NoFile { id: self.id.id(), revision: self.id.revision.clone(), file: name.to_owned() }
    }

    fn reply(&self, name: &str, problem: impl Into<String>) -> HubError {
        HubError::Reply { id: self.id.id(), file: name.to_owned(), problem: problem.into() }
    }
}

fn cache(path: &Path, error: &std::io::Error) -> HubError {
    HubError::Cache { path: path.to_owned(), reason: error.to_string() }
}
