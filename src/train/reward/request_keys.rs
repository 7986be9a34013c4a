//! Under which name a server keeps a run's scores, and by which keys it knows the run's requests. In: the run's folder, its
//! name, its rubric. Out: a `run_id`, and a key for each request. Knows no server.
//!
//! A run that goes on from a checkpoint asks for the steps since then again. The same rollouts have the same key, so that the
//! server gives the answer that it gave, and counts nothing twice. It is kept beside the checkpoints and not in them: a run that is
//! killed before its first one asks again, too.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::train::{TrainError, durable};

/// The name of the file in a run's folder.
const FILE: &str = "reward_run.json";

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// What the run is called.
    name: String,
    /// How often it went back and came another way, and one.
    part: u64,
    /// The rubric's version.
    rubric: String,
    /// What keys begin with.
    nonce: String,
}

/// The name and the keys of a run.
#[derive(Debug)]
pub(super) struct RequestKeys {
    path: PathBuf,
    kept: Kept,
    is_written: bool,
    /// The step that is asked about, and how many requests it has made.
    step: Option<u64>,
    requests: u64,
    /// What keys of requests begin with that are asked anew by every process.
    salt: String,
    anew: u64,
}

/// A number that no other process has, nor this one a second time.
fn nonce() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

impl RequestKeys {
    /// The keys in a run's folder, or fresh ones. Nothing is written before the first request.
    ///
    /// # Errors
    /// When there are some that cannot be read.
    pub(super) fn open(folder: &Path, name: &str, rubric: &str) -> Result<Self, TrainError> {
        let path = folder.join(FILE);
        let wrong = |problem: &dyn std::fmt::Display| {
            TrainError::file(
                &path,
                format!("{problem}; where it is deleted, what the run does again is counted again under its name"),
            )
        };
        let found: Option<Kept> = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| wrong(&error))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(wrong(&error)),
        };
        let found = found.filter(|kept| kept.name == name);
        let is_written = found.as_ref().is_some_and(|kept| kept.rubric == rubric);
        // Another rubric gives other rewards for the same rollouts.
        let part = found.as_ref().map_or(1, |kept| kept.part + u64::from(!is_written));
        let fresh = Kept { name: name.to_owned(), part, rubric: rubric.to_owned(), nonce: nonce() };
        let kept = found.filter(|_| is_written).unwrap_or(fresh);
        Ok(Self { path, kept, is_written, step: None, requests: 0, salt: nonce(), anew: 0 })
    }

    /// The `run_id`.
    pub(super) fn run_id(&self) -> String {
        let Kept { name, part, .. } = &self.kept;
        if *part > 1 { format!("{name}~{part}") } else { name.clone() }
    }

    /// The key of the next request of a step.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn key(&mut self, step: Option<u64>) -> Result<String, TrainError> {
        if !self.is_written {
            self.write()?;
        }
        if self.step != step {
            (self.step, self.requests) = (step, 0);
        }
        self.requests += 1;
        Ok(format!("{}-{}-{}", self.kept.nonce, step.unwrap_or_default(), self.requests))
    }

    /// The key of a request that belongs to no run. What an evaluation was told, when a judge was away say, is no answer later.
    pub(super) fn key_anew(&mut self) -> String {
        self.anew += 1;
        format!("{}-{}", self.salt, self.anew)
    }

    /// Goes on under another name: the server has other rollouts of this step. The request that found out is made once more.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn go_another_way(&mut self) -> Result<(), TrainError> {
        self.kept.part += 1;
        // Whoever goes back asks it as the one that it is.
        self.requests = self.requests.saturating_sub(1);
        self.ask_anew()
    }

    /// Asks anew from here on, even where it asks the same.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn ask_anew(&mut self) -> Result<(), TrainError> {
        self.kept.nonce = nonce();
        self.write()
    }

    fn write(&mut self) -> Result<(), TrainError> {
        let text = serde_json::to_vec_pretty(&self.kept).map_err(|error| TrainError::file(&self.path, error))?;
        durable::replace(&self.path, &text)?;
        self.is_written = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_has_the_keys_that_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, rubric: &str| RequestKeys::open(folder.path(), name, rubric).unwrap();
        let mut first = open("a", "b3-1");
        assert!(!folder.path().join(FILE).exists(), "nothing is asked yet");
        let keys = [Some(0), Some(0), Some(1)].map(|step| first.key(step).unwrap());
        assert!(keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
        let mut second = open("a", "b3-1");
        assert_eq!([Some(0), Some(0), Some(1)].map(|step| second.key(step).unwrap()), keys);
        assert_ne!(first.key_anew(), second.key_anew(), "an evaluation is made anew");
        second.ask_anew().unwrap();
        let mut third = open("a", "b3-1");
        assert!(!keys.contains(&third.key(Some(1)).unwrap()) && third.run_id() == "a");
        third.go_another_way().unwrap();
        let mut fourth = open("a", "b3-1");
        assert_eq!(fourth.run_id(), "a~2");
        assert_eq!(third.key(Some(1)).unwrap(), fourth.key(Some(1)).unwrap());
        assert_eq!(open("a", "b3-2").run_id(), "a~3", "another rubric");
        assert_eq!(open("b", "b3-1").run_id(), "b", "another name");
    }
}
