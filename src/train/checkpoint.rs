//! Checkpoints: everything a run needs to go on as if it had never stopped. In: parameters, optimiser, state. Out: a folder
//! that is whole or not there, with a checksum of each file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::config::{Check, is_each};
use super::state::RunState;
use super::{TrainError, durable};
use crate::files;
use crate::lm::training::{AdamW, TrainableDecoder};

const PARAMETERS: &str = "parameters.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const REFERENCE: &str = "reference.safetensors";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";

/// Checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; 0 keeps only the last.
    pub every: u64,
    /// How many are kept, at least 1.
    pub keep: usize,
    /// Steps between rollouts that are written down for `--inspect`; 0 for none.
    pub rollouts_every: u64,
}

impl CheckpointConfig {
    /// Whether a checkpoint is made after a step.
    pub fn is_due(&self, step: u64) -> bool {
        is_each(self.every, step)
    }

    /// Whether a step's rollouts are written down.
    pub fn keeps_rollouts(&self, step: u64) -> bool {
        is_each(self.rollouts_every, step)
    }

    /// What it must not be.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![(self.keep == 0, "checkpoint.keep", "is 0; the run could not be resumed")]
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 50, keep: 2, rollouts_every: 10 }
    }
}

/// What a checkpoint holds.
pub struct Checkpoint {
    /// The policy's parameters, by name.
    pub parameters: BTreeMap<String, Tensor>,
    /// The optimiser's state.
    pub optimizer: BTreeMap<String, Tensor>,
    /// The reference policy's parameters; empty without one.
    pub reference: BTreeMap<String, Tensor>,
    /// Everything else.
    pub state: RunState,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    state: RunState,
    /// BLAKE3 of each other file.
    checksums: BTreeMap<String, String>,
}

/// The parameters of a model by their names.
pub fn parameters(model: &TrainableDecoder) -> BTreeMap<String, Tensor> {
    model.parameters().iter().map(|parameter| (parameter.name(), parameter.value.clone())).collect()
}

/// Writes a checkpoint of a step into the folder `checkpoints` of a run, and drops older ones beyond `keep`.
///
/// It is written beside its place and moved there once it is on the disk: a run that is killed, or a full disk, leaves
/// the one before.
///
/// # Errors
/// When the disk is full or a file cannot be written.
pub fn save(
    run: &Path,
    policy: &TrainableDecoder,
    optimizer: &AdamW,
    (state, reference): (&RunState, Option<&TrainableDecoder>),
    keep: usize,
) -> Result<PathBuf, TrainError> {
    let folder = run.join("checkpoints");
    let place = folder.join(format!("{PREFIX}{:06}", state.step));
    let beside = folder.join(format!(".{PREFIX}{:06}.writing", state.step));
    sweep(&folder);
    std::fs::create_dir_all(&beside).map_err(|error| TrainError::file(&beside, error))?;
    let written = write_all(&beside, policy, optimizer, state, reference);
    if let Err(error) = written {
        let _ = std::fs::remove_dir_all(&beside);
        return Err(error);
    }
    if place.exists() {
        retire(&place)?;
    }
    files::rename(&beside, &place).map_err(|error| TrainError::file(&place, error))?;
    let mut all = list(run)?;
    let surplus = all.len().saturating_sub(keep.max(1));
    all.drain(..surplus).try_for_each(|(_, old)| retire(&old))?;
    Ok(place)
}

/// Writes another state into the checkpoint of its step, whose other files stay as they are.
///
/// # Errors
/// When there is none, or the file cannot be written.
pub(super) fn restate(run: &Path, state: &RunState) -> Result<(), TrainError> {
    let path = run.join("checkpoints").join(format!("{PREFIX}{:06}", state.step)).join(STATE);
    let read = std::fs::read(&path).map_err(|error| TrainError::file(&path, error))?;
    let sealed: Sealed = serde_json::from_slice(&read).map_err(|error| TrainError::file(&path, error))?;
    let sealed = Sealed { state: state.clone(), ..sealed };
    let text = serde_json::to_vec_pretty(&sealed).map_err(|error| TrainError::file(&path, error))?;
    durable::replace(&path, &text)
}

/// Removes what a process that was killed left half written, or half removed.
fn sweep(folder: &Path) {
    let left = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "writing" || extension == "old");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(left) {
        // What stays takes room and does no harm.
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Removes a checkpoint, which is no checkpoint any more before its first file goes.
fn retire(place: &Path) -> Result<(), TrainError> {
    let aside = place.with_extension("old");
    std::fs::rename(place, &aside).map_err(|error| TrainError::file(place, error))?;
    std::fs::remove_dir_all(&aside).map_err(|error| TrainError::file(&aside, error))
}

fn write_all(
    dir: &Path,
    policy: &TrainableDecoder,
    optimizer: &AdamW,
    state: &RunState,
    reference: Option<&TrainableDecoder>,
) -> Result<(), TrainError> {
    let mut checksums = BTreeMap::new();
    let mut put = |name: &str, tensors: BTreeMap<String, Tensor>| {
        let path = dir.join(name);
        let on_host = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?)));
        let on_host: Result<Vec<(String, Tensor)>, candle_core::Error> = on_host.collect();
        let bytes = safetensors::serialize(on_host?, None).map_err(|error| TrainError::file(&path, error))?;
        checksums.insert(name.to_owned(), blake3::hash(&bytes).to_hex().to_string());
        durable::write(&path, &bytes)
    };
    put(PARAMETERS, parameters(policy))?;
    put(OPTIMIZER, optimizer.state(policy))?;
    if let Some(reference) = reference {
        put(REFERENCE, parameters(reference))?;
    }
    let sealed = Sealed { state: state.clone(), checksums };
    let path = dir.join(STATE);
    let text = serde_json::to_vec_pretty(&sealed).map_err(|error| TrainError::file(&path, error))?;
    durable::write(&path, &text)
}

/// The checkpoints of a run with their steps, the oldest first.
fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let folder = run.join("checkpoints");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&folder).map_err(|error| TrainError::file(&folder, error))?;
    let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok();
    let mut all: Vec<(u64, PathBuf)> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter_map(|p| Some((step(&p)?, p))).collect();
    all.sort();
    Ok(all)
}

/// Whether a run has a checkpoint to go on from.
pub(super) fn is_begun(run: &Path) -> bool {
    list(run).is_ok_and(|all| !all.is_empty())
}

/// The newest checkpoint of a run; `None` when there is none yet.
///
/// # Errors
/// [`TrainError::File`] for one that is damaged: it names the file, and how to go on from the one before.
pub fn newest(run: &Path) -> Result<Option<Checkpoint>, TrainError> {
    let Some((_, dir)) = list(run)?.pop() else { return Ok(None) };
    load(&dir).map(Some)
}

fn load(dir: &Path) -> Result<Checkpoint, TrainError> {
    let damaged = |path: &Path, what: String| {
        let go_on = "remove this folder to go on from the checkpoint before it";
        TrainError::file(path, format!("{what}; the checkpoint is damaged: {go_on}"))
    };
    let path = dir.join(STATE);
    let text = std::fs::read(&path).map_err(|error| damaged(&path, error.to_string()))?;
    let sealed: Sealed = serde_json::from_slice(&text).map_err(|error| damaged(&path, error.to_string()))?;
    let read = |name: &str| -> Result<BTreeMap<String, Tensor>, TrainError> {
        let path = dir.join(name);
        let Some(wanted) = sealed.checksums.get(name) else { return Ok(BTreeMap::new()) };
        let bytes = std::fs::read(&path).map_err(|error| damaged(&path, error.to_string()))?;
        if blake3::hash(&bytes).to_hex().as_str() != wanted {
            return Err(damaged(&path, "its checksum is another than when it was written".to_owned()));
        }
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        Ok(tensors.map_err(|error| damaged(&path, error.to_string()))?.into_iter().collect())
    };
    Ok(Checkpoint {
        parameters: read(PARAMETERS)?,
        optimizer: read(OPTIMIZER)?,
        reference: read(REFERENCE)?,
        state: sealed.state,
    })
}
