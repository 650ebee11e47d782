//! Fuzzing of everything that reads bytes of others: each decoder by itself, and a whole broker over its sockets.
//!
//! Runs on stable Rust under `cargo test`, bounded in cases and time. See `docs/testing.md`, "Fuzzing".

mod broker;
mod controls;
mod corpus;
mod coverage;
mod dice;
mod engine;
mod gauge;
mod mutate;
mod promises;
mod targets;
