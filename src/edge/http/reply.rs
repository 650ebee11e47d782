//! The three envelopes of `surfaces.md` 5.3, and how an error becomes a response.
//!
//! Handlers return [`Reply`]; the error is turned into its body by [`finish`], outside of all handlers, because there the
//! request id is known.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::cors;
use crate::types::{Code, Error};
use crate::wire::{code, error as wire_error};

/// What a handler says.
pub enum Reply {
    /// 200, `type: sync`. The text is JSON.
    Sync {
        /// The `metadata`.
        metadata: Vec<u8>,
        /// Address of the next page.
        next: Option<String>,
    },
    /// 201, `type: sync`, with `Location`.
    Created {
        /// The `metadata`.
        metadata: Vec<u8>,
        /// Where it is.
        location: String,
        /// For `X-Created-Record-Id`.
        id: Option<String>,
    },
    /// 202, `type: async`.
    Async {
        /// The operation object.
        metadata: Vec<u8>,
        /// Its address.
        operation: String,
    },
    /// 200 with a bare JSON body (the Flocker nouns).
    Bare(String),
    /// Anything that is not in an envelope: process paths, upgrades.
    Raw(Box<Response>),
}

/// Of every handler.
pub type Result<T = Reply, E = Failure> = std::result::Result<T, E>;

/// An [`Error`] on its way out.
#[derive(Clone, Debug)]
pub struct Failure(pub Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl Reply {
    /// 200 with an object.
    pub fn ok(metadata: &impl Serialize) -> Result {
        Ok(Self::Sync { metadata: text(metadata)?, next: None })
    }
}

/// The JSON text of something that has one.
///
/// # Errors
/// `internal`, if it has none after all.
pub fn text(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|why| Error::internal(format!("An answer could not be written as JSON: {why}")))
}

const SYNC: &str = r#""type":"sync","status":"Success","status_code":200"#;

/// `{head,"metadata":metadata tail}`.
fn envelope(head: &str, metadata: Vec<u8>, tail: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(head.len() + metadata.len() + tail.len() + 16);
    body.push(b'{');
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(b",\"metadata\":");
    body.extend_from_slice(&metadata);
    body.extend_from_slice(tail.as_bytes());
    body.push(b'}');
    body
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// A header value from text that is known to be printable ASCII; empty otherwise.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self {
            Self::Sync { metadata, next } => {
                let next = next.map_or_else(String::new, |n| format!(r#","next":{}"#, serde_json::Value::from(n)));
                json_response(StatusCode::OK, envelope(SYNC, metadata, &next))
            }
            Self::Created { metadata, location, id } => {
                let mut response = json_response(StatusCode::CREATED, envelope(SYNC, metadata, ""));
                response.headers_mut().insert(header::LOCATION, value(&location));
                if let Some(id) = id {
                    response.headers_mut().insert("x-created-record-id", value(&id));
                }
                response
            }
            Self::Async { metadata, operation } => {
                let head = format!(r#""type":"async","status":"Operation created","status_code":100,"operation":"{operation}""#);
                let mut response = json_response(StatusCode::ACCEPTED, envelope(&head, metadata, ""));
                response.headers_mut().insert(header::LOCATION, value(&operation));
                response
            }
            Self::Bare(body) => json_response(StatusCode::OK, body),
            Self::Raw(response) => *response,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives a response its error body, if it carries a [`Failure`], and the headers that all have.
pub fn finish(mut response: Response, request_id: &str) -> Response {
    if let Some(Failure(error)) = response.extensions_mut().remove::<Failure>() {
        let before = std::mem::take(response.headers_mut()); // `Allow` comes from the router
        response = failed(error, request_id);
        for (name, value) in before {
            if let Some(name) = name
                && name != header::CONTENT_LENGTH
                && name != header::CONTENT_TYPE
            {
                response.headers_mut().insert(name, value);
            }
        }
    }
    let headers = response.headers_mut();
    headers.insert("x-request-id", value(request_id));
    protect(headers);
    cors::vary(headers);
    response
}

/// An answer is data: no browser is to guess another type, run it, put it into a frame, or tell others its address. A page of ours may say
/// more about itself.
fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
}

/// The answer to a HEAD: as long as the one to a GET, and nothing of it.
pub fn without_body(response: &mut Response) {
    use axum::body::HttpBody as _;
    let body = std::mem::take(response.body_mut());
    if matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT) {
        return; // the GET has no body either
    }
    if let Some(length) = body.size_hint().exact().filter(|_| !response.headers().contains_key(header::CONTENT_LENGTH)) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn failed(mut error: Error, request_id: &str) -> Response {
    if error.code == Code::Internal {
        // Log where you handle; the caller gets the incident and nothing about our insides.
        tracing::error!(incident = request_id, "{}", error.message);
        error.message = format!("The broker made a mistake. It is logged as incident {request_id}.");
        error.details.insert("incident".into(), request_id.into());
    }
    let status = StatusCode::from_u16(code::of(&error).http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        let seconds = error.details.get("retry_after_s").and_then(serde_json::Value::as_f64).map_or(1, |s| s.ceil().clamp(1.0, 3600.0) as u64);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    let mut response = json_response(status, wire_error::rest_body(&error, request_id));
    response.headers_mut().extend(headers);
    response
}
