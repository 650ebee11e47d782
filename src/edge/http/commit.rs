//! `Commit` over REST: acks and appends that happen together or not at all.

use axum::extract::State;

use super::body::JsonBody;
use super::{Broker, Caller, NoQuery, Reply, objects, reply};
use crate::wire::json;

/// `POST /v1/commit` (T-1 … T-7). A refused part is `txn_part_failed` with the status of its cause.
pub async fn commit(State(face): Broker, Caller(who): Caller, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    Reply::ok(&objects::committed(&face.broker().commit(&who, json::parse_commit_json(&bytes)?).await?))
}
