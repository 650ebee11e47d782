//! One producer: what it may append next, and what it is told about what it appended before (P-1 … P-10, P-14).
//!
//! Serves stream producers, whose `seq` counts events, and broker-wide ones, whose `seq` counts commits.

use std::collections::VecDeque;

use super::generations::Evictable;
use crate::log::rows::value;
use crate::types::limits::RECEIPT_RING;
use crate::types::{Code, Error};

/// Proof of one stored batch, self-contained (P-14).
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// First sequence number.
    pub first_seq: u64,
    /// How many.
    pub count: u32,
    /// Where its first event is.
    pub base_offset: u64,
    /// Of its content.
    pub fingerprint: u128,
    /// The whole answer, for commits.
    pub answer: Option<value::CommitAnswer>,
}

impl Receipt {
    /// The stored row.
    pub fn to_row(&self) -> value::Receipt {
        value::Receipt {
            first_seq: self.first_seq,
            count: self.count,
            base_offset: self.base_offset,
            fingerprint: self.fingerprint.to_be_bytes().to_vec(),
            answer: self.answer.clone(),
        }
    }

    /// From the stored row.
    ///
    /// # Errors
    /// A sentence when the row is damaged.
    pub fn from_row(row: value::Receipt) -> Result<Self, String> {
        let fingerprint = row.fingerprint.as_slice().try_into().map(u128::from_be_bytes).map_err(|_| "a receipt's fingerprint is not 16 bytes".to_owned())?;
        Ok(Self { first_seq: row.first_seq, count: row.count, base_offset: row.base_offset, fingerprint, answer: row.answer })
    }
}

/// A producer's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Producer {
    /// Of the newest opening.
    pub epoch: u64,
    /// Last sequence number stored.
    pub last_seq: Option<u64>,
    /// How many batches it stored; number of the next receipt.
    pub batches: u64,
    /// The newest receipts, oldest first.
    pub receipts: VecDeque<Receipt>,
    /// Of these, how many the current group added.
    pub unsaved: usize,
    /// The user who opened it first, with whom it is counted; 0 = nobody.
    pub owner: u64,
}

impl Evictable for Producer {}

/// What the table says about a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// P-10 so far: it is the next one; stream-side checks follow.
    Next,
    /// P-4: stored before, with its receipt.
    Duplicate(Receipt),
    /// P-6: stored before, receipt gone.
    OldDuplicate,
}

impl Producer {
    /// A producer that was just opened for the first time.
    pub fn new(epoch: u64, owner: u64) -> Self {
        Self { epoch, last_seq: None, batches: 0, receipts: VecDeque::new(), unsaved: 0, owner }
    }

    /// The sequence number that comes next.
    pub fn expected(&self) -> u64 {
        self.last_seq.map_or(0, |last| last + 1)
    }

    /// P-1 … P-8 and P-10, top to bottom. `state` is `None` when there is no such producer.
    ///
    /// # Errors
    /// The refusals of the table, with rule and details.
    pub fn check(state: Option<&Self>, id: &str, epoch: u64, seq: u64, count: u32, fingerprint: u128) -> Result<Verdict, Error> {
        let unknown = |rule, why: &str| {
            Err(Error::new(Code::ProducerUnknown, format!("Producer {id} {why}. Open it, then send from last_seq + 1.")).rule(rule).detail("producer", id))
        };
        let Some(state) = state else {
            return unknown("P-1", "has no state here");
        };
        if epoch < state.epoch {
            return Err(Error::new(Code::ProducerFenced, format!("Producer {id} was opened again elsewhere (epoch {}); this is epoch {epoch}.", state.epoch))
                .rule("P-2")
                .detail("producer", id)
                .detail("epoch", state.epoch));
        }
        if epoch > state.epoch {
            return unknown("P-3", &format!("is at epoch {}, not {epoch}: its state was lost or restored", state.epoch));
        }
        let Some(last_of_batch) = seq.checked_add(u64::from(count) - 1).filter(|last| *last < u64::MAX) else {
            return Err(Error::bad("producer.seq", "The sequence number is too large."));
        };
        let expected = state.expected();
        if seq > expected {
            return Err(Error::new(
                Code::ProducerSeqGap,
                format!("Producer {id} sent seq {seq}, but {expected} comes next. Nothing was stored; send from there."),
            )
            .rule("P-8")
            .detail("producer", id)
            .detail("expected", expected));
        }
        if seq == expected {
            return Ok(Verdict::Next);
        }
        if let Some(receipt) = state.receipts.iter().find(|r| r.first_seq == seq && r.count == count) {
            if receipt.fingerprint == fingerprint {
                return Ok(Verdict::Duplicate(receipt.clone()));
            }
            return Err(Error::new(Code::ProducerSeqReused, format!("Producer {id} sent other content for seq {seq} before. Resend batches unchanged."))
                .rule("P-5")
                .detail("producer", id)
                .detail("seq", seq));
        }
        if last_of_batch < state.receipts.front().map_or(expected, |r| r.first_seq) {
            return Ok(Verdict::OldDuplicate);
        }
        let last = expected - 1;
        Err(Error::new(
            Code::ProducerSeqOverlap,
            format!("Producer {id} cut its batch differently than before: seq {seq} to {last_of_batch}, stored up to {last}."),
        )
        .rule("P-7")
        .detail("producer", id)
        .detail("last_seq", last))
    }

    /// P-10: the batch is stored by the current group.
    pub fn record(&mut self, receipt: Receipt) {
        debug_assert_eq!(receipt.first_seq, self.expected(), "a batch is recorded only when it is the next one");
        self.last_seq = Some(receipt.first_seq + u64::from(receipt.count) - 1);
        self.batches += 1;
        self.receipts.push_back(receipt);
        if self.receipts.len() > RECEIPT_RING as usize {
            self.receipts.pop_front();
        }
        self.unsaved = (self.unsaved + 1).min(RECEIPT_RING as usize);
    }

    /// Receipts the current group added, with their slots.
    pub fn unsaved_receipts(&self) -> impl Iterator<Item = (u8, &Receipt)> {
        let first = self.batches - self.unsaved as u64;
        let skip = self.receipts.len() - self.unsaved;
        (first..).map(|number| (number % RECEIPT_RING) as u8).zip(self.receipts.iter().skip(skip))
    }

    /// The stored row.
    pub fn to_row(&self, last_use_us: i64) -> value::Producer {
        value::Producer { epoch: self.epoch, last_seq: self.last_seq, batches: self.batches, last_use_us, owner: self.owner }
    }

    /// From the stored rows; `receipts` in any order.
    pub fn from_rows(row: &value::Producer, mut receipts: Vec<Receipt>) -> Self {
        receipts.sort_by_key(|r| r.first_seq);
        Self { epoch: row.epoch, last_seq: row.last_seq, batches: row.batches, receipts: receipts.into(), unsaved: 0, owner: row.owner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_batches(batches: &[(u64, u32)]) -> Producer {
        let mut producer = Producer::new(3, 0);
        for &(seq, count) in batches {
            producer.record(Receipt { first_seq: seq, count, base_offset: 100 + seq, fingerprint: u128::from(seq), answer: None });
        }
        producer
    }

    fn check(producer: &Producer, epoch: u64, seq: u64, count: u32, fingerprint: u128) -> Result<Verdict, Code> {
        Producer::check(Some(producer), "p", epoch, seq, count, fingerprint).map_err(|e| e.code)
    }

    #[test]
    fn the_table_is_read_from_top_to_bottom() {
        let p = with_batches(&[(0, 2), (2, 3), (5, 1)]);
        assert_eq!(Producer::check(None, "p", 3, 0, 1, 0).unwrap_err().rule.as_deref(), Some("P-1"));
        assert_eq!(check(&p, 2, 6, 1, 0), Err(Code::ProducerFenced), "P-2");
        assert_eq!(check(&p, 4, 6, 1, 0), Err(Code::ProducerUnknown), "P-3");
        assert!(matches!(check(&p, 3, 2, 3, 2), Ok(Verdict::Duplicate(r)) if r.base_offset == 102), "P-4");
        assert_eq!(check(&p, 3, 2, 3, 9), Err(Code::ProducerSeqReused), "P-5");
        assert_eq!(check(&p, 3, 2, 2, 2), Err(Code::ProducerSeqOverlap), "P-7 cuts a receipt");
        assert_eq!(check(&p, 3, 5, 2, 5), Err(Code::ProducerSeqOverlap), "P-7 straddles the end");
        assert_eq!(check(&p, 3, 7, 1, 0), Err(Code::ProducerSeqGap), "P-8");
        assert_eq!(check(&p, 3, 6, 4, 0), Ok(Verdict::Next), "P-10");
        assert_eq!(check(&p, 3, u64::MAX, 4, 0), Err(Code::BadParameter));
    }

    #[test]
    fn p6_a_batch_older_than_the_ring_is_a_duplicate_without_offsets() {
        let batches: Vec<_> = (0..100).map(|i| (i, 1)).collect();
        let p = with_batches(&batches);
        assert_eq!(p.receipts.len(), 64);
        assert_eq!(check(&p, 3, 35, 1, 77), Ok(Verdict::OldDuplicate));
        assert!(matches!(check(&p, 3, 36, 1, 36), Ok(Verdict::Duplicate(_))));
        assert_eq!(check(&p, 3, 35, 2, 0), Err(Code::ProducerSeqOverlap), "reaches into the ring");
        let slots: Vec<_> = p.unsaved_receipts().map(|(slot, r)| (u64::from(slot), r.first_seq % 64)).collect();
        assert!(slots.len() == 64 && slots.iter().all(|(slot, seq)| slot == seq));
    }
}
