//! `tidelog verify`: load on a running broker, whatever happens to it meanwhile, and then the question whether every promise was kept.
//!
//! Each stream is worked on in rounds. A round has a stream of its own, writers, readers and a monitor; when the stream is long enough, the
//! writers stop, the readers read on to its end, and everything is judged. So memory does not grow with the time (see [`ROUND_EVENTS`]).

mod check;
mod dice;
mod history;
mod monitor;
mod readers;
mod report;
mod round;
mod writers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use crate::client::Client;
use history::{Counts, Finding};
use monitor::Health;
use report::Report;
use round::Past;

/// A round ends when its stream has so many events. With nine bytes for each, and the log of an appender, a stream costs about 2 MiB.
pub const ROUND_EVENTS: u64 = 100_000;
/// Finished rounds of a stream that are kept to be read once more at the end; older ones are read once more and removed.
const ROUNDS_KEPT: usize = 4;
/// Most findings that are listed.
const FINDINGS_LISTED: usize = 200;

/// How writers and the reading back speak. Readers are pushed to over WebSocket in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// Producers, appenders and the reading back over WebSocket.
    Websocket,
    /// All of them over REST.
    Rest,
    /// Both, and the reading back twice.
    #[default]
    All,
}

/// Check a running broker. Makes streams named `verify-…`, works on them, holds what everybody saw against the promises, and removes them.
/// Kill and restart the broker meanwhile as you like.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// How long to work, without the pause
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// Streams
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    streams: u64,
    /// Producers of each stream
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    producers: u64,
    /// Readers of each stream: half of them keep their position themselves (K-1), half go by their cursor. One more commits (K-3)
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    subscribers: u64,
    /// Events per second, all streams together
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// How to write and read back (readers are pushed to over WebSocket in any case)
    #[arg(long, value_enum, default_value_t)]
    carrier: Carrier,
    /// After half of the time, say so and go on until Enter: time to kill things by hand
    #[arg(long)]
    pause: bool,
    /// Chance: the same seed does the same in the same order
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keep the streams
    #[arg(long)]
    keep: bool,
    /// End with 6 when the broker has been away for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    give_up_after: u64,
    /// No bar, no lines about progress
    #[arg(long)]
    no_progress: bool,
    /// A round ends at so many events
    #[arg(long, value_name = "N", default_value_t = ROUND_EVENTS, hide = true)]
    round_events: u64,
}

/// What the workers are told.
pub struct Plan {
    pub producers: u64,
    pub subscribers: u64,
    pub carrier: Carrier,
    pub round_events: u64,
    /// Time for one event of one writer.
    per_event: Duration,
}

impl Plan {
    /// How long a writer waits after so many events.
    pub fn pause(&self, events: u64) -> Duration {
        self.per_event.mul_f64(events as f64)
    }
}

/// What one stream found over all its rounds.
#[derive(Default)]
struct Lane {
    counts: Counts,
    findings: Vec<Finding>,
    broken: u64,
    past: VecDeque<Past>,
}

impl Verify {
    /// Exit 0: every promise was kept. 1: one was broken.
    pub async fn run(self, client: &Client, json: bool) -> Outcome {
        // An absent broker is told at once.
        client.admin().call::<serde_json::Value>(http::Method::GET, "/v1", None).await?;
        let seed = self.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let writers = self.streams * (self.producers + 1);
        let plan = Arc::new(Plan {
            producers: self.producers,
            subscribers: self.subscribers,
            carrier: self.carrier,
            round_events: self.round_events,
            per_event: Duration::from_secs_f64(writers as f64 / self.rate as f64),
        });
        let health = Arc::new(Health::new());
        let watching = tokio::spawn(health.clone().watch(client.clone(), Duration::from_secs(self.give_up_after), !self.no_progress));
        let (finish, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let began = Instant::now();
        let mut lanes = JoinSet::new();
        let run = format!("verify-{}", uuid::Uuid::now_v7().simple());
        for number in 0..self.streams {
            let (client, plan, health, finish, done) = (client.clone(), plan.clone(), health.clone(), finish.clone(), done.clone());
            let name = format!("{run}-{number}");
            lanes.spawn(async move { lane(&client, &plan, &health, &finish, &name, seed.wrapping_add(number), &done).await });
        }
        let clock = self.clock(&finish, &done, &health);
        tokio::pin!(clock);
        let (mut total, mut ticking) = (Lane::default(), true);
        while !lanes.is_empty() {
            tokio::select! {
                () = &mut clock, if ticking => ticking = false,
                ended = lanes.join_next() => {
                    let Some(ended) = ended else { break };
                    let lane = ended.map_err(|e| Failure::failed(format!("A worker ended unexpectedly: {e}.")))?;
                    let lane = lane.map_err(|failure| match failure {
                        Failure::Exit { code, message } => Failure::Exit { code, message: format!("{message} Streams named {run}-… stay behind.") },
                        other => other,
                    })?;
                    total.counts.add(&lane.counts);
                    total.broken += lane.broken;
                    total.findings.extend(lane.findings);
                    total.findings.truncate(FINDINGS_LISTED);
                    total.past.extend(lane.past);
                }
            }
        }
        watching.abort();
        let kept: Vec<String> = if self.keep { total.past.iter().flat_map(Past::streams).map(str::to_owned).collect() } else { Vec::new() };
        if !self.keep {
            for past in &total.past {
                past.remove(client).await;
            }
        }
        let report = Report {
            ok: total.broken == 0,
            seed,
            seconds: began.elapsed().as_secs_f64(),
            streams: self.streams,
            producers: self.producers,
            subscribers: self.subscribers,
            carrier: self.carrier,
            counts: total.counts,
            connections_lost: health.breaks(),
            restarts: health.restarts(),
            broken: total.broken,
            findings: total.findings,
            kept,
        };
        report.print(json)?;
        match report.findings.first() {
            None if report.ok => Ok(()),
            first => {
                let rule = first.map_or("a promise", |finding| finding.rule);
                Err(Failure::failed(format!("{rule} was broken ({} findings).", report.broken)))
            }
        }
    }

    /// Shows how far it is, pauses in the middle, and says when it is over.
    async fn clock(&self, finish: &AtomicBool, done: &AtomicU64, health: &Health) {
        let total = Duration::from_secs(self.seconds);
        let mut progress = Progress::new("acknowledged", None, self.no_progress);
        let mut shown = 0;
        let mut show = |progress: &mut Progress| {
            let now = done.load(Ordering::Relaxed);
            progress.add(now - shown);
            shown = now;
        };
        let (mut spent, mut paused) = (Duration::ZERO, !self.pause);
        let mut last = Instant::now();
        let mut signal = signal(SignalKind::interrupt()).ok();
        let mut interrupted = false;
        while spent < total && !interrupted && !health.is_given_up() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = pressed(&mut signal) => interrupted = true,
            }
            spent += last.elapsed();
            last = Instant::now();
            show(&mut progress);
            if !paused && spent >= total / 2 {
                paused = true;
                eprintln!("Half of the time is over, and the work goes on. Kill what you like, start it again, and press Enter.");
                let mut enter = tokio::task::spawn_blocking(|| drop(std::io::stdin().read_line(&mut String::new())));
                loop {
                    tokio::select! {
                        _ = &mut enter => break,
                        () = pressed(&mut signal) => {
                            interrupted = true;
                            break;
                        }
                        () = tokio::time::sleep(Duration::from_millis(250)) => show(&mut progress),
                    }
                }
                last = Instant::now();
            }
        }
        progress.finish();
        if interrupted {
            eprintln!("Interrupted: what was done so far is checked, then the streams are removed. Once more leaves at once, and the streams stay.");
        }
        if !self.no_progress {
            eprintln!("The writers stop; readers go on to the end, and everything is checked.");
        }
        finish.store(true, Ordering::SeqCst);
    }
}

/// Ctrl-C.
async fn pressed(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// One stream after the other, until it is time to finish.
async fn lane(client: &Client, plan: &Arc<Plan>, health: &Arc<Health>, finish: &AtomicBool, name: &str, seed: u64, done: &AtomicU64) -> Outcome<Lane> {
    let mut lane = Lane::default();
    for number in 0.. {
        let (verdict, past) = round::run(client, plan, health, finish, &format!("{name}-{number}"), seed.wrapping_mul(31).wrapping_add(number), done).await?;
        lane.counts.add(&verdict.counts);
        lane.broken += verdict.broken;
        lane.findings.extend(verdict.findings);
        lane.findings.truncate(FINDINGS_LISTED);
        lane.past.push_back(past);
        let over = finish.load(Ordering::SeqCst) || lane.broken > 0;
        let again = if over { lane.past.len() - 1 } else { lane.past.len().saturating_sub(ROUNDS_KEPT) };
        for index in 0..again {
            let findings = lane.past[index].again(client, plan, health).await?;
            lane.broken += findings.len() as u64;
            lane.findings.extend(findings);
        }
        if over {
            break;
        }
        for past in lane.past.drain(..again) {
            past.remove(client).await;
        }
    }
    Ok(lane)
}
