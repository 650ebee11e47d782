//! REST, with bodies written by hand: what any HTTP library does. Also the door of the control plane for carriers without one.

use std::net::SocketAddr;
use std::path::Path;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::carrier::{Answer, Carrier, ReaderNumber};
use super::pulls::{Pulled, Puller};
use super::values::{Acked, Append, Commit, Committed, Delivery, Event, Opened, Stored, StreamSeen, Subscribe, Subscribed, SubscriptionSeen};
use super::ws_json::{append_members, commit_members, committed_of, event_of, events_of, opened_of, refusal_of};
use crate::support::PATIENCE;

/// See the module.
pub struct Rest {
    http: reqwest::Client,
    base: String,
    version: http::Version,
    readers: Vec<Puller>,
}

/// A success, as text.
struct Success {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Success {
    fn metadata(&self) -> Value {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["metadata"].clone()
    }
}

impl Rest {
    fn new(builder: reqwest::ClientBuilder, authority: &str, version: http::Version) -> Self {
        let http = builder.no_proxy().timeout(PATIENCE).build().expect("an HTTP client");
        Self { http, base: format!("http://{authority}/v1"), version, readers: Vec::new() }
    }

    pub fn http1(at: SocketAddr) -> Self {
        Self::new(tidelog::client::http_builder().http1_only(), &at.to_string(), http::Version::HTTP_11)
    }

    pub fn http2(at: SocketAddr) -> Self {
        Self::new(tidelog::client::http_builder().http2_prior_knowledge(), &at.to_string(), http::Version::HTTP_2)
    }

    pub fn unix(path: &Path) -> Self {
        Self::new(tidelog::client::http_builder().unix_socket(path.to_owned()), "localhost", http::Version::HTTP_11)
    }

    async fn call(&self, method: http::Method, path: &str, body: Option<String>) -> Answer<Success> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        assert_eq!(response.version(), self.version);
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().expect("ASCII").to_owned());
        let (status, location, id) = (response.status().as_u16(), header("location"), header("x-request-id"));
        let body = response.text().await.expect("a body");
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e} in {body}"));
        if status < 300 {
            let (kind, word, number) = if status == 202 { ("async", "Operation created", 100) } else { ("sync", "Success", 200) };
            assert_eq!((&value["type"], &value["status"], &value["status_code"]), (&json!(kind), &json!(word), &json!(number)), "{body}");
            return Ok(Success { status, location, body });
        }
        // What HTTP has a status for and the closed list has not is folded (`surfaces.md`, introduction).
        let folded = match status {
            405 => 404,
            413 | 415 => 400,
            429 => 403,
            503 => 500,
            other => other,
        };
        assert_eq!((&value["type"], &value["error_code"]), (&json!("error"), &json!(folded)), "{status} {body}");
        assert_eq!(value["metadata"]["request_id"].as_str(), id.as_deref(), "{body}");
        Err(refusal_of(&value["metadata"], value["error"].as_str().expect("a sentence")))
    }

    async fn get(&self, path: &str) -> Answer<Success> {
        self.call(http::Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer<Success> {
        self.call(http::Method::POST, path, Some(body.to_string())).await
    }

    /// An ack at the address of a subscription.
    pub async fn acknowledge(&self, at: &str, body: Value) -> Answer<Acked> {
        let success = self.post(&format!("{at}/ack"), body).await?;
        let metadata = success.metadata();
        let acked = Acked { next: metadata["next"].as_u64().expect("a position"), stale: metadata["stale"].as_bool().expect("a flag") };
        assert_eq!((success.status, metadata["acked_offset"].as_u64()), (200, acked.next.checked_sub(1)), "{metadata}");
        Ok(acked)
    }

    async fn pull(&self, at: &str, body: Value) -> Answer<Pulled> {
        let success = self.post(&format!("{at}/pull"), body).await?;
        assert_eq!(success.status, 200);
        Ok(Pulled::of(&success.body))
    }
}

#[async_trait]
impl Carrier for Rest {
    async fn append(&mut self, append: &Append) -> Answer<Stored> {
        let path = format!("/streams/{}/events", append.stream);
        let success = self.call(http::Method::POST, &path, Some(format!("{{{}}}", append_members(append)))).await?;
        let metadata = success.metadata();
        assert_eq!(metadata["durability"], "fsync");
        let stored = Stored {
            first: metadata["first_offset"].as_u64(),
            last: metadata["last_offset"].as_u64(),
            count: metadata["count"].as_u64().expect("a count"),
            duplicate: metadata["duplicate"].as_bool().expect("a flag"),
        };
        assert_eq!(success.status, if stored.duplicate { 200 } else { 201 }, "{metadata}");
        let location = (!stored.duplicate).then(|| format!("/v1{path}/{}", stored.first.expect("a first offset")));
        assert_eq!(success.location, location);
        Ok(stored)
    }

    async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Answer<Vec<Event>> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            metadata: Page<'a>,
        }
        #[derive(Deserialize)]
        struct Page<'a> {
            stream: String,
            #[serde(borrow)]
            events: &'a RawValue,
            first_offset: u64,
            next_offset: u64,
            after: Option<u64>,
            more: bool,
        }
        let success = self.get(&format!("/streams/{stream}/events?from={from}&limit={limit}")).await?;
        let Envelope { metadata: page } = serde_json::from_str(&success.body).expect("a page");
        let events = events_of(page.events);
        let next = events.last().map_or(from, |e| e.offset + 1);
        assert_eq!((page.stream.as_str(), page.after, page.more), (stream, next.checked_sub(1), next < page.next_offset));
        assert!(page.first_offset <= from);
        Ok(events)
    }

    async fn read_one(&mut self, stream: &str, which: &str) -> Answer<Event> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            metadata: &'a RawValue,
        }
        let success = self.get(&format!("/streams/{stream}/events/{which}")).await?;
        let Envelope { metadata } = serde_json::from_str(&success.body).expect("an envelope");
        Ok(event_of(metadata.get()))
    }

    async fn open_producer(&mut self, stream: Option<&str>, id: &str, expect: &str) -> Answer<Opened> {
        let path = stream.map_or_else(|| "/producers".to_owned(), |stream| format!("/streams/{stream}/producers"));
        let success = self.post(&path, json!({"producer": id, "expect": expect})).await?;
        let opened = opened_of(&success.metadata());
        let created = opened.origin == "created";
        assert_eq!((success.status, success.location), if created { (201, Some(format!("/v1{path}/{id}"))) } else { (200, None) });
        Ok(opened)
    }

    /// A pull opens the session. Where it begins and what the stream holds stand in two other answers: nobody writes meanwhile.
    async fn subscribe(&mut self, ask: &Subscribe) -> Answer<(ReaderNumber, Subscribed)> {
        let mut reader = Puller::new(ask);
        let mut pulled = self.pull(&reader.at, reader.opening()).await;
        if ask.create && pulled.as_ref().is_err_and(|why| why.code == "not_found") {
            self.post(&format!("/streams/{}/subscriptions", ask.stream), reader.creation()).await?;
            pulled = self.pull(&reader.at, reader.opening()).await;
        }
        let pulled = pulled?;
        let stream = self.describe(&ask.stream).await?;
        let subscription = self.get(&reader.at).await?.metadata();
        let subscribed = Subscribed {
            stream: pulled.stream.clone(),
            stream_id: pulled.stream_id,
            epoch: Some(pulled.epoch),
            next: pulled.begins_at(),
            first_offset: stream.first_offset,
            next_offset: stream.next_offset,
            log_epoch: pulled.log_epoch,
        };
        reader.opened(pulled, subscription["max_in_flight"].as_u64().expect("a window"));
        self.readers.push(reader);
        Ok((self.readers.len() as u64 - 1, subscribed))
    }

    async fn next(&mut self, number: ReaderNumber) -> Delivery {
        loop {
            let reader = &mut self.readers[number as usize];
            if let Some(delivery) = reader.waiting.pop_front() {
                return delivery;
            }
            let (at, body) = (reader.at.clone(), reader.going_on());
            match self.pull(&at, body).await {
                Ok(pulled) => self.readers[number as usize].heard(pulled),
                Err(why) => return Delivery::End(why),
            }
        }
    }

    async fn ack(&mut self, reader: ReaderNumber, offset: u64) -> Answer<Acked> {
        let (at, body) = self.readers[reader as usize].ack(offset);
        let acked = self.acknowledge(&at, body).await?;
        self.readers[reader as usize].acked(acked.next);
        Ok(acked)
    }

    async fn unsubscribe(&mut self, _reader: ReaderNumber) -> Answer<()> {
        // There is nothing to say: who does not pull any more is gone in time.
        Ok(())
    }

    async fn commit(&mut self, commit: &Commit) -> Answer<Committed> {
        let success = self.call(http::Method::POST, "/commit", Some(format!("{{{}}}", commit_members(commit)))).await?;
        assert_eq!(success.status, 200);
        let committed = committed_of(&success.metadata());
        for reader in &mut self.readers {
            reader.committed(&committed);
        }
        Ok(committed)
    }

    async fn create_stream(&mut self, name: &str, mut fields: Value) -> Answer<StreamSeen> {
        fields["name"] = name.into();
        let success = self.post("/streams", fields).await?;
        assert_eq!((success.status, success.location), (201, Some(format!("/v1/streams/{name}"))));
        Ok(StreamSeen::of(&serde_json::from_str::<Value>(&success.body).expect("JSON")["metadata"]))
    }

    async fn describe(&mut self, stream: &str) -> Answer<StreamSeen> {
        self.get(&format!("/streams/{stream}")).await.map(|s| StreamSeen::of(&s.metadata()))
    }

    async fn trim(&mut self, stream: &str, before: u64) -> Answer<StreamSeen> {
        self.post(&format!("/streams/{stream}/trim"), json!({"before_offset": before})).await.map(|s| StreamSeen::of(&s.metadata()))
    }

    async fn close_stream(&mut self, stream: &str) -> Answer<StreamSeen> {
        self.post(&format!("/streams/{stream}/close"), json!({})).await.map(|s| StreamSeen::of(&s.metadata()))
    }

    async fn delete_stream(&mut self, stream: &str) -> Answer<String> {
        let success = self.call(http::Method::DELETE, &format!("/streams/{stream}"), None).await?;
        assert_eq!(success.status, 202);
        let operation = success.location.expect("an operation");
        let waited = self.get(&format!("{}/wait?timeout=20", operation.strip_prefix("/v1").expect("an address of ours"))).await?;
        Ok(waited.metadata()["status"].as_str().expect("a status").to_owned())
    }

    async fn create_subscription(&mut self, stream: &str, name: &str, mut fields: Value) -> Answer<SubscriptionSeen> {
        fields["name"] = name.into();
        let success = self.post(&format!("/streams/{stream}/subscriptions"), fields).await?;
        assert_eq!(success.status, 201);
        Ok(SubscriptionSeen::of(&success.metadata()))
    }

    async fn describe_subscription(&mut self, stream: &str, name: &str) -> Answer<SubscriptionSeen> {
        self.get(&format!("/streams/{stream}/subscriptions/{name}")).await.map(|s| SubscriptionSeen::of(&s.metadata()))
    }

    async fn delete_subscription(&mut self, stream: &str, name: &str) -> Answer<()> {
        self.call(http::Method::DELETE, &format!("/streams/{stream}/subscriptions/{name}"), None).await.map(drop)
    }

    async fn seek(&mut self, stream: &str, name: &str, to: Value) -> Answer<SubscriptionSeen> {
        let path = format!("/streams/{stream}/subscriptions/{name}/cursor");
        self.call(http::Method::PUT, &path, Some(to.to_string())).await.map(|s| SubscriptionSeen::of(&s.metadata()))
    }
}
