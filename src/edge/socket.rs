//! A connection's bytes, whichever listener it came from.
//!
//! One concrete type, so that an upgraded connection can be taken out of the HTTP library again without a second buffer. It is also
//! the one place that sees a peer which takes nothing: the same for every carrier, over HTTP/1 and HTTP/2.

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};

use super::callers::Caller;
use super::stats::Slot;

/// A TCP or Unix connection and its place among the counted connections, given back when it is dropped.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    slot: Slot,
    _caller: Option<Caller>,
    patience: Option<Duration>,
    /// Runs while bytes wait and the peer takes none.
    blocked: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// A TCP connection. It fails once bytes have waited for `patience` and the peer took none.
    pub fn tcp(stream: TcpStream, slot: Slot, caller: Option<Caller>, patience: Duration) -> Self {
        Self { stream: Stream::Tcp(stream), slot, _caller: caller, patience: Some(patience), blocked: None }
    }

    /// A Unix connection. `patience` as above.
    pub fn unix(stream: UnixStream, slot: Slot, patience: Duration) -> Self {
        Self { stream: Stream::Unix(stream), slot, _caller: None, patience: Some(patience), blocked: None }
    }

    /// For a WebSocket, whose own clock says goodbye before it lets go of a peer that takes nothing.
    pub fn watched_elsewhere(mut self) -> Self {
        (self.patience, self.blocked) = (None, None);
        self
    }

    /// The outcome of a write, unless the peer has been blocked for too long.
    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        let Some(patience) = self.patience else { return written };
        if written.is_ready() {
            self.blocked = None;
            return written;
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
    async fn a_websocket_keeps_its_own_time() {
        let stats = Stats::default();
        let (socket, _theirs) = pair(&stats);
        let mut socket = socket.watched_elsewhere();
        let written = tokio::time::timeout(3 * MOMENT, socket.write_all(&vec![0; 8 << 20])).await;
        assert!(written.is_err(), "it waits on");
        assert_eq!(slow(&stats), 0.0);
    }
}
