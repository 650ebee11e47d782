//! Writers. Producers run in a process of their own, this binary in another role, so that they can be killed; what they know they
//! write to a file at once. Appenders without a producer run beside the test and keep what they were told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidelog::client::{Client, Error, NewEvent, Producer, Protocol};
use tidelog::types::{Applied, Code};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::dice::Dice;
use crate::door::Door;
use crate::frames::Form;
use crate::history::{Append, Note, Outcome, value};
use crate::line::Carrier;
use crate::session::{Notes, Reader, note};
use crate::{process, told};

/// The stream everybody works on.
pub const INPUT: &str = "a";
/// A stream that is closed from the start.
pub const CLOSED: &str = "closed";

const ROLE: &str = "CRASH_ROLE";

/// Readers that live in a process of their own, so that they can be frozen: one for each way of acking on a connection.
pub const SUBSCRIBERS: [(&str, Carrier); 4] =
    [("z1", Carrier::Frames(Form::Json)), ("z2", Carrier::Frames(Form::Proto)), ("z3", Carrier::Frames(Form::Connect)), ("z4", Carrier::Calls)];
/// Exit code of subscribers who were replaced.
pub const REPLACED: i32 = 3;

/// A process of producers: `ids`, noting into `file`.
pub fn producers(socket: &Path, file: &Path, ids: &[u64], seed: u64) -> Command {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    in_role(&json!({"socket": socket, "file": file, "ids": ids.join(","), "seed": seed}))
}

/// A process of [`SUBSCRIBERS`], looking into `file`.
pub fn subscribers(socket: &Path, file: &Path, seed: u64) -> Command {
    in_role(&json!({"socket": socket, "file": file, "ids": "", "seed": seed}))
}

fn in_role(role: &Value) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its binary"));
    command.args(["--exact", "load::role", "--nocapture", "--test-threads=1"]).env(ROLE, role.to_string());
    command
}

/// The other role of this binary. As a test, without a role, it has nothing to do.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let role: Value = serde_json::from_str(&role).expect("the role is JSON");
    let text = |name: &str| role[name].as_str().expect("a text").to_owned();
    let ids: Vec<u64> = text("ids").split(',').filter(|id| !id.is_empty()).map(|id| id.parse().expect("a number")).collect();
    let notes = Arc::new(Mutex::new(File::create_new(text("file")).expect("a file of its own")));
    let socket = PathBuf::from(text("socket"));
    let seed = role["seed"].as_u64().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stop = Arc::new(AtomicBool::new(false));
    let replaced = runtime.block_on(async {
        let work = if ids.is_empty() { read(&socket, seed, &notes, &stop) } else { write(&socket, &ids, seed, &notes, &stop) };
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals can be heard");
        let all = futures_util::future::join_all(work);
        tokio::pin!(all);
        let done = tokio::select! {
            done = &mut all => done,
            _ = term.recv() => {
                stop.store(true, Ordering::SeqCst);
                all.await
            }
        };
        done.into_iter().for_each(|one| one.expect("nobody here panics"));
        !stop.load(Ordering::SeqCst)
    });
    if replaced {
        std::process::exit(REPLACED);
    }
}

fn write(socket: &Path, ids: &[u64], seed: u64, notes: &Notes, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let client = process::client(socket, Protocol::Binary);
    ids.iter().map(|id| tokio::spawn(produce(client.clone(), *id, Dice::of(seed, &id.to_string()), notes.clone(), stop.clone()))).collect()
}

fn read(socket: &Path, seed: u64, notes: &Notes, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let door = Door::Unix(socket.to_owned());
    let reader = |(name, carrier)| Reader {
        name,
        carrier,
        durable: true,
        loyal: true,
        door: door.clone(),
        straight: door.clone(),
        dice: Dice::of(seed, name),
        stop: stop.clone(),
        notes: Some(notes.clone()),
    };
    let one = |reader: Reader| tokio::spawn(async move { drop(reader.run().await) });
    SUBSCRIBERS.map(|it| one(reader(it))).into()
}

async fn open(client: &Client, id: u64, notes: &Notes) -> Producer {
    loop {
        match client.producer(INPUT, &format!("p{id}")).open().await {
            Ok(producer) => {
                let opened = producer.opened();
                note(notes, &Note::Opened { producer: id, epoch: opened.epoch, last_seq: opened.last_seq });
                return producer;
            }
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("producer {id} cannot be opened: {error}"),
        }
    }
}

/// Sends batches and goes on where the last process stopped (P-16). Now and then it opens itself again while the older self still
/// sends: a zombie, whose late batches must have no effect.
async fn produce(client: Client, id: u64, mut dice: Dice, notes: Notes, stop: Arc<AtomicBool>) {
    // Answers are noted as they come, by somebody else, so that batches stay pipelined.
    let (answers, mut inbox) = mpsc::channel::<(u64, u64, u64, tidelog::client::Receipt)>(1024);
    let noted = tokio::spawn({
        let notes = notes.clone();
        async move {
            while let Some((incarnation, seq, count, receipt)) = inbox.recv().await {
                let outcome = match receipt.await {
                    Ok(appended) => Outcome::Acked { first: appended.first_offset },
                    Err(error) => refused_or_unknown(&error),
                };
                note(&notes, &Note::Answered { producer: id, incarnation, seq, count, outcome });
            }
        }
    });
    let mut producer = open(&client, id, &notes).await;
    while !stop.load(Ordering::SeqCst) {
        let zombie = dice.one_in(150).then_some(());
        if zombie.is_some() {
            for _ in 0..dice.below(4) {
                send(&producer, id, &mut dice, &notes, &answers).await;
            }
            let old = std::mem::replace(&mut producer, open(&client, id, &notes).await);
            for _ in 0..dice.below(3) {
                send(&old, id, &mut dice, &notes, &answers).await;
            }
        }
        if !send(&producer, id, &mut dice, &notes, &answers).await {
            producer = open(&client, id, &notes).await;
        }
        tokio::time::sleep(dice.millis(0, 60)).await;
    }
    match producer.close().await {
        Ok(()) => {}
        // An older self that was looking for the broker took it back; what became of each batch is noted.
        Err(error) if error.code() == Some(Code::ProducerFenced) => {}
        Err(error) => panic!("producer {id} cannot finish: {error}"),
    }
    drop(answers);
    noted.await.expect("noting does not panic");
}

/// `false`: this incarnation is at its end.
async fn send(producer: &Producer, id: u64, dice: &mut Dice, notes: &Notes, answers: &mpsc::Sender<(u64, u64, u64, tidelog::client::Receipt)>) -> bool {
    let (incarnation, seq, count) = (producer.opened().epoch, producer.next_seq(), dice.between(1, 12));
    let events: Vec<NewEvent> = (seq..seq + count).map(|seq| NewEvent::text(value(id, seq, incarnation))).collect();
    note(notes, &Note::Sent { producer: id, incarnation, seq, count });
    match producer.send(events).await {
        Ok(receipt) => answers.send((incarnation, seq, count, receipt)).await.is_ok(),
        Err(error) => {
            note(notes, &Note::Answered { producer: id, incarnation, seq, count, outcome: refused_or_unknown(&error) });
            false
        }
    }
}

fn refused_or_unknown(error: &Error) -> Outcome {
    told::note_error(error);
    match error.applied() {
        Applied::Unknown => Outcome::Unknown,
        Applied::No => {
            let next = error.server().and_then(|e| e.details.get("next_offset")).and_then(Value::as_u64);
            Outcome::Refused { code: error.code().map_or("not_sent".into(), |code| code.as_str().to_owned()), next }
        }
    }
}

/// Appends one event after another without a producer, sending each once: over WebSocket, over REST, with a condition that holds
/// or not, and to a closed stream.
pub async fn append(client: Client, who: u64, mut dice: Dice, since: Instant, stop: Arc<AtomicBool>) -> Vec<Append> {
    let micros = || since.elapsed().as_micros() as u64;
    let mut appends = Vec::new();
    let mut known = 0;
    while !stop.load(Ordering::SeqCst) {
        let value = format!("u{who} {} {}", appends.len(), "ebb".repeat(dice.below(9) as usize));
        let way = dice.below(10);
        let expected = match way {
            // Often right for the one appender of a quiet moment; else a definite refusal.
            0..=1 => Some(known),
            2 => Some(known + 1_000_000),
            _ => None,
        };
        let began = micros();
        let outcome = match way {
            0..=4 => rest(&client, INPUT, &value, expected).await,
            5 => rest(&client, CLOSED, &value, None).await,
            _ => {
                client.append(INPUT, NewEvent::text(&value)).await.map_or_else(|error| refused_or_unknown(&error), |a| Outcome::Acked { first: a.first_offset })
            }
        };
        let ended = micros();
        known = match &outcome {
            Outcome::Acked { first: Some(first) } => first + 1,
            Outcome::Refused { next: Some(next), code } if code == Code::ConditionFailed.as_str() => *next,
            _ => known,
        };
        if outcome == (Outcome::Refused { code: "not_sent".into(), next: None }) {
            // Nobody is there; this is no busy loop.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if way == 5 && matches!(outcome, Outcome::Acked { .. }) {
            // It is not closed yet.
            continue;
        }
        let outcome = match outcome {
            // The end of another stream says nothing about this one.
            Outcome::Refused { code, .. } if way == 5 => Outcome::Refused { code, next: None },
            other => other,
        };
        appends.push(Append { value, began, ended, expected, outcome });
        tokio::time::sleep(dice.millis(0, 25)).await;
    }
    appends
}

async fn rest(client: &Client, stream: &str, value: &str, expected: Option<u64>) -> Outcome {
    let path = format!("/v1/streams/{stream}/events");
    let body = match expected {
        Some(expected) => ("application/json", json!({"events": [{"data": value, "encoding": "utf8"}], "expected_next_offset": expected}).to_string()),
        None => ("text/plain", value.to_owned()),
    };
    match client.admin().request(Method::POST, &path, Some((body.0, body.1.into_bytes())), process::PATIENCE).await {
        Err(error) => refused_or_unknown(&error),
        Ok(answer) => match answer.error() {
            Some(error) => refused_or_unknown(&error),
            None => {
                let body: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
                Outcome::Acked { first: body["metadata"]["first_offset"].as_u64() }
            }
        },
    }
}
