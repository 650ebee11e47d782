//! The handle of the commit loop of one lane: puts requests into its order and ends it. What the loop does is in [`driver`](super::driver).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::access::Access;
use super::driver::Driver;
use super::intent::{Intent, Queued};
use super::shared::Registry;
use super::state::{Loaded, Need, State};
use super::world::World;
use crate::log::{Engine, EngineError, Lane, Position};
use crate::types::{Code, Error, StreamId, SubscriptionId};

/// What reaches the loop.
pub enum Input {
    /// A request.
    Intent(Queued),
    /// Rows that intents wait for.
    Loaded(Need, Result<Loaded, EngineError>),
    /// Acks of level `received` were accepted in memory (C-16).
    Received(StreamId, SubscriptionId),
    /// Finish what is queued and end.
    Stop(oneshot::Sender<()>),
}

/// The way into the loop.
#[derive(Clone)]
pub struct Inlet {
    sender: Sender<Input>,
    /// Rings where the loop is a task, which cannot block on the queue.
    #[cfg(feature = "faults")]
    bell: Option<Arc<Notify>>,
}

impl Inlet {
    /// Puts it in the queue. What comes back was too late: the loop has ended.
    pub fn send(&self, input: Input) -> Option<Input> {
        let refused = self.sender.send(input).err().map(|refused| refused.0);
        #[cfg(feature = "faults")]
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
        refused
    }
}

/// Numbers of the loop, for `/metrics`.
#[derive(Default)]
pub struct CommitStats {
    /// Engine commits.
    pub groups: AtomicU64,
    /// Events stored.
    pub events: AtomicU64,
    /// Bytes of stored batches.
    pub bytes: AtomicU64,
    /// Intents prepared.
    pub intents: AtomicU64,
    /// Microseconds spent in engine commits.
    pub commit_us: AtomicU64,
    /// Rows loaded for intents that lacked them.
    pub loads: AtomicU64,
}

/// The handle of a running loop.
pub struct CommitLoop {
    inlet: Mutex<Option<Inlet>>,
    failed: watch::Receiver<Option<String>>,
    /// Its numbers.
    pub stats: Arc<CommitStats>,
    /// Rings when an operation's row changed.
    pub operations: Arc<Notify>,
    stopping: AtomicBool,
}

impl CommitLoop {
    /// Starts the loop, at a position that the engine told at `began`.
    pub fn start(
        engine: Arc<dyn Engine>,
        registry: Arc<Registry>,
        access: Arc<Access>,
        state: State,
        (lane, position): (Lane, Position),
        began: Instant,
        world: World,
    ) -> Self {
        let (sender, receiver) = channel();
        let (failed_in, failed) = watch::channel(None);
        let stats = Arc::new(CommitStats::default());
        let operations = Arc::new(Notify::new());
        let inlet = Inlet {
            sender,
            #[cfg(feature = "faults")]
            bell: world.is_simulated().then(Arc::default),
        };
        let driver = Driver::new(
            engine,
            registry,
            state,
            (lane, position),
            began,
            (inlet.clone(), receiver),
            failed_in,
            stats.clone(),
            operations.clone(),
            access,
            world,
        );
        #[cfg(feature = "faults")]
        let driver = match &inlet.bell {
            Some(bell) => {
                tokio::spawn(driver.run_as_task(bell.clone()));
                None
            }
            None => Some(driver),
        };
        #[cfg(not(feature = "faults"))]
        let driver = Some(driver);
        if let Some(driver) = driver {
            std::thread::Builder::new().name("commit".into()).spawn(move || driver.run()).expect("a thread can be started");
        }
        Self { inlet: Mutex::new(Some(inlet)), failed, stats, operations, stopping: AtomicBool::new(false) }
    }

    /// Puts an intent in the order. What it asks is done or refused; its reply tells.
    pub fn submit(&self, queued: Queued) {
        let refused = match (self.stopping.load(Ordering::Acquire), &*self.inlet.lock()) {
            (false, Some(inlet)) => inlet.send(Input::Intent(queued)),
            _ => Some(Input::Intent(queued)),
        };
        if let Some(Input::Intent(queued)) = refused {
            queued.intent.refuse(Error::new(Code::Unavailable, "The broker is shutting down."));
        }
    }

    /// Acks of level `received` were accepted for this cursor (C-16). False when the loop is ending and will not see it.
    pub fn received(&self, stream: StreamId, subscription: SubscriptionId) -> bool {
        let open = !self.stopping.load(Ordering::Acquire) && self.failed.borrow().is_none();
        open && self.inlet.lock().as_ref().is_some_and(|inlet| inlet.send(Input::Received(stream, subscription)).is_none())
    }

    /// Why the engine failed, once it has (S-5).
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    /// Finishes what is queued and ends the loop.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let inlet = self.inlet.lock().take();
        if let Some(inlet) = inlet {
            let (done, wait) = oneshot::channel();
            if inlet.send(Input::Stop(done)).is_none() {
                drop(wait.await);
            }
        }
    }
}

impl Drop for CommitLoop {
    fn drop(&mut self) {
        if let Some(inlet) = self.inlet.lock().take() {
            drop(inlet.send(Input::Stop(oneshot::channel().0)));
        }
    }
}

/// What callers hear of an engine error.
pub fn engine_failure(error: &EngineError) -> Error {
    match error {
        EngineError::Conflict { .. } => Error::new(Code::Unavailable, "Another broker was faster; try again."),
        EngineError::Refused(why) => Error::new(Code::Overloaded, format!("The storage engine is busy ({why}); nothing was stored.")),
        EngineError::Full(why) => Error::new(Code::StorageFull, format!("The disk is nearly full ({why}); nothing was stored.")),
        EngineError::Failed(why) => Error::new(Code::StorageFailed, format!("The storage engine has failed: {why}.")).rule("S-5"),
        EngineError::Corrupt { stream, from, to, what } => {
            // Where the end itself is damaged, nobody knows how far it goes.
            let which = if *to == u64::MAX { format!("Offsets from {from} on") } else { format!("Offsets {from} to {to}") };
            Error::new(Code::DataCorrupt, format!("{which} of stream id {stream} are damaged on disk: {what}."))
                .rule("S-6")
                .detail("from", *from)
                .detail("to", (*to).min(crate::types::limits::INTEGER_MAX))
        }
    }
}

/// An intent with its place in the queue.
pub fn queued(intent: Intent, permit: Option<tokio::sync::OwnedSemaphorePermit>, solo: bool) -> Queued {
    Queued { intent, arrival: 0, permit, solo }
}
