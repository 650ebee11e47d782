//! A connection of frames without our client library: over a WebSocket in either form, or a gRPC call.

use futures_util::{SinkExt as _, StreamExt as _};
use tidelog::types::Applied;
use tidelog::wire::frame::{ClientFrame, ServerFrame};
use tidelog::wire::{json, proto};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::door::{ANSWERED, Door, Failure, Io};
use crate::grpc_client::{Connected, Grpc};
use crate::history::Told;

/// What carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Proto,
    Connect,
}

impl Form {
    pub const ALL: [Self; 3] = [Self::Json, Self::Proto, Self::Connect];

    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "ws-json",
            Self::Proto => "ws-proto",
            Self::Connect => "grpc-connect",
        }
    }
}

/// See the module.
pub enum Frames {
    WebSocket(Box<WebSocketStream<Box<dyn Io>>>, Form),
    Connect(Box<Connected>),
}

impl Frames {
    /// After `hello`. `None`: nobody is there, or not for long.
    pub async fn open(form: Form, door: &Door) -> Option<Self> {
        timeout(ANSWERED, Self::try_open(form, door)).await.ok().flatten()
    }

    async fn try_open(form: Form, door: &Door) -> Option<Self> {
        let mut frames = match form {
            Form::Json | Form::Proto => {
                let mut request = "ws://localhost/v1/connect".into_client_request().expect("a fine address");
                let name = if form == Form::Json { "tidelog.v1.json" } else { "tidelog.v1.proto" };
                request.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static(name));
                Self::WebSocket(Box::new(client_async(request, door.open().await?).await.ok()?.0), form)
            }
            Form::Connect => {
                let mut grpc = calls(door).await?;
                let (say, heard) = grpc.both("/tidelog.v1.Broker/Connect", Default::default()).await.ok()?;
                Self::Connect(Box::new(Connected { say: Some(say), heard }))
            }
        };
        match frames.hear().await? {
            ServerFrame::Hello(_) => Some(frames),
            // It goes down.
            ServerFrame::Error { .. } => None,
            other => panic!("the first frame of {} is {other:?}", form.name()),
        }
    }

    pub fn form(&self) -> Form {
        match self {
            Self::WebSocket(_, form) => *form,
            Self::Connect(_) => Form::Connect,
        }
    }

    pub async fn say(&mut self, frame: &ClientFrame) -> Option<()> {
        match self {
            Self::WebSocket(socket, Form::Json) => socket.send(Message::text(json::encode_client(frame))).await.ok(),
            Self::WebSocket(socket, _) => socket.send(Message::binary(proto::encode_client(frame))).await.ok(),
            Self::Connect(call) => call.say.as_ref()?.send(proto::encode_client(frame)).ok(),
        }
    }

    /// The next frame; `None` at the end of the connection. Dropping the future loses nothing.
    pub async fn hear(&mut self) -> Option<ServerFrame> {
        let name = self.form().name();
        loop {
            let frame = match self {
                Self::WebSocket(socket, _) => match socket.next().await?.ok()? {
                    Message::Text(text) => json::decode_server(text.as_str()),
                    Message::Binary(bytes) => proto::decode_server(&bytes),
                    Message::Close(_) => return None,
                    _ => continue,
                },
                Self::Connect(call) => match call.heard.message().await {
                    Ok(bytes) => proto::decode_server(bytes?),
                    Err(status) => {
                        failure(&status);
                        return None;
                    }
                },
            };
            // A frame of a kind we do not know would be one that no test knows.
            return Some(frame.unwrap_or_else(|e| panic!("over {name}: {e}")).unwrap_or_else(|| panic!("over {name} came an unknown frame")));
        }
    }

    /// In order.
    pub async fn close(self) {
        match self {
            Self::WebSocket(mut socket, _) => drop(socket.as_mut().close(None).await),
            Self::Connect(mut call) => call.close(),
        }
    }
}

/// The calls with one answer, on one connection.
pub async fn calls(door: &Door) -> Option<Grpc> {
    Grpc::try_over(door.open().await?, 1 << 20).await.ok()
}

/// What a status says. One without our details comes from below: the connection.
pub fn failure(status: &tonic::Status) -> Failure {
    if status.details().is_empty() {
        return Failure::no_answer();
    }
    let error = crate::grpc_client::error(status);
    let applied = if error.applied() == tidelog::wire::proto::v1::Applied::No { Applied::No } else { Applied::Unknown };
    let details = serde_json::from_str(&error.details).unwrap_or_default();
    let told = Told {
        carrier: "grpc".into(),
        code: error.code,
        applied: applied.as_str().to_owned(),
        retry: error.retry,
        number: Some(i64::from(status.code() as i32)),
    };
    Failure::told(told, details)
}
