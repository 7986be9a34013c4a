//! One file's bytes, from a server onto the disk. In: an address and a size. Out: a whole file, or how far it came.
//!
//! The file grows under another name and gets its own when it is whole, so that nobody ever sees a half one. What a broken
//! connection left is gone on with, by the next attempt or the next process.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};

/// Attempts in a row that bring nothing.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// What is to be brought where.
pub(super) struct Transfer<'t> {
    pub(super) client: &'t Client,
    pub(super) url: String,
    /// In bytes.
    pub(super) size: u64,
    /// Where the file grows.
    pub(super) growing: &'t Path,
}

/// Why a file did not become whole.
pub(super) enum Stopped {
    /// The disk.
    Disk(Error),
    /// The server or the way to it.
    CutOff {
        /// Bytes that came.
        got: u64,
        /// What the last attempt ended with.
        reason: String,
    },
}

/// Why an attempt ended early.
struct Interrupted {
    reason: String,
    /// Whether another one is of no use.
    is_final: bool,
}

impl Interrupted {
    fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_final: false }
    }
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self { reason: error.to_string(), is_final: true }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Disk(error)
    }
}

impl Transfer<'_> {
    /// Brings the file, unless another process does so meanwhile; `place` is where it will stand.
    pub(super) async fn run(&self, place: &Path, retry_delay: Duration) -> Result<(), Stopped> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.growing)?;
        // Another process that fetches the same file is waited for.
        match file.lock() {
            // Some network file systems have no locks.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            locked => locked?,
        }
        if place.is_file() {
            return Ok(());
        }
        let mut idle = 0;
        let mut got = file.metadata()?.len();
        while got != self.size {
            let before = got;
            let attempt = self.attempt(&mut file).await;
            got = file.metadata()?.len();
            let Err(Interrupted { reason, is_final }) = attempt else { continue };
            idle = if got > before { 0 } else { idle + 1 };
            if is_final || idle == MAX_ATTEMPTS {
                return Err(Stopped::CutOff { got, reason });
            }
            tokio::time::sleep(retry_delay).await;
        }
        file.sync_all()?;
        Ok(std::fs::rename(self.growing, place)?)
    }

    /// Adds to a file what it lacks, as far as the connection goes.
    async fn attempt(&self, file: &mut File) -> Result<(), Interrupted> {
        let mut got = file.seek(SeekFrom::End(0))?;
        if got > self.size {
            file.set_len(0)?;
            got = 0;
        }
        let mut request = self.client.get(&self.url);
        if got > 0 {
            request = request.header(RANGE, format!("bytes={got}-"));
        }
        let mut response = request.send().await.map_err(|error| Interrupted::passing(explain(error)))?;
        let status = response.status();
        let range = header(&response, CONTENT_RANGE.as_str()).unwrap_or_default();
        match status {
            StatusCode::PARTIAL_CONTENT if range.starts_with(&format!("bytes {got}-")) => {}
            StatusCode::OK => {
                file.set_len(0)?;
                got = 0;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                file.set_len(0)?;
                return Err(Interrupted::passing("the hub sent another part than it was asked for"));
            }
            _ => {
                let reason = format!("the hub answers {status}");
                return Err(Interrupted { reason, is_final: !is_passing(status) });
            }
        }
        while let Some(piece) = response.chunk().await.map_err(|error| Interrupted::passing(explain(error)))? {
            got += piece.len() as u64;
            if got > self.size {
                file.set_len(0)?;
                return Err(Interrupted::passing("more bytes came than there should be"));
            }
            file.write_all(&piece)?;
        }
        if got == self.size { Ok(()) } else { Err(Interrupted::passing("the connection was closed")) }
    }
}

/// A header's text.
pub(super) fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// Whether the same request may do better later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// An error with what is behind it, without the address, which may carry a signature.
pub(super) fn explain(error: reqwest::Error) -> String {
    use std::error::Error as _;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        text = format!("{text}: {source}");
        behind = source.source();
    }
    text
}
