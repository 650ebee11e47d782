//! A durable reader's connection, over each carrier that has one: frames, gRPC calls, Server-Sent Events, pulls with tokens.
//!
//! It says what it hears and decides nothing. Where acks are calls of their own, their answers are heard in the same order as everything else.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};
use tidelog::types::request::{AckLevel, SubscribeRequest};
use tidelog::types::{StreamName, SubscriptionName};
use tidelog::wire::frame::{ClientFrame, ServerFrame};
use tidelog::wire::proto::{self, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tonic::Streaming;

use crate::door::{ANSWERED, Door, Failure, Io, ask_json, head, refused, request};
use crate::frames::{Form, Frames, calls, failure};
use crate::grpc_client::Grpc;
use crate::history::hash;
use crate::told;

/// How a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Frames(Form),
    /// gRPC `Subscribe`, acks by `Ack`.
    Calls,
    /// Server-Sent Events, acks over REST.
    Sse,
    /// Pulls, acks by their tokens.
    Pull,
}

/// Where a session begins.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub stream_id: u64,
    pub log_epoch: u64,
    pub epoch: u64,
    pub next: u64,
    /// The end of the stream, where it is said.
    pub end: Option<u64>,
}

/// What a reader hears.
#[derive(Debug)]
pub enum Heard {
    /// Offset and hash of each event.
    Events(Vec<(u64, u64)>),
    /// It has everything.
    Live,
    /// An ack is confirmed.
    Acked { next: u64 },
    /// An ack is refused.
    AckRefused { code: String },
    /// Offsets that will not come.
    Gap { from: u64, to: u64 },
    /// The session is over.
    Ended { code: String },
}

enum Wire {
    Frames(Frames),
    Calls { grpc: Grpc, frames: Box<Streaming<Bytes>> },
    Sse { io: Box<dyn Io>, raw: Vec<u8>, text: Vec<u8> },
    Pull { token: Option<String> },
}

/// See the module.
pub struct Line {
    wire: Wire,
    door: Door,
    stream: String,
    subscription: String,
    epoch: u64,
    waiting: VecDeque<Heard>,
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn event(event: &Value) -> (u64, u64) {
    (number(event, "offset"), hash(event["data"].as_str().unwrap_or_else(|| panic!("no text in {event}")).as_bytes()))
}

impl Line {
    /// A session, and where it begins. `None`: it cannot be opened now.
    pub async fn open(carrier: Carrier, door: &Door, stream: &str, subscription: &str) -> Option<(Self, Opened)> {
        timeout(ANSWERED, Self::try_open(carrier, door, stream, subscription)).await.ok().flatten()
    }

    async fn try_open(carrier: Carrier, door: &Door, stream: &str, subscription: &str) -> Option<(Self, Opened)> {
        let of =
            |wire, epoch| Self { wire, door: door.clone(), stream: stream.to_owned(), subscription: subscription.to_owned(), epoch, waiting: VecDeque::new() };
        let names = (StreamName::parse(stream).expect("a name"), SubscriptionName::parse(subscription).expect("a name"));
        let mut line = match carrier {
            Carrier::Frames(form) => {
                let mut frames = Frames::open(form, door).await?;
                let request = SubscribeRequest { create: true, ..SubscribeRequest::new(names.0, Some(names.1)) };
                frames.say(&ClientFrame::Subscribe { sub: 1, request }).await?;
                of(Wire::Frames(frames), 0)
            }
            Carrier::Calls => {
                let mut grpc = calls(door).await?;
                let ask = v1::Subscribe { sub: 1, stream: stream.into(), subscription: Some(subscription.into()), create: true, ..Default::default() };
                let frames = grpc.subscribe(&ask).await.map_err(|status| failure(&status)).ok()?;
                of(Wire::Calls { grpc, frames: Box::new(frames) }, 0)
            }
            Carrier::Sse => {
                let mut io = door.open().await?;
                let path = format!("/v1/streams/{stream}/subscriptions/{subscription}/events");
                io.write_all(&request("GET", &path, &[("Accept", "text/event-stream")], b"")).await.ok()?;
                let raw = sse_head(&mut io).await?;
                of(Wire::Sse { io, raw, text: Vec::new() }, 0)
            }
            Carrier::Pull => {
                let mut line = of(Wire::Pull { token: None }, 0);
                let pulled = pull(&line.door, &line.path("pull"), None).await.ok()?;
                let (epoch, stream_id, log_epoch) = (number(&pulled, "epoch"), number(&pulled, "stream_id"), number(&pulled, "log_epoch"));
                let events = pulled["events"].as_array().cloned().unwrap_or_default();
                let next = events.first().map_or_else(|| number(&pulled, "next"), |event| number(event, "offset"));
                line.epoch = epoch;
                line.take_pulled(&pulled);
                return Some((line, Opened { stream_id, log_epoch, epoch, next, end: None }));
            }
        };
        match line.frame().await? {
            Frame::Opened(opened) => {
                line.epoch = opened.epoch;
                Some((line, opened))
            }
            Frame::Heard(Heard::Ended { .. }) => None,
            Frame::Heard(other) => panic!("{carrier:?} began with {other:?}"),
        }
    }

    /// What comes next; `None` at the end of the connection. Dropping the future loses nothing, but a pull, which can be pulled again.
    pub async fn hear(&mut self) -> Option<Heard> {
        if let Some(heard) = self.waiting.pop_front() {
            return Some(heard);
        }
        if matches!(self.wire, Wire::Pull { .. }) {
            let (door, path, epoch) = (self.door.clone(), self.path("pull"), self.epoch);
            let pulled = match pull(&door, &path, Some(epoch)).await {
                Ok(pulled) => pulled,
                Err(failure) if failure.code == "no_answer" || failure.code == "not_sent" => return None,
                Err(failure) => return Some(Heard::Ended { code: failure.code }),
            };
            self.take_pulled(&pulled);
            return self.waiting.pop_front();
        }
        match self.frame().await? {
            Frame::Heard(heard) => Some(heard),
            Frame::Opened(opened) => panic!("a second beginning: {opened:?}"),
        }
    }

    /// Everything up to `offset` is done. The answer is heard.
    pub async fn ack(&mut self, offset: u64, durable: bool) -> Option<()> {
        let level = if durable { AckLevel::Durable } else { AckLevel::Received };
        let (door, path, epoch) = (self.door.clone(), self.path("ack"), self.epoch);
        let answer = match &mut self.wire {
            Wire::Frames(frames) => return frames.say(&ClientFrame::Ack { sub: 1, offset, level }).await,
            Wire::Calls { grpc, .. } => {
                let ask = v1::AckRequest {
                    stream: self.stream.clone(),
                    subscription: self.subscription.clone(),
                    epoch: Some(epoch),
                    ack_token: None,
                    offset: Some(offset),
                    level: if durable { v1::AckLevel::Durable } else { v1::AckLevel::Received }.into(),
                };
                let answer = timeout(ANSWERED, grpc.unary::<v1::Acked>("/tidelog.v1.Broker/Ack", &ask)).await.ok()?;
                answer.map(|acked| acked.next).map_err(|status| failure(&status))
            }
            Wire::Sse { .. } => acknowledge(&door, &path, &json!({"epoch": epoch, "offset": offset, "level": level.as_str()})).await,
            Wire::Pull { token } => acknowledge(&door, &path, &json!({"ack_token": token.as_ref()?, "offset": offset, "level": level.as_str()})).await,
        };
        match answer {
            Ok(next) => self.waiting.push_back(Heard::Acked { next }),
            Err(failure) if failure.code == "no_answer" || failure.code == "not_sent" => return None,
            Err(failure) => self.waiting.push_back(Heard::AckRefused { code: failure.code }),
        }
        Some(())
    }

    fn path(&self, call: &str) -> String {
        format!("/v1/streams/{}/subscriptions/{}/{call}", self.stream, self.subscription)
    }

    fn take_pulled(&mut self, pulled: &Value) {
        if let Some(gap) = pulled["gap"].as_object() {
            let of = |name: &str| gap[name].as_u64().unwrap_or_else(|| panic!("no {name} in {pulled}"));
            self.waiting.push_back(Heard::Gap { from: of("from"), to: of("to") });
        }
        let events: Vec<_> = pulled["events"].as_array().into_iter().flatten().map(event).collect();
        self.waiting.push_back(if events.is_empty() { Heard::Live } else { Heard::Events(events) });
        self.wire = Wire::Pull { token: pulled["ack_token"].as_str().map(str::to_owned) };
    }

    async fn frame(&mut self) -> Option<Frame> {
        match &mut self.wire {
            Wire::Frames(frames) => Frame::of(frames.hear().await?),
            Wire::Calls { frames, .. } => match frames.message().await {
                Ok(bytes) => Frame::of(proto::decode_server(bytes?).expect("a frame").expect("a known frame")),
                Err(status) => {
                    let failure = failure(&status);
                    (failure.code != "no_answer").then_some(Frame::Heard(Heard::Ended { code: failure.code }))
                }
            },
            Wire::Sse { io, raw, text } => loop {
                // All plain events that are at hand are one delivery, as on the other carriers.
                let mut events = Vec::new();
                while let Some(end) = text.windows(2).position(|w| w == b"\n\n") {
                    let frame = sse_frame(std::str::from_utf8(&text[..end]).expect("UTF-8"));
                    match frame {
                        Some(Frame::Heard(Heard::Events(one))) => events.extend(one),
                        Some(_) if !events.is_empty() => break,
                        Some(other) => {
                            text.drain(..end + 2);
                            return Some(other);
                        }
                        None => {}
                    }
                    text.drain(..end + 2);
                }
                if !events.is_empty() {
                    return Some(Frame::Heard(Heard::Events(events)));
                }
                if !dechunk(raw, text)? && io.read_buf(raw).await.ok()? == 0 {
                    return None;
                }
            },
            Wire::Pull { .. } => unreachable!("a pull is no frame"),
        }
    }

    /// It asks for each delivery, and its token is good for that one.
    pub fn is_pull(&self) -> bool {
        matches!(self.wire, Wire::Pull { .. })
    }

    /// In order.
    pub async fn close(self) {
        if let Wire::Frames(frames) = self.wire {
            frames.close().await;
        }
    }
}

async fn acknowledge(door: &Door, path: &str, body: &Value) -> Result<u64, Failure> {
    ask_json(door, "POST", path, body).await.map(|acked| number(&acked, "next"))
}

async fn pull(door: &Door, path: &str, epoch: Option<u64>) -> Result<Value, Failure> {
    ask_json(door, "POST", path, &json!({"epoch": epoch, "max_events": 200})).await
}

enum Frame {
    Opened(Opened),
    Heard(Heard),
}

impl Frame {
    fn of(frame: ServerFrame) -> Option<Self> {
        Some(Self::Heard(match frame {
            ServerFrame::Subscribed { reply, .. } => {
                return Some(Self::Opened(Opened {
                    stream_id: reply.stream_id.0,
                    log_epoch: reply.log_epoch,
                    epoch: reply.epoch.expect("a durable reader has an epoch"),
                    next: reply.next,
                    end: Some(reply.next_offset),
                }));
            }
            ServerFrame::Events { slices, .. } => {
                Heard::Events(slices.iter().flat_map(|slice| slice.events().map(|(offset, event)| (offset, hash(event.data))).collect::<Vec<_>>()).collect())
            }
            ServerFrame::Live { .. } => Heard::Live,
            ServerFrame::Acked { reply, .. } => Heard::Acked { next: reply.next },
            ServerFrame::Gap { from, to, .. } => Heard::Gap { from, to },
            ServerFrame::Error { error, .. } => {
                told::note(told::of("frames", &error));
                let code = error.code.as_str().to_owned();
                // These answer an ack; the session lives on.
                if code.starts_with("ack_") { Heard::AckRefused { code } } else { Heard::Ended { code } }
            }
            other => panic!("a reader heard {other:?}"),
        }))
    }
}

/// Reads the head of an event stream; what was read of its body. `None`: refused, or nobody is there.
async fn sse_head(io: &mut Box<dyn Io>) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    loop {
        if let Some((status, length, begin)) = head(&raw) {
            if status == 200 {
                return Some(raw.split_off(begin));
            }
            if let Some(body) = raw.get(begin..begin + length.unwrap_or(0)).filter(|body| !body.is_empty()) {
                refused("sse", status, &serde_json::from_slice(body).expect("JSON"));
                return None;
            }
        }
        if io.read_buf(&mut raw).await.ok()? == 0 {
            return None;
        }
    }
}

/// Moves one whole chunk of HTTP/1.1 from `raw` to `text`. `Some(false)`: more has to come. `None`: that was the last one.
fn dechunk(raw: &mut Vec<u8>, text: &mut Vec<u8>) -> Option<bool> {
    let Some(line) = raw.windows(2).position(|w| w == b"\r\n") else { return Some(false) };
    let length = usize::from_str_radix(std::str::from_utf8(&raw[..line]).expect("ASCII"), 16).expect("the length of a chunk");
    let Some(chunk) = raw.get(line + 2..line + 2 + length + 2) else { return Some(false) };
    text.extend_from_slice(&chunk[..length]);
    raw.drain(..line + 2 + length + 2);
    (length > 0).then_some(true)
}

/// One block of an event stream; `None` if it is about nothing of ours.
fn sse_frame(block: &str) -> Option<Frame> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data: Value = serde_json::from_str(field("data")?).expect("JSON");
    Some(match field("event") {
        None => Frame::Heard(Heard::Events(vec![event(&data)])),
        Some("live") => Frame::Heard(Heard::Live),
        Some("gap") => Frame::Heard(Heard::Gap { from: number(&data, "from"), to: number(&data, "to") }),
        Some("end") => {
            let text = |name: &str| data[name].as_str().unwrap_or_else(|| panic!("no {name} in {data}")).to_owned();
            let code = text("code");
            told::note(crate::history::Told { carrier: "sse".into(), code: code.clone(), applied: text("applied"), retry: text("retry"), number: None });
            Frame::Heard(Heard::Ended { code })
        }
        Some("subscribed") => Frame::Opened(Opened {
            stream_id: number(&data, "stream_id"),
            log_epoch: number(&data, "log_epoch"),
            epoch: number(&data, "epoch"),
            next: number(&data, "next"),
            end: Some(number(&data, "next_offset")),
        }),
        Some(other) => panic!("an event stream said {other}"),
    })
}
