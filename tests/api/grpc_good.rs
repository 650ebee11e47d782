//! gRPC in good times: calls, streams, deadlines, cancelling, flow control, health, reflection, gRPC-web.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use tidelog::server::Mode;
use tidelog::wire::proto::v1::{self, client_frame::Frame as Say, server_frame::Frame as Hear};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Request};

use crate::grpc_client::{Grpc, code, end, error, frame, next};
use crate::support::{Broker, PATIENCE, dev, serve, start};

const APPEND: &str = "/tidelog.v1.Broker/Append";

fn event(data: impl Into<Bytes>) -> v1::Event {
    v1::Event { data: data.into(), encoding: v1::Encoding::Utf8.into(), ..Default::default() }
}

fn append(stream: &str, events: Vec<v1::Event>) -> v1::Append {
    v1::Append { stream: stream.into(), events: Some(v1::Events { events }), ..Default::default() }
}

fn durable(stream: &str, subscription: &str) -> v1::Subscribe {
    v1::Subscribe { sub: 1, stream: stream.into(), subscription: Some(subscription.into()), create: true, ..Default::default() }
}

fn follow(stream: &str) -> v1::Subscribe {
    let from = v1::Start { start: Some(v1::start::Start::Place(v1::Place::Earliest.into())) };
    v1::Subscribe { sub: 1, stream: stream.into(), from: Some(from), ..Default::default() }
}

fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// Waits until a number of `/metrics` is this.
async fn until(broker: &Broker, name: &str, wanted: f64) {
    let seen = async {
        while metric(&String::from_utf8(broker.get("/metrics").await.body).expect("text"), name) != wanted {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{name} never was {wanted}"));
}

#[tokio::test]
async fn an_event_is_appended_followed_and_acknowledged_by_calls() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let stored: v1::Appended = grpc.unary(APPEND, &v1::Append { req: 9, ..append("orders", vec![event("a"), event("b")]) }).await.unwrap();
    assert_eq!((stored.req, stored.first_offset, stored.last_offset, stored.count), (9, Some(0), Some(1), 2));
    let mut reader = grpc.subscribe(&durable("orders", "billing")).await.unwrap();
    let Hear::Subscribed(at) = frame(&mut reader).await else { panic!("the first frame is subscribed") };
    assert_eq!((at.sub, at.next, at.epoch), (1, 0, Some(1)));
    let Hear::Events(delivered) = frame(&mut reader).await else { panic!("events come") };
    let batch = &delivered.batches[0];
    assert_eq!((batch.base_offset, batch.count, &batch.events[1].data[..]), (0, 2, &b"b"[..]));
    assert!(matches!(frame(&mut reader).await, Hear::Live(live) if live.next_offset == 2));
    let ack = v1::AckRequest { stream: "orders".into(), subscription: "billing".into(), epoch: at.epoch, offset: Some(0), ..Default::default() };
    let acked: v1::Acked = grpc.unary("/tidelog.v1.Broker/Ack", &ack).await.unwrap();
    assert_eq!((acked.offset, acked.next, acked.stale), (Some(0), 1, false));
    assert_eq!(broker.get("/v1/streams/orders/subscriptions/billing/cursor").await.metadata()["next"], 1);
}

#[tokio::test]
async fn a_connect_call_whose_client_closes_its_side_gets_its_answers_and_ends_well() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut call = grpc.connect().await.greeted().await;
    call.say(Say::Subscribe(follow("orders")));
    assert!(matches!(call.hear().await, Hear::Subscribed(_)));
    assert!(matches!(call.hear().await, Hear::Live(_)));
    for req in 1..=50 {
        call.say(Say::Append(v1::Append { req, ..append("other", vec![event("x")]) }));
    }
    call.close();
    let mut answered = Vec::new();
    while let Some(bytes) = next(&mut call.heard).await.expect("the end is a good one") {
        match v1::ServerFrame::decode(bytes).unwrap().frame {
            Some(Hear::Appended(a)) => answered.push(a.req),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, (1..=50).collect::<Vec<_>>(), "each has its answer");
    until(&broker, "tidelog_sessions", 0.0).await;
}

#[tokio::test]
async fn batches_are_read_as_they_are_stored_whatever_the_call() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for n in 0..3u8 {
        let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event(vec![b'0' + n; 5]), event(vec![b'a' + n; 7])])).await.unwrap();
    }
    let mut reader = grpc.subscribe(&follow("orders")).await.unwrap();
    frame(&mut reader).await;
    let delivered = next(&mut reader).await.unwrap().unwrap();
    let mut pages = grpc.read(&v1::ReadRequest { stream: "orders".into(), ..Default::default() }).await.unwrap();
    let page = next(&mut pages).await.unwrap().unwrap();
    assert_eq!(next(&mut pages).await.unwrap(), None, "a read without follow ends");
    // Both messages end in their batches; before them this page has two small numbers.
    assert_eq!(&page[..5], [0x10, 6, 0x18, 6, 0x7a]);
    assert!(delivered.ends_with(&page[4..]), "the same bytes");
    let page = v1::ReadResponse::decode(page).unwrap();
    assert_eq!((page.batches.len(), page.first_offset, page.next_offset, page.next), (3, 0, 6, 6));
}

#[tokio::test]
async fn a_read_begins_ends_and_goes_on_where_it_is_told() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let _: v1::Appended = grpc.unary(APPEND, &append("orders", (0..10).map(|n| event(n.to_string())).collect())).await.unwrap();
    let read = |position, limit| v1::ReadRequest { stream: "orders".into(), position: Some(position), limit, follow: false };
    use v1::read_request::Position::{After, From};
    let at = |offset| From(v1::Start { start: Some(v1::start::Start::Offset(offset)) });
    for (ask, offsets) in [(read(at(3), None), 3..10), (read(at(3), Some(4)), 3..7), (read(After(7), None), 8..10), (read(at(10), None), 10..10)] {
        let mut pages = grpc.read(&ask).await.unwrap();
        let mut seen = Vec::new();
        while let Some(bytes) = next(&mut pages).await.unwrap() {
            let page = v1::ReadResponse::decode(bytes).unwrap();
            seen.extend(page.batches.iter().flat_map(|b| b.base_offset..b.base_offset + u64::from(b.count)));
            assert_eq!(page.next, offsets.end);
        }
        assert_eq!(seen, offsets.collect::<Vec<_>>(), "{ask:?}");
    }
    assert_eq!(code(&grpc.read(&read(at(11), None)).await.unwrap_err()), "offset_beyond_end");
    assert_eq!(code(&grpc.read(&v1::ReadRequest { stream: "none".into(), ..Default::default() }).await.unwrap_err()), "not_found");
    // Following: what is appended later comes without another call.
    let latest = v1::Start { start: Some(v1::start::Start::Place(v1::Place::Latest.into())) };
    let mut tail = grpc.read(&v1::ReadRequest { stream: "orders".into(), position: Some(From(latest)), limit: Some(2), follow: true }).await.unwrap();
    let page = v1::ReadResponse::decode(next(&mut tail).await.unwrap().unwrap()).unwrap();
    assert_eq!((page.batches.len(), page.next), (0, 10), "at least it tells where the stream stands");
    for n in 10..12u64 {
        let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event("more")])).await.unwrap();
        let page = v1::ReadResponse::decode(next(&mut tail).await.unwrap().unwrap()).unwrap();
        assert_eq!((page.batches[0].base_offset, page.next), (n, n + 1));
    }
    assert_eq!(next(&mut tail).await.unwrap(), None, "its limit is reached");
}

#[tokio::test]
async fn many_events_are_read_in_messages_of_moderate_size_without_a_hole() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for _ in 0..24 {
        let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event(vec![b'x'; 300_000]), event(vec![b'y'; 300_000])])).await.unwrap();
    }
    let mut pages = grpc.read(&v1::ReadRequest { stream: "orders".into(), ..Default::default() }).await.unwrap();
    let mut expected = 0;
    while let Some(bytes) = next(&mut pages).await.unwrap() {
        assert!(bytes.len() < 2 << 20, "{} bytes in one message", bytes.len());
        for batch in v1::ReadResponse::decode(bytes).unwrap().batches {
            assert_eq!(batch.base_offset, expected);
            expected += u64::from(batch.count);
        }
    }
    assert_eq!(expected, 48);
}

#[tokio::test]
async fn a_pull_hands_out_events_and_a_token_that_acknowledges_them() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let _: v1::Appended = grpc.unary(APPEND, &append("orders", (0..5).map(|n| event(n.to_string())).collect())).await.unwrap();
    let ask = v1::CreateSubscriptionRequest { stream: "orders".into(), name: "billing".into(), ..Default::default() };
    let _: v1::Subscription = grpc.unary("/tidelog.v1.Admin/CreateSubscription", &ask).await.unwrap();
    let pull = v1::PullRequest { stream: "orders".into(), subscription: "billing".into(), max_events: 3, ..Default::default() };
    let first: v1::Pulled = grpc.unary("/tidelog.v1.Broker/Pull", &pull).await.unwrap();
    let offsets = |pulled: &v1::Pulled| pulled.batches.iter().flat_map(|b| b.base_offset..b.base_offset + u64::from(b.count)).collect::<Vec<_>>();
    assert_eq!((offsets(&first), first.next, first.epoch), (vec![0, 1, 2], 3, 1));
    assert_eq!(first.lag.map(|lag| lag.events), Some(2));
    let (stream, subscription) = ("orders".to_owned(), "billing".to_owned());
    let ack = v1::AckRequest { stream, subscription, ack_token: first.ack_token, ..Default::default() };
    let acked: v1::Acked = grpc.unary("/tidelog.v1.Broker/Ack", &ack).await.unwrap();
    assert_eq!(acked.next, 3);
    let second: v1::Pulled = grpc.unary("/tidelog.v1.Broker/Pull", &v1::PullRequest { epoch: Some(first.epoch), ..pull.clone() }).await.unwrap();
    assert_eq!((offsets(&second), second.epoch), (vec![3, 4], 1));
    let forged = v1::AckRequest { ack_token: Some("forged".into()), ..ack };
    assert_eq!(code(&grpc.unary::<v1::Acked>("/tidelog.v1.Broker/Ack", &forged).await.unwrap_err()), "bad_ack_token");
}

#[tokio::test]
async fn an_append_with_an_idempotency_key_is_stored_once() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let ask = |data: &'static str| {
        let mut request = Request::new(Bytes::from(append("orders", vec![event(data)]).encode_to_vec()));
        request.metadata_mut().insert("idempotency-key", "k-1".parse().unwrap());
        request
    };
    let first = v1::Appended::decode(grpc.ask(APPEND, ask("a")).await.unwrap().into_inner()).unwrap();
    let again = v1::Appended::decode(grpc.ask(APPEND, ask("a")).await.unwrap().into_inner()).unwrap();
    assert_eq!((first.first_offset, first.duplicate, again.first_offset, again.duplicate), (Some(0), false, Some(0), true));
    assert!(first.dedup_until_us.is_some_and(|until| until > tidelog::types::TimeUs::now().0) && first.dedup_until_us == again.dedup_until_us);
    assert_eq!(code(&grpc.ask(APPEND, ask("b")).await.unwrap_err()), "idempotency_key_reused");
    // Elsewhere it would be a promise that nobody keeps.
    let mut commit = Request::new(Bytes::new());
    commit.metadata_mut().insert("idempotency-key", "k-2".parse().unwrap());
    assert_eq!(code(&grpc.ask("/tidelog.v1.Broker/Commit", commit).await.unwrap_err()), "not_implemented");
}

#[tokio::test]
async fn producers_are_listed_looked_at_and_forgotten() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let open = |stream: Option<&str>| v1::OpenProducer { stream: stream.map(str::to_owned), producer: "p1".into(), ..Default::default() };
    let _: v1::ProducerOpened = grpc.unary("/tidelog.v1.Broker/OpenProducer", &open(Some("orders"))).await.unwrap();
    let _: v1::ProducerOpened = grpc.unary("/tidelog.v1.Broker/OpenProducer", &open(None)).await.unwrap();
    for stream in [Some("orders".to_owned()), None] {
        let ask = v1::ListProducersRequest { stream: stream.clone(), ..Default::default() };
        let page: v1::ListProducersResponse = grpc.unary("/tidelog.v1.Admin/ListProducers", &ask).await.unwrap();
        assert_eq!((page.producers.len(), page.producers[0].id.as_str(), &page.producers[0].stream, page.more), (1, "p1", &stream, false));
        let ask = v1::GetProducerRequest { stream: stream.clone(), id: "p1".into() };
        let one: v1::Producer = grpc.unary("/tidelog.v1.Admin/GetProducer", &ask).await.unwrap();
        assert_eq!((one.epoch, one.last_seq), (1, None));
        let forget = v1::DeleteProducerRequest { stream: stream.clone(), id: "p1".into() };
        let _: v1::DeleteProducerResponse = grpc.unary("/tidelog.v1.Admin/DeleteProducer", &forget).await.unwrap();
        assert_eq!(code(&grpc.unary::<v1::Producer>("/tidelog.v1.Admin/GetProducer", &ask).await.unwrap_err()), "not_found");
    }
}

#[tokio::test]
async fn lists_come_in_pages_by_name() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for name in ["c", "a", "b"] {
        let metadata = vec![v1::Label { name: "team".into(), value: "pay".into() }];
        let ask = v1::CreateStreamRequest { name: name.into(), description: "d".into(), metadata, ..Default::default() };
        let made: v1::Stream = grpc.unary("/tidelog.v1.Admin/CreateStream", &ask).await.unwrap();
        assert_eq!((made.name.as_str(), made.description.as_str(), made.metadata[0].value.as_str()), (name, "d", "pay"));
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let ask = v1::ListStreamsRequest { after: after.clone(), limit: 2, ..Default::default() };
        let page: v1::ListStreamsResponse = grpc.unary("/tidelog.v1.Admin/ListStreams", &ask).await.unwrap();
        seen.extend(page.streams.iter().map(|s| s.name.clone()));
        after = page.streams.last().unwrap().name.clone();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c"]);
    let ask = v1::ListStreamsRequest { limit: 1, filter: "name gt a and metadata.team eq pay".into(), ..Default::default() };
    let page: v1::ListStreamsResponse = grpc.unary("/tidelog.v1.Admin/ListStreams", &ask).await.unwrap();
    assert_eq!((page.streams[0].name.as_str(), page.streams.len(), page.more), ("b", 1, true));
    let ask = v1::ListStreamsRequest { filter: "team eq pay".into(), ..Default::default() };
    let refused = grpc.unary::<v1::ListStreamsResponse>("/tidelog.v1.Admin/ListStreams", &ask).await.unwrap_err();
    assert_eq!((refused.code(), error(&refused).code), (Code::InvalidArgument, "unknown_filter_field".to_owned()));
}

#[tokio::test]
async fn a_filtered_subscription_is_made_listed_and_followed() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event("a"), event("b"), event("a")])).await.unwrap();
    let ask = v1::CreateSubscriptionRequest { stream: "orders".into(), name: "x".into(), filter: Some("offset eq 1".into()), ..Default::default() };
    let made: v1::Subscription = grpc.unary("/tidelog.v1.Admin/CreateSubscription", &ask).await.unwrap();
    assert_eq!(made.filter.as_deref(), Some("offset eq 1"));
    let ask = v1::ListSubscriptionsRequest { stream: "orders".into(), filter: "lag lt 3".into(), ..Default::default() };
    let page: v1::ListSubscriptionsResponse = grpc.unary("/tidelog.v1.Admin/ListSubscriptions", &ask).await.unwrap();
    assert_eq!(page.subscriptions, [], "three events lie before it");
    let mut reader = grpc.subscribe(&durable("orders", "x")).await.unwrap();
    let mut heard = Vec::new();
    loop {
        match frame(&mut reader).await {
            Hear::Progress(progress) => heard.push(format!("passed to {}", progress.next)),
            Hear::Events(_) => heard.push("events".into()),
            Hear::Live(_) => break,
            _ => {}
        }
    }
    assert_eq!(heard, ["passed to 1", "events", "passed to 3"]);
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_a_stream() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event("a")])).await.unwrap();
    let mut request = Request::new(Bytes::from(follow("orders").encode_to_vec()));
    request.set_timeout(Duration::from_millis(300));
    let mut reader = grpc.streaming("/tidelog.v1.Broker/Subscribe", request).await.unwrap();
    assert!(matches!(frame(&mut reader).await, Hear::Subscribed(_)), "what comes before the deadline comes");
    assert_eq!(end(&mut reader).await.unwrap_err().code(), Code::DeadlineExceeded);
    until(&broker, "tidelog_sessions", 0.0).await;
    // A call that waits: nothing is there to pull.
    let ask = v1::CreateSubscriptionRequest {
        stream: "orders".into(),
        name: "b".into(),
        start: Some(v1::Start { start: Some(v1::start::Start::Offset(1)) }),
        ..Default::default()
    };
    let _: v1::Subscription = grpc.unary("/tidelog.v1.Admin/CreateSubscription", &ask).await.unwrap();
    let pull = v1::PullRequest { stream: "orders".into(), subscription: "b".into(), wait_s: 60, ..Default::default() };
    let mut request = Request::new(Bytes::from(pull.encode_to_vec()));
    request.set_timeout(Duration::from_millis(300));
    let late = grpc.ask("/tidelog.v1.Broker/Pull", request).await.unwrap_err();
    assert_eq!((late.code(), error(&late).applied()), (Code::DeadlineExceeded, v1::Applied::Unknown));
    // A conversation too.
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("grpc-timeout", "300m".parse().unwrap());
    let (_say, mut heard) = grpc.both("/tidelog.v1.Broker/Connect", metadata).await.unwrap();
    assert_eq!(end(&mut heard).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn dropping_a_call_detaches_its_reader_and_the_cursor_stays() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event("a")])).await.unwrap();
    let mut reader = grpc.subscribe(&durable("orders", "billing")).await.unwrap();
    frame(&mut reader).await;
    let call = {
        let mut call = grpc.connect().await.greeted().await;
        call.say(Say::Subscribe(durable("orders", "second")));
        assert!(matches!(call.hear().await, Hear::Subscribed(_)));
        call
    };
    until(&broker, "tidelog_grpc_streams", 2.0).await;
    drop((reader, call));
    until(&broker, "tidelog_sessions", 0.0).await;
    until(&broker, "tidelog_grpc_streams", 0.0).await;
    let cursor = broker.get("/v1/streams/orders/subscriptions/billing").await.metadata();
    assert_eq!((&cursor["next"], &cursor["epoch"], &cursor["status"]), (&json!(0), &json!(1), &json!("Stopped")));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_pauses_and_others_do_not_notice() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for _ in 0..32 {
        let _: v1::Appended = grpc.unary(APPEND, &append("orders", vec![event(vec![b'x'; 512 * 1024])])).await.unwrap();
    }
    let mut slow = Grpc::over(TcpStream::connect(broker.server.address()).await.unwrap(), 64 * 1024).await;
    let mut paused = slow.subscribe(&follow("orders")).await.unwrap();
    let mut reading = slow.read(&v1::ReadRequest { stream: "orders".into(), ..Default::default() }).await.unwrap();
    let mut quick = grpc.subscribe(&follow("orders")).await.unwrap();
    let count = async |stream: &mut tonic::Streaming<Bytes>| {
        let mut events = 0;
        while events < 32 {
            if let Hear::Events(delivered) = frame(stream).await {
                events += delivered.batches.iter().map(|b| b.count).sum::<u32>();
            }
        }
        events
    };
    assert_eq!(count(&mut quick).await, 32);
    assert_eq!(count(&mut paused).await, 32, "nothing was lost for the one that came late");
    let mut events = 0;
    while let Some(bytes) = next(&mut reading).await.unwrap() {
        events += v1::ReadResponse::decode(bytes).unwrap().batches.iter().map(|b| b.count).sum::<u32>();
    }
    assert_eq!(events, 32);
}

#[tokio::test]
async fn a_conversation_whose_client_takes_nothing_for_thirty_seconds_is_ended_and_the_cursor_stays() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for _ in 0..16 {
        let _: v1::Appended = grpc.unary(APPEND, &append("a", vec![event(vec![b'x'; 512 * 1024])])).await.unwrap();
    }
    let mut slow = Grpc::over(TcpStream::connect(broker.server.address()).await.unwrap(), 64 * 1024).await;
    let mut call = slow.connect().await;
    let credit = Some(v1::Credit { events: 1000, bytes: 1_000_000_000 });
    call.say(Say::Subscribe(v1::Subscribe { credit, ..durable("a", "s") }));
    // Nothing is read until the broker counts it.
    let slow = async {
        while metric(&String::from_utf8(broker.get("/metrics").await.body).unwrap(), "tidelog_slow_consumers_total") != 1.0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE * 2, slow).await.expect("it is found slow");
    let status = end(&mut call.heard).await.unwrap_err();
    assert_eq!((status.code(), code(&status).as_str()), (Code::ResourceExhausted, "slow_consumer"));
    let cursor = broker.get("/v1/streams/a/subscriptions/s/cursor").await.metadata();
    assert_eq!((&cursor["next"], &cursor["acked_offset"]), (&json!(0), &json!(null)));
}

#[tokio::test]
async fn a_call_has_an_id_of_the_clients_or_of_ours() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut request = Request::new(Bytes::from(append("orders", vec![event("a")]).encode_to_vec()));
    request.metadata_mut().insert("x-request-id", "mine-1".parse().unwrap());
    assert_eq!(grpc.ask(APPEND, request).await.unwrap().metadata().get("x-request-id").unwrap(), "mine-1");
    let mut request = Request::new(Bytes::from(v1::GetStreamRequest { name: "none".into() }.encode_to_vec()));
    request.metadata_mut().insert("x-request-id", "mine-2".parse().unwrap());
    let status = grpc.ask("/tidelog.v1.Admin/GetStream", request).await.unwrap_err();
    assert_eq!(error(&status).request_id, "mine-2");
    let plain = Request::new(Bytes::from(append("orders", vec![event("a")]).encode_to_vec()));
    assert_eq!(grpc.ask(APPEND, plain).await.unwrap().metadata().get("x-request-id").unwrap().len(), 32);
}

#[tokio::test]
async fn callers_without_a_credential_are_told_so_except_about_health_and_the_schema() {
    let broker = serve().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let refused = grpc.unary::<v1::Appended>(APPEND, &append("orders", vec![event("a")])).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unauthenticated, "unauthenticated"));
    assert_eq!(grpc.both("/tidelog.v1.Broker/Connect", Default::default()).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(grpc.subscribe(&follow("orders")).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(grpc.ask("/grpc.health.v1.Health/Check", Request::new(Bytes::new())).await.unwrap().into_inner(), &b"\x08\x01"[..]);
    let mut operator = Grpc::unix(broker.server.socket()).await;
    let ask = v1::CreateStreamRequest { name: "orders".into(), ..Default::default() };
    let _: v1::Stream = operator.unary("/tidelog.v1.Admin/CreateStream", &ask).await.unwrap();
    let _: v1::Appended = operator.unary(APPEND, &append("orders", vec![event("a")])).await.unwrap();
}

#[tokio::test]
async fn pages_of_other_origins_may_not_call() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut request = Request::new(Bytes::from(append("orders", vec![event("a")]).encode_to_vec()));
    request.metadata_mut().insert("origin", "http://evil.example".parse().unwrap());
    let refused = grpc.ask(APPEND, request).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::PermissionDenied, "access_denied"));
    assert_eq!(broker.get("/v1/streams").await.metadata(), json!([]));
}

fn health(service: &str) -> Request<Bytes> {
    Request::new(tonic_health::pb::HealthCheckRequest { service: service.into() }.encode_to_vec().into())
}

fn serving(bytes: Bytes) -> tonic_health::pb::health_check_response::ServingStatus {
    tonic_health::pb::HealthCheckResponse::decode(bytes).unwrap().status()
}

#[tokio::test]
async fn health_is_the_truth_of_readyz_and_a_watcher_hears_the_stop() {
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, ServiceUnknown, Serving};
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for service in ["", "tidelog.v1.Broker", "tidelog.v1.Admin", "tidelog.v1.Access"] {
        assert_eq!(serving(grpc.ask("/grpc.health.v1.Health/Check", health(service)).await.unwrap().into_inner()), Serving, "{service}");
    }
    assert_eq!(grpc.ask("/grpc.health.v1.Health/Check", health("other")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = grpc.streaming("/grpc.health.v1.Health/Watch", health("tidelog.v1.Broker")).await.unwrap();
    let mut unknown = grpc.streaming("/grpc.health.v1.Health/Watch", health("other")).await.unwrap();
    assert_eq!(serving(next(&mut watch).await.unwrap().unwrap()), Serving);
    assert_eq!(serving(next(&mut unknown).await.unwrap().unwrap()), ServiceUnknown);
    let (stopped, _) = tokio::join!(broker.server.stop(), async {
        assert_eq!(serving(next(&mut watch).await.unwrap().unwrap()), NotServing);
        assert_eq!(next(&mut watch).await.unwrap(), None);
        assert_eq!(next(&mut unknown).await.unwrap(), None);
    });
    stopped.expect("a clean stop");
}

#[tokio::test]
async fn reflection_tells_our_services_in_both_versions_and_nothing_of_the_store() {
    let broker = dev().await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    for path in ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"] {
        let (say, mut heard) = grpc.both(path, Default::default()).await.unwrap();
        say.send(Bytes::from_static(b"\x3a\x00")).unwrap(); // list_services
        let listed = next(&mut heard).await.unwrap().unwrap();
        let holds = |bytes: &Bytes, text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        for service in ["tidelog.v1.Broker", "tidelog.v1.Admin", "tidelog.v1.Access", "grpc.health.v1.Health"] {
            assert!(holds(&listed, service), "{service} in {listed:?}");
        }
        say.send(Bytes::from_static(b"\x22\x11tidelog.v1.Broker")).unwrap(); // file_containing_symbol
        assert!(holds(&next(&mut heard).await.unwrap().unwrap(), "tidelog/v1/broker.proto"));
        say.send(Bytes::from_static(b"\x22\x17tidelog.store.v1.Stream")).unwrap();
        assert!(next(&mut heard).await.is_err(), "how rows are stored is not told");
    }
}

/// Parts of a gRPC-web body: flag and content.
fn web_parts(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut parts = Vec::new();
    while body.len() >= 5 {
        let len = u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize;
        parts.push((body[0], body[5..5 + len].to_vec()));
        body = &body[5 + len..];
    }
    parts
}

/// A body in HTTP's chunks, put together.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        all.extend_from_slice(&body[end + 2..end + 2 + len]);
        body = &body[(end + 4 + len).min(body.len())..];
    }
    all
}

fn prefixed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

#[tokio::test]
async fn a_browser_calls_and_reads_over_grpc_web_and_http_1() {
    let broker = dev().await;
    let headers = [("Content-Type", "application/grpc-web+proto"), ("X-Grpc-Web", "1")];
    let answer = broker.ask("POST", APPEND, &headers, &prefixed(&append("orders", vec![event("a")]))).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc-web+proto")));
    let parts = web_parts(&unchunked(&answer.body));
    assert_eq!(v1::Appended::decode(&parts[0].1[..]).unwrap().first_offset, Some(0));
    assert!(parts[1].0 == 0x80 && String::from_utf8_lossy(&parts[1].1).contains("grpc-status:0"), "{parts:?}");
    let answer = broker.ask("POST", "/tidelog.v1.Broker/Read", &headers, &prefixed(&v1::ReadRequest { stream: "orders".into(), ..Default::default() })).await;
    let parts = web_parts(&unchunked(&answer.body));
    assert_eq!(v1::ReadResponse::decode(&parts[0].1[..]).unwrap().next, 1);
    let answer = broker.ask("POST", "/tidelog.v1.Admin/GetStream", &headers, &prefixed(&v1::GetStreamRequest { name: "none".into() })).await;
    assert_eq!(answer.header("grpc-status"), Some("5"), "{answer:?}");
    assert!(answer.header("grpc-status-details-bin").is_some());
}

#[tokio::test]
async fn a_stop_ends_every_stream_with_a_hint_and_loses_no_answer() {
    let broker = start(Mode::Dev, |_| {}).await;
    let mut grpc = Grpc::tcp(broker.server.address()).await;
    let mut call = grpc.connect().await.greeted().await;
    for req in 1..=20 {
        call.say(Say::Append(v1::Append { req, ..append("orders", vec![event("x")]) }));
    }
    let mut answered = 0;
    while answered < 20 {
        answered += u64::from(matches!(call.hear().await, Hear::Appended(_)));
    }
    let mut reader = grpc.subscribe(&durable("orders", "billing")).await.unwrap();
    let mut tail = grpc.read(&v1::ReadRequest { stream: "orders".into(), follow: true, ..Default::default() }).await.unwrap();
    frame(&mut reader).await;
    next(&mut tail).await.unwrap();
    let began = std::time::Instant::now();
    let (stopped, ()) = tokio::join!(broker.server.stop(), async {
        for stream in [&mut call.heard, &mut reader, &mut tail] {
            let status = end(stream).await.unwrap_err();
            let why = error(&status);
            assert_eq!((status.code(), why.code.as_str(), why.retry.as_str()), (Code::Unavailable, "unavailable", "backoff"));
        }
    });
    stopped.expect("a clean stop");
    assert!(began.elapsed() < Duration::from_secs(9), "it did not wait for its bound");
}
