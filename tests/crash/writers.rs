//! Writers without the client library: single appends over REST and gRPC, with keys and without; a producer over calls with one answer,
//! which sends what was answered again on purpose; and runs of appends that do not wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tidelog::client::{IntoEvents as _, NewEvent};
use tidelog::types::request::{AppendRequest, ResumeRequest};
use tidelog::types::{Applied, StreamName};
use tidelog::wire::frame::{About, ClientFrame, ServerFrame};
use tidelog::wire::proto::v1;
use tokio::time::timeout;
use tonic::Request;

use crate::dice::Dice;
use crate::door::{ANSWERED, Door, Failure, ask, ask_json};
use crate::frames::{Form, Frames, calls, failure};
use crate::grpc_client::Grpc;
use crate::history::{Append, Note, Outcome, Run, Told, value};
use crate::load::INPUT;
use crate::told;

/// A connection for calls that is opened when it is needed, and again when it broke.
pub struct Calls {
    door: Door,
    grpc: Option<Grpc>,
}

impl Calls {
    pub fn new(door: Door) -> Self {
        Self { door, grpc: None }
    }

    /// One call.
    pub async fn ask<A: prost::Message + Default>(&mut self, path: &'static str, request: Request<Bytes>) -> Result<A, Failure> {
        if self.grpc.is_none() {
            self.grpc = timeout(ANSWERED, calls(&self.door)).await.ok().flatten();
        }
        let Some(grpc) = &mut self.grpc else { return Err(Failure::not_sent()) };
        let answer = match timeout(ANSWERED, grpc.ask(path, request)).await {
            Ok(Ok(answer)) => Ok(A::decode(answer.into_inner()).expect("a good message")),
            Ok(Err(status)) => Err(failure(&status)),
            Err(_) => Err(Failure::no_answer()),
        };
        if answer.as_ref().is_err_and(|failure| failure.code == "no_answer") {
            self.grpc = None;
        }
        answer
    }

    /// An append.
    pub async fn append(&mut self, append: &v1::Append, key: Option<&str>) -> Result<Option<u64>, Failure> {
        let mut request = Request::new(Bytes::from(append.encode_to_vec()));
        if let Some(key) = key {
            request.metadata_mut().insert("idempotency-key", key.parse().expect("a fine key"));
        }
        self.ask::<v1::Appended>("/tidelog.v1.Broker/Append", request).await.map(|appended| appended.first_offset)
    }
}

/// An append of texts, as a message.
pub fn message(stream: &str, values: &[String]) -> v1::Append {
    let event = |value: &String| v1::Event { data: value.clone().into(), encoding: v1::Encoding::Utf8.into(), ..Default::default() };
    v1::Append { stream: stream.to_owned(), events: Some(v1::Events { events: values.iter().map(event).collect() }), ..Default::default() }
}

/// The same as a body.
pub fn body(values: &[String]) -> Value {
    json!({"events": values.iter().map(|value| json!({"data": value, "encoding": "utf8"})).collect::<Vec<_>>()})
}

fn events_path(stream: &str) -> String {
    format!("/v1/streams/{stream}/events")
}

/// A refusal says nothing about an earlier attempt whose outcome is unknown.
fn settle(unknown: bool, answer: Result<Option<u64>, Failure>) -> Outcome {
    match answer {
        Ok(first) => Outcome::Acked { first },
        Err(failure) => match failure.outcome() {
            Outcome::Refused { .. } if unknown => Outcome::Unknown,
            outcome => outcome,
        },
    }
}

/// Appends one event after another: over gRPC or REST, once, or with a key until there is a definite answer (P-19).
pub async fn single(door: Door, who: u64, mut dice: Dice, since: Instant, stop: Arc<AtomicBool>) -> Vec<Append> {
    let micros = || since.elapsed().as_micros() as u64;
    let mut grpc = Calls::new(door.clone());
    let mut appends = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let value = format!("u{who} {} {}", appends.len(), "flow".repeat(dice.below(9) as usize));
        let key = dice.one_in(2).then(|| format!("{who}-{}", appends.len()));
        let over_grpc = dice.one_in(2);
        let began = micros();
        let (mut unknown, mut attempts) = (false, 0);
        let outcome = loop {
            attempts += 1;
            let answer = if over_grpc {
                grpc.append(&message(INPUT, std::slice::from_ref(&value)), key.as_deref()).await
            } else {
                rest(&door, &value, key.as_deref()).await
            };
            match answer {
                // Only a key makes it safe to send it again (P-17, P-19).
                Err(failure) if key.is_some() && attempts < 60 && is_passing(&failure) => {
                    unknown |= failure.applied == Applied::Unknown;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => break settle(unknown, answer),
            }
        };
        appends.push(Append { value, began, ended: micros(), expected: None, outcome });
        tokio::time::sleep(dice.millis(0, 30)).await;
    }
    appends
}

/// Sending the same again may help.
fn is_passing(failure: &Failure) -> bool {
    failure.applied == Applied::Unknown || ["not_sent", "unavailable", "storage_failed", "idempotency_in_progress"].contains(&failure.code.as_str())
}

async fn rest(door: &Door, value: &str, key: Option<&str>) -> Result<Option<u64>, Failure> {
    let mut headers = vec![("Content-Type", "text/plain")];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    ask(door, "POST", &events_path(INPUT), &headers, value.as_bytes()).await.map(|appended| appended["first_offset"].as_u64())
}

/// A producer over REST and gRPC calls. What has no definite answer is sent again as it was; what has one is now and then sent again all the
/// same, and must be recognised (P-4).
pub async fn stamped(door: Door, id: u64, mut dice: Dice, stop: Arc<AtomicBool>) -> Vec<Note> {
    let mut grpc = Calls::new(door.clone());
    let mut notes = Vec::new();
    let mut opened: Option<(u64, u64)> = None;
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(dice.millis(0, 30)).await;
        let Some((epoch, seq)) = opened else {
            if let Some((epoch, last_seq)) = open(&mut grpc, &door, INPUT, &format!("p{id}"), &mut dice).await {
                notes.push(Note::Opened { producer: id, epoch, last_seq });
                opened = Some((epoch, last_seq.map_or(0, |last| last + 1)));
            }
            continue;
        };
        let count = dice.between(1, 6);
        let values: Vec<String> = (seq..seq + count).map(|seq| value(id, seq, epoch)).collect();
        notes.push(Note::Sent { producer: id, incarnation: epoch, seq, count });
        let (mut unknown, mut again) = (false, u64::from(dice.one_in(4)));
        loop {
            let answer = if dice.one_in(2) {
                let stamp = v1::ProducerStamp { id: format!("p{id}"), epoch, seq };
                grpc.append(&v1::Append { producer: Some(stamp), ..message(INPUT, &values) }, None).await
            } else {
                let mut body = body(&values);
                body["producer"] = json!({"id": format!("p{id}"), "epoch": epoch, "seq": seq});
                ask_json(&door, "POST", &events_path(INPUT), &body).await.map(|appended| appended["first_offset"].as_u64())
            };
            match answer {
                Ok(first) => {
                    notes.push(Note::Answered { producer: id, incarnation: epoch, seq, count, outcome: Outcome::Acked { first } });
                    (opened, unknown) = (Some((epoch, seq + count)), true);
                    if again == 0 {
                        break;
                    }
                    again -= 1;
                }
                Err(failure) if is_passing(&failure) && !stop.load(Ordering::SeqCst) && !dice.one_in(8) => {
                    unknown |= failure.applied == Applied::Unknown;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(failure) => {
                    // Where it stands is told by opening again.
                    let outcome = settle(unknown, Err(failure));
                    notes.push(Note::Answered { producer: id, incarnation: epoch, seq, count, outcome });
                    opened = None;
                    break;
                }
            }
        }
        if dice.one_in(40) {
            opened = None;
        }
    }
    notes
}

/// Opens a producer over one call: epoch and last sequence number.
pub async fn open(grpc: &mut Calls, door: &Door, stream: &str, producer: &str, dice: &mut Dice) -> Option<(u64, Option<u64>)> {
    if dice.one_in(2) {
        let ask = v1::OpenProducer { stream: Some(stream.to_owned()), producer: producer.to_owned(), ..Default::default() };
        let opened: v1::ProducerOpened = grpc.ask("/tidelog.v1.Broker/OpenProducer", Request::new(ask.encode_to_vec().into())).await.ok()?;
        return Some((opened.epoch, opened.last_seq));
    }
    let opened = ask_json(door, "POST", &format!("/v1/streams/{stream}/producers"), &json!({"producer": producer})).await.ok()?;
    Some((opened["epoch"].as_u64().expect("an epoch"), opened["last_seq"].as_u64()))
}

/// Sends several appends without waiting for answers, one of which cannot hold: none behind it may be stored, until `resume` (P-12).
pub async fn pipelined(form: Form, door: Door, who: u64, mut dice: Dice, since: Instant, stop: Arc<AtomicBool>) -> (Vec<Append>, Vec<Run>) {
    let micros = || since.elapsed().as_micros() as u64;
    let stream = StreamName::parse(INPUT).expect("a name");
    let (mut appends, mut runs) = (Vec::new(), Vec::new());
    let mut frames: Option<Frames> = None;
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(dice.millis(5, 60)).await;
        if frames.is_none() {
            frames = Frames::open(form, &door).await;
        }
        let Some(line) = &mut frames else { continue };
        let count = dice.between(2, 6);
        let wrong = dice.one_in(3).then(|| dice.below(count));
        let mut run: Vec<Append> = Vec::new();
        let mut whole = true;
        for n in 0..count {
            let value = format!("u{who} {} {}", appends.len() as u64 + n, "swell".repeat(dice.below(9) as usize));
            let expected = (wrong == Some(n)).then_some(1 << 50);
            run.push(Append { value: value.clone(), began: micros(), ended: 0, expected, outcome: Outcome::Unknown });
            let events = NewEvent::text(value).into_events().expect("a good event");
            let request = AppendRequest { stream: stream.clone(), stream_id: None, events, producer: None, expected_next_offset: expected };
            whole &= whole && line.say(&ClientFrame::Append { req: n, request }).await.is_some();
        }
        let mut open = count;
        while whole && open > 0 {
            let Ok(Some(frame)) = timeout(ANSWERED, line.hear()).await else { break };
            let (n, outcome) = match frame {
                ServerFrame::Appended { req, reply } => (req, Outcome::Acked { first: reply.first_offset }),
                ServerFrame::Error { about: About::Req(req), error, .. } => {
                    let told: Told = told::of("frames", &error);
                    (req, Failure::told(told, Value::Object(error.details.clone())).outcome())
                }
                ServerFrame::Error { error, .. } => {
                    told::note(told::of("frames", &error));
                    break;
                }
                other => panic!("an appender heard {other:?}"),
            };
            let append = &mut run[n as usize];
            (append.ended, append.outcome) = (micros(), outcome);
            open -= 1;
        }
        let refused = run.iter().any(|append| matches!(append.outcome, Outcome::Refused { .. }));
        if open > 0 || !whole || (refused && resume(line, &stream).await.is_none()) {
            frames = None;
        }
        for append in run.iter_mut().filter(|append| append.ended == 0) {
            append.ended = micros();
        }
        runs.push(Run { carrier: form.name(), appends: run.iter().map(|a| (a.value.clone(), a.outcome.clone())).collect() });
        appends.extend(run);
    }
    (appends, runs)
}

async fn resume(line: &mut Frames, stream: &StreamName) -> Option<()> {
    line.say(&ClientFrame::Resume { req: 99, request: ResumeRequest { stream: stream.clone(), producer: None, seq: None } }).await?;
    match timeout(ANSWERED, line.hear()).await.ok()?? {
        ServerFrame::Resumed { .. } => Some(()),
        ServerFrame::Error { error, .. } => {
            told::note(told::of("frames", &error));
            None
        }
        other => panic!("an appender heard {other:?}"),
    }
}
