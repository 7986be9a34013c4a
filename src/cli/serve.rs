//! `gradus serve`: opens everything, listens, prints how to try it, serves until a signal.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpSocket;

use super::stop::{self, Signals};
use crate::config::{File, LogFormat, Scoring, Serve, ServeFlags};
use crate::http::batch::Engine;
use crate::http::{App, serve};
use crate::store::{self, Store};

/// Connections that may wait to be taken.
const WAITING: u32 = 1024;

/// Serve the HTTP API.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: ServeFlags,
}

pub(super) fn run(args: Args, file: &File, log: LogFormat) -> anyhow::Result<ExitCode> {
    let settings = Serve::compose(args.flags, file)?;
    // Before anything is made: where another server has the address, this one must leave no database behind.
    let cannot = || format!("cannot listen on {}; choose another address with --listen", settings.listen);
    let socket = reserve(settings.listen).with_context(cannot)?;
    raise_open_files();
    super::environment::warn_of_unknown(&settings.scoring.judges);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(http_threads())
        .thread_name("http")
        .enable_all()
        .build()
        .context("the HTTP threads could not be started")?;
    runtime.block_on(async {
        super::survive_file_limits();
        let mut stop = Box::pin(stop_signal()?);
        let (scoring, store) = (settings.scoring, settings.store.clone());
        let opening = tokio::task::spawn_blocking(move || open(&scoring, &store));
        let (engine, store) = tokio::select! {
            opened = opening => opened.context("opening the store and the judges failed")??,
            () = &mut stop => {
                tracing::info!("stopped before it served");
                // What is being opened is left as it is, as by a loss of power: a judge may take minutes to load.
                stop::end(0);
            }
        };
        let listener = socket.listen(WAITING).with_context(cannot)?;
        let address = listener.local_addr()?;
        let app = App::new(engine, store, settings.http);
        let kept = app.store.as_ref().map(|_| settings.store.url.as_str());
        announce(address, kept, app.tokens.api.is_some(), log);
        serve(listener, app, stop).await.context("serving failed")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Opens what may be wrong without leaving anything first, then the store, then what may need it.
fn open(scoring: &Scoring, store: &store::Config) -> anyhow::Result<(Engine, Option<Store>)> {
    let engine = super::engine(scoring)?;
    let store = Store::open(store)?;
    let judges = super::open_judges(&scoring.judges, super::memory(store.as_ref()))?;
    Ok((Engine { judges, ..engine }, store))
}

/// Raises the limit of open files as far as it may be: every connection is one.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
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

/// Resolves at the first signal; whoever asks twice does not want to wait.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::new()?.with_hang_up()?;
    Ok(async move {
        signals.next().await;
        tokio::spawn(async move {
            let again = signals.next().await;
            tracing::warn!("told to stop again: requests in flight get no answer");
            stop::end(stop::exit_code(again));
        });
    })
}

/// The first line is the address alone, for scripts; the rest is for people, or the log's where that is JSON.
fn announce(address: SocketAddr, store: Option<&str>, with_token: bool, log: LogFormat) {
    let token = if with_token { " -H 'Authorization: Bearer TOKEN'" } else { "" };
    let kept = store.map_or_else(|| "scores are not kept".to_owned(), |url| format!("scores are kept in {url}"));
    say!("http://{address}");
    if log == LogFormat::Json {
        let (version, store) = (env!("CARGO_PKG_VERSION"), store.unwrap_or("none"));
        tracing::info!(version, %address, store, with_token, "serving");
        return;
    }
    say!("{kept}; API: http://{address}/docs/; try:");
    say!(
        "curl -s http://{address}/reward{token} -H 'Content-Type: application/json' -d '{{\"trajectories\":[{{\"messages\":[{{\"role\":\"user\",\"content\":\"Capital of France?\"}},{{\"role\":\"assistant\",\"content\":\"<answer>Paris</answer>\"}}],\"references\":[\"Paris\"]}}]}}'"
    );
}
