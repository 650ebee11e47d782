//! The consumer by recipe K-3: what it reads and what it writes are one commit, sent again unchanged until it is settled.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog::types::request::{CommitAck, CommitAppend, CommitRequest, Expect, OpenProducerRequest, ProducerStamp};
use tidelog::types::{Applied, Code, ProducerId, Slice};
use tidelog::wire::frame::{About, ClientFrame, ServerFrame};

use crate::dice::Dice;
use crate::history::Stored;
use crate::net::Line;
use crate::producer::{tolerable, tolerate};
use crate::readers::{LISTEN, durable, ended, open, opened};
use crate::world::{INPUT, OUTPUT, World, events, patience, stream, subscription, texts};

const NAME: &str = "k3";

/// One process of it.
struct Process {
    world: Arc<World>,
    dice: Dice,
    line: Option<Line>,
    /// Of its producer and of its session.
    epochs: (u64, u64),
    seq: u64,
    index: usize,
    /// Came, not worked on.
    inbox: VecDeque<Vec<Slice>>,
    done: u64,
}

/// Process after process, until everything is done.
pub async fn consume(world: Arc<World>) {
    let mut dice = world.dice(NAME);
    let mut done = 0;
    while !world.done(done) {
        if let Some(mut process) = start(&world, &mut dice).await {
            let steps = dice.between(1, 15);
            let pending = process.work(steps).await;
            done = done.max(process.done);
            if let Some(request) = pending.filter(|_| dice.one_in(2) && !world.ending()) {
                // It was only away, and sends its commit beside its successor.
                let pause = dice.millis(10, 500);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    process.settle(&request, 1).await;
                });
            }
        }
        world.pause(&mut dice, 0, 20).await;
    }
}

fn producer() -> ProducerId {
    ProducerId::parse(NAME).expect("an id")
}

async fn start(world: &Arc<World>, dice: &mut Dice) -> Option<Process> {
    // The producer first: what its former self has committed counts in where the session begins.
    let mut line = world.net.connect(NAME).await?;
    line.say(&ClientFrame::OpenProducer { req: 0, request: OpenProducerRequest { stream: None, stream_id: None, producer: producer(), expect: Expect::Any } });
    let producer = match line.hear_within(patience(dice)).await? {
        ServerFrame::ProducerOpened { reply, .. } => reply,
        other => {
            tolerate(world, &other);
            return None;
        }
    };
    world.extra.lock().opened.push(("producer k3", producer.epoch, world.tick()));
    let (line, reply) = match open(world, NAME, durable(NAME), dice).await {
        Ok(opened) => opened,
        Err(error) => {
            error.into_iter().for_each(|error| world.wrong(format!("{NAME} heard {error:?}")));
            return None;
        }
    };
    let index = opened(world, NAME, true, &reply);
    let (epochs, seq) = ((producer.epoch, reply.epoch?), producer.last_seq.map_or(0, |last| last + 1));
    let dice = Dice::new(dice.throw());
    Some(Process { world: world.clone(), dice, line: Some(line), epochs, seq, index, inbox: VecDeque::new(), done: reply.next })
}

impl Process {
    /// Until it dies, with a commit on its way perhaps: that one comes back.
    async fn work(&mut self, mut steps: u64) -> Option<CommitRequest> {
        while !self.world.done(self.done) {
            let slices = match self.inbox.pop_front() {
                Some(slices) => slices,
                None => match self.line.as_mut()?.hear_within(LISTEN).await {
                    Some(ServerFrame::Events { slices, .. }) => slices,
                    Some(ServerFrame::Live { .. }) => continue,
                    Some(ServerFrame::Error { error, .. }) => {
                        ended(&self.world, NAME, &error);
                        return None;
                    }
                    Some(other) => {
                        tolerate(&self.world, &other);
                        return None;
                    }
                    None => {
                        steps = steps.checked_sub(1)?;
                        continue;
                    }
                },
            };
            let request = self.request(&slices);
            let Some(left) = steps.checked_sub(1) else { return Some(request) };
            steps = left;
            if !self.settle(&request, 20).await {
                return None;
            }
        }
        None
    }

    fn request(&mut self, slices: &[Slice]) -> CommitRequest {
        let came: Vec<Stored> = texts(slices).collect();
        let last = came.last().expect("a frame has events").offset;
        self.world.history.lock().sessions[self.index].got.extend(came.iter().map(|event| event.offset));
        let images = events(came.iter().map(|event| (event.data.as_str(), Some(event.offset))));
        CommitRequest {
            producer: Some(ProducerStamp { id: producer(), epoch: self.epochs.0, seq: self.seq }),
            acks: vec![CommitAck { stream: stream(INPUT), subscription: subscription(NAME), epoch: self.epochs.1, offset: last }],
            appends: vec![CommitAppend { stream: stream(OUTPUT), stream_id: None, events: images, expected_next_offset: None }],
            checks: Vec::new(),
        }
    }

    /// Sends a commit until its outcome is known, or its process gives up. True: it is done, and the session goes on.
    async fn settle(&mut self, request: &CommitRequest, attempts: u32) -> bool {
        for attempt in 0..attempts {
            let Some(mut line) = self.line.take() else {
                self.world.clone().pause(&mut self.dice, 1, 30).await;
                self.line = self.world.net.connect(NAME).await;
                continue;
            };
            let sent = self.world.tick();
            line.say(&ClientFrame::Commit { req: self.seq, request: request.clone() });
            let wait = patience(&mut self.dice);
            while let Some(frame) = line.hear_within(wait).await {
                match frame {
                    ServerFrame::Committed { req, .. } if req == self.seq => {
                        self.committed(request, sent);
                        self.line = Some(line);
                        // A session is where its line is: on another one it has to be opened anew.
                        return attempt == 0;
                    }
                    ServerFrame::Events { slices, .. } => self.inbox.push_back(slices),
                    ServerFrame::Live { .. } => {}
                    ServerFrame::Error { about: About::Req(req), error, .. } if req == self.seq => {
                        if error.applied == Applied::No && !tolerable(error.code) {
                            self.refused(error.code, &error);
                            return false;
                        }
                        break;
                    }
                    ServerFrame::Error { error, .. } => ended(&self.world, NAME, &error),
                    other => tolerate(&self.world, &other),
                }
            }
        }
        false
    }

    fn committed(&mut self, request: &CommitRequest, sent: u64) {
        self.done = request.acks[0].offset + 1;
        self.seq += 1;
        self.world.history.lock().sessions[self.index].acked.push(self.done);
        self.world.extra.lock().commits.push((self.epochs.0, sent));
    }

    /// A definite refusal: the session begins anew at its cursor.
    fn refused(&self, code: Code, error: &tidelog::types::Error) {
        let expected = [Code::TxnPartFailed, Code::ProducerFenced, Code::ProducerUnknown, Code::SessionFenced, Code::SessionUnknown];
        if !expected.contains(&code) {
            self.world.wrong(format!("{NAME} heard {error:?}"));
        }
    }
}
