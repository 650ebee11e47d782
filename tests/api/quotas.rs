//! How much one user may have and do, over every carrier: the next one is refused with a time to come back, and nobody else notices.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidelog::server::{Config, Mode, Server, Storage};
use tidelog::wire::proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::access::{As, console, event, key, operator, source};
use crate::grpc_client::{Grpc, error};
use crate::support::{Answer, Broker, PATIENCE, start};

async fn with(change: impl FnOnce(&mut Config)) -> Broker {
    start(Mode::Serve { trust_loopback: false }, change).await
}

/// A refusal over REST: its status, code, what there was too much of, and the seconds to wait.
fn refusal(answer: &Answer) -> (u16, String, String, u64) {
    let metadata = &answer.json()["metadata"];
    assert_eq!((&metadata["applied"], &metadata["retry"]), (&json!("no"), &json!("backoff")), "{metadata}");
    assert_eq!(answer.json()["error_code"], 403, "the body says 403 where the status is 429");
    let seconds: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("whole seconds");
    assert!(seconds >= 1 && metadata["details"]["retry_after_s"] == seconds, "{metadata}");
    (answer.status, answer.code(), metadata["details"]["quota"].as_str().unwrap_or_default().to_owned(), seconds)
}

/// What a user has of something, and how much it may have.
async fn usage(who: &As<'_>, user: &str, of: &str) -> Value {
    who.get(&format!("/v1/users/{user}")).await.metadata()["usage"][of].clone()
}

async fn until(mut there: impl AsyncFnMut() -> bool) {
    let all = async { while !there().await {} };
    tokio::time::timeout(PATIENCE, all).await.expect("it happens");
}

async fn deleted(who: &As<'_>, stream: &str) {
    let answer = who.ask("DELETE", &format!("/v1/streams/{stream}"), Value::Null).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    let operation = answer.json()["operation"].as_str().expect("an operation").to_owned();
    assert_eq!(who.get(&format!("{operation}/wait")).await.metadata()["status_code"], 200);
}

#[tokio::test]
async fn requests_beyond_the_rate_are_told_when_to_come_back_and_others_are_served() {
    let broker = with(|config| (config.raw.rates.requests_per_s, config.raw.rates.requests_burst) = (1, 5)).await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    let (_, till) = source(&alice, "till").await; // a request of alice's
    let mut taken = 1;
    let refused = loop {
        let answer = alice.get("/v1/streams").await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken <= 7, "a burst of five, and what a slow test earns meanwhile");
    };
    assert!(taken >= 5, "the burst passes: {taken}");
    let (status, code, quota, seconds) = refusal(&refused);
    assert_eq!((status, code.as_str(), quota.as_str()), (429, "rate_limited", "requests"));
    assert_eq!(bob.get("/v1/streams").await.status, 200, "others are left alone");
    assert_eq!(operator(&broker).get("/v1/users").await.status, 200, "and so is the operator's socket");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(till.get("/v1/sources").await.status, 200, "after the time that was told; and a source has its user's share");
    assert_eq!(till.get("/v1/sources").await.status, 429);
    let metrics = String::from_utf8(broker.get("/metrics").await.body).unwrap();
    assert!(metrics.lines().any(|line| line.starts_with("tidelog_refused_total{reason=\"requests\"}") && !line.ends_with(" 0")), "{metrics}");
    assert!(!metrics.contains("alice"));
}

#[tokio::test]
async fn calls_that_move_events_have_no_rates_unless_the_setting_says_so() {
    for data in [false, true] {
        let broker = with(|config| {
            config.raw.rates.requests_per_s = 1;
            config.raw.rates.requests_burst = 10;
            config.raw.rates.data = data;
        })
        .await;
        let alice = console(&broker, "alice").await;
        alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
        let mut refused = None;
        for _ in 0..40 {
            let answer = alice.ask("POST", "/v1/streams/s/events", event()).await;
            if answer.status != 201 {
                refused = Some(refusal(&answer));
                break;
            }
        }
        assert_eq!(refused.as_ref().map(|(status, ..)| *status), data.then_some(429), "{refused:?}");
        // Over gRPC it is the same bucket, and says so in its own words.
        let mut grpc = Grpc::tcp(broker.server.address()).await;
        let mut said = None;
        for _ in 0..40 {
            let ask = v1::ReadRequest { stream: "s".into(), ..Default::default() };
            let mut request = Request::new(prost::Message::encode_to_vec(&ask).into());
            let bearer = format!("Bearer {}", alice.1.as_deref().unwrap_or_default());
            request.metadata_mut().insert("authorization", MetadataValue::try_from(bearer).unwrap());
            if let Err(status) = grpc.ask("/tidelog.v1.Broker/OpenProducer", request).await
                && status.code() == Code::ResourceExhausted
            {
                said = Some(error(&status)); // looks for RetryInfo
                break;
            }
        }
        assert_eq!(said.map(|error| (error.code, error.retry)), data.then(|| ("rate_limited".to_owned(), "backoff".to_owned())));
    }
}

#[tokio::test]
async fn bytes_beyond_the_rate_wait_also_when_nobody_told_how_many_would_come() {
    let broker = with(|config| (config.raw.rates.bytes_per_s, config.raw.rates.data) = (1000, true)).await;
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let bearer = format!("Bearer {}", alice.1.as_deref().unwrap_or_default());
    let body = json!({"events": [{"data": "x".repeat(3000)}]}).to_string();
    // In chunks, without a length.
    let request = format!(
        "POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_eq!(crate::support::raw(broker.tcp().await, request.as_bytes()).await.status, 201, "what has begun is taken whole");
    let (status, code, quota, seconds) = refusal(&alice.ask("POST", "/v1/streams/s/events", event()).await);
    assert_eq!((status, code.as_str(), quota.as_str()), (429, "rate_limited", "bytes"));
    assert!((2..=3).contains(&seconds), "two thousand bytes of debt: {seconds} s");
}

#[tokio::test]
async fn a_websocket_over_the_byte_rate_is_read_later_in_order_and_hears_no_error() {
    let broker = with(|config| (config.raw.rates.bytes_per_s, config.raw.rates.data) = (20_000, true)).await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    for (who, stream) in [(&alice, "a"), (&bob, "b")] {
        who.made("POST", "/v1/streams", json!({"name": stream})).await;
    }
    let open = async |who: &As<'_>| {
        let mut ws = broker.ws("/v1/connect").await.greeted().await;
        ws.text(&json!({"t": "auth", "key": who.1}).to_string()).await;
        ws
    };
    let append = |req: u64, stream: &str| json!({"t": "append", "req": req, "stream": stream, "events": [{"data": "x".repeat(10_000)}]}).to_string();
    let (mut mine, mut others) = (open(&alice).await, open(&bob).await);
    let began = Instant::now();
    for req in 1..=6 {
        mine.text(&append(req, "a")).await;
    }
    assert_eq!(mine.json().await["first_offset"], 0);
    others.text(&append(1, "b")).await;
    assert_eq!(others.json().await["t"], "appended", "others are left alone");
    for offset in 1..6 {
        let heard = mine.json().await;
        assert_eq!((&heard["t"], &heard["req"], &heard["first_offset"]), (&json!("appended"), &json!(offset + 1), &json!(offset)));
    }
    // 50,000 bytes before the last is read, 20,000 of which were there.
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
    mine.alive().await;
}

/// Sends a request on a connection that stays open, and hears its status.
async fn on(stream: &mut TcpStream, who: &As<'_>) -> u16 {
    let request = format!("GET /v1/sessions/current HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", who.1.as_deref().unwrap_or_default());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 8192];
    let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&buffer[..n]).split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test]
async fn a_user_has_its_connections_counted_from_the_credential_to_the_end_of_the_socket() {
    let broker = with(|config| config.raw.limits.connections_per_user = 3).await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    let mut silent = broker.tcp().await; // nobody yet, so nobody's
    let mut open = [broker.tcp().await, broker.tcp().await];
    for stream in &mut open {
        assert_eq!((on(stream, &alice).await, on(stream, &alice).await), (200, 200), "a second request is no second connection");
    }
    let mut ws = broker.ws("/v1/connect").await.greeted().await;
    ws.text(&json!({"t": "auth", "key": alice.1}).to_string()).await;
    ws.alive().await;
    // Each carrier says it in its way.
    assert_eq!(on(&mut silent, &alice).await, 429);
    let (status, code, quota, _) = refusal(&alice.get("/v1/streams").await);
    assert_eq!((status, code.as_str(), quota.as_str()), (429, "quota_exceeded", "connections"));
    let mut late = broker.ws("/v1/connect").await.greeted().await;
    let refused = late.ask(&json!({"t": "auth", "key": alice.1}).to_string()).await;
    assert_eq!((&refused["code"], late.closed().await), (&json!("quota_exceeded"), 1013));
    assert_eq!(on(&mut broker.tcp().await, &bob).await, 200, "others are left alone");
    assert_eq!(usage(&operator(&broker), "alice", "connections").await, json!({"used": 3, "limit": 3}));
    assert_eq!(on(&mut open[0], &alice).await, 200, "those that are open live on");
    // A WebSocket that goes makes room as well as a connection that is closed.
    drop(ws);
    until(async || on(&mut broker.tcp().await, &alice).await == 200).await;
    drop(open);
    until(async || usage(&operator(&broker), "alice", "connections").await["used"] == 0).await;
}

#[tokio::test]
async fn a_user_has_its_long_polls_and_not_one_more() {
    let broker = with(|config| config.raw.limits.long_polls_per_user = 1).await;
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    for (who, stream) in [(&alice, "a"), (&bob, "b")] {
        who.made("POST", "/v1/streams", json!({"name": stream})).await;
    }
    alice.made("POST", "/v1/streams/a/subscriptions", json!({"name": "sub"})).await;
    let waiting = async { alice.get("/v1/streams/a/events?wait=60").await.metadata()["events"].as_array().map(Vec::len) };
    let meanwhile = async {
        until(async || usage(&alice, "alice", "long_polls").await == json!({"used": 1, "limit": 1})).await;
        for refused in [alice.get("/v1/streams/a/events?wait=1").await, alice.ask("POST", "/v1/streams/a/subscriptions/sub/pull", json!({"wait_s": 1})).await] {
            let (status, code, quota, _) = refusal(&refused);
            assert_eq!((status, code.as_str(), quota.as_str()), (429, "quota_exceeded", "long_polls"));
        }
        assert_eq!(alice.get("/v1/streams/a/subscriptions/sub").await.metadata()["epoch"], 0, "a pull that is refused opens nothing");
        assert_eq!(alice.get("/v1/streams/a/events").await.status, 200, "whoever does not wait is not counted");
        assert_eq!(bob.get("/v1/streams/b/events?wait=1").await.status, 200, "others are left alone");
        alice.made("POST", "/v1/streams/a/events", event()).await;
    };
    assert_eq!(tokio::join!(waiting, meanwhile).0, Some(1));
    until(async || usage(&alice, "alice", "long_polls").await["used"] == 0).await;
}

async fn on_disk(dir: &Path) -> Server {
    let mut config = Config::for_tests(Mode::Serve { trust_loopback: false }, dir);
    config.storage = Storage::Rocks;
    config.raw.storage.cache_bytes = 8 << 20;
    config.raw.storage.write_buffer_bytes = 16 << 20;
    config.raw.storage.ballast_bytes = Some(0);
    config.raw.storage.free_min_bytes = Some(0);
    (config.raw.limits.streams_per_user, config.raw.limits.subscriptions_per_user, config.raw.limits.producers_per_user) = (3, 2, 2);
    Server::start(config).await.expect("the broker starts")
}

/// The refusal of one more of something, and that it has left nothing behind.
async fn is_full(who: &As<'_>, path: &str, body: Value, of: &str, most: u64) {
    let (status, code, quota, _) = refusal(&who.ask("POST", path, body).await);
    assert_eq!((status, code.as_str(), quota.as_str()), (429, "quota_exceeded", of), "{path}");
    let metadata = who.get("/v1/sessions/current").await.metadata();
    assert_eq!(metadata["usage"][of], json!({"used": most, "limit": most}), "{path}");
}

#[tokio::test]
async fn streams_subscriptions_and_producers_of_a_user_are_counted_across_deletions_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let spare = || tempfile::tempdir().unwrap();
    let broker = Broker { server: on_disk(dir.path()).await, dir: spare() };
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    let (alices, bobs) = (alice.1.clone().unwrap(), bob.1.clone().unwrap());
    for stream in ["one", "two", "three"] {
        alice.made("POST", "/v1/streams", json!({"name": stream})).await;
        alice.made("PUT", &format!("/v1/streams/{stream}/rights/user:bob"), json!({"right": "ReadWrite"})).await;
    }
    is_full(&alice, "/v1/streams", json!({"name": "four"}), "streams", 3).await;
    assert_eq!(alice.refused("POST", "/v1/streams", json!({"name": "one"})).await, (409, "name_taken".into()), "a name comes before a count");
    bob.made("POST", "/v1/streams", json!({"name": "bobs"})).await;
    // Bob's things on Alice's streams are Bob's, those of his sources too.
    let (id, till) = source(&bob, "till").await;
    alice.made("PUT", &format!("/v1/streams/two/rights/source:{id}"), json!({"right": "ReadWrite"})).await;
    bob.made("POST", "/v1/streams/one/subscriptions", json!({"name": "x"})).await;
    till.made("POST", "/v1/streams/two/subscriptions", json!({"name": "y"})).await;
    is_full(&bob, "/v1/streams/bobs/subscriptions", json!({"name": "z"}), "subscriptions", 2).await;
    bob.made("POST", "/v1/streams/one/producers", json!({"producer": "p", "expect": "create"})).await;
    bob.made("POST", "/v1/streams/one/producers", json!({"producer": "p"})).await; // again, which is none more
    bob.made("POST", "/v1/producers", json!({"producer": "commits"})).await;
    is_full(&bob, "/v1/streams/bobs/producers", json!({"producer": "q"}), "producers", 2).await;
    let mut ws = broker.ws("/v1/connect").await.greeted().await;
    ws.text(&json!({"t": "auth", "key": bobs}).to_string()).await;
    let refused = ws.ask(r#"{"t":"subscribe","sub":1,"stream":"bobs","subscription":"z","create":true}"#).await;
    assert_eq!((&refused["t"], &refused["code"]), (&json!("error"), &json!("quota_exceeded")));
    ws.alive().await;
    drop(ws);

    let Broker { server, .. } = broker;
    server.stop().await.unwrap();
    let broker = Broker { server: on_disk(dir.path()).await, dir: spare() };
    let (alice, bob) = (key(&broker, alices), key(&broker, bobs));
    is_full(&alice, "/v1/streams", json!({"name": "four"}), "streams", 3).await;
    is_full(&bob, "/v1/streams/bobs/subscriptions", json!({"name": "z"}), "subscriptions", 2).await;
    is_full(&bob, "/v1/streams/bobs/producers", json!({"producer": "q"}), "producers", 2).await;

    // What goes makes room: one by one, and all that stood on a stream with it.
    deleted(&alice, "one").await;
    alice.made("POST", "/v1/streams", json!({"name": "four"})).await;
    assert_eq!(usage(&bob, "bob", "subscriptions").await["used"], 1);
    assert_eq!(usage(&bob, "bob", "producers").await["used"], 1);
    assert_eq!(bob.ask("DELETE", "/v1/producers/commits", Value::Null).await.status, 200);
    assert_eq!(alice.ask("DELETE", "/v1/streams/two/subscriptions/y", Value::Null).await.status, 200, "by somebody else, and counted with its maker");
    assert_eq!((usage(&bob, "bob", "subscriptions").await["used"].clone(), usage(&bob, "bob", "producers").await["used"].clone()), (json!(0), json!(0)));
    for name in ["a", "b"] {
        bob.made("POST", "/v1/streams/two/subscriptions", json!({"name": name})).await;
        bob.made("POST", "/v1/streams/two/producers", json!({"producer": name})).await;
    }
    is_full(&bob, "/v1/streams/bobs/subscriptions", json!({"name": "z"}), "subscriptions", 2).await;
    assert_eq!(usage(&alice, "alice", "streams").await, json!({"used": 3, "limit": 3}));
}

#[tokio::test]
async fn the_operator_is_exempt_from_counts_and_users_see_their_own_use_only() {
    let broker = with(|config| {
        config.raw.limits.streams_per_user = 1;
        config.raw.limits.connections_per_user = 1;
        config.raw.rates.requests_per_s = 1;
        config.raw.rates.requests_burst = 1;
    })
    .await;
    let socket = operator(&broker);
    socket.made("POST", "/v1/users", json!({"name": "boss", "root": true, "password": "correct horse"})).await;
    for stream in ["a", "b", "c"] {
        socket.made("POST", "/v1/streams", json!({"name": stream})).await;
    }
    assert_eq!(usage(&socket, "operator", "streams").await, json!({"used": 0, "limit": null}), "it is not counted");
    let broker = with(|config| config.raw.limits.streams_per_user = 1).await;
    let socket = operator(&broker);
    socket.made("POST", "/v1/users", json!({"name": "boss", "root": true, "password": "correct horse"})).await;
    let login = broker.post("/v1/sessions", r#"{"name":"boss","password":"correct horse"}"#).await.metadata();
    let boss = key(&broker, login["token"].as_str().unwrap());
    for stream in ["a", "b"] {
        boss.made("POST", "/v1/streams", json!({"name": stream})).await;
    }
    assert_eq!(usage(&boss, "boss", "streams").await, json!({"used": 2, "limit": null}));
    let (alice, bob) = (console(&broker, "alice").await, console(&broker, "bob").await);
    let own = alice.get("/v1/sessions/current").await.metadata();
    assert_eq!(own["usage"]["streams"], json!({"used": 0, "limit": 1}));
    assert_eq!(
        own["usage"]["rates"],
        json!({"requests": {"per_s": 5000, "burst": 10_000}, "bytes": {"per_s": 67_108_864, "burst": 67_108_864}, "data": false})
    );
    assert_eq!(bob.refused("GET", "/v1/users/alice", Value::Null).await, (404, "not_found".into()));
    let (_, till) = source(&alice, "till").await;
    assert_eq!(till.get("/v1/sessions/current").await.metadata()["usage"], Value::Null, "a source is not told what its user has");
}
