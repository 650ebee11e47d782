//! Whole requests, REST and gRPC-web, through the one door of the faces: paths, queries, headers, conditions, bodies of every route,
//! with a broker behind it. Line ends are `\n`; the wire's own reader of HTTP is met in `broker.rs`.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use serde_json::Value;
use tidelog::broker::{Broker, Settings as BrokerSettings};
use tidelog::edge::{Edge, Peer, Settings};
use tidelog::log::memory::Memory;
use tidelog::types::Code;
use tokio::runtime::Runtime;

use crate::engine::{Heard, Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::{Shape, parts};
use crate::promises::{ERROR_BYTES, sentence};

/// An answer may hold what was stored before.
pub const ROUTES: Target = Target {
    name: "routes",
    shape: Shape::Request,
    bound: Bound { base: 4 << 20, per_byte: 32, time: Duration::from_millis(400) },
    seeds,
    check,
    cases: 12_000,
};

pub fn seeds() -> Vec<Vec<u8>> {
    const JSON: &str = "Content-Type: application/json";
    let all: Vec<String> = vec![
        "GET /v1/streams/s/events?after=-1&limit=10".into(),
        "GET /v1/streams/s/events?from=earliest&wait=0".into(),
        "GET /v1/streams/s/events?from=2026-01-26T10:00:00Z&limit=1".into(),
        "GET /v1/streams/s/events\nAccept: text/event-stream\nLast-Event-ID: 1".into(),
        "GET /v1/streams/s/events/0\nIf-None-Match: W/\"1-1-0\", \"x\"\nRange: bytes=0-10".into(),
        "GET /v1/streams/s/events/-1".into(),
        "GET /v1/streams?recursion=1&limit=2&after=a".into(),
        "GET /v1/streams/s?recursion=1".into(),
        "GET /v1/streams/s/subscriptions/b/cursor".into(),
        "GET /v1/streams/s/subscriptions/b/events\nAccept: text/event-stream".into(),
        "GET /v1/streams/s/producers?recursion=1".into(),
        "GET /v1/operations/8c3f0000-0000-4000-8000-000000000000/wait?timeout=1".into(),
        "GET /v1/connect\nConnection: upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: tidelog.v1.json"
            .into(),
        "OPTIONS /v1/streams\nOrigin: http://localhost\nAccess-Control-Request-Method: POST\nAccess-Control-Request-Headers: content-type".into(),
        "HEAD /v1/streams/s/events/last".into(),
        "DELETE /v1/streams/other".into(),
        "GET /metrics\nX-Request-Id: r-1".into(),
        format!("POST /v1/streams\n{JSON}\n\n{{\"name\":\"t\",\"description\":\"d\",\"metadata\":{{\"team\":\"pay\"}},\"event_max_bytes\":100,\"durability\":\"fsync\"}}"),
        format!("POST /v1/streams/s/events\n{JSON}\nIdempotency-Key: order-7/1\n\n{{\"events\":[{{\"data\":{{\"n\":1}}}}],\"expected_next_offset\":3}}"),
        format!("POST /v1/streams/s/events\n{JSON}\n\n{{\"events\":[{{\"data\":1}}],\"producer\":{{\"id\":\"p\",\"epoch\":1,\"seq\":0}}}}"),
        "POST /v1/streams/s/events?lines=data\nContent-Type: application/x-ndjson\n\n1\n{\"two\":2}".into(),
        "POST /v1/streams/s/events?type=t&key=k\nContent-Type: text/plain; charset=utf-8\n\nhello".into(),
        format!("POST /v1/streams/s/trim\n{JSON}\n\n{{\"before_offset\":1}}"),
        format!("POST /v1/streams/s/trim\n{JSON}\n\n{{\"before_time\":\"2026-01-26T10:00:00Z\"}}"),
        format!("POST /v1/streams/s/subscriptions\n{JSON}\n\n{{\"name\":\"c\",\"start\":1,\"ack_timeout_s\":30,\"max_in_flight\":10,\"expires_s\":1000}}"),
        format!("PUT /v1/streams/s/subscriptions/b/cursor\n{JSON}\n\n{{\"next\":1}}"),
        format!("POST /v1/streams/s/subscriptions/b/pull\n{JSON}\n\n{{\"max_events\":2,\"max_bytes\":100,\"wait_s\":0,\"takeover\":\"steal\",\"on_gap\":\"skip\",\"log_epoch\":1,\"from\":0}}"),
        format!("POST /v1/streams/s/subscriptions/b/pull\n{JSON}\n\n{{\"epoch\":1,\"from\":0}}"),
        format!("POST /v1/streams/s/subscriptions/b/ack\n{JSON}\n\n{{\"epoch\":1,\"offset\":0,\"level\":\"received\"}}"),
        format!("POST /v1/streams/s/subscriptions/b/ack\n{JSON}\n\n{{\"ack_token\":\"AQAA\",\"offset\":1}}"),
        format!("POST /v1/streams/s/producers\n{JSON}\n\n{{\"producer\":\"p\",\"expect\":\"any\",\"stream_id\":1}}"),
        format!("POST /v1/producers\n{JSON}\n\n{{\"producer\":\"tx\"}}"),
        format!(
            "POST /v1/commit\n{JSON}\n\n{{\"acks\":[{{\"stream\":\"s\",\"subscription\":\"b\",\"epoch\":1,\"offset\":0}}],\"appends\":[{{\"stream\":\"s\",\"events\":[{{\"data\":1}}]}}],\"checks\":[{{\"stream\":\"s\",\"expected_next_offset\":3}}]}}"
        ),
        format!("POST /v1/streams/other/close\n{JSON}\n\n{{}}"),
        "GET /Stream/1/Pull/-3/-1?Key=tls_x&UserKey=tlu_x".into(),
        "POST /stream/1/PUSH?key=tls_x\n\n{\"MESSAGE\":\"h\\u0065llo\",\"Key\":null}".into(),
        "POST /Right/1/1/Set/ReadOnly\n\n{\"UserKey\":\"tlu_x\",\"userkey\":\"tlu_x\"}".into(),
        "GET /Source/New?UserKey=tlu_x&SourceName=%C3%A4\n\nnull".into(),
        "GET /User/1".into(),
    ];
    let grpc: [(&str, &[u8]); 14] = [
        ("Broker/Append", b"\x12\x01s\x7a\x05\x7a\x03\x0a\x011"),
        ("Broker/Pull", b"\x0a\x01s\x12\x01b"),
        ("Broker/Ack", b"\x0a\x01s\x12\x01b\x18\x01\x28\x00"),
        ("Broker/Read", b"\x0a\x01s\x20\x02"),
        ("Broker/Subscribe", b"\x12\x01s"),
        ("Broker/Commit", b"\x22\x0a\x0a\x01s\x7a\x05\x7a\x03\x0a\x011"),
        ("Admin/CreateStream", b"\x0a\x01u"),
        ("Admin/TrimStream", b"\x0a\x01s\x10\x01"),
        ("Admin/SeekSubscription", b"\x0a\x01s\x12\x01b\x1a\x02\x08\x01"),
        ("Access/ListUsers", b"\x0a\x01a\x10\x05"),
        ("Access/CreateSource", b"\x0a\x04till\x12\x01d"),
        ("Access/ChangeSource", b"\x08\x01\x12\x04shop\x20\x01"),
        ("Access/SetRight", b"\x0a\x01s\x12\x08source:1\x1a\x08ReadOnly"),
        ("Access/ListRights", b"\x0a\x01s\x12\x08source:1\x18\x01"),
    ];
    let mut out: Vec<Vec<u8>> = all.into_iter().map(String::into_bytes).collect();
    for (method, message) in grpc {
        let head = format!("POST /tidelog.v1.{method}\nContent-Type: application/grpc-web+proto\ngrpc-timeout: 5S\n\n");
        out.push([head.as_bytes(), &[0], &(message.len() as u32).to_be_bytes(), message].concat());
    }
    out
}

/// Faces and a broker in memory, with a stream of three events, a subscription, and whatever the requests before this one did.
struct Bench {
    runtime: Runtime,
    broker: Broker,
    edge: Edge,
    left: u32,
}

/// Requests that share a broker.
const REQUESTS: u32 = 100;

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (broker, edge) = runtime.block_on(async {
            let broker = Broker::open(Arc::new(Memory::new()), BrokerSettings::default()).await.expect("the broker opens");
            let settings = Settings { message_max_bytes: 1 << 20, ping_every: Duration::from_secs(20), dev: true, ..Settings::default() };
            let edge = Edge::new(broker.clone(), settings, Default::default(), Default::default());
            for (path, body) in [
                ("/v1/streams", r#"{"name":"s"}"#),
                ("/v1/streams", r#"{"name":"other"}"#),
                ("/v1/streams/s/events", r#"{"events":[{"data":1},{"data":"two","encoding":"utf8"},{"data":{"three":3}}]}"#),
                ("/v1/streams/s/subscriptions", r#"{"name":"b"}"#),
                ("/v1/streams/s/subscriptions/b/pull", r#"{}"#),
                ("/v1/streams/s/producers", r#"{"producer":"p"}"#),
            ] {
                let request =
                    Request::post(path).header("host", "localhost").header("content-type", "application/json").body(Body::from(body)).expect("a request");
                assert!(edge.handle(Peer::Local, request).await.status().is_success(), "{path} {body}");
            }
            (broker, edge)
        });
        Self { runtime, broker, edge, left: REQUESTS }
    }
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

fn request(input: &[u8]) -> Option<Request<Body>> {
    let (head, body) = parts(input);
    let mut lines = head.split(|b| *b == b'\n');
    let line = lines.next()?;
    let at = line.iter().position(|b| *b == b' ')?;
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = Method::from_bytes(&line[..at]).ok()?;
    *request.uri_mut() = std::str::from_utf8(&line[at + 1..]).ok()?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_at(line.iter().position(|b| *b == b':')?);
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?);
        request.headers_mut().append(name, value);
    }
    // Every request has one, unless it says otherwise: without it nothing else would be looked at.
    request.headers_mut().entry("host").or_insert(HeaderValue::from_static("localhost"));
    if request.headers().get("content-type").is_some_and(|t| t == "application/grpc") {
        *request.version_mut() = Version::HTTP_2;
    }
    Some(request)
}

fn check(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Some(request) = request(input) else { return Ok(Heard::Refused("the library's own refusal".into())) };
    let head = request.method() == Method::HEAD;
    let mut bench = BENCH.take().unwrap_or_else(Bench::new);
    let answer = gauge.decode(|| {
        bench.runtime.block_on(async {
            // Who waits for more is left alone after a moment, as by a client that goes away.
            let all = async {
                let mut response = bench.edge.handle(Peer::Local, request).await;
                let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
                while let Some(Ok(frame)) = std::future::poll_fn(|cx| std::pin::Pin::new(response.body_mut()).poll_frame(cx)).await {
                    match frame.into_data() {
                        Ok(data) => body.extend_from_slice(&data),
                        Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
                    }
                    if body.len() > 1 << 21 {
                        break;
                    }
                }
                (response.status(), response.headers().clone(), body, trailers)
            };
            tokio::time::timeout(Duration::from_millis(15), all).await.ok()
        })
    });
    bench.left -= 1;
    if bench.left == 0 {
        let closed = bench.runtime.block_on(bench.broker.close());
        closed.map_err(|why| format!("the broker does not close: {why}"))?;
    } else {
        BENCH.set(Some(bench));
    }
    let Some((status, headers, body, trailers)) = answer else { return Ok(Heard::Taken("it waits".into())) };
    judge(status, &headers, if head { None } else { Some(&body) }, &trailers).inspect_err(|_| drop(BENCH.take()))
}

/// A broken broker, or one that cannot know: nothing that a client sends may bring these about.
const OURS: &[Code] = &[Code::Internal, Code::OutcomeUnknown, Code::StorageFailed, Code::StorageFull, Code::DataCorrupt, Code::Unavailable, Code::Overloaded];

/// An answer is a success, or an error that is one of the table, in its place, without an effect and in bounds.
pub fn judge(status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>, trailers: &HeaderMap) -> Verdict {
    if let Some(number) = headers.get("grpc-status").or(trailers.get("grpc-status")) {
        let text = |name: &str| headers.get(name).or(trailers.get(name)).map_or(String::new(), |v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let size = text("grpc-message").len() + text("grpc-status-details-bin").len();
        if size > 6 * ERROR_BYTES {
            return Err(format!("the status is {size} bytes long"));
        }
        return match number.as_bytes() {
            b"0" => Ok(Heard::Taken("call".into())),
            b"13" if text("grpc-message").contains("mistake") => Err(format!("the broker made a mistake: {}", text("grpc-message"))),
            b"2" | b"15" => Err(format!("grpc-status {number:?}: {}", text("grpc-message"))),
            _ => Ok(Heard::Refused(format!("{number:?} {}", details(&text("grpc-status-details-bin"))))),
        };
    }
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(Heard::Taken(status.to_string()));
    }
    // 431 is answered below the envelope; gRPC has none.
    let below = status.as_u16() == 431 || (body.is_some_and(<[u8]>::is_empty) && !headers.contains_key("x-content-type-options"));
    let Some(body) = body.filter(|_| !below) else { return Ok(Heard::Refused(status.to_string())) };
    let said: Value = serde_json::from_slice(body).map_err(|why| format!("{status} without an envelope: {why} {}", body.escape_ascii()))?;
    if let Some(false) = said["Success"].as_bool() {
        return evernest(status, &said);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &said["metadata"];
    let (code, sentence_said) = (Code::parse(&text(&metadata["code"])), text(&said["error"]));
    let Some(code) = code else { return Err(format!("{status} with the code {}", metadata["code"])) };
    if OURS.contains(&code) {
        return Err(format!("{status} {code}: {sentence_said}"));
    }
    if metadata["applied"] != "no" {
        return Err(format!("{code} with applied {}", metadata["applied"]));
    }
    sentence(&sentence_said)?;
    if body.len() > 2 * ERROR_BYTES {
        return Err(format!("the error is {} bytes long: {}…", body.len(), body[..300].escape_ascii()));
    }
    let field: String = text(&metadata["details"]["field"]).chars().filter(|c| c.is_alphabetic()).take(40).collect();
    let words: String = sentence_said.split('"').step_by(2).flat_map(str::chars).filter(|c| c.is_alphabetic()).take(60).collect();
    Ok(Heard::Refused(format!("{status} {code} {field} {words}")))
}

/// An error in Evernest's words: never one of ours to blame, always with help.
fn evernest(status: StatusCode, said: &Value) -> Verdict {
    let (word, help) = (&said["Error"]["Message"], said["Error"]["HelpMessage"].as_str().unwrap_or_default());
    if word == "InternalError" {
        return Err(format!("{status} {word}: {help}"));
    }
    if help.len() < 10 || help.len() > ERROR_BYTES || !said["UtcTime"].is_string() {
        return Err(format!("{status} {word} with the help {help:?}"));
    }
    Ok(Heard::Refused(format!("{status} {word} {}", said["Error"]["Arguments"])))
}

/// Which of our errors a gRPC status holds: its code is readable in the bytes.
fn details(text: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('=')).unwrap_or_default();
    let known = |code: &&Code| bytes.windows(code.as_str().len()).any(|w| w == code.as_str().as_bytes());
    Code::ALL.iter().find(known).map_or_else(String::new, |code| code.to_string())
}
