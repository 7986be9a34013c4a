//! The server over loopback: `cargo bench --bench http`. In: the program of this package, batches of 64 generated
//! trajectories on 8 connections (`--connections N`); out: a Markdown table on standard output.
//!
//! CPU time per trajectory is the figure to compare: the user and system time of the server's processes over the
//! trajectories that it answered. At full load all servers and the parse floor, which is taken in this process on all cores at once,
//! take turns, because a machine's speed changes within seconds; `of first` compares throughput. `--peer COMMAND` starts another server
//! (`http/peer.py`, say) and measures it on the same bodies; `--seconds N` is how long each cell's two loads last; `--sizes
//! small,large` and `--stores none,commit,relaxed` choose. The last latencies are those of `/healthz` at the same rate of requests: what the
//! machine and this load generator take by themselves. `--dialects` measures instead what each trainer's dialect costs over the native
//! request with the same trajectories, and what it takes a group of 16 requests to meet.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

#[path = "http/client.rs"]
mod client;
mod data;
#[path = "http/dialects.rs"]
mod dialects;
#[path = "http/process.rs"]
mod process;

use client::{Load, Requests, closed_loop, open_loop, together};
use data::{Size, bodies, floor};
use process::{Server, busy_seconds, own_cpu_seconds};

const BATCH: usize = 64;
const CONNECTIONS: usize = 8;
const CONNECTION_COUNTS: std::ops::RangeInclusive<usize> = 1..=64;
/// Bytes of distinct bodies per size: more than a cache holds, less than a run sends.
const BODY_BYTES: usize = 12 << 20;
/// A cell's load and its floor take turns this many times: a machine's speed changes from second to second.
const SLICES: u32 = 10;
const SECONDS: std::ops::RangeInclusive<f64> = 0.2..=30.0;

// The server's own: the floor is to be what the server could reach.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Options {
    seconds: Duration,
    sizes: Vec<Size>,
    stores: Vec<String>,
    peers: Vec<String>,
    connections: usize,
    dialects: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing to test here; run `cargo bench --bench http`");
        return Ok(());
    }
    let options = options(&arguments)?;
    let inputs: Vec<Input> = options.sizes.iter().map(|size| Input::new(*size)).collect();
    if options.dialects {
        return measure_dialects(&inputs, &options);
    }
    println!(
        "| server | size | KB | CPU us | floor us | ratio | traj/s | p50 ms | p99 ms | half p50 | half p99 | healthz p50 | healthz p99 | peak MB | in flight MB | start ms | others | of first |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let directories: Vec<_> = options.stores.iter().map(|_| tempfile::tempdir()).collect::<Result<_, _>>()?;
    let mut servers = Vec::new();
    for (store, directory) in options.stores.iter().zip(&directories) {
        servers.push(Server::start(&mut gradus(store, directory.path())?, &format!("gradus, {store}"))?);
    }
    for peer in &options.peers {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("exec {peer}"));
        servers.push(Server::start(&mut command, "peer")?);
    }
    measure(&servers, &inputs, &options)
}

fn options(arguments: &[String]) -> anyhow::Result<Options> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut options = Options {
        seconds: Duration::from_secs(3),
        sizes: Size::ALL.to_vec(),
        stores: list("none,commit,relaxed"),
        peers: Vec::new(),
        connections: CONNECTIONS,
        dialects: false,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {}
            "--dialects" => options.dialects = true,
            "--peer" => options.peers.push(value()?.clone()),
            "--stores" => options.stores = list(value()?),
            "--sizes" => {
                let names = list(value()?);
                let size = |name: &String| {
                    Size::ALL.into_iter().find(|size| size.name() == name).with_context(|| format!("no size {name:?}"))
                };
                options.sizes = names.iter().map(size).collect::<anyhow::Result<_>>()?;
            }
            "--connections" => {
                options.connections = value()?.parse()?;
                ensure!(CONNECTION_COUNTS.contains(&options.connections), "--connections is from 1 to 64");
            }
            "--seconds" => {
                let seconds: f64 = value()?.parse()?;
                ensure!(SECONDS.contains(&seconds), "--seconds is from {} to {}", SECONDS.start(), SECONDS.end());
                options.seconds = Duration::from_secs_f64(seconds);
            }
            other => anyhow::bail!(
                "unknown option {other:?}; known: --connections, --dialects, --peer, --seconds, --sizes, --stores"
            ),
        }
    }
    Ok(options)
}

fn gradus(store: &str, directory: &std::path::Path) -> anyhow::Result<std::process::Command> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    match store {
        "none" => command.args(["--store", "none"]),
        "commit" | "relaxed" => {
            let file = format!("sqlite:{}", directory.join("scores.db").display());
            command.args(["--store", &file, "--store-durability", store])
        }
        other => anyhow::bail!("no store {other:?}; one of: none, commit, relaxed"),
    };
    Ok(command)
}

/// The bodies of one size.
struct Input {
    size: Size,
    bodies: Vec<String>,
}

impl Input {
    fn new(size: Size) -> Self {
        let first = bodies(size, BATCH, 1);
        let bytes = first.first().map_or(1, String::len);
        Self { size, bodies: bodies(size, BATCH, (BODY_BYTES / bytes).clamp(2, 32)) }
    }

    fn mean_bytes(&self) -> f64 {
        self.bodies.iter().map(String::len).sum::<usize>() as f64 / self.bodies.len() as f64
    }

    /// Only parses, for this long, on as many threads at once as there are cores: a loaded server has all of them busy, and
    /// cores that share a pipeline or a cache are slower together. The CPU seconds that took, and trajectories parsed.
    fn floor(&self, duration: Duration) -> anyhow::Result<(f64, usize)> {
        let (began, cpu) = (Instant::now(), own_cpu_seconds());
        let parse = || -> anyhow::Result<usize> {
            let mut read = 0;
            for body in self.bodies.iter().cycle().take_while(|_| began.elapsed() < duration) {
                read += black_box(floor::read(black_box(body.as_bytes()))?).trajectories.len();
            }
            Ok(read)
        };
        let threads = std::thread::available_parallelism()?.get();
        let read: anyhow::Result<usize> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(parse)).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(0))).sum()
        });
        Ok((own_cpu_seconds() - cpu, read?))
    }
}

/// The closed loops of all servers in turns, slice by slice, so that they meet the same moods of the machine; then the
/// open ones, one server after the other.
fn measure(servers: &[Server], inputs: &[Input], options: &Options) -> anyhow::Result<()> {
    let (connections, seconds) = (options.connections, options.seconds);
    for input in inputs {
        let requests: Vec<Requests> =
            servers.iter().map(|server| Requests::new(server.address, &input.bodies)).collect();
        let mut cells: Vec<Cell> = servers.iter().map(|_| Cell::default()).collect();
        for (server, requests) in servers.iter().zip(&requests) {
            closed_loop(requests, connections, seconds / 4)?;
            server.reset_peak();
        }
        for slice in 0..SLICES {
            let mut turns: Vec<_> = servers.iter().zip(&requests).zip(&mut cells).collect();
            if slice % 2 == 1 {
                turns.reverse();
            }
            for ((server, requests), cell) in turns {
                cell.slice(server, input, requests, options)?;
            }
        }
        let loads: Vec<Load> = cells.iter_mut().map(|cell| Load::of_all(std::mem::take(&mut cell.loads))).collect();
        let first = loads.first().map_or(f64::NAN, Load::per_second);
        for (((server, requests), cell), load) in servers.iter().zip(&requests).zip(cells).zip(loads) {
            let peak = server.peak_mb();
            let half = open_loop(requests, connections, load.per_second() / 2.0, seconds)?;
            let health = Requests::get(server.address, "/healthz");
            let still = open_loop(&health, connections, load.per_second() / 2.0, seconds)?;
            let floor = cell.floor_cpu * 1e6 / cell.floor_read.max(1) as f64;
            let others = (cell.others / load.seconds).max(0.0);
            let in_flight = input.mean_bytes() * connections as f64;
            let numbers = Row { cpu: cell.cpu, floor, peak, others, in_flight, first };
            row(server, input, [&load, &half, &still], &numbers);
        }
    }
    Ok(())
}

/// What a row tells beside its loads.
struct Row {
    /// CPU seconds of the server.
    cpu: f64,
    /// Microseconds of a trajectory that is only parsed.
    floor: f64,
    /// Megabytes.
    peak: f64,
    /// Cores that others had.
    others: f64,
    /// Bytes.
    in_flight: f64,
    /// Requests per second of the first server.
    first: f64,
}

/// What the slices of one server and size came to. Times are CPU seconds.
#[derive(Default)]
struct Cell {
    loads: Vec<Load>,
    cpu: f64,
    /// Of neither the server nor this process.
    others: f64,
    floor_cpu: f64,
    floor_read: usize,
}

impl Cell {
    fn slice(&mut self, server: &Server, input: &Input, requests: &Requests, options: &Options) -> anyhow::Result<()> {
        let seconds = options.seconds / SLICES;
        let (cpu, read) = input.floor(seconds / 2)?;
        (self.floor_cpu, self.floor_read) = (self.floor_cpu + cpu, self.floor_read + read);
        let (cpu, busy, own) = (server.cpu_seconds(), busy_seconds(), own_cpu_seconds());
        let mut load = closed_loop(requests, options.connections, seconds)?;
        // What it still does for answers that have left (`relaxed`) is its own, and not to be in the way of the next.
        load.seconds += server.wait_until_idle();
        self.loads.push(load);
        let cpu = server.cpu_seconds() - cpu;
        self.cpu += cpu;
        self.others += busy_seconds() - busy - cpu - (own_cpu_seconds() - own);
        Ok(())
    }
}

/// What every dialect costs beside the native request with the same trajectories. The native load runs before and after
/// each dialect's: a machine's speed changes within minutes.
fn measure_dialects(inputs: &[Input], options: &Options) -> anyhow::Result<()> {
    let (connections, seconds) = (options.connections, options.seconds);
    let directory = tempfile::tempdir()?;
    println!("| size | dialect | batch | KB | native CPU us | CPU us | ratio |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for input in inputs {
        let server = Server::start(&mut gradus("none", directory.path())?, "gradus")?;
        let (variants, references) = dialects::variants(&input.bodies, BATCH)?;
        Requests::to(server.address, "/references", &[references]).once()?;
        let cost = |variant: &dialects::Variant, seconds: Duration| -> anyhow::Result<f64> {
            let requests = Requests::to(server.address, variant.path, &variant.bodies);
            let cpu = server.cpu_seconds();
            let load = closed_loop(&requests, connections, seconds)?;
            Ok((server.cpu_seconds() - cpu) * 1e6 / (load.answered() * variant.batch) as f64)
        };
        for variant in variants.iter().filter(|variant| variant.name != "native") {
            let like = |native: &&dialects::Variant| native.form == variant.form && native.batch == variant.batch;
            let native = variants.iter().filter(|native| native.name == "native").find(like);
            let native = native.context("there is a native request of each batch size")?;
            cost(variant, seconds / 8)?;
            let before = cost(native, seconds / 2)?;
            let own = cost(variant, seconds)?;
            let native = f64::midpoint(before, cost(native, seconds / 2)?);
            let bytes = variant.bodies.iter().map(String::len).sum::<usize>() / variant.bodies.len() / variant.batch;
            let (size, name, batch) = (input.size.name(), variant.name, variant.batch);
            println!(
                "| {size} | {name} | {batch} | {:.1} | {native:.1} | {own:.1} | {:.3} |",
                bytes as f64 / 1e3,
                own / native
            );
        }
    }
    measure_meeting(directory.path())
}

/// How much longer 16 requests take when they are one group whose members wait for each other.
fn measure_meeting(directory: &std::path::Path) -> anyhow::Result<()> {
    const MEMBERS: usize = 16;
    const ROUNDS: usize = 500;
    let server = Server::start(&mut gradus("none", directory)?, "gradus")?;
    let sample = r#"{"prompt":"q","response":"<answer>Paris</answer>","label":{"references":["Paris"],"group":"g"}}"#;
    let bodies = vec![sample.to_owned(); MEMBERS];
    let alone = Requests::to(server.address, "/slime", &bodies);
    let meeting = Requests::to(server.address, "/slime?on_invalid=mean&group_size=16", &bodies);
    together(&alone, MEMBERS, ROUNDS / 5)?;
    let (alone, meeting) = (together(&alone, MEMBERS, ROUNDS)?, together(&meeting, MEMBERS, ROUNDS)?);
    println!("\n| {MEMBERS} requests at once | p50 ms | p99 ms |\n|---|--:|--:|");
    for (name, latencies) in [("each for itself", alone), ("one group that meets", meeting)] {
        let at =
            |percent: usize| latencies.get(latencies.len() * percent / 100).map_or(f64::NAN, Duration::as_secs_f64);
        println!("| {name} | {:.2} | {:.2} |", at(50) * 1e3, at(99) * 1e3);
    }
    Ok(())
}

fn row(
    server: &Server,
    input: &Input,
    [load, half, still]: [&Load; 3],
    Row { cpu, floor, peak, others, in_flight, first }: &Row,
) {
    let trajectories = (load.answered() * BATCH) as f64;
    let cpu = cpu * 1e6 / trajectories;
    let bytes = input.mean_bytes();
    println!(
        "| {} | {} | {:.1} | {cpu:.1} | {floor:.1} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {peak:.0} | {:.1} | {:.0} | {others:.2} | {:.0} % |",
        server.name,
        input.size.name(),
        bytes / BATCH as f64 / 1e3,
        cpu / floor,
        trajectories / load.seconds,
        load.quantile_ms(50),
        load.quantile_ms(99),
        half.quantile_ms(50),
        half.quantile_ms(99),
        still.quantile_ms(50),
        still.quantile_ms(99),
        in_flight / 1e6,
        server.start_ms,
        load.per_second() / first * 1e2,
    );
}
