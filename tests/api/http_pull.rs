//! Reading a subscription over REST alone: pulls, acks by token and by epoch, and what other carriers make of them.

use std::time::Duration;

use serde_json::{Value, json};
use tidelog::server::{Mode, Server};
use tidelog::types::limits;

use crate::support::{Answer, Broker, PATIENCE, dev, exchange, on_disk, post_to, start};

const SUB: &str = "/v1/streams/s/subscriptions/b";
const PULL: &str = "/v1/streams/s/subscriptions/b/pull";
const ACK: &str = "/v1/streams/s/subscriptions/b/ack";

async fn fill(broker: &Broker, range: std::ops::Range<u64>) {
    let lines: String = range.map(|n| format!("{n}\n")).collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    assert_eq!(broker.ask("POST", "/v1/streams/s/events?lines=data", &headers, lines.as_bytes()).await.status, 201);
}

/// A stream with `events` events, and a subscription `b` at its beginning.
async fn with_events(events: u64) -> Broker {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    if events > 0 {
        fill(&broker, 0..events).await;
    }
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"b"}"#).await.status, 201);
    broker
}

async fn pull(broker: &Broker, body: &str) -> Value {
    let answer = broker.post(PULL, body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.json());
    answer.metadata()
}

/// A pull that is on its way, on a connection of its own.
async fn waiting(broker: &Broker, body: &str) -> tokio::task::JoinHandle<Answer> {
    waiting_at(broker, PULL, body).await
}

async fn waiting_at(broker: &Broker, path: &str, body: &str) -> tokio::task::JoinHandle<Answer> {
    let (tcp, path, body) = (broker.tcp().await, path.to_owned(), body.to_owned());
    tokio::spawn(async move { exchange(tcp, "POST", &path, &[("Content-Type", "application/json")], body.as_bytes()).await })
}

fn offsets(pulled: &Value) -> Vec<u64> {
    pulled["events"].as_array().unwrap().iter().map(|e| e["offset"].as_u64().unwrap()).collect()
}

/// Status, code and rule.
fn refused(answer: &Answer) -> (u16, String, String) {
    let rule = answer.json()["metadata"]["rule"].as_str().unwrap_or_default().to_owned();
    (answer.status, answer.code(), rule)
}

fn is(status: u16, code: &str, rule: &str) -> (u16, String, String) {
    (status, code.to_owned(), rule.to_owned())
}

#[tokio::test]
async fn a_pull_opens_a_session_and_goes_on_with_its_epoch() {
    let broker = with_events(5).await;
    let first = pull(&broker, "").await;
    assert_eq!(
        (&first["stream"], &first["epoch"], &first["log_epoch"], &first["next"], &first["gap"]),
        (&json!("s"), &json!(1), &json!(1), &json!(5), &json!(null))
    );
    assert_eq!(first["stream_id"], broker.get("/v1/streams/s").await.metadata()["id"]);
    assert_eq!(offsets(&first), [0, 1, 2, 3, 4]);
    assert_eq!(first["lag"], json!({"events":0,"bytes":0,"seconds":0.0}));
    let read = broker.get("/v1/streams/s/events").await.metadata();
    assert_eq!(first["events"], read["events"], "an event has one form");
    // A lost answer skips nothing: it begins at the cursor again, unless it is told to go on.
    assert_eq!(offsets(&pull(&broker, r#"{"epoch":1}"#).await), [0, 1, 2, 3, 4]);
    assert_eq!(offsets(&pull(&broker, r#"{"epoch":1,"from":3}"#).await), [3, 4]);
    let nothing = pull(&broker, r#"{"epoch":1,"from":5}"#).await;
    assert_eq!((&nothing["events"], &nothing["ack_token"], &nothing["next"]), (&json!([]), &json!(null), &json!(5)));
    let again = pull(&broker, "{}").await;
    assert_eq!((&again["epoch"], offsets(&again)), (&json!(2), vec![0, 1, 2, 3, 4]), "without an epoch it is a new session");
}

#[tokio::test]
async fn a_token_acknowledges_its_pull_or_a_part_of_it() {
    let broker = with_events(6).await;
    let token = |pulled: &Value| pulled["ack_token"].as_str().expect("a token").to_owned();
    let first = token(&pull(&broker, r#"{"max_events":3}"#).await);
    let second = token(&pull(&broker, r#"{"epoch":1,"from":3}"#).await);
    let ack = async |body: Value| broker.post(ACK, &body.to_string()).await;
    assert_eq!(ack(json!({"ack_token": first, "offset": 1})).await.metadata(), json!({"acked_offset":1,"next":2,"stale":false}));
    assert_eq!(ack(json!({"ack_token": first})).await.metadata(), json!({"acked_offset":2,"next":3,"stale":false}));
    assert_eq!(ack(json!({"ack_token": first})).await.metadata(), json!({"acked_offset":2,"next":3,"stale":false}), "C-12");
    assert_eq!(ack(json!({"ack_token": second, "level": "received"})).await.metadata(), json!({"acked_offset":5,"next":6,"stale":false}));
    assert_eq!(ack(json!({"ack_token": first})).await.metadata(), json!({"acked_offset":5,"next":6,"stale":true}), "C-13");
    assert_eq!(broker.get(SUB).await.metadata()["next"], 6);
    for offset in [0, 2, 6] {
        let outside = ack(json!({"ack_token": second, "offset": offset})).await;
        assert_eq!(refused(&outside), is(400, "bad_parameter", "C-18"), "{offset} is not of the second pull");
        assert_eq!(outside.json()["metadata"]["details"], json!({"field":"offset","from":3,"to":5}));
    }
}

#[tokio::test]
async fn a_token_that_was_altered_or_given_out_elsewhere_is_refused() {
    let broker = with_events(3).await;
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"other"}"#).await.status, 201);
    let token = pull(&broker, "").await["ack_token"].as_str().unwrap().to_owned();
    let other = broker.post("/v1/streams/s/subscriptions/other/pull", "").await.metadata()["ack_token"].as_str().unwrap().to_owned();
    let swapped = if token.starts_with('B') { token.replacen('B', "C", 1) } else { format!("B{}", &token[1..]) };
    for bad in ["", "x", &swapped, &token[..token.len() - 1], &format!("{token}AAAA"), &other, "\u{0}", &"A".repeat(10_000)] {
        let answer = broker.post(ACK, &json!({"ack_token": bad}).to_string()).await;
        assert_eq!(refused(&answer), is(400, "bad_ack_token", "C-18"), "{bad:?}");
    }
    assert_eq!(broker.get(SUB).await.metadata()["next"], 0, "nothing was acknowledged");
    assert_eq!(broker.post(ACK, &json!({"ack_token": token}).to_string()).await.metadata()["next"], 3);
}

#[tokio::test]
async fn the_ack_table_holds_over_rest() {
    let broker = with_events(10).await;
    pull(&broker, r#"{"max_events":4}"#).await;
    let ack = async |epoch: u64, offset: u64| broker.post(ACK, &json!({"epoch": epoch, "offset": offset}).to_string()).await;
    assert_eq!(refused(&ack(0, 1).await), is(409, "session_fenced", "C-7"));
    assert_eq!(refused(&ack(2, 1).await), is(409, "session_unknown", "C-8"));
    assert_eq!(refused(&ack(1, 10).await), is(409, "ack_beyond_end", "C-9"));
    let early = ack(1, 4).await;
    assert_eq!((refused(&early), &early.json()["metadata"]["details"]["next_delivered"]), (is(409, "ack_not_delivered", "C-10"), &json!(4)));
    assert_eq!(refused(&ack(1, u64::MAX).await), is(400, "bad_parameter", ""));
    assert_eq!(ack(1, 2).await.metadata(), json!({"acked_offset":2,"next":3,"stale":false}), "C-11");
    assert_eq!(ack(1, 2).await.metadata(), json!({"acked_offset":2,"next":3,"stale":false}), "C-12");
    assert_eq!(ack(1, 0).await.metadata(), json!({"acked_offset":2,"next":3,"stale":true}), "C-13");
    // Between the cursor and what it was given, and nowhere else.
    for from in [2, 5] {
        let outside = broker.post(PULL, &json!({"epoch": 1, "from": from}).to_string()).await;
        assert_eq!(refused(&outside), is(400, "bad_parameter", ""), "from {from}");
        assert_eq!(outside.json()["metadata"]["details"], json!({"field":"from","next":3,"next_delivered":4}));
    }
    for body in [r#"{"epoch":1,"from":"latest"}"#, r#"{"epoch":1,"log_epoch":1}"#] {
        assert_eq!(refused(&broker.post(PULL, body).await), is(400, "bad_parameter", ""), "{body}");
    }
}

#[tokio::test]
async fn a_pull_is_cut_by_events_and_bytes_and_one_event_always_passes() {
    let broker = with_events(0).await;
    assert_eq!(broker.post("/v1/streams/s/events", r#"{"events":[{"data":"aaaa"},{"data":"bbbb"},{"data":"cccccccccccccccc"},{"data":1}]}"#).await.status, 201);
    let sizes = [6, 6, 18, 1];
    pull(&broker, "").await;
    for (body, expected) in [
        (r#"{"epoch":1,"max_events":1}"#, vec![0]),
        (r#"{"epoch":1,"max_events":3}"#, vec![0, 1, 2]),
        (r#"{"epoch":1,"max_bytes":11}"#, vec![0]),
        (r#"{"epoch":1,"max_bytes":12}"#, vec![0, 1]),
        (r#"{"epoch":1,"max_bytes":30}"#, vec![0, 1, 2]),
        (r#"{"epoch":1,"from":2,"max_bytes":1}"#, vec![2]),
        (r#"{"epoch":1,"max_events":10000,"max_bytes":4194304}"#, vec![0, 1, 2, 3]),
    ] {
        let pulled = pull(&broker, body).await;
        assert_eq!(offsets(&pulled), expected, "{body}");
        let left: u64 = sizes[pulled["next"].as_u64().unwrap() as usize..].iter().sum();
        assert_eq!((&pulled["lag"]["events"], &pulled["lag"]["bytes"]), (&json!(4 - pulled["next"].as_u64().unwrap()), &json!(left)), "{body}");
    }
}

#[tokio::test]
async fn what_is_pulled_and_not_acknowledged_stays_within_the_window() {
    let broker = with_events(10).await;
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"narrow","max_in_flight":4}"#).await.status, 201);
    let at = "/v1/streams/s/subscriptions/narrow";
    let pull = async |body: Value| broker.post(&format!("{at}/pull"), &body.to_string()).await.metadata();
    assert_eq!(offsets(&pull(json!({})).await), [0, 1, 2, 3]);
    let full = pull(json!({"epoch": 1, "from": 4})).await;
    assert_eq!((&full["events"], &full["ack_token"], &full["lag"]["events"]), (&json!([]), &json!(null), &json!(6)));
    // An ack over any carrier opens the window, also under a pull that waits.
    let waiting = waiting_at(&broker, &format!("{at}/pull"), r#"{"epoch":1,"from":4,"wait_s":60}"#).await;
    assert_eq!(broker.post(&format!("{at}/ack"), r#"{"epoch":1,"offset":1}"#).await.metadata()["next"], 2);
    let pulled = tokio::time::timeout(PATIENCE, waiting).await.expect("the ack wakes the pull").unwrap().metadata();
    assert_eq!(offsets(&pulled), [4, 5]);
}

#[tokio::test]
async fn a_waiting_pull_ends_when_something_comes_and_when_it_is_fenced() {
    let broker = with_events(0).await;
    assert_eq!(offsets(&pull(&broker, r#"{"wait_s":0}"#).await), [0; 0]);
    let poll = waiting(&broker, r#"{"epoch":1,"wait_s":60}"#).await;
    fill(&broker, 0..1).await;
    let pulled = tokio::time::timeout(PATIENCE, poll).await.expect("the pull ends").unwrap().metadata();
    assert_eq!(offsets(&pulled), [0]);
    let poll = waiting(&broker, r#"{"epoch":1,"from":1,"wait_s":60}"#).await;
    // Whether the other comes before or after it began to wait, it is fenced.
    assert_eq!(pull(&broker, "").await["epoch"], 2);
    let fenced = tokio::time::timeout(PATIENCE, poll).await.expect("the pull ends").unwrap();
    assert_eq!(refused(&fenced), is(409, "session_fenced", "C-7"));
}

#[tokio::test]
async fn a_waiting_pull_ends_empty_when_the_broker_stops_and_with_its_client() {
    let broker = with_events(0).await;
    let body = r#"{"wait_s":60}"#;
    let request = format!("POST {PULL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let opened = async |epoch: u64| {
        while broker.get(SUB).await.metadata()["epoch"] != epoch {
            tokio::task::yield_now().await;
        }
    };
    let mut tcp = broker.tcp().await;
    tokio::io::AsyncWriteExt::write_all(&mut tcp, request.as_bytes()).await.unwrap();
    tokio::time::timeout(PATIENCE, opened(1)).await.expect("the pull has its session");
    drop(tcp);
    let alone = async {
        while !String::from_utf8(broker.get("/metrics").await.body).unwrap().contains("tidelog_connections 1.0\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), alone).await.expect("only the one who asks");

    let poll = waiting(&broker, body).await;
    tokio::time::timeout(PATIENCE, opened(2)).await.expect("the next pull has its session");
    broker.server.stop().await.expect("a clean stop");
    let answer = tokio::time::timeout(PATIENCE, poll).await.expect("the pull ends").unwrap();
    assert_eq!((answer.status, &answer.metadata()["events"]), (200, &json!([])));
}

#[tokio::test]
async fn pulls_and_pushes_fence_each_other_and_share_the_cursor() {
    let broker = with_events(4).await;
    pull(&broker, "").await;
    assert_eq!(broker.post(ACK, r#"{"epoch":1,"offset":0}"#).await.status, 200);
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let subscribed = peer.ask(r#"{"t":"subscribe","sub":1,"stream":"s","subscription":"b"}"#).await;
    assert_eq!((&subscribed["epoch"], &subscribed["next"]), (&json!(2), &json!(1)));
    assert_eq!(refused(&broker.post(PULL, r#"{"epoch":1}"#).await), is(409, "session_fenced", "C-7"));
    assert_eq!(refused(&broker.post(ACK, r#"{"epoch":1,"offset":1}"#).await), is(409, "session_fenced", "C-7"));
    while peer.json().await["t"] != "live" {}
    // The epoch is what counts: an ack over REST refills the socket's window, and REST may go on pulling in that session.
    assert_eq!(broker.post(ACK, r#"{"epoch":2,"offset":2}"#).await.metadata()["next"], 3);
    assert_eq!(offsets(&pull(&broker, r#"{"epoch":2}"#).await), [3]);
    let polite = broker.post(PULL, r#"{"takeover":"reject"}"#).await;
    assert_eq!(refused(&polite), is(409, "cursor_busy", "C-1"));
    let taken = pull(&broker, r#"{"takeover":"steal"}"#).await;
    assert_eq!((&taken["epoch"], offsets(&taken)), (&json!(3), vec![3]));
    let end = peer.json().await;
    assert_eq!((&end["t"], &end["code"], &end["rule"]), (&json!("error"), &json!("session_fenced"), &json!("C-7")));
    // A seek fences too; whoever pulls learns it from the epochs.
    assert_eq!(broker.put(&format!("{SUB}/cursor"), r#"{"next":0}"#).await.metadata()["epoch"], 4);
    assert_eq!(refused(&broker.post(PULL, r#"{"epoch":3}"#).await), is(409, "session_fenced", "C-7"));
    assert_eq!(offsets(&pull(&broker, "").await), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_session_is_live_between_two_pulls_and_gone_after_its_ack_timeout() {
    let broker = with_events(2).await;
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"brief","ack_timeout_s":1}"#).await.status, 201);
    let at = "/v1/streams/s/subscriptions/brief";
    let token = broker.post(&format!("{at}/pull"), "").await.metadata()["ack_token"].clone();
    let polite = async || broker.post(&format!("{at}/pull"), r#"{"takeover":"reject"}"#).await;
    assert_eq!(refused(&polite().await), is(409, "cursor_busy", "C-1"));
    let free = async {
        while polite().await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("who does not pull counts as gone");
    let late = broker.post(&format!("{at}/ack"), &json!({"ack_token": token}).to_string()).await;
    assert!(["bad_ack_token", "session_fenced"].contains(&late.code().as_str()), "{late:?}");
    assert_eq!(broker.get(at).await.metadata()["next"], 0);
}

#[tokio::test]
async fn events_that_are_gone_fail_or_are_told_as_a_gap() {
    let broker = with_events(8).await;
    let token = pull(&broker, r#"{"max_events":2}"#).await["ack_token"].clone();
    assert_eq!(broker.post("/v1/streams/s/trim", r#"{"before_offset":5}"#).await.status, 200);
    for body in [r#"{"epoch":1,"from":2}"#, r#"{"epoch":1}"#, "", r#"{"on_gap":"fail"}"#] {
        let gone = broker.post(PULL, body).await;
        assert_eq!((refused(&gone), &gone.json()["metadata"]["details"]["first_offset"]), (is(404, "cursor_trimmed", "C-6"), &json!(5)), "{body}");
    }
    let skipped = pull(&broker, r#"{"epoch":1,"from":2,"on_gap":"skip"}"#).await;
    assert_eq!(skipped["gap"], json!({"from":2,"to":4,"reason":"retention"}));
    assert_eq!((offsets(&skipped), &skipped["next"]), (vec![5, 6, 7], &json!(8)));
    // The cursor never moves by itself; what was lost is acknowledged like an event.
    assert_eq!(broker.get(SUB).await.metadata()["next"], 0);
    assert_eq!(broker.post(ACK, &json!({"ack_token": token}).to_string()).await.metadata()["next"], 2);
    assert_eq!(broker.post(ACK, r#"{"epoch":1,"offset":4}"#).await.metadata()["next"], 5);
    assert_eq!(broker.post(ACK, &json!({"ack_token": skipped["ack_token"]}).to_string()).await.metadata()["next"], 8);
}

#[tokio::test]
async fn a_pull_opens_at_a_place_as_any_reader_does() {
    let broker = with_events(6).await;
    for (body, code, rule) in [
        (r#"{"from":7}"#, "position_beyond_end", "C-3"),
        (r#"{"from":18446744073709551615}"#, "position_beyond_end", "C-3"),
        (r#"{"from":2,"log_epoch":7}"#, "log_epoch_changed", "C-2"),
        (r#"{"log_epoch":7}"#, "log_epoch_changed", "C-2"),
    ] {
        assert_eq!(refused(&broker.post(PULL, body).await), is(409, code, rule), "{body}");
    }
    assert_eq!(broker.get(SUB).await.metadata()["epoch"], 0, "nothing was opened");
    assert_eq!(offsets(&pull(&broker, r#"{"from":2,"log_epoch":1}"#).await), [2, 3, 4, 5]);
    assert_eq!(refused(&broker.post(PULL, r#"{"from":1}"#).await), is(409, "cursor_ahead", "C-4"));
    assert_eq!(refused(&broker.post(PULL, r#"{"from":"earliest"}"#).await), is(409, "cursor_ahead", "C-4"));
    let time = broker.get("/v1/streams/s/events/5").await.metadata()["time"].as_str().unwrap().to_owned();
    // One batch has one time: the first of it is the first of that time.
    assert_eq!(refused(&broker.post(PULL, &json!({"from": time}).to_string()).await), is(409, "cursor_ahead", "C-4"));
    assert_eq!(offsets(&pull(&broker, r#"{"from":6}"#).await), [0; 0]);
    let latest = pull(&broker, r#"{"from":"latest"}"#).await;
    assert_eq!((&latest["next"], offsets(&latest)), (&json!(6), vec![]));
}

#[tokio::test]
async fn what_is_not_there_cannot_be_pulled() {
    let broker = with_events(1).await;
    for path in ["/v1/streams/s/subscriptions/none", "/v1/streams/s/subscriptions/none/"] {
        let answer = broker.post(&format!("{}/pull", path.trim_end_matches('/')), "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
        assert_eq!(answer.json()["metadata"]["resource"], "/v1/streams/s/subscriptions/none");
        assert_eq!(broker.post(&format!("{}/ack", path.trim_end_matches('/')), r#"{"epoch":1,"offset":0}"#).await.code(), "not_found");
    }
    assert_eq!(broker.ask("DELETE", SUB, &[], b"").await.status, 200);
    assert_eq!(broker.post(PULL, r#"{"epoch":1}"#).await.code(), "not_found");
}

#[tokio::test]
async fn a_token_outlives_a_restart_and_an_epoch_alone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let post = async |server: &Server, path: &str, body: &str| post_to(server, path, &[], body).await;
    let server = on_disk(dir.path()).await;
    assert_eq!(post(&server, "/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(post(&server, "/v1/streams/s/events", r#"{"events":[{"data":0},{"data":1},{"data":2}]}"#).await.status, 201);
    assert_eq!(post(&server, "/v1/streams/s/subscriptions", r#"{"name":"b"}"#).await.status, 201);
    let token = post(&server, PULL, r#"{"max_events":2}"#).await.metadata()["ack_token"].clone();
    server.stop().await.expect("a clean stop");

    let server = on_disk(dir.path()).await;
    assert_eq!(refused(&post(&server, ACK, r#"{"epoch":1,"offset":1}"#).await), is(409, "session_unknown", "C-8"));
    assert_eq!(refused(&post(&server, PULL, r#"{"epoch":1}"#).await), is(409, "session_unknown", "C-8"));
    let acked = post(&server, ACK, &json!({"ack_token": token}).to_string()).await;
    assert_eq!(acked.metadata(), json!({"acked_offset":1,"next":2,"stale":false}));
    let pulled = post(&server, PULL, "").await.metadata();
    assert_eq!((&pulled["epoch"], offsets(&pulled)), (&json!(2), vec![2]), "it goes on where the token left it");
    server.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_pull_never_makes_its_subscription() {
    assert_eq!(dev().await.post("/v1/streams/new/subscriptions/b/pull", "").await.code(), "not_found", "not even under dev");
    let broker = start(Mode::Serve { trust_loopback: true }, |_| {}).await;
    assert_eq!(broker.post("/v1/streams/new/subscriptions/b/pull", "").await.code(), "not_found");
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!([]));
}

#[tokio::test]
async fn the_bounds_of_a_pull_hold_at_the_limit() {
    let broker = with_events(1).await;
    for (field, most) in [("max_events", limits::READ_MAX_EVENTS as u64), ("max_bytes", limits::READ_MAX_BYTES as u64), ("wait_s", limits::LONG_POLL.as_secs())]
    {
        for within in [most - 1, most] {
            // There is something to hand out: nobody waits.
            assert_eq!(offsets(&pull(&broker, &json!({field: within}).to_string()).await), [0], "{field} {within}");
        }
        let beyond = broker.post(PULL, &json!({field: most + 1}).to_string()).await;
        assert_eq!((refused(&beyond), &beyond.json()["metadata"]["details"]["field"]), (is(400, "bad_parameter", ""), &json!(field)));
    }
}
