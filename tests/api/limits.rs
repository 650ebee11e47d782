//! The bounds of `limits.md` that concern HTTP: at the limit it works, one beyond it is refused, others are left alone.

use std::time::Duration;

use serde_json::json;
use tidelog::server::Mode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{PATIENCE, dev, raw, start};

#[tokio::test]
async fn an_event_of_one_mebibyte_is_stored_and_one_byte_more_is_413() {
    let broker = dev().await;
    let mut data = vec![b'x'; 1024 * 1024];
    assert_eq!(broker.ask("POST", "/v1/streams/s/events", &[("Content-Type", "application/octet-stream")], &data).await.status, 201);
    data.push(b'x');
    let answer = broker.ask("POST", "/v1/streams/s/events", &[("Content-Type", "application/octet-stream")], &data).await;
    assert_eq!((answer.status, answer.code().as_str(), &answer.json()["error_code"]), (413, "too_large", &json!(400)));
    assert_eq!(broker.get("/v1/streams/s").await.metadata()["state"]["next_offset"], 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_without_being_read() {
    let broker = start(Mode::Dev, |config| config.raw.limits.message_bytes = 1000).await;
    let body = |n: usize| format!("{{\"events\":[{{\"data\":\"{}\"}}]}}", "x".repeat(n - 24));
    assert_eq!(broker.post("/v1/streams/s/events", &body(1000)).await.status, 201);
    assert_eq!(broker.post("/v1/streams/s/events", &body(1001)).await.status, 413);
    // Announced, never sent: the answer comes all the same.
    let head =
        b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(broker.tcp().await, head).await.code(), "too_large");
    // In chunks, without a length.
    let chunk = format!(
        "POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        body(1001)
    );
    assert_eq!(raw(broker.tcp().await, chunk.as_bytes()).await.code(), "too_large");
}

#[tokio::test]
async fn ten_thousand_events_are_one_batch_and_one_more_is_not() {
    let broker = dev().await;
    let lines = "1\n".repeat(10_000);
    let headers = [("Content-Type", "application/x-ndjson")];
    assert_eq!(broker.ask("POST", "/v1/streams/s/events?lines=data", &headers, lines.as_bytes()).await.metadata()["count"], 10_000);
    let answer = broker.ask("POST", "/v1/streams/s/events?lines=data", &headers, (lines + "1\n").as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert_eq!(broker.get("/v1/streams/s/events?limit=10000").await.metadata()["events"].as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn a_commit_has_at_most_64_streams_and_256_acks() {
    let broker = dev().await;
    let appends = |n: usize| json!({"appends": (0..n).map(|i| json!({"stream": format!("s{i}"), "events": [{"data": 1}]})).collect::<Vec<_>>()}).to_string();
    for within in [63, 64] {
        assert_eq!(broker.post("/v1/commit", &appends(within)).await.status, 200, "{within}");
    }
    let answer = broker.post("/v1/commit", &appends(65)).await;
    assert_eq!((answer.status, answer.code().as_str(), &answer.json()["metadata"]["rule"]), (413, "txn_too_large", &json!("T-6")));
    // Each to a subscription that is not there: the limit is looked at before.
    let acks = |n: usize| {
        let ack = |i: usize| json!({"stream": "s0", "subscription": format!("b{i}"), "epoch": 1, "offset": 0});
        json!({"acks": (0..n).map(ack).collect::<Vec<_>>()}).to_string()
    };
    for within in [255, 256] {
        assert_eq!(broker.post("/v1/commit", &acks(within)).await.code(), "txn_part_failed", "{within}");
    }
    assert_eq!(broker.post("/v1/commit", &acks(257)).await.code(), "txn_too_large");
}

#[tokio::test]
async fn a_body_of_a_pull_an_ack_or_a_commit_has_the_limit_of_every_body() {
    let broker = start(Mode::Dev, |config| config.raw.limits.message_bytes = 200).await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"s"}"#).await.status, 201);
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"b"}"#).await.status, 201);
    for (path, body, status) in [
        ("/v1/streams/s/subscriptions/b/pull", "{}", 200),
        ("/v1/streams/s/subscriptions/b/ack", r#"{"ack_token":"x"}"#, 400),
        ("/v1/streams/s/producers", r#"{"producer":"p"}"#, 201),
        ("/v1/producers", r#"{"producer":"p"}"#, 201),
        ("/v1/commit", r#"{"appends":[{"stream":"s","events":[{"data":1}]}]}"#, 200),
    ] {
        let padded = |n: usize| format!("{body}{}", " ".repeat(n - body.len()));
        assert_eq!(broker.post(path, &padded(200)).await.status, status, "{path}");
        let answer = broker.post(path, &padded(201)).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{path}");
    }
}

#[tokio::test]
async fn data_may_nest_32_levels() {
    let broker = dev().await;
    let body = |depth: usize| format!("{{\"events\":[{{\"data\":{}{}}}]}}", "[".repeat(depth), "]".repeat(depth));
    for depth in [31, 32] {
        assert_eq!(broker.post("/v1/streams/s/events", &body(depth)).await.status, 201, "{depth}");
    }
    assert_eq!(broker.post("/v1/streams/s/events", &body(33)).await.status, 400);
}

#[tokio::test]
async fn sixty_four_headers_are_read_and_more_are_not() {
    let broker = dev().await;
    let ask = |n: usize| {
        let mut request = "GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".to_owned();
        for i in 2..n {
            request.push_str(&format!("X-{i}: 1\r\n"));
        }
        request + "\r\n"
    };
    assert_eq!(raw(broker.tcp().await, ask(64).as_bytes()).await.status, 200);
    assert_eq!(raw(broker.tcp().await, ask(65).as_bytes()).await.status, 431);
}

#[tokio::test]
async fn sixteen_kibibytes_of_headers_are_too_many() {
    let broker = dev().await;
    let ask = |n: usize| format!("GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: {}\r\n\r\n", "x".repeat(n));
    assert_eq!(raw(broker.tcp().await, ask(12 * 1024).as_bytes()).await.status, 200);
    assert_eq!(raw(broker.tcp().await, ask(17 * 1024).as_bytes()).await.status, 431);
}

#[tokio::test]
async fn a_connection_that_never_sends_a_request_is_closed() {
    let broker = dev().await;
    let mut silent = broker.tcp().await;
    let mut slow = broker.tcp().await;
    slow.write_all(b"GET /v1 HTTP/1.1\r\nHost: loc").await.unwrap();
    let mut scrap = Vec::new();
    tokio::time::timeout(PATIENCE, silent.read_to_end(&mut scrap)).await.expect("closed in time").ok();
    tokio::time::timeout(PATIENCE, slow.read_to_end(&mut scrap)).await.expect("closed in time").ok();
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_and_the_socket_is_not_counted() {
    let broker = start(Mode::Dev, |config| config.raw.limits.connections = 2).await;
    let mut first = broker.ws("/v1/connect").await.greeted().await;
    let second = broker.ws("/v1/connect").await.greeted().await;
    assert!(broker.ws_as("/v1/connect", None).await.is_err(), "the third is refused");
    assert_eq!(broker.ask_locally("GET", "/livez", &[], b"").await.status, 200);
    first.alive().await;
    drop(second);
    let room = async {
        while broker.ws_as("/v1/connect", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), room).await.expect("a closed connection makes room");
}

#[tokio::test]
async fn requests_that_http_forbids_are_refused_and_the_broker_lives_on() {
    let broker = dev().await;
    for bad in [
        &b"GARBAGE\r\n\r\n"[..],
        b"GET /v1 HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{}x",
        b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\nConnection: close\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(raw(broker.tcp().await, bad).await.status, 400, "{:?}", String::from_utf8_lossy(bad));
    }
    assert_eq!(broker.get("/livez").await.status, 200);
}
