//! One well-behaved producer and one well-behaved subscriber, who check what they are told and how long it takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, Peer};

/// One append at a time, at most so often.
const EVERY: Duration = Duration::from_millis(5);

/// What an honest reader has heard: the next offset, and what is wrong.
#[derive(Debug, Default)]
pub struct Heard {
    pub next: u64,
}

impl Heard {
    /// The event of number n is at offset n, once.
    ///
    /// # Errors
    /// A sentence.
    pub fn event(&mut self, offset: u64, number: u64) -> Result<(), String> {
        let expected = self.next;
        if offset != expected {
            return Err(format!("offset {offset} came after {expected} events"));
        }
        if number != offset {
            return Err(format!("offset {offset} holds event {number}"));
        }
        self.next += 1;
        Ok(())
    }
}

/// See the module. Both run until they are asked how it was.
pub struct Honest {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    producer: JoinHandle<Result<(u64, Histogram<u64>), String>>,
    subscriber: JoinHandle<Result<(u64, Histogram<u64>), String>>,
}

/// How it was.
pub struct Report {
    /// Events, all of which were acknowledged, delivered once and in order.
    pub events: u64,
    /// Append to acknowledgement, µs.
    pub acked: Histogram<u64>,
    /// Append to arrival, µs.
    pub arrived: Histogram<u64>,
}

impl Honest {
    /// Begins on an empty stream.
    pub async fn begin(at: SocketAddr, stream: &'static str) -> Self {
        let began = Instant::now();
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut reader = open(at).await;
        let subscribe = json!({"t":"subscribe","sub":1,"stream":stream,"subscription":"honest","create":true,"from":"earliest"});
        let answer = reader.ask(&subscribe.to_string()).await;
        assert_eq!(answer["t"], "subscribed", "{answer}");
        let subscriber = tokio::spawn(subscriber(reader, began));
        let mut writer = open(at).await;
        let opened = writer.ask(&json!({"t":"open_producer","req":1,"stream":stream,"producer":"honest"}).to_string()).await;
        assert_eq!(opened["t"], "producer_opened", "{opened}");
        let producer = tokio::spawn(producer(writer, stream, opened["epoch"].as_u64().expect("an epoch"), stop.clone(), acked.clone(), began));
        Self { stop, acked, producer, subscriber }
    }

    /// Waits until so many events are acknowledged, or it is clear that something is wrong.
    pub async fn go_on_until(&self, events: u64) {
        let wait = async {
            while self.acked.load(Ordering::Relaxed) < events && !self.producer.is_finished() {
                tokio::time::sleep(EVERY).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, wait).await;
    }

    /// Ends them.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn end(self) -> Result<Report, String> {
        self.stop.store(true, Ordering::Relaxed);
        let (events, acked) = tokio::time::timeout(PATIENCE, self.producer).await.map_err(|_| "the producer got no answer")?.map_err(|e| e.to_string())??;
        let (heard, arrived) = tokio::time::timeout(PATIENCE, self.subscriber)
            .await
            .map_err(|_| format!("the subscriber did not hear all of {events} events"))?
            .map_err(|e| e.to_string())??;
        if heard != events {
            return Err(format!("{events} events were acknowledged and {heard} were heard"));
        }
        Ok(Report { events, acked, arrived })
    }
}

async fn open(at: SocketAddr) -> Peer<TcpStream> {
    let stream = TcpStream::connect(at).await.expect("the port is open");
    stream.set_nodelay(true).expect("a TCP socket");
    Peer::open(stream, "/v1/connect", Some("tidelog.v1.json")).await.expect("the upgrade is accepted").greeted().await
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("a histogram")
}

fn micros(began: Instant) -> u64 {
    began.elapsed().as_micros() as u64
}

async fn producer(
    mut peer: Peer<TcpStream>,
    stream: &str,
    epoch: u64,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    began: Instant,
) -> Result<(u64, Histogram<u64>), String> {
    let (mut n, mut latency) = (0u64, histogram());
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let last = stop.load(Ordering::Relaxed);
        let sent = micros(began);
        let frame =
            json!({"t":"append","req":n,"stream":stream,"producer":{"id":"honest","epoch":epoch,"seq":n},"events":[{"data":{"n":n,"at":sent,"last":last}}]});
        let answer = peer.ask(&frame.to_string()).await;
        if answer["t"] != "appended" || answer["first_offset"] != n {
            return Err(format!("event {n} was answered {answer}"));
        }
        latency.saturating_record((micros(began) - sent).max(1));
        n += 1;
        acked.store(n, Ordering::Relaxed);
        if last {
            return Ok((n, latency));
        }
    }
}

async fn subscriber(mut peer: Peer<TcpStream>, began: Instant) -> Result<(u64, Histogram<u64>), String> {
    let (mut heard, mut latency) = (Heard::default(), histogram());
    loop {
        let frame = peer.json().await;
        match frame["t"].as_str() {
            Some("live" | "acked") => {}
            Some("events") => {
                let now = micros(began);
                let mut last = false;
                for event in frame["events"].as_array().expect("events") {
                    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("{event} is not of the honest producer"));
                    heard.event(number(&event["offset"])?, number(&event["data"]["n"])?)?;
                    latency.saturating_record(now.saturating_sub(number(&event["data"]["at"])?).max(1));
                    last = event["data"]["last"] == true;
                }
                if last {
                    return Ok((heard.next, latency));
                }
                peer.text(&json!({"t":"ack","sub":1,"offset":heard.next - 1}).to_string()).await;
            }
            _ => return Err(format!("the subscriber heard {frame}")),
        }
    }
}
