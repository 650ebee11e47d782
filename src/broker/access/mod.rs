//! Who calls, and what they may do.
//!
//! A [`Principal`] is what a credential turned out to be. Every call asks [`Broker::may`](super::Broker) before it looks at the stream, so
//! that a caller without a right learns nothing (P-11). What was found in the store is remembered beside the credential ([`Identity`]) until
//! the commit loop says that something about its user has changed; those who wait meanwhile are woken ([`Watch`]).

mod bucket;
mod change;
mod check;
mod identity;
mod logins;
mod quota;
mod rights;
mod sources;
mod table;
mod token;
mod usage;
mod user_keys;
mod users;
mod vault;

use std::fmt;
use std::sync::Arc;

pub use bucket::Rate;
pub use change::{AccessChange, NewKey, NewTicket};
pub use identity::{Identity, Watch, rung};
pub use logins::{Login, WhoInfo};
pub use quota::{Bound, Plane, Quotas, Refusals, Seat, Usage};
pub use rights::{PrincipalRef, RightInfo};
pub use sources::{NewSource, SourceChange, SourceInfo, source_not_found};
pub use table::{Access, Changed};
pub use token::{Family, Token, credential_id, public as public_key};
pub use usage::UsageInfo;
pub use user_keys::KeyInfo;
pub use users::{NewUser, UserChange, UserInfo};
pub use vault::Vault;

use crate::types::id::OPERATOR_USER;
use crate::types::{Code, Error, PrincipalId, Result};

/// Who a call is made for.
#[derive(Clone, Debug)]
pub enum Principal {
    /// The operator: a caller on the Unix socket, or on loopback where the start-up flags say so.
    Operator,
    /// Nobody yet: a connection that has not shown a credential.
    Anonymous,
    /// Somebody with a credential of their own.
    Known(Arc<Identity>),
}

/// What kind of credential it was (`surfaces.md` 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The Unix socket, or trusted loopback.
    Operator,
    /// A client certificate, or a session opened with a password.
    Console,
    /// A user key.
    UserKey,
    /// A source key.
    SourceKey,
    /// A node of the cluster.
    Node,
    /// None.
    Anonymous,
}

impl Kind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Console => "console",
            Self::UserKey => "user_key",
            Self::SourceKey => "source_key",
            Self::Node => "node",
            Self::Anonymous => "anonymous",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to every credential that is not known, whatever is wrong with it.
pub fn unknown_credential() -> Error {
    Error::new(Code::Unauthenticated, "This credential is not known here. It may have been removed, or its user or source disabled.")
}

impl Principal {
    /// What kind of credential it showed.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Operator => Kind::Operator,
            Self::Anonymous => Kind::Anonymous,
            Self::Known(identity) => identity.kind(),
        }
    }

    /// User id for `author` and `owner`.
    pub fn user_id(&self) -> u64 {
        match self {
            Self::Operator => OPERATOR_USER,
            Self::Anonymous => 0,
            Self::Known(identity) => identity.user(),
        }
    }

    /// Source id for `author`, 0 = none.
    pub fn source_id(&self) -> u64 {
        match self {
            Self::Known(identity) => identity.source(),
            Self::Operator | Self::Anonymous => 0,
        }
    }

    /// As whom it has rights.
    pub fn id(&self) -> PrincipalId {
        match self.source_id() {
            0 => PrincipalId::User(self.user_id()),
            source => PrincipalId::Source(source),
        }
    }

    /// Is this caller exempt from counts and rates? (`decisions.md` section 5)
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator)
    }

    /// Has it shown no credential?
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }

    /// Any credential at all.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn known(&self) -> Result<()> {
        match self {
            Self::Operator | Self::Known(_) => Ok(()),
            Self::Anonymous => Err(Error::new(
                Code::Unauthenticated,
                "This call needs a credential: send `Authorization: Bearer` with a key, use the Unix socket, or start the broker with `tidelog dev`.",
            )),
        }
    }

    /// Who may call what destroys something: not those whose credential lies in programs (`surfaces.md` 5.2, the commands with a dagger).
    ///
    /// # Errors
    /// `user_key_forbidden`, `access_denied`.
    pub fn may_destroy(&self, what: &str) -> Result<()> {
        match self.kind() {
            Kind::Operator | Kind::Console => Ok(()),
            Kind::Anonymous => self.known(),
            Kind::UserKey => Err(Error::new(
                Code::UserKeyForbidden,
                format!(
                    "A user key may not {what}: a key lies in programs, and this destroys something. Log in (`tidelog login`), or use a client certificate."
                ),
            )),
            Kind::SourceKey | Kind::Node => Err(denied(format!("A {} may not {what}.", self.noun()))),
        }
    }

    /// Who may administer what a user has: the user, over the console or with a user key.
    ///
    /// # Errors
    /// `unauthenticated`, `access_denied`.
    pub fn is_user(&self, what: &str) -> Result<()> {
        match self.kind() {
            Kind::Operator | Kind::Console | Kind::UserKey => Ok(()),
            Kind::Anonymous => self.known(),
            Kind::SourceKey | Kind::Node => Err(denied(format!("A {} may not {what}; that is its user's to do.", self.noun()))),
        }
    }

    fn noun(&self) -> &'static str {
        match self.kind() {
            Kind::Operator => "operator",
            Kind::Console => "console session",
            Kind::UserKey => "user key",
            Kind::SourceKey => "source key",
            Kind::Node => "node",
            Kind::Anonymous => "caller without a credential",
        }
    }

    /// What its user has and does, which is bounded; `None` for the operator, who is exempt, and for those who are nobody yet.
    pub fn usage(&self) -> Option<&Arc<Usage>> {
        match self {
            Self::Known(identity) => Some(identity.usage()),
            Self::Operator | Self::Anonymous => None,
        }
    }
}

/// Too little right.
pub fn denied(message: String) -> Error {
    Error::new(Code::AccessDenied, message)
}
