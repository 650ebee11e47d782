//! Clients that write down in the ledger what they send, before they send it, and what they are told: producers over both kinds of
//! WebSocket, appenders without a producer over REST and WebSocket, a reader that acks durably, and a reader that commits (K-3).
//!
//! They have a runtime of their own: when that goes, nothing of them goes on, as if they had lost power too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Map, Value};
use tidelog::client::{Client, Delivery, Error, IntoEvents as _, NewEvent, Protocol};
use tidelog::types::request::{CommitAck, CommitAppend, CommitRequest};
use tidelog::types::{Code, StreamName, SubscriptionName};
use tokio::runtime::Runtime;

use crate::broker::{Broker, PATIENCE};
use crate::chance::Chance;
use crate::ledger::{INPUT, Ledger, MOVER, OUTPUTS, Outcome, READER};

/// Runs something async on the spot.
pub fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Streams and subscriptions, once per history.
pub fn prepare(broker: &Broker) {
    let admin = broker.client(Protocol::Binary).admin();
    block(async {
        for stream in [INPUT, OUTPUTS[0], OUTPUTS[1]] {
            admin.create_stream(stream, Map::new()).await.expect("a stream is created");
        }
        for subscription in [READER, MOVER] {
            admin.create_subscription(INPUT, subscription, Map::new()).await.expect("a subscription is created");
        }
    });
}

/// The clients at work.
pub struct Load {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// `round` goes into every value, so that no two incarnations send the same.
    pub fn start(broker: &Broker, ledger: &Ledger, round: usize, chance: &Chance) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |name: &str, protocol| Worker {
            client: broker.client(protocol),
            ledger: ledger.clone(),
            stop: stop.clone(),
            round,
            chance: chance.of(&format!("{name} {round}")),
        };
        runtime.spawn(worker("binary", Protocol::Binary).produce("binary"));
        runtime.spawn(worker("json", Protocol::Json).produce("json"));
        runtime.spawn(worker("rest", Protocol::Binary).append("rest"));
        runtime.spawn(worker("ws", Protocol::Binary).append("ws"));
        runtime.spawn(worker("reader", Protocol::Json).read());
        runtime.spawn(worker("mover", Protocol::Binary).copy());
        Self { runtime, stop }
    }

    /// They end in the middle of what they do.
    pub fn vanish(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// No new work; for `time` they may still hear answers. Then they vanish.
    pub fn end(self, time: Duration) {
        self.stop.store(true, Ordering::SeqCst);
        std::thread::sleep(time);
        self.vanish();
    }
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Worker {
    client: Client,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    round: usize,
    chance: Chance,
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Mostly short; sometimes as long as what goes to blob files, or over several blocks of the log.
    fn filling(&mut self) -> String {
        let bytes = match self.chance.below(40) {
            0 => 40_000 + self.chance.below(60_000),
            1..=3 => 3000 + self.chance.below(4000),
            _ => self.chance.below(150),
        };
        // It does not compress away.
        let mut chance = self.chance.of("filling");
        (0..bytes).map(|_| char::from(b'a' + chance.below(26) as u8)).collect()
    }

    async fn produce(mut self, id: &'static str) {
        let producer = match self.client.producer(INPUT, id).open().await {
            Ok(producer) => producer,
            Err(error) => return self.ledger.heard(&error),
        };
        while self.goes_on() {
            let (seq, count) = (producer.next_seq(), self.chance.between(1, 12));
            let round = self.round;
            let values: Vec<String> = (seq..seq + count).map(|seq| format!("p {id} {seq} {round} {}", self.filling())).collect();
            let ticket = self.ledger.sending(INPUT, values.clone());
            match producer.send(values.into_iter().map(NewEvent::text).collect::<Vec<_>>()).await {
                Ok(receipt) => {
                    let ledger = self.ledger.clone();
                    tokio::spawn(async move {
                        match receipt.await {
                            Ok(appended) => ledger.settle(ticket, Outcome::Stored(appended.first_offset)),
                            Err(error) => ledger.failed(ticket, &error),
                        }
                    });
                }
                Err(error) => return self.ledger.failed(ticket, &error),
            }
            tokio::time::sleep(Duration::from_millis(self.chance.below(6))).await;
        }
        // Receipts may still come.
        std::future::pending::<()>().await;
    }

    async fn append(mut self, way: &'static str) {
        let mut number = 0;
        while self.goes_on() {
            let round = self.round;
            let value = format!("a {way} {number} {round} {}", self.filling());
            number += 1;
            let ticket = self.ledger.sending(INPUT, vec![value.clone()]);
            let told = match way {
                "rest" => self.post(&value).await,
                _ => self.client.append(INPUT, NewEvent::text(&value)).await.map(|appended| appended.first_offset),
            };
            match told {
                Ok(first) => self.ledger.settle(ticket, Outcome::Stored(first)),
                Err(error) => {
                    self.ledger.failed(ticket, &error);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(self.chance.below(3))).await;
        }
    }

    async fn post(&self, value: &str) -> Result<Option<u64>, Error> {
        let body = ("text/plain", value.as_bytes().to_vec());
        let answer = self.client.admin().request(Method::POST, &format!("/v1/streams/{INPUT}/events"), Some(body), PATIENCE).await?;
        match answer.error() {
            Some(error) => Err(error),
            None => {
                let body: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
                Ok(body["metadata"]["first_offset"].as_u64())
            }
        }
    }

    async fn read(mut self) {
        let mut consumer = match self.client.consumer(INPUT).subscription(READER).open().await {
            Ok(consumer) => consumer,
            Err(error) => return self.ledger.heard(&error),
        };
        while self.goes_on() {
            match consumer.next().await {
                Some(Ok(Delivery::Event(event))) if self.chance.below(20) == 0 => {
                    self.ledger.asking(event.offset + 1);
                    match consumer.ack(event.offset).await {
                        Ok(next) => self.ledger.acked(next),
                        Err(error) => return self.ledger.heard(&error),
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.ledger.heard(&error),
                None => return,
            }
        }
    }

    async fn copy(self) {
        let opened = async { Ok((self.client.committer("mover").await?, self.client.consumer(INPUT).subscription(MOVER).open().await?)) };
        let (mut committer, mut consumer) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return self.ledger.heard(&error),
        };
        let mut number = 0;
        while self.goes_on() {
            let mut last = None;
            let mut step = consumer.next().await;
            while let Some(delivery) = step {
                match delivery {
                    Ok(Delivery::Event(event)) => last = Some(event.offset),
                    Ok(_) => {}
                    Err(error) => return self.ledger.heard(&error),
                }
                step = consumer.try_next();
            }
            let Some(offset) = last else { continue };
            let value = format!("c {} {number} {}", self.round, offset + 1);
            number += 1;
            let tickets = OUTPUTS.map(|stream| self.ledger.sending(stream, vec![value.clone()]));
            let append = |stream: &str| CommitAppend {
                stream: StreamName::parse(stream).expect("a name"),
                stream_id: None,
                events: NewEvent::text(&value).into_events().expect("an event"),
                expected_next_offset: None,
            };
            let (stream, subscription) = (StreamName::parse(INPUT).expect("a name"), SubscriptionName::parse(MOVER).expect("a name"));
            let ack = CommitAck { stream, subscription, epoch: consumer.epoch().unwrap_or(0), offset };
            let request = CommitRequest { acks: vec![ack], appends: OUTPUTS.map(append).into(), ..CommitRequest::default() };
            match committer.commit(request).await {
                Ok(_) => {
                    tickets.into_iter().for_each(|ticket| self.ledger.settle(ticket, Outcome::Stored(None)));
                    consumer.committed(offset);
                }
                Err(error) => {
                    tickets.into_iter().for_each(|ticket| self.ledger.failed(ticket, &error));
                    return;
                }
            }
        }
    }
}

/// One append over REST, once: its offset, or the code it was refused with.
pub fn append_once(broker: &Broker, ledger: &Ledger, value: &str) -> Result<Option<u64>, Option<Code>> {
    let ticket = ledger.sending(INPUT, vec![value.to_owned()]);
    let answer = block(broker.client(Protocol::Binary).append(INPUT, NewEvent::text(value)));
    match answer {
        Ok(appended) => {
            ledger.settle(ticket, Outcome::Stored(appended.first_offset));
            Ok(appended.first_offset)
        }
        Err(error) => {
            ledger.failed(ticket, &error);
            Err(error.code())
        }
    }
}

/// Is it ready, by `/readyz`?
pub fn ready(broker: &Broker) -> bool {
    let asked = block(broker.client(Protocol::Binary).admin().request(Method::GET, "/readyz", None, PATIENCE));
    asked.is_ok_and(|answer| answer.status.is_success())
}
