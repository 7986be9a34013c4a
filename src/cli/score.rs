//! `gradus score`: trajectories from a file or standard input, results to a file, a summary to the terminal.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File as FsFile;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use super::judges::LazyJudges;
use super::paint::printable_line;
use super::replay;
use super::score_options as options;
pub(super) use super::score_options::Args;
use super::score_output::Output;
use super::summary::Summary;
use super::{note_text, say_text};
use crate::config::{File, Scoring};
use tokio::runtime::Runtime;

use crate::http::batch::{BatchError, Engine, MAX_WARNINGS, Overrides, Scored, Stop, Warning};
use crate::http::wire::{MAX_TRAJECTORIES, read_names};
use crate::judge::Session;
use crate::rubric::Rubric;
use crate::stages::NoScoreCode;

/// Lines that are scored together.
const CHUNK_LINES: usize = 512;
/// Bytes of lines that are scored together.
const CHUNK_BYTES: usize = 32 << 20;

pub(super) fn run(args: Args, file: &File) -> anyhow::Result<ExitCode> {
    let scoring = Scoring::compose(args.scoring, file)?;
    let (path, rubric, step, out) = match args.input {
        options::Input::Replay(run) => return replay::run(&scoring, &run, args.store, file),
        options::Input::File { file, rubric, step, out } => (file, rubric, step, out),
    };
    let input = Input::open(&path)?;
    let engine = super::engine(&scoring)?;
    let rubric = rubric.map(|rubric| super::named_or_file(&engine.catalog, &rubric)).transpose()?;
    let usual = rubric.clone().or_else(|| engine.catalog.get(&engine.default_rubric));
    let ranks = usual.as_ref().is_some_and(|rubric| rubric.ranks());
    let judges = LazyJudges::new(&scoring, None);
    // Those of the rubrics that requests name are opened as these come.
    if usual.is_some_and(|rubric| rubric.judges().next().is_some()) {
        judges.get()?;
    }
    let mut job = Job {
        engine,
        judges,
        runtime: super::runtime()?,
        // After all that can fail without it: it leaves a file.
        out: out.as_deref().map(|out| Output::open(out, &path)).transpose()?,
        summary: Summary::default(),
        rubric,
        step,
        earlier: ranks.then(HashSet::new),
        progress: progress(&path)?,
        broken: 0,
        warnings: Vec::new(),
    };
    let scored = job.score_all(input, &path.display().to_string());
    job.progress.finish_and_clear();
    if scored.is_ok() && job.summary.is_empty() && job.broken == 0 {
        note!("{}: there is no trajectory in it", path.display());
    }
    let ended = match job.out.take() {
        Some(out) => out.finish(scored),
        None => scored,
    };
    job.sum_up(out.is_some_and(|out| out == Path::new("-")));
    ended?;
    let clean = job.summary.invalid() == 0 && job.broken == 0;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is scored, opened.
enum Input {
    /// One trajectory or one request.
    Document(String),
    /// One of either on each line.
    Lines(Box<dyn BufRead>),
}

impl Input {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        if path == Path::new("-") {
            return unpacked(std::io::stdin()).with_context(cannot).map(Self::Lines);
        }
        let mut file = FsFile::open(path).and_then(unpacked).with_context(cannot)?;
        if !is_json(path) {
            return Ok(Self::Lines(file));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(cannot)?;
        serde_json::from_str::<&RawValue>(without_mark(&text)).with_context(|| path.display().to_string())?;
        Ok(Self::Document(text))
    }
}

/// Whether a name is that of one JSON text, packed or not.
fn is_json(path: &Path) -> bool {
    let ends =
        |path: &Path, endings: &[&str]| path.extension().is_some_and(|found| endings.iter().any(|end| found == *end));
    ends(path, &["json"]) || ends(path, &["gz", "zst"]) && ends(&path.with_extension(""), &["json"])
}

/// What is in a file that may be packed by gzip or zstd, whatever its name says.
fn unpacked(file: impl Read + 'static) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::new(file);
    Ok(match file.fill_buf()? {
        [0x1F, 0x8B, ..] => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Box::new(BufReader::new(zstd::Decoder::with_buffer(file)?)),
        _ => Box::new(file),
    })
}

fn progress(path: &Path) -> anyhow::Result<ProgressBar> {
    let size = std::fs::metadata(path).map_or(0, |data| data.len());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?;
    Ok(if size > 0 { ProgressBar::new(size).with_style(style) } else { ProgressBar::hidden() })
}

struct Job {
    engine: Engine,
    judges: LazyJudges,
    runtime: Runtime,
    out: Option<Output>,
    summary: Summary,
    /// Instead of those that requests name.
    rubric: Option<Arc<Rubric>>,
    step: Option<u64>,
    /// The groups of lines that were scored before, where a rubric puts the answers of a group in order.
    earlier: Option<HashSet<String>>,
    progress: ProgressBar,
    /// Lines that are no JSON, and requests that were refused.
    broken: usize,
    /// What was odd, and where first.
    warnings: Vec<(Warning, String)>,
}

impl Job {
    fn score_all(&mut self, input: Input, shown: &str) -> anyhow::Result<()> {
        match input {
            Input::Document(text) => self.document(without_mark(&text), shown),
            Input::Lines(reader) => self.lines(reader, shown),
        }
    }

    /// A whole file: one trajectory or one request.
    fn document(&mut self, text: &str, shown: &str) -> anyhow::Result<()> {
        if is_request(text) {
            return self.request(text, shown, &[]);
        }
        let mut chunk = Chunk::default();
        chunk.push(text, 1, None);
        self.chunk(&chunk, shown)
    }

    fn lines(&mut self, mut reader: Box<dyn BufRead>, shown: &str) -> anyhow::Result<()> {
        let (mut chunk, mut bytes, mut number) = (Chunk::default(), 0, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = match reader.read_until(b'\n', &mut line) {
                Ok(read) => read,
                Err(error) => {
                    // What was read before is whole, and has its results.
                    self.chunk(&chunk, shown)?;
                    return Err(error).with_context(|| format!("cannot read {shown}"));
                }
            };
            number += usize::from(read > 0);
            self.progress.inc(read as u64);
            let text = std::str::from_utf8(&line).map(|text| without_mark(text).trim());
            let request = text.is_ok_and(|text| text.contains("\"trajectories\"") && is_request(text));
            let group = self.earlier.as_ref().and_then(|_| read_names(text.unwrap_or_default()).1.map(Cow::into_owned));
            // A group that goes on is not torn apart.
            let goes_on = group.is_some() && group == chunk.group && chunk.items.len() < MAX_TRAJECTORIES;
            let full = (chunk.items.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES) && !goes_on;
            if read == 0 || request || full {
                self.chunk(&std::mem::take(&mut chunk), shown)?;
                bytes = 0;
            }
            if read == 0 || self.out.as_ref().is_some_and(Output::is_closed) {
                return Ok(());
            }
            if let (Some(group), Some(earlier)) = (&group, &self.earlier)
                && earlier.contains(group)
            {
                self.complain(&format!(
                    "{shown}, line {number}: the group {group:?} has members too far before this line to be put in order \
                     with it; bring the lines of a group together"
                ));
            }
            match text {
                Ok("") => {}
                Ok(text) if request => self.request(text, &format!("{shown}, line {number}"), &[])?,
                Ok(text) => match serde_json::from_str::<&RawValue>(text) {
                    Ok(_) => {
                        bytes += text.len();
                        chunk.push(text, number, group);
                    }
                    Err(error) => {
                        self.complain(&format!("{shown}, line {number}: not JSON: {error}"));
                        chunk.push_unreadable();
                    }
                },
                Err(_) => {
                    self.complain(&format!("{shown}, line {number}: not UTF-8"));
                    chunk.push_unreadable();
                }
            }
        }
    }

    /// Trajectories as one request.
    fn chunk(&mut self, chunk: &Chunk, shown: &str) -> anyhow::Result<()> {
        if chunk.items.is_empty() {
            return Ok(());
        }
        if let Some(earlier) = &mut self.earlier {
            earlier.extend(chunk.groups.iter().cloned());
        }
        let body = format!("{{\"trajectories\":[{}]}}", chunk.items.join(","));
        self.request(&body, shown, &chunk.lines)
    }

    /// Scores a request; `lines` are the lines of its items, where each has one that was not complained of.
    fn request(&mut self, body: &str, shown: &str, lines: &[Option<usize>]) -> anyhow::Result<()> {
        let overrides = Overrides { rubric: self.rubric.clone(), step: self.step, ..Overrides::default() };
        match self.runtime.block_on(self.judges.score(&self.engine, body, &overrides, None))? {
            Ok(scored) => self.record(&scored, shown, lines),
            Err(error) => {
                self.summary.refuse(&error);
                let code = match &error {
                    BatchError::Invalid { code, .. } => code,
                    _ => NoScoreCode::ItemMalformed.as_str(),
                };
                let why = super::said(error);
                self.complain(&format!("{shown}: {why}"));
                self.refused(code, &why)
            }
        }
    }

    /// The result of a request that was refused: that of an item that is none, but for the reason.
    fn refused(&mut self, code: &str, why: &str) -> anyhow::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let overrides = Overrides { rubric: self.rubric.clone(), ..Overrides::default() };
        // What is none asks no judge.
        let scored = self.engine.score("{\"trajectories\":[null]}", &overrides, &Stop::default(), &Session::default());
        let scored = scored.map_err(|error| anyhow::anyhow!(super::said(error)))?;
        for row in &scored.rows {
            let result = scored.body.get(row.result.clone()).unwrap_or_default();
            let mut result: serde_json::Value = serde_json::from_slice(result)?;
            for error in result["errors"].as_array_mut().into_iter().flatten() {
                error["code"] = code.into();
                error["message"] = why.into();
                // The line is the request: there is nothing above it.
                error["pointer"] = "".into();
            }
            out.write(std::iter::once(&*serde_json::to_vec(&result)?))?;
        }
        Ok(())
    }

    fn complain(&mut self, what: &str) {
        self.broken += 1;
        self.progress.suspend(|| note!("{}", printable_line(what)));
    }

    fn record(&mut self, scored: &Scored, shown: &str, lines: &[Option<usize>]) -> anyhow::Result<()> {
        self.summary.add(scored);
        let place = |index: usize| match lines.get(index) {
            None => Some(format!("{shown}, trajectory {index}")),
            Some(Some(line)) => Some(format!("{shown}, line {line}")),
            Some(None) => None,
        };
        for warning in &scored.warnings {
            if let Some((known, _)) = self.warnings.iter_mut().find(|(known, _)| known.text == warning.text) {
                known.add(warning.items.map_or(0, |(_, items)| items));
            } else if self.warnings.len() < MAX_WARNINGS {
                let place = warning.items.and_then(|(first, _)| place(first)).unwrap_or_else(|| shown.to_owned());
                self.warnings.push((warning.clone(), place));
            }
        }
        for (index, row) in scored.rows.iter().enumerate().filter(|(_, row)| !row.valid) {
            let Some(place) = place(index) else { continue };
            let why = why_invalid(scored.body.get(row.result.clone()).unwrap_or_default());
            self.progress.suspend(|| note!("{}", printable_line(&format!("{place}: {why}"))));
        }
        match &mut self.out {
            Some(out) => {
                out.write(scored.rows.iter().map(|row| scored.body.get(row.result.clone()).unwrap_or_default()))
            }
            None => Ok(()),
        }
    }

    /// What was odd, and the summary, to the terminal.
    fn sum_up(&self, results_are_printed: bool) {
        for (warning, place) in &self.warnings {
            note!("{}", printable_line(&warning.said_of(place)));
        }
        let text = self.summary.text();
        if results_are_printed { note_text(&text) } else { say_text(&text) }
    }
}

/// Trajectories that are scored together, and the lines they came from.
#[derive(Debug, Default)]
struct Chunk {
    items: Vec<String>,
    /// Nothing for a line that was complained of.
    lines: Vec<Option<usize>>,
    /// Their groups, where these are looked at.
    groups: HashSet<String>,
    /// The group of the last one.
    group: Option<String>,
}

impl Chunk {
    fn push(&mut self, text: &str, line: usize, group: Option<String>) {
        self.items.push(text.to_owned());
        self.lines.push(Some(line));
        self.groups.extend(group.clone());
        self.group = group;
    }

    /// A line that cannot even stand in a request: its result is that of an item that is none, so that there is one for each.
    fn push_unreadable(&mut self) {
        self.items.push("null".to_owned());
        self.lines.push(None);
    }
}

/// A text without the byte order mark that some editors start a file with.
pub(super) fn without_mark(text: &str) -> &str {
    text.trim_start_matches('\u{FEFF}')
}

/// The first error of a result.
fn why_invalid(result: &[u8]) -> String {
    let result: serde_json::Value = serde_json::from_slice(result).unwrap_or_default();
    let error = &result["errors"][0];
    let field = in_item(error["pointer"].as_str().unwrap_or_default());
    let (code, message) = (error["code"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default());
    if field.is_empty() { format!("{code}: {message}") } else { format!("{code}: {field}: {message}") }
}

/// A pointer into a request as one into its trajectory; whole where it points to what all of them share.
fn in_item(pointer: &str) -> &str {
    let of_item =
        pointer.strip_prefix("/trajectories/").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    of_item.filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(pointer)
}

/// Whether an object is a request rather than a trajectory.
pub(super) fn is_request(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        #[allow(dead_code, reason = "only its presence counts")]
        trajectories: &'a RawValue,
    }
    serde_json::from_str::<Probe<'_>>(text).is_ok()
}
