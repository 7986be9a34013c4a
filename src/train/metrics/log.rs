//! `metrics.jsonl`, the record of a run: one JSON object a line and step, on disk before the next step starts.
//!
//! ```text
//! {"step":12,"time_s":40.2,"eval/exact_match":0.41,"reward/mean":0.53,..}
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::MetricsError;
use super::history::lines;
use super::step::StepMetrics;
use crate::files;

/// The name of the file in a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// A metrics file that is being written. Holds every step once, in order, also across resumes and failed writes.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines.
    length: u64,
    last: Option<u64>,
}

impl MetricsLog {
    /// Goes on with the metrics of a run that resumes at `first_step`: lines from that step on, and a half last line,
    /// are cut off. A folder without metrics gets an empty file.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Line`] for a file that is damaged elsewhere, [`MetricsError::Io`].
    pub fn resume(folder: &Path, first_step: u64) -> Result<Self, MetricsError> {
        let path = folder.join(METRICS_FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(MetricsError::io(&path, "opened"))?;
        let bytes = std::fs::read(&path).map_err(MetricsError::io(&path, "read"))?;
        let lines = lines(&path, &bytes)?;
        let kept = lines.iter().take_while(|line| line.metrics.step() < first_step).last();
        let end = kept.map_or(0, |line| line.end);
        let mut log = Self { file, path, length: end as u64, last: kept.map(|line| line.metrics.step()) };
        log.cut()?;
        if bytes.get(..end).is_some_and(|kept| !kept.is_empty() && !kept.ends_with(b"\n")) {
            log.write(b"\n")?;
        }
        Ok(log)
    }

    /// Goes on with the metrics of a run whose step has another line than before: it takes the place of that one and of all
    /// that follow. Written beside the file and moved there once it is on the disk: a run that is killed, or a full disk,
    /// leaves the line before.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Line`] for a file that is damaged, [`MetricsError::Io`].
    pub fn restate(folder: &Path, metrics: &StepMetrics) -> Result<Self, MetricsError> {
        let path = folder.join(METRICS_FILE);
        let beside = path.with_extension("writing");
        let bytes = std::fs::read(&path).map_err(MetricsError::io(&path, "read"))?;
        let known = lines(&path, &bytes)?;
        let end =
            known.iter().take_while(|line| line.metrics.step() < metrics.step()).last().map_or(0, |line| line.end);
        let mut text = bytes.get(..end).unwrap_or_default().to_vec();
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        let line = serde_json::to_writer(&mut text, metrics).map_err(std::io::Error::from);
        text.push(b'\n');
        line.and_then(|()| files::write(&beside, &text)).map_err(MetricsError::io(&beside, "written"))?;
        files::rename(&beside, &path).map_err(MetricsError::io(&path, "replaced"))?;
        Self::resume(folder, metrics.step().saturating_add(1))
    }

    /// Adds a step: one write, handed to the operating system when this returns.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Order`] for a step that is not after the last one; [`MetricsError::Io`], for example on a full
    /// disk, after which the file still ends in a whole line.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<(), MetricsError> {
        if let Some(last) = self.last.filter(|last| metrics.step() <= *last) {
            return Err(MetricsError::Order { path: self.path.clone(), step: metrics.step(), last });
        }
        let line = serde_json::to_string(metrics).map_err(std::io::Error::from);
        let line = line.map_err(MetricsError::io(&self.path, "written"))? + "\n";
        self.write(line.as_bytes())?;
        self.last = Some(metrics.step());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), MetricsError> {
        if let Err(error) = self.file.write_all(bytes) {
            // The first error is the one to report, whatever the cut says.
            let _ = self.cut();
            return Err(MetricsError::io(&self.path, "written")(error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Back to the end of the last whole line.
    fn cut(&mut self) -> Result<(), MetricsError> {
        let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        cut.map(|_| ()).map_err(MetricsError::io(&self.path, "shortened"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::{History, Metric};

    fn step(step: u64) -> StepMetrics {
        let mut metrics = StepMetrics::new(step, step as f64 * 0.5).unwrap();
        metrics.set(Metric::RewardMean, 1.0 / (step as f64 + 3.0)).unwrap();
        metrics
    }

    fn steps(folder: &Path) -> Vec<u64> {
        let history = History::read(&folder.join(METRICS_FILE)).unwrap();
        history.steps.iter().map(StepMetrics::step).collect()
    }

    #[test]
    fn what_was_written_is_read_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::resume(folder.path(), 0).unwrap();
        let written: Vec<StepMetrics> = (0..20).map(step).collect();
        for metrics in &written {
            log.append(metrics).unwrap();
        }
        assert_eq!(History::read(&folder.path().join(METRICS_FILE)).unwrap().steps, written);
    }

    #[test]
    fn a_resume_cuts_the_steps_that_will_be_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::resume(folder.path(), 0).unwrap();
        (0..5).for_each(|index| log.append(&step(index)).unwrap());
        drop(log);
        let mut log = MetricsLog::resume(folder.path(), 3).unwrap();
        assert_eq!(steps(folder.path()), [0, 1, 2]);
        log.append(&step(3)).unwrap();
        assert_eq!(steps(folder.path()), [0, 1, 2, 3]);
        assert!(matches!(log.append(&step(3)), Err(MetricsError::Order { step: 3, last: 3, .. })));
        // Nothing at or after the step: nothing is cut. Nothing before it: everything is.
        MetricsLog::resume(folder.path(), 9).unwrap();
        assert_eq!(steps(folder.path()), [0, 1, 2, 3]);
        MetricsLog::resume(folder.path(), 0).unwrap();
        assert!(steps(folder.path()).is_empty());
    }

    #[test]
    fn a_line_that_is_restated_is_there_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::resume(folder.path(), 0).unwrap();
        (0..4).for_each(|index| log.append(&step(index)).unwrap());
        drop(log);
        let path = folder.path().join(METRICS_FILE);
        let before = std::fs::read(&path).unwrap();
        let mut other = step(2);
        other.set(Metric::EvalExactMatch, 0.5).unwrap();
        // What cannot be written beside it leaves the file as it is.
        let beside = path.with_extension("writing");
        std::fs::create_dir(&beside).unwrap();
        assert!(matches!(MetricsLog::restate(folder.path(), &other), Err(MetricsError::Io { action: "written", .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_dir(&beside).unwrap();
        MetricsLog::restate(folder.path(), &other).unwrap().append(&step(3)).unwrap();
        assert_eq!(History::read(&path).unwrap().steps, [step(0), step(1), other, step(3)]);
        assert!(!beside.exists());
    }

    #[test]
    fn a_resume_repairs_the_last_line() {
        for (tail, kept) in [("{\"step\":1,\"ti", vec![0]), ("{\"step\":1,\"time_s\":2}", vec![0, 1])] {
            let folder = tempfile::tempdir().unwrap();
            let text = format!("{{\"step\":0,\"time_s\":1}}\n{tail}");
            std::fs::write(folder.path().join(METRICS_FILE), text).unwrap();
            let mut log = MetricsLog::resume(folder.path(), 2).unwrap();
            log.append(&step(2)).unwrap();
            assert_eq!(steps(folder.path()), [kept, vec![2]].concat());
        }
    }

    /// One that was killed before its first step has no file yet.
    #[test]
    fn a_run_without_metrics_resumes() {
        let fresh = tempfile::tempdir().unwrap();
        MetricsLog::resume(fresh.path(), 0).unwrap().append(&step(0)).unwrap();
        assert_eq!(steps(fresh.path()), [0]);
    }
}
