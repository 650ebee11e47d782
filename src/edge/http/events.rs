//! Appending and reading over REST.

use std::time::Duration;

use axum::Extension;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::body::{self, NoBody};
use super::{Broker, Caller, Face, NoQuery, Path, Query, Reply, RequestId, conditional, idempotency, objects, refuse_preconditions, reply, subscriptions};
use crate::broker::{ReadFrom, ReadReply, ReadRequest, Which, fields};
use crate::edge::{Turn, auth, sse};
use crate::types::name::quote;
use crate::types::request::{AppendRequest, Start};
use crate::types::{Encoding, Error, EventRef, Events, EventsBuilder, IdempotencyKey, Result, StreamName, limits};
use crate::wire::json::{self, AppendBody, Lines, NdjsonReader};

/// How the body of an append is to be read.
enum Form {
    /// The object of `surfaces.md` 5.5.
    Json,
    /// One event object per line, or its data alone.
    Lines(Lines),
    /// The body is the `data` of one event.
    Raw { encoding: Encoding, kind: String, key: String },
}

impl Form {
    fn of(headers: &HeaderMap, query: &mut Query) -> Result<Self> {
        let encoding = match body::media_type(headers)?.as_str() {
            "application/json" => return Ok(Self::Json),
            "application/x-ndjson" => {
                return match query.take("lines").as_deref() {
                    None | Some("events") => Ok(Self::Lines(Lines::Events)),
                    Some("data") => Ok(Self::Lines(Lines::Data)),
                    Some(other) => Err(Error::bad("lines", format!("Query parameter lines is {}; it may be events or data.", quote(other)))),
                };
            }
            "application/octet-stream" => Encoding::Binary,
            "text/plain" => Encoding::Utf8,
            other => return Err(body::wrong_type(other, "application/json, application/x-ndjson, application/octet-stream or text/plain")),
        };
        Ok(Self::Raw { encoding, kind: query.take("type").unwrap_or_default(), key: query.take("key").unwrap_or_default() })
    }

    async fn read(&self, stream: StreamName, body: &[u8]) -> Result<AppendRequest> {
        let plain = |events: Events| AppendRequest { stream: stream.clone(), stream_id: None, events, producer: None, expected_next_offset: None };
        match self {
            Self::Json => {
                let AppendBody { events, expected_next_offset, producer, stream_id } = json::parse_append_body(body)?;
                Ok(AppendRequest { stream, stream_id, events, producer, expected_next_offset })
            }
            Self::Lines(lines) => {
                let (mut reader, mut turn) = (NdjsonReader::new(body, *lines), Turn::default());
                while reader.step()? {
                    turn.breathe().await;
                }
                reader.finish().map(plain)
            }
            Self::Raw { encoding, kind, key } => {
                let mut events = EventsBuilder::with_capacity(body.len() + kind.len() + key.len() + 64);
                events.push(&EventRef { data: body, encoding: *encoding, kind, key, ..EventRef::default() })?;
                events.finish().map(plain)
            }
        }
    }

    /// Names the line of the event that the broker refused, where events are lines.
    fn locate(&self, why: Error, body: &[u8]) -> Error {
        match self {
            Self::Lines(_) => json::in_its_line(why, body),
            Self::Json | Self::Raw { .. } => why,
        }
    }
}

/// What an append brings: its form, its key against repetition, its body. Checked in the order of `surfaces.md` 5.6.
pub struct Sent(Form, Option<IdempotencyKey>, Bytes);

impl FromRequest<Face> for Sent {
    type Rejection = NoBody;

    async fn from_request(request: Request, face: &Face) -> Result<Self, NoBody> {
        let (parts, body) = request.into_parts();
        let mut query = Query::parse(parts.uri.query())?;
        let form = Form::of(&parts.headers, &mut query)?;
        if !matches!(form, Form::Raw { .. }) {
            auth::check_no_key_in(parts.uri.query())?; // `key` is the event's key on raw bodies only
        }
        query.finish()?;
        refuse_preconditions(&parts.headers)?;
        let key = idempotency::key(&parts.headers)?;
        Ok(Self(form, key, body::read_counted(body, &parts, face.settings().message_max_bytes).await?))
    }
}

/// `POST …/events`
pub async fn append(State(face): Broker, Caller(who): Caller, path: Path, Sent(form, key, body): Sent) -> Result<Response, super::Failure> {
    let stream = path.stream()?;
    let request = form.read(stream.clone(), &body).await?;
    let answer = match &key {
        None => face.broker().append(&who, request).await.map(|appended| (appended, None)),
        Some(key) => face.broker().append_once(&who, request, key).await.map(|(appended, until)| (appended, Some(until))),
    };
    let (appended, until) = answer.map_err(|why| form.locate(why, &body))?;
    let metadata = reply::text(&objects::appended(&appended, until))?;
    let at = appended.first_offset.map(|offset| format!("{}/events/{offset}", objects::stream_url(&stream)));
    let mut response = match (appended.duplicate, at) {
        (false, Some(location)) => Reply::Created { metadata, location, id: None }.into_response(),
        _ => Reply::Sync { metadata, next: None }.into_response(),
    };
    if key.is_some() && appended.duplicate {
        idempotency::replayed(&mut response);
    }
    Ok(response)
}

/// `GET …/events`
pub async fn read(
    State(face): Broker,
    Caller(who): Caller,
    Extension(id): Extension<RequestId>,
    method: Method,
    path: Path,
    mut query: Query,
    headers: HeaderMap,
) -> reply::Result {
    if sse::wanted(&headers) {
        let response = sse::follow(face, who, id, &method, &path, query, &headers).await?;
        return Ok(Reply::Raw(Box::new(response)));
    }
    let mut request = read_request(&mut query)?;
    let filter = query.take_filter(fields::EVENTS)?;
    query.finish()?;
    let stream = path.stream()?;
    if method == Method::HEAD {
        request.wait = Duration::ZERO; // nobody would hear what it waited for
    }
    // A long poll also ends, with nothing, when the broker stops or the client goes away.
    let reply = face.broker().read_those(&who, &stream, request, filter.as_ref()).await?;
    Ok(Reply::Sync { metadata: rendered(&stream, &reply), next: None })
}

fn read_request(query: &mut Query) -> Result<ReadRequest> {
    let from = place(query)?.unwrap_or(ReadFrom::At(Start::Earliest));
    let limit = query.take_number("limit", 1, limits::READ_MAX_EVENTS as i64)?;
    let wait = query.take_number("wait", 0, limits::LONG_POLL.as_secs() as i64)?;
    Ok(ReadRequest { from, limit: limit.map_or(limits::READ_DEFAULT_EVENTS, |n| n as usize), wait: Duration::from_secs(wait.unwrap_or(0) as u64) })
}

/// Where a reader begins: `after` or `from` in the query.
///
/// # Errors
/// `bad_parameter`.
pub fn place(query: &mut Query) -> Result<Option<ReadFrom>> {
    Ok(match (query.take_filled("after"), query.take_filled("from")) {
        (None, None) => None,
        (Some(after), None) if after == "-1" => Some(ReadFrom::At(Start::Earliest)),
        (Some(after), None) => match after.parse::<u64>() {
            Ok(after) => Some(ReadFrom::After(after)),
            Err(_) => return Err(Error::bad("after", format!("Query parameter after is {}; give the offset of the last event you have.", quote(&after)))),
        },
        (None, Some(from)) => Some(ReadFrom::At(subscriptions::start(&from, "from")?)),
        (Some(_), Some(_)) => return Err(Error::bad("from", "Send after or from, not both: after is exclusive, from is inclusive.")),
    })
}

fn rendered(stream: &StreamName, reply: &ReadReply) -> Vec<u8> {
    let mut out = format!(r#"{{"stream":"{stream}","events":["#).into_bytes();
    json::events_json(&mut out, &reply.slices);
    let ReadReply { first_offset, next_offset, more, .. } = reply;
    let after = reply.after.map_or_else(|| "null".to_owned(), |n| n.to_string());
    out.extend_from_slice(format!(r#"],"first_offset":{first_offset},"next_offset":{next_offset},"after":{after},"more":{more}}}"#).as_bytes());
    out
}

/// `GET …/events/{offset}`
pub async fn one(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    let (stream, which) = (path.stream()?, which(path.part("offset"))?);
    let slice = face.broker().event(&who, &stream, which).await?;
    let mut metadata = Vec::new();
    json::events_json(&mut metadata, std::slice::from_ref(&slice));
    let response = conditional::answer(Reply::Sync { metadata, next: None }, &conditional::tag(&slice), &headers);
    Ok(Reply::Raw(Box::new(response)))
}

fn which(text: &str) -> Result<Which> {
    let refused = || Error::bad("offset", format!("{} is not an offset; give a number (negative counts from the end), first, last or random.", quote(text)));
    match text {
        "first" => Ok(Which::First),
        "last" => Ok(Which::Last),
        "random" => Ok(Which::Random),
        _ => match text.strip_prefix('-') {
            Some(rest) => rest.parse().ok().filter(|n| *n > 0).map(Which::FromEnd).ok_or_else(refused),
            None => text.parse().map(Which::Offset).map_err(|_| refused()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    fn asked(raw: &str) -> Result<ReadRequest> {
        read_request(&mut Query::parse(Some(raw)).unwrap())
    }

    #[test]
    fn a_read_begins_after_or_at_a_place() {
        for (raw, from) in [
            ("", ReadFrom::At(Start::Earliest)),
            ("after=", ReadFrom::At(Start::Earliest)),
            ("after=-1", ReadFrom::At(Start::Earliest)),
            ("after=40", ReadFrom::After(40)),
            ("from=41", ReadFrom::At(Start::Offset(41))),
            ("from=latest", ReadFrom::At(Start::Latest)),
        ] {
            assert_eq!(asked(raw).unwrap().from, from, "{raw}");
        }
        for bad in ["after=1&from=1", "after=x", "after=-2", "from=-1", "from=soon", "limit=0", "limit=10001", "wait=61", "wait=-1"] {
            assert_eq!(asked(bad).unwrap_err().code, Code::BadParameter, "{bad}");
        }
        assert_eq!(asked("wait=60&limit=10000").unwrap().wait, Duration::from_secs(60));
    }

    #[test]
    fn one_event_is_named_by_offset_from_the_end_or_by_a_word() {
        assert_eq!(which("0"), Ok(Which::Offset(0)));
        assert_eq!(which("-1"), Ok(Which::FromEnd(1)));
        assert_eq!(which("last"), Ok(Which::Last));
        for bad in ["", "-", "-0", "x", "1.0", "99999999999999999999"] {
            assert_eq!(which(bad).unwrap_err().code, Code::BadParameter, "{bad}");
        }
    }
}
