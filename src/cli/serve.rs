//! `gradus serve`: opens everything, listens, prints how to try it, serves until a signal.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{File, Serve, ServeFlags};
use crate::http::{App, serve};
use crate::store::Store;

/// Connections that may wait to be taken.
const WAITING: u32 = 1024;

/// Serve the HTTP API.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: ServeFlags,
}

pub(super) fn run(args: Args, file: &File) -> anyhow::Result<ExitCode> {
    let settings = Serve::compose(args.flags, file)?;
    // Before anything is made: where another server has the address, this one must leave no database behind.
    let cannot = || format!("cannot listen on {}; choose another address with --listen", settings.listen);
    let socket = reserve(settings.listen).with_context(cannot)?;
    let store = Store::open(&settings.store)?;
    let engine = super::engine(&settings.scoring, super::memory(store.as_ref()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(http_threads())
        .thread_name("http")
        .enable_all()
        .build()
        .context("the HTTP threads could not be started")?;
    runtime.block_on(async {
        let listener = socket.listen(WAITING).with_context(cannot)?;
        let address = listener.local_addr()?;
        let app = App::new(engine, store, settings.http);
        let stop = stop_signal()?;
        announce(address, app.store.as_ref().map(|_| settings.store.url.as_str()), app.tokens.api.is_some())?;
        serve(listener, app, stop).await.context("serving failed")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Takes an address. Whoever connects before the engine is ready is refused, and does not wait in vain.
fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a server that ended just now do not keep it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// One thread for connections for every four cores: they have a fifth of the work at most, and the more they are the more
/// often they wake each other up.
fn http_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(4))
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Whoever asks twice does not want to wait.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(130);
        });
    })
}

/// The first line is the address alone, for scripts; the rest is for people.
fn announce(address: SocketAddr, store: Option<&str>, with_token: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let token = if with_token { " -H 'Authorization: Bearer TOKEN'" } else { "" };
    writeln!(out, "http://{address}")?;
    match store {
        Some(url) => writeln!(out, "scores are kept in {url}; API: http://{address}/docs/; try:")?,
        None => writeln!(out, "scores are not kept; API: http://{address}/docs/; try:")?,
    }
    writeln!(
        out,
        "curl -s http://{address}/reward{token} -H 'Content-Type: application/json' -d '{{\"trajectories\":[{{\"messages\":[{{\"role\":\"user\",\"content\":\"Capital of France?\"}},{{\"role\":\"assistant\",\"content\":\"<answer>Paris</answer>\"}}],\"references\":[\"Paris\"]}}]}}'"
    )?;
    out.flush()?;
    Ok(())
}
