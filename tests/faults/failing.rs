//! One appender and a broker that fails: what its caller hears, and what is there afterwards (S-1, S-5, I-1 … I-3).

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tidelog::client::{Client, Endpoint, Error, NewEvent};
use tidelog::types::{Applied, Code};

struct Broker {
    child: Child,
    client: Client,
}

async fn start(data: &Path, faults: &str) -> Broker {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog-faults"))
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("TIDELOG_FAULTS", faults)
        .env("XDG_RUNTIME_DIR", data.parent().expect("the data has a parent"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let url = loop {
        let line = lines.next().expect("the broker gets ready").expect("it prints text");
        if let Some(url) = line.strip_prefix("ready ") {
            break url.to_owned();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    let client = Client::connect(Endpoint::parse(&url).expect("a valid address")).await.expect("the broker answers");
    Broker { child, client }
}

impl Broker {
    /// Appends one event per number, one after the other; tells which were acknowledged, and how the first other one ended.
    async fn append_until_it_fails(&self, numbers: std::ops::Range<u32>) -> (Vec<u32>, Option<(u32, Error)>) {
        let mut acked = Vec::new();
        for number in numbers {
            match self.client.append("s", NewEvent::text(number.to_string())).await {
                Ok(_) => acked.push(number),
                Err(error) => return (acked, Some((number, error))),
            }
        }
        (acked, None)
    }

    async fn everything(&self) -> Vec<u32> {
        let mut reader = self.client.consumer("s").from(tidelog::types::request::Start::Earliest).open().await.expect("the reader opens");
        let end = reader.subscribed().next_offset;
        let mut found = Vec::new();
        while (found.len() as u64) < end {
            let event = reader.next_event().await.expect("an event").expect("no error");
            assert_eq!(event.offset, found.len() as u64, "offsets are dense");
            found.push(event.text().and_then(|text| text.parse().ok()).expect("a number"));
        }
        found
    }

    async fn ended(mut self) -> ExitStatus {
        let waited = tokio::task::spawn_blocking(move || self.child.wait());
        tokio::time::timeout(Duration::from_secs(20), waited).await.expect("the process ends by itself").expect("it is waited for").expect("it has a status")
    }

    async fn stop(self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).expect("it can be told");
        assert!(self.ended().await.success(), "a clean stop exits 0");
    }
}

/// Runs into the fault, starts again without it, and checks I-1, I-3 and I-5 on what is there.
async fn survives(fault: &str, exit: Option<i32>) -> (Vec<u32>, u32, Error, Vec<u32>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let broker = start(&data, fault).await;
    let (acked, failed) = broker.append_until_it_fails(0..100).await;
    let (number, error) = failed.expect("the fault strikes");
    assert_eq!(broker.ended().await.code(), exit, "after {fault}");
    let broker = start(&data, "").await;
    let found = broker.everything().await;
    let without_unknown: Vec<u32> = found.iter().copied().filter(|n| *n != number).collect();
    assert_eq!(without_unknown, acked, "every acknowledged event is there, once, in order");
    assert!(found.iter().filter(|n| **n == number).count() <= 1, "what is unknown is there once or not at all");
    let (more, failed) = broker.append_until_it_fails(200..210).await;
    assert!(failed.is_none() && more.len() == 10, "the log goes on");
    broker.stop().await;
    (acked, number, error, found)
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_write_that_fails_ends_the_process_with_code_10_and_its_callers_hear_unknown() {
    let (acked, number, error, found) = survives("commit.before_write=error@6", Some(10)).await;
    assert!(!acked.is_empty(), "some were acknowledged before");
    assert!(!found.contains(&number), "nothing was written, so nothing is there");
    assert_eq!((error.code(), error.applied()), (Some(Code::OutcomeUnknown), Applied::Unknown), "a definite answer comes before the end: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_sync_that_fails_after_the_write_is_unknown_and_the_truth_is_what_recovery_finds() {
    let (_, number, error, found) = survives("commit.after_write=error@6", Some(10)).await;
    assert!(found.contains(&number), "the bytes had reached the disk before the error");
    assert_eq!((error.code(), error.applied()), (Some(Code::OutcomeUnknown), Applied::Unknown), "a definite answer comes before the end: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_process_that_dies_before_the_write_has_acknowledged_nothing_of_it() {
    let (_, number, _, found) = survives("commit.before_write=abort@6", None).await;
    assert!(!found.contains(&number));
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_process_that_dies_between_the_sync_and_the_answer_keeps_the_event() {
    let (_, number, _, found) = survives("commit.after_write=abort@6", None).await;
    assert!(found.contains(&number));
}

/// What the broker at `client` says of its streams `s0`, `s1`, …: which of them are closed, and which `$audit` says were closed.
async fn closed_and_told(client: &Client, streams: usize) -> (Vec<String>, Vec<String>) {
    let mut closed = Vec::new();
    for n in 0..streams {
        let name = format!("s{n}");
        if client.admin().stream(&name).await.is_ok_and(|stream| stream.closed) {
            closed.push(name);
        }
    }
    let mut reader = client.consumer("$audit").from(tidelog::types::request::Start::Earliest).open().await.expect("the audit opens");
    let (end, mut told) = (reader.subscribed().next_offset, Vec::new());
    for offset in 0..end {
        let event = reader.next_event().await.expect("an event").expect("no error");
        assert_eq!(event.offset, offset, "offsets are dense");
        let data: serde_json::Value = serde_json::from_str(event.text().expect("text")).expect("JSON");
        assert_eq!(data["action"], "stream-closed");
        told.push(data["source"].as_str().and_then(|source| source.rsplit('/').next()).expect("a stream").to_owned());
    }
    (closed, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_the_middle_of_an_act_keeps_it_and_what_the_audit_says_of_it_or_neither() {
    const STREAMS: usize = 4;
    for (point, act, kept) in [
        ("commit.before_write", "abort", false),
        ("commit.before_write", "error", false),
        ("commit.after_write", "abort", true),
        ("commit.after_write", "error", true),
        ("commit.before_publish", "abort", true),
        ("commit.before_answer", "abort", true),
    ] {
        // Four creations, then the third of four closings. Behind the write a group counts that has nothing to write: one for each new name that
        // is looked up, and one for the end of the audit.
        let looks = if matches!(point, "commit.before_publish" | "commit.before_answer") { STREAMS + 1 } else { 0 };
        let visit = STREAMS + looks + 3;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let broker = start(&data, &format!("{point}={act}@{visit}")).await;
        for n in 0..STREAMS {
            broker.client.admin().create_stream(&format!("s{n}"), Default::default()).await.expect("it is created");
        }
        let mut answered = Vec::new();
        for n in 0..STREAMS {
            let name = format!("s{n}");
            if broker.client.admin().close_stream(&name).await.is_ok() {
                answered.push(name);
            }
        }
        broker.ended().await;
        let broker = start(&data, "").await;
        let (closed, told) = closed_and_told(&broker.client, STREAMS).await;
        assert_eq!(closed, told, "{point}={act}: the act and what is told of it are there together or not at all");
        let expected: Vec<String> = (0..if kept { 3 } else { 2 }).map(|n| format!("s{n}")).collect();
        assert_eq!((closed, answered.len()), (expected, 2), "{point}={act}");
        broker.stop().await;
    }
}
