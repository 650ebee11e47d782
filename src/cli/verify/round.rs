//! One round: a stream of its own with everybody who works on it, from its creation to its verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::check::Check;
use super::history::{Counts, Finding, History, Outcome, chain, hash};
use super::monitor::{self, Health};
use super::{Carrier, Plan, readers, writers};
use crate::cli::failure::{Failure, Outcome as Done};
use crate::client::{Client, Error, Result};
use crate::types::request::Start;
use crate::types::{Applied, Code};

/// No progress for this long, with a broker that answers: something is lost.
const STUCK: Duration = Duration::from_secs(45);
/// The same once something was found: the verdict stands, and nobody needs to wait for what will not come.
const STUCK_AND_BROKEN: Duration = Duration::from_secs(3);

/// What all workers of a round share.
pub struct Round {
    pub client: Client,
    pub plan: Arc<Plan>,
    pub input: String,
    pub output: String,
    /// The broker-wide producer of its commits.
    pub committer: String,
    pub history: Mutex<History>,
    /// Writers stop.
    pub stop: AtomicBool,
    /// Where the stream ends, once nobody writes any more. `u64::MAX`: not yet.
    pub target: AtomicU64,
    pub health: Arc<Health>,
    pub seed: u64,
}

/// A round that is over: what is left to compare it with later.
pub struct Past {
    input: String,
    output: String,
    committer: String,
    chain: u64,
    next: u64,
}

/// What a round found.
pub struct Verdict {
    pub counts: Counts,
    pub findings: Vec<Finding>,
    pub broken: u64,
}

impl Round {
    /// Are the writers to stop?
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Has a reader at `next` seen everything?
    pub fn is_over(&self, next: u64) -> bool {
        next >= self.target.load(Ordering::SeqCst)
    }

    /// How long nothing may come.
    pub fn patience(&self) -> Duration {
        if self.history.lock().broken > 0 { STUCK_AND_BROKEN } else { STUCK }
    }

    /// How an attempt ended, by its error.
    pub fn outcome(&self, error: &Error) -> Outcome {
        match error.applied() {
            Applied::No => Outcome::Refused,
            Applied::Unknown => Outcome::Unknown,
        }
    }

    /// An error that no rule lets come here. Broken connections are not meant.
    pub fn surprise(&self, who: &str, error: &Error) {
        let rule = match error {
            Error::Protocol(_) => "I-11",
            _ => match error.code() {
                None => return,
                Some(Code::ProducerStateLost | Code::ProducerUnknown | Code::ProducerSeqGap | Code::ProducerSeqOverlap | Code::ProducerSeqReused) => "I-6",
                Some(Code::DataCorrupt) => "I-5",
                Some(Code::LogEpochChanged | Code::StreamReplaced | Code::NotFound) => "I-1",
                Some(Code::PositionBeyondEnd | Code::AckBeyondEnd) => "I-7",
                Some(Code::CursorAhead) => "I-14",
                Some(_) => "I-17",
            },
        };
        let code = error.code().map(|code| format!(" ({code})")).unwrap_or_default();
        self.history.lock().finding(rule, None, format!("{who} heard{code}: {error}"));
    }

    /// Tries until it works. `None`: it never will, which is noted; or the broker has been given up.
    pub async fn until<T, F: Future<Output = Result<T>>>(&self, who: &str, call: impl Fn() -> F) -> Option<T> {
        loop {
            match call().await {
                Ok(done) => return Some(done),
                Err(error) if error.is_retryable() && !self.health.is_given_up() => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => {
                    self.surprise(who, &error);
                    return None;
                }
            }
        }
    }

    /// `POST path`, once.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.client.admin().call(Method::POST, path, Some(body)).await
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/v1/streams/{}/{rest}", self.input)
    }
}

/// Runs one round, until `finish` or until the stream is long enough.
pub async fn run(
    client: &Client,
    plan: &Arc<Plan>,
    health: &Arc<Health>,
    finish: &AtomicBool,
    name: &str,
    seed: u64,
    done: &AtomicU64,
) -> Done<(Verdict, Past)> {
    let (input, output) = (name.to_owned(), format!("{name}-out"));
    let round = Arc::new(Round {
        client: client.clone(),
        plan: plan.clone(),
        committer: format!("{name}:k3"),
        history: Mutex::new(History::new(name)),
        stop: AtomicBool::new(false),
        target: AtomicU64::new(u64::MAX),
        health: health.clone(),
        seed,
        input,
        output,
    });
    for name in [&round.input, &round.output] {
        let fields: Map<String, Value> = json!({"description": "made by tidelog verify"}).as_object().cloned().unwrap_or_default();
        loop {
            match client.admin().create_stream(name, fields.clone()).await {
                Ok(_) => break,
                // An answer was lost; nobody else uses this name.
                Err(error) if error.code() == Some(Code::NameTaken) => break,
                Err(error) if error.code() == Some(Code::NotFound) => {
                    round.history.lock().finding("I-7", None, format!("stream {name} was made, and then could not be found"));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) if error.is_retryable() && !health.is_given_up() => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut writing = writers::spawn(&round);
    let mut reading = readers::spawn(&round);
    let watching = tokio::spawn(monitor::watch(round.clone()));
    let mut told = 0;
    while !finish.load(Ordering::SeqCst) && !health.is_given_up() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (acknowledged, events) = {
            let history = round.history.lock();
            (history.counts.acknowledged, history.known())
        };
        done.fetch_add(acknowledged - told, Ordering::Relaxed);
        told = acknowledged;
        if events >= plan.round_events {
            break;
        }
    }
    round.stop.store(true, Ordering::SeqCst);
    ended(&mut writing, health).await?;
    let found = round.until("the end", || async { client.admin().stream(&round.input).await }).await;
    // Without an end nobody can be waited for; why is noted.
    round.target.store(found.map_or(0, |stream| stream.state.next_offset), Ordering::SeqCst);
    let effects = ended(&mut reading, health).await?;
    watching.abort();
    let past = judge(&round, effects).await?;
    let mut history = round.history.lock();
    done.fetch_add(history.counts.acknowledged - told, Ordering::Relaxed);
    let verdict = Verdict { counts: std::mem::take(&mut history.counts), findings: std::mem::take(&mut history.findings), broken: history.broken };
    Ok((verdict, past))
}

async fn ended<T: 'static>(tasks: &mut JoinSet<T>, health: &Health) -> Done<Vec<T>> {
    let mut all = Vec::new();
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(all),
                Some(ended) => all.push(ended.map_err(|e| Failure::failed(format!("A worker ended unexpectedly: {e}.")))?),
            },
            () = health.given_up() => return Err(Failure::Exit { code: 6, message: health.why() }),
        }
    }
}

/// Reads both streams back and holds them against the history.
async fn judge(round: &Round, effects: Vec<readers::Effects>) -> Done<Past> {
    let mut history = std::mem::take(&mut *round.history.lock());
    let mut check = Check::new(&mut history);
    let over = round.plan.carrier;
    let (next, mut trouble) = read_back(round, &round.input, over, |offset, data| check.event(offset, data)).await?;
    let chained = check.end(next.unwrap_or(0));
    if over == Carrier::All {
        // Once more by other means: it must be the very same.
        let mut again = 0;
        let (_, other) = read_back(round, &round.input, Carrier::Rest, |offset, data| again = chain(again, offset, hash(data))).await?;
        if other.is_none() && trouble.is_none() && again != chained {
            history.finding("I-4", None, "read over REST it holds other events than read over WebSocket");
        }
        trouble = trouble.or(other);
    }
    for found in effects {
        history.counts.effects += found.effects;
        history.counts.effects_twice += found.twice;
        if Some(found.next) != next {
            history.finding("I-12", Some(found.next), format!("{} got as far as {} of {}", found.name, found.next, next.unwrap_or(0)));
        } else if found.chain != chained {
            history.finding("I-16", None, format!("the effects of {} are not the ones of the log", found.name));
        }
        match round.client.admin().subscription(&round.input, &found.name).await {
            Ok(subscription) if found.cursor_counts && Some(subscription.next) != next => {
                history.finding("I-13", Some(subscription.next), format!("{} had acked everything, and its cursor is at {}", found.name, subscription.next));
            }
            Ok(subscription) => history.cursor(&found.name, subscription.next, history.confirmed(&found.name)),
            Err(error) if error.is_retryable() => {}
            Err(error) => history.finding("I-13", None, format!("the cursor of {} cannot be found: {error}", found.name)),
        }
    }
    // The output is the image of the input, event by event.
    let (mut image, mut at) = (0, 0u64);
    let (end, other) = read_back(round, &round.output, Carrier::Websocket, |offset, data| {
        if offset == at {
            image = chain(image, offset, hash(data));
            at += 1;
        }
    })
    .await?;
    if (end, at) != (next, next.unwrap_or(0)) {
        history.finding("I-10", end, format!("the output of commits ends at {}, the input at {}", end.unwrap_or(0), next.unwrap_or(0)));
    } else if image != chained {
        history.finding("I-16", None, "the output of commits is not the image of the input");
    }
    *round.history.lock() = history;
    if let Some(error) = trouble.or(other) {
        round.surprise("reading back", &error);
    }
    Ok(Past { input: round.input.clone(), output: round.output.clone(), committer: round.committer.clone(), chain: chained, next: next.unwrap_or(0) })
}

/// Reads a stream from its beginning to its end. The end as the broker says it (`None`: it does not), and the error that ended it early.
async fn read_back(round: &Round, stream: &str, over: Carrier, mut take: impl FnMut(u64, &[u8])) -> Done<(Option<u64>, Option<Error>)> {
    let mut at = 0;
    let end = match round.until("reading back", || async { round.client.admin().stream(stream).await }).await {
        Some(found) => found.state.next_offset,
        None if round.health.is_given_up() => return Err(Failure::Exit { code: 6, message: round.health.why() }),
        None => return Ok((None, None)),
    };
    while at < end {
        let step = match over {
            Carrier::Rest => page(round, stream, &mut at, &mut take).await,
            _ => push(round, stream, &mut at, end, &mut take).await,
        };
        match step {
            Ok(()) => {}
            Err(error) if error.is_retryable() && !round.health.is_given_up() => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) if round.health.is_given_up() => return Err(error.into()),
            Err(error) => return Ok((Some(end), Some(error))),
        }
    }
    Ok((Some(end), None))
}

async fn push(round: &Round, stream: &str, at: &mut u64, end: u64, take: &mut impl FnMut(u64, &[u8])) -> Result<()> {
    let mut consumer = round.client.consumer(stream).from(Start::Offset(*at)).credit(20_000, 8 << 20).give_up_after(STUCK).open().await?;
    while *at < end {
        let Ok(next) = tokio::time::timeout(STUCK, consumer.next_event()).await else {
            return Err(Error::Protocol(format!("nothing came for {} s at offset {at} of {end}", STUCK.as_secs())));
        };
        let Some(event) = next else { return Err(Error::Closed) };
        let event = event?;
        take(event.offset, &event.data);
        *at = event.offset + 1;
    }
    consumer.close().await;
    Ok(())
}

async fn page(round: &Round, stream: &str, at: &mut u64, take: &mut impl FnMut(u64, &[u8])) -> Result<()> {
    let path = format!("/v1/streams/{stream}/events?from={at}&limit=5000");
    let page: Value = round.client.admin().call(Method::GET, &path, None).await?;
    let before = *at;
    for event in page["events"].as_array().into_iter().flatten() {
        let (Some(offset), Some(data)) = (event["offset"].as_u64(), event["data"].as_str()) else {
            return Err(Error::Protocol(format!("an event without offset or text: {event}")));
        };
        take(offset, data.as_bytes());
        *at = offset + 1;
    }
    if *at == before { Err(Error::Protocol(format!("an empty page at offset {at} before the end"))) } else { Ok(()) }
}

impl Past {
    /// Reads the stream once more: what was right a while ago still is.
    pub async fn again(&self, client: &Client, plan: &Arc<Plan>, health: &Arc<Health>) -> Done<Vec<Finding>> {
        let round = Round {
            client: client.clone(),
            plan: plan.clone(),
            input: self.input.clone(),
            output: self.output.clone(),
            committer: self.committer.clone(),
            history: Mutex::new(History::new(&self.input)),
            stop: AtomicBool::new(true),
            target: AtomicU64::new(0),
            health: health.clone(),
            seed: 0,
        };
        let mut again = 0;
        let (end, error) = read_back(&round, &self.input, plan.carrier, |offset, data| again = chain(again, offset, hash(data))).await?;
        match error {
            Some(error) => round.surprise("reading an earlier round again", &error),
            None if (end, again) != (Some(self.next), self.chain) => {
                round.history.lock().finding("I-1", None, "its events are not the ones that were there when its round ended")
            }
            None => {}
        }
        let findings = std::mem::take(&mut round.history.lock().findings);
        Ok(findings)
    }

    /// Removes everything it made.
    pub async fn remove(&self, client: &Client) {
        for name in [&self.input, &self.output] {
            match client.admin().delete_stream(name).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(Code::NotFound) => {}
                Err(error) => eprintln!("Stream {name} stays behind: {error}"),
            }
        }
        match client.admin().delete_producer(None, &self.committer).await {
            Err(error) if error.code() != Some(Code::NotFound) => eprintln!("Producer {} stays behind: {error}", self.committer),
            _ => {}
        }
    }

    /// The names of its streams.
    pub fn streams(&self) -> [&str; 2] {
        [&self.input, &self.output]
    }
}
