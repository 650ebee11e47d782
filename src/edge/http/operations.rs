//! Operations over REST: lists, looking and waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::Method;
use serde_json::Value;

use super::{Broker, Caller, NoQuery, Path, Query, Reply, objects, reply, streams};
use crate::broker::fields;
use crate::types::name::quote;
use crate::types::{Code, Error, OperationId, Result, limits};

fn id(path: &Path) -> Result<OperationId> {
    let text = path.part("operation");
    let missing = || Error::new(Code::NotFound, format!("There is no operation {}.", quote(text)));
    uuid::Uuid::try_parse(text).map(OperationId).map_err(|_| missing())
}

/// `GET /v1/operations`: addresses by the status of what they are of, in small letters, as LXD does; with `recursion=1` the operations.
pub async fn list(State(face): Broker, Caller(who): Caller, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, fields::OPERATIONS)?;
    query.finish()?;
    let page = face.broker().operations(&who, asked.clone()).await?;
    let next = streams::next_page(&page, &asked, "/v1/operations", recursion, |info| info.id.to_string());
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for info in page.items {
        let shown = if recursion { objects::operation(&info) } else { objects::operation_url(info.id).into() };
        groups.entry(info.status().to_ascii_lowercase()).or_default().push(shown);
    }
    Ok(Reply::Sync { metadata: reply::text(&groups)?, next })
}

/// `GET /v1/operations/{operation}`
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    Reply::ok(&objects::operation(&face.broker().operation(&who, id(&path)?).await?))
}

/// `GET /v1/operations/{operation}/wait?timeout=`: absent or -1 = until it is final. A HEAD never waits.
pub async fn wait(State(face): Broker, Caller(who): Caller, path: Path, method: Method, mut query: Query) -> reply::Result {
    let most = limits::OPERATION_WAIT;
    let seconds = query.take_number("timeout", -1, i64::MAX)?.unwrap_or(-1);
    query.finish()?;
    let asked = u64::try_from(seconds).map_or(most, |s| Duration::from_secs(s).min(most));
    let timeout = if method == Method::HEAD { Duration::ZERO } else { asked };
    let info = tokio::select! {
        info = face.broker().wait_operation(&who, id(&path)?, timeout) => info?,
        () = face.draining().cancelled() => face.broker().operation(&who, id(&path)?).await?,
    };
    Reply::ok(&objects::operation(&info))
}

/// `DELETE /v1/operations/{operation}`: no operation that exists so far can be cancelled.
pub async fn cancel(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    let info = face.broker().operation(&who, id(&path)?).await?;
    if info.status_code >= 200 {
        return Err(Error::new(Code::AlreadyFinal, "The operation has ended already.").into());
    }
    Err(Error::new(Code::NotCancelable, "This operation cannot be cancelled.").into())
}
