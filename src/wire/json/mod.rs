//! Frames as JSON text: subprotocol `tidelog.v1.json`, one object per text message, `t` names the variant (`formats.md` section 3).
//!
//! Reading is strict on the broker's side and lenient on the client's. [`event`](event_json) is the one JSON form of an event, which
//! frames, REST, Server-Sent Events and the command line share; [`body`](parse_append_json) reads what REST calls send.

mod body;
mod client;
mod event;
mod object;
mod server;
pub(super) mod write;

pub use body::{
    AppendBody, Lines, NdjsonReader, in_its_line, parse_append_body, parse_append_json, parse_commit_json, parse_events_json, parse_ndjson, push_data_line,
    push_event_line,
};
pub use client::{decode_client, decode_client_single, encode_client};
pub use event::{each_event_json, event_json, events_json, received_events, single_line};
pub(super) use server::subscribed_members;
pub use server::{decode_server, encode_server, encode_server_single};
