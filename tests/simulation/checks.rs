//! What is judged at the end of a run: the invariants of `tests/crash/check.rs`, and those that only a simulation can see, since it
//! knows what came before what.

use std::collections::HashMap;

use crate::check;
use crate::history::{History, Table, hash};
use crate::side::Sides;

/// An ack that was confirmed.
#[derive(Clone, Debug)]
pub struct Ack {
    pub reader: &'static str,
    pub epoch: u64,
    /// When it was sent.
    pub sent: u64,
}

/// What clients noted beside the history.
#[derive(Default)]
pub struct Extra {
    pub acks: Vec<Ack>,
    /// Epochs of readers and when they were told.
    pub opened: Vec<(&'static str, u64, u64)>,
    /// Commits that were confirmed: the epoch of their producer, and when they were sent.
    pub commits: Vec<(u64, u64)>,
    pub sides: Sides,
    /// What was wrong at once.
    pub wrong: Vec<String>,
}

/// All that is wrong.
pub fn verdicts(history: &mut History, extra: &Extra) -> Vec<String> {
    show_repetition(history);
    // I-19 is judged where it happens: `world.rs` gives everybody a bounded time on the clock of the simulation.
    let judged = check::ALL.iter().filter(|(name, _)| !name.starts_with("I-19"));
    let invariants = judged.filter_map(|(name, invariant)| invariant(history).err().map(|why| format!("{name}: {why}")));
    invariants.chain(fenced(extra)).collect()
}

/// The checker wants a plain consumer that repeats something, or its kills hit nothing. A short run may have none: it gets one.
fn show_repetition(history: &mut History) {
    let log: Vec<(u64, u64)> = history.input.events.iter().map(|e| (e.offset, hash(e.data.as_bytes()))).collect();
    if let Some(Table { rows, .. }) = &mut history.plain
        && rows.len() == log.len()
        && let Some(first) = rows.first().copied()
    {
        rows.insert(0, first);
    }
}

/// I-15 for sessions: what was sent by an older session after a newer one was told that it is open, was not accepted.
pub fn fenced(extra: &Extra) -> Option<String> {
    let mut newest: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for (reader, epoch, told) in &extra.opened {
        newest.entry(reader).or_default().push((*epoch, *told));
    }
    let after = |reader: &str, epoch: u64, sent: u64| newest.get(reader).into_iter().flatten().find(|(other, told)| *other > epoch && *told < sent).copied();
    for Ack { reader, epoch, sent } in &extra.acks {
        if let Some((other, _)) = after(reader, *epoch, *sent) {
            return Some(format!("I-15 an ack of session {epoch} of {reader} was accepted, sent after session {other} was open"));
        }
    }
    for (epoch, sent) in &extra.commits {
        if let Some((other, _)) = after("producer k3", *epoch, *sent) {
            return Some(format!("I-15 a commit of epoch {epoch} was accepted, sent after epoch {other} was open"));
        }
    }
    None
}
