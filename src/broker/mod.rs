//! The rules. One method per use case; edges decode, call once, encode.

pub mod access;
pub mod info;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::types::reply::*;
use crate::types::request::*;
use crate::types::*;
pub use access::{Principal, Right};
pub use info::*;

/// Start-up choices.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Create a stream at its first append or subscribe (`tidelog dev`).
    pub create_streams_on_use: bool,
    /// Bytes of recent batches kept in memory for followers.
    pub tail_bytes: usize,
    /// Streams, producers and cursors kept in memory, each.
    pub hot_entries: usize,
}

/// The broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker { inner: Arc<()> }

/// An answer that is still to come. Dropping it does not take the request back.
pub struct Pending<T>(std::marker::PhantomData<T>);

impl<T> Future for Pending<T> {
    type Output = Result<T>;
    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<T>> { unimplemented!() }
}

impl Broker {
    pub async fn open(engine: Arc<dyn crate::log::Engine>, settings: Settings) -> Result<Self> { unimplemented!() }
    /// Refuses new work, ends every session with `unavailable` (retry hint in details.retry_after_s), waits for what is in flight.
    pub async fn drain(&self) { unimplemented!() }
    /// After `drain`: stops the loop, closes the engine.
    pub async fn close(&self) -> Result<()> { unimplemented!() }
    /// Resolves when the engine has failed: the process must stop serving (S-5).
    pub async fn failed(&self) -> String { unimplemented!() }
    pub fn health(&self) -> Health { unimplemented!() }
    /// Name, help, is-counter, value: for /metrics.
    pub fn metrics(&self) -> Vec<(&'static str, &'static str, bool, f64)> { unimplemented!() }
    pub fn log_epoch(&self) -> u64 { unimplemented!() }

    pub async fn create_stream(&self, who: &Principal, new: NewStream) -> Result<StreamInfo> { unimplemented!() }
    pub async fn stream(&self, who: &Principal, name: &StreamName) -> Result<StreamInfo> { unimplemented!() }
    pub async fn streams(&self, who: &Principal, query: ListQuery) -> Result<Page<StreamInfo>> { unimplemented!() }
    pub async fn delete_stream(&self, who: &Principal, name: &StreamName) -> Result<OperationInfo> { unimplemented!() }
    pub async fn trim_stream(&self, who: &Principal, name: &StreamName, to: TrimTo) -> Result<StreamInfo> { unimplemented!() }
    pub async fn close_stream(&self, who: &Principal, name: &StreamName) -> Result<StreamInfo> { unimplemented!() }

    pub async fn create_subscription(&self, who: &Principal, stream: &StreamName, new: NewSubscription) -> Result<SubscriptionInfo> { unimplemented!() }
    pub async fn subscription(&self, who: &Principal, stream: &StreamName, name: &SubscriptionName) -> Result<SubscriptionInfo> { unimplemented!() }
    pub async fn subscriptions(&self, who: &Principal, stream: &StreamName, query: ListQuery) -> Result<Page<SubscriptionInfo>> { unimplemented!() }
    pub async fn delete_subscription(&self, who: &Principal, stream: &StreamName, name: &SubscriptionName) -> Result<()> { unimplemented!() }
    /// C-14. Moves the cursor and bumps the epoch.
    pub async fn seek(&self, who: &Principal, stream: &StreamName, name: &SubscriptionName, to: Start) -> Result<SubscriptionInfo> { unimplemented!() }

    pub async fn operation(&self, who: &Principal, id: OperationId) -> Result<OperationInfo> { unimplemented!() }
    /// Waits until it is final or the time is up; returns what it is then.
    pub async fn wait_operation(&self, who: &Principal, id: OperationId, timeout: Duration) -> Result<OperationInfo> { unimplemented!() }

    /// One append without a connection (REST): never poisons.
    pub async fn append(&self, who: &Principal, request: AppendRequest) -> Result<Appended> { unimplemented!() }
    pub async fn read(&self, who: &Principal, stream: &StreamName, request: ReadRequest) -> Result<ReadReply> { unimplemented!() }
    /// The slice holds exactly one event.
    pub async fn event(&self, who: &Principal, stream: &StreamName, which: Which) -> Result<Slice> { unimplemented!() }

    /// One ordered connection (WebSocket, gRPC Connect).
    pub fn connect(&self, who: Principal) -> Connection { unimplemented!() }
}

/// One ordered client connection. The methods take effect in the order they are called. The outer future is admission
/// (await it before reading the next frame: that is the back-pressure); the inner one is the answer.
pub struct Connection { _p: () }

impl Connection {
    pub fn principal(&self) -> &Principal { unimplemented!() }
    pub async fn append(&mut self, request: AppendRequest) -> Pending<Appended> { unimplemented!() }
    /// An append frame that did not decode: poisons its session in order (P-12); all sessions when stream is None.
    pub async fn spoil(&mut self, stream: Option<StreamName>, producer: Option<ProducerId>) { unimplemented!() }
    pub async fn resume(&mut self, request: ResumeRequest) -> Pending<()> { unimplemented!() }
    pub async fn open_producer(&mut self, request: OpenProducerRequest) -> Pending<ProducerOpened> { unimplemented!() }
    pub async fn commit(&mut self, request: CommitRequest) -> Pending<Committed> { unimplemented!() }
    pub async fn subscribe(&mut self, request: SubscribeRequest) -> Pending<(Subscribed, Session)> { unimplemented!() }
    pub async fn ack(&mut self, session: &SessionHandle, offset: u64, level: AckLevel) -> Pending<Acked> { unimplemented!() }
}

/// A reader attached to a stream. Dropping it detaches; the cursor stays.
pub struct Session { _p: () }

impl Session {
    pub fn handle(&self) -> SessionHandle { unimplemented!() }
    /// The next thing for the reader. Cancel-safe. An error ends the session: tell the reader, then drop.
    /// Call it only when the transport can take what it returns: what is returned counts as delivered.
    pub async fn next(&mut self) -> Result<Delivery> { unimplemented!() }
}

/// Steers a session while its `next` is being awaited elsewhere.
#[derive(Clone)]
pub struct SessionHandle { _p: Arc<()> }

impl SessionHandle {
    pub fn credit(&self, more: Credit) { unimplemented!() }
    pub fn stream(&self) -> &StreamName { unimplemented!() }
    pub fn epoch(&self) -> Option<u64> { unimplemented!() }
}
