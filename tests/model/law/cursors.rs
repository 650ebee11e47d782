//! Cursors and sessions: C-1 … C-20, and pulls.

use super::{Law, Refusal, Said, Verdict, WINDOW, refuse};
use crate::support::*;

/// A cursor: what is surely on disk, what was answered, the newest epoch, and what that epoch's session was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cursor {
    /// Tells one subscription from a later one of the same name.
    pub generation: u64,
    /// At least so far it is on disk (C-16).
    pub durable: u64,
    pub next: u64,
    /// `next` when everything before was answered.
    pub settled: u64,
    pub epoch: u64,
    /// D of the newest session; `None` when the broker forgot it (restart) or there was none.
    pub delivered: Option<u64>,
    pub attached: bool,
    /// Opened or used by a pull: live between two calls too.
    pub pulled: bool,
}

impl Cursor {
    fn at(&mut self, next: u64) {
        (self.durable, self.next, self.settled) = (next, next, next);
    }
}

/// What an opening asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub from: Option<Start>,
    pub rewind: bool,
    pub reject: bool,
    pub on_gap: OnGap,
    pub log_epoch: Option<u64>,
}

/// A pull opens a session or goes on with one.
#[derive(Clone, Debug, PartialEq)]
pub enum Pulling {
    Open(Ask),
    Continue { epoch: u64, from: Option<u64>, on_gap: OnGap },
}

/// C-7 and C-8.
fn check_epoch(cursor: &Cursor, epoch: u64) -> Result<(), Refusal> {
    if epoch < cursor.epoch {
        return refuse(Code::SessionFenced, Some("C-7"), &[("epoch", cursor.epoch)]);
    }
    if epoch > cursor.epoch {
        return refuse(Code::SessionUnknown, Some("C-8"), &[]);
    }
    Ok(())
}

impl Law {
    pub(super) fn subscribe(&mut self, number: usize, sub: u8) -> Verdict {
        let generation = self.counters.generations + 1;
        let stream = self.stream(number, None)?;
        if stream.cursors.contains_key(&sub) {
            return refuse(Code::NameTaken, None, &[]);
        }
        let mut cursor = Cursor { generation, epoch: stream.floor, ..Cursor::default() };
        cursor.at(stream.first);
        let said = Said::Cursor { next: cursor.next, epoch: cursor.epoch };
        stream.cursors.insert(sub, cursor);
        self.counters.generations = generation;
        self.wrote();
        Ok(said)
    }

    pub(super) fn unsubscribe(&mut self, number: usize, sub: u8) -> Verdict {
        let epoch = self.cursor(number, sub)?.epoch;
        let stream = self.stream(number, None)?;
        stream.cursors.remove(&sub);
        stream.floor = stream.floor.max(epoch);
        self.wrote();
        Ok(Said::Done)
    }

    /// C-1 … C-6.
    pub(super) fn attach(&mut self, number: usize, stream_id: Option<u64>, sub: u8, ask: &Ask) -> Verdict {
        let stream = self.stream(number, stream_id)?;
        let (first, end, stream_id) = (stream.first, stream.end(), stream.id);
        let cursor = self.cursor(number, sub)?;
        if (cursor.attached || cursor.pulled) && ask.reject {
            return refuse(Code::CursorBusy, Some("C-1"), &[("epoch", cursor.epoch)]);
        }
        if ask.log_epoch.is_some_and(|given| given != 1) {
            return refuse(Code::LogEpochChanged, Some("C-2"), &[("log_epoch", 1), ("next_offset", end)]);
        }
        let next = resolve(ask.from, cursor.next, first, end)?;
        if next < cursor.next && !ask.rewind {
            return refuse(Code::CursorAhead, Some("C-4"), &[("next", cursor.next)]);
        }
        check_gap(next, first, ask.on_gap)?;
        cursor.epoch += 1;
        cursor.at(next);
        (cursor.delivered, cursor.attached, cursor.pulled) = (Some(next), true, false);
        let epoch = cursor.epoch;
        self.gave(number, true, sub, epoch);
        self.wrote();
        Ok(Said::Attached { epoch, next, first, end, stream_id })
    }

    /// C-7 … C-13. `proved` is what a token shows to have been delivered (C-18).
    pub(super) fn check_ack(&mut self, number: usize, sub: u8, epoch: u64, next: u64, proved: Option<u64>) -> Result<Acked, Refusal> {
        let end = self.stream(number, None)?.end();
        let cursor = self.cursor(number, sub)?;
        check_epoch(cursor, epoch)?;
        if next > end {
            return refuse(Code::AckBeyondEnd, Some("C-9"), &[("next_offset", end)]);
        }
        if next <= cursor.next {
            return Ok(Acked { offset: cursor.next.checked_sub(1), next: cursor.next, stale: next < cursor.next });
        }
        match cursor.delivered.max(proved) {
            None => refuse(Code::SessionUnknown, Some("C-8"), &[]),
            Some(delivered) if next > delivered => refuse(Code::AckNotDelivered, Some("C-10"), &[("next_delivered", delivered)]),
            Some(_) => Ok(Acked { offset: next.checked_sub(1), next, stale: false }),
        }
    }

    pub(super) fn ack(&mut self, number: usize, sub: u8, epoch: u64, next: u64, level: AckLevel, proved: Option<u64>) -> Verdict {
        let acked = self.check_ack(number, sub, epoch, next, proved)?;
        self.advance(number, sub, acked.next, level);
        Ok(Said::Acked(acked))
    }

    /// C-11, C-16.
    pub(super) fn advance(&mut self, number: usize, sub: u8, next: u64, level: AckLevel) {
        let cursor = self.cursor(number, sub).expect("the check found it");
        let moved = next > cursor.next;
        cursor.next = next;
        if level == AckLevel::Durable {
            (cursor.durable, cursor.settled) = (next, next);
            self.wrote_if(moved);
        }
    }

    /// C-14.
    pub(super) fn seek(&mut self, number: usize, sub: u8, to: Start) -> Verdict {
        let stream = self.stream(number, None)?;
        let (first, end) = (stream.first, stream.end());
        let cursor = self.cursor(number, sub)?;
        let next = resolve(Some(to), 0, first, end)?;
        cursor.epoch += 1;
        cursor.at(next);
        (cursor.delivered, cursor.attached, cursor.pulled) = (None, false, false);
        let epoch = cursor.epoch;
        self.gave(number, true, sub, epoch);
        self.wrote();
        Ok(Said::Cursor { next, epoch })
    }

    /// A run of a session that a pull opens or goes on with; what it hands out counts as delivered.
    pub(super) fn pull(&mut self, number: usize, sub: u8, pulling: &Pulling, max: u64) -> Verdict {
        let (start, on_gap) = match pulling {
            Pulling::Open(ask) => match self.attach(number, None, sub, ask)? {
                Said::Attached { next, .. } => (next, ask.on_gap),
                other => unreachable!("an opening said {other:?}"),
            },
            Pulling::Continue { epoch, from, on_gap } => (self.goes_on(number, sub, *epoch, *from, *on_gap)?, *on_gap),
        };
        let stream = self.stream(number, None)?;
        let (first, end, stream_id) = (stream.first, stream.end(), stream.id);
        let skipped = start < first;
        assert!(!skipped || on_gap == OnGap::Skip, "a gap was checked before");
        let cursor = self.cursor(number, sub)?;
        // Between two calls it is only the pull's.
        cursor.attached &= !matches!(pulling, Pulling::Open(_));
        cursor.pulled = true;
        let next = start.max(first);
        let room = max.min((WINDOW as u64).saturating_sub(next.saturating_sub(cursor.next)));
        let to = end.min(next + room).max(next);
        cursor.delivered = cursor.delivered.max(Some(to));
        let epoch = cursor.epoch;
        let events = self.stream(number, None)?.events[next as usize..to as usize].to_vec();
        Ok(Said::Pulled { epoch, gap: skipped.then(|| (start, first - 1)), from: next, events, lag: end - to, stream_id, token: to > start })
    }

    /// Where a further call of a session begins.
    fn goes_on(&mut self, number: usize, sub: u8, epoch: u64, from: Option<u64>, on_gap: OnGap) -> Result<u64, Refusal> {
        let first = self.stream(number, None)?.first;
        let cursor = self.cursor(number, sub)?;
        check_epoch(cursor, epoch)?;
        let Some(delivered) = cursor.delivered else { return refuse(Code::SessionUnknown, Some("C-8"), &[]) };
        let (next, delivered) = (cursor.next, delivered.max(cursor.next));
        let from = from.unwrap_or(next);
        if !(next..=delivered).contains(&from) {
            return refuse(Code::BadParameter, None, &[("next", next), ("next_delivered", delivered)]);
        }
        check_gap(from, first, on_gap)?;
        Ok(from)
    }
}

/// C-3.
fn resolve(from: Option<Start>, cursor: u64, first: u64, end: u64) -> Result<u64, Refusal> {
    let next = match from {
        None => cursor,
        Some(Start::Earliest) => first,
        Some(Start::Offset(offset)) => offset,
        Some(_) => end,
    };
    if next > end { refuse(Code::PositionBeyondEnd, Some("C-3"), &[("next_offset", end)]) } else { Ok(next) }
}

/// C-6.
fn check_gap(next: u64, first: u64, on_gap: OnGap) -> Result<(), Refusal> {
    if next < first && on_gap == OnGap::Fail {
        return refuse(Code::CursorTrimmed, Some("C-6"), &[("next", next), ("first_offset", first)]);
    }
    Ok(())
}
