//! One call: for whom, until when, under which id, and what its answer looks like when it fails.

use std::sync::Arc;

use http::{HeaderMap, request::Parts};
use tokio::time::Instant;
use tonic::Status;

use super::{status, timeout};
use crate::broker::{Broker, Principal, Usage};
use crate::edge::http::RequestId;
use crate::edge::{Face, Peer};
use crate::types::{Error, Result};

/// See the module.
pub struct Call {
    face: Face,
    who: Principal,
    peer: Option<Peer>,
    id: Arc<str>,
    deadline: Option<Instant>,
}

impl Call {
    /// Reads what the headers say.
    ///
    /// # Errors
    /// `bad_parameter` for a deadline that is none.
    pub async fn of(face: Face, parts: &Parts) -> Result<Self> {
        let who = face.principal(&parts.extensions, &parts.headers).await?;
        Self::by(who, face, parts)
    }

    /// Of somebody who comes to say who it is: a credential that came along means nothing.
    ///
    /// # Errors
    /// As [`Call::of`].
    pub fn of_a_stranger(face: Face, parts: &Parts) -> Result<Self> {
        Self::by(Principal::Anonymous, face, parts)
    }

    fn by(who: Principal, face: Face, parts: &Parts) -> Result<Self> {
        let id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let deadline = timeout::of(&parts.headers)?.map(|timeout| Instant::now() + timeout);
        Ok(Self { face, who, peer: parts.extensions.get::<Peer>().copied(), id, deadline })
    }

    /// What all faces share.
    pub fn face(&self) -> &Face {
        &self.face
    }

    /// The rules.
    pub fn broker(&self) -> &Broker {
        self.face.broker()
    }

    /// For whom.
    pub fn who(&self) -> &Principal {
        &self.who
    }

    /// Where it came in.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// What its user does, where that has bounds.
    pub fn usage(&self) -> Option<Arc<Usage>> {
        self.face.usage(self.peer, &self.who).cloned()
    }

    /// Finds it in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// An error of this call.
    pub fn status(&self, error: Error) -> Status {
        status::of(error, &self.id)
    }
}

/// One value of text metadata.
///
/// # Errors
/// `bad_parameter` when it is given twice, or is no text.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Error::bad(name, format!("Metadata {name} is not readable text."))),
        (Some(_), Some(_)) => Err(Error::bad(name, format!("Metadata {name} is given twice; give it once."))),
    }
}
