//! Everything that can go wrong for a client, as one enum: may it be tried again, may it have happened?

use std::time::Duration;

use crate::types::{self, Applied, Code, Retry};

/// Result with the client's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call of the client failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker answered with a refusal or failure. `request_id` finds it in the broker's log (empty when made by the client).
    #[error("{error}")]
    Server {
        /// Code, sentence, rule, details.
        error: types::Error,
        /// Finds it in the broker's log.
        request_id: String,
    },
    /// No broker, or the connection ended. `applied` tells whether the request may have had an effect.
    #[error("{message}")]
    Connection {
        /// A sentence.
        message: String,
        /// Did the request have an effect?
        applied: Applied,
    },
    /// The broker said something this client does not understand.
    #[error("The broker sent something unexpected: {0}")]
    Protocol(String),
    /// The caller asked for something that cannot be asked for.
    #[error("{0}")]
    Usage(String),
    /// The producer or consumer was closed before.
    #[error("This producer or consumer is closed.")]
    Closed,
    /// It took longer than the caller allowed.
    #[error("{0}")]
    Timeout(String),
}

impl Error {
    /// Nothing was sent.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::Connection { message: message.into(), applied: Applied::No }
    }

    /// The connection ended before the answer came.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self::Connection { message: message.into(), applied: Applied::Unknown }
    }

    /// The broker's code, if it was the broker that refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Server { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// The broker's error, if it was the broker that refused.
    pub fn server(&self) -> Option<&types::Error> {
        match self {
            Self::Server { error, .. } => Some(error),
            _ => None,
        }
    }

    /// May the request have had an effect?
    pub fn applied(&self) -> Applied {
        match self {
            Self::Server { error, .. } => error.applied,
            Self::Connection { applied, .. } => *applied,
            Self::Protocol(_) | Self::Timeout(_) => Applied::Unknown,
            Self::Usage(_) | Self::Closed => Applied::No,
        }
    }

    /// Is the same request worth another try after a pause? Look at [`Error::applied`] before repeating what is not
    /// protected by a producer, a key or a condition (P-17).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server { error, .. } => matches!(error.retry, Retry::Same | Retry::Backoff | Retry::Reopen | Retry::Resume | Retry::Resend),
            Self::Connection { .. } | Self::Timeout(_) => true,
            Self::Protocol(_) | Self::Usage(_) | Self::Closed => false,
        }
    }

    /// How long the broker asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.server()?.details.get("retry_after_s")?.as_f64()?;
        // A hint is a hint: a broken clock must not put a client to sleep for a year.
        (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(300.0)))
    }

    /// The same error for a request that had been sent before without a definite answer: a later refusal does not
    /// settle the earlier attempt (`exactly-once.md` section 1, "applied").
    pub(crate) fn unsettled(mut self) -> Self {
        match &mut self {
            Self::Server { error, .. } => error.applied = Applied::Unknown,
            Self::Connection { applied, .. } => *applied = Applied::Unknown,
            _ => {}
        }
        self
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        Self::Server { error, request_id: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_final_and_an_overload_is_not() {
        let of = |code| Error::from(types::Error::new(code, "…"));
        assert!(!of(Code::SessionFenced).is_retryable());
        assert!(!of(Code::ProducerFenced).is_retryable());
        assert!(of(Code::Overloaded).is_retryable());
        assert!(of(Code::OutcomeUnknown).is_retryable());
        assert!(Error::unreachable("…").is_retryable());
        assert!(!Error::Closed.is_retryable());
    }

    #[test]
    fn a_later_refusal_does_not_settle_an_earlier_attempt() {
        let error = Error::from(types::Error::new(Code::ProducerFenced, "…"));
        assert_eq!(error.applied(), Applied::No);
        assert_eq!(error.unsettled().applied(), Applied::Unknown);
    }

    #[test]
    fn hints_are_read_and_capped() {
        let hint = |v: f64| Error::from(types::Error::new(Code::Unavailable, "…").detail("retry_after_s", v)).retry_after();
        assert_eq!(hint(1.5), Some(Duration::from_millis(1500)));
        assert_eq!(hint(1e9), Some(Duration::from_secs(300)));
        assert_eq!(hint(-1.0), None);
        assert_eq!(Error::Closed.retry_after(), None);
    }
}
