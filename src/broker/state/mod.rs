//! The lane's state in memory, and what each intent does to it.
//!
//! A plain state machine: no clock, no socket, no disk. The driver (`commit`) feeds it intents in order; it answers which
//! rows it lacks, or changes itself and adds to the [`Group`] being built. Sealing a group gives the write set that makes
//! these changes durable and the answers to be sent when it is (S-1). Until then nothing of it is visible (S-2, S-3).

mod access;
mod appends;
mod audit;
mod commits;
mod keys;
mod needs;
mod sessions;
mod streams;
mod usage;

use std::sync::Arc;
use std::time::Duration;

pub use access::{OPERATOR_NAME, operator_row};
pub use keys::Remembered;
pub use needs::{Loaded, Need};
pub use streams::trim_beyond_end;
use uuid::Uuid;

use super::access::{Changed, Quotas, Refusals};
use super::broken::{Broken, Promise};
use super::clock::{Clock, Now};
use super::cursor::{Cursor, Mark};
use super::generations::{Evictable, Generations, HashMap, HashSet};
use super::intent::{Answer, Intent, Pipe};
use super::producer::Producer;
use super::shared::{Bounds, News, Registry};
use crate::log::rows::{self, value};
use crate::log::{DeleteRange, IdempotencyRow, Key, ProducerKey, RowKey, WriteSet};
use crate::types::batch::BatchHead;
use crate::types::limits;
use crate::types::{Batch, Code, Error, ProducerId, StreamId, StreamName, SubscriptionId, SubscriptionName, TimeUs};

/// A stream in memory.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Never reused.
    pub id: StreamId,
    /// Parsed from the row.
    pub name: StreamName,
    /// As stored.
    pub row: value::Stream,
    /// With the changes of the group being built.
    pub bounds: Bounds,
    /// New producer and session epochs start above it.
    pub epoch_floor: u64,
}

impl Evictable for Stream {
    /// Acts on whatever else wait for the end of the audit when it is not at hand.
    fn pinned(&self) -> bool {
        self.id.is_system()
    }
}
impl Evictable for StreamId {}
impl Evictable for SubscriptionId {}
impl Evictable for Vec<u8> {}

impl Stream {
    fn bounds_row(&self) -> value::Bounds {
        let b = &self.bounds;
        value::Bounds {
            first_offset: b.first_offset,
            first_base: b.first_base,
            bytes_before_first: b.bytes_before_first,
            next_offset: b.next_offset,
            last_time_us: b.last_time.0,
            closed: b.closed,
            epoch_floor: self.epoch_floor,
            bytes_end: b.bytes_end,
        }
    }

    /// From its rows and the head of its last batch.
    pub fn from_rows(id: StreamId, row: value::Stream, bounds: &value::Bounds, last: Option<BatchHead>) -> Result<Self, String> {
        let name = StreamName::stored(&row.name);
        let mut b = Bounds {
            first_offset: bounds.first_offset,
            first_base: bounds.first_base,
            bytes_before_first: bounds.bytes_before_first,
            next_offset: bounds.next_offset,
            bytes_end: bounds.bytes_end,
            last_time: TimeUs(bounds.last_time_us),
            closed: bounds.closed,
            gone: row.deleting,
        };
        if let Some(head) = last {
            if head.end() < b.next_offset {
                return Err(format!("the last batch ends at {}, but offset {} had been assigned", head.end(), b.next_offset));
            }
            (b.next_offset, b.bytes_end, b.last_time) = (head.end(), head.bytes_end(), head.time.max(b.last_time));
        }
        Ok(Self { id, name, row, bounds: b, epoch_floor: bounds.epoch_floor })
    }
}

/// Something to do once the group is durable, before its answers go out.
pub enum Effect {
    /// End a session.
    End(Arc<Mark>, Error),
    /// Tell a session how far its cursor is.
    Acked(Arc<Mark>, u64),
    /// Some operation changed.
    Operations,
    /// Who may do what has changed.
    Access(Changed),
    /// What `$audit` was told, as a line of the log.
    Audit(String),
}

/// The changes of one commit, being collected.
#[derive(Default)]
struct Group {
    appends: Vec<Arc<Batch>>,
    rows: HashMap<RowKey, Option<Vec<u8>>>,
    ranges: Vec<DeleteRange>,
    /// Streams whose readers have to hear of something.
    touched: HashSet<StreamId>,
    bounds: HashSet<StreamId>,
    producers: HashSet<ProducerKey>,
    cursors: HashSet<(StreamId, SubscriptionId)>,
    counters: bool,
    effects: Vec<Effect>,
    answers: Vec<Answer>,
    events: u64,
    /// Cursors as they were before this group touched them; `None` = it made them.
    before: HashMap<(StreamId, SubscriptionId), Option<Cursor>>,
    /// Append sessions it has good news for.
    pipes: Vec<Arc<Pipe>>,
}

/// A finished group: what to write, and what to do and say when it is durable.
pub struct Sealed {
    /// What to write. May be empty: then nothing has to be waited for.
    pub set: WriteSet,
    /// For readers.
    pub news: Vec<News>,
    /// To do.
    pub effects: Vec<Effect>,
    /// To say.
    pub answers: Vec<Answer>,
    /// Events in it.
    pub events: u64,
}

/// What the state machine is built with.
pub struct Options {
    /// Create a stream at its first use.
    pub create_on_use: bool,
    /// Entries of each kind in one generation.
    pub hot_entries: usize,
    /// How much each user may have.
    pub quotas: Quotas,
    /// What was refused for it.
    pub refusals: Arc<Refusals>,
    /// Where UUIDs come from.
    pub new_uuid: Box<dyn FnMut() -> Uuid + Send>,
    /// A promise that a test breaks.
    pub broken: Broken,
}

/// See the module.
pub struct State {
    options: Options,
    registry: Arc<Registry>,
    counters: value::Counters,
    stable_counters: value::Counters,
    clock: Clock,
    clock_saved: Duration,
    now: Now,
    group_time: TimeUs,
    names: Generations<String, Option<StreamId>>,
    streams: Generations<StreamId, Option<Stream>>,
    producers: Generations<ProducerKey, Option<Producer>>,
    sub_names: Generations<(StreamId, String), Option<SubscriptionId>>,
    cursors: Generations<(StreamId, SubscriptionId), Option<Cursor>>,
    keys: Generations<IdempotencyRow, Option<Remembered>>,
    rows: Generations<RowKey, Option<Vec<u8>>>,
    /// Cursors moved by acks of level `received`, and since when the oldest waits.
    dirty: HashSet<(StreamId, SubscriptionId)>,
    dirty_since: Option<Duration>,
    /// Appends are refused: the disk is nearly full.
    full: Option<String>,
    group: Group,
    /// Cursors of the sealed group, until it is durable.
    unsettled: Vec<(StreamId, SubscriptionId)>,
    /// Of the sealed group: its `before`.
    undo: HashMap<(StreamId, SubscriptionId), Option<Cursor>>,
    /// Of the sealed group: its `pipes`.
    hopeful: Vec<Arc<Pipe>>,
}

const PRESENT: &str = "`lacks` found it in memory just before";

impl State {
    /// A state with nothing in memory.
    pub fn new(options: Options, registry: Arc<Registry>, counters: value::Counters, now: Now) -> Self {
        let hot = options.hot_entries;
        Self {
            options,
            registry,
            clock: Clock::open(counters.clock_us, now),
            clock_saved: now.mono,
            now,
            group_time: TimeUs(0),
            names: Generations::new(hot),
            streams: Generations::new(hot),
            producers: Generations::new(hot),
            sub_names: Generations::new(hot),
            cursors: Generations::new(hot),
            keys: Generations::new(hot),
            rows: Generations::new(hot),
            dirty: HashSet::default(),
            dirty_since: None,
            full: None,
            group: Group::default(),
            unsettled: Vec::new(),
            undo: HashMap::default(),
            hopeful: Vec::new(),
            stable_counters: counters,
            counters,
        }
    }

    /// The log epoch of everything.
    pub fn log_epoch(&self) -> u64 {
        self.counters.log_epoch
    }

    /// Begins a group: all of it happens at one time.
    pub fn begin(&mut self, now: Now, full: Option<String>) {
        self.now = now;
        self.group_time = self.group_time.max(TimeUs(now.wall_us));
        self.full = full;
    }

    /// Does what `intent` asks, in memory, and notes the answer. Call it only when [`State::lacks`] is empty.
    pub fn prepare(&mut self, intent: Intent) {
        match intent {
            Intent::CreateStream { new, owner, note, reply } => {
                let result = self.check_new_owner(owner).and_then(|()| self.create_stream(&new, owner));
                self.note(note.filter(|_| result.is_ok()), owner);
                self.answer(Answer::Stream(reply, result));
            }
            Intent::DeleteStream { stream, operation, by, reply } => {
                let result = self.delete_stream(&stream, operation, &by);
                self.answer(Answer::Deleting(reply, result));
            }
            Intent::FinishDelete { stream, operation, reply } => {
                let result = self.finish_delete(stream, *operation);
                self.answer(Answer::Done(reply, result));
            }
            Intent::ForgetOperations { operations, reply } => {
                operations.into_iter().for_each(|id| self.delete(Key::Operation(id)));
                self.answer(Answer::Done(reply, Ok(())));
            }
            Intent::Trim { stream, stream_id, to, by, reply } => {
                let result = self.trim_stream(&stream, stream_id, to, &by);
                self.answer(Answer::Trimmed(reply, result));
            }
            Intent::CloseStream { stream, by, reply } => {
                let result = self.close_stream(&stream, &by);
                self.answer(Answer::Done(reply, result));
            }
            Intent::CreateSubscription { stream, name, fields, start, author, reply } => {
                let result = self.create_subscription(&stream, &name, &fields, start, author);
                self.answer(Answer::Done(reply, result));
            }
            Intent::DeleteSubscription { stream, name, claim, by, reply } => {
                let result = self.delete_subscription(&stream, &name, claim, &by);
                self.answer(Answer::Done(reply, result));
            }
            Intent::Seek { stream, name, to, claim, by, reply } => {
                let result = self.seek(&stream, &name, to, claim, &by);
                self.answer(Answer::Done(reply, result));
            }
            Intent::Open { stream, stream_id, subscription, create, filter, ask, claim, by, reply } => {
                let result = self.open_session(&stream, stream_id, subscription.as_ref(), create, filter.as_deref(), &ask, claim, by.as_deref());
                self.answer(Answer::Opened(reply, result.map(Box::new)));
            }
            Intent::Continue { stream, subscription, epoch, from, on_gap, reply } => {
                let result = self.continue_session(&stream, &subscription, epoch, from, on_gap);
                self.answer(Answer::Opened(reply, result.map(Box::new)));
            }
            Intent::Ack { request, proof, level, reply } => {
                let result = self.ack(&request, proof, level);
                self.answer(Answer::Acked(reply, result));
            }
            Intent::OpenProducer { stream, stream_id, producer, expect, user, reply } => {
                let result = self.open_producer(stream.as_ref(), stream_id, &producer, expect, user);
                self.answer(Answer::Producer(reply, result));
            }
            Intent::DeleteProducer { stream, producer, by, reply } => {
                let result = self.delete_producer(stream.as_ref(), &producer, &by);
                self.answer(Answer::Done(reply, result));
            }
            Intent::AppendOnce { append, key, fingerprint, reply } => {
                let result = self.append_once(*append, key, fingerprint);
                self.answer(Answer::AppendedOnce(reply, result));
            }
            Intent::ForgetKeys { keys, reply } => {
                self.forget_keys(keys);
                self.answer(Answer::Done(reply, Ok(())));
            }
            Intent::Append(append, reply) => {
                let result = self.append(*append);
                self.answer(Answer::Appended(reply, result));
            }
            Intent::Spoil { pipe, .. } => pipe.poisoned.store(true, std::sync::atomic::Ordering::Relaxed),
            Intent::Resume { stream, producer, seq, pipe, reply } => {
                let result = self.resume(&stream, producer.as_ref(), seq, pipe);
                self.answer(Answer::Done(reply, result));
            }
            Intent::Access { by, change, note, reply } => {
                let result = self.change_access(&by, *change);
                self.note(note.filter(|_| result.is_ok()), by.author().user);
                self.answer(Answer::Access(reply, result));
            }
            Intent::Audit { by, act, if_room, reply } => {
                self.tell(&by, &act, if_room);
                self.answer(Answer::Done(reply, Ok(())));
            }
            Intent::AuditLogEpoch { reply } => {
                self.audit_log_epoch();
                self.answer(Answer::Done(reply, Ok(())));
            }
            Intent::Commit { request, fingerprint, author, reply } => {
                let result = self.commit(*request, fingerprint, author);
                self.answer(Answer::Committed(reply, result));
            }
        }
    }

    /// The time that expiry reads (S-9).
    fn clock(&mut self) -> TimeUs {
        TimeUs(self.clock.advance(self.now))
    }

    fn answer(&mut self, answer: Answer) {
        self.group.answers.push(answer);
    }

    fn put(&mut self, key: Key<'_>, row: &impl prost::Message) {
        self.group.rows.insert(key.encode(), Some(rows::encode(row)));
    }

    fn put_id(&mut self, key: Key<'_>, id: u64) {
        self.group.rows.insert(key.encode(), Some(id.to_be_bytes().to_vec()));
    }

    fn delete(&mut self, key: Key<'_>) {
        self.group.rows.insert(key.encode(), None);
    }

    /// Must acks of level `received` be written now, even alone? (C-16)
    pub fn dirty_due(&self, now: Now) -> bool {
        self.dirty_since.is_some_and(|since| now.mono.saturating_sub(since) >= limits::RECEIVED_ACK_PERSIST / 2)
    }

    /// Acks of level `received` wait for a commit to ride on.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The promise that a test breaks.
    pub fn broken(&self) -> Broken {
        self.options.broken
    }

    /// Bytes the group will write, roughly.
    pub fn group_bytes(&self) -> usize {
        self.group.appends.iter().map(|b| b.value().len()).sum()
    }

    /// Ends the group. `flush` also writes what could wait.
    pub fn seal(&mut self, flush: bool) -> Sealed {
        let mut group = std::mem::take(&mut self.group);
        let writes = flush
            || self.dirty_due(self.now)
            || group.counters
            || !(group.appends.is_empty() && group.rows.is_empty() && group.ranges.is_empty())
            || !(group.bounds.is_empty() && group.producers.is_empty() && group.cursors.is_empty());
        if writes {
            group.cursors.extend(self.dirty.drain());
            self.dirty_since = None;
        }
        for id in &group.bounds {
            if let Some(Some(stream)) = self.streams.peek(id) {
                group.rows.insert(Key::Bounds(*id).encode(), Some(rows::encode(&stream.bounds_row())));
            }
        }
        for key in &group.producers {
            if self.options.broken.is(Promise::DropReceipt) {
                continue;
            }
            if let Some(Some(producer)) = self.producers.get(key) {
                group.rows.insert(Key::Producer(key).encode(), Some(rows::encode(&producer.to_row(self.now.wall_us))));
                for (slot, receipt) in producer.unsaved_receipts() {
                    group.rows.insert(Key::Receipt(key, slot).encode(), Some(rows::encode(&receipt.to_row())));
                }
                producer.unsaved = 0;
            }
        }
        for key in &group.cursors {
            if let Some(Some(cursor)) = self.cursors.get(key) {
                cursor.row.since_us = self.now.wall_us;
                cursor.dirty = false;
                group.rows.insert(Key::Cursor(key.0, key.1).encode(), Some(rows::encode(&cursor.row)));
            }
        }
        if writes {
            let clock = self.clock.advance(self.now);
            if group.counters || self.now.mono.saturating_sub(self.clock_saved) >= Duration::from_secs(1) {
                self.counters.clock_us = clock;
                self.clock_saved = self.now.mono;
                group.rows.insert(Key::Counters.encode(), Some(rows::encode(&self.counters)));
            }
        }
        let mut news: Vec<News> = group.touched.iter().filter_map(|id| self.streams.peek(id)?.as_ref().map(|s| (*id, s.bounds, Vec::new()))).collect();
        if let [only] = news.as_mut_slice() {
            only.2 = group.appends.iter().filter(|batch| batch.stream == only.0).cloned().collect();
        } else {
            let places: HashMap<StreamId, usize> = news.iter().enumerate().map(|(i, (id, ..))| (*id, i)).collect();
            for batch in &group.appends {
                if let Some(&place) = places.get(&batch.stream) {
                    news[place].2.push(batch.clone());
                }
            }
        }
        self.unsettled = group.cursors.into_iter().collect();
        self.undo = group.before;
        self.hopeful = group.pipes;
        Sealed {
            set: WriteSet { appends: group.appends, rows: group.rows.into_iter().collect(), ranges: group.ranges },
            news,
            effects: group.effects,
            answers: group.answers,
            events: group.events,
        }
    }

    /// The sealed group is durable.
    pub fn committed(&mut self) {
        self.hopeful.clear();
        self.undo.clear();
        for key in std::mem::take(&mut self.unsettled) {
            if let Some(Some(cursor)) = self.cursors.get(&key) {
                cursor.stable = cursor.row;
            }
        }
        self.stable_counters = self.counters;
        self.names.turn();
        self.streams.turn();
        self.producers.turn();
        self.sub_names.turn();
        self.keys.turn();
        self.rows.turn();
        if self.cursors.len() > 2 * self.options.hot_entries {
            let now = self.now.mono;
            self.cursors.values_mut().flatten().for_each(|cursor| cursor.expire(now));
        }
        self.cursors.turn();
    }

    /// The sealed group was refused as a whole: what is on disk counts, what was speculated is forgotten.
    pub fn rolled_back(&mut self) {
        self.unsettled.clear();
        self.dirty.clear();
        self.dirty_since = None;
        self.counters = self.stable_counters;
        self.names.retain(|_, _| false);
        self.streams.retain(|_, _| false);
        self.producers.retain(|_, _| false);
        self.sub_names.retain(|_, _| false);
        self.keys.retain(|_, _| false);
        self.rows.retain(|_, _| false);
        // These appends, and these ends of a poisoning, are refused after all (P-12).
        self.hopeful.drain(..).for_each(|pipe| pipe.poisoned.store(true, std::sync::atomic::Ordering::Relaxed));
        // Cursors hold what is not on disk: sessions, and acks of level `received` that were answered (C-16). Those stand;
        // only what the refused group did to them is taken back. A session it opened was never announced.
        let undo = std::mem::take(&mut self.undo);
        self.cursors.retain(|key, _| !undo.contains_key(key));
        for (key, cursor) in undo {
            if let Some(cursor) = cursor {
                cursor.unseal();
                self.cursors.insert(key, Some(cursor));
            }
        }
        let dirty = &mut self.dirty;
        self.cursors.retain(|key, cursor| {
            let Some(cursor) = cursor else { return false };
            cursor.dirty = cursor.row.next != cursor.stable.next;
            if cursor.dirty {
                dirty.insert(*key);
            }
            true
        });
        if !self.dirty.is_empty() {
            self.dirty_since = Some(self.now.mono);
        }
    }

    /// The stream a name means. Call it only after [`State::lacks`].
    fn find(&mut self, name: &StreamName) -> Option<StreamId> {
        let id = (*self.names.get(name.folded().as_ref()).expect(PRESENT))?;
        self.streams.get(&id).expect(PRESENT).as_ref().map(|_| id)
    }

    /// The stream a data call is about: there, not being deleted, and the one the caller means.
    fn data_stream(&mut self, name: &StreamName, stream_id: Option<StreamId>) -> Result<StreamId, Error> {
        let id = self.find(name).filter(|id| !self.stream(*id).bounds.gone).ok_or_else(|| stream_not_found(name))?;
        if let Some(given) = stream_id.filter(|given| *given != id) {
            return Err(Error::new(Code::StreamReplaced, format!("Stream {name} is a new stream (id {id}); the one you mean (id {given}) was deleted."))
                .detail("stream_id", id.0)
                .resource(format!("/v1/streams/{name}")));
        }
        Ok(id)
    }

    /// The same, where `dev` may create the stream on the way.
    fn data_stream_or_new(&mut self, name: &StreamName, stream_id: Option<StreamId>, user: u64) -> Result<StreamId, Error> {
        if self.options.create_on_use && stream_id.is_none() && self.find(name).is_none() {
            return self.create_stream(&super::info::NewStream::named(name.clone()), user);
        }
        self.data_stream(name, stream_id)
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.get(&id).expect(PRESENT).as_mut().expect(PRESENT)
    }

    fn producer(&mut self, key: &ProducerKey) -> Option<&mut Producer> {
        // A stream that `dev` created a moment ago has no producers, loaded or not.
        self.producers.get(key).and_then(Option::as_mut)
    }

    fn find_cursor(&mut self, stream: StreamId, name: &SubscriptionName) -> Option<SubscriptionId> {
        self.sub_names.get(&(stream, name.folded().into_owned())).copied().flatten()
    }

    /// A producer or session of a stream was given this epoch.
    fn note_epoch(&mut self, epoch: u64) {
        if epoch > self.counters.max_epoch {
            self.counters.max_epoch = epoch;
            self.group.counters = true;
        }
    }

    /// Acks of level `received` were accepted in memory (C-16). A session that was replaced gave them to its successor.
    pub fn received(&mut self, stream: StreamId, id: SubscriptionId, now: Now) {
        self.take_received(stream, id, now.mono);
    }

    fn take_received(&mut self, stream: StreamId, id: SubscriptionId, now: Duration) {
        let moved = self.cursors.get(&(stream, id)).and_then(Option::as_mut).is_some_and(Cursor::take_received);
        if moved {
            self.dirty.insert((stream, id));
            self.dirty_since.get_or_insert(now);
        }
    }

    /// A cursor, which the group may change.
    fn cursor(&mut self, stream: StreamId, id: SubscriptionId) -> &mut Cursor {
        self.take_received(stream, id, self.now.mono);
        let cursor = self.cursors.get(&(stream, id)).expect(PRESENT).as_mut().expect(PRESENT);
        self.group.before.entry((stream, id)).or_insert_with(|| Some(cursor.clone()));
        cursor
    }
}

/// There is no such stream.
pub fn stream_not_found(name: &StreamName) -> Error {
    Error::new(Code::NotFound, format!("Stream {name} was not found.")).resource(format!("/v1/streams/{name}"))
}

/// There is no such producer; `stream` is `None` for broker-wide ones.
pub fn producer_not_found(stream: Option<&StreamName>, id: &ProducerId) -> Error {
    let (of, base) = stream.map_or_else(Default::default, |name| (format!(" of stream {name}"), format!("/streams/{name}")));
    Error::new(Code::NotFound, format!("Producer {id}{of} was not found.")).resource(format!("/v1{base}/producers/{id}"))
}

/// There is no such subscription.
pub fn subscription_not_found(stream: &StreamName, name: &SubscriptionName) -> Error {
    Error::new(Code::NotFound, format!("Subscription {name} of stream {stream} was not found.")).resource(format!("/v1/streams/{stream}/subscriptions/{name}"))
}
