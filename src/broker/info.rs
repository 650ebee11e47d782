//! What the broker tells about its objects, and what it is asked for in lists and reads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::types::filter::{Filter, Subject};
use crate::types::reply::{GapReason, Lag};
use crate::types::request::Start;
use crate::types::{OperationId, ProducerId, Result, Slice, StreamId, StreamName, SubscriptionId, SubscriptionName, TimeUs};

/// How safe an append is before it is answered; there is no other way yet.
pub const DURABILITY: &str = "fsync";

/// Who reads a subscription: one at a time; there is no other mode yet.
pub const MODE: &str = "exclusive";

/// What an operation is: a task, as LXD says; there is no other class yet.
pub const CLASS: &str = "task";

/// Words for the state of a stream, with LXD's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// 113.
    Ready,
    /// 107: being deleted.
    Stopping,
}

impl StreamStatus {
    /// Word and number.
    pub fn told(self) -> (&'static str, u32) {
        match self {
            Self::Ready => ("Ready", 113),
            Self::Stopping => ("Stopping", 107),
        }
    }
}

/// A stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    /// Never reused.
    pub id: StreamId,
    /// For systems that want UUIDs.
    pub uuid: String,
    /// As it was created.
    pub name: StreamName,
    /// User id.
    pub owner: u64,
    /// That user's name.
    pub owner_name: String,
    /// When.
    pub created: TimeUs,
    /// For people.
    pub description: String,
    /// For programs.
    pub metadata: BTreeMap<String, String>,
    /// Largest `data` of one event.
    pub event_max_bytes: u64,
    /// What it is doing.
    pub status: StreamStatus,
    /// It takes no more events.
    pub closed: bool,
    /// First kept offset.
    pub first_offset: u64,
    /// First offset not assigned.
    pub next_offset: u64,
    /// Data bytes kept (an upper bound where events were removed).
    pub bytes: u64,
    /// Time of the last event.
    pub last_event_at: Option<TimeUs>,
    /// The broker's log epoch.
    pub log_epoch: u64,
}

/// What a new stream is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStream {
    /// Free name.
    pub name: StreamName,
    /// For people.
    pub description: String,
    /// For programs.
    pub metadata: BTreeMap<String, String>,
    /// Largest `data` of one event; `None` = the broker's limit.
    pub event_max_bytes: Option<u64>,
}

impl NewStream {
    /// All defaults.
    pub fn named(name: StreamName) -> Self {
        Self { name, description: String::new(), metadata: BTreeMap::new(), event_max_bytes: None }
    }
}

/// A subscription and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionInfo {
    /// Never reused.
    pub id: SubscriptionId,
    /// As it was created.
    pub name: SubscriptionName,
    /// Its stream.
    pub stream: StreamName,
    /// When.
    pub created: TimeUs,
    /// How long a detached session keeps its delivered mark.
    pub ack_timeout_s: u64,
    /// Most events delivered but not acknowledged.
    pub max_in_flight: u64,
    /// It goes after this long without use.
    pub expires_s: u64,
    /// Only events for which it holds are delivered.
    pub filter: Option<String>,
    /// First event not done.
    pub next: u64,
    /// Of the newest session, 0 = none yet.
    pub epoch: u64,
    /// How far behind the cursor is.
    pub lag: Lag,
    /// A session is live: attached, or pulled within the ack timeout.
    pub attached: bool,
}

impl SubscriptionInfo {
    /// Word and number: has it a reader?
    pub fn status(&self) -> (&'static str, u32) {
        if self.attached { ("Running", 103) } else { ("Stopped", 102) }
    }

    /// The last event done.
    pub fn acked_offset(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }
}

/// What a new subscription is asked to be. Absent numbers take the limits' defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSubscription {
    /// Free name.
    pub name: SubscriptionName,
    /// Where its cursor begins: `earliest` unless said.
    pub start: Start,
    /// See [`SubscriptionInfo`].
    pub ack_timeout_s: Option<u64>,
    /// See [`SubscriptionInfo`].
    pub max_in_flight: Option<u64>,
    /// See [`SubscriptionInfo`].
    pub expires_s: Option<u64>,
    /// Deliver only events for which it holds.
    pub filter: Option<String>,
}

/// A producer and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Its identity.
    pub producer: ProducerId,
    /// Its stream; `None` = broker-wide, for commits.
    pub stream: Option<StreamName>,
    /// Of its newest opening.
    pub epoch: u64,
    /// The last sequence number stored; `None` = none.
    pub last_seq: Option<u64>,
    /// When it was last opened or stored something.
    pub last_used: TimeUs,
}

/// An operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationInfo {
    /// Random.
    pub id: OperationId,
    /// For people.
    pub description: String,
    /// For programs: `stream.Delete`.
    pub command: String,
    /// When it began.
    pub created: TimeUs,
    /// When it last changed.
    pub updated: TimeUs,
    /// 103 Running, 200 Success, 400 Failure; 200 and above are final.
    pub status_code: u32,
    /// The stream it is about.
    pub stream: String,
    /// Why it failed.
    pub err: String,
    /// The code of that.
    pub err_code: String,
    /// User id.
    pub requestor: u64,
    /// That user's name, where it is shown; the row does not have it.
    pub requestor_name: String,
}

impl OperationInfo {
    /// Word for its number.
    pub fn status(&self) -> &'static str {
        match self.status_code {
            100 => "Operation created",
            103 => "Running",
            104 => "Canceling",
            105 => "Pending",
            200 => "Success",
            401 => "Canceled",
            _ => "Failure",
        }
    }

    /// Can it be cancelled? None of those that exist so far.
    pub fn may_cancel(&self) -> bool {
        false
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items, sorted by name.
    pub items: Vec<T>,
    /// More follow.
    pub more: bool,
}

/// Which page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// After this name (exclusive).
    pub after: Option<String>,
    /// At most this many; `None` = all.
    pub limit: Option<usize>,
    /// Only those for which it holds; parsed with the fields of the collection ([`fields`](super::fields)).
    pub filter: Option<Filter>,
}

impl ListQuery {
    /// Puts the next thing on the page if it is still there and the filter holds for it. Breaks when the page is full and more follow.
    pub(super) fn take<T: Subject>(&self, page: &mut Page<T>, found: Option<T>) -> ControlFlow<()> {
        match found {
            Some(item) if self.holds(&item) => self.put(page, item),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Is there no filter, or does it hold?
    pub(super) fn holds(&self, subject: &impl Subject) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(subject))
    }

    /// Puts on the page what the filter holds for. Breaks when the page is full already, so that more follow.
    pub(super) fn put<T>(&self, page: &mut Page<T>, item: T) -> ControlFlow<()> {
        if self.limit == Some(page.items.len()) {
            page.more = true;
            return ControlFlow::Break(());
        }
        page.items.push(item);
        ControlFlow::Continue(())
    }
}

/// Where to trim to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// Drop events before this offset.
    Offset(u64),
    /// Drop events before this time.
    Time(TimeUs),
}

/// Where a stateless read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Strictly after this offset; must be kept, or the one before the first kept.
    After(u64),
    /// Inclusive.
    At(Start),
}

/// A stateless read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// Where.
    pub from: ReadFrom,
    /// How many events at most.
    pub limit: usize,
    /// How long to wait at the end for something to come.
    pub wait: Duration,
}

/// Answer to a stateless read.
#[derive(Clone, Debug)]
pub struct ReadReply {
    /// Which stream the name meant.
    pub stream: StreamId,
    /// The events.
    pub slices: Vec<Slice>,
    /// First kept offset.
    pub first_offset: u64,
    /// First offset not assigned.
    pub next_offset: u64,
    /// What to send as `after` next time; `None` before the first event of all.
    pub after: Option<u64>,
    /// There is more to read now.
    pub more: bool,
}

/// One event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// By offset.
    Offset(u64),
    /// Counted from the end: 1 = the last.
    FromEnd(u64),
    /// The first kept.
    First,
    /// The last.
    Last,
    /// Any, evenly.
    Random,
}

/// What a session hands out.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Events, in order, without holes but for gaps said before.
    Events {
        /// Runs of consecutive offsets.
        slices: Vec<Slice>,
        /// How far behind the reader is after them.
        lag: Lag,
    },
    /// Everything there is has been handed out.
    Live {
        /// First offset not assigned.
        next_offset: u64,
    },
    /// A filter has passed over everything below `next` that was not handed out.
    Progress {
        /// First event that was not looked at, or the next to come.
        next: u64,
    },
    /// These offsets will not come; both inclusive.
    Gap {
        /// First.
        from: u64,
        /// Last.
        to: u64,
        /// Why.
        reason: GapReason,
    },
}

/// Is the broker fit to serve?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Take traffic.
    pub ready: bool,
    /// Name of each check and what it found; `Ok` is fine.
    pub checks: Vec<(&'static str, Result<(), String>)>,
}
