//! Tidelog: a realtime push event-stream broker. A durable log keeps each stream's events at dense offsets; subscribers
//! follow with acknowledged cursors, so that each event takes effect exactly once.
//!
//! The layers and who may know whom: `docs/ARCHITECTURE.md`. The feature `server` holds the broker, `client` the client library.

pub mod types;
pub mod wire;

#[cfg(feature = "server")]
pub mod log;

#[cfg(feature = "server")]
pub mod broker;

#[cfg(feature = "server")]
pub mod edge;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "client")]
pub mod cli;
