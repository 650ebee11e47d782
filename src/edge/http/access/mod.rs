//! Who may do what, over REST: users, sources, keys, sessions, tickets and rights (`surfaces.md` 5.2, 5.4, 5.5).
//!
//! A secret is in one answer only: the one to the request that made it.

use serde_json::{Map, Value, json};

use crate::broker::{KeyInfo, Quotas, Rate, RightInfo, SourceInfo, UsageInfo, UserInfo};
use crate::types::TimeUs;

pub mod keys;
pub mod rights;
pub mod sessions;
pub mod sources;
pub mod users;

/// A user; `private` fields are for the user and the operator.
fn user(info: &UserInfo) -> Value {
    json!({
        "name": info.name.as_str(), "root": info.root, "disabled": info.disabled,
        "id": info.id, "has_password": info.has_password, "created_at": time(info.created),
    })
}

/// What a user has and does, and how much of it there may be.
fn usage(info: &UsageInfo) -> Value {
    let mut all: Map<String, Value> = info.counts.iter().map(|(of, used, limit)| (of.as_str().to_owned(), json!({ "used": used, "limit": limit }))).collect();
    let rate = |rate: &Rate| json!({ "per_s": Some(rate.per_s).filter(|per_s| *per_s != 0), "burst": rate.burst });
    let Quotas { requests, bytes, data_rates, .. } = &info.quotas;
    all.insert("rates".into(), json!({ "requests": rate(requests), "bytes": rate(bytes), "data": data_rates }));
    all.into()
}

fn source(info: &SourceInfo) -> Value {
    json!({
        "name": info.name, "description": info.description, "disabled": info.disabled,
        "id": info.id, "owner_id": info.owner, "created_at": time(info.created),
    })
}

fn key(info: &KeyInfo) -> Value {
    json!({ "name": info.name.as_str(), "id": info.id, "user_id": info.user, "created_at": time(info.created), "expires_at": info.expires.map(time) })
}

fn right(info: &RightInfo) -> Value {
    json!({ "principal": info.principal.to_string(), "right": info.right.as_str(), "effective": info.effective.as_str() })
}

fn time(at: TimeUs) -> Value {
    shown_time(at).map_or(Value::Null, |at| at.to_string().into())
}

/// A time that is told: the operator has no day of birth.
pub(in crate::edge) fn shown_time(at: TimeUs) -> Option<TimeUs> {
    Some(at).filter(|at| at.0 != 0)
}
