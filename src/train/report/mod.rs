//! `gradus report`: curves and tables of finished and running trainings.
//!
//! In: folders of runs (`run.json`, `metrics.jsonl`). Out: pictures (SVG, PNG) and a Markdown page. Knows what metrics
//! are called, but no algorithm; draws what there is and says what it left out.
//!
//! ```text
//! folders -> [Run] -> [Group] -> Curve -> Chart -> Picture
//!                             -> tables -> Markdown
//! ```

mod chart;
mod curve;
mod draw;
mod error;
mod font;
mod group;
mod measure;
mod options;
mod page;
mod picture;
mod run;
mod statistics;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use self::error::ReportError;
pub use self::options::{GroupBy, ReportOptions, XAxis};
pub use self::picture::Picture;

use self::chart::Chart;
use self::group::Group;
use self::run::Run;
use super::metrics::{Metric, MetricsError};

/// The name of the page among the report's files.
pub const REPORT_FILE: &str = "report.md";

/// A report, ready to be written.
#[derive(Debug)]
pub struct Report {
    /// The page, which shows the pictures by their file names.
    pub markdown: String,
    /// A picture for each metric that was asked for and that a run has.
    pub pictures: Vec<Picture>,
    /// Why runs were left out; each names its path.
    pub left_out: Vec<ReportError>,
    /// What a reader should know about the runs, such as that one ended early.
    pub remarks: Vec<String>,
}

/// Makes the report of the runs at these paths: each is a run's folder, or a folder of such.
///
/// # Errors
///
/// [`ReportError::Nothing`] if no run can be read, [`ReportError::Baseline`] and [`ReportError::Threshold`] for options
/// that cannot be, [`ReportError::Draw`]. A run that cannot be read is no error while others can: see
/// [`Report::left_out`].
pub fn report(paths: &[PathBuf], options: &ReportOptions) -> Result<Report, ReportError> {
    if let Some(threshold) = options.threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        return Err(ReportError::Threshold(threshold));
    }
    let (runs, left_out) = run::read_runs(paths);
    if runs.is_empty() {
        let why: Vec<String> = left_out.iter().map(ToString::to_string).collect();
        return Err(ReportError::Nothing(why.join("\n")));
    }
    let unknown = unknown_metrics(&runs);
    let groups = group::group(runs, options.group_by);
    check_baseline(&groups, options)?;
    let mut remarks = group::remarks(&groups);
    remarks.extend(unknown);
    let mut pictures = Vec::new();
    for metric in &options.metrics {
        let curves: Vec<_> = (groups.iter().enumerate())
            .filter_map(|(index, group)| curve::curve(group, index, metric, options.x))
            .collect();
        remarks.extend(lacking(metric, &groups, options.x));
        if !curves.is_empty() {
            pictures.push(Picture::of(&Chart::new(metric, options.x, curves))?);
        }
    }
    let markdown = page::page(&groups, options, &pictures, (&left_out, &remarks));
    Ok(Report { markdown, pictures, left_out, remarks })
}

impl Report {
    /// Writes the page and the pictures into this folder, which is made if it is missing. Returns the files.
    ///
    /// # Errors
    ///
    /// [`ReportError::Metrics`].
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
        std::fs::create_dir_all(folder).map_err(MetricsError::io(folder, "created"))?;
        let page = [(REPORT_FILE.to_owned(), self.markdown.as_bytes())];
        let pictures = self.pictures.iter().flat_map(|picture| {
            let name = |ending| format!("{}.{ending}", picture.file_stem);
            [(name("svg"), picture.svg.as_bytes()), (name("png"), picture.png.as_slice())]
        });
        let mut written = Vec::new();
        for (name, bytes) in page.into_iter().chain(pictures) {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(MetricsError::io(&path, "written"))?;
            written.push(path);
        }
        Ok(written)
    }
}

fn check_baseline(groups: &[Group], options: &ReportOptions) -> Result<(), ReportError> {
    match &options.baseline {
        Some(name) if groups.iter().all(|group| group.name != *name) => {
            let known: Vec<String> = groups.iter().map(|group| format!("{:?}", group.name)).collect();
            Err(ReportError::Baseline { name: name.clone(), known: known.join(", ") })
        }
        _ => Ok(()),
    }
}

/// One remark for a metric that runs lack.
fn lacking(metric: &Metric, groups: &[Group], x: XAxis) -> Option<String> {
    let lacks = |run: &&Run| run.points(metric, x).is_empty();
    let all = groups.iter().flat_map(Group::runs).count();
    let without: Vec<String> =
        (groups.iter().flat_map(Group::runs)).filter(lacks).map(|run| run.folder.display().to_string()).collect();
    let of = if x == XAxis::Tokens { format!("{metric} over rollout/tokens") } else { metric.to_string() };
    match without.len() {
        0 => None,
        n if n == all => Some(format!("{of} was measured in no run: no picture of it is drawn")),
        _ => Some(format!("{of} was not measured in {}", without.join(", "))),
    }
}

/// One remark for each run with metrics that this version does not know.
fn unknown_metrics(runs: &[Run]) -> Vec<String> {
    let names = |run: &Run| run.history.unknown.iter().cloned().collect::<Vec<_>>().join(", ");
    let with = runs.iter().filter(|run| !run.history.unknown.is_empty());
    with.map(|run| {
        format!("{}: left out metrics that this version does not know: {}", run.folder.display(), names(run))
    })
    .collect()
}
