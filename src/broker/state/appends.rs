//! Producers and appends: the order of checks is stream, producer table, closed, condition, size, space (P-11).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::{State, producer_not_found};
use crate::broker::access::Bound;
use crate::broker::audit::{Act, By};
use crate::broker::broken::Promise;
use crate::broker::intent::{AppendIntent, Author, Pipe};
use crate::broker::producer::{Producer, Receipt, Verdict};
use crate::log::{Key, ProducerKey, rows};
use crate::types::batch::Stamp;
use crate::types::reply::{Appended, Origin, ProducerOpened};
use crate::types::request::Expect;
use crate::types::{Code, Error, Events, ProducerId, StreamId, StreamName};

impl State {
    /// A new epoch (section 3 "Open"). Everything older epochs sent before has been prepared before: that is the barrier.
    pub(super) fn open_producer(
        &mut self,
        stream: Option<&StreamName>,
        stream_id: Option<StreamId>,
        id: &ProducerId,
        expect: Expect,
        user: u64,
    ) -> Result<ProducerOpened, Error> {
        if stream.is_some_and(|name| self.find(name).is_none()) {
            // Whoever is refused for want of room leaves no stream behind.
            self.check_room(user, Bound::Producers, 1)?;
        }
        let stream = stream.map(|name| self.data_stream_or_new(name, stream_id, user)).transpose()?;
        let (key, floor) = match stream {
            Some(stream) => (ProducerKey::of_stream(stream, id.clone()), self.stream(stream).epoch_floor),
            None => (ProducerKey::of_user(user, id.clone()), self.counters.commit_epoch_floor),
        };
        let reuse = self.options.broken.is(Promise::ReuseEpoch);
        let origin = match (self.producer(&key), expect) {
            (None, Expect::Resume) => {
                return Err(Error::new(Code::ProducerStateLost, format!("Producer {id} has no state here; it never existed or was removed."))
                    .rule("P-15")
                    .detail("producer", id.as_str()));
            }
            (Some(_), Expect::Create) => {
                return Err(
                    Error::new(Code::NameTaken, format!("Producer {id} exists. Open it with expect \"any\" or \"resume\".")).detail("producer", id.as_str())
                );
            }
            (None, _) => {
                self.count(user, stream, Bound::Producers)?;
                self.producers.insert(key.clone(), Some(Producer::new(floor + 1, user)));
                Origin::Created
            }
            (Some(producer), _) => {
                producer.epoch = producer.epoch.max(floor) + u64::from(!reuse);
                Origin::Resumed
            }
        };
        let producer = self.producer(&key).expect("it was found or inserted above");
        let (epoch, last_seq) = (producer.epoch, producer.last_seq);
        self.group.producers.insert(key);
        if stream.is_some() {
            self.note_epoch(epoch);
        }
        Ok(ProducerOpened {
            producer: id.clone(),
            epoch,
            last_seq,
            next_offset: stream.map(|id| self.stream(id).bounds.next_offset),
            stream_id: stream,
            log_epoch: self.counters.log_epoch,
            origin,
        })
    }

    /// Its next opening begins a new life, above every epoch of this one (S-8).
    pub(super) fn delete_producer(&mut self, stream: Option<&StreamName>, id: &ProducerId, by: &By) -> Result<(), Error> {
        let user = by.author().user;
        let of = stream.map(|name| self.data_stream(name, None)).transpose()?;
        let key = match of {
            Some(stream) => ProducerKey::of_stream(stream, id.clone()),
            None => ProducerKey::of_user(user, id.clone()),
        };
        let (epoch, owner) = self.producer(&key).map(|producer| (producer.epoch, producer.owner)).ok_or_else(|| producer_not_found(stream, id))?;
        self.uncount(owner, of, Bound::Producers)?;
        match of {
            Some(stream) => {
                let stream_state = self.stream(stream);
                stream_state.epoch_floor = stream_state.epoch_floor.max(epoch);
                self.group.bounds.insert(stream);
            }
            None => {
                self.counters.commit_epoch_floor = self.counters.commit_epoch_floor.max(epoch);
                self.group.counters = true;
            }
        }
        self.delete(Key::Producer(&key));
        self.group.ranges.push(rows::receipts_of(&key));
        self.group.producers.remove(&key);
        self.producers.insert(key, None);
        let base = stream.map_or_else(String::new, |name| format!("/streams/{name}"));
        let context = json!({ "stream_id": of.map(|id| id.0), "epoch": epoch });
        self.audit(by, Act::new("producer-deleted", format!("/v1{base}/producers/{id}"), context));
        Ok(())
    }

    pub(super) fn append(&mut self, append: AppendIntent) -> Result<Appended, Error> {
        let Some(pipe) = append.pipe.clone() else {
            return self.append_alone(append);
        };
        if pipe.poisoned.load(Ordering::Relaxed) {
            return Err(Error::new(
                Code::SessionPoisoned,
                "An earlier append of this session was refused, so this one is too: the order would break. Send `resume`, then go on.",
            )
            .rule("P-12"));
        }
        let result = self.append_alone(append);
        if result.is_err() {
            pipe.poisoned.store(!self.options.broken.is(Promise::ForgetPoison), Ordering::Relaxed);
        } else {
            self.group.pipes.push(pipe);
        }
        result
    }

    pub(super) fn append_alone(&mut self, append: AppendIntent) -> Result<Appended, Error> {
        let AppendIntent { stream: name, stream_id, events, producer, expected_next_offset, author, .. } = append;
        let stream = self.data_stream_or_new(&name, stream_id, author.user)?;
        let count = events.count();
        let mut record = None;
        if let Some((stamp, fingerprint)) = producer {
            let key = ProducerKey::of_stream(stream, stamp.id.clone());
            let broken = self.options.broken;
            let state = self.producer(&key);
            let newest = state.as_deref().map_or(stamp.epoch, |state| state.epoch);
            let epoch = if broken.is(Promise::StaleSession) { stamp.epoch.max(newest) } else { stamp.epoch };
            match Producer::check(state.as_deref(), stamp.id.as_str(), epoch, stamp.seq, count, fingerprint)? {
                Verdict::Duplicate(receipt) => {
                    if broken.is(Promise::RepeatAppend) {
                        self.store(stream, events, author);
                    }
                    return Ok(appended(Some(receipt.base_offset), count, true));
                }
                Verdict::OldDuplicate => return Ok(appended(None, count, true)),
                Verdict::Next => record = Some((key, stamp.seq, fingerprint)),
            }
        }
        let next = self.stream(stream).bounds.next_offset;
        self.check_stream(Some(stream), &name, &events, expected_next_offset, next)?;
        let base_offset = self.store(stream, events, author);
        if let Some((key, first_seq, fingerprint)) = record {
            let producer = self.producer(&key).expect("the table found it");
            producer.record(Receipt { first_seq, count, base_offset, fingerprint, answer: None });
            self.group.producers.insert(key);
        }
        Ok(appended(Some(base_offset), count, false))
    }

    /// P-9 for one stream whose next offset (with earlier parts of the same commit) is `next`; `None` = one that is to be created.
    pub(super) fn check_stream(&mut self, stream: Option<StreamId>, name: &StreamName, events: &Events, expected: Option<u64>, next: u64) -> Result<(), Error> {
        let (closed, limit) = stream.map_or((false, 0), |id| {
            let state = self.stream(id);
            (state.bounds.closed, state.row.event_max_bytes)
        });
        let resource = || format!("/v1/streams/{name}");
        if closed {
            return Err(Error::new(Code::StreamClosed, format!("Stream {name} is closed; it ends before {next}."))
                .rule("P-9")
                .detail("next_offset", next)
                .resource(resource()));
        }
        if let Some(expected) = expected.filter(|expected| *expected != next) {
            return Err(Error::new(Code::ConditionFailed, format!("Stream {name} stands at {next}, not at {expected}."))
                .rule("P-9")
                .detail("next_offset", next)
                .detail("expected_next_offset", expected)
                .resource(resource()));
        }
        if limit != 0 && events.largest() as u64 > limit {
            let first = (0..).zip(events.iter()).find(|(_, event)| event.data.len() as u64 > limit);
            let (index, size) = first.map_or((0, events.largest()), |(index, event)| (index, event.data.len()));
            return Err(Error::new(Code::TooLarge, format!("events[{index}].data is {size} bytes; stream {name} takes up to {limit}."))
                .rule("P-9")
                .detail("field", format!("events[{index}].data"))
                .detail("limit", limit)
                .resource(resource()));
        }
        if let Some(why) = &self.full {
            return Err(Error::new(Code::StorageFull, format!("Nothing can be appended: {why}.")));
        }
        Ok(())
    }

    /// Gives the events the next offsets of the stream.
    pub(super) fn store(&mut self, stream: StreamId, events: Events, author: Author) -> u64 {
        let (log_epoch, group_time) = (self.counters.log_epoch, self.group_time);
        let skip = self.options.broken.is(Promise::SkipOffset);
        let bounds = &mut self.stream(stream).bounds;
        if skip && bounds.next_offset % 7 == 3 {
            bounds.next_offset += 1;
        }
        let stamp = Stamp {
            base_offset: bounds.next_offset,
            time: group_time.max(bounds.last_time),
            log_epoch,
            author_user: author.user,
            author_source: author.source,
            bytes_before: bounds.bytes_end,
        };
        bounds.next_offset += u64::from(events.count());
        bounds.bytes_end += events.data_bytes();
        bounds.last_time = stamp.time;
        self.group.events += u64::from(events.count());
        let batch = events.stamp(stream, stamp);
        assert_eq!(batch.head.end(), self.stream(stream).bounds.next_offset, "an append must end where the log ends");
        self.group.appends.push(Arc::new(batch));
        self.group.touched.insert(stream);
        stamp.base_offset
    }

    pub(super) fn resume(&mut self, name: &StreamName, producer: Option<&ProducerId>, seq: Option<u64>, pipe: Arc<Pipe>) -> Result<(), Error> {
        let stream = self.data_stream(name, None)?;
        if let Some(id) = producer {
            let state = self.producer(&ProducerKey::of_stream(stream, id.clone()));
            let Some(state) = state else {
                return Err(Error::new(Code::ProducerUnknown, format!("Producer {id} has no state here; open it."))
                    .rule("P-1")
                    .detail("producer", id.as_str()));
            };
            let expected = state.expected();
            if seq != Some(expected) {
                return Err(Error::bad("seq", format!("Resume producer {id} at seq {expected}, the one after its last."))
                    .rule("P-12")
                    .detail("expected", expected));
            }
        } else if seq.is_some() {
            return Err(Error::bad("seq", "A session without a producer has no sequence numbers; leave `seq` out.").rule("P-12"));
        }
        // Should the group be refused, so is this: the session stays poisoned.
        if pipe.poisoned.swap(false, Ordering::Relaxed) {
            self.group.pipes.push(pipe);
        }
        Ok(())
    }
}

fn appended(first: Option<u64>, count: u32, duplicate: bool) -> Appended {
    Appended { first_offset: first, last_offset: first.map(|f| f + u64::from(count) - 1), count, duplicate }
}
