//! What the histories of a run came across: a law that nobody appealed to shows nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::law::Said;
use crate::order::Outcome;

thread_local! {
    static SEEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// What every run of some thousand histories must have come across: each happens dozens of times.
pub const EXPECTED: &[&str] = &[
    "stored",
    "stored before",
    "committed",
    "committed before",
    "acked",
    "acked, stale",
    "attached",
    "pulled",
    "answer lost",
    "outcome unknown",
    "group refused",
    "crash",
    "clean restart",
    "held commit looked at",
    "several pasts",
    "producer_unknown",
    "producer_fenced",
    "producer_seq_gap",
    "producer_seq_overlap",
    "producer_seq_reused",
    "producer_state_lost",
    "idempotency_key_reused",
    "session_poisoned",
    "stream_closed",
    "condition_failed",
    "not_found",
    "stream_replaced",
    "cursor_busy",
    "log_epoch_changed",
    "position_beyond_end",
    "cursor_trimmed",
    "session_fenced",
    "session_unknown",
    "ack_beyond_end",
    "ack_not_delivered",
    "txn_part_failed",
    "bad_parameter",
];

/// It happened once more.
pub fn note(what: &'static str) {
    SEEN.with_borrow_mut(|seen| *seen.entry(what).or_default() += 1);
}

/// Counts an outcome by what it says.
pub fn note_outcome(outcome: &Outcome) {
    note(match outcome {
        Outcome::Lost => "answer lost",
        Outcome::Unknown => "outcome unknown",
        Outcome::After => "after the failure",
        Outcome::TurnedAway => "group refused",
        Outcome::Told(Err(error)) => error.code.as_str(),
        Outcome::Told(Ok(said)) => match said {
            Said::Appended(done) if done.duplicate => "stored before",
            Said::Appended(_) => "stored",
            Said::Committed(done) if done.duplicate => "committed before",
            Said::Committed(_) => "committed",
            Said::Acked(done) if done.stale => "acked, stale",
            Said::Acked(_) => "acked",
            Said::Attached { .. } => "attached",
            Said::Pulled { gap: Some(_), .. } => "pulled a gap",
            Said::Pulled { .. } => "pulled",
            Said::Opened { .. } => "producer opened",
            Said::Done | Said::Stream { .. } | Said::Cursor { .. } => "done",
        },
    });
}

/// What was counted on this thread so far, which begins again.
pub fn take() -> BTreeMap<&'static str, u64> {
    SEEN.take()
}
