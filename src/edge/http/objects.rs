//! The JSON forms of the broker's objects (`surfaces.md` 5.3 and 5.5).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::broker::{OperationInfo, StreamInfo, StreamStatus, SubscriptionInfo};
use crate::types::id::OPERATOR_USER;
use crate::types::reply::{Appended, Lag};
use crate::types::{OperationId, StreamName, SubscriptionName};

/// Address of a stream.
pub fn stream_url(name: &StreamName) -> String {
    format!("/v1/streams/{name}")
}

/// Address of a subscription.
pub fn subscription_url(stream: &StreamName, name: &SubscriptionName) -> String {
    format!("/v1/streams/{stream}/subscriptions/{name}")
}

/// Address of an operation.
pub fn operation_url(id: OperationId) -> String {
    format!("/v1/operations/{id}")
}

fn user_name(id: u64) -> String {
    if id == OPERATOR_USER { "operator".to_owned() } else { format!("user-{id}") }
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
        let (status, status_code) = stream_status(&info);
        Self {
            name: info.name.as_str().to_owned(),
            description: info.description,
            metadata: info.metadata,
            event_max_bytes: info.event_max_bytes,
            durability: "fsync",
            closed: info.closed,
            id: info.id.0,
            uuid: info.uuid,
            owner: format!("/v1/users/{}", user_name(info.owner)),
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
        }
    }
}

/// Word and number for what a stream is doing.
pub fn stream_status(info: &StreamInfo) -> (&'static str, u32) {
    match info.status {
        StreamStatus::Ready => ("Ready", 113),
        StreamStatus::Stopping => ("Stopping", 107),
    }
}

/// Word and number for a subscription: has it a reader?
pub fn subscription_status(info: &SubscriptionInfo) -> (&'static str, u32) {
    if info.attached { ("Running", 103) } else { ("Stopped", 102) }
}

/// Word for an operation's number.
pub fn operation_status(info: &OperationInfo) -> &'static str {
    match info.status_code {
        100 => "Operation created",
        103 => "Running",
        104 => "Canceling",
        105 => "Pending",
        200 => "Success",
        401 => "Canceled",
        _ => "Failure",
    }
}

/// A lag.
pub fn lag(lag: &Lag) -> Value {
    json!({"events": lag.events, "bytes": lag.bytes, "seconds": lag.seconds})
}

/// A subscription: writable fields first.
pub fn subscription(info: &SubscriptionInfo) -> Value {
    let (status, status_code) = subscription_status(info);
    json!({
        "name": info.name.as_str(), "stream": info.stream.as_str(), "mode": "exclusive", "filter": null,
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
    let status = operation_status(info);
    json!({
        "id": info.id.to_string(), "class": "task", "description": info.description, "command": info.command,
        "created_at": info.created.to_string(), "updated_at": info.updated.to_string(),
        "status": status, "status_code": info.status_code,
        "resources": {"streams": [format!("/v1/streams/{}", info.stream)]}, "metadata": {}, "may_cancel": false,
        "err": info.err, "err_code": info.err_code, "location": "node-1", "requestor": {"username": user_name(info.requestor)},
    })
}

/// Answer to an append.
pub fn appended(reply: &Appended) -> Value {
    json!({
        "first_offset": reply.first_offset, "last_offset": reply.last_offset, "count": reply.count,
        "duplicate": reply.duplicate, "durability": "fsync",
    })
}
