//! A reader that pulls, told as one that is pushed to: what a program over REST keeps between its calls.
//!
//! `live` is the moment when a pull leaves no lag. A window is a matter of the client: it never asks for more than fits, but
//! always for one event, since there is no other way to hear of a gap or an end.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidelog::types::TimeUs;

use super::values::{Committed, Delivery, Event, From, Subscribe};
use super::ws_json::events_of;

/// The answer to a pull.
pub struct Pulled {
    pub stream: String,
    pub stream_id: u64,
    pub epoch: u64,
    pub log_epoch: u64,
    pub next: u64,
    token: Option<String>,
    gap: Option<(u64, u64, String)>,
    events: Vec<Event>,
    lag: u64,
}

impl Pulled {
    /// From the body of the answer: every member is always there.
    pub fn of(body: &str) -> Self {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            metadata: Form<'a>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form<'a> {
            stream: String,
            stream_id: u64,
            epoch: u64,
            log_epoch: u64,
            ack_token: Value,
            gap: Value,
            #[serde(borrow)]
            events: &'a RawValue,
            next: u64,
            lag: Value,
        }
        let Envelope { metadata: form } = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e} in {body}"));
        let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{name} in {body}"));
        let gap = form.gap.is_object().then(|| {
            let reason = form.gap["reason"].as_str().expect("a reason").to_owned();
            (number(&form.gap, "from"), number(&form.gap, "to"), reason)
        });
        let (events, token) = (events_of(form.events), form.ack_token.as_str().map(str::to_owned));
        let last = events.last().map(|e| e.offset).or(gap.as_ref().map(|(_, to, _)| *to));
        assert!(last.is_none_or(|last| last + 1 == form.next), "next follows what was handed out: {body}");
        assert_eq!(token.is_some(), last.is_some(), "there is a token for what was handed out: {body}");
        assert!(form.lag["bytes"].is_u64() && form.lag["seconds"].is_number(), "{body}");
        let lag = number(&form.lag, "events");
        let Form { stream, stream_id, epoch, log_epoch, next, .. } = form;
        Self { stream, stream_id, epoch, log_epoch, next, token, gap, events, lag }
    }

    /// The first offset it spoke of.
    pub fn begins_at(&self) -> u64 {
        let gap = self.gap.as_ref().map(|(from, ..)| *from);
        gap.or(self.events.first().map(|e| e.offset)).unwrap_or(self.next)
    }
}

/// See the module.
pub struct Puller {
    /// Address of the subscription.
    pub at: String,
    /// Heard and not yet asked for.
    pub waiting: VecDeque<Delivery>,
    ask: Subscribe,
    epoch: u64,
    next: u64,
    done: u64,
    /// Bytes of the events from `done` to `next`, by offset.
    under_way: VecDeque<(u64, u64)>,
    window: (u64, u64),
    token: Option<String>,
    live: bool,
}

impl Puller {
    pub fn new(ask: &Subscribe) -> Self {
        let name = ask.subscription.as_deref().expect("only durable readers pull");
        Self {
            at: format!("/streams/{}/subscriptions/{name}", ask.stream),
            waiting: VecDeque::new(),
            ask: ask.clone(),
            epoch: 0,
            next: 0,
            done: 0,
            under_way: VecDeque::new(),
            window: ask.credit.unwrap_or((0, 4 << 20)),
            token: None,
            live: false,
        }
    }

    fn start(&self) -> Value {
        match self.ask.from {
            None => Value::Null,
            Some(From::Offset(offset)) => offset.into(),
            Some(From::Earliest) => "earliest".into(),
            Some(From::Latest) => "latest".into(),
            Some(From::Time(us)) => TimeUs(us).to_string().into(),
        }
    }

    /// The body that makes the subscription.
    pub fn creation(&self) -> Value {
        json!({"name": self.ask.subscription, "start": self.start()})
    }

    /// The body of the pull that opens the session. Its window is not known before, so it asks for little.
    pub fn opening(&self) -> Value {
        let (events, bytes) = if self.ask.credit.is_some() { self.window } else { (1, 1) };
        json!({
            "from": self.start(), "max_events": events.min(10_000), "max_bytes": bytes.min(4 << 20), "on_gap": self.ask.on_gap,
            "takeover": if self.ask.reject { "reject" } else { "steal" }, "log_epoch": self.ask.log_epoch,
        })
    }

    /// The session is open; a reader that asks for no window has the subscription's.
    pub fn opened(&mut self, pulled: Pulled, max_in_flight: u64) {
        if self.ask.credit.is_none() {
            self.window.0 = max_in_flight;
        }
        self.epoch = pulled.epoch;
        self.done = pulled.begins_at();
        self.heard(pulled);
    }

    /// The body of the next pull.
    pub fn going_on(&self) -> Value {
        let bytes: u64 = self.under_way.iter().map(|(_, bytes)| *bytes).sum();
        json!({
            "epoch": self.epoch, "from": self.next, "on_gap": self.ask.on_gap, "wait_s": 20,
            "max_events": self.window.0.saturating_sub(self.under_way.len() as u64).clamp(1, 10_000),
            "max_bytes": self.window.1.saturating_sub(bytes).clamp(1, 4 << 20),
        })
    }

    pub fn heard(&mut self, pulled: Pulled) {
        assert_eq!(pulled.epoch, self.epoch, "a session keeps its epoch");
        self.token = pulled.token.or(self.token.take());
        self.next = pulled.next;
        if let Some((from, to, reason)) = pulled.gap {
            self.waiting.push_back(Delivery::Gap { from, to, reason });
        }
        self.under_way.extend(pulled.events.iter().map(|e| (e.offset, e.data.len() as u64)));
        self.waiting.extend(pulled.events.into_iter().map(Delivery::Event));
        if pulled.lag > 0 {
            self.live = false;
        } else if !std::mem::replace(&mut self.live, true) {
            self.waiting.push_back(Delivery::Live { next_offset: self.next });
        }
    }

    /// The body of an ack: by token where the newest one covers it, else by epoch, so that both forms have a part in the table.
    pub fn ack(&self, offset: u64) -> (String, Value) {
        let level = if self.ask.received { "received" } else { "durable" };
        let body = match &self.token {
            Some(token) if offset + 1 == self.next => json!({"ack_token": token, "level": level}),
            _ => json!({"epoch": self.epoch, "offset": offset, "level": level}),
        };
        (self.at.clone(), body)
    }

    pub fn acked(&mut self, next: u64) {
        self.done = self.done.max(next);
        while self.under_way.front().is_some_and(|(offset, _)| *offset < self.done) {
            self.under_way.pop_front();
        }
    }

    /// An ack inside a commit counts as well.
    pub fn committed(&mut self, committed: &Committed) {
        for (stream, subscription, _, next) in &committed.acks {
            if *stream == self.ask.stream && Some(subscription) == self.ask.subscription.as_ref() {
                self.acked(*next);
            }
        }
    }
}
