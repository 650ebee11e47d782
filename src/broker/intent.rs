//! What callers ask the commit loop to do, and how they hear of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::access::{AccessChange, Principal};
use super::audit::{Act, By};
use super::cursor::{Attachment, OpenAsk, Proof};
use super::info::{NewStream, OperationInfo};
use super::operation::Note;
use super::shared::StreamShared;
use crate::log::IdempotencyRow;
use crate::types::reply::{Acked, Appended, Committed, ProducerOpened, Subscribed};
use crate::types::request::{AckLevel, AckRequest, CommitRequest, Credit, Expect, OnGap, ProducerStamp, Start};
use crate::types::{Error, Events, OperationId, PrincipalId, ProducerId, Result, StreamId, StreamName, SubscriptionId, SubscriptionName, TimeUs};

/// Where an answer goes. The receiver may be gone; that is nobody's fault.
pub type Reply<T> = oneshot::Sender<Result<T>>;

/// One append session: (connection, stream, producer or none). Only the commit loop looks inside while anything of it is on its way (P-12).
#[derive(Debug, Default)]
pub struct Pipe {
    /// An append of it was refused; all later ones are, until `resume`.
    pub poisoned: AtomicBool,
}

/// An append, checked and hashed.
#[derive(Debug)]
pub struct AppendIntent {
    /// To which stream.
    pub stream: StreamName,
    /// What the caller believes the name means.
    pub stream_id: Option<StreamId>,
    /// What to store.
    pub events: Events,
    /// Exactly-once identity and the fingerprint of `events`.
    pub producer: Option<(ProducerStamp, u128)>,
    /// Condition.
    pub expected_next_offset: Option<u64>,
    /// On whose behalf.
    pub author: Author,
    /// The ordered session it belongs to; none for unary calls.
    pub pipe: Option<Arc<Pipe>>,
}

/// Who stands in `author`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// User id.
    pub user: u64,
    /// Source id, 0 = none.
    pub source: u64,
}

impl Author {
    /// As whom it has rights, and names of its own.
    pub fn principal(self) -> PrincipalId {
        if self.source == 0 { PrincipalId::User(self.user) } else { PrincipalId::Source(self.source) }
    }
}

/// Who changes a subscription: what its maker may do to it, others need Admin for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// On whose behalf.
    pub author: Author,
    /// Has it Admin on the stream?
    pub admin: bool,
}

impl From<&Principal> for Author {
    fn from(who: &Principal) -> Self {
        Self { user: who.user_id(), source: who.source_id() }
    }
}

/// Where a trimmed stream begins, as its log has it.
#[derive(Clone, Copy, Debug)]
pub struct TrimPoint {
    /// First offset that stays.
    pub before: u64,
    /// Base of the batch that holds it.
    pub base: u64,
    /// Data bytes before it.
    pub bytes_before: u64,
}

/// What a session needs to begin.
pub struct Opened {
    /// For the client.
    pub subscribed: Subscribed,
    /// The stream's news.
    pub shared: Arc<StreamShared>,
    /// Durable sessions only.
    pub durable: Option<DurableSession>,
    /// The time on the clock of S-9, for what is to expire.
    pub clock: TimeUs,
}

/// The durable side of a session.
pub struct DurableSession {
    /// Holds the session until it is dropped.
    pub attachment: Attachment,
    /// Which subscription.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: SubscriptionName,
    /// Its window.
    pub window: Credit,
    /// How long its delivered mark is kept when nobody holds it.
    pub ack_timeout_s: u64,
    /// What its subscription delivers, as it is stored; empty = all. The loop never reads it.
    pub filter: String,
}

/// A new subscription's fixed fields.
#[derive(Clone, Debug)]
pub struct SubscriptionFields {
    /// See `SubscriptionInfo`.
    pub ack_timeout_s: u64,
    /// See `SubscriptionInfo`.
    pub max_in_flight: u64,
    /// See `SubscriptionInfo`.
    pub expires_s: u64,
    /// See `SubscriptionInfo`; empty = all events.
    pub filter: String,
}

/// One request to the commit loop.
pub enum Intent {
    /// A new stream.
    CreateStream {
        /// What it shall be.
        new: NewStream,
        /// User id.
        owner: u64,
        /// Leaves this operation.
        note: Option<Note>,
        /// Answer: its id.
        reply: Reply<StreamId>,
    },
    /// First half of a deletion: nobody may use the stream from now on.
    DeleteStream {
        /// Which.
        stream: StreamName,
        /// The operation to begin.
        operation: OperationId,
        /// Who deletes it.
        by: Box<By>,
        /// Answer: the operation as it stands.
        reply: Reply<(StreamId, OperationInfo)>,
    },
    /// Second half: its rows and batches go, the name is free, the operation ends.
    FinishDelete {
        /// Which.
        stream: StreamId,
        /// The operation that ends.
        operation: Box<OperationInfo>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Rows of operations that ended long ago go.
    ForgetOperations {
        /// Which.
        operations: Vec<OperationId>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Drop events before an offset.
    Trim {
        /// Which.
        stream: StreamName,
        /// The stream whose log was looked at: another one of this name has other batches.
        stream_id: StreamId,
        /// Where it shall begin.
        to: TrimPoint,
        /// Who trims it.
        by: Box<By>,
        /// Answer: the stream, and the base below which its files may go.
        reply: Reply<(StreamId, u64)>,
    },
    /// No more appends.
    CloseStream {
        /// Which.
        stream: StreamName,
        /// Who closes it.
        by: Box<By>,
        /// Answer.
        reply: Reply<()>,
    },
    /// A new subscription.
    CreateSubscription {
        /// Of which stream.
        stream: StreamName,
        /// Its name.
        name: SubscriptionName,
        /// Its fields.
        fields: SubscriptionFields,
        /// Who makes it.
        author: Author,
        /// Where its cursor begins.
        start: Start,
        /// Answer.
        reply: Reply<()>,
    },
    /// Remove a subscription.
    DeleteSubscription {
        /// Of which stream.
        stream: StreamName,
        /// Which.
        name: SubscriptionName,
        /// Whether the caller may.
        claim: Claim,
        /// Who removes it.
        by: Box<By>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Move a cursor (C-14).
    Seek {
        /// Of which stream.
        stream: StreamName,
        /// Which.
        name: SubscriptionName,
        /// To where.
        to: Start,
        /// Whether the caller may.
        claim: Claim,
        /// Who moves it.
        by: Box<By>,
        /// Answer.
        reply: Reply<()>,
    },
    /// A session, durable or ephemeral.
    Open {
        /// Of which stream.
        stream: StreamName,
        /// What the caller believes the name means.
        stream_id: Option<StreamId>,
        /// The subscription; `None` = ephemeral.
        subscription: Option<SubscriptionName>,
        /// Create the subscription if it does not exist.
        create: bool,
        /// What the reader thinks its filter is; that of a new subscription.
        filter: Option<String>,
        /// The rest.
        ask: OpenAsk,
        /// Who opens it: the owner of what is created on the way.
        claim: Claim,
        /// The same for the audit, where the cursor may be moved back.
        by: Option<Box<By>>,
        /// Answer.
        reply: Reply<Opened>,
    },
    /// A further call of a session (a pull).
    Continue {
        /// Of which stream.
        stream: StreamName,
        /// Which subscription.
        subscription: SubscriptionName,
        /// The session.
        epoch: u64,
        /// Where it is to go on; `None` = the cursor.
        from: Option<u64>,
        /// About events that are gone.
        on_gap: OnGap,
        /// Answer.
        reply: Reply<Opened>,
    },
    /// Done up to here.
    Ack {
        /// What.
        request: AckRequest,
        /// What a token shows.
        proof: Option<Proof>,
        /// The answer waits for the disk.
        level: AckLevel,
        /// Answer.
        reply: Reply<Acked>,
    },
    /// A new epoch of a producer.
    OpenProducer {
        /// Its stream; `None` = broker-wide.
        stream: Option<StreamName>,
        /// What the caller believes the name means.
        stream_id: Option<StreamId>,
        /// Which.
        producer: ProducerId,
        /// What the caller expects.
        expect: Expect,
        /// User id, owner of a broker-wide producer.
        user: u64,
        /// Answer.
        reply: Reply<ProducerOpened>,
    },
    /// Remove a producer and its receipts.
    DeleteProducer {
        /// Its stream; `None` = broker-wide.
        stream: Option<StreamName>,
        /// Which.
        producer: ProducerId,
        /// Who removes it: the owner of a broker-wide producer.
        by: Box<By>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Store events.
    Append(Box<AppendIntent>, Reply<Appended>),
    /// Store events, unless the same was asked under this key before (P-19).
    AppendOnce {
        /// What.
        append: Box<AppendIntent>,
        /// XXH3-128 of the key.
        key: u128,
        /// Of the events.
        fingerprint: u128,
        /// Answer, and until when the key is remembered.
        reply: Reply<(Appended, TimeUs)>,
    },
    /// Rows of idempotency keys go that are not remembered any more.
    ForgetKeys {
        /// Which.
        keys: Vec<IdempotencyRow>,
        /// Answer.
        reply: Reply<()>,
    },
    /// An append of this session could not even be read (P-12).
    Spoil {
        /// The session's stream.
        stream: StreamName,
        /// The session's producer.
        producer: Option<ProducerId>,
        /// The session.
        pipe: Arc<Pipe>,
    },
    /// The session goes on (P-12).
    Resume {
        /// The session's stream.
        stream: StreamName,
        /// The session's producer.
        producer: Option<ProducerId>,
        /// Where it goes on.
        seq: Option<u64>,
        /// The session.
        pipe: Arc<Pipe>,
        /// Answer.
        reply: Reply<()>,
    },
    /// A change of users, sources, keys or rights.
    Access {
        /// Who makes it.
        by: Box<By>,
        /// What.
        change: Box<AccessChange>,
        /// Leaves this operation.
        note: Option<Note>,
        /// Answer: the id of what was made.
        reply: Reply<u64>,
    },
    /// Something to be told of that changes nothing else.
    Audit {
        /// Who did it.
        by: Box<By>,
        /// What.
        act: Box<Act>,
        /// While the disk is nearly full it goes to the log only.
        if_room: bool,
        /// Answer.
        reply: Reply<()>,
    },
    /// A raised log epoch is told of, once.
    AuditLogEpoch {
        /// Answer.
        reply: Reply<()>,
    },
    /// Acks and appends together.
    Commit {
        /// What.
        request: Box<CommitRequest>,
        /// Over all of it.
        fingerprint: u128,
        /// On whose behalf.
        author: Author,
        /// Answer.
        reply: Reply<Committed>,
    },
}

impl Intent {
    /// Answers without doing anything.
    pub fn refuse(self, error: Error) {
        fn tell<T>(reply: Reply<T>, error: Error) {
            drop(reply.send(Err(error)));
        }
        match self {
            Self::CreateStream { reply, .. } => tell(reply, error),
            Self::DeleteStream { reply, .. } => tell(reply, error),
            Self::FinishDelete { reply, .. }
            | Self::ForgetOperations { reply, .. }
            | Self::ForgetKeys { reply, .. }
            | Self::DeleteProducer { reply, .. }
            | Self::CloseStream { reply, .. }
            | Self::CreateSubscription { reply, .. }
            | Self::DeleteSubscription { reply, .. }
            | Self::Seek { reply, .. }
            | Self::Audit { reply, .. }
            | Self::AuditLogEpoch { reply }
            | Self::Resume { reply, .. } => tell(reply, error),
            Self::Trim { reply, .. } => tell(reply, error),
            Self::Open { reply, .. } | Self::Continue { reply, .. } => tell(reply, error),
            Self::Ack { reply, .. } => tell(reply, error),
            Self::OpenProducer { reply, .. } => tell(reply, error),
            Self::Append(_, reply) => tell(reply, error),
            Self::AppendOnce { reply, .. } => tell(reply, error),
            Self::Commit { reply, .. } => tell(reply, error),
            Self::Access { reply, .. } => tell(reply, error),
            Self::Spoil { .. } => {}
        }
    }
}

/// An intent on its way, with its place in the queue's budget.
pub struct Queued {
    /// What.
    pub intent: Intent,
    /// Its place in the order of arrival at the loop; it keeps that while it waits for rows.
    pub arrival: u64,
    /// Given back when the answer is out.
    pub permit: Option<OwnedSemaphorePermit>,
    /// The caller has nothing else outstanding: it will come back when it is answered.
    pub solo: bool,
}

/// An answer that waits for its group to be durable (S-1, S-3).
pub enum Answer {
    /// To an append.
    Appended(Reply<Appended>, Result<Appended>),
    /// To an append with an idempotency key.
    AppendedOnce(Reply<(Appended, TimeUs)>, Result<(Appended, TimeUs)>),
    /// To an opened producer.
    Producer(Reply<ProducerOpened>, Result<ProducerOpened>),
    /// To a commit.
    Committed(Reply<Committed>, Result<Committed>),
    /// To an ack.
    Acked(Reply<Acked>, Result<Acked>),
    /// To an opened session.
    Opened(Reply<Opened>, Result<Box<Opened>>),
    /// To a new stream.
    Stream(Reply<StreamId>, Result<StreamId>),
    /// To a trim.
    Trimmed(Reply<(StreamId, u64)>, Result<(StreamId, u64)>),
    /// To the first half of a deletion.
    Deleting(Reply<(StreamId, OperationInfo)>, Result<(StreamId, OperationInfo)>),
    /// To an access change.
    Access(Reply<u64>, Result<u64>),
    /// To everything else.
    Done(Reply<()>, Result<()>),
}

impl Answer {
    /// Sends it; `failed` replaces it when the group did not become durable.
    pub fn send(self, failed: Option<&Error>) {
        fn tell<T>(reply: Reply<T>, result: Result<T>, failed: Option<&Error>) {
            drop(reply.send(match failed {
                Some(error) => Err(error.clone()),
                None => result,
            }));
        }
        match self {
            Self::Appended(reply, result) => tell(reply, result, failed),
            Self::AppendedOnce(reply, result) => tell(reply, result, failed),
            Self::Producer(reply, result) => tell(reply, result, failed),
            Self::Committed(reply, result) => tell(reply, result, failed),
            Self::Acked(reply, result) => tell(reply, result, failed),
            Self::Opened(reply, result) => tell(reply, result.map(|opened| *opened), failed),
            Self::Stream(reply, result) => tell(reply, result, failed),
            Self::Trimmed(reply, result) => tell(reply, result, failed),
            Self::Deleting(reply, result) => tell(reply, result, failed),
            Self::Access(reply, result) => tell(reply, result, failed),
            Self::Done(reply, result) => tell(reply, result, failed),
        }
    }
}
