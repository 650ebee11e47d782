//! Commits: T-1 … T-7.

use std::sync::Arc;

use super::producers::{Found, Receipt, check};
use super::{Event, Law, Refusal, Said, Verdict, refuse};
use crate::support::*;

/// A commit as it is sent. Two that are equal but for the producer are the same one sent twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitPlan {
    /// Broker-wide producer, epoch, number of the commit.
    pub producer: Option<(u8, u64, u64)>,
    /// Stream, subscription, session, last event done.
    pub acks: Vec<(usize, u8, u64, u64)>,
    pub appends: Vec<CommitPart>,
    /// Stream, its expected end (T-7).
    pub checks: Vec<(usize, u64)>,
}

/// One append of a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitPart {
    pub stream: usize,
    pub stream_id: Option<u64>,
    pub events: Vec<Event>,
    pub expected: Option<u64>,
}

/// What a commit is answered: per ack the stream, the subscription, `next`; per append the stream, the first offset, how many.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitSaid {
    pub acks: Vec<(usize, u8, u64)>,
    pub appends: Vec<(usize, u64, u64)>,
    pub duplicate: bool,
}

impl Law {
    pub(super) fn commit(&mut self, plan: &Arc<CommitPlan>) -> Verdict {
        // Who sends it is no part of what it is: after a new opening it is still the same.
        let what = Arc::new(CommitPlan { producer: None, ..(**plan).clone() });
        if let Some((id, epoch, seq)) = plan.producer {
            match check(self.wide.get(&id), epoch, seq, 1, &what)? {
                Found::Next => {}
                // Whatever became of its streams (T-2).
                Found::Repeated(answer) => return Ok(Said::Committed(CommitSaid { duplicate: true, ..(*answer).clone() })),
                Found::Old => return Ok(Said::Committed(CommitSaid { duplicate: true, ..CommitSaid::default() })),
            }
        }
        // T-1: everything is looked at before anything changes.
        let mut said = CommitSaid::default();
        for (index, (stream, sub, epoch, offset)) in plan.acks.iter().enumerate() {
            said.acks.push((*stream, *sub, self.progress(*stream, *sub, *epoch, offset + 1).map_err(|cause| cause.of_part("acks", index))?));
        }
        for (index, part) in plan.appends.iter().enumerate() {
            // Earlier parts of the same commit count.
            let before: u64 = said.appends.iter().filter(|(stream, ..)| *stream == part.stream).map(|(.., count)| count).sum();
            let base = self.place(part, before).map_err(|cause| cause.of_part("appends", index))?;
            said.appends.push((part.stream, base, part.events.len() as u64));
        }
        for (index, (stream, expected)) in plan.checks.iter().enumerate() {
            let next = self.stream(*stream, None).map_err(|cause| cause.of_part("checks", index))?.end();
            if said.appends.iter().any(|(written, ..)| written == stream) {
                return refuse(Code::BadParameter, Some("T-7"), &[]);
            }
            if next != *expected {
                let failed: Result<(), _> = refuse(Code::ConditionFailed, Some("T-7"), &[("next_offset", next), ("expected_next_offset", *expected)]);
                return failed.map(|()| Said::Done).map_err(|cause| cause.of_part("checks", index));
            }
        }
        for (stream, sub, next) in &said.acks {
            self.advance(*stream, *sub, *next, AckLevel::Durable);
        }
        for part in &plan.appends {
            self.stream(part.stream, None)?.store(&part.events);
        }
        if let Some((id, _, seq)) = plan.producer {
            let receipt = Receipt { first_seq: seq, count: 1, what, answer: Arc::new(said.clone()) };
            self.wide.get_mut(&id).expect("the table found it").record(receipt);
        }
        self.wrote();
        Ok(Said::Committed(said))
    }

    /// T-5: an ack of a commit must move the cursor.
    fn progress(&mut self, stream: usize, sub: u8, epoch: u64, next: u64) -> Result<u64, Refusal> {
        let acked = self.check_ack(stream, sub, epoch, next, None)?;
        let before = self.cursor(stream, sub)?.next;
        if acked.next <= before { refuse(Code::AckStale, Some("T-5"), &[("next", before)]) } else { Ok(acked.next) }
    }

    /// Where a part's events would go.
    fn place(&mut self, part: &CommitPart, before: u64) -> Result<u64, Refusal> {
        let stream = self.stream(part.stream, part.stream_id)?;
        let next = stream.end() + before;
        if stream.closed {
            return refuse(Code::StreamClosed, Some("P-9"), &[("next_offset", next)]);
        }
        match part.expected {
            Some(expected) if expected != next => refuse(Code::ConditionFailed, Some("P-9"), &[("next_offset", next), ("expected_next_offset", expected)]),
            _ => Ok(next),
        }
    }
}
