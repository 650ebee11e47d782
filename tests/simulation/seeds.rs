//! The tests: many seeds, one seed, the same seed twice, and seeds against a broker that breaks a promise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tidelog::broker::{Broken, Promise};

use crate::world::{Outcome, run};

/// How many seeds one run of all tests plays, unless `SEEDS` says otherwise.
const SEEDS: u64 = 10_000;
/// Threads that play them, each with runtimes of its own.
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// How to play a seed again.
fn again(seed: u64, broken: &str) -> String {
    let broken = if broken.is_empty() { String::new() } else { format!("TIDELOG_BREAK={broken} ") };
    format!("{broken}SEED={seed} cargo test --release --features faults --test simulation -- --nocapture one_seed")
}

fn told(seed: u64, broken: &str, outcome: &Outcome) -> String {
    format!("seed {seed}: {}\nagain: {}", outcome.wrong.join("\n"), again(seed, broken))
}

/// Plays seeds from `first` on until one fails; the smallest that did so.
fn first_failure(first: u64, count: u64, promise: Broken) -> (Option<(u64, Outcome)>, [u64; 3]) {
    let (next, found) = (AtomicU64::new(first), parking_lot::Mutex::new(None::<(u64, Outcome)>));
    let figures: [AtomicU64; 3] = Default::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while found.lock().is_none() {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run(seed, promise, false);
                    for (figure, add) in figures.iter().zip([1, outcome.events, u64::from(outcome.deaths)]) {
                        figure.fetch_add(add, Ordering::Relaxed);
                    }
                    if !outcome.wrong.is_empty() {
                        let mut found = found.lock();
                        if found.as_ref().is_none_or(|(other, _)| seed < *other) {
                            *found = Some((seed, outcome));
                        }
                    }
                }
            });
        }
    });
    (found.into_inner(), figures.map(AtomicU64::into_inner))
}

#[test]
fn ten_thousand_seeds_keep_every_promise() {
    let (first, count) = (number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let began = Instant::now();
    let (failure, [seeds, events, deaths]) = first_failure(first, count, Broken::default());
    println!("simulation: {seeds} seeds from {first}, {events} events, {deaths} deaths of the broker, {:.0} s", began.elapsed().as_secs_f64());
    if let Some((seed, outcome)) = failure {
        panic!("{}", told(seed, "", &outcome));
    }
}

/// A seek was done, the engine failed before its answer was put together, and the answer was `storage_failed` with `applied: no`.
#[test]
fn seed_9222_a_change_that_was_done_is_not_answered_with_applied_no() {
    let outcome = run(9222, Broken::default(), false);
    assert!(outcome.wrong.is_empty(), "{}", told(9222, "", &outcome));
}

/// A stream was deleted while a trim looked into its log, and the trim was answered with `data_corrupt`.
#[test]
fn seed_7096_a_deletion_that_overtakes_a_trim_is_no_damage() {
    let outcome = run(7096, Broken::default(), false);
    assert!(outcome.wrong.is_empty(), "{}", told(7096, "", &outcome));
}

#[test]
fn one_seed() {
    let Some(seed) = number("SEED") else { return };
    let broken = std::env::var("TIDELOG_BREAK").unwrap_or_default();
    let promise = Broken::from_env().expect("a promise");
    let outcome = run(seed, promise, true);
    println!("seed {seed}: hash {:016x}, {} events, {} deaths of the broker", outcome.hash, outcome.events, outcome.deaths);
    assert!(outcome.wrong.is_empty(), "{}", told(seed, &broken, &outcome));
}

#[test]
fn a_seed_that_is_played_twice_does_the_same_twice() {
    let count = 60;
    let mut hashes = std::collections::HashSet::new();
    for seed in 0..count {
        let [one, two] = [(); 2].map(|()| run(seed, Broken::default(), false));
        assert_eq!((one.hash, one.events, one.deaths), (two.hash, two.events, two.deaths), "seed {seed} did something else the second time");
        hashes.insert(one.hash);
    }
    assert_eq!(hashes.len(), count as usize, "two seeds did the same");
}

/// Some seed within `limit` finds it, and says how to find it again.
#[track_caller]
fn found(promise: Promise, limit: u64) {
    let word = Promise::ALL.iter().find(|(_, other)| *other == promise).expect("it has a word").0;
    let began = Instant::now();
    let (failure, [seeds, ..]) = first_failure(0, limit, Broken::promise(promise));
    let (seed, outcome) = failure.unwrap_or_else(|| panic!("{word}: {limit} seeds find nothing wrong"));
    let told = told(seed, word, &outcome);
    println!("{word}: found after {seeds} seeds in {:.1} s: {}", began.elapsed().as_secs_f64(), told.lines().next().unwrap_or_default());
    assert!(told.contains(&format!("TIDELOG_BREAK={word} SEED={seed} cargo test")), "{told}");
}

#[test]
fn control_an_ack_before_the_sync_is_found() {
    found(Promise::AckBeforeSync, 300);
}

#[test]
fn control_a_dirty_read_is_found() {
    found(Promise::DirtyRead, 300);
}

#[test]
fn control_a_split_commit_is_found() {
    found(Promise::SplitCommit, 300);
}

#[test]
fn control_a_dropped_receipt_is_found() {
    found(Promise::DropReceipt, 300);
}

#[test]
fn control_a_repeated_append_is_found() {
    found(Promise::RepeatAppend, 300);
}

#[test]
fn control_a_skipped_offset_is_found() {
    found(Promise::SkipOffset, 300);
}

#[test]
fn control_a_stale_session_is_found() {
    found(Promise::StaleSession, 300);
}

#[test]
fn control_a_dropped_ack_is_found() {
    found(Promise::DropAck, 300);
}

#[test]
fn control_a_skipped_delivery_is_found() {
    found(Promise::SkipDelivery, 300);
}

#[test]
fn control_a_reused_epoch_is_found() {
    found(Promise::ReuseEpoch, 300);
}

#[test]
fn control_a_clamped_position_is_found() {
    found(Promise::ClampPosition, 300);
}
