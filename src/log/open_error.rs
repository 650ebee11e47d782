//! Why a data directory was not opened, and with which code the process ends (`decisions.md` section 5).

/// A data directory that this process must not serve. The text tells the operator what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The engine or the file system failed. Nothing is said about the data.
    #[error("{0}")]
    Failed(String),
    /// The data contradicts itself: damaged bytes (S-6) or less than was known durable (S-7). Serving it would drop acknowledged events.
    #[error("{0}")]
    Refused(String),
    /// Another process has it.
    #[error("{0}")]
    Locked(String),
    /// A newer version of Tidelog wrote it.
    #[error("{0}")]
    Newer(String),
}

impl OpenError {
    /// Exit code of `serve`. Promised to service managers: 11 to 13 are not cured by a restart.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 10,
            Self::Refused(_) => 11,
            Self::Locked(_) => 12,
            Self::Newer(_) => 13,
        }
    }
}
