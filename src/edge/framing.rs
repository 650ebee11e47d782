//! Requests that two readers could read in two ways: refused before anybody looks at what they want (RFC 9112 section 11.2).
//!
//! A proxy in front of the broker may judge by another reading than the broker acts on. The HTTP library refuses lengths that differ or are
//! no numbers, and lets the connection end behind a request that has a length and chunks; the rest is here.

use http::{HeaderMap, Uri, Version, header};

use super::auth::split_port;
use crate::types::name::quote;
use crate::types::{Error, Result};

/// # Errors
/// `bad_parameter`, naming the header. What follows on the connection is not to be trusted either.
pub fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<()> {
    once(headers, header::HOST)?;
    once(headers, header::CONTENT_TYPE)?;
    match headers.get(header::HOST) {
        None if version == Version::HTTP_11 => return Err(refused(header::HOST, "is missing; HTTP/1.1 needs it")),
        Some(host) if version == Version::HTTP_2 => check_same(uri, host.as_bytes())?,
        _ => {}
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(refused(header::TRANSFER_ENCODING, "may be `chunked`, once, and nothing else")),
    }
}

fn once(headers: &HeaderMap, name: header::HeaderName) -> Result<()> {
    if headers.get_all(&name).iter().nth(1).is_some() { Err(refused(name, "is given twice; give it once")) } else { Ok(()) }
}

/// HTTP/2 names its host in `:authority`; a `Host` beside it must be the same (RFC 9113 section 8.3.1).
fn check_same(uri: &Uri, host: &[u8]) -> Result<()> {
    let Some(authority) = uri.authority() else { return Ok(()) };
    let (name, port) = split_port(authority.as_str());
    let same = std::str::from_utf8(host).is_ok_and(|host| {
        let (host, other) = split_port(host);
        host.eq_ignore_ascii_case(name) && (port.is_none() || other.is_none() || port == other)
    });
    if same { Ok(()) } else { Err(refused(header::HOST, &format!("is not the host of the request, {}; leave it out", quote(authority.as_str())))) }
}

fn refused(name: header::HeaderName, why: &str) -> Error {
    Error::bad(name.as_str(), format!("Header {name} {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    fn ask(version: Version, target: &str, pairs: &[(&'static str, &str)]) -> Result<()> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        check(version, &target.parse().unwrap(), &headers)
    }

    #[test]
    fn a_request_that_can_be_read_in_one_way_only_passes() {
        for (version, target, headers) in [
            (Version::HTTP_11, "/v1", &[("host", "h")][..]),
            (Version::HTTP_11, "/v1", &[("host", ""), ("transfer-encoding", "Chunked"), ("content-type", "text/plain")]),
            (Version::HTTP_11, "http://h/v1", &[("host", "other")]),
            (Version::HTTP_10, "/v1", &[]),
            (Version::HTTP_2, "http://h:1/v1", &[]),
            (Version::HTTP_2, "http://H:1/v1", &[("host", "h:1")]),
            (Version::HTTP_2, "/v1", &[("host", "h")]),
        ] {
            assert_eq!(ask(version, target, headers), Ok(()), "{version:?} {target} {headers:?}");
        }
    }

    #[test]
    fn whatever_could_be_read_in_two_ways_is_refused_by_the_name_of_its_header() {
        for (version, target, headers, field) in [
            (Version::HTTP_11, "/v1", &[][..], "host"),
            (Version::HTTP_11, "/v1", &[("host", "h"), ("host", "h")], "host"),
            (Version::HTTP_10, "/v1", &[("host", "h"), ("host", "g")], "host"),
            (Version::HTTP_2, "http://h/v1", &[("host", "g")], "host"),
            (Version::HTTP_2, "http://h:1/v1", &[("host", "h:2")], "host"),
            (Version::HTTP_11, "/v1", &[("host", "h"), ("transfer-encoding", "gzip, chunked")], "transfer-encoding"),
            (Version::HTTP_11, "/v1", &[("host", "h"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], "transfer-encoding"),
            (Version::HTTP_11, "/v1", &[("host", "h"), ("content-type", "a/b"), ("content-type", "a/c")], "content-type"),
        ] {
            let error = ask(version, target, headers).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some(field)), "{headers:?}");
        }
    }
}
