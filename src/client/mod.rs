//! The Rust client.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidelog::client::Error> {
//! use tidelog::client::{Client, Endpoint, NewEvent};
//!
//! let client = Client::connect(Endpoint::parse("http://127.0.0.1:4080")?).await?;
//!
//! // Exactly-once appends: resent unchanged until there is a definite answer.
//! let producer = client.producer("orders", "shop-1").open().await?;
//! let receipt = producer.send(NewEvent::text("hello").kind("greeting")).await?;
//! println!("stored at {:?}", receipt.await?.first_offset);
//!
//! // A durable reader: the cursor moves when you ack.
//! let mut consumer = client.consumer("orders").subscription("billing").create().open().await?;
//! while let Some(event) = consumer.next_event().await {
//!     let event = event?;
//!     println!("{} {:?}", event.offset, event.text());
//!     consumer.ack(event.offset);
//! }
//! # Ok(()) }
//! ```
//!
//! Which effect happens exactly once is a matter of the recipe: `examples/k1_sqlite.rs` (position and effect in one
//! database transaction), `examples/k2_keyed.rs` (effect under a unique key), `examples/k3_commit.rs` (effect is an
//! append in the same commit as the ack). `examples/plain.rs` shows what happens without.

mod admin;
mod backoff;
mod commit;
mod consumer;
mod endpoint;
mod error;
mod event;
mod follow;
mod link;
mod producer;
mod tls;
mod window;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

pub use admin::{Admin, Answer, LagObject, OperationObject, ProducerObject, StreamObject, StreamState, SubscriptionObject};
pub use backoff::Backoff;
pub use commit::Committer;
pub use consumer::{Ack, Consumer, ConsumerBuilder, Delivery};
pub use endpoint::{DEFAULT_PORT, Endpoint};
pub use error::{Error, Result};
pub use event::{Event, IntoEvents, NewEvent};
pub use producer::{Producer, ProducerBuilder, Receipt};
pub use tls::Tls;

use crate::types::reply::{Appended, Committed};
use crate::types::request::{AppendRequest, CommitRequest};
use crate::types::{Code, StreamName};
use crate::wire::frame::{About, ClientFrame, ServerFrame};
use link::Link;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Protobuf: batches pass through as they are stored.
    #[default]
    Binary,
    /// JSON text: for looking at the wire.
    Json,
}

impl Protocol {
    /// The WebSocket subprotocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binary => "tidelog.v1.proto",
            Self::Json => "tidelog.v1.json",
        }
    }
}

/// A broker's address and how to talk to it. Cheap to clone; producers and consumers open connections of their own.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    protocol: Protocol,
    authorization: Option<HeaderValue>,
    /// Of an endpoint with TLS.
    tls: Option<Arc<rustls::ClientConfig>>,
    http: reqwest::Client,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        write!(f, "{} ({})", self.endpoint, self.protocol.name())
    }
}

impl Client {
    /// A client that connects when it is used. `key` is sent as `Authorization: Bearer`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key that no header can carry.
    pub fn new(endpoint: Endpoint, protocol: Protocol, key: Option<&str>) -> Result<Self> {
        Self::with_tls(endpoint, protocol, key, &Tls::default())
    }

    /// [`Client::new`] with a choice of whom to believe and what to show. An endpoint without TLS has no use for it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key that no header can carry, and for certificates that cannot be used.
    pub fn with_tls(endpoint: Endpoint, protocol: Protocol, key: Option<&str>, tls: &Tls) -> Result<Self> {
        let authorization = key
            .map(|key| {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| Error::Usage("The key has characters that no key has.".into()))?;
                value.set_sensitive(true);
                Ok::<_, Error>(value)
            })
            .transpose()?;
        let mut builder = http_builder().no_proxy().connect_timeout(Duration::from_secs(10));
        if let Some(path) = endpoint.socket() {
            builder = builder.unix_socket(path.to_owned());
        }
        let tls = if endpoint.is_tls() { Some(Arc::new(tls.config()?)) } else { None };
        if let Some(tls) = &tls {
            builder = builder.tls_backend_preconfigured((**tls).clone()).https_only(true);
        }
        let http = builder.build().map_err(|e| Error::Usage(format!("No HTTP client could be made: {e}.")))?;
        Ok(Self(Arc::new(Inner { endpoint, protocol, authorization, tls, http })))
    }

    /// A client with the usual choices, after the broker has answered.
    ///
    /// # Errors
    /// [`Error::Connection`] when nobody is there.
    pub async fn connect(endpoint: Endpoint) -> Result<Self> {
        let client = Self::new(endpoint, Protocol::default(), None)?;
        client.admin().request(http::Method::GET, "/livez", None, Duration::from_secs(10)).await?;
        Ok(client)
    }

    /// Where the broker is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The control plane.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// A producer of a stream: exactly-once appends under an id that no other running program uses.
    pub fn producer(&self, stream: &str, id: &str) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), stream, id)
    }

    /// A reader of a stream.
    pub fn consumer(&self, stream: &str) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), stream)
    }

    /// A broker-wide producer for commits, under an id that no other running program uses.
    ///
    /// # Errors
    /// The broker's, or the connection.
    pub async fn committer(&self, id: &str) -> Result<Committer> {
        Committer::open(self.clone(), id).await
    }

    /// One append without a producer. Never repeated by this client: when the error says `applied: unknown` it may be
    /// stored or not, and sending it again may store it twice (P-17).
    ///
    /// # Errors
    /// The broker's, or the connection.
    pub async fn append(&self, stream: &str, events: impl IntoEvents) -> Result<Appended> {
        self.append_once(&AppendRequest {
            stream: StreamName::parse(stream)?,
            stream_id: None,
            events: events.into_events()?,
            producer: None,
            expected_next_offset: None,
        })
        .await
    }

    /// One append on the condition that its first event gets this offset. Repeated while the outcome is unknown: a
    /// condition that fails because the events are there already counts as success (P-18).
    ///
    /// # Errors
    /// `condition_failed` with `details.next_offset`, other errors of the broker, or the connection.
    pub async fn append_if(&self, stream: &str, events: impl IntoEvents, next_offset: u64) -> Result<Appended> {
        let events = events.into_events()?;
        let count = events.count();
        let request = AppendRequest { stream: StreamName::parse(stream)?, stream_id: None, events, producer: None, expected_next_offset: Some(next_offset) };
        let mut backoff = Backoff::default();
        let mut unsettled = false;
        for _ in 0..10 {
            let error = match self.append_once(&request).await {
                Ok(appended) => return Ok(appended),
                Err(error) => error,
            };
            let stored = error.server().is_some_and(|e| e.code == Code::ConditionFailed && e.details.get("already_stored").is_some_and(|v| v == true));
            if unsettled && stored {
                let last_offset = Some(next_offset + u64::from(count) - 1);
                return Ok(Appended { first_offset: Some(next_offset), last_offset, count, duplicate: true });
            }
            if !error.is_retryable() {
                return Err(error);
            }
            unsettled |= error.applied() == crate::types::Applied::Unknown;
            backoff.wait(error.retry_after()).await;
        }
        self.append_once(&request).await.map_err(|e| if unsettled { e.unsettled() } else { e })
    }

    async fn append_once(&self, request: &AppendRequest) -> Result<Appended> {
        let mut link = Link::open(self).await?;
        link.send(&ClientFrame::Append { req: 1, request: request.clone() });
        let reply = loop {
            match link.next().await? {
                ServerFrame::Appended { req: 1, reply } => break reply,
                ServerFrame::Error { about: About::Req(1) | About::Connection, error, request_id } => return Err(Error::Server { error, request_id }),
                _ => {}
            }
        };
        link.close().await;
        Ok(reply)
    }

    /// One commit as it is, sent once. [`Client::committer`] makes a lost reply repairable.
    ///
    /// # Errors
    /// `txn_part_failed` and others of the broker; the connection, and then the outcome is unknown.
    pub async fn commit(&self, request: CommitRequest) -> Result<Committed> {
        let mut link = Link::open(self).await?;
        link.send(&ClientFrame::Commit { req: 1, request });
        let reply = commit::answer(&mut link).await?;
        link.close().await;
        Ok(reply)
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        self.0.authorization.clone()
    }

    pub(crate) fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.0.tls.clone()
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.0.http
    }
}

/// A builder of HTTP clients that knows how to encrypt: where the process has not chosen a provider of cryptography, `ring` is it.
pub fn http_builder() -> reqwest::ClientBuilder {
    // Somebody else has chosen: fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
