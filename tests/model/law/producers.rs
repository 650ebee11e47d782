//! Producers, append sessions, idempotency keys: P-1 … P-19.

use std::sync::Arc;

use super::{Batch, Event, Law, Refusal, Said, Verdict, refuse};
use crate::support::*;

/// Receipts a producer keeps (P-14), written down once more on purpose.
const RECEIPTS: usize = 64;

/// What was stored: its number, how many it counts, what it was, what it was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt<W, A> {
    pub first_seq: u64,
    pub count: u64,
    pub what: W,
    pub answer: A,
}

/// A producer: epoch E, last sequence number L (as `next` = L + 1), its newest receipts.
#[derive(Clone, Debug, PartialEq)]
pub struct Producer<W, A> {
    pub epoch: u64,
    pub next: u64,
    pub receipts: Vec<Receipt<W, A>>,
}

impl<W, A> Default for Producer<W, A> {
    fn default() -> Self {
        Self { epoch: 0, next: 0, receipts: Vec::new() }
    }
}

/// An append under an idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub struct Once {
    pub events: Arc<[Event]>,
    pub base: u64,
}

/// What the table says of a batch that is not refused.
pub enum Found<A> {
    Next,
    Repeated(A),
    Old,
}

/// P-1 … P-8, top to bottom.
pub fn check<W: PartialEq, A: Clone>(state: Option<&Producer<W, A>>, epoch: u64, seq: u64, count: u64, what: &W) -> Result<Found<A>, Refusal> {
    let Some(state) = state else { return refuse(Code::ProducerUnknown, Some("P-1"), &[]) };
    if epoch < state.epoch {
        return refuse(Code::ProducerFenced, Some("P-2"), &[("epoch", state.epoch)]);
    }
    if epoch > state.epoch {
        return refuse(Code::ProducerUnknown, Some("P-3"), &[]);
    }
    if seq + count <= state.next {
        if let Some(receipt) = state.receipts.iter().find(|r| r.first_seq == seq && r.count == count) {
            return if receipt.what == *what {
                Ok(Found::Repeated(receipt.answer.clone()))
            } else {
                refuse(Code::ProducerSeqReused, Some("P-5"), &[("seq", seq)])
            };
        }
        if seq + count <= state.receipts[0].first_seq {
            return Ok(Found::Old);
        }
    }
    if seq < state.next {
        return refuse(Code::ProducerSeqOverlap, Some("P-7"), &[("last_seq", state.next - 1)]);
    }
    if seq > state.next {
        return refuse(Code::ProducerSeqGap, Some("P-8"), &[("expected", state.next)]);
    }
    Ok(Found::Next)
}

impl<W, A> Producer<W, A> {
    /// P-10.
    pub fn record(&mut self, receipt: Receipt<W, A>) {
        self.next = receipt.first_seq + receipt.count;
        self.receipts.push(receipt);
        if self.receipts.len() > RECEIPTS {
            self.receipts.remove(0);
        }
    }

    fn opened(&mut self, floor: u64) -> (u64, Option<u64>) {
        self.epoch = self.epoch.max(floor) + 1;
        (self.epoch, self.next.checked_sub(1))
    }
}

/// What an opening expects to find.
fn expected_here(there: bool, expect: Expect) -> Result<(), Refusal> {
    match (there, expect) {
        (false, Expect::Resume) => refuse(Code::ProducerStateLost, Some("P-15"), &[]),
        (true, Expect::Create) => refuse(Code::NameTaken, None, &[]),
        _ => Ok(()),
    }
}

fn appended(base: Option<u64>, count: u64, duplicate: bool) -> Verdict {
    Ok(Said::Appended(Appended { first_offset: base, last_offset: base.map(|b| b + count - 1), count: count as u32, duplicate }))
}

impl Law {
    pub(super) fn open(&mut self, number: usize, id: u8, expect: Expect) -> Verdict {
        let stream = self.stream(number, None)?;
        let created = !stream.producers.contains_key(&id);
        expected_here(!created, expect)?;
        let (floor, next, stream_id) = (stream.floor, stream.end(), stream.id);
        let (epoch, last_seq) = stream.producers.entry(id).or_default().opened(floor);
        self.gave(number, false, id, epoch);
        self.wrote();
        Ok(Said::Opened { epoch, last_seq, next: Some(next), stream_id: Some(stream_id), created })
    }

    pub(super) fn open_wide(&mut self, id: u8, expect: Expect) -> Verdict {
        let created = !self.wide.contains_key(&id);
        expected_here(!created, expect)?;
        let (epoch, last_seq) = self.wide.entry(id).or_default().opened(0);
        self.wrote();
        Ok(Said::Opened { epoch, last_seq, next: None, stream_id: None, created })
    }

    /// Its next life begins above every epoch of this one (S-8).
    pub(super) fn forget(&mut self, number: usize, id: u8) -> Verdict {
        let stream = self.stream(number, None)?;
        let Some(producer) = stream.producers.remove(&id) else { return refuse(Code::NotFound, None, &[]) };
        stream.floor = stream.floor.max(producer.epoch);
        self.wrote();
        Ok(Said::Done)
    }

    /// P-1 … P-10, then P-18 for the details of a failed condition.
    pub(super) fn append(&mut self, number: usize, stream_id: Option<u64>, batch: &Batch) -> Verdict {
        let stream = self.stream(number, stream_id)?;
        let count = batch.events.len() as u64;
        if let Some((id, epoch, seq)) = batch.producer {
            match check(stream.producers.get(&id), epoch, seq, count, &batch.events)? {
                Found::Next => {}
                Found::Repeated(base) => return appended(Some(base), count, true),
                Found::Old => return appended(None, count, true),
            }
        }
        self.takes(number, batch.expected, &batch.events)?;
        let stream = self.stream(number, None)?;
        let base = stream.store(&batch.events);
        if let Some((id, _, seq)) = batch.producer {
            let receipt = Receipt { first_seq: seq, count, what: batch.events.clone(), answer: base };
            stream.producers.get_mut(&id).expect("the table found it").record(receipt);
        }
        self.wrote();
        appended(Some(base), count, false)
    }

    /// P-9 and P-18.
    fn takes(&mut self, number: usize, expected: Option<u64>, events: &[Event]) -> Result<(), Refusal> {
        let stream = self.stream(number, None)?;
        let next = stream.end();
        if stream.closed {
            return refuse(Code::StreamClosed, Some("P-9"), &[("next_offset", next)]);
        }
        let Some(expected) = expected.filter(|expected| *expected != next) else { return Ok(()) };
        let there = (expected as usize).checked_add(events.len()).and_then(|end| stream.events.get(expected as usize..end));
        let stored = expected >= stream.first && there == Some(events);
        refuse(Code::ConditionFailed, Some("P-18"), &[("next_offset", next), ("expected_next_offset", expected), ("already_stored", u64::from(stored))])
    }

    /// P-19.
    pub(super) fn append_once(&mut self, number: usize, key: u8, events: &Arc<[Event]>, expected: Option<u64>) -> Verdict {
        let stream = self.stream(number, None)?;
        if let Some(once) = stream.once.get(&key) {
            return if once.events == *events {
                appended(Some(once.base), events.len() as u64, true)
            } else {
                refuse(Code::IdempotencyKeyReused, Some("P-19"), &[])
            };
        }
        let verdict = self.append(number, None, &Batch { producer: None, events: events.clone(), expected });
        if let Ok(Said::Appended(Appended { first_offset: Some(base), .. })) = verdict {
            self.stream(number, None)?.once.insert(key, Once { events: events.clone(), base });
        }
        verdict
    }

    /// P-12: right when it names L + 1.
    pub(super) fn resume(&mut self, conn: usize, number: usize, producer: Option<u8>, seq: Option<u64>) -> Verdict {
        let stream = self.stream(number, None)?;
        if let Some(id) = producer {
            let Some(state) = stream.producers.get(&id) else { return refuse(Code::ProducerUnknown, Some("P-1"), &[]) };
            if seq != Some(state.next) {
                return refuse(Code::BadParameter, Some("P-12"), &[("expected", state.next)]);
            }
        }
        self.poison[conn].heal((number, producer));
        Ok(Said::Done)
    }
}

#[test]
fn the_model_itself_follows_the_table() {
    let mut law = Law::default();
    law.apply(&super::Call::Create { stream: 0 }).expect("a stream");
    let mut append = |epoch, seq, events: &[Event]| {
        let batch = Batch { producer: Some((0, epoch, seq)), events: events.into(), expected: None };
        law.append(0, None, &batch).map_err(|refusal| refusal.rule.unwrap_or_default())
    };
    assert_eq!(append(1, 0, &[1]), Err("P-1"));
    law.open(0, 0, Expect::Any).expect("an epoch");
    let mut append = |epoch, seq, events: &[Event]| {
        let batch = Batch { producer: Some((0, epoch, seq)), events: events.into(), expected: None };
        law.append(0, None, &batch).map_err(|refusal| refusal.rule.unwrap_or_default())
    };
    let stored = |duplicate| Ok(Said::Appended(Appended { first_offset: Some(0), last_offset: Some(1), count: 2, duplicate }));
    assert_eq!(append(1, 0, &[1, 2]), stored(false));
    assert_eq!(append(1, 0, &[1, 2]), stored(true));
    assert_eq!(append(1, 0, &[1, 3]), Err("P-5"));
    assert_eq!(append(1, 1, &[2]), Err("P-7"));
    assert_eq!(append(1, 1, &[2, 3]), Err("P-7"));
    assert_eq!(append(1, 3, &[4]), Err("P-8"));
    law.open(0, 0, Expect::Any).expect("an epoch");
    let mut append = |epoch, seq, events: &[Event]| {
        let batch = Batch { producer: Some((0, epoch, seq)), events: events.into(), expected: None };
        law.append(0, None, &batch).map_err(|refusal| refusal.rule.unwrap_or_default())
    };
    assert_eq!(append(1, 2, &[3]), Err("P-2"));
    assert_eq!(append(3, 2, &[3]), Err("P-3"));
}
