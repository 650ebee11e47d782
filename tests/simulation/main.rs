//! Broker, clients, network and disk in one process, on a clock that stands still unless everybody waits, all from one seed.
//!
//! A seed that fails is played again by `SEED=n cargo test --release --features faults --test simulation -- --nocapture one_seed`.

mod appender;
#[path = "../crash/check.rs"]
#[allow(dead_code, reason = "the crash test uses the rest")]
mod check;
mod checks;
mod commits;
#[path = "../crash/dice.rs"]
#[allow(dead_code, reason = "the crash test uses the rest")]
mod dice;
mod disk;
mod ends;
mod exact;
#[path = "../crash/history.rs"]
#[allow(dead_code, reason = "the crash test uses the rest")]
mod history;
mod lane;
mod machine;
mod monitor;
mod net;
mod power;
mod producer;
mod pulls;
mod readers;
mod seeds;
mod side;
mod trace;
mod world;
