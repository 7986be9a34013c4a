//! The files of a world: what `gradus data hops` leaves in a folder.
//!
//! In: [`Hops`]. Out: files; those that are there are replaced, and README.md is written last, so that a folder with it is
//! whole. Knows no command line.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Demonstration, Flaw, Hops, HopsError, environment_config};
use crate::train::env::{Environment, Split, Task};

/// The passages.
pub(super) const CORPUS: &str = "corpus.jsonl";
/// The questions to learn from.
pub(super) const TRAIN: &str = "train.jsonl";
/// The questions to evaluate on.
pub(super) const HELD_OUT: &str = "heldout.jsonl";
/// The conversations to begin with.
const DEMONSTRATIONS: &str = "demonstrations.jsonl";

/// One line of the demonstrations.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    demonstration: &'a Demonstration,
    tools: &'a RawValue,
}

impl Hops {
    /// Writes everything into a folder, which is made where it is missing.
    ///
    /// # Errors
    /// When a file cannot be written; the message names it.
    pub fn write(&self, folder: &Path) -> Result<(), HopsError> {
        let tokenizer = folder.join("tokenizer");
        let failed = |path: &Path, error: &dyn std::fmt::Display| HopsError::Unwritable {
            path: path.to_owned(),
            message: error.to_string(),
        };
        std::fs::create_dir_all(&tokenizer).map_err(|error| failed(&tokenizer, &error))?;
        for (name, content) in self.files().map_err(|error| failed(folder, &error))? {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    /// A file of another world in a folder: one that [`Self::write`] would replace by something else.
    ///
    /// # Errors
    /// When what is in the folder cannot be read; the message names it.
    pub fn other_file(&self, folder: &Path) -> Result<Option<&'static str>, HopsError> {
        let failed = |path: &Path, error: &dyn std::fmt::Display| HopsError::Unreadable {
            path: path.to_owned(),
            message: error.to_string(),
        };
        for (name, content) in self.files().map_err(|error| failed(folder, &error))? {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(found) if found != content.as_bytes() => return Ok(Some(name)),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&path, &error)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Names and contents of all files, in the order in which they are written.
    pub(super) fn files(&self) -> Result<Vec<(&'static str, String)>, serde_json::Error> {
        let passages = self.environment.passages().iter();
        let corpus = passages.map(|passage| json!({"id": passage.id, "title": passage.title, "text": passage.text}));
        let tasks = |split| lines(self.environment.tasks(split).iter().map(question));
        let tools: &RawValue = serde_json::from_str(self.tools_json())?;
        let demonstrations = self.demonstrations.iter().map(|demonstration| Line { demonstration, tools });
        Ok(vec![
            (CORPUS, lines(corpus)?),
            (TRAIN, tasks(Split::Train)?),
            (HELD_OUT, tasks(Split::HeldOut)?),
            (DEMONSTRATIONS, lines(demonstrations)?),
            ("tokenizer/tokenizer.json", self.tokenizer.tokenizer.clone()),
            ("tokenizer/tokenizer_config.json", self.tokenizer.config.clone()),
            ("README.md", self.readme()),
        ])
    }

    fn readme(&self) -> String {
        let count = |split: Split, hops: u8| {
            self.environment.tasks(split).iter().filter(|task| task.hops == Some(hops)).count()
        };
        let flawed = self.demonstrations.iter().filter(|demonstration| !demonstration.flaws.is_empty()).count();
        let mut rows = String::new();
        for (file, what, split) in
            [(TRAIN, "questions to learn from", Split::Train), (HELD_OUT, "questions to evaluate on", Split::HeldOut)]
        {
            let [one, two, three] = [1, 2, 3].map(|hops| count(split, hops));
            let all = self.environment.tasks(split).len();
            _ = writeln!(rows, "| `{file}` | {all} {what}: {one} of one hop, {two} of two, {three} of three |");
        }
        let mut flaws = String::new();
        for flaw in Flaw::ALL {
            let all = self.demonstrations.iter().flat_map(|demonstration| &demonstration.flaws);
            _ = writeln!(flaws, "| `{}` | {} |", flaw.as_str(), all.filter(|other| **other == flaw).count());
        }
        let settings = &self.config;
        let world = format!(
            "seed {}: {} people ({} of them held out), {} companies, {} towns, {} countries, {} books",
            settings.seed,
            settings.people,
            settings.people - settings.train_people(),
            settings.companies,
            settings.towns,
            settings.countries,
            settings.books,
        );
        let tokens = &self.tokenizer;
        README
            .replace("{world}", &world)
            .replace("{passages}", &self.environment.passages().len().to_string())
            .replace("{questions}", &rows)
            .replace("{demonstrations}", &self.demonstrations.len().to_string())
            .replace("{flawed}", &flawed.to_string())
            .replace("{flaws}", &flaws)
            .replace("{vocabulary}", &tokens.vocabulary_size.to_string())
            .replace("{end}", &tokens.end_id.to_string())
            .replace("{pad}", &tokens.pad_id.to_string())
            .replace("{settings}", &environment_settings())
    }
}

fn question(task: &Task) -> serde_json::Value {
    json!({"id": task.id, "question": task.question, "answers": task.answers, "hops": task.hops})
}

/// The environment's settings as TOML. The folder stays to be named: the same world has the same bytes wherever it is.
fn environment_settings() -> String {
    toml::to_string(&environment_config("DIR")).unwrap_or_default()
}

/// One value a line.
fn lines(values: impl Iterator<Item = impl Serialize>) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for value in values {
        text += &serde_json::to_string(&value)?;
        text.push('\n');
    }
    Ok(text)
}

/// README.md, with gaps to fill.
const README: &str = include_str!("readme.md");
