//! The stream `$audit` over real sockets: what a carrier adds to an event (from where, in which request), and who gets to see it by which.

use serde_json::{Value, json};
use tidelog::wire::proto::v1;

use crate::access::{console, key, operator, source};
use crate::grpc_client::{Grpc, frame};
use crate::support::{Broker, Peer, dev, on_disk, post_to, serve};

const EVENTS: &str = "/v1/streams/$audit/events";

async fn told(broker: &Broker) -> Vec<Value> {
    operator(broker).get(&format!("{EVENTS}?from=earliest")).await.metadata()["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_event_says_over_which_address_and_in_which_request() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    alice.made("POST", "/v1/streams", json!({"name": "s"})).await;
    let answer = alice.ask("POST", "/v1/streams/s/close", Value::Null).await;
    operator(&broker).made("POST", "/v1/users", json!({"name": "bob"})).await;
    let told = told(&broker).await;
    let event = |action: &str| told.iter().rfind(|event| event["type"] == action).unwrap_or_else(|| panic!("{action}: {told:?}"));
    let (closed, made) = (&event("stream-closed")["data"], &event("user-created")["data"]);
    assert_eq!(closed["request_id"].as_str(), answer.header("x-request-id"));
    let address: std::net::SocketAddr = closed["requestor"]["address"].as_str().unwrap().parse().expect("an address");
    assert!(address.ip().is_loopback(), "{address}");
    assert_eq!(made["requestor"], json!({"kind": "operator", "user_id": 1, "user": "operator", "source_id": null, "key": null, "address": "unix"}));
    assert_eq!((&event("stream-closed")["key"], &event("stream-closed")["author"]), (&json!("/v1/streams/s"), &json!({"user_id": 2, "source_id": null})));
}

#[tokio::test]
async fn an_act_over_a_connection_has_the_address_of_the_connection() {
    let broker = dev().await;
    broker.post("/v1/streams", r#"{"name":"s"}"#).await.metadata();
    broker.post("/v1/streams/s/events", r#"{"events":[{"data":1},{"data":2}]}"#).await.metadata();
    broker.post("/v1/streams/s/subscriptions", r#"{"name":"r"}"#).await.metadata();
    let rewind = |sub: u64| json!({"t": "subscribe", "sub": sub, "stream": "s", "subscription": "r", "rewind": true, "from": 0}).to_string();
    let forward = |n: u64| json!({"next": n}).to_string();
    broker.put("/v1/streams/s/subscriptions/r/cursor", &forward(2)).await.metadata();
    let tcp = broker.tcp().await;
    let here = tcp.local_addr().unwrap().to_string();
    let mut ws = Peer::open(tcp, "/v1/connect", Some("tidelog.v1.json")).await.unwrap().greeted().await;
    assert_eq!(ws.ask(&rewind(1)).await["t"], "subscribed");
    broker.put("/v1/streams/s/subscriptions/r/cursor", &forward(2)).await.metadata();
    let mut call = Grpc::tcp(broker.server.address()).await.connect().await.greeted().await;
    let ask = v1::Subscribe {
        sub: 1,
        stream: "s".into(),
        subscription: Some("r".into()),
        rewind: true,
        from: Some(v1::Start { start: Some(v1::start::Start::Offset(0)) }),
        ..Default::default()
    };
    call.say(v1::client_frame::Frame::Subscribe(ask));
    assert!(matches!(call.hear().await, v1::server_frame::Frame::Subscribed(_)));
    let moved: Vec<Value> =
        told(&broker).await.iter().filter(|event| event["type"] == "cursor-moved").map(|event| event["data"]["requestor"]["address"].clone()).collect();
    assert_eq!((moved.len(), moved[1].as_str()), (4, Some(here.as_str())), "{moved:?}");
    assert!(moved.iter().all(|address| address.as_str().is_some_and(|text| text.starts_with("127.0.0.1:"))), "{moved:?}");
}

#[tokio::test]
async fn the_operator_reads_it_by_every_carrier_and_others_by_none() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let (_, feed) = source(&alice, "feed").await;
    // REST: pages, one event, a subscription with pulls; event streams.
    let operator = operator(&broker);
    for path in ["/v1/streams/$audit", EVENTS, "/v1/streams/%24audit/events/0", "/v1/streams/$audit/subscriptions", "/v1/streams/$audit/rights"] {
        assert_eq!(operator.get(path).await.status, 200, "{path}");
        for other in [&alice, &feed] {
            assert_eq!(other.refused("GET", path, Value::Null).await, (404, "not_found".into()), "{path}");
        }
    }
    operator.made("POST", "/v1/streams/$audit/subscriptions", json!({"name": "watch"})).await;
    let pulled = operator.made("POST", "/v1/streams/$audit/subscriptions/watch/pull", json!({})).await;
    assert_eq!(pulled["events"][0]["type"], "user-created");
    for other in [&alice, &feed] {
        assert_eq!(other.refused("POST", "/v1/streams/$audit/subscriptions/watch/pull", json!({})).await, (404, "not_found".into()));
    }
    // A WebSocket and gRPC on the socket.
    let unix = || async { tokio::net::UnixStream::connect(broker.server.socket()).await.unwrap() };
    let mut ws = Peer::open(unix().await, "/v1/connect", Some("tidelog.v1.json")).await.unwrap().greeted().await;
    let subscribe = json!({"t": "subscribe", "sub": 1, "stream": "$audit", "from": "earliest"}).to_string();
    assert_eq!((ws.ask(&subscribe).await["t"].clone(), ws.json().await["events"][0]["type"].clone()), (json!("subscribed"), json!("user-created")));
    let append = json!({"t": "append", "req": 1, "stream": "$audit", "events": [{"data": "forged"}]}).to_string();
    let mut refused = ws.ask(&append).await;
    while refused["t"] == "live" {
        refused = ws.json().await;
    }
    assert_eq!((&refused["t"], &refused["code"]), (&json!("error"), &json!("access_denied")), "{refused}");
    let mut grpc = Grpc::unix(broker.server.socket()).await;
    let ask = v1::Subscribe { sub: 1, stream: "$audit".into(), from: Some(v1::Start { start: Some(v1::start::Start::Offset(0)) }), ..Default::default() };
    let mut stream = grpc.subscribe(&ask).await.unwrap();
    assert!(matches!(frame(&mut stream).await, v1::server_frame::Frame::Subscribed(_)));
    assert!(matches!(frame(&mut stream).await, v1::server_frame::Frame::Events(_)));
}

#[tokio::test]
async fn nobody_appends_to_it_gives_rights_on_it_or_makes_one() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let root = operator(&broker);
    root.made("POST", "/v1/users", json!({"name": "ruth", "root": true, "password": "correct horse"})).await;
    let event = json!({"events": [{"data": "forged"}]});
    for (method, path, body, expected) in [
        ("POST", EVENTS, event.clone(), (403, "access_denied")),
        ("POST", "/v1/streams/$audit/close", Value::Null, (403, "access_denied")),
        ("DELETE", "/v1/streams/$audit", Value::Null, (403, "access_denied")),
        ("PUT", "/v1/streams/$audit/rights/user:alice", json!({"right": "ReadOnly"}), (403, "access_denied")),
        ("POST", "/v1/streams/$audit/producers", json!({"producer": "p"}), (403, "access_denied")),
        ("POST", "/v1/streams", json!({"name": "$audit"}), (400, "bad_parameter")),
        ("POST", "/v1/streams", json!({"name": "$Audit"}), (400, "bad_parameter")),
        ("POST", "/v1/streams", json!({"name": "$lifecycle"}), (400, "bad_parameter")),
    ] {
        let (status, code) = root.refused(method, path, body).await;
        assert_eq!((status, code.as_str()), expected, "{method} {path}");
    }
    assert_eq!(alice.refused("POST", EVENTS, event).await, (404, "not_found".into()));
    assert_eq!(root.get("/v1/streams").await.metadata(), json!([]));
    assert_eq!(told(&broker).await.len(), 3, "what was refused is not told of as done");
}

/// Names that people choose freely come from every carrier; this one as JSON.
#[tokio::test]
async fn a_name_cannot_forge_an_event_or_a_field() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let name = "x\", \"requestor\": {\"user\": \"root\"}}\u{2028}{\"action\": \"\u{202e}";
    alice.made("POST", "/v1/sources", json!({"name": name})).await;
    let told = told(&broker).await;
    assert_eq!(told.len(), 3, "user, session, source");
    let data = &told[2]["data"];
    assert_eq!((&data["action"], &data["requestor"]["user"], &data["context"]["name"]), (&json!("source-created"), &json!("alice"), &json!(name)));
    assert_eq!(data.as_object().unwrap().len(), 5);
}

#[tokio::test]
async fn it_is_dense_over_a_restart_and_the_store_agrees_with_itself() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..2 {
        let server = on_disk(dir.path()).await;
        for n in 0..3 {
            let made = post_to(&server, "/v1/users", &[], &json!({"name": format!("u{life}-{n}")}).to_string()).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        server.stop().await.unwrap();
    }
    let report = tidelog::log::check::check_store(dir.path(), None, &mut |_, _| {}).unwrap();
    assert!(report.ok && report.complete, "{report:?}");
    assert_eq!((report.counts.streams, report.counts.events), (1, 6));
    let only = tidelog::log::check::check_store(dir.path(), Some("$audit"), &mut |_, _| {}).unwrap();
    assert!(only.ok && only.counts.events == 6, "{only:?}");
}

/// Two people at once, so that groups hold several acts.
#[tokio::test]
async fn acts_at_the_same_time_are_each_told_once() {
    let broker = serve().await;
    let alice = console(&broker, "alice").await;
    let made = futures_util::future::join_all((0..40).map(|n| {
        let who = key(&broker, alice.1.as_deref().unwrap());
        async move { who.made("POST", "/v1/sources", json!({"name": format!("s{n}")})).await["id"].as_u64().unwrap() }
    }));
    let mut made = made.await;
    made.sort_unstable();
    let told = told(&broker).await;
    let mut sources: Vec<u64> = told
        .iter()
        .filter(|event| event["type"] == "source-created")
        .map(|event| event["key"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap())
        .collect();
    sources.sort_unstable();
    assert_eq!(sources, made);
    assert!(told.iter().enumerate().all(|(at, event)| event["offset"] == at));
}
