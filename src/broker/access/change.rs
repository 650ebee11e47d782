//! What is asked of the commit loop about users, sources, keys and rights.

use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::broker::audit::By;
use crate::broker::intent::Intent;
use crate::broker::operation::Note;
use crate::log::rows::ApiKeyId;
use crate::types::{KeyName, PrincipalId, Result, Right, StreamId, StreamName, TimeUs, UserName};

/// A key to be stored: its public part, and the hash of all of it.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Public part.
    pub id: ApiKeyId,
    /// See [`Vault::hash`](super::Vault::hash).
    pub hash: Vec<u8>,
}

/// A ticket to be stored.
#[derive(Clone, Debug)]
pub struct NewTicket {
    /// For whom.
    pub user: u64,
    /// As which source, 0 = none.
    pub source: u64,
    /// The key that asked for it; `None` = the operator, or a certificate.
    pub parent: Option<ApiKeyId>,
    /// When it ends.
    pub expires: TimeUs,
    /// When whoever shows it is nobody any more, where no key says so: the end of the certificate that asked for it.
    pub holder_expires: Option<TimeUs>,
}

/// The encrypted key of a source, for the id that the loop gives it.
pub type Seal = Box<dyn FnOnce(u64) -> Vec<u8> + Send>;

/// One change. Each is one commit.
pub enum AccessChange {
    /// Answer: its id.
    CreateUser {
        /// Free name.
        name: UserName,
        /// Hashed.
        password: Option<String>,
        /// Admin on every stream.
        root: bool,
    },
    /// `None` stays.
    ChangeUser {
        /// Which.
        user: u64,
        /// Hashed; ends its sessions.
        password: Option<String>,
        /// See [`UserInfo`](super::UserInfo).
        root: Option<bool>,
        /// See [`UserInfo`](super::UserInfo).
        disabled: Option<bool>,
    },
    /// None of its credentials is taken from now on, or they are again.
    SetDeleting {
        /// Which.
        user: u64,
        /// It is being deleted.
        deleting: bool,
    },
    /// Its row and name go.
    DeleteUser {
        /// Which.
        user: u64,
    },
    /// Answer: its id.
    CreateSource {
        /// User id.
        owner: u64,
        /// Free among the owner's.
        name: String,
        /// For people.
        description: String,
        /// Its key.
        key: NewKey,
        /// The key again, to be shown.
        sealed: Seal,
    },
    /// `None` stays.
    ChangeSource {
        /// Which.
        source: u64,
        /// See [`SourceInfo`](super::SourceInfo).
        name: Option<String>,
        /// See [`SourceInfo`](super::SourceInfo).
        description: Option<String>,
        /// See [`SourceInfo`](super::SourceInfo).
        disabled: Option<bool>,
    },
    /// The old key goes.
    RotateSource {
        /// Which.
        source: u64,
        /// Its new key.
        key: NewKey,
        /// The key again, to be shown.
        sealed: Vec<u8>,
    },
    /// With its key.
    DeleteSource {
        /// Which.
        source: u64,
    },
    /// A user key.
    CreateKey {
        /// Whose.
        user: u64,
        /// Free among the user's.
        name: KeyName,
        /// The key.
        key: NewKey,
    },
    /// A user key, or a session that ends.
    DeleteKey {
        /// Which.
        id: ApiKeyId,
    },
    /// A console session.
    OpenLogin {
        /// Whose.
        user: u64,
        /// The user's number when the password was looked at.
        logins: u64,
        /// The token.
        key: NewKey,
        /// When it ends.
        expires: TimeUs,
    },
    /// A ticket.
    IssueTicket {
        /// The token.
        key: NewKey,
        /// The rest.
        ticket: NewTicket,
    },
    /// The ticket goes; `not_found` for all but the first.
    TakeTicket {
        /// Which.
        id: ApiKeyId,
    },
    /// A right, or none any more.
    SetRight {
        /// On which stream.
        stream: StreamName,
        /// Whose.
        principal: PrincipalId,
        /// The user whose credentials it concerns.
        owner: u64,
        /// What.
        right: Right,
        /// The caller may take Admin from a user; one of these must be left.
        others: Option<Vec<PrincipalId>>,
    },
    /// What users have on a stream that is going is counted no more.
    ForgetUsage {
        /// Which.
        stream: StreamId,
        /// Whose.
        users: Vec<u64>,
    },
    /// Rights of principals or streams that are gone.
    ForgetRights {
        /// Whose, on which.
        pairs: Vec<(PrincipalId, StreamId)>,
    },
}

impl Broker {
    /// Puts one change in the commit order, with who makes it.
    pub(in crate::broker) async fn change(&self, by: Box<By>, change: AccessChange) -> Result<u64> {
        self.noted_change(by, change, None).await
    }

    /// The same, leaving an operation.
    pub(in crate::broker) async fn noted_change(&self, by: Box<By>, change: AccessChange, note: Option<Note>) -> Result<u64> {
        self.ask(0, |reply: oneshot::Sender<Result<u64>>| Intent::Access { by, change: Box::new(change), note, reply }).await
    }
}
