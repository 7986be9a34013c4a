//! The life of the server, from the first connection to the last.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;

use super::app::App;
use super::connection::Connections;
use super::router::router;

/// The part of the time to end in which requests wait for no judge any more.
const LAST_CALL: u32 = 10;
/// How much longer than a request may take a client may be silent in the middle of it.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long new connections are still taken, to be refused with a 503; half of the time to end at most.
const GRACE: Duration = Duration::from_millis(500);

/// How long the end waits at least: connections on which nothing is in flight take a moment to close.
const MOMENT: Duration = Duration::from_millis(200);

/// Serves until `stop` resolves, then lets requests end (`drain_ms` at most) and closes the store.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopped, drained) = tokio::sync::oneshot::channel();
    let draining = app.clone();
    let drain = Duration::from_millis(app.limits.config.drain_ms).max(MOMENT);
    let grace = GRACE.min(drain / 2);
    let signal = async move {
        stop.await;
        draining.drain();
        // First: a line of the log may wait for whoever reads it, and the limit holds all the same.
        let _ = stopped.send(());
        tracing::info!("stopping: new requests are refused, those in flight are answered");
        // For a moment new requests still get their 503, so that balancers and clients learn to go elsewhere.
        tokio::time::sleep(grace).await;
    };
    // Nothing takes longer than a request may.
    let patience = Duration::from_millis(app.limits.config.max_deadline_ms).saturating_add(PATIENCE);
    let connections = Connections::new(listener, patience);
    let serving = axum::serve(connections, router(app.clone())).with_graceful_shutdown(signal);
    let serving = async {
        serving.await?;
        // What a repeat is to find stored has no connection where its client left.
        app.all_done().await;
        Ok(())
    };
    let late = async {
        // The signal's end is dropped without a message where serving itself failed: then nothing is to be waited for.
        if drained.await.is_ok() {
            let last_call = drain / LAST_CALL;
            tokio::time::sleep(drain.saturating_sub(last_call)).await;
            app.call_last();
            tokio::time::sleep(last_call).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = serving => result,
        () = late => {
            let after_ms = app.limits.config.drain_ms;
            tracing::warn!(after_ms, "requests still ran, or were not sent or read to their end; leaving them");
            Ok(())
        }
    };
    if let Some(store) = &app.store {
        store.close().await;
        let lost = store.counters().lost_batches;
        if lost > 0 && result.is_ok() {
            return Err(std::io::Error::other(format!("{lost} batches that were answered could not be stored")));
        }
    }
    result
}
