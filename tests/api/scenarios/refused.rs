//! Frames that nobody should send, in both subprotocols: the same refusal about the same request, the connection stays, nothing is
//! stored. What only one form can get wrong (broken JSON, broken protobuf) is in `ws_bad.rs`.

use prost::Message as _;
use tidelog::wire::proto::v1::{self, client_frame::Frame};
use tokio_tungstenite::tungstenite::Message;

use super::socket::{About, Dialect, Hear};
use super::{ws_json::JsonText, ws_proto::Protobuf};
use crate::support::{Peer, dev};

/// What is wrong; the frame in both forms; about what it is refused; code, rule and field.
type Row = (&'static str, String, Vec<u8>, About, &'static str, &'static str, Option<&'static str>);

fn proto(frame: Frame) -> Vec<u8> {
    v1::ClientFrame { frame: Some(frame) }.encode_to_vec()
}

/// A message as bytes: another message's, and what our types cannot say.
fn raw(variant: u8, message: &impl prost::Message, more: &[u8]) -> Vec<u8> {
    let body = [message.encode_to_vec(), more.to_vec()].concat();
    assert!(body.len() < 128, "one length byte is enough here");
    [vec![variant << 3 | 2, body.len() as u8], body].concat()
}

fn append(stream: &str, events: Vec<v1::Event>) -> v1::Append {
    v1::Append { req: 7, stream: stream.into(), events: Some(v1::Events { events }), ..Default::default() }
}

/// An append of one event, with bytes of its own.
fn append_raw(event: &[u8]) -> Vec<u8> {
    let inner = [&[0x7a, event.len() as u8], event].concat();
    raw(9, &v1::Append { req: 7, stream: "orders".into(), ..Default::default() }, &[&[0x7a, inner.len() as u8], &inner[..]].concat())
}

fn event(data: &'static str) -> v1::Event {
    v1::Event { data: data.into(), ..Default::default() }
}

fn subscribe(stream: &str) -> v1::Subscribe {
    v1::Subscribe { sub: 7, stream: stream.into(), ..Default::default() }
}

fn stamp(id: &str) -> v1::ProducerStamp {
    v1::ProducerStamp { id: id.into(), epoch: 1, seq: 0 }
}

fn rows() -> Vec<Row> {
    const REQ: About = About::Req(7);
    const SUB: About = About::Sub(7);
    const BIG: u64 = 1 << 53;
    let json = |text: &str| text.to_owned();
    let long = "n".repeat(201);
    vec![
        (
            "an append without a stream",
            json(r#"{"t":"append","req":7,"stream":"","events":[{"data":1}]}"#),
            proto(Frame::Append(append("", vec![event("1")]))),
            REQ,
            "bad_parameter",
            "",
            Some("stream"),
        ),
        (
            "an append without events",
            json(r#"{"t":"append","req":7,"stream":"orders","events":[]}"#),
            proto(Frame::Append(append("orders", vec![]))),
            REQ,
            "bad_parameter",
            "",
            Some("events"),
        ),
        (
            "a name that is none",
            json(r#"{"t":"append","req":7,"stream":"a/b","events":[{"data":1}]}"#),
            proto(Frame::Append(append("a/b", vec![event("1")]))),
            REQ,
            "bad_parameter",
            "",
            Some("stream"),
        ),
        (
            "a name that is too long",
            format!(r#"{{"t":"subscribe","sub":7,"stream":"{long}"}}"#),
            proto(Frame::Subscribe(subscribe(&long))),
            SUB,
            "bad_parameter",
            "",
            Some("stream"),
        ),
        (
            "an append with a field that does not exist",
            json(r#"{"t":"append","req":7,"stream":"orders","colour":1,"events":[{"data":1}]}"#),
            raw(9, &append("orders", vec![event("1")]), &[0x70, 1]),
            REQ,
            "unknown_field",
            "",
            None,
        ),
        (
            "an event with a field that does not exist",
            json(r#"{"t":"append","req":7,"stream":"orders","events":[{"data":1,"colour":1}]}"#),
            append_raw(&[0x0a, 1, b'1', 0x70, 1]),
            REQ,
            "unknown_field",
            "",
            None,
        ),
        (
            "an event that names its own offset",
            json(r#"{"t":"append","req":7,"stream":"orders","events":[{"data":1,"offset":3}]}"#),
            append_raw(&[0x0a, 1, b'1', 0x38, 3]),
            REQ,
            "unknown_field",
            "",
            None,
        ),
        (
            "an encoding that does not exist",
            json(r#"{"t":"append","req":7,"stream":"orders","events":[{"data":1},{"data":1,"encoding":"xml"}]}"#),
            proto(Frame::Append(append("orders", vec![event("1"), v1::Event { encoding: 9, ..event("1") }]))),
            REQ,
            "bad_parameter",
            "",
            Some("events[1].encoding"),
        ),
        (
            "a header without a name",
            json(r#"{"t":"append","req":7,"stream":"orders","events":[{"data":1,"headers":{"":"v"}}]}"#),
            proto(Frame::Append(append("orders", vec![v1::Event { headers: vec![v1::Header { name: String::new(), value: "v".into() }], ..event("1") }]))),
            REQ,
            "bad_parameter",
            "",
            Some("events[0].headers"),
        ),
        (
            "a header twice",
            json(r#"{"t":"append","req":7,"stream":"orders","events":[{"data":1,"headers":{"h":"1","h":"2"}}]}"#),
            proto(Frame::Append(append("orders", vec![v1::Event { headers: vec![v1::Header { name: "h".into(), value: "1".into() }; 2], ..event("1") }]))),
            REQ,
            "bad_parameter",
            "",
            None,
        ),
        (
            "a producer's id with a blank",
            json(r#"{"t":"append","req":7,"stream":"orders","producer":{"id":"a b","epoch":1,"seq":0},"events":[{"data":1}]}"#),
            proto(Frame::Append(v1::Append { producer: Some(stamp("a b")), ..append("orders", vec![event("1")]) })),
            REQ,
            "bad_parameter",
            "",
            Some("producer.id"),
        ),
        (
            "a number that JSON readers cannot hold",
            format!(r#"{{"t":"append","req":7,"stream":"orders","expected_next_offset":{BIG},"events":[{{"data":1}}]}}"#),
            proto(Frame::Append(v1::Append { expected_next_offset: Some(BIG), ..append("orders", vec![event("1")]) })),
            REQ,
            "bad_parameter",
            "",
            Some("expected_next_offset"),
        ),
        (
            "a producer without a name",
            json(r#"{"t":"open_producer","req":7,"stream":"orders","producer":""}"#),
            proto(Frame::OpenProducer(v1::OpenProducer { req: 7, stream: Some("orders".into()), ..Default::default() })),
            REQ,
            "bad_parameter",
            "",
            Some("producer"),
        ),
        (
            "an expectation that does not exist",
            json(r#"{"t":"open_producer","req":7,"stream":"orders","producer":"p","expect":"maybe"}"#),
            proto(Frame::OpenProducer(v1::OpenProducer { req: 7, stream: Some("orders".into()), producer: "p".into(), expect: 9, ..Default::default() })),
            REQ,
            "bad_parameter",
            "",
            Some("expect"),
        ),
        (
            "a resume of nobody",
            json(r#"{"t":"resume","req":7,"stream":"orders","producer":"p","seq":0}"#),
            proto(Frame::Resume(v1::Resume { req: 7, stream: "orders".into(), producer: Some("p".into()), seq: Some(0) })),
            REQ,
            "producer_unknown",
            "P-1",
            None,
        ),
        (
            "a commit of nothing",
            json(r#"{"t":"commit","req":7,"acks":[],"appends":[]}"#),
            proto(Frame::Commit(v1::Commit { req: 7, ..Default::default() })),
            REQ,
            "bad_parameter",
            "",
            Some("acks"),
        ),
        (
            "a commit whose second append is none",
            json(r#"{"t":"commit","req":7,"appends":[{"stream":"orders","events":[{"data":1}]},{"stream":"orders","events":[]}]}"#),
            proto(Frame::Commit(v1::Commit {
                req: 7,
                appends: vec![
                    v1::CommitAppend { stream: "orders".into(), events: Some(v1::Events { events: vec![event("1")] }), ..Default::default() },
                    v1::CommitAppend { stream: "orders".into(), ..Default::default() },
                ],
                ..Default::default()
            })),
            REQ,
            "bad_parameter",
            "",
            Some("appends[1].events"),
        ),
        (
            "a commit with a bad name inside",
            json(r#"{"t":"commit","req":7,"acks":[{"stream":"orders","subscription":"a/b","epoch":1,"offset":0}]}"#),
            proto(Frame::Commit(v1::Commit {
                req: 7,
                acks: vec![v1::CommitAck { stream: "orders".into(), subscription: "a/b".into(), epoch: 1, offset: 0 }],
                ..Default::default()
            })),
            REQ,
            "bad_parameter",
            "",
            Some("acks[0].subscription"),
        ),
        (
            "a reader's number that is in use",
            json(r#"{"t":"subscribe","sub":1,"stream":"orders"}"#),
            proto(Frame::Subscribe(v1::Subscribe { sub: 1, ..subscribe("orders") })),
            About::Sub(1),
            "bad_parameter",
            "",
            Some("sub"),
        ),
        (
            "a filter that cannot be read",
            json(r#"{"t":"subscribe","sub":7,"stream":"orders","filter":"type like x"}"#),
            proto(Frame::Subscribe(v1::Subscribe { filter: Some("type like x".into()), ..subscribe("orders") })),
            SUB,
            "bad_filter",
            "",
            None,
        ),
        (
            "a takeover that does not exist",
            json(r#"{"t":"subscribe","sub":7,"stream":"orders","takeover":"maybe"}"#),
            proto(Frame::Subscribe(v1::Subscribe { takeover: 9, ..subscribe("orders") })),
            SUB,
            "bad_parameter",
            "",
            Some("takeover"),
        ),
        (
            "a start that says nothing",
            json(r#"{"t":"subscribe","sub":7,"stream":"orders","from":""}"#),
            proto(Frame::Subscribe(v1::Subscribe { from: Some(v1::Start { start: None }), ..subscribe("orders") })),
            SUB,
            "bad_parameter",
            "",
            Some("from"),
        ),
        (
            "an ack by nobody",
            json(r#"{"t":"ack","sub":7,"offset":0}"#),
            proto(Frame::Ack(v1::Ack { sub: 7, offset: 0, level: 0 })),
            SUB,
            "bad_parameter",
            "",
            Some("sub"),
        ),
        (
            "an ack of an ephemeral reader",
            json(r#"{"t":"ack","sub":1,"offset":0}"#),
            proto(Frame::Ack(v1::Ack { sub: 1, offset: 0, level: 0 })),
            About::Sub(1),
            "ack_mode_mismatch",
            "G-1",
            None,
        ),
        (
            "an ack of a level that does not exist",
            json(r#"{"t":"ack","sub":1,"offset":0,"level":"maybe"}"#),
            proto(Frame::Ack(v1::Ack { sub: 1, offset: 0, level: 9 })),
            About::Sub(1),
            "bad_parameter",
            "",
            Some("level"),
        ),
        (
            "credit for nobody",
            json(r#"{"t":"credit","sub":7,"events":1,"bytes":1}"#),
            proto(Frame::Credit(v1::AddCredit { sub: 7, events: 1, bytes: 1 })),
            SUB,
            "bad_parameter",
            "",
            Some("sub"),
        ),
        ("nobody leaves", json(r#"{"t":"unsubscribe","sub":7}"#), proto(Frame::Unsubscribe(v1::Unsubscribe { sub: 7 })), SUB, "bad_parameter", "", Some("sub")),
        (
            "a credential on an open door",
            json(r#"{"t":"auth","key":"x"}"#),
            proto(Frame::Auth(v1::Auth { key: Some("x".into()), ticket: None })),
            About::Connection,
            "bad_parameter",
            "",
            None,
        ),
        (
            "two credentials",
            json(r#"{"t":"auth","key":"x","ticket":"y"}"#),
            proto(Frame::Auth(v1::Auth { key: Some("x".into()), ticket: Some("y".into()) })),
            About::Connection,
            "bad_parameter",
            "",
            None,
        ),
        ("a ping with a field", json(r#"{"t":"ping","colour":1}"#), raw(6, &v1::Ping {}, &[0x08, 1]), About::Connection, "unknown_field", "", None),
    ]
}

async fn play<D: Dialect>(frame: impl Fn(&Row) -> Message) {
    let broker = dev().await;
    assert_eq!(broker.post("/v1/streams", r#"{"name":"orders"}"#).await.status, 201);
    let mut peer = broker.ws_as("/v1/connect", Some(D::SUBPROTOCOL)).await.expect("the upgrade is accepted").greeted().await;
    let subscribe: Row = (
        "",
        r#"{"t":"subscribe","sub":1,"stream":"orders"}"#.to_owned(),
        proto(Frame::Subscribe(v1::Subscribe { sub: 1, ..subscribe("orders") })),
        About::Connection,
        "",
        "",
        None,
    );
    assert!(matches!(ask::<D>(&mut peer, frame(&subscribe)).await, Hear::Subscribed(1, _)));
    assert!(matches!(D::hear(&peer.message().await), Hear::Delivered(1, _)), "it is live");
    let mut complaints = Vec::new();
    for row in rows() {
        let (what, _, _, about, code, rule, field) = &row;
        let heard = ask::<D>(&mut peer, frame(&row)).await;
        let Hear::Refused(heard_about, why) = heard else { panic!("{what}: {heard:?}") };
        let heard_field = why.details.get("field").and_then(|f| f.as_str());
        if (heard_about, why.code.as_str(), why.rule.as_str(), why.applied.as_str()) != (*about, *code, *rule, "no")
            || field.is_some_and(|f| heard_field != Some(f))
        {
            complaints.push(format!("{what}: heard {heard_about:?} {why}, not {about:?} {code} {rule} {field:?}"));
        }
        let ping: Row = ("", r#"{"t":"ping"}"#.to_owned(), proto(Frame::Ping(v1::Ping {})), About::Connection, "", "", None);
        assert!(matches!(ask::<D>(&mut peer, frame(&ping)).await, Hear::Pong), "{what}: the connection stays");
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(broker.get("/v1/streams").await.metadata(), serde_json::json!(["/v1/streams/orders"]));
    assert_eq!(broker.get("/v1/streams/orders").await.metadata()["state"]["next_offset"], 0);
    assert_eq!(broker.get("/v1/streams/orders/subscriptions").await.metadata(), serde_json::json!([]));
}

async fn ask<D: Dialect>(peer: &mut Peer<tokio::net::TcpStream>, message: Message) -> Hear {
    use futures_util::SinkExt as _;
    peer.ws.send(message).await.expect("the socket takes it");
    D::hear(&peer.message().await)
}

#[tokio::test]
async fn bad_frames_in_json_are_refused_by_the_table() {
    play::<JsonText>(|row| Message::text(row.1.clone())).await;
}

#[tokio::test]
async fn bad_frames_in_protobuf_are_refused_by_the_same_table() {
    play::<Protobuf>(|row| Message::binary(row.2.clone())).await;
}
