//! Frames on their way to one socket.
//!
//! The WebSocket library copies every frame into an output buffer that never shrinks and cannot be measured. Server frames are
//! unmasked, so we write the few header bytes ourselves and hand the payload to the socket as it is: shared, not copied.
//! The library still reads, and what it writes on its own (pongs, the close handshake) comes here through [`Tee`].

use std::collections::VecDeque;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fragments::{Fragments, TooManyFragments};

/// Payloads up to this size are copied behind their header: cheaper than a slice of their own.
const COPY_BYTES: usize = 1024;
/// Slices handed to the system at once.
const SLICES: usize = 32;

/// What a frame is (RFC 6455 section 5.2), with the bit that says it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 0x81,
    /// Bytes.
    Binary = 0x82,
    /// Are you there?
    Ping = 0x89,
}

/// Bytes waiting for the socket, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Chunks, and whether each begins a frame.
    queue: VecDeque<(Bytes, bool)>,
    /// Small frames behind the queue.
    tail: BytesMut,
    /// Bytes in both.
    len: usize,
    /// The first chunk has been sent in part.
    partial: bool,
    /// The socket may hold bytes that it was given (TLS): they are on their way only when it says so.
    unflushed: bool,
}

impl Outbox {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing waiting, here or in the socket?
    pub fn is_empty(&self) -> bool {
        self.len == 0 && !self.unflushed
    }

    /// Adds a frame.
    pub fn push(&mut self, opcode: Opcode, payload: Bytes) {
        let (header, header_len) = header(opcode, payload.len());
        self.len += header_len + payload.len();
        self.tail.extend_from_slice(&header[..header_len]);
        if payload.len() <= COPY_BYTES {
            self.tail.extend_from_slice(&payload);
        } else {
            self.queue.push_back((self.tail.split().freeze(), true));
            self.queue.push_back((payload, false));
        }
    }

    /// Adds bytes that are whole frames already.
    fn push_framed(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Forgets frames of which nothing was sent, so that a close frame gets through to a reader that comes back late.
    pub fn drop_unsent(&mut self) {
        let keep = match self.queue.front() {
            Some(_) if self.partial => 1 + self.queue.iter().skip(1).take_while(|(_, begins)| !begins).count(),
            Some(_) => 0,
            None if self.partial => return, // small frames; one of them is half way
            None => 0,
        };
        self.queue.truncate(keep);
        self.tail.clear();
        self.len = self.queue.iter().map(|(chunk, _)| chunk.len()).sum();
    }

    /// Writes as much as the socket takes. `Ready(n)`: everything is sent, `n` bytes in this call; `Pending` with progress in `sent`.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_drain<S: AsyncWrite + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>, sent: &mut usize) -> Poll<Result<()>> {
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (chunk, _) in self.queue.iter().take(SLICES - 1) {
                slices[count] = IoSlice::new(chunk);
                count += 1;
            }
            if self.queue.len() < SLICES {
                slices[count] = IoSlice::new(&self.tail);
                count += 1;
            }
            let n = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..count]))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            *sent += n;
            self.unflushed = true;
            self.advance(n);
        }
        if self.tail.capacity() > 4 * COPY_BYTES {
            self.tail = BytesMut::new(); // an idle connection keeps no large buffer
        }
        ready!(Pin::new(socket).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some((chunk, _)) = self.queue.front_mut() {
            if n < chunk.len() {
                chunk.advance(n);
                self.partial = self.partial || n > 0;
                return;
            }
            n -= chunk.len();
            // A header chunk that is out leaves its payload half way.
            self.queue.pop_front();
            self.partial = self.queue.front().is_some_and(|(_, begins)| !begins);
        }
        self.tail.advance(n);
        self.partial = n > 0 && !self.tail.is_empty() || self.partial && !self.tail.is_empty();
    }
}

/// The header of an unmasked frame, and its length.
fn header(opcode: Opcode, len: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = opcode as u8;
    match len {
        0..=125 => {
            header[1] = len as u8;
            (header, 2)
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(len as u64).to_be_bytes());
            (header, 10)
        }
    }
}

/// The socket as the WebSocket library sees it: it reads from the peer and writes into the outbox.
#[derive(Debug)]
pub struct Tee<S> {
    /// The peer.
    pub socket: S,
    /// What is on its way to it.
    pub outbox: Outbox,
    /// What comes from it.
    pub fragments: Fragments,
    /// A message had too many of them: nothing more is read.
    pub crumbled: bool,
    /// Bytes that came since this was last set to 0.
    pub received: u64,
    /// So many bytes more may come: the peer has not said yet who it is. `None` = as many as there are.
    pub allowance: Option<usize>,
}

/// Why reading ends before the peer has said who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuchUnheard;

impl std::fmt::Display for TooMuchUnheard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "The first message has more than {} bytes; before auth that is the limit.", crate::types::limits::MESSAGE_MAX_BYTES_PRE_AUTH)
    }
}

impl std::error::Error for TooMuchUnheard {}

impl<S> Tee<S> {
    /// A socket that has sent `early` already.
    pub fn new(socket: S, early: &[u8]) -> Self {
        let mut fragments = Fragments::default();
        let crumbled = fragments.pass(early).is_err();
        Self { socket, outbox: Outbox::default(), fragments, crumbled, received: 0, allowance: None }
    }
}

impl<S: AsyncWrite + Unpin> Tee<S> {
    /// See [`Outbox::poll_drain`].
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, sent: &mut usize) -> Poll<Result<()>> {
        self.outbox.poll_drain(&mut self.socket, cx, sent)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tee<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.crumbled {
            return Poll::Ready(Err(std::io::Error::other(TooManyFragments)));
        }
        if this.allowance == Some(0) {
            return Poll::Ready(Err(std::io::Error::other(TooMuchUnheard)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        // One read may go over it: by no more than the buffer that it fills.
        this.allowance = this.allowance.map(|left| left.saturating_sub(buf.filled().len() - before));
        this.received += (buf.filled().len() - before) as u64;
        // What is whole before the frame that is too many is heard all the same.
        if let Err(good) = this.fragments.pass(&buf.filled()[before..]) {
            this.crumbled = true;
            buf.set_filled(before + good);
            if good == 0 {
                return Poll::Ready(Err(std::io::Error::other(TooManyFragments)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Unpin> AsyncWrite for Tee<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.get_mut().outbox.push_framed(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket};

    /// Takes at most `step` bytes per write.
    struct Slow {
        got: Vec<u8>,
        step: usize,
        room: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
            let n = buf.len().min(self.step).min(self.room);
            if n == 0 {
                return Poll::Pending;
            }
            self.room -= n;
            self.got.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
            let first = bufs.iter().find(|b| !b.is_empty()).expect("something to write");
            self.poll_write(cx, first)
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Takes everything, and has it out when it is asked the second time.
    #[derive(Default)]
    struct Holding {
        held: bool,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
            self.held = true;
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            if std::mem::take(&mut self.held) { Poll::Pending } else { Poll::Ready(Ok(())) }
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_the_socket_holds_is_not_out() {
        let (mut outbox, mut socket) = (Outbox::default(), Holding::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        outbox.push(Opcode::Text, Bytes::from_static(b"x"));
        assert!(outbox.poll_drain(&mut socket, &mut cx, &mut 0).is_pending());
        assert_eq!((outbox.len(), outbox.is_empty()), (0, false), "or nobody would ask the socket again");
        assert!(outbox.poll_drain(&mut socket, &mut cx, &mut 0).is_ready());
        assert!(outbox.is_empty());
    }

    fn drain(outbox: &mut Outbox, socket: &mut Slow) -> Poll<()> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        outbox.poll_drain(socket, &mut cx, &mut 0).map(|r| r.unwrap())
    }

    fn read_all(bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut reader = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Client, None);
        std::iter::from_fn(|| reader.read().ok()).map(|m: Message| m.into_data().to_vec()).collect()
    }

    #[test]
    fn frames_of_every_header_length_arrive_whole_and_in_order() {
        for step in [7, 4096, usize::MAX] {
            let sizes = [0, 1, 125, 126, COPY_BYTES, COPY_BYTES + 1, 65535, 65536, 3];
            let mut outbox = Outbox::default();
            for (i, size) in sizes.iter().enumerate() {
                outbox.push(Opcode::Binary, vec![i as u8; *size].into());
            }
            let mut socket = Slow { got: Vec::new(), step, room: usize::MAX };
            assert!(drain(&mut outbox, &mut socket).is_ready());
            assert_eq!((outbox.len(), outbox.is_empty()), (0, true));
            let expected: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, size)| vec![i as u8; *size]).collect();
            assert_eq!(read_all(socket.got), expected, "step {step}");
        }
    }

    #[test]
    fn unsent_frames_can_be_dropped_at_any_byte_and_the_stream_stays_well_formed() {
        let frames = || {
            let mut outbox = Outbox::default();
            for (i, size) in [10usize, 2000, 3000, 20].into_iter().enumerate() {
                outbox.push(Opcode::Binary, vec![i as u8; size].into());
            }
            outbox
        };
        for sent in 0..frames().len() {
            let mut outbox = frames();
            let mut socket = Slow { got: Vec::new(), step: usize::MAX, room: sent };
            assert!(drain(&mut outbox, &mut socket).is_pending());
            outbox.drop_unsent();
            outbox.push(Opcode::Text, Bytes::from_static(b"bye"));
            socket.room = usize::MAX;
            assert!(drain(&mut outbox, &mut socket).is_ready());
            let got = read_all(socket.got);
            assert_eq!(got.last().map(Vec::as_slice), Some(&b"bye"[..]), "after {sent} bytes");
            for (i, frame) in got[..got.len() - 1].iter().enumerate() {
                assert!(frame.iter().all(|b| *b == i as u8), "after {sent} bytes");
            }
        }
    }
}
