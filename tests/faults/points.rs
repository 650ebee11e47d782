//! Every fault point, visited by a broker at work: it dies there, or fails where it can fail, is started again (and dies once more while it
//! recovers), and nothing that was promised is missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::client::{NewEvent, Protocol, StreamObject};
use tidelog::log::rocks::{Rocks, RocksOptions};
use tidelog::log::{Engine as _, FAULT_POINTS};
use tidelog::types::request::Start;
use tokio::sync::Semaphore;

use crate::dice::{self, Dice};
use crate::history::History;
use crate::process::{Address, Broker, PATIENCE, client};
use crate::small::{ALONE, Small, broker, command};
use crate::{check, told};

/// When a point is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// By the very first start in a directory.
    First,
    /// By a start after a kill.
    Recovery,
    /// By a start after a kill that left half of a group in the log.
    TornTail,
    /// While it works; at one of the first so many visits.
    Work(u64),
    /// By a start after a death in the middle of a deletion.
    Deletion,
    /// When it is told to stop.
    Stop,
    /// In a test of its own, below.
    Alone,
}

/// Each point and when it is visited. A point that is not here makes `each_point_is_visited` fail.
const VISITS: [(&str, When); 32] = [
    ("open.locked", When::Recovery),
    ("open.directory_made", When::First),
    ("recovery.before_scan", When::Recovery),
    ("recovery.after_scan", When::Recovery),
    ("recovery.opened", When::Recovery),
    ("recovery.before_repair", When::TornTail),
    ("recovery.after_repair", When::TornTail),
    ("recovery.loss_counted", When::Alone),
    ("open.before_format", When::First),
    ("open.after_format", When::First),
    ("open.done", When::Recovery),
    ("durable.before_write", When::Work(2)),
    ("durable.written", When::Work(2)),
    ("durable.synced", When::Work(2)),
    ("durable.renamed", When::Work(2)),
    ("commit.before_write", When::Work(60)),
    ("commit.after_write", When::Work(60)),
    ("commit.before_publish", When::Work(60)),
    ("commit.before_answer", When::Work(60)),
    ("commit.after_answer", When::Work(60)),
    ("trim.before_range", When::Work(3)),
    ("trim.after_range", When::Work(3)),
    ("trim.before_drop", When::Work(3)),
    ("trim.after_drop", When::Work(3)),
    ("delete.begun", When::Work(1)),
    ("delete.finished", When::Work(1)),
    ("delete.resumed", When::Deletion),
    ("close.before_flush", When::Stop),
    ("close.after_flush", When::Stop),
    ("close.done", When::Stop),
    ("checkpoint.directory_made", When::Alone),
    ("checkpoint.done", When::Alone),
];

/// Where a recovery may be interrupted once more.
const AGAIN: [&str; 5] = ["open.locked", "recovery.before_scan", "recovery.after_scan", "recovery.opened", "open.done"];

/// Cases that run at the same time: they wait for the disk most of the time.
const AT_ONCE: usize = 3;

#[test]
fn each_point_is_visited() {
    let known: BTreeSet<&str> = FAULT_POINTS.iter().map(|(name, _)| *name).collect();
    let visited: BTreeSet<&str> = VISITS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, visited, "give each fault point a row in VISITS");
}

#[derive(Clone, Debug)]
struct Case {
    point: &'static str,
    when: When,
    act: &'static str,
    seed: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_each_fault_point_a_death_or_an_error_breaks_no_promise() {
    let _alone = ALONE.write().await;
    told::take();
    let seed = dice::seed_for("faults");
    let only = std::env::var("POINT").unwrap_or_default();
    let began = Instant::now();
    let mut cases = Vec::new();
    for round in 0..std::env::var("ROUNDS").ok().map_or(1, |n| n.parse().expect("ROUNDS is a number")) {
        for (point, when) in VISITS.into_iter().filter(|(point, when)| *when != When::Alone && point.contains(&only)) {
            let fails = FAULT_POINTS.iter().any(|(name, fails)| *name == point && *fails);
            let acts: &[&str] = if fails { &["abort", "error"] } else { &["abort"] };
            cases.extend(acts.iter().map(|act| Case { point, when, act, seed: seed.wrapping_add(round) }));
        }
    }
    let (count, room) = (cases.len(), Arc::new(Semaphore::new(AT_ONCE)));
    let running: Vec<_> = cases
        .into_iter()
        .map(|case| {
            let room = room.clone();
            tokio::spawn(async move {
                let _place = room.acquire_owned().await.expect("it is never closed");
                play(&case).await
            })
        })
        .collect();
    let mut wrong = Vec::new();
    for case in running {
        wrong.extend(case.await.expect("no case panics"));
    }
    let told = History { told: told::take(), ..History::default() };
    match check::ALL[16].1(&told) {
        Ok(figures) => println!("faults: {count} cases in {:.0} s; {figures}", began.elapsed().as_secs_f64()),
        Err(why) => wrong.push(format!("{}: {why}", check::ALL[16].0)),
    }
    assert!(wrong.is_empty(), "SEED={seed} POINT=… cargo test --release --features faults --test faults points\n{}", wrong.join("\n"));
}

/// What is wrong after this case.
async fn play(case: &Case) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut dice = Dice::of(case.seed, &format!("{} {}", case.point, case.act));
    let visit = if let When::Work(most) = case.when { dice.between(1, most) } else { 1 };
    let visit = if case.point.starts_with("durable.") { 2 } else { visit };
    let fault = format!("{}={}@{visit}", case.point, case.act);
    let mut small = Small::start(dir.path(), case.seed);
    // Something to lose, and to recover.
    if matches!(case.when, When::Recovery | When::TornTail | When::Deletion) {
        let before = if case.when == When::Deletion { "delete.begun=abort@1" } else { "" };
        let mut broker = broker(&data, before, "");
        broker.ready();
        small.prepare().await;
        if case.when == When::Deletion {
            until_it_ends(&mut broker, PATIENCE).await;
        } else {
            assert!(small.progress(100, PATIENCE).await, "{fault}: nobody works");
        }
        broker.kill();
    }
    if case.when == When::TornTail {
        tear(&data);
    }
    // The fault.
    let mut faulty = broker(&data, &fault, "");
    if tokio::task::block_in_place(|| faulty.try_ready()).is_ok() {
        small.prepare().await;
        if case.when == When::Stop {
            small.progress(50, PATIENCE).await;
            faulty.ask_to_stop();
        }
        let survives = case.act == "error" && (case.point.starts_with("durable.") || case.point.ends_with("_drop"));
        until_it_ends(&mut faulty, if survives { Duration::from_secs(2) } else { PATIENCE }).await;
    } else {
        until_it_ends(&mut faulty, PATIENCE).await;
    }
    let ended = faulty.ended();
    faulty.kill();
    let mut wrong = Vec::new();
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
    match case.act {
        "abort" => match ended {
            Some(status) if status.code().is_none() => {}
            other => wrong.push(format!("{fault}: the broker did not die there, but {other:?}")),
        },
        _ if log.contains(&format!("fault injected at {}", case.point)) => {}
        _ => wrong.push(format!("{fault}: the log does not tell of it; the broker ended with {ended:?}")),
    }
    // Once more while it recovers, then for good.
    if dice.one_in(2) {
        let again = AGAIN[dice.below(AGAIN.len() as u64) as usize];
        let mut broker = broker(&data, &format!("{again}=abort@1"), "");
        assert!(tokio::task::block_in_place(|| broker.try_ready()).is_err(), "{again} is not visited by a start");
    }
    let mut broker = broker(&data, "", "");
    broker.ready();
    while !small.prepare().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    small.progress(40, PATIENCE).await;
    let history = small.finish(broker, "", PATIENCE).await;
    for (number, (name, invariant)) in (1..).zip(check::ALL) {
        // There are no consumers without a recipe here, and nobody is a stranger.
        if let (true, Err(why)) = (number != 16, invariant(&history)) {
            wrong.push(format!("{fault}: {name}: {why}"));
        }
    }
    if !wrong.is_empty() {
        println!("{}\n  files in {}", wrong.join("\n"), dir.keep().display());
    }
    wrong
}

/// Waits for the end of a process, for a while.
async fn until_it_ends(broker: &mut Broker, patience: Duration) {
    let began = Instant::now();
    while broker.ended().is_none() && began.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The log in which the newest group is.
fn newest_log(data: &Path) -> PathBuf {
    let logs = std::fs::read_dir(data.join("db")).expect("a database").map(|entry| entry.expect("an entry").path());
    let logs = logs.filter(|path| path.extension().is_some_and(|e| e == "log") && path.metadata().is_ok_and(|m| m.len() > 0));
    logs.max().expect("a log that is not empty")
}

/// As if the machine had died while a group was on its way: the whole record has its place, not all of its bytes are there. Nobody was told
/// of it.
fn tear(data: &Path) {
    let path = newest_log(data);
    let mut bytes = std::fs::read(&path).expect("the log");
    // A record fits into its block of 32 KiB.
    let left = 32 * 1024 - bytes.len() % (32 * 1024);
    if left < 200 {
        bytes.resize(bytes.len() + left, 0);
    }
    bytes.extend([0x11, 0x22, 0x33, 0x44, 100, 0, 1]);
    bytes.extend([0x5a; 60]);
    bytes.extend([0; 40]);
    std::fs::write(path, bytes).expect("the log can be written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_accepting_a_loss_survives_a_death_in_the_middle_of_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (data, old) = (dir.path().join("data"), dir.path().join("old"));
    let client = client(&Broker::socket_of(&data), Protocol::Binary);
    let log_epoch = |stream: StreamObject| stream.rest.get("log_epoch").and_then(serde_json::Value::as_u64).expect("a log epoch");
    let mut before = 0;
    for life in 0..2 {
        let mut broker = broker(&data, "", "");
        broker.ready();
        if life == 0 {
            before = log_epoch(client.admin().create_stream("a", Default::default()).await.expect("a stream is created"));
        }
        for _ in 0..20 {
            client.append("a", NewEvent::text("tide")).await.expect("it is stored");
        }
        assert!(broker.stop().success());
        if life == 0 {
            copy(&data.join("db"), &old);
        }
    }
    // An old copy: the side file knows better.
    std::fs::remove_dir_all(data.join("db")).expect("it is ours");
    copy(&old, &data.join("db"));
    let serve = |faults: &str, accept: bool| {
        let mut command = command(faults, "");
        command.arg("serve").args(accept.then_some("--accept-data-loss"));
        command
    };
    let code = |mut command: Command| {
        let command = command.args(["--listen", "127.0.0.1:0", "--data"]).arg(&data);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").code()
    };
    assert_eq!(code(serve("", false)), Some(11), "a loss is not accepted by itself");
    assert_eq!(code(serve("recovery.loss_counted=error@1", true)), Some(10), "it fails in the middle");
    assert_eq!(code(serve("recovery.loss_counted=abort@1", true)), None, "it dies in the middle");
    assert_eq!(code(serve("", false)), Some(11), "the loss is not accepted yet");
    let mut accepted = Broker::spawn_with(serve("", true), &data, Address::default());
    accepted.ready();
    let stream = client.admin().stream("a").await.expect("the stream");
    assert_eq!(stream.state.next_offset, 20, "what the copy held is there");
    assert!(log_epoch(stream) > before, "readers are told");
    assert!(accepted.stop().success());
    let mut after = broker(&data, "", "");
    after.ready();
    let mut reader = client.consumer("$audit").from(Start::Earliest).open().await.expect("the audit opens");
    assert_eq!(reader.subscribed().next_offset, 1, "it is told once, whatever died in between");
    let event = reader.next_event().await.expect("an event").expect("no error");
    assert_eq!(event.as_ref().kind, "log-epoch-raised");
    assert!(after.stop().success());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// Where the process of the next test works.
const CHECKPOINT: &str = "FAULTS_CHECKPOINT";

/// The other role of this binary: makes a checkpoint. As a test, without a place, it has nothing to do.
#[test]
fn checkpoint_role() {
    let Ok(dir) = std::env::var(CHECKPOINT) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let made = runtime.block_on(async {
        let engine = Rocks::open(RocksOptions::new(Path::new(&dir).join("data"))).expect("it opens");
        let made = engine.checkpoint(&Path::new(&dir).join("copy")).await;
        engine.close().await.expect("it closes");
        made
    });
    std::process::exit(if made.is_ok() { 0 } else { 7 });
}

#[test]
fn a_checkpoint_that_is_interrupted_leaves_the_original_as_it_was_and_nothing_that_looks_whole_but_is_not() {
    for (fault, code, copy_opens) in [
        ("checkpoint.directory_made=abort@1", None, None),
        ("checkpoint.directory_made=error@1", Some(7), Some(false)),
        ("checkpoint.done=abort@1", None, Some(true)),
        ("checkpoint.done=error@1", Some(7), Some(false)),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let role = |faults: &str| {
            let mut command = Command::new(std::env::current_exe().expect("a test knows its binary"));
            command.args(["--exact", "points::checkpoint_role", "--nocapture"]).env(CHECKPOINT, dir.path()).env("TIDELOG_FAULTS", faults);
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").code()
        };
        assert_eq!(role(fault), code, "{fault}");
        let copy = dir.path().join("copy");
        match copy_opens {
            Some(true) => drop(Rocks::open(RocksOptions::new(&copy)).unwrap_or_else(|e| panic!("{fault}: {e}"))),
            Some(false) => assert!(!copy.exists(), "{fault}: what failed is removed"),
            None => assert!(!copy.join("db").exists(), "{fault}: there is no database to take for a copy"),
        }
        let _ = std::fs::remove_dir_all(&copy);
        assert_eq!(role(""), Some(0), "{fault}: the original opens, and can be copied");
    }
}
