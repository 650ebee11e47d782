//! The one table from error codes to the numbers of each carrier (`exactly-once.md` section 9, `surfaces.md` introduction and 5.6).
//!
//! Total on purpose: a new code does not compile until it has its numbers. `docs/errors.md` explains the codes to people, and a
//! test here holds it to this table.

use crate::types::{Code, Error};

/// Numbers of gRPC status codes.
pub mod grpc {
    /// The request can never work.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// It does not exist.
    pub const NOT_FOUND: i32 = 5;
    /// It exists already.
    pub const ALREADY_EXISTS: i32 = 6;
    /// No right.
    pub const PERMISSION_DENIED: i32 = 7;
    /// Quota, rate or space.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// The state does not allow it.
    pub const FAILED_PRECONDITION: i32 = 9;
    /// Somebody else was there.
    pub const ABORTED: i32 = 10;
    /// A position outside what there is.
    pub const OUT_OF_RANGE: i32 = 11;
    /// Not built.
    pub const UNIMPLEMENTED: i32 = 12;
    /// A fault of ours.
    pub const INTERNAL: i32 = 13;
    /// Not now.
    pub const UNAVAILABLE: i32 = 14;
    /// Stored bytes are damaged.
    pub const DATA_LOSS: i32 = 15;
    /// No credential.
    pub const UNAUTHENTICATED: i32 = 16;
}

/// What a WebSocket does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends an `error` frame; the connection lives on.
    Frame,
    /// Sends an `error` frame where the socket still takes it, then closes with this code.
    Close(u16),
    /// Sends an `error` frame that ends one reader; the URL of a single subscription then closes with this code, a shared
    /// connection lives on (`decisions.md` section 2).
    CloseSingle(u16),
}

impl Action {
    /// The close code, if the connection is to close. `single` = it is the URL of one subscription.
    pub fn close(self, single: bool) -> Option<u16> {
        match self {
            Self::Frame => None,
            Self::Close(code) => Some(code),
            Self::CloseSingle(code) => single.then_some(code),
        }
    }
}

/// The numbers of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// HTTP status on `/v1`.
    pub http: u16,
    /// `error_code` in the body: one of 400, 401, 403, 404, 409, 412, 500.
    pub error_code: u16,
    /// gRPC status.
    pub grpc: i32,
    /// On a WebSocket.
    pub websocket: Action,
}

/// The numbers of a code. [`of`] is for whole errors: the parts of a commit have the numbers of their cause.
pub const fn numbers(code: Code) -> Numbers {
    use grpc::*;
    let (http, grpc, websocket) = match code {
        Code::OutcomeUnknown => (503, UNAVAILABLE, Action::Close(1011)),
        Code::Overloaded => (429, RESOURCE_EXHAUSTED, Action::Frame),
        Code::SlowConsumer => (429, RESOURCE_EXHAUSTED, Action::Close(4008)),
        Code::StorageFull => (503, RESOURCE_EXHAUSTED, Action::Frame),
        Code::StorageFailed => (503, UNAVAILABLE, Action::Close(1013)),
        Code::DataCorrupt => (500, DATA_LOSS, Action::Frame),
        Code::Unauthenticated | Code::SessionExpired => (401, UNAUTHENTICATED, Action::Close(4001)),
        Code::AccessDenied | Code::UserKeyForbidden | Code::EntitlementRequired => (403, PERMISSION_DENIED, Action::Frame),
        Code::NotFound | Code::UnknownRoute | Code::UnsupportedCommand | Code::OffsetTrimmed | Code::StreamEmpty => (404, NOT_FOUND, Action::Frame),
        Code::MethodNotFound => (405, NOT_FOUND, Action::Frame),
        Code::StreamClosed | Code::ProducerUnknown | Code::ProducerStateLost | Code::ProducerSeqGap | Code::ProducerSeqOverlap => {
            (409, FAILED_PRECONDITION, Action::Frame)
        }
        Code::AckNotDelivered | Code::AckStale | Code::LeaseLost | Code::CursorAhead => (409, FAILED_PRECONDITION, Action::Frame),
        Code::ConditionFailed | Code::PreconditionFailed => (412, FAILED_PRECONDITION, Action::Frame),
        Code::ProducerSeqReused | Code::IdempotencyKeyReused => (409, INVALID_ARGUMENT, Action::Frame),
        Code::StreamReplaced | Code::LogEpochChanged | Code::ProducerFenced | Code::IdempotencyInProgress | Code::CursorBusy => (409, ABORTED, Action::Frame),
        Code::SessionPoisoned => (409, ABORTED, Action::Frame),
        Code::SessionFenced | Code::SessionUnknown => (409, ABORTED, Action::CloseSingle(4009)),
        Code::Frozen | Code::Deleting | Code::LeaseHeld | Code::InUse | Code::Busy => (409, ABORTED, Action::Frame),
        // Without its cause. `of` looks at the cause first.
        Code::TxnPartFailed => (409, ABORTED, Action::Frame),
        Code::NameTaken => (409, ALREADY_EXISTS, Action::Frame),
        Code::AckBeyondEnd | Code::PositionBeyondEnd => (409, OUT_OF_RANGE, Action::Frame),
        Code::CursorTrimmed => (404, OUT_OF_RANGE, Action::Frame),
        Code::OffsetBeyondEnd => (400, OUT_OF_RANGE, Action::Frame),
        // A message over the carrier's own limit closes with 1009 before it becomes an error of ours.
        Code::TooLarge | Code::TxnTooLarge => (413, INVALID_ARGUMENT, Action::Frame),
        Code::ExpectingContentTypeJson => (415, INVALID_ARGUMENT, Action::Frame),
        Code::AckModeMismatch | Code::BadAckToken | Code::TxnCrossShard | Code::BadParameter | Code::JsonParsingFailed | Code::UnknownField => {
            (400, INVALID_ARGUMENT, Action::Frame)
        }
        Code::ReadOnlyField | Code::CommandValidationFailed | Code::BadFilter | Code::UnknownFilterField | Code::NotCancelable | Code::AlreadyFinal => {
            (400, INVALID_ARGUMENT, Action::Frame)
        }
        Code::WebsocketRequired | Code::KeyInUrl => (400, INVALID_ARGUMENT, Action::Frame),
        Code::QuotaExceeded | Code::RateLimited => (429, RESOURCE_EXHAUSTED, Action::Frame),
        Code::Internal => (500, INTERNAL, Action::Frame),
        Code::Unavailable => (503, UNAVAILABLE, Action::Frame),
        Code::NotImplemented => (500, UNIMPLEMENTED, Action::Frame),
    };
    Numbers { http, error_code: fold(http), grpc, websocket }
}

/// The numbers of an error: for `txn_part_failed` HTTP and gRPC say what the cause would have said (T-1).
pub fn of(error: &Error) -> Numbers {
    let own = numbers(error.code);
    if error.code != Code::TxnPartFailed {
        return own;
    }
    let cause = error.details.get("cause").and_then(|c| c.get("code")).and_then(|c| c.as_str()).and_then(Code::parse);
    cause.map_or(own, |code| Numbers { websocket: own.websocket, ..numbers(code) })
}

/// `error_code` knows seven numbers; HTTP has some more that proxies and libraries act on.
const fn fold(http: u16) -> u16 {
    match http {
        405 => 404,
        413 | 415 => 400,
        429 => 403,
        503 => 500,
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_is_one_of_seven_and_http_adds_only_those_that_others_act_on() {
        for &code in Code::ALL {
            let n = numbers(code);
            assert!([400, 401, 403, 404, 409, 412, 500].contains(&n.error_code), "{code}: {}", n.error_code);
            assert!(n.http == n.error_code || [405, 413, 415, 429, 503].contains(&n.http), "{code}: {}", n.http);
            assert!((1..=16).contains(&n.grpc), "{code}");
        }
    }

    #[test]
    fn a_failed_part_of_a_commit_has_the_numbers_of_its_cause() {
        let error = Error::new(Code::TxnPartFailed, "Part 0 failed.").detail("cause", serde_json::json!({"code": "not_found"}));
        assert_eq!((of(&error).http, of(&error).grpc), (404, grpc::NOT_FOUND));
        assert_eq!(of(&Error::new(Code::TxnPartFailed, "?")).http, 409);
    }

    #[test]
    fn a_fenced_reader_closes_only_the_url_of_one_subscription() {
        let action = numbers(Code::SessionFenced).websocket;
        assert_eq!((action.close(true), action.close(false)), (Some(4009), None));
        assert_eq!(numbers(Code::SlowConsumer).websocket.close(false), Some(4008));
    }

    #[test]
    fn the_page_about_errors_has_a_row_with_the_right_numbers_for_every_code() {
        let page = include_str!("../../docs/errors.md");
        for &code in Code::ALL {
            let start = format!("| `{code}` |");
            let rows: Vec<_> = page.lines().filter(|line| line.starts_with(&start)).collect();
            assert_eq!(rows.len(), 1, "docs/errors.md needs exactly one row for {code}");
            let cells: Vec<_> = rows[0].split('|').map(str::trim).collect();
            let n = numbers(code);
            let http = if code == Code::TxnPartFailed {
                "as its cause".to_owned()
            } else if n.http == n.error_code {
                n.http.to_string()
            } else {
                format!("{} (body {})", n.http, n.error_code)
            };
            let grpc = if code == Code::TxnPartFailed { "as its cause" } else { grpc_name(n.grpc) };
            let socket = match n.websocket {
                Action::Frame => "frame".to_owned(),
                Action::Close(c) => format!("frame, close {c}"),
                Action::CloseSingle(c) => format!("frame; single URL: close {c}"),
            };
            assert_eq!(cells.len(), 10, "{code}: a row has eight cells");
            assert_eq!(&cells[3..=7], [&http, grpc, &socket, code.applied().as_str(), code.retry().as_str()], "docs/errors.md, row {code}");
            assert!(cells[2].len() > 10 && cells[8].len() > 10, "docs/errors.md, row {code}: say what it means and what to do");
        }
        let rows = page.lines().filter(|line| line.starts_with("| `") && line.split('|').count() == 10).count();
        assert_eq!(rows, Code::ALL.len(), "docs/errors.md has a row for a code that does not exist");
    }

    fn grpc_name(number: i32) -> &'static str {
        match number {
            3 => "INVALID_ARGUMENT",
            5 => "NOT_FOUND",
            6 => "ALREADY_EXISTS",
            7 => "PERMISSION_DENIED",
            8 => "RESOURCE_EXHAUSTED",
            9 => "FAILED_PRECONDITION",
            10 => "ABORTED",
            11 => "OUT_OF_RANGE",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            15 => "DATA_LOSS",
            16 => "UNAUTHENTICATED",
            other => panic!("no name for {other}"),
        }
    }
}
