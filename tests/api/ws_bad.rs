//! Bad input over WebSocket: what can be answered is answered and the connection stays; what cannot closes it with the right code.

use futures_util::SinkExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, dev};

#[tokio::test]
async fn frames_that_do_not_decode_are_answered_and_the_connection_stays() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    for (bad, codes) in [
        ("", &["json_parsing_failed"][..]),
        ("{", &["json_parsing_failed"]),
        ("null", &["bad_parameter", "json_parsing_failed"]),
        ("[]", &["bad_parameter", "json_parsing_failed"]),
        ("{}", &["bad_parameter"]),
        (r#"{"t":7}"#, &["bad_parameter"]),
        (r#"{"t":"dance"}"#, &["bad_parameter"]),
        (r#"{"t":"ping","t":"ping"}"#, &["bad_parameter"]),
        (r#"{"t":"ping","colour":1}"#, &["unknown_field"]),
        (r#"{"t":"append","req":1}"#, &["bad_parameter"]),
        (r#"{"t":"append","req":1,"stream":"a/b","events":[{"data":1}]}"#, &["bad_parameter"]),
        (r#"{"t":"append","req":1,"stream":"a","events":[]}"#, &["bad_parameter"]),
        (r#"{"t":"append","req":-1,"stream":"a","events":[{"data":1}]}"#, &["bad_parameter"]),
        (r#"{"t":"append","req":9007199254740992,"stream":"a","events":[{"data":1}]}"#, &["bad_parameter"]),
        (r#"{"t":"subscribe","sub":1}"#, &["bad_parameter"]),
        (r#"{"t":"subscribe","sub":1,"stream":"a","from":"soon"}"#, &["bad_parameter"]),
        (r#"{"t":"subscribe","sub":1,"stream":"a","takeover":"maybe"}"#, &["bad_parameter"]),
        (r#"{"t":"subscribe","sub":1,"stream":"a","filter":"type like x"}"#, &["bad_filter"]),
        (r#"{"t":"ack","sub":1}"#, &["bad_parameter"]),
        (r#"{"t":"ack","sub":1,"offset":0}"#, &["bad_parameter"]),
        (r#"{"t":"credit","sub":1,"events":1,"bytes":1}"#, &["bad_parameter"]),
        (r#"{"t":"unsubscribe","sub":1}"#, &["bad_parameter"]),
        (r#"{"t":"auth","key":"x"}"#, &["bad_parameter"]),
        (r#"{"t":"resume","req":1,"stream":"a"}"#, &["bad_parameter", "not_found", ""]),
    ] {
        let frame = peer.ask(bad).await;
        if frame["t"] == "resumed" {
            continue; // nothing was poisoned: there is nothing to end
        }
        assert_eq!(frame["t"], "error", "{bad}: {frame}");
        assert!(codes.contains(&frame["code"].as_str().unwrap()), "{bad}: {frame}");
        assert!(frame["message"].as_str().unwrap().len() > 10 && frame["applied"] == "no" && frame["request_id"].is_string(), "{frame}");
        peer.alive().await;
    }
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!([]), "nothing was stored");
}

#[tokio::test]
async fn an_error_says_which_request_or_reader_it_is_about() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let error = peer.ask(r#"{"t":"append","req":42,"stream":"a","events":[{"data":1,"colour":1}]}"#).await;
    assert_eq!((&error["req"], &error["code"], error.get("sub")), (&json!(42), &json!("unknown_field"), None));
    let error = peer.ask(r#"{"t":"ack","sub":9,"offset":0}"#).await;
    assert_eq!((&error["sub"], &error["code"], error.get("req")), (&json!(9), &json!("bad_parameter"), None));
}

#[tokio::test]
async fn a_sub_in_use_is_refused_and_the_reader_lives_on() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(peer.ask(r#"{"t":"subscribe","sub":1,"stream":"a","from":"earliest"}"#).await["t"], "subscribed");
    assert_eq!(peer.json().await["t"], "live");
    assert_eq!(peer.ask(r#"{"t":"subscribe","sub":1,"stream":"b"}"#).await["code"], "bad_parameter");
    assert_eq!(peer.ask(r#"{"t":"ack","sub":1,"offset":0}"#).await["code"], "ack_mode_mismatch");
    assert_eq!(broker.post("/v1/streams/a/events", r#"{"events":[{"data":1}]}"#).await.status, 201);
    assert_eq!(peer.json().await["t"], "events");
}

#[tokio::test]
async fn a_broken_append_poisons_its_session_until_it_is_resumed() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let append = |req: u64, stream: &str| json!({"t":"append","req":req,"stream":stream,"events":[{"data":req}]}).to_string();
    for stream in ["a", "b"] {
        assert_eq!(peer.ask(&append(1, stream)).await["t"], "appended");
    }
    assert_eq!(peer.ask(r#"{"t":"append","req":2,"stream":"a","events":[{"data":}]}"#).await["t"], "error");
    // The frame was no JSON, so nobody knows whose it was: every session of the connection is poisoned.
    for stream in ["a", "b"] {
        let error = peer.ask(&append(3, stream)).await;
        assert_eq!((&error["code"], &error["retry"]), (&json!("session_poisoned"), &json!("resume")), "{stream}");
        assert_eq!(peer.ask(&json!({"t":"resume","req":4,"stream":stream}).to_string()).await["t"], "resumed");
        assert_eq!(peer.ask(&append(5, stream)).await["t"], "appended");
    }
    // Here stream and producer are readable: only its session is.
    assert_eq!(peer.ask(r#"{"t":"append","req":6,"stream":"a","events":[]}"#).await["t"], "error");
    assert_eq!(peer.ask(&append(7, "a")).await["code"], "session_poisoned");
    assert_eq!(peer.ask(&append(7, "b")).await["t"], "appended");
}

#[tokio::test]
async fn the_wrong_kind_of_message_closes_with_1003() {
    let broker = dev().await;
    for (form, wrong) in [("tidelog.v1.json", Message::binary(vec![1u8])), ("tidelog.v1.proto", Message::text("{}"))] {
        let mut peer = broker.ws_as("/v1/connect", Some(form)).await.unwrap().greeted().await;
        peer.ws.send(wrong).await.unwrap();
        assert_eq!(peer.closed().await, 1003, "{form}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_protobuf_frame_are_answered_and_the_connection_stays() {
    let broker = dev().await;
    let mut peer = broker.ws_as("/v1/connect", Some("tidelog.v1.proto")).await.unwrap().greeted().await;
    for bad in [&b""[..], b"\xff\xff\xff", b"\x0a", &[0x0a, 0x7f, 1]] {
        peer.ws.send(Message::binary(bad.to_vec())).await.unwrap();
        assert!(matches!(peer.heard().await, tidelog::wire::frame::ServerFrame::Error { .. }), "{bad:?}");
    }
    peer.frame(&tidelog::wire::frame::ClientFrame::Ping).await;
    assert!(matches!(peer.heard().await, tidelog::wire::frame::ServerFrame::Pong));
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    // The close may come before all of it is taken.
    let _ = peer.ws.send(Message::text("x".repeat(8 * 1024 * 1024 + 1))).await;
    assert_eq!(peer.closed().await, 1009);
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let frame = peer.ask(&"x".repeat(8 * 1024 * 1024)).await;
    assert_eq!(frame["code"], "json_parsing_failed", "at the limit it is read");
}

/// A frame header and payload, masked with zeros, as a client would send it.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, payload.len() as u8 | if masked { 0x80 } else { 0 }];
    if masked {
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes.extend_from_slice(payload);
    bytes
}

#[tokio::test]
async fn violations_of_websocket_close_with_the_code_of_the_rfc() {
    let broker = dev().await;
    for (bytes, code, what) in [
        (frame(0x81, false, b"{}"), 1002, "unmasked"),
        (frame(0x81, true, b"\xff\xfe"), 1007, "text that is not UTF-8"),
        (frame(0xc1, true, b"{}"), 1002, "a reserved bit"),
        (frame(0x83, true, b"{}"), 1002, "a reserved opcode"),
        (frame(0x80, true, b"{}"), 1002, "a continuation of nothing"),
        (frame(0x09, true, b""), 1002, "a ping in pieces"),
    ] {
        let peer = broker.ws("/v1/connect").await.greeted().await;
        let mut tcp = peer.ws.into_inner();
        tcp.write_all(&bytes).await.unwrap();
        let mut all = Vec::new();
        tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut all)).await.expect(what).expect(what);
        assert_eq!((all[0], u16::from_be_bytes([all[2], all[3]])), (0x88, code), "{what}: {all:?}");
    }
}

#[tokio::test]
async fn more_pings_than_anybody_needs_close_with_4008() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    for _ in 0..101 {
        if peer.ws.send(Message::Ping(Default::default())).await.is_err() {
            break;
        }
    }
    assert_eq!(peer.closed().await, 4008);
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    for _ in 0..100 {
        peer.alive().await;
    }
    peer.text(r#"{"t":"ping"}"#).await;
    assert_eq!(peer.closed().await, 4008);
}

#[tokio::test]
async fn upgrades_that_are_none_are_answered_over_http() {
    let broker = dev().await;
    assert_eq!(broker.get("/v1/connect").await.code(), "websocket_required");
    assert_eq!(broker.get("/v1/streams/a/subscriptions/s/connect").await.code(), "websocket_required");
    let good = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")];
    for (index, header) in [(2, ("Sec-WebSocket-Version", "8")), (3, ("Sec-WebSocket-Key", "short")), (2, ("X", "y")), (3, ("X", "y"))] {
        let mut headers = good;
        headers[index] = header;
        assert_eq!(broker.ask("GET", "/v1/connect", &headers, b"").await.code(), "bad_parameter", "{header:?}");
    }
    for path in [
        "/v1/connect?colour=1",
        "/v1/streams/a/subscriptions/s/connect?from=soon",
        "/v1/streams/a/subscriptions/s/connect?takeover=maybe",
        "/v1/streams/a%2Fb/subscriptions/s/connect",
    ] {
        assert_eq!(broker.ask("GET", path, &good, b"").await.code(), "bad_parameter", "{path}");
    }
}

#[tokio::test]
async fn the_url_of_a_subscription_that_is_not_there_says_so_and_closes() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/streams/a/subscriptions/none/connect").await.greeted().await;
    let error = peer.json().await;
    assert_eq!((&error["t"], &error["code"], error.get("sub")), (&json!("error"), &json!("not_found"), None));
    assert_eq!(peer.closed().await, 1008);
}

#[tokio::test]
async fn a_socket_that_takes_nothing_for_thirty_seconds_is_closed_with_4008_and_the_cursor_stays() {
    let broker = dev().await;
    let data = vec![b'x'; 512 * 1024];
    for _ in 0..64 {
        assert_eq!(broker.ask("POST", "/v1/streams/a/events", &[("Content-Type", "text/plain")], &data).await.status, 201);
    }
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    peer.text(r#"{"t":"subscribe","sub":1,"stream":"a","subscription":"s","create":true,"credit":{"events":1000,"bytes":1000000000}}"#).await;
    // Nothing is read until the broker counts it: then the close frame is behind what the kernel took.
    let slow = async {
        while !String::from_utf8(broker.get("/metrics").await.body).unwrap().contains("tidelog_slow_consumers_total 1.0") {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, slow).await.expect("it is found slow");
    assert_eq!(peer.closed().await, 4008);
    let cursor = broker.get("/v1/streams/a/subscriptions/s/cursor").await.metadata();
    assert_eq!((&cursor["next"], &cursor["acked_offset"]), (&json!(0), &json!(null)));
}
