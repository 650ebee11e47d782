//! What the data plane answers, whatever the carrier.

use super::batch::Slice;
use super::id::StreamId;
use super::name::{ProducerId, StreamName, SubscriptionName};

/// Answer to an append. Sent only after the events are durable (S-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first event; `None` for a duplicate older than the receipts (P-6).
    pub first_offset: Option<u64>,
    /// Offset of the last event.
    pub last_offset: Option<u64>,
    /// How many events.
    pub count: u32,
    /// It had been stored before (P-4, P-6).
    pub duplicate: bool,
}

/// Was the producer there before?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No.
    Created,
    /// Yes.
    Resumed,
}

impl Origin {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Resumed => "resumed",
        }
    }

    /// Reads [`Origin::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Resumed].into_iter().find(|e| e.as_str() == text)
    }
}

/// Answer to opening a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOpened {
    /// Its identity.
    pub producer: ProducerId,
    /// Its epoch: stamp every append with it.
    pub epoch: u64,
    /// The last sequence number stored; `None` = none, begin at 0.
    pub last_seq: Option<u64>,
    /// The stream's next offset; `None` for broker-wide producers.
    pub next_offset: Option<u64>,
    /// The stream; `None` for broker-wide producers.
    pub stream_id: Option<StreamId>,
    /// The broker's log epoch.
    pub log_epoch: u64,
    /// New or known.
    pub origin: Origin,
}

/// Answer to an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The last event done; `None` when nothing is.
    pub offset: Option<u64>,
    /// The first event not done.
    pub next: u64,
    /// The ack was older than the cursor (C-13).
    pub stale: bool,
}

/// How far a reader is behind.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Lag {
    /// Events from the position to `next_offset`.
    pub events: u64,
    /// Their data bytes (an upper bound where events were removed).
    pub bytes: u64,
    /// Age of the first of them; 0 when there is none.
    pub seconds: f64,
}

/// Answer to `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The stream's name.
    pub stream: StreamName,
    /// The stream's id.
    pub stream_id: StreamId,
    /// The session's epoch; `None` for ephemeral ones.
    pub epoch: Option<u64>,
    /// The first event that will come.
    pub next: u64,
    /// First kept event.
    pub first_offset: u64,
    /// First offset not assigned.
    pub next_offset: u64,
    /// The broker's log epoch.
    pub log_epoch: u64,
}

/// Answer to a pull: a contiguous run of its own, which may come again until it is acknowledged.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The stream's id.
    pub stream_id: StreamId,
    /// The session: good for acks, commits and further pulls, over any carrier, until a newer one opens.
    pub epoch: u64,
    /// The broker's log epoch.
    pub log_epoch: u64,
    /// Proves what was handed out (C-18); `None` when nothing was.
    pub ack_token: Option<String>,
    /// Offsets that will not come (both inclusive), before the events.
    pub gap: Option<(u64, u64, GapReason)>,
    /// The events.
    pub slices: Vec<Slice>,
    /// The first event after these.
    pub next: u64,
    /// How far behind the reader is after them.
    pub lag: Lag,
}

/// One ack of a commit, done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedAck {
    /// Which stream.
    pub stream: StreamName,
    /// Which subscription.
    pub subscription: SubscriptionName,
    /// The last event done.
    pub offset: u64,
    /// The first event not done.
    pub next: u64,
}

/// One append of a commit, done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedAppend {
    /// Which stream.
    pub stream: StreamName,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset of the last event.
    pub last_offset: u64,
    /// How many events.
    pub count: u32,
}

/// Answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Committed {
    /// The acks, as asked. Empty for a duplicate whose answer is no longer kept (T-2).
    pub acks: Vec<CommittedAck>,
    /// The appends, as asked. Empty for a duplicate whose answer is no longer kept (T-2).
    pub appends: Vec<CommittedAppend>,
    /// It had been done before.
    pub duplicate: bool,
}

/// Why offsets are missing from a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Retention or a trim removed them.
    Retention,
    /// Their time to live ended.
    Expired,
    /// An operator redacted them.
    Redacted,
    /// Newer events of their keys replaced them.
    Compacted,
}

impl GapReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Expired => "expired",
            Self::Redacted => "redacted",
            Self::Compacted => "compacted",
        }
    }

    /// Reads [`GapReason::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Retention, Self::Expired, Self::Redacted, Self::Compacted].into_iter().find(|e| e.as_str() == text)
    }
}
