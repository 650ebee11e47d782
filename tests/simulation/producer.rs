//! Idempotent producers: batches in flight, resent unchanged on another line until they are answered; a client that dies and opens
//! itself again, sometimes beside its former self.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog::types::request::{AppendRequest, Expect, OpenProducerRequest, ProducerStamp, ResumeRequest};
use tidelog::types::{Applied, Code, Error, ProducerId};
use tidelog::wire::frame::{About, ClientFrame, ServerFrame};

use crate::dice::Dice;
use crate::history::{Note, Outcome, value};
use crate::net::Line;
use crate::world::{INPUT, World, events, patience, stream};

struct Batch {
    seq: u64,
    count: u64,
    /// How often it was sent.
    sent: u32,
}

/// One life of a producer.
struct Writer {
    world: Arc<World>,
    dice: Dice,
    id: u64,
    epoch: u64,
    next: u64,
    unanswered: VecDeque<Batch>,
}

/// What became of a writer's line.
enum End {
    /// The line is dead; the writer is not.
    Line,
    /// The writer is at its end.
    Writer,
}

/// Life after life.
pub async fn produce(world: Arc<World>, id: u64) {
    let mut dice = world.dice(&format!("p{id}"));
    while world.writing() {
        let Some((line, mut writer)) = open(&world, id, &mut dice).await else {
            world.pause(&mut dice, 1, 20).await;
            continue;
        };
        let batches = dice.between(5, 60);
        let end = writer.live(line, batches).await;
        let Some(line) = end.filter(|_| world.writing()) else { continue };
        if dice.one_in(2) {
            // The former self goes on beside the new one.
            tokio::spawn(async move {
                let (from, to) = (writer.dice.between(1, 30), writer.dice.between(30, 300));
                writer.world.clone().pause(&mut writer.dice, from, to).await;
                writer.live(line, 3).await;
            });
        }
    }
}

async fn open(world: &Arc<World>, id: u64, dice: &mut Dice) -> Option<(Line, Writer)> {
    let mut line = world.net.connect(&format!("p{id}")).await?;
    let producer = ProducerId::parse(&format!("p{id}")).expect("an id");
    line.say(&ClientFrame::OpenProducer {
        req: 0,
        request: OpenProducerRequest { stream: Some(stream(INPUT)), stream_id: None, producer, expect: Expect::Any },
    });
    match line.hear_within(patience(dice)).await? {
        ServerFrame::ProducerOpened { reply, .. } => {
            world.history.lock().notes.push(Note::Opened { producer: id, epoch: reply.epoch, last_seq: reply.last_seq });
            let next = reply.last_seq.map_or(0, |last| last + 1);
            let dice = Dice::new(dice.throw());
            Some((line, Writer { world: world.clone(), dice, id, epoch: reply.epoch, next, unanswered: VecDeque::new() }))
        }
        frame => {
            tolerate(world, &frame);
            None
        }
    }
}

/// What a client may hear of a broker in trouble.
pub fn tolerable(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::OutcomeUnknown | Code::StorageFailed | Code::StorageFull | Code::Overloaded)
}

/// Anything else than trouble is wrong.
pub fn tolerate(world: &World, frame: &ServerFrame) {
    match frame {
        ServerFrame::Error { error, .. } if tolerable(error.code) => {}
        other => world.wrong(format!("a client heard {other:?}")),
    }
}

impl Writer {
    /// Until it has sent so many batches, and then it is dropped as it is: its line comes back. `None`: it was fenced, or the test ends.
    async fn live(&mut self, line: Line, batches: u64) -> Option<Line> {
        let mut line = Some(line);
        let mut left = batches;
        loop {
            let Some(mut now) = line.take() else {
                line = self.world.net.connect(&format!("p{}", self.id)).await;
                if line.is_none() {
                    self.world.pause(&mut self.dice, 1, 20).await;
                }
                self.unanswered.iter_mut().for_each(|batch| batch.sent += 1);
                if let Some(line) = &line {
                    self.unanswered.iter().for_each(|batch| self.say(line, batch));
                }
                continue;
            };
            match self.speak(&mut now, &mut left).await {
                Ok(()) if self.world.writing() => return Some(now),
                Ok(()) | Err(End::Writer) => return None,
                Err(End::Line) => {}
            }
        }
    }

    async fn speak(&mut self, line: &mut Line, left: &mut u64) -> Result<(), End> {
        let depth = self.dice.between(1, 5) as usize;
        while self.world.writing() && *left > 0 || !self.world.writing() && !self.unanswered.is_empty() {
            while self.world.writing() && self.unanswered.len() < depth && *left > 0 {
                *left -= 1;
                let batch = Batch { seq: self.next, count: self.dice.between(1, 4), sent: 1 };
                self.next += batch.count;
                self.note(Note::Sent { producer: self.id, incarnation: self.epoch, seq: batch.seq, count: batch.count });
                self.say(line, &batch);
                self.unanswered.push_back(batch);
            }
            let Some(frame) = line.hear_within(patience(&mut self.dice)).await else { return Err(End::Line) };
            self.heard(line, frame).await?;
            if self.dice.one_in(3) {
                self.world.clone().pause(&mut self.dice, 1, 12).await;
            }
        }
        Ok(())
    }

    fn say(&self, line: &Line, batch: &Batch) {
        let texts: Vec<String> = (batch.seq..batch.seq + batch.count).map(|seq| value(self.id, seq, self.epoch)).collect();
        let producer = Some(ProducerStamp { id: self.name(), epoch: self.epoch, seq: batch.seq });
        let events = events(texts.iter().map(|text| (text.as_str(), None)));
        let request = AppendRequest { stream: stream(INPUT), stream_id: None, events, producer, expected_next_offset: None };
        line.say(&ClientFrame::Append { req: batch.seq, request });
    }

    fn name(&self) -> ProducerId {
        ProducerId::parse(&format!("p{}", self.id)).expect("an id")
    }

    fn note(&self, note: Note) {
        self.world.history.lock().notes.push(note);
    }

    fn answered(&self, batch: &Batch, outcome: Outcome) {
        self.note(Note::Answered { producer: self.id, incarnation: self.epoch, seq: batch.seq, count: batch.count, outcome });
    }

    async fn heard(&mut self, line: &mut Line, frame: ServerFrame) -> Result<(), End> {
        match frame {
            ServerFrame::Appended { req, reply } => {
                let Some(batch) = self.unanswered.pop_front().filter(|batch| batch.seq == req) else {
                    self.world.wrong(format!("producer {} heard of batch {req} out of order", self.id));
                    return Err(End::Writer);
                };
                self.answered(&batch, Outcome::Acked { first: reply.first_offset });
                Ok(())
            }
            ServerFrame::Error { about: About::Req(req), error, .. } => self.refused(line, req, &error).await,
            other => {
                tolerate(&self.world, &other);
                Err(End::Line)
            }
        }
    }

    /// A refusal: everything behind it is refused too (P-12). The batch was sent once: then it is nowhere; else an earlier sending counts.
    async fn refused(&mut self, line: &mut Line, req: u64, error: &Error) -> Result<(), End> {
        match error.code {
            Code::ProducerFenced | Code::ProducerUnknown => {
                for batch in &self.unanswered {
                    let surely = batch.seq == req && batch.sent == 1 && error.applied == Applied::No;
                    self.answered(batch, if surely { Outcome::Refused { code: error.code.to_string(), next: None } } else { Outcome::Unknown });
                }
                Err(End::Writer)
            }
            Code::StorageFull | Code::Overloaded | Code::SessionPoisoned if self.unanswered.back().is_none_or(|batch| batch.seq == req) => {
                // The last one in flight: the session is at rest, and goes on where it was refused.
                let Some(first) = self.unanswered.front() else { return Err(End::Line) };
                line.say(&ClientFrame::Resume {
                    req: first.seq,
                    request: ResumeRequest { stream: stream(INPUT), producer: Some(self.name()), seq: Some(first.seq) },
                });
                match line.hear_within(patience(&mut self.dice)).await {
                    Some(ServerFrame::Resumed { .. }) => {
                        self.unanswered.iter_mut().for_each(|batch| batch.sent += 1);
                        self.unanswered.iter().for_each(|batch| self.say(line, batch));
                        Ok(())
                    }
                    _ => Err(End::Line),
                }
            }
            Code::StorageFull | Code::Overloaded | Code::SessionPoisoned => Ok(()),
            code if tolerable(code) => Err(End::Line),
            _ => {
                self.world.wrong(format!("producer {} heard of batch {req}: {error:?}", self.id));
                Err(End::Writer)
            }
        }
    }
}
