//! The rollouts of a step, written down for people. In: groups. Out: `rollouts/step-N.jsonl`, and the way back.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::env::Task;
use super::groups::Group;
use super::reward::Scored;

/// A rollout, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The task.
    pub task: String,
    /// Answers that count as right.
    pub answers: Vec<String>,
    /// The conversation.
    pub messages: Vec<RecordedMessage>,
    /// What it is worth.
    pub scored: Scored,
    /// Mean reward of its group.
    pub group_mean: f64,
    /// Deviation of its group's rewards.
    pub group_std: f64,
    /// Task value of its group.
    pub group_value: f64,
    /// How often it is in the batch itself, fresh rollouts of its task aside.
    pub multiplicity: u32,
    /// Whether the token limit cut it off.
    pub truncated: bool,
}

/// A message, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMessage {
    /// Who.
    pub role: String,
    /// What.
    pub content: String,
}

fn place(run: &Path, step: u64) -> PathBuf {
    run.join("rollouts").join(format!("step-{step:06}.jsonl"))
}

/// Writes the rollouts of a step down; `counted` says of each group how often a rollout of it counts.
///
/// # Errors
/// When the file cannot be written.
pub fn write(run: &Path, step: u64, groups: &[Group], counted: &[u32], tasks: &[Task]) -> Result<PathBuf, TrainError> {
    let path = place(run, step);
    let wrong = |problem: String| TrainError::file(&path, problem);
    let mut text = Vec::new();
    for (group, multiplicity) in groups.iter().zip(counted) {
        for (rollout, scored) in &group.attempts {
            let task = tasks.get(group.task);
            let spoken = rollout.messages.iter();
            let record = Record {
                task: task.map_or_else(String::new, |task| task.id.clone()),
                answers: task.map_or_else(Vec::new, |task| task.answers.clone()),
                messages: spoken
                    .map(|message| RecordedMessage {
                        role: message.role.as_str().to_owned(),
                        content: message.text.clone(),
                    })
                    .collect(),
                scored: scored.clone(),
                group_mean: group.statistics.mean,
                group_std: group.statistics.std,
                group_value: group.statistics.value,
                multiplicity: *multiplicity,
                truncated: rollout.truncated,
            };
            serde_json::to_writer(&mut text, &record).map_err(|error| wrong(error.to_string()))?;
            text.push(b'\n');
        }
    }
    let folder = run.join("rollouts");
    let put = || {
        std::fs::create_dir_all(&folder)?;
        std::fs::File::create(&path)?.write_all(&text)
    };
    put().map_err(|error: std::io::Error| wrong(error.to_string()))?;
    Ok(path)
}

/// Reads the rollouts of a step.
///
/// # Errors
/// When there are none, naming the steps that there are.
pub fn read(run: &Path, step: u64) -> Result<Vec<Record>, TrainError> {
    let path = place(run, step);
    let wrong = |problem: String| TrainError::file(&path, problem);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let known = std::fs::read_dir(run.join("rollouts")).into_iter().flatten().flatten();
        let mut known: Vec<u64> = known
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step-")?.strip_suffix(".jsonl")?.parse().ok())
            .collect();
        known.sort_unstable();
        wrong(format!("{error}; written down are the steps {known:?} (`checkpoint.rollouts_every`)"))
    })?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| wrong(format!("line {}: {error}", number + 1)))
    };
    text.lines().enumerate().map(line).collect()
}
