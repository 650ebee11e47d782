//! Bytes into types and back. Nothing here decides anything.
//!
//! [`frame`] names everything a client can say and hear; [`json`] and [`proto`] are its two forms, which share the checks in
//! `convert`; [`sse`] is what `EventSource` reads; [`code`] is the one table from error codes to the numbers of each carrier; [`error`]
//! is the form of an error in JSON.

pub mod code;
mod convert;
pub mod error;
pub mod frame;
pub mod json;
pub mod proto;
pub mod sse;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
