//! Sources: programs that belong to a user and have a key of their own, for some streams with some right.

use super::users::user_not_found;
use super::{AccessChange, Family, NewKey, Principal, Token, denied};
use crate::broker::Broker;
use crate::broker::admin::shown;
use crate::broker::audit::By;
use crate::broker::fields::OwnedSource;
use crate::broker::info::{ListQuery, Page};
use crate::broker::operation::Note;
use crate::log::Key;
use crate::log::rows::{self, value};
use crate::types::{Code, Error, OperationId, PrincipalId, Result, TimeUs, UserName, limits};

/// A source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Never reused, unique over the broker.
    pub id: u64,
    /// Display text, unique among its owner's.
    pub name: String,
    /// For people.
    pub description: String,
    /// User id.
    pub owner: u64,
    /// Its key is not taken.
    pub disabled: bool,
    /// When.
    pub created: TimeUs,
}

/// What a new source is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSource {
    /// Free among the owner's.
    pub name: String,
    /// For people.
    pub description: String,
    /// For whom, if not the caller; only the operator may say.
    pub owner: Option<UserName>,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceChange {
    /// See [`SourceInfo`].
    pub name: Option<String>,
    /// See [`SourceInfo`].
    pub description: Option<String>,
    /// See [`SourceInfo`].
    pub disabled: Option<bool>,
}

/// There is no such source.
pub fn source_not_found(id: u64) -> Error {
    Error::new(Code::NotFound, format!("Source {id} was not found.")).resource(format!("/v1/sources/{id}"))
}

fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > limits::SOURCE_NAME_CHARACTERS {
        let most = limits::SOURCE_NAME_CHARACTERS;
        return Err(Error::bad("name", format!("The name of the source has {length} characters; give it 1 to {most}.")));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::bad("name", "The name of the source has a control character; leave those out."));
    }
    Ok(())
}

fn check_description(text: &str) -> Result<()> {
    if text.len() > limits::DESCRIPTION_BYTES {
        return Err(Error::bad("description", format!("description is {} bytes; the limit is {}.", text.len(), limits::DESCRIPTION_BYTES)));
    }
    Ok(())
}

impl Broker {
    /// A new source, and its key.
    ///
    /// # Errors
    /// `name_taken`, `access_denied`, `bad_parameter`.
    pub async fn create_source(&self, who: &Principal, new: NewSource) -> Result<(SourceInfo, String)> {
        self.noted_source(who, new, None).await
    }

    /// The same as an operation that can be looked up afterwards.
    ///
    /// # Errors
    /// `name_taken`, `access_denied`, `bad_parameter`.
    pub async fn create_source_as(&self, who: &Principal, new: NewSource, id: OperationId) -> Result<(SourceInfo, String)> {
        let note = Note { id, description: "Creating source", command: "source.Create", stream: String::new() };
        self.noted_source(who, new, Some(note)).await
    }

    async fn noted_source(&self, who: &Principal, new: NewSource, note: Option<Note>) -> Result<(SourceInfo, String)> {
        who.is_user("create sources")?;
        self.still_good(who).await?;
        check_name(&new.name)?;
        check_description(&new.description)?;
        let owner = match &new.owner {
            None => who.user_id(),
            Some(name) => {
                let id = self.user_id(name).await?;
                if self.is_operator(who).await? {
                    id.ok_or_else(|| user_not_found(name.as_str()))?
                } else {
                    id.filter(|id| *id == who.user_id()).ok_or_else(|| denied("Only the operator may create sources for others.".into()))?
                }
            }
        };
        let token = Token::new(Family::SourceKey);
        // The id is not known before the commit, and the seal is bound to it: the loop is told what to write for whichever id it gives.
        let vault = self.inner.access.clone();
        let key = NewKey { id: *token.id(), hash: vault.vault.hash(&token) };
        let sealed = {
            let token = token.clone();
            Box::new(move |source| vault.vault.seal(source, &token))
        };
        let change = AccessChange::CreateSource { owner, name: new.name, description: new.description, key, sealed };
        let id = self.noted_change(self.by(who).await, change, note).await?;
        let info = shown(self.source_by_id(id).await.and_then(|found| found.ok_or_else(|| source_not_found(id))))?;
        Ok((info, token.reveal().to_owned()))
    }

    /// The owner's id of a source that the caller may see.
    async fn visible_source(&self, who: &Principal, id: u64) -> Result<SourceInfo> {
        who.known()?;
        self.still_good(who).await?;
        let found = self.source_by_id(id).await?.ok_or_else(|| source_not_found(id))?;
        let own = if who.source_id() == 0 { found.owner == who.user_id() } else { who.source_id() == id };
        if own || self.is_operator(who).await? { Ok(found) } else { Err(source_not_found(id)) }
    }

    /// Changes a source.
    ///
    /// # Errors
    /// `not_found`, `name_taken`, `access_denied`, `bad_parameter`.
    pub async fn change_source(&self, who: &Principal, id: u64, change: SourceChange) -> Result<SourceInfo> {
        self.visible_source(who, id).await?;
        who.is_user("change sources")?;
        change.name.as_deref().map_or(Ok(()), check_name)?;
        change.description.as_deref().map_or(Ok(()), check_description)?;
        let SourceChange { name, description, disabled } = change;
        self.change(self.by(who).await, AccessChange::ChangeSource { source: id, name, description, disabled }).await?;
        shown(self.source_by_id(id).await.and_then(|found| found.ok_or_else(|| source_not_found(id))))
    }

    /// A new key for a source; the old one is over when this is answered.
    ///
    /// # Errors
    /// `not_found`, `access_denied`.
    pub async fn rotate_source(&self, who: &Principal, id: u64) -> Result<(SourceInfo, String)> {
        let info = self.visible_source(who, id).await?;
        who.is_user("rotate the key of a source")?;
        let token = Token::new(Family::SourceKey);
        let vault = &self.inner.access.vault;
        let key = NewKey { id: *token.id(), hash: vault.hash(&token) };
        let sealed = vault.seal(id, &token);
        self.change(self.by(who).await, AccessChange::RotateSource { source: id, key, sealed }).await?;
        Ok((info, token.reveal().to_owned()))
    }

    /// Removes a source with its key and rights. What it wrote keeps its author's number.
    ///
    /// # Errors
    /// `not_found`, `user_key_forbidden`, `access_denied`.
    pub async fn delete_source(&self, who: &Principal, id: u64) -> Result<()> {
        self.visible_source(who, id).await?;
        who.may_destroy("delete a source")?;
        self.remove_source(self.by(who).await, id).await
    }

    pub(super) async fn remove_source(&self, by: Box<By>, id: u64) -> Result<()> {
        // The rights first: when this is interrupted, what is left is a source without any, and nothing that belongs to nobody.
        self.forget_rights_of(PrincipalId::Source(id)).await?;
        self.change(by, AccessChange::DeleteSource { source: id }).await.map(drop)
    }

    /// One source: the caller itself, one of the caller's, or any for the operator.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn source(&self, who: &Principal, id: u64) -> Result<SourceInfo> {
        self.visible_source(who, id).await
    }

    /// The key of a source, for Evernest, which shows it (E22, E23).
    ///
    /// # Errors
    /// `not_found`.
    pub async fn source_key(&self, who: &Principal, id: u64) -> Result<String> {
        self.visible_source(who, id).await?;
        let row = self.access_row::<value::Source>(Key::Source(id)).await?.ok_or_else(|| source_not_found(id))?;
        let key = row.key_id.as_slice().try_into().map_err(|_| Error::internal("a source has no key"))?;
        let key = self.access_row::<value::ApiKey>(Key::ApiKey(&key)).await?.ok_or_else(|| source_not_found(id))?;
        self.inner.access.vault.unseal(id, &key.sealed)
    }

    pub(super) async fn source_by_id(&self, id: u64) -> Result<Option<SourceInfo>> {
        Ok(self.access_row::<value::Source>(Key::Source(id)).await?.map(|row| describe(id, row)))
    }

    /// The caller's sources, all for the operator; ascending by id. `query.after` is an id.
    ///
    /// # Errors
    /// `unauthenticated`, `bad_parameter`.
    pub async fn sources(&self, who: &Principal, query: ListQuery) -> Result<Page<SourceInfo>> {
        who.known()?;
        self.still_good(who).await?;
        let after = query.after.as_deref().map(str::parse::<u64>).transpose().map_err(|_| Error::bad("after", "after is the id of a source: a number."))?;
        if who.source_id() != 0 {
            let own = Some(who.source_id()).filter(|own| after.is_none_or(|after| *own > after));
            return self.page_of_sources(own.into_iter(), &query).await;
        }
        let (prefix, at) = if self.is_operator(who).await? { (rows::prefix::sources(), 1) } else { (rows::prefix::sources_of(who.user_id()), 9) };
        let ids = self.all_rows(prefix).await?.into_iter().filter_map(|(key, _)| rows::decode_id(key.get(at..)?).ok());
        self.page_of_sources(ids.filter(|id| after.is_none_or(|after| *id > after)), &query).await
    }

    async fn page_of_sources(&self, ids: impl Iterator<Item = u64> + Send, query: &ListQuery) -> Result<Page<SourceInfo>> {
        let mut page = Page { items: Vec::new(), more: false };
        for id in ids {
            let Some(info) = self.source_by_id(id).await? else { continue };
            // Whose it is by name matters to a filter only.
            if query.filter.is_some() && !query.holds(&OwnedSource { owner: &self.name_of_user(info.owner).await?, info: &info }) {
                continue;
            }
            if query.put(&mut page, info).is_break() {
                break;
            }
        }
        Ok(page)
    }
}

fn describe(id: u64, row: value::Source) -> SourceInfo {
    SourceInfo { id, name: row.name, description: row.description, owner: row.owner, disabled: row.disabled, created: TimeUs(row.created_us) }
}
