//! Bytes into types and back. Nothing here decides anything.
//!
//! [`frame`] names everything a client can say and hear; [`json`] and [`proto`] are its two forms; [`code`] is the one
//! table from error codes to the numbers of each carrier.

pub mod frame;
