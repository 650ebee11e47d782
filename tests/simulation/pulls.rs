//! A reader that holds no connection: it pulls, and acks by token; now and then by the token of a session that is over.

use std::sync::Arc;
use std::time::Duration;

use tidelog::broker::{NewSubscription, Principal};
use tidelog::types::reply::Pulled;
use tidelog::types::request::{AckLevel, AckRequest, PullRequest, Start, Takeover};
use tidelog::types::{Code, Error};

use crate::checks::Ack;
use crate::history::Session;
use crate::producer::tolerable;
use crate::world::{INPUT, World, seen, stream, subscription, texts};

const NAME: &str = "pull";

fn request(epoch: Option<u64>, from: Option<u64>, max_events: u64, wait: Duration) -> PullRequest {
    PullRequest {
        stream: stream(INPUT),
        subscription: subscription(NAME),
        epoch,
        from: from.map(Start::Offset),
        takeover: Takeover::Steal,
        on_gap: None,
        log_epoch: None,
        max_events,
        max_bytes: 1 << 20,
        wait,
    }
}

/// Pulls until it has everything and that is acknowledged.
pub async fn pull(world: Arc<World>) {
    let mut dice = world.dice(NAME);
    loop {
        let new = NewSubscription { name: subscription(NAME), start: Start::Earliest, ack_timeout_s: None, max_in_flight: None, expires_s: None, filter: None };
        let of = stream(INPUT);
        match world.net.call("subscription", |broker| async move { broker.create_subscription(&Principal::Operator, &of, new).await }).await {
            Some(Ok(_)) => break,
            Some(Err(error)) if error.code == Code::NameTaken => break,
            _ => world.pause(&mut dice, 1, 20).await,
        }
    }
    // The session, where it goes on, and its tokens.
    let (mut session, mut acked): (Option<(u64, u64, usize)>, u64) = (None, 0);
    let mut old: Option<(u64, String)> = None;
    while !world.done(acked) {
        let (most, wait) = (dice.between(1, 30), dice.millis(0, 40));
        let going_on = session.filter(|_| !dice.one_in(8));
        let ask = request(going_on.map(|(epoch, ..)| epoch), going_on.map(|(_, next, _)| next), most, wait);
        let pulled = match world.net.call("pull", |broker| async move { broker.pull(&Principal::Operator, ask).await }).await {
            Some(Ok(pulled)) => pulled,
            Some(Err(error)) => {
                trouble(&world, &error);
                session = None;
                continue;
            }
            None => {
                // What was handed out with a lost answer is asked for again.
                world.pause(&mut dice, 1, 20).await;
                continue;
            }
        };
        let index = going_on.map_or_else(|| begin(&world, &pulled), |(.., index)| index);
        note(&world, &pulled, index);
        session = Some((pulled.epoch, pulled.next, index));
        if let Some((epoch, token)) = old.take().filter(|(epoch, _)| *epoch < pulled.epoch) {
            ack(&world, epoch, token, index, false, &mut acked).await;
        }
        if dice.one_in(5) {
            beyond(&world, pulled.epoch).await;
        }
        let Some(token) = pulled.ack_token else { continue };
        if dice.one_in(6) && !world.ending() {
            old = Some((pulled.epoch, token));
        } else if !dice.one_in(4) || world.ending() {
            ack(&world, pulled.epoch, token, index, true, &mut acked).await;
        }
    }
}

fn begin(world: &World, pulled: &Pulled) -> usize {
    world.extra.lock().opened.push((NAME, pulled.epoch, world.tick()));
    let next = pulled.slices.first().map_or(pulled.next, tidelog::types::Slice::from);
    let sessions = &mut world.history.lock().sessions;
    sessions.push(Session { reader: NAME, durable: true, epoch: pulled.epoch, next, got: Vec::new(), acked: Vec::new() });
    sessions.len() - 1
}

fn note(world: &World, pulled: &Pulled, index: usize) {
    let mut history = world.history.lock();
    for event in texts(&pulled.slices) {
        history.sessions[index].got.push(event.offset);
        history.seen.push(seen(NAME, pulled.stream_id.0, pulled.log_epoch, &event));
    }
}

async fn ack(world: &Arc<World>, epoch: u64, token: String, index: usize, current: bool, reached: &mut u64) {
    let (of, name, sent) = (stream(INPUT), subscription(NAME), world.tick());
    let answer = world.net.call("ack", |broker| async move { broker.ack_by_token(&Principal::Operator, &of, &name, &token, None, AckLevel::Durable).await });
    match answer.await {
        Some(Ok(acked)) => {
            world.extra.lock().acks.push(Ack { reader: NAME, epoch, sent });
            *reached = acked.next.max(*reached);
            if current {
                world.history.lock().sessions[index].acked.push(acked.next);
            }
        }
        Some(Err(error)) => trouble(world, &error),
        None => {}
    }
}

/// An ack beyond the end is refused, never taken for one of the end (C-9).
async fn beyond(world: &Arc<World>, epoch: u64) {
    let request = AckRequest { stream: stream(INPUT), subscription: subscription(NAME), epoch, offset: 1_000_000, level: AckLevel::Durable };
    let answer = world.net.call("ack beyond", |broker| async move { broker.ack(&Principal::Operator, request).await }).await;
    if let Some(Ok(acked)) = answer {
        world.wrong(format!("C-9: an ack of offset 1000000 was accepted: {acked:?}"));
    }
}

/// A clock that jumped while no broker ran may have ended a token's time (S-9).
fn trouble(world: &World, error: &Error) {
    let expected = [Code::SessionFenced, Code::SessionUnknown, Code::BadAckToken];
    if !tolerable(error.code) && !expected.contains(&error.code) {
        world.wrong(format!("{NAME} heard {error:?}"));
    }
}
