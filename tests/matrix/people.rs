//! Who calls: one of each kind, with a credential of their own, against a broker that serves; and streams to call about.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tempfile::TempDir;
use tidelog::broker::{Broker, NewSource, NewStream, NewSubscription, NewUser, Principal, PrincipalRef};
use tidelog::edge::certificate::{Certificate, Shown};
use tidelog::edge::{Edge, Peer, Settings, Socket};
use tidelog::server::{Config, Mode, Server};
use tidelog::types::request::{AppendRequest, Expect, OpenProducerRequest, Start};
use tidelog::types::{EventRef, Events, EventsBuilder, ProducerId, Right, StreamName, SubscriptionName, UserName, limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Anonymous,
    /// Over the Unix socket.
    Operator,
    /// The session of a user that is root.
    Root,
    /// The session of a user.
    Console,
    /// A user's client certificate.
    Certificate,
    UserKey,
    SourceKey,
    Node,
}

impl Kind {
    pub const ALL: [Self; 8] = [Self::Anonymous, Self::Operator, Self::Root, Self::Console, Self::Certificate, Self::UserKey, Self::SourceKey, Self::Node];

    /// What a right comes to that was set for such a caller, whose owner, where it has one, is an Admin.
    pub fn effective(self, set: Right) -> Right {
        match self {
            Self::Operator | Self::Root => Right::Root,
            Self::Console | Self::Certificate | Self::UserKey => set,
            Self::SourceKey => set.and(Right::ReadWrite),
            Self::Anonymous | Self::Node => Right::None,
        }
    }
}

/// Where to knock.
#[derive(Clone, Debug)]
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Somebody.
#[derive(Clone, Debug)]
pub struct Person {
    pub kind: Kind,
    pub door: Door,
    pub token: Option<String>,
}

/// A broker that serves, and everybody who calls it.
pub struct Town {
    /// Serves as long as it is held.
    _server: Server,
    pub broker: Broker,
    pub people: Vec<Person>,
    /// `alice` has the session, the certificate and the user key; `owner` the source.
    pub source: u64,
    next: AtomicU64,
    _dir: TempDir,
}

pub const OPERATOR: Principal = Principal::Operator;
pub const PASSWORD: &str = "correct horse battery";

pub fn stream(text: &str) -> StreamName {
    StreamName::parse(text).expect("a name")
}

pub fn user(text: &str) -> UserName {
    UserName::parse(text).expect("a name")
}

pub fn events(count: usize) -> Events {
    let mut events = EventsBuilder::with_capacity(64 * count);
    for _ in 0..count {
        events.push(&EventRef { data: b"1", ..EventRef::default() }).expect("an event");
    }
    events.finish().expect("events")
}

/// A door behind which every caller has shown this certificate, as the TLS listener finds it.
pub async fn certified(broker: Broker, certificate: Certificate) -> SocketAddr {
    let settings = Settings { message_max_bytes: limits::MESSAGE_MAX_BYTES, ping_every: limits::PING_EVERY, ..Settings::default() };
    let edge = Edge::new(broker, settings, CancellationToken::new(), TaskTracker::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, from)) = listener.accept().await {
            let (edge, certificate) = (edge.clone(), Shown::new(certificate.clone(), None));
            let slot = edge.stats().enter(u64::MAX).expect("room");
            let socket = Socket::tcp(tcp, slot, None, limits::SOCKET_UNDRAINED);
            let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
                request.extensions_mut().insert(certificate.clone());
                let edge = edge.clone();
                async move { Ok::<_, Infallible>(edge.handle(Peer::Tcp(from), request.map(Body::new)).await) }
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(socket), service).await;
            });
        }
    });
    address
}

impl Town {
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(Config::for_tests(Mode::Serve { trust_loopback: false }, dir.path())).await.expect("the broker starts");
        let broker = server.broker().clone();
        for (name, root) in [("admin", true), ("alice", false), ("owner", false), ("other", false)] {
            let new = NewUser { name: user(name), password: Some(PASSWORD.into()), root };
            broker.create_user(&OPERATOR, new).await.expect("a user");
        }
        let session = async |name: &str| broker.log_in(name, PASSWORD).await.expect("a session").token;
        let (root, console) = (session("admin").await, session("alice").await);
        let alice = broker.authenticate(&console).await.expect("alice");
        let (_, key) = broker.create_key(&alice, "program").await.expect("a key");
        let new = NewSource { name: "sensor".into(), description: String::new(), owner: Some(user("owner")) };
        let (source, source_key) = broker.create_source(&OPERATOR, new).await.expect("a source");
        let tcp = Door::Tcp(server.address());
        let person = |kind, door: &Door, token| Person { kind, door: door.clone(), token };
        let people = vec![
            person(Kind::Anonymous, &tcp, None),
            person(Kind::Operator, &Door::Unix(server.socket().to_owned()), None),
            person(Kind::Root, &tcp, Some(root)),
            person(Kind::Console, &tcp, Some(console)),
            person(Kind::Certificate, &Door::Tcp(certified(broker.clone(), Certificate::User("alice".into())).await), None),
            person(Kind::UserKey, &tcp, Some(key)),
            person(Kind::SourceKey, &tcp, Some(source_key)),
            person(Kind::Node, &Door::Tcp(certified(broker.clone(), Certificate::Node("8c5a".into())).await), None),
        ];
        assert_eq!(people.iter().map(|person| person.kind).collect::<Vec<_>>(), Kind::ALL);
        Self { _server: server, broker, people, source: source.id, next: AtomicU64::new(0), _dir: dir }
    }

    pub fn person(&self, kind: Kind) -> &Person {
        self.people.iter().find(|person| person.kind == kind).expect("one of each")
    }

    /// A number that nobody had.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A stream of the operator's with events, a subscription `sub` and a producer `p`, on which a caller of this kind has this right.
    pub async fn stage(&self, kind: Kind, right: Right) -> StreamName {
        let name = stream(&format!("s-{}", self.number()));
        self.broker.create_stream(&OPERATOR, NewStream::named(name.clone())).await.expect("a stream");
        let append = AppendRequest { stream: name.clone(), stream_id: None, events: events(2), producer: None, expected_next_offset: None };
        self.broker.append(&OPERATOR, append).await.expect("events");
        let start = Start::Earliest;
        let new = NewSubscription {
            name: SubscriptionName::parse("sub").expect("a name"),
            start,
            ack_timeout_s: None,
            max_in_flight: None,
            expires_s: None,
            filter: None,
        };
        self.broker.create_subscription(&OPERATOR, &name, new).await.expect("a subscription");
        let producer = ProducerId::parse("p").expect("a name");
        let open = OpenProducerRequest { stream: Some(name.clone()), stream_id: None, producer, expect: Expect::Any };
        self.broker.open_producer(&OPERATOR, open).await.expect("a producer");
        // Somebody stays Admin, whoever comes and goes.
        self.broker.set_right(&OPERATOR, &name, &PrincipalRef::User(user("owner")), Right::Admin).await.expect("a right is set");
        self.grant(kind, &name, right).await;
        name
    }

    /// Sets the right of a caller of this kind; the owner of a source is an Admin.
    pub async fn grant(&self, kind: Kind, name: &StreamName, right: Right) {
        let set = async |principal: PrincipalRef, right| self.broker.set_right(&OPERATOR, name, &principal, right).await.expect("a right is set");
        match kind {
            Kind::Root => drop(set(PrincipalRef::User(user("admin")), right).await),
            Kind::Console | Kind::Certificate | Kind::UserKey => drop(set(PrincipalRef::User(user("alice")), right).await),
            // Its owner is an Admin.
            Kind::SourceKey => drop(set(PrincipalRef::Source(self.source), right).await),
            Kind::Anonymous | Kind::Operator | Kind::Node => {}
        }
    }
}
