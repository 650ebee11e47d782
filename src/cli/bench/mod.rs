//! `tidelog bench`: rates and latencies of a running broker, checked for order, loss and duplication on the way.
//!
//! Every event carries its producer's number, a counter and its time of sending; readers check that each producer's
//! counters come 0, 1, 2, … without a hole or a repeat. A run whose check fails ends with exit code 1, whatever its speed.

mod check;
mod load;
mod report;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use crate::client::{Client, Consumer, Delivery};
use crate::types::Code;
use crate::types::request::Start;
use check::Checker;
use load::{Load, Sent};
use report::{Latencies, Report};

/// Measure a running broker.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// How fast clients append durably
    Pub(Common),
    /// How fast readers catch up with a stream that is there
    Sub(Common),
    /// Time from sending to delivery at a fixed rate (open loop)
    E2e(Common),
    /// Time from sending to delivery with many readers of one stream
    Fan(Fan),
}

/// Options of every measurement.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Events in all. Default: 100,000, or what --duration allows
    #[arg(long, visible_alias = "events", value_name = "COUNT")]
    msgs: Option<u64>,
    /// Bytes of data of each event, at least 20
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(20..=1_048_576))]
    size: u32,
    /// Producers (for `sub`: readers), each on a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Events of one append
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Appends of one producer without an answer; 1 = send, wait, send
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    outstanding: u32,
    /// Events per second of all producers together. Default: as fast as it goes (`e2e`, `fan`: 1,000)
    #[arg(long, value_name = "EVENTS")]
    rate: Option<u64>,
    /// Stop sending after this long
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Use this stream; it must be empty or new. Default: a new one, removed afterwards
    #[arg(long)]
    stream: Option<String>,
    /// Keep the stream
    #[arg(long)]
    keep: bool,
    /// Show no progress
    #[arg(long)]
    no_progress: bool,
}

/// Options of `bench fan`.
#[derive(Clone, Debug, Args)]
pub struct Fan {
    #[command(flatten)]
    common: Common,
    /// Readers, each on a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: u32,
}

/// Events of a run that says neither count nor duration.
const DEFAULT_EVENTS: u64 = 100_000;
/// The same for `e2e` and `fan`, in seconds at their rate.
const DEFAULT_SECONDS: u64 = 10;
/// Rate of `e2e` and `fan` unless asked otherwise.
const DEFAULT_RATE: u64 = 1000;
/// No event for this long while some are missing: they are lost.
const LOST_AFTER: Duration = Duration::from_secs(30);

impl Bench {
    /// Runs the measurement, prints the figures, and fails when the check does.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        let common = match &self {
            Self::Pub(common) | Self::Sub(common) | Self::E2e(common) => common,
            Self::Fan(fan) => &fan.common,
        };
        let made_up = common.stream.is_none();
        let stream = common.stream.clone().unwrap_or_else(|| format!("bench-{}", uuid::Uuid::now_v7()));
        match client.admin().create_stream(&stream, Default::default()).await {
            Ok(_) => {}
            Err(error) if !made_up && error.code() == Some(Code::NameTaken) => {
                if client.admin().stream(&stream).await?.state.next_offset != 0 {
                    return Err(Failure::Usage(format!("Stream {stream} has events; a measurement needs an empty one.")));
                }
            }
            Err(error) => return Err(error.into()),
        }
        let keep = common.keep || !made_up;
        let measured = match &self {
            Self::Pub(common) => publish(client, &stream, common).await,
            Self::Sub(common) => catch_up(client, &stream, common).await,
            Self::E2e(common) => fan_out(client, &stream, common, 1, "e2e").await,
            Self::Fan(fan) => fan_out(client, &stream, &fan.common, fan.subscribers, "fan").await,
        };
        if !keep && let Err(error) = client.admin().delete_stream(&stream).await {
            eprintln!("Stream {stream} stays behind: {error}");
        }
        let report = measured?;
        report.print(json)?;
        match report.wrong {
            None => Ok(()),
            Some(wrong) => Err(Failure::failed(format!("The check failed: {wrong}"))),
        }
    }
}

impl Common {
    fn load(&self, rate: Option<u64>) -> Load {
        let (clients, size, batch) = (self.clients, self.size as usize, self.batch);
        let events = match (self.msgs, self.duration, rate) {
            (Some(events), ..) => events,
            (None, Some(_), _) => u64::MAX,
            (None, None, Some(rate)) => rate.saturating_mul(DEFAULT_SECONDS).max(1),
            (None, None, None) => DEFAULT_EVENTS,
        };
        Load { clients, size, batch, outstanding: self.outstanding, rate, events, duration: self.duration.map(Duration::from_secs) }
    }
}

/// Appends, then reads everything back to check it.
async fn publish(client: &Client, stream: &str, common: &Common) -> Outcome<Report> {
    let load = common.load(common.rate);
    let progress = Progress::new("appending", (load.events != u64::MAX).then_some(load.events), common.no_progress);
    let sent = load.run(client, stream, Some(progress)).await?;
    let mut checker = Checker::new(common.clients);
    let consumer = client.consumer(stream).from(Start::Earliest).give_up_after(LOST_AFTER).open().await?;
    let progress = Progress::new("checking", Some(sent.events), common.no_progress);
    read(consumer, &mut checker, Some(sent.events), progress, None).await?;
    let wrong = checker.verdict(&sent.by_client).err();
    Ok(Report {
        kind: "pub",
        load,
        readers: 0,
        events: sent.events,
        bytes: sent.bytes,
        elapsed: sent.elapsed,
        appends: Some(sent.latencies),
        deliveries: None,
        wrong,
    })
}

/// Fills the stream, then measures readers from its beginning.
async fn catch_up(client: &Client, stream: &str, common: &Common) -> Outcome<Report> {
    let fill = Common { clients: 1, batch: common.batch.max(100), rate: None, ..common.clone() };
    let load = fill.load(None);
    let progress = Progress::new("filling", (load.events != u64::MAX).then_some(load.events), common.no_progress);
    let sent = load.run(client, stream, Some(progress)).await?;
    let began = std::time::Instant::now();
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..common.clients {
        let consumer = client.consumer(stream).from(Start::Earliest).credit(20_000, 16 << 20).give_up_after(LOST_AFTER);
        let (total, quiet) = (sent.events, common.no_progress || reader > 0);
        readers.spawn(async move {
            let mut checker = Checker::new(1);
            let progress = Progress::new("reading", Some(total), quiet);
            read(consumer.open().await?, &mut checker, Some(total), progress, None).await?;
            Ok::<_, Failure>(checker)
        });
    }
    let mut wrong = None;
    while let Some(checker) = readers.join_next().await {
        let checker = checker.map_err(|e| Failure::failed(format!("A reader ended unexpectedly: {e}.")))??;
        wrong = wrong.or(checker.verdict(&sent.by_client).err());
    }
    let (elapsed, readers) = (began.elapsed(), u64::from(common.clients));
    Ok(Report {
        kind: "sub",
        load,
        readers: common.clients,
        events: sent.events * readers,
        bytes: sent.bytes * readers,
        elapsed,
        appends: None,
        deliveries: None,
        wrong,
    })
}

/// Readers first, then events at a fixed rate; each delivery is timed from when its event was due to be sent.
async fn fan_out(client: &Client, stream: &str, common: &Common, subscribers: u32, kind: &'static str) -> Outcome<Report> {
    let load = common.load(Some(common.rate.unwrap_or(DEFAULT_RATE)));
    let (total_to, total_from) = tokio::sync::watch::channel(None);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..subscribers {
        // Attached one after the other: the measurement begins when all are there.
        let consumer = client.consumer(stream).from(Start::Earliest).give_up_after(LOST_AFTER).open().await?;
        let (clients, total) = (common.clients, total_from.clone());
        readers.spawn(async move {
            let mut checker = Checker::new(clients);
            let mut latencies = Latencies::new();
            read_until(consumer, &mut checker, total, &mut latencies).await?;
            Ok::<_, Failure>((checker, latencies))
        });
    }
    drop(total_from);
    let progress = Progress::new("sending", (load.events != u64::MAX).then_some(load.events), common.no_progress);
    let sent: Sent = load.run(client, stream, Some(progress)).await?;
    let _ = total_to.send(Some(sent.events));
    let mut deliveries = Latencies::new();
    let mut wrong = None;
    while let Some(outcome) = readers.join_next().await {
        let (checker, latencies) = outcome.map_err(|e| Failure::failed(format!("A reader ended unexpectedly: {e}.")))??;
        wrong = wrong.or(checker.verdict(&sent.by_client).err());
        deliveries.add(&latencies);
    }
    let (events, bytes) = (sent.events * u64::from(subscribers), sent.bytes * u64::from(subscribers));
    Ok(Report { kind, load, readers: subscribers, events, bytes, elapsed: sent.elapsed, appends: Some(sent.latencies), deliveries: Some(deliveries), wrong })
}

/// Reads `total` events, checking each.
async fn read(mut consumer: Consumer, checker: &mut Checker, total: Option<u64>, mut progress: Progress, mut latencies: Option<&mut Latencies>) -> Outcome {
    while total.is_none_or(|total| checker.seen() < total) {
        let Ok(next) = tokio::time::timeout(LOST_AFTER, consumer.next()).await else { break };
        let mut delivery = next;
        let mut events = 0;
        while let Some(step) = delivery {
            match step? {
                Delivery::Event(event) => {
                    let sent_at = checker.check(event.offset, &event.data);
                    if let (Some(latencies), Some(sent_at)) = (&mut latencies, sent_at) {
                        latencies.record(load::now_ns().saturating_sub(sent_at));
                    }
                    events += 1;
                }
                Delivery::Gap { from, to, .. } => checker.gap(from, to),
                Delivery::Live { .. } => {}
            }
            delivery = if total.is_some_and(|total| checker.seen() >= total) { None } else { consumer.try_next() };
        }
        progress.add(events);
    }
    progress.finish();
    consumer.close().await;
    Ok(())
}

/// Reads until as many events came as were sent, which shows when the senders are done.
async fn read_until(mut consumer: Consumer, checker: &mut Checker, mut total: tokio::sync::watch::Receiver<Option<u64>>, latencies: &mut Latencies) -> Outcome {
    let mut all = *total.borrow();
    while all.is_none_or(|all| checker.seen() < all) {
        tokio::select! {
            biased;
            next = consumer.next() => match next {
                Some(Ok(Delivery::Event(event))) => {
                    if let Some(sent_at) = checker.check(event.offset, &event.data) {
                        latencies.record(load::now_ns().saturating_sub(sent_at));
                    }
                }
                Some(Ok(Delivery::Gap { from, to, .. })) => checker.gap(from, to),
                Some(Ok(Delivery::Live { .. })) => {}
                Some(Err(error)) => return Err(error.into()),
                None => break,
            },
            changed = total.changed(), if all.is_none() => match changed {
                Ok(()) => all = *total.borrow_and_update(),
                // The senders failed; they say why.
                Err(_) => break,
            },
            () = tokio::time::sleep(LOST_AFTER), if all.is_some() => break,
        }
    }
    consumer.close().await;
    Ok(())
}

/// Shared by the senders of a run.
type SharedProgress = std::sync::Arc<parking_lot::Mutex<Progress>>;
