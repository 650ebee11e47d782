//! The broker stops while everybody is connected: each carrier hears when to come back, nothing is lost, and it is over in time.

use std::time::{Duration, Instant};

use serde_json::json;
use tidelog::server::{Config, Mode, Server, Storage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::event_source::{EventSource, http1, http2};
use crate::support::{Broker, PATIENCE, exchange};

/// What `Server::stop` allows itself, and a little for a busy machine.
const BOUND: Duration = Duration::from_secs(12);

/// A broker on disk, at `listen` once it is known.
async fn on_disk(dir: tempfile::TempDir, listen: &str) -> Broker {
    let mut config = Config::for_tests(Mode::Dev, dir.path());
    config.storage = Storage::Rocks;
    config.listen = listen.to_owned();
    config.raw.storage.write_buffer_bytes = 16 << 20;
    config.raw.storage.ballast_bytes = Some(0);
    config.raw.storage.free_min_bytes = Some(0);
    let server = Server::start(config).await.expect("the broker starts");
    Broker { server, dir }
}

/// The rest of what a connection says, until it ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it ends in time");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_carrier_is_told_when_to_come_back_and_goes_on_without_loss() {
    let broker = on_disk(tempfile::tempdir().unwrap(), "127.0.0.1:0").await;
    broker.fill("s", 0..3).await;
    assert_eq!(broker.post("/v1/streams/s/subscriptions", r#"{"name":"billing"}"#).await.status, 201);
    let address = broker.server.address();
    let url = broker.url("/v1/streams/s/events?from=earliest");

    let mut one = EventSource::open(&http1(), &url, None).await;
    one.hears(0..3).await;
    one.named("live").await;
    let mut two = EventSource::open(&http2(), &url, None).await;
    two.hears(0..2).await;
    let mut durable = broker.events("/v1/streams/s/subscriptions/billing/events").await;
    assert_eq!(durable.named("subscribed").await["epoch"], 1);
    durable.hears(0..3).await;
    let mut socket = broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(socket.ask(r#"{"t":"subscribe","sub":1,"stream":"s"}"#).await["t"], "subscribed");
    let poll = broker.tcp().await;
    let poll = tokio::spawn(async move { exchange(poll, "GET", "/v1/streams/s/events?after=2&wait=60", &[], b"").await });
    let mut idle = broker.tcp().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answered = Vec::new();
    while !answered.ends_with(b"\r\n\r\nok\n") {
        answered.push(idle.read_u8().await.unwrap());
    }
    // A request that has begun: its body is still on its way when the broker is told to stop.
    let mut sending = broker.tcp().await;
    let body = br#"{"events":[{"data":"late"}]}"#;
    let head = format!("POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    sending.write_all(&[head.as_bytes(), &body[..10]].concat()).await.unwrap();
    // The poll, the request, and the one who asks.
    broker.until_metric("tidelog_http_requests_open", |n| n == 3.0).await;

    let began = Instant::now();
    let Broker { server, dir } = broker;
    let stop = tokio::spawn(server.stop());
    for reader in [&mut one, &mut two, &mut durable] {
        let end = reader.ends().await;
        assert_eq!((&end["code"], &end["retry"]), (&json!("unavailable"), &json!("backoff")));
        assert_eq!(reader.parser.retry, Some(1000));
    }
    assert_eq!(socket.closed().await, 1001);
    assert_eq!(poll.await.unwrap().metadata()["events"], json!([]), "a poll ends with nothing");
    assert_eq!(rest(idle).await, "", "an idle connection is closed");
    sending.write_all(&body[10..]).await.unwrap();
    let answer = rest(sending).await;
    let stored = answer.starts_with("HTTP/1.1 201 ");
    assert!(stored || answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"applied\":\"no\""), "a request that has begun is answered: {answer:?}");
    stop.await.unwrap().expect("a clean stop");
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");

    let broker = on_disk(dir, &address.to_string()).await;
    assert_eq!(broker.get("/v1/streams/s").await.metadata()["state"]["next_offset"], 3 + u64::from(stored), "what was refused is not there");
    let next = 3 + u64::from(stored);
    broker.fill("s", next..next + 1).await;
    EventSource::open(&http1(), &url, Some(&one.parser.last_id)).await.hears(3..next + 1).await;
    EventSource::open(&http2(), &url, Some(&two.parser.last_id)).await.hears(two.parser.last_id.parse::<u64>().unwrap() + 1..next + 1).await;
    let mut durable = broker.events_after("/v1/streams/s/subscriptions/billing/events", &durable.parser.last_id).await;
    assert_eq!(durable.named("subscribed").await["next"], 0, "what was not acknowledged comes again");
    durable.hears(0..next + 1).await;
    broker.server.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_does_not_hold_up_the_end() {
    let broker = crate::support::dev().await;
    let large = vec![b'x'; 1024 * 1024];
    for _ in 0..16 {
        assert_eq!(broker.ask("POST", "/v1/streams/s/events", &[("Content-Type", "application/octet-stream")], &large).await.status, 201);
    }
    let mut stuck = broker.tcp().await;
    stuck.write_all(b"GET /v1/streams/s/events?from=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await.unwrap();
    broker.until_metric("tidelog_event_streams", |n| n == 1.0).await;
    let began = Instant::now();
    broker.server.stop().await.expect("a clean stop");
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    drop(stuck);
}
