//! Server-Sent Events: a reader that `EventSource`, or `curl -N`, can be. Reading only; acknowledging goes over REST.
//!
//! A refusal before the stream begins is an ordinary REST error, at which `EventSource` stops by itself. Afterwards everything is told
//! inside the stream (`follower`).

use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::http::{Caller, Failure, Path, Query, RequestId, place};
use super::{Face, ws};
use crate::broker::{Principal, ReadFrom};
use crate::types::name::quote;
use crate::types::request::{Credit, OnGap, Start, SubscribeRequest};
use crate::types::{Error, Result, StreamId};
use crate::wire::sse::{self, LastId};

mod accept;
mod follower;

pub use accept::wanted;
use follower::{Follower, Opening};

/// `GET …/events` by somebody who prefers `text/event-stream`: an ephemeral reader, from `Last-Event-ID`, else `after` or `from`, else
/// the end. HTTP itself is its back-pressure.
///
/// # Errors
/// Those of `subscribe`.
pub async fn follow(face: Face, who: Principal, id: RequestId, method: &Method, path: &Path, mut query: Query, headers: &HeaderMap) -> Result<Response> {
    for name in ["limit", "wait"] {
        if query.take(name).is_some() {
            return Err(Error::bad(name, format!("Query parameter {name} is for pages of JSON; an event stream goes on by itself. Leave it out.")));
        }
    }
    let filter = query.take_filled("filter");
    let stream = path.stream()?;
    let mut request = SubscribeRequest::new(stream, None);
    request.from = match (place(&mut query)?, last_id(headers)?) {
        // The URL stays the same when `EventSource` connects again, so what it has heard wins.
        (_, Some(LastId::Next(next))) => Some(Start::Offset(next)),
        (_, Some(LastId::Fenced)) => return Err(bad_last_id("fenced")), // nobody takes over an ephemeral reader
        (Some(ReadFrom::At(start)), None) => Some(start),
        (Some(ReadFrom::After(after)), None) => match after.checked_add(1) {
            Some(next) => Some(Start::Offset(next)),
            None => return Err(Error::bad("after", format!("Query parameter after is {after}, which is too large for an offset."))),
        },
        (None, None) => None,
    };
    request.filter = filter;
    request.on_gap = query.take_filled("on_gap").map(|text| ws::word("on_gap", &text, OnGap::parse, "fail or skip")).transpose()?;
    request.log_epoch = query.take_number("log_epoch", 0, i64::MAX)?.map(|n| n as u64);
    request.stream_id = query.take_number("stream_id", 1, i64::MAX)?.map(|n| StreamId(n as u64));
    request.credit = Some(Credit { events: u64::MAX, bytes: u64::MAX });
    query.finish()?;
    if method == Method::HEAD {
        face.broker().stream(&who, &request.stream).await?;
        return Ok(headed(endless()));
    }
    open(face, &who, id, request).await
}

/// `GET …/subscriptions/{subscription}/events`: a durable session. The cursor says where it begins, acks over REST move it.
pub async fn deliver(
    State(face): State<Face>,
    Caller(who): Caller,
    Extension(id): Extension<RequestId>,
    method: Method,
    path: Path,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if !wanted(&headers) {
        let why = "This address is an event stream; send Accept: text/event-stream. To read over plain HTTP, POST to …/pull.";
        return Err(Error::bad("accept", why).into());
    }
    let mut request = ws::subscribe_request(&path, &mut query)?;
    query.finish()?;
    match last_id(&headers)? {
        None => {}
        // Who was told of a takeover and comes back by itself must not take over in turn (ADR 4): 204 ends an `EventSource`.
        Some(LastId::Fenced) => return Ok(StatusCode::NO_CONTENT.into_response()),
        // It comes back to the same URL. What that asked for was done the first time; asked again it would move the cursor away from
        // what was not acknowledged.
        Some(_) => (request.from, request.rewind, request.log_epoch) = (None, false, None),
    }
    if method == Method::HEAD {
        face.broker().subscription(&who, &path.stream()?, &path.subscription()?).await?;
        return Ok(headed(endless()));
    }
    Ok(open(face, &who, id, request).await?)
}

async fn open(face: Face, who: &Principal, RequestId(id): RequestId, request: SubscribeRequest) -> Result<Response> {
    let durable = request.subscription.is_some();
    let (subscribed, session) = face.broker().open_session(who, request).await?;
    let opening = if durable { Opening::Subscribed(subscribed) } else { Opening::At(subscribed.next) };
    Ok(headed(Body::from_stream(Follower::new(face, session, id, opening).into_stream())))
}

/// 200 and the headers of an event stream: nobody between us may keep it or hold it back.
fn headed(body: Body) -> Response {
    let headers = [(header::CONTENT_TYPE, sse::MEDIA_TYPE), (header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, body).into_response()
}

/// For a HEAD: nothing, and no length.
fn endless() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Bytes, Infallible>>())
}

/// The one `Last-Event-ID`, if it says something.
fn last_id(headers: &HeaderMap) -> Result<Option<LastId>> {
    let mut values = headers.get_all("last-event-id").iter();
    let text = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => String::from_utf8_lossy(value.as_bytes()),
        (Some(_), Some(_)) => return Err(Error::bad("last-event-id", "The request has two Last-Event-ID headers; send one.")),
    };
    match text.trim() {
        "" => Ok(None),
        text => LastId::parse(text).map(Some).ok_or_else(|| bad_last_id(text)),
    }
}

fn bad_last_id(text: &str) -> Error {
    Error::bad("last-event-id", format!("Last-Event-ID is {}; it must be the id of the last event this stream sent.", quote(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn there_is_one_last_event_id_and_it_is_one_of_ours() {
        let asked = |values: &[&str]| {
            let name = header::HeaderName::from_static("last-event-id");
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, value.parse().unwrap());
            }
            last_id(&headers)
        };
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&[""]), Ok(None));
        assert_eq!(asked(&["41"]), Ok(Some(LastId::Next(42))));
        assert_eq!(asked(&["-1"]), Ok(Some(LastId::Next(0))));
        assert_eq!(asked(&["fenced"]), Ok(Some(LastId::Fenced)));
        for bad in [&["41", "41"][..], &["x"], &["-2"], &["18446744073709551615"]] {
            assert_eq!(asked(bad).unwrap_err().code, Code::BadParameter, "{bad:?}");
        }
    }
}
