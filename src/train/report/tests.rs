//! Reports of small made-up runs, from folders to files.

use std::path::{Path, PathBuf};

use super::curve::{Band, Curve, curve};
use super::group::{Group, group};
use super::measure::Measure;
use super::run::{Run, read_runs};
use super::*;
use crate::train::metrics::{METRICS_FILE, Metric, MetricsLog, RUN_FILE, RunInfo, StepMetrics};

/// A run whose exact match rises from `start` by 0.01 a step, measured at every tenth of `steps`.
struct Made {
    group: &'static str,
    seed: u64,
    start: f64,
    steps: u64,
}

const MADE: Made = Made { group: "a", seed: 0, start: 0.2, steps: 20 };

impl Made {
    fn write(&self, folder: &Path) -> PathBuf {
        let folder = folder.join(format!("{}-{}", self.group, self.seed));
        std::fs::create_dir_all(&folder).unwrap();
        let info = RunInfo {
            name: format!("{}-{}", self.group, self.seed),
            group: self.group.to_owned(),
            algorithm: "grpo".to_owned(),
            reward: "binary".to_owned(),
            seed: self.seed,
            config_hash: self.group.to_owned(),
            threshold: Some(0.35),
        };
        info.write(&folder).unwrap();
        let mut log = MetricsLog::resume(&folder, 0).unwrap();
        for step in 0..=self.steps {
            let mut metrics = StepMetrics::new(step, step as f64 * (2.0 + self.seed as f64)).unwrap();
            if step % 10 == 0 {
                metrics.set(Metric::EvalExactMatch, self.start + 0.01 * step as f64).unwrap();
            }
            if step > 0 {
                metrics.set(Metric::GroupsZeroAdvantage, 0.5).unwrap();
                metrics.set(Metric::PolicyKl, 0.001 * step as f64).unwrap();
                metrics.set(Metric::RolloutTokens, 100.0).unwrap();
            }
            log.append(&metrics).unwrap();
        }
        folder
    }
}

/// Three seeds of two groups; `b` is 0.1, 0.1 and 0.13 above `a`.
fn two_groups(folder: &Path) {
    for (seed, start, ahead) in [(0, 0.20, 0.10), (1, 0.22, 0.10), (2, 0.15, 0.13)] {
        Made { seed, start, ..MADE }.write(folder);
        Made { seed, start: start + ahead, group: "b", ..MADE }.write(folder);
    }
}

fn read_groups(folder: &Path) -> Vec<Group> {
    let (runs, left_out) = read_runs(&[folder.to_owned()]);
    assert!(left_out.is_empty(), "{left_out:?}");
    group(runs, GroupBy::Group)
}

fn of_steps(folder: &Path) -> Curve {
    curve(&read_groups(folder)[0], 0, &Metric::EvalExactMatch, XAxis::Step).unwrap()
}

fn options(metrics: &[Metric]) -> ReportOptions {
    ReportOptions { metrics: metrics.to_vec(), ..ReportOptions::default() }
}

#[test]
fn measures_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::read(&MADE.write(folder.path())).unwrap();
    let of = |measure: Measure| measure.of(&run, None).map(|value| (value * 1e6).round() / 1e6);
    assert_eq!(of(Measure::Final), Some(0.4));
    assert_eq!(of(Measure::Best), Some(0.4));
    assert_eq!(of(Measure::Area), Some(0.3));
    assert_eq!(of(Measure::StepsToThreshold), Some(20.0));
    assert_eq!(Measure::StepsToThreshold.of(&run, Some(0.3)), Some(10.0));
    assert_eq!(Measure::StepsToThreshold.of(&run, Some(0.9)), None);
    assert_eq!(of(Measure::ZeroAdvantage), Some(0.5));
    assert_eq!(of(Measure::LargestKl), Some(0.02));
}

/// The differences are 0.10, 0.10 and 0.13: mean 0.11, standard deviation 0.017321, half-width 4.302653 * 0.01 =
/// 0.043027. The intervals of the groups themselves are wider, since seeds differ by more than groups do.
#[test]
fn the_tables_are_sorted_and_differences_are_paired() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let found = report(&[folder.path().to_owned()], &options(&[])).unwrap();
    let rows: Vec<&str> = found.markdown.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows[1].starts_with("| b | 3 | 0.500 ± 0.050 | 0.500 ± 0.050 | 0.400 ± 0.050 |"), "{}", rows[1]);
    assert!(rows[2].starts_with("| a | 3 | 0.390 ± 0.090 |"), "{}", rows[2]);
    assert!(rows[4].starts_with("| b - a | 3 | **+0.110 ± 0.043** |"), "{}", rows[4]);
    assert!(rows[4].contains("| +0.000 ± 0.000 |"), "no difference is no bold one: {}", rows[4]);
    assert!(found.markdown.contains("The threshold is 0.35."));
}

#[test]
fn a_threshold_that_some_miss_says_how_many_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let of = |threshold| {
        let options = ReportOptions { threshold: Some(threshold), ..options(&[]) };
        report(&[folder.path().to_owned()], &options).unwrap().markdown
    };
    assert!(of(0.41).contains("| 1 of 3: 20 (n/a) |"), "{}", of(0.41));
    assert!(of(0.9).contains("| 0 of 3 |"), "{}", of(0.9));
    let wrong = ReportOptions { threshold: Some(41.0), ..options(&[]) };
    assert!(matches!(report(&[folder.path().to_owned()], &wrong), Err(ReportError::Threshold(41.0))));
}

#[test]
fn one_seed_has_a_curve_without_band_and_a_mean_without_interval() {
    let folder = tempfile::tempdir().unwrap();
    MADE.write(folder.path());
    let curve = of_steps(folder.path());
    assert_eq!(curve.band, Band::None);
    assert!(curve.points.iter().all(|point| point.band.is_none() && point.n == 1));
    let found = report(&[folder.path().to_owned()], &options(&[])).unwrap();
    assert!(found.markdown.contains("| a | 1 | 0.400 (n/a) |"), "{}", found.markdown);
    assert!(!found.markdown.contains("## Differences"));
}

#[test]
fn two_seeds_have_a_band_from_least_to_largest() {
    let folder = tempfile::tempdir().unwrap();
    MADE.write(folder.path());
    Made { seed: 1, start: 0.3, ..MADE }.write(folder.path());
    let curve = of_steps(folder.path());
    assert_eq!(curve.band, Band::MinMax);
    assert_eq!(curve.points[0].band, Some((0.2, 0.3)));
    assert!((curve.points[0].mean - 0.25).abs() < 1e-12);
}

#[test]
fn a_curve_goes_on_with_the_seeds_that_are_left() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, steps) in [(0, 40), (1, 30), (2, 20)] {
        Made { seed, steps, ..MADE }.write(folder.path());
    }
    let curve = of_steps(folder.path());
    assert_eq!(curve.band, Band::Interval);
    let counts: Vec<(f64, usize)> = curve.points.iter().map(|point| (point.x, point.n)).collect();
    assert_eq!(counts, [(0.0, 3), (10.0, 3), (20.0, 3), (30.0, 2), (40.0, 1)]);
    assert!(curve.points.iter().all(|point| point.band.is_some() == (point.n == 3)));
    assert_eq!(curve.seeds(), (3, 1));
    let found = report(&[folder.path().to_owned()], &options(&[])).unwrap();
    assert!(found.remarks.iter().any(|remark| remark.ends_with("a-1: ends at step 30 of 40")), "{:?}", found.remarks);
}

/// Seed s needs 2 + s seconds a step, and all write 100 tokens a step.
#[test]
fn over_time_a_curve_ends_where_the_first_whole_run_does() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        Made { seed, ..MADE }.write(folder.path());
    }
    let groups = read_groups(folder.path());
    let ends = |x| {
        let curve = curve(&groups[0], 0, &Metric::EvalExactMatch, x).unwrap();
        assert!(curve.points.iter().all(|point| point.n == 3), "{x:?}");
        (curve.points[0].x, curve.points.last().unwrap().x)
    };
    assert_eq!(ends(XAxis::Seconds), (0.0, 40.0));
    assert_eq!(ends(XAxis::Tokens), (0.0, 2000.0));
}

#[test]
fn a_seed_counts_once_however_many_runs_it_has() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let (runs, _) = read_runs(&[folder.path().to_owned()]);
    let groups = group(runs, GroupBy::Algorithm);
    assert_eq!((groups.len(), groups[0].seeds.len(), groups[0].runs().count()), (1, 3, 6));
    let finals = groups[0].per_seed(|run| Measure::Final.of(run, None));
    assert!((finals[&0] - 0.45).abs() < 1e-12, "{finals:?}");
}

#[test]
fn what_keeps_a_run_out_names_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fine = MADE.write(folder.path());
    let no_description = Made { seed: 1, ..MADE }.write(folder.path());
    std::fs::remove_file(no_description.join(RUN_FILE)).unwrap();
    let empty = Made { seed: 2, ..MADE }.write(folder.path());
    std::fs::write(empty.join(METRICS_FILE), "").unwrap();
    let damaged = Made { seed: 3, ..MADE }.write(folder.path());
    std::fs::write(damaged.join(METRICS_FILE), "{}\n{}\n").unwrap();
    let paths = [fine, no_description, empty, damaged, at("missing")];
    let found = report(&paths, &options(&[])).unwrap();
    let said: Vec<String> = found.left_out.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4);
    for (said, (path, what)) in said.iter().zip([
        ("a-1", "holds no run.json"),
        ("a-2/metrics.jsonl", "holds no step yet"),
        ("a-3/metrics.jsonl", "line 1: \"step\" is missing"),
        ("missing", "cannot be read"),
    ]) {
        assert!(said.contains(&at(path).display().to_string()) && said.contains(what), "{said}");
    }
    assert!(found.markdown.contains("## Left out"));
    let nothing = report(&paths[1..], &options(&[])).unwrap_err();
    assert!(nothing.to_string().lines().count() == 5, "{nothing}");
}

#[test]
fn a_metric_that_runs_lack_is_said_and_not_drawn() {
    let folder = tempfile::tempdir().unwrap();
    MADE.write(folder.path());
    let found = report(&[folder.path().to_owned()], &options(&[Metric::ValueLoss])).unwrap();
    assert!(found.pictures.is_empty());
    assert_eq!(found.remarks, ["value/loss was measured in no run: no picture of it is drawn"]);
}

#[test]
fn a_baseline_has_to_exist() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let with = |name: &str| ReportOptions { baseline: Some(name.to_owned()), ..options(&[]) };
    let error = report(&[folder.path().to_owned()], &with("c")).unwrap_err();
    assert_eq!(error.to_string(), "there is no group \"c\" to compare with; there are \"a\", \"b\"");
    assert!(report(&[folder.path().to_owned()], &with("b")).unwrap().markdown.contains("| a - b |"));
}

#[test]
fn an_svg_is_xml_with_a_line_and_a_band_for_each_group() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    Made { group: "<c> & \u{1}\"d\"", ..MADE }.write(folder.path());
    let found = report(&[folder.path().to_owned()], &options(&[Metric::EvalExactMatch])).unwrap();
    let svg = &found.pictures[0].svg;
    let document = roxmltree::Document::parse(svg).unwrap();
    let nodes = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
    // A curve of three points each; leaders and samples have two. One seed has no band.
    let points = |node: roxmltree::Node<'_, '_>| node.attribute("points").unwrap().split_whitespace().count();
    assert_eq!(nodes("polyline").filter(|node| points(*node) == 3).count(), 3);
    assert_eq!(nodes("polygon").filter(|node| points(*node) == 6).count(), 2);
    let texts: Vec<&str> = nodes("text").filter_map(|node| node.text().map(str::trim)).collect();
    for text in ["eval/exact_match", "training step", "share", "a", "b", "<c> & \u{FFFD}\"d\""] {
        assert!(texts.contains(&text), "{text:?} is not among {texts:?}");
    }
    assert!(texts.contains(&"3 seeds; band: 95% interval") && texts.contains(&"1 seed; no band"), "{texts:?}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn a_png_shows_each_groups_colour() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let found = report(&[folder.path().to_owned()], &options(&[Metric::EvalExactMatch])).unwrap();
    let out = folder.path().join("out/report");
    let files: Vec<String> =
        found.write(&out).unwrap().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(files, ["report.md", "eval_exact_match.svg", "eval_exact_match.png"]);
    let file = std::io::BufReader::new(std::fs::File::open(out.join("eval_exact_match.png")).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert!(frame.width > 1200 && frame.height > 800, "{frame:?}");
    let count = |colour: [u8; 3]| pixels.chunks_exact(3).filter(|pixel| **pixel == colour).count();
    assert!(count([0, 114, 178]) > 1000 && count([213, 94, 0]) > 1000, "both groups' lines");
    assert!(count([255; 3]) * 2 > pixels.len() / 3, "and mostly white");
}

/// Values that a broken training can reach, and curves of one point.
#[test]
fn extreme_values_are_drawn_without_failing() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, values) in [(0, vec![1e300, -1e300]), (1, vec![f64::MAX, f64::MIN_POSITIVE]), (2, vec![7.0])] {
        let run = Made { seed, ..MADE }.write(folder.path());
        let line =
            |(step, value): (usize, &f64)| format!("{{\"step\":{step},\"time_s\":0,\"policy/loss\":{value:e}}}\n");
        std::fs::write(run.join(METRICS_FILE), values.iter().enumerate().map(line).collect::<String>()).unwrap();
    }
    for x in [XAxis::Step, XAxis::Seconds] {
        let options = ReportOptions { x, ..options(&[Metric::PolicyLoss]) };
        let found = report(&[folder.path().to_owned()], &options).unwrap();
        assert!(!found.pictures[0].svg.contains("NaN"), "{x:?}");
    }
}
