//! Evernest's API over real sockets: every route of its table with what can go wrong, by GET and by POST, as a program written for it sends it.

mod calls;
mod events;
mod forms;
mod keys;
#[allow(dead_code, reason = "shared with tests/api, which uses all of it")]
#[path = "../api/support.rs"]
mod support;
mod world;
