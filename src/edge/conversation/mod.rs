//! One client connection, whatever carries its frames: calls to the broker in their order, answers and deliveries out.
//!
//! One task does all of it. Reading goes on while writing is blocked; what stops the reading is the broker's admission and the
//! bounds on what is in flight; what stops the deliveries is a full outbox. How frames travel, and how a connection ends, is the
//! [`Transport`]'s: a WebSocket (`ws`) or a gRPC stream (`grpc`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::turn::Turn;
use crate::broker::{Connection, Delivery, Plane, Usage};
use crate::types::{Code, Error, Result, StreamName, limits};
use crate::wire::frame::{About, ClientFrame, FrameError, Hello, ServerFrame};

mod answers;
mod patience;
mod readers;

use answers::{Answer, Answers, Waiting};
pub use patience::{Pings, Undrained};
use readers::{Left, Readers};

/// What came up on a transport.
#[derive(Debug)]
pub enum Heard<M, E> {
    /// A message.
    Message(M),
    /// Nothing more is to be read: the broker begins to stop, or the client has said all. Answers may take this long.
    Leaving(Duration),
    /// It is over.
    End(E),
}

/// Carries the frames of one connection. It queues what is sent, and decides nothing but how to say goodbye.
pub trait Transport {
    /// What comes in: one frame, not decoded.
    type Message;
    /// How it ends.
    type End;

    /// Writes what waits and, if `reading`, reads. Nothing is lost when it is not polled again.
    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard<Self::Message, Self::End>>;

    /// Bytes waiting for the peer.
    fn waiting(&self) -> usize;

    /// Puts a frame behind those that wait.
    fn send(&mut self, frame: &ServerFrame);

    /// Reads a message.
    ///
    /// # Errors
    /// The inner one: bytes that are no frame. The outer one: something that ends the connection.
    fn decode(&self, message: &Self::Message) -> Result<Result<ClientFrame, FrameError>, Self::End>;

    /// A `ping` frame came. `Some` when they are too many.
    fn count_ping(&mut self) -> Option<Self::End>;

    /// The goodbye after [`Heard::Leaving`], when the last answer is out, or it took too long.
    fn farewell(&self, all_answered: bool) -> Self::End;

    /// This error was told. `Some` where the table says that it ends the connection.
    fn after_error(&self, error: &Error, request_id: &str) -> Option<Self::End>;

    /// A reader has ended, with an error or because the client left. `Some` where it was the only one there can be.
    fn after_reader(&self, _error: Option<Code>) -> Option<Self::End> {
        None
    }
}

/// Everything of a connection but its place in the commit order.
pub struct Conversation<T: Transport> {
    transport: T,
    id: Arc<str>,
    errors: u64,
    readers: Readers,
    answers: Answers,
    /// What the caller's user does, where that has bounds.
    usage: Option<Arc<Usage>>,
    /// Nothing is read for so long: more bytes came than its user may send.
    pause: Option<Pin<Box<Sleep>>>,
    /// Readers were not asked because the outbox was full.
    held_back: bool,
    /// Nothing more is read, and when the last answer is out, or it is this late, we go.
    leaving: Option<Instant>,
    end: Option<T::End>,
    /// A client that always has more to say lets others in.
    turn: Turn,
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

impl<T: Transport> Conversation<T> {
    /// A conversation that begins now. Errors are numbered below `id`.
    pub fn new(transport: T, id: Arc<str>) -> Self {
        Self {
            transport,
            id,
            errors: 0,
            readers: Readers::default(),
            answers: Answers::default(),
            usage: None,
            pause: None,
            held_back: false,
            leaving: None,
            end: None,
            turn: Turn::default(),
        }
    }

    /// Whose bytes these are, from now on.
    pub fn count_for(&mut self, usage: Option<Arc<Usage>>) {
        self.usage = usage;
    }

    /// Says `hello`: the first frame of every connection.
    pub fn greet(&mut self) {
        self.transport.send(&ServerFrame::Hello(hello()));
    }

    /// Goes on until the peer goes, is sent away, or the broker stops.
    pub async fn run(&mut self, broker: &mut Connection) -> T::End {
        loop {
            let heard = tokio::select! {
                heard = self.heard() => heard,
                // A key that is gone, or whose user is, opens nothing more and hears nothing more.
                error = broker.revoked() => {
                    self.fail(About::Connection, error);
                    continue;
                }
            };
            match heard {
                Heard::End(end) => return end,
                Heard::Message(message) => self.message(broker, message).await,
                Heard::Leaving(_) => {}
            }
        }
    }

    /// What comes up next; answers and deliveries go on meanwhile.
    pub async fn heard(&mut self) -> Heard<T::Message, T::End> {
        poll_fn(|cx| self.poll(cx, true)).await
    }

    /// The transport, for what only it knows.
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The transport alone. The readers detach here, before a goodbye takes its time.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Tells about an error, and ends the connection where the table says so.
    pub fn fail(&mut self, about: About, mut error: Error) {
        self.errors += 1;
        let request_id = format!("{}-{}", self.id, self.errors);
        if error.code == Code::Internal {
            tracing::error!(incident = request_id, "{}", error.message);
            error.message = format!("The broker made a mistake. It is logged as incident {request_id}.");
        }
        if self.end.is_none() {
            self.end = self.transport.after_error(&error, &request_id);
        }
        self.transport.send(&ServerFrame::Error { about, error, request_id });
    }

    /// A reader has ended. Where it is the only one, so has the connection.
    fn reader_ended(&mut self, sub: u64, error: Error) {
        let code = error.code;
        self.fail(About::Sub(sub), error);
        if self.end.is_none() {
            self.end = self.transport.after_reader(Some(code));
        }
    }

    /// Drives everything but the next call to the broker. Loses nothing when it is dropped.
    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard<T::Message, T::End>> {
        let heard = self.poll_within_turn(cx, reading);
        if heard.is_pending() {
            self.turn.rest();
        }
        heard
    }

    fn poll_within_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard<T::Message, T::End>> {
        loop {
            ready!(self.turn.poll(cx));
            while let Poll::Ready(answer) = self.answers.poll_next(cx) {
                self.answer(answer);
            }
            self.held_back = false;
            while self.end.is_none() && self.leaving.is_none() {
                if self.transport.waiting() >= limits::FRAME_TARGET_BYTES {
                    self.held_back = true;
                    break;
                }
                let Poll::Ready((sub, stream, said)) = self.readers.poll_next(cx) else { break };
                self.delivered(sub, stream, said);
            }
            if let Some(late) = self.leaving
                && (self.answers.is_empty() || Instant::now() >= late)
            {
                self.end.get_or_insert_with(|| self.transport.farewell(self.answers.is_empty()));
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(Heard::End(end));
            }
            if let Some(pause) = &mut self.pause
                && pause.as_mut().poll(cx).is_ready()
            {
                self.pause = None;
            }
            let reading = reading && self.may_read();
            match self.transport.poll(cx, reading) {
                Poll::Ready(Heard::Leaving(wait)) => {
                    let late = Instant::now() + wait;
                    self.leaving = Some(self.leaving.map_or(late, |before| before.min(late)));
                }
                Poll::Ready(heard) => return Poll::Ready(heard),
                Poll::Pending if self.held_back && self.transport.waiting() < limits::FRAME_TARGET_BYTES => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The bounds on what is in flight, and on bytes per second, are no error: the socket waits (`decisions.md` section 5).
    fn may_read(&self) -> bool {
        self.leaving.is_none() && self.pause.is_none() && self.answers.have_room() && self.transport.waiting() < limits::OUTBOX_MAX_BYTES
    }

    /// Awaits a call's admission while answers and deliveries go on. `None`: the connection ended meanwhile. The call stays where it
    /// is: taken by value it would have room in this future twice, and every connection would be larger.
    async fn admitted<A>(&mut self, mut call: Pin<&mut impl Future<Output = A>>) -> Option<A> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            match self.poll(cx, false) {
                Poll::Ready(Heard::End(end)) => {
                    self.end = Some(end);
                    Poll::Ready(None)
                }
                Poll::Ready(Heard::Message(_) | Heard::Leaving(_)) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Counts appended bytes. A refusal would poison the session (P-12) for what is merely early, so what came is taken, and no more is read
    /// for a while.
    fn paid(&mut self, bytes: usize) {
        let wait = self.usage.as_ref().and_then(|usage| usage.pay(Plane::Data, bytes as u64));
        if let Some(wait) = wait {
            self.pause = Some(Box::pin(sleep(wait)));
        }
    }

    async fn message(&mut self, broker: &mut Connection, message: T::Message) {
        match self.transport.decode(&message) {
            Err(end) => self.end = Some(end),
            Ok(Ok(frame)) => {
                drop(message);
                self.frame(broker, frame).await;
            }
            Ok(Err(FrameError { error, about, append })) => {
                if let Some((stream, producer)) = append {
                    // An append that is not there: what follows in its session would leave a hole (P-12).
                    self.admitted(pin!(broker.spoil(stream, producer))).await;
                }
                self.fail(about, error);
            }
        }
    }

    /// One thing the client says.
    pub async fn frame(&mut self, broker: &mut Connection, frame: ClientFrame) {
        let waiting = match frame {
            ClientFrame::Append { req, request } => {
                let bytes = request.events.encoded().len();
                self.paid(bytes);
                let Some(pending) = self.admitted(pin!(broker.append(request))).await else { return };
                Waiting::Appended(req, bytes, pending)
            }
            ClientFrame::Ack { sub, offset, level } => {
                let handle = match self.readers.handle(sub) {
                    Ok(handle) => handle.clone(),
                    Err(error) => return self.fail(About::Sub(sub), error),
                };
                let Some(pending) = self.admitted(pin!(broker.ack(&handle, offset, level))).await else { return };
                Waiting::Acked(sub, pending)
            }
            ClientFrame::Credit { sub, credit } => {
                return match self.readers.credit(sub, credit) {
                    Ok(()) => {}
                    Err(error) => self.fail(About::Sub(sub), error),
                };
            }
            ClientFrame::Ping => {
                return match self.transport.count_ping() {
                    None => self.transport.send(&ServerFrame::Pong),
                    end => self.end = end,
                };
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
                Some(Waiting::Subscribed(sub, self.admitted(pin!(broker.subscribe(request))).await?))
            }
            ClientFrame::Unsubscribe { sub } => {
                match self.readers.leave(sub) {
                    Ok(Left::Now) => self.left(sub),
                    Ok(Left::Later) => {}
                    Err(error) => self.fail(About::Sub(sub), error),
                }
                None
            }
            ClientFrame::OpenProducer { req, request } => Some(Waiting::Opened(req, self.admitted(pin!(broker.open_producer(request))).await?)),
            ClientFrame::Resume { req, request } => Some(Waiting::Resumed(req, self.admitted(pin!(broker.resume(request))).await?)),
            ClientFrame::Commit { req, request } => {
                let bytes = request.appends.iter().map(|a| a.events.encoded().len()).sum();
                self.paid(bytes);
                let pending = self.admitted(pin!(broker.commit(request))).await?;
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
        self.transport.send(&ServerFrame::Unsubscribed { sub });
        if self.end.is_none() {
            self.end = self.transport.after_reader(None);
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
                    self.transport.send(&ServerFrame::Subscribed { sub, reply });
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
            Ok(frame) => self.transport.send(&frame),
            Err(error) => self.fail(about, error),
        }
    }

    fn delivered(&mut self, sub: u64, stream: StreamName, said: Result<Delivery>) {
        match said {
            Ok(Delivery::Events { slices, lag }) => self.transport.send(&ServerFrame::Events { sub, stream, slices, lag }),
            Ok(Delivery::Live { next_offset }) => self.transport.send(&ServerFrame::Live { sub, next_offset }),
            Ok(Delivery::Progress { next }) => self.transport.send(&ServerFrame::Progress { sub, next }),
            Ok(Delivery::Gap { from, to, reason }) => self.transport.send(&ServerFrame::Gap { sub, from, to, reason }),
            Err(error) => self.reader_ended(sub, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has always one message more.
    struct Chatty;

    impl Transport for Chatty {
        type Message = ();
        type End = ();

        fn poll(&mut self, _: &mut Context<'_>, _: bool) -> Poll<Heard<(), ()>> {
            Poll::Ready(Heard::Message(()))
        }

        fn waiting(&self) -> usize {
            0
        }

        fn send(&mut self, _: &ServerFrame) {}

        fn decode(&self, (): &()) -> Result<Result<ClientFrame, FrameError>, ()> {
            Ok(Ok(ClientFrame::Ping))
        }

        fn count_ping(&mut self) -> Option<()> {
            None
        }

        fn farewell(&self, _: bool) {}

        fn after_error(&self, _: &Error, _: &str) -> Option<()> {
            None
        }
    }

    #[tokio::test]
    async fn a_client_that_always_has_more_to_say_lets_others_in() {
        let mut talk = Conversation::new(Chatty, "test".into());
        let other = tokio::spawn(async {});
        let mut heard = 0;
        while !other.is_finished() {
            assert!(matches!(talk.heard().await, Heard::Message(())));
            heard += 1;
            assert!(heard <= 2, "the turn is over");
            let over = Instant::now() + limits::TURN;
            while Instant::now() < over {}
        }
    }
}
