//! Readers that ack, of both levels, and one that keeps its own position. A reader that was replaced wakes up and acks too late.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidelog::types::reply::Subscribed;
use tidelog::types::request::{AckLevel, Credit, Start, SubscribeRequest};
use tidelog::types::{Code, Error};
use tidelog::wire::frame::{ClientFrame, ServerFrame};

use crate::checks::Ack;
use crate::dice::Dice;
use crate::history::Session;
use crate::net::Line;
use crate::producer::{tolerable, tolerate};
use crate::world::{INPUT, World, patience, seen, stream, subscription, texts};

/// A reader and the level of its acks.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    level: AckLevel,
}

pub const DURABLE: Kind = Kind { name: "s1", level: AckLevel::Durable };
pub const LOOSE: Kind = Kind { name: "s2", level: AckLevel::Received };

/// How long a reader listens before it looks around.
pub const LISTEN: Duration = Duration::from_millis(60);

/// Asks for a subscription of the input as it is, on a new line.
pub fn durable(name: &str) -> SubscribeRequest {
    SubscribeRequest { create: true, ..SubscribeRequest::new(stream(INPUT), Some(subscription(name))) }
}

/// Opens a session on a line of its own. An error that is not just trouble comes back.
pub async fn open(world: &Arc<World>, who: &str, request: SubscribeRequest, dice: &mut Dice) -> Result<(Line, Subscribed), Option<Error>> {
    let mut line = world.net.connect(who).await.ok_or(None)?;
    line.say(&ClientFrame::Subscribe { sub: 1, request });
    match line.hear_within(patience(dice)).await.ok_or(None)? {
        ServerFrame::Subscribed { reply, .. } => Ok((line, reply)),
        ServerFrame::Error { error, .. } if !tolerable(error.code) => Err(Some(error)),
        other => {
            tolerate(world, &other);
            Err(None)
        }
    }
}

/// Notes that a session is open; its place among the sessions.
pub fn opened(world: &World, reader: &'static str, durable: bool, reply: &Subscribed) -> usize {
    let epoch = reply.epoch.expect("a durable session has an epoch");
    world.extra.lock().opened.push((reader, epoch, world.tick()));
    let sessions = &mut world.history.lock().sessions;
    sessions.push(Session { reader, durable, epoch, next: reply.next, got: Vec::new(), acked: Vec::new() });
    sessions.len() - 1
}

/// What ends a session as it may.
pub fn ended(world: &World, who: &str, error: &Error) {
    if !tolerable(error.code) && error.code != Code::SessionFenced {
        world.wrong(format!("{who} heard {error:?}"));
    }
}

/// Attaches again and again, until it has everything and that is acknowledged.
pub async fn attach(world: Arc<World>, kind: Kind) {
    let mut dice = world.dice(kind.name);
    let mut acked = 0;
    while !world.done(acked) {
        match open(&world, kind.name, durable(kind.name), &mut dice).await {
            Ok((line, reply)) => session(&world, kind, line, &reply, &mut acked, &mut dice).await,
            Err(Some(error)) => world.wrong(format!("{} heard {error:?}", kind.name)),
            Err(None) => {}
        }
        world.pause(&mut dice, 0, 25).await;
    }
}

async fn session(world: &Arc<World>, kind: Kind, mut line: Line, reply: &Subscribed, reached: &mut u64, dice: &mut Dice) {
    let index = opened(world, kind.name, kind.level == AckLevel::Durable, reply);
    let epoch = world.history.lock().sessions[index].epoch;
    let (mut frames, mut got, mut acked, mut surely, mut asked) = (dice.between(2, 40), reply.next, reply.next, 0, VecDeque::new());
    let every = dice.between(1, 20);
    loop {
        if world.done(surely) {
            *reached = surely;
            return;
        }
        // At the end what is acknowledged has to be safe, so whoever acks loosely acks once more.
        let level = if world.ending() { AckLevel::Durable } else { kind.level };
        match line.hear_within(LISTEN).await {
            Some(ServerFrame::Events { slices, .. }) => {
                let mut history = world.history.lock();
                for event in texts(&slices) {
                    got = event.offset + 1;
                    history.sessions[index].got.push(event.offset);
                    history.seen.push(seen(kind.name, reply.stream_id.0, reply.log_epoch, &event));
                }
            }
            Some(ServerFrame::Acked { reply, .. }) => {
                let (sent, level) = asked.pop_front().unwrap_or((0, AckLevel::Received));
                acked = acked.max(reply.next);
                if level == AckLevel::Durable {
                    surely = reply.next;
                }
                world.history.lock().sessions[index].acked.push(reply.next);
                world.extra.lock().acks.push(Ack { reader: kind.name, epoch, sent });
            }
            Some(ServerFrame::Live { .. }) => {}
            Some(ServerFrame::Error { error, .. }) => return ended(world, kind.name, &error),
            Some(other) => return tolerate(world, &other),
            None => {
                frames = frames.saturating_sub(3);
                // Nothing came: perhaps the line is dead.
                if world.ending() || !asked.is_empty() {
                    frames = frames.saturating_sub(10);
                }
            }
        }
        let owed = if world.ending() { got > surely } else { got > acked && (got - acked >= every || dice.one_in(4)) };
        if owed && asked.is_empty() {
            asked.push_back((world.tick(), level));
            line.say(&ClientFrame::Ack { sub: 1, offset: got - 1, level });
        }
        frames = frames.saturating_sub(1);
        if frames == 0 {
            if asked.is_empty() && got > 0 && !world.ending() && dice.one_in(2) {
                wake_late(world, kind, line, epoch, got - 1, dice);
            }
            return;
        }
    }
}

/// The reader sleeps with its line open, and acks when it wakes: by then there is another.
fn wake_late(world: &Arc<World>, kind: Kind, mut line: Line, epoch: u64, offset: u64, dice: &mut Dice) {
    let (world, pause, wait) = (world.clone(), dice.millis(20, 700), patience(dice));
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let sent = world.tick();
        line.say(&ClientFrame::Ack { sub: 1, offset, level: AckLevel::Durable });
        while let Some(frame) = line.hear_within(wait).await {
            match frame {
                // An answer to an earlier ack may still be on its way: only one for this place counts.
                ServerFrame::Acked { reply, .. } if reply.next > offset => return world.extra.lock().acks.push(Ack { reader: kind.name, epoch, sent }),
                ServerFrame::Error { .. } => return,
                _ => {}
            }
        }
    });
}

/// A reader without a subscription: it knows where it is, and grants credit.
pub async fn follow(world: Arc<World>) {
    const NAME: &str = "tail";
    let mut dice = world.dice(NAME);
    let mut next = 0;
    while !world.done(next) {
        let request = SubscribeRequest { from: Some(Start::Offset(next)), log_epoch: Some(1), ..SubscribeRequest::new(stream(INPUT), None) };
        let (mut line, reply) = match open(&world, NAME, request, &mut dice).await {
            Ok(opened) => opened,
            Err(error) => {
                error.into_iter().for_each(|error| world.wrong(format!("{NAME} heard {error:?}")));
                world.pause(&mut dice, 1, 25).await;
                continue;
            }
        };
        let mut frames = dice.between(5, 60);
        while frames > 0 && !world.done(next) {
            frames -= 1;
            match line.hear_within(LISTEN).await {
                Some(ServerFrame::Events { slices, .. }) => {
                    let count = slices.iter().map(tidelog::types::Slice::count).sum();
                    for event in texts(&slices) {
                        if event.offset != next {
                            world.wrong(format!("I-11: {NAME} got {} where {next} was due", event.offset));
                        }
                        next = event.offset + 1;
                        world.history.lock().seen.push(seen(NAME, reply.stream_id.0, reply.log_epoch, &event));
                    }
                    line.say(&ClientFrame::Credit { sub: 1, credit: Credit { events: count, bytes: 100_000 } });
                }
                Some(ServerFrame::Live { .. }) => {}
                Some(ServerFrame::Error { error, .. }) => {
                    ended(&world, NAME, &error);
                    break;
                }
                Some(other) => world.wrong(format!("{NAME} heard {other:?}")),
                None => frames = frames.saturating_sub(2),
            }
        }
    }
}
