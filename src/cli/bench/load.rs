//! The senders of a measurement.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::check::{MARK_BYTES, mark};
use super::report::Latencies;
use super::{Failure, Outcome, Progress, SharedProgress};
use crate::client::{Client, Producer, Receipt};
use crate::types::reply::Appended;
use crate::types::{Encoding, EventRef, Events, EventsBuilder};

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Load {
    pub clients: u32,
    pub size: usize,
    pub batch: u32,
    pub outstanding: u32,
    /// Events per second of all clients together; `None` = as fast as it goes.
    pub rate: Option<u64>,
    /// Of all clients together; `u64::MAX` = until the duration is over.
    pub events: u64,
    pub duration: Option<Duration>,
}

/// What was sent and acknowledged.
pub struct Sent {
    pub events: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    /// Events of each client.
    pub by_client: Vec<u64>,
    /// From when an append was due to be sent until its answer.
    pub latencies: Latencies,
}

/// Nanoseconds since the first call in this process: one clock for senders and readers.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl Load {
    /// Opens all producers, then sends from all of them at once.
    pub async fn run(&self, client: &Client, stream: &str, progress: Option<Progress>) -> Outcome<Sent> {
        let progress = progress.map(|p| Arc::new(parking_lot::Mutex::new(p)));
        let mut producers = Vec::new();
        for number in 0..self.clients {
            let producer = client.producer(stream, &format!("bench-{number}")).window(self.outstanding as usize, 64 << 20);
            producers.push(producer.give_up_after(Duration::from_secs(30)).open().await?);
        }
        let began = Instant::now();
        let mut senders = tokio::task::JoinSet::new();
        for (number, producer) in producers.into_iter().enumerate() {
            let share = self.events / u64::from(self.clients) + u64::from((number as u64) < self.events % u64::from(self.clients));
            let sender = Sender {
                load: self.clone(),
                number: number as u32,
                events: if self.events == u64::MAX { u64::MAX } else { share },
                began,
                progress: progress.clone(),
            };
            senders.spawn(sender.run(producer));
        }
        let mut by_client = vec![0; self.clients as usize];
        let mut latencies = Latencies::new();
        while let Some(outcome) = senders.join_next().await {
            let (number, sent, own) = outcome.map_err(|e| Failure::failed(format!("A sender ended unexpectedly: {e}.")))??;
            by_client[number as usize] = sent;
            latencies.add(&own);
        }
        let elapsed = began.elapsed();
        if let Some(progress) = progress.and_then(Arc::into_inner) {
            progress.into_inner().finish();
        }
        let events = by_client.iter().sum();
        Ok(Sent { events, bytes: events * self.size as u64, elapsed, by_client, latencies })
    }
}

struct Sender {
    load: Load,
    number: u32,
    events: u64,
    began: Instant,
    progress: Option<SharedProgress>,
}

/// A timer that fires this late is the timer's own doing, not the broker's.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

impl Sender {
    async fn run(self, producer: Producer) -> Outcome<(u32, u64, Latencies)> {
        let mut latencies = Latencies::new();
        let mut under_way: VecDeque<(u64, u64, Receipt)> = VecDeque::new();
        let mut data = vec![b'.'; self.load.size.max(MARK_BYTES)];
        let (mut counter, mut acknowledged, mut appends) = (0u64, 0u64, 0u64);
        loop {
            let more = counter < self.events && self.load.duration.is_none_or(|limit| self.began.elapsed() < limit);
            if !more && under_way.is_empty() {
                break;
            }
            let room = under_way.len() < self.load.outstanding as usize;
            let due = self.due(appends);
            tokio::select! {
                biased;
                Some(answer) = first(&mut under_way) => {
                    answer?;
                    if let Some((due_ns, count, _)) = under_way.pop_front() {
                        latencies.record(now_ns().saturating_sub(due_ns));
                        acknowledged += count;
                        if let Some(progress) = &self.progress {
                            progress.lock().add(count);
                        }
                    }
                }
                () = until(due), if more && room => {
                    // Open loop: an append that could not be sent in time counts from when it was due.
                    let late = due.map(|due| due.elapsed()).filter(|late| *late > TIMER_GRAIN).unwrap_or_default();
                    let due_ns = now_ns().saturating_sub(late.as_nanos() as u64);
                    let count = u64::from(self.load.batch).min(self.events - counter);
                    let events = batch(&mut data, self.number, counter, count, due_ns)?;
                    under_way.push_back((due_ns, count, producer.send(events).await?));
                    counter += count;
                    appends += 1;
                }
            }
        }
        producer.close().await?;
        Ok((self.number, acknowledged, latencies))
    }

    /// When append number `appends` of this client is due, at the wanted rate.
    fn due(&self, appends: u64) -> Option<Instant> {
        let clients = f64::from(self.load.clients);
        let pace = f64::from(self.load.batch) * clients / self.load.rate?.max(1) as f64;
        // Clients take turns instead of sending all at the same moment.
        let turn = f64::from(self.number) / clients;
        Some(self.began + Duration::from_secs_f64((pace * (appends as f64 + turn)).min(1e9)))
    }
}

async fn first(under_way: &mut VecDeque<(u64, u64, Receipt)>) -> Option<crate::client::Result<Appended>> {
    match under_way.front_mut() {
        Some((.., receipt)) => Some(receipt.await),
        None => None,
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due.filter(|due| *due > Instant::now()) {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Events number `counter` and following of one producer.
fn batch(data: &mut [u8], producer: u32, counter: u64, count: u64, due_ns: u64) -> Outcome<Events> {
    let mut builder = EventsBuilder::with_capacity(count as usize * (data.len() + 16));
    for number in counter..counter + count {
        mark(data, producer, number, due_ns);
        builder.push(&EventRef { data, encoding: Encoding::Binary, ..EventRef::default() })?;
    }
    Ok(builder.finish()?)
}
