//! Bad input over gRPC: the stated status, and others are unharmed.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use tidelog::wire::proto::v1::{self, client_frame::Frame as Say, server_frame::Frame as Hear};
use tokio::time::timeout;
use tonic::{Code, Request};

use crate::grpc_client::{Grpc, code, end, error, frame};
use crate::support::{PATIENCE, dev};

const APPEND: &str = "/tidelog.v1.Broker/Append";

fn append(stream: &str, data: impl Into<Bytes>) -> v1::Append {
    let event = v1::Event { data: data.into(), encoding: v1::Encoding::Utf8.into(), ..Default::default() };
    v1::Append { stream: stream.into(), events: Some(v1::Events { events: vec![event] }), ..Default::default() }
}

/// An odd request by an HTTP client, and the headers of the answer: a call that is refused at once has its status there.
async fn odd(at: std::net::SocketAddr, version: http::Version, method: http::Method, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let builder =
        if version == http::Version::HTTP_2 { tidelog::client::http_builder().http2_prior_knowledge() } else { tidelog::client::http_builder().http1_only() };
    let client = builder.no_proxy().timeout(PATIENCE).build().expect("a client");
    let mut request = client.request(method, format!("http://{at}{path}")).body(vec![0u8; 5]);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

fn status(response: &reqwest::Response) -> Option<&str> {
    response.headers().get("grpc-status").and_then(|v| v.to_str().ok())
}

#[tokio::test]
async fn methods_and_services_that_do_not_exist_are_unimplemented() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for path in ["/tidelog.v1.Broker/Dance", "/tidelog.v1.Broker/append", "/tidelog.v2.Broker/Append", "/x", "/"] {
        let refused = grpc.ask(path, Request::new(Bytes::new())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
    }
    let _: v1::Appended = grpc.unary(APPEND, &append("orders", "x")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_call_says_how_to_make_one() {
    let broker = dev().await;
    let at = broker.server.address();
    // A gRPC path with the content type of REST.
    let answer = broker.post(APPEND, "{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (415, "expecting_content_type_json"));
    let (h1, h2, post) = (http::Version::HTTP_11, http::Version::HTTP_2, http::Method::POST);
    for (version, content_type) in
        [(h2, "application/grpc+json"), (h2, "application/grpc-web+json"), (h2, "application/grpcx"), (h1, "application/grpc"), (h1, "application/grpc+proto")]
    {
        let response = odd(at, version, post.clone(), APPEND, &[("content-type", content_type)]).await;
        assert_eq!((response.status().as_u16(), status(&response)), (200, Some("12")), "{content_type}");
        assert!(response.headers().contains_key("x-request-id") && response.headers().contains_key("grpc-message"));
    }
    let response = odd(at, h2, http::Method::GET, APPEND, &[("content-type", "application/grpc")]).await;
    assert_eq!((response.status().as_u16(), status(&response)), (405, Some("12")));
    let response = odd(at, h2, post.clone(), APPEND, &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")]).await;
    assert_eq!(status(&response), Some("12"));
    assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
    let response = odd(at, h2, post, &format!("{APPEND}?key=s3cret"), &[("content-type", "application/grpc")]).await;
    assert_eq!(status(&response), Some("3"));
}

#[tokio::test]
async fn deadlines_that_are_none_are_refused() {
    let broker = dev().await;
    for bad in ["soon", "10", "S", "123456789S", "-1S", "1.5S"] {
        let headers = [("content-type", "application/grpc"), ("grpc-timeout", bad)];
        let response = odd(broker.server.address(), http::Version::HTTP_2, http::Method::POST, APPEND, &headers).await;
        assert_eq!(status(&response), Some("3"), "{bad}");
    }
    let headers = [("content-type", "application/grpc"), ("grpc-timeout", "0n")];
    let response = odd(broker.server.address(), http::Version::HTTP_2, http::Method::POST, APPEND, &headers).await;
    assert_eq!(status(&response), Some("4"), "a deadline that is over already");
}

#[tokio::test]
async fn messages_are_read_strictly_and_the_field_is_named() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for (path, bytes, slug, field) in [
        (APPEND, &b"\xff\xff\xff"[..], "bad_parameter", "frame"),
        (APPEND, b"\x12\x7fshort", "bad_parameter", "frame"),
        (APPEND, b"\xf2\x06\x01x", "unknown_field", "frame"),
        (APPEND, b"\x12\x01a\x12\x01a", "bad_parameter", "stream"),
        (APPEND, b"\x10\x01", "bad_parameter", "stream"),
        (APPEND, b"\x12\x01\xff", "bad_parameter", "stream"),
        (APPEND, b"", "bad_parameter", "stream"),
        (APPEND, b"\x12\x01a", "bad_parameter", "events"),
        (APPEND, b"\x12\x01a\x7a\x04\x7a\x02\x10\x07", "bad_parameter", "events[0].encoding"),
        (APPEND, b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x12\x01a", "bad_parameter", "req"),
        ("/tidelog.v1.Broker/Ack", b"\x0a\x01a\x12\x01s", "bad_parameter", "epoch"),
        ("/tidelog.v1.Broker/Ack", b"\x0a\x01a\x12\x01s\x18\x01", "bad_parameter", "offset"),
        ("/tidelog.v1.Broker/Ack", b"\x0a\x01a\x12\x01s\x18\x01\x22\x01t\x28\x00", "bad_parameter", "epoch"),
        ("/tidelog.v1.Broker/Ack", b"\x0a\x01a\x12\x01s\x18\x01\x28\x00\x30\x09", "bad_parameter", "level"),
        ("/tidelog.v1.Broker/OpenProducer", b"\x22\x03a b", "bad_parameter", "producer"),
        ("/tidelog.v1.Broker/OpenProducer", b"\x22\x01p\x28\x63", "bad_parameter", "expect"),
        ("/tidelog.v1.Broker/Pull", b"\x0a\x01a\x12\x01s\x50\x3d", "bad_parameter", "wait_s"),
        ("/tidelog.v1.Broker/Pull", b"\x0a\x01a\x12\x01s\x40\x91\x4e", "bad_parameter", "max_events"),
        ("/tidelog.v1.Broker/Read", b"\x0a\x01a\x12\x00", "bad_parameter", "from"),
        ("/tidelog.v1.Broker/Read", b"\x0a\x01a\x12\x02\x08\x01\x18\x01", "bad_parameter", "after"),
        ("/tidelog.v1.Broker/Read", b"\x0a\x01a\x20\x00", "bad_parameter", "limit"),
        ("/tidelog.v1.Broker/Subscribe", b"\x12\x01a\x3a\x02\x10\x09", "bad_parameter", "from.place"),
        ("/tidelog.v1.Admin/CreateStream", b"\x0a\x03a/b", "bad_parameter", "stream_name"),
        ("/tidelog.v1.Admin/TrimStream", b"\x0a\x01a", "bad_parameter", "before_offset"),
        ("/tidelog.v1.Admin/TrimStream", b"\x0a\x01a\x10\x01\x18\x01", "bad_parameter", "before_time_us"),
        ("/tidelog.v1.Admin/SeekSubscription", b"\x0a\x01a\x12\x01s", "bad_parameter", "to"),
        ("/tidelog.v1.Admin/ListStreams", b"\x10\xe9\x07", "bad_parameter", "limit"),
        ("/tidelog.v1.Access/CreateUser", b"\x0a\x03a/b", "bad_parameter", "user_name"),
        ("/tidelog.v1.Access/CreateUser", b"\x0a\x01a\x18\x02", "bad_parameter", "root"),
        ("/tidelog.v1.Access/CreateUser", b"\x0a\x01a\x12\x01\xff", "bad_parameter", "password"),
        ("/tidelog.v1.Access/ChangeUser", b"\x0a\x01a\x28\x01", "unknown_field", "frame"),
        ("/tidelog.v1.Access/CreateSource", b"", "bad_parameter", "name"),
        ("/tidelog.v1.Access/GetSource", b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "bad_parameter", "id"),
        ("/tidelog.v1.Access/ListSources", b"\x08\x01\x08\x01", "bad_parameter", "after"),
        ("/tidelog.v1.Access/ListUsers", b"\x10\xe9\x07", "bad_parameter", "limit"),
        ("/tidelog.v1.Access/SetRight", b"\x0a\x01a\x12\x01x\x1a\x04None", "bad_parameter", "principal"),
        ("/tidelog.v1.Access/SetRight", b"\x0a\x01a\x12\x06user:b", "bad_parameter", "right"),
        ("/tidelog.v1.Access/OpenSession", b"\x0a\x01a\x0a\x01a", "bad_parameter", "name"),
        ("/tidelog.v1.Access/GetSession", b"\x0a\x01a", "unknown_field", "frame"),
    ] {
        let refused = grpc.ask(path, Request::new(Bytes::from_static(bytes))).await.unwrap_err();
        let why = error(&refused);
        let details: serde_json::Value = serde_json::from_str(&why.details).unwrap_or_else(|e| panic!("{path} {bytes:?}: {e} in {why:?}"));
        assert_eq!((refused.code(), why.code.as_str(), &details["field"]), (Code::InvalidArgument, slug, &json!(field)), "{path} {bytes:?}: {why:?}");
    }
    let empty = grpc.unary::<v1::Committed>("/tidelog.v1.Broker/Commit", &v1::Commit::default()).await.unwrap_err();
    assert_eq!(code(&empty), "bad_parameter", "a commit of nothing");
    assert_eq!(
        code(&grpc.unary::<v1::Operation>("/tidelog.v1.Admin/GetOperation", &v1::GetOperationRequest { id: "x".into() }).await.unwrap_err()),
        "not_found"
    );
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!([]), "nothing was stored");
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_call_and_no_other() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut other = grpc.connect().await.greeted().await;
    let refused = grpc.ask(APPEND, Request::new(vec![0; (8 << 20) + 1].into())).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(code(&grpc.ask(APPEND, Request::new(vec![0; 8 << 20].into())).await.unwrap_err()), "bad_parameter", "at the limit it is read");
    let mut call = grpc.connect().await.greeted().await;
    call.bytes(vec![0; (8 << 20) + 1]);
    assert_eq!(end(&mut call.heard).await.unwrap_err().code(), Code::OutOfRange);
    let event = grpc.unary::<v1::Appended>(APPEND, &append("orders", vec![b'x'; (1 << 20) + 1])).await.unwrap_err();
    assert_eq!((event.code(), code(&event).as_str()), (Code::InvalidArgument, "too_large"));
    other.alive().await;
}

#[tokio::test]
async fn a_frame_that_does_not_decode_is_answered_and_the_conversation_goes_on_poisoned() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut call = grpc.connect().await.greeted().await;
    call.say(Say::Append(v1::Append { req: 1, ..append("a", "x") }));
    assert!(matches!(call.hear().await, Hear::Appended(_)));
    for bad in [&b""[..], b"\xff\xff\xff", b"\x0a", b"\xf2\x06\x00"] {
        call.bytes(bad);
        let Hear::Error(why) = call.hear().await else { panic!("an error is told") };
        assert!(["bad_parameter", "unknown_field"].contains(&why.code.as_str()), "{why:?}");
    }
    // Nobody knows whose append it was.
    call.say(Say::Append(v1::Append { req: 2, ..append("a", "x") }));
    assert!(matches!(call.hear().await, Hear::Error(why) if why.code == "session_poisoned" && why.about == Some(v1::error::About::Req(2))));
    call.say(Say::Resume(v1::Resume { req: 3, stream: "a".into(), ..Default::default() }));
    assert!(matches!(call.hear().await, Hear::Resumed(r) if r.req == 3));
    call.say(Say::Append(v1::Append { req: 4, ..append("a", "x") }));
    assert!(matches!(call.hear().await, Hear::Appended(_)));
    call.alive().await;
}

#[tokio::test]
async fn a_call_brings_one_message_neither_none_nor_two() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for count in [0, 2] {
        let refused = grpc.both_of(APPEND, count, append("orders", "x").encode_to_vec()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{count}");
    }
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!([]));
}

#[tokio::test]
async fn more_ping_frames_than_anybody_needs_end_the_conversation() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut call = grpc.connect().await.greeted().await;
    let mut other = grpc.connect().await.greeted().await;
    for _ in 0..101 {
        call.say(Say::Ping(v1::Ping {}));
    }
    let status = end(&mut call.heard).await.unwrap_err();
    assert_eq!((status.code(), code(&status).as_str()), (Code::ResourceExhausted, "rate_limited"));
    other.alive().await;
}

#[tokio::test]
async fn a_connection_carries_128_calls_at_a_time_and_the_next_one_waits() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut calls = Vec::new();
    for _ in 0..128 {
        calls.push(grpc.connect().await.greeted().await);
    }
    let mut more = grpc.clone();
    let waiting = tokio::spawn(async move { more.unary::<v1::ListStreamsResponse>("/tidelog.v1.Admin/ListStreams", &v1::ListStreamsRequest::default()).await });
    calls.last_mut().expect("there are many").alive().await;
    assert!(!waiting.is_finished(), "there is no room for it");
    calls.pop();
    timeout(PATIENCE, waiting).await.expect("a call that ends makes room").expect("it ran").expect("it is answered");
    calls[0].alive().await;
}

#[tokio::test]
async fn a_fenced_reader_ends_and_its_conversation_goes_on() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let ask = v1::Subscribe { sub: 1, stream: "a".into(), subscription: Some("s".into()), create: true, ..Default::default() };
    let mut call = grpc.connect().await.greeted().await;
    call.say(Say::Subscribe(ask.clone()));
    assert!(matches!(call.hear().await, Hear::Subscribed(_)));
    assert!(matches!(call.hear().await, Hear::Live(_)));
    let mut second = grpc.subscribe(&ask).await.unwrap();
    assert!(matches!(call.hear().await, Hear::Error(why) if why.code == "session_fenced" && why.about == Some(v1::error::About::Sub(1))));
    call.alive().await;
    assert!(matches!(frame(&mut second).await, Hear::Subscribed(at) if at.epoch == Some(2)));
    let _third = grpc.subscribe(&ask).await.unwrap();
    let status = end(&mut second).await.unwrap_err();
    assert_eq!((status.code(), code(&status).as_str()), (Code::Aborted, "session_fenced"));
}

#[tokio::test]
async fn cancelled_calls_are_forgotten_and_the_connection_lives_on() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut other = grpc.connect().await.greeted().await;
    for n in 0..90u32 {
        let mut one = grpc.clone();
        let bytes = append("orders", n.to_string()).encode_to_vec();
        // Dropped before, while, or after it is answered.
        let _ = timeout(Duration::from_micros(u64::from(n) * 10), one.ask(APPEND, Request::new(bytes.into()))).await;
        // Many at once would be the attack that closes connections.
        other.alive().await;
    }
    let stored = broker.get("/v1/streams/orders/events?limit=1000").await.metadata();
    let seen: Vec<u64> = stored["events"].as_array().unwrap().iter().map(|e| e["data"].as_str().unwrap().parse().unwrap()).collect();
    assert!(seen.is_sorted() && seen.windows(2).all(|w| w[0] != w[1]), "each is there whole, or not at all: {seen:?}");
}
