//! The faces: one folder per protocol. Each decodes, calls the broker once, encodes.
//!
//! [`Edge`] is what all faces share; [`Edge::handle`] is the one door through which every HTTP request comes,
//! whatever listener took it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Whence, calling_on};

pub mod auth;
pub mod callers;
pub mod certificate;
pub mod conversation;
mod credentials;
pub mod evernest;
pub mod failures;
mod framing;
pub mod grpc;
pub mod http;
mod meter;
pub mod ops;
pub mod seats;
pub mod socket;
pub mod sse;
pub mod stats;
pub mod turn;
pub mod ws;

pub use auth::Doors;
pub use failures::Failures;
pub use seats::Seats;
pub use socket::Socket;
pub use stats::Stats;
pub use turn::Turn;

/// What the faces are told at start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who is let in.
    pub doors: Doors,
    /// `tidelog dev`: `/echo` exists.
    pub dev: bool,
    /// `/metrics` needs the operator (it may then name streams).
    pub metrics_for_operator_only: bool,
    /// Largest request body or message; at most [`limits::MESSAGE_MAX_BYTES`](crate::types::limits::MESSAGE_MAX_BYTES).
    pub message_max_bytes: usize,
    /// How often a silent event stream says that it is alive; [`limits::PING_EVERY`](crate::types::limits::PING_EVERY) but for tests.
    pub ping_every: Duration,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over the Unix socket: the file's mode was the guard.
    Local,
    /// Over TCP, from this address.
    Tcp(SocketAddr),
}

impl Peer {
    /// Where from; the Unix socket has no address.
    pub fn address(self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Local => None,
        }
    }

    /// Where the audit says that a request came from.
    fn origin(self, request: &Arc<str>) -> Whence {
        let address = match self {
            Self::Tcp(address) => Some(address),
            Self::Local => None,
        };
        Whence { address, request: request.clone() }
    }
}

/// What all faces share. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    router: axum::Router,
    others: grpc::Others,
}

struct Shared {
    broker: Broker,
    settings: Settings,
    stats: Stats,
    failures: Failures,
    strangers: evernest::Budget,
    draining: CancellationToken,
    tasks: TaskTracker,
    started: Instant,
}

/// What handlers see: everything but the router.
#[derive(Clone)]
pub struct Face(Arc<Shared>);

impl Edge {
    /// Faces for a broker. `draining` tells long polls and WebSockets to end; upgraded connections are tracked by `tasks`.
    pub fn new(broker: Broker, settings: Settings, draining: CancellationToken, tasks: TaskTracker) -> Self {
        let (stats, failures, strangers) = (Stats::default(), Failures::default(), evernest::Budget::default());
        let shared = Arc::new(Shared { broker, settings, stats, failures, strangers, draining, tasks, started: Instant::now() });
        let router = http::router(Face(shared.clone()));
        let others = grpc::Others::new(Face(shared.clone()));
        Self { shared, router, others }
    }

    /// The choices made at start.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Counters, for the listeners.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Answers one request. Dropping the future abandons it: a long poll ends when its client goes away.
    pub async fn handle(&self, peer: Peer, request: axum::extract::Request) -> axum::response::Response {
        let face = Face(self.shared.clone());
        if grpc::is_call(request.headers()) && !evernest::is_ours(request.uri().path()) {
            return Box::pin(grpc::handle(face, self.others.clone(), peer, request)).await;
        }
        Box::pin(http::handle(face, self.router.clone(), peer, request)).await // the library moves futures about: small ones are cheaper
    }
}

impl Face {
    /// The rules.
    pub fn broker(&self) -> &Broker {
        &self.0.broker
    }

    /// The choices made at start.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Credentials that were not known.
    pub fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Bytes of bodies that are read before anybody knows whose they are.
    pub fn strangers(&self) -> &evernest::Budget {
        &self.0.strangers
    }

    /// Cancelled when the broker begins to stop.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Runs a connection that outlives its HTTP request; the server waits for it at shutdown.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(calling_on(task));
    }

    /// Seconds since the faces were made.
    pub fn uptime_s(&self) -> f64 {
        self.0.started.elapsed().as_secs_f64()
    }
}
