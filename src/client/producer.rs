//! Exactly-once appends: batches are pipelined, and resent unchanged until each has a definite answer.
//!
//! A task owns the connection. When it breaks, the task opens the producer again (a new epoch), and everything without
//! an answer goes out again: what had been stored is answered from its receipt, the rest is stored now (P-4, P-10).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::event::IntoEvents;
use super::link::Link;
use super::window::{Entry, Window};
use super::{Client, Error, Result};
use crate::types::reply::{Appended, ProducerOpened};
use crate::types::request::{AppendRequest, Expect, OpenProducerRequest, ProducerStamp};
use crate::types::{self, Code, ProducerId, Retry, StreamName, limits};
use crate::wire::frame::{About, ClientFrame, ServerFrame};

/// How long the broker may take to answer an opening.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// How a producer is opened; made by [`Client::producer`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before open()"]
pub struct ProducerBuilder {
    client: Client,
    stream: String,
    id: String,
    expect: Expect,
    batches: usize,
    bytes: usize,
    give_up_after: Option<Duration>,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, stream: &str, id: &str) -> Self {
        Self {
            client,
            stream: stream.to_owned(),
            id: id.to_owned(),
            expect: Expect::Any,
            batches: limits::IN_FLIGHT_APPENDS,
            bytes: limits::IN_FLIGHT_APPEND_BYTES / 2,
            give_up_after: None,
        }
    }

    /// Insist on a new producer, or on a known one. Default: either.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// Most batches and bytes without an answer; [`Producer::send`] waits beyond. Default: 64 and 8 MiB, what the broker
    /// reads ahead.
    pub fn window(mut self, batches: usize, bytes: usize) -> Self {
        self.batches = batches.clamp(1, 65_536);
        self.bytes = bytes.clamp(1, 1 << 30);
        self
    }

    /// Give up when the broker has been away for this long. Default: never.
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = Some(time);
        self
    }

    /// Opens the producer: a new epoch, which fences older users of the same id.
    ///
    /// # Errors
    /// The first opening is not retried: an absent broker is an error here.
    pub async fn open(self) -> Result<Producer> {
        let stream = StreamName::parse(&self.stream)?;
        let request = OpenProducerRequest { stream: Some(stream.clone()), stream_id: None, producer: ProducerId::parse(&self.id)?, expect: self.expect };
        let (link, opened) = open(&self.client, &request).await?;
        let shared =
            Arc::new(Shared { batches: Arc::new(Semaphore::new(self.batches)), bytes: Arc::new(Semaphore::new(self.bytes)), failed: Mutex::new(None) });
        let next_seq = opened.last_seq.map_or(0, |last| last + 1);
        let (commands, inbox) = mpsc::unbounded_channel();
        let driver = Driver {
            client: self.client,
            request: OpenProducerRequest { stream_id: opened.stream_id, expect: Expect::Resume, ..request },
            epoch: opened.epoch,
            lost_opens: 0,
            next_seq,
            inbox,
            inbox_closed: false,
            window: Window::new(1),
            shared: shared.clone(),
            give_up_after: self.give_up_after,
            backoff: Backoff::default(),
        };
        let queue = Queue { next_seq, commands };
        tokio::spawn(driver.run(link));
        Ok(Producer { queue: Mutex::new(queue), shared, batches: self.batches, bytes: self.bytes, stream, opened })
    }
}

/// Opens a producer on a new connection.
pub(crate) async fn open(client: &Client, request: &OpenProducerRequest) -> Result<(Link, ProducerOpened)> {
    let mut link = Link::open(client).await?;
    link.send(&ClientFrame::OpenProducer { req: 0, request: request.clone() });
    let answer = async {
        loop {
            match link.next().await? {
                ServerFrame::ProducerOpened { req: 0, reply } => return Ok(reply),
                ServerFrame::Error { about: About::Req(0) | About::Connection, error, request_id } => return Err(Error::Server { error, request_id }),
                _ => {}
            }
        }
    };
    let reply = timeout(OPEN_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout(format!("The broker did not open the producer within {} s.", OPEN_TIMEOUT.as_secs()))))?;
    Ok((link, reply))
}

/// A batch on its way to the driver.
struct Batch {
    /// An `append` frame; request number and epoch are set when it goes out.
    frame: ClientFrame,
    events: u64,
    answer: oneshot::Sender<Result<Appended>>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Numbers and queues in one step, so that the queue is in order.
struct Queue {
    next_seq: u64,
    commands: mpsc::UnboundedSender<(u64, Batch)>,
}

struct Shared {
    batches: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    failed: Mutex<Option<Error>>,
}

impl Shared {
    fn error(&self) -> Error {
        self.failed.lock().clone().unwrap_or(Error::Closed)
    }
}

/// An open producer of one stream. Each event it sends is stored at most once, in order, without holes, whatever
/// breaks in between; an answered one is on disk.
///
/// Dropping it lets what has been sent go on in the background; [`Producer::close`] waits for it.
pub struct Producer {
    queue: Mutex<Queue>,
    shared: Arc<Shared>,
    batches: usize,
    bytes: usize,
    stream: StreamName,
    opened: ProducerOpened,
}

impl Producer {
    /// What the opening found: epoch, `last_seq`, stream id.
    pub fn opened(&self) -> &ProducerOpened {
        &self.opened
    }

    /// The last sequence number stored when the producer was opened. A source with positions of its own (line i ↔ seq i)
    /// goes on at the next one: exactly-once ingestion without state on the client (P-16).
    pub fn last_seq(&self) -> Option<u64> {
        self.opened.last_seq
    }

    /// Sequence number of the next event that is sent.
    pub fn next_seq(&self) -> u64 {
        self.queue.lock().next_seq
    }

    /// Sends a batch: all of it is stored or nothing. Resolves when there is room in the window (this is the
    /// back-pressure); the [`Receipt`] resolves when the batch is durable. Order of calls is order in the stream.
    /// Cancel-safe: dropped before it resolves, nothing was sent.
    ///
    /// # Errors
    /// A batch over the limits, or what ended this producer: `producer_fenced`, a refused batch before, a broker that
    /// stayed away.
    pub async fn send(&self, events: impl IntoEvents) -> Result<Receipt> {
        let events = events.into_events()?;
        let size = events.encoded().len().min(self.bytes) as u32;
        let permits = async {
            let batch = self.shared.batches.clone().acquire_owned().await.ok()?;
            let bytes = self.shared.bytes.clone().acquire_many_owned(size).await.ok()?;
            Some((batch, bytes))
        };
        let permits = permits.await.ok_or_else(|| self.shared.error())?;
        let (answer, receipt) = oneshot::channel();
        let mut queue = self.queue.lock();
        let (seq, count) = (queue.next_seq, u64::from(events.count()));
        let stamp = ProducerStamp { id: self.opened.producer.clone(), epoch: 0, seq };
        let request =
            AppendRequest { stream: self.stream.clone(), stream_id: self.opened.stream_id, events, producer: Some(stamp), expected_next_offset: None };
        let batch = Batch { frame: ClientFrame::Append { req: 0, request }, events: count, answer, _permits: permits };
        queue.commands.send((seq, batch)).map_err(|_| self.shared.error())?;
        queue.next_seq += count;
        Ok(Receipt { seq, receipt })
    }

    /// Waits until everything sent so far has its answer.
    ///
    /// # Errors
    /// What ended this producer, if something did.
    pub async fn flush(&self) -> Result<()> {
        match self.shared.batches.acquire_many(self.batches as u32).await {
            Ok(_all) => Ok(()),
            Err(_) => Err(self.shared.error()),
        }
    }

    /// Waits until everything sent has its answer, then leaves.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<()> {
        self.flush().await
    }
}

/// The answer to one batch, to come.
#[derive(Debug)]
pub struct Receipt {
    seq: u64,
    receipt: oneshot::Receiver<Result<Appended>>,
}

impl Receipt {
    /// Sequence number of the batch's first event.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl Future for Receipt {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Appended>> {
        Pin::new(&mut self.receipt).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(Error::lost("The producer ended before the answer came."))))
    }
}

/// Why serving one connection ended.
enum Stop {
    /// Everything is answered and nothing more will come.
    Done,
    /// Open again and go on.
    Again(Error),
    /// The producer cannot go on.
    End(Error),
}

struct Driver {
    client: Client,
    request: OpenProducerRequest,
    epoch: u64,
    /// Openings that were asked for without an answer; each may have raised the epoch.
    lost_opens: u64,
    /// After everything that was ever sent and answered.
    next_seq: u64,
    inbox: mpsc::UnboundedReceiver<(u64, Batch)>,
    inbox_closed: bool,
    window: Window<Batch>,
    shared: Arc<Shared>,
    give_up_after: Option<Duration>,
    backoff: Backoff,
}

impl Driver {
    async fn run(mut self, mut link: Link) {
        loop {
            match self.serve(&mut link).await {
                Stop::Done => return link.close().await,
                Stop::End(error) => return self.fail(error),
                Stop::Again(error) => {
                    drop(link);
                    self.window.broken();
                    match self.reopen(error).await {
                        Ok(Some(new)) => link = new,
                        Ok(None) => return,
                        Err(error) => return self.fail(error),
                    }
                }
            }
        }
    }

    async fn serve(&mut self, link: &mut Link) -> Stop {
        loop {
            while let Some((number, _, batch)) = self.window.send_next() {
                if let ClientFrame::Append { req, request } = &mut batch.frame {
                    *req = number;
                    request.producer.iter_mut().for_each(|stamp| stamp.epoch = self.epoch);
                }
                link.send(&batch.frame);
            }
            if self.inbox_closed && self.window.is_empty() {
                return Stop::Done;
            }
            tokio::select! {
                frame = link.next() => match frame {
                    Ok(frame) => if let Some(stop) = self.heard(frame) { return stop },
                    Err(error @ Error::Protocol(_)) => return Stop::End(error),
                    Err(error) => return Stop::Again(error),
                },
                command = self.inbox.recv(), if !self.inbox_closed => self.take(command),
            }
        }
    }

    /// Takes what is waiting into the window.
    fn take(&mut self, first: Option<(u64, Batch)>) {
        let Some((seq, batch)) = first else {
            self.inbox_closed = true;
            return;
        };
        self.push(seq, batch);
        while let Ok((seq, batch)) = self.inbox.try_recv() {
            self.push(seq, batch);
        }
    }

    fn push(&mut self, seq: u64, batch: Batch) {
        self.next_seq = seq + batch.events;
        self.window.push(seq, batch);
    }

    fn heard(&mut self, frame: ServerFrame) -> Option<Stop> {
        match frame {
            ServerFrame::Appended { req, reply } => {
                self.backoff.reset();
                if let Some(entry) = self.window.answered(req) {
                    // The caller may have dropped its receipt; the append counts all the same.
                    let _ = entry.item.answer.send(Ok(reply));
                }
                None
            }
            ServerFrame::Error { about: About::Req(req), error, request_id } => Some(self.refused(req, Error::Server { error, request_id })),
            ServerFrame::Error { about: About::Connection, error, request_id } => Some(Stop::Again(Error::Server { error, request_id })),
            _ => None,
        }
    }

    /// The first refusal on a connection decides; those after it say `session_poisoned` and are not reached.
    fn refused(&mut self, req: u64, error: Error) -> Stop {
        let again = error.server().is_some_and(|e| matches!(e.retry, Retry::Same | Retry::Backoff | Retry::Resume) || e.code == Code::ProducerUnknown);
        if again {
            return Stop::Again(error);
        }
        let ends_all = matches!(error.code(), Some(Code::ProducerFenced | Code::ProducerStateLost | Code::StreamReplaced | Code::NotFound));
        if let Some(entry) = self.window.answered(req) {
            let rest = if ends_all { error.clone() } else { after_refusal(&error) };
            answer(entry, error);
            return Stop::End(rest);
        }
        Stop::End(error)
    }

    /// Opens the producer again until it works. `None`: there is nothing left to do.
    async fn reopen(&mut self, mut why: Error) -> Result<Option<Link>> {
        let since = Instant::now();
        loop {
            while let Ok((seq, batch)) = self.inbox.try_recv() {
                self.push(seq, batch);
            }
            if self.window.is_empty() && (self.inbox_closed || self.inbox.is_closed()) {
                return Ok(None);
            }
            tracing::info!(producer = %self.request.producer, "{why} Opening the producer again.");
            self.backoff.wait(why.retry_after()).await;
            match open(&self.client, &self.request).await {
                Ok((link, opened)) => {
                    self.check(&opened)?;
                    self.epoch = opened.epoch;
                    self.lost_opens = 0;
                    self.window.settle(opened.last_seq);
                    return Ok(Some(link));
                }
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    if error.applied() == types::Applied::Unknown {
                        self.lost_opens += 1;
                    }
                    why = error;
                }
            }
            if self.give_up_after.is_some_and(|limit| since.elapsed() >= limit) {
                return Err(why);
            }
        }
    }

    /// Is the producer where we left it?
    fn check(&self, opened: &ProducerOpened) -> Result<()> {
        if opened.epoch > self.epoch + self.lost_opens + 1 {
            // Going on would take it back from whoever opened it meanwhile, and they from us, for ever.
            let message = format!("Somebody else opened producer {} meanwhile (epoch {}). Use one id per running producer.", opened.producer, opened.epoch);
            return Err(types::Error::new(Code::ProducerFenced, message).rule("P-2").detail("epoch", opened.epoch).into());
        }
        let stored = opened.last_seq.map_or(0, |last| last + 1);
        let first = self.window.first_seq().unwrap_or(self.next_seq);
        if stored < first {
            let message =
                format!("The broker knows producer {} up to event {stored}, but had acknowledged {first}: history was lost or replaced.", opened.producer);
            return Err(types::Error::new(Code::ProducerSeqGap, message).rule("P-8").detail("expected", stored).with_retry(Retry::Decide).into());
        }
        Ok(())
    }

    /// Nothing more can be sent.
    fn fail(mut self, error: Error) {
        *self.shared.failed.lock() = Some(error.clone());
        self.shared.batches.close();
        self.shared.bytes.close();
        for entry in self.window.drain() {
            answer(entry, error.clone());
        }
        self.inbox.close();
        while let Ok((_, batch)) = self.inbox.try_recv() {
            let _ = batch.answer.send(Err(error.clone()));
        }
    }
}

/// What the batches behind a refused one hear: storing them would leave a hole.
fn after_refusal(error: &Error) -> Error {
    types::Error::new(Code::SessionPoisoned, format!("An earlier batch of this producer was refused: {error}")).rule("P-12").with_retry(Retry::Reopen).into()
}

fn answer(entry: Entry<Batch>, error: Error) {
    let error = if entry.unsettled { error.unsettled() } else { error };
    let _ = entry.item.answer.send(Err(error));
}
