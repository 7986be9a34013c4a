//! What the server takes at once: bodies of a bounded size, a bounded number of bytes in flight, a bounded time.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::batch::{Counted, Due};
use super::buffer_pool::{BufferPool, Lease};
use super::decompress::{is_too_long, require_known};
use super::error::Problem;
use super::kind::Kind;
use super::utf8::Utf8;

/// One permit of the semaphore stands for this many bytes.
const PERMIT_BYTES: usize = 1024;
/// What a request counts at least, for what it costs beside its body.
const MIN_REQUEST_BYTES: usize = 16 * 1024;
/// Largest `max_body_bytes`: results are addressed with 32 bits in the store.
const MAX_BODY_BYTES: usize = 1 << 30;
/// Longest silence of a client that is sending its body.
const SILENCE: Duration = Duration::from_secs(30);

/// The limits, all configurable.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest body, decompressed, in bytes. The default takes 512 trajectories of 32k tokens.
    pub max_body_bytes: usize,
    /// Bytes of bodies and answers that may be in flight at once; beyond that requests get 429.
    pub max_in_flight_bytes: usize,
    /// Longest time for a request, in milliseconds; a shorter `deadline_ms` wins.
    pub max_deadline_ms: u64,
    /// Longest time for requests to end after the signal to stop, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_body_bytes: 256 << 20, max_in_flight_bytes: 1 << 30, max_deadline_ms: 300_000, drain_ms: 30_000 }
    }
}

impl Config {
    /// Whether a server can keep them.
    ///
    /// # Errors
    /// Says which one cannot be, and what would do.
    pub fn check(&self) -> Result<(), String> {
        let Self { max_body_bytes: body, max_in_flight_bytes: in_flight, max_deadline_ms, .. } = *self;
        if !(1..=MAX_BODY_BYTES).contains(&body) {
            return Err(format!("max_body_bytes = {body} is out of range; it must be from 1 to {MAX_BODY_BYTES}"));
        }
        if max_deadline_ms == 0 {
            return Err("max_deadline_ms = 0 leaves no time; give at least 1".to_owned());
        }
        if in_flight < body {
            return Err(format!(
                "max_in_flight_bytes = {in_flight} leaves no room for a body of max_body_bytes = {body}; lower that too"
            ));
        }
        Ok(())
    }
}

/// Keeps count of what is in flight; clones share it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The limits.
    pub config: Config,
    bytes: Arc<Semaphore>,
    capacity: usize,
    /// Room of bodies that were read.
    pub(super) buffers: BufferPool,
    /// Requests that are being scored.
    pub requests: Arc<AtomicUsize>,
}

/// A request's share of the limits; given back when dropped.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    share: OwnedSemaphorePermit,
    bytes: usize,
    _counted: Counted,
}

fn permits(bytes: usize) -> usize {
    bytes.max(MIN_REQUEST_BYTES).div_ceil(PERMIT_BYTES)
}

impl Limits {
    /// Limits with nothing in flight.
    pub fn new(config: Config) -> Self {
        // One body of the largest size must always fit.
        let capacity = permits(config.max_in_flight_bytes.max(config.max_body_bytes)).min(Semaphore::MAX_PERMITS);
        let (bytes, buffers) = (Arc::new(Semaphore::new(capacity)), BufferPool::default());
        Self { config, bytes, capacity, buffers, requests: Arc::default() }
    }

    /// Bytes in flight, rounded up to permits.
    pub fn bytes_in_flight(&self) -> usize {
        (self.capacity - self.bytes.available_permits()) * PERMIT_BYTES
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// 413 when it says that it is too large, 429 when too much is in flight.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Admission, Problem> {
        let announced = content_length(headers).unwrap_or(0);
        if announced > self.config.max_body_bytes {
            return Err(self.too_large());
        }
        let (counted, share) = (Counted::new(&self.requests), self.take(permits(0))?);
        Ok(Admission { limits: self.clone(), share, bytes: 0, _counted: counted })
    }

    fn take(&self, permits: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let taken = u32::try_from(permits).ok().and_then(|n| self.bytes.clone().try_acquire_many_owned(n).ok());
        taken.ok_or_else(|| {
            let detail =
                "too many bytes are in flight; try again after the time in Retry-After, or raise --max-in-flight-bytes";
            Problem::new(Kind::Busy, detail)
        })
    }

    /// When a request is due that arrived then and asks for so long.
    pub(super) fn due(&self, arrived: Instant, wanted_ms: Option<u64>) -> Option<Due> {
        Due::of(arrived, wanted_ms, self.config.max_deadline_ms)
    }

    fn too_large(&self) -> Problem {
        let limit = self.config.max_body_bytes;
        let detail = format!(
            "the body is larger than the limit of {limit} bytes; send smaller batches, or raise --max-body-bytes"
        );
        Problem::new(Kind::TooLarge, detail)
    }
}

impl Admission {
    /// Counts so many bytes, where fewer were counted.
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        if let missing @ 1.. = permits(bytes).saturating_sub(permits(self.bytes)) {
            self.share.merge(self.limits.take(missing)?);
        }
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }

    /// Reads a body, as text.
    ///
    /// # Errors
    /// 413 when it is too large, 415 when its encoding is not known, 400 when it cannot be decompressed or is not UTF-8, 408 when
    /// the client falls silent or leaves, 429 when too much is in flight.
    pub async fn read(&mut self, headers: &HeaderMap, mut body: Body) -> Result<String, Problem> {
        require_known(headers)?;
        let max = self.limits.config.max_body_bytes;
        let whole = Duration::from_millis(self.limits.config.max_deadline_ms);
        let began = Instant::now();
        let announced = content_length(headers);
        let expected = announced.unwrap_or(0).min(8 << 20);
        let (room, _until_it_has_come) = self.room(expected);
        let room_bytes = self.bytes;
        let mut text = Utf8::begun_in(room);
        loop {
            // One timer for both limits: each that is set wakes the thread that waits for connections.
            let left = whole.saturating_sub(began.elapsed());
            let late = |_| silent(if left < SILENCE { whole } else { SILENCE });
            let Some(frame) = timeout(left.min(SILENCE), body.frame()).await.map_err(late)? else { break };
            let unread = |error: axum::Error| {
                if is_too_long(&error) {
                    return self.limits.too_large();
                }
                if is_cut_off(&error) { cut_off() } else { bad_body(&error.to_string()) }
            };
            let frame = frame.map_err(unread)?;
            let Ok(data) = frame.into_data() else { continue };
            let length = text.len() + data.len();
            if length > max {
                return Err(self.limits.too_large());
            }
            if length > self.bytes {
                // In large steps, so that the semaphore is touched rarely, but never past what is to come: an announced length
                // alone takes nothing from others.
                let step = length.next_power_of_two().min(max);
                self.grow(announced.map_or(step, |announced| step.min(announced.max(length))))?;
            }
            text.push(&data).map_err(not_utf8)?;
        }
        self.shrink(text.len().max(room_bytes));
        text.finish().map_err(not_utf8)
    }

    /// Counts no more than so many bytes, where more were counted ahead.
    fn shrink(&mut self, bytes: usize) {
        drop(self.share.split(self.share.num_permits().saturating_sub(permits(bytes))));
        self.bytes = bytes;
    }

    /// An answer that counts until it has left, or its connection has ended: as much as its request did, or its own length
    /// where that is more. The request itself is no longer being scored.
    #[must_use]
    pub fn hold(mut self, answer: Bytes) -> Bytes {
        // The work is done: an answer that there is no room for is not thrown away.
        let _ = self.grow(answer.len());
        Bytes::from_owner(LimitedAnswer { answer, _share: self.share })
    }

    /// Room for a body. What was used before takes memory at once, and counts.
    fn room(&mut self, bytes: usize) -> (String, Option<Lease>) {
        let used_before = self.limits.buffers.take(bytes);
        match used_before.filter(|(text, _)| self.grow(text.capacity()).is_ok()) {
            Some((text, lease)) => (text, Some(lease)),
            None => (BufferPool::fresh(bytes), None),
        }
    }
}

/// An answer with its share of the limits.
struct LimitedAnswer {
    answer: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for LimitedAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// A body that is no text.
pub(super) fn not_utf8(at: usize) -> Problem {
    bad_body(&format!("byte {at} is not UTF-8; a body must be UTF-8"))
}

fn silent(limit: Duration) -> Problem {
    let detail =
        format!("the body did not come within {} s; send it faster, or in smaller batches", limit.as_secs_f64());
    Problem::new(Kind::SlowBody, detail)
}

/// Whether a body ended before its end, since its client left or its connection broke. One that is framed wrongly did not.
fn is_cut_off(error: &axum::Error) -> bool {
    let (mut broke, mut wrong) = (false, false);
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        broke |= error.is::<hyper::Error>();
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        wrong |= matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData));
        cause = error.source();
    }
    broke && !wrong
}

fn cut_off() -> Problem {
    Problem::new(Kind::Abandoned, "the connection was closed before the body had come")
}

/// A body that cannot be read.
pub(super) fn bad_body(detail: &str) -> Problem {
    Problem::new(Kind::BadBody, detail)
}

/// The announced length; of a compressed body it says little and counts as unknown.
fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses bodies that say that they are not JSON.
///
/// # Errors
/// 415.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = kind.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let detail = format!("the content type {essence:?} is not JSON; send `Content-Type: application/json`");
    Err(Problem::new(Kind::NotJson, detail))
}

/// Sets the flag when the request's future is dropped: the client went away, and its work may stop.
#[derive(Debug, Default)]
pub(super) struct AbandonOnDrop(pub Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_that_was_used_before_counts() {
        let (announced, used_before) = (1_000_000, 1_900_000);
        let limits = Limits::new(Config::default());
        limits.buffers.keep(String::with_capacity(used_before));
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, announced.into())]);
        let mut admission = limits.admit(&headers).unwrap();
        let text = admission.read(&headers, "x".into()).await.unwrap();
        assert_eq!((text.as_str(), text.capacity()), ("x", used_before));
        assert!(limits.bytes_in_flight() >= used_before);
        drop(admission);
        assert_eq!(limits.bytes_in_flight(), 0);
    }

    /// Else clients that announce bodies, and send none, hold memory without bound.
    #[tokio::test]
    async fn room_is_lent_until_the_body_has_come() {
        let (announced, used_before) = (8 << 20, 10 << 20);
        let limits = Limits::new(Config::default());
        let keep = || (0..3).for_each(|_| limits.buffers.keep(String::with_capacity(used_before)));
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, announced.into())]);
        let (silent, bodies): (Vec<_>, Vec<_>) = (0..3).map(|_| tokio::io::duplex(1)).unzip();
        let read = |body| {
            let (limits, headers) = (&limits, &headers);
            let body = Body::from_stream(tokio_util::io::ReaderStream::new(body));
            Box::pin(async move { limits.admit(headers).unwrap().read(headers, body).await })
        };
        keep();
        let mut reading: Vec<_> = bodies.into_iter().map(read).collect();
        for read in &mut reading {
            tokio::select! { biased; _ = read => panic!("nothing was sent"), () = std::future::ready(()) => {} }
        }
        keep();
        assert!(limits.buffers.take(announced).is_none());
        drop((reading, silent));
        assert!(limits.buffers.take(announced).is_some());
    }

    #[tokio::test]
    async fn a_body_counts_as_long_as_it_is() {
        let limits = Limits::new(Config { max_body_bytes: 1 << 20, max_in_flight_bytes: 1 << 20, ..Config::default() });
        let body = || Body::from("x".repeat(600_000));
        let announcing = HeaderMap::from_iter([(header::CONTENT_LENGTH, 600_000.into())]);
        let other = limits.admit(&HeaderMap::new()).unwrap().hold(Bytes::from(vec![b'x'; 400_000]));
        let mut announced = limits.admit(&announcing).unwrap();
        assert_eq!(announced.read(&announcing, body()).await.unwrap().len(), 600_000, "both fit");
        drop((other, announced));
        // What says nothing of its length is counted ahead, until it is there.
        let mut admission = limits.admit(&HeaderMap::new()).unwrap();
        admission.read(&HeaderMap::new(), body()).await.unwrap();
        assert!((600_000..601_024).contains(&limits.bytes_in_flight()), "{}", limits.bytes_in_flight());
        drop(admission);
        assert_eq!(limits.bytes_in_flight(), 0);
    }

    #[test]
    fn an_answer_counts_until_it_has_left() {
        let limits = Limits::new(Config { max_body_bytes: 1 << 20, max_in_flight_bytes: 1 << 20, ..Config::default() });
        let admit = || limits.admit(&HeaderMap::new()).unwrap();
        let first = admit().hold(Bytes::from(vec![b'x'; 600_000]));
        assert_eq!((first.len(), limits.requests.load(Ordering::Relaxed)), (600_000, 0));
        assert!((600_000..601_024).contains(&limits.bytes_in_flight()), "{}", limits.bytes_in_flight());
        let second = admit().hold(Bytes::from(vec![b'y'; 600_000]));
        assert_eq!(second.len(), 600_000, "an answer is given though there is no room for it");
        assert!(limits.bytes_in_flight() < 700_000, "it counts as its request did");
        let copy = first.clone();
        drop((first, second));
        assert!(limits.bytes_in_flight() >= 600_000);
        drop(copy);
        assert_eq!(limits.bytes_in_flight(), 0);
    }
}
