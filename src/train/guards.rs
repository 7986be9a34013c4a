//! What must hold before a run touches its folder: that it is this process's, that it goes on with what it was begun with, and
//! that what it may ask fits the model.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;

use rayon::prelude::*;

use super::TrainError;
use super::config::TrainConfig;
use super::env::{Split, Task};
use super::rollout::World;
use super::state::RunState;

/// Whether a run goes on with what it was begun with.
///
/// # Errors
/// What changed.
pub(super) fn unchanged(saved: &RunState, now: &RunState) -> Result<(), TrainError> {
    let version = |state: &RunState| state.rubric.as_ref().map_or_else(String::new, |rubric| rubric.version.clone());
    let seed = |seed: Option<u64>| seed.map_or_else(String::new, |seed| seed.to_string());
    let all = [
        ("the configuration".to_owned(), saved.config_hash.clone(), now.config_hash.clone()),
        // Checkpoints of earlier versions do not say theirs, nor what was in their files.
        ("the seed".to_owned(), seed(saved.seed.or(now.seed)), seed(now.seed)),
        ("the rubric".to_owned(), version(saved), version(now)),
    ];
    let files = now.data.iter().filter_map(|(setting, hash)| {
        Some((format!("the content of `{setting}`"), saved.data.get(setting)?.clone(), hash.clone()))
    });
    match all.into_iter().chain(files).find(|(_, before, now)| before != now) {
        None => Ok(()),
        Some((what, before, now)) => Err(TrainError::Changed(format!(
            "{what} changed since this run was stopped ({before} before, {now} now): put it back, start a new run in \
             another folder, or go on with --force"
        ))),
    }
}

/// The hash of each file of a run's data: what is known of a task is kept by its place in them.
///
/// # Errors
/// When one cannot be read.
pub(super) fn hashes(config: &TrainConfig) -> Result<BTreeMap<String, String>, TrainError> {
    let hash = |(setting, path): (&str, &Path)| {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|hasher| hasher.finalize()));
        let hash = read.map_err(|error| TrainError::file(path, error))?;
        Ok((setting.to_owned(), hash.to_hex().chars().take(16).collect()))
    };
    config.data_files().into_iter().map(hash).collect()
}

/// Takes a run's folder for this process: two would write over each other.
///
/// # Errors
/// When another process has it.
pub(super) fn locked(dir: &Path) -> Result<File, TrainError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|error| TrainError::file(&path, error))?;
    // A file system may have no locks.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        let said = "another process trains in this folder; wait for it, or take another `output`";
        return Err(TrainError::file(dir, said));
    }
    Ok(file)
}

/// Whether every question that the run may ask leaves room for its answer.
///
/// # Errors
/// The first that does not.
pub(super) fn check_lengths(world: &World, config: &TrainConfig, context: usize) -> Result<(), TrainError> {
    let most = config.rollout.max_tokens;
    let held_out = if config.evaluation.every > 0 { config.evaluation.questions } else { 0 };
    let train = if config.algorithm.learns_by_reward() { usize::MAX } else { 0 };
    for (split, count) in [(Split::Train, train), (Split::HeldOut, held_out)] {
        let tasks = world.environment.tasks(split);
        let check = |task: &Task| {
            let tokens = world.protocol.prompt(&world.environment.messages(task))?.len();
            if tokens.saturating_add(most) <= context {
                return Ok(());
            }
            Err(TrainError::other(format!(
                "the question {:?} takes {tokens} tokens, and with `rollout.max_tokens` = {most} more than the {context} of \
                 the model's context: leave it out, or lower `rollout.max_tokens`",
                task.id
            )))
        };
        tasks.get(..count.min(tasks.len())).unwrap_or_default().par_iter().try_for_each(check)?;
    }
    Ok(())
}
