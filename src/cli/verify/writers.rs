//! Who appends: producers over WebSocket (pipelined, resent unchanged, replaced now and then), a producer over REST that sends batches again
//! on purpose, and appenders without a producer, with and without a condition.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Carrier;
use super::dice::Dice;
use super::history::{Outcome, Run, value};
use super::round::Round;
use crate::client::{Error, NewEvent, Producer};
use crate::types::Code;

/// Starts all of them.
pub fn spawn(round: &Arc<Round>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let producers = round.plan.producers;
    let (websocket, rest) = match round.plan.carrier {
        Carrier::Websocket => (producers, 0),
        Carrier::Rest => (0, producers),
        Carrier::All => (producers, 1),
    };
    for who in 0..websocket {
        tasks.spawn(produce(round.clone(), who, Dice::of(round.seed, &format!("p{who}"))));
    }
    for who in websocket..websocket + rest {
        tasks.spawn(repeat(round.clone(), who, Dice::of(round.seed, &format!("p{who}"))));
    }
    tasks.spawn(append(round.clone(), 0, Dice::of(round.seed, "a0")));
    tasks
}

fn events(who: u64, run: Run) -> Vec<String> {
    (0..run.count).map(|index| value('p', who, run.seq + index, run.incarnation, index, run.count)).collect()
}

async fn open(round: &Round, who: u64) -> Option<Producer> {
    let id = format!("p{who}");
    let broken = round.health.breaks();
    let producer = round.until(&id, || async { round.client.producer(&round.input, &id).open().await }).await?;
    let opened = producer.opened();
    round.history.lock().opened(who, opened.epoch, opened.last_seq, broken == round.health.breaks());
    Some(producer)
}

/// Sends batches, many of them under way, until the round is to stop.
async fn produce(round: Arc<Round>, who: u64, mut dice: Dice) {
    let mut answers = JoinSet::new();
    let Some(mut producer) = open(&round, who).await else { return };
    let mut until_replaced = dice.between(20, 120);
    while !round.stopping() {
        let count = dice.between(1, 12);
        let sent = send(&round, who, &producer, count, &mut answers).await;
        until_replaced -= 1;
        if !sent || until_replaced == 0 {
            if sent {
                // A successor while batches of this one are under way.
                for _ in 0..dice.below(4) {
                    let count = dice.between(1, 6);
                    send(&round, who, &producer, count, &mut answers).await;
                }
            }
            let broken = round.health.breaks();
            let Some(successor) = open(&round, who).await else { return };
            let old = std::mem::replace(&mut producer, successor);
            round.history.lock().counts.takeovers += 1;
            late_append(&round, who, &old, &producer).await;
            // Everything of the old one has its answer before the new one goes on: whose the next numbers are is definite.
            while answers.join_next().await.is_some() {}
            drop(old);
            if broken != round.health.breaks() || !round.health.is_up() {
                round.history.lock().unclean(who, producer.opened().epoch);
            }
            until_replaced = dice.between(20, 120);
        }
        while answers.try_join_next().is_some() {}
        tokio::time::sleep(dice.around(round.plan.pause(count))).await;
    }
    if let Err(error) = producer.close().await
        && error.code() != Some(Code::ProducerFenced)
    {
        round.surprise(&format!("p{who}"), &error);
    }
    while answers.join_next().await.is_some() {}
}

/// `false`: this incarnation is at its end.
async fn send(round: &Arc<Round>, who: u64, producer: &Producer, count: u64, answers: &mut JoinSet<()>) -> bool {
    let run = Run { incarnation: producer.opened().epoch, seq: producer.next_seq(), count };
    let batch: Vec<NewEvent> = events(who, run).into_iter().map(NewEvent::text).collect();
    match producer.send(batch).await {
        Ok(receipt) => {
            let round = round.clone();
            answers.spawn(async move {
                let outcome = match receipt.await {
                    Ok(appended) => Outcome::Acked(appended.first_offset),
                    Err(error) => {
                        expected_end(&round, who, &error);
                        round.outcome(&error)
                    }
                };
                round.history.lock().answered(who, run, outcome);
            });
            true
        }
        Err(error) => {
            expected_end(round, who, &error);
            let outcome = round.outcome(&error);
            round.history.lock().answered(who, run, outcome);
            false
        }
    }
}

/// A producer ends when it is replaced, and for no other reason.
fn expected_end(round: &Round, who: u64, error: &Error) {
    if !matches!(error.code(), Some(Code::ProducerFenced | Code::SessionPoisoned)) && !error.is_retryable() {
        round.surprise(&format!("p{who}"), error);
    }
}

/// The replaced one sends once more, by its old epoch: it must be told so (P-2).
async fn late_append(round: &Round, who: u64, old: &Producer, new: &Producer) {
    let (epoch, seq) = (old.opened().epoch, new.opened().last_seq.map_or(0, |last| last + 1));
    if epoch >= new.opened().epoch {
        return;
    }
    let run = Run { incarnation: epoch, seq, count: 1 };
    match stamped(round, who, run, epoch).await {
        Ok((first, _)) => {
            let mut history = round.history.lock();
            history.finding("I-15", first, format!("an append of producer p{who} by epoch {epoch} was accepted after epoch {} was opened", new.opened().epoch));
            history.answered(who, run, Outcome::Acked(first));
        }
        Err(error) => {
            let outcome = round.outcome(&error);
            let mut history = round.history.lock();
            history.counts.stale_refused += u64::from(outcome == Outcome::Refused);
            history.answered(who, run, outcome);
        }
    }
}

/// One append of a producer over REST: its first offset, and whether it was recognised as a repetition.
async fn stamped(round: &Round, who: u64, run: Run, epoch: u64) -> Result<(Option<u64>, bool), Error> {
    let events: Vec<Value> = events(who, run).into_iter().map(|data| json!({"data": data, "encoding": "utf8"})).collect();
    let body = json!({"events": events, "producer": {"id": format!("p{who}"), "epoch": epoch, "seq": run.seq}});
    let answer = round.post(&round.path("events"), body).await?;
    Ok((answer["first_offset"].as_u64(), answer["duplicate"] == true))
}

/// A producer over REST, one batch after the other. A batch without an answer is sent again until it has one, and now and then one that has.
async fn repeat(round: Arc<Round>, who: u64, mut dice: Dice) {
    let id = format!("p{who}");
    let mut opened: Option<(u64, u64)> = None;
    let mut until_opened = 0;
    while !round.stopping() {
        let (epoch, seq) = match opened.filter(|_| until_opened > 0) {
            Some(opened) => opened,
            None => {
                let broken = round.health.breaks();
                let answer = round.until(&id, || async { round.post(&round.path("producers"), json!({"producer": id})).await }).await;
                let Some(answer) = answer else { return };
                let (Some(epoch), last_seq) = (answer["epoch"].as_u64(), answer["last_seq"].as_u64()) else { return };
                round.history.lock().opened(who, epoch, last_seq, broken == round.health.breaks());
                until_opened = dice.between(30, 90);
                (epoch, last_seq.map_or(0, |last| last + 1))
            }
        };
        until_opened -= 1;
        let count = dice.between(1, 6);
        let run = Run { incarnation: epoch, seq, count };
        let first = loop {
            match stamped(&round, who, run, epoch).await {
                Ok((first, _)) => {
                    round.history.lock().answered(who, run, Outcome::Acked(first));
                    break first;
                }
                // One batch at a time, from where the broker said: a gap means that it lost what it had acknowledged, and would be one for ever.
                Err(error)
                    if error.is_retryable() && !matches!(error.code(), Some(Code::ProducerUnknown | Code::ProducerSeqGap)) && !round.health.is_given_up() =>
                {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                Err(error) => {
                    round.surprise(&id, &error);
                    round.history.lock().answered(who, run, Outcome::Unknown);
                    return;
                }
            }
        };
        if dice.one_in(3)
            && let Ok((again, duplicate)) = stamped(&round, who, run, epoch).await
        {
            let mut history = round.history.lock();
            history.counts.repeats_recognised += u64::from(duplicate);
            if !duplicate || (first.is_some() && again.is_some() && first != again) {
                history.finding("I-3", again, format!("a batch of producer {id} was sent again unchanged, and answered with {again:?} instead of {first:?}"));
            }
        }
        opened = Some((epoch, seq + count));
        tokio::time::sleep(dice.around(round.plan.pause(count))).await;
    }
}

/// Appends one event after another without a producer, sending each once.
async fn append(round: Arc<Round>, who: u64, mut dice: Dice) {
    let mut known = 0;
    let mut number = 0;
    while !round.stopping() {
        let data = value('a', who, number, 0, 0, 1);
        number += 1;
        let way = dice.below(10);
        let expected = match way {
            0 | 1 => Some(known),
            2 => Some(known + 1_000_000),
            _ => None,
        };
        let over_rest = expected.is_some() || way < 6;
        let answer = if round.plan.carrier == Carrier::Rest || (over_rest && round.plan.carrier == Carrier::All) {
            let mut body = json!({"events": [{"data": data, "encoding": "utf8"}]});
            if let Some(expected) = expected {
                body["expected_next_offset"] = expected.into();
            }
            round.post(&round.path("events"), body).await.map(|answer| answer["first_offset"].as_u64())
        } else {
            round.client.append(&round.input, NewEvent::text(&data)).await.map(|appended| appended.first_offset)
        };
        let mut away = false;
        let outcome = match &answer {
            Ok(first) => {
                known = first.map_or(known, |first| first + 1);
                Outcome::Acked(*first)
            }
            Err(error) => {
                known = error.server().and_then(|e| e.details.get("next_offset")).and_then(Value::as_u64).unwrap_or(known);
                away = error.code().is_none();
                if !error.is_retryable() && error.code() != Some(Code::ConditionFailed) {
                    round.surprise(&format!("a{who}"), error);
                }
                round.outcome(error)
            }
        };
        if let (Some(wanted), Outcome::Acked(Some(first))) = (expected, outcome)
            && wanted != first
            && (over_rest && round.plan.carrier != Carrier::Websocket)
        {
            round.history.lock().finding("I-17", Some(first), format!("an append was to be stored at {wanted} only and is at {first}"));
        }
        round.history.lock().single(who, outcome);
        // Nobody is there: this is no busy loop.
        let pause = if away { Duration::from_millis(20) } else { dice.around(round.plan.pause(1)) };
        tokio::time::sleep(pause).await;
    }
}
