//! The Rust client as programs use it. It hides epochs, stamps, credit and reconnecting, and says so in its list.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidelog::client::{self, Client, Consumer, Endpoint, NewEvent, Producer, Protocol};
use tidelog::types::request::{self, AckLevel, CommitRequest, Expect, OnGap, ProducerStamp, Start, Takeover};
use tidelog::types::{ProducerId, StreamId, StreamName, SubscriptionName, TimeUs};
use tokio::time::timeout;

use super::carrier::{Answer, Carrier, ReaderNumber};
use super::values::{
    Acked, Append, Commit, Committed, Delivery, Encoding, Event, From, New, Opened, Refusal, Stamp, Stored, StreamSeen, Subscribe, Subscribed, SubscriptionSeen,
};
use crate::support::PATIENCE;

/// See the module.
pub struct RustClient {
    client: Client,
    producers: BTreeMap<(String, String), Producer>,
    readers: BTreeMap<ReaderNumber, Consumer>,
    number: ReaderNumber,
}

impl RustClient {
    fn new(endpoint: Endpoint, protocol: Protocol) -> Self {
        let client = Client::new(endpoint, protocol, None).expect("a client");
        Self { client, producers: BTreeMap::new(), readers: BTreeMap::new(), number: 0 }
    }

    pub fn binary(at: SocketAddr) -> Self {
        Self::new(Endpoint::parse(&format!("http://{at}")).expect("an address"), Protocol::Binary)
    }

    pub fn json_over_unix(path: &Path) -> Self {
        Self::new(Endpoint::Unix(path.to_owned()), Protocol::Json)
    }
}

fn refusal(error: client::Error) -> Refusal {
    let client::Error::Server { error, .. } = error else { panic!("no refusal: {error:?}") };
    Refusal::new(error.code.as_str(), error.rule.as_deref().unwrap_or_default(), error.applied.as_str(), error.retry.as_str(), &error.message, error.details.clone())
}

/// An answer in time.
async fn answer<T>(what: impl Future<Output = client::Result<T>>) -> Answer<T> {
    timeout(PATIENCE, what).await.expect("an answer in time").map_err(refusal)
}

fn new_event(new: &New) -> NewEvent {
    let encoding = match new.encoding {
        Encoding::Json => tidelog::types::Encoding::Json,
        Encoding::Utf8 => tidelog::types::Encoding::Utf8,
        Encoding::Binary => tidelog::types::Encoding::Binary,
    };
    NewEvent { data: new.data.clone().into(), encoding, kind: new.kind.clone(), key: new.key.clone(), headers: new.headers.clone() }
}

fn new_events(append: &Append) -> Vec<NewEvent> {
    append.events.iter().map(new_event).collect()
}

fn stored(appended: tidelog::types::reply::Appended) -> Stored {
    Stored { first: appended.first_offset, last: appended.last_offset, count: appended.count.into(), duplicate: appended.duplicate }
}

fn event(event: client::Event) -> Event {
    let head = &event.batch().head;
    let author = (head.author_user, head.author_source);
    let encoding = match event.encoding {
        tidelog::types::Encoding::Json => Encoding::Json,
        tidelog::types::Encoding::Utf8 => Encoding::Utf8,
        tidelog::types::Encoding::Binary => Encoding::Binary,
    };
    Event {
        offset: event.offset,
        time: event.time.0,
        log_epoch: event.log_epoch,
        kind: event.kind,
        key: event.key,
        headers: event.headers,
        data: event.data.to_vec(),
        encoding,
        author,
    }
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).expect("a name")
}

fn commit_request(commit: &Commit) -> CommitRequest {
    let events = |append: &Append| client::IntoEvents::into_events(new_events(append)).expect("good events");
    CommitRequest {
        producer: commit.producer.as_ref().map(|Stamp { id, epoch, seq }| ProducerStamp { id: ProducerId::parse(id).expect("an id"), epoch: *epoch, seq: *seq }),
        acks: commit
            .acks
            .iter()
            .map(|a| request::CommitAck {
                stream: name(&a.stream),
                subscription: SubscriptionName::parse(&a.subscription).expect("a name"),
                epoch: a.epoch,
                offset: a.offset,
            })
            .collect(),
        appends: commit
            .appends
            .iter()
            .map(|a| request::CommitAppend { stream: name(&a.stream), stream_id: a.stream_id.map(StreamId), events: events(a), expected_next_offset: a.expected })
            .collect(),
        checks: commit.checks.iter().map(|(stream, at)| request::CommitCheck { stream: name(stream), expected_next_offset: *at }).collect(),
    }
}

fn fields(value: Value) -> serde_json::Map<String, Value> {
    let Value::Object(fields) = value else { panic!("not fields: {value}") };
    fields
}

fn seen<T: serde::Serialize>(object: T) -> Value {
    serde_json::to_value(object).expect("JSON")
}

#[async_trait]
impl Carrier for RustClient {
    async fn append(&mut self, append: &Append) -> Answer<Stored> {
        let events = new_events(append);
        match append.expected {
            None => answer(self.client.append(&append.stream, events)).await,
            Some(next_offset) => answer(self.client.append_if(&append.stream, events, next_offset)).await,
        }
        .map(stored)
    }

    async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Answer<Vec<Event>> {
        let mut consumer = answer(self.client.consumer(stream).from(Start::Offset(from)).on_gap(OnGap::Fail).credit(limit, 1 << 30).open()).await?;
        let mut events = Vec::new();
        while (events.len() as u64) < limit {
            match timeout(PATIENCE, consumer.next()).await.expect("an event in time").expect("more").map_err(refusal)? {
                client::Delivery::Event(one) => events.push(event(one)),
                client::Delivery::Live { .. } => break,
                gap @ client::Delivery::Gap { .. } => panic!("{gap:?} where none was allowed"),
            }
        }
        consumer.close().await;
        Ok(events)
    }

    async fn open_producer(&mut self, stream: Option<&str>, id: &str, expect: &str) -> Answer<Opened> {
        let stream = stream.expect("producers of commits are not asked for here");
        let expect = Expect::parse(expect).expect("a word");
        let producer = answer(self.client.producer(stream, id).expect(expect).give_up_after(Duration::from_secs(1)).open()).await?;
        let opened = producer.opened().clone();
        self.producers.insert((stream.to_owned(), id.to_owned()), producer);
        Ok(Opened {
            producer: opened.producer.to_string(),
            epoch: opened.epoch,
            last_seq: opened.last_seq,
            next_offset: opened.next_offset,
            stream_id: opened.stream_id.map(|id| id.0),
            log_epoch: opened.log_epoch,
            origin: opened.origin.as_str().to_owned(),
        })
    }

    async fn send(&mut self, append: &Append) -> Answer<Stored> {
        let stamp = append.stamp.as_ref().expect("the table numbers for those who do not");
        let producer = &self.producers[&(append.stream.clone(), stamp.id.clone())];
        assert_eq!(producer.next_seq(), stamp.seq, "the client numbers as everybody does");
        let receipt = answer(producer.send(new_events(append))).await?;
        answer(receipt).await.map(stored)
    }

    async fn subscribe(&mut self, ask: &Subscribe) -> Answer<(ReaderNumber, Subscribed)> {
        let mut builder = self.client.consumer(&ask.stream).give_up_after(Duration::from_secs(1));
        if let Some(name) = &ask.subscription {
            builder = builder.subscription(name);
        }
        if ask.create {
            builder = builder.create();
        }
        if ask.rewind {
            builder = builder.rewind();
        }
        match (ask.from, ask.log_epoch) {
            (Some(From::Offset(next)), Some(log_epoch)) => builder = builder.start_at(next, log_epoch),
            (None, None) => {}
            (Some(from), None) => {
                builder = builder.from(match from {
                    From::Offset(offset) => Start::Offset(offset),
                    From::Earliest => Start::Earliest,
                    From::Latest => Start::Latest,
                    From::Time(us) => Start::Time(TimeUs(us)),
                });
            }
            other => panic!("the client has no words for {other:?}"),
        }
        if let Some(id) = ask.stream_id {
            builder = builder.stream_id(StreamId(id));
        }
        if ask.reject {
            builder = builder.takeover(Takeover::Reject);
        }
        if let Some(word) = ask.on_gap {
            builder = builder.on_gap(OnGap::parse(word).expect("a word"));
        }
        if let Some((events, bytes)) = ask.credit {
            builder = builder.credit(events, bytes);
        }
        if ask.received {
            builder = builder.ack_level(AckLevel::Received);
        }
        let consumer = answer(builder.open()).await?;
        let at = consumer.subscribed();
        let subscribed = Subscribed {
            stream: at.stream.to_string(),
            stream_id: at.stream_id.0,
            epoch: at.epoch,
            next: at.next,
            first_offset: at.first_offset,
            next_offset: at.next_offset,
            log_epoch: at.log_epoch,
        };
        assert_eq!(consumer.epoch(), subscribed.epoch);
        self.number += 1;
        self.readers.insert(self.number, consumer);
        Ok((self.number, subscribed))
    }

    async fn next(&mut self, reader: ReaderNumber) -> Delivery {
        let consumer = self.readers.get_mut(&reader).expect("a reader");
        match timeout(PATIENCE, consumer.next()).await.expect("a delivery in time").expect("the end is told once") {
            Ok(client::Delivery::Event(one)) => Delivery::Event(event(one)),
            Ok(client::Delivery::Gap { from, to, reason }) => Delivery::Gap { from, to, reason: reason.as_str().to_owned() },
            Ok(client::Delivery::Live { next_offset }) => Delivery::Live { next_offset },
            Err(error) => Delivery::End(refusal(error)),
        }
    }

    async fn ack(&mut self, reader: ReaderNumber, offset: u64) -> Answer<Acked> {
        let next = answer(self.readers[&reader].ack(offset).confirmed()).await?;
        Ok(Acked { next, stale: false })
    }

    async fn unsubscribe(&mut self, reader: ReaderNumber) -> Answer<()> {
        let consumer = self.readers.remove(&reader).expect("a reader");
        timeout(PATIENCE, consumer.close()).await.expect("it leaves in time");
        Ok(())
    }

    async fn commit(&mut self, commit: &Commit) -> Answer<Committed> {
        let committed = answer(self.client.commit(commit_request(commit))).await?;
        Ok(Committed {
            acks: committed.acks.into_iter().map(|a| (a.stream.to_string(), a.subscription.to_string(), a.offset, a.next)).collect(),
            appends: committed.appends.into_iter().map(|a| (a.stream.to_string(), a.first_offset, a.last_offset, a.count.into())).collect(),
            duplicate: committed.duplicate,
        })
    }

    async fn create_stream(&mut self, name: &str, with: Value) -> Answer<StreamSeen> {
        answer(self.client.admin().create_stream(name, fields(with))).await.map(|s| StreamSeen::of(&seen(s)))
    }

    async fn describe(&mut self, stream: &str) -> Answer<StreamSeen> {
        answer(self.client.admin().stream(stream)).await.map(|s| StreamSeen::of(&seen(s)))
    }

    async fn trim(&mut self, stream: &str, before: u64) -> Answer<StreamSeen> {
        answer(self.client.admin().trim_stream(stream, serde_json::json!({"before_offset": before}))).await.map(|s| StreamSeen::of(&s))
    }

    async fn close_stream(&mut self, stream: &str) -> Answer<StreamSeen> {
        answer(self.client.admin().close_stream(stream)).await.map(|s| StreamSeen::of(&s))
    }

    async fn delete_stream(&mut self, stream: &str) -> Answer<String> {
        let admin = self.client.admin();
        let operation = answer(admin.delete_stream(stream)).await?;
        answer(admin.wait_operation(&operation.id, PATIENCE)).await.map(|o| o.status)
    }

    async fn create_subscription(&mut self, stream: &str, name: &str, with: Value) -> Answer<SubscriptionSeen> {
        answer(self.client.admin().create_subscription(stream, name, fields(with))).await.map(|s| SubscriptionSeen::of(&seen(s)))
    }

    async fn describe_subscription(&mut self, stream: &str, name: &str) -> Answer<SubscriptionSeen> {
        answer(self.client.admin().subscription(stream, name)).await.map(|s| SubscriptionSeen::of(&seen(s)))
    }

    async fn delete_subscription(&mut self, stream: &str, name: &str) -> Answer<()> {
        answer(self.client.admin().delete_subscription(stream, name)).await
    }

    async fn seek(&mut self, stream: &str, name: &str, to: Value) -> Answer<SubscriptionSeen> {
        answer(self.client.admin().seek(stream, name, to)).await.map(|s| SubscriptionSeen::of(&s))
    }
}
