//! What an intent needs of the disk before it can be done, and taking that into memory.

use super::keys::Remembered;
use super::{State, Stream};
use crate::broker::cursor::Cursor;
use crate::broker::intent::Intent;
use crate::broker::producer::Producer;
use crate::log::{IdempotencyRow, ProducerKey, RowKey};
use crate::types::id::AUDIT_STREAM;
use crate::types::{ProducerId, StreamId, StreamName, SubscriptionId, SubscriptionName};

/// A row the state lacks to go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// What a folded stream name means.
    Name(String),
    /// A stream.
    Stream(StreamId),
    /// A producer with its receipts.
    Producer(ProducerKey),
    /// What a folded subscription name means.
    SubName(StreamId, String),
    /// A cursor.
    Cursor(StreamId, SubscriptionId),
    /// An idempotency key.
    Key(IdempotencyRow),
    /// A row of `meta` that is kept as it is stored.
    Row(RowKey),
}

impl Need {
    /// Is it beside the thing that the intent is about: the audit, counts of a user, a row of somebody's? Other intents about the same thing may
    /// not need it, and would overtake; so all of them wait.
    pub fn is_aside(&self) -> bool {
        match self {
            Self::Stream(id) => id.is_system(),
            Self::Row(_) => true,
            _ => false,
        }
    }
}

/// What a [`Need`] turned out to be; `None` = there is no such thing.
pub enum Loaded {
    /// Of [`Need::Name`].
    Name(String, Option<StreamId>),
    /// Of [`Need::Stream`].
    Stream(StreamId, Option<Box<Stream>>),
    /// Of [`Need::Producer`].
    Producer(ProducerKey, Option<Box<Producer>>),
    /// Of [`Need::SubName`].
    SubName(StreamId, String, Option<SubscriptionId>),
    /// Of [`Need::Cursor`].
    Cursor(StreamId, SubscriptionId, Option<Box<Cursor>>),
    /// Of [`Need::Key`].
    Key(IdempotencyRow, Option<Remembered>),
    /// Of [`Need::Row`].
    Row(RowKey, Option<Vec<u8>>),
}

impl State {
    /// Takes rows in that an intent lacked.
    pub fn loaded(&mut self, loaded: Loaded) {
        match loaded {
            Loaded::Name(name, id) => self.names.insert(name, id),
            Loaded::Stream(id, stream) => self.streams.insert(id, stream.map(|s| *s)),
            Loaded::Producer(key, producer) => self.producers.insert(key, producer.map(|p| *p)),
            Loaded::SubName(stream, name, id) => self.sub_names.insert((stream, name), id),
            Loaded::Cursor(stream, id, cursor) => self.cursors.insert((stream, id), cursor.map(|c| *c)),
            Loaded::Key(row, remembered) => self.keys.insert(row, remembered),
            Loaded::Row(key, bytes) => self.rows.insert(key, bytes),
        }
    }

    /// Which rows `intent` lacks, as far as can be told now. Empty = it can be prepared.
    pub fn lacks(&mut self, intent: &Intent) -> Vec<Need> {
        let mut needs = Vec::new();
        if self.options.create_on_use {
            self.lacks_usage_of_caller(intent, &mut needs);
        }
        match intent {
            Intent::CreateStream { new, owner, .. } => {
                self.lacks_owner(*owner, &mut needs);
                self.lacks_usage(*owner, None, &mut needs);
                self.lacks_stream(&new.name, &mut needs);
            }
            Intent::DeleteStream { stream, .. } | Intent::Trim { stream, .. } | Intent::CloseStream { stream, .. } => {
                self.lacks_audit(&mut needs);
                self.lacks_stream(stream, &mut needs);
            }
            Intent::Audit { .. } | Intent::AuditLogEpoch { .. } => self.lacks_audit(&mut needs),
            Intent::ForgetOperations { .. } => {}
            // The name too: a read of it that is on its way would bring the old stream back.
            Intent::FinishDelete { stream, .. } => match self.streams.get(stream) {
                None => needs.push(Need::Stream(*stream)),
                Some(None) => {}
                Some(Some(found)) => {
                    let (name, owner) = (found.name.clone(), found.row.owner);
                    self.lacks_stream(&name, &mut needs);
                    self.lacks_usage(owner, None, &mut needs);
                }
            },
            Intent::CreateSubscription { stream, name, author, .. } => {
                let stream = self.lacks_cursor(stream, name, &mut needs);
                self.lacks_usage(author.user, stream, &mut needs);
            }
            Intent::DeleteSubscription { stream, name, .. } => {
                self.lacks_audit(&mut needs);
                if let Some(stream) = self.lacks_cursor(stream, name, &mut needs)
                    && let Some(maker) = self.maker(stream, name)
                {
                    self.lacks_usage(maker, Some(stream), &mut needs);
                }
            }
            Intent::Seek { stream, name, .. } => {
                self.lacks_audit(&mut needs);
                self.lacks_cursor(stream, name, &mut needs);
            }
            Intent::Open { stream, subscription, create, claim, by, .. } => {
                if by.is_some() {
                    self.lacks_audit(&mut needs);
                }
                match subscription {
                    Some(name) => {
                        let stream = self.lacks_cursor(stream, name, &mut needs);
                        if *create {
                            self.lacks_usage(claim.author.user, stream, &mut needs);
                        }
                    }
                    None => {
                        self.lacks_stream(stream, &mut needs);
                    }
                }
            }
            Intent::Continue { stream, subscription, .. } => {
                self.lacks_cursor(stream, subscription, &mut needs);
            }
            Intent::Ack { request, .. } => {
                self.lacks_cursor(&request.stream, &request.subscription, &mut needs);
            }
            Intent::AppendOnce { append, key, .. } => {
                if let Some(stream) = self.lacks_stream(&append.stream, &mut needs) {
                    self.lacks_row(IdempotencyRow { stream, principal: append.author.principal(), hash: *key }, &mut needs);
                }
            }
            Intent::ForgetKeys { keys, .. } => keys.iter().for_each(|row| self.lacks_row(*row, &mut needs)),
            Intent::OpenProducer { stream, producer, user, .. } => {
                let (_, stream) = self.lacks_producer_of(stream.as_ref(), producer, *user, &mut needs);
                self.lacks_usage(*user, stream, &mut needs);
            }
            Intent::DeleteProducer { stream, producer, by, .. } => {
                self.lacks_audit(&mut needs);
                let (key, stream) = self.lacks_producer_of(stream.as_ref(), producer, by.author().user, &mut needs);
                let owner = key.and_then(|key| self.producer(&key).map(|producer| producer.owner));
                self.lacks_usage(owner.unwrap_or_default(), stream, &mut needs);
            }
            Intent::Append(append, _) => self.lacks_producer(&append.stream, append.producer.as_ref().map(|(stamp, _)| &stamp.id), &mut needs),
            Intent::Spoil { stream, producer, .. } | Intent::Resume { stream, producer, .. } => self.lacks_producer(stream, producer.as_ref(), &mut needs),
            Intent::Access { change, .. } => {
                self.lacks_audit(&mut needs);
                self.lacks_access(change, &mut needs);
            }
            Intent::Commit { request, author, .. } => {
                if let Some(stamp) = &request.producer {
                    self.lacks_key(ProducerKey::of_user(author.user, stamp.id.clone()), &mut needs);
                }
                for ack in &request.acks {
                    self.lacks_cursor(&ack.stream, &ack.subscription, &mut needs);
                }
                for stream in request.appends.iter().map(|a| &a.stream).chain(request.checks.iter().map(|c| &c.stream)) {
                    self.lacks_stream(stream, &mut needs);
                }
            }
        }
        needs
    }

    pub(super) fn lacks_stream(&mut self, name: &StreamName, needs: &mut Vec<Need>) -> Option<StreamId> {
        let folded = name.folded();
        match self.names.get(folded.as_ref()) {
            None => needs.push(Need::Name(folded.into_owned())),
            Some(None) => {}
            Some(&mut Some(id)) => match self.streams.get(&id) {
                None => needs.push(Need::Stream(id)),
                Some(stream) => return stream.is_some().then_some(id),
            },
        }
        None
    }

    /// The end of the audit, to which an event about the intent is appended.
    fn lacks_audit(&mut self, needs: &mut Vec<Need>) {
        if self.streams.get(&AUDIT_STREAM).is_none() {
            needs.push(Need::Stream(AUDIT_STREAM));
        }
    }

    fn lacks_key(&mut self, key: ProducerKey, needs: &mut Vec<Need>) {
        if self.producers.get(&key).is_none() {
            needs.push(Need::Producer(key));
        }
    }

    fn lacks_row(&mut self, row: IdempotencyRow, needs: &mut Vec<Need>) {
        if self.keys.get(&row).is_none() {
            needs.push(Need::Key(row));
        }
    }

    fn lacks_producer(&mut self, stream: &StreamName, producer: Option<&ProducerId>, needs: &mut Vec<Need>) {
        if let (Some(id), Some(producer)) = (self.lacks_stream(stream, needs), producer) {
            self.lacks_key(ProducerKey::of_stream(id, producer.clone()), needs);
        }
    }

    /// A producer of a stream, or of a user where there is none: its key as far as it can be told now, and its stream.
    fn lacks_producer_of(
        &mut self,
        stream: Option<&StreamName>,
        producer: &ProducerId,
        user: u64,
        needs: &mut Vec<Need>,
    ) -> (Option<ProducerKey>, Option<StreamId>) {
        let of = match stream {
            Some(name) => self.lacks_stream(name, needs),
            None => None,
        };
        let key = match (stream, of) {
            (Some(_), Some(stream)) => Some(ProducerKey::of_stream(stream, producer.clone())),
            (Some(_), None) => None,
            (None, _) => Some(ProducerKey::of_user(user, producer.clone())),
        };
        if let Some(key) = &key {
            self.lacks_key(key.clone(), needs);
        }
        (key, of)
    }

    /// The stream, where that can be told now.
    fn lacks_cursor(&mut self, stream: &StreamName, name: &SubscriptionName, needs: &mut Vec<Need>) -> Option<StreamId> {
        let stream = self.lacks_stream(stream, needs)?;
        let key = (stream, name.folded().into_owned());
        match self.sub_names.get(&key) {
            None => needs.push(Need::SubName(stream, key.1)),
            Some(None) => {}
            Some(&mut Some(id)) => {
                if self.cursors.get(&(stream, id)).is_none() {
                    needs.push(Need::Cursor(stream, id));
                }
            }
        }
        Some(stream)
    }

    /// The user with whom a subscription in memory is counted.
    fn maker(&mut self, stream: StreamId, name: &SubscriptionName) -> Option<u64> {
        let id = self.find_cursor(stream, name)?;
        self.cursors.peek(&(stream, id))?.as_ref().map(|cursor| cursor.meta.owner_user)
    }
}
