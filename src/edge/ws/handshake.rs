//! The upgrade from HTTP to WebSocket (RFC 6455 section 4), by hand.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::edge::Socket;
use crate::types::name::quote;
use crate::types::{Code, Error, Result};

/// In which form frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `tidelog.v1.json`: text messages. Also when none is offered.
    Json,
    /// `tidelog.v1.proto`: binary messages.
    Proto,
}

impl Subprotocol {
    const JSON: &str = "tidelog.v1.json";
    const PROTO: &str = "tidelog.v1.proto";

    /// The first of the client's offers that is known; `None` when it offered nothing.
    ///
    /// # Errors
    /// `bad_parameter` when only unknown ones are offered.
    pub fn choose(headers: &HeaderMap) -> Result<Option<Self>> {
        let offered: Vec<String> = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .flat_map(|value| String::from_utf8_lossy(value.as_bytes()).split(',').map(|p| p.trim().to_owned()).collect::<Vec<_>>())
            .filter(|p| !p.is_empty())
            .collect();
        let known = offered.iter().find_map(|p| match p.as_str() {
            Self::JSON => Some(Self::Json),
            Self::PROTO => Some(Self::Proto),
            _ => None,
        });
        match (known, offered.first()) {
            (Some(known), _) => Ok(Some(known)),
            (None, None) => Ok(None),
            (None, Some(first)) => {
                Err(Error::bad("sec-websocket-protocol", format!("Subprotocol {} is not known; offer {} or {}.", quote(first), Self::JSON, Self::PROTO)))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => Self::JSON,
            Self::Proto => Self::PROTO,
        }
    }
}

/// An accepted upgrade: the response to send, and the socket once it is sent.
pub struct Upgrade {
    /// 101.
    pub response: Response,
    on_upgrade: hyper::upgrade::OnUpgrade,
}

impl Upgrade {
    /// Checks the request and answers it. `subprotocol` is what was chosen, if something was offered.
    ///
    /// # Errors
    /// `websocket_required` when the request is no upgrade, `bad_parameter` when it is a broken one.
    pub fn accept(mut request: Request, subprotocol: Option<Subprotocol>) -> Result<Self> {
        let accept = check(request.method(), request.version(), request.headers())?;
        let on_upgrade = hyper::upgrade::on(&mut request);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol.name()));
        }
        Ok(Self { response, on_upgrade })
    }

    /// Splits off the response; the future resolves to the socket and the bytes that came right behind the request.
    /// `None` when the connection ended before.
    pub fn into_parts(self) -> (Response, impl Future<Output = Option<(Socket, Vec<u8>)>> + Send + 'static) {
        let on_upgrade = self.on_upgrade;
        let socket = async move {
            let parts = downcast::<TokioIo<Socket>>(on_upgrade.await.ok()?).ok()?;
            Some((parts.io.into_inner().watched_elsewhere(), parts.read_buf.to_vec()))
        };
        (self.response, socket)
    }
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
}

/// The value of `Sec-WebSocket-Accept`.
fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<HeaderValue> {
    let upgrade = has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket");
    if method != Method::GET || version != Version::HTTP_11 || !upgrade {
        return Err(Error::new(Code::WebsocketRequired, "This address speaks WebSocket only; send an HTTP/1.1 GET with Upgrade: websocket."));
    }
    let bad = |name: &str, why: &str| Err(Error::bad(name, format!("Header {name} {why}.")));
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v.as_bytes() != b"13") {
        return bad("sec-websocket-version", "must be 13, the only version spoken here");
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_nonce(key.as_bytes()) => {
            HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Error::internal("The accept key is not a header value."))
        }
        _ => bad("sec-websocket-key", "must be there once, with 16 bytes in base64"),
    }
}

/// 16 bytes in base64 are 22 digits and two `=`.
fn is_nonce(key: &[u8]) -> bool {
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    const GOOD: [(&str, &str); 4] =
        [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(check(&Method::GET, Version::HTTP_11, &headers(&GOOD)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_without_upgrade_is_told_that_websocket_is_required() {
        assert_eq!(check(&Method::GET, Version::HTTP_11, &headers(&GOOD[1..])).unwrap_err().code, Code::WebsocketRequired);
        assert_eq!(check(&Method::GET, Version::HTTP_2, &headers(&GOOD)).unwrap_err().code, Code::WebsocketRequired);
        assert_eq!(check(&Method::POST, Version::HTTP_11, &headers(&GOOD)).unwrap_err().code, Code::WebsocketRequired);
    }

    #[test]
    fn broken_upgrades_name_their_header() {
        for (index, value, field) in
            [(2, "8", "sec-websocket-version"), (3, "short", "sec-websocket-key"), (3, "dGhlIHNhbXBsZSBub25jZQ!=", "sec-websocket-key")]
        {
            let mut pairs = GOOD;
            pairs[index].1 = value;
            let error = check(&Method::GET, Version::HTTP_11, &headers(&pairs)).unwrap_err();
            assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some(field)));
        }
    }

    #[test]
    fn the_first_known_subprotocol_wins_and_only_unknown_ones_are_refused() {
        let offer = |text: &str| Subprotocol::choose(&headers(&[("sec-websocket-protocol", text)]));
        assert_eq!(offer("tidelog.v1.proto, tidelog.v1.json"), Ok(Some(Subprotocol::Proto)));
        assert_eq!(offer("mqtt, tidelog.v1.json"), Ok(Some(Subprotocol::Json)));
        assert_eq!(Subprotocol::choose(&HeaderMap::new()), Ok(None));
        assert_eq!(offer("mqtt").unwrap_err().code, Code::BadParameter);
    }
}
