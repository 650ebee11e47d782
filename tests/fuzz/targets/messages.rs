//! Requests of gRPC calls: every message that a client may send, read strictly. The first byte says which.

use prost::Message;
use tidelog::types::Error;
use tidelog::wire::proto::{request, v1};

use crate::engine::{Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{refused, taken};

/// A list may have [`tidelog::types::limits::LIST_ENTRIES`] of two bytes each.
pub const MESSAGES: Target =
    Target { name: "grpc_messages", shape: Shape::Bytes, bound: Bound { base: 128 * 1024, ..Bound::USUAL }, seeds, check, cases: 40_000 };

type Read = fn(&[u8], &mut Gauge) -> Result<Result<(), Error>, String>;

/// Reads a message, and reads back what is written of it.
fn one<M: Message + Default + PartialEq>(name: &'static str, body: &[u8], gauge: &mut Gauge) -> Result<Result<(), Error>, String> {
    let read: M = match gauge.decode(|| request::read(name, body)) {
        Ok(read) => read,
        Err(why) => return Ok(Err(why)),
    };
    let again: M = request::read(name, &read.encode_to_vec()).map_err(|why| format!("written again {name} is refused: {why}"))?;
    if again != read { Err(format!("written again {name} is another")) } else { Ok(Ok(())) }
}

macro_rules! messages {
    ($($name:ident),*) => { &[$((stringify!($name), |body, gauge| one::<v1::$name>(stringify!($name), body, gauge))),*] };
}

const ALL: &[(&str, Read)] = messages![
    AckRequest,
    PullRequest,
    ReadRequest,
    CreateStreamRequest,
    GetStreamRequest,
    ListStreamsRequest,
    TrimStreamRequest,
    CloseStreamRequest,
    DeleteStreamRequest,
    CreateSubscriptionRequest,
    GetSubscriptionRequest,
    ListSubscriptionsRequest,
    DeleteSubscriptionRequest,
    SeekSubscriptionRequest,
    GetProducerRequest,
    ListProducersRequest,
    DeleteProducerRequest,
    GetOperationRequest,
    WaitOperationRequest,
    Subscribe,
    OpenProducer,
    Resume,
    Ack,
    AddCredit,
    Auth,
    ListUsersRequest,
    CreateUserRequest,
    GetUserRequest,
    ChangeUserRequest,
    DeleteUserRequest,
    ListSourcesRequest,
    CreateSourceRequest,
    GetSourceRequest,
    ChangeSourceRequest,
    RotateSourceRequest,
    DeleteSourceRequest,
    ListKeysRequest,
    CreateKeyRequest,
    DeleteKeyRequest,
    ListRightsRequest,
    GetRightRequest,
    SetRightRequest,
    OpenSessionRequest,
    GetSessionRequest,
    CloseSessionRequest,
    CreateTicketRequest
];

fn seeds() -> Vec<Vec<u8>> {
    let place = |n: u8| v1::Start { start: Some(if n == 0 { v1::start::Start::Offset(41) } else { v1::start::Start::Place(1) }) };
    let mut all: Vec<Vec<u8>> = Vec::new();
    for (at, (name, _)) in ALL.iter().enumerate() {
        let body = match *name {
            "AckRequest" => {
                v1::AckRequest { stream: "orders".into(), subscription: "billing".into(), epoch: Some(6), ack_token: None, offset: Some(41), level: 1 }
                    .encode_to_vec()
            }
            "PullRequest" => {
                let m = v1::PullRequest {
                    stream: "orders".into(),
                    subscription: "billing".into(),
                    from: Some(place(0)),
                    max_events: 9,
                    wait_s: 1,
                    ..Default::default()
                };
                m.encode_to_vec()
            }
            "ReadRequest" => {
                let position = Some(v1::read_request::Position::From(place(1)));
                v1::ReadRequest { stream: "orders".into(), position, limit: Some(3), follow: true }.encode_to_vec()
            }
            "CreateStreamRequest" => {
                let label = v1::Label { name: "team".into(), value: "pay".into() };
                v1::CreateStreamRequest { name: "orders".into(), description: "d".into(), metadata: vec![label], event_max_bytes: Some(10) }.encode_to_vec()
            }
            "SeekSubscriptionRequest" => v1::SeekSubscriptionRequest { stream: "orders".into(), name: "b".into(), to: Some(place(0)) }.encode_to_vec(),
            "CreateUserRequest" => v1::CreateUserRequest { name: "alice".into(), password: Some("correct horse".into()), root: true }.encode_to_vec(),
            "ChangeUserRequest" => {
                let (name, password) = ("alice".into(), Some("correct horse".into()));
                v1::ChangeUserRequest { name, password, root: Some(false), disabled: Some(true) }.encode_to_vec()
            }
            "ListSourcesRequest" => v1::ListSourcesRequest { after: 7, limit: 10, filter: "name eq till".into() }.encode_to_vec(),
            "CreateSourceRequest" => v1::CreateSourceRequest { name: "till".into(), description: "d".into(), owner: Some("alice".into()) }.encode_to_vec(),
            "ChangeSourceRequest" => {
                v1::ChangeSourceRequest { id: 7, name: Some("till".into()), description: Some("d".into()), disabled: Some(true) }.encode_to_vec()
            }
            "GetSourceRequest" | "RotateSourceRequest" | "DeleteSourceRequest" => v1::GetSourceRequest { id: 7 }.encode_to_vec(),
            "SetRightRequest" => v1::SetRightRequest { stream: "orders".into(), principal: "source:7".into(), right: "ReadOnly".into() }.encode_to_vec(),
            // Two texts and a number fit, or nearly fit, all others.
            _ => [&b"\x0a\x06orders"[..], b"\x12\x07billing", b"\x18\x03"].concat(),
        };
        all.push([&[at as u8][..], &body].concat());
        all.push(vec![at as u8]);
    }
    // Messages with events in them have readers of their own.
    for (at, frame) in super::frames::client_messages().iter().enumerate() {
        all.push([&[200 + (at % 2) as u8][..], &frame[frame.len().min(2)..]].concat());
    }
    all
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Some((which, body)) = input.split_first() else { return taken("nothing") };
    let (name, outcome) = match which {
        200.. => ("events", gauge.decode(|| if which % 2 == 0 { request::append(body).map(drop) } else { request::commit(body).map(drop) })),
        _ => {
            let (name, read) = ALL[usize::from(*which) % ALL.len()];
            (name, read(body, gauge)?)
        }
    };
    match outcome {
        Ok(()) => taken(name),
        Err(why) => refused(&why),
    }
}
