//! Numbers the broker gives out. None of them is ever reused (S-8).

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Internal id of a stream, from 1. A deleted and re-created name gets a new one.
    StreamId
);
id!(
    /// Internal id of a subscription, from 1, unique over the broker.
    SubscriptionId
);

/// Id of the stream `$audit`: the largest that every reader of JSON can hold, so that the streams of users begin at 1 as if it were not there.
pub const AUDIT_STREAM: StreamId = StreamId(super::limits::INTEGER_MAX);

impl StreamId {
    /// Is it one of the broker's own streams, of which it writes the events itself?
    pub fn is_system(self) -> bool {
        self == AUDIT_STREAM
    }
}

/// Id of an operation (`surfaces.md` 5.3): a random UUID, because it also travels to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub uuid::Uuid);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The operator's user id (`decisions.md` section 5).
pub const OPERATOR_USER: u64 = 1;

/// Who may have a right: a user, or a source that belongs to one (`surfaces.md` 3.1, E9, E10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalId {
    /// A user, by id.
    User(u64),
    /// A source, by id; its owner is in its row.
    Source(u64),
}
