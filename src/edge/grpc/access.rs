//! Service `Access`: who may do what. Decode, call the broker once, encode; words and rules are those of REST.
//!
//! A secret is in one answer only: the one to the call that made it.

use bytes::Bytes;

use super::admin::{page, page_of, stream};
use super::call::Call;
use super::message;
use crate::broker::{KeyInfo, Login, NewSource, NewUser, PrincipalRef, RightInfo, SourceChange, SourceInfo, UserChange, UserInfo, WhoInfo, fields};
use crate::edge::http::access::{rights, shown_time};
use crate::types::{Result, TimeUs, UserName};
use crate::wire::proto::{request, v1};

/// The methods of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    ListUsers,
    CreateUser,
    GetUser,
    ChangeUser,
    DeleteUser,
    ListSources,
    CreateSource,
    GetSource,
    ChangeSource,
    RotateSource,
    DeleteSource,
    ListKeys,
    CreateKey,
    DeleteKey,
    ListRights,
    GetRight,
    SetRight,
    OpenSession,
    GetSession,
    CloseSession,
    CreateTicket,
}

impl Method {
    /// By its name in the proto file.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ListUsers" => Self::ListUsers,
            "CreateUser" => Self::CreateUser,
            "GetUser" => Self::GetUser,
            "ChangeUser" => Self::ChangeUser,
            "DeleteUser" => Self::DeleteUser,
            "ListSources" => Self::ListSources,
            "CreateSource" => Self::CreateSource,
            "GetSource" => Self::GetSource,
            "ChangeSource" => Self::ChangeSource,
            "RotateSource" => Self::RotateSource,
            "DeleteSource" => Self::DeleteSource,
            "ListKeys" => Self::ListKeys,
            "CreateKey" => Self::CreateKey,
            "DeleteKey" => Self::DeleteKey,
            "ListRights" => Self::ListRights,
            "GetRight" => Self::GetRight,
            "SetRight" => Self::SetRight,
            "OpenSession" => Self::OpenSession,
            "GetSession" => Self::GetSession,
            "CloseSession" => Self::CloseSession,
            "CreateTicket" => Self::CreateTicket,
            _ => return None,
        })
    }

    /// Does it change nothing? Then a deadline that passes leaves nothing in doubt.
    pub fn only_looks(self) -> bool {
        match self {
            Self::ListUsers | Self::GetUser | Self::ListSources | Self::GetSource | Self::ListKeys => true,
            Self::ListRights | Self::GetRight | Self::GetSession => true,
            Self::CreateUser | Self::ChangeUser | Self::DeleteUser => false,
            Self::CreateSource | Self::ChangeSource | Self::RotateSource | Self::DeleteSource => false,
            Self::CreateKey | Self::DeleteKey | Self::SetRight => false,
            Self::OpenSession | Self::CloseSession | Self::CreateTicket => false,
        }
    }
}

/// Answers one call.
///
/// # Errors
/// Those of the broker's call, and of reading the request.
pub async fn answer(call: &Call, method: Method, bytes: &[u8]) -> Result<Bytes> {
    let (broker, who) = (call.broker(), call.who());
    Ok(match method {
        Method::ListUsers => {
            let m: v1::ListUsersRequest = request::read("ListUsersRequest", bytes)?;
            let page = broker.users(who, page_of(m.after, m.limit, &m.filter, fields::USERS)?).await?;
            message::of(&v1::ListUsersResponse { users: page.items.iter().map(user_message).collect(), more: page.more })
        }
        Method::CreateUser => {
            let m: v1::CreateUserRequest = request::read("CreateUserRequest", bytes)?;
            let new = NewUser { name: UserName::parse(&m.name)?, password: m.password, root: m.root };
            message::of(&user_message(&broker.create_user(who, new).await?))
        }
        Method::GetUser => {
            let m: v1::GetUserRequest = request::read("GetUserRequest", bytes)?;
            message::of(&user_message(&broker.user(who, &UserName::parse(&m.name)?).await?))
        }
        Method::ChangeUser => {
            let m: v1::ChangeUserRequest = request::read("ChangeUserRequest", bytes)?;
            let change = UserChange { password: m.password, root: m.root, disabled: m.disabled };
            message::of(&user_message(&broker.change_user(who, &UserName::parse(&m.name)?, change).await?))
        }
        Method::DeleteUser => {
            let m: v1::DeleteUserRequest = request::read("DeleteUserRequest", bytes)?;
            broker.delete_user(who, &UserName::parse(&m.name)?).await?;
            message::of(&v1::DeleteUserResponse {})
        }
        Method::ListSources => {
            let m: v1::ListSourcesRequest = request::read("ListSourcesRequest", bytes)?;
            let after = if m.after == 0 { String::new() } else { m.after.to_string() };
            let page = broker.sources(who, page_of(after, m.limit, &m.filter, fields::SOURCES)?).await?;
            message::of(&v1::ListSourcesResponse { sources: page.items.iter().map(source_message).collect(), more: page.more })
        }
        Method::CreateSource => {
            let m: v1::CreateSourceRequest = request::read("CreateSourceRequest", bytes)?;
            let owner = m.owner.as_deref().map(UserName::parse).transpose()?;
            let (info, key) = broker.create_source(who, NewSource { name: m.name, description: m.description, owner }).await?;
            message::of(&v1::SourceWithKey { source: Some(source_message(&info)), key })
        }
        Method::GetSource => {
            let m: v1::GetSourceRequest = request::read("GetSourceRequest", bytes)?;
            message::of(&source_message(&broker.source(who, m.id).await?))
        }
        Method::ChangeSource => {
            let m: v1::ChangeSourceRequest = request::read("ChangeSourceRequest", bytes)?;
            let change = SourceChange { name: m.name, description: m.description, disabled: m.disabled };
            message::of(&source_message(&broker.change_source(who, m.id, change).await?))
        }
        Method::RotateSource => {
            let m: v1::RotateSourceRequest = request::read("RotateSourceRequest", bytes)?;
            let (info, key) = broker.rotate_source(who, m.id).await?;
            message::of(&v1::SourceWithKey { source: Some(source_message(&info)), key })
        }
        Method::DeleteSource => {
            let m: v1::DeleteSourceRequest = request::read("DeleteSourceRequest", bytes)?;
            broker.delete_source(who, m.id).await?;
            message::of(&v1::DeleteSourceResponse {})
        }
        Method::ListKeys => {
            let m: v1::ListKeysRequest = request::read("ListKeysRequest", bytes)?;
            let page = broker.keys(who, page(m.after, m.limit)?).await?;
            message::of(&v1::ListKeysResponse { keys: page.items.iter().map(key_message).collect(), more: page.more })
        }
        Method::CreateKey => {
            let m: v1::CreateKeyRequest = request::read("CreateKeyRequest", bytes)?;
            let (info, key) = broker.create_key(who, &m.name).await?;
            message::of(&v1::KeyWithSecret { info: Some(key_message(&info)), key })
        }
        Method::DeleteKey => {
            let m: v1::DeleteKeyRequest = request::read("DeleteKeyRequest", bytes)?;
            broker.delete_key(who, &m.name).await?;
            message::of(&v1::DeleteKeyResponse {})
        }
        Method::ListRights => {
            let m: v1::ListRightsRequest = request::read("ListRightsRequest", bytes)?;
            let page = broker.rights(who, &stream(&m.stream)?, page(m.after, m.limit)?).await?;
            message::of(&v1::ListRightsResponse { rights: page.items.iter().map(right_message).collect(), more: page.more })
        }
        Method::GetRight => {
            let m: v1::GetRightRequest = request::read("GetRightRequest", bytes)?;
            message::of(&right_message(&broker.right(who, &stream(&m.stream)?, &PrincipalRef::parse(&m.principal)?).await?))
        }
        Method::SetRight => {
            let m: v1::SetRightRequest = request::read("SetRightRequest", bytes)?;
            let (name, principal) = (stream(&m.stream)?, PrincipalRef::parse(&m.principal)?);
            message::of(&right_message(&broker.set_right(who, &name, &principal, rights::word(&m.right)?).await?))
        }
        Method::OpenSession => {
            let m: v1::OpenSessionRequest = request::read("OpenSessionRequest", bytes)?;
            let Login { token, user, expires } = call.face().log_in(call.peer(), &m.name, &m.password).await?;
            message::of(&v1::Session { token, expires_us: expires.0, user: Some(user_message(&user)) })
        }
        Method::GetSession => {
            let v1::GetSessionRequest {} = request::read("GetSessionRequest", bytes)?;
            message::of(&caller_message(broker.who_is(who).await?))
        }
        Method::CloseSession => {
            let v1::CloseSessionRequest {} = request::read("CloseSessionRequest", bytes)?;
            broker.log_out(who).await?;
            message::of(&v1::CloseSessionResponse {})
        }
        Method::CreateTicket => {
            let v1::CreateTicketRequest {} = request::read("CreateTicketRequest", bytes)?;
            let (ticket, expires) = broker.issue_ticket(who).await?;
            message::of(&v1::Ticket { ticket, expires_us: expires.0 })
        }
    })
}

fn us(at: TimeUs) -> Option<i64> {
    shown_time(at).map(|at| at.0)
}

fn user_message(info: &UserInfo) -> v1::User {
    v1::User {
        name: info.name.to_string(),
        root: info.root,
        disabled: info.disabled,
        id: info.id,
        has_password: info.has_password,
        created_us: us(info.created),
    }
}

fn source_message(info: &SourceInfo) -> v1::Source {
    v1::Source {
        name: info.name.clone(),
        description: info.description.clone(),
        disabled: info.disabled,
        id: info.id,
        owner_id: info.owner,
        created_us: us(info.created),
    }
}

fn key_message(info: &KeyInfo) -> v1::Key {
    v1::Key { name: info.name.to_string(), id: info.id.clone(), user_id: info.user, created_us: us(info.created), expires_us: info.expires.and_then(us) }
}

fn right_message(info: &RightInfo) -> v1::Right {
    v1::Right { principal: info.principal.to_string(), right: info.right.as_str().into(), effective: info.effective.as_str().into() }
}

fn caller_message(info: WhoInfo) -> v1::Caller {
    v1::Caller {
        kind: info.kind.as_str().into(),
        user: info.user.as_ref().map(user_message),
        source: info.source.as_ref().map(source_message),
        key: info.key,
        expires_us: info.expires.and_then(us),
    }
}
