//! `/User`: what everybody may know of a user, and what its own key shows.

use serde::Serialize;

use super::super::arguments::Argument;
use super::super::fault::Fault;
use super::Room;
use super::sources::Id;
use crate::broker::{ListQuery, Principal, PrincipalRef};
use crate::types::Error;

/// `{"User":{…}}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown<U> {
    user: U,
}

/// Everybody's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Public {
    id: u64,
    name: String,
}

/// Its own.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Own {
    id: u64,
    name: String,
    sources: Vec<Id>,
    streams: Vec<Id>,
}

/// The user of the key.
pub async fn this(room: &Room<'_>, who: &Principal) -> Result<Shown<Own>, Fault> {
    let own = own(room, who).await.map_err(|error| Room::unless_key_went(Argument::UserKey, error))?;
    own.map(|user| Shown { user }).ok_or_else(|| Fault::bad_one(Argument::UserKey, "UserKey is not known any more."))
}

async fn own(room: &Room<'_>, who: &Principal) -> Result<Option<Own>, Error> {
    let broker = room.face.broker();
    let Some(user) = broker.user_by_id(who.user_id()).await? else { return Ok(None) };
    let sources = broker.sources(who, ListQuery::default()).await?.items.into_iter().map(|source| Id { id: source.id }).collect();
    let rights = broker.stream_rights(who, PrincipalRef::User(user.name.clone())).await?;
    let streams = rights.into_iter().map(|(stream, _)| Id { id: stream.0 }).collect();
    Ok(Some(Own { id: user.id, name: user.name.to_string(), sources, streams }))
}

/// Anybody.
pub async fn of(room: &Room<'_>, id: u64) -> Result<Shown<Public>, Fault> {
    let found = room.face.broker().user_by_id(id).await.map_err(Fault::other)?;
    let user = found.ok_or_else(|| Fault::bad_one(Argument::UserId, "UserId must be the id of a user; nobody has this one."))?;
    Ok(Shown { user: Public { id: user.id, name: user.name.to_string() } })
}
