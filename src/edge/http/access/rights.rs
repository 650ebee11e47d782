//! `/v1/streams/{stream}/rights`

use axum::extract::State;
use axum::http::HeaderMap;

use super::super::body::JsonBody;
use super::super::fields::Fields;
use super::super::{Broker, Caller, NoQuery, Path, Query, Reply, refuse_conditions, reply, streams};
use crate::broker::PrincipalRef;
use crate::types::name::quote;
use crate::types::{Error, Result, Right};

/// Every word of a right, for errors.
const WORDS: &str = "None, ReadOnly, WriteOnly, ReadWrite or Admin";

/// The word of a right, in any case.
///
/// # Errors
/// `bad_parameter`, listing the words.
pub(in crate::edge) fn word(text: &str) -> Result<Right> {
    Right::parse(text).ok_or_else(|| Error::bad("right", format!("Field right is {}; it must be {WORDS}.", quote(text))))
}

fn principal(path: &Path) -> Result<PrincipalRef> {
    PrincipalRef::parse(path.part("principal"))
}

/// `GET …/rights`
pub async fn list(State(face): Broker, Caller(who): Caller, path: Path, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, &[])?;
    query.finish()?;
    let stream = path.stream()?;
    let page = face.broker().rights(&who, &stream, asked.clone()).await?;
    let base = format!("/v1/streams/{stream}/rights");
    streams::listed(page, &asked, &base, recursion, |right| right.principal.to_string(), |right| reply::text(&super::right(&right)))
}

/// `GET …/rights/{principal}`
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    Reply::ok(&super::right(&face.broker().right(&who, &path.stream()?, &principal(&path)?).await?))
}

/// `PUT …/rights/{principal}`
pub async fn set(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap, JsonBody(bytes): JsonBody) -> reply::Result {
    refuse_conditions(&headers)?;
    let (stream, principal) = (path.stream()?, principal(&path)?);
    let mut fields = Fields::parse(&bytes)?;
    fields.ignore(&["effective"]);
    fields.take_same("principal", path.part("principal"))?;
    let right = word(&fields.need::<String>("right", WORDS)?)?;
    fields.finish()?;
    Reply::ok(&super::right(&face.broker().set_right(&who, &stream, &principal, right).await?))
}

/// `DELETE …/rights/{principal}`: sets `None`. Nothing is lost by it, so a user key may.
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    Reply::ok(&super::right(&face.broker().set_right(&who, &path.stream()?, &principal(&path)?, Right::None).await?))
}
