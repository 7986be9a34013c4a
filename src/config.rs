//! Settings: each module owns its own with defaults; here they are composed. Flags win over the environment, that over
//! the file, that over the defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::http;
use crate::judge::{self, JudgeConfig};
use crate::rubric::{self, Location, in_words, locate};
use crate::score::SCHEMA_CACHE_BYTES;
use crate::store::{self, Durability, StoreError};

/// Most threads that score: far more than any machine has cores.
const MAX_THREADS: usize = 1024;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}; check the path given as --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{path}: line {line}, column {column}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong, without what stands there: that may be a token.
        message: String,
    },
    /// A value cannot be.
    #[error("{0}")]
    Value(String),
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Options of every command that scores.
#[derive(Debug, Clone, Default, Args)]
pub struct ScoringFlags {
    /// Directory of rubric files (*.toml), in addition to the shipped ones; a file of the same name wins
    #[arg(long, env = "GRADUS_RUBRICS", value_name = "DIR")]
    pub rubrics: Option<PathBuf>,
    /// Rubric of trajectories that name none [default: short_form_qa]
    #[arg(long, env = "GRADUS_DEFAULT_RUBRIC", value_name = "NAME")]
    pub default_rubric: Option<String>,
    /// Threads that score [default: one per core]
    #[arg(long, env = "GRADUS_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// Memory for compiled tool schemas, in bytes [default: 16777216]
    #[arg(long, env = "GRADUS_SCHEMA_CACHE_BYTES", value_name = "BYTES")]
    pub schema_cache_bytes: Option<u64>,
    /// The judge named "default": a model's directory, a GGUF file, a name on the Hugging Face hub, or URL#MODEL of an
    /// OpenAI-compatible server. More judges and all their options stand in the configuration file, as [judges.NAME]
    #[arg(long, env = "GRADUS_JUDGE", value_name = "DIR|GGUF|HUB_ID|URL#MODEL")]
    pub judge: Option<String>,
    /// Memory for judges' past answers, in bytes [default: 67108864]
    #[arg(long, env = "GRADUS_JUDGE_CACHE_BYTES", value_name = "BYTES")]
    pub judge_cache_bytes: Option<u64>,
}

/// Where scores are kept.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreFlags {
    /// The database of scores: sqlite:FILE, or none [default: sqlite:gradus.db]. `gradus score` reads it for --replay only
    #[arg(long, env = "GRADUS_STORE", value_name = "URL")]
    pub store: Option<String>,
}

/// Options of `gradus serve`.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    /// IP address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, env = "GRADUS_LISTEN", value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    #[command(flatten)]
    /// Scoring.
    pub scoring: ScoringFlags,
    #[command(flatten)]
    /// Store.
    pub store: StoreFlags,
    /// When an answer may leave: commit (its scores are on the disk), relaxed (queued), off (nothing is stored) [default: commit]
    #[arg(long, env = "GRADUS_STORE_DURABILITY", value_name = "WHEN")]
    pub store_durability: Option<String>,
    /// Whether requests are kept, so that runs can be scored again [default: true]
    #[arg(long, env = "GRADUS_STORE_KEEP_TRAJECTORIES", value_name = "BOOL")]
    pub store_keep_trajectories: Option<bool>,
    /// Bytes that may wait for the store; more makes answers wait [default: 268435456]
    #[arg(long, env = "GRADUS_STORE_QUEUE_BYTES", value_name = "BYTES")]
    pub store_queue_bytes: Option<usize>,
    /// How long to wait for another process that writes to the same database, in milliseconds [default: 5000]
    #[arg(long, env = "GRADUS_STORE_BUSY_TIMEOUT_MS", value_name = "MS")]
    pub store_busy_timeout_ms: Option<u64>,
    /// Whether a request may bring its own rubric [default: true]
    #[arg(long, env = "GRADUS_INLINE_RUBRICS", value_name = "BOOL")]
    pub inline_rubrics: Option<bool>,
    /// Largest request body after decompression, in bytes [default: 268435456]
    #[arg(long, env = "GRADUS_MAX_BODY_BYTES", value_name = "BYTES")]
    pub max_body_bytes: Option<usize>,
    /// Request bytes that may be in flight at once; beyond that the answer is 429 [default: 1073741824]
    #[arg(long, env = "GRADUS_MAX_IN_FLIGHT_BYTES", value_name = "BYTES")]
    pub max_in_flight_bytes: Option<usize>,
    /// Longest time for one request, in milliseconds [default: 300000]
    #[arg(long, env = "GRADUS_MAX_DEADLINE_MS", value_name = "MS")]
    pub max_deadline_ms: Option<u64>,
    /// Longest time for requests to end after the signal to stop, in milliseconds [default: 30000]
    #[arg(long, env = "GRADUS_DRAIN_MS", value_name = "MS")]
    pub drain_ms: Option<u64>,
    /// Token that scoring and reading need (Authorization: Bearer ..); none: open to all who can connect
    #[arg(long, env = "GRADUS_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub api_token: Option<String>,
    /// Token that changing rubrics needs; none: nobody can
    #[arg(long, env = "GRADUS_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
}

/// The configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    #[serde(deserialize_with = "address_in_file")]
    listen: Option<SocketAddr>,
    rubrics: Option<PathBuf>,
    default_rubric: Option<String>,
    inline_rubrics: Option<bool>,
    threads: Option<usize>,
    schema_cache_bytes: Option<u64>,
    judge_cache_bytes: Option<u64>,
    judges: BTreeMap<String, JudgeConfig>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    store: StoreFile,
    limits: LimitsFile,
    tokens: TokensFile,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoreFile {
    url: Option<String>,
    #[serde(deserialize_with = "durability_in_file")]
    durability: Option<Durability>,
    keep_trajectories: Option<bool>,
    queue_bytes: Option<usize>,
    busy_timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    max_body_bytes: Option<usize>,
    max_in_flight_bytes: Option<usize>,
    max_deadline_ms: Option<u64>,
    drain_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokensFile {
    api: Option<String>,
    admin: Option<String>,
}

impl File {
    /// Reads a file; no path is an empty file.
    ///
    /// # Errors
    /// When it cannot be read, or a field is not known or has a wrong type.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_path_buf(), error })?;
        toml::from_str(&text).map_err(|error| {
            let Location { line, column } = locate(&text, error.span().map_or(0, |span| span.start));
            ConfigError::Parse { path: path.to_path_buf(), line, column, message: without_value(error.message()) }
        })
    }

    /// How to log, under what the flags or the environment say.
    pub fn log(&self, filter: Option<String>, format: Option<LogFormat>) -> (String, LogFormat) {
        let filter = filter.or_else(|| self.log.clone()).unwrap_or_else(|| "info".to_owned());
        (filter, format.or(self.log_format).unwrap_or_default())
    }
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    let help =
        "give an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080; names are not looked up";
    text.parse().map_err(|error| format!("{error}: {help}"))
}

fn address_in_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    address(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn durability_in_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Durability>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// A message about a wrong type or value without the value, which serde repeats, and in words.
fn without_value(message: &str) -> String {
    let wrong = ["invalid type: ", "invalid value: "].into_iter().find(|prefix| message.starts_with(prefix));
    let message = &*in_words(message, "a table");
    let parts = wrong.and_then(|wrong| Some((wrong, message.strip_prefix(wrong)?.rsplit_once(", expected ")?)));
    let Some((wrong, (found, expected))) = parts else { return message.to_owned() };
    let kind = found.split(['`', '"']).next().unwrap_or_default().trim_end();
    format!("{wrong}{kind}, expected {expected}")
}

/// How to score.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// Directory of rubric files.
    pub rubrics: Option<PathBuf>,
    /// Rubric of trajectories that name none.
    pub default_rubric: String,
    /// Whether a request may bring its own rubric.
    pub inline_rubrics: bool,
    /// Threads that score; 0 is one per core.
    pub threads: usize,
    /// Memory for compiled tool schemas, in bytes.
    pub schema_cache_bytes: u64,
    /// The judges.
    pub judges: judge::Config,
}

impl Scoring {
    /// Composes flags and file.
    ///
    /// # Errors
    /// When `--judge` is a URL without a model's name, or there are too many threads.
    pub fn compose(flags: ScoringFlags, file: &File) -> Result<Self, ConfigError> {
        let mut judges = file.judges.clone();
        if let Some(judge) = &flags.judge {
            let judge = JudgeConfig::from_flag(judge).map_err(ConfigError::Value)?;
            judges.insert("default".to_owned(), judge);
        }
        let default = judge::Config::default();
        let cache_bytes = flags.judge_cache_bytes.or(file.judge_cache_bytes).unwrap_or(default.cache_bytes);
        let threads = flags.threads.or(file.threads).unwrap_or(0);
        if threads > MAX_THREADS {
            return Err(ConfigError::Value(format!("threads = {threads}: at most {MAX_THREADS}; 0 is one per core")));
        }
        Ok(Self {
            rubrics: flags.rubrics.or_else(|| file.rubrics.clone()),
            default_rubric: flags
                .default_rubric
                .or_else(|| file.default_rubric.clone())
                .unwrap_or_else(|| rubric::DEFAULT.to_owned()),
            inline_rubrics: file.inline_rubrics.unwrap_or(true),
            threads,
            schema_cache_bytes: flags.schema_cache_bytes.or(file.schema_cache_bytes).unwrap_or(SCHEMA_CACHE_BYTES),
            judges: judge::Config { judges, cache_bytes },
        })
    }
}

/// Composes the store's settings.
pub fn store(flags: StoreFlags, file: &File) -> store::Config {
    let default = store::Config::default();
    store::Config {
        url: flags.store.or_else(|| file.store.url.clone()).unwrap_or(default.url),
        durability: file.store.durability.unwrap_or(default.durability),
        keep_trajectories: file.store.keep_trajectories.unwrap_or(default.keep_trajectories),
        queue_bytes: file.store.queue_bytes.unwrap_or(default.queue_bytes),
        busy_timeout_ms: file.store.busy_timeout_ms.unwrap_or(default.busy_timeout_ms),
    }
}

/// Everything that `gradus serve` needs.
#[derive(Debug, Clone)]
pub struct Serve {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How to score.
    pub scoring: Scoring,
    /// Where to keep scores.
    pub store: store::Config,
    /// The HTTP side.
    pub http: http::Config,
}

impl Serve {
    /// Composes flags and file.
    ///
    /// # Errors
    /// When a value cannot be.
    pub fn compose(flags: ServeFlags, file: &File) -> Result<Self, ConfigError> {
        let defaults = http::LimitsConfig::default();
        let limits = http::LimitsConfig {
            max_body_bytes: flags.max_body_bytes.or(file.limits.max_body_bytes).unwrap_or(defaults.max_body_bytes),
            max_in_flight_bytes: flags
                .max_in_flight_bytes
                .or(file.limits.max_in_flight_bytes)
                .unwrap_or(defaults.max_in_flight_bytes),
            max_deadline_ms: flags.max_deadline_ms.or(file.limits.max_deadline_ms).unwrap_or(defaults.max_deadline_ms),
            drain_ms: flags.drain_ms.or(file.limits.drain_ms).unwrap_or(defaults.drain_ms),
        };
        limits.check().map_err(ConfigError::Value)?;
        let tokens = http::Tokens {
            api: flags.api_token.or_else(|| file.tokens.api.clone()),
            admin: flags.admin_token.or_else(|| file.tokens.admin.clone()),
        };
        let tokens = tokens.checked().map_err(ConfigError::Value)?;
        let kept = store(flags.store, file);
        let durability = flags.store_durability.map(|name| name.parse()).transpose();
        let durability = durability.map_err(|error: StoreError| ConfigError::Value(error.to_string()))?;
        let store = store::Config {
            durability: durability.unwrap_or(kept.durability),
            keep_trajectories: flags.store_keep_trajectories.unwrap_or(kept.keep_trajectories),
            queue_bytes: flags.store_queue_bytes.unwrap_or(kept.queue_bytes),
            busy_timeout_ms: flags.store_busy_timeout_ms.unwrap_or(kept.busy_timeout_ms),
            ..kept
        };
        store.check().map_err(ConfigError::Value)?;
        if store.keeps_requests() && limits.max_body_bytes > store::MAX_BYTES {
            let (given, most) = (limits.max_body_bytes, store::MAX_BYTES);
            let message = format!(
                "max_body_bytes = {given}: the store keeps requests of at most {most} bytes; allow no more, or set \
                 store_keep_trajectories to false"
            );
            return Err(ConfigError::Value(message));
        }
        let scoring = Scoring::compose(flags.scoring, file)?;
        let inline_rubrics = flags.inline_rubrics.unwrap_or(scoring.inline_rubrics);
        Ok(Self {
            listen: flags.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
            scoring: Scoring { inline_rubrics, ..scoring },
            store,
            http: http::Config { limits, tokens },
        })
    }
}

#[cfg(test)]
mod tests;
