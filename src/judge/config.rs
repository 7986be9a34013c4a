//! Which judges a server has: a table by name, each a model on this machine or endpoints elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Model;
use super::local::{Local, LocalConfig};
use super::remote::{self, Remote};
use crate::lm::Hub;

/// A judge that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("judge {judge:?}: {reason}")]
pub struct ConfigError {
    /// Its name.
    pub judge: String,
    /// What is wrong and what would do.
    pub reason: String,
}

/// The judges of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// By the names that rubrics use.
    pub judges: BTreeMap<String, JudgeConfig>,
    /// Memory for past answers, in bytes.
    pub cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { judges: BTreeMap::new(), cache_bytes: 64 << 20 }
    }
}

/// One judge. A table with `model` as a directory, a GGUF file or a hub's name is local; one with `endpoints` is remote.
#[derive(Debug, Clone)]
pub enum JudgeConfig {
    /// Endpoints elsewhere.
    Remote(Box<remote::Config>),
    /// A model on this machine.
    Local(LocalConfig),
}

impl<'de> Deserialize<'de> for JudgeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        if table.contains_key("endpoints") {
            let remote = table.try_into().map_err(|error| D::Error::custom(on_one_line(&error)))?;
            return Ok(Self::Remote(Box::new(remote)));
        }
        let read = |table: toml::Table| {
            let local: LocalConfig = table.try_into().map_err(|error| on_one_line(&error))?;
            local.check().map(|()| local)
        };
        read(table).map(Self::Local).map_err(|error| {
            D::Error::custom(format!("{error} (a judge without `endpoints` is a model on this machine)"))
        })
    }
}

/// What is wrong with a table, and at which of its keys, which stands on a line of its own otherwise.
fn on_one_line(error: &toml::de::Error) -> String {
    error.to_string().trim_end().replace('\n', " ")
}

impl JudgeConfig {
    /// Names of the variables of the environment that hold its keys.
    pub fn key_variables(&self) -> impl Iterator<Item = &str> {
        let endpoints = match self {
            Self::Remote(remote) => remote.endpoints.as_slice(),
            Self::Local(_) => &[],
        };
        endpoints.iter().filter_map(|endpoint| endpoint.api_key_env.as_deref())
    }

    /// A judge as the command line names it: a model's directory, GGUF file or name on the Hugging Face hub, or
    /// `URL#MODEL` for an endpoint.
    ///
    /// # Errors
    /// When a URL comes without a model's name.
    pub fn from_flag(text: &str) -> Result<Self, String> {
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Self::Local(LocalConfig { model: PathBuf::from(text), ..LocalConfig::default() }));
        }
        let Some((url, model)) = text.split_once('#').filter(|(_, model)| !model.is_empty()) else {
            return Err(format!("--judge {text:?} names no model; write {text}#MODEL"));
        };
        let endpoint = remote::EndpointConfig { url: url.to_owned(), ..remote::EndpointConfig::default() };
        let config = remote::Config { endpoints: vec![endpoint], model: model.to_owned(), ..remote::Config::default() };
        Ok(Self::Remote(Box::new(config)))
    }

    pub(super) fn open(&self, key: &impl Fn(&str) -> Option<String>) -> Result<Model, String> {
        match self {
            Self::Local(config) => Local::load(config, &Hub::from_variables(key)).map(Model::Local),
            Self::Remote(config) => {
                let remote = Remote::new((**config).clone(), key).map_err(|error| error.to_string())?;
                Ok(Model::Remote(Box::new(remote)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Page {
        judges: BTreeMap<String, JudgeConfig>,
    }

    /// The fields that serde knows, from its complaint about one that it does not.
    fn keys_of<T: for<'de> Deserialize<'de>>() -> Vec<String> {
        let error = toml::from_str::<T>("no_such_key = 1").err().unwrap().to_string();
        let (_, listed) = error.split_once("expected one of").unwrap();
        listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn two_models_of_one_name_are_told_apart() {
        let judge = |url: &str, more: &str| format!("{{ model = \"m\", endpoints = [{{ url = \"{url}\" }}] {more} }}");
        let open = |a: &str, b: &str| {
            let page: Page = toml::from_str(&format!("[judges]\na = {a}\nb = {b}\n")).unwrap();
            super::super::Judges::open(&Config { judges: page.judges, cache_bytes: 0 }, |_| None, None)
        };
        let (here, there) = ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1");
        let error = open(&judge(here, ""), &judge(there, "")).unwrap_err().to_string();
        assert!(
            error.starts_with("judge \"b\": the same model as judge \"a\"") && error.contains("`revision`"),
            "{error}"
        );
        open(&judge(here, ""), &judge(there, ", revision = \"2\"")).unwrap();
        open(&judge(here, ""), &judge(here, "")).unwrap();
    }

    #[test]
    fn the_page_of_keys_has_all_of_them_with_their_defaults() {
        let page = include_str!("../../docs/judges.md");
        let blocks: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        let [local, remote] = blocks[..] else { panic!("two blocks: {blocks:?}") };
        // What has no default stands there as a comment.
        let all = |block: &str| block.replace("\n# ", "\n");
        for (block, keys) in [
            (local, keys_of::<LocalConfig>()),
            (remote, [keys_of::<remote::Config>(), keys_of::<remote::EndpointConfig>()].concat()),
        ] {
            let named = |key: &&String| {
                block.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")))
            };
            let missing: Vec<&String> = keys.iter().filter(|key| *key != "endpoints" && !named(key)).collect();
            assert!(missing.is_empty() && keys.len() > 5, "{missing:?}");
            toml::from_str::<Page>(&all(block)).unwrap();
        }
        let read = |block: &str| toml::from_str::<Page>(block).unwrap().judges.remove("default").unwrap();
        let JudgeConfig::Local(found) = read(local) else { panic!("{local}") };
        assert_eq!(found, LocalConfig { model: found.model.clone(), ..LocalConfig::default() });
        let JudgeConfig::Remote(found) = read(remote) else { panic!("{remote}") };
        let [endpoint] = &found.endpoints[..] else { panic!("{found:?}") };
        assert_eq!(*endpoint, remote::EndpointConfig { url: endpoint.url.clone(), ..Default::default() });
        let (endpoints, model) = (found.endpoints.clone(), found.model.clone());
        assert_eq!(*found, remote::Config { endpoints, model, ..remote::Config::default() });
    }
}
