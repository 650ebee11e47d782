//! How a command ends: exit codes for scripts, three sentences for people.

use crate::client;
use crate::types::{Applied, Code};

/// How a command ends.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Exit code for a command line that makes no sense.
pub const USAGE: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The broker refused, or there is none.
    Client(client::Error),
    /// The command line makes no sense.
    Usage(String),
    /// It did not work.
    Failed(String),
    /// It did not work, with a code of its own (docs/cli.md).
    Exit {
        /// Exit code.
        code: u8,
        /// A sentence.
        message: String,
    },
    /// Who read our output has gone; nothing to say.
    BrokenPipe,
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The documented exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => USAGE,
            Self::Exit { code, .. } => *code,
            Self::Interrupted => 130,
            Self::Client(error) => match error {
                client::Error::Server { error, .. } => exit_code(error.code),
                client::Error::Connection { .. } => 6,
                client::Error::Timeout(_) => 7,
                client::Error::Usage(_) => USAGE,
                _ => 1,
            },
        }
    }

    /// Says on stderr what happened, what became of the request, and what to do next.
    pub fn print(&self) {
        match self {
            Self::BrokenPipe | Self::Interrupted => {}
            Self::Failed(message) | Self::Usage(message) | Self::Exit { message, .. } => eprintln!("tidelog: {message}"),
            Self::Client(error @ client::Error::Server { error: body, request_id }) => {
                eprintln!("tidelog: {}", body.message);
                let rule = body.rule.as_ref().map(|rule| format!(", rule {rule}")).unwrap_or_default();
                let request = if request_id.is_empty() { String::new() } else { format!(", request {request_id}") };
                let effect = match error.applied() {
                    Applied::No => "it had no effect",
                    Applied::Unknown => "it may or may not have had an effect",
                };
                eprintln!("  code {}{rule}{request}; {effect}.", body.code);
                for (name, value) in &body.details {
                    eprintln!("  {name}: {value}");
                }
                eprintln!("  next: {}", advice(body.code, body.resource.as_deref()));
            }
            Self::Client(error) => {
                eprintln!("tidelog: {error}");
                match error {
                    client::Error::Connection { message, .. } if message.contains("certificate") || message.contains("alert") => {
                        eprintln!("  next: name the broker's authority with --ca-file, and your own certificate with --cert-file and --cert-key-file.");
                    }
                    client::Error::Connection { applied: Applied::No, .. } => {
                        eprintln!("  next: start a broker with `tidelog dev`, or say where it is with --url, --socket or --remote.");
                    }
                    client::Error::Connection { .. } | client::Error::Timeout(_) => {
                        eprintln!("  It may or may not have had an effect; look before you repeat it.");
                    }
                    _ => {}
                }
            }
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Client(error)
    }
}

impl From<crate::types::Error> for Failure {
    fn from(error: crate::types::Error) -> Self {
        Self::Client(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Failed(format!("Reading or writing failed: {error}.")),
        }
    }
}

fn advice(code: Code, resource: Option<&str>) -> String {
    let of = |collection: &str| resource.is_some_and(|resource| resource.starts_with(collection));
    let specific = match code {
        Code::NotFound if of("/v1/users/") => "`tidelog user ls` lists the users there are; `tidelog user create NAME` makes one.",
        Code::NotFound if of("/v1/sources/") => "`tidelog source ls` lists your sources; `tidelog source create NAME` makes one.",
        Code::NotFound if of("/v1/keys/") => "`tidelog key ls` lists your keys; `tidelog key create NAME` makes one.",
        Code::NotFound => "`tidelog stream ls` lists what there is; `tidelog stream create NAME` makes a stream.",
        Code::Unauthenticated => "`tidelog login NAME`, give a key (--key-file), use the broker's Unix socket (--socket), or start it with `tidelog dev`.",
        Code::CursorTrimmed => "the events are gone; `tidelog subscription seek STREAM NAME earliest` goes on with the first kept one.",
        Code::CursorAhead => "leave out --from to go on at the cursor, or `tidelog subscription seek` to move it.",
        Code::SessionFenced => "another reader has the subscription; stop it, or use another name.",
        Code::ProducerFenced => "another program uses this producer id; give each its own.",
        Code::Overloaded | Code::RateLimited | Code::Unavailable | Code::Deleting => "try again in a moment.",
        Code::StorageFull => "make room on the broker's disk.",
        _ => return format!("`tidelog explain {code}`."),
    };
    format!("{specific} `tidelog explain {code}` says more.")
}

/// Exit code for a refusal of the broker.
fn exit_code(code: Code) -> u8 {
    match code {
        Code::NotFound
        | Code::UnknownRoute
        | Code::MethodNotFound
        | Code::UnsupportedCommand
        | Code::OffsetTrimmed
        | Code::CursorTrimmed
        | Code::StreamEmpty => 3,
        Code::Unauthenticated | Code::AccessDenied | Code::SessionExpired | Code::UserKeyForbidden | Code::EntitlementRequired | Code::KeyInUrl => 4,
        Code::StreamReplaced
        | Code::StreamClosed
        | Code::ConditionFailed
        | Code::LogEpochChanged
        | Code::ProducerUnknown
        | Code::ProducerStateLost
        | Code::ProducerFenced
        | Code::ProducerSeqGap
        | Code::ProducerSeqOverlap
        | Code::ProducerSeqReused
        | Code::IdempotencyKeyReused
        | Code::IdempotencyInProgress
        | Code::CursorBusy
        | Code::SessionPoisoned
        | Code::SessionFenced
        | Code::SessionUnknown
        | Code::AckNotDelivered
        | Code::AckStale
        | Code::LeaseLost
        | Code::AckBeyondEnd
        | Code::PositionBeyondEnd
        | Code::CursorAhead
        | Code::TxnPartFailed
        | Code::NameTaken
        | Code::Frozen
        | Code::Deleting
        | Code::LeaseHeld
        | Code::InUse
        | Code::Busy
        | Code::AlreadyFinal
        | Code::PreconditionFailed => 5,
        Code::Unavailable | Code::StorageFailed => 6,
        Code::BadParameter | Code::UnknownField | Code::ReadOnlyField | Code::CommandValidationFailed | Code::BadFilter | Code::UnknownFilterField => USAGE,
        Code::OutcomeUnknown
        | Code::Overloaded
        | Code::SlowConsumer
        | Code::StorageFull
        | Code::DataCorrupt
        | Code::AckModeMismatch
        | Code::BadAckToken
        | Code::TooLarge
        | Code::TxnTooLarge
        | Code::TxnCrossShard
        | Code::JsonParsingFailed
        | Code::ExpectingContentTypeJson
        | Code::OffsetBeyondEnd
        | Code::NotCancelable
        | Code::WebsocketRequired
        | Code::QuotaExceeded
        | Code::RateLimited
        | Code::Internal
        | Code::NotImplemented => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let server = |code| Failure::from(crate::types::Error::new(code, "…")).exit_code();
        assert_eq!(server(Code::NotFound), 3);
        assert_eq!(server(Code::AccessDenied), 4);
        assert_eq!(server(Code::NameTaken), 5);
        assert_eq!(server(Code::Unavailable), 6);
        assert_eq!(server(Code::BadParameter), 2);
        assert_eq!(server(Code::NotImplemented), 1);
        assert_eq!(Failure::from(client::Error::unreachable("…")).exit_code(), 6);
        assert_eq!(Failure::from(client::Error::Timeout("…".into())).exit_code(), 7);
        assert_eq!(Failure::Interrupted.exit_code(), 130);
        assert_eq!(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }

    #[test]
    fn every_code_has_an_exit_code_and_advice() {
        for &code in Code::ALL {
            assert!((1..=7).contains(&exit_code(code)), "{code}");
            assert!(advice(code, None).contains(code.as_str()));
        }
        // Whoever missed a user is not sent to look for streams.
        for (resource, command) in [("/v1/users/x", "tidelog user ls"), ("/v1/sources/7", "tidelog source ls"), ("/v1/keys/x", "tidelog key ls")] {
            assert!(advice(Code::NotFound, Some(resource)).contains(command), "{resource}");
        }
        assert!(advice(Code::NotFound, Some("/v1/streams/x")).contains("tidelog stream ls"));
    }
}
