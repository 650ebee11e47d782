//! A disk that fails at one call: a write, a sync, and then lies (fsyncgate); no space in the middle of a flush or a compaction.
//!
//! After each the process has ended with 10 (S-5) or gone on; either way the next start finds what was acknowledged, and what was left open
//! once or not at all.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tidelog::client::Protocol;

use crate::broker::{Broker, PATIENCE, Setup};
use crate::chance::{Chance, rounds};
use crate::ledger::{Found, INPUT, Ledger};
use crate::load::{Load, append_once, block, prepare, ready, until};
use crate::shim::{Act, Shim};

/// What must become of the process.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It ends with 10.
    Ends,
    /// It goes on as if nothing had happened.
    GoesOn,
    /// Either: the engine decides whether it can live with it.
    Either,
}

/// What the disk keeps of what was written after the last sync that happened.
#[derive(Clone, Copy, PartialEq)]
enum Unsynced {
    Kept,
    Dropped,
}

struct Outcome {
    acts: Vec<Act>,
    codes: BTreeMap<String, usize>,
    ended: bool,
}

fn judge(broker: &Broker, ledger: &Ledger, when: &str) {
    let found = block(Found::read(&broker.client(Protocol::Binary))).expect("everything can be read");
    let wrong = ledger.judge(&found);
    assert!(wrong.is_empty(), "{when}: {}", wrong.join("\n"));
}

/// A broker on a disk that works, whose clients left when more than `batches` of theirs were stored.
fn loaded(data: &Path, ledger: &Ledger, batches: usize, chance: &Chance) -> Broker {
    let broker = Setup::small().must_start(data);
    prepare(&broker);
    let load = Load::start(&broker, ledger, 0, chance);
    until("the load gets going", || ledger.stored() > batches);
    load.vanish();
    broker
}

/// Load, fault, end or not, and a start on a disk that works again.
fn suffer(what: &str, rules: &[&str], then: Then, unsynced: Unsynced, chance: &Chance) -> Outcome {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let shim = Shim::new(dir.path());
    let mut broker = Setup::small().shim(&shim).must_start(&data);
    prepare(&broker);
    let ledger = Ledger::default();
    let load = Load::start(&broker, &ledger, 0, chance);
    until("the load gets going", || ledger.stored() > 30);
    shim.obey(rules);
    assert!(shim.struck(PATIENCE), "{what}: the fault did not strike");
    let ended = match then {
        Then::Ends => broker.wait().code(),
        Then::GoesOn => {
            let before = ledger.stored();
            until("the load goes on", || ledger.stored() > before + 100);
            None
        }
        Then::Either => {
            let before = ledger.stored();
            until("the load goes on or the process ends", || broker.ended().is_some() || ledger.stored() > before + 1000);
            broker.ended().and_then(|status| status.code())
        }
    };
    assert!(ended.is_none_or(|code| code == 10), "{what}: it ended with {ended:?}: {}", broker.said());
    assert!(then != Then::Ends || broker.said().contains("storage engine failed"), "{what}: it does not say why it ended: {}", broker.said());
    load.end(Duration::from_millis(200));
    let acts = shim.acts();
    broker.kill();
    if unsynced == Unsynced::Dropped {
        drop_unsynced(&acts);
    }

    let broker = Setup::small().must_start(&data);
    judge(&broker, &ledger, what);
    append_once(&broker, &ledger, "afterwards").unwrap_or_else(|code| panic!("{what}: the log does not go on: {code:?}"));
    broker.stop();
    let broker = Setup::small().must_start(&data);
    judge(&broker, &ledger, what);
    broker.stop();
    let (stored, open) = (ledger.stored(), ledger.open());
    println!(
        "{what}: {}, {stored} batches acknowledged and found, {open} left open; heard {:?}",
        if ended.is_some() { "ended with 10" } else { "went on" },
        ledger.codes()
    );
    Outcome { acts, codes: ledger.codes(), ended: ended.is_some() }
}

/// What an honest disk would have lost with the page cache: all after the last sync of a file whose sync failed.
fn drop_unsynced(acts: &[Act]) {
    for act in acts.iter().filter(|act| act.op == "sync" && act.action == "EIO") {
        let file = std::fs::File::options().write(true).open(&act.path).expect("the file is there");
        file.set_len(act.synced).expect("it can be cut");
    }
}

/// After the first failure nothing was written to the log any more (S-5).
fn nothing_written_after(what: &str, acts: &[Act]) {
    let after: Vec<_> = acts.iter().filter(|act| act.action == "note").collect();
    assert!(after.is_empty(), "{what}: the log was written to after the failure: {after:?}");
}

/// Errors that may be heard when storage fails, with what they say about the request.
fn codes_are_right(what: &str, codes: &BTreeMap<String, usize>) {
    let right = ["outcome_unknown Unknown", "storage_failed No", "unavailable No", "none No", "none Unknown", "session_fenced No"];
    let wrong: Vec<_> = codes.keys().filter(|code| !right.contains(&code.as_str())).collect();
    assert!(wrong.is_empty(), "{what}: clients heard {wrong:?}");
}

/// Whether a request is on its way when the failure strikes is chance: so many more rounds wait for one that is.
const MORE: usize = 8;

#[test]
fn s5_a_write_to_the_log_that_fails_ends_the_process_and_loses_nothing_acknowledged() {
    let chance = Chance::for_test("s5_a_write_to_the_log");
    let mut unknown = 0;
    for round in 0..rounds() + MORE {
        if round >= rounds() && unknown > 0 {
            break;
        }
        for (what, action) in [("EIO", "EIO"), ("half a write, then EIO", "torn"), ("no space", "ENOSPC")] {
            let skip = chance.of(&format!("{what} {round}")).below(20);
            let what = format!("{what} at write {skip} of the log");
            let rules = [&format!("write */db/*.log {skip} 1 {action}")[..], "then write */db/*.log 0 -1 note"];
            let outcome = suffer(&what, &rules, Then::Ends, Unsynced::Kept, &chance.of(&what));
            nothing_written_after(&what, &outcome.acts);
            codes_are_right(&what, &outcome.codes);
            unknown += outcome.codes.get("outcome_unknown Unknown").copied().unwrap_or(0);
        }
    }
    assert!(unknown > 0, "nobody heard `outcome_unknown`");
}

/// The first sync fails, and all later ones lie; what was not synced is lost with the page cache, or happens to be there.
#[test]
fn s5_a_sync_that_fails_ends_the_process_and_no_second_sync_is_believed() {
    let chance = Chance::for_test("s5_a_sync_that_fails");
    let mut unknown = 0;
    for round in 0..rounds() + MORE {
        if round >= rounds() && unknown > 0 {
            break;
        }
        for (kept, unsynced) in [("kept", Unsynced::Kept), ("dropped", Unsynced::Dropped)] {
            let skip = chance.of(&format!("{kept} {round}")).below(20);
            let what = format!("EIO at sync {skip} of the log, its data {kept}");
            let rules = [&format!("sync */db/*.log {skip} 1 EIO")[..], "then sync */db/* 0 -1 lie", "write */db/*.log 1000000 -1 note"];
            let outcome = suffer(&what, &rules, Then::Ends, unsynced, &chance.of(&what));
            let lies = outcome.acts.iter().filter(|act| act.action == "lie" && act.path.extension().is_some_and(|e| e == "log")).count();
            assert_eq!(lies, 0, "the log was synced again after a failed sync: {:?}", outcome.acts);
            codes_are_right(&what, &outcome.codes);
            unknown += outcome.codes.get("outcome_unknown Unknown").copied().unwrap_or(0);
        }
    }
    assert!(unknown > 0, "nobody heard `outcome_unknown`");
}

/// A short write is no error: the rest is written next.
#[test]
fn a_write_that_does_only_half_is_finished_by_the_next() {
    let chance = Chance::for_test("a_write_that_does_only_half");
    let outcome = suffer("short writes", &["write */db/* 3 40 short"], Then::GoesOn, Unsynced::Kept, &chance);
    assert!(outcome.acts.len() > 3 && outcome.codes.is_empty(), "{:?}", outcome.codes);
}

#[test]
fn the_side_file_cannot_be_written_and_nobody_suffers() {
    let chance = Chance::for_test("the_side_file_cannot_be_written");
    let outcome = suffer("no side file", &["open */durable.new 0 -1 EIO"], Then::GoesOn, Unsynced::Kept, &chance);
    assert!(outcome.codes.is_empty(), "{:?}", outcome.codes);
}

#[test]
fn no_space_or_an_error_in_a_flush_or_a_compaction_loses_nothing_acknowledged() {
    let chance = Chance::for_test("no_space_or_an_error_in_a_flush");
    let rules = [
        ("no space in a flush", "high:write */db/*.sst 0 -1 ENOSPC"),
        ("no space for a blob file", "high:write */db/*.blob 2 -1 ENOSPC"),
        ("no space in a flush, then space again", "high:write */db/*.sst 0 3 ENOSPC"),
        ("an error in a flush", "high:write */db/*.sst 1 1 EIO"),
        ("a sync that fails in a flush", "high:sync */db/*.sst 0 1 EIO"),
        ("no space in a compaction", "low:write */db/*.sst 0 -1 ENOSPC"),
        ("no space in a compaction, then space again", "low:write */db/*.sst 0 3 ENOSPC"),
        ("an error in a compaction", "low:write */db/*.sst 1 1 EIO"),
        ("an error in the list of files", "write */db/MANIFEST-* 0 1 EIO"),
        ("a sync of the list of files that fails", "sync */db/MANIFEST-* 0 1 EIO"),
    ];
    let mut ended = 0;
    for round in 0..rounds() {
        for (what, rule) in rules {
            let outcome = suffer(what, &[rule], Then::Either, Unsynced::Kept, &chance.of(&format!("{what} {round}")));
            codes_are_right(what, &outcome.codes);
            ended += usize::from(outcome.ended);
        }
    }
    println!("{ended} of {} ended the process", rules.len() * rounds());
}

#[test]
fn an_error_while_opening_is_said_and_the_next_start_finds_everything() {
    let chance = Chance::for_test("an_error_while_opening");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let (shim, ledger) = (Shim::new(dir.path()), Ledger::default());
    let broker = loaded(&data, &ledger, 100, &chance);
    broker.kill();
    // In the order of an opening: a later one may leave less to do for an earlier one.
    for rule in
        ["read */db/*.log 0 -1 EIO", "write */db/MANIFEST-* 0 -1 EIO", "sync */db/* 0 -1 EIO", "write */db/*.sst 0 -1 ENOSPC", "open */db/*.log 0 -1 ENOSPC"]
    {
        shim.obey(&[rule]);
        match Setup::small().shim(&shim).start(&data) {
            Err((code, said)) => {
                assert_eq!(code, Some(10), "{rule}: {said}");
                assert!(said.contains("tidelog: ") && !said.contains("panicked"), "{rule}: {said}");
            }
            Ok(_) => panic!("{rule}: it started all the same"),
        }
    }
    let broker = Setup::small().must_start(&data);
    judge(&broker, &ledger, "after starts that failed");
    broker.stop();
}

/// Reads that fail are told to who reads, and to nobody else; when the disk reads again, so does the broker.
#[test]
fn s6_a_read_that_fails_is_an_error_and_never_silence() {
    let chance = Chance::for_test("s6_a_read_that_fails");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let (shim, ledger) = (Shim::new(dir.path()), Ledger::default());
    let broker = loaded(&data, &ledger, 300, &chance);
    broker.stop();
    let broker = Setup::small().shim(&shim).must_start(&data);
    for file in ["sst", "blob"] {
        shim.obey(&[&format!("read */db/*.{file} 0 -1 EIO")]);
        let admin = broker.client(Protocol::Binary).admin();
        let told = block(async {
            let (mut at, mut told) = (0, None);
            while told.is_none() {
                let page = admin.request(Method::GET, &format!("/v1/streams/{INPUT}/events?from={at}&limit=100"), None, PATIENCE).await.expect("an answer");
                match page.error() {
                    Some(error) => told = Some(error),
                    None => {
                        let body: Value = serde_json::from_slice(&page.body).expect("a page is JSON");
                        let events = body["metadata"]["events"].as_array().expect("events");
                        assert!(!events.is_empty(), "silence at {at}, although nothing can be read from {file} files");
                        at += events.len();
                    }
                }
            }
            told.expect("an error")
        });
        let code = told.code().map(|code| code.as_str());
        assert!(matches!(code, Some("data_corrupt" | "storage_failed")), "{told:?}");
        shim.obey(&[]);
        judge(&broker, &ledger, "after reads that failed");
        assert!(ready(&broker), "it is ready again");
    }
    append_once(&broker, &ledger, "afterwards").expect("the log goes on");
    broker.stop();
}

/// The shim itself: what it says it did is what happened.
#[test]
fn control_the_shim_fails_a_write_where_it_is_told_to_and_leaves_others_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let shim = Shim::new(dir.path());
    let (hit, spared) = (dir.path().join("hit.log"), dir.path().join("spared.log"));
    shim.obey(&["write */hit.log 1 1 EIO"]);
    let tee = |path: &Path| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "for i in 1 2 3; do echo $i; done > $0"]).arg(path).envs(shim.environment());
        command.output().expect("sh runs");
        std::fs::read_to_string(path).expect("a file")
    };
    assert_eq!((tee(&hit), tee(&spared)), ("1\n3\n".to_owned(), "1\n2\n3\n".to_owned()));
    assert_eq!(shim.acts().len(), 1, "{:?}", shim.acts());
}
