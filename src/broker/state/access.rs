//! Users, sources, keys and rights: rows that are rarely changed, so they are kept as they are stored.

use serde_json::{Value, json};

use super::{Effect, Need, State};
use crate::broker::access::{AccessChange, Changed, Family, NewKey, public_key, source_not_found, unknown_credential};
use crate::broker::audit::{Act, By};
use crate::log::rows::{self, ApiKeyId, name_hash, value};
use crate::log::{Key, RowKey};
use crate::types::id::OPERATOR_USER;
use crate::types::{Code, Error, PrincipalId, Result, Right, StreamId, StreamName};

/// The operator's name, which nobody else may have. It has a row only once something of it was changed.
pub const OPERATOR_NAME: &str = "operator";

/// The operator before anything was changed.
pub fn operator_row() -> value::User {
    value::User { name: OPERATOR_NAME.to_owned(), root: true, ..Default::default() }
}

/// Public part of a source's key.
fn key_of(source: &value::Source) -> Option<String> {
    ApiKeyId::try_from(source.key_id.as_slice()).ok().map(|id| public_key(Family::SourceKey, &id))
}

fn user_missing(user: u64) -> Error {
    Error::new(Code::NotFound, format!("User {user} was not found; it may have been deleted just now."))
}

impl State {
    /// The rows an access change lacks.
    pub(super) fn lacks_access(&mut self, change: &AccessChange, needs: &mut Vec<Need>) {
        use AccessChange as C;
        match change {
            C::CreateUser { name, .. } => self.lacks_access_row(Key::UserName(&name.folded()), needs),
            C::ChangeUser { user, .. } | C::SetDeleting { user, .. } | C::DeleteUser { user } | C::OpenLogin { user, .. } => {
                self.lacks_access_row(Key::User(*user), needs);
            }
            C::CreateSource { owner, name, .. } => {
                self.lacks_access_row(Key::User(*owner), needs);
                self.lacks_access_row(Key::SourceName(*owner, name_hash(name)), needs);
            }
            C::ChangeSource { source, name, .. } => {
                self.lacks_access_row(Key::Source(*source), needs);
                if let (Some(name), Some(Ok(Some(row)))) = (name, self.known::<value::Source>(Key::Source(*source))) {
                    self.lacks_access_row(Key::SourceName(row.owner, name_hash(name)), needs);
                }
            }
            C::RotateSource { source, .. } | C::DeleteSource { source } => self.lacks_access_row(Key::Source(*source), needs),
            C::CreateKey { user, name, .. } => {
                self.lacks_access_row(Key::User(*user), needs);
                self.lacks_access_row(Key::KeyName(*user, &name.folded()), needs);
            }
            C::DeleteKey { id } | C::TakeTicket { id } => self.lacks_access_row(Key::ApiKey(id), needs),
            C::IssueTicket { .. } | C::ForgetRights { .. } => {}
            C::ForgetUsage { stream, users } => users.iter().for_each(|user| self.lacks_usage(*user, Some(*stream), needs)),
            C::SetRight { stream, principal, others, .. } => {
                match principal {
                    PrincipalId::User(id) => self.lacks_access_row(Key::User(*id), needs),
                    PrincipalId::Source(id) => self.lacks_access_row(Key::Source(*id), needs),
                }
                if let Some(stream) = self.lacks_stream(stream, needs) {
                    self.lacks_access_row(Key::Right(stream, *principal), needs);
                    others.iter().flatten().for_each(|other| self.lacks_access_row(Key::Right(stream, *other), needs));
                }
            }
        }
    }

    pub(super) fn lacks_access_row(&mut self, key: Key<'_>, needs: &mut Vec<Need>) {
        let key = key.encode();
        if self.rows.get(&key).is_none() {
            needs.push(Need::Row(key));
        }
    }

    /// A row that may be in memory.
    fn known<M: prost::Message + Default>(&mut self, key: Key<'_>) -> Option<Result<Option<M>>> {
        let bytes = self.rows.get(&key.encode())?;
        Some(bytes.as_deref().map(|bytes| rows::decode(bytes).map_err(Error::internal)).transpose())
    }

    /// A row that [`State::lacks`] found in memory just before. One that could not be kept counts as missing.
    pub(super) fn row<M: prost::Message + Default>(&mut self, key: Key<'_>) -> Result<Option<M>> {
        self.known(key).unwrap_or(Ok(None))
    }

    /// Is there a row?
    fn has_row(&mut self, key: Key<'_>) -> bool {
        self.rows.get(&key.encode()).is_some_and(|row| row.is_some())
    }

    pub(super) fn put_row(&mut self, key: Key<'_>, row: &impl prost::Message) {
        self.put_bytes(key.encode(), rows::encode(row));
    }

    fn put_bytes(&mut self, key: RowKey, bytes: Vec<u8>) {
        self.rows.insert(key.clone(), Some(bytes.clone()));
        self.group.rows.insert(key, Some(bytes));
    }

    pub(super) fn delete_row(&mut self, key: Key<'_>) {
        let key = key.encode();
        self.rows.insert(key.clone(), None);
        self.group.rows.insert(key, None);
    }

    fn user(&mut self, id: u64) -> Result<value::User> {
        match self.row::<value::User>(Key::User(id))? {
            Some(row) => Ok(row),
            None if id == OPERATOR_USER => Ok(operator_row()),
            None => Err(user_missing(id)),
        }
    }

    fn user_changed(&mut self, user: u64) {
        self.group.effects.push(Effect::Access(Changed::User(user)));
    }

    fn audit_user(&mut self, by: &By, action: &'static str, name: &str, context: Value) {
        self.audit(by, Act::new(action, format!("/v1/users/{name}"), context));
    }

    fn audit_source(&mut self, by: &By, action: &'static str, source: u64, context: Value) {
        self.audit(by, Act::new(action, format!("/v1/sources/{source}"), context));
    }

    /// Does one change. The answer is the id of what was made, else 0.
    pub(super) fn change_access(&mut self, by: &By, change: AccessChange) -> Result<u64> {
        use AccessChange as C;
        match change {
            C::CreateUser { name, password, root } => {
                let folded = name.folded().into_owned();
                if folded == OPERATOR_NAME || self.has_row(Key::UserName(&folded)) {
                    let why = format!("A user named {name} exists. Names that differ only in case collide.");
                    return Err(Error::new(Code::NameTaken, why).resource(format!("/v1/users/{name}")));
                }
                let id = self.counters.next_user_id;
                self.counters.next_user_id += 1;
                self.group.counters = true;
                let with_password = password.is_some();
                let row =
                    value::User { name: name.to_string(), created_us: self.now.wall_us, password: password.unwrap_or_default(), root, ..Default::default() };
                self.put_row(Key::User(id), &row);
                self.put_bytes(Key::UserName(&folded).encode(), id.to_be_bytes().to_vec());
                self.audit_user(by, "user-created", name.as_str(), json!({ "user_id": id, "root": root, "password": with_password }));
                Ok(id)
            }
            C::ChangeUser { user, password, root, disabled } => {
                let mut row = self.user(user)?;
                let (with_password, old) = (password.is_some(), json!({ "root": row.root, "disabled": row.disabled }));
                if let Some(password) = password {
                    row.password = password;
                    row.logins += 1;
                }
                row.root = root.unwrap_or(row.root);
                row.disabled = disabled.unwrap_or(row.disabled);
                self.put_row(Key::User(user), &row);
                self.user_changed(user);
                let new = json!({ "root": row.root, "disabled": row.disabled });
                self.audit_user(by, "user-changed", &row.name, json!({ "user_id": user, "old": old, "new": new, "new_password": with_password }));
                Ok(0)
            }
            C::SetDeleting { user, deleting } => {
                let mut row = self.user(user)?;
                row.deleting = deleting;
                self.put_row(Key::User(user), &row);
                self.user_changed(user);
                let action = if deleting { "user-deleted" } else { "user-restored" };
                self.audit_user(by, action, &row.name, json!({ "user_id": user }));
                Ok(0)
            }
            C::DeleteUser { user } => {
                let row = self.user(user)?;
                self.delete_row(Key::User(user));
                self.delete_row(Key::UserName(&row.name.to_ascii_lowercase()));
                self.delete_row(Key::Usage(user));
                self.user_changed(user);
                Ok(0)
            }
            C::CreateSource { owner, name, description, key, sealed } => {
                self.check_owner(owner)?;
                self.check_source_name(owner, &name)?;
                let id = self.counters.next_source_id;
                self.counters.next_source_id += 1;
                self.group.counters = true;
                self.put_bytes(Key::SourceName(owner, name_hash(&name)).encode(), id.to_be_bytes().to_vec());
                self.put_bytes(Key::SourceOwner(owner, id).encode(), Vec::new());
                let context = json!({ "name": name, "owner_id": owner, "key": public_key(Family::SourceKey, &key.id) });
                self.audit_source(by, "source-created", id, context);
                let row = value::Source { name, owner, created_us: self.now.wall_us, description, disabled: false, key_id: key.id.to_vec() };
                self.put_row(Key::Source(id), &row);
                self.put_source_key(owner, id, key, sealed(id));
                Ok(id)
            }
            C::ChangeSource { source, name, description, disabled } => {
                let mut row = self.row::<value::Source>(Key::Source(source))?.ok_or_else(|| source_not_found(source))?;
                let old = json!({ "name": row.name, "disabled": row.disabled });
                if let Some(name) = name {
                    if name_hash(&name) != name_hash(&row.name) {
                        self.check_source_name(row.owner, &name)?;
                        self.delete_row(Key::SourceName(row.owner, name_hash(&row.name)));
                        self.put_bytes(Key::SourceName(row.owner, name_hash(&name)).encode(), source.to_be_bytes().to_vec());
                    }
                    row.name = name;
                }
                row.description = description.unwrap_or(row.description);
                row.disabled = disabled.unwrap_or(row.disabled);
                self.put_row(Key::Source(source), &row);
                self.user_changed(row.owner);
                let new = json!({ "name": row.name, "disabled": row.disabled });
                self.audit_source(by, "source-changed", source, json!({ "owner_id": row.owner, "old": old, "new": new }));
                Ok(0)
            }
            C::RotateSource { source, key, sealed } => {
                let mut row = self.row::<value::Source>(Key::Source(source))?.ok_or_else(|| source_not_found(source))?;
                self.delete_key_of(&row);
                let context = json!({ "owner_id": row.owner, "old": key_of(&row), "new": public_key(Family::SourceKey, &key.id) });
                row.key_id = key.id.to_vec();
                self.put_row(Key::Source(source), &row);
                self.put_source_key(row.owner, source, key, sealed);
                self.user_changed(row.owner);
                self.audit_source(by, "source-key-rotated", source, context);
                Ok(0)
            }
            C::DeleteSource { source } => {
                let row = self.row::<value::Source>(Key::Source(source))?.ok_or_else(|| source_not_found(source))?;
                self.delete_key_of(&row);
                self.delete_row(Key::Source(source));
                self.delete_row(Key::SourceOwner(row.owner, source));
                self.delete_row(Key::SourceName(row.owner, name_hash(&row.name)));
                self.user_changed(row.owner);
                self.audit_source(by, "source-deleted", source, json!({ "name": row.name, "owner_id": row.owner, "key": key_of(&row) }));
                Ok(0)
            }
            C::CreateKey { user, name, key } => {
                self.check_owner(user)?;
                let folded = name.folded().into_owned();
                if self.has_row(Key::KeyName(user, &folded)) {
                    return Err(Error::new(Code::NameTaken, format!("You have a key named {name}. Delete it first, or choose another name."))
                        .resource(format!("/v1/keys/{name}")));
                }
                self.put_bytes(Key::KeyName(user, &folded).encode(), key.id.to_vec());
                let row = value::ApiKey {
                    kind: value::api_key::Kind::UserKey as i32,
                    user,
                    hash: key.hash,
                    created_us: self.now.wall_us,
                    name: name.to_string(),
                    ..Default::default()
                };
                self.put_row(Key::ApiKey(&key.id), &row);
                let context = json!({ "user_id": user, "key": public_key(Family::UserKey, &key.id) });
                self.audit(by, Act::new("key-created", format!("/v1/keys/{name}"), context));
                Ok(0)
            }
            C::DeleteKey { id } => {
                let row = self.row::<value::ApiKey>(Key::ApiKey(&id))?.ok_or_else(|| Error::new(Code::NotFound, "The key was not found."))?;
                self.delete_row(Key::ApiKey(&id));
                match row.kind() {
                    value::api_key::Kind::UserKey => {
                        self.delete_row(Key::KeyName(row.user, &row.name.to_ascii_lowercase()));
                        let context = json!({ "user_id": row.user, "key": public_key(Family::UserKey, &id) });
                        self.audit(by, Act::new("key-deleted", format!("/v1/keys/{}", row.name), context));
                    }
                    // One that is over ended by itself; its row is swept away.
                    value::api_key::Kind::Session if row.expires_us > self.now.wall_us => {
                        let context = json!({ "user_id": row.user, "key": public_key(Family::Session, &id) });
                        self.audit(by, Act::new("session-closed", "/v1/sessions", context));
                    }
                    value::api_key::Kind::Session | value::api_key::Kind::SourceKey | value::api_key::Kind::Ticket | value::api_key::Kind::Unspecified => {}
                }
                self.user_changed(row.user);
                Ok(0)
            }
            C::OpenLogin { user, logins, key, expires } => {
                let row = self.user(user)?;
                // The password was changed, or the user stopped, while it was looked at.
                if row.logins != logins || row.disabled || row.deleting {
                    return Err(user_missing(user));
                }
                let row = value::ApiKey {
                    kind: value::api_key::Kind::Session as i32,
                    user,
                    hash: key.hash,
                    created_us: self.now.wall_us,
                    expires_us: expires.0,
                    logins,
                    ..Default::default()
                };
                self.put_row(Key::ApiKey(&key.id), &row);
                let context = json!({ "user_id": user, "key": public_key(Family::Session, &key.id), "expires_at": expires.to_string() });
                self.audit(by, Act::new("session-opened", "/v1/sessions", context));
                Ok(0)
            }
            C::IssueTicket { key, ticket } => {
                let row = value::ApiKey {
                    kind: value::api_key::Kind::Ticket as i32,
                    user: ticket.user,
                    source: ticket.source,
                    hash: key.hash,
                    created_us: self.now.wall_us,
                    expires_us: ticket.expires.0,
                    parent: ticket.parent.map(|id| id.to_vec()).unwrap_or_default(),
                    holder_expires_us: ticket.holder_expires.map_or(0, |at| at.0),
                    ..Default::default()
                };
                self.put_row(Key::ApiKey(&key.id), &row);
                Ok(0)
            }
            C::TakeTicket { id } => {
                if !self.has_row(Key::ApiKey(&id)) {
                    return Err(unknown_credential());
                }
                self.delete_row(Key::ApiKey(&id));
                Ok(0)
            }
            C::SetRight { stream, principal, owner, right, others } => self.set_right(by, &stream, principal, owner, right, others.as_deref()),
            C::ForgetUsage { stream, users } => self.forget_usage(stream, &users).map(|()| 0),
            C::ForgetRights { pairs } => {
                for (principal, stream) in pairs {
                    self.delete_row(Key::Right(stream, principal));
                    self.delete_row(Key::RightOf(principal, stream));
                }
                Ok(0)
            }
        }
    }

    /// The row by which a new stream's owner is judged; the operator is always there.
    pub(super) fn lacks_owner(&mut self, owner: u64, needs: &mut Vec<Need>) {
        if owner != OPERATOR_USER {
            self.lacks_access_row(Key::User(owner), needs);
        }
    }

    /// The same, without a look at the operator's row, which need not be there.
    pub(super) fn check_new_owner(&mut self, owner: u64) -> Result<()> {
        if owner == OPERATOR_USER { Ok(()) } else { self.check_owner(owner) }
    }

    /// Whoever is being deleted makes nothing more, or it would belong to nobody.
    pub(super) fn check_owner(&mut self, user: u64) -> Result<()> {
        let row = self.user(user)?;
        if row.deleting { Err(user_missing(user)) } else { Ok(()) }
    }

    fn check_source_name(&mut self, owner: u64, name: &str) -> Result<()> {
        if !self.has_row(Key::SourceName(owner, name_hash(name))) {
            return Ok(());
        }
        let why = format!("This user has a source named {}. Names that differ only in case collide.", crate::types::name::quote(name));
        Err(Error::new(Code::NameTaken, why).detail("field", "name"))
    }

    fn put_source_key(&mut self, owner: u64, source: u64, key: NewKey, sealed: Vec<u8>) {
        let row = value::ApiKey {
            kind: value::api_key::Kind::SourceKey as i32,
            user: owner,
            source,
            hash: key.hash,
            created_us: self.now.wall_us,
            sealed,
            ..Default::default()
        };
        self.put_row(Key::ApiKey(&key.id), &row);
    }

    fn delete_key_of(&mut self, source: &value::Source) {
        if let Ok(id) = ApiKeyId::try_from(source.key_id.as_slice()) {
            self.delete_row(Key::ApiKey(&id));
        }
    }

    fn set_right(&mut self, by: &By, name: &StreamName, principal: PrincipalId, owner: u64, right: Right, others: Option<&[PrincipalId]>) -> Result<u64> {
        let stream = self.data_stream(name, None)?;
        let there = match principal {
            PrincipalId::User(id) => self.user(id).is_ok_and(|user| !user.deleting),
            PrincipalId::Source(id) => self.has_row(Key::Source(id)),
        };
        if !there && right != Right::None {
            return Err(match principal {
                PrincipalId::User(id) => user_missing(id),
                PrincipalId::Source(id) => source_not_found(id),
            });
        }
        // Whoever took the last Admin away in the same moment was first.
        let old = self.right_on(stream, principal)?;
        let lowers = matches!(principal, PrincipalId::User(_)) && right != Right::Admin && old == Right::Admin;
        if lowers {
            // It was made Admin after the caller's right to lower it was looked at.
            let others =
                others.ok_or_else(|| Error::new(Code::Busy, format!("The right on stream {name} was changed in this moment; look at it, and try again.")))?;
            let mut left = false;
            for other in others {
                left |= self.right_on(stream, *other)? == Right::Admin;
            }
            if !left {
                let why = format!("This is the last Admin of stream {name}. Make somebody else Admin first.");
                return Err(Error::new(Code::InUse, why).resource(format!("/v1/streams/{name}")));
            }
        }
        match right {
            Right::None => {
                self.delete_row(Key::Right(stream, principal));
                self.delete_row(Key::RightOf(principal, stream));
            }
            right => self.grant(stream, principal, right),
        }
        self.user_changed(owner);
        let principal = match principal {
            PrincipalId::User(id) => format!("user:{}", self.user(id).map_or_else(|_| id.to_string(), |user| user.name)),
            PrincipalId::Source(id) => format!("source:{id}"),
        };
        let context = json!({ "stream_id": stream.0, "user_id": owner, "old": old.as_str(), "new": right.as_str() });
        self.audit(by, Act::new("right-set", format!("/v1/streams/{name}/rights/{principal}"), context));
        Ok(0)
    }

    /// Writes a right's two rows.
    pub(super) fn grant(&mut self, stream: StreamId, principal: PrincipalId, right: Right) {
        let row = value::Right { actions: right.stored() };
        self.put_row(Key::Right(stream, principal), &row);
        self.put_row(Key::RightOf(principal, stream), &row);
    }

    fn right_on(&mut self, stream: StreamId, principal: PrincipalId) -> Result<Right> {
        let row = self.row::<value::Right>(Key::Right(stream, principal))?;
        Ok(row.map_or(Right::None, |row| Right::from_stored(row.actions)))
    }

    /// A stream is gone: names are looked up again.
    pub(super) fn names_changed(&mut self) {
        self.group.effects.push(Effect::Access(Changed::Names));
    }
}
