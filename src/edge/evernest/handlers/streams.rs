//! `/Stream/{StreamId}` and `/Stream/New`.

use serde::Serialize;

use super::super::arguments::Argument;
use super::super::fault::{Access, Fault};
use super::{Room, unknown_stream};
use crate::broker::{Action, NewStream, Principal, StreamInfo};
use crate::types::{Code, Error, StreamName};

/// `{"Stream":{…}}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    stream: Stream,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stream {
    id: u64,
    name: String,
    count: u64,
    /// -1 before the first event of all.
    last_event_id: i64,
}

/// `{"Guid":"…","Stream":{"Id","Name"}}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Made {
    guid: String,
    stream: New,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct New {
    id: u64,
    name: String,
}

/// What there is of it.
pub async fn show(room: &Room<'_>, who: &Principal, id: u64) -> Result<Shown, Fault> {
    let name = readable(room, who, id).await?;
    let info = info(room, who, id, &name).await?;
    let count = info.next_offset.saturating_sub(info.first_offset);
    let last_event_id = i64::try_from(info.next_offset).unwrap_or(i64::MAX) - 1;
    Ok(Shown { stream: Stream { id, name: info.name.to_string(), count, last_event_id } })
}

/// The stream as it is now, if the name still means it.
pub async fn info(room: &Room<'_>, who: &Principal, id: u64, name: &StreamName) -> Result<StreamInfo, Fault> {
    let info = room.face.broker().stream(who, name).await.map_err(not_read)?;
    if info.id.0 == id { Ok(info) } else { Err(unknown_stream()) }
}

/// The name of a stream that the caller may read.
pub async fn readable(room: &Room<'_>, who: &Principal, id: u64) -> Result<StreamName, Fault> {
    let name = room.stream(id).await?;
    match room.face.broker().may(who, &name, Action::Read).await {
        Ok(()) => Ok(name),
        // Without any right a stream is hidden elsewhere; here its existence was told a stage before.
        Err(error) if error.code == Code::NotFound => Err(read_denied()),
        Err(error) => Err(not_read(error)),
    }
}

/// What it means when a read that was allowed is refused after all.
pub fn not_read(error: Error) -> Fault {
    match error.code {
        Code::AccessDenied => read_denied(),
        Code::NotFound | Code::Deleting | Code::StreamReplaced => unknown_stream(),
        _ => Room::unless_key_went(Argument::Key, error),
    }
}

fn read_denied() -> Fault {
    Fault::denied(Access::Read, "The source of Key may not read the stream of StreamId. Its user can allow it with /Right/{SourceId}/{StreamId}/Set/ReadOnly.")
}

/// A new one; the user is its Admin.
pub async fn new(room: &Room<'_>, who: &Principal, name: StreamName) -> Result<Made, Fault> {
    let guid = room.face.broker().operation_id();
    match room.face.broker().create_stream_as(who, NewStream::named(name), guid).await {
        Ok(info) => Ok(Made { guid: guid.to_string(), stream: New { id: info.id.0, name: info.name.to_string() } }),
        Err(error) if matches!(error.code, Code::NameTaken | Code::Deleting) => {
            Err(Fault::bad_one(Argument::StreamName, "StreamName must be new; a stream has this name already, perhaps in another case."))
        }
        Err(error) if error.code == Code::BadParameter => Err(Fault::bad_one(Argument::StreamName, format!("StreamName: {}", error.into_body().message))),
        Err(error) => Err(Room::unless_key_went(Argument::UserKey, error)),
    }
}
