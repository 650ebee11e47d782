//! gRPC on the common port: services `Broker`, `Admin` and `Access` of `tidelog.v1`, health, reflection, gRPC-web.
//!
//! The library brings the framing, the statuses and the services of others. Our own messages are read by `wire`, which is stricter
//! than protobuf, and batches go out as they are stored.

use std::convert::Infallible;
use std::pin::pin;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode, Version, header};
use tokio::time::Instant;
use tonic::Status;
use tower::{Layer as _, Service as _};
use tracing::Instrument as _;

use super::certificate::Shown;
use super::http::{RequestId, cors};
use super::{Face, Peer, auth, framing, meter};
use crate::broker::calling_from;
use crate::types::name::quote;
use crate::types::{Code, Error, limits};

mod access;
mod admin;
mod body;
mod call;
mod connect;
mod details;
mod follow;
mod health;
mod message;
mod others;
mod outbox;
mod status;
mod timeout;
mod unary;

use body::{Bounded, failed};
use call::Call;
pub use others::Others;

/// Full name of the service for data.
const BROKER: &str = "tidelog.v1.Broker";
/// Full name of the service for everything that has a name.
const ADMIN: &str = "tidelog.v1.Admin";
/// Full name of the service for who may do what.
const ACCESS: &str = "tidelog.v1.Access";

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Connect,
    Subscribe,
    Append,
    Ack,
    OpenProducer,
    Commit,
    Pull,
    Read,
    Admin(admin::Method),
    Access(access::Method),
    /// Health, reflection.
    Other,
}

impl Method {
    fn at(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        match (service, method) {
            (BROKER, "Connect") => Some(Self::Connect),
            (BROKER, "Subscribe") => Some(Self::Subscribe),
            (BROKER, "Append") => Some(Self::Append),
            (BROKER, "Ack") => Some(Self::Ack),
            (BROKER, "OpenProducer") => Some(Self::OpenProducer),
            (BROKER, "Commit") => Some(Self::Commit),
            (BROKER, "Pull") => Some(Self::Pull),
            (BROKER, "Read") => Some(Self::Read),
            (ADMIN, method) => admin::Method::named(method).map(Self::Admin),
            (ACCESS, method) => access::Method::named(method).map(Self::Access),
            (service, _) => others::are(service).then_some(Self::Other),
        }
    }

    /// Does it change nothing?
    fn only_looks(self) -> bool {
        match self {
            Self::Read | Self::Other => true,
            Self::Admin(method) => method.only_looks(),
            Self::Access(method) => method.only_looks(),
            Self::Connect | Self::Subscribe | Self::Append | Self::Ack | Self::OpenProducer | Self::Commit | Self::Pull => false,
        }
    }
}

/// Is this a call for here?
pub fn is_call(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// Does this path belong to a service, whatever the content type says?
pub fn is_service(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
    [BROKER, ADMIN, ACCESS].contains(&service) || others::are(service)
}

/// In which clothes a call comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Web,
    Unknown,
}

fn form(headers: &HeaderMap) -> Form {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "application/grpc" | "application/grpc+proto" => Form::Plain,
        // Exactly those that the library looks for.
        _ if matches!(text, "application/grpc-web" | "application/grpc-web+proto" | "application/grpc-web-text" | "application/grpc-web-text+proto") => {
            Form::Web
        }
        _ => Form::Unknown,
    }
}

/// Answers one call. What holds for every request is checked as over REST.
pub async fn handle(face: Face, others: Others, peer: Peer, mut request: Request) -> Response {
    let began = std::time::Instant::now();
    let id = super::http::request_id(request.headers());
    let span = tracing::debug_span!("call", id = &*id, path = request.uri().path());
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(RequestId(id.clone()));
    let call = admitted(face.clone(), others, peer, &id, request).instrument(span.clone());
    let mut response = calling_from(peer.origin(&id), call).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    let refused = response.headers().get("grpc-status").is_some_and(|status| status.as_bytes() != b"0") || !response.status().is_success();
    tracing::debug!(parent: &span, refused, ms = began.elapsed().as_millis() as u64, "answered");
    face.stats().grpc_call(refused);
    response
}

async fn admitted(face: Face, others: Others, peer: Peer, id: &str, request: Request) -> Response {
    if request.headers().len() > limits::HEADER_COUNT {
        return StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
    }
    let certified = request.extensions().get::<Shown>().is_some();
    let (uri, headers) = (request.uri(), request.headers());
    let door = framing::check(request.version(), uri, headers)
        .and_then(|()| face.settings().doors.check(peer, certified, uri, headers))
        .and_then(|()| auth::check_no_key_in(uri.query()));
    if let Err(error) = door {
        return failed(status::of(error, id));
    }
    match form(request.headers()) {
        Form::Plain if request.version() == Version::HTTP_2 => dispatch(face, others, request).await,
        Form::Plain => failed(Status::unimplemented("gRPC needs HTTP/2. Over HTTP/1.1 use gRPC-web (Content-Type: application/grpc-web+proto).")),
        Form::Web => Box::pin(web(face, others, request)).await,
        Form::Unknown => failed(Status::unimplemented("This Content-Type is not spoken here; send application/grpc or application/grpc-web+proto.")),
    }
}

/// gRPC-web, the gRPC of pages: those that may call may also read the answer.
async fn web(face: Face, others: Others, request: Request) -> Response {
    if cors::concerns(&face.settings().doors, &request) {
        return cors::answer(request, |request| translated(face.clone(), others.clone(), request)).await;
    }
    translated(face, others, request).await
}

/// The library turns the call and its answer round.
async fn translated(face: Face, others: Others, request: Request) -> Response {
    let inner = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let (face, others) = (face.clone(), others.clone());
        async move { Ok::<_, Infallible>(dispatch(face, others, request.map(Body::new)).await) }
    });
    match tonic_web::GrpcWebLayer::new().layer(inner).call(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

async fn dispatch(face: Face, others: Others, request: Request) -> Response {
    if request.method() != HttpMethod::POST {
        let mut response = failed(Status::unimplemented("A call is a POST."));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Some(method) = Method::at(request.uri().path()) else {
        return failed(Status::unimplemented(format!("There is no method {} here.", quote(request.uri().path()))));
    };
    if request.headers().get("grpc-encoding").is_some_and(|encoding| encoding.as_bytes() != b"identity") {
        let mut response = failed(Status::unimplemented("Messages are not compressed here; leave grpc-encoding out."));
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        return response;
    }
    let (mut parts, body) = request.into_parts();
    let id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    // Who logs in shows its credential in the message.
    let stranger = method == Method::Access(access::Method::OpenSession);
    let call = if stranger { Call::of_a_stranger(face, &parts) } else { Call::of(face, &parts).await };
    let call = match call {
        Ok(call) => call,
        Err(error) => return failed(status::of(error, &id)),
    };
    if method == Method::Other {
        return Box::pin(others.answer(&call, Request::from_parts(parts, body))).await;
    }
    let known = if stranger { Ok(()) } else { call.who().known() };
    if let Err(error) = known.and_then(|()| call.face().count(&mut parts, call.who())) {
        return failed(call.status(error));
    }
    // A promise that is not kept is not taken either.
    if method != Method::Append && parts.headers.contains_key("idempotency-key") {
        let why = "Metadata idempotency-key is kept for Append only; leave it out. A commit is made repeatable by its producer.";
        return failed(call.status(Error::new(Code::NotImplemented, why).detail("field", "idempotency-key")));
    }
    let deadline = call.deadline();
    match method {
        Method::Connect => connect::begin(call, body),
        method => {
            let mut answering = pin!(answered(call, method, &parts, body));
            match deadline {
                None => answering.await,
                Some(at) if at <= Instant::now() => failed(status::deadline_exceeded(false, &id)),
                Some(at) => match tokio::time::timeout_at(at, answering.as_mut()).await {
                    Ok(response) if matches!(method, Method::Subscribe | Method::Read) => Bounded::by(response, deadline),
                    Ok(response) => response,
                    Err(_) => failed(status::deadline_exceeded(!method.only_looks(), &id)),
                },
            }
        }
    }
}

/// Dropping it is the caller's cancelling: the request had no effect yet, or has all of it (P-13).
async fn answered(call: Call, method: Method, parts: &Parts, body: Body) -> Response {
    let most = call.face().settings().message_max_bytes;
    let most = if call.who().is_anonymous() { most.min(limits::MESSAGE_MAX_BYTES_PRE_AUTH) } else { most };
    let message = match message::single(body, most).await {
        Ok(message) => message,
        Err(status) => return failed(status),
    };
    meter::came(&parts.extensions, message.len());
    let one = match method {
        Method::Append => unary::append(&call, &parts.headers, message).await,
        Method::Ack => unary::ack(&call, message).await,
        // The others are rarer: behind a box their states do not make every call larger.
        Method::OpenProducer => Box::pin(unary::open_producer(&call, message)).await,
        Method::Commit => Box::pin(unary::commit(&call, message)).await,
        Method::Pull => Box::pin(unary::pull(&call, message)).await,
        Method::Admin(method) => Box::pin(admin::answer(&call, method, &message)).await,
        Method::Access(method) => Box::pin(access::answer(&call, method, &message)).await,
        Method::Subscribe => match Box::pin(follow::subscribe(&call, message)).await {
            Ok(frames) => return body::many(frames),
            Err(error) => Err(error),
        },
        Method::Read => match Box::pin(follow::read(call, message)).await {
            Ok(pages) => return body::many(pages),
            Err(status) => return failed(status),
        },
        Method::Connect | Method::Other => return failed(Status::internal("This call has no single message.")), // handled by the caller
    };
    match one {
        Ok(reply) => body::one(reply),
        Err(error) => failed(call.status(error)),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Files {
        #[prost(message, repeated, tag = "1")]
        file: Vec<File>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        service: Vec<Service>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        method: Vec<Rpc>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Rpc {
        #[prost(string, tag = "1")]
        name: String,
    }

    #[test]
    fn every_method_of_the_proto_files_is_answered() {
        let files = Files::decode(crate::wire::proto::DESCRIPTORS).unwrap();
        let services = files.file.iter().flat_map(|file| file.service.iter().map(move |service| (format!("{}.{}", file.package, service.name), service)));
        let paths: Vec<String> = services.flat_map(|(name, service)| service.method.iter().map(move |m| format!("/{name}/{}", m.name))).collect();
        assert_eq!(paths.len(), 8 + 16 + 21);
        for path in &paths {
            assert!(Method::at(path).is_some_and(|m| m != Method::Other), "{path}");
        }
        for bad in ["/tidelog.v1.Broker/append", "/tidelog.v1.Broker", "/tidelog.v1.Admin/", "/x/y", "", "tidelog.v1.Broker/Append"] {
            assert_eq!(Method::at(bad), None, "{bad}");
        }
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        let of = |text: &str| form(&HeaderMap::from_iter([(header::CONTENT_TYPE, text.parse().unwrap())]));
        assert!(of("application/grpc") == Form::Plain && of("application/grpc+proto") == Form::Plain && of("application/grpc;x=y") == Form::Plain);
        assert!(of("application/grpc-web-text") == Form::Web && of("application/grpc-web+proto") == Form::Web);
        assert!(of("application/grpc+json") == Form::Unknown && of("application/grpc-web+json") == Form::Unknown);
    }
}
