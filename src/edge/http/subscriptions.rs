//! Subscriptions and their cursors over REST.

use axum::extract::State;
use axum::http::HeaderMap;

use super::body::JsonBody;
use super::fields::Fields;
use super::{Broker, Caller, NoQuery, Path, Query, Reply, objects, refuse_conditions, reply, streams};
use crate::broker::NewSubscription;
use crate::types::request::Start;
use crate::types::{Error, Result, SubscriptionName, TimeUs};

/// Fields that only the broker sets.
const READ_ONLY: [&str; 10] = ["id", "stream", "created_at", "acked_offset", "next", "epoch", "lag", "status", "status_code", "cursor"];

/// `GET …/subscriptions`
pub async fn list(State(face): Broker, Caller(who): Caller, path: Path, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, crate::broker::fields::SUBSCRIPTIONS)?;
    query.finish()?;
    let stream = path.stream()?;
    let page = face.broker().subscriptions(&who, &stream, asked.clone()).await?;
    let base = format!("{}/subscriptions", objects::stream_url(&stream));
    streams::listed(page, &asked, &base, recursion, |s| s.name.as_str().to_owned(), |s| reply::text(&objects::subscription(&s)))
}

/// `POST …/subscriptions`
pub async fn create(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let (stream, new) = (path.stream()?, new_subscription(&bytes)?);
    let info = face.broker().create_subscription(&who, &stream, new).await?;
    let (location, id) = (objects::subscription_url(&stream, &info.name), Some(info.id.to_string()));
    Ok(Reply::Created { metadata: reply::text(&objects::subscription(&info))?, location, id })
}

fn new_subscription(body: &[u8]) -> Result<NewSubscription> {
    let mut fields = Fields::parse(body)?;
    fields.refuse_read_only(&READ_ONLY)?;
    let name = SubscriptionName::parse(&fields.need::<String>("name", "text")?)?;
    let start = start_field(&mut fields, "start")?.unwrap_or(Start::Earliest);
    if let Some(mode) = fields.take::<String>("mode", "\"exclusive\"")?
        && mode != "exclusive"
    {
        return Err(Error::bad("mode", "Field mode must be \"exclusive\"; other modes do not exist yet."));
    }
    let new = NewSubscription {
        name,
        start,
        ack_timeout_s: fields.take("ack_timeout_s", "a number of seconds")?,
        max_in_flight: fields.take("max_in_flight", "a number of events")?,
        expires_s: fields.take("expires_s", "a number of seconds")?,
        filter: fields.take("filter", "text")?,
    };
    fields.finish()?;
    Ok(new)
}

/// A start in a body: a number, or in words.
///
/// # Errors
/// `bad_parameter`, naming the field.
pub(super) fn start_field(fields: &mut Fields<'_>, name: &str) -> Result<Option<Start>> {
    match fields.take::<serde_json::Value>(name, "JSON")? {
        None => Ok(None),
        Some(serde_json::Value::Number(n)) if n.is_u64() => Ok(n.as_u64().map(Start::Offset)),
        Some(serde_json::Value::String(text)) => start(&text, name).map(Some),
        Some(_) => Err(Error::bad(name, format!("Field {name} must be an offset, \"earliest\", \"latest\" or a time."))),
    }
}

/// A start in words: an offset, `earliest`, `latest` or a time.
///
/// # Errors
/// `bad_parameter`, naming `field`.
pub fn start(text: &str, field: &str) -> Result<Start> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map(Start::Offset).map_err(|_| Error::bad(field, format!("{field} {} is too large for an offset.", crate::types::name::short(text))))
        }
        _ => TimeUs::parse(text).map(Start::Time).map_err(|_| {
            Error::bad(field, format!("{field} is {}; give an offset, earliest, latest or a time like 2026-01-26T10:00:00Z.", crate::types::name::quote(text)))
        }),
    }
}

/// `GET …/subscriptions/{subscription}`
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    Reply::ok(&objects::subscription(&face.broker().subscription(&who, &path.stream()?, &path.subscription()?).await?))
}

/// `DELETE …/subscriptions/{subscription}`
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    face.broker().delete_subscription(&who, &path.stream()?, &path.subscription()?).await?;
    Reply::ok(&serde_json::json!({}))
}

/// `GET …/cursor`
pub async fn cursor(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    Reply::ok(&objects::cursor(&face.broker().subscription(&who, &path.stream()?, &path.subscription()?).await?))
}

/// `PUT …/cursor` (C-14)
pub async fn seek(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let (stream, name, to) = (path.stream()?, path.subscription()?, seek_to(&bytes)?);
    Reply::ok(&objects::cursor(&face.broker().seek(&who, &stream, &name, to).await?))
}

fn seek_to(body: &[u8]) -> Result<Start> {
    let mut fields = Fields::parse(body)?;
    let mut found = Vec::new();
    if let Some(next) = fields.take::<u64>("next", "an offset")? {
        found.push(Start::Offset(next));
    }
    if let Some(time) = fields.take::<String>("time", "a time like 2026-01-26T10:00:00Z")? {
        found.push(Start::Time(TimeUs::parse(&time).map_err(|e| e.detail("field", "time"))?));
    }
    for (name, start) in [("earliest", Start::Earliest), ("latest", Start::Latest)] {
        match fields.take::<bool>(name, "true")? {
            None => {}
            Some(true) => found.push(start),
            Some(false) => return Err(Error::bad(name, format!("Field {name} must be true."))),
        }
    }
    fields.finish()?;
    match found[..] {
        [start] => Ok(start),
        _ => Err(Error::bad("next", "Send exactly one of next (an offset), time, earliest (true) and latest (true).")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn a_seek_names_exactly_one_place() {
        assert_eq!(seek_to(br#"{"next":7}"#), Ok(Start::Offset(7)));
        assert_eq!(seek_to(br#"{"earliest":true}"#), Ok(Start::Earliest));
        assert_eq!(seek_to(br#"{"latest":true,"next":null}"#), Ok(Start::Latest));
        assert!(matches!(seek_to(br#"{"time":"2026-01-26T10:00:00Z"}"#), Ok(Start::Time(_))));
        for bad in ["{}", r#"{"next":1,"latest":true}"#, r#"{"latest":false}"#, r#"{"next":-1}"#, r#"{"next":1.5}"#, r#"{"time":"soon"}"#] {
            assert_eq!(seek_to(bad.as_bytes()).unwrap_err().code, Code::BadParameter, "{bad}");
        }
        assert_eq!(seek_to(br#"{"next":1,"to":2}"#).unwrap_err().code, Code::UnknownField);
    }

    #[test]
    fn a_new_subscription_is_read_strictly() {
        let new = new_subscription(br#"{"name":"billing","start":"latest","mode":"exclusive","filter":null,"max_in_flight":5}"#).unwrap();
        assert_eq!((new.start, new.max_in_flight), (Start::Latest, Some(5)));
        assert_eq!(new_subscription(br#"{"name":"b","start":41}"#).unwrap().start, Start::Offset(41));
        for (bad, code) in [
            (r#"{}"#, Code::BadParameter),
            (r#"{"name":"b","mode":"shared"}"#, Code::BadParameter),
            (r#"{"name":"b","start":-1}"#, Code::BadParameter),
            (r#"{"name":"b","start":"soon"}"#, Code::BadParameter),
            (r#"{"name":"b","filter":1}"#, Code::BadParameter),
            (r#"{"name":"b","epoch":1}"#, Code::ReadOnlyField),
            (r#"{"name":"b","colour":1}"#, Code::UnknownField),
        ] {
            assert_eq!(new_subscription(bad.as_bytes()).unwrap_err().code, code, "{bad}");
        }
    }
}
