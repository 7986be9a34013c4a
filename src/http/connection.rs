//! The server's end of its connections. In: a listening socket; out: streams that write without delay, read in pieces, and
//! end where the other end has gone or is silent where something is due. Knows no HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

/// Most bytes of one read. The HTTP reader's buffers double as long as reads fill them: of 400 KB each, two for every
/// connection, they were more than the bodies that went through them.
const READ_BYTES: u64 = 64 * 1024;

/// Silence after which the other end is asked whether it is still there, and how often it is asked before it counts as gone:
/// a machine that fell over says no goodbye.
const SILENCE: Duration = Duration::from_mins(1);
const ASKED_EVERY: Duration = Duration::from_secs(15);

/// How long no connection is taken after the system refused one: it has no descriptors left, and asking at once would not help.
const REFUSED: Duration = Duration::from_secs(1);

/// Accepts connections.
pub(super) struct Connections {
    listener: TcpListener,
    patience: Duration,
}

impl Connections {
    /// Whoever is silent for as long as `patience` though something is due from him is left: more of a request that he began,
    /// or room for an answer. Who has his answer may be silent for ever, and asks again when he likes.
    pub(super) fn new(listener: TcpListener, patience: Duration) -> Self {
        Self { listener, patience }
    }
}

/// A connection.
pub(super) struct Connection<S = TcpStream> {
    stream: Take<S>,
    patience: Duration,
    /// When something was read or written.
    active: Instant,
    /// Whether that was the client's: nothing of an answer has left since.
    asked: bool,
    /// Whether it speaks HTTP/2, where a client's bytes may ask for nothing.
    multiplexed: Option<bool>,
    /// Rings when the patience may be over. Set once in a while, not for every read.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead> Connection<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream: stream.take(READ_BYTES),
            patience,
            active: Instant::now(),
            asked: true,
            multiplexed: None,
            alarm: None,
        }
    }

    /// Whether nothing came or left for too long; otherwise the task is woken when that may be so.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(self.patience)));
            if alarm.as_mut().poll(cx).is_pending() {
                return false;
            }
            if self.active.elapsed() >= self.patience {
                return true;
            }
            alarm.as_mut().reset(self.active + self.patience);
        }
    }

    /// What a write gave; an error where nothing could be written for too long.
    fn wrote(
        &mut self,
        bytes: &[u8],
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            // Being asked to go on is no answer.
            let answered = !bytes.starts_with(b"HTTP/1.1 100 ");
            (self.active, self.asked) = (Instant::now(), self.asked && !answered);
        } else if self.is_silent(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

/// Whether the system has no descriptors or memory left: no other error is one of the listener.
fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_none_or(|errno| {
        matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::BADF | Errno::INVAL)
    })
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(taken) => taken,
                // Of one connection only: a descriptor more would not help.
                Err(error) if !is_exhausted(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "a connection cannot be taken; raise the limit of open files (ulimit -n)");
                    sleep(REFUSED).await;
                    continue;
                }
            };
            // Answers are written whole: waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            let asked = TcpKeepalive::new().with_time(SILENCE).with_interval(ASKED_EVERY);
            let _ = SockRef::from(&stream).set_tcp_keepalive(&asked);
            return (Connection::new(stream, self.patience), address);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.set_limit(READ_BYTES);
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && self.asked && self.is_silent(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Some(bytes @ [_, ..]) = buf.filled().get(before..) {
            let multiplexed = *self.multiplexed.get_or_insert_with(|| bytes.starts_with(b"PRI * HTTP/2"));
            (self.active, self.asked) = (Instant::now(), !multiplexed);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write(cx, bytes);
        self.wrote(bytes, written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write_vectored(cx, pieces);
        self.wrote(pieces.first().map_or(&[], |piece| piece), written, cx)
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
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(6);

    fn pair() -> (tokio::io::DuplexStream, Connection<tokio::io::DuplexStream>) {
        let (client, server) = tokio::io::duplex(10);
        (client, Connection::new(server, PATIENCE))
    }

    fn timed_out<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
        result.unwrap_err().kind() == io::ErrorKind::TimedOut
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_left() {
        let (mut client, mut server) = pair();
        server.write_all(b"0123456789").await.unwrap();
        let answer = tokio::spawn(async move { server.write_all(b"0123456789abcdef").await });
        let mut some = [0; 10];
        for _ in 0..2 {
            // Slow, but going on.
            sleep(PATIENCE * 4 / 5).await;
            assert!(!answer.is_finished());
            client.read_exact(&mut some[..5]).await.unwrap();
        }
        sleep(PATIENCE * 4 / 5).await;
        assert!(!answer.is_finished());
        assert!(timed_out(answer.await.unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_half_is_left_and_one_that_has_its_answer_is_not() {
        let (_client, mut server) = pair();
        let began = Instant::now();
        assert!(timed_out(server.read_u8().await), "it never said anything");
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());

        let (mut client, mut server) = pair();
        client.write_all(b"ab").await.unwrap();
        assert_eq!(server.read_u16().await.unwrap(), 0x6162);
        server.write_all(b"ok").await.unwrap();
        let next = tokio::spawn(async move { (server.read_u8().await.unwrap(), server.read_u8().await) });
        sleep(PATIENCE * 10).await;
        assert!(!next.is_finished(), "it has its answer, and is silent until it asks again");
        client.write_all(b"c").await.unwrap();
        let (first, second) = next.await.unwrap();
        assert_eq!(first, b'c');
        assert!(timed_out(second), "it began to ask");
    }
}
