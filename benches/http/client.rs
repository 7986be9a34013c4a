//! Load on a server of this machine: HTTP/1.1 on kept connections, a thread for each. In: an address and bodies; out: how
//! long each answer took. Every request that is begun is waited for, so that CPU time can be divided by the work done.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The address in `http://127.0.0.1:PORT`. Everything that connects comes through here: no other machine is reached.
pub(crate) fn loopback(url: &str) -> anyhow::Result<SocketAddr> {
    let rest = url.trim().strip_prefix("http://").with_context(|| format!("{url:?} is no http:// address"))?;
    let address: SocketAddr =
        rest.trim_end_matches('/').parse().with_context(|| format!("{url:?} names no IP address"))?;
    ensure!(address.ip().is_loopback(), "{url:?} is not on this machine; only loopback addresses are measured");
    Ok(address)
}

/// Whole requests, ready to be sent.
pub(crate) struct Requests {
    address: SocketAddr,
    texts: Vec<Vec<u8>>,
}

impl Requests {
    /// `POST /reward` with each of the bodies.
    pub(crate) fn new(address: SocketAddr, bodies: &[String]) -> Self {
        Self::to(address, "/reward", bodies)
    }

    /// `POST` to a path with each of the bodies.
    pub(crate) fn to(address: SocketAddr, path: &str, bodies: &[String]) -> Self {
        let text = |body: &String| {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            );
            [head.as_bytes(), body.as_bytes()].concat()
        };
        Self { address, texts: bodies.iter().map(text).collect() }
    }

    /// `GET` of a path.
    pub(crate) fn get(address: SocketAddr, path: &str) -> Self {
        Self { address, texts: vec![format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()] }
    }

    /// Sends the first one on a new connection and waits for its answer.
    pub(crate) fn once(&self) -> anyhow::Result<()> {
        Connection::open(self.address)?.exchange(self.text(0))
    }

    fn text(&self, turn: usize) -> &[u8] {
        &self.texts[turn % self.texts.len()]
    }
}

/// All connections send a request at the same moment, `rounds` times: how long the slowest answer of each round took,
/// sorted.
pub(crate) fn together(requests: &Requests, connections: usize, rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let (start, end) = (Barrier::new(connections), Barrier::new(connections));
    let worker = |place: usize| -> anyhow::Result<Vec<Duration>> {
        let mut connection = Connection::open(requests.address)?;
        let mut slowest = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            start.wait();
            let began = Instant::now();
            let answer = connection.exchange(requests.text(place));
            end.wait();
            answer?;
            slowest.push(began.elapsed());
        }
        Ok(slowest)
    };
    let taken: anyhow::Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|place| {
                let worker = &worker;
                scope.spawn(move || worker(place))
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| bail!("a connection's thread failed"))).collect()
    });
    // Every one of them waited for the slowest.
    let mut first = taken?.into_iter().next().unwrap_or_default();
    first.sort_unstable();
    Ok(first)
}

/// What a load gave.
pub(crate) struct Load {
    latencies: Vec<Duration>,
    /// From the first request to the last answer.
    pub seconds: f64,
}

impl Load {
    /// Several loads as one.
    pub(crate) fn of_all(loads: Vec<Self>) -> Self {
        let seconds = loads.iter().map(|load| load.seconds).sum();
        let mut latencies: Vec<_> = loads.into_iter().flat_map(|load| load.latencies).collect();
        latencies.sort_unstable();
        Self { latencies, seconds }
    }

    /// Requests that were answered with 200.
    pub(crate) fn answered(&self) -> usize {
        self.latencies.len()
    }

    /// Requests per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.answered() as f64 / self.seconds
    }

    /// The latency that this many of a hundred answers did not exceed, in milliseconds.
    pub(crate) fn quantile_ms(&self, percent: usize) -> f64 {
        let rank = (percent * self.latencies.len()).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Each connection sends its next request when the last one is answered.
pub(crate) fn closed_loop(requests: &Requests, connections: usize, duration: Duration) -> anyhow::Result<Load> {
    drive(requests, connections, |_, began| {
        let now = Instant::now();
        (now.duration_since(began) < duration).then_some(now)
    })
}

/// Requests are due at a fixed rate, whether the earlier ones are answered or not; latency counts from when one is due.
pub(crate) fn open_loop(
    requests: &Requests,
    connections: usize,
    per_second: f64,
    duration: Duration,
) -> anyhow::Result<Load> {
    drive(requests, connections, |turn, began| {
        let at = Duration::from_secs_f64(turn as f64 / per_second);
        let due = began + at;
        (at < duration).then(|| {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due
        })
    })
}

/// `due` waits until the request of a turn is to be sent, and says since when its latency counts; `None` ends the load.
fn drive(
    requests: &Requests,
    connections: usize,
    due: impl Fn(usize, Instant) -> Option<Instant> + Sync,
) -> anyhow::Result<Load> {
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    let worker = || -> anyhow::Result<Vec<Duration>> {
        let mut connection = Connection::open(requests.address)?;
        let mut latencies = Vec::new();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let Some(since) = due(turn, began) else { return Ok(latencies) };
            connection.exchange(requests.text(turn))?;
            latencies.push(since.elapsed());
        }
    };
    let taken: anyhow::Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a connection's thread failed")))
            .collect()
    });
    let mut latencies = taken?.concat();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "nothing was answered; give it more --seconds");
    Ok(Load { latencies, seconds: began.elapsed().as_secs_f64() })
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were received.
    length: usize,
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; 1 << 16], length: 0 })
    }

    /// Sends one request and reads its whole answer, which must be 200 with a length.
    fn exchange(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request)?;
        self.length = 0;
        let body = loop {
            if let Some(end) = self.received().windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.receive()?;
        };
        let head = String::from_utf8_lossy(&self.received()[..body]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = length.with_context(|| format!("an answer without a length: {head}"))?;
        while self.length < body + length {
            self.receive()?;
        }
        let text = || String::from_utf8_lossy(&self.received()[body..]).chars().take(300).collect::<String>();
        ensure!(head.starts_with("http/1.1 200"), "not 200: {head}{}", text());
        Ok(())
    }

    fn received(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        if self.length == self.buffer.len() {
            self.buffer.resize(self.length * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.length..])? {
            0 => bail!("the server closed the connection in the middle of an answer"),
            count => {
                self.length += count;
                Ok(())
            }
        }
    }
}
