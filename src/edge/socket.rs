//! A connection's bytes, whichever listener it came from.
//!
//! One concrete type, so that an upgraded connection can be taken out of the HTTP library again without a second buffer. It is also
//! the one place that sees a peer which takes nothing: the same for every carrier, over HTTP/1 and HTTP/2, in the open and inside TLS.

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::callers::Caller;
use super::seats::Seats;
use super::stats::Slot;
use super::turn::Turn;
use crate::types::limits;

/// A connection as the carriers see it.
#[derive(Debug)]
pub enum Socket {
    /// As the bytes travel.
    Plain(Line),
    /// What is said inside TLS. Behind a box, so that connections without it are as small as ever.
    Tls(Box<TlsStream<Line>>),
}

/// A TCP or Unix connection and its place among the counted connections, given back when it is dropped.
#[derive(Debug)]
pub struct Line {
    stream: Stream,
    slot: Slot,
    caller: Option<Caller>,
    /// Its places among the connections of its users.
    _seats: Option<Seats>,
    patience: Option<Duration>,
    /// Runs while bytes wait and the peer takes none.
    blocked: Option<Pin<Box<Sleep>>>,
    /// When bytes last waited. Not long ago, the kernel does not judge the peer.
    full: Option<Instant>,
    /// How long it has been read without waiting for the peer: no peer keeps a thread to itself, whatever reads it.
    reading: Turn,
    /// The same of writing.
    writing: Turn,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// See [`Line::tcp`].
    pub fn tcp(stream: TcpStream, slot: Slot, caller: Option<Caller>, patience: Duration) -> Self {
        Self::Plain(Line::tcp(stream, slot, caller, patience))
    }

    /// See [`Line::unix`].
    pub fn unix(stream: UnixStream, slot: Slot, patience: Duration) -> Self {
        Self::Plain(Line::unix(stream, slot, patience))
    }

    /// With places among the connections of its users, which end with it.
    pub fn seated(mut self, seats: Seats) -> Self {
        self.line()._seats = Some(seats);
        self
    }

    /// For a WebSocket, whose own clock says goodbye before it lets go of a peer that takes nothing.
    pub fn watched_elsewhere(mut self) -> Self {
        self.line().watched_elsewhere();
        self
    }

    /// Where its bytes travel. Turns are taken out here, not there: what a handshake says last is written at once or never.
    fn line(&mut self) -> &mut Line {
        match self {
            Self::Plain(line) => line,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }
}

impl Line {
    /// A TCP connection. It fails once bytes have waited for `patience` and the peer took none, or the peer has vanished.
    pub fn tcp(stream: TcpStream, slot: Slot, caller: Option<Caller>, patience: Duration) -> Self {
        let line = Self::new(Stream::Tcp(stream), slot, caller, patience);
        line.let_kernel_judge(true);
        line
    }

    /// A Unix connection. `patience` as above.
    pub fn unix(stream: UnixStream, slot: Slot, patience: Duration) -> Self {
        Self::new(Stream::Unix(stream), slot, None, patience)
    }

    fn new(stream: Stream, slot: Slot, caller: Option<Caller>, patience: Duration) -> Self {
        Self { stream, slot, caller, _seats: None, patience: Some(patience), blocked: None, full: None, reading: Turn::default(), writing: Turn::default() }
    }

    fn watched_elsewhere(&mut self) {
        (self.patience, self.blocked) = (None, None);
        self.let_kernel_judge(false);
    }

    /// The first byte that the peer sends, which stays to be read; `None` when it sends nothing any more.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn first_byte(&self) -> Result<Option<u8>> {
        let mut byte = [0];
        let Stream::Tcp(stream) = &self.stream else { return Err(ErrorKind::Unsupported.into()) };
        Ok((stream.peek(&mut byte).await? == 1).then_some(byte[0]))
    }

    /// The peer has shown who it is: it does not count among the strangers of its address any more.
    pub fn is_known(&mut self) {
        self.caller = None;
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
        if written.is_pending() {
            self.writing.rest();
        }
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

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let read = either!(this, stream => Pin::new(stream).poll_read(cx, buf));
        if read.is_pending() {
            this.reading.rest();
        }
        read
    }
}

impl AsyncWrite for Line {
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

macro_rules! inside {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Socket::Plain($socket) => $call,
            Socket::Tls($socket) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(this.line().reading.poll(cx));
        inside!(this, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        ready!(this.line().writing.poll(cx));
        inside!(this, socket => Pin::new(socket).poll_write(cx, buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        ready!(this.line().writing.poll(cx));
        inside!(this, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        inside!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        inside!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::edge::Stats;

    const MOMENT: Duration = Duration::from_millis(40);

    fn pair(stats: &Stats) -> (Line, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Line::unix(ours, stats.enter(1).unwrap(), MOMENT), theirs)
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
        let mut socket = Line::tcp(ours, stats.enter(1).unwrap(), None, Duration::from_secs(3600));
        let timeout = |socket: &Line| match &socket.stream {
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
        socket.watched_elsewhere();
        assert_eq!(timeout(&socket).unwrap_or_default(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_peer_that_is_always_ready_does_not_keep_the_thread_to_itself() {
        let stats = Stats::default();
        let (line, mut theirs) = pair(&stats);
        let mut socket = Socket::Plain(line);
        theirs.write_all(b"more than is read").await.unwrap();
        socket.read_exact(&mut [0]).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        for write in [false, true] {
            let other = tokio::spawn(async {});
            let mut calls = 0;
            // The first call is within the turn or ends it, the second ends it.
            while !other.is_finished() {
                let n = if write { socket.write(b"x").await } else { socket.read(&mut [0]).await };
                calls += n.unwrap();
                assert!(calls <= 2, "the turn is over; writing: {write}");
                let over = Instant::now() + limits::TURN;
                while Instant::now() < over {}
            }
        }
    }

    #[tokio::test]
    async fn a_websocket_keeps_its_own_time() {
        let stats = Stats::default();
        let (mut socket, _theirs) = pair(&stats);
        socket.watched_elsewhere();
        let written = tokio::time::timeout(3 * MOMENT, socket.write_all(&vec![0; 8 << 20])).await;
        assert!(written.is_err(), "it waits on");
        assert_eq!(slow(&stats), 0.0);
    }

    #[test]
    fn tls_makes_no_connection_larger_than_its_line() {
        assert_eq!(size_of::<Socket>(), size_of::<Line>());
    }
}
