//! `/v1/users`

use axum::extract::State;
use axum::http::{HeaderMap, Method};

use super::super::body::JsonBody;
use super::super::fields::Fields;
use super::super::{Broker, Caller, NoQuery, Path, Query, Reply, refuse_conditions, reply, streams};
use crate::broker::{NewUser, UserChange};
use crate::types::{Result, UserName};

const READ_ONLY: [&str; 4] = ["id", "has_password", "created_at", "usage"];

fn name(path: &Path) -> Result<UserName> {
    UserName::parse(path.part("user"))
}

/// `GET /v1/users`
pub async fn list(State(face): Broker, Caller(who): Caller, mut query: Query) -> reply::Result {
    let recursion = query.take_flag("recursion")?;
    let asked = streams::list_query(&mut query, crate::broker::fields::USERS)?;
    query.finish()?;
    let page = face.broker().users(&who, asked.clone()).await?;
    streams::listed(page, &asked, "/v1/users", recursion, |user| user.name.to_string(), |user| reply::text(&super::user(&user)))
}

/// `POST /v1/users`
pub async fn create(State(face): Broker, Caller(who): Caller, _: NoQuery, JsonBody(bytes): JsonBody) -> reply::Result {
    let info = face.broker().create_user(&who, new_user(&bytes)?).await?;
    let (location, id) = (format!("/v1/users/{}", info.name), Some(info.id.to_string()));
    Ok(Reply::Created { metadata: reply::text(&super::user(&info))?, location, id })
}

fn new_user(body: &[u8]) -> Result<NewUser> {
    let mut fields = Fields::parse(body)?;
    fields.refuse_read_only(&READ_ONLY)?;
    let new = NewUser {
        name: UserName::parse(&fields.need::<String>("name", "text")?)?,
        password: fields.take_secret("password")?,
        root: fields.take("root", "true or false")?.unwrap_or_default(),
    };
    fields.refuse_unbuilt(&["entitlements"])?;
    fields.finish()?;
    Ok(new)
}

/// `GET /v1/users/{user}`, with what it has and does.
pub async fn show(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery) -> reply::Result {
    let (user, usage) = face.broker().user_and_usage(&who, &name(&path)?).await?;
    let mut shown = super::user(&user);
    shown["usage"] = super::usage(&usage);
    Reply::ok(&shown)
}

/// `PUT` and `PATCH /v1/users/{user}`. A password that is left out stays, whatever the method.
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
    let name = name(&path)?;
    Reply::ok(&super::user(&face.broker().change_user(&who, &name, user_change(&bytes, &name, method == Method::PUT)?).await?))
}

fn user_change(body: &[u8], name: &UserName, replace: bool) -> Result<UserChange> {
    let mut fields = Fields::parse(body)?;
    fields.read_only(&READ_ONLY, replace)?;
    fields.take_same("name", name.as_str())?;
    let mut change = UserChange {
        password: fields.take_secret("password")?,
        root: fields.take("root", "true or false")?,
        disabled: fields.take("disabled", "true or false")?,
    };
    if replace {
        change.root.get_or_insert_default();
        change.disabled.get_or_insert_default();
    }
    fields.finish()?;
    Ok(change)
}

/// `DELETE /v1/users/{user}`
pub async fn delete(State(face): Broker, Caller(who): Caller, path: Path, _: NoQuery, headers: HeaderMap) -> reply::Result {
    refuse_conditions(&headers)?;
    face.broker().delete_user(&who, &name(&path)?).await?;
    Reply::ok(&serde_json::json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn a_new_user_is_read_strictly_and_its_password_is_never_repeated() {
        let new = new_user(br#"{"name":"alice","password":"correct horse"}"#).unwrap();
        assert_eq!((new.name.as_str(), new.password.as_deref(), new.root), ("alice", Some("correct horse"), false));
        for (bad, code) in [
            ("{}", Code::BadParameter),
            (r#"{"name":"a b"}"#, Code::BadParameter),
            (r#"{"name":"аlice"}"#, Code::BadParameter),
            (r#"{"name":"a","password":["hunter2"]}"#, Code::BadParameter),
            (r#"{"name":"a","root":"yes"}"#, Code::BadParameter),
            (r#"{"name":"a","id":1}"#, Code::ReadOnlyField),
            (r#"{"name":"a","colour":1}"#, Code::UnknownField),
        ] {
            let error = new_user(bad.as_bytes()).err().unwrap();
            assert_eq!(error.code, code, "{bad}");
            assert!(!error.message.contains("hunter2"), "{}", error.message);
        }
    }

    #[test]
    fn put_gives_defaults_and_patch_leaves_alone() {
        let name = UserName::parse("alice").unwrap();
        let put = user_change(br#"{"name":"alice","id":7}"#, &name, true).unwrap();
        assert_eq!((put.root, put.disabled, put.password), (Some(false), Some(false), None));
        let patch = user_change(br#"{"disabled":true}"#, &name, false).unwrap();
        assert_eq!((patch.root, patch.disabled), (None, Some(true)));
        assert!(user_change(br#"{"name":"bob"}"#, &name, false).is_err());
    }
}
