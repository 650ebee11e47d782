//! Idempotency keys (P-19): what was asked under a name of the caller's choosing is answered again, for a day.
//!
//! The key's row is written by the append's own commit, so that neither exists without the other (S-1).

use super::State;
use crate::broker::broken::Promise;
use crate::broker::generations::Evictable;
use crate::broker::intent::AppendIntent;
use crate::log::rows::value;
use crate::log::{IdempotencyRow, Key};
use crate::types::reply::Appended;
use crate::types::{Code, Error, Result, TimeUs, limits};

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Of the events.
    pub fingerprint: u128,
    /// Where the first event is.
    pub base_offset: u64,
    /// How many.
    pub count: u32,
    /// On the clock of S-9; from then on the key is as good as new.
    pub until: TimeUs,
}

impl Evictable for Remembered {}

impl Remembered {
    fn to_row(self) -> value::Idempotency {
        let Self { fingerprint, base_offset, count, until } = self;
        value::Idempotency { fingerprint: fingerprint.to_be_bytes().to_vec(), base_offset, count, dedup_until_us: until.0 }
    }

    /// From the stored row.
    ///
    /// # Errors
    /// A sentence when the row is damaged.
    pub fn from_row(row: value::Idempotency) -> Result<Self, String> {
        let value::Idempotency { fingerprint, base_offset, count, dedup_until_us } = row;
        let fingerprint = fingerprint.as_slice().try_into().map(u128::from_be_bytes);
        let fingerprint = fingerprint.map_err(|_| "the fingerprint of an idempotency key is not 16 bytes".to_owned())?;
        Ok(Self { fingerprint, base_offset, count, until: TimeUs(dedup_until_us) })
    }
}

impl State {
    /// P-19. The key is looked up where a producer would be: before the stream's own conditions, which a repeated request need not meet again.
    pub(super) fn append_once(&mut self, append: AppendIntent, key: u128, fingerprint: u128) -> Result<(Appended, TimeUs)> {
        let stream = self.data_stream_or_new(&append.stream, append.stream_id, append.author.user)?;
        let now = self.clock();
        let row = IdempotencyRow { stream, principal: append.author.principal(), hash: key };
        // A stream that `dev` created a moment ago has no keys, loaded or not.
        let known = self.keys.get(&row).copied().flatten().filter(|known| now < known.until);
        if let Some(Remembered { fingerprint: first, base_offset, count, until }) = known {
            if first != fingerprint {
                return Err(Error::new(
                    Code::IdempotencyKeyReused,
                    "This Idempotency-Key was used for other events before. Send those again unchanged, or take a new key.",
                )
                .rule("P-19")
                .detail("dedup_until", until.to_string()));
            }
            let last_offset = Some(base_offset + u64::from(count) - 1);
            return Ok((Appended { first_offset: Some(base_offset), last_offset, count, duplicate: true }, until));
        }
        let appended = self.append_alone(append)?;
        let base_offset = appended.first_offset.ok_or_else(|| Error::internal("an append without a producer has no offset"))?;
        let until = TimeUs(now.0 + limits::IDEMPOTENCY_WINDOW.as_micros() as i64);
        let remembered = Remembered { fingerprint, base_offset, count: appended.count, until };
        if !self.options.broken.is(Promise::DropReceipt) {
            self.put(Key::Idempotency(&row), &remembered.to_row());
        }
        self.keys.insert(row, Some(remembered));
        // What is to expire is stored with the clock it is measured by.
        self.group.counters = true;
        Ok((appended, until))
    }

    /// Drops those whose time is over; one that was used again meanwhile stays.
    pub(super) fn forget_keys(&mut self, keys: Vec<IdempotencyRow>) {
        let now = self.clock();
        for row in keys {
            if self.keys.get(&row).copied().flatten().is_some_and(|known| known.until <= now) {
                self.delete(Key::Idempotency(&row));
                self.keys.insert(row, None);
            }
        }
    }
}
