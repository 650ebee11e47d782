//! Evernest: the API of another program, spoken to its clients as they expect it (`surfaces.md` section 3.3; `docs/evernest.md`).
//!
//! A guest room: names, shapes and statuses of Evernest are translated here, and nothing outside knows of them. What is pushed here is an
//! event like any other, and what others append can be pulled here. The stages of a call are in the order of the fixed rules: method and
//! action, then what can be parsed, then missing arguments, then malformed ones, then the key, what it names, the right, the state.

mod arguments;
mod budget;
mod envelope;
mod event;
mod fault;
mod handlers;
mod input;
mod route;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

use self::arguments::Argument;
pub use self::budget::Budget;
use self::fault::Fault;
use self::input::Input;
use self::route::Kind;
pub use self::route::is_ours;
use super::http::body::{self, NoBody};
use super::{Face, Peer};
use crate::types::{Code, Error, limits};

/// Answers a request whose path is ours.
pub async fn handle(face: Face, request: Request) -> Response {
    answer(&face, request).await.unwrap_or_else(|refused| match refused {
        Refused::Said(fault) => envelope::bad(&fault),
        Refused::Below(response) => *response,
    })
}

/// A request that was refused at the door, before its path was looked at.
pub fn refused(error: Error) -> Response {
    envelope::bad(&Fault::bad_request(&error.into_body().message))
}

/// Why there is no success.
enum Refused {
    Said(Fault),
    /// The connection is beyond answers in an envelope.
    Below(Box<Response>),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Said(fault)
    }
}

async fn answer(face: &Face, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::GET && parts.method != Method::POST {
        return Err(Fault::method(parts.method.as_str()).into());
    }
    let route = route::find(parts.uri.path()).ok_or_else(Fault::not_implemented)?;
    let peer = parts.extensions.get::<Peer>().copied();
    let share = face.strangers().share(peer.and_then(Peer::address)); // held as long as the arguments are
    let most = face.settings().message_max_bytes.min(limits::MESSAGE_MAX_BYTES);
    let body = match body::read(share.counted(body), &parts.headers, most).await {
        Ok(body) => body,
        Err(_) if share.was_refused() => return Err(Fault::other(out_of_budget()).into()),
        Err(NoBody::Refused(error)) => return Err(too_large(route.kind, error).into()),
        Err(below @ (NoBody::TooSlow | NoBody::Broken)) => return Err(Refused::Below(Box::new(below.into_response()))),
    };
    let input = Input::read(parts.uri.query(), &body)?;
    let came = handlers::Came { extensions: &parts.extensions, plane: route.kind.plane(), bytes: body.len() };
    drop(body); // what is needed of it was copied
    let call = arguments::read(route, input)?;
    Ok(handlers::answer(face, came, call).await?)
}

fn too_large(kind: Kind, error: Error) -> Fault {
    let why = error.into_body().message;
    if kind == Kind::Push { Fault::bad_one(Argument::Message, format!("The body is too large for any Message: {why}")) } else { Fault::bad_request(&why) }
}

fn out_of_budget() -> Error {
    Error::new(Code::RateLimited, "Too many bytes of requests from this address are on their way; wait for their answers, then send it again.")
}

/// A success that has the headers of this face and a body that goes on.
fn going_on(body: axum::body::Body) -> Response {
    envelope::json(StatusCode::OK, body)
}
