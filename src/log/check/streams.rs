//! Each stream in its turn: its rows side by side with its batches, and what no stream claims.

use super::tables::Tables;
use super::{Check, Limits};
use crate::log::rocks::Closed;
use crate::log::rows::{self, value};
use crate::types::{StreamId, StreamName};

/// A stream under examination.
pub(super) struct Subject {
    pub(super) id: StreamId,
    /// Its name, if its row can be read.
    pub(super) name: Option<String>,
    /// As stored, or from nothing.
    pub(super) bounds: value::Bounds,
    /// One past the last event; `None`: its end cannot be told, so nothing is compared with it.
    pub(super) next_offset: Option<u64>,
}

impl Check<'_> {
    /// All streams (or the one there are tables of), and the orphans between them.
    pub(super) fn streams(&mut self, store: &Closed, mut tables: Tables<'_>, limits: &Limits, only: Option<StreamId>) {
        if only.is_none() {
            // Broker-wide producers belong to stream 0, which does not exist.
            self.broker_wide_producers(&mut tables);
        }
        let mut walked = StreamId(0);
        while let Some((key, bytes)) = tables.streams.any() {
            let Some(id) = super::tables::owner(&key).filter(|id| key.len() == 9 && id.0 > 0) else {
                self.report.damage(format!("the key {key:02x?} is not one of a stream"));
                continue;
            };
            self.orphans(&mut tables, Some(id));
            if only.is_none() {
                self.batches_of_nobody(store, walked, Some(id), limits);
            }
            self.stream(store, &mut tables, id, &bytes, limits);
            walked = StreamId(id.0.saturating_add(1));
        }
        self.orphans(&mut tables, None);
        if only.is_none() {
            self.batches_of_nobody(store, walked, None, limits);
        }
        let mut broken: Vec<String> = tables.streams.broken.take().into_iter().collect();
        broken.extend(tables.owned().into_iter().filter_map(|(table, _)| table.broken.take()));
        broken.iter().for_each(|why| self.unreadable(why));
    }

    fn stream(&mut self, store: &Closed, tables: &mut Tables<'_>, id: StreamId, bytes: &[u8], limits: &Limits) {
        self.report.counts.streams += 1;
        (self.progress)("streams", 1);
        let row: Option<value::Stream> = rows::decode(bytes).map_err(|why| self.report.of_stream(id, None, why)).ok();
        let name = row.as_ref().map(|row| row.name.clone());
        if id.0 >= limits.counters.next_stream_id && !id.is_system() {
            let what = format!("its id is {id}, but the next one to be given out is {}: it would be used twice (S-8)", limits.counters.next_stream_id);
            self.report.of_stream(id, name.as_deref(), what);
        }
        // Those of the broker's own are in no index: their names are known.
        if let Some(row) = row.as_ref().filter(|_| !id.is_system()) {
            self.entries(store, id, row);
        }
        let bounds = match tables.bounds.of_stream(id) {
            Some((_, bytes)) => rows::decode::<value::Bounds>(&bytes).map_err(|why| self.report.of_stream(id, name.as_deref(), why)).ok(),
            None => {
                self.report.of_stream(id, name.as_deref(), "it has no bounds row");
                None
            }
        };
        let known = bounds.is_some();
        let mut subject = Subject { id, name, bounds: bounds.unwrap_or_default(), next_offset: None };
        if known {
            self.bounds(&subject, limits);
            subject.next_offset = self.batches(store, &subject, limits);
        } else {
            self.bare(store, id);
        }
        self.subscriptions(store, tables, &subject, limits);
        self.producers(store, tables, &subject, limits);
        self.keys(store, tables, &subject, limits);
    }

    fn bounds(&mut self, of: &Subject, limits: &Limits) {
        let b = &of.bounds;
        if b.first_base > b.first_offset {
            self.report.of_stream(of.id, of.name.as_deref(), format!("its first batch begins at {}, after its first offset {}", b.first_base, b.first_offset));
        }
        if b.epoch_floor > limits.counters.max_epoch {
            let what = format!("its epoch floor is {}, above the largest epoch that was given out ({})", b.epoch_floor, limits.counters.max_epoch);
            self.report.of_stream(of.id, of.name.as_deref(), what);
        }
    }

    /// Rows of streams that have no row of their own.
    fn orphans(&mut self, tables: &mut Tables<'_>, before: Option<StreamId>) {
        for (table, what) in tables.owned() {
            while let Some((key, _)) = table.before(before) {
                let owner = super::tables::owner(&key).map_or_else(|| "nobody".into(), |id| format!("stream {id}, which does not exist"));
                self.report.damage(format!("{what} belongs to {owner}: {key:02x?}"));
            }
        }
    }

    /// Batches of streams from `from` on, before `to`. Those of a deleted stream may come back when files are dropped (docs/on-disk.md).
    fn batches_of_nobody(&mut self, store: &Closed, mut from: StreamId, to: Option<StreamId>, limits: &Limits) {
        loop {
            let found = match store.next_stream(from) {
                Ok(found) => found.filter(|id| to.is_none_or(|to| *id < to)),
                Err(why) => return self.unreadable(&why),
            };
            let Some(id) = found else { return };
            match store.batches_below(id, None) {
                Ok(count) if id.0 > 0 && id.0 < limits.counters.next_stream_id => self.report.counts.leftover_batches += count,
                Ok(count) => self.report.of_stream(id, None, format!("{count} batches belong to a stream that was never created")),
                Err(why) => self.unreadable(&why),
            }
            let Some(next) = id.0.checked_add(1) else { return };
            from = StreamId(next);
        }
    }

    /// Without rows to compare with: every batch by itself.
    pub(super) fn bare_streams(&mut self, store: &Closed) {
        let mut from = StreamId(0);
        loop {
            match store.next_stream(from) {
                Ok(Some(id)) => {
                    self.bare(store, id);
                    let Some(next) = id.0.checked_add(1) else { return };
                    from = StreamId(next);
                }
                Ok(None) => return,
                Err(why) => return self.unreadable(&why),
            }
        }
    }

    /// The three index rows of a stream.
    fn entries(&mut self, store: &Closed, id: StreamId, row: &value::Stream) {
        use crate::log::Key;
        let folded = StreamName::stored(&row.name).folded().into_owned();
        let uuid = row.uuid.parse::<uuid::Uuid>();
        if folded.len() > usize::from(u8::MAX) || uuid.is_err() {
            return self.report.of_stream(id, Some(&row.name), "its name or uuid is not one");
        }
        let keys = [Key::StreamName(&folded).encode(), Key::StreamUuid(uuid.unwrap_or_default()).encode(), Key::StreamOwner(row.owner, id).encode()];
        match store.get(&keys) {
            Err(why) => self.unreadable(&why),
            Ok(found) => {
                for ((value, what), wanted) in found.into_iter().zip(["name", "uuid", "owner"]).zip([Some(id.0), Some(id.0), None]) {
                    match (value, wanted) {
                        (None, _) => self.report.of_stream(id, Some(&row.name), format!("the index by {what} does not have it: it cannot be found")),
                        (Some(value), Some(wanted)) if rows::decode_id(&value) != Ok(wanted) => {
                            self.report.of_stream(id, Some(&row.name), format!("the index by {what} leads to something else ({value:02x?})"));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
