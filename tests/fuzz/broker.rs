//! A whole broker in this process, over its real sockets: strangers send it mutated frames, requests and raw bytes, while an honest client
//! goes on beside them. A stranger's connection may end with a stated error. The broker lives, and the honest client notices nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tidelog::server::{Config, Mode, Server};
use tidelog::types::{Applied, Code};
use tidelog::wire::frame::ServerFrame;
use tidelog::wire::{json, proto};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::corpus::golden;
use crate::dice::Dice;
use crate::engine::panics_elsewhere;
use crate::mutate::{Shape, mutate, parts};
use crate::promises::{ERROR_BYTES, sentence};
use crate::targets::{frames, routes};

const PATIENCE: Duration = Duration::from_secs(20);
/// The stream of the honest client: no mutation arrives at this name.
const KEPT: &str = "kept-by-the-honest-one";

type Socket = WebSocketStream<TcpStream>;

async fn socket(server: &Server, form: &str) -> Socket {
    let tcp = TcpStream::connect(server.address()).await.expect("the broker listens");
    let mut request = "ws://localhost/v1/connect".into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", form.parse().expect("a header"));
    timeout(PATIENCE, client_async(request, tcp)).await.expect("an upgrade in time").expect("an upgrade").0
}

/// The next frame of a JSON connection that is expected to live.
async fn next(socket: &mut Socket) -> ServerFrame {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("a frame in time") {
            Some(Ok(Message::Text(text))) => return json::decode_server(text.as_str()).expect("a frame").expect("a known frame"),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("the honest client's connection ended: {other:?}"),
        }
    }
}

/// Appends one event after the other as a producer, and follows its own stream: each is answered once, at the next offset, and comes once.
async fn honest(server: Arc<Server>, stop: Arc<AtomicBool>, rounds: Arc<AtomicU64>) -> (u64, Duration) {
    let mut socket = socket(&server, "tidelog.v1.json").await;
    assert!(matches!(next(&mut socket).await, ServerFrame::Hello(_)));
    for text in [
        format!(r#"{{"t":"open_producer","req":0,"stream":"{KEPT}","producer":"honest"}}"#),
        format!(r#"{{"t":"subscribe","sub":7,"stream":"{KEPT}","subscription":"own","create":true}}"#),
    ] {
        socket.send(Message::text(text)).await.expect("the socket takes it");
    }
    let (mut epoch, mut slowest) = (None, Duration::ZERO);
    let mut appended = 0;
    while !stop.load(SeqCst) || appended == 0 {
        let Some(epoch) = epoch else {
            match next(&mut socket).await {
                ServerFrame::ProducerOpened { reply, .. } => epoch = Some(reply.epoch),
                ServerFrame::Subscribed { .. } | ServerFrame::Live { .. } => {}
                other => panic!("not what was asked: {other:?}"),
            }
            continue;
        };
        let began = Instant::now();
        let text = format!(
            r#"{{"t":"append","req":{appended},"stream":"{KEPT}","producer":{{"id":"honest","epoch":{epoch},"seq":{appended}}},"events":[{{"data":{appended}}}]}}"#
        );
        socket.send(Message::text(text)).await.expect("the socket takes it");
        let (mut answered, mut came) = (false, false);
        while !(answered && came) {
            match next(&mut socket).await {
                ServerFrame::Appended { req, reply } => {
                    assert_eq!((req, reply.first_offset, reply.duplicate), (appended, Some(appended), false));
                    answered = true;
                }
                ServerFrame::Events { slices, .. } => {
                    let all: Vec<_> = slices.iter().flat_map(|s| s.events().map(|(offset, e)| (offset, e.data.to_vec()))).collect();
                    assert_eq!(all, [(appended, appended.to_string().into_bytes())]);
                    socket.send(Message::text(format!(r#"{{"t":"ack","sub":7,"offset":{appended}}}"#))).await.expect("the socket takes it");
                    came = true;
                }
                ServerFrame::Subscribed { .. } | ServerFrame::Live { .. } | ServerFrame::Acked { .. } => {}
                other => panic!("not what was asked: {other:?}"),
            }
        }
        slowest = slowest.max(began.elapsed());
        appended += 1;
        rounds.store(appended, SeqCst);
    }
    (appended, slowest)
}

/// What a stranger hears is one of the table, surely without an effect or not our fault, and short.
fn acceptable(frame: &ServerFrame) {
    if let ServerFrame::Error { error, .. } = frame {
        assert!(!matches!(error.code, Code::Internal | Code::OutcomeUnknown | Code::StorageFailed | Code::DataCorrupt), "{error}");
        assert_eq!(error.applied, Applied::No, "{error}");
        sentence(&error.message).unwrap_or_else(|why| panic!("{why}"));
        assert!(error.message.len() < ERROR_BYTES, "{error}");
    }
}

/// Close codes with which a broker may part from a stranger.
const CLOSES: &[u16] = &[1000, 1002, 1003, 1007, 1009, 4001, 4008];

/// Sends messages, then a ping, and listens until it is answered or the connection is closed. Says whether it was closed.
async fn stranger(server: &Server, form: &str, messages: Vec<Message>, ping: Message) -> bool {
    let binary = form.ends_with("proto");
    let mut socket = socket(server, form).await;
    for message in messages.into_iter().chain([ping]) {
        if socket.send(message).await.is_err() {
            break; // it was closed on an earlier one; why is heard below
        }
    }
    loop {
        let message = match timeout(PATIENCE, socket.next()).await.expect("the broker answers or closes") {
            Some(Ok(message)) => message,
            // Reset after the close frame was sent is a close too.
            Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::Io(_) | tungstenite::Error::Protocol(_))) | None => return true,
            Some(Err(why)) => panic!("the broker breaks the protocol: {why}"),
        };
        let frame = match message {
            Message::Text(text) if !binary => json::decode_server(text.as_str()),
            Message::Binary(bytes) if binary => proto::decode_server(&bytes),
            Message::Close(Some(frame)) => {
                assert!(CLOSES.contains(&frame.code.into()), "closed with {frame:?}");
                continue;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(None) => continue,
            other => panic!("not a frame of {form}: {other:?}"),
        };
        let frame = frame.expect("a frame").expect("a known frame");
        acceptable(&frame);
        if matches!(frame, ServerFrame::Pong) {
            return false;
        }
    }
}

/// Writes bytes, and reads what comes until the broker closes or falls silent.
async fn raw(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(server.address()).await.expect("the broker listens");
    let _ = tcp.write_all(bytes).await; // it may be refused half way
    let _ = tcp.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_millis(40), tcp.read_to_end(&mut answer)).await;
    answer
}

/// A request as it stands on the wire: `\r\n`, a host, a length.
fn on_the_wire(request: &[u8]) -> Vec<u8> {
    let (head, body) = parts(request);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split('\n');
    let mut out = format!("{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", lines.next().unwrap_or_default(), body.len());
    lines.for_each(|line| out.extend([line, "\r\n"]));
    [out.as_bytes(), b"\r\n", body].concat()
}

/// A gRPC call over HTTP/2 as it stands on the wire.
fn http2() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    let path = [&[0x04][..], &text("/tidelog.v1.Broker/Append")].concat();
    let headers =
        [&[0x83, 0x86][..], &path, &[0x01], &text("localhost"), &[0x0f, 0x10], &text("application/grpc"), &[0x00], &text("te"), &text("trailers")].concat();
    let message = b"\x12\x06orders\x7a\x05\x7a\x03\x0a\x011";
    let data = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 4, 1, &headers), frame(0, 1, 1, &data)].concat()
}

/// WebSocket frames as they stand on the wire, masked with zeros, behind an upgrade.
fn upgraded(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    for (i, frame) in frames.iter().enumerate() {
        let len = frame.len() as u16;
        out.extend([0x81 - u8::from(i % 5 == 3) * 0x80, 0x80 | 126]);
        out.extend(len.to_be_bytes());
        out.extend([0; 4]);
        out.extend(&frame[..usize::from(len)]);
    }
    out
}

/// Upgrades as a whole: the head stays, and what follows is mutated.
const HEAD: usize = 155;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_send_anything_hurt_neither_the_broker_nor_an_honest_client() {
    let before = panics_elsewhere().len();
    let dir = tempfile::tempdir().expect("a folder");
    let server = Arc::new(Server::start(Config::for_tests(Mode::Dev, dir.path())).await.expect("the broker starts"));
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let honest = tokio::spawn(honest(server.clone(), stop.clone(), rounds.clone()));
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("the same again: SEED={seed} cargo test --release --test fuzz strangers");
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let (end, most) = seconds.map_or((Duration::from_secs(15), 2_000), |s| (Duration::from_secs(s), u64::MAX));
    let (texts, messages, requests, call) = (golden("→"), frames::client_messages(), routes::seeds(), http2());
    let (began, mut sent, mut closed, mut heard) = (Instant::now(), 0, 0u64, 0u64);
    while began.elapsed() < end && sent < most {
        let mut dice = Dice::of(seed, "strangers", sent);
        let some = |dice: &mut Dice, shape, of: &[Vec<u8>]| {
            let (base, other) = (dice.below(of.len()), dice.below(of.len()));
            // What is right leads to where something wrong is met.
            if dice.one_in(4) { of[base].clone() } else { mutate(dice, shape, &of[base], &of[other]) }
        };
        let many = 1 + dice.below(8);
        match sent % 5 {
            0 => {
                let all: Vec<_> = (0..many).map(|_| some(&mut dice, Shape::Json, &texts)).collect();
                let message = |bytes: Vec<u8>| String::from_utf8(bytes).map_or_else(|e| Message::binary(e.into_bytes()), Message::text);
                let ping = Message::text(r#"{"t":"ping"}"#);
                closed += u64::from(stranger(&server, "tidelog.v1.json", all.into_iter().map(message).collect(), ping).await);
            }
            1 => {
                let all: Vec<_> = (0..many).map(|_| Message::binary(some(&mut dice, Shape::Proto, &messages))).collect();
                let ping = Message::binary(proto::encode_client(&tidelog::wire::frame::ClientFrame::Ping));
                closed += u64::from(stranger(&server, "tidelog.v1.proto", all, ping).await);
            }
            2 => {
                let request = on_the_wire(&some(&mut dice, Shape::Request, &requests));
                heard += raw(&server, &request).await.len() as u64;
            }
            3 => {
                let all: Vec<_> = (0..many).map(|_| some(&mut dice, Shape::Json, &texts)).collect();
                let whole = upgraded(&all);
                let after = mutate(&mut dice, Shape::Bytes, &whole[HEAD.min(whole.len())..], &call);
                heard += raw(&server, &[&whole[..HEAD.min(whole.len())], &after].concat()).await.len() as u64;
            }
            _ => {
                let preface = 24;
                let after = mutate(&mut dice, Shape::Bytes, &call[preface..], &call);
                heard += raw(&server, &[&call[..preface], &after].concat()).await.len() as u64;
            }
        }
        sent += 1;
    }
    // It still is there for a stranger with manners, and was there for the honest client all the time.
    let ping = Message::text(r#"{"t":"ping"}"#);
    assert!(!stranger(&server, "tidelog.v1.json", vec![], ping).await, "the broker does not answer any more");
    let so_far = rounds.load(SeqCst);
    timeout(PATIENCE, async {
        while rounds.load(SeqCst) == so_far {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the honest client gets on");
    stop.store(true, SeqCst);
    let (appended, slowest) = timeout(PATIENCE, honest).await.expect("it ends").expect("the honest client noticed nothing");
    assert!(panics_elsewhere().len() == before, "the broker panicked: {:?}", &panics_elsewhere()[before..]);
    println!(
        "{sent} strangers in {:.1} s, {closed} closed, {heard} bytes heard from raw ones; beside them {appended} honest round trips, the slowest {slowest:?}",
        began.elapsed().as_secs_f64()
    );
    assert!(closed > 0 && heard > 0 && appended > 100, "strangers that are never noticed test nothing");
}
