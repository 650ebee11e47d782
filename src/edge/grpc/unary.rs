//! The calls of service `Broker` with one answer: decode, call once, encode.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::call::{self, Call};
use super::message;
use crate::types::request::{AckRequest, PullRequest};
use crate::types::{Error, IdempotencyKey, Result, StreamName, SubscriptionName, limits};
use crate::wire::proto::{answer, request, v1};

/// `Append`. The key of P-19 is metadata, as it is a header over REST.
///
/// # Errors
/// See [`crate::broker::Broker::append`] and [`crate::broker::Broker::append_once`].
pub async fn append(call: &Call, headers: &HeaderMap, message: Bytes) -> Result<Bytes> {
    let (req, asked) = request::append(&message)?;
    drop(message);
    let key = call::text(headers, "idempotency-key")?.map(IdempotencyKey::parse).transpose()?;
    let Some(key) = key else {
        let reply = call.broker().append(call.who(), asked).await?;
        return Ok(message::of(&answer::appended(req, &reply)));
    };
    let (reply, until) = call.broker().append_once(call.who(), asked, &key).await?;
    Ok(message::of(&v1::Appended { dedup_until_us: Some(until.0), ..answer::appended(req, &reply) }))
}

/// `Ack`, by epoch or by token.
///
/// # Errors
/// See [`crate::broker::Broker::ack`].
pub async fn ack(call: &Call, message: Bytes) -> Result<Bytes> {
    let m: v1::AckRequest = request::read("AckRequest", &message)?;
    let (stream, subscription, level) = (StreamName::parse(&m.stream)?, SubscriptionName::parse(&m.subscription)?, request::ack_level(m.level));
    let reply = match (m.epoch, m.ack_token, m.offset) {
        (Some(epoch), None, Some(offset)) => call.broker().ack(call.who(), AckRequest { stream, subscription, epoch, offset, level }).await?,
        (Some(_), None, None) => return Err(Error::bad("offset", "offset is missing; name the last event that is done.")),
        (None, Some(token), offset) => call.broker().ack_by_token(call.who(), &stream, &subscription, &token, offset, level).await?,
        _ => return Err(Error::bad("epoch", "An ack needs exactly one of epoch and ack_token.")),
    };
    Ok(message::of(&answer::acked(0, &reply)))
}

/// `OpenProducer`.
///
/// # Errors
/// See [`crate::broker::Broker::open_producer`].
pub async fn open_producer(call: &Call, message: Bytes) -> Result<Bytes> {
    let (req, asked) = request::open_producer(&message)?;
    let reply = call.broker().open_producer(call.who(), asked).await?;
    Ok(message::of(&answer::producer_opened(req, &reply)))
}

/// `Commit`.
///
/// # Errors
/// See [`crate::broker::Broker::commit`].
pub async fn commit(call: &Call, message: Bytes) -> Result<Bytes> {
    let (req, asked) = request::commit(&message)?;
    drop(message);
    let reply = call.broker().commit(call.who(), asked).await?;
    Ok(message::of(&answer::committed(req, &reply)))
}

/// `Pull`.
///
/// # Errors
/// See [`crate::broker::Broker::pull`].
pub async fn pull(call: &Call, message: Bytes) -> Result<Bytes> {
    let m: v1::PullRequest = request::read("PullRequest", &message)?;
    let most = |field: &str, asked: u64, default: u64, max: u64| match asked {
        0 => Ok(default),
        n if n <= max => Ok(n),
        n => Err(Error::bad(field, format!("{field} is {n}; give 1 to {max}, or 0 for {default}."))),
    };
    let longest = limits::LONG_POLL.as_secs();
    let asked = PullRequest {
        stream: StreamName::parse(&m.stream)?,
        subscription: SubscriptionName::parse(&m.subscription)?,
        epoch: m.epoch,
        from: m.from.map(|from| request::start("from", &from)).transpose()?,
        takeover: request::takeover(m.takeover),
        on_gap: request::on_gap(m.on_gap),
        log_epoch: m.log_epoch,
        max_events: most("max_events", m.max_events, limits::READ_DEFAULT_EVENTS as u64, limits::READ_MAX_EVENTS as u64)?,
        max_bytes: most("max_bytes", m.max_bytes, limits::FRAME_MAX_BYTES, limits::READ_MAX_BYTES as u64)?,
        wait: std::time::Duration::from_secs(most("wait_s", m.wait_s.into(), 0, longest)?),
    };
    let pulled = call.broker().pull(call.who(), asked).await?;
    let gap = pulled.gap.map(|(from, to, reason)| v1::Gap { sub: 0, from, to, reason: reason.as_str().into() });
    let head = v1::Pulled {
        stream_id: pulled.stream_id.0,
        epoch: pulled.epoch,
        log_epoch: pulled.log_epoch,
        ack_token: pulled.ack_token,
        gap,
        next: pulled.next,
        lag: Some(answer::lag(&pulled.lag)),
        batches: Vec::new(),
    };
    let mut out = BytesMut::new();
    message::put(&mut out, |out| answer::put_batches(out, &head, &pulled.slices));
    Ok(out.freeze())
}
