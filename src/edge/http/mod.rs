//! REST: the routes of `surfaces.md` 5.5 that exist so far, and what holds for every request.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tower::Service as _;

use super::certificate::Shown;
use super::{Face, Peer, auth, evernest, framing, grpc, ops, sse, ws};
use crate::broker::{Principal, calling_from};
use crate::types::name::quote;
use crate::types::{Code, Error, StreamName, SubscriptionName, limits};

mod about;
pub(super) mod access;
pub(in crate::edge) mod body;
mod commit;
mod conditional;
pub(in crate::edge) mod cors;
mod events;
mod fields;
mod idempotency;
pub(in crate::edge) mod objects;
mod operations;
mod producers;
mod pull;
pub(in crate::edge) mod query;
pub mod reply;
mod streams;
mod subscriptions;

use access::{keys, rights, sessions, sources, users};
pub use events::place;
pub use query::Query;
pub use reply::{Failure, Reply};
pub use subscriptions::start;

/// The table of routes.
pub fn router(face: Face) -> Router {
    const STREAM: &str = "/v1/streams/{stream}";
    const SUBSCRIPTION: &str = "/v1/streams/{stream}/subscriptions/{subscription}";
    let under = |base: &str, rest: &str| format!("{base}{rest}");
    let mut routes = Router::new()
        .route("/", get(about::root))
        .route("/v1", get(about::server).put(unbuilt).patch(unbuilt))
        .route("/v1/version", get(about::version))
        .route("/v1/connect", get(ws::connect).head(websocket_only).fallback(websocket_only))
        .route("/v1/streams", get(streams::list).post(streams::create))
        .route(STREAM, get(streams::show).delete(streams::delete).put(unbuilt).patch(unbuilt).post(unbuilt))
        .route(&under(STREAM, "/events"), get(events::read).post(events::append))
        .route(&under(STREAM, "/events/{offset}"), get(events::one))
        .route(&under(STREAM, "/trim"), post(streams::trim))
        .route(&under(STREAM, "/close"), post(streams::close))
        .route(&under(STREAM, "/subscriptions"), get(subscriptions::list).post(subscriptions::create))
        .route(SUBSCRIPTION, get(subscriptions::show).delete(subscriptions::delete).put(unbuilt).patch(unbuilt))
        .route(&under(SUBSCRIPTION, "/cursor"), get(subscriptions::cursor).put(subscriptions::seek))
        .route(&under(SUBSCRIPTION, "/events"), get(sse::deliver))
        .route(&under(SUBSCRIPTION, "/connect"), get(ws::connect_one).head(websocket_only).fallback(websocket_only))
        .route("/v1/operations", get(operations::list))
        .route("/v1/operations/{operation}", get(operations::show).delete(operations::cancel))
        .route("/v1/operations/{operation}/wait", get(operations::wait))
        .route("/v1/commit", post(commit::commit))
        .route("/v1/producers", get(producers::list).post(producers::open))
        .route("/v1/producers/{producer}", get(producers::show).delete(producers::delete))
        .route("/livez", get(ops::livez))
        .route("/healthz", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics));
    for action in ["/purge", "/compact", "/export", "/import"] {
        routes = routes.route(&under(STREAM, action), post(unbuilt));
    }
    routes = routes
        .route(&under(SUBSCRIPTION, "/pull"), post(pull::pull))
        .route(&under(SUBSCRIPTION, "/ack"), post(pull::ack))
        .route(&under(STREAM, "/producers"), get(producers::list).post(producers::open))
        .route(&under(STREAM, "/producers/{producer}"), get(producers::show).delete(producers::delete))
        .route(&under(STREAM, "/rights"), get(rights::list))
        .route(&under(STREAM, "/rights/{principal}"), get(rights::show).put(rights::set).delete(rights::delete))
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{user}", get(users::show).put(users::change).patch(users::change).delete(users::delete))
        .route("/v1/sources", get(sources::list).post(sources::create))
        .route("/v1/sources/{source}", get(sources::show).put(sources::change).patch(sources::change).delete(sources::delete))
        .route("/v1/sources/{source}/rotate", post(sources::rotate))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{name}", delete(keys::delete))
        .route("/v1/sessions", post(sessions::open))
        .route("/v1/sessions/current", get(sessions::show).delete(sessions::close))
        .route("/v1/tickets", post(sessions::ticket));
    if face.settings().dev {
        routes = routes.route("/echo", get(ws::echo).head(websocket_only).fallback(websocket_only));
    }
    routes.fallback(unknown_route).method_not_allowed_fallback(method_not_found).with_state(face)
}

/// What holds for every request: its id, its door, its path without a trailing slash, the form of its errors.
pub async fn handle(face: Face, router: Router, peer: Peer, mut request: Request) -> Response {
    let began = std::time::Instant::now();
    let _open = face.stats().enter_request();
    let id = request_id(request.headers());
    let head = request.method() == Method::HEAD;
    // The path only: people put secrets into queries.
    let span = tracing::debug_span!("request", id = &*id, method = %request.method(), path = request.uri().path());
    without_trailing_slash(request.uri_mut());
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(RequestId(id.clone()));
    without_ticket(&mut request);
    let doors = &face.settings().doors;
    let certified = request.extensions().get::<Shown>().is_some();
    let framed = framing::check(request.version(), request.uri(), request.headers());
    let closes = framed.is_err() && request.version() < Version::HTTP_2;
    let response = match framed.and_then(|()| doors.check(peer, certified, request.uri(), request.headers())) {
        Err(error) if evernest::is_ours(request.uri().path()) => evernest::refused(error),
        Err(error) => Failure(error).into_response(),
        Ok(()) => calling_from(peer.origin(&id), past_the_door(&face, router, request)).await,
    };
    let mut response = span.in_scope(|| reply::finish(response, &id));
    if head {
        reply::without_body(&mut response);
    }
    if closes {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    tracing::debug!(parent: &span, status = response.status().as_u16(), ms = began.elapsed().as_millis() as u64, "answered");
    face.stats().request(response.status().is_client_error() || response.status().is_server_error());
    response
}

/// Past the door; pages of other origins hear what they may do.
async fn past_the_door(face: &Face, router: Router, request: Request) -> Response {
    if cors::concerns(&face.settings().doors, &request) {
        return cors::answer(request, |request| inside(face.clone(), router.clone(), request)).await;
    }
    inside(face.clone(), router, request).await
}

async fn inside(face: Face, mut router: Router, request: Request) -> Response {
    if let Err(error) = refuse_key(&request) {
        return Failure(error).into_response();
    }
    if request.headers().len() > limits::HEADER_COUNT {
        return StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
    }
    // Decided before the table of routes: paths there are case-sensitive.
    if evernest::is_ours(request.uri().path()) {
        return Box::pin(evernest::handle(face, request)).await;
    }
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn refuse_key(request: &Request) -> Result<(), Error> {
    let path = request.uri().path();
    // On an append, `key` is the key of the event (raw bodies have no other place for it).
    let append = request.method() == Method::POST && path.ends_with("/events");
    if append || !(path == "/" || path == "/v1" || path.starts_with("/v1/")) { Ok(()) } else { auth::check_no_key_in(request.uri().query()) }
}

/// The id of a request, as the client sent it or as we made it.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// As the client sent it, where that fits into a log line; else a new one.
pub(in crate::edge) fn request_id(headers: &HeaderMap) -> Arc<str> {
    let sent = headers.get("x-request-id").map(|v| v.as_bytes());
    match sent.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        Some(text) if !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic()) => text.into(),
        _ => {
            // As `Uuid::now_v7`, which asks the system for randomness each time.
            let millis = crate::types::TimeUs::now().0.unsigned_abs() / 1000;
            uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid().simple().to_string().into()
        }
    }
}

/// A browser cannot send headers with an upgrade or an event stream, so a ticket may stand in their URL. It is taken out before anybody
/// else sees it; elsewhere it is a key in a URL.
fn without_ticket(request: &mut Request) {
    let path = request.uri().path();
    if request.method() != Method::GET || !(path.ends_with("/connect") || path.ends_with("/events")) {
        return;
    }
    if let Some((rest, Some(ticket))) = request.uri().query().map(auth::take_ticket) {
        let path = path.to_owned();
        set_target(request.uri_mut(), &path, Some(&rest).filter(|rest| !rest.is_empty()).map(String::as_str));
        request.extensions_mut().insert(ticket);
    }
}

fn without_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    if path.len() > 1 && path.ends_with('/') {
        let (shorter, query) = (path[..path.len() - 1].to_owned(), uri.query().map(str::to_owned));
        set_target(uri, &shorter, query.as_deref());
    }
}

fn set_target(uri: &mut Uri, path: &str, query: Option<&str>) {
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    if let Ok(changed) = Uri::from_parts(parts) {
        *uri = changed;
    }
}

async fn unknown_route(uri: Uri) -> Failure {
    if grpc::is_service(uri.path()) {
        return Failure(body::wrong_type_for_grpc());
    }
    Failure(Error::new(Code::UnknownRoute, format!("There is nothing at {}.", quote(uri.path()))))
}

async fn method_not_found(method: Method, uri: Uri) -> Response {
    let error = Error::new(Code::MethodNotFound, format!("{} has no method {}; header Allow lists those it has.", quote(uri.path()), quote(method.as_str())));
    Failure(error).into_response()
}

/// HEAD works wherever GET does, except for WebSocket upgrades (`surfaces.md` 5.1).
async fn websocket_only(method: Method, uri: Uri) -> Response {
    let mut response = method_not_found(method, uri).await;
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
    response
}

/// An address of the plan whose day has not come.
async fn unbuilt(_: Caller, method: Method, uri: Uri) -> Failure {
    let method = if method == Method::HEAD { Method::GET } else { method }; // as long as the answer to that
    Failure(Error::new(Code::NotImplemented, format!("{method} {} is not built yet.", uri.path())))
}

/// Conditions and idempotency keys are promises; where they are not built they are refused, never ignored.
///
/// # Errors
/// `not_implemented`, naming the header.
fn refuse_conditions(headers: &HeaderMap) -> Result<(), Error> {
    refuse_preconditions(headers)?;
    refuse_header(headers, idempotency::HEADER)
}

/// As [`refuse_conditions`], where an idempotency key is kept.
///
/// # Errors
/// `not_implemented`, naming the header.
fn refuse_preconditions(headers: &HeaderMap) -> Result<(), Error> {
    ["if-match", "if-none-match", "x-if-configuration-matches"].into_iter().try_for_each(|name| refuse_header(headers, name))
}

fn refuse_header(headers: &HeaderMap, name: &str) -> Result<(), Error> {
    if headers.contains_key(name) {
        return Err(Error::new(Code::NotImplemented, format!("Header {name} is not built here yet; leave it out.")).detail("field", name));
    }
    Ok(())
}

/// Somebody with a credential. As an extractor it comes before the body is looked at.
pub struct Caller(pub Principal);

impl FromRequestParts<Face> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Failure> {
        let who = face.principal(&parts.extensions, &parts.headers).await?;
        who.known()?;
        face.count(parts, &who)?;
        Ok(Self(who))
    }
}

/// Who calls, known or not.
pub struct Anyone(pub Principal);

impl FromRequestParts<Face> for Anyone {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Failure> {
        let who = face.principal(&parts.extensions, &parts.headers).await?;
        face.count(parts, &who)?;
        Ok(Self(who))
    }
}

/// The names in the path.
pub struct Path {
    parts: Vec<(String, String)>,
}

impl FromRequestParts<Face> for Path {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Failure> {
        match RawPathParams::from_request_parts(parts, face).await {
            Ok(params) => Ok(Self { parts: params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }),
            Err(_) => Err(Error::new(Code::BadParameter, "The path has an escape that is not UTF-8.").into()),
        }
    }
}

impl Path {
    /// One part, as text.
    pub fn part(&self, name: &str) -> &str {
        self.parts.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    /// # Errors
    /// `bad_parameter`.
    pub fn stream(&self) -> Result<StreamName, Error> {
        StreamName::parse(self.part("stream"))
    }

    /// # Errors
    /// `bad_parameter`.
    pub fn subscription(&self) -> Result<SubscriptionName, Error> {
        SubscriptionName::parse(self.part("subscription"))
    }
}

/// The query, as an extractor.
impl FromRequestParts<Face> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Face) -> Result<Self, Failure> {
        Ok(Self::parse(parts.uri.query())?)
    }
}

/// Only for handlers that take nothing from the query: it must be empty.
pub struct NoQuery;

impl FromRequestParts<Face> for NoQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Face) -> Result<Self, Failure> {
        Query::parse(parts.uri.query())?.finish()?;
        Ok(Self)
    }
}

type Broker = State<Face>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_slash_is_ignored_and_the_query_stays() {
        for (given, expected) in [("/v1/streams/", "/v1/streams"), ("/v1/?a=/", "/v1?a=/"), ("/", "/"), ("/v1//", "/v1/"), ("http://h/v1/", "http://h/v1")] {
            let mut uri: Uri = given.parse().unwrap();
            without_trailing_slash(&mut uri);
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn request_ids_are_echoed_up_to_64_visible_characters() {
        let ask =
            |id: &[u8]| request_id(&HeaderMap::from_iter([(header::HeaderName::from_static("x-request-id"), header::HeaderValue::from_bytes(id).unwrap())]));
        assert_eq!(&*ask(b"abc-1"), "abc-1");
        assert_eq!(&*ask(&[b'x'; 64]), "x".repeat(64));
        for bad in [&[b'x'; 65][..], b"", b"a b", b"\xe9"] {
            assert_eq!(ask(bad).len(), 32, "{bad:?}");
        }
    }
}
