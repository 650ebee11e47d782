//! The calls: the key, what is named, the right, the state, and what the broker answers. One file for each root word.

mod events;
mod rights;
mod sources;
mod streams;
mod users;

use axum::http::Extensions;
use axum::response::Response;

use super::arguments::{Argument, Call};
use super::envelope::good;
use super::fault::Fault;
use crate::broker::access::{Family, Token};
use crate::broker::{Kind, Plane, Principal};
use crate::edge::{Face, Peer};
use crate::types::{Code, StreamId, StreamName};

/// Answers a call.
pub async fn answer(face: &Face, came: Came<'_>, call: Call) -> Result<Response, Fault> {
    let room = Room { face, came };
    match call {
        Call::OwnRight { key, stream } => Ok(good(&rights::own(&room, &room.source(&key).await?, stream).await?)),
        Call::RightOf { key, source, stream } => Ok(good(&rights::of(&room, &room.user(&key).await?, source, stream).await?)),
        Call::SetRight { key, source, stream, right } => Ok(good(&rights::set(&room, &room.user(&key).await?, source, stream, right).await?)),
        Call::ThisSource { key } => Ok(good(&sources::this(&room, &room.source(&key).await?).await?)),
        Call::SourceOf { key, source } => Ok(good(&sources::of(&room, &room.user(&key).await?, source).await?)),
        Call::NewSource { key, name } => Ok(good(&sources::new(&room, &room.user(&key).await?, name).await?)),
        Call::NewStream { key, name } => Ok(good(&streams::new(&room, &room.user(&key).await?, name).await?)),
        Call::Stream { key, stream } => Ok(good(&streams::show(&room, &room.source(&key).await?, stream).await?)),
        Call::Pull { key, stream, event } => events::pull(&room, &room.source(&key).await?, stream, event).await,
        Call::PullRandom { key, stream } => events::random(&room, &room.source(&key).await?, stream).await,
        Call::PullRange { key, stream, from, to } => events::range(&room, room.source(&key).await?, stream, from, to).await,
        Call::Push { key, stream, message } => Ok(good(&events::push(&room, &room.source(&key).await?, stream, &message).await?)),
        Call::ThisUser { key } => Ok(good(&users::this(&room, &room.user(&key).await?).await?)),
        Call::UserOf { user } => Ok(good(&users::of(&room, user).await?)),
    }
}

/// How a call came.
pub struct Came<'a> {
    /// Of its request.
    pub extensions: &'a Extensions,
    /// Does it move events?
    pub plane: Plane,
    /// Of its body.
    pub bytes: usize,
}

/// What every call needs.
struct Room<'a> {
    face: &'a Face,
    came: Came<'a>,
}

impl Room<'_> {
    /// Whose source key is this?
    async fn source(&self, key: &str) -> Result<Principal, Fault> {
        let help = "Key is not the key of a source here: it is unknown, or its source or user is disabled. The key of a user is sent as UserKey.";
        self.holder(key, Family::SourceKey, Kind::SourceKey).await?.ok_or_else(|| Fault::bad_one(Argument::Key, help))
    }

    /// Whose user key is this?
    async fn user(&self, key: &str) -> Result<Principal, Fault> {
        let help = "UserKey is not the key of a user here: it is unknown, or its user is disabled. The key of a source is sent as Key.";
        self.holder(key, Family::UserKey, Kind::UserKey).await?.ok_or_else(|| Fault::bad_one(Argument::UserKey, help))
    }

    async fn holder(&self, key: &str, family: Family, kind: Kind) -> Result<Option<Principal>, Fault> {
        if Token::parse(key).is_ok_and(|token| token.family() != family) {
            return Ok(None); // not even looked up: a ticket would be used up by it
        }
        let peer = self.came.extensions.get::<Peer>().copied();
        match self.face.shown(peer, key).await {
            Ok(who) if who.kind() == kind => {
                if let Some(usage) = self.face.usage(peer, &who) {
                    self.face.count_for(self.came.extensions, usage, self.came.plane, self.came.bytes as u64).map_err(Fault::other)?;
                }
                Ok(Some(who))
            }
            Ok(_) => Ok(None),
            Err(error) if matches!(error.code, Code::Unauthenticated | Code::SessionExpired) => Ok(None),
            Err(error) => Err(Fault::other(error)),
        }
    }

    /// The name of a stream that is there. Whether the caller has a right on it is another question, and a later one.
    async fn stream(&self, id: u64) -> Result<StreamName, Fault> {
        self.find_stream(id).await?.ok_or_else(unknown_stream)
    }

    async fn find_stream(&self, id: u64) -> Result<Option<StreamName>, Fault> {
        self.face.broker().stream_name(StreamId(id)).await.map_err(Fault::other)
    }

    /// The key did not hold until the end of the call.
    fn unless_key_went(argument: Argument, error: crate::types::Error) -> Fault {
        match error.code {
            Code::Unauthenticated | Code::SessionExpired => Fault::bad_one(argument, format!("{} is not known any more.", argument.as_str())),
            _ => Fault::other(error),
        }
    }
}

fn unknown_stream() -> Fault {
    Fault::bad_one(Argument::StreamId, "StreamId must be the id of a stream; there is none with this one.")
}

fn unknown_source() -> (Argument, String) {
    (Argument::SourceId, "SourceId must be the id of one of your sources; none has this one.".to_owned())
}
