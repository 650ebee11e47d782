//! Frames as protobuf (`proto/tidelog/v1/session.proto`): subprotocol `tidelog.v1.proto`, one frame per binary message. gRPC calls
//! take their parts ([`request`], [`answer`]).
//!
//! Small frames go through the generated types. Events do not: appended events are taken as raw bytes, and delivered batches are
//! the stored bytes behind a prefix.

mod client;
mod server;
mod strict;

pub use client::{decode_client, encode_client};
pub use server::{decode_server, encode_server};

/// Requests and their parts one by one, for calls that carry no frame.
pub mod request {
    pub use super::client::{ack_level, append, commit, on_gap, open_producer, read, start, subscribe, takeover};
}

/// Answers one by one.
pub mod answer {
    pub use super::server::{acked, appended, committed, error_message as error, lag, producer_opened, put_batches, put_server};
}

/// Generated from `proto/tidelog/v1`. For gRPC; frames use [`decode_client`] and its kin.
#[allow(missing_docs, clippy::all, reason = "generated; the proto files have the comments")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tidelog.v1.rs"));
}

/// The descriptor set of package `tidelog.v1`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
