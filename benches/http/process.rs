//! A server under measurement: its processes, their CPU time and memory, from `/proc`. In: a command that prints its
//! address as its first line; out: numbers. The processes are a group of their own and end with the [`Server`].

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::client::{Requests, loopback};

/// Linux counts CPU time for user space in hundredths of a second, whatever the kernel ticks at.
const TICKS_PER_SECOND: f64 = 100.0;

const FIRST: &str = r#"{"trajectories":[{"id":"first","messages":[{"role":"assistant","content":"<answer>Paris</answer>"}],"tools":[],"references":["Paris"]}]}"#;

/// A running server.
pub(crate) struct Server {
    /// Its name in the table.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first answer, in milliseconds.
    pub start_ms: f64,
    process: Child,
    // Kept open: a server may print more.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server and waits for its first answer.
    pub(crate) fn start(command: &mut Command, name: &str) -> anyhow::Result<Self> {
        let began = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut process = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
        let output = process.stdout.take().context("the server has a standard output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = loopback(&line).with_context(|| format!("{command:?} printed no address first"));
        let mut server = Self {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            start_ms: 0.0,
            process,
            _output: output,
        };
        server.address = address?;
        let request = Requests::new(server.address, &[FIRST.to_owned()]);
        let mut answer = request.once();
        while answer.is_err() && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(2));
            answer = request.once();
        }
        answer?;
        server.start_ms = began.elapsed().as_secs_f64() * 1e3;
        Ok(server)
    }

    /// Waits until the server does nothing for a moment, at most two seconds. Gives the seconds for which it still worked.
    pub(crate) fn wait_until_idle(&self) -> f64 {
        const MOMENT: Duration = Duration::from_millis(50);
        let began = Instant::now();
        let mut before = self.cpu_seconds();
        loop {
            let worked = began.elapsed();
            std::thread::sleep(MOMENT);
            let now = self.cpu_seconds();
            // Its clock ticks in hundredths of a second.
            if now - before < 0.015 || worked.as_secs() >= 2 {
                return worked.as_secs_f64();
            }
            before = now;
        }
    }

    /// User and system time of all its processes so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.members().iter().map(|process| process.cpu_seconds).sum()
    }

    /// Starts counting the peak anew.
    pub(crate) fn reset_peak(&self) {
        for process in self.members() {
            // Where this is not allowed, the peak is the one since the start.
            let _ = fs::write(format!("/proc/{}/clear_refs", process.id), "5");
        }
    }

    /// The largest resident size since then, in megabytes.
    pub(crate) fn peak_mb(&self) -> f64 {
        self.members().iter().map(|process| peak_mb(process.id)).sum()
    }

    /// The processes of its group.
    fn members(&self) -> Vec<Process> {
        let group = self.process.id();
        let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(Process::read).filter(|process| process.group == group).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let signal = |name: &str| Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
        let _ = signal("TERM");
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = signal("KILL");
        let _ = self.process.wait();
    }
}

struct Process {
    id: u32,
    group: u32,
    cpu_seconds: f64,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name in parentheses may hold anything; state, parent and group follow it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            id,
            group: fields.get(2)?.parse().ok()?,
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        })
    }
}

fn peak_mb(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(f64::NAN) * 1024.0 / 1e6
}

/// User and system time of this process.
pub(crate) fn own_cpu_seconds() -> f64 {
    Process::read(std::process::id()).map_or(f64::NAN, |process| process.cpu_seconds)
}

/// CPU time that the whole machine has spent on anything.
pub(crate) fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    ticks.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, ticks)| ticks).sum::<f64>()
        / TICKS_PER_SECOND
}
