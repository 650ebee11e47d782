//! `/v1/keys`: the caller's user keys.

use axum::extract::State;
use axum::http::HeaderMap;

use super::super::body::JsonBody;
use super::super::fields::Fields;
use super::super::{Broker, Caller, NoQuery, Path, Query, Reply, refuse_conditions, reply, streams};

/// `GET /v1/keys`
pub async fn list(State(face): Broker, Caller(who): Caller, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, &[])?;
    query.finish()?;
    let page = face.broker().keys(&who, asked.clone()).await?;
    streams::listed(page, &asked, "/v1/keys", recursion, |key| key.name.to_string(), |key| reply::text(&super::key(&key)))
}

/// `POST /v1/keys`. The answer has the key, once.
pub async fn create(State(face): Broker, Caller(who): Caller, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let mut fields = Fields::parse(&bytes)?;
    fields.refuse_read_only(&["id", "user_id", "created_at", "key"])?;
    let name: String = fields.need("name", "text")?;
    fields.finish()?;
    let (info, key) = face.broker().create_key(&who, &name).await?;
    let mut metadata = super::key(&info);
    metadata["key"] = key.into();
    Ok(Reply::Created { metadata: reply::text(&metadata)?, location: format!("/v1/keys/{}", info.name), id: Some(info.id) })
}

/// `DELETE /v1/keys/{key}`
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    face.broker().delete_key(&who, path.part("name")).await?;
    Reply::ok(&serde_json::json!({}))
}
