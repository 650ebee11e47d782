//! Credentials as requests carry them, over every protocol, and what becomes of those who guess.

use http::{Extensions, HeaderMap, header};

use super::auth::Ticket;
use super::certificate::Shown;
use super::{Face, Peer};
use crate::broker::{Login, Principal, credential_id};
use crate::types::{Code, Error, Result};

impl Face {
    /// For whom a request is made. An explicit Bearer beats a ticket, that a certificate, and that the door (`surfaces.md` 5.2).
    ///
    /// # Errors
    /// `unauthenticated`, `session_expired`; `rate_limited` after too many that were not known.
    pub async fn principal(&self, extensions: &Extensions, headers: &HeaderMap) -> Result<Principal> {
        let peer = extensions.get::<Peer>().copied();
        if let Some(token) = bearer(headers)? {
            return self.shown(peer, token).await;
        }
        if let Some(Ticket(ticket)) = extensions.get::<Ticket>() {
            return self.shown(peer, ticket).await;
        }
        match extensions.get::<Shown>() {
            Some(certificate) => certificate.principal(self.broker()).await,
            None => Ok(peer.map_or(Principal::Anonymous, |peer| self.settings().doors.principal(peer))),
        }
    }

    /// A key, session token or ticket that somebody shows.
    ///
    /// # Errors
    /// As above.
    pub async fn shown(&self, peer: Option<Peer>, token: &str) -> Result<Principal> {
        let address = peer.and_then(Peer::address);
        let failures = self.failures();
        failures.check(address, credential_id(token))?;
        let found = self.broker().authenticate(token).await;
        if let Err(error) = &found
            && error.code == Code::Unauthenticated
        {
            failures.note(address, credential_id(token));
        }
        found
    }

    /// Opens a console session for somebody whose credential is a name and a password. Guesses count against the address.
    ///
    /// # Errors
    /// `unauthenticated`, `overloaded`; `rate_limited` after too many that were not right.
    pub async fn log_in(&self, peer: Option<Peer>, name: &str, password: &str) -> Result<Login> {
        let address = peer.and_then(Peer::address);
        self.failures().check(address, None)?;
        self.broker().log_in(name, password).await.inspect_err(|error| {
            if error.code == Code::Unauthenticated {
                self.failures().note(address, None);
            }
        })
    }
}

/// The one credential in the headers.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Error::bad("authorization", "Header Authorization is given twice; send one credential.")),
    };
    // The value is never repeated: it may be a key with a typing error.
    let wrong = || Error::new(Code::Unauthenticated, "Header Authorization is not of the form `Bearer <key>`.");
    let text = value.to_str().map_err(|_| wrong())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_bearer_is_read_in_any_case_and_nothing_else_is_taken() {
        assert_eq!(bearer(&headers(&[])).unwrap(), None);
        assert_eq!(bearer(&headers(&["Bearer tlu_x"])).unwrap(), Some("tlu_x"));
        assert_eq!(bearer(&headers(&["bEARER  tlu_x "])).unwrap(), Some("tlu_x"));
        for bad in ["tlu_x", "Basic dXNlcjpwdw==", "Bearer\u{a0}x", "Bearer"] {
            let error = bearer(&headers(&[bad])).unwrap_err();
            assert_eq!(error.code, Code::Unauthenticated, "{bad}");
            assert!(!error.message.contains("tlu_x"));
        }
        assert_eq!(bearer(&headers(&["Bearer a", "Bearer b"])).unwrap_err().code, Code::BadParameter);
    }
}
