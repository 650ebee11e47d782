//! Server-Sent Events with the acks and the appends of a page: both go over REST. Neither credit nor a window of one's own can be asked
//! for; what may be on its way is the subscription's affair.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidelog::types::TimeUs;

use super::carrier::{Answer, Carrier, ReaderNumber};
use super::rest::Rest;
use super::values::{Acked, Append, Commit, Committed, Delivery, Event, From, Opened, Stored, StreamSeen, Subscribe, Subscribed, SubscriptionSeen};
use super::ws_json::{event_of, refusal_of};
use crate::event_source::{EventSource, ask, http1, http2};

/// See the module.
pub struct Sse {
    rest: Rest,
    http: reqwest::Client,
    base: String,
    readers: BTreeMap<ReaderNumber, Reader>,
    number: ReaderNumber,
}

struct Reader {
    source: EventSource,
    subscribe: Subscribe,
    epoch: Option<u64>,
}

impl Sse {
    pub fn http1(at: SocketAddr) -> Self {
        Self { rest: Rest::http1(at), http: http1(), base: format!("http://{at}/v1"), readers: BTreeMap::new(), number: 0 }
    }

    pub fn http2(at: SocketAddr) -> Self {
        Self { rest: Rest::http2(at), http: http2(), ..Self::http1(at) }
    }

    fn url(&self, ask: &Subscribe) -> String {
        let mut query = Vec::new();
        match ask.from {
            None => {}
            Some(From::Offset(offset)) => query.push(format!("from={offset}")),
            Some(From::Earliest) => query.push("from=earliest".to_owned()),
            Some(From::Latest) => query.push("from=latest".to_owned()),
            Some(From::Time(us)) => query.push(format!("from={}", TimeUs(us))),
        }
        if ask.rewind {
            query.push("rewind=true".to_owned());
        }
        if ask.reject {
            query.push("takeover=reject".to_owned());
        }
        if let Some(word) = ask.on_gap {
            query.push(format!("on_gap={word}"));
        }
        for (name, number) in [("log_epoch", ask.log_epoch), ("stream_id", ask.stream_id)] {
            query.extend(number.map(|n| format!("{name}={n}")));
        }
        let place = match &ask.subscription {
            None => "events".to_owned(),
            Some(name) => format!("subscriptions/{name}/events"),
        };
        format!("{}/streams/{}/{place}?{}", self.base, ask.stream, query.join("&"))
    }

    /// Opens a stream of events; what is said instead is a refusal.
    async fn open(&self, subscribe: &Subscribe) -> Answer<EventSource> {
        let response = ask(&self.http, &self.url(subscribe), None).await;
        if response.status() == 200 {
            return Ok(EventSource::of(response));
        }
        let body: Value = response.json().await.expect("JSON");
        Err(refusal_of(&body["metadata"], body["error"].as_str().expect("a sentence")))
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

async fn heard(source: &mut EventSource) -> Delivery {
    let heard = source.next().await;
    match heard.kind.as_str() {
        "message" => {
            assert_eq!(heard.id, heard.offset().to_string());
            Delivery::Event(event_of(&heard.data))
        }
        "live" => Delivery::Live { next_offset: number(&heard.json(), "next_offset") },
        "gap" => {
            let gap = heard.json();
            assert_eq!(heard.id, number(&gap, "to").to_string(), "the id is the last lost offset");
            Delivery::Gap { from: number(&gap, "from"), to: number(&gap, "to"), reason: gap["reason"].as_str().expect("a word").to_owned() }
        }
        "end" => {
            let end = heard.json();
            assert_eq!(source.next_or_end().await, None, "nothing comes after the end");
            Delivery::End(refusal_of(&end, end["message"].as_str().expect("a sentence")))
        }
        other => panic!("{other} is not known"),
    }
}

#[async_trait]
impl Carrier for Sse {
    async fn append(&mut self, append: &Append) -> Answer<Stored> {
        self.rest.append(append).await
    }

    async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Answer<Vec<Event>> {
        let ask = Subscribe { stream: stream.to_owned(), from: Some(From::Offset(from)), on_gap: Some("fail"), ..Subscribe::default() };
        let mut source = self.open(&ask).await?;
        let mut events = Vec::new();
        while (events.len() as u64) < limit {
            match heard(&mut source).await {
                Delivery::Event(event) => events.push(event),
                Delivery::Live { .. } => break,
                other => panic!("{other} where none was expected"),
            }
        }
        Ok(events)
    }

    async fn open_producer(&mut self, stream: Option<&str>, id: &str, expect: &str) -> Answer<Opened> {
        self.rest.open_producer(stream, id, expect).await
    }

    async fn subscribe(&mut self, ask: &Subscribe) -> Answer<(ReaderNumber, Subscribed)> {
        if let (true, Some(name)) = (ask.create, &ask.subscription) {
            let window = ask.credit.map_or_else(|| json!({}), |(events, _)| json!({"max_in_flight": events}));
            match self.rest.create_subscription(&ask.stream, name, window).await {
                Ok(_) => {}
                Err(why) if why.code == "name_taken" => {}
                Err(why) => return Err(why),
            }
        }
        let mut source = self.open(ask).await?;
        let subscribed = if ask.subscription.is_some() {
            let open = source.named("subscribed").await;
            Subscribed {
                stream: open["stream"].as_str().expect("a name").to_owned(),
                stream_id: number(&open, "stream_id"),
                epoch: open["epoch"].as_u64(),
                next: number(&open, "next"),
                first_offset: number(&open, "first_offset"),
                next_offset: number(&open, "next_offset"),
                log_epoch: number(&open, "log_epoch"),
            }
        } else {
            // An ephemeral reader is told where it begins by an id; the rest a page asks for when it wants to know.
            while source.parser.last_id.is_empty() {
                source.more().await.expect("a beginning");
            }
            let stream = self.rest.describe(&ask.stream).await?;
            Subscribed {
                stream: ask.stream.clone(),
                stream_id: stream.id,
                epoch: None,
                next: source.parser.last_id.parse::<i64>().expect("an offset").checked_add(1).and_then(|n| n.try_into().ok()).expect("an offset"),
                first_offset: stream.first_offset,
                next_offset: stream.next_offset,
                log_epoch: 1,
            }
        };
        self.number += 1;
        self.readers.insert(self.number, Reader { source, subscribe: ask.clone(), epoch: subscribed.epoch });
        Ok((self.number, subscribed))
    }

    async fn next(&mut self, reader: ReaderNumber) -> Delivery {
        heard(&mut self.readers.get_mut(&reader).expect("a reader").source).await
    }

    async fn ack(&mut self, reader: ReaderNumber, offset: u64) -> Answer<Acked> {
        let Reader { subscribe, epoch, .. } = &self.readers[&reader];
        let name = subscribe.subscription.as_deref().expect("ephemeral readers have nothing to acknowledge");
        let level = if subscribe.received { "received" } else { "durable" };
        self.rest.acknowledge(&format!("/streams/{}/subscriptions/{name}", subscribe.stream), json!({"epoch": epoch, "offset": offset, "level": level})).await
    }

    async fn unsubscribe(&mut self, reader: ReaderNumber) -> Answer<()> {
        // The broker hears of it when it writes, or when the connection is closed: a page's way of leaving.
        self.readers.remove(&reader);
        Ok(())
    }

    async fn commit(&mut self, commit: &Commit) -> Answer<Committed> {
        self.rest.commit(commit).await
    }

    async fn read_one(&mut self, stream: &str, which: &str) -> Answer<Event> {
        self.rest.read_one(stream, which).await
    }

    async fn create_stream(&mut self, name: &str, fields: Value) -> Answer<StreamSeen> {
        self.rest.create_stream(name, fields).await
    }

    async fn describe(&mut self, stream: &str) -> Answer<StreamSeen> {
        self.rest.describe(stream).await
    }

    async fn trim(&mut self, stream: &str, before: u64) -> Answer<StreamSeen> {
        self.rest.trim(stream, before).await
    }

    async fn close_stream(&mut self, stream: &str) -> Answer<StreamSeen> {
        self.rest.close_stream(stream).await
    }

    async fn delete_stream(&mut self, stream: &str) -> Answer<String> {
        self.rest.delete_stream(stream).await
    }

    async fn create_subscription(&mut self, stream: &str, name: &str, fields: Value) -> Answer<SubscriptionSeen> {
        self.rest.create_subscription(stream, name, fields).await
    }

    async fn describe_subscription(&mut self, stream: &str, name: &str) -> Answer<SubscriptionSeen> {
        self.rest.describe_subscription(stream, name).await
    }

    async fn delete_subscription(&mut self, stream: &str, name: &str) -> Answer<()> {
        self.rest.delete_subscription(stream, name).await
    }

    async fn seek(&mut self, stream: &str, name: &str, to: Value) -> Answer<SubscriptionSeen> {
        self.rest.seek(stream, name, to).await
    }
}
