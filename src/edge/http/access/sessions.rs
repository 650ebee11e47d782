//! `/v1/sessions` and `/v1/tickets`: credentials with an end.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::json;

use super::super::body::{JsonOrNothing, StrangersJson};
use super::super::fields::Fields;
use super::super::{Broker, Caller, NoQuery, Reply, refuse_conditions, reply};
use crate::edge::Peer;

/// `POST /v1/sessions`: a console session by name and password; a credential that came along means nothing.
pub async fn open(State(face): Broker, Extension(peer): Extension<Peer>, _: NoQuery, StrangersJson(bytes): StrangersJson) -> reply::Result {
    let mut fields = Fields::parse(&bytes)?;
    let name: String = fields.need("name", "text")?;
    let password = fields.take_secret("password")?.unwrap_or_default();
    fields.finish()?;
    let login = face.log_in(Some(peer), &name, &password).await?;
    let metadata = json!({ "token": login.token, "expires_at": super::time(login.expires), "user": super::user(&login.user) });
    Ok(Reply::Created { metadata: reply::text(&metadata)?, location: "/v1/sessions/current".into(), id: None })
}

/// `GET /v1/sessions/current`: who the caller is, whatever its credential.
pub async fn show(State(face): Broker, Caller(who): Caller, _: NoQuery) -> reply::Result {
    let info = face.broker().who_is(&who).await?;
    Reply::ok(&json!({
        "kind": info.kind.as_str(), "user": info.user.as_ref().map(super::user), "usage": info.usage.as_ref().map(super::usage),
        "source": info.source.as_ref().map(super::source),
        "key": info.key, "expires_at": info.expires.map(super::time),
    }))
}

/// `DELETE /v1/sessions/current`
pub async fn close(State(face): Broker, Caller(who): Caller, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    face.broker().log_out(&who).await?;
    Reply::ok(&json!({}))
}

/// `POST /v1/tickets`
pub async fn ticket(State(face): Broker, Caller(who): Caller, _: NoQuery, JsonOrNothing(bytes): JsonOrNothing) -> reply::Result {
    Fields::parse_or_empty(&bytes)?.finish()?;
    let (ticket, expires) = face.broker().issue_ticket(&who).await?;
    Reply::ok(&json!({ "ticket": ticket, "expires_at": super::time(expires) }))
}
