//! `/Right`: who may do what.

use serde::Serialize;

use super::super::arguments::Argument;
use super::super::fault::Fault;
use super::{Room, unknown_source, unknown_stream};
use crate::broker::{Principal, PrincipalRef};
use crate::types::{Code, Right, StreamName};

/// `{"Right":"ReadOnly"}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    right: &'static str,
}

/// `{"Guid":"…"}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Set {
    guid: String,
}

/// Evernest's word for a right: the real one prints `NoRight` where others say `None`.
pub fn word(right: Right) -> &'static str {
    match right {
        Right::None => "NoRight",
        Right::ReadOnly | Right::WriteOnly | Right::ReadWrite | Right::Admin | Right::Root => right.as_str(),
    }
}

/// The calling source's own setting.
pub async fn own(room: &Room<'_>, who: &Principal, stream: u64) -> Result<Shown, Fault> {
    let name = room.stream(stream).await?;
    setting(room, who, Argument::Key, (stream, &name), who.source_id()).await
}

/// The setting of one of the user's sources.
pub async fn of(room: &Room<'_>, who: &Principal, source: u64, stream: u64) -> Result<Shown, Fault> {
    let name = both(room, who, source, stream).await?;
    setting(room, who, Argument::UserKey, (stream, &name), source).await
}

/// Changes that.
pub async fn set(room: &Room<'_>, who: &Principal, source: u64, stream: u64, right: Right) -> Result<Set, Fault> {
    let name = both(room, who, source, stream).await?;
    let (broker, principal) = (room.face.broker(), PrincipalRef::Source(source));
    let guid = broker.operation_id();
    match broker.set_right_as(who, &name, &principal, right, guid).await {
        Ok(_) => Ok(Set { guid: guid.to_string() }),
        Err(error) if error.code == Code::BadParameter => Err(Fault::bad_one(Argument::Right, error.into_body().message)),
        Err(error) if matches!(error.code, Code::NotFound | Code::Deleting) => Err(gone(room, who, source, stream).await),
        Err(error) => Err(Room::unless_key_went(Argument::UserKey, error)),
    }
}

async fn setting(room: &Room<'_>, who: &Principal, key: Argument, (id, stream): (u64, &StreamName), source: u64) -> Result<Shown, Fault> {
    let (broker, principal) = (room.face.broker(), PrincipalRef::Source(source));
    match broker.right(who, stream, &principal).await {
        Ok(info) => Ok(Shown { right: word(info.right) }),
        // Hidden from the caller, whatever is set: what that is stands among the source's own settings.
        Err(error) if error.code == Code::NotFound => {
            let settings = broker.stream_rights(who, principal).await.map_err(|error| Room::unless_key_went(key, error))?;
            let set = settings.into_iter().find(|(stream, _)| stream.0 == id).map_or(Right::None, |(_, right)| right);
            Ok(Shown { right: word(set) })
        }
        Err(error) => Err(Room::unless_key_went(key, error)),
    }
}

/// The source and the stream: what is unknown is named at once.
async fn both(room: &Room<'_>, who: &Principal, source: u64, stream: u64) -> Result<StreamName, Fault> {
    let known = match room.face.broker().source(who, source).await {
        Ok(info) => info.owner == who.user_id(),
        Err(error) if error.code == Code::NotFound => false,
        Err(error) => return Err(Room::unless_key_went(Argument::UserKey, error)),
    };
    match (known, room.find_stream(stream).await?) {
        (true, Some(name)) => Ok(name),
        (true, None) => Err(unknown_stream()),
        (false, Some(_)) => Err(Fault::bad(vec![unknown_source()])),
        (false, None) => {
            let stream = (Argument::StreamId, "StreamId must be the id of a stream; there is none with this one.".to_owned());
            Err(Fault::bad(vec![unknown_source(), stream]))
        }
    }
}

/// The user may not see the stream, or one of the two went while the right was set.
async fn gone(room: &Room<'_>, who: &Principal, source: u64, stream: u64) -> Fault {
    let hidden = || Fault::bad_one(Argument::StreamId, "StreamId must be the id of a stream on which the user of UserKey has a right.");
    both(room, who, source, stream).await.err().unwrap_or_else(hidden)
}
