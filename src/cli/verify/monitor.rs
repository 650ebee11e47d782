//! Who looks from outside: whether the broker is there (and said so to the user), and where ends and cursors are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::round::Round;
use crate::client::{Client, Consumer};
use crate::types::request::Start;
use crate::types::{Code, Retry};

/// How often the broker is asked whether it is there.
const EVERY: Duration = Duration::from_millis(40);
/// An answer takes no longer than this from a broker that is there.
const PATIENCE: Duration = Duration::from_secs(3);

/// Is the broker there?
pub struct Health {
    up: AtomicBool,
    /// How often it went away.
    breaks: AtomicU64,
    /// How often it had been started anew when it came back.
    restarts: AtomicU64,
    gone: AtomicBool,
    why: Mutex<String>,
    began: Instant,
}

impl Health {
    pub fn new() -> Self {
        Self {
            up: AtomicBool::new(true),
            breaks: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            why: Mutex::default(),
            began: Instant::now(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::SeqCst)
    }

    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::SeqCst)
    }

    /// The broker has been away for too long.
    pub fn is_given_up(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Resolves when it has.
    pub async fn given_up(&self) {
        while !self.is_given_up() {
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The sentence about that.
    pub fn why(&self) -> String {
        self.why.lock().clone()
    }

    fn at(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Asks for ever. `say`: tell the user when it goes and when it is back.
    pub async fn watch(self: Arc<Self>, client: Client, give_up_after: Duration, say: bool) {
        let mut uptime = 0;
        let mut away: Option<Instant> = None;
        loop {
            match client.admin().request(Method::GET, "/v1", None, PATIENCE).await {
                Ok(answer) if answer.status.is_success() => {
                    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                    let now = body["metadata"]["environment"]["uptime_s"].as_u64().unwrap_or(uptime);
                    let restarted = now < uptime || (away.is_some() && now <= 1);
                    uptime = now;
                    self.restarts.fetch_add(u64::from(restarted), Ordering::SeqCst);
                    if let Some(since) = away.take() {
                        self.up.store(true, Ordering::SeqCst);
                        if say {
                            let how = if restarted { "; it had been started anew" } else { "" };
                            eprintln!("{:7.1} s  back after {:.1} s{how}", self.at(), since.elapsed().as_secs_f64());
                        }
                    } else if restarted {
                        self.breaks.fetch_add(1, Ordering::SeqCst);
                        if say {
                            eprintln!("{:7.1} s  the broker had been started anew, too quickly to be missed", self.at());
                        }
                    }
                }
                other => {
                    let since = *away.get_or_insert_with(|| {
                        self.up.store(false, Ordering::SeqCst);
                        self.breaks.fetch_add(1, Ordering::SeqCst);
                        if say {
                            eprintln!("{:7.1} s  connection lost; everybody goes on trying", self.at());
                        }
                        Instant::now()
                    });
                    if since.elapsed() >= give_up_after && !self.is_given_up() {
                        let last = other.map_or_else(|error| error.to_string(), |answer| format!("it answers {}", answer.status));
                        *self.why.lock() = format!("The broker has been away for {} s: {last}", give_up_after.as_secs());
                        self.gone.store(true, Ordering::SeqCst);
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Looks at ends and cursors of a round, until it is aborted.
pub async fn watch(round: Arc<Round>) {
    let admin = round.client.admin();
    let names: Vec<String> = (0..round.plan.subscribers).map(|n| format!("{}-{n}", if n % 2 == 0 { "exact" } else { "plain" })).collect();
    let mut probed = 0u32;
    loop {
        let known = round.history.lock().known();
        if let Ok(stream) = admin.stream(&round.input).await {
            let log_epoch = stream.rest.get("log_epoch").and_then(Value::as_u64).unwrap_or(0);
            round.history.lock().look(log_epoch, stream.state.first_offset, stream.state.next_offset, known);
        }
        for name in &names {
            let confirmed = round.history.lock().confirmed(name);
            if let Ok(subscription) = admin.subscription(&round.input, name).await {
                round.history.lock().cursor(name, subscription.next, confirmed);
            }
        }
        if let Ok(before) = admin.subscription(&round.input, "k3").await
            && let Ok(output) = admin.stream(&round.output).await
            && let Ok(after) = admin.subscription(&round.input, "k3").await
        {
            round.history.lock().image(before.next, output.state.next_offset, after.next);
        }
        probed += 1;
        if probed % 8 == 1 {
            probe(&round).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for what must be refused: a position and an ack beyond the end.
async fn probe(round: &Round) {
    const BEYOND: u64 = 1_000_000_000;
    let reader = || round.client.consumer(&round.input).subscription("probe").create();
    let Ok(consumer): Result<Consumer, _> = reader().open().await else { return };
    let (epoch, next) = (consumer.epoch().unwrap_or(0), consumer.subscribed().next);
    let path = round.path("subscriptions/probe/ack");
    match round.post(&path, json!({"epoch": epoch, "offset": BEYOND})).await {
        Ok(answer) => round.history.lock().finding("C-9", None, format!("an ack of {BEYOND}, far beyond the end, was accepted: {answer}")),
        Err(error) => refused(round, "an ack beyond the end", error.code(), &[Code::AckBeyondEnd, Code::SessionFenced, Code::SessionUnknown]),
    }
    drop(consumer);
    match reader().from(Start::Offset(BEYOND)).open().await {
        Ok(consumer) => {
            let began = consumer.subscribed().next;
            round.history.lock().finding("C-3", Some(began), format!("a session that was to begin at {BEYOND}, far beyond the end, was opened at {began}"));
        }
        Err(error) => refused(round, &format!("a position beyond the end (from {next})"), error.code(), &[Code::PositionBeyondEnd]),
    }
}

fn refused(round: &Round, what: &str, code: Option<Code>, fine: &[Code]) {
    // No code: no broker. What may be tried again says nothing either.
    let Some(code) = code.filter(|code| !fine.contains(code)) else { return };
    let temporary = matches!(crate::types::Error::new(code, "").retry, Retry::Same | Retry::Backoff);
    if !temporary {
        round.history.lock().finding("I-17", None, format!("{what} was refused as {code}"));
    }
}
