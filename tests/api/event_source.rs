//! `EventSource` without a browser: the parser of the WHATWG over a plain HTTP client. It does not connect again by itself, and keeps
//! everything it hears: comments, `retry` and all.

use std::collections::VecDeque;

use serde_json::Value;

use crate::support::{Broker, PATIENCE};

/// What a page would hear.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub id: String,
    pub kind: String,
    pub data: String,
}

impl Heard {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// The offset of a plain message, after a look at its id.
    #[track_caller]
    pub fn offset(&self) -> u64 {
        assert_eq!(self.kind, "message", "{self:?}");
        let offset = self.json()["offset"].as_u64().expect("an offset");
        assert_eq!(self.id, offset.to_string(), "the id is the offset");
        offset
    }
}

/// The parser (section 9.2.6 of the HTML standard), fed in pieces.
#[derive(Default)]
pub struct Parser {
    rest: Vec<u8>,
    data: String,
    kind: String,
    pub last_id: String,
    pub retry: Option<u64>,
    pub comments: usize,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8], heard: &mut VecDeque<Heard>) {
        self.rest.extend_from_slice(bytes);
        // A CR at the end may be the first half of a line end; the broker sends none.
        while let Some(at) = self.rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let line = String::from_utf8(self.rest.drain(..=at).take(at).collect()).expect("UTF-8");
            self.line(&line, heard);
        }
    }

    fn line(&mut self, line: &str, heard: &mut VecDeque<Heard>) {
        if line.is_empty() {
            let (data, kind) = (std::mem::take(&mut self.data), std::mem::take(&mut self.kind));
            if let Some(data) = data.strip_suffix('\n') {
                let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                heard.push_back(Heard { id: self.last_id.clone(), kind, data: data.to_owned() });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => self.kind = value.to_owned(),
            "data" => self.data += &format!("{value}\n"),
            "id" if !value.contains('\0') => self.last_id = value.to_owned(),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => self.retry = value.parse().ok(),
            other => panic!("the broker says {other:?}, which no client knows"),
        }
    }
}

/// An open event stream.
pub struct EventSource {
    response: reqwest::Response,
    pub parser: Parser,
    heard: VecDeque<Heard>,
}

/// A client that waits for events as long as it takes.
pub fn http1() -> reqwest::Client {
    tidelog::client::http_builder().http1_only().no_proxy().build().expect("a client")
}

/// The same over HTTP/2.
pub fn http2() -> reqwest::Client {
    tidelog::client::http_builder().http2_prior_knowledge().no_proxy().build().expect("a client")
}

/// What the server says to an `EventSource`, good or bad.
pub async fn ask(http: &reqwest::Client, url: &str, last_id: Option<&str>) -> reqwest::Response {
    let mut request = http.get(url).header("accept", "text/event-stream");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer")
}

impl EventSource {
    /// Takes a good answer.
    pub fn of(response: reqwest::Response) -> Self {
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().expect("ASCII"));
        assert_eq!(
            (response.status().as_u16(), header("content-type"), header("cache-control"), header("x-accel-buffering")),
            (200, Some("text/event-stream"), Some("no-store"), Some("no"))
        );
        Self { response, parser: Parser::default(), heard: VecDeque::new() }
    }

    pub async fn open(http: &reqwest::Client, url: &str, last_id: Option<&str>) -> Self {
        Self::of(ask(http, url, last_id).await)
    }

    /// The next thing a page would hear; `None` at the end of the stream.
    pub async fn next_or_end(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            self.more().await?;
        }
    }

    /// One more piece of the stream, whatever is in it.
    pub async fn more(&mut self) -> Option<()> {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something in time").expect("a sound stream")?;
        self.parser.feed(&chunk, &mut self.heard);
        Some(())
    }

    pub async fn next(&mut self) -> Heard {
        self.next_or_end().await.expect("the stream goes on")
    }

    /// The next events must have these offsets.
    pub async fn hears(&mut self, offsets: std::ops::Range<u64>) {
        for offset in offsets {
            assert_eq!(self.next().await.offset(), offset);
        }
    }

    /// The next thing must be of this name; its data.
    pub async fn named(&mut self, kind: &str) -> Value {
        let heard = self.next().await;
        assert_eq!(heard.kind, kind, "{heard:?}");
        heard.json()
    }

    /// It must say why it ends, and end. The reason.
    pub async fn ends(&mut self) -> Value {
        loop {
            let heard = self.next().await;
            if heard.kind == "end" {
                assert_eq!(self.next_or_end().await, None, "nothing comes after the end");
                return heard.json();
            }
        }
    }
}

impl Broker {
    /// An event stream of this path, over HTTP/1.
    pub async fn events(&self, path: &str) -> EventSource {
        EventSource::open(&http1(), &self.url(path), None).await
    }

    /// An event stream that goes on after `last_id`.
    pub async fn events_after(&self, path: &str, last_id: &str) -> EventSource {
        EventSource::open(&http1(), &self.url(path), Some(last_id)).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    /// Appends the JSON numbers of a range, in one batch.
    pub async fn fill(&self, stream: &str, range: std::ops::Range<u64>) {
        let lines: String = range.map(|n| format!("{n}\n")).collect();
        let path = format!("/v1/streams/{stream}/events?lines=data");
        assert_eq!(self.ask("POST", &path, &[("Content-Type", "application/x-ndjson")], lines.as_bytes()).await.status, 201);
    }

    /// A number of `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics").await.body).expect("text");
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Waits until a number of `/metrics` is as it should be.
    pub async fn until_metric(&self, name: &str, good: impl Fn(f64) -> bool) {
        let wait = async {
            while !good(self.metric(name).await) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{name} is {}", self.metric(name).await);
        }
    }
}
