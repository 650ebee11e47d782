//! Users: who owns streams, sources and keys.

use super::{AccessChange, Principal, denied};
use crate::broker::Broker;
use crate::broker::admin::shown;
use crate::broker::audit::By;
use crate::broker::commit::engine_failure;
use crate::broker::info::{ListQuery, Page};
use crate::log::Key;
use crate::log::rows::{self, value};
use crate::types::id::OPERATOR_USER;
use crate::types::{Code, Error, PrincipalId, Result, TimeUs, UserName};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    /// Never reused.
    pub id: u64,
    /// As it was created.
    pub name: UserName,
    /// Admin on every stream; over the console, everything.
    pub root: bool,
    /// None of its credentials is taken.
    pub disabled: bool,
    /// It can log in.
    pub has_password: bool,
    /// When.
    pub created: TimeUs,
}

/// What a new user is asked to be.
#[derive(Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Free name.
    pub name: UserName,
    /// Without one it cannot log in, but have keys and certificates.
    pub password: Option<String>,
    /// See [`UserInfo`].
    pub root: bool,
}

/// What is to change; `None` stays.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserChange {
    /// A new one ends all sessions.
    pub password: Option<String>,
    /// See [`UserInfo`].
    pub root: Option<bool>,
    /// See [`UserInfo`].
    pub disabled: Option<bool>,
}

/// There is no such user.
pub fn user_not_found(name: &str) -> Error {
    let name = crate::types::name::short(name);
    Error::new(Code::NotFound, format!("User {name} was not found.")).resource(format!("/v1/users/{name}"))
}

impl Broker {
    /// A new user; the operator's to make.
    ///
    /// # Errors
    /// `access_denied`, `name_taken`, `bad_parameter`.
    pub async fn create_user(&self, who: &Principal, new: NewUser) -> Result<UserInfo> {
        self.must_be_operator(who, "create users").await?;
        let password = match new.password {
            Some(password) => Some(self.inner.access.vault.hash_password(password).await?),
            None => None,
        };
        let change = AccessChange::CreateUser { name: new.name, password, root: new.root };
        let id = self.change(self.by(who).await, change).await?;
        shown(self.user_by_id(id).await.and_then(|found| found.ok_or_else(|| user_not_found(&id.to_string()))))
    }

    /// Changes a user. Users change their own password, over the console; the rest is the operator's.
    ///
    /// # Errors
    /// `not_found`, `access_denied`, `user_key_forbidden`, `bad_parameter`.
    pub async fn change_user(&self, who: &Principal, name: &UserName, change: UserChange) -> Result<UserInfo> {
        let operator = self.is_operator(who).await?;
        let id = self.visible_user(who, name).await?;
        if !operator {
            who.may_destroy("change a user")?;
            if change.root.is_some() || change.disabled.is_some() {
                return Err(denied("Only the operator may change root and disabled.".into()));
            }
        }
        if id == OPERATOR_USER && (change.root == Some(false) || change.disabled == Some(true)) {
            return Err(Error::new(Code::InUse, "The operator stays root and enabled; give it no password if it shall not log in."));
        }
        let password = match change.password {
            Some(password) => Some(self.inner.access.vault.hash_password(password).await?),
            None => None,
        };
        let UserChange { root, disabled, .. } = change;
        self.change(self.by(who).await, AccessChange::ChangeUser { user: id, password, root, disabled }).await?;
        shown(self.user_by_id(id).await.and_then(|found| found.ok_or_else(|| user_not_found(name.as_str()))))
    }

    /// Removes a user with its sources, keys and rights. One that owns streams stays: their events would belong to nobody.
    ///
    /// # Errors
    /// `not_found`, `access_denied`, `in_use`.
    pub async fn delete_user(&self, who: &Principal, name: &UserName) -> Result<()> {
        self.must_be_operator(who, "delete users").await?;
        let id = self.user_id(name).await?.ok_or_else(|| user_not_found(name.as_str()))?;
        if id == OPERATOR_USER {
            return Err(Error::new(Code::InUse, "The operator cannot be deleted."));
        }
        self.owns_nothing(id, name).await?;
        let by = self.by(who).await;
        // From here on none of its credentials is taken, and it makes no stream; the rest is sweeping, which goes on after a crash.
        self.change(by.clone(), AccessChange::SetDeleting { user: id, deleting: true }).await?;
        self.finish_delete_user(&by, id, name).await
    }

    async fn owns_nothing(&self, id: u64, name: &UserName) -> Result<()> {
        match self.all_rows(rows::prefix::streams_of(id)).await?.len() {
            0 => Ok(()),
            owned => {
                let why = format!("User {name} owns {owned} streams. Delete them first, or disable the user instead.");
                Err(Error::new(Code::InUse, why).resource(format!("/v1/users/{name}")).detail("streams", owned as u64))
            }
        }
    }

    async fn finish_delete_user(&self, by: &By, id: u64, name: &UserName) -> Result<()> {
        if let Err(owner) = self.owns_nothing(id, name).await {
            // It made one in the moment before it was marked.
            self.change(Box::new(by.clone()), AccessChange::SetDeleting { user: id, deleting: false }).await?;
            return Err(owner);
        }
        for (key, _) in self.all_rows(rows::prefix::sources_of(id)).await? {
            let source = key.get(9..).and_then(|id| rows::decode_id(id).ok()).ok_or_else(|| Error::internal("a source's index row has no id"))?;
            unless_gone(self.remove_source(Box::new(by.clone()), source).await)?;
        }
        for (_, value) in self.all_rows(rows::prefix::key_names(id)).await? {
            let key = value.as_ref().try_into().map_err(|_| Error::internal("a key's index row has no key"))?;
            unless_gone(self.change(Box::new(by.clone()), AccessChange::DeleteKey { id: key }).await.map(drop))?;
        }
        self.forget_rights_of(PrincipalId::User(id)).await?;
        unless_gone(self.change(Box::new(by.clone()), AccessChange::DeleteUser { user: id }).await.map(drop))
    }

    /// Goes on with deletions of users that a crash interrupted. The server calls it at its start and now and then.
    ///
    /// # Errors
    /// When the engine cannot be read or written.
    pub async fn finish_deletions_of_users(&self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.inner.engine.scan(rows::prefix::users(), after, 1024).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.to_vec());
            for (key, bytes) in page {
                let row: value::User = rows::decode(&bytes).map_err(Error::internal)?;
                let id = key.get(1..).and_then(|id| rows::decode_id(id).ok()).filter(|_| row.deleting);
                if let Some(id) = id
                    && let Err(error) = self.finish_delete_user(&By::broker(), id, &UserName::stored(&row.name)).await
                    && error.code != Code::InUse
                {
                    return Err(error);
                }
            }
        }
    }

    /// One user: the caller, or any for the operator.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user(&self, who: &Principal, name: &UserName) -> Result<UserInfo> {
        let id = self.visible_user(who, name).await?;
        self.user_by_id(id).await?.ok_or_else(|| user_not_found(name.as_str()))
    }

    async fn visible_user(&self, who: &Principal, name: &UserName) -> Result<u64> {
        who.is_user("see users")?;
        let operator = self.is_operator(who).await?;
        let id = self.user_id(name).await?;
        id.filter(|id| operator || *id == who.user_id()).ok_or_else(|| user_not_found(name.as_str()))
    }

    /// A user by id. Name and id are public (E10); the rest is for who may see it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn user_by_id(&self, id: u64) -> Result<Option<UserInfo>> {
        let row = self.user_row(id).await?;
        Ok(row.filter(|row| !row.deleting).map(|row| describe(id, &row)))
    }

    /// All users for the operator, the caller itself for others; sorted by name.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn users(&self, who: &Principal, query: ListQuery) -> Result<Page<UserInfo>> {
        who.is_user("list users")?;
        if !self.is_operator(who).await? {
            let own = self.user_by_id(who.user_id()).await?;
            let behind = |user: &UserInfo| query.after.as_deref().is_none_or(|after| *user.name.folded() > *after.to_ascii_lowercase());
            let mut page = Page { items: Vec::new(), more: false };
            let _only_one = query.take(&mut page, own.filter(behind));
            return Ok(page);
        }
        let ids = self.index(rows::prefix::user_names(), |folded| Key::UserName(folded).encode(), &query).await?;
        let mut page = Page { items: Vec::new(), more: false };
        for id in ids {
            if query.take(&mut page, self.user_by_id(id).await?).is_break() {
                break;
            }
        }
        Ok(page)
    }
}

fn describe(id: u64, row: &value::User) -> UserInfo {
    UserInfo {
        id,
        name: UserName::stored(&row.name),
        root: row.root,
        disabled: row.disabled,
        has_password: !row.password.is_empty(),
        created: TimeUs(row.created_us),
    }
}

/// Somebody else removed it meanwhile.
fn unless_gone(done: Result<()>) -> Result<()> {
    done.or_else(|error| if error.code == Code::NotFound { Ok(()) } else { Err(error) })
}
