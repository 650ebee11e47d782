//! The checkers of the crash test, held to brokers that break a promise on purpose: each lie must be found, and by the invariant it offends.
//!
//! A short run each: load, a death (at a fault point where the promise is about the moment before it), a restart, and the history is judged.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::check;
use crate::dice::{self, Dice};
use crate::process::PATIENCE;
use crate::small::{ALONE, Small, broker};

/// How often a control may be tried with other moments: some lies show only when a death falls between two steps, which is one moment in three or so.
const TRIES: u64 = 16;

/// Plays a broker that breaks this promise until one of `expected` goes red; all that do are printed.
async fn goes_red(word: &str, fault: Option<&str>, expected: &[usize]) {
    let seed = dice::seed_for("faults");
    for attempt in 0..TRIES {
        let red = red(word, fault, seed.wrapping_add(attempt)).await;
        println!("  {word}, try {attempt}: red are {red:?}");
        if expected.iter().any(|number| red.contains(number)) {
            return;
        }
    }
    panic!("SEED={seed}: a broker with {word} passes: none of {expected:?} goes red");
}

/// The invariants that do not hold afterwards.
async fn red(word: &str, fault: Option<&str>, seed: u64) -> BTreeSet<usize> {
    let _others = ALONE.read().await;
    // A broker that lies may never let its readers get to the end.
    let patience = if word.is_empty() { PATIENCE } else { Duration::from_secs(3) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut dice = Dice::of(seed, word);
    // It stands still for a moment before it dies: time for others to see what they should not.
    let visit = dice.between(150, 400);
    let fault = fault.map_or(String::new(), |point| format!("{point}=stall@{visit},{point}=abort@{visit}"));
    let mut first = broker(&data, &fault, word);
    first.ready();
    let mut small = Small::start(dir.path(), seed);
    small.prepare().await;
    if fault.is_empty() {
        small.progress(200, patience).await;
    } else {
        let began = std::time::Instant::now();
        while first.ended().is_none() && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    first.kill();
    let mut second = broker(&data, "", word);
    second.ready();
    small.prepare().await;
    small.progress(200, patience).await;
    let history = small.finish(second, "", patience).await;
    let judged = (1..).zip(check::ALL).filter(|(number, _)| *number != 16);
    judged
        .filter_map(|(number, (name, invariant))| invariant(&history).err().map(|why| (number, name, why)))
        .map(|(number, name, why)| {
            println!("    {name}: {}", why.chars().take(160).collect::<String>());
            number
        })
        .collect()
}

/// Without a lie nothing goes red: what the others see is the lie, not the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_broker_passes() {
    for fault in [None, Some("commit.before_write")] {
        let red = red("", fault, dice::seed_for("faults")).await;
        assert!(red.is_empty(), "an honest broker is found to lie: {red:?}");
    }
}

macro_rules! controls {
    ($($name:ident: $word:literal, $fault:expr, $expected:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                goes_red($word, $fault, &$expected).await;
            }
        )*
    };
}

controls! {
    an_answer_before_the_sync_is_found_by_i1: "ack_before_sync", Some("commit.before_write"), [1];
    a_dirty_read_is_found_by_i7: "dirty_read", Some("commit.before_write"), [7];
    a_commit_in_two_parts_is_found_by_i1_i6_or_i10: "split_commit", Some("commit.after_write"), [1, 6, 10];
    a_receipt_that_was_dropped_is_found_by_i6: "drop_receipt", None, [6];
    an_append_that_was_repeated_is_found_by_i3: "repeat_append", None, [3];
    an_offset_that_was_left_out_is_found_by_i5: "skip_offset", None, [5];
    an_ack_of_a_fenced_session_is_found_by_i15: "stale_session", None, [15];
    an_ack_that_was_dropped_is_found_by_i13: "drop_ack", None, [13];
    an_event_that_was_passed_over_is_found_by_i11: "skip_delivery", None, [11];
    an_epoch_that_was_used_again_is_found_by_i8: "reuse_epoch", None, [8];
    an_append_behind_a_refused_one_is_found_by_i6: "forget_poison", None, [6];
}
