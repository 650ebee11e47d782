//! Questions to one process: is it a release, does it stop well, does it finish what it began, does it keep others out.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Map;
use tidelog::client::{Client, Error, NewEvent, Protocol};
use tidelog::types::{Applied, Code};

use crate::process::{Broker, PATIENCE, tidelog};
use crate::readback;

/// Words that only binaries with fault points have (`src/log/rocks/faults.rs`).
const MARKERS: [&str; 3] = ["TIDELOG_FAULTS", "fault injected at", "is not point=error@N, point=abort@N"];

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn the_release_binary_has_no_fault_points() {
    let source = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log/rocks/faults.rs")).expect("the source of the fault points");
    let binary = std::fs::read(env!("CARGO_BIN_EXE_tidelog")).expect("the release binary");
    // Controls: the words are those of the source, and a word of the engine that is in the binary is found.
    assert!(contains(&binary, "tidelog.sock"), "the search finds nothing in the binary");
    let text = String::from_utf8_lossy(&source);
    let point = |line: &str| line.trim().strip_suffix(", fails;").or(line.trim().strip_suffix(", dies;"))?.split('"').nth(1).map(str::to_owned);
    let points: Vec<String> = text.lines().filter_map(point).collect();
    assert!(points.len() > 25, "faults.rs is not read as it should be: {points:?}");
    for marker in MARKERS.iter().copied().chain(points.iter().map(String::as_str)) {
        assert!(contains(&source, marker), "{marker:?} is no word of faults.rs any more");
        assert!(!contains(&binary, marker), "the release binary contains {marker:?}");
    }
}

async fn broker_with(stream: &str, events: u64) -> (tempfile::TempDir, Broker, Client) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(&dir.path().join("data"));
    let client = broker.client(Protocol::Binary);
    client.admin().create_stream(stream, Map::new()).await.expect("a stream is created");
    if events > 0 {
        client.append(stream, (0..events).map(text).collect::<Vec<_>>()).await.expect("events are appended");
    }
    (dir, broker, client)
}

fn text(number: u64) -> NewEvent {
    NewEvent::text(format!("event {number}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_exits_0_and_loses_nothing_that_was_acknowledged() {
    let (dir, mut broker, _) = broker_with("s", 0).await;
    let appenders: Vec<_> = (0..8u64)
        .map(|who| {
            let client = broker.client(Protocol::Binary);
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                loop {
                    let value = format!("{who} {}", outcomes.len());
                    match client.append("s", NewEvent::text(&value)).await {
                        Ok(appended) => outcomes.push((value, Ok(appended.first_offset.expect("an offset")))),
                        Err(error) => {
                            outcomes.push((value, Err(error.applied())));
                            return outcomes;
                        }
                    }
                }
            })
        })
        .collect();
    // In the middle of the work.
    let since = Instant::now();
    let admin = broker.client(Protocol::Binary).admin();
    while admin.stream("s").await.expect("the stream").state.next_offset < 200 {
        assert!(since.elapsed() < PATIENCE, "nothing is appended");
        tokio::task::yield_now().await;
    }
    let status = broker.stop();
    assert_eq!(status.code(), Some(0), "SIGTERM ends with {status}");
    let mut outcomes = Vec::new();
    for appender in appenders {
        outcomes.extend(appender.await.expect("an appender does not panic"));
    }
    let mut broker = Broker::start(&dir.path().join("data"));
    let log = readback::log(&broker.client(Protocol::Binary), "s").await;
    let mut acked = BTreeSet::new();
    for (value, outcome) in &outcomes {
        match outcome {
            Ok(offset) => {
                assert_eq!(&log.events[*offset as usize].data, value, "acknowledged at {offset}");
                acked.insert(*offset);
            }
            Err(Applied::No) => assert!(log.events.iter().all(|e| e.data != *value), "{value:?} was refused and is stored"),
            Err(Applied::Unknown) => {}
        }
    }
    let open = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Err(Applied::Unknown))).count();
    assert!(log.events.len() <= acked.len() + open, "{} events are stored, {} were acknowledged and {open} may be", log.events.len(), acked.len());
    assert_eq!(broker.stop().code(), Some(0));
}

#[tokio::test]
async fn a_second_broker_in_the_same_directory_exits_12_and_disturbs_nobody() {
    let (dir, mut broker, client) = broker_with("s", 3).await;
    let output = tidelog().arg("serve").arg("--data").arg(dir.path().join("data")).args(["--listen", "127.0.0.1:0"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(12), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "it said {:?}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.trim_end().ends_with('.') && said.contains("data"), "it does not say what is wrong: {said}");
    // The first one still has its socket and its data.
    client.append("s", text(3)).await.expect("the first broker works on");
    assert_eq!(broker.stop().code(), Some(0));
}

#[tokio::test]
async fn a_deletion_that_a_kill_interrupted_is_finished_after_the_restart() {
    let (dir, mut broker, client) = broker_with("kept", 5).await;
    let data = dir.path().join("data");
    // Again and again, so that kills fall before, within and after the work of the operation.
    for round in 0..8u64 {
        let name = format!("gone-{round}");
        let created = client.admin().create_stream(&name, Map::new()).await.expect("a stream is created");
        for part in 0..4 {
            client.append(&name, (0..2000).map(|n| text(part * 2000 + n)).collect::<Vec<_>>()).await.expect("events are appended");
        }
        client.admin().create_subscription(&name, "reader", Map::new()).await.expect("a subscription is created");
        let operation = client.admin().delete_stream(&name).await.expect("the deletion begins");
        tokio::time::sleep(Duration::from_micros(round * 400)).await;
        assert!(broker.kill(), "the broker had ended by itself");
        broker = Broker::start(&data);
        let client = broker.client(Protocol::Binary);
        let ended = client.admin().wait_operation(&operation.id, Duration::from_secs(30)).await.expect("the operation is known after the restart");
        assert_eq!((ended.status_code, ended.err.as_str()), (200, ""), "round {round}");
        let gone = client.admin().stream(&name).await.expect_err("the stream is gone");
        assert_eq!(gone.code(), Some(Code::NotFound), "{gone}");
        let anew = client.admin().create_stream(&name, Map::new()).await.expect("the name is free");
        assert!(anew.id > created.id, "ids are never reused: {} after {}", anew.id, created.id);
        assert_eq!(anew.state.next_offset, 0, "the new stream is empty");
        let reader = client.admin().subscription(&name, "reader").await.expect_err("the old subscription is gone");
        assert_eq!(reader.code(), Some(Code::NotFound), "{reader}");
    }
    assert_eq!(readback::log(&client, "kept").await.events.len(), 5, "the neighbour is untouched");
    assert_eq!(broker.stop().code(), Some(0));
}

#[tokio::test]
async fn a_restart_after_a_clean_stop_keeps_everything() {
    let (dir, mut broker, client) = broker_with("s", 1000).await;
    let producer = client.producer("s", "p").open().await.expect("a producer is opened");
    producer.send(text(1000)).await.expect("room").await.expect("an answer");
    let mut consumer = client.consumer("s").subscription("reader").create().open().await.expect("a reader is attached");
    while consumer.position() < 500 {
        consumer.next_event().await.expect("an event").expect("no error");
    }
    consumer.ack(499).await.expect("the ack is durable");
    consumer.close().await;
    producer.close().await.expect("the producer is closed");
    let before = readback::log(&client, "s").await;
    assert_eq!(broker.stop().code(), Some(0));

    let mut broker = Broker::start(&dir.path().join("data"));
    let client = broker.client(Protocol::Binary);
    let after = readback::log(&client, "s").await;
    assert_eq!((after.id, after.log_epoch, after.first, after.next, after.events), (before.id, before.log_epoch, before.first, before.next, before.events));
    assert_eq!(client.admin().subscription("s", "reader").await.expect("the reader").next, 500);
    let producer = client.producer("s", "p").open().await.expect("the producer is opened");
    assert_eq!((producer.last_seq(), producer.opened().epoch), (Some(0), 2));
    producer.close().await.expect("the producer is closed");
    assert_eq!(broker.stop().code(), Some(0));
}

#[tokio::test]
async fn an_open_connection_hears_why_it_ends_when_the_broker_stops() {
    let (_dir, mut broker, client) = broker_with("s", 1).await;
    let mut consumer = client.consumer("s").subscription("reader").create().give_up_after(Duration::ZERO).open().await.expect("a reader is attached");
    consumer.next_event().await.expect("an event").expect("no error");
    broker.ask_to_stop();
    let end = loop {
        match consumer.next().await {
            Some(Err(error)) => break error,
            Some(Ok(_)) => {}
            None => panic!("the reader ended without a reason"),
        }
    };
    assert!(matches!(end, Error::Connection { .. } | Error::Server { .. }) && end.is_retryable(), "{end:?}");
    assert_eq!(broker.wait().code(), Some(0));
}

/// What a command of the binary said, with `input` on its stdin.
fn run(data: &Path, arguments: &[&str], input: &str) -> std::process::Output {
    let mut command = tidelog();
    command.arg("--socket").arg(Broker::socket_of(data)).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[tokio::test]
async fn pub_from_stdin_removes_its_random_producer_and_keeps_a_named_one() {
    let (dir, mut broker, client) = broker_with("s", 0).await;
    let data = dir.path().join("data");
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for round in 1..=2u64 {
        let output = run(&data, &["pub", "s", "-", "--no-progress"], "a\nb\nc\n");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(client.admin().stream("s").await.expect("the stream").state.next_offset, 3 * round, "without a name it is stored again");
        assert!(client.admin().producers(Some("s")).await.expect("a list").is_empty(), "the random producer is gone");
    }
    // A line that cannot be an event ends the command; what came before has its answer, so the producer is not needed either.
    let output = run(&data, &["pub", "s", "-", "--no-progress", "--format", "json"], "1\n{\n");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(client.admin().producers(Some("s")).await.expect("a list").is_empty());
    for _ in 0..2 {
        let output = run(&data, &["pub", "s", "-", "--no-progress", "--producer", "p1"], "d\ne\n");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    assert_eq!(client.admin().stream("s").await.expect("the stream").state.next_offset, 9, "with a name each line is stored once");
    let producer = client.admin().producer(Some("s"), "p1").await.expect("it stays");
    assert_eq!((producer.producer.as_str(), producer.last_seq), ("p1", Some(1)));

    let listed = run(&data, &["producer", "ls", "s", "--json"], "");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("one line of JSON");
    assert_eq!((&listed["producer"], &listed["last_seq"]), (&"p1".into(), &1.into()));
    let table = String::from_utf8(run(&data, &["producer", "ls", "s"], "").stdout).expect("text");
    assert!(table.starts_with("PRODUCER  EPOCH  LAST SEQ  LAST USED\np1"), "{table}");
    assert!(String::from_utf8_lossy(&run(&data, &["producer", "show", "s", "p1"], "").stdout).contains("last_seq"));
    assert_eq!(run(&data, &["producer", "rm", "s", "p1", "--yes"], "").status.code(), Some(0));
    let gone = run(&data, &["producer", "rm", "s", "p1", "--yes"], "");
    assert_eq!((gone.status.code(), said(&gone).contains("p1")), (Some(3), true), "{}", said(&gone));
    assert_eq!(broker.stop().code(), Some(0));
}
