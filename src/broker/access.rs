//! Who calls, and what they may do.
//!
//! Until users arrive (the issue on rights) there is one principal, the operator; the checks already run through every call.

use crate::types::id::OPERATOR_USER;
use crate::types::{Code, Error};

/// Who a call is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The operator: a caller on the Unix socket, or on loopback where the start-up flags say so.
    Operator,
    /// Nobody yet: a connection that has not shown a credential.
    Anonymous,
}

/// What a call needs on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Read events, use subscriptions.
    Read,
    /// Append events.
    Write,
    /// Configure, trim, close, seek, delete.
    Admin,
}

impl Principal {
    /// User id for `author` and `owner`.
    pub fn user_id(&self) -> u64 {
        match self {
            Self::Operator => OPERATOR_USER,
            Self::Anonymous => 0,
        }
    }

    /// Source id for `author`, 0 = none.
    pub fn source_id(&self) -> u64 {
        0
    }

    /// Is this caller exempt from counts and rates? (`decisions.md` section 5)
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator)
    }

    /// Any credential at all.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn known(&self) -> Result<(), Error> {
        match self {
            Self::Operator => Ok(()),
            Self::Anonymous => {
                Err(Error::new(Code::Unauthenticated, "This call needs a credential. Use the Unix socket, or start the broker with `tidelog dev`."))
            }
        }
    }

    /// The right on a stream. Comes before any look at the stream, so that a caller without it learns nothing (P-11).
    ///
    /// # Errors
    /// `unauthenticated`, later `access_denied` or `not_found`.
    pub fn may(&self, _right: Right) -> Result<(), Error> {
        self.known()
    }
}
