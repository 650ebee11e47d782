//! The two questions of every call: is this credential good, and may its owner do this to that stream?

use std::sync::Arc;

use super::identity::Standing;
use super::{AccessChange, Family, Identity, Kind, Principal, Token, Watch, denied, public_key, unknown_credential};
use crate::broker::audit::By;
use crate::broker::commit::engine_failure;
use crate::broker::state::{OPERATOR_NAME, operator_row, stream_not_found};
use crate::broker::{Broker, loader};
use crate::log::rows::{self, ApiKeyId, value};
use crate::log::{Key, RowKey};
use crate::types::id::OPERATOR_USER;
use crate::types::{Action, Code, Error, PrincipalId, Result, Right, StreamId, StreamName, TimeUs, UserName};

impl Broker {
    /// Who shows this key, session token or ticket. A ticket is used up by it.
    ///
    /// # Errors
    /// `unauthenticated`, the same for everything that is not known; `session_expired`.
    pub async fn authenticate(&self, text: &str) -> Result<Principal> {
        let token = Token::parse(text);
        let found = match &token {
            Ok(token) => self.known_credential(token).await,
            Err(error) => Err(error.clone()),
        };
        if found.as_ref().is_err_and(|error| error.code == Code::Unauthenticated) {
            // What is no token is not told of: it may be anything, a password too.
            self.credential_refused("credential", token.ok().map(|token| public_key(token.family(), token.id())));
        }
        found
    }

    async fn known_credential(&self, token: &Token) -> Result<Principal> {
        let access = &self.inner.access;
        if let Some((hash, identity)) = access.find(token.id()) {
            if !access.vault.is(token, Some(&hash)) {
                return Err(unknown_credential());
            }
            self.standing(&identity).await?;
            return Ok(Principal::Known(identity));
        }
        let row = self.access_row::<value::ApiKey>(Key::ApiKey(token.id())).await?;
        if !access.vault.is(token, row.as_ref().map(|row| row.hash.as_slice())) {
            return Err(unknown_credential());
        }
        let row = row.ok_or_else(unknown_credential)?;
        if token.family() == Family::Ticket {
            return self.redeem(token.id(), &row).await;
        }
        let identity = self.identity_of(token.id(), &row).ok_or_else(unknown_credential)?;
        // Known to those who tell of changes first, looked at then: no change is missed.
        let identity = access.remember(*token.id(), row.hash, identity);
        self.standing(&identity).await?;
        Ok(Principal::Known(identity))
    }

    /// The user a client certificate names, as a console credential (`surfaces.md` F2).
    ///
    /// # Errors
    /// `unauthenticated` when there is no such user, or it is disabled.
    pub async fn certificate(&self, user: &str) -> Result<Principal> {
        self.certificate_until(user, None).await
    }

    /// The same, until the certificate `expires`.
    ///
    /// # Errors
    /// As above; `session_expired`.
    pub async fn certificate_until(&self, user: &str, expires: Option<TimeUs>) -> Result<Principal> {
        let found = self.known_certificate(user, expires).await;
        if found.as_ref().is_err_and(|error| error.code == Code::Unauthenticated) {
            self.credential_refused("certificate", None);
        }
        found
    }

    async fn known_certificate(&self, user: &str, expires: Option<TimeUs>) -> Result<Principal> {
        let name = UserName::parse(user).map_err(|_| unknown_credential())?;
        let id = self.user_id(&name).await?.ok_or_else(unknown_credential)?;
        let identity = Identity::new(Kind::Console, self.inner.access.users.of(id), 0, None, expires);
        self.inner.access.note(&identity);
        self.standing(&identity).await?;
        Ok(Principal::Known(identity))
    }

    /// A node of the cluster, by its certificate. It may do nothing but what nodes do.
    pub fn node(&self) -> Principal {
        Principal::Known(Identity::new(Kind::Node, self.inner.access.users.of(0), 0, None, None))
    }

    async fn redeem(&self, id: &ApiKeyId, row: &value::ApiKey) -> Result<Principal> {
        if row.expires_us <= self.inner.world.now().0 {
            return Err(unknown_credential());
        }
        // Whoever removes it has it: one of all that show it.
        self.change(By::broker(), AccessChange::TakeTicket { id: *id }).await.map_err(|_| unknown_credential())?;
        let parent: Option<ApiKeyId> = row.parent.as_slice().try_into().ok();
        match parent {
            None if row.user == OPERATOR_USER => Ok(Principal::Operator),
            None => {
                let expires = Some(TimeUs(row.holder_expires_us)).filter(|at| at.0 != 0);
                let identity = Identity::new(Kind::Console, self.inner.access.users.of(row.user), 0, None, expires);
                self.inner.access.note(&identity);
                self.standing(&identity).await?;
                Ok(Principal::Known(identity))
            }
            Some(parent) => {
                let row = self.access_row::<value::ApiKey>(Key::ApiKey(&parent)).await?.ok_or_else(unknown_credential)?;
                let identity = self.identity_of(&parent, &row).ok_or_else(unknown_credential)?;
                let identity = self.inner.access.remember(parent, row.hash, identity);
                self.standing(&identity).await?;
                Ok(Principal::Known(identity))
            }
        }
    }

    /// Something to wait on: it rings when the credential, or a right of its user, may have changed, and when the credential ends. Take it
    /// before the check it stands for.
    pub(in crate::broker) fn watch(&self, who: &Principal) -> Option<Box<Watch>> {
        match who {
            Principal::Known(identity) => Some(Box::new(Watch::new(identity, self.inner.world.now()))),
            Principal::Operator | Principal::Anonymous => None,
        }
    }

    fn identity_of(&self, id: &ApiKeyId, row: &value::ApiKey) -> Option<Arc<Identity>> {
        let kind = match row.kind() {
            value::api_key::Kind::UserKey => Kind::UserKey,
            value::api_key::Kind::SourceKey => Kind::SourceKey,
            value::api_key::Kind::Session => Kind::Console,
            value::api_key::Kind::Ticket | value::api_key::Kind::Unspecified => return None,
        };
        let expires = (row.expires_us != 0).then_some(TimeUs(row.expires_us));
        Some(Identity::new(kind, self.inner.access.users.of(row.user), row.source, Some(*id), expires))
    }

    /// Is it the credential of a user or a source, and still good?
    ///
    /// # Errors
    /// `unauthenticated`, `session_expired`; `access_denied` for a node, which has no account.
    pub async fn still_good(&self, who: &Principal) -> Result<()> {
        match who {
            Principal::Known(identity) if identity.kind() == Kind::Node => {
                Err(denied("A node may call what nodes do among themselves, and nothing else.".into()))
            }
            Principal::Known(identity) => self.standing(identity).await.map(drop),
            Principal::Operator | Principal::Anonymous => who.known(),
        }
    }

    async fn standing(&self, identity: &Identity) -> Result<Standing> {
        if identity.expires().is_some_and(|at| at <= self.inner.world.now()) {
            let what = if identity.key().is_some() { "This session has ended; log in again." } else { "This certificate has expired; connect with a new one." };
            return Err(Error::new(Code::SessionExpired, what));
        }
        if let Some(known) = identity.standing() {
            return known;
        }
        let generation = identity.generation();
        let found = self.look_up(identity).await?;
        if found.is_err()
            && let Some(key) = identity.key()
        {
            self.inner.access.forget(key);
        }
        identity.stands(generation, found.clone());
        found
    }

    /// The outer error is the store's, the inner one the credential's.
    async fn look_up(&self, identity: &Identity) -> Result<Result<Standing>> {
        if identity.kind() == Kind::Node {
            return Ok(Ok(Standing { root: false }));
        }
        self.check_serving()?;
        let mut keys = vec![Key::User(identity.user()).encode()];
        keys.extend(identity.key().map(|id| Key::ApiKey(id).encode()));
        if identity.source() != 0 {
            keys.push(Key::Source(identity.source()).encode());
        }
        let mut found = self.inner.engine.get(keys).await.map_err(|e| engine_failure(&e))?.into_iter();
        let mut next = || found.next().flatten();
        let user: Option<value::User> = next().map(|bytes| rows::decode(&bytes)).transpose().map_err(Error::internal)?;
        let user = user.or_else(|| (identity.user() == OPERATOR_USER).then(operator_row));
        let Some(user) = user.filter(|user| !user.disabled && !user.deleting) else { return Ok(Err(unknown_credential())) };
        if identity.key().is_some() {
            let key: Option<value::ApiKey> = next().map(|bytes| rows::decode(&bytes)).transpose().map_err(Error::internal)?;
            let Some(key) = key else { return Ok(Err(unknown_credential())) };
            if key.kind() == value::api_key::Kind::Session && key.logins != user.logins {
                return Ok(Err(Error::new(Code::SessionExpired, "This session has ended, since the password was changed; log in again.")));
            }
        }
        if identity.source() != 0 {
            let source: Option<value::Source> = next().map(|bytes| rows::decode(&bytes)).transpose().map_err(Error::internal)?;
            if source.is_none_or(|source| source.disabled || source.owner != identity.user()) {
                return Ok(Err(unknown_credential()));
            }
        }
        Ok(Ok(Standing { root: user.root }))
    }

    /// May `who` do this to the stream? Comes before any look at the stream, so that a caller without a right learns nothing (P-11).
    ///
    /// # Errors
    /// `unauthenticated`, `session_expired`; `not_found` without any right, `access_denied` with too little.
    pub async fn may(&self, who: &Principal, stream: &StreamName, action: Action) -> Result<()> {
        self.allowed(who, stream, action).await.map(drop)
    }

    /// The same, with the stream that was meant; `None` for those who may do everything, and have not been looked up.
    pub(in crate::broker) async fn allowed(&self, who: &Principal, stream: &StreamName, action: Action) -> Result<Option<StreamId>> {
        match (self.allowed_at_once(who, stream, action), who) {
            (Some(allowed), _) => allowed,
            (None, Principal::Known(identity)) => judged(self.found_right(identity, stream).await?, stream, action),
            (None, Principal::Operator | Principal::Anonymous) => who.known().map(|()| None),
        }
    }

    /// The same, where all that it rests on is known already.
    pub(in crate::broker) fn allowed_at_once(&self, who: &Principal, stream: &StreamName, action: Action) -> Option<Result<Option<StreamId>>> {
        match who {
            Principal::Operator => Some(judged((None, Right::Root), stream, action)),
            Principal::Anonymous => Some(who.known().map(|()| None)),
            Principal::Known(identity) => {
                let found = identity.quick(stream, self.inner.access.names(), || self.inner.world.now())?;
                Some(judged(found, stream, action))
            }
        }
    }

    /// The effective right on a stream, and which stream that is. Root is not looked up: it is the same on all.
    async fn found_right(&self, identity: &Arc<Identity>, stream: &StreamName) -> Result<(Option<StreamId>, Right)> {
        // Both numbers are read before all looks, that at the user too: what is found is forgotten when one of them has grown meanwhile.
        let under = (identity.generation(), self.inner.access.names());
        let standing = self.standing(identity).await?;
        match identity.kind() {
            Kind::Node => return Ok((None, Right::None)),
            _ if standing.root && identity.source() == 0 => return Ok((None, Right::Root)),
            _ => {}
        }
        let folded = stream.folded();
        if let Some((id, right)) = identity.right(&folded, under.1) {
            return Ok((Some(id), right));
        }
        self.check_serving()?;
        let Some(id) = loader::stream_id(&*self.inner.engine, &folded).await.map_err(|e| engine_failure(&e))? else { return Ok((None, Right::None)) };
        let right = self.effective(identity.user(), identity.source(), standing.root, id).await?;
        identity.has(&folded, under, id, right);
        Ok((Some(id), right))
    }

    /// What is set, intersected with what the owner has; a source key never administers (`surfaces.md` 5.2).
    async fn effective(&self, user: u64, source: u64, root: bool, stream: StreamId) -> Result<Right> {
        let owner = if root { Right::Root } else { self.set_on(stream, PrincipalId::User(user)).await? };
        if source == 0 {
            return Ok(owner);
        }
        Ok(self.set_on(stream, PrincipalId::Source(source)).await?.and(owner).and(Right::ReadWrite))
    }

    /// The right that was set, `None` where none was.
    pub(in crate::broker) async fn set_on(&self, stream: StreamId, principal: PrincipalId) -> Result<Right> {
        if principal == PrincipalId::User(OPERATOR_USER) {
            return Ok(Right::Root);
        }
        let row = self.access_row::<value::Right>(Key::Right(stream, principal)).await?;
        Ok(row.map_or(Right::None, |row| Right::from_stored(row.actions)))
    }

    /// Is this caller as good as the operator? (`surfaces.md` 5.2: the socket, or the console credential of a root user.)
    ///
    /// # Errors
    /// `unauthenticated`, `access_denied`, naming what it was for.
    pub(in crate::broker) async fn is_operator(&self, who: &Principal) -> Result<bool> {
        match who {
            Principal::Operator => Ok(true),
            Principal::Anonymous => who.known().map(|()| false),
            Principal::Known(identity) => Ok(self.standing(identity).await?.root && identity.kind() == Kind::Console),
        }
    }

    /// # Errors
    /// `access_denied`, `unauthenticated`.
    pub async fn must_be_operator(&self, who: &Principal, what: &str) -> Result<()> {
        if self.is_operator(who).await? {
            return Ok(());
        }
        Err(denied(format!("Only the operator may {what}: a caller on the Unix socket, or a root user with a session or certificate.")))
    }

    /// One row, decoded.
    pub(in crate::broker) async fn access_row<M: prost::Message + Default>(&self, key: Key<'_>) -> Result<Option<M>> {
        self.check_serving()?;
        let found = self.inner.engine.get(vec![key.encode()]).await.map_err(|e| engine_failure(&e))?;
        found.into_iter().next().flatten().map(|bytes| rows::decode(&bytes).map_err(Error::internal)).transpose()
    }

    /// The row of a user. The operator has one before anything of it was stored.
    pub(super) async fn user_row(&self, id: u64) -> Result<Option<value::User>> {
        let row = self.access_row(Key::User(id)).await?;
        Ok(row.or_else(|| (id == OPERATOR_USER).then(operator_row)))
    }

    /// The id in an index row.
    pub(in crate::broker) async fn access_id(&self, key: Key<'_>) -> Result<Option<u64>> {
        self.check_serving()?;
        let found = self.inner.engine.get(vec![key.encode()]).await.map_err(|e| engine_failure(&e))?;
        found.into_iter().next().flatten().map(|bytes| rows::decode_id(&bytes).map_err(Error::internal)).transpose()
    }

    /// All rows below a prefix, page by page.
    pub(in crate::broker) async fn all_rows(&self, prefix: RowKey) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>> {
        self.check_serving()?;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.inner.engine.scan(prefix.clone(), after, 1024).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = Some(last.to_vec());
            found.extend(page);
        }
    }

    /// The folded name of a user, looked up.
    pub(in crate::broker) async fn user_id(&self, name: &UserName) -> Result<Option<u64>> {
        if name.folded() == OPERATOR_NAME {
            return Ok(Some(OPERATOR_USER));
        }
        self.access_id(Key::UserName(&name.folded())).await
    }
}

/// Does the right that was found allow it?
fn judged((id, right): (Option<StreamId>, Right), stream: &StreamName, action: Action) -> Result<Option<StreamId>> {
    match right {
        right if right.allows(action) && action == Action::Write && stream.is_system() => Err(denied(format!(
            "Stream {stream} is the broker's own: it alone appends to it. Not even the operator can, so that what it says was done was done."
        ))
        .resource(format!("/v1/streams/{stream}"))),
        right if right.allows(action) => Ok(id),
        Right::None => Err(stream_not_found(stream)),
        right => Err(too_little(stream, action, right)),
    }
}

/// Some right, but not this one.
fn too_little(stream: &StreamName, action: Action, right: Right) -> Error {
    denied(format!("This needs the right {} on stream {stream}; yours is {right}.", action.right()))
        .detail("required", action.right().as_str())
        .detail("effective", right.as_str())
        .resource(format!("/v1/streams/{stream}"))
}
