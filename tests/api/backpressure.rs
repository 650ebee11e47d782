//! Readers that stand still: they cost the broker one chunk each, nobody else notices, and a socket that takes nothing is let go.

use std::time::Duration;

use serde_json::json;
use tidelog::server::Mode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::event_source::{EventSource, http1, http2};
use crate::support::{Broker, dev, start};

const MIB: u64 = 1024 * 1024;
const RAW: [(&str, &str); 1] = [("Content-Type", "application/octet-stream")];
const SSE: &str = "GET /v1/streams/s/events?from=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";

/// A connection whose own buffer is small, so that it is soon full.
async fn narrow(broker: &Broker) -> TcpStream {
    with_buffer(broker, 4096).await
}

async fn with_buffer(broker: &Broker, bytes: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(bytes).expect("a buffer");
    socket.connect(broker.server.address()).await.expect("the port is open")
}

/// Appends `count` events of a mebibyte each.
async fn fill(broker: &Broker, count: u64) {
    let data = vec![b'x'; MIB as usize];
    for _ in 0..count {
        assert_eq!(broker.ask("POST", "/v1/streams/s/events", &RAW, &data).await.status, 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_readers_that_stand_still_cost_little_and_the_others_go_on() {
    const STUCK: usize = 50;
    const EVENTS: u64 = 64;
    let broker = dev().await;
    fill(&broker, EVENTS).await;
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        let mut stream = narrow(&broker).await;
        stream.write_all(SSE.as_bytes()).await.unwrap();
        stuck.push(stream);
    }
    broker.until_metric("tidelog_event_streams", |n| n == STUCK as f64).await;

    // Somebody reads all of it while they stand, over both HTTPs.
    for http in [http1(), http2()] {
        let mut reader = EventSource::open(&http, &broker.url("/v1/streams/s/events?from=0"), None).await;
        reader.hears(0..EVENTS).await;
        reader.named("live").await;
    }
    // And another hears what comes.
    let mut socket = broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(socket.ask(r#"{"t":"subscribe","sub":1,"stream":"s"}"#).await["t"], "subscribed");
    assert_eq!(socket.json().await["t"], "live");
    broker.fill("s", 0..1).await;
    assert_eq!(socket.json().await["events"][0]["offset"], EVENTS);

    // Two readers made it all, 50 made what the kernel takes of each, and one chunk more.
    let whole = (EVENTS * MIB * 4 / 3) as f64;
    let made = broker.metric("tidelog_event_stream_bytes_total").await - 2.0 * whole;
    let most = (STUCK as u64 * 9 * MIB) as f64;
    println!("each stuck reader was made {:.2} MiB of {:.0} MiB", made / STUCK as f64 / MIB as f64, whole / MIB as f64);
    assert!(made < most, "{made} of {most}");
    assert!(broker.metric("tidelog_tail_bytes").await <= 64.0 * MIB as f64);
    assert_eq!(broker.metric("tidelog_event_streams").await, STUCK as f64 + 0.0, "those who stand are still there");
    drop(stuck);
    broker.until_metric("tidelog_event_streams", |n| n == 0.0).await;
}

#[tokio::test]
async fn a_reader_that_stood_still_hears_everything_when_it_goes_on() {
    let broker = dev().await;
    fill(&broker, 16).await;
    let mut reader = EventSource::open(&http1(), &broker.url("/v1/streams/s/events?from=0"), None).await;
    reader.more().await.expect("it begins");
    let before = broker.metric("tidelog_event_stream_bytes_total").await;
    // It stands while others append; what it was made is bounded.
    broker.fill("s", 0..100).await;
    assert!(before < (12 * MIB) as f64, "{before}");
    reader.hears(0..116).await;
    assert_eq!(reader.named("live").await, json!({"next_offset": 116}));
}

/// The broker gives a socket up after `patience`.
async fn impatient() -> Broker {
    start(Mode::Dev, |config| config.undrained = Duration::from_millis(300)).await
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_let_go_over_http1() {
    let broker = impatient().await;
    fill(&broker, 16).await;
    for (path, accept) in [("/v1/streams/s/events?from=0", "text/event-stream"), ("/v1/streams/s/events?limit=4", "application/json")] {
        let before = broker.metric("tidelog_slow_consumers_total").await;
        let mut stream = narrow(&broker).await;
        for _ in 0..4 {
            // Several pages, one behind the other, are more than a kernel takes.
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").as_bytes()).await.unwrap();
        }
        broker.until_metric("tidelog_slow_consumers_total", |n| n == before + 1.0).await;
        broker.until_metric("tidelog_event_streams", |n| n == 0.0).await;
        drop(stream);
    }
    assert_eq!(broker.get("/livez").await.status, 200);
}

/// A request by prior knowledge of HTTP/2, with windows that never close, and nothing read afterwards.
fn http2_request(path: &str) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let literal = |index: u8, text: &str| [&[0x40 | index, text.len() as u8], text.as_bytes()].concat();
    // Names from the static table of HPACK: GET, http, :path, :authority, accept.
    let head = [vec![0x82, 0x86], literal(4, path), literal(1, "localhost"), literal(19, "text/event-stream")].concat();
    let widest = 0x7fff_ffffu32.to_be_bytes();
    let settings = [&[0, 4], &widest[..]].concat();
    let more = (0x7fff_ffffu32 - 65_535).to_be_bytes();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &settings), frame(8, 0, 0, &more), frame(1, 5, 1, &head)].concat()
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_let_go_over_http2() {
    let broker = impatient().await;
    fill(&broker, 16).await;
    let mut stream = narrow(&broker).await;
    stream.write_all(&http2_request("/v1/streams/s/events?from=0")).await.unwrap();
    broker.until_metric("tidelog_event_streams_opened_total", |n| n == 1.0).await;
    broker.until_metric("tidelog_slow_consumers_total", |n| n == 1.0).await;
    broker.until_metric("tidelog_event_streams", |n| n == 0.0).await;
}

#[tokio::test]
async fn a_reader_that_takes_a_little_now_and_then_is_waited_for() {
    let broker = impatient().await;
    fill(&broker, 8).await;
    let mut stream = with_buffer(&broker, 64 * 1024).await;
    stream.write_all(SSE.as_bytes()).await.unwrap();
    // It takes three times as long as a socket may take nothing, and the broker waits for it again and again.
    let mut scrap = vec![0; 160 * 1024];
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.read_exact(&mut scrap).await.unwrap();
    }
    assert_eq!(broker.metric("tidelog_slow_consumers_total").await, 0.0);
    assert_eq!(broker.metric("tidelog_event_streams").await, 1.0);
}

#[tokio::test]
async fn a_window_of_http2_that_stays_shut_holds_one_stream_back_and_no_other() {
    let broker = dev().await;
    fill(&broker, 16).await;
    // Both on one connection: the first is opened and not read.
    let http = http2();
    let mut waits = EventSource::open(&http, &broker.url("/v1/streams/s/events?from=0"), None).await;
    let mut other = EventSource::open(&http, &broker.url("/v1/streams/s/events"), None).await;
    assert_eq!(other.named("live").await, json!({"next_offset": 16}));
    broker.fill("s", 0..3).await;
    other.hears(16..19).await;
    assert_eq!(broker.metric("tidelog_connections").await, 2.0, "this one, and the one who asks");
    waits.hears(0..19).await;
}
