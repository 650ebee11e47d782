//! The tables that are keyed by stream, side by side: each holds its next row, and gives out what belongs to the stream that is due.

use std::iter::Peekable;

use bytes::Bytes;

use crate::log::rocks::{Closed, Rows};
use crate::log::{Space, rows};
use crate::types::StreamId;

/// Kinds of `state`.
pub(super) const STATE_KINDS: [u8; 5] = [BOUNDS, CURSOR, PRODUCER, RECEIPT, IDEMPOTENCY];
/// Kinds of `meta`.
pub(super) const META_KINDS: [u8; 20] = [
    FORMAT,
    COUNTERS,
    STREAM,
    STREAM_NAME,
    STREAM_UUID,
    STREAM_OWNER,
    SUBSCRIPTION,
    SUBSCRIPTION_NAME,
    USER,
    USER_NAME,
    SOURCE,
    SOURCE_OWNER,
    API_KEY,
    RIGHT,
    RIGHT_OF,
    OPERATION,
    SOURCE_NAME,
    KEY_NAME,
    USAGE,
    USAGE_ON,
];

// The numbers of `docs/on-disk.md`; the tests of this folder hold them against `Key`.
pub(super) const BOUNDS: u8 = 1;
pub(super) const CURSOR: u8 = 2;
pub(super) const PRODUCER: u8 = 3;
pub(super) const RECEIPT: u8 = 4;
pub(super) const IDEMPOTENCY: u8 = 5;
const FORMAT: u8 = 1;
const COUNTERS: u8 = 2;
pub(super) const STREAM: u8 = 3;
pub(super) const STREAM_NAME: u8 = 4;
pub(super) const STREAM_UUID: u8 = 5;
pub(super) const STREAM_OWNER: u8 = 6;
pub(super) const SUBSCRIPTION: u8 = 7;
pub(super) const SUBSCRIPTION_NAME: u8 = 8;
pub(super) const USER: u8 = 9;
pub(super) const USER_NAME: u8 = 10;
pub(super) const SOURCE: u8 = 11;
pub(super) const SOURCE_OWNER: u8 = 12;
pub(super) const API_KEY: u8 = 13;
pub(super) const RIGHT: u8 = 14;
pub(super) const RIGHT_OF: u8 = 15;
pub(super) const OPERATION: u8 = 16;
pub(super) const SOURCE_NAME: u8 = 19;
pub(super) const KEY_NAME: u8 = 20;
const USAGE: u8 = 21;
const USAGE_ON: u8 = 22;

/// A row: key and value.
pub(super) type Row = (Vec<u8>, Bytes);

/// Rows of one kind.
pub(super) struct Table<'a> {
    rows: Peekable<Rows<'a>>,
    /// Why it ended early.
    pub(super) broken: Option<String>,
}

impl<'a> Table<'a> {
    fn open(store: &'a Closed, space: Space, kind: u8, only: Option<StreamId>) -> Result<Self, String> {
        let mut from = vec![kind];
        if let Some(stream) = only {
            from.extend_from_slice(&stream.0.to_be_bytes());
        }
        let to = rows::end_of(&from);
        Ok(Self { rows: store.rows(space, from, to)?.peekable(), broken: None })
    }

    /// All rows of one kind.
    pub(super) fn of(store: &'a Closed, space: Space, kind: u8) -> Result<Self, String> {
        Self::open(store, space, kind, None)
    }

    /// The next row, whosever it is.
    pub(super) fn any(&mut self) -> Option<Row> {
        match self.rows.next()? {
            Ok(row) => Some(row),
            Err(why) => {
                self.broken = Some(why);
                None
            }
        }
    }

    /// The next row whose key begins with what `wanted` says about it.
    pub(super) fn next_if(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<Row> {
        match self.rows.peek() {
            Some(Ok((key, _))) if wanted(key) => self.any(),
            _ => None,
        }
    }

    /// The next row of this stream.
    pub(super) fn of_stream(&mut self, stream: StreamId) -> Option<Row> {
        self.next_if(|key| owner(key) == Some(stream))
    }

    /// The next row of a stream before this one: an orphan, since that stream has had its turn. `None`: all that is left.
    pub(super) fn before(&mut self, stream: Option<StreamId>) -> Option<Row> {
        self.next_if(|key| match (owner(key), stream) {
            (Some(of), Some(stream)) => of < stream,
            _ => true,
        })
    }
}

/// The stream in a key: eight bytes behind the kind.
pub(super) fn owner(key: &[u8]) -> Option<StreamId> {
    Some(StreamId(u64::from_be_bytes(*key.get(1..)?.first_chunk::<8>()?)))
}

/// All tables that are keyed by stream.
pub(super) struct Tables<'a> {
    pub(super) streams: Table<'a>,
    pub(super) bounds: Table<'a>,
    pub(super) cursors: Table<'a>,
    pub(super) producers: Table<'a>,
    pub(super) receipts: Table<'a>,
    pub(super) keys: Table<'a>,
    pub(super) subscriptions: Table<'a>,
    pub(super) names: Table<'a>,
}

impl<'a> Tables<'a> {
    pub(super) fn open(store: &'a Closed, only: Option<StreamId>) -> Result<Self, String> {
        let state = |kind| Table::open(store, Space::State, kind, only);
        let meta = |kind| Table::open(store, Space::Meta, kind, only);
        Ok(Self {
            streams: meta(STREAM)?,
            bounds: state(BOUNDS)?,
            cursors: state(CURSOR)?,
            producers: state(PRODUCER)?,
            receipts: state(RECEIPT)?,
            keys: state(IDEMPOTENCY)?,
            subscriptions: meta(SUBSCRIPTION)?,
            names: meta(SUBSCRIPTION_NAME)?,
        })
    }

    /// Those whose rows belong to a stream, with what such a row is called.
    pub(super) fn owned(&mut self) -> [(&mut Table<'a>, &'static str); 7] {
        [
            (&mut self.bounds, "bounds"),
            (&mut self.cursors, "a cursor"),
            (&mut self.producers, "a producer"),
            (&mut self.receipts, "a receipt"),
            (&mut self.keys, "an idempotency key"),
            (&mut self.subscriptions, "a subscription"),
            (&mut self.names, "the name of a subscription"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{IdempotencyRow, Key, ProducerKey};
    use crate::types::{OperationId, PrincipalId, ProducerId, SubscriptionId};

    #[test]
    fn kinds_are_the_ones_that_keys_are_made_of() {
        let producer = ProducerKey::of_stream(StreamId(7), ProducerId::parse("p").unwrap());
        let (stream, subscription) = (StreamId(7), SubscriptionId(8));
        let user = PrincipalId::User(1);
        let idempotency = IdempotencyRow { stream, principal: user, hash: 2 };
        for (key, kind) in [
            (Key::Bounds(stream), BOUNDS),
            (Key::Cursor(stream, subscription), CURSOR),
            (Key::Producer(&producer), PRODUCER),
            (Key::Receipt(&producer, 3), RECEIPT),
            (Key::Idempotency(&idempotency), IDEMPOTENCY),
            (Key::Stream(stream), STREAM),
            (Key::Subscription(stream, subscription), SUBSCRIPTION),
            (Key::SubscriptionName(stream, "s"), SUBSCRIPTION_NAME),
            (Key::Right(stream, user), RIGHT),
            (Key::UsageOn(stream, 1), USAGE_ON),
        ] {
            let bytes = key.encode().bytes;
            assert_eq!((bytes[0], owner(&bytes)), (kind, Some(stream)), "{key:?}");
        }
        for (key, kind) in [
            (Key::Format, FORMAT),
            (Key::Counters, COUNTERS),
            (Key::StreamName("s"), STREAM_NAME),
            (Key::StreamUuid(uuid::Uuid::nil()), STREAM_UUID),
            (Key::StreamOwner(1, stream), STREAM_OWNER),
            (Key::Operation(OperationId(uuid::Uuid::nil())), OPERATION),
            (Key::User(1), USER),
            (Key::UserName("s"), USER_NAME),
            (Key::Source(1), SOURCE),
            (Key::SourceOwner(1, 2), SOURCE_OWNER),
            (Key::ApiKey(&[0; 9]), API_KEY),
            (Key::RightOf(user, stream), RIGHT_OF),
            (Key::SourceName(1, 2), SOURCE_NAME),
            (Key::KeyName(1, "s"), KEY_NAME),
            (Key::Usage(1), USAGE),
        ] {
            assert_eq!(key.encode().bytes[0], kind, "{key:?}");
        }
    }
}
