//! Everything a client can say and everything it hears (`design.md` section 6), as values.
//!
//! `req` and `sub` are numbers the client chose; the broker echoes them.

use crate::types::reply::{Acked, Appended, Committed, GapReason, Lag, ProducerOpened, Subscribed};
use crate::types::request::{AckLevel, AppendRequest, CommitRequest, Credit, OpenProducerRequest, ResumeRequest, SubscribeRequest};
use crate::types::{Error, ProducerId, Slice, StreamName};

/// A frame of the client.
#[derive(Clone, Debug)]
pub enum ClientFrame {
    /// The credential, where the upgrade had none. Exactly one of the two.
    Auth {
        /// A key.
        key: Option<String>,
        /// A one-time ticket.
        ticket: Option<String>,
    },
    /// Attach a reader.
    Subscribe {
        /// The client's number for it.
        sub: u64,
        /// What it wants.
        request: SubscribeRequest,
    },
    /// Done up to here.
    Ack {
        /// Which reader.
        sub: u64,
        /// The last event done (inclusive).
        offset: u64,
        /// How safe.
        level: AckLevel,
    },
    /// More events may come.
    Credit {
        /// Which reader.
        sub: u64,
        /// How many more.
        credit: Credit,
    },
    /// Detach a reader.
    Unsubscribe {
        /// Which reader.
        sub: u64,
    },
    /// Answered by `pong`.
    Ping,
    /// Open a producer.
    OpenProducer {
        /// Echoed.
        req: u64,
        /// Which.
        request: OpenProducerRequest,
    },
    /// End the poisoning of an append session.
    Resume {
        /// Echoed.
        req: u64,
        /// Which.
        request: ResumeRequest,
    },
    /// Append events.
    Append {
        /// Echoed.
        req: u64,
        /// What.
        request: AppendRequest,
    },
    /// Acks and appends, all or nothing.
    Commit {
        /// Echoed.
        req: u64,
        /// What.
        request: CommitRequest,
    },
}

/// What `hello` tells.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hello {
    /// Version of the broker.
    pub version: String,
    /// Name and value of each limit a client can run into.
    pub limits: Vec<(String, u64)>,
    /// Words for what this broker can do.
    pub capabilities: Vec<String>,
}

/// Which request an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The connection.
    Connection,
    /// A request.
    Req(u64),
    /// A reader; unless the error answers an `ack` or `credit`, the reader has ended.
    Sub(u64),
}

/// A frame of the server.
#[derive(Clone, Debug)]
pub enum ServerFrame {
    /// First frame of every connection.
    Hello(Hello),
    /// The reader is attached.
    Subscribed {
        /// Which reader.
        sub: u64,
        /// Where it stands.
        reply: Subscribed,
    },
    /// Events, in order.
    Events {
        /// Which reader.
        sub: u64,
        /// Their stream.
        stream: StreamName,
        /// Runs of consecutive offsets.
        slices: Vec<Slice>,
        /// How far behind the reader is after them.
        lag: Lag,
    },
    /// The reader has everything there is.
    Live {
        /// Which reader.
        sub: u64,
        /// First offset not assigned.
        next_offset: u64,
    },
    /// `next` moved by filtering.
    Progress {
        /// Which reader.
        sub: u64,
        /// The first event still to come.
        next: u64,
    },
    /// Offsets that will not come.
    Gap {
        /// Which reader.
        sub: u64,
        /// First lost offset.
        from: u64,
        /// Last lost offset (inclusive).
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// The ack counts.
    Acked {
        /// Which reader.
        sub: u64,
        /// Where the cursor is.
        reply: Acked,
    },
    /// The reader is detached.
    Unsubscribed {
        /// Which reader.
        sub: u64,
    },
    /// Answer to `ping`.
    Pong,
    /// The producer is open.
    ProducerOpened {
        /// Echoed.
        req: u64,
        /// Where it stands.
        reply: ProducerOpened,
    },
    /// The append session goes on.
    Resumed {
        /// Echoed.
        req: u64,
    },
    /// The events are durable.
    Appended {
        /// Echoed.
        req: u64,
        /// Where they are.
        reply: Appended,
    },
    /// The commit is durable.
    Committed {
        /// Echoed.
        req: u64,
        /// What it did.
        reply: Committed,
    },
    /// A refusal or failure.
    Error {
        /// Of what.
        about: About,
        /// Code, sentence, rule, details.
        error: Error,
        /// Finds it in the log.
        request_id: String,
    },
}

/// Bytes that are no frame, and what they were probably about.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameError {
    /// What was wrong, naming the field.
    pub error: Error,
    /// `req` or `sub` of the frame, where readable.
    pub about: About,
    /// The frame was, or may have been, an append: this append session has a hole now and must be poisoned (P-12). Both parts
    /// `None`: stream or producer were not readable, so every append session of the connection must be.
    pub append: Option<(Option<StreamName>, Option<ProducerId>)>,
}

impl FrameError {
    /// A frame that can have been anything: it poisons every append session.
    pub fn of_anything(error: Error) -> Self {
        Self { error, about: About::Connection, append: Some((None, None)) }
    }

    /// A frame that was surely no append.
    pub fn of_other(error: Error, about: About) -> Self {
        Self { error, about, append: None }
    }
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for FrameError {}
