//! The server's end of its connections. In: a listening socket; out: streams that write without delay, read in pieces, and
//! end where the other end has gone or takes nothing. Knows no HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

/// Most bytes of one read. The HTTP reader's buffers double as long as reads fill them: of 400 KB each, two for every
/// connection, they were more than the bodies that went through them.
const READ_BYTES: u64 = 64 * 1024;

/// How long a client may take nothing of its answer: longer than a training step that keeps it from reading.
const STALLED: Duration = Duration::from_mins(5);
/// Silence after which the other end is asked whether it is still there, and how often it is asked before it counts as gone:
/// a machine that fell over says no goodbye.
const SILENCE: Duration = Duration::from_mins(1);
const ASKED_EVERY: Duration = Duration::from_secs(15);

/// Accepts connections.
pub(super) struct Connections(pub(super) TcpListener);

/// A connection.
pub(super) struct Connection<S = TcpStream> {
    stream: Take<S>,
    /// Runs while the other end takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead> Connection<S> {
    fn new(stream: S) -> Self {
        Self { stream: stream.take(READ_BYTES), stalled: None }
    }

    /// What a write gave; an error where nothing could be written for too long.
    fn watched(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The listener's own, which goes on after an error; an inherent method of the same name hides it.
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Answers are written whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let asked = TcpKeepalive::new().with_time(SILENCE).with_interval(ASKED_EVERY);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&asked);
        (Connection::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.set_limit(READ_BYTES);
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write(cx, bytes);
        self.watched(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write_vectored(cx, pieces);
        self.watched(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_left() {
        let (mut client, server) = tokio::io::duplex(10);
        let mut server = Connection::new(server);
        server.write_all(b"0123456789").await.unwrap();
        let answer = tokio::spawn(async move { server.write_all(b"0123456789abcdef").await });
        let mut some = [0; 10];
        for _ in 0..2 {
            // Slow, but going on.
            sleep(STALLED * 4 / 5).await;
            assert!(!answer.is_finished());
            client.read_exact(&mut some[..5]).await.unwrap();
        }
        sleep(STALLED * 4 / 5).await;
        assert!(!answer.is_finished());
        assert_eq!(answer.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
