//! What a step of a history means now: from small choices to calls that are mostly right and sometimes wrong in an interesting way.

use std::sync::Arc;

use crate::law::{Ask, Batch, CONNECTIONS, Call, CommitPart, CommitPlan, Pulling, Stream};
use crate::ops::{Named, Op, Opening, Place, Which};
use crate::support::*;
use crate::world::World;

/// One more than the receipts a producer keeps, and some.
const BURST: usize = 70;

fn via(choice: usize) -> Option<usize> {
    (choice < CONNECTIONS).then_some(choice)
}

impl World {
    /// Does what the step means.
    pub async fn step(&mut self, op: Op) {
        match op {
            Op::Open { via: choice, stream, id, expect, lost } => self.make(Call::Open { via: via(choice), stream: Some(stream), id, expect }, lost).await,
            Op::OpenWide { via: choice, id } => self.call(Call::Open { via: via(choice), stream: None, id, expect: Expect::Any }).await,
            Op::Append { via: choice, stream, named, producer, which, count, condition, lost } => {
                let mut batch = self.batch(stream, producer, which, count);
                batch.expected = self.condition(stream, condition);
                let stream_id = self.named(stream, named);
                self.make(Call::Append { via: via(choice), stream, stream_id, batch }, lost).await;
            }
            Op::Burst { conn, stream, id } => self.pour(conn, stream, id).await,
            Op::Once { stream, key, same, condition, lost } => {
                let known = self.there(stream).and_then(|stream| stream.once.get(&key)).map(|once| once.events.clone());
                let events = known.filter(|_| same).unwrap_or_else(|| self.fresh(2));
                let expected = self.condition(stream, condition);
                self.make(Call::Once { stream, key, events, expected }, lost).await;
            }
            Op::Resume { conn, stream, producer, wrong } => {
                let next = |id| self.there(stream).and_then(|stream| stream.producers.get(&id)).map_or(0, |p| p.next);
                let seq = producer.map(|id| next(id) + u64::from(wrong));
                self.call(Call::Resume { conn, stream, producer, seq }).await;
            }
            Op::Spoil { conn, stream, producer } => self.call(Call::Spoil { conn, stream, producer }).await,
            Op::SpoilAll { conn } => self.alone(Call::SpoilAll { conn }).await,
            Op::Commit { via: choice, id, which, appends, acks, check, lost } => {
                let plan = self.commit(id, which, &appends, &acks, check);
                if !(plan.acks.is_empty() && plan.appends.is_empty()) {
                    self.make(Call::Commit { via: via(choice), plan }, lost).await;
                }
            }
            Op::Attach { conn, stream, named, sub, opening } => {
                let ask = self.ask(stream, sub, opening);
                let stream_id = self.named(stream, named);
                self.call(Call::Attach { conn, stream, stream_id, sub, ask }).await;
            }
            Op::Take(back) => self.take(back).await,
            Op::Detach(back) => self.detach(back).await,
            Op::Ack { conn, seat, back, received, by_epoch, lost } => {
                let Some(index) = self.seats.len().checked_sub(seat + 1) else { return };
                let seat = &self.seats[index];
                let Some(offset) = seat.at.checked_add_signed(-1 - back) else { return };
                let by_handle = !by_epoch && seat.handle.is_some();
                let call =
                    Call::Ack { via: by_handle.then_some((conn, index)), stream: seat.stream, sub: seat.sub, epoch: seat.epoch, offset, level: received };
                self.make(call, lost).await;
            }
            Op::Pull { stream, sub, opening, max } => {
                // A pull cannot rewind.
                let ask = Ask { rewind: false, ..self.ask(stream, sub, opening) };
                self.alone(Call::Pull { stream, sub, pulling: Pulling::Open(ask), max }).await;
            }
            Op::PullOn { seat, token, from, skip, max } => self.pull_on(seat, token, from, skip, max).await,
            Op::TokenAck { token, at, level } => {
                let Some(index) = self.tokens.len().checked_sub(token + 1) else { return };
                let token = &self.tokens[index];
                let offset = at.and_then(|at| token.from.checked_add_signed(at));
                let (stream, sub, epoch, from, to) = (token.stream, token.sub, token.epoch, token.from, token.to);
                self.call(Call::TokenAck { stream, sub, token: token.token.clone(), epoch, from, to, offset, level }).await;
            }
            Op::Seek { stream, sub, to } => {
                let to = self.start(stream, sub, to).unwrap_or(Start::Earliest);
                self.alone(Call::Seek { stream, sub, to }).await;
            }
            Op::Trim { stream, percent } => {
                self.settle().await;
                let before = self.there(stream).map_or(0, |stream| stream.first + (stream.end() - stream.first) * percent / 100);
                self.alone(Call::Trim { stream, before }).await;
            }
            Op::Close(stream) => self.alone(Call::Close { stream }).await,
            Op::Replace { stream, create } => {
                self.settle().await;
                if self.there(stream).is_some() && !create {
                    self.delete(stream).await;
                } else {
                    self.create(stream).await;
                }
            }
            Op::Resubscribe { stream, sub } => {
                self.alone(Call::Unsubscribe { stream, sub }).await;
                self.alone(Call::Subscribe { stream, sub }).await;
            }
            Op::Forget { stream, id } => self.alone(Call::Forget { stream, id }).await,
            Op::Reconnect(conn) => self.reconnect(conn).await,
            Op::Settle => self.settle().await,
            Op::Hold => self.live().gate.hold(),
            Op::Peek(stream) => self.peek(stream).await,
            Op::Arm { fate, passing } => self.live().gate.arm(fate, passing),
            Op::Again => {
                if let Some(call) = self.unknown.take() {
                    self.call(without_connection(call)).await;
                }
            }
            Op::Crash => {
                self.settle().await;
                self.reopen(false).await;
            }
            Op::Restart => {
                self.settle().await;
                self.live().gate.disarm();
                self.reopen(true).await;
            }
        }
    }

    async fn make(&mut self, call: Call, lost: bool) {
        if lost { self.call_twice(call).await } else { self.call(call).await }
    }

    /// The stream as clients know it.
    fn there(&self, stream: usize) -> Option<&Stream> {
        self.ahead.streams[stream].as_ref()
    }

    fn named(&self, stream: usize, named: Named) -> Option<u64> {
        let id = self.there(stream).map_or(1, |stream| stream.id);
        match named {
            Named::None => None,
            Named::Right => Some(id),
            Named::Wrong => Some(id.saturating_sub(1)),
        }
    }

    fn condition(&self, stream: usize, off_by: Option<i64>) -> Option<u64> {
        let end = self.there(stream).map_or(0, Stream::end);
        off_by.map(|by| end.saturating_add_signed(by))
    }

    /// What an append sends, from where its producer stands.
    fn batch(&mut self, stream: usize, producer: Option<u8>, which: Which, count: usize) -> Batch {
        let fresh = self.fresh(count);
        let Some(id) = producer else { return Batch { producer: None, events: fresh, expected: None } };
        let state = self.there(stream).and_then(|stream| stream.producers.get(&id)).cloned().unwrap_or_default();
        let (mut epoch, mut seq, mut events) = (state.epoch, state.next, fresh.clone());
        let before = |back: usize| state.receipts.iter().rev().nth(back).cloned();
        match which {
            Which::Next => {}
            Which::Repeat(back) => {
                if let Some(receipt) = before(back) {
                    (seq, events) = (receipt.first_seq, receipt.what);
                } else if state.next > 0 {
                    // Older than the receipts.
                    seq = 0;
                }
            }
            Which::Reused(back) => {
                if let Some(receipt) = before(back) {
                    (seq, events) = (receipt.first_seq, self.fresh(receipt.what.len()));
                }
            }
            Which::Cut(back, longer) => {
                if let Some(receipt) = before(back) {
                    seq = receipt.first_seq;
                    if longer {
                        events = receipt.what.iter().chain(fresh.iter()).copied().collect();
                    } else if receipt.what.len() > 1 {
                        events = receipt.what[1..].into();
                        seq += 1;
                    }
                }
            }
            Which::Gap(by) => seq += by,
            Which::OldEpoch => epoch = epoch.saturating_sub(1),
            Which::FutureEpoch => epoch += 1,
        }
        Batch { producer: Some((id, epoch, seq)), events, expected: None }
    }

    async fn pour(&mut self, conn: usize, stream: usize, id: u8) {
        self.settle().await;
        let Some(state) = self.there(stream).and_then(|stream| stream.producers.get(&id)) else { return };
        let (epoch, next) = (state.epoch, state.next);
        let calls = (0..BURST as u64).map(|i| {
            let batch = Batch { producer: Some((id, epoch, next + i)), events: self.fresh(1), expected: None };
            Call::Append { via: Some(conn), stream, stream_id: None, batch }
        });
        let calls = calls.collect();
        self.burst(calls).await;
    }

    fn commit(
        &mut self,
        id: Option<u8>,
        which: Which,
        appends: &[(usize, Option<i64>)],
        acks: &[(usize, i64)],
        check: Option<(usize, bool)>,
    ) -> Arc<CommitPlan> {
        let mut plan = CommitPlan::default();
        for (seat, back) in acks {
            let Some(seat) = self.seats.len().checked_sub(seat + 1).map(|index| &self.seats[index]) else { continue };
            plan.acks.extend(seat.at.checked_add_signed(-1 - back).map(|offset| (seat.stream, seat.sub, seat.epoch, offset)));
        }
        for (stream, condition) in appends {
            let expected = self.condition(*stream, *condition);
            plan.appends.push(CommitPart { stream: *stream, stream_id: None, events: self.fresh(1).to_vec(), expected });
        }
        plan.checks.extend(check.map(|(stream, right)| (stream, self.condition(stream, Some(i64::from(!right))).unwrap_or(0))));
        let Some(id) = id else { return Arc::new(plan) };
        let state = self.ahead.wide.get(&id).cloned().unwrap_or_default();
        let (mut epoch, mut seq) = (state.epoch, state.next);
        let before = |back: usize| state.receipts.iter().rev().nth(back).cloned();
        match which {
            Which::Repeat(back) | Which::Cut(back, _) => {
                if let Some(receipt) = before(back) {
                    (seq, plan) = (receipt.first_seq, (*receipt.what).clone());
                }
            }
            Which::Reused(back) => seq = before(back).map_or(seq, |receipt| receipt.first_seq),
            Which::Gap(by) => seq += by,
            Which::OldEpoch => epoch = epoch.saturating_sub(1),
            Which::FutureEpoch => epoch += 1,
            Which::Next => {}
        }
        plan.producer = Some((id, epoch, seq));
        Arc::new(plan)
    }

    /// A place as a start; `None` = the cursor.
    fn start(&self, stream: usize, sub: u8, place: Place) -> Option<Start> {
        let cursor = self.there(stream).and_then(|stream| stream.cursors.get(&sub)).map_or(0, |cursor| cursor.next);
        match place {
            Place::Cursor => None,
            Place::Earliest => Some(Start::Earliest),
            Place::Latest => Some(Start::Latest),
            Place::Near(by) => Some(Start::Offset(cursor.saturating_add_signed(by))),
        }
    }

    fn ask(&self, stream: usize, sub: u8, opening: Opening) -> Ask {
        let Opening { from, rewind, reject, skip, log_epoch } = opening;
        let on_gap = if skip { OnGap::Skip } else { OnGap::Fail };
        Ask { from: self.start(stream, sub, from), rewind, reject, on_gap, log_epoch }
    }

    /// A further pull: of a token's session, or of a seat's.
    async fn pull_on(&mut self, seat: usize, token: Option<usize>, from: Option<i64>, skip: bool, max: u64) {
        self.settle().await;
        let of_token = token.and_then(|back| self.tokens.len().checked_sub(back + 1)).map(|index| &self.tokens[index]).map(|t| (t.stream, t.sub, t.epoch));
        let of_seat = self.seats.len().checked_sub(seat + 1).map(|index| &self.seats[index]).map(|s| (s.stream, s.sub, s.epoch));
        let Some((stream, sub, epoch)) = of_token.or(of_seat) else { return };
        let cursor = self.there(stream).and_then(|stream| stream.cursors.get(&sub)).map_or(0, |cursor| cursor.next);
        let from = from.map(|by| cursor.saturating_add_signed(by));
        let on_gap = if skip { OnGap::Skip } else { OnGap::Fail };
        self.alone(Call::Pull { stream, sub, pulling: Pulling::Continue { epoch, from, on_gap }, max }).await;
    }
}

/// The connection of before a crash is gone, and with it the handles of its sessions: another one, or none.
fn without_connection(call: Call) -> Call {
    match call {
        Call::Ack { stream, sub, epoch, offset, level, .. } => Call::Ack { via: None, stream, sub, epoch, offset, level },
        other => other,
    }
}
