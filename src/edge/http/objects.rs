//! The JSON forms of the broker's objects (`surfaces.md` 5.3 and 5.5).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::broker::{CLASS, DURABILITY, MODE, OperationInfo, ProducerInfo, StreamInfo, SubscriptionInfo};
use crate::types::reply::{Acked, Appended, Committed, Lag, ProducerOpened};
use crate::types::{OperationId, ProducerId, StreamName, SubscriptionName, TimeUs};

/// Address of a stream.
pub fn stream_url(name: &StreamName) -> String {
    format!("/v1/streams/{name}")
}

/// Address of a subscription.
pub fn subscription_url(stream: &StreamName, name: &SubscriptionName) -> String {
    format!("/v1/streams/{stream}/subscriptions/{name}")
}

/// Address of the producers of a stream, or of the broker-wide ones.
pub fn producers_url(stream: Option<&StreamName>) -> String {
    stream.map_or_else(|| "/v1/producers".to_owned(), |stream| format!("{}/producers", stream_url(stream)))
}

/// Address of a producer.
pub fn producer_url(stream: Option<&StreamName>, id: &ProducerId) -> String {
    format!("{}/{id}", producers_url(stream))
}

/// Address of an operation.
pub fn operation_url(id: OperationId) -> String {
    format!("/v1/operations/{id}")
}

/// A stream: writable fields first.
#[derive(Serialize)]
pub struct Stream {
    name: String,
    description: String,
    metadata: BTreeMap<String, String>,
    event_max_bytes: u64,
    durability: &'static str,
    closed: bool,
    id: u64,
    uuid: String,
    owner: String,
    created_at: String,
    status: &'static str,
    status_code: u32,
    log_epoch: u64,
    state: StreamState,
    /// Only where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<Vec<Value>>,
}

impl Stream {
    /// With the objects of its subscriptions.
    pub fn with(mut self, subscriptions: &[SubscriptionInfo]) -> Self {
        self.subscriptions = Some(subscriptions.iter().map(subscription).collect());
        self
    }
}

#[derive(Serialize)]
struct StreamState {
    first_offset: u64,
    next_offset: u64,
    count: u64,
    bytes: u64,
    last_event_at: Option<String>,
}

impl From<StreamInfo> for Stream {
    fn from(info: StreamInfo) -> Self {
        let (status, status_code) = info.status.told();
        Self {
            name: info.name.as_str().to_owned(),
            description: info.description,
            metadata: info.metadata,
            event_max_bytes: info.event_max_bytes,
            durability: DURABILITY,
            closed: info.closed,
            id: info.id.0,
            uuid: info.uuid,
            owner: format!("/v1/users/{}", info.owner_name),
            created_at: info.created.to_string(),
            status,
            status_code,
            log_epoch: info.log_epoch,
            state: StreamState {
                first_offset: info.first_offset,
                next_offset: info.next_offset,
                count: info.next_offset.saturating_sub(info.first_offset),
                bytes: info.bytes,
                last_event_at: info.last_event_at.map(|t| t.to_string()),
            },
            subscriptions: None,
        }
    }
}

/// A lag.
pub fn lag(lag: &Lag) -> Value {
    json!({"events": lag.events, "bytes": lag.bytes, "seconds": lag.seconds})
}

/// A subscription: writable fields first.
pub fn subscription(info: &SubscriptionInfo) -> Value {
    let (status, status_code) = info.status();
    json!({
        "name": info.name.as_str(), "stream": info.stream.as_str(), "mode": MODE, "filter": info.filter,
        "ack_timeout_s": info.ack_timeout_s, "max_in_flight": info.max_in_flight, "expires_s": info.expires_s,
        "id": info.id.0, "created_at": info.created.to_string(),
        "acked_offset": info.acked_offset(), "next": info.next, "epoch": info.epoch, "lag": lag(&info.lag),
        "status": status, "status_code": status_code,
    })
}

/// A subscription's position.
pub fn cursor(info: &SubscriptionInfo) -> Value {
    json!({
        "stream": info.stream.as_str(), "subscription": info.name.as_str(),
        "acked_offset": info.acked_offset(), "next": info.next, "epoch": info.epoch, "lag": lag(&info.lag),
    })
}

/// An operation.
pub fn operation(info: &OperationInfo) -> Value {
    let status = info.status();
    let resources = if info.stream.is_empty() { json!({}) } else { json!({"streams": [format!("/v1/streams/{}", info.stream)]}) };
    json!({
        "id": info.id.to_string(), "class": CLASS, "description": info.description, "command": info.command,
        "created_at": info.created.to_string(), "updated_at": info.updated.to_string(),
        "status": status, "status_code": info.status_code,
        "resources": resources, "metadata": {}, "may_cancel": info.may_cancel(),
        "err": info.err, "err_code": info.err_code, "location": "node-1", "requestor": {"username": info.requestor_name},
    })
}

/// A producer and where it stands.
pub fn producer(info: &ProducerInfo) -> Value {
    json!({
        "producer": info.producer.as_str(), "stream": info.stream.as_ref().map(StreamName::as_str),
        "epoch": info.epoch, "last_seq": info.last_seq, "last_used_at": info.last_used.to_string(),
    })
}

/// Answer to an append, and until when its idempotency key is remembered, if it had one.
pub fn appended(reply: &Appended, dedup_until: Option<TimeUs>) -> Value {
    let mut object = json!({
        "first_offset": reply.first_offset, "last_offset": reply.last_offset, "count": reply.count,
        "duplicate": reply.duplicate, "durability": "fsync",
    });
    if let Some(until) = dedup_until {
        object["dedup_until"] = until.to_string().into();
    }
    object
}

/// Answer to an ack.
pub fn acked(reply: &Acked) -> Value {
    json!({"acked_offset": reply.offset, "next": reply.next, "stale": reply.stale})
}

/// Answer to opening a producer.
pub fn producer_opened(reply: &ProducerOpened) -> Value {
    json!({
        "producer": reply.producer.as_str(), "epoch": reply.epoch, "last_seq": reply.last_seq, "next_offset": reply.next_offset,
        "stream_id": reply.stream_id.map(|id| id.0), "log_epoch": reply.log_epoch, "origin": reply.origin.as_str(),
    })
}

/// Answer to a commit.
pub fn committed(reply: &Committed) -> Value {
    let acks = reply.acks.iter().map(|a| json!({"stream": a.stream.as_str(), "subscription": a.subscription.as_str(), "offset": a.offset, "next": a.next}));
    let appends =
        reply.appends.iter().map(|a| json!({"stream": a.stream.as_str(), "first_offset": a.first_offset, "last_offset": a.last_offset, "count": a.count}));
    json!({"acks": acks.collect::<Vec<_>>(), "appends": appends.collect::<Vec<_>>(), "duplicate": reply.duplicate})
}
