//! How the store is set up: where, how safe, how much. In: names and numbers from the composed configuration; out: checked
//! types. Knows no flag and no file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::StoreError;

/// Longest wait for another process, in milliseconds: what the database library can count to.
pub const MAX_BUSY_TIMEOUT_MS: u64 = i32::MAX as u64;

/// The url of no store.
const NOTHING: &str = "none";

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `sqlite:PATH`, `sqlite::memory:` (gone at the end) or `none`.
    pub url: String,
    /// When an answer may leave the server.
    pub durability: Durability,
    /// Whether requests are kept, so that runs can be scored again. Scores and results always are.
    pub keep_trajectories: bool,
    /// About how much may wait to be written, in bytes; more makes `append` wait.
    pub queue_bytes: usize,
    /// How long to wait for another process that writes to the same database, in milliseconds; at most
    /// [`MAX_BUSY_TIMEOUT_MS`], which also stands for anything longer.
    pub busy_timeout_ms: u64,
}

impl Config {
    /// Whether requests are stored; false also where nothing is.
    pub fn keeps_requests(&self) -> bool {
        self.keep_trajectories && self.durability != Durability::Off && self.url != NOTHING
    }

    /// Whether the store can be opened so.
    ///
    /// # Errors
    /// Says which setting cannot be, and what would do.
    pub fn check(&self) -> Result<(), String> {
        if self.busy_timeout_ms > MAX_BUSY_TIMEOUT_MS {
            let given = self.busy_timeout_ms;
            return Err(format!("store_busy_timeout_ms = {given}: at most {MAX_BUSY_TIMEOUT_MS}"));
        }
        Ok(())
    }

    /// The file that the url names; `None` where it names none.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub fn file(&self) -> Result<Option<PathBuf>, StoreError> {
        match self.url.parse()? {
            Target::SqliteFile(path) => Ok(Some(path)),
            Target::SqliteMemory | Target::None => Ok(None),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "sqlite:gradus.db".to_owned(),
            durability: Durability::Commit,
            keep_trajectories: true,
            queue_bytes: 256 << 20,
            busy_timeout_ms: 5000,
        }
    }
}

/// What must have happened to a batch before its answer leaves the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// It is on the disk: survives the loss of power.
    #[default]
    Commit,
    /// It is queued: survives a clean shutdown, and once written the death of the process.
    Relaxed,
    /// Nothing is stored.
    Off,
}

impl FromStr for Durability {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "commit" => Ok(Self::Commit),
            "relaxed" => Ok(Self::Relaxed),
            "off" => Ok(Self::Off),
            _ => Err(StoreError::Durability { text: super::error::excerpt(text) }),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Relaxed => "relaxed",
            Self::Off => "off",
        })
    }
}

/// What a url names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// No store.
    None,
    /// An `SQLite` file.
    SqliteFile(PathBuf),
    /// An `SQLite` database in memory.
    SqliteMemory,
}

impl FromStr for Target {
    type Err = StoreError;

    fn from_str(url: &str) -> Result<Self, StoreError> {
        if url == NOTHING {
            return Ok(Self::None);
        }
        match url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest)) {
            Some(":memory:") => Ok(Self::SqliteMemory),
            Some(path) if !path.is_empty() => Ok(Self::SqliteFile(PathBuf::from(path))),
            _ => Err(StoreError::Url { url: url.to_owned() }),
        }
    }
}
