//! `/v1/sources`

use axum::extract::State;
use axum::http::{HeaderMap, Method};

use super::super::body::{JsonBody, JsonOrNothing};
use super::super::fields::Fields;
use super::super::{Broker, Caller, NoQuery, Path, Query, Reply, refuse_conditions, reply, streams};
use crate::broker::{NewSource, SourceChange};
use crate::types::{Error, Result, UserName};

const READ_ONLY: [&str; 4] = ["id", "owner_id", "created_at", "key"];

fn id(path: &Path) -> Result<u64> {
    let text = path.part("source");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| Error::bad("source", "The id of a source is a number."))
}

/// `GET /v1/sources`
pub async fn list(State(face): Broker, Caller(who): Caller, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, crate::broker::fields::SOURCES)?;
    query.finish()?;
    let page = face.broker().sources(&who, asked.clone()).await?;
    streams::listed(page, &asked, "/v1/sources", recursion, |source| source.id.to_string(), |source| reply::text(&super::source(&source)))
}

/// `POST /v1/sources`. The answer has the key, once.
pub async fn create(State(face): Broker, Caller(who): Caller, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let (info, key) = face.broker().create_source(&who, new_source(&bytes)?).await?;
    let mut metadata = super::source(&info);
    metadata["key"] = key.into();
    Ok(Reply::Created { metadata: reply::text(&metadata)?, location: format!("/v1/sources/{}", info.id), id: Some(info.id.to_string()) })
}

fn new_source(body: &[u8]) -> Result<NewSource> {
    let mut fields = Fields::parse(body)?;
    fields.refuse_read_only(&READ_ONLY)?;
    let new = NewSource {
        name: fields.need("name", "text")?,
        description: fields.take("description", "text")?.unwrap_or_default(),
        owner: fields.take::<String>("owner", "the name of a user")?.as_deref().map(UserName::parse).transpose()?,
    };
    fields.finish()?;
    Ok(new)
}

/// `GET /v1/sources/{source}`
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    Reply::ok(&super::source(&face.broker().source(&who, id(&path)?).await?))
}

/// `PUT` and `PATCH /v1/sources/{source}`
pub async fn change(
    State(face): Broker,
    Caller(who): Caller,
    path: Path,
    method: Method,
    _: NoQuery,
    headers: HeaderMap,
    JsonBody(bytes): JsonBody,
) -> reply::Result {
    refuse_conditions(&headers)?;
    let id = id(&path)?;
    Reply::ok(&super::source(&face.broker().change_source(&who, id, source_change(&bytes, method == Method::PUT)?).await?))
}

fn source_change(body: &[u8], replace: bool) -> Result<SourceChange> {
    let mut fields = Fields::parse(body)?;
    fields.read_only(&READ_ONLY, replace)?;
    let mut change = SourceChange {
        name: fields.take("name", "text")?,
        description: fields.take("description", "text")?,
        disabled: fields.take("disabled", "true or false")?,
    };
    if replace {
        change.description.get_or_insert_default();
        change.disabled.get_or_insert_default();
    }
    fields.finish()?;
    Ok(change)
}

/// `POST /v1/sources/{source}/rotate`. The answer has the new key, once; the old one is over.
pub async fn rotate(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, JsonOrNothing(bytes): JsonOrNothing) -> reply::Result {
    let id = id(&path)?;
    Fields::parse_or_empty(&bytes)?.finish()?;
    let (info, key) = face.broker().rotate_source(&who, id).await?;
    let mut metadata = super::source(&info);
    metadata["key"] = key.into();
    Reply::ok(&metadata)
}

/// `DELETE /v1/sources/{source}`
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    face.broker().delete_source(&who, id(&path)?).await?;
    Reply::ok(&serde_json::json!({}))
}
