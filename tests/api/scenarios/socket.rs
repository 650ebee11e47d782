//! A connection of frames without our client: requests by number, deliveries kept per reader. What carries the frames is a [`Line`]:
//! a WebSocket, whose frames look like its [`Dialect`] says, or a gRPC call (`grpc.rs`).
#![expect(clippy::result_large_err, reason = "a frame that nobody asked for goes back whole to whoever keeps it")]

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::carrier::{Answer, Carrier, ReaderNumber};
use super::values::{Acked, Append, Commit, Committed, Delivery, Event, From, Opened, Refusal, Stored, Subscribe, Subscribed};
use crate::support::PATIENCE;

/// What a client says.
pub enum Say<'a> {
    Ping,
    Append(u64, &'a Append),
    Resume(u64, &'a str, Option<&'a str>, Option<u64>),
    /// Stream, producer, what is expected.
    OpenProducer(u64, Option<&'a str>, &'a str, &'a str),
    Commit(u64, &'a Commit),
    Subscribe(u64, &'a Subscribe),
    Ack(u64, u64, bool),
    Credit(u64, u64),
    Unsubscribe(u64),
}

/// What it hears.
#[derive(Debug)]
pub enum Hear {
    Hello,
    Pong,
    Stored(u64, Stored),
    Resumed(u64),
    Opened(u64, Opened),
    Committed(u64, Committed),
    Subscribed(u64, Subscribed),
    Delivered(u64, Vec<Delivery>),
    Acked(u64, Acked),
    Unsubscribed(u64),
    /// About a request or a reader.
    Refused(About, Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Connection,
    Req(u64),
    Sub(u64),
}

/// The form of frames.
pub trait Dialect: Send + 'static {
    const SUBPROTOCOL: &'static str;
    fn say(say: &Say<'_>) -> Message;
    fn hear(message: &Message) -> Hear;
}

/// One open connection. `hello` is heard when it is open.
#[async_trait]
pub trait Line: Send + Sized + 'static {
    async fn open(door: &Door) -> Self;
    async fn say(&mut self, say: Say<'_>);
    async fn hear(&mut self) -> Hear;
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where to knock.
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A WebSocket.
pub struct WebSocket<D> {
    ws: WebSocketStream<Box<dyn Io>>,
    dialect: PhantomData<D>,
}

#[async_trait]
impl<D: Dialect> Line for WebSocket<D> {
    async fn open(door: &Door) -> Self {
        let io: Box<dyn Io> = match door {
            Door::Tcp(at) => Box::new(TcpStream::connect(at).await.expect("the port is open")),
            Door::Unix(path) => Box::new(UnixStream::connect(path).await.expect("the socket is there")),
        };
        let mut request = "ws://localhost/v1/connect".into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", D::SUBPROTOCOL.parse().expect("a header"));
        let (ws, response) = tokio_tungstenite::client_async(request, io).await.expect("the upgrade is accepted");
        assert_eq!(response.headers()["sec-websocket-protocol"], D::SUBPROTOCOL);
        let mut line = Self { ws, dialect: PhantomData };
        assert!(matches!(line.hear().await, Hear::Hello), "the first frame is hello");
        line
    }

    async fn say(&mut self, say: Say<'_>) {
        self.ws.send(D::say(&say)).await.expect("the socket takes it");
    }

    async fn hear(&mut self) -> Hear {
        loop {
            match tokio::time::timeout(PATIENCE, self.ws.next()).await.expect("a frame in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => return D::hear(&message),
                other => panic!("no frame: {other:?}"),
            }
        }
    }
}

/// A line, and deliveries that came while something else was awaited.
struct Connection<L> {
    line: L,
    waiting: BTreeMap<u64, VecDeque<Delivery>>,
}

impl<L: Line> Connection<L> {
    async fn open(door: &Door) -> Self {
        Self { line: L::open(door).await, waiting: BTreeMap::new() }
    }

    async fn say(&mut self, say: Say<'_>) {
        self.line.say(say).await;
    }

    /// Hears until `wanted` picks something; deliveries wait for their readers.
    async fn until<T>(&mut self, mut wanted: impl FnMut(Hear) -> Result<T, Hear>) -> T {
        loop {
            match wanted(self.line.hear().await) {
                Ok(found) => return found,
                Err(Hear::Delivered(sub, deliveries)) => self.waiting.entry(sub).or_default().extend(deliveries),
                // Nothing else was asked of this reader: its session is over.
                Err(Hear::Refused(About::Sub(sub), why)) => self.waiting.entry(sub).or_default().push_back(Delivery::End(why)),
                Err(other) => panic!("nobody waits for {other:?}"),
            }
        }
    }
}

/// See the module.
pub struct Socket<L> {
    door: Door,
    connections: Vec<Connection<L>>,
    /// The number of the next request or reader.
    number: u64,
    /// Reader → connection, and whether its acks are of level `received`.
    readers: BTreeMap<ReaderNumber, (usize, bool)>,
    /// A refused append has poisoned its session; a new connection ends that.
    spoilt: bool,
}

impl<L: Line> Socket<L> {
    pub fn tcp(at: SocketAddr) -> Self {
        Self { door: Door::Tcp(at), connections: Vec::new(), number: 0, readers: BTreeMap::new(), spoilt: true }
    }

    pub fn unix(path: &Path) -> Self {
        Self { door: Door::Unix(path.to_owned()), ..Self::tcp(SocketAddr::from(([0; 4], 0))) }
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The connection for new requests and readers. Older ones stay for the readers they have.
    async fn connection(&mut self) -> &mut Connection<L> {
        if std::mem::take(&mut self.spoilt) {
            self.connections.push(Connection::open(&self.door).await);
        }
        self.connections.last_mut().expect("there is one")
    }

    async fn of_reader(&mut self, reader: ReaderNumber) -> &mut Connection<L> {
        let (index, _) = self.readers[&reader];
        &mut self.connections[index]
    }

    async fn ask<T>(&mut self, req: u64, say: Say<'_>, answer: impl Fn(Hear) -> Result<T, Hear>) -> Answer<T> {
        let connection = self.connection().await;
        connection.say(say).await;
        connection
            .until(|heard| match heard {
                Hear::Refused(About::Req(about), why) if about == req => Ok(Err(why)),
                other => answer(other).map(Ok),
            })
            .await
    }
}

#[async_trait]
impl<L: Line> Carrier for Socket<L> {
    async fn append(&mut self, append: &Append) -> Answer<Stored> {
        let answer = self.append_all(std::slice::from_ref(append)).await.remove(0);
        self.spoilt |= answer.is_err();
        answer
    }

    async fn append_all(&mut self, appends: &[Append]) -> Vec<Answer<Stored>> {
        let first = self.number + 1;
        self.number += appends.len() as u64;
        let connection = self.connection().await;
        for (req, append) in (first..).zip(appends) {
            connection.say(Say::Append(req, append)).await;
        }
        let mut answers: BTreeMap<u64, Answer<Stored>> = BTreeMap::new();
        while answers.len() < appends.len() {
            let (req, answer) = connection
                .until(|heard| match heard {
                    Hear::Stored(req, stored) => Ok((req, Ok(stored))),
                    Hear::Refused(About::Req(req), why) => Ok((req, Err(why))),
                    other => Err(other),
                })
                .await;
            assert!(req >= first && answers.insert(req, answer).is_none(), "one answer to each request, also to {req}");
        }
        answers.into_values().collect()
    }

    async fn resume(&mut self, stream: &str, producer: Option<&str>, seq: Option<u64>) -> Answer<()> {
        let req = self.number();
        self.ask(req, Say::Resume(req, stream, producer, seq), |heard| match heard {
            Hear::Resumed(about) if about == req => Ok(()),
            other => Err(other),
        })
        .await
    }

    async fn open_producer(&mut self, stream: Option<&str>, id: &str, expect: &str) -> Answer<Opened> {
        let req = self.number();
        self.ask(req, Say::OpenProducer(req, stream, id, expect), |heard| match heard {
            Hear::Opened(about, opened) if about == req => Ok(opened),
            other => Err(other),
        })
        .await
    }

    async fn commit(&mut self, commit: &Commit) -> Answer<Committed> {
        let req = self.number();
        self.ask(req, Say::Commit(req, commit), |heard| match heard {
            Hear::Committed(about, committed) if about == req => Ok(committed),
            other => Err(other),
        })
        .await
    }

    async fn subscribe(&mut self, ask: &Subscribe) -> Answer<(ReaderNumber, Subscribed)> {
        let sub = self.number();
        let connection = self.connection().await;
        connection.say(Say::Subscribe(sub, ask)).await;
        let subscribed = connection
            .until(|heard| match heard {
                Hear::Subscribed(about, subscribed) if about == sub => Ok(Ok(subscribed)),
                Hear::Refused(About::Sub(about), why) if about == sub => Ok(Err(why)),
                other => Err(other),
            })
            .await?;
        self.readers.insert(sub, (self.connections.len() - 1, ask.received));
        Ok((sub, subscribed))
    }

    async fn next(&mut self, reader: ReaderNumber) -> Delivery {
        let connection = self.of_reader(reader).await;
        loop {
            if let Some(delivery) = connection.waiting.entry(reader).or_default().pop_front() {
                return delivery;
            }
            let mut deliveries = connection
                .until(|heard| match heard {
                    Hear::Delivered(sub, deliveries) if sub == reader => Ok(deliveries),
                    Hear::Refused(About::Sub(sub), why) if sub == reader => Ok(vec![Delivery::End(why)]),
                    other => Err(other),
                })
                .await;
            connection.waiting.entry(reader).or_default().extend(deliveries.drain(..));
        }
    }

    async fn ack(&mut self, reader: ReaderNumber, offset: u64) -> Answer<Acked> {
        let (_, received) = self.readers[&reader];
        let connection = self.of_reader(reader).await;
        connection.say(Say::Ack(reader, offset, received)).await;
        connection
            .until(|heard| match heard {
                Hear::Acked(sub, acked) if sub == reader => Ok(Ok(acked)),
                Hear::Refused(About::Sub(sub), why) if sub == reader => Ok(Err(why)),
                other => Err(other),
            })
            .await
    }

    async fn credit(&mut self, reader: ReaderNumber, events: u64) {
        self.of_reader(reader).await.say(Say::Credit(reader, events)).await;
    }

    async fn is_quiet(&mut self, reader: ReaderNumber) -> bool {
        let connection = self.of_reader(reader).await;
        connection.say(Say::Ping).await;
        connection.until(|heard| if matches!(heard, Hear::Pong) { Ok(()) } else { Err(heard) }).await;
        connection.waiting.get(&reader).is_none_or(VecDeque::is_empty)
    }

    async fn unsubscribe(&mut self, reader: ReaderNumber) -> Answer<()> {
        let connection = self.of_reader(reader).await;
        connection.say(Say::Unsubscribe(reader)).await;
        let answer = connection
            .until(|heard| match heard {
                Hear::Unsubscribed(sub) if sub == reader => Ok(Ok(())),
                Hear::Refused(About::Sub(sub), why) if sub == reader => Ok(Err(why)),
                other => Err(other),
            })
            .await;
        self.readers.remove(&reader);
        answer
    }

    async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Answer<Vec<Event>> {
        let ask = Subscribe {
            stream: stream.to_owned(),
            from: Some(From::Offset(from)),
            credit: Some((limit, 1 << 30)),
            on_gap: Some("fail"),
            ..Subscribe::default()
        };
        let (reader, _) = self.subscribe(&ask).await?;
        let mut events = Vec::new();
        while (events.len() as u64) < limit {
            match self.next(reader).await {
                Delivery::Event(event) => events.push(event),
                Delivery::Live { .. } => break,
                Delivery::End(why) => return Err(why),
                gap @ Delivery::Gap { .. } => panic!("{gap} where none was allowed"),
            }
        }
        self.unsubscribe(reader).await?;
        Ok(events)
    }
}
