//! The reference model: random histories of many clients, on both engines, through lost replies, failed commits and crashes, each answer and all
//! that can be seen compared with the law.
//!
//! `ops` says what a history is made of, `plan` turns a step into calls, `world` makes them to the broker and asks the `law` about the answers;
//! `order` finds out in which order they happened. `CASES=n` runs more, `SEED=n` the same again, `TRACE=1` tells each call and answer.

mod calls;
mod controls;
mod gate;
mod law;
mod ops;
mod order;
mod plan;
mod readers;
mod runs;
mod sight;
mod store;
#[allow(dead_code, unused_imports, reason = "the rule tests need more of it")]
#[path = "../rules/support.rs"]
mod support;
mod tally;
mod world;

use runs::{Run, follow};
use store::Kind;

#[test]
fn histories_with_everything_evicted_follow_the_law() {
    let run = Run { kind: Kind::Memory, cramped: Some(true), broken: Default::default() };
    follow("histories_with_everything_evicted", run, 2500, "proptest-regressions/model-evicted.txt");
}

#[test]
fn histories_with_everything_in_memory_follow_the_law() {
    let run = Run { kind: Kind::Memory, cramped: Some(false), broken: Default::default() };
    follow("histories_with_everything_in_memory", run, 2000, "proptest-regressions/model-in-memory.txt");
}

#[test]
fn histories_on_the_durable_engine_follow_the_law() {
    let run = Run { kind: Kind::Rocks, cramped: None, broken: Default::default() };
    follow("histories_on_the_durable_engine", run, 1000, "proptest-regressions/model-durable.txt");
}
