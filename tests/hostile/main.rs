//! Clients that want to hurt: what they hear, what they cost, and that an honest pair beside them notices nothing.
//!
//! The broker is the release binary, so that its memory is its own. `ROUNDS=n` repeats each attack n times; memory must not grow with it.

mod attacks;
mod broker;
mod controls;
mod gauge;
mod honest;
mod limits;
mod patience;
mod smuggling;
mod storm;
#[allow(dead_code, reason = "shared with tests/api, which uses all of it")]
#[path = "../api/support.rs"]
mod support;
mod vanished;
mod wire;
