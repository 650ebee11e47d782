//! What a client can ask of the data plane, whatever the carrier.

use std::time::Duration;

use super::batch::Events;
use super::id::StreamId;
use super::name::{ProducerId, StreamName, SubscriptionName};
use super::time::TimeUs;

/// Where a producer stands, on each of its appends or commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Its identity.
    pub id: ProducerId,
    /// The epoch its opening gave it.
    pub epoch: u64,
    /// Sequence number of the first event (stream producers), or of the commit (broker-wide ones).
    pub seq: u64,
}

/// One append.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// To which stream.
    pub stream: StreamName,
    /// Refuse with `stream_replaced` if the name means another stream by now.
    pub stream_id: Option<StreamId>,
    /// One or more events.
    pub events: Events,
    /// Exactly-once identity.
    pub producer: Option<ProducerStamp>,
    /// Append only if this is the offset the first event would get.
    pub expected_next_offset: Option<u64>,
}

/// What an opening expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Expect {
    /// Nothing: it must be new.
    Create,
    /// Its state.
    Resume,
    /// Either.
    #[default]
    Any,
}

impl Expect {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Resume => "resume",
            Self::Any => "any",
        }
    }

    /// Reads [`Expect::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Resume, Self::Any].into_iter().find(|e| e.as_str() == text)
    }
}

/// Opens a producer: a new epoch for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenProducerRequest {
    /// Its stream; absent: a broker-wide producer for commits.
    pub stream: Option<StreamName>,
    /// Refuse with `stream_replaced` if the name means another stream by now.
    pub stream_id: Option<StreamId>,
    /// Its identity.
    pub producer: ProducerId,
    /// What it expects.
    pub expect: Expect,
}

/// Ends the poisoning of an append session (P-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeRequest {
    /// The session's stream.
    pub stream: StreamName,
    /// The session's producer, if it has one.
    pub producer: Option<ProducerId>,
    /// The next sequence number: must be last_seq + 1. Absent without a producer.
    pub seq: Option<u64>,
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(u64),
    /// At the first kept event.
    Earliest,
    /// After the last event.
    Latest,
    /// At the first event of this time or later.
    Time(TimeUs),
}

/// What to do about another live session (C-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Takeover {
    /// Fence it.
    #[default]
    Steal,
    /// Leave it alone and refuse this one.
    Reject,
}

impl Takeover {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steal => "steal",
            Self::Reject => "reject",
        }
    }

    /// Reads [`Takeover::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Steal, Self::Reject].into_iter().find(|e| e.as_str() == text)
    }
}

/// What to do when events the reader wanted are gone (C-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Refuse, or end the session.
    Fail,
    /// Send a `gap` and go on.
    Skip,
}

impl OnGap {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    /// Reads [`OnGap::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fail, Self::Skip].into_iter().find(|e| e.as_str() == text)
    }
}

/// How many events and bytes may be on their way (C-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Events.
    pub events: u64,
    /// Bytes of event data.
    pub bytes: u64,
}

/// Attaches a reader to a stream, durable (with a subscription) or ephemeral (without).
#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeRequest {
    /// Which stream.
    pub stream: StreamName,
    /// The durable subscription; absent = ephemeral.
    pub subscription: Option<SubscriptionName>,
    /// Create the subscription if it does not exist.
    pub create: bool,
    /// Refuse with `stream_replaced` if the name means another stream by now.
    pub stream_id: Option<StreamId>,
    /// Allow moving the cursor back (a seek inside the open).
    pub rewind: bool,
    /// Where to start; see `surfaces.md` 5.11 "start".
    pub from: Option<Start>,
    /// A filter (not built yet).
    pub filter: Option<String>,
    /// First grant.
    pub credit: Option<Credit>,
    /// About another live session.
    pub takeover: Takeover,
    /// About events that are gone; default `fail` for durable, `skip` for ephemeral.
    pub on_gap: Option<OnGap>,
    /// The log epoch the position belongs to (C-2).
    pub log_epoch: Option<u64>,
}

impl SubscribeRequest {
    /// A request with every option at its default.
    pub fn new(stream: StreamName, subscription: Option<SubscriptionName>) -> Self {
        Self {
            stream,
            subscription,
            create: false,
            stream_id: None,
            rewind: false,
            from: None,
            filter: None,
            credit: None,
            takeover: Takeover::Steal,
            on_gap: None,
            log_epoch: None,
        }
    }
}

/// How safe an ack must be before it is answered (C-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AckLevel {
    /// On disk.
    #[default]
    Durable,
    /// In memory; on disk within a second.
    Received,
}

impl AckLevel {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Received => "received",
        }
    }

    /// Reads [`AckLevel::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Durable, Self::Received].into_iter().find(|e| e.as_str() == text)
    }
}

/// An ack outside a session's own connection: by epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckRequest {
    /// Which stream.
    pub stream: StreamName,
    /// Which subscription.
    pub subscription: SubscriptionName,
    /// The session.
    pub epoch: u64,
    /// The last event done (inclusive).
    pub offset: u64,
    /// How safe.
    pub level: AckLevel,
}

/// A run of a subscription's events, asked for (`surfaces.md` 5.11 "pull").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Which stream.
    pub stream: StreamName,
    /// Which subscription; it must exist.
    pub subscription: SubscriptionName,
    /// Go on with this session; absent: open a new one, which fences those before it.
    pub epoch: Option<u64>,
    /// Where to begin; absent: the cursor. With `epoch` an offset between the cursor and the first event not delivered.
    pub from: Option<Start>,
    /// About another live session, when a new one opens.
    pub takeover: Takeover,
    /// About events that are gone; default `fail`.
    pub on_gap: Option<OnGap>,
    /// The log epoch `from` belongs to (C-2), when a new session opens.
    pub log_epoch: Option<u64>,
    /// At most this many events; the subscription's `max_in_flight` also bounds what is delivered and not acknowledged.
    pub max_events: u64,
    /// At most this many bytes of their data; one event passes whatever its size.
    pub max_bytes: u64,
    /// How long to wait when there is nothing to deliver; at most [`limits::LONG_POLL`](super::limits::LONG_POLL).
    pub wait: Duration,
}

/// One ack of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitAck {
    /// Which stream.
    pub stream: StreamName,
    /// Which subscription.
    pub subscription: SubscriptionName,
    /// The session.
    pub epoch: u64,
    /// The last event done (inclusive).
    pub offset: u64,
}

/// One append of a commit.
#[derive(Clone, Debug)]
pub struct CommitAppend {
    /// Which stream.
    pub stream: StreamName,
    /// Refuse if the name means another stream by now.
    pub stream_id: Option<StreamId>,
    /// One or more events.
    pub events: Events,
    /// Only if this is the offset the first event would get.
    pub expected_next_offset: Option<u64>,
}

/// One condition of a commit on a stream it does not write (T-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitCheck {
    /// Which stream.
    pub stream: StreamName,
    /// Its `next_offset` must be this.
    pub expected_next_offset: u64,
}

/// Acks and appends that happen together or not at all (`exactly-once.md` section 6).
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// A broker-wide producer: makes a lost reply repairable.
    pub producer: Option<ProducerStamp>,
    /// Inputs done.
    pub acks: Vec<CommitAck>,
    /// Outputs.
    pub appends: Vec<CommitAppend>,
    /// Conditions.
    pub checks: Vec<CommitCheck>,
}
