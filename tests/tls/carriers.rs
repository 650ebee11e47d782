//! Everything that is spoken without TLS is spoken inside it.

use std::time::Duration;

use bytes::Buf as _;
use prost::Message as _;
use serde_json::json;
use tidelog::broker::Principal;
use tidelog::client::{NewEvent, Protocol};
use tidelog::server::Mode;
use tidelog::types::request::Start;
use tidelog::wire::proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::world::{PATIENCE, World};

/// A reqwest client that knows the authority and shows alice.
fn http(world: &World, h2: bool) -> reqwest::Client {
    let alice = world.user("alice");
    let identity = reqwest::Identity::from_pem((alice.certificate + &alice.key).as_bytes()).expect("a pair");
    let root = reqwest::Certificate::from_pem(world.ca.pem().as_bytes()).expect("an authority");
    let builder = tidelog::client::http_builder().no_proxy().timeout(PATIENCE).identity(identity).tls_certs_only([root]).https_only(true);
    if h2 { builder.build() } else { builder.http1_only().build() }.expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_speaks_both_https_and_what_one_appends_the_other_reads() {
    let world = World::open().await;
    world.stream("orders").await;
    let url = |path: &str| format!("https://localhost:{}{path}", world.mutual());
    for (h2, version) in [(true, http::Version::HTTP_2), (false, http::Version::HTTP_11)] {
        let http = http(&world, h2);
        let answer = http.post(url("/v1/streams/orders/events")).header("content-type", "text/plain").body("hello").send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (201, version));
        let read: serde_json::Value = http.get(url("/v1/streams/orders/events")).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(read["metadata"]["events"][0]["data"], "hello", "{read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_produces_and_consumes_in_both_forms_over_websockets() {
    let world = World::open().await;
    world.stream("orders").await;
    for (at, protocol) in [Protocol::Binary, Protocol::Json].into_iter().enumerate() {
        let client = world.client(world.mutual(), protocol, Some(&world.user("alice")), None);
        let producer = client.producer("orders", &format!("p{at}")).open().await.expect("a producer");
        let mut reader =
            client.consumer("orders").subscription(&format!("s{at}")).create().from(Start::Offset(at as u64 * 1000)).open().await.expect("a reader");
        let mut receipts = Vec::new();
        for n in 0..1000 {
            receipts.push(producer.send(NewEvent::text(format!("{protocol:?} {n}"))).await.expect("it is taken"));
        }
        for receipt in receipts {
            receipt.await.expect("it is stored");
        }
        for n in 0..1000 {
            let event = timeout(PATIENCE, reader.next_event()).await.expect("in time").expect("an event").expect("no error");
            assert_eq!(event.text(), Some(&*format!("{protocol:?} {n}")));
            reader.ack(event.offset);
        }
        reader.close().await;
        let seen: serde_json::Value =
            client.admin().call(http::Method::GET, &format!("/v1/streams/orders/subscriptions/s{at}"), None).await.expect("it is there");
        assert_eq!(seen["next"], (at as u64 + 1) * 1000, "what was acked is on disk: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_enough_where_no_certificate_is_asked_for() {
    let world = World::open().await;
    world.stream("orders").await;
    let broker = world.server.broker();
    let alice = broker.certificate("alice").await.expect("alice");
    let (_, key) = broker.create_key(&alice, "program").await.expect("a key");
    let client = world.client(world.main(), Protocol::Binary, None, Some(&key));
    client.append("orders", NewEvent::text("by key")).await.expect("it is stored");
    let nobody = world.client(world.main(), Protocol::Binary, None, None);
    assert_eq!(nobody.append("orders", NewEvent::text("by nobody")).await.unwrap_err().code().map(|code| code.as_str()), Some("unauthenticated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_are_answered() {
    let world = World::open().await;
    world.stream("orders").await;
    let message = v1::GetStreamRequest { name: "orders".into() }.encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    let url = format!("https://localhost:{}/tidelog.v1.Admin/GetStream", world.mutual());
    let answer = http(&world, true).post(url).header("content-type", "application/grpc").header("te", "trailers").body(body).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    assert!(answer.headers().get("grpc-status").is_none_or(|status| status == "0"), "{:?}", answer.headers());
    let mut body = answer.bytes().await.expect("a message");
    assert_eq!((body.get_u8(), body.get_u32() as usize), (0, body.len()));
    assert_eq!(v1::Stream::decode(body).expect("a stream").name, "orders");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_bring_what_is_appended_while_they_are_open() {
    let world = World::open().await;
    world.stream("orders").await;
    let url = format!("https://localhost:{}/v1/streams/orders/events?from=0", world.mutual());
    for h2 in [false, true] {
        let http = http(&world, h2);
        let mut stream = http.get(&url).header("accept", "text/event-stream").send().await.expect("an answer");
        assert_eq!(stream.status().as_u16(), 200);
        let word = format!("over h2: {h2}");
        world.client(world.mutual(), Protocol::Binary, Some(&world.user("alice")), None).append("orders", NewEvent::text(&*word)).await.expect("it is stored");
        let mut heard = String::new();
        while !heard.contains(&word) {
            let piece = timeout(PATIENCE, stream.chunk()).await.expect("in time").expect("no error").expect("it goes on");
            heard += std::str::from_utf8(&piece).expect("text");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evernest_takes_its_keys_and_asks_no_certificate() {
    let world = World::open().await;
    let broker = world.server.broker();
    let alice = broker.certificate("alice").await.expect("alice");
    let (_, key) = broker.create_key(&alice, "program").await.expect("a key");
    let mut tls = world.connect(world.mutual(), Some(&world.user("bob"))).await.expect("a handshake");
    let body = json!({ "UserKey": key, "SourceName": "till" }).to_string();
    let head = format!(
        "POST /Source/New HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    tls.write_all((head + &body).as_bytes()).await.expect("it takes it");
    let mut said = String::new();
    timeout(PATIENCE, tls.read_to_string(&mut said)).await.expect("in time").expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("tls_"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_for_a_reader_that_begins_late_arrive_whole() {
    let world = World::with(Mode::Dev, |_| {}).await;
    let client = world.client(world.main(), Protocol::Binary, None, None);
    let event = || NewEvent::text("x".repeat(512 * 1024));
    client.append("big", event()).await.expect("it is stored");
    let mut reader = client.consumer("big").from(Start::Earliest).open().await.expect("a reader");
    for _ in 1..24 {
        client.append("big", event()).await.expect("it is stored");
    }
    // Far more than the broker and both kernels hold.
    for offset in 0..24 {
        let event = timeout(PATIENCE, reader.next_event()).await.expect("in time").expect("an event").expect("no error");
        assert_eq!((event.offset, event.data.len()), (offset, 512 * 1024));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_closed_as_without_tls() {
    let world = World::with(Mode::Dev, |config| config.undrained = Duration::from_millis(500)).await;
    let client = world.client(world.main(), Protocol::Binary, None, None);
    for _ in 0..24 {
        client.append("big", NewEvent::text("x".repeat(1 << 20))).await.expect("it is stored");
    }
    let mut tls = world.connect(world.main(), None).await.expect("a handshake");
    tls.write_all(b"GET /v1/streams/big/events?from=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await.expect("it takes it");
    world.until_metric("tidelog_slow_consumers_total", |n| n == 1.0).await;
    world.until_metric("tidelog_event_streams", |n| n == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_the_operator_stays_as_it_is() {
    let world = World::open().await;
    let client = tidelog::client::Client::new(tidelog::client::Endpoint::Unix(world.server.socket().to_owned()), Protocol::Binary, None).expect("a client");
    let who: serde_json::Value = client.admin().call(http::Method::GET, "/v1", None).await.expect("an answer");
    assert_eq!(who["auth"], "trusted");
    assert_eq!(who["auth_methods"], json!(["unix-socket", "bearer", "tls"]));
    assert!(who["environment"]["tls"]["certificate_expires_at"].is_string() && who["environment"]["tls"]["reload_failed"].is_null(), "{who}");
    assert!(world.server.broker().must_be_operator(&Principal::Operator, "look").await.is_ok());
}
