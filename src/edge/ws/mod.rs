//! WebSocket: `/v1/connect`, the URL of one subscription, and `/echo` under `tidelog dev`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::Instrument as _;

use super::http::{Anyone, Failure, NoQuery, Path, Query, RequestId};
use super::{Face, Peer, Seats, Socket};
use crate::broker::Principal;
use crate::types::name::quote;
use crate::types::request::{OnGap, SubscribeRequest, Takeover};
use crate::types::{Error, Result, limits};

mod clock;
mod connection;
mod dialect;
mod echo;
mod fragments;
mod handshake;
mod link;
mod outbox;

use dialect::Dialect;
use handshake::{Subprotocol, Upgrade};
use outbox::Tee;

/// Longest head of a frame (RFC 6455 section 5.2).
const FRAME_HEAD_BYTES: usize = 14;

/// A WebSocket whose output goes through our own buffer. Behind a pointer, since the futures that pass it on keep room for each pass.
type WebSocket = WebSocketStream<Box<Tee<Socket>>>;

/// Explicit sizes: the library's defaults cost 128 KiB per idle connection and accept 64 MiB messages.
fn config(message_max_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::WS_READ_BUFFER_BYTES)
        .write_buffer_size(0) // the outbox buffers
        .max_write_buffer_size(limits::WS_MAX_WRITE_BUFFER_BYTES)
        .max_message_size(Some(message_max_bytes))
        .max_frame_size(Some(message_max_bytes))
        .accept_unmasked_frames(false)
}

async fn open(socket: Socket, early: Vec<u8>, message_max_bytes: usize, allowance: Option<usize>) -> WebSocket {
    let mut tee = Box::new(Tee::new(socket, &early));
    tee.allowance = allowance.map(|bytes| bytes.saturating_sub(early.len()));
    let config = Some(config(message_max_bytes));
    if early.is_empty() {
        WebSocketStream::from_raw_socket(tee, Role::Server, config).await
    } else {
        WebSocketStream::from_partially_read(tee, early, Role::Server, config).await
    }
}

/// `GET /v1/connect`
pub async fn connect(State(face): State<Face>, Anyone(who): Anyone, _: NoQuery, request: Request) -> Result<Response, Failure> {
    upgrade(face, who, None, request)
}

/// `GET …/subscriptions/{subscription}/connect`: one subscription, frames without `sub`.
pub async fn connect_one(State(face): State<Face>, Anyone(who): Anyone, path: Path, mut query: Query, request: Request) -> Result<Response, Failure> {
    let only = subscribe_request(&path, &mut query)?;
    query.finish()?;
    upgrade(face, who, Some(only), request)
}

fn upgrade(face: Face, who: Principal, only: Option<SubscribeRequest>, request: Request) -> Result<Response, Failure> {
    let (peer, seats) = (request.extensions().get::<Peer>().copied(), request.extensions().get::<Seats>().cloned());
    if peer != Some(Peer::Local) {
        face.settings().doors.check_origin(request.uri(), request.headers())?;
    }
    let chosen = Subprotocol::choose(request.headers())?;
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let (response, socket) = Upgrade::accept(request, chosen)?.into_parts();
    let dialect = Dialect { subprotocol: chosen.unwrap_or(Subprotocol::Json), single: only.is_some() };
    let span = tracing::debug_span!("websocket", id = &*id);
    let tasks = face.clone();
    tasks.spawn(
        async move {
            let Some((socket, early)) = socket.await else { return };
            let _slot = face.stats().enter_websocket();
            match who.known() {
                Ok(()) => {
                    let message_max = face.settings().message_max_bytes;
                    let ws = open(socket, early, message_max, None).await;
                    let usage = face.usage(peer, &who).cloned();
                    connection::run(face, ws, (who, usage), dialect, only, id).await;
                }
                Err(error) => {
                    let message_max = face.settings().message_max_bytes;
                    let ws = open(socket, early, message_max, Some(limits::MESSAGE_MAX_BYTES_PRE_AUTH + FRAME_HEAD_BYTES)).await;
                    Box::pin(connection::introduce(face, ws, (peer, seats), dialect, only, error, id)).await;
                }
            }
        }
        .instrument(span),
    );
    Ok(response)
}

/// `GET /echo` under `tidelog dev`: answers what it hears, with the settings of `/v1/connect`.
pub async fn echo(State(face): State<Face>, Anyone(who): Anyone, request: Request) -> Result<Response, Failure> {
    who.known()?;
    let (response, socket) = Upgrade::accept(request, None)?.into_parts();
    let tasks = face.clone();
    tasks.spawn(async move {
        let Some((socket, early)) = socket.await else { return };
        let ws = open(socket, early, face.settings().message_max_bytes, None).await;
        echo::run(face, ws).await;
    });
    Ok(response.into_response())
}

/// What the URL of one subscription asks for, of whatever carrier.
///
/// # Errors
/// `bad_parameter`.
pub fn subscribe_request(path: &Path, query: &mut Query) -> Result<SubscribeRequest> {
    let mut request = SubscribeRequest::new(path.stream()?, Some(path.subscription()?));
    request.from = query.take_filled("from").map(|text| super::http::start(&text, "from")).transpose()?;
    request.takeover = query.take_filled("takeover").map_or(Ok(Takeover::default()), |text| word("takeover", &text, Takeover::parse, "steal or reject"))?;
    request.on_gap = query.take_filled("on_gap").map(|text| word("on_gap", &text, OnGap::parse, "fail or skip")).transpose()?;
    request.log_epoch = query.take_number("log_epoch", 0, i64::MAX)?.map(|n| n as u64);
    request.rewind = match query.take("rewind").as_deref() {
        None | Some("false" | "0") => false,
        Some("true" | "1" | "") => true,
        Some(other) => return Err(Error::bad("rewind", format!("Query parameter rewind is {}; give true or false.", quote(other)))),
    };
    Ok(request)
}

/// One of a few words in the query.
///
/// # Errors
/// `bad_parameter`, listing them.
pub fn word<T>(name: &str, text: &str, parse: impl Fn(&str) -> Option<T>, words: &str) -> Result<T> {
    parse(text).ok_or_else(|| Error::bad(name, format!("Query parameter {name} is {}; it may be {words}.", quote(text))))
}
