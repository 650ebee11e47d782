//! What pages of other origins may do: those of `http.origins`, and pages of the broker's own origin (CORS, Fetch section 3.3).
//!
//! No cookie ever authenticates here, so credentials are never allowed: a page brings its key in `Authorization`. A page of any other
//! origin gets no answer of CORS at all; its browser then keeps ours from it.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::Response;
use tower::{Layer as _, Service as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::edge::Doors;
use crate::types::limits;

/// Headers that a page may send.
fn sent() -> Vec<HeaderName> {
    let ours = ["idempotency-key", "last-event-id", "x-request-id", "x-if-configuration-matches", "x-grpc-web", "x-user-agent", "grpc-timeout"]
        .map(HeaderName::from_static);
    let known = [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, header::IF_MATCH, header::IF_NONE_MATCH, header::CACHE_CONTROL];
    ours.into_iter().chain(known).collect()
}

/// Headers of ours that a page may read, beside those that every page may.
fn shown() -> Vec<HeaderName> {
    let ours = ["x-request-id", "x-created-record-id", "x-configuration-tag", "idempotency-replayed", "grpc-status", "grpc-message", "grpc-status-details-bin"]
        .map(HeaderName::from_static);
    let known = [header::LOCATION, header::ETAG, header::RETRY_AFTER, header::ALLOW, header::WWW_AUTHENTICATE];
    ours.into_iter().chain(known).collect()
}

static LAYER: LazyLock<CorsLayer> = LazyLock::new(|| {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request()) // only asked about origins that are at home
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(sent())
        .expose_headers(shown())
        .max_age(limits::PREFLIGHT_KEPT)
        .vary([header::ORIGIN])
});

/// Is it a page that calls, and may it? An `OPTIONS` without the question of a preflight is a method like any other.
pub fn concerns(doors: &Doors, request: &Request) -> bool {
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    let question = request.method() != Method::OPTIONS || request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    question && doors.is_at_home(origin.as_bytes(), request.uri(), request.headers())
}

/// Answers a preflight, or marks the answer of `inner` so that the page may see it.
pub async fn answer<F: Future<Output = Response>>(request: Request, inner: impl Fn(Request) -> F + Clone) -> Response {
    let inner = tower::service_fn(move |request| {
        let answer = inner(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    match LAYER.layer(inner).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Answers differ by origin, so a cache must not hand one page's answer to another.
pub fn vary(headers: &mut HeaderMap) {
    headers.entry(header::VARY).or_insert(HeaderValue::from_static("origin"));
}
