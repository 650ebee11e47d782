//! The protocol over WebSocket, in both forms, when everything is right.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tidelog::types::request::{AckLevel, AppendRequest, SubscribeRequest};
use tidelog::types::{Encoding, EventRef, Events, EventsBuilder, StreamName, SubscriptionName};
use tidelog::wire::frame::{ClientFrame, ServerFrame};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Broker, dev};

fn events(data: &[&str]) -> Events {
    let mut builder = EventsBuilder::default();
    for data in data {
        builder.push(&EventRef { data: data.as_bytes(), encoding: Encoding::Utf8, ..EventRef::default() }).unwrap();
    }
    builder.finish().unwrap()
}

fn append(req: u64, stream: &str, data: &[&str]) -> ClientFrame {
    let stream = StreamName::parse(stream).unwrap();
    ClientFrame::Append { req, request: AppendRequest { stream, stream_id: None, events: events(data), producer: None, expected_next_offset: None } }
}

#[tokio::test]
async fn the_subprotocol_is_agreed_or_json() {
    let broker = dev().await;
    for (offered, agreed) in [
        (None, None),
        (Some("tidelog.v1.json"), Some("tidelog.v1.json")),
        (Some("tidelog.v1.proto"), Some("tidelog.v1.proto")),
        (Some("tidelog.v1.proto, tidelog.v1.json"), Some("tidelog.v1.proto")),
    ] {
        let peer = broker.ws_as("/v1/connect", offered).await.unwrap();
        assert_eq!(peer.agreed.as_deref(), agreed);
        peer.greeted().await;
    }
    assert!(broker.ws_as("/v1/connect", Some("mqtt")).await.is_err());
}

#[tokio::test]
async fn events_go_in_and_come_out_in_both_forms() {
    let broker = dev().await;
    for (form, stream) in [("tidelog.v1.json", "a"), ("tidelog.v1.proto", "b")] {
        let mut peer = broker.ws_as("/v1/connect", Some(form)).await.unwrap().greeted().await;
        peer.frame(&append(7, stream, &["one", "two"])).await;
        let ServerFrame::Appended { req: 7, reply } = peer.heard().await else { panic!("{form}: appended") };
        assert_eq!((reply.first_offset, reply.last_offset, reply.count, reply.duplicate), (Some(0), Some(1), 2, false));

        let mut request = SubscribeRequest::new(StreamName::parse(stream).unwrap(), Some(SubscriptionName::parse("s").unwrap()));
        request.create = true;
        peer.frame(&ClientFrame::Subscribe { sub: 3, request }).await;
        let ServerFrame::Subscribed { sub: 3, reply } = peer.heard().await else { panic!("{form}: subscribed") };
        assert_eq!((reply.epoch, reply.next, reply.next_offset), (Some(1), 0, 2));
        let ServerFrame::Events { sub: 3, slices, lag, .. } = peer.heard().await else { panic!("{form}: events") };
        let data: Vec<_> = slices.iter().flat_map(|s| s.events().map(|(o, e)| (o, e.data.to_vec())).collect::<Vec<_>>()).collect();
        assert_eq!(data, [(0, b"one".to_vec()), (1, b"two".to_vec())]);
        assert_eq!(lag.events, 0);
        let ServerFrame::Live { sub: 3, next_offset: 2 } = peer.heard().await else { panic!("{form}: live") };

        peer.frame(&ClientFrame::Ack { sub: 3, offset: 1, level: AckLevel::Durable }).await;
        let ServerFrame::Acked { sub: 3, reply } = peer.heard().await else { panic!("{form}: acked") };
        assert_eq!((reply.offset, reply.next, reply.stale), (Some(1), 2, false));
        peer.frame(&ClientFrame::Ping).await;
        assert!(matches!(peer.heard().await, ServerFrame::Pong));
        peer.frame(&ClientFrame::Unsubscribe { sub: 3 }).await;
        assert!(matches!(peer.heard().await, ServerFrame::Unsubscribed { sub: 3 }));
    }
}

#[tokio::test]
async fn a_number_is_free_again_after_unsubscribed() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    for _ in 0..3 {
        assert_eq!(peer.ask(r#"{"t":"subscribe","sub":1,"stream":"a","from":"earliest"}"#).await["t"], "subscribed");
        assert_eq!(peer.json().await["t"], "live");
        assert_eq!(peer.ask(r#"{"t":"unsubscribe","sub":1}"#).await, json!({"t":"unsubscribed","sub":1}));
    }
    // Said before `subscribed` could come: both answers come, in this order, and nothing after them.
    peer.text(r#"{"t":"subscribe","sub":1,"stream":"a","from":"earliest"}"#).await;
    peer.text(r#"{"t":"unsubscribe","sub":1}"#).await;
    let mut heard = Vec::new();
    while heard.last().map(String::as_str) != Some("unsubscribed") {
        heard.push(peer.json().await["t"].as_str().unwrap().to_owned());
    }
    assert_eq!(heard[0], "subscribed");
    peer.alive().await;
}

async fn two_events(broker: &Broker) {
    let lines = [("Content-Type", "application/x-ndjson")];
    assert_eq!(broker.ask("POST", "/v1/streams/a/events?lines=data", &lines, b"0\n1\n").await.status, 201);
}

#[tokio::test]
async fn the_url_of_one_subscription_needs_no_subscribe_and_no_sub() {
    let broker = dev().await;
    two_events(&broker).await;
    assert_eq!(broker.post("/v1/streams/a/subscriptions", r#"{"name":"s"}"#).await.status, 201);
    let mut peer = broker.ws("/v1/streams/a/subscriptions/s/connect").await.greeted().await;
    let subscribed = peer.json().await;
    assert_eq!((&subscribed["t"], &subscribed["next"], subscribed.get("sub")), (&json!("subscribed"), &json!(0), None));
    let events = peer.json().await;
    assert_eq!((&events["t"], events["events"].as_array().unwrap().len(), events.get("sub")), (&json!("events"), 2, None));
    assert_eq!(peer.json().await["t"], "live");
    let acked = peer.ask(r#"{"t":"ack","offset":0}"#).await;
    assert_eq!((&acked["t"], &acked["next"], acked.get("sub")), (&json!("acked"), &json!(1), None));
    peer.alive().await;
    drop(peer);

    let mut peer = broker.ws("/v1/streams/a/subscriptions/s/connect?from=earliest&rewind=true&takeover=steal&on_gap=skip").await.greeted().await;
    assert_eq!(peer.json().await["next"], 0);
}

#[tokio::test]
async fn a_fenced_session_ends_one_reader_on_a_shared_connection_and_the_connection_on_its_own_url() {
    let broker = dev().await;
    two_events(&broker).await;
    let mut shared = broker.ws("/v1/connect").await.greeted().await;
    assert_eq!(shared.ask(r#"{"t":"subscribe","sub":1,"stream":"a","subscription":"s","create":true}"#).await["epoch"], 1);
    assert_eq!(shared.json().await["t"], "events");
    assert_eq!(shared.json().await["t"], "live");

    let mut own = broker.ws("/v1/streams/a/subscriptions/s/connect").await.greeted().await;
    assert_eq!(own.json().await["epoch"], 2);
    let fenced = shared.json().await;
    assert_eq!((&fenced["t"], &fenced["sub"], &fenced["code"], &fenced["rule"]), (&json!("error"), &json!(1), &json!("session_fenced"), &json!("C-7")));
    shared.alive().await;
    assert_eq!(shared.ask(r#"{"t":"ack","sub":1,"offset":0}"#).await["code"], "bad_parameter", "the reader is gone");

    let mut thief = broker.ws("/v1/streams/a/subscriptions/s/connect").await.greeted().await;
    assert_eq!(thief.json().await["epoch"], 3);
    assert_eq!(own.closed().await, 4009);
    let mut polite = broker.ws("/v1/streams/a/subscriptions/s/connect?takeover=reject").await.greeted().await;
    assert_eq!(polite.json().await["code"], "cursor_busy");
    polite.closed().await;
}

#[tokio::test]
async fn more_requests_than_may_be_in_flight_are_all_answered_in_order() {
    let broker = dev().await;
    let peer = broker.ws("/v1/connect").await.greeted().await;
    let (mut sink, mut stream) = peer.ws.split();
    let sending = tokio::spawn(async move {
        for req in 0..2000u64 {
            let frame = json!({"t":"append","req":req,"stream":"a","events":[{"data":req}]}).to_string();
            sink.send(Message::text(frame)).await.unwrap();
        }
        sink
    });
    for req in 0..2000u64 {
        let Some(Ok(Message::Text(text))) = stream.next().await else { panic!("an answer to {req}") };
        let frame: Value = serde_json::from_str(text.as_str()).unwrap();
        assert_eq!((&frame["t"], &frame["req"], &frame["first_offset"]), (&json!("appended"), &json!(req), &json!(req)));
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_reader_that_does_not_read_can_still_append_and_loses_nothing() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    let credit = r#"{"t":"subscribe","sub":1,"stream":"big","from":"earliest","credit":{"events":1000000,"bytes":1000000000}}"#;
    assert_eq!(peer.ask(credit).await["t"], "subscribed");
    // 32 MiB: far more than the kernel buffers between the two take.
    let data = vec![b'x'; 512 * 1024];
    for _ in 0..64 {
        assert_eq!(broker.ask("POST", "/v1/streams/big/events", &[("Content-Type", "text/plain")], &data).await.status, 201);
    }
    assert_eq!(broker.post("/v1/streams", r#"{"name":"small"}"#).await.status, 201);
    peer.text(r#"{"t":"append","req":1,"stream":"small","events":[{"data":1}]}"#).await;
    assert_eq!(broker.get("/v1/streams/small/events?wait=20").await.metadata()["events"][0]["data"], 1, "reading goes on while writing is blocked");
    let (mut next, mut appended) = (0, false);
    while next < 64 || !appended {
        let frame = peer.json().await;
        match frame["t"].as_str().unwrap() {
            "events" => {
                for event in frame["events"].as_array().unwrap() {
                    assert_eq!(event["offset"], next);
                    next += 1;
                }
            }
            "appended" => appended = true,
            _ => {}
        }
    }
}

#[tokio::test]
async fn many_readers_share_one_connection() {
    let broker = dev().await;
    let mut peer = broker.ws("/v1/connect").await.greeted().await;
    for sub in 1..=256 {
        let frame = json!({"t":"subscribe","sub":sub,"stream":"a","from":"earliest"}).to_string();
        assert_eq!(peer.ask(&frame).await["t"], "subscribed");
        assert_eq!(peer.json().await["t"], "live");
    }
    let error = peer.ask(r#"{"t":"subscribe","sub":257,"stream":"a"}"#).await;
    assert_eq!((&error["code"], &error["sub"], &error["details"]["limit"]), (&json!("quota_exceeded"), &json!(257), &json!(256)));
    two_events(&broker).await;
    let mut got = std::collections::BTreeSet::new();
    while got.len() < 256 {
        let frame = peer.json().await;
        if frame["t"] == "events" {
            assert_eq!(frame["events"].as_array().unwrap().len(), 2);
            got.insert(frame["sub"].as_u64().unwrap());
        }
    }
}

#[tokio::test]
async fn echo_answers_what_it_hears() {
    let broker = dev().await;
    let mut peer = broker.ws_as("/echo", None).await.unwrap();
    peer.text("héllo").await;
    assert_eq!(peer.message().await, Message::text("héllo"));
    let bytes = vec![7u8; 300_000];
    peer.ws.send(Message::binary(bytes.clone())).await.unwrap();
    assert_eq!(peer.message().await, Message::binary(bytes));
    peer.ws.close(None).await.unwrap();
    while let Some(last) = peer.ws.next().await {
        assert!(matches!(last, Ok(Message::Close(_))), "{last:?}");
    }
}
