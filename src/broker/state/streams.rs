//! Creating, deleting, trimming and closing streams.

use std::sync::Arc;

use serde_json::json;

use super::{Effect, State, Stream, stream_not_found};
use crate::broker::access::Bound;
use crate::broker::audit::{Act, By};
use crate::broker::cursor::Mark;
use crate::broker::info::{NewStream, OperationInfo};
use crate::broker::intent::TrimPoint;
use crate::broker::operation::{self, Note};
use crate::broker::shared::Bounds;
use crate::log::rows::value;
use crate::log::{DeleteRange, Key, rows};
use crate::types::id::OPERATOR_USER;
use crate::types::{Code, Error, OperationId, PrincipalId, Right, StreamId, StreamName, TimeUs};

impl State {
    pub(super) fn create_stream(&mut self, new: &NewStream, owner: u64) -> Result<StreamId, Error> {
        if let Some(id) = self.find(&new.name) {
            let stream = self.stream(id);
            let (name, deleting) = (stream.name.clone(), stream.row.deleting);
            let resource = format!("/v1/streams/{name}");
            return Err(if deleting {
                Error::new(Code::Deleting, format!("Stream {name} is being deleted; its name is free again when that is done.")).resource(resource)
            } else {
                Error::new(Code::NameTaken, format!("A stream named {name} exists. Names that differ only in case collide.")).resource(resource)
            });
        }
        self.count(owner, None, Bound::Streams)?;
        let id = StreamId(self.counters.next_stream_id);
        self.counters.next_stream_id += 1;
        self.group.counters = true;
        let uuid = (self.options.new_uuid)();
        let row = value::Stream {
            name: new.name.as_str().to_owned(),
            uuid: uuid.to_string(),
            owner,
            created_us: self.now.wall_us,
            description: new.description.clone(),
            metadata: new.metadata.clone(),
            event_max_bytes: new.event_max_bytes.unwrap_or(0),
            deleting: false,
        };
        let folded = new.name.folded().into_owned();
        self.put(Key::Stream(id), &row);
        self.put_id(Key::StreamName(&folded), id.0);
        self.put_id(Key::StreamUuid(uuid), id.0);
        self.group.rows.insert(Key::StreamOwner(owner, id).encode(), Some(Vec::new()));
        if owner != OPERATOR_USER {
            self.grant(id, PrincipalId::User(owner), Right::Admin);
        }
        self.group.bounds.insert(id);
        self.names.insert(folded, Some(id));
        let epoch_floor = self.counters.epoch_floor;
        self.streams.insert(id, Some(Stream { id, name: new.name.clone(), row, bounds: Bounds::default(), epoch_floor }));
        Ok(id)
    }

    pub(super) fn delete_stream(&mut self, name: &StreamName, operation: OperationId, by: &By) -> Result<(StreamId, OperationInfo), Error> {
        let id = self.find(name).ok_or_else(|| stream_not_found(name))?;
        let now = TimeUs(self.now.wall_us);
        let stream = self.stream(id);
        if stream.row.deleting {
            return Err(Error::new(Code::Deleting, format!("Stream {name} is being deleted already.")).resource(format!("/v1/streams/{name}")));
        }
        stream.row.deleting = true;
        stream.bounds.gone = true;
        let (row, name, next_offset) = (stream.row.clone(), stream.name.clone(), stream.bounds.next_offset);
        self.put(Key::Stream(id), &row);
        let info = operation::begin(operation, "Deleting stream", "stream.Delete", &name, by.author().user, now);
        self.put(Key::Operation(operation), &operation::to_row(&info, id));
        self.group.touched.insert(id);
        self.group.effects.push(Effect::Operations);
        let context = json!({ "stream_id": id.0, "next_offset": next_offset, "operation": operation.to_string() });
        self.audit(by, Act::on_stream("stream-deleted", &name, context));
        self.end_sessions(id, &name);
        Ok((id, info))
    }

    /// The operation that a change of this group is.
    pub(super) fn note(&mut self, note: Option<Note>, requestor: u64) {
        let Some(note) = note else { return };
        let info = operation::done(note, requestor, TimeUs(self.now.wall_us));
        let stream = StreamName::parse(&info.stream).ok().and_then(|name| self.find(&name)).unwrap_or(StreamId(0));
        self.put(Key::Operation(info.id), &operation::to_row(&info, stream));
    }

    fn end_sessions(&mut self, stream: StreamId, name: &StreamName) {
        let mut ended: Vec<Arc<Mark>> = Vec::new();
        let before = &mut self.group.before;
        self.cursors.retain(|(of, id), cursor| {
            if *of == stream {
                before.entry((*of, *id)).or_insert_with(|| cursor.clone());
            }
            if *of == stream
                && let Some(mark) = cursor.as_mut().and_then(|c| c.mark.take())
            {
                ended.push(mark);
            }
            *of != stream
        });
        self.dirty.retain(|(of, _)| *of != stream);
        self.group.cursors.retain(|(of, _)| *of != stream);
        self.group.effects.extend(ended.into_iter().map(|mark| Effect::End(mark, stream_not_found(name))));
    }

    pub(super) fn finish_delete(&mut self, id: StreamId, mut info: OperationInfo) -> Result<(), Error> {
        // Whoever takes a name again starts above every epoch the old stream can have given out (S-8).
        if self.counters.epoch_floor != self.counters.max_epoch {
            self.counters.epoch_floor = self.counters.max_epoch;
            self.group.counters = true;
        }
        if let Some(Some(stream)) = self.streams.get(&id) {
            let (row, name) = (stream.row.clone(), stream.name.clone());
            let folded = name.folded().into_owned();
            self.delete(Key::Stream(id));
            self.delete(Key::StreamName(&folded));
            if let Ok(uuid) = row.uuid.parse() {
                self.delete(Key::StreamUuid(uuid));
            }
            self.delete(Key::StreamOwner(row.owner, id));
            self.uncount(row.owner, None, Bound::Streams)?;
            self.names_changed();
            self.group.ranges.extend(rows::ranges_of(id));
            self.names.insert(folded, None);
            self.streams.insert(id, None);
        }
        info.status_code = operation::SUCCESS;
        info.updated = TimeUs(self.now.wall_us);
        self.put(Key::Operation(info.id), &operation::to_row(&info, id));
        self.group.effects.push(Effect::Operations);
        Ok(())
    }

    pub(super) fn trim_stream(&mut self, name: &StreamName, id: StreamId, to: TrimPoint, by: &By) -> Result<(StreamId, u64), Error> {
        let TrimPoint { before, base, bytes_before } = to;
        let id = self.data_stream(name, Some(id))?;
        let bounds = &mut self.stream(id).bounds;
        if before > bounds.next_offset {
            return Err(trim_beyond_end(name, before, bounds.next_offset));
        }
        if before <= bounds.first_offset {
            return Ok((id, bounds.first_base));
        }
        let (old_first, old_base) = (bounds.first_offset, bounds.first_base);
        bounds.first_offset = before;
        bounds.first_base = base.max(old_base);
        bounds.bytes_before_first = bytes_before.max(bounds.bytes_before_first);
        let bounds = *bounds;
        if bounds.first_base > old_base {
            self.group.ranges.push(DeleteRange::Batches { stream: id, from: old_base, to: Some(bounds.first_base) });
        }
        self.group.bounds.insert(id);
        self.group.touched.insert(id);
        self.audit(by, Act::on_stream("stream-trimmed", name, json!({ "stream_id": id.0, "old": old_first, "new": before })));
        Ok((id, bounds.first_base))
    }

    pub(super) fn close_stream(&mut self, name: &StreamName, by: &By) -> Result<(), Error> {
        let id = self.data_stream(name, None)?;
        let stream = self.stream(id);
        if !stream.bounds.closed {
            stream.bounds.closed = true;
            let next_offset = stream.bounds.next_offset;
            self.group.bounds.insert(id);
            self.group.touched.insert(id);
            self.audit(by, Act::on_stream("stream-closed", name, json!({ "stream_id": id.0, "next_offset": next_offset })));
        }
        Ok(())
    }
}

/// A trim cannot drop what was never stored.
pub fn trim_beyond_end(name: &StreamName, before: u64, next_offset: u64) -> Error {
    Error::new(Code::OffsetBeyondEnd, format!("Offset {before} lies beyond the end of stream {name} ({next_offset}).")).detail("next_offset", next_offset)
}
