//! Who calls, and through which door.
//!
//! A web page anywhere can make a browser post to loopback, and a name its owner controls can resolve to 127.0.0.1.
//! So where loopback callers are trusted, `Host` and `Origin` are checked on every TCP request (`decisions.md` section 5). A browser also
//! shows a client certificate unasked, whatever page calls: with one, `Origin` is checked in the same way.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Uri, header};

use super::Peer;
use crate::broker::Principal;
use crate::types::name::quote;
use crate::types::{Code, Error, Result};

/// Names of query parameters in which people put credentials. They end up in logs and histories.
const KEY_PARAMETERS: [&str; 9] = ["key", "userkey", "token", "access_token", "api_key", "apikey", "auth", "authorization", "ticket"];

/// A one-time ticket that stood in the URL of an upgrade. A request carries it as an extension; the URL does not any more.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(pub String);

/// Takes the ticket out of a query: what is left of the query, and the ticket. A second ticket stays, and is refused as a key in a URL.
pub fn take_ticket(query: &str) -> (String, Option<Ticket>) {
    let mut ticket = None;
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.split_once('=') {
            Some(("ticket", value)) if ticket.is_none() => {
                ticket = Some(Ticket(value.to_owned()));
                false
            }
            _ => true,
        })
        .collect();
    (rest.join("&"), ticket)
}

/// Who is let in over TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Loopback peers are the operator (`dev`, `--insecure-operator-on-loopback`).
    pub trust_loopback: bool,
    /// Where the TCP listener is.
    pub listen: Option<SocketAddr>,
    /// Further names this broker answers to.
    pub hosts: Vec<String>,
    /// Further origins whose pages may call.
    pub origins: Vec<String>,
}

impl Doors {
    /// Who the peer is before it has shown anything.
    pub fn principal(&self, peer: Peer) -> Principal {
        match peer {
            Peer::Local => Principal::Operator,
            Peer::Tcp(address) if self.trust_loopback && is_loopback(address.ip()) => Principal::Operator,
            Peer::Tcp(_) => Principal::Anonymous,
        }
    }

    /// Refuses a TCP request that a foreign web page may have caused, where that page would act with what it did not bring itself: the door,
    /// or the certificate of the connection (`certified`). `Ok` for every other one.
    ///
    /// # Errors
    /// `access_denied`, naming the header and the setting that would allow it.
    pub fn check(&self, peer: Peer, certified: bool, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        if peer == Peer::Local || !(self.trust_loopback || certified) {
            return Ok(());
        }
        let host = host_of(uri, headers)?;
        let (name, _) = split_port(host);
        // With a certificate of the client there is one of ours, and the browser has held the name against it.
        if self.trust_loopback && !self.knows_host(name) {
            return Err(denied(format!("This broker does not answer to Host {}. Use localhost, or list the name in setting http.hosts.", quote(host))));
        }
        self.check_origin(uri, headers)
    }

    /// Refuses a page of a foreign origin. Asked for every upgrade: a browser lets any page open a WebSocket, and asks nobody (`limits.md`).
    ///
    /// # Errors
    /// `access_denied`, naming the origin and the setting that would allow it.
    pub fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if self.is_at_home(origin.as_bytes(), uri, headers) => Ok(()),
            (Some(origin), _) => {
                let origin = String::from_utf8_lossy(origin.as_bytes());
                Err(denied(format!("Pages of origin {} may not call this broker. List the origin in setting http.origins.", quote(&origin))))
            }
        }
    }

    /// May pages of this origin read our answers? Those of the origin the request went to, and those listed.
    pub fn is_at_home(&self, origin: &[u8], uri: &Uri, headers: &HeaderMap) -> bool {
        host_of(uri, headers).is_ok_and(|host| self.allows_origin(origin, host))
    }

    fn knows_host(&self, name: &str) -> bool {
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        let address: Option<IpAddr> = bare.parse().ok();
        name.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|a| is_loopback(a) || self.listen.is_some_and(|l| l.ip() == a && !a.is_unspecified()))
            || self.hosts.iter().any(|h| h.eq_ignore_ascii_case(name) || h.eq_ignore_ascii_case(bare))
    }

    fn allows_origin(&self, origin: &[u8], host: &str) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        if self.origins.iter().any(|o| o.trim_end_matches('/').eq_ignore_ascii_case(origin)) {
            return true;
        }
        let (authority, default_port) = if let Some(rest) = origin.strip_prefix("http://") {
            (rest, "80")
        } else if let Some(rest) = origin.strip_prefix("https://") {
            (rest, "443")
        } else {
            return false; // `null`, `file:`, extensions
        };
        let ((a, a_port), (b, b_port)) = (split_port(authority), split_port(host));
        !a.is_empty() && a.eq_ignore_ascii_case(b) && a_port.unwrap_or(default_port) == b_port.unwrap_or(default_port)
    }
}

/// Refuses credentials in the query, whether or not another credential is there.
///
/// # Errors
/// `key_in_url`, without repeating the value.
pub fn check_no_key_in(query: Option<&str>) -> Result<()> {
    let names = query.unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    match names.into_iter().find(|name| KEY_PARAMETERS.iter().any(|k| k.eq_ignore_ascii_case(name))) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            Code::KeyInUrl,
            format!("Query parameter {} looks like a credential. URLs end up in logs: send it in the Authorization header.", quote(name)),
        )
        .detail("field", name.to_ascii_lowercase())),
    }
}

fn denied(message: String) -> Error {
    Error::new(Code::AccessDenied, message)
}

/// The authority the client asked for: HTTP/2's `:authority`, else the one `Host` header.
fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str> {
    if let Some(authority) = uri.authority() {
        return Ok(authority.as_str());
    }
    // There is one at most (`framing`).
    match headers.get(header::HOST) {
        Some(host) => host.to_str().map_err(|_| denied("The Host header is not readable text.".into())),
        None => Err(denied("The request has no Host header; send the name you connected to.".into())),
    }
}

/// `name:port` into its parts; IPv6 literals keep their brackets.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback(),
        IpAddr::V6(a) => a.is_loopback() || a.to_ipv4_mapped().is_some_and(|a| a.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Kind;

    fn doors() -> Doors {
        Doors {
            trust_loopback: true,
            listen: Some("10.1.2.3:4080".parse().unwrap()),
            hosts: vec!["broker.example".into()],
            origins: vec!["https://console.example/".into()],
        }
    }

    fn ask(doors: &Doors, host: &str, origin: Option<&str>) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        ask_as(doors, false, &headers)
    }

    fn ask_as(doors: &Doors, certified: bool, headers: &HeaderMap) -> Result<()> {
        doors.check(Peer::Tcp("127.0.0.1:50000".parse().unwrap()), certified, &"/v1".parse().unwrap(), headers)
    }

    #[test]
    fn hosts_that_are_loopback_the_listener_or_listed_are_answered_and_no_others() {
        for good in ["localhost", "LOCALHOST:4080", "127.0.0.1:4080", "127.9.9.9", "[::1]:4080", "10.1.2.3:4080", "Broker.Example", "broker.example:80"] {
            assert_eq!(ask(&doors(), good, None), Ok(()), "{good}");
        }
        for bad in ["evil.example", "evil.example:4080", "localhost.evil.example", "10.1.2.4", "0.0.0.0:4080", "[::2]", "broker.example.", ":4080"] {
            assert_eq!(ask(&doors(), bad, None).unwrap_err().code, Code::AccessDenied, "{bad}");
        }
    }

    #[test]
    fn pages_of_the_same_or_a_listed_origin_may_call_and_no_others() {
        for (host, good) in [
            ("localhost:4080", "http://localhost:4080"),
            ("localhost", "http://localhost:80"),
            ("localhost", "https://LOCALHOST"),
            ("[::1]:4080", "http://[::1]:4080"),
            ("localhost:4080", "https://console.example"),
        ] {
            assert_eq!(ask(&doors(), host, Some(good)), Ok(()), "{good} at {host}");
        }
        for bad in ["http://evil.example", "http://localhost:4081", "http://localhost", "null", "file://", "http://", "http://localhost:4080.evil.example"] {
            assert_eq!(ask(&doors(), "localhost:4080", Some(bad)).unwrap_err().code, Code::AccessDenied, "{bad}");
        }
    }

    #[test]
    fn a_certificate_is_not_lent_to_pages_of_other_origins() {
        let doors = Doors { origins: vec!["https://console.example".into()], ..Doors::default() };
        let headers = |origin: Option<&str>| {
            let host = (header::HOST, "broker.example:4523".parse().unwrap());
            HeaderMap::from_iter([host].into_iter().chain(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap()))))
        };
        for good in [None, Some("https://broker.example:4523"), Some("https://console.example")] {
            assert_eq!(ask_as(&doors, true, &headers(good)), Ok(()), "{good:?}");
        }
        for bad in ["https://evil.example", "https://broker.example", "null"] {
            assert_eq!(ask_as(&doors, true, &headers(Some(bad))).unwrap_err().code, Code::AccessDenied, "{bad}");
            assert_eq!(ask_as(&doors, false, &headers(Some(bad))), Ok(()), "without one the page has only what it brings: {bad}");
        }
    }

    #[test]
    fn the_socket_is_the_operator_and_loopback_only_where_it_is_trusted() {
        let loopback = Peer::Tcp("127.0.0.1:1".parse().unwrap());
        let mapped = Peer::Tcp("[::ffff:127.0.0.1]:1".parse().unwrap());
        let far = Peer::Tcp("10.1.2.3:1".parse().unwrap());
        assert_eq!(Doors::default().principal(Peer::Local).kind(), Kind::Operator);
        assert_eq!(Doors::default().principal(loopback).kind(), Kind::Anonymous);
        assert_eq!(doors().principal(loopback).kind(), Kind::Operator);
        assert_eq!(doors().principal(mapped).kind(), Kind::Operator);
        assert_eq!(doors().principal(far).kind(), Kind::Anonymous);
    }

    #[test]
    fn a_request_without_host_is_refused_where_loopback_is_trusted() {
        let peer = Peer::Tcp("127.0.0.1:1".parse().unwrap());
        let mut headers = HeaderMap::new();
        assert!(doors().check(peer, false, &"/".parse().unwrap(), &headers).is_err());
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert!(doors().check(peer, false, &"/".parse().unwrap(), &headers).is_ok());
        headers.clear();
        assert!(doors().check(Peer::Local, false, &"/".parse().unwrap(), &headers).is_ok());
        assert!(doors().check(peer, false, &"http://localhost:4080/".parse().unwrap(), &HeaderMap::new()).is_ok(), "HTTP/2 names it in the URI");
    }

    #[test]
    fn keys_in_urls_are_refused_without_being_repeated() {
        for bad in ["key=s3cret", "a=1&Token=s3cret", "UserKey=s3cret", "access_token"] {
            let error = check_no_key_in(Some(bad)).unwrap_err();
            assert_eq!(error.code, Code::KeyInUrl, "{bad}");
            assert!(!error.message.contains("s3cret"), "{}", error.message);
        }
        assert!(check_no_key_in(Some("after=1&type=key")).is_ok());
        assert!(check_no_key_in(None).is_ok());
    }
}
