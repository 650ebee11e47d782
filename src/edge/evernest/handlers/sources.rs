//! `/Source`: programs with a key of their own.

use serde::Serialize;

use super::super::arguments::Argument;
use super::super::fault::Fault;
use super::rights::word;
use super::{Room, unknown_source};
use crate::broker::{NewSource, Principal, PrincipalRef};
use crate::types::{Code, Error};

/// `{"Source":{…}}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    source: Source,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Source {
    key: String,
    name: String,
    id: u64,
    user: Id,
    streams: Vec<OnStream>,
}

/// `{"Id":7}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Id {
    /// The number.
    pub id: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct OnStream {
    id: u64,
    right: &'static str,
}

/// `{"Guid":"…","Source":{…}}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Made {
    guid: String,
    source: New,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct New {
    key: String,
    name: String,
    id: u64,
}

/// The calling source.
pub async fn this(room: &Room<'_>, who: &Principal) -> Result<Shown, Fault> {
    shown(room, who, who.source_id()).await.map_err(|error| match error.code {
        Code::NotFound => Fault::bad_one(Argument::Key, "Key is not known any more."),
        _ => Room::unless_key_went(Argument::Key, error),
    })
}

/// One of the user's.
pub async fn of(room: &Room<'_>, who: &Principal, source: u64) -> Result<Shown, Fault> {
    shown(room, who, source).await.map_err(|error| match error.code {
        Code::NotFound => Fault::bad(vec![unknown_source()]),
        _ => Room::unless_key_went(Argument::UserKey, error),
    })
}

async fn shown(room: &Room<'_>, who: &Principal, id: u64) -> Result<Shown, Error> {
    let broker = room.face.broker();
    let info = broker.source(who, id).await?;
    let key = broker.source_key(who, id).await?;
    let rights = broker.stream_rights(who, PrincipalRef::Source(id)).await?;
    let streams = rights.into_iter().map(|(stream, right)| OnStream { id: stream.0, right: word(right) }).collect();
    Ok(Shown { source: Source { key, name: info.name, id, user: Id { id: info.owner }, streams } })
}

/// A new one.
pub async fn new(room: &Room<'_>, who: &Principal, name: String) -> Result<Made, Fault> {
    let guid = room.face.broker().operation_id();
    match room.face.broker().create_source_as(who, NewSource { name, description: String::new(), owner: None }, guid).await {
        Ok((info, key)) => Ok(Made { guid: guid.to_string(), source: New { key, name: info.name, id: info.id } }),
        Err(error) if error.code == Code::NameTaken => {
            Err(Fault::bad_one(Argument::SourceName, "SourceName must be new among your sources; one has this name already."))
        }
        Err(error) if error.code == Code::BadParameter => Err(Fault::bad_one(Argument::SourceName, format!("SourceName: {}", error.into_body().message))),
        Err(error) => Err(Room::unless_key_went(Argument::UserKey, error)),
    }
}
