//! What a request costs its user: a place for its connection, a token, and its bytes (`surfaces.md` 5.11, "rates").
//!
//! Counted once somebody is known, and never on the operator's socket. How much there is, and what happens beyond, is the broker's to say.

use std::sync::Arc;

use http::request::Parts;
use http::{Extensions, header};

use super::{Face, Peer, Seats};
use crate::broker::{Plane, Principal, Usage};
use crate::types::{Result, limits};

/// The body has no length that was told before: what comes is counted when it is there.
#[derive(Clone)]
struct Untold(Arc<Usage>, Plane);

impl Face {
    /// What a caller uses is counted here, unless it comes over the operator's socket.
    pub fn usage<'a>(&self, peer: Option<Peer>, who: &'a Principal) -> Option<&'a Arc<Usage>> {
        if peer == Some(Peer::Local) { None } else { who.usage() }
    }

    /// Counts one request of somebody who is known, before its body is read.
    ///
    /// # Errors
    /// `quota_exceeded` for a connection too many, `rate_limited`.
    pub fn count(&self, parts: &mut Parts, who: &Principal) -> Result<()> {
        let peer = parts.extensions.get::<Peer>().copied();
        let Some(usage) = self.usage(peer, who) else { return Ok(()) };
        let plane = plane(parts.uri.path());
        let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        self.count_for(&parts.extensions, usage, plane, told.unwrap_or(0).min(limits::MESSAGE_MAX_BYTES as u64))?;
        let may_have_more = parts.method != http::Method::GET && parts.method != http::Method::HEAD;
        if told.is_none() && may_have_more {
            parts.extensions.insert(Untold(usage.clone(), plane));
        }
        Ok(())
    }

    /// The same for a request whose bytes are known.
    ///
    /// # Errors
    /// As above.
    pub fn count_for(&self, extensions: &Extensions, usage: &Arc<Usage>, plane: Plane, bytes: u64) -> Result<()> {
        if let Some(seats) = extensions.get::<Seats>() {
            seats.take(usage)?;
        }
        usage.request(plane, bytes)
    }
}

/// So many bytes came of a body.
pub fn came(extensions: &Extensions, bytes: usize) {
    if let Some(Untold(usage, plane)) = extensions.get() {
        usage.pay(*plane, bytes as u64);
    }
}

/// Calls that move events or positions have rates of their own accord: the disk's, and the reader's.
pub fn plane(path: &str) -> Plane {
    if path == "/v1/commit" || path.starts_with("/tidelog.v1.Broker/") {
        return Plane::Data;
    }
    let of_a_stream = path.strip_prefix("/v1/streams/").and_then(|rest| rest.split_once('/')).map_or("", |(_, rest)| rest);
    let mut parts = of_a_stream.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("events"), ..) | (Some("subscriptions"), Some(_), Some("events" | "pull" | "ack")) => Plane::Data,
        _ => Plane::Control,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_move_events_are_told_from_all_others() {
        for data in [
            "/v1/streams/s/events",
            "/v1/streams/s/events/7",
            "/v1/streams/s/subscriptions/b/pull",
            "/v1/streams/s/subscriptions/b/ack",
            "/v1/streams/s/subscriptions/b/events",
            "/v1/commit",
            "/tidelog.v1.Broker/Append",
        ] {
            assert_eq!(plane(data), Plane::Data, "{data}");
        }
        for control in [
            "/v1/streams",
            "/v1/streams/events",
            "/v1/streams/s/subscriptions/pull",
            "/v1/streams/s/subscriptions/b/cursor",
            "/v1/streams/s/subscriptions",
            "/v1/users/events",
            "/v1/connect",
            "/tidelog.v1.Admin/CreateStream",
            "",
        ] {
            assert_eq!(plane(control), Plane::Control, "{control}");
        }
    }
}
