//! Frames as protobuf (`proto/tidelog/v1/session.proto`): subprotocol `tidelog.v1.proto`, one frame per binary message.
//!
//! Small frames go through the generated types. Events do not: appended events are taken as raw bytes, and delivered batches are
//! the stored bytes behind a prefix.

mod client;
mod server;
mod strict;

pub use client::{decode_client, encode_client};
pub use server::{decode_server, encode_server};

/// Generated from `proto/tidelog/v1`. For gRPC; frames use [`decode_client`] and its kin.
#[allow(missing_docs, clippy::all, reason = "generated; the proto files have the comments")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tidelog.v1.rs"));
}

/// The descriptor set of all proto files, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
