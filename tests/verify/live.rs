//! `tidelog verify` against a broker that is killed again and again, and against brokers that break one promise each.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Broker, Said, tidelog};

/// Starts `tidelog verify --json`.
fn verify(data: &Path, more: &[&str]) -> Child {
    let mut command = tidelog();
    command.arg("verify").arg("--socket").arg(Broker::socket(data)).args(["--json", "--no-progress"]).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn said(child: Child) -> Said {
    child.wait_with_output().expect("it ends").into()
}

/// The invariants that were found broken.
fn broken(said: &Said) -> Vec<String> {
    said.json["broken"].as_object().into_iter().flatten().map(|(rule, _)| rule.clone()).collect()
}

fn count(said: &Said, name: &str) -> u64 {
    said.json["counts"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", said.json))
}

/// How many streams there are that are not on their way out.
fn streams(data: &Path) -> usize {
    let left = tidelog().args(["stream", "ls", "--json", "--socket"]).arg(Broker::socket(data)).output().expect("it runs");
    String::from_utf8_lossy(&left.stdout).lines().filter(|line| !line.contains("Stopping")).count()
}

/// In milliseconds: the time is what is tested here, not waited for.
fn at(began: Instant, milliseconds: u64) {
    std::thread::sleep((began + Duration::from_millis(milliseconds)).saturating_duration_since(Instant::now()));
}

#[test]
fn verify_is_green_on_a_broker_that_is_killed_again_and_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut broker = Broker::start(&data, &[]);
    let seconds: u64 = std::env::var("VERIFY_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let seed = std::env::var("SEED").unwrap_or_else(|_| "17".into());
    let child = verify(&data, &["--seconds", &seconds.to_string(), "--seed", &seed, "--round-events", "3000"]);
    let began = Instant::now();
    let kills = seconds * 1000 / 1900;
    for kill in 1..=kills {
        at(began, kill * 1900 - 300);
        broker.kill();
        broker = Broker::start(&data, &[]);
    }
    let said = said(child);
    assert_eq!(said.code, Some(0), "SEED={seed} cargo test --release --features faults --test verify green -- --nocapture\n{}\n{}", said.json, said.stderr);
    println!("{}", said.json);
    assert_eq!(count(&said, "acknowledged"), count(&said, "found"));
    assert_eq!(count(&said, "effects_twice"), 0);
    assert!(count(&said, "rounds") >= 4, "one round follows the other: {}", said.json);
    for name in ["acknowledged", "refused", "sessions", "takeovers", "durable_acks", "commits", "stale_refused", "repeats_recognised", "duplicates"] {
        assert!(count(&said, name) > 0, "{name} is 0: {}", said.json);
    }
    assert!(said.json["restarts"].as_u64().is_some_and(|n| n >= kills.saturating_sub(1).max(1)), "{kills} kills, and seen: {}", said.json["restarts"]);
    assert_eq!(streams(&data), 0, "its streams are removed");
    broker.kill();
    let said = crate::process::store_check(&data, &[]);
    assert_eq!((said.code, &said.json["damages"]), (Some(0), &Value::Array(Vec::new())), "{}", said.stderr);
}

#[test]
fn verify_pauses_in_the_middle_until_enter_and_tells_of_lost_connections() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let mut command = tidelog();
    command.arg("verify").arg("--socket").arg(Broker::socket(&data)).args(["--seconds", "2", "--pause", "--streams", "1", "--carrier", "websocket", "--keep"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let began = Instant::now();
    at(began, 2000);
    broker.kill();
    at(began, 2600);
    let broker = Broker::start(&data, &[]);
    at(began, 4000);
    assert!(child.try_wait().expect("it can be asked").is_none(), "it waits for Enter, although its two seconds are over");
    child.stdin.take().expect("stdin is piped").write_all(b"\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    for words in ["press Enter", "connection lost", "back after"] {
        assert!(stderr.contains(words), "it does not say {words:?}:\n{stderr}");
    }
    for words in ["Every promise was kept.", "acknowledged ", "unknown ", "effects twice 0", "restarts seen 1", "stays"] {
        assert!(stdout.contains(words), "it does not say {words:?}:\n{stdout}");
    }
    drop(broker);
}

#[test]
fn ctrl_c_ends_the_time_of_verify_and_neither_its_verdict_nor_its_tidying() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let child = verify(&data, &["--seconds", "600", "--seed", "3"]);
    let began = Instant::now();
    while streams(&data) == 0 {
        assert!(began.elapsed() < crate::process::PATIENCE, "verify makes no streams");
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a child has a number");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is there");
    let said = said(child);
    assert_eq!((said.code, &said.json["verdict"]), (Some(0), &Value::from("kept")), "{}\n{}", said.json, said.stderr);
    assert!(said.stderr.contains("Interrupted"), "{}", said.stderr);
    assert_eq!(streams(&data), 0, "its streams are removed");
    drop(broker);
}

#[test]
fn verify_without_a_broker_ends_with_6_and_a_wrong_word_with_2() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(said(verify(dir.path(), &[])).code, Some(6));
    assert_eq!(said(verify(dir.path(), &["--carrier", "pigeon"])).code, Some(2));
}

/// How often a control may be tried with another seed: some lies show only when somebody looks, or a death falls, between two steps.
const TRIES: u64 = 8;

/// A broker that breaks `promise`, for some seconds. Verify must end with 1 and name one of `rules`.
/// `faults`: where each of its lives ends by itself, one after the other; the last one lives on.
#[track_caller]
fn control(promise: &str, rules: &[&str], faults: &[&str], kills: u64) {
    let mut seen = Vec::new();
    for seed in 3..3 + TRIES {
        let said = lied_to(promise, faults, kills, seed);
        let found = broken(&said);
        if said.code == Some(1) && rules.iter().any(|rule| found.iter().any(|found| found == rule)) {
            return;
        }
        assert!(matches!(said.code, Some(0 | 1)), "{promise}: {} {}", said.json, said.stderr);
        seen.push(found);
    }
    panic!("{promise} was not called one of {rules:?} in {TRIES} runs, but {seen:?}");
}

/// What verify says of it.
fn lied_to(promise: &str, faults: &[&str], kills: u64, seed: u64) -> Said {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let break_it = ("TIDELOG_BREAK", promise);
    let life = |fault: Option<&&str>| match fault {
        Some(fault) => Broker::start(&data, &[break_it, ("TIDELOG_FAULTS", fault)]),
        None => Broker::start(&data, &[break_it]),
    };
    let mut broker = life(faults.first());
    let mut child = verify(&data, &["--seconds", "5", "--streams", "1", "--seed", &seed.to_string()]);
    let began = Instant::now();
    for next in 1..=faults.len() {
        // When enough was found, nobody may be left to bring the next fault about.
        while broker.is_alive() && child.try_wait().expect("it can be asked").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        broker.kill();
        broker = life(faults.get(next));
    }
    for kill in 1..=kills {
        at(began, kill * 1500);
        broker.kill();
        broker = life(None);
    }
    let said = said(child);
    println!("{promise}, seed {seed}: {:?} in {:.1} s", broken(&said), began.elapsed().as_secs_f64());
    said
}

#[test]
fn control_a_repetition_that_is_stored_again_is_found() {
    control("repeat_append", &["I-3"], &[], 0);
}

#[test]
fn control_an_offset_that_is_left_out_is_found() {
    control("skip_offset", &["I-5"], &[], 0);
}

#[test]
fn control_a_replaced_session_that_still_has_a_say_is_found() {
    control("stale_session", &["I-15"], &[], 0);
}

#[test]
fn control_an_event_that_is_passed_over_is_found() {
    control("skip_delivery", &["I-11"], &[], 0);
}

#[test]
fn control_an_epoch_that_is_used_again_is_found() {
    control("reuse_epoch", &["I-8"], &[], 0);
}

#[test]
fn control_a_clamped_position_is_found() {
    control("clamp_position", &["C-3", "C-9"], &[], 0);
}

#[test]
fn control_a_receipt_that_is_not_written_is_found_after_a_kill() {
    control("drop_receipt", &["I-6"], &[], 2);
}

#[test]
fn control_a_durable_ack_that_is_not_written_is_found() {
    control("drop_ack", &["I-13"], &[], 1);
}

#[test]
fn control_an_acknowledgement_before_the_write_is_found_when_the_write_fails() {
    control("ack_before_sync", &["I-1", "I-7"], &["commit.before_write=error@300"], 0);
}

#[test]
fn control_news_before_the_write_is_found_when_the_write_fails() {
    control("dirty_read", &["I-4", "I-7", "I-16"], &["commit.before_write=error@300", "commit.before_write=error@200", "commit.before_write=error@201"], 0);
}

#[test]
fn control_a_commit_in_two_parts_is_found_when_the_process_dies_between_them() {
    let between = ["commit.after_write=abort@300", "commit.after_write=abort@201", "commit.after_write=abort@202", "commit.after_write=abort@203"];
    control("split_commit", &["I-1", "I-6", "I-10"], &between, 0);
}
