//! The program's log. In: a filter and a format; out: lines on standard error. A server's lines are written by a thread of
//! their own: where nobody reads them, as of a pipe that a launcher forgot, they are lost, and not the server.

use std::io::stderr;
use std::sync::Mutex;

use anyhow::Context;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::paint::Paint;
use crate::config::LogFormat;
use crate::locks;

/// Lines that wait to be written; more are lost.
const WAITING_LINES: usize = 1 << 14;

/// What ends the thread that writes, and tells how many lines were lost.
static WRITER: Mutex<Option<(WorkerGuard, ErrorCounter)>> = Mutex::new(None);

/// Starts the log; `apart` says that whoever logs must never wait for whoever reads it.
pub(super) fn start(filter: &str, format: LogFormat, apart: bool) -> anyhow::Result<()> {
    // A word that is no level would be taken for the name of a part, and everything else go silent.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let level = |word: &str| levels.iter().any(|level| word.eq_ignore_ascii_case(level));
    let known = |part: &str| level(part) || part.contains(['=', '[', ':']) || part.starts_with("gradus");
    // Which of the three said it is not known here.
    let from = "--log, GRADUS_LOG or `log` in the configuration file";
    let help = || {
        format!("the log ({from}): {filter:?} is no filter; use one of {levels:?}, or a filter such as gradus=debug")
    };
    anyhow::ensure!(filter.split(',').all(|part| known(part.trim())), help());
    let filter = EnvFilter::try_new(filter).with_context(help)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(if apart { writer() } else { BoxMakeWriter::new(stderr) })
        // A line that cannot be written would be told of on the same stream, by a panic where that fails, too.
        .log_internal_errors(false)
        .with_ansi(Paint::colours_stderr());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Hands lines to a thread that writes them.
fn writer() -> BoxMakeWriter {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES);
    let (lines, guard) = builder.thread_name("log").finish(stderr());
    let lost = lines.error_counter();
    *locks::lock(&WRITER) = Some((guard, lost));
    BoxMakeWriter::new(lines)
}

/// Waits until what was logged is written, for a second at most. To be called before the program ends.
pub(super) fn end() {
    let writer = locks::lock(&WRITER).take();
    if let Some((guard, lost)) = writer {
        let lines = lost.dropped_lines();
        if lines > 0 {
            tracing::warn!(lines, "lines of the log were lost: nobody read them fast enough");
        }
        drop(guard);
    }
}
