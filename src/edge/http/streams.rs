//! Streams over REST.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;

use super::body::{JsonBody, JsonOrNothing};
use super::fields::Fields as BodyFields;
use super::objects::{self, Stream};
use super::{Broker, Caller, NoQuery, Path, Query, Reply, refuse_conditions, reply};
use crate::broker::{ListQuery, NewStream, Page, StreamStatus, TrimTo, fields};
use crate::types::filter::Fields;
use crate::types::name::escaped;
use crate::types::{Error, Result, StreamName, TimeUs, limits};

/// Fields that only the broker sets.
const READ_ONLY: [&str; 8] = ["id", "uuid", "owner", "created_at", "status", "status_code", "state", "log_epoch"];

/// `limit`, `after` and `filter` of every list.
///
/// # Errors
/// `bad_parameter`, `bad_filter`, `unknown_filter_field`.
pub(super) fn list_query(query: &mut Query, fields: Fields) -> Result<ListQuery> {
    let filter = query.take_filter(fields)?;
    let limit = query.take_number("limit", 1, limits::LIST_MAX as i64)?.map(|n| n as usize);
    Ok(ListQuery { after: query.take_filled("after"), limit, filter })
}

/// A list: addresses, or objects with `recursion=1`, and where the next page is.
///
/// # Errors
/// `internal`.
pub(super) fn listed<T>(
    page: Page<T>,
    asked: &ListQuery,
    base: &str,
    recursion: bool,
    name: impl Fn(&T) -> String,
    render: impl Fn(T) -> Result<Vec<u8>>,
) -> reply::Result {
    let next = next_page(&page, asked, base, recursion, &name);
    let one = |item: T| if recursion { render(item) } else { Ok(format!("\"{base}/{}\"", name(&item)).into_bytes()) };
    let items: Vec<Vec<u8>> = page.items.into_iter().map(one).collect::<Result<_>>()?;
    Ok(Reply::Sync { metadata: [&b"["[..], &items.join(&b','), b"]"].concat(), next })
}

/// Where the page behind this one is.
pub(super) fn next_page<T>(page: &Page<T>, asked: &ListQuery, base: &str, recursion: bool, name: impl Fn(&T) -> String) -> Option<String> {
    let (true, Some(last), Some(limit)) = (page.more, page.items.last(), asked.limit) else { return None };
    let filter = asked.filter.iter().map(|filter| format!("&filter={}", escaped(filter.as_str()))).collect::<String>();
    Some(format!("{base}?after={}&limit={limit}{filter}{}", name(last), if recursion { "&recursion=1" } else { "" }))
}

/// `GET /v1/streams`
pub async fn list(State(face): Broker, Caller(who): Caller, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = list_query(&mut query, fields::STREAMS)?;
    query.finish()?;
    let page = face.broker().streams(&who, asked.clone()).await?;
    listed(page, &asked, "/v1/streams", recursion, |s| s.name.as_str().to_owned(), |s| reply::text(&Stream::from(s)))
}

/// `POST /v1/streams`
pub async fn create(State(face): Broker, Caller(who): Caller, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let info = face.broker().create_stream(&who, new_stream(&bytes)?).await?;
    let (location, id) = (objects::stream_url(&info.name), Some(info.id.to_string()));
    Ok(Reply::Created { metadata: reply::text(&Stream::from(info))?, location, id })
}

fn new_stream(body: &[u8]) -> Result<NewStream> {
    let mut fields = BodyFields::parse(body)?;
    fields.refuse_read_only(&READ_ONLY)?;
    let new = NewStream {
        name: StreamName::parse(&fields.need::<String>("name", "text")?)?,
        description: fields.take("description", "text")?.unwrap_or_default(),
        metadata: fields.take::<BTreeMap<String, String>>("metadata", "an object of texts")?.unwrap_or_default(),
        event_max_bytes: fields.take("event_max_bytes", "a number of bytes")?,
    };
    if let Some(durability) = fields.take::<String>("durability", "\"fsync\"")?
        && durability != "fsync"
    {
        return Err(Error::bad("durability", "Field durability must be \"fsync\"; this broker knows no weaker one."));
    }
    fields.refuse_unbuilt(&["retention", "idempotency_window_s", "frozen"])?;
    fields.finish()?;
    Ok(new)
}

/// `GET /v1/streams/{stream}`
///
/// With `recursion=1` the objects of its subscriptions stand inside it. One that is being deleted has none any more.
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    query.finish()?;
    let name = path.stream()?;
    let info = face.broker().stream(&who, &name).await?;
    let subscriptions = match (recursion, info.status) {
        (false, _) => return Reply::ok(&Stream::from(info)),
        (true, StreamStatus::Ready) => face.broker().subscriptions(&who, &name, ListQuery::default()).await?.items,
        (true, StreamStatus::Stopping) => Vec::new(),
    };
    Reply::ok(&Stream::from(info).with(&subscriptions))
}

/// `DELETE /v1/streams/{stream}`
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    let operation = face.broker().delete_stream(&who, &path.stream()?).await?;
    Ok(Reply::Async { metadata: reply::text(&objects::operation(&operation))?, operation: objects::operation_url(operation.id) })
}

/// `POST /v1/streams/{stream}/trim`
pub async fn trim(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let (name, to) = (path.stream()?, trim_to(&bytes)?);
    Reply::ok(&Stream::from(face.broker().trim_stream(&who, &name, to).await?))
}

fn trim_to(body: &[u8]) -> Result<TrimTo> {
    let mut fields = BodyFields::parse(body)?;
    let offset = fields.take::<u64>("before_offset", "an offset")?;
    let time = fields.take::<String>("before_time", "a time like 2026-01-26T10:00:00Z")?;
    fields.finish()?;
    match (offset, time) {
        (Some(offset), None) => Ok(TrimTo::Offset(offset)),
        (None, Some(time)) => Ok(TrimTo::Time(TimeUs::parse(&time).map_err(|e| e.detail("field", "before_time"))?)),
        _ => Err(Error::bad("before_offset", "Send exactly one of before_offset and before_time.")),
    }
}

/// `POST /v1/streams/{stream}/close`: no more events, for ever. The body may be empty.
pub async fn close(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonOrNothing(bytes): JsonOrNothing) -> reply::Result {
    let name = path.stream()?;
    BodyFields::parse_or_empty(&bytes)?.finish()?;
    Reply::ok(&Stream::from(face.broker().close_stream(&who, &name).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn a_new_stream_is_read_strictly() {
        let new = new_stream(br#"{"name":"orders","metadata":{"team":"pay"},"event_max_bytes":10,"durability":"fsync","retention":null}"#).unwrap();
        assert_eq!((new.name.as_str(), new.event_max_bytes, new.metadata["team"].as_str()), ("orders", Some(10), "pay"));
        for (bad, code) in [
            (r#"{}"#, Code::BadParameter),
            (r#"{"name":7}"#, Code::BadParameter),
            (r#"{"name":"a/b"}"#, Code::BadParameter),
            (r#"{"name":"a","event_max_bytes":-1}"#, Code::BadParameter),
            (r#"{"name":"a","durability":"none"}"#, Code::BadParameter),
            (r#"{"name":"a","retention":{"max_age_s":1}}"#, Code::NotImplemented),
            (r#"{"name":"a","id":1}"#, Code::ReadOnlyField),
            (r#"{"name":"a","colour":1}"#, Code::UnknownField),
        ] {
            assert_eq!(new_stream(bad.as_bytes()).unwrap_err().code, code, "{bad}");
        }
    }

    #[test]
    fn a_trim_names_exactly_one_bound() {
        assert_eq!(trim_to(br#"{"before_offset":7}"#), Ok(TrimTo::Offset(7)));
        assert!(matches!(trim_to(br#"{"before_time":"2026-01-26T10:00:00Z"}"#), Ok(TrimTo::Time(_))));
        for bad in ["{}", r#"{"before_offset":1,"before_time":"2026-01-26T10:00:00Z"}"#, r#"{"before_offset":-1}"#, r#"{"before_time":"soon"}"#] {
            assert_eq!(trim_to(bad.as_bytes()).unwrap_err().code, Code::BadParameter, "{bad}");
        }
    }
}
