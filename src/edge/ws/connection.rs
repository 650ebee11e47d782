//! One client connection: frames in, calls to the broker in their order, answers and deliveries out.
//!
//! One task does all of it. Reading goes on while writing is blocked; what stops the reading is the broker's admission and the
//! bounds on what is in flight; what stops the deliveries is a full outbox.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::WebSocket;
use super::answers::{Answer, Answers, Waiting};
use super::dialect::{Dialect, WrongKind};
use super::link::{End, Heard, Link, close, too_many_pings};
use super::readers::{Left, Readers};
use crate::broker::{Connection, Delivery, Principal};
use crate::edge::Face;
use crate::types::request::SubscribeRequest;
use crate::types::{Code, Error, Result, StreamName, limits};
use crate::wire::frame::{About, ClientFrame, FrameError, Hello, ServerFrame};

/// Everything of a connection but its place in the commit order.
struct Conversation {
    link: Link,
    dialect: Dialect,
    id: Arc<str>,
    errors: u64,
    readers: Readers,
    answers: Answers,
    /// Readers were not asked because the outbox was full.
    held_back: bool,
    /// The broker is stopping: nothing more is read, and when the last answer is out, or it is this late, we go.
    leaving: Option<Instant>,
    end: Option<End>,
}

/// Serves a caller with a credential until it goes, is sent away, or the broker stops.
pub async fn run(face: Face, ws: WebSocket, who: Principal, dialect: Dialect, only: Option<SubscribeRequest>, id: Arc<str>) {
    let mut broker = face.broker().connect(who);
    let mut talk = Conversation::new(face, ws, dialect, id);
    talk.send(&ServerFrame::Hello(hello()));
    if let Some(request) = only {
        talk.frame(&mut broker, ClientFrame::Subscribe { sub: 0, request }).await;
    }
    let end = loop {
        match poll_fn(|cx| talk.poll(cx, true)).await {
            Heard::End(end) => break end,
            Heard::Message(message) => talk.message(&mut broker, message).await,
            Heard::Draining => {}
        }
    };
    drop(broker);
    talk.into_link().finish(end).await;
}

/// Serves a caller without one: it may say who it is within a few seconds. Keys do not exist yet, so nobody can.
pub async fn refuse(face: Face, ws: WebSocket, dialect: Dialect, error: Error, id: Arc<str>) {
    let mut talk = Conversation::new(face, ws, dialect, id);
    talk.send(&ServerFrame::Hello(hello()));
    let heard = timeout_at(Instant::now() + limits::AUTH_DEADLINE, poll_fn(|cx| talk.poll(cx, true))).await;
    let (error, end) = match heard {
        Ok(Heard::End(end)) => (None, end),
        Ok(Heard::Draining) => (None, End::draining()),
        Ok(Heard::Message(message)) => match dialect.decode(&message) {
            Err(WrongKind) => (None, wrong_kind()),
            Ok(Ok(ClientFrame::Auth { .. })) => (Some(Error::new(Code::Unauthenticated, "This credential is not known here.")), unauthenticated()),
            Ok(_) => (Some(error), unauthenticated()),
        },
        Err(_) => (Some(Error::new(Code::Unauthenticated, "No auth frame came in time.")), unauthenticated()),
    };
    if let Some(error) = error {
        talk.fail(About::Connection, error);
    }
    talk.into_link().finish(end).await;
}

fn unauthenticated() -> End {
    End::Close(4001, Code::Unauthenticated.as_str().to_owned())
}

fn wrong_kind() -> End {
    End::Close(close::UNSUPPORTED, "tidelog.v1.json is text, tidelog.v1.proto is binary.".into())
}

fn hello() -> Hello {
    let limit = |name: &str, value: usize| (name.to_owned(), value as u64);
    Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: vec![
            limit("message_bytes", limits::MESSAGE_MAX_BYTES),
            limit("batch_bytes", limits::BATCH_MAX_BYTES),
            limit("batch_events", limits::BATCH_MAX_EVENTS),
            limit("event_bytes", limits::EVENT_MAX_BYTES),
            limit("in_flight_appends", limits::IN_FLIGHT_APPENDS),
            limit("in_flight_append_bytes", limits::IN_FLIGHT_APPEND_BYTES),
            limit("subscriptions", limits::SUBSCRIPTIONS_PER_CONNECTION),
        ],
        capabilities: ["producers", "commit", "exclusive"].map(str::to_owned).to_vec(),
    }
}

impl Conversation {
    fn new(face: Face, ws: WebSocket, dialect: Dialect, id: Arc<str>) -> Self {
        Self {
            link: Link::new(face, ws),
            dialect,
            id,
            errors: 0,
            readers: Readers::default(),
            answers: Answers::default(),
            held_back: false,
            leaving: None,
            end: None,
        }
    }

    /// The transport alone. The readers detach here, before a goodbye takes its time.
    fn into_link(self) -> Link {
        self.link
    }

    fn send(&mut self, frame: &ServerFrame) {
        let (opcode, payload) = self.dialect.encode(frame);
        self.link.push(opcode, payload);
    }

    /// Tells about an error, and ends the connection where the table says so.
    fn fail(&mut self, about: About, mut error: Error) {
        self.errors += 1;
        let request_id = format!("{}-{}", self.id, self.errors);
        if error.code == Code::Internal {
            tracing::error!(incident = request_id, "{}", error.message);
            error.message = format!("The broker made a mistake. It is logged as incident {request_id}.");
        }
        if self.end.is_none() {
            self.end = End::of(&error, self.dialect.single);
        }
        self.send(&ServerFrame::Error { about, error, request_id });
    }

    /// A reader has ended. Where it is the only one, so has the connection.
    fn reader_ended(&mut self, sub: u64, error: Error) {
        let code = error.code;
        self.fail(About::Sub(sub), error);
        if self.dialect.single && self.end.is_none() {
            let number = match code {
                Code::Internal | Code::DataCorrupt => close::INTERNAL,
                Code::Unavailable | Code::Overloaded => close::AGAIN,
                _ => close::POLICY,
            };
            self.end = Some(End::Close(number, code.as_str().to_owned()));
        }
    }

    /// Drives everything but the next call to the broker. Loses nothing when it is dropped.
    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard> {
        loop {
            while let Poll::Ready(answer) = self.answers.poll_next(cx) {
                self.answer(answer);
            }
            self.held_back = false;
            while self.end.is_none() && self.leaving.is_none() {
                if self.link.waiting() >= limits::FRAME_TARGET_BYTES {
                    self.held_back = true;
                    break;
                }
                let Poll::Ready((sub, stream, said)) = self.readers.poll_next(cx) else { break };
                self.delivered(sub, stream, said);
            }
            if let Some(late) = self.leaving
                && (self.answers.is_empty() || Instant::now() >= late)
            {
                self.end.get_or_insert_with(End::draining);
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(Heard::End(end));
            }
            let reading = reading && self.may_read();
            match self.link.poll(cx, reading) {
                Poll::Ready(Heard::Draining) => self.leaving = Some(Instant::now() + limits::ADMISSION_WAIT),
                Poll::Ready(heard) => return Poll::Ready(heard),
                Poll::Pending if self.held_back && self.link.waiting() < limits::FRAME_TARGET_BYTES => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The bounds on what is in flight are no error: the socket waits (`decisions.md` section 5).
    fn may_read(&self) -> bool {
        self.leaving.is_none() && self.answers.have_room() && self.link.waiting() < limits::OUTBOX_MAX_BYTES
    }

    /// Awaits a call's admission while answers and deliveries go on. `None`: the connection ended meanwhile.
    async fn admitted<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        poll_fn(|cx| {
            if let Poll::Ready(done) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            match self.poll(cx, false) {
                Poll::Ready(Heard::End(end)) => {
                    self.end = Some(end);
                    Poll::Ready(None)
                }
                Poll::Ready(Heard::Message(_) | Heard::Draining) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    async fn message(&mut self, broker: &mut Connection, message: Message) {
        match self.dialect.decode(&message) {
            Err(WrongKind) => self.end = Some(wrong_kind()),
            Ok(Ok(frame)) => {
                drop(message);
                self.frame(broker, frame).await;
            }
            Ok(Err(FrameError { error, about, append })) => {
                if let Some((stream, producer)) = append {
                    // An append that is not there: what follows in its session would leave a hole (P-12).
                    self.admitted(broker.spoil(stream, producer)).await;
                }
                self.fail(about, error);
            }
        }
    }

    async fn frame(&mut self, broker: &mut Connection, frame: ClientFrame) {
        let waiting = match frame {
            ClientFrame::Append { req, request } => {
                let bytes = request.events.encoded().len();
                let Some(pending) = self.admitted(broker.append(request)).await else { return };
                Waiting::Appended(req, bytes, pending)
            }
            ClientFrame::Ack { sub, offset, level } => {
                let handle = match self.readers.handle(sub) {
                    Ok(handle) => handle.clone(),
                    Err(error) => return self.fail(About::Sub(sub), error),
                };
                let Some(pending) = self.admitted(broker.ack(&handle, offset, level)).await else { return };
                Waiting::Acked(sub, pending)
            }
            ClientFrame::Credit { sub, credit } => {
                return match self.readers.credit(sub, credit) {
                    Ok(()) => {}
                    Err(error) => self.fail(About::Sub(sub), error),
                };
            }
            ClientFrame::Ping => {
                if self.link.count_ping() {
                    self.send(&ServerFrame::Pong);
                } else {
                    self.end = Some(too_many_pings());
                }
                return;
            }
            // The rest is rare: behind a box its states do not make every connection larger.
            other => match Box::pin(self.rare(broker, other)).await {
                Some(waiting) => waiting,
                None => return,
            },
        };
        self.answers.push(waiting);
    }

    async fn rare(&mut self, broker: &mut Connection, frame: ClientFrame) -> Option<Waiting> {
        match frame {
            ClientFrame::Subscribe { sub, request } => {
                if let Err(error) = self.readers.reserve(sub) {
                    self.fail(About::Sub(sub), error);
                    return None;
                }
                Some(Waiting::Subscribed(sub, self.admitted(broker.subscribe(request)).await?))
            }
            ClientFrame::Unsubscribe { sub } => {
                match self.readers.leave(sub) {
                    Ok(Left::Now) => self.left(sub),
                    Ok(Left::Later) => {}
                    Err(error) => self.fail(About::Sub(sub), error),
                }
                None
            }
            ClientFrame::OpenProducer { req, request } => Some(Waiting::Opened(req, self.admitted(broker.open_producer(request)).await?)),
            ClientFrame::Resume { req, request } => Some(Waiting::Resumed(req, self.admitted(broker.resume(request)).await?)),
            ClientFrame::Commit { req, request } => {
                let bytes = request.appends.iter().map(|a| a.events.encoded().len()).sum();
                let pending = self.admitted(broker.commit(request)).await?;
                Some(Waiting::Committed(req, bytes, pending))
            }
            ClientFrame::Auth { .. } => {
                self.fail(About::Connection, Error::bad("t", "This connection is authenticated already; leave auth out."));
                None
            }
            ClientFrame::Append { .. } | ClientFrame::Ack { .. } | ClientFrame::Credit { .. } | ClientFrame::Ping => None, // handled by the caller
        }
    }

    fn left(&mut self, sub: u64) {
        self.send(&ServerFrame::Unsubscribed { sub });
        if self.dialect.single {
            self.end = Some(End::Close(close::NORMAL, String::new()));
        }
    }

    fn answer(&mut self, answer: Answer) {
        let about = match &answer {
            Answer::Appended(req, _) | Answer::Resumed(req, _) | Answer::Opened(req, _) | Answer::Committed(req, _) => About::Req(*req),
            Answer::Subscribed(sub, _) | Answer::Acked(sub, _) => About::Sub(*sub),
        };
        let frame = match answer {
            Answer::Appended(req, result) => result.map(|reply| ServerFrame::Appended { req, reply }),
            Answer::Resumed(req, result) => result.map(|()| ServerFrame::Resumed { req }),
            Answer::Opened(req, result) => result.map(|reply| ServerFrame::ProducerOpened { req, reply }),
            Answer::Committed(req, result) => result.map(|reply| ServerFrame::Committed { req, reply }),
            Answer::Acked(sub, result) => result.map(|reply| ServerFrame::Acked { sub, reply }),
            Answer::Subscribed(sub, result) => match *result {
                Ok((reply, session)) => {
                    self.send(&ServerFrame::Subscribed { sub, reply });
                    if let Some(Left::Now) = self.readers.attach(sub, session) {
                        self.left(sub);
                    }
                    return;
                }
                Err(error) => {
                    self.readers.release(sub);
                    return self.reader_ended(sub, error);
                }
            },
        };
        match frame {
            Ok(frame) => self.send(&frame),
            Err(error) => self.fail(about, error),
        }
    }

    fn delivered(&mut self, sub: u64, stream: StreamName, said: Result<Delivery>) {
        match said {
            Ok(Delivery::Events { slices, lag }) => self.send(&ServerFrame::Events { sub, stream, slices, lag }),
            Ok(Delivery::Live { next_offset }) => self.send(&ServerFrame::Live { sub, next_offset }),
            Ok(Delivery::Gap { from, to, reason }) => self.send(&ServerFrame::Gap { sub, from, to, reason }),
            Err(error) => self.reader_ended(sub, error),
        }
    }
}
