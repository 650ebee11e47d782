//! User keys: what a user's programs act with. Made and removed over the console only (E4).

use super::{AccessChange, Family, Kind, NewKey, Principal, Token, denied};
use crate::broker::Broker;
use crate::broker::info::{ListQuery, Page};
use crate::log::Key;
use crate::log::rows::{self, ApiKeyId, value};
use crate::types::{Code, Error, KeyName, Result, TimeUs};

/// A user key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its public part, as it stands at the front of the key.
    pub id: String,
    /// Unique among its user's.
    pub name: KeyName,
    /// User id.
    pub user: u64,
    /// When.
    pub created: TimeUs,
    /// When it ends by itself.
    pub expires: Option<TimeUs>,
}

fn key_not_found(name: &KeyName) -> Error {
    Error::new(Code::NotFound, format!("Key {name} was not found.")).resource(format!("/v1/keys/{name}"))
}

impl Broker {
    async fn at_the_console(&self, who: &Principal, what: &str) -> Result<()> {
        self.still_good(who).await?;
        match who.kind() {
            Kind::Operator | Kind::Console => Ok(()),
            Kind::UserKey => {
                Err(Error::new(Code::UserKeyForbidden, format!("A user key may not {what}; log in (`tidelog login`), or use a client certificate.")))
            }
            Kind::SourceKey | Kind::Node | Kind::Anonymous => Err(denied(format!("Only users may {what}."))),
        }
    }

    /// A new user key of the caller's, and its secret.
    ///
    /// # Errors
    /// `name_taken`, `user_key_forbidden`, `bad_parameter`.
    pub async fn create_key(&self, who: &Principal, name: &str) -> Result<(KeyInfo, String)> {
        self.at_the_console(who, "create user keys").await?;
        let name = KeyName::parse(name)?;
        let token = Token::new(Family::UserKey);
        let key = NewKey { id: *token.id(), hash: self.inner.access.vault.hash(&token) };
        self.change(self.by(who).await, AccessChange::CreateKey { user: who.user_id(), name: name.clone(), key }).await?;
        let created = self.inner.world.now();
        let info = match self.access_row::<value::ApiKey>(Key::ApiKey(token.id())).await {
            Ok(Some(row)) => describe(token.id(), &row),
            _ => KeyInfo { id: super::token::public(Family::UserKey, token.id()), name, user: who.user_id(), created, expires: None },
        };
        Ok((info, token.reveal().to_owned()))
    }

    /// Removes a user key of the caller's. Whoever uses it is cut off within a second.
    ///
    /// # Errors
    /// `not_found`, `user_key_forbidden`.
    pub async fn delete_key(&self, who: &Principal, name: &str) -> Result<()> {
        self.at_the_console(who, "delete user keys").await?;
        let name = KeyName::parse(name)?;
        let id = self.key_id(who.user_id(), &name).await?.ok_or_else(|| key_not_found(&name))?;
        self.change(self.by(who).await, AccessChange::DeleteKey { id }).await.map(drop)
    }

    async fn key_id(&self, user: u64, name: &KeyName) -> Result<Option<ApiKeyId>> {
        self.check_serving()?;
        let found = self.inner.engine.get(vec![Key::KeyName(user, &name.folded()).encode()]).await.map_err(|e| crate::broker::commit::engine_failure(&e))?;
        found.into_iter().next().flatten().map(|bytes| bytes.as_ref().try_into().map_err(|_| Error::internal("a key's index row has no key"))).transpose()
    }

    /// The caller's user keys, sorted by name.
    ///
    /// # Errors
    /// `user_key_forbidden`.
    pub async fn keys(&self, who: &Principal, query: ListQuery) -> Result<Page<KeyInfo>> {
        self.at_the_console(who, "list user keys").await?;
        let limit = query.limit.unwrap_or(usize::MAX);
        let after = query.after.as_deref().map(str::to_ascii_lowercase);
        let mut items = Vec::new();
        for (_, id) in self.all_rows(rows::prefix::key_names(who.user_id())).await? {
            let id: ApiKeyId = id.as_ref().try_into().map_err(|_| Error::internal("a key's index row has no key"))?;
            let row = self.access_row::<value::ApiKey>(Key::ApiKey(&id)).await?;
            items.extend(row.map(|row| describe(&id, &row)).filter(|key| after.as_deref().is_none_or(|after| *key.name.folded() > *after)));
        }
        items.sort_unstable_by(|a, b| a.name.folded().cmp(&b.name.folded()));
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { items, more })
    }
}

fn describe(id: &ApiKeyId, row: &value::ApiKey) -> KeyInfo {
    KeyInfo {
        id: super::token::public(Family::UserKey, id),
        name: KeyName::stored(&row.name),
        user: row.user,
        created: TimeUs(row.created_us),
        expires: (row.expires_us != 0).then_some(TimeUs(row.expires_us)),
    }
}
