//! `gradus score`: trajectories from a file or standard input, results to a file, a summary to the terminal.

use std::fs::File as FsFile;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use super::paint::printable;
use super::replay;
use super::say_text;
use super::summary::Summary;
use crate::config::{File, Scoring, ScoringFlags, StoreFlags};
use tokio::runtime::Runtime;

use crate::http::batch::{Engine, Overrides, Scored};

/// Lines that are scored together.
const CHUNK_LINES: usize = 512;
/// Bytes of lines that are scored together.
const CHUNK_BYTES: usize = 32 << 20;

/// Score a file of trajectories, or a stored run again.
///
/// Each line is a trajectory, or a whole request body with `trajectories`, which may bring its rubric and its curriculum
/// position along; a `.json` file is one of either, not a list. A line that is neither has a result too, which says so. Nothing
/// is stored. The exit code is 1 where a trajectory could not be scored or a replay differs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Trajectories: a .jsonl or .json file, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "replay", conflicts_with = "replay")]
    file: Option<PathBuf>,
    /// Rubric: a name, name@version, or a rubric file [default: --default-rubric]
    #[arg(long, short, value_name = "RUBRIC", conflicts_with = "replay")]
    rubric: Option<String>,
    /// Curriculum step to score at
    #[arg(long, value_name = "N", conflicts_with = "replay")]
    step: Option<u64>,
    /// Write one result per line to this file; - is standard output
    #[arg(long, short, value_name = "FILE", conflicts_with = "replay")]
    out: Option<PathBuf>,
    /// Score the stored requests of this run again and report every difference
    #[arg(long, value_name = "RUN")]
    replay: Option<String>,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    scoring: ScoringFlags,
}

pub(super) fn run(args: Args, file: &File) -> anyhow::Result<ExitCode> {
    let scoring = Scoring::compose(args.scoring.clone(), None, file)?;
    if let Some(run) = &args.replay {
        return replay::run(&scoring, run, args.store, file);
    }
    let mut engine = super::engine(&scoring, None)?;
    if let Some(rubric) = &args.rubric {
        engine.default_rubric = super::named_or_file(&engine.catalog, rubric)?;
    }
    let path = args.file.context("no FILE was given")?;
    let mut job = Job {
        engine,
        runtime: super::runtime()?,
        out: output(args.out.as_deref())?,
        summary: Summary::default(),
        step: args.step,
        progress: progress(&path)?,
        broken: 0,
    };
    job.score_all(&path)?;
    job.progress.finish_and_clear();
    if let Some(out) = &mut job.out {
        out.flush()?;
    }
    let text = job.summary.text();
    if args.out.is_some_and(|out| out == Path::new("-")) {
        eprint!("{text}");
    } else {
        say_text(&text);
    }
    let clean = job.summary.invalid() == 0 && job.broken == 0;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn output(path: Option<&Path>) -> anyhow::Result<Option<Box<dyn Write>>> {
    Ok(match path {
        None => None,
        Some(path) if path == Path::new("-") => Some(Box::new(BufWriter::new(std::io::stdout()))),
        Some(path) => {
            let file = FsFile::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Some(Box::new(BufWriter::new(file)))
        }
    })
}

fn progress(path: &Path) -> anyhow::Result<ProgressBar> {
    let size = std::fs::metadata(path).map_or(0, |data| data.len());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?;
    Ok(if size > 0 { ProgressBar::new(size).with_style(style) } else { ProgressBar::hidden() })
}

struct Job {
    engine: Engine,
    runtime: Runtime,
    out: Option<Box<dyn Write>>,
    summary: Summary,
    step: Option<u64>,
    progress: ProgressBar,
    /// Lines that are no JSON, and requests that were refused.
    broken: usize,
}

impl Job {
    fn score_all(&mut self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display().to_string();
        let open = || FsFile::open(path).with_context(|| format!("cannot read {shown}"));
        if path.extension().is_some_and(|extension| extension == "json") {
            let mut text = String::new();
            open()?.read_to_string(&mut text).with_context(|| format!("cannot read {shown}"))?;
            return self.document(&text, &shown);
        }
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            Box::new(BufReader::new(open()?))
        };
        self.lines(reader, &shown)
    }

    /// A whole file: one trajectory or one request.
    fn document(&mut self, text: &str, shown: &str) -> anyhow::Result<()> {
        if let Err(error) = serde_json::from_str::<&RawValue>(text) {
            bail!("{shown}: {error}");
        }
        let chunk = Chunk { items: vec![text.to_owned()], lines: vec![Some(1)] };
        if is_request(text) { self.request(text, shown, &[]) } else { self.chunk(&chunk, shown) }
    }

    fn lines(&mut self, mut reader: Box<dyn BufRead>, shown: &str) -> anyhow::Result<()> {
        let (mut chunk, mut bytes, mut number) = (Chunk::default(), 0, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).with_context(|| format!("cannot read {shown}"))?;
            number += usize::from(read > 0);
            self.progress.inc(read as u64);
            let Ok(text) = std::str::from_utf8(&line) else {
                self.complain(&format!("{shown}, line {number}: not UTF-8"));
                chunk.push_unreadable();
                continue;
            };
            // Some editors start a file with a byte order mark.
            let text = text.trim_start_matches('\u{FEFF}').trim();
            let request = text.contains("\"trajectories\"") && is_request(text);
            if read == 0 || request || chunk.items.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES {
                self.chunk(&std::mem::take(&mut chunk), shown)?;
                bytes = 0;
            }
            match text {
                _ if read == 0 => return Ok(()),
                "" => {}
                _ if request => self.request(text, &format!("{shown}, line {number}"), &[])?,
                _ => {
                    if let Err(error) = serde_json::from_str::<&RawValue>(text) {
                        self.complain(&format!("{shown}, line {number}: not JSON: {error}"));
                        chunk.push_unreadable();
                        continue;
                    }
                    bytes += text.len();
                    chunk.items.push(text.to_owned());
                    chunk.lines.push(Some(number));
                }
            }
        }
    }

    /// Trajectories as one request with the default rubric.
    fn chunk(&mut self, chunk: &Chunk, shown: &str) -> anyhow::Result<()> {
        if chunk.items.is_empty() {
            return Ok(());
        }
        let step = self.step.map_or_else(String::new, |step| format!("\"step\":{step},"));
        let body = format!("{{{step}\"trajectories\":[{}]}}", chunk.items.join(","));
        self.request(&body, shown, &chunk.lines)
    }

    /// Scores a request; `lines` are the lines of its items, where each has one that was not complained of.
    fn request(&mut self, body: &str, shown: &str, lines: &[Option<usize>]) -> anyhow::Result<()> {
        match self.runtime.block_on(self.engine.score_and_ask(body, &Overrides::default())) {
            Ok(scored) => self.record(&scored, shown, lines),
            Err(error) => {
                self.complain(&format!("{shown}: {}", super::said(error)));
                Ok(())
            }
        }
    }

    fn complain(&mut self, what: &str) {
        self.broken += 1;
        self.progress.suspend(|| eprintln!("{}", printable(what)));
    }

    fn record(&mut self, scored: &Scored, shown: &str, lines: &[Option<usize>]) -> anyhow::Result<()> {
        self.summary.add(scored);
        for (index, row) in scored.rows.iter().enumerate().filter(|(_, row)| !row.valid) {
            let place = match lines.get(index) {
                None => format!("{shown}, trajectory {index}"),
                Some(Some(line)) => format!("{shown}, line {line}"),
                Some(None) => continue,
            };
            let why = why_invalid(scored.body.get(row.result.clone()).unwrap_or_default());
            self.progress.suspend(|| eprintln!("{}", printable(&format!("{place}: {why}"))));
        }
        if let Some(out) = &mut self.out {
            for row in &scored.rows {
                out.write_all(scored.body.get(row.result.clone()).unwrap_or_default())?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }
}

/// Trajectories that are scored together, and the lines they came from.
#[derive(Debug, Default)]
struct Chunk {
    items: Vec<String>,
    /// Nothing for a line that was complained of.
    lines: Vec<Option<usize>>,
}

impl Chunk {
    /// A line that cannot even stand in a request: its result is that of an item that is none, so that there is one for each.
    fn push_unreadable(&mut self) {
        self.items.push("null".to_owned());
        self.lines.push(None);
    }
}

/// The first error of a result.
fn why_invalid(result: &[u8]) -> String {
    let result: serde_json::Value = serde_json::from_slice(result).unwrap_or_default();
    let error = &result["errors"][0];
    let field = error["pointer"].as_str().unwrap_or_default().splitn(4, '/').nth(3).unwrap_or_default();
    format!(
        "{}: {} {}",
        error["code"].as_str().unwrap_or_default(),
        field,
        error["message"].as_str().unwrap_or_default()
    )
}

/// Whether an object is a request rather than a trajectory.
fn is_request(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        #[allow(dead_code, reason = "only its presence counts")]
        trajectories: &'a RawValue,
    }
    serde_json::from_str::<Probe<'_>>(text).is_ok()
}
