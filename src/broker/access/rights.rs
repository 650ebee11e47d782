//! Rights: who may do what on which stream.

use std::fmt;

use super::sources::source_not_found;
use super::users::user_not_found;
use super::{AccessChange, Kind, Principal, denied};
use crate::broker::Broker;
use crate::broker::audit::By;
use crate::broker::info::{ListQuery, Page};
use crate::broker::operation::Note;
use crate::log::Key;
use crate::log::rows::{self, value};
use crate::types::id::OPERATOR_USER;
use crate::types::{Action, Code, Error, OperationId, PrincipalId, Result, Right, StreamId, StreamName, UserName};

/// A principal as people name it: `user:alice`, `source:42`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalRef {
    /// By name.
    User(UserName),
    /// By id.
    Source(u64),
}

impl PrincipalRef {
    /// Reads `user:NAME` or `source:ID`.
    ///
    /// # Errors
    /// `bad_parameter`, saying what a principal looks like.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::bad("principal", format!("{} names nobody; write user:NAME or source:ID.", crate::types::name::quote(text)));
        match text.split_once(':') {
            Some(("user", name)) => UserName::parse(name).map(Self::User),
            Some(("source", id)) if !id.starts_with('+') => id.parse().map(Self::Source).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for PrincipalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Source(id) => write!(f, "source:{id}"),
        }
    }
}

/// A right on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightInfo {
    /// Whose.
    pub principal: PrincipalRef,
    /// As it was set.
    pub right: Right,
    /// What it comes to: with the owner's, for a source; `Root` for a root user.
    pub effective: Right,
}

impl Broker {
    async fn principal_id(&self, principal: &PrincipalRef) -> Result<PrincipalId> {
        match principal {
            PrincipalRef::User(name) => self.user_id(name).await?.map(PrincipalId::User).ok_or_else(|| user_not_found(name.as_str())),
            PrincipalRef::Source(id) => self.source_by_id(*id).await?.map(|source| PrincipalId::Source(source.id)).ok_or_else(|| source_not_found(*id)),
        }
    }

    /// May the caller speak of this principal's right on the stream? Whoever administers the stream; who sees it of their own sources; and
    /// of themselves, to look.
    async fn check_about(&self, who: &Principal, stream: &StreamName, principal: PrincipalId, look: bool) -> Result<()> {
        let admin = self.may(who, stream, Action::Admin).await;
        let Err(refused) = admin else { return Ok(()) };
        let own_source = match principal {
            PrincipalId::Source(id) => self.source_by_id(id).await?.is_some_and(|source| source.owner == who.user_id()) && who.source_id() == 0,
            PrincipalId::User(_) => false,
        };
        let about_me = look && principal == who.id();
        // A source gets no more than its owner has, whatever is set. To whom the stream is hidden it stays so.
        if (own_source || about_me) && refused.code == Code::AccessDenied { Ok(()) } else { Err(refused) }
    }

    /// Sets a right; `None` removes it. Users give their sources what they like: it counts only as far as their own goes.
    ///
    /// # Errors
    /// `not_found`, `access_denied`, `in_use` for the last Admin, `bad_parameter`.
    pub async fn set_right(&self, who: &Principal, stream: &StreamName, principal: &PrincipalRef, right: Right) -> Result<RightInfo> {
        self.noted_right(who, stream, principal, right, None).await
    }

    /// The same as an operation that can be looked up afterwards.
    ///
    /// # Errors
    /// `not_found`, `access_denied`, `in_use` for the last Admin, `bad_parameter`.
    pub async fn set_right_as(&self, who: &Principal, stream: &StreamName, principal: &PrincipalRef, right: Right, id: OperationId) -> Result<RightInfo> {
        let note = Note { id, description: "Setting right", command: "right.Set", stream: stream.to_string() };
        self.noted_right(who, stream, principal, right, Some(note)).await
    }

    async fn noted_right(&self, who: &Principal, stream: &StreamName, principal: &PrincipalRef, right: Right, note: Option<Note>) -> Result<RightInfo> {
        who.known()?;
        if matches!(who.kind(), Kind::SourceKey | Kind::Node) {
            // They never administer, so this says what they lack.
            self.may(who, stream, Action::Admin).await?;
            return Err(denied("A source key may not give rights; that is its user's to do.".into()));
        }
        let id = match self.principal_id(principal).await {
            Ok(id) => id,
            // Who may not see the stream learns nothing about users either.
            Err(missing) => return Err(self.may(who, stream, Action::Admin).await.err().unwrap_or(missing)),
        };
        self.check_about(who, stream, id, false).await?;
        if stream.is_system() {
            return Err(denied(format!("Stream {stream} is the broker's own: root reads it, and no right on it can be given to others.")));
        }
        if right == Right::Root {
            return Err(Error::bad("right", "Root is no right on one stream; make the user root (`tidelog user set NAME --root true`)."));
        }
        if id == PrincipalId::User(OPERATOR_USER) {
            return Err(Error::bad("principal", "The operator may do everything; no right can be given to it or taken from it."));
        }
        let found = self.find_stream(stream).await?;
        let now = self.set_on(found.id, id).await?;
        let mut others = None;
        if matches!(id, PrincipalId::User(_)) && now == Right::Admin && right != Right::Admin {
            if !self.is_operator(who).await? && id != who.id() {
                let why = format!("{principal} is an Admin of stream {stream}; only root or that user can lower that.");
                return Err(denied(why).detail("required", Right::Root.as_str()).detail("effective", Right::Admin.as_str()));
            }
            others = Some(self.admins(found.id).await?.into_iter().filter(|other| *other != id).collect());
        }
        let owner = match id {
            PrincipalId::User(user) => user,
            PrincipalId::Source(source) => self.source_by_id(source).await?.map_or(0, |source| source.owner),
        };
        let change = AccessChange::SetRight { stream: stream.clone(), principal: id, owner, right, others };
        self.noted_change(self.by(who).await, change, note).await?;
        self.describe_right(found.id, principal.clone(), id).await
    }

    /// Users that administer a stream, by rights set on it.
    async fn admins(&self, stream: StreamId) -> Result<Vec<PrincipalId>> {
        let mut admins = Vec::new();
        for (key, bytes) in self.all_rows(rows::prefix::rights(stream)).await? {
            let row: value::Right = rows::decode(&bytes).map_err(Error::internal)?;
            if let Some((user @ PrincipalId::User(_), _)) = key.get(9..).and_then(rows::split_principal)
                && Right::from_stored(row.actions) == Right::Admin
            {
                admins.push(user);
            }
        }
        Ok(admins)
    }

    async fn describe_right(&self, stream: StreamId, principal: PrincipalRef, id: PrincipalId) -> Result<RightInfo> {
        let right = self.set_on(stream, id).await?;
        let owner_right = async |user: u64| -> Result<Right> {
            match self.user_by_id(user).await? {
                Some(user) if user.root => Ok(Right::Root),
                Some(_) => self.set_on(stream, PrincipalId::User(user)).await,
                None => Ok(Right::None),
            }
        };
        let effective = match id {
            PrincipalId::User(user) => owner_right(user).await?,
            PrincipalId::Source(source) => match self.source_by_id(source).await? {
                Some(source) => right.and(owner_right(source.owner).await?),
                None => Right::None,
            },
        };
        Ok(RightInfo { principal, right, effective })
    }

    /// The right of one principal on a stream.
    ///
    /// # Errors
    /// `not_found`, `access_denied`.
    pub async fn right(&self, who: &Principal, stream: &StreamName, principal: &PrincipalRef) -> Result<RightInfo> {
        who.known()?;
        let id = match self.principal_id(principal).await {
            Ok(id) => id,
            Err(missing) => return Err(self.may(who, stream, Action::Admin).await.err().unwrap_or(missing)),
        };
        self.check_about(who, stream, id, true).await?;
        let found = self.find_stream(stream).await?;
        self.describe_right(found.id, principal.clone(), id).await
    }

    /// All rights on a stream, for those who administer it: users by name, then sources by id.
    ///
    /// # Errors
    /// `not_found`, `access_denied`.
    pub async fn rights(&self, who: &Principal, stream: &StreamName, query: ListQuery) -> Result<Page<RightInfo>> {
        self.may(who, stream, Action::Admin).await?;
        let found = self.find_stream(stream).await?;
        let limit = query.limit.unwrap_or(usize::MAX);
        let after = query.after.as_deref().map(PrincipalRef::parse).transpose()?;
        let mut principals = Vec::new();
        for (key, _) in self.all_rows(rows::prefix::rights(found.id)).await? {
            let Some((id, _)) = key.get(9..).and_then(rows::split_principal) else { continue };
            let principal = match id {
                PrincipalId::User(user) => self.user_by_id(user).await?.map(|user| PrincipalRef::User(user.name)),
                PrincipalId::Source(source) => Some(PrincipalRef::Source(source)),
            };
            principals.extend(principal.filter(|p| after.as_ref().is_none_or(|after| p > after)).map(|principal| (principal, id)));
        }
        principals.sort_unstable();
        let more = principals.len() > limit;
        principals.truncate(limit);
        let mut items = Vec::new();
        for (principal, id) in principals {
            items.push(self.describe_right(found.id, principal, id).await?);
        }
        Ok(Page { items, more })
    }

    /// Streams on which a right is set for a principal, ascending by id. For the principal itself, its owner, and the operator.
    ///
    /// # Errors
    /// `not_found`, `unauthenticated`.
    pub async fn stream_rights(&self, who: &Principal, principal: PrincipalRef) -> Result<Vec<(StreamId, Right)>> {
        who.known()?;
        self.still_good(who).await?;
        let missing = || match &principal {
            PrincipalRef::User(name) => user_not_found(name.as_str()),
            PrincipalRef::Source(id) => source_not_found(*id),
        };
        let id = self.principal_id(&principal).await?;
        let own = match id {
            PrincipalId::User(user) => user == who.user_id() && who.source_id() == 0,
            PrincipalId::Source(source) if who.source_id() != 0 => source == who.source_id(),
            PrincipalId::Source(source) => self.source_by_id(source).await?.is_some_and(|source| source.owner == who.user_id()),
        };
        if !own && !self.is_operator(who).await? {
            return Err(missing());
        }
        self.rights_of(id).await
    }

    pub(in crate::broker) async fn rights_of(&self, principal: PrincipalId) -> Result<Vec<(StreamId, Right)>> {
        let mut found = Vec::new();
        for (key, bytes) in self.all_rows(rows::prefix::rights_of(principal)).await? {
            let row: value::Right = rows::decode(&bytes).map_err(Error::internal)?;
            let stream = key.get(10..).and_then(|id| rows::decode_id(id).ok()).ok_or_else(|| Error::internal("the key of a right has no stream"))?;
            // One whose stream is gone leads nowhere.
            if self.stream_name(StreamId(stream)).await?.is_some() {
                found.push((StreamId(stream), Right::from_stored(row.actions)));
            }
        }
        Ok(found)
    }

    /// The name of a stream that is there. The broker's own are found by their names only.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn stream_name(&self, id: StreamId) -> Result<Option<StreamName>> {
        let row = self.access_row::<value::Stream>(Key::Stream(id)).await?;
        Ok(row.filter(|row| !row.deleting && !id.is_system()).map(|row| StreamName::stored(&row.name)))
    }

    /// Removes the rows of a principal that is gone.
    pub(super) async fn forget_rights_of(&self, principal: PrincipalId) -> Result<()> {
        let rows = self.all_rows(rows::prefix::rights_of(principal)).await?;
        let pairs = rows.iter().filter_map(|(key, _)| rows::decode_id(key.get(10..)?).ok().map(|stream| (principal, StreamId(stream)))).collect();
        self.forget_rights(pairs).await
    }

    /// Removes the rights on a stream that is going.
    pub(in crate::broker) async fn forget_rights_on(&self, stream: StreamId) -> Result<()> {
        let rows = self.all_rows(rows::prefix::rights(stream)).await?;
        let pairs = rows.iter().filter_map(|(key, _)| key.get(9..).and_then(rows::split_principal).map(|(principal, _)| (principal, stream))).collect();
        self.forget_rights(pairs).await
    }

    async fn forget_rights(&self, pairs: Vec<(PrincipalId, StreamId)>) -> Result<()> {
        for pairs in pairs.chunks(FORGET_AT_ONCE).map(<[_]>::to_vec) {
            self.change(By::broker(), AccessChange::ForgetRights { pairs }).await?;
        }
        Ok(())
    }
}

/// Rights dropped by one intent: each is two rows of a group.
const FORGET_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_written_as_they_are_read() {
        for text in ["user:alice", "user:Bob.1", "source:42", "source:0"] {
            assert_eq!(PrincipalRef::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "alice",
            "user:",
            "user:$x",
            "source:",
            "source:-1",
            "source:+1",
            "source:1 ",
            "User:alice",
            "node:1",
            "user:аlice",
            "source:99999999999999999999",
        ] {
            assert_eq!(PrincipalRef::parse(bad).unwrap_err().code, Code::BadParameter, "{bad}");
        }
    }
}
