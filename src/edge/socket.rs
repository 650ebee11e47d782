//! A connection's bytes, whichever listener it came from.
//!
//! One concrete type, so that an upgraded connection can be taken out of the HTTP library again without a second buffer. It is also
//! the one place that sees a peer which takes nothing: the same for every carrier, over HTTP/1 and HTTP/2.

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep};

use super::callers::Caller;
use super::seats::Seats;
use super::stats::Slot;
use crate::types::limits;

/// A TCP or Unix connection and its place among the counted connections, given back when it is dropped.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    slot: Slot,
    _caller: Option<Caller>,
    /// Its places among the connections of its users.
    _seats: Option<Seats>,
    patience: Option<Duration>,
    /// Runs while bytes wait and the peer takes none.
    blocked: Option<Pin<Box<Sleep>>>,
    /// When bytes last waited. Not long ago, the kernel does not judge the peer.
    full: Option<Instant>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// A TCP connection. It fails once bytes have waited for `patience` and the peer took none, or the peer has vanished.
    pub fn tcp(stream: TcpStream, slot: Slot, caller: Option<Caller>, patience: Duration) -> Self {
        let socket = Self { stream: Stream::Tcp(stream), slot, _caller: caller, _seats: None, patience: Some(patience), blocked: None, full: None };
        socket.let_kernel_judge(true);
        socket
    }

    /// A Unix connection. `patience` as above.
    pub fn unix(stream: UnixStream, slot: Slot, patience: Duration) -> Self {
        Self { stream: Stream::Unix(stream), slot, _caller: None, _seats: None, patience: Some(patience), blocked: None, full: None }
    }

    /// With places among the connections of its users, which end with it.
    pub fn seated(mut self, seats: Seats) -> Self {
        self._seats = Some(seats);
        self
    }

    /// For a WebSocket, whose own clock says goodbye before it lets go of a peer that takes nothing.
    pub fn watched_elsewhere(mut self) -> Self {
        (self.patience, self.blocked) = (None, None);
        self.let_kernel_judge(false);
        self
    }

    /// Whether the kernel ends the connection when the peer acknowledges nothing for [`limits::PEER_DEAD`]. Alone it would try for a quarter of
    /// an hour. It also counts the time for which a slow reader's window is as good as shut, though bytes go through: so a peer for which
    /// bytes waited lately is left to `patience`.
    fn let_kernel_judge(&self, judge: bool) {
        if let Stream::Tcp(stream) = &self.stream {
            // A kernel that does not know this option takes its time.
            let _ = SockRef::from(stream).set_tcp_user_timeout(judge.then_some(limits::PEER_DEAD));
        }
    }

    /// The outcome of a write, unless the peer has been blocked for too long.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        let Some(patience) = self.patience else { return written };
        if written.is_ready() {
            self.blocked = None;
            if self.full.is_some_and(|at| at.elapsed() >= limits::SOCKET_FULL_LATELY) {
                self.full = None;
                self.let_kernel_judge(true);
            }
            return written;
        }
        if self.full.replace(Instant::now()).is_none() {
            self.let_kernel_judge(false);
        }
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(patience)));
        if blocked.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.slot.slow_consumer();
        let why = format!("the peer took nothing for {} s", patience.as_secs_f32());
        Poll::Ready(Err(std::io::Error::new(ErrorKind::TimedOut, why)))
    }
}

macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = either!(this, stream => Pin::new(stream).poll_write(cx, buf));
        this.watch(cx, written)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = either!(this, stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::edge::Stats;

    const MOMENT: Duration = Duration::from_millis(40);

    fn pair(stats: &Stats) -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::unix(ours, stats.enter(1).unwrap(), MOMENT), theirs)
    }

    fn slow(stats: &Stats) -> f64 {
        stats.metrics().iter().find(|(name, ..)| *name == "tidelog_slow_consumers").unwrap().3
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up_and_counted_once() {
        let stats = Stats::default();
        let (mut socket, _theirs) = pair(&stats);
        let error = socket.write_all(&vec![0; 8 << 20]).await.unwrap_err();
        assert_eq!((error.kind(), slow(&stats)), (ErrorKind::TimedOut, 1.0));
    }

    #[tokio::test]
    async fn a_peer_that_takes_a_little_now_and_then_is_waited_for() {
        let stats = Stats::default();
        let (mut socket, mut theirs) = pair(&stats);
        let reader = tokio::spawn(async move {
            let (mut scrap, mut all) = (vec![0; 1 << 20], 0);
            while all < 8 << 20 {
                all += theirs.read(&mut scrap).await.unwrap();
                tokio::time::sleep(MOMENT / 8).await;
            }
        });
        socket.write_all(&vec![0; 8 << 20]).await.unwrap();
        reader.await.unwrap();
        assert_eq!(slow(&stats), 0.0);
    }

    #[tokio::test]
    async fn the_kernel_judges_a_peer_unless_bytes_waited_for_it_lately() {
        let stats = Stats::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        let mut socket = Socket::tcp(ours, stats.enter(1).unwrap(), None, Duration::from_secs(3600));
        let timeout = |socket: &Socket| match &socket.stream {
            Stream::Tcp(stream) => SockRef::from(stream).tcp_user_timeout().unwrap(),
            Stream::Unix(_) => None,
        };
        assert_eq!(timeout(&socket), Some(limits::PEER_DEAD));
        let written = tokio::time::timeout(3 * MOMENT, socket.write_all(&vec![0; 64 << 20])).await;
        assert!(written.is_err(), "nobody reads");
        assert_eq!(timeout(&socket).unwrap_or_default(), Duration::ZERO, "it is slow, not gone");
        tokio::spawn(async move { while matches!(theirs.read(&mut [0; 1 << 16]).await, Ok(n) if n > 0) {} });
        socket.write_all(b"x").await.unwrap();
        assert_eq!(timeout(&socket).unwrap_or_default(), Duration::ZERO, "it was slow a moment ago");
        socket.full = Instant::now().checked_sub(limits::SOCKET_FULL_LATELY);
        socket.write_all(b"x").await.unwrap();
        assert_eq!(timeout(&socket), Some(limits::PEER_DEAD));
        assert_eq!(timeout(&socket.watched_elsewhere()).unwrap_or_default(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_websocket_keeps_its_own_time() {
        let stats = Stats::default();
        let (socket, _theirs) = pair(&stats);
        let mut socket = socket.watched_elsewhere();
        let written = tokio::time::timeout(3 * MOMENT, socket.write_all(&vec![0; 8 << 20])).await;
        assert!(written.is_err(), "it waits on");
        assert_eq!(slow(&stats), 0.0);
    }
}
