//! What collections can be filtered by (`surfaces.md` 5.7): their fields, and the value of each for each thing.
//!
//! A table and its `Subject` belong together: the index of a field is its place in the table.

use std::sync::Arc;

use super::info::{CLASS, DURABILITY, MODE, OperationInfo, StreamInfo, SubscriptionInfo};
use super::{SourceInfo, UserInfo};
use crate::types::batch::BatchHead;
use crate::types::filter::{Fields, Subject, Type, Value};
use crate::types::{Error, EventRef, Filter, Result, Slice};

/// Of streams.
pub const STREAMS: Fields = &[
    ("name", Type::Text),
    ("id", Type::Integer),
    ("uuid", Type::Text),
    ("description", Type::Text),
    ("owner", Type::Text),
    ("closed", Type::Boolean),
    ("durability", Type::Text),
    ("event_max_bytes", Type::Integer),
    ("status", Type::Text),
    ("status_code", Type::Integer),
    ("created_at", Type::Time),
    ("state.count", Type::Integer),
    ("state.bytes", Type::Integer),
    ("state.first_offset", Type::Integer),
    ("state.next_offset", Type::Integer),
    ("state.last_event_at", Type::Time),
    ("metadata", Type::Map),
];

/// Is this field of a stream in the catalogue, so that nothing of the stream itself need be looked at?
pub fn is_in_catalogue(index: usize) -> bool {
    STREAMS.get(index).is_some_and(|(name, _)| *name != "closed" && !name.starts_with("state."))
}

impl Subject for StreamInfo {
    fn value(&self, index: usize, key: &str) -> Option<Value<'_>> {
        Some(match index {
            0 => Value::Text(self.name.as_str()),
            1 => Value::Integer(self.id.0.into()),
            2 => Value::Text(&self.uuid),
            3 => Value::Text(&self.description),
            4 => Value::Text(&self.owner_name),
            5 => Value::Boolean(self.closed),
            6 => Value::Text(DURABILITY),
            7 => Value::Integer(self.event_max_bytes.into()),
            8 => Value::Text(self.status.told().0),
            9 => Value::Integer(self.status.told().1.into()),
            10 => Value::Time(self.created),
            11 => Value::Integer(self.next_offset.saturating_sub(self.first_offset).into()),
            12 => Value::Integer(self.bytes.into()),
            13 => Value::Integer(self.first_offset.into()),
            14 => Value::Integer(self.next_offset.into()),
            15 => Value::Time(self.last_event_at?),
            16 => Value::Text(self.metadata.get(key)?),
            _ => return None,
        })
    }
}

/// Of subscriptions.
pub const SUBSCRIPTIONS: Fields = &[
    ("name", Type::Text),
    ("stream", Type::Text),
    ("mode", Type::Text),
    ("status", Type::Text),
    ("status_code", Type::Integer),
    ("cursor", Type::Integer),
    ("lag", Type::Integer),
    ("created_at", Type::Time),
];

impl Subject for SubscriptionInfo {
    fn value(&self, index: usize, _: &str) -> Option<Value<'_>> {
        Some(match index {
            0 => Value::Text(self.name.as_str()),
            1 => Value::Text(self.stream.as_str()),
            2 => Value::Text(MODE),
            3 => Value::Text(self.status().0),
            4 => Value::Integer(self.status().1.into()),
            5 => Value::Integer(self.next.into()),
            6 => Value::Integer(self.lag.events.into()),
            7 => Value::Time(self.created),
            _ => return None,
        })
    }
}

/// Of users.
pub const USERS: Fields = &[("name", Type::Text), ("id", Type::Integer), ("root", Type::Boolean), ("disabled", Type::Boolean), ("created_at", Type::Time)];

impl Subject for UserInfo {
    fn value(&self, index: usize, _: &str) -> Option<Value<'_>> {
        Some(match index {
            0 => Value::Text(self.name.as_str()),
            1 => Value::Integer(self.id.into()),
            2 => Value::Boolean(self.root),
            3 => Value::Boolean(self.disabled),
            4 => Value::Time(self.created),
            _ => return None,
        })
    }
}

/// Of sources.
pub const SOURCES: Fields = &[("name", Type::Text), ("id", Type::Integer), ("user", Type::Text), ("disabled", Type::Boolean), ("created_at", Type::Time)];

/// A source, and its owner's name.
pub struct OwnedSource<'a> {
    /// The name.
    pub owner: &'a str,
    /// Itself.
    pub info: &'a SourceInfo,
}

impl Subject for OwnedSource<'_> {
    fn value(&self, index: usize, _: &str) -> Option<Value<'_>> {
        let Self { owner, info } = self;
        Some(match index {
            0 => Value::Text(&info.name),
            1 => Value::Integer(info.id.into()),
            2 => Value::Text(owner),
            3 => Value::Boolean(info.disabled),
            4 => Value::Time(info.created),
            _ => return None,
        })
    }
}

/// Of operations.
pub const OPERATIONS: Fields = &[
    ("id", Type::Text),
    ("class", Type::Text),
    ("command", Type::Text),
    ("status", Type::Text),
    ("status_code", Type::Integer),
    ("may_cancel", Type::Boolean),
    ("created_at", Type::Time),
];

/// An operation, and its id as it is written.
pub struct OperationAs<'a> {
    /// The id.
    pub id: &'a str,
    /// Itself.
    pub info: &'a OperationInfo,
}

impl Subject for OperationAs<'_> {
    fn value(&self, index: usize, _: &str) -> Option<Value<'_>> {
        let Self { id, info } = self;
        Some(match index {
            0 => Value::Text(id),
            1 => Value::Text(CLASS),
            2 => Value::Text(&info.command),
            3 => Value::Text(info.status()),
            4 => Value::Integer(info.status_code.into()),
            5 => Value::Boolean(info.may_cancel()),
            6 => Value::Time(info.created),
            _ => return None,
        })
    }
}

/// Of events. Their data is not looked into.
pub const EVENTS: Fields = &[
    ("offset", Type::Integer),
    ("time", Type::Time),
    ("type", Type::Text),
    ("key", Type::Text),
    ("size", Type::Integer),
    ("encoding", Type::Text),
    ("author.user_id", Type::Integer),
    ("author.source_id", Type::Integer),
    ("headers", Type::Map),
];

/// What a subscription delivers, as it is stored; empty = all, `None`.
///
/// # Errors
/// `internal`: it was read before it was stored.
pub fn of_subscription(text: &str) -> Result<Option<Arc<Filter>>> {
    let unreadable = |why| Error::internal(format!("the stored filter of a subscription cannot be read: {why}"));
    Filter::given(Some(text), EVENTS).map(|filter| filter.map(Arc::new)).map_err(unreadable)
}

/// An event in its place.
pub struct EventAt<'a> {
    /// Its offset.
    pub offset: u64,
    /// What its batch says of all its events.
    pub head: &'a BatchHead,
    /// Itself.
    pub event: &'a EventRef<'a>,
}

impl Subject for EventAt<'_> {
    fn value(&self, index: usize, key: &str) -> Option<Value<'_>> {
        let filled = |text| Some(Value::Text(text)).filter(|_| !str::is_empty(text));
        let given = |id: u64| Some(Value::Integer(id.into())).filter(|_| id != 0);
        match index {
            0 => Some(Value::Integer(self.offset.into())),
            1 => Some(Value::Time(self.head.time)),
            2 => filled(self.event.kind),
            3 => filled(self.event.key),
            4 => Some(Value::Integer(self.event.data.len() as i128)),
            5 => Some(Value::Text(self.event.encoding.as_str())),
            6 => given(self.head.author_user),
            7 => given(self.head.author_source),
            8 => self.event.headers.iter().find(|(name, _)| *name == key).map(|(_, value)| Value::Text(value)),
            _ => None,
        }
    }
}

/// The longest runs of a slice's events for which the filter holds, in order.
pub fn runs(slice: &Slice, filter: &Filter) -> Vec<Slice> {
    let (mut runs, mut begun) = (Vec::new(), None);
    let head = &slice.batch().head;
    let mut end = |begun: &mut Option<u64>, to| runs.extend(begun.take().and_then(|from| Slice::of(slice.batch().clone(), from..to)));
    for (offset, event) in slice.events() {
        if filter.holds(&EventAt { offset, head, event: &event }) {
            begun = begun.or(Some(offset));
        } else {
            end(&mut begun, offset);
        }
    }
    end(&mut begun, slice.to());
    runs
}
