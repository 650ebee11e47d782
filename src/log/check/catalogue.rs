//! The catalogue: the two fixed rows, the indexes by name, uuid and owner, and the operations.

use std::collections::HashSet;

use super::Check;
use super::subscriptions::text_of;
use super::tables::{OPERATION, STREAM, STREAM_NAME, STREAM_OWNER, STREAM_UUID, Table, owner};
use crate::log::rocks::Closed;
use crate::log::rows::{self, FORMAT_VERSION, value};
use crate::log::{Key, Space};
use crate::types::{StreamId, StreamName};

/// Length of the broker's secret.
const SECRET_BYTES: usize = 32;
/// Status from which on an operation changes no more.
const FINAL: u32 = 200;

impl Check<'_> {
    /// Format and counters. Without counters everything would look too large, so the largest ones stand in.
    pub(super) fn fixed_rows(&mut self, store: &Closed) -> value::Counters {
        let nothing = value::Counters {
            next_stream_id: u64::MAX,
            next_subscription_id: u64::MAX,
            log_epoch: u64::MAX,
            max_epoch: u64::MAX,
            next_user_id: u64::MAX,
            next_source_id: u64::MAX,
            clock_us: i64::MAX / 2,
            ..Default::default()
        };
        let mut found = match store.get(&[Key::Format.encode(), Key::Counters.encode()]) {
            Ok(found) => found.into_iter(),
            Err(why) => {
                self.unreadable(&why);
                return nothing;
            }
        };
        match found.next().flatten().map(|bytes| rows::decode::<value::Format>(&bytes)) {
            None => self.report.damage("the format row is missing"),
            Some(Err(why)) => self.report.damage(why),
            Some(Ok(row)) if row.version == 0 || row.version > FORMAT_VERSION => {
                self.report.damage(format!("the format is {}, this version reads up to {FORMAT_VERSION}", row.version));
            }
            Some(Ok(row)) if row.secret.len() != SECRET_BYTES => self.report.damage("the secret in the format row does not have its 32 bytes"),
            Some(Ok(_)) => {}
        }
        match found.next().flatten().map(|bytes| rows::decode::<value::Counters>(&bytes)) {
            None => {
                match Table::of(store, Space::Meta, STREAM).map(|mut streams| streams.any()) {
                    Ok(None) => {}
                    _ => self.report.damage("the counters are missing: ids, epochs and the log epoch would begin anew (S-8)"),
                }
                nothing
            }
            Some(Err(why)) => {
                self.report.damage(why);
                nothing
            }
            Some(Ok(counters)) => {
                if counters.epoch_floor > counters.max_epoch {
                    self.report
                        .damage(format!("the epoch floor is {}, above the largest epoch that was given out ({})", counters.epoch_floor, counters.max_epoch));
                }
                counters
            }
        }
    }

    /// Every entry of an index leads to a stream that says the same of itself. (That every stream has its entries is seen at the stream.)
    pub(super) fn indexes(&mut self, store: &Closed) {
        let by_name = |row: &value::Stream, key: &[u8]| StreamName::stored(&row.name).folded() == text_of(key, 1);
        let by_uuid = |row: &value::Stream, key: &[u8]| row.uuid.parse::<uuid::Uuid>().is_ok_and(|uuid| key[1..] == uuid.as_bytes()[..]);
        let by_owner = |row: &value::Stream, key: &[u8]| key.get(1..9) == Some(&row.owner.to_be_bytes()[..]);
        self.index(store, STREAM_NAME, "name", |_, value| rows::decode_id(value).ok(), by_name);
        self.index(store, STREAM_UUID, "uuid", |_, value| rows::decode_id(value).ok(), by_uuid);
        self.index(store, STREAM_OWNER, "owner", |key, _| owner(key.get(8..)?).map(|id| id.0), by_owner);
        self.operations(store);
    }

    fn index(&mut self, store: &Closed, kind: u8, what: &str, id: impl Fn(&[u8], &[u8]) -> Option<u64>, same: impl Fn(&value::Stream, &[u8]) -> bool) {
        let mut table = match Table::of(store, Space::Meta, kind) {
            Ok(table) => table,
            Err(why) => return self.unreadable(&why),
        };
        while let Some((key, value)) = table.any() {
            self.report.counts.index_rows += 1;
            (self.progress)("index rows", 1);
            let Some(id) = id(&key, &value) else {
                self.report.damage(format!("an entry of the index by {what} has no id: {key:02x?}"));
                continue;
            };
            let row = match store.get(&[Key::Stream(StreamId(id)).encode()]) {
                Ok(found) => found.into_iter().next().flatten(),
                Err(why) => return self.unreadable(&why),
            };
            match row.map(|bytes| rows::decode::<value::Stream>(&bytes)) {
                None => self.report.damage(format!("the index by {what} leads to stream {id}, which does not exist: {key:02x?}")),
                Some(Ok(row)) if !same(&row, &key) => {
                    self.report.of_stream(StreamId(id), Some(&row.name), format!("another entry of the index by {what} leads to it as well: {key:02x?}"));
                }
                // An unreadable row is told when the streams are walked.
                Some(_) => {}
            }
        }
    }

    /// A deletion under way and the stream that is being deleted need each other.
    fn operations(&mut self, store: &Closed) {
        let (mut operations, mut streams) = match (Table::of(store, Space::Meta, OPERATION), Table::of(store, Space::Meta, STREAM)) {
            (Ok(operations), Ok(streams)) => (operations, streams),
            (Err(why), _) | (_, Err(why)) => return self.unreadable(&why),
        };
        let mut deleting = HashSet::new();
        while let Some((key, bytes)) = operations.any() {
            self.report.counts.operations += 1;
            if key.len() != 1 + 16 {
                self.report.damage(format!("the key {key:02x?} is not one of an operation"));
            }
            match rows::decode::<value::Operation>(&bytes) {
                Err(why) => self.report.damage(format!("operation {key:02x?}: {why}")),
                Ok(row) if row.status_code < FINAL && row.command == "stream.Delete" => drop(deleting.insert(row.stream_id)),
                Ok(_) => {}
            }
        }
        while let Some((key, bytes)) = streams.any() {
            let (Some(id), Ok(row)) = (owner(&key), rows::decode::<value::Stream>(&bytes)) else { continue };
            if deleting.remove(&id.0) != row.deleting {
                let what = if row.deleting { "it is being deleted, but no operation does it" } else { "an operation deletes it, but it is not marked so" };
                self.report.of_stream(id, Some(&row.name), what);
            }
        }
        // What was deleted in the meantime has its end in the same commit as the operation.
        deleting.into_iter().for_each(|id| self.report.damage(format!("an operation deletes stream {id}, which does not exist")));
    }
}
