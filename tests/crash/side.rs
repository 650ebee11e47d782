//! Streams that come and go beside the others: appended to, trimmed, closed to a producer, deleted and created again under the same name,
//! over REST and gRPC. Each life of such a stream keeps what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use serde_json::{Value, json};
use tidelog::types::Applied;
use tidelog::wire::proto::v1;
use tonic::Request;

use crate::dice::Dice;
use crate::door::{Door, Failure, ask, ask_json};
use crate::history::{Append, Outcome, Side};
use crate::writers::{Calls, body, message, open};

/// How long one question is asked again while nobody answers.
const PATIENCE: Duration = Duration::from_secs(60);

struct Churn {
    door: Door,
    grpc: Calls,
    dice: Dice,
    since: Instant,
    /// Lives that ended.
    over: Vec<Side>,
    /// The life of each name, if it has one.
    now: Vec<(String, Option<Side>)>,
    number: u64,
    who: u64,
}

/// Works on `names` streams until it is told to stop; all their lives.
pub async fn churn(door: Door, who: u64, names: u64, dice: Dice, since: Instant, stop: Arc<AtomicBool>) -> Vec<Side> {
    let now = (0..names).map(|n| (format!("side-{who}-{n}"), None)).collect();
    let mut churn = Churn { grpc: Calls::new(door.clone()), door, dice, since, over: Vec::new(), now, number: 0, who };
    while !stop.load(Ordering::SeqCst) {
        let which = churn.dice.below(names) as usize;
        match churn.dice.below(20) {
            _ if churn.now[which].1.is_none() => churn.create(which).await,
            0 => churn.delete(which).await,
            1..=3 => churn.trim(which).await,
            4..=6 => churn.producer(which).await,
            _ => churn.append(which).await,
        }
        tokio::time::sleep(churn.dice.millis(0, 25)).await;
    }
    let mut sides = churn.over;
    sides.extend(churn.now.into_iter().filter_map(|(_, side)| side));
    sides
}

fn id_of(stream: &Value) -> u64 {
    stream["id"].as_u64().unwrap_or_else(|| panic!("no id in {stream}"))
}

impl Churn {
    fn micros(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }

    fn side(&mut self, which: usize) -> &mut Side {
        self.now[which].1.as_mut().expect("it lives")
    }

    /// What is there under this name, asked until somebody answers. `None`: nothing.
    async fn look(&self, name: &str) -> Option<Value> {
        let began = Instant::now();
        loop {
            match ask(&self.door, "GET", &format!("/v1/streams/{name}"), &[], b"").await {
                Ok(stream) => return Some(stream),
                Err(failure) if failure.code == "not_found" => return None,
                Err(failure) => assert!(began.elapsed() < PATIENCE, "nobody says what became of {name}: {failure:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn create(&mut self, which: usize) {
        let name = self.now[which].0.clone();
        let answer = if self.dice.one_in(2) {
            let ask = v1::CreateStreamRequest { name: name.clone(), ..Default::default() };
            self.grpc.ask::<v1::Stream>("/tidelog.v1.Admin/CreateStream", Request::new(ask.encode_to_vec().into())).await.map(|s| s.id)
        } else {
            ask_json(&self.door, "POST", "/v1/streams", &json!({"name": name})).await.map(|stream| id_of(&stream))
        };
        let id = match answer {
            Ok(id) => Some(id),
            // Only we use the name, so what is there now is what was asked for.
            Err(failure) if failure.applied == Applied::Unknown || failure.code == "name_taken" => {
                self.look(&name).await.filter(|stream| stream["status"] == "Ready").map(|stream| id_of(&stream))
            }
            Err(_) => None,
        };
        // A request that lost its way may still be carried out, or a deletion that was not heard of still be on its way.
        self.now[which].1 = id.map(|id| Side { name, id, ..Side::default() });
    }

    async fn append(&mut self, which: usize) {
        self.number += 1;
        let Some(Side { name, id, .. }) = self.now[which].1.clone_head() else { return };
        let value = format!("x{} {} {}", self.who, self.number, "surf".repeat(self.dice.below(400) as usize));
        let began = self.micros();
        let answer = if self.dice.one_in(2) {
            self.grpc.append(&v1::Append { stream_id: Some(id), ..message(&name, std::slice::from_ref(&value)) }, None).await
        } else {
            let body = body(std::slice::from_ref(&value));
            ask_json(&self.door, "POST", &format!("/v1/streams/{name}/events"), &body).await.map(|appended| appended["first_offset"].as_u64())
        };
        let outcome = answer.map_or_else(Failure::outcome, |first| Outcome::Acked { first });
        let append = Append { value, began, ended: self.micros(), expected: None, outcome };
        self.side(which).appends.push(append);
    }

    async fn trim(&mut self, which: usize) {
        let end = self.side(which).appends.iter().filter_map(|a| if let Outcome::Acked { first } = a.outcome { first } else { None }).max();
        let Some(end) = end else { return };
        let before = self.dice.between(0, end + 1);
        let name = self.side(which).name.clone();
        let side = self.side(which);
        side.trimmed_at_most = side.trimmed_at_most.max(before);
        let answer = if self.dice.one_in(2) {
            let ask = v1::TrimStreamRequest { name, before: Some(v1::trim_stream_request::Before::BeforeOffset(before)) };
            self.grpc.ask::<v1::Stream>("/tidelog.v1.Admin/TrimStream", Request::new(ask.encode_to_vec().into())).await.map(|s| s.first_offset)
        } else {
            let answer = ask_json(&self.door, "POST", &format!("/v1/streams/{name}/trim"), &json!({"before_offset": before})).await;
            answer.map(|stream| stream["state"]["first_offset"].as_u64().unwrap_or_else(|| panic!("no first_offset in {stream}")))
        };
        if let Ok(first) = answer {
            let side = self.side(which);
            side.trimmed = side.trimmed.max(first.min(before));
        }
    }

    /// Opens a producer, appends with it, and forgets it.
    async fn producer(&mut self, which: usize) {
        let Some(Side { name, id, .. }) = self.now[which].1.clone_head() else { return };
        let producer = format!("q{}", self.dice.below(2));
        let Some((epoch, last_seq)) = open(&mut self.grpc, &self.door, &name, &producer, &mut self.dice).await else { return };
        self.side(which).opened.push((producer.clone(), epoch, last_seq));
        self.number += 1;
        let (value, seq, began) = (format!("x{} {} by {producer}", self.who, self.number), last_seq.map_or(0, |last| last + 1), self.micros());
        let stamp = Some(v1::ProducerStamp { id: producer.clone(), epoch, seq });
        let append = v1::Append { stream_id: Some(id), producer: stamp, ..message(&name, std::slice::from_ref(&value)) };
        let outcome = self.grpc.append(&append, None).await.map_or_else(Failure::outcome, |first| Outcome::Acked { first });
        let append = Append { value, began, ended: self.micros(), expected: None, outcome };
        self.side(which).appends.push(append);
        if self.dice.one_in(3) {
            let _ = ask(&self.door, "DELETE", &format!("/v1/streams/{name}/producers/{producer}"), &[], b"").await;
        }
    }

    /// Deletes it, waits until it is gone, and makes room for the next life.
    async fn delete(&mut self, which: usize) {
        let name = self.side(which).name.clone();
        self.side(which).deleting = true;
        let answer = if self.dice.one_in(2) {
            let ask = v1::DeleteStreamRequest { name: name.clone() };
            self.grpc.ask::<v1::Operation>("/tidelog.v1.Admin/DeleteStream", Request::new(ask.encode_to_vec().into())).await.map(drop)
        } else {
            ask(&self.door, "DELETE", &format!("/v1/streams/{name}"), &[], b"").await.map(drop)
        };
        let id = self.side(which).id;
        match answer {
            Ok(()) => {}
            Err(failure) if failure.applied == Applied::No => {
                // It lives, unless an earlier request was carried out after all.
                if self.look(&name).await.is_some_and(|stream| id_of(&stream) == id && stream["status"] == "Ready") {
                    return;
                }
            }
            Err(_) => {}
        }
        let confirmed = answer_is_confirmed(&self.door, &name, id).await;
        if !confirmed {
            // Not heard of: the stream is as it was, or will be gone.
            return;
        }
        self.side(which).deleted = true;
        let side = self.now[which].1.take();
        self.over.extend(side);
    }
}

/// Waits until the stream of this id is gone; `false` if it is still ready, as if nothing had been asked.
async fn answer_is_confirmed(door: &Door, name: &str, id: u64) -> bool {
    let began = Instant::now();
    loop {
        match ask(door, "GET", &format!("/v1/streams/{name}"), &[], b"").await {
            Err(failure) if failure.code == "not_found" => return true,
            Ok(stream) if id_of(&stream) != id => return true,
            Ok(stream) if stream["status"] == "Ready" => return false,
            other => assert!(began.elapsed() < PATIENCE, "the deletion of {name} does not end: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

trait CloneHead {
    /// Name and id only: the rest grows.
    fn clone_head(&self) -> Option<Side>;
}

impl CloneHead for Option<Side> {
    fn clone_head(&self) -> Option<Side> {
        self.as_ref().map(|side| Side { name: side.name.clone(), id: side.id, ..Side::default() })
    }
}
