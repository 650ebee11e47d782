//! The calls of service `Broker` with many answers: one reader (`Subscribe`), and events without a subscription (`Read`).
//!
//! Both ask the broker only when HTTP/2 asks for the next message. So its windows are the back-pressure, a client that reads nothing
//! costs one message and what was read ahead, and dropping the call detaches.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::Status;

use super::call::Call;
use super::{message, status};
use crate::broker::{Delivery, ReadFrom, ReadReply, ReadRequest, Session};
use crate::types::request::{Credit, Start};
use crate::types::{Code, Error, Result, Slice, StreamId, StreamName, limits};
use crate::wire::frame::ServerFrame;
use crate::wire::proto::{answer, request, v1};

/// Event data in one message of `Read`: four frames' worth, well below what clients accept unasked (4 MiB).
const MESSAGE_BYTES: u64 = 4 * limits::FRAME_TARGET_BYTES as u64;

/// `Subscribe`: attaches the reader; its frames follow.
///
/// # Errors
/// C-1 … C-6; see [`crate::broker::Broker::open_session`].
pub async fn subscribe(call: &Call, message: Bytes) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>> {
    let (sub, mut asked) = request::subscribe(&message)?;
    if asked.subscription.is_none() {
        asked.credit.get_or_insert(Credit { events: u64::MAX, bytes: u64::MAX });
    }
    let (reply, session) = call.broker().open_session(call.who(), asked).await?;
    let reader = Reader { stream: reply.stream.clone(), sub, session, id: call.id().to_owned(), _slot: call.face().stats().enter_grpc_stream() };
    let first = frame(&ServerFrame::Subscribed { sub, reply });
    Ok(unfold((Some(first), Some(reader)), |(first, reader)| async move {
        let mut reader = reader?;
        if let Some(first) = first {
            return Some((Ok(first), (None, Some(reader))));
        }
        match reader.next().await {
            Ok(next) => Some((Ok(next), (None, Some(reader)))),
            Err(end) => Some((Err(end), (None, None))),
        }
    }))
}

struct Reader {
    stream: StreamName,
    sub: u64,
    session: Session,
    id: String,
    _slot: crate::edge::stats::GrpcSlot,
}

impl Reader {
    async fn next(&mut self) -> Result<Bytes, Status> {
        let sub = self.sub;
        Ok(frame(&match self.session.next().await.map_err(|error| status::of(error, &self.id))? {
            Delivery::Events { slices, lag } => ServerFrame::Events { sub, stream: self.stream.clone(), slices, lag },
            Delivery::Live { next_offset } => ServerFrame::Live { sub, next_offset },
            Delivery::Progress { next } => ServerFrame::Progress { sub, next },
            Delivery::Gap { from, to, reason } => ServerFrame::Gap { sub, from, to, reason },
        }))
    }
}

fn frame(frame: &ServerFrame) -> Bytes {
    let mut out = BytesMut::new();
    message::put(&mut out, |out| answer::put_server(out, frame));
    out.freeze()
}

/// `Read`: the first page decides whether the call begins at all; the others are read as the client takes them.
///
/// # Errors
/// `not_found`, `offset_trimmed`, `offset_beyond_end`; see [`crate::broker::Broker::read`].
pub async fn read(call: Call, message: Bytes) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send, Status> {
    let begun = async {
        let m: v1::ReadRequest = request::read("ReadRequest", &message)?;
        let from = match &m.position {
            None => ReadFrom::At(Start::Earliest),
            Some(v1::read_request::Position::From(from)) => ReadFrom::At(request::start("from", from)?),
            Some(v1::read_request::Position::After(after)) => ReadFrom::After(*after),
        };
        if m.limit == Some(0) {
            return Err(Error::bad("limit", "limit is 0; leave it out, or ask for one event at least."));
        }
        let mut pages = Pages { stream: StreamName::parse(&m.stream)?, left: m.limit.unwrap_or(u64::MAX), follow: m.follow, ..Pages::default() };
        pages.load(&call, from, std::time::Duration::ZERO).await?;
        Ok(pages)
    };
    let pages = begun.await.map_err(|error| call.status(error))?;
    let slot = call.face().stats().enter_grpc_stream();
    Ok(unfold(Some((pages, call, slot)), |state| async move {
        let (mut pages, call, slot) = state?;
        match pages.next(&call).await {
            Ok(Some(next)) => Some((Ok(next), Some((pages, call, slot)))),
            Ok(None) => None,
            Err(error) => Some((Err(call.status(error)), None)),
        }
    }))
}

/// What was read and not sent yet, and where to go on.
struct Pages {
    stream: StreamName,
    /// What the name meant at first.
    id: Option<StreamId>,
    slices: VecDeque<Slice>,
    first_offset: u64,
    next_offset: u64,
    /// After everything that was read.
    position: u64,
    /// Events the client still wants.
    left: u64,
    follow: bool,
    /// Something was sent: a read of nothing tells at least where the stream stands.
    told: bool,
}

impl Default for Pages {
    fn default() -> Self {
        let stream = StreamName::stored("");
        Self { stream, id: None, slices: VecDeque::new(), first_offset: 0, next_offset: 0, position: 0, left: 0, follow: false, told: false }
    }
}

impl Pages {
    async fn load(&mut self, call: &Call, from: ReadFrom, wait: std::time::Duration) -> Result<()> {
        let limit = self.left.min(limits::READ_MAX_EVENTS as u64) as usize;
        let reply = call.broker().read(call.who(), &self.stream, ReadRequest { from, limit, wait }).await?;
        let ReadReply { stream, slices, first_offset, next_offset, after, .. } = reply;
        if *self.id.get_or_insert(stream) != stream {
            let why = format!("Stream {} is a new stream (id {stream}); the one that was read was deleted.", self.stream);
            return Err(Error::new(Code::StreamReplaced, why).detail("stream_id", stream.0));
        }
        self.left -= slices.iter().map(Slice::count).sum::<u64>().min(self.left);
        self.slices = slices.into();
        (self.first_offset, self.next_offset, self.position) = (first_offset, next_offset, after.map_or(0, |after| after + 1));
        Ok(())
    }

    /// The next message; `None` at the end.
    async fn next(&mut self, call: &Call) -> Result<Option<Bytes>> {
        while self.slices.is_empty() && self.told {
            let at_end = self.position >= self.next_offset;
            if self.left == 0 || (at_end && !self.follow) {
                return Ok(None);
            }
            if call.face().draining().is_cancelled() {
                let why = "The broker is stopping; read on from `next` in a second.";
                return Err(Error::new(Code::Unavailable, why).detail("retry_after_s", 1));
            }
            let wait = if at_end { limits::LONG_POLL } else { std::time::Duration::ZERO };
            self.load(call, ReadFrom::At(Start::Offset(self.position)), wait).await?;
        }
        self.told = true;
        Ok(Some(self.cut()))
    }

    /// Takes the slices of one message.
    fn cut(&mut self) -> Bytes {
        let (mut slices, mut bytes) = (Vec::new(), 0);
        while let Some(slice) = self.slices.pop_front() {
            let front = slice.front(u64::MAX, limits::FRAME_MAX_BYTES);
            if let Some(rest) = slice.after(front.to()) {
                self.slices.push_front(rest);
            }
            bytes += front.data_bytes();
            slices.push(front);
            if bytes >= MESSAGE_BYTES {
                break;
            }
        }
        let next = slices.last().map_or(self.position, Slice::to);
        let head = v1::ReadResponse { first_offset: self.first_offset, next_offset: self.next_offset, next, batches: Vec::new() };
        let mut out = BytesMut::new();
        message::put(&mut out, |out| answer::put_batches(out, &head, &slices));
        out.freeze()
    }
}
