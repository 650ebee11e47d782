//! Request bodies: read under a limit and a minimum rate, then taken apart strictly.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{Face, Failure, refuse_conditions};
use crate::edge::meter;
use crate::types::limits;
use crate::types::name::quote;
use crate::types::{Code, Error};

/// Reads the whole body of a request whose caller is known, and counts it for that caller.
///
/// # Errors
/// As [`read`].
pub async fn read_counted(body: Body, parts: &Parts, limit: usize) -> Result<Bytes, NoBody> {
    let bytes = read(body, &parts.headers, limit).await?;
    meter::came(&parts.extensions, bytes.len());
    Ok(bytes)
}

/// Why there is no body.
pub enum NoBody {
    /// The envelope says it.
    Refused(Error),
    /// Too slow: 408, answered below the envelope.
    TooSlow,
    /// It ended early, or its chunks are broken: 400, answered below the envelope, if anybody still listens.
    Broken,
}

/// Reads a whole body.
///
/// # Errors
/// `too_large` beyond `limit`, without reading on; [`NoBody::TooSlow`] below [`limits::BODY_MIN_RATE`] after [`limits::BODY_GRACE`].
pub async fn read(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, NoBody> {
    read_within(body, headers, limit, limits::BODY_GRACE).await
}

async fn read_within(body: Body, headers: &HeaderMap, limit: usize, grace: Duration) -> Result<Bytes, NoBody> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(NoBody::Refused(too_large(limit)));
    }
    let start = Instant::now();
    let mut chunks = body.into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut received = 0usize;
    loop {
        let deadline = start + grace + Duration::from_secs(received as u64 / limits::BODY_MIN_RATE);
        match timeout_at(deadline, chunks.next()).await {
            Err(_) => return Err(NoBody::TooSlow),
            Ok(Some(Err(_))) => return Err(NoBody::Broken),
            Ok(Some(Ok(chunk))) => {
                received += chunk.len();
                if received > limit {
                    return Err(NoBody::Refused(too_large(limit)));
                }
                match (&first, all.is_empty()) {
                    (None, true) => first = Some(chunk), // most bodies are one chunk: no copy
                    _ => {
                        if let Some(first) = first.take() {
                            all.reserve(announced.map_or(0, |n| n as usize).max(first.len() + chunk.len()));
                            all.extend_from_slice(&first);
                        }
                        all.extend_from_slice(&chunk);
                    }
                }
            }
            Ok(None) => return Ok(first.unwrap_or_else(|| all.freeze())),
        }
    }
}

impl IntoResponse for NoBody {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(error) => Failure(error).into_response(),
            Self::TooSlow => below(StatusCode::REQUEST_TIMEOUT, "The body came too slowly: send at least 1 KiB each second.\n"),
            Self::Broken => below(StatusCode::BAD_REQUEST, "The body ended early, or its chunks are broken; send it again.\n"),
        }
    }
}

fn below(status: StatusCode, why: &'static str) -> Response {
    (status, [(header::CONNECTION, "close")], why).into_response()
}

impl From<Error> for NoBody {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A JSON body, whole. Content type, conditions and size are checked in this order.
pub struct JsonBody(pub Bytes);

impl FromRequest<Face> for JsonBody {
    type Rejection = NoBody;

    async fn from_request(request: Request, face: &Face) -> Result<Self, NoBody> {
        json(request, face.settings().message_max_bytes).await.map(Self)
    }
}

async fn json(request: Request, limit: usize) -> Result<Bytes, NoBody> {
    let (parts, body) = request.into_parts();
    expect_json(&parts.headers)?;
    refuse_conditions(&parts.headers)?;
    read_counted(body, &parts, limit).await
}

/// As [`JsonBody`], from somebody who has not shown who it is: no larger than the first message of a WebSocket.
pub struct StrangersJson(pub Bytes);

impl FromRequest<Face> for StrangersJson {
    type Rejection = NoBody;

    async fn from_request(request: Request, face: &Face) -> Result<Self, NoBody> {
        json(request, face.settings().message_max_bytes.min(limits::MESSAGE_MAX_BYTES_PRE_AUTH)).await.map(Self)
    }
}

/// As [`JsonBody`], where the body may be left out.
pub struct JsonOrNothing(pub Bytes);

impl FromRequest<Face> for JsonOrNothing {
    type Rejection = NoBody;

    async fn from_request(request: Request, face: &Face) -> Result<Self, NoBody> {
        let (parts, body) = request.into_parts();
        refuse_conditions(&parts.headers)?;
        let bytes = read_counted(body, &parts, face.settings().message_max_bytes).await?;
        if !bytes.is_empty() {
            expect_json(&parts.headers)?;
        }
        Ok(Self(bytes))
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(Code::TooLarge, format!("The request body is larger than {limit} bytes. Send fewer events at once.")).detail("limit", limit as u64)
}

/// The media type of a body, in lower case and without parameters; empty when none is named.
///
/// # Errors
/// `expecting_content_type_json` for a charset other than UTF-8, as nothing else is read.
pub fn media_type(headers: &HeaderMap) -> Result<String, Error> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(String::new()) };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_owned();
    match parts.find_map(|p| p.strip_prefix("charset=")).map(|c| c.trim_matches('"').to_owned()) {
        Some(charset) if !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii") => {
            Err(Error::new(Code::ExpectingContentTypeJson, format!("Content-Type names charset {}; bodies are read as UTF-8 only.", quote(&charset)))
                .detail("field", "content-type"))
        }
        _ => Ok(media),
    }
}

/// The body must say that it is JSON.
///
/// # Errors
/// `expecting_content_type_json`.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Error> {
    match media_type(headers)?.as_str() {
        "application/json" => Ok(()),
        other => Err(wrong_type(other, "application/json")),
    }
}

/// # Errors
/// Always `expecting_content_type_json`.
pub fn wrong_type(got: &str, expected: &str) -> Error {
    let got = if got.is_empty() { "no Content-Type".to_owned() } else { format!("Content-Type {}", quote(got)) };
    Error::new(Code::ExpectingContentTypeJson, format!("The request has {got}; send {expected}.")).detail("field", "content-type").detail("expected", expected)
}

/// This address is a gRPC method, and the request is no call.
pub fn wrong_type_for_grpc() -> Error {
    let why = "This address speaks gRPC; send Content-Type: application/grpc, or application/grpc-web+proto.";
    Error::new(Code::ExpectingContentTypeJson, why).detail("field", "content-type").detail("expected", "application/grpc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_type(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, text.parse().unwrap())])
    }

    #[test]
    fn json_is_recognised_with_and_without_a_charset() {
        for good in ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=\"UTF-8\""] {
            assert_eq!(expect_json(&with_type(good)), Ok(()), "{good}");
        }
        for bad in ["text/plain", "application/jsonx", "application/json; charset=latin1", ""] {
            assert_eq!(expect_json(&with_type(bad)).unwrap_err().code, Code::ExpectingContentTypeJson, "{bad}");
        }
        assert!(expect_json(&HeaderMap::new()).is_err());
    }

    #[tokio::test]
    async fn a_body_of_the_limit_is_read_and_one_byte_more_is_not() {
        let chunks = |n: usize| Body::from_stream(futures_util::stream::iter((0..n).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"x")))));
        assert_eq!(read(chunks(4), &HeaderMap::new(), 4).await.ok().unwrap(), "xxxx");
        assert_eq!(read(chunks(1), &HeaderMap::new(), 4).await.ok().unwrap(), "x");
        assert_eq!(read(Body::empty(), &HeaderMap::new(), 4).await.ok().unwrap(), "");
        let Err(NoBody::Refused(error)) = read(chunks(5), &HeaderMap::new(), 4).await else { panic!("five bytes passed a limit of four") };
        assert_eq!(error.code, Code::TooLarge);
    }

    #[tokio::test]
    async fn a_body_that_brings_nothing_is_given_up_after_its_grace() {
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(read_within(silent, &HeaderMap::new(), 1 << 20, Duration::from_millis(1)).await, Err(NoBody::TooSlow)));
    }
}
