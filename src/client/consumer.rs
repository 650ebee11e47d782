//! Following a stream: events in order, acks, and a position that survives connections.
//!
//! - **Durable** (with a subscription): the cursor lives on the broker. An ack is sent when the program says so, never
//!   on receipt (C-19).
//! - **Ephemeral** (without): the position lives here, in memory; a program that wants to go on later keeps it itself.
//!
//! After a broken connection the consumer attaches again by itself and goes on behind the last event it handed out:
//! within one `Consumer` no event is handed out twice. A program that starts again begins at the durable cursor, so what
//! it had handled but not acked comes again; recipes K-1 to K-3 (`examples/`) make that harmless.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::follow::{self, Item};
use super::{Client, Error, Event, Result};
use crate::types::reply::{GapReason, Subscribed};
use crate::types::request::{AckLevel, Credit, OnGap, Start, SubscribeRequest, Takeover};
use crate::types::{self, Code, StreamId, StreamName, SubscriptionName, limits};

/// What a consumer hands out.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The next event.
    Event(Event),
    /// These offsets will not come; both inclusive.
    Gap {
        /// First lost offset.
        from: u64,
        /// Last lost offset.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// Everything there is has been handed out; what follows is new.
    Live {
        /// First offset not assigned.
        next_offset: u64,
    },
}

/// How a consumer attaches; made by [`Client::consumer`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before open()"]
pub struct ConsumerBuilder {
    client: Client,
    stream: String,
    subscription: Option<String>,
    create: bool,
    rewind: bool,
    stream_id: Option<StreamId>,
    from: Option<Start>,
    log_epoch: Option<u64>,
    takeover: Takeover,
    on_gap: Option<OnGap>,
    filter: Option<String>,
    credit: Option<Credit>,
    level: AckLevel,
    auto_ack: bool,
    give_up_after: Option<Duration>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, stream: &str) -> Self {
        Self {
            client,
            stream: stream.to_owned(),
            subscription: None,
            create: false,
            rewind: false,
            stream_id: None,
            from: None,
            log_epoch: None,
            takeover: Takeover::Steal,
            on_gap: None,
            filter: None,
            credit: None,
            level: AckLevel::Durable,
            auto_ack: false,
            give_up_after: None,
        }
    }

    /// Uses the durable subscription of this name.
    pub fn subscription(mut self, name: &str) -> Self {
        self.subscription = Some(name.to_owned());
        self
    }

    /// Creates the subscription if it does not exist.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }

    /// Where to begin. For a durable subscription this moves the cursor; leave it out to begin at the cursor.
    pub fn from(mut self, start: Start) -> Self {
        self.from = Some(start);
        self
    }

    /// Begins at a position the program has kept itself (recipe K-1): `next` is the first event not done, `log_epoch` the
    /// history it belongs to. The program's store is the authority, so the cursor moves forward to it (C-5). A cursor
    /// that is further already is `cursor_ahead` (C-4): read the table again, then try again. Another history is
    /// `log_epoch_changed` (C-2): a person has to decide.
    pub fn start_at(mut self, next: u64, log_epoch: u64) -> Self {
        self.from = Some(Start::Offset(next));
        self.log_epoch = Some(log_epoch);
        self
    }

    /// Allows [`ConsumerBuilder::from`] to move the cursor back: a seek, with its right.
    pub fn rewind(mut self) -> Self {
        self.rewind = true;
        self
    }

    /// Refuses to begin if the name means another stream by now.
    pub fn stream_id(mut self, id: StreamId) -> Self {
        self.stream_id = Some(id);
        self
    }

    /// What to do about another live reader of the subscription. Default: take over.
    pub fn takeover(mut self, takeover: Takeover) -> Self {
        self.takeover = takeover;
        self
    }

    /// What to do when wanted events are gone. Default: fail when durable, a [`Delivery::Gap`] when ephemeral.
    pub fn on_gap(mut self, on_gap: OnGap) -> Self {
        self.on_gap = Some(on_gap);
        self
    }

    /// Delivers only events for which this holds (`docs/filters.md`). A subscription keeps the filter it was created with; name the same, or none.
    pub fn filter(mut self, filter: &str) -> Self {
        self.filter = Some(filter.to_owned());
        self
    }

    /// How much may be on its way. Default: what the subscription says; 1,000 events and 4 MiB when ephemeral.
    pub fn credit(mut self, events: u64, bytes: u64) -> Self {
        self.credit = Some(Credit { events: events.max(1), bytes: bytes.max(1) });
        self
    }

    /// How safe an ack is when it counts. Default: durable.
    pub fn ack_level(mut self, level: AckLevel) -> Self {
        self.level = level;
        self
    }

    /// Acks each event when the program asks for the one after it: its handler has returned by then (C-19). The last
    /// event before the program ends is therefore not acked and comes again; call [`Consumer::ack`] for it if that matters.
    pub fn auto_ack(mut self) -> Self {
        self.auto_ack = true;
        self
    }

    /// Ends with the last error when the broker has been away for this long. Default: tries for ever.
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = Some(time);
        self
    }

    /// Attaches.
    ///
    /// # Errors
    /// The first attachment is not retried: an absent broker is an error here. `cursor_ahead`, `cursor_trimmed`,
    /// `log_epoch_changed`, `position_beyond_end`, `cursor_busy`: nothing has moved.
    pub async fn open(self) -> Result<Consumer> {
        let subscription = self.subscription.as_deref().map(SubscriptionName::parse).transpose()?;
        let ephemeral = subscription.is_none();
        if ephemeral && self.auto_ack {
            return Err(Error::Usage("Acks need a subscription; an ephemeral reader keeps its own position.".into()));
        }
        let request = SubscribeRequest {
            stream_id: self.stream_id,
            create: self.create,
            rewind: self.rewind,
            from: self.from,
            log_epoch: self.log_epoch,
            takeover: self.takeover,
            on_gap: self.on_gap,
            filter: self.filter,
            credit: self.credit.or(ephemeral.then_some(Credit { events: limits::MAX_IN_FLIGHT_EVENTS, bytes: limits::MAX_IN_FLIGHT_BYTES })),
            ..SubscribeRequest::new(StreamName::parse(&self.stream)?, subscription)
        };
        let (link, subscribed) = follow::subscribe(&self.client, &request).await?;
        let shared = Arc::new(Shared::new(&subscribed));
        let (items, inbox) = mpsc::channel(QUEUED_FRAMES);
        let (confirm, confirmed) = watch::channel(subscribed.next);
        let follower = follow::Follower::new(self.client, request, &subscribed, self.level, shared.clone(), items, confirm, self.give_up_after);
        let task = tokio::spawn(follower.run(link));
        Ok(Consumer {
            handed: subscribed.next,
            passed: 0..0,
            subscribed,
            ephemeral,
            auto_ack: self.auto_ack,
            shared,
            inbox,
            ready: VecDeque::new(),
            confirmed,
            ended: false,
            task,
        })
    }
}

/// Frames waiting for the program. Credit bounds what they hold; this bounds their number.
const QUEUED_FRAMES: usize = 4096;

/// What the program tells the follower.
pub(crate) struct Shared {
    pub(crate) wish: Mutex<Wish>,
    pub(crate) wake: Notify,
}

/// State of [`Shared`].
pub(crate) struct Wish {
    /// One past the last event the program called done.
    pub(crate) acked: u64,
    /// One past the last event that a commit called done; the broker knows already.
    pub(crate) committed: u64,
    /// What the program has taken since the last grant.
    pub(crate) taken: Credit,
    /// Of the live session.
    pub(crate) epoch: Option<u64>,
    /// Why it ended.
    pub(crate) end: Option<Error>,
}

impl Shared {
    fn new(subscribed: &Subscribed) -> Self {
        let wish = Wish { acked: subscribed.next, committed: 0, taken: Credit { events: 0, bytes: 0 }, epoch: subscribed.epoch, end: None };
        Self { wish: Mutex::new(wish), wake: Notify::new() }
    }
}

/// An attached reader. Dropping it detaches; the cursor of a durable subscription stays.
pub struct Consumer {
    subscribed: Subscribed,
    ephemeral: bool,
    auto_ack: bool,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Item>,
    ready: VecDeque<Delivery>,
    /// One past the last offset handed to the program.
    handed: u64,
    /// What the filter passed over last: whoever calls the event before it done is done with it too.
    passed: Range<u64>,
    confirmed: watch::Receiver<u64>,
    ended: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Consumer {
    /// Where it stood when it was opened.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// Epoch of the live session: the fencing token to store with an effect (G-7) and to put into a commit's acks. It
    /// grows when the consumer attaches again. `None` for ephemeral readers.
    pub fn epoch(&self) -> Option<u64> {
        self.shared.wish.lock().epoch
    }

    /// One past the last offset handed out.
    pub fn position(&self) -> u64 {
        self.handed
    }

    /// The next thing. `None` after an error or the end. Cancel-safe.
    ///
    /// # Errors
    /// The error that ended the consumer, once. `session_fenced`: another reader took over, and this one does not take
    /// it back; `cursor_trimmed`, `log_epoch_changed`, `not_found`: a person or the program has to decide.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// The next event; other deliveries are passed over. For readers that need not know about gaps.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn next_event(&mut self) -> Option<Result<Event>> {
        loop {
            match self.next().await? {
                Ok(Delivery::Event(event)) => return Some(Ok(event)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// What can be had without waiting; `None` when there is nothing right now. For batches: take one with
    /// [`Consumer::next`], then what else is there.
    pub fn try_next(&mut self) -> Option<Result<Delivery>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.poll_delivery(&mut cx) {
            Poll::Ready(delivery) => delivery,
            Poll::Pending => None,
        }
    }

    /// Calls everything up to and with `offset` done. The ack leaves at once, joined with others that wait; the returned
    /// future resolves when the broker has confirmed it and may be dropped by those who need not know.
    ///
    /// # Errors
    /// `ack_not_delivered` for an event that was never handed out here; what ended the consumer. An ack the broker did
    /// not confirm may count or not: the event comes again at worst.
    pub fn ack(&self, offset: u64) -> Ack {
        let next = offset.saturating_add(1);
        let refused = if self.ephemeral {
            Some(types::Error::new(Code::AckModeMismatch, "An ephemeral reader has no cursor to ack; name a subscription.").rule("G-1"))
        } else if next > self.handed {
            let message = format!("Event {offset} was not handed out here; the next one is {}.", self.handed);
            Some(types::Error::new(Code::AckNotDelivered, message).rule("C-10").detail("next_delivered", self.handed))
        } else {
            None
        };
        if refused.is_none() {
            self.wish_acked(if self.passed.contains(&next) { self.passed.end } else { next });
        }
        Ack { next, refused: refused.map(Error::from), confirmed: self.confirmed.clone(), shared: self.shared.clone() }
    }

    fn wish_acked(&self, next: u64) {
        let mut wish = self.shared.wish.lock();
        if next > wish.acked {
            wish.acked = next;
            drop(wish);
            self.shared.wake.notify_one();
        }
    }

    /// Tells that a commit has called everything up to and with `offset` done (recipe K-3); nothing is sent.
    pub fn committed(&self, offset: u64) {
        let mut wish = self.shared.wish.lock();
        wish.committed = wish.committed.max(offset.saturating_add(1));
        wish.acked = wish.acked.max(wish.committed);
        drop(wish);
        self.shared.wake.notify_one();
    }

    /// Sends the acks that wait, detaches, and waits until the connection is closed (a second at most).
    pub async fn close(mut self) {
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        // The task ends by itself once nobody can receive; a panic in it has been printed already.
        let _ = self.task.await;
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        if self.auto_ack && self.handed > 0 {
            // The program is back for more: it is done with what it had.
            self.wish_acked(self.handed);
        }
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                match &delivery {
                    Delivery::Event(event) => {
                        self.handed = event.offset + 1;
                        self.took(1, event.data.len() as u64);
                    }
                    Delivery::Gap { to, .. } => self.handed = self.handed.max(to + 1),
                    Delivery::Live { .. } => {}
                }
                return Poll::Ready(Some(Ok(delivery)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.inbox.poll_recv(cx)) {
                Some(Item::Slice(slice)) => {
                    let batch = slice.batch();
                    self.ready.extend(slice.events().map(|(offset, event)| Delivery::Event(Event::of(batch, offset, event))));
                }
                Some(Item::Gap { from, to, reason }) => self.ready.push_back(Delivery::Gap { from, to, reason }),
                Some(Item::Live { next_offset }) => self.ready.push_back(Delivery::Live { next_offset }),
                Some(Item::Progress { next }) => self.pass(next),
                None => {
                    self.ended = true;
                    return Poll::Ready(self.shared.wish.lock().end.clone().map(Err));
                }
            }
        }
    }

    /// The filter passed over everything from `handed` to `next`.
    fn pass(&mut self, next: u64) {
        if self.passed.end != self.handed {
            self.passed.start = self.handed;
        }
        self.handed = self.handed.max(next);
        self.passed.end = self.handed;
        let acked = self.shared.wish.lock().acked;
        if !self.ephemeral && acked >= self.passed.start {
            self.wish_acked(self.passed.end);
        }
    }

    fn took(&self, events: u64, bytes: u64) {
        if !self.ephemeral {
            return;
        }
        let mut wish = self.shared.wish.lock();
        wish.taken.events += events;
        wish.taken.bytes += bytes;
        let enough = wish.taken.events >= limits::MAX_IN_FLIGHT_EVENTS / 4 || wish.taken.bytes >= limits::MAX_IN_FLIGHT_BYTES / 4 || self.ready.is_empty();
        drop(wish);
        if enough {
            self.shared.wake.notify_one();
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        self.get_mut().poll_delivery(cx)
    }
}

/// An ack on its way. It was sent already; awaiting it waits for the confirmation.
#[derive(Clone)]
pub struct Ack {
    next: u64,
    refused: Option<Error>,
    confirmed: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

impl Ack {
    /// Resolves with the cursor when the broker has confirmed this ack or a later one.
    ///
    /// # Errors
    /// See [`Consumer::ack`].
    pub async fn confirmed(mut self) -> Result<u64> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        match self.confirmed.wait_for(|next| *next >= self.next).await {
            Ok(next) => Ok(*next),
            Err(_) => Err(self.shared.wish.lock().end.clone().unwrap_or(Error::Closed)),
        }
    }
}

impl std::future::IntoFuture for Ack {
    type Output = Result<u64>;
    type IntoFuture = Pin<Box<dyn std::future::Future<Output = Result<u64>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.confirmed())
    }
}
