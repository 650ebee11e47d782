//! Consumers with a table of their own: by recipe K-1, position and effects in one transaction; and without a recipe, effect then ack.
//! Either may die between any two steps, and one of K-1 may go on beside its successor.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidelog::types::reply::Subscribed;
use tidelog::types::request::{AckLevel, Start, SubscribeRequest};
use tidelog::types::{Code, Slice};
use tidelog::wire::frame::{ClientFrame, ServerFrame};

use crate::dice::Dice;
use crate::history::{Table, hash};
use crate::net::Line;
use crate::producer::tolerate;
use crate::readers::{LISTEN, durable, ended, open, opened};
use crate::world::{World, texts};

/// A consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    /// By K-1.
    recipe: bool,
}

pub const EXACT: Kind = Kind { name: "k1", recipe: true };
pub const PLAIN: Kind = Kind { name: "plain", recipe: false };

/// What survives its process.
#[derive(Default)]
struct Database {
    next: u64,
    log_epoch: Option<u64>,
    session_epoch: u64,
    rows: Vec<(u64, u64)>,
}

/// One process of a consumer, with a session.
struct Process {
    world: Arc<World>,
    kind: Kind,
    database: Arc<Mutex<Database>>,
    line: Line,
    reply: Subscribed,
    epoch: u64,
    /// Its place among the sessions.
    index: usize,
    /// Came, and it died before its effect; if it was only away, it has that still to do.
    inbox: Option<Vec<Slice>>,
    /// The position after what it has worked on.
    at: u64,
    /// Levels of the acks without an answer.
    asked: VecDeque<AckLevel>,
    /// Surely.
    acked: u64,
}

/// How a process ended.
#[derive(PartialEq, Eq)]
enum End {
    /// It died; whoever goes on knows what the database knows.
    Died,
    /// It was told to stop, or its line is dead.
    Stopped,
}

/// Process after process, until everything is done.
pub async fn consume(world: Arc<World>, kind: Kind) {
    let mut dice = world.dice(kind.name);
    let database = Arc::new(Mutex::new(Database::default()));
    let mut acked = 0;
    while !world.done(acked) {
        if let Some(mut process) = start(&world, kind, &database, &mut dice).await {
            let steps = dice.between(2, 30);
            let end = process.work(&mut dice, steps).await;
            acked = process.acked;
            if end == End::Died && kind.recipe && !world.ending() && dice.one_in(2) {
                process.sleepwalk(&mut dice);
            }
        }
        world.pause(&mut dice, 0, 20).await;
    }
    let rows = std::mem::take(&mut database.lock().rows);
    let table = Table { name: kind.name, rows };
    let mut history = world.history.lock();
    if kind.recipe { history.exact.push(table) } else { history.plain = Some(table) }
}

async fn start(world: &Arc<World>, kind: Kind, database: &Arc<Mutex<Database>>, dice: &mut Dice) -> Option<Process> {
    let request = if kind.recipe {
        let database = database.lock();
        SubscribeRequest { from: Some(Start::Offset(database.next)), log_epoch: database.log_epoch, ..durable(kind.name) }
    } else {
        durable(kind.name)
    };
    match open(world, kind.name, request, dice).await {
        Ok((line, reply)) => {
            let index = opened(world, kind.name, false, &reply);
            let (epoch, at) = (reply.epoch?, reply.next);
            Some(Process {
                world: world.clone(),
                kind,
                database: database.clone(),
                line,
                reply,
                epoch,
                index,
                inbox: None,
                at,
                asked: VecDeque::new(),
                acked: 0,
            })
        }
        // The predecessor went on meanwhile: the table is read again.
        Err(Some(error)) if error.code == Code::CursorAhead => None,
        Err(error) => {
            error.into_iter().for_each(|error| world.wrong(format!("{} heard {error:?}", kind.name)));
            None
        }
    }
}

impl Process {
    async fn work(&mut self, dice: &mut Dice, mut steps: u64) -> End {
        loop {
            if self.world.done(self.acked) {
                return End::Stopped;
            }
            match self.line.hear_within(LISTEN).await {
                Some(ServerFrame::Events { slices, .. }) => {
                    steps = steps.saturating_sub(1);
                    if steps == 0 && dice.one_in(2) {
                        self.inbox = Some(slices);
                        return End::Died;
                    }
                    if !self.apply(&slices) || steps == 0 {
                        return End::Died;
                    }
                    if dice.one_in(3) {
                        self.ack(if dice.one_in(2) { AckLevel::Durable } else { AckLevel::Received });
                    }
                }
                Some(ServerFrame::Acked { reply, .. }) => {
                    if self.asked.pop_front() == Some(AckLevel::Durable) {
                        self.acked = self.acked.max(reply.next);
                    }
                }
                Some(ServerFrame::Live { .. }) => {}
                Some(ServerFrame::Error { error, .. }) => {
                    ended(&self.world, self.kind.name, &error);
                    return End::Stopped;
                }
                Some(other) => {
                    tolerate(&self.world, &other);
                    return End::Stopped;
                }
                None => {
                    steps = steps.saturating_sub(1);
                    if steps == 0 {
                        return End::Died;
                    }
                }
            }
            if self.world.ending() && self.at > self.acked {
                self.ack(AckLevel::Durable);
            }
        }
    }

    /// The effects of a frame. False: somebody else is the consumer now.
    fn apply(&mut self, slices: &[Slice]) -> bool {
        let mut database = self.database.lock();
        if self.kind.recipe && (database.next != self.at || database.session_epoch > self.epoch) {
            return false;
        }
        let mut history = self.world.history.lock();
        for event in texts(slices) {
            self.at = event.offset + 1;
            database.rows.push((event.offset, hash(event.data.as_bytes())));
            history.sessions[self.index].got.push(event.offset);
        }
        (database.next, database.session_epoch, database.log_epoch) = (self.at, self.epoch, Some(self.reply.log_epoch));
        true
    }

    fn ack(&mut self, level: AckLevel) {
        if let Some(offset) = self.at.checked_sub(1) {
            self.asked.push_back(level);
            self.line.say(&ClientFrame::Ack { sub: 1, offset, level });
        }
    }

    /// It was not dead, only away: it goes on for a while, beside its successor.
    fn sleepwalk(mut self, dice: &mut Dice) {
        let (pause, mut dice) = (dice.millis(10, 500), Dice::new(dice.throw()));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if self.inbox.take().is_none_or(|slices| self.apply(&slices)) {
                self.work(&mut dice, 4).await;
            }
        });
    }
}
