//! Appends without a producer: sent once, some on a condition. And appends under an idempotency key, sent until they are answered.

use std::sync::Arc;

use tidelog::broker::Principal;
use tidelog::types::request::{AppendRequest, ResumeRequest};
use tidelog::types::{Applied, Code, Error, IdempotencyKey};
use tidelog::wire::frame::{ClientFrame, ServerFrame};

use crate::dice::Dice;
use crate::history::{Append, Outcome};
use crate::net::Line;
use crate::producer::{tolerable, tolerate};
use crate::world::{INPUT, World, events, patience, stream};

fn request(text: &str, expected_next_offset: Option<u64>) -> AppendRequest {
    AppendRequest { stream: stream(INPUT), stream_id: None, events: events([(text, None)]), producer: None, expected_next_offset }
}

fn refused(error: &Error) -> Outcome {
    match error.applied {
        Applied::No => Outcome::Refused { code: error.code.to_string(), next: error.details.get("next_offset").and_then(serde_json::Value::as_u64) },
        Applied::Unknown => Outcome::Unknown,
    }
}

/// One after another.
pub async fn append(world: Arc<World>, who: u64) {
    let mut dice = world.dice(&format!("u{who}"));
    let (mut line, mut guess, mut number) = (None, 0, 0u64);
    while world.writing() {
        number += 1;
        let value = format!("u{who}-{number}");
        let began = world.tick();
        let (expected, outcome) = if !world.far && dice.one_in(4) {
            (None, keyed(&world, &value, &mut dice).await)
        } else {
            let expected = dice.one_in(3).then_some(guess);
            (expected, framed(&world, &mut line, &value, expected, &mut dice).await)
        };
        match &outcome {
            Outcome::Acked { first: Some(first) } => guess = first + 1,
            Outcome::Refused { next: Some(next), .. } => guess = *next,
            _ => {}
        }
        let ended = world.tick();
        world.history.lock().appends.push(Append { value, began, ended, expected, outcome });
        world.pause(&mut dice, 0, 20).await;
    }
}

/// Over a connection: sent once, whatever comes.
async fn framed(world: &Arc<World>, line: &mut Option<Line>, value: &str, expected: Option<u64>, dice: &mut Dice) -> Outcome {
    if line.is_none() {
        *line = world.net.connect("u").await;
    }
    let Some(open) = line.as_mut() else { return Outcome::Unknown };
    open.say(&ClientFrame::Append { req: 1, request: request(value, expected) });
    let outcome = match open.hear_within(patience(dice)).await {
        Some(ServerFrame::Appended { reply, .. }) => return Outcome::Acked { first: reply.first_offset },
        Some(ServerFrame::Error { error, .. }) => {
            if error.code != Code::ConditionFailed && !tolerable(error.code) {
                world.wrong(format!("an appender heard {error:?}"));
            }
            refused(&error)
        }
        Some(other) => {
            tolerate(world, &other);
            Outcome::Unknown
        }
        None => Outcome::Unknown,
    };
    if matches!(outcome, Outcome::Refused { .. }) && dice.one_in(2) {
        open.say(&ClientFrame::Resume { req: 2, request: ResumeRequest { stream: stream(INPUT), producer: None, seq: None } });
        if let Some(ServerFrame::Resumed { .. }) = open.hear_within(patience(dice)).await {
            return outcome;
        }
    }
    *line = None;
    outcome
}

/// Under a key (P-19): an answer that was lost is asked for again, until there is one.
async fn keyed(world: &Arc<World>, value: &str, dice: &mut Dice) -> Outcome {
    let key = IdempotencyKey::parse(value).expect("a key");
    let mut first = true;
    loop {
        let (request, key) = (request(value, None), key.clone());
        let answer = world.net.call("append once", |broker| async move { broker.append_once(&Principal::Operator, request, &key).await }).await;
        match answer {
            Some(Ok((reply, _))) => return Outcome::Acked { first: reply.first_offset },
            Some(Err(error)) if first && error.applied == Applied::No && tolerable(error.code) && dice.one_in(2) => return refused(&error),
            Some(Err(error)) if !tolerable(error.code) => {
                world.wrong(format!("an append under a key heard {error:?}"));
                return Outcome::Unknown;
            }
            _ => {}
        }
        if !world.writing() {
            return Outcome::Unknown;
        }
        first = false;
        world.pause(dice, 1, 40).await;
    }
}
