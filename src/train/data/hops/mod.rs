//! `hops`: a made-up world, questions of one to three hops about it, and demonstrations of how they are answered.
//!
//! In: [`HopsConfig`]. Out: [`Hops`], and on disk `corpus.jsonl`, `train.jsonl`, `heldout.jsonl`, `demonstrations.jsonl`,
//! `README.md` and `tokenizer/`. The same configuration gives the same bytes. Every name is made of three syllables, so that
//! a policy of a few million parameters can copy it. Knows no model.
//!
//! Reading order: `world` (who is what to whom), `question` (chains of relations), `demonstration` (conversations, some of
//! them flawed), `tokenizer` (for a fresh policy), `files`.

mod config;
mod demonstration;
mod files;
mod question;
#[cfg(test)]
mod tests;
mod tokenizer;
mod world;

use std::path::{Path, PathBuf};

pub use self::config::HopsConfig;
pub use self::demonstration::{Demonstration, Flaw};
pub use self::tokenizer::{END_TOKEN, PAD_TOKEN, TokenizerFiles};
use self::world::World;
use crate::train::env::{
    Environment, MatchTerms, Passage, PassageForm, QaData, QaSearch, QaSearchConfig, QaSearchError, Unanswerable,
};

/// The world and its data cannot be made or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HopsError {
    /// A number that cannot be.
    #[error("hops: `{key}` is {value}, but must be {range}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        range: String,
    },
    /// The world's own environment refuses it.
    #[error(transparent)]
    Environment(#[from] QaSearchError),
    /// A file that is there cannot be read.
    #[error("{}: cannot be read: {message}; name another folder", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {message}; name a folder that may be written, on a disk with room", .path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Everything that `gradus data hops` makes.
pub struct Hops {
    config: HopsConfig,
    environment: QaSearch,
    demonstrations: Vec<Demonstration>,
    tokenizer: TokenizerFiles,
}

impl Hops {
    /// Makes the world, its questions and its demonstrations.
    ///
    /// # Errors
    /// When a number of the configuration is out of range.
    pub fn generate(config: HopsConfig) -> Result<Self, HopsError> {
        config.check()?;
        // One stream each: more demonstrations leave the world and the questions as they were.
        let mut seeds = fastrand::Rng::with_seed(config.seed);
        let mut stream = || fastrand::Rng::with_seed(seeds.u64(..));
        let world = World::generate(&config, &mut stream());
        let (train, held_out) = question::draw(&world, &config, &mut stream());
        let data = QaData {
            passages: passages(&world),
            train: question::tasks("train", &world, &train),
            held_out: question::tasks("heldout", &world, &held_out),
        };
        let environment = QaSearch::new(environment_config(""), data)?;
        let demonstrations = demonstration::draw(&world, &environment, &train, &config, &mut stream());
        Ok(Self { config, environment, demonstrations, tokenizer: tokenizer::files() })
    }

    /// The environment over this world, as the README's configuration opens it from the files.
    pub fn environment(&self) -> &QaSearch {
        &self.environment
    }

    /// The demonstrations.
    pub fn demonstrations(&self) -> &[Demonstration] {
        &self.demonstrations
    }

    /// The tokenizer for a fresh policy.
    pub fn tokenizer(&self) -> &TokenizerFiles {
        &self.tokenizer
    }

    /// What it was made from.
    pub fn config(&self) -> &HopsConfig {
        &self.config
    }

    /// The tools, as the demonstrations carry them.
    fn tools_json(&self) -> &str {
        self.environment.tools_json()
    }
}

/// How the world is searched: one passage, short, and nothing for a name that there is not. Otherwise a search for a
/// misspelt name would find the same wrong person every time.
pub(in crate::train) fn environment_config(folder: impl AsRef<Path>) -> QaSearchConfig {
    let file = |name: &str| folder.as_ref().join(name);
    QaSearchConfig {
        top_k: 1,
        match_terms: MatchTerms::All,
        passage_form: PassageForm::Text,
        system: String::new(),
        unanswerable: Unanswerable::Refuse,
        ..QaSearchConfig::new(file(files::CORPUS), file(files::TRAIN), file(files::HELD_OUT))
    }
}

/// One passage a fact. The title names whom it is about, so that `spouse of A` finds A's passage and not that of A's spouse.
fn passages(world: &World) -> Vec<Passage> {
    let passage = |(place, fact): (usize, world::Fact)| Passage {
        id: format!("f{place}"),
        title: world.name(fact.subject).to_owned(),
        text: format!("{} of {} is {}", fact.relation.word(), world.name(fact.subject), world.name(fact.object)),
    };
    world.facts().into_iter().enumerate().map(passage).collect()
}
