//! Push and Pull: events in, events out. A range is read page by page while it is sent, so it has no greatest size.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::super::arguments::{Argument, Place, REVERSED};
use super::super::envelope::{around, good};
use super::super::event::{Authors, Shown};
use super::super::fault::{Access, Fault};
use super::super::going_on;
use super::streams::{info, not_read, readable};
use super::{Room, unknown_stream};
use crate::broker::{Action, Broker, Principal, ReadFrom, ReadRequest, Which};
use crate::types::request::{AppendRequest, Start};
use crate::types::{Code, Encoding, Error, EventRef, EventsBuilder, Slice, StreamId, StreamName, limits};

/// `{"EventId":5679}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pushed {
    event_id: u64,
}

/// `{"Event":{…}}`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct One<'a> {
    event: Shown<'a>,
}

/// Appends one event of text, and answers when it is durable.
pub async fn push(room: &Room<'_>, who: &Principal, id: u64, message: &str) -> Result<Pushed, Fault> {
    let stream = room.stream(id).await?;
    let broker = room.face.broker();
    match broker.may(who, &stream, Action::Write).await {
        Err(error) if error.code == Code::NotFound => return Err(write_denied()),
        other => other.map_err(not_written)?,
    }
    let mut events = EventsBuilder::with_capacity(message.len() + 64);
    events.push(&EventRef { data: message.as_bytes(), encoding: Encoding::Utf8, ..EventRef::default() }).map_err(not_written)?;
    let events = events.finish().map_err(not_written)?;
    let request = AppendRequest { stream, stream_id: Some(StreamId(id)), events, producer: None, expected_next_offset: None };
    let appended = broker.append(who, request).await.map_err(not_written)?;
    appended.first_offset.map(|event_id| Pushed { event_id }).ok_or_else(|| Fault::internal("an append without a producer has no offset"))
}

fn write_denied() -> Fault {
    Fault::denied(
        Access::Write,
        "The source of Key may not write to the stream of StreamId. Its user can allow it with /Right/{SourceId}/{StreamId}/Set/WriteOnly.",
    )
}

fn not_written(error: Error) -> Fault {
    match error.code {
        Code::AccessDenied => write_denied(),
        Code::Frozen | Code::StreamClosed => Fault::denied(Access::Write, "The stream of StreamId takes no more events: it is closed or frozen."),
        Code::TooLarge => Fault::bad_one(Argument::Message, format!("Message is too large. {}", error.into_body().message)),
        Code::BadParameter => Fault::bad_one(Argument::Message, format!("Message cannot be stored. {}", error.into_body().message)),
        Code::NotFound | Code::Deleting | Code::StreamReplaced => unknown_stream(),
        _ => Room::unless_key_went(Argument::Key, error),
    }
}

/// One event.
pub async fn pull(room: &Room<'_>, who: &Principal, id: u64, place: Place) -> Result<Response, Fault> {
    let stream = readable(room, who, id).await?;
    let which = match place {
        Place::At(offset) => Which::Offset(offset),
        Place::FromEnd(back) => Which::FromEnd(back),
    };
    match room.face.broker().event(who, &stream, which).await {
        Ok(slice) => one(room, id, &stream, slice).await,
        // `not_found` is the event's here: the stream was there a moment ago.
        Err(error) if matches!(error.code, Code::NotFound | Code::OffsetTrimmed | Code::StreamEmpty) => {
            let info = info(room, who, id, &stream).await?;
            Err(Fault::bad_one(Argument::EventId, format!("EventId must be the id of an event that is kept; {}", kept(info.first_offset, info.next_offset))))
        }
        Err(error) => Err(not_read(error)),
    }
}

/// Any event, evenly.
pub async fn random(room: &Room<'_>, who: &Principal, id: u64) -> Result<Response, Fault> {
    let stream = readable(room, who, id).await?;
    match room.face.broker().event(who, &stream, Which::Random).await {
        Ok(slice) => one(room, id, &stream, slice).await,
        Err(error) if error.code == Code::StreamEmpty => Err(Fault::empty_stream()),
        Err(error) => Err(not_read(error)),
    }
}

async fn one(room: &Room<'_>, id: u64, stream: &StreamName, slice: Slice) -> Result<Response, Fault> {
    if slice.batch().stream.0 != id {
        return Err(unknown_stream()); // the name was given to another stream meanwhile
    }
    let mut authors = Authors::default();
    authors.learn(room.face.broker(), std::slice::from_ref(&slice)).await?;
    let event = authors.shown(stream, &slice).next().ok_or_else(|| Fault::internal("a slice without an event"))?;
    Ok(good(&One { event }))
}

fn kept(first: u64, next: u64) -> String {
    if first == next { "the stream has none.".to_owned() } else { format!("those are {first} to {}.", next - 1) }
}

/// Events from one to another, both included.
pub async fn range(room: &Room<'_>, who: Principal, id: u64, from: Place, to: Place) -> Result<Response, Fault> {
    let stream = readable(room, &who, id).await?;
    let info = info(room, &who, id, &stream).await?;
    let (first, next) = (info.first_offset, info.next_offset);
    let offset = |place: Place| {
        let offset = match place {
            Place::At(offset) => Some(offset),
            Place::FromEnd(back) => next.checked_sub(back),
        };
        offset.filter(|offset| (first..next).contains(offset))
    };
    let wrong = |argument: Argument| (argument, format!("{} must be the id of an event that is kept; {}", argument.as_str(), kept(first, next)));
    let (from, to) = match (offset(from), offset(to)) {
        (Some(from), Some(to)) if from <= to => (from, to),
        (Some(_), Some(_)) => return Err(Fault::bad(vec![(Argument::FromEventId, REVERSED.to_owned()), (Argument::ToEventId, String::new())])),
        (Some(_), None) => return Err(Fault::bad(vec![wrong(Argument::ToEventId)])),
        (None, Some(_)) => return Err(Fault::bad(vec![wrong(Argument::FromEventId)])),
        (None, None) => return Err(Fault::bad(vec![wrong(Argument::FromEventId), wrong(Argument::ToEventId)])),
    };
    let mut pages = Pages { broker: room.face.broker().clone(), who, id, stream, next: from, to, authors: Authors::default(), begun: false };
    // What goes wrong before the first page is an answer; later the body breaks off, and nobody takes a part for the whole.
    let first = pages.page().await?;
    let (before, after) = around();
    let head = [before.as_bytes(), b"{\"Events\":[", &first].concat();
    let rest = stream::unfold(Some(pages), |pages| async move {
        let mut pages = pages?;
        if pages.next > pages.to {
            return None;
        }
        match pages.page().await {
            Ok(page) => Some((Ok(Bytes::from(page)), Some(pages))),
            Err(fault) => Some((Err(std::io::Error::other(fault.help().to_owned())), None)),
        }
    });
    let end = Bytes::from(format!("]}}{after}"));
    let whole = futures_util::StreamExt::chain(stream::iter([Ok(Bytes::from(head))]), rest);
    Ok(going_on(Body::from_stream(futures_util::StreamExt::chain(whole, stream::iter([Ok::<_, std::io::Error>(end)])))))
}

/// A range on its way.
struct Pages {
    broker: Broker,
    who: Principal,
    id: u64,
    stream: StreamName,
    next: u64,
    to: u64,
    authors: Authors,
    begun: bool,
}

impl Pages {
    /// The next piece, with a comma before each event but the first of all.
    async fn page(&mut self) -> Result<Vec<u8>, Fault> {
        let left = (self.to - self.next + 1).min(limits::READ_DEFAULT_EVENTS as u64) as usize;
        let request = ReadRequest { from: ReadFrom::At(Start::Offset(self.next)), limit: left, wait: std::time::Duration::ZERO };
        let reply = self.broker.read(&self.who, &self.stream, request).await.map_err(|error| match error.code {
            Code::OffsetTrimmed => Fault::bad_one(Argument::FromEventId, "FromEventId must be the id of an event that is kept; it was trimmed away meanwhile."),
            _ => not_read(error),
        })?;
        if reply.stream.0 != self.id {
            return Err(unknown_stream());
        }
        self.authors.learn(&self.broker, &reply.slices).await?;
        let mut out = Vec::new();
        for slice in &reply.slices {
            for event in self.authors.shown(&self.stream, slice) {
                if std::mem::replace(&mut self.begun, true) {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, &event).map_err(|why| Fault::internal(&format!("an event could not be written as JSON: {why}")))?;
            }
            self.next = slice.to();
        }
        if reply.slices.is_empty() {
            return Err(Fault::internal("a page of kept events is empty"));
        }
        Ok(out)
    }
}
