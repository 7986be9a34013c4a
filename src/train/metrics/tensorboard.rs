//! A run's event file for TensorBoard, in the run's folder (`tensorboard --logdir RUNS`). In: steps and the time of
//! day.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::MetricsError;
use super::event::{EventKind, record};
use super::step::StepMetrics;

/// An event file that is being written. Every start of a run writes one of its own; TensorBoard reads them in order and
/// drops what a later one does again.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Starts an event file in this folder for steps from `first_step` on. `wall_time_s`: seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Io`].
    pub fn create(folder: &Path, first_step: u64, wall_time_s: f64) -> Result<Self, MetricsError> {
        let (file, path) = new_file(folder, wall_time_s)?;
        let mut events = Self { file, path };
        let head = [record(wall_time_s, 0, EventKind::FileVersion), record(wall_time_s, first_step, EventKind::Start)];
        events.write(&head.concat())?;
        Ok(events)
    }

    /// Adds a step: one write, handed to the operating system when this returns. `wall_time_s`: seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Io`].
    pub fn append(&mut self, metrics: &StepMetrics, wall_time_s: f64) -> Result<(), MetricsError> {
        self.write(&record(wall_time_s, metrics.step(), EventKind::Scalars(metrics)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), MetricsError> {
        self.file.write_all(bytes).map_err(MetricsError::io(&self.path, "written"))
    }
}

/// `events.out.tfevents.SECONDS.gradus.N`: TensorBoard looks for the middle part and reads files in the order of their
/// names. N tells starts within one second apart.
fn new_file(folder: &Path, wall_time_s: f64) -> Result<(File, PathBuf), MetricsError> {
    let mut number = 0;
    loop {
        let path = folder.join(format!("events.out.tfevents.{:010.0}.gradus.{number:03}", wall_time_s.floor()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 999 => number += 1,
            Err(error) => return Err(MetricsError::io(&path, "created")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::Metric;

    #[test]
    fn a_file_is_its_records_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = StepMetrics::new(7, 2.0).unwrap();
        metrics.set(Metric::RewardMean, 0.25).unwrap();
        let mut events = EventFile::create(folder.path(), 7, 1_750_000_000.9).unwrap();
        events.append(&metrics, 1_750_000_001.0).unwrap();
        let bytes = std::fs::read(folder.path().join("events.out.tfevents.1750000000.gradus.000")).unwrap();
        let expected = [
            record(1_750_000_000.9, 0, EventKind::FileVersion),
            record(1_750_000_000.9, 7, EventKind::Start),
            record(1_750_000_001.0, 7, EventKind::Scalars(&metrics)),
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn two_starts_within_a_second_are_two_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        EventFile::create(folder.path(), 0, 5.0).unwrap();
        EventFile::create(folder.path(), 3, 5.5).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["events.out.tfevents.0000000005.gradus.000", "events.out.tfevents.0000000005.gradus.001"]);
    }
}
