//! Console sessions and tickets: credentials with an end.

use super::{AccessChange, Family, Kind, NewKey, NewTicket, Principal, SourceInfo, Token, UsageInfo, UserInfo, denied, unknown_credential};
use crate::broker::Broker;
use crate::broker::admin::shown;
use crate::broker::audit::By;
use crate::broker::commit::engine_failure;
use crate::log::rows::{self, ApiKeyId, value};
use crate::types::{Code, Error, Result, TimeUs, UserName, limits};

/// A console session that was opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// To be sent as `Authorization: Bearer`.
    pub token: String,
    /// Whose it is.
    pub user: UserInfo,
    /// It ends then at the latest.
    pub expires: TimeUs,
}

/// Who a caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoInfo {
    /// What kind of credential it showed.
    pub kind: Kind,
    /// As which user it acts; the operator on the socket has none to show.
    pub user: Option<UserInfo>,
    /// What that user has and does; a source is not told.
    pub usage: Option<UsageInfo>,
    /// As which source.
    pub source: Option<SourceInfo>,
    /// Public part of its key.
    pub key: Option<String>,
    /// When the credential ends by itself.
    pub expires: Option<TimeUs>,
}

impl Broker {
    /// Opens a console session by name and password. An unknown name costs the same work and gets the same answer as a wrong password.
    ///
    /// # Errors
    /// `unauthenticated`, `overloaded`.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<Login> {
        let wrong = || Error::new(Code::Unauthenticated, "Name or password are not right, or the user may not log in.");
        let id = match UserName::parse(name) {
            Ok(name) => self.user_id(&name).await?,
            Err(_) => None,
        };
        let row = match id {
            Some(id) => self.user_row(id).await?,
            None => None,
        };
        let usable = row.as_ref().filter(|row| !row.password.is_empty() && !row.disabled && !row.deleting);
        let good = self.inner.access.vault.is_password(password.to_owned(), usable.map(|row| row.password.clone())).await?;
        let known = id.zip(row.as_ref()).map(|(id, row)| (id, row.name.as_str()));
        let (Some(user), Some(logins), true) = (id, usable.map(|row| row.logins), good) else {
            self.login_failed(known);
            return Err(wrong());
        };
        let token = Token::new(Family::Session);
        let key = NewKey { id: *token.id(), hash: self.inner.access.vault.hash(&token) };
        let expires = TimeUs(self.inner.world.now().0 + limits::CONSOLE_SESSION.as_micros() as i64);
        self.change(By::password(known), AccessChange::OpenLogin { user, logins, key, expires })
            .await
            .map_err(|error| if error.code == Code::NotFound { wrong() } else { error })?;
        let user = shown(self.user_by_id(user).await.and_then(|found| found.ok_or_else(wrong)))?;
        Ok(Login { token: token.reveal().to_owned(), user, expires })
    }

    /// Ends the caller's console session.
    ///
    /// # Errors
    /// `bad_parameter` when the caller has none.
    pub async fn log_out(&self, who: &Principal) -> Result<()> {
        self.still_good(who).await?;
        match who {
            Principal::Known(identity) if identity.kind() == Kind::Console && identity.key().is_some() => {
                let id = *identity.key().ok_or_else(unknown_credential)?;
                self.change(self.by(who).await, AccessChange::DeleteKey { id }).await.map(drop)
            }
            _ => Err(Error::bad("session", "This credential is no console session, so there is none to end.")),
        }
    }

    /// A ticket: whoever shows it first, within half a minute, is who asked for it. For browsers, which cannot send headers with a WebSocket.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn issue_ticket(&self, who: &Principal) -> Result<(String, TimeUs)> {
        who.known()?;
        self.still_good(who).await?;
        if who.kind() == Kind::Node {
            return Err(denied("A node needs no tickets.".into()));
        }
        let (parent, holder_expires) = match who {
            Principal::Known(identity) => (identity.key().copied(), identity.expires()),
            Principal::Operator | Principal::Anonymous => (None, None),
        };
        let token = Token::new(Family::Ticket);
        let key = NewKey { id: *token.id(), hash: self.inner.access.vault.hash(&token) };
        let expires = TimeUs(self.inner.world.now().0 + limits::TICKET_LIFE.as_micros() as i64);
        let ticket = NewTicket { user: who.user_id(), source: who.source_id(), parent, expires, holder_expires };
        self.change(By::broker(), AccessChange::IssueTicket { key, ticket }).await?;
        Ok((token.reveal().to_owned(), expires))
    }

    /// Who the caller is.
    ///
    /// # Errors
    /// `unauthenticated` for a credential that is over.
    pub async fn who_is(&self, who: &Principal) -> Result<WhoInfo> {
        let mut info = WhoInfo { kind: who.kind(), user: None, usage: None, source: None, key: None, expires: None };
        let Principal::Known(identity) = who else { return Ok(info) };
        self.still_good(who).await?;
        info.user = self.user_by_id(identity.user()).await?;
        if let (Some(user), 0) = (&info.user, identity.source()) {
            info.usage = Some(self.usage_of(user).await?);
        }
        if identity.source() != 0 {
            info.source = self.source_by_id(identity.source()).await?;
        }
        info.key = identity.public_key();
        info.expires = identity.expires();
        Ok(info)
    }

    /// Forgets sessions and tickets that are over. The server calls it now and then.
    ///
    /// # Errors
    /// When the engine cannot be read or written.
    pub async fn forget_tokens(&self, now: TimeUs) -> Result<()> {
        let mut after = None;
        loop {
            // Page by page: there may be many more keys than sessions.
            let page = self.inner.engine.scan(rows::prefix::api_keys(), after, 1024).await.map_err(|e| engine_failure(&e))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.to_vec());
            for (key, bytes) in page {
                let row: value::ApiKey = rows::decode(&bytes).map_err(Error::internal)?;
                let id: Option<ApiKeyId> = key.get(1..).and_then(|id| id.try_into().ok());
                if let Some(id) = id.filter(|_| row.expires_us != 0 && row.expires_us <= now.0) {
                    match self.change(By::broker(), AccessChange::DeleteKey { id }).await {
                        Err(error) if error.code != Code::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
        }
    }
}
