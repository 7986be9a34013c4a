//! Runs from their folders. In: paths. Out: runs with their curves, and what kept others out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::ReportError;
use super::options::XAxis;
use crate::train::metrics::{History, METRICS_FILE, Metric, MetricsError, RUN_FILE, RunInfo, StepMetrics};

/// A run as its folder tells it.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// What it is.
    pub info: RunInfo,
    /// What it measured; at least one step.
    pub history: History,
}

impl Run {
    /// Reads the run in this folder.
    ///
    /// # Errors
    ///
    /// [`ReportError::Metrics`] for a missing or damaged file, [`ReportError::Empty`] for a run without a step; all
    /// name the path.
    pub(super) fn read(folder: &Path) -> Result<Self, ReportError> {
        let info = RunInfo::read(folder)?;
        let path = folder.join(METRICS_FILE);
        let history = History::read(&path)?;
        if history.steps.is_empty() {
            return Err(ReportError::Empty(path));
        }
        Ok(Self { folder: folder.to_owned(), info, history })
    }

    /// A metric's curve, ascending in x: the steps at which it was measured. Empty for a metric that the run lacks, and
    /// over tokens for a run that counted none.
    pub(super) fn points(&self, metric: &Metric, x: XAxis) -> Vec<(f64, f64)> {
        let mut tokens = 0.0;
        let mut points: Vec<(f64, f64)> = Vec::new();
        for step in &self.history.steps {
            let written = step.get(&Metric::RolloutTokens);
            tokens += written.unwrap_or(0.0);
            let Some(value) = step.get(metric) else { continue };
            let x = match x {
                XAxis::Step => step.step() as f64,
                XAxis::Tokens => tokens,
                XAxis::Seconds => step.time_s(),
            };
            // Time and tokens may stand still for a step: the later value is the one that holds there.
            points.pop_if(|last| last.0 >= x);
            points.push((x, value));
        }
        if x == XAxis::Tokens && tokens == 0.0 { Vec::new() } else { points }
    }

    /// The last step that was measured.
    pub(super) fn last_step(&self) -> u64 {
        self.history.steps.last().map_or(0, StepMetrics::step)
    }
}

/// Reads the runs at these paths: each is a run's folder, or a folder of such. Returns what kept a run out beside the
/// runs. A folder that is named twice is read once.
pub(super) fn read_runs(paths: &[PathBuf]) -> (Vec<Run>, Vec<ReportError>) {
    let (mut runs, mut left_out, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for path in paths {
        let folders = folders(path).unwrap_or_else(|error| {
            left_out.push(error);
            Vec::new()
        });
        for folder in folders {
            if seen.insert(folder.clone()) {
                match Run::read(&folder) {
                    Ok(run) => runs.push(run),
                    Err(error) => left_out.push(error),
                }
            }
        }
    }
    (runs, left_out)
}

/// The path itself if it is a run, else the runs in it, by name.
fn folders(path: &Path) -> Result<Vec<PathBuf>, ReportError> {
    if path.join(RUN_FILE).exists() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(MetricsError::io(path, "read"))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    found.retain(|folder| folder.join(RUN_FILE).exists());
    found.sort();
    if found.is_empty() { Err(ReportError::NoRun(path.to_owned())) } else { Ok(found) }
}
