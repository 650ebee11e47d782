//! gRPC messages as bytes: five bytes of prefix, then the message. Ours are read and written by `wire`, not by the library.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, Streaming};
use tonic::{Code, Status};

use crate::types::limits;

/// A flag (not compressed) and the length.
const PREFIX_BYTES: usize = 5;
/// What a call reserves for what comes in; it grows with what does.
const READ_BUFFER_BYTES: usize = 1024;

/// Puts one message behind what is there.
pub fn put(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0, PREFIX_BYTES);
    write(out);
    let len = (out.len() - start - PREFIX_BYTES) as u32; // messages are far below 4 GiB
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
}

/// One message of the generated types.
pub fn of(message: &impl prost::Message) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    put(&mut out, |out| message.encode(out).expect("a buffer that grows has room"));
    out.freeze()
}

/// Takes messages as they are.
struct Raw;

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(READ_BUFFER_BYTES, READ_BUFFER_BYTES)
    }
}

/// The messages of a call that may go on for as long as it likes.
pub fn stream(body: Body, max_bytes: usize) -> Streaming<Bytes> {
    Streaming::new_request(Raw, body, None, Some(max_bytes))
}

/// The one message of a call that has one.
///
/// # Errors
/// None, two, one over the limit, or one that comes slower than a request body may.
pub async fn single(body: Body, max_bytes: usize) -> Result<Bytes, Status> {
    single_within(body, max_bytes, limits::BODY_GRACE).await
}

async fn single_within(body: Body, max_bytes: usize, grace: Duration) -> Result<Bytes, Status> {
    let mut messages = stream(Body::new(Paced::new(body, grace)), max_bytes);
    let message = messages.message().await?.ok_or_else(|| Status::invalid_argument("The call brought no message; send one."))?;
    match messages.message().await? {
        None => Ok(message),
        Some(_) => Err(Status::invalid_argument("The call brought more than one message; send one.")),
    }
}

/// A request body that must bring [`limits::BODY_MIN_RATE`] after its grace. Most are there at once, and have no timer.
struct Paced {
    body: Body,
    /// From when on the rate counts.
    counts: Instant,
    received: u64,
    late: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn new(body: Body, grace: Duration) -> Self {
        Self { body, counts: Instant::now() + grace, received: 0, late: None }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| Status::new(Code::Cancelled, e.to_string()))));
        }
        let late = self.counts + Duration::from_secs(self.received / limits::BODY_MIN_RATE);
        let timer = self.late.get_or_insert_with(|| Box::pin(sleep_until(late)));
        if timer.deadline() != late {
            timer.as_mut().reset(late);
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Status::deadline_exceeded("The message came too slowly: send at least 1 KiB each second.")))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: &[&[u8]]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
        Body::from_stream(futures_util::stream::iter(chunks))
    }

    #[tokio::test]
    async fn what_is_put_is_read_again_however_it_is_cut() {
        let mut out = BytesMut::new();
        put(&mut out, |out| out.put_slice(b"hello"));
        assert_eq!(&out[..], b"\0\0\0\0\x05hello");
        for cut in 0..out.len() {
            let (a, b) = out.split_at(cut);
            assert_eq!(single(body(&[a, b]), 5).await.unwrap(), "hello");
        }
    }

    #[tokio::test]
    async fn a_call_with_one_message_brings_one_within_the_limit() {
        let message = |n: usize| of(&crate::wire::proto::v1::Auth { key: Some("x".repeat(n)), ticket: None });
        assert_eq!(single(body(&[&message(8)]), 10).await.unwrap().len(), 10);
        assert_eq!(single(body(&[&message(9)]), 10).await.unwrap_err().code(), Code::OutOfRange);
        assert_eq!(single(body(&[]), 10).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(single(body(&[&message(1), &message(1)]), 10).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(single(body(&[&message(8)[..9]]), 10).await.unwrap_err().code(), Code::Internal, "cut off");
        assert_eq!(single(body(&[b"\x01\0\0\0\x01x"]), 10).await.unwrap_err().code(), Code::Internal, "compressed");
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_is_given_up_after_the_grace() {
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(single_within(silent, 10, Duration::from_millis(1)).await.unwrap_err().code(), Code::DeadlineExceeded);
    }
}
