//! Producers and idempotency keys: what they say about the log, held against the log.
//!
//! A producer's receipts are the last 64 of its batches, each where the one before it ended, the last one at its last sequence number.

use super::report::{Damage, RESTORE_OR_TRIM};
use super::streams::Subject;
use super::subscriptions::text_of;
use super::tables::{Tables, owner};
use super::{Check, Limits};
use crate::log::IdempotencyRow;
use crate::log::rocks::Closed;
use crate::log::rows::{self, value};
use crate::types::StreamId;
use crate::types::limits::RECEIPT_RING;

/// Where the text of a producer's key begins: behind kind, scope and user.
const TEXT_AT: usize = 1 + 8 + 8;

impl Check<'_> {
    pub(super) fn producers(&mut self, store: &Closed, tables: &mut Tables<'_>, of: &Subject, limits: &Limits) {
        while let Some((key, bytes)) = tables.producers.of_stream(of.id) {
            let receipts = self.producer(tables, of, &key, &bytes, Some(limits.counters.max_epoch));
            for (id, receipt) in receipts {
                self.against_the_log(store, of, &format!("producer {id}, seq {}", receipt.first_seq), receipt.base_offset, receipt.count, &receipt.fingerprint);
            }
        }
        self.receipts_of_nobody(tables, of, None);
    }

    /// Those of commits, which belong to a user and not to a stream.
    pub(super) fn broker_wide_producers(&mut self, tables: &mut Tables<'_>) {
        let of = Subject { id: StreamId(0), name: None, bounds: Default::default(), next_offset: None };
        while let Some((key, bytes)) = tables.producers.of_stream(of.id) {
            for (id, receipt) in self.producer(tables, &of, &key, &bytes, None) {
                if receipt.answer.is_none() || receipt.count != 1 {
                    self.report.damage(format!("the receipt {} of the broker-wide producer {id} has no answer to give", receipt.first_seq));
                }
            }
        }
        self.receipts_of_nobody(tables, &of, None);
    }

    /// One producer with its receipts, which come back oldest first.
    fn producer(&mut self, tables: &mut Tables<'_>, of: &Subject, key: &[u8], bytes: &[u8], max_epoch: Option<u64>) -> Vec<(String, value::Receipt)> {
        self.report.counts.producers += 1;
        let id = text_of(key, TEXT_AT);
        self.receipts_of_nobody(tables, of, Some(key));
        let mut found: Vec<(u8, value::Receipt)> = Vec::new();
        while let Some((of_receipt, bytes)) = tables.receipts.next_if(|receipt| belongs(receipt, key)) {
            self.report.counts.receipts += 1;
            match rows::decode::<value::Receipt>(&bytes) {
                Ok(row) if row.fingerprint.len() == 16 && row.count > 0 => found.push((of_receipt[key.len()], row)),
                Ok(_) => self.wrong(of, &id, "a receipt has no fingerprint or no events"),
                Err(why) => self.wrong(of, &id, &format!("a receipt: {why}")),
            }
        }
        if rows::producer_id(key).is_err() {
            self.wrong(of, &id, "its id is not one");
        }
        let row = match rows::decode::<value::Producer>(bytes) {
            Ok(row) => row,
            Err(why) => {
                self.wrong(of, &id, &why);
                return Vec::new();
            }
        };
        if row.epoch == 0 || max_epoch.is_some_and(|max| row.epoch > max) {
            self.wrong(of, &id, &format!("its epoch is {}, the largest that was given out is {}", row.epoch, max_epoch.unwrap_or_default()));
        }
        let kept = row.batches.min(RECEIPT_RING);
        let mut ring = Vec::with_capacity(kept as usize);
        for number in row.batches - kept..row.batches {
            let slot = (number % RECEIPT_RING) as u8;
            match found.iter().position(|(at, _)| *at == slot) {
                Some(at) => ring.push((id.clone(), found.swap_remove(at).1)),
                None => {
                    self.wrong(of, &id, &format!("the receipt of its batch {number} is missing: sent again, it would not be recognised by its offsets (P-14)"))
                }
            }
        }
        if !found.is_empty() {
            self.wrong(of, &id, &format!("it has {} receipts too many", found.len()));
        }
        for pair in ring.windows(2) {
            let (a, b) = (&pair[0].1, &pair[1].1);
            if a.first_seq + u64::from(a.count) != b.first_seq || (a.answer.is_none() && a.base_offset + u64::from(a.count) > b.base_offset) {
                self.wrong(of, &id, &format!("the receipt of seq {} does not follow that of seq {}", b.first_seq, a.first_seq));
            }
        }
        let last = ring.last().map(|(_, receipt)| receipt.first_seq + u64::from(receipt.count) - 1);
        if ring.len() as u64 == kept && last != row.last_seq {
            self.wrong(of, &id, &format!("its last sequence number is {:?}, that of its last receipt {last:?}", row.last_seq));
        }
        ring
    }

    /// Receipts that sort before the producer `before`: it has had its turn, or never existed.
    fn receipts_of_nobody(&mut self, tables: &mut Tables<'_>, of: &Subject, before: Option<&[u8]>) {
        let early = |key: &[u8]| owner(key) == Some(of.id) && before.is_none_or(|before| !belongs(key, before) && key[1..] < before[1..]);
        while let Some((key, _)) = tables.receipts.next_if(early) {
            self.wrong(of, &text_of(&key[..key.len() - 1], TEXT_AT), "a receipt belongs to a producer that does not exist");
        }
    }

    pub(super) fn keys(&mut self, store: &Closed, tables: &mut Tables<'_>, of: &Subject, limits: &Limits) {
        let latest = limits.counters.clock_us.saturating_add(crate::types::limits::IDEMPOTENCY_WINDOW.as_micros() as i64);
        while let Some((key, bytes)) = tables.keys.of_stream(of.id) {
            self.report.counts.idempotency_keys += 1;
            if IdempotencyRow::decode(&key).is_none() {
                self.report.of_stream(of.id, of.name.as_deref(), format!("the key {key:02x?} is not one of an idempotency key"));
            }
            match rows::decode::<value::Idempotency>(&bytes) {
                Ok(row) if row.fingerprint.len() == 16 && row.count > 0 => {
                    if row.dedup_until_us > latest {
                        self.report.of_stream(of.id, of.name.as_deref(), "an idempotency key is kept for longer than a day by the stored clock");
                    }
                    self.against_the_log(store, of, "an idempotency key", row.base_offset, row.count, &row.fingerprint);
                }
                Ok(_) => self.report.of_stream(of.id, of.name.as_deref(), "an idempotency key has no fingerprint or no events"),
                Err(why) => self.report.of_stream(of.id, of.name.as_deref(), format!("an idempotency key: {why}")),
            }
        }
    }

    /// What was acknowledged at `base` lies inside the log, and is what it was as long as it is kept.
    fn against_the_log(&mut self, store: &Closed, of: &Subject, who: &str, base: u64, count: u32, fingerprint: &[u8]) {
        let Some(end) = of.next_offset else { return };
        if base.saturating_add(u64::from(count)) > end {
            let what = format!("{who} was acknowledged {count} events from {base} on, but the stream ends at {end}: acknowledged events are missing");
            return wrong_at(self, of, base, count, what);
        }
        if base < of.bounds.first_base {
            return;
        }
        match self.fingerprint(store, of, base, count) {
            None => {}
            Some(Ok(found)) if found.to_be_bytes()[..] == *fingerprint => {}
            Some(Ok(_)) => wrong_at(self, of, base, count, format!("{who}: the events at {base} are not the ones that were acknowledged there")),
            Some(Err(why)) => wrong_at(self, of, base, count, format!("{who} was acknowledged {count} events from {base} on, but {why}")),
        }
    }

    fn wrong(&mut self, of: &Subject, producer: &str, what: &str) {
        match of.id {
            StreamId(0) => self.report.damage(format!("broker-wide producer {producer}: {what}")),
            id => self.report.of_stream(id, of.name.as_deref(), format!("producer {producer}: {what}")),
        }
    }
}

fn wrong_at(check: &mut Check<'_>, of: &Subject, base: u64, count: u32, what: String) {
    let to = base.saturating_add(u64::from(count).saturating_sub(1));
    check.report.add(Damage { stream: of.name.clone(), stream_id: Some(of.id.0), from: Some(base), to: Some(to), what, advice: RESTORE_OR_TRIM });
}

/// Is `receipt` the key of a receipt of the producer with the key `producer`? One byte more, and another kind.
fn belongs(receipt: &[u8], producer: &[u8]) -> bool {
    receipt.len() == producer.len() + 1 && receipt[1..].starts_with(&producer[1..])
}
