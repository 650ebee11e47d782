//! The one error of every layer and every face: what it is called, whether it may be tried again, whether it may have happened.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde_json::{Map, Value};

/// Result with the broker's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Did this request have an effect? (`exactly-once.md` section 1, "applied")
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It had none and will have none.
    No,
    /// It may have had one, now or later.
    Unknown,
}

impl Applied {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// What a program should do next (`decisions.md` section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Send the very same request again.
    Same,
    /// Send again from the position in the details.
    Resend,
    /// Send `resume` first.
    Resume,
    /// Open the producer or session again.
    Reopen,
    /// Wait, then send again.
    Backoff,
    /// A person or the program's own logic has to choose.
    Decide,
    /// Do not.
    Never,
}

impl Retry {
    const ALL: [Self; 7] = [Self::Same, Self::Resend, Self::Resume, Self::Reopen, Self::Backoff, Self::Decide, Self::Never];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Resend => "resend",
            Self::Resume => "resume",
            Self::Reopen => "reopen",
            Self::Backoff => "backoff",
            Self::Decide => "decide",
            Self::Never => "never",
        }
    }

    /// Reads [`Retry::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $applied:ident, $retry:ident;)*) => {
        /// Stable name of a failure. Every face carries it; `docs/errors.md` explains each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// Whether a request refused with this code may have had an effect.
            pub const fn applied(self) -> Applied {
                match self { $(Self::$name => Applied::$applied,)* }
            }

            /// What a program should do about it, unless the error says otherwise.
            pub const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* }
            }
        }
    };
}

codes! {
    // exactly-once.md section 9
    /// The write or its sync failed, or the connection ended: it may or may not be stored.
    OutcomeUnknown = "outcome_unknown", Unknown, Same;
    /// The broker has more work than it accepts.
    Overloaded = "overloaded", No, Backoff;
    /// The reader's socket did not drain in time.
    SlowConsumer = "slow_consumer", No, Backoff;
    /// The disk is (nearly) full.
    StorageFull = "storage_full", No, Backoff;
    /// The storage engine has failed; the broker does not serve.
    StorageFailed = "storage_failed", No, Backoff;
    /// Stored bytes are damaged.
    DataCorrupt = "data_corrupt", No, Never;
    /// No credential, or an unknown one.
    Unauthenticated = "unauthenticated", No, Never;
    /// The credential does not carry the right.
    AccessDenied = "access_denied", No, Never;
    /// The named thing does not exist (or is hidden).
    NotFound = "not_found", No, Never;
    /// The name belongs to another stream id now.
    StreamReplaced = "stream_replaced", No, Never;
    /// The stream takes no more events.
    StreamClosed = "stream_closed", No, Never;
    /// `expected_next_offset` does not hold.
    ConditionFailed = "condition_failed", No, Never;
    /// The history was replaced since the position was taken.
    LogEpochChanged = "log_epoch_changed", No, Decide;
    /// The producer has no state here (P-1, P-3).
    ProducerUnknown = "producer_unknown", No, Reopen;
    /// The producer's state expired (P-15).
    ProducerStateLost = "producer_state_lost", No, Never;
    /// A newer opening of the producer exists (P-2).
    ProducerFenced = "producer_fenced", No, Never;
    /// Sequence numbers are missing (P-8).
    ProducerSeqGap = "producer_seq_gap", No, Resend;
    /// The batch was cut differently from an earlier one (P-7).
    ProducerSeqOverlap = "producer_seq_overlap", No, Resend;
    /// The sequence number was used for other bytes (P-5).
    ProducerSeqReused = "producer_seq_reused", No, Never;
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = "idempotency_key_reused", No, Never;
    /// The first request with this key has no outcome yet.
    IdempotencyInProgress = "idempotency_in_progress", No, Backoff;
    /// Another session is live (C-1).
    CursorBusy = "cursor_busy", No, Backoff;
    /// An earlier batch of this append session failed (P-12).
    SessionPoisoned = "session_poisoned", No, Resume;
    /// A newer session took over (C-7).
    SessionFenced = "session_fenced", No, Decide;
    /// The broker does not know this session (C-8).
    SessionUnknown = "session_unknown", No, Reopen;
    /// The event was not delivered to this session (C-10).
    AckNotDelivered = "ack_not_delivered", No, Never;
    /// An ack inside a commit made no progress (T-5).
    AckStale = "ack_stale", No, Never;
    /// The delivery was given to somebody else.
    LeaseLost = "lease_lost", No, Never;
    /// The ack lies beyond the end of the stream (C-9).
    AckBeyondEnd = "ack_beyond_end", No, Never;
    /// The position lies beyond the end of the stream (C-3).
    PositionBeyondEnd = "position_beyond_end", No, Never;
    /// The position was trimmed away (C-6).
    CursorTrimmed = "cursor_trimmed", No, Decide;
    /// The cursor is further than the position (C-4).
    CursorAhead = "cursor_ahead", No, Decide;
    /// This kind of ack does not fit the subscription (G-1).
    AckModeMismatch = "ack_mode_mismatch", No, Never;
    /// The ack token is forged, altered or expired (C-18).
    BadAckToken = "bad_ack_token", No, Never;
    /// Over a size limit.
    TooLarge = "too_large", No, Never;
    /// A commit over its limits (T-6).
    TxnTooLarge = "txn_too_large", No, Never;
    /// One part of a commit was refused, so all were (T-1).
    TxnPartFailed = "txn_part_failed", No, Decide;
    /// The parts of a commit live in different lanes.
    TxnCrossShard = "txn_cross_shard", No, Never;
    // surfaces.md 5.6
    /// A field has a wrong value.
    BadParameter = "bad_parameter", No, Never;
    /// The body or frame is not what it says it is.
    JsonParsingFailed = "json_parsing_failed", No, Never;
    /// The content type does not fit.
    ExpectingContentTypeJson = "expecting_content_type_json", No, Never;
    /// A field that does not exist.
    UnknownField = "unknown_field", No, Never;
    /// A field that only the server sets.
    ReadOnlyField = "read_only_field", No, Never;
    /// Field rules of a command are broken.
    CommandValidationFailed = "command_validation_failed", No, Never;
    /// The filter does not parse.
    BadFilter = "bad_filter", No, Never;
    /// The filter names a field that does not exist.
    UnknownFilterField = "unknown_filter_field", No, Never;
    /// A stateless read begins beyond the end.
    OffsetBeyondEnd = "offset_beyond_end", No, Never;
    /// The operation cannot be cancelled.
    NotCancelable = "not_cancelable", No, Never;
    /// The operation has ended already.
    AlreadyFinal = "already_final", No, Never;
    /// This address speaks WebSocket only.
    WebsocketRequired = "websocket_required", No, Never;
    /// A key does not belong into a URL.
    KeyInUrl = "key_in_url", No, Never;
    /// The console session ended.
    SessionExpired = "session_expired", No, Never;
    /// User keys may not do this.
    UserKeyForbidden = "user_key_forbidden", No, Never;
    /// The user is not entitled to the push API.
    EntitlementRequired = "entitlement_required", No, Never;
    /// A quota is used up.
    QuotaExceeded = "quota_exceeded", No, Backoff;
    /// Too many requests.
    RateLimited = "rate_limited", No, Backoff;
    /// No such address.
    UnknownRoute = "unknown_route", No, Never;
    /// The address exists, the method does not.
    MethodNotFound = "method_not_found", No, Never;
    /// No such command.
    UnsupportedCommand = "unsupported_command", No, Never;
    /// A stateless read begins below the kept range.
    OffsetTrimmed = "offset_trimmed", No, Decide;
    /// The stream has no event.
    StreamEmpty = "stream_empty", No, Never;
    /// The name is in use.
    NameTaken = "name_taken", No, Never;
    /// The stream takes reads only.
    Frozen = "frozen", No, Never;
    /// The stream is being deleted.
    Deleting = "deleting", No, Backoff;
    /// A lease holds the object.
    LeaseHeld = "lease_held", No, Backoff;
    /// Something depends on the object.
    InUse = "in_use", No, Never;
    /// The object is busy.
    Busy = "busy", No, Backoff;
    /// A precondition header does not hold.
    PreconditionFailed = "precondition_failed", No, Never;
    /// A fault of ours; the incident id finds it in the log.
    Internal = "internal", No, Never;
    /// The broker is starting, draining or behind.
    Unavailable = "unavailable", No, Backoff;
    /// Not built yet.
    NotImplemented = "not_implemented", No, Never;
}

impl Code {
    /// Reads [`Code::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an [`Error`] says. Behind a box, so that `Result`s stay small.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorBody {
    /// Stable name.
    pub code: Code,
    /// A sentence: what was wrong, where, and what to do.
    pub message: String,
    /// The rule it follows from, for example `P-8`.
    pub rule: Option<String>,
    /// Did the request have an effect?
    pub applied: Applied,
    /// What to do next.
    pub retry: Retry,
    /// Address of the thing it is about, for example `/v1/streams/orders`.
    pub resource: Option<String>,
    /// Numbers and names a program needs to go on.
    pub details: Map<String, Value>,
}

/// A refusal or failure with its code, sentence, rule and details.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(Box<ErrorBody>);

impl Error {
    /// An error with the table's `applied` and `retry`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorBody {
            code,
            message: message.into(),
            rule: None,
            applied: code.applied(),
            retry: code.retry(),
            resource: None,
            details: Map::new(),
        }))
    }

    /// Names the rule.
    pub fn rule(mut self, rule: &str) -> Self {
        self.rule = Some(rule.to_owned());
        self
    }

    /// Adds one detail.
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Names the thing it is about.
    pub fn resource(mut self, path: impl Into<String>) -> Self {
        self.resource = Some(path.into());
        self
    }

    /// Replaces the table's advice.
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// A parameter with a wrong value.
    pub fn bad(field: &str, message: impl Into<String>) -> Self {
        Self::new(Code::BadParameter, message).detail("field", field)
    }

    /// The body, for edges that take it apart.
    pub fn into_body(self) -> ErrorBody {
        *self.0
    }
}

impl Deref for Error {
    type Target = ErrorBody;
    fn deref(&self) -> &ErrorBody {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut ErrorBody {
        &mut self.0
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        Self(Box::new(body))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_only_outcome_unknown_may_have_happened() {
        for &code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert_eq!(code.applied() == Applied::Unknown, code == Code::OutcomeUnknown, "{code}");
        }
    }
}
