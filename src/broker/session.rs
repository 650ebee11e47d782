//! One reader attached to one stream: what it gets next, in order, without a hole it is not told of (C-17).
//!
//! A session reads the stream's tail in memory when that reaches back far enough and the log otherwise; it pauses when its
//! window is used up. It holds nothing of the stream but a position, so a slow reader costs nobody anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::access::{Watch, rung};
use super::broken::Promise;
use super::cursor::{self, Attachment, Mark};
use super::fields::runs;
use super::info::Delivery;
use super::intent::{DurableSession, Opened};
use super::shared::{Bounds, StreamShared};
use super::state::stream_not_found;
use super::window::Window;
use super::{Broker, Reader};
use crate::types::reply::{Acked, GapReason, Lag, Subscribed};
use crate::types::request::{Credit, OnGap};
use crate::types::{Action, Error, Filter, Result, Slice, StreamId, StreamName, SubscriptionId, SubscriptionName, limits};

/// What one fetch from the log may bring: several frames' worth.
const FETCH_BYTES: usize = 512 * 1024;

/// A live reader hears of events that were passed over so often at least, if there are any.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Steers a session while its `next` is being awaited elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    shared: Arc<HandleShared>,
}

struct HandleShared {
    stream: StreamName,
    stream_id: StreamId,
    subscription: Option<(SubscriptionId, SubscriptionName)>,
    mark: Arc<Mark>,
    granted: Mutex<Credit>,
}

impl SessionHandle {
    /// Lets more events come: widens a durable window, adds to ephemeral credit.
    pub fn credit(&self, more: Credit) {
        let mut granted = self.shared.granted.lock();
        granted.events = granted.events.saturating_add(more.events);
        granted.bytes = granted.bytes.saturating_add(more.bytes);
        drop(granted);
        self.shared.mark.wake.notify_waiters();
    }

    /// The stream's name.
    pub fn stream(&self) -> &StreamName {
        &self.shared.stream
    }

    /// The subscription's name; `None` for ephemeral sessions.
    pub fn subscription(&self) -> Option<&SubscriptionName> {
        self.shared.subscription.as_ref().map(|(_, name)| name)
    }

    /// An ack of level `received` that can be answered from memory (C-16); `None` = the commit order decides.
    pub(super) fn receive(&self, broker: &Broker, next: u64) -> Option<Acked> {
        let (id, _) = self.shared.subscription.as_ref()?;
        let (acked, tell) = self.shared.mark.receive(next)?;
        // The loop is told before the reader is: it will see the ack, whatever happens to this process short of a crash.
        (!tell || broker.inner.commits.received(self.shared.stream_id, *id)).then_some(acked)
    }

    /// The session's epoch; `None` for ephemeral sessions.
    pub fn epoch(&self) -> Option<u64> {
        self.shared.subscription.as_ref().map(|_| self.shared.mark.epoch)
    }
}

/// A reader attached to a stream. Dropping it detaches; the cursor stays.
pub struct Session {
    handle: SessionHandle,
    stream: Arc<StreamShared>,
    broker: Broker,
    window: Window,
    on_gap: OnGap,
    /// Events for which it does not hold are passed over.
    filter: Option<Arc<Filter>>,
    /// Next offset to hand out.
    position: u64,
    /// First offset that was not read.
    looked: u64,
    /// Read but not handed out: without a filter everything from `position` to `looked`, else what of it is wanted.
    fetched: VecDeque<Slice>,
    /// When the reader last heard of events that were passed over.
    told: Instant,
    /// The reader knows that it has everything.
    live: bool,
    /// Rings when the reader's rights may have changed.
    watch: Option<Box<Watch>>,
    /// Holds a durable session.
    _attachment: Option<Attachment>,
}

impl Session {
    pub(super) fn new(opened: Opened, broker: Broker, reader: Reader) -> (Subscribed, Self) {
        let Reader { on_gap, credit, watch, filter } = reader;
        let Opened { subscribed, shared, durable, .. } = opened;
        let next = subscribed.next;
        let (window, mark, subscription, attachment) = match durable {
            Some(DurableSession { attachment, subscription, name, window, .. }) => {
                let mark = attachment.mark().clone();
                broker.inner.registry.attached(subscribed.stream_id, subscription, &mark);
                (Window::durable(credit.unwrap_or(window), next), mark, Some((subscription, name)), Some(attachment))
            }
            None => {
                let first = Credit { events: limits::MAX_IN_FLIGHT_EVENTS, bytes: limits::MAX_IN_FLIGHT_BYTES };
                (Window::ephemeral(credit.unwrap_or(first)), Mark::new(0, next, Duration::ZERO), None, None)
            }
        };
        let granted = Mutex::new(Credit { events: 0, bytes: 0 });
        let handle = SessionHandle {
            shared: Arc::new(HandleShared { stream: subscribed.stream.clone(), stream_id: subscribed.stream_id, subscription, mark, granted }),
        };
        broker.inner.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Self {
            handle,
            stream: shared,
            broker,
            window,
            on_gap,
            filter,
            position: next,
            looked: next,
            fetched: VecDeque::new(),
            live: false,
            told: Instant::now(),
            watch,
            _attachment: attachment,
        };
        (subscribed, session)
    }

    /// Steers this session.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// The next thing for the reader. Cancel-safe. An error ends the session: tell the reader, then drop it.
    ///
    /// Call it only when the transport can take what it returns: what is returned counts as delivered (C-10).
    ///
    /// # Errors
    /// `session_fenced`, `not_found` (deleted), `cursor_trimmed`, `data_corrupt`, `unavailable` (draining).
    pub async fn next(&mut self) -> Result<Delivery> {
        loop {
            let mark = self.handle.shared.mark.clone();
            let stream = self.stream.clone();
            // Bells first, then the state, then the wait: nothing that rings in between is missed.
            let steered = mark.wake.notified();
            tokio::pin!(steered);
            steered.as_mut().enable();
            let changed = stream.changed();
            let broker = self.broker.clone();
            let drained = broker.inner.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if broker.is_draining() {
                return Err(super::draining());
            }
            if let Some(why) = mark.ended() {
                return Err(why);
            }
            self.check_right().await?;
            let bounds = stream.bounds().ok_or_else(|| Error::internal("a session's stream has no bounds"))?;
            if bounds.gone {
                return Err(stream_not_found(&self.handle.shared.stream));
            }
            if self.position < bounds.first_offset {
                // What the filter has passed over is not lost.
                return self.pass().map_or_else(|| self.gap(&bounds), Ok);
            }
            let granted = std::mem::replace(&mut *self.handle.shared.granted.lock(), Credit { events: 0, bytes: 0 });
            self.window.grant(granted);
            self.window.acked(mark.acked.load(Ordering::Acquire));

            if self.filter.is_some() {
                if self.fetched.is_empty() && self.looked < bounds.next_offset {
                    self.fetch(&bounds).await?;
                    // Much may be passed over before something is wanted; others have work too.
                    tokio::task::yield_now().await;
                }
                if let Some(passed) = self.passed(&bounds) {
                    return Ok(passed);
                }
                if self.fetched.is_empty() && self.looked < bounds.next_offset {
                    continue;
                }
            }
            if self.fetched.is_empty() && self.looked >= bounds.next_offset {
                if !self.live {
                    self.live = true;
                    return Ok(Delivery::Live { next_offset: bounds.next_offset });
                }
                let due = (self.looked > self.position).then(|| Box::pin(tokio::time::sleep_until(self.told + PROGRESS_EVERY)));
                let due = async move {
                    match due {
                        Some(due) => due.await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! { () = steered => {}, () = changed => {}, () = drained => {}, () = due => {}, () = rung(&mut self.watch) => {} }
                continue;
            }
            let Some((room, any_size)) = self.window.room() else {
                tokio::select! { () = steered => {}, () = changed => {}, () = drained => {}, () = rung(&mut self.watch) => {} }
                continue;
            };
            if self.fetched.is_empty() {
                self.fetch(&bounds).await?;
            }
            if self.broker.inner.broken.is(Promise::SkipDelivery) && self.position % 4 == 3 {
                self.fetched = self.fetched.drain(..).filter_map(|slice| slice.after(self.position + 1)).collect();
                if self.fetched.is_empty() {
                    // It was the last one: wait for more, behind it.
                    self.position += 1;
                    self.looked = self.looked.max(self.position);
                    continue;
                }
            }
            let first = self.fetched.front().and_then(|slice| slice.events().next()).map_or(0, |(_, event)| event.data.len() as u64);
            if first > room.bytes && !any_size {
                tokio::select! { () = steered => {}, () = changed => {}, () = drained => {}, () = rung(&mut self.watch) => {} }
                continue;
            }
            let slices = self.cut(room);
            let Some(end) = slices.last().map(Slice::to) else { continue };
            // The first of what remains dates the lag; it is read ahead where it is not at hand. A reader that is cancelled
            // here has not moved: it has read nothing behind `position`, so the next call reads from there again.
            if self.fetched.is_empty() && end < bounds.next_offset {
                let ahead = std::mem::replace(&mut self.looked, self.position);
                let more = self.read(ahead, &bounds).await;
                self.looked = ahead;
                self.take(more.unwrap_or_default());
            }
            return Ok(self.hand_out(slices, &bounds));
        }
    }

    /// A reader whose right was taken away gets no more.
    async fn check_right(&mut self) -> Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if watch.take() { Box::pin(self.broker.may(&watch.principal(), &self.handle.shared.stream, Action::Read)).await } else { Ok(()) }
    }

    /// Takes slices off `fetched` for one frame: whole batches until the frame is large enough, cut where the window ends.
    fn cut(&mut self, mut room: Credit) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut frame = 0u64;
        while let Some(slice) = self.fetched.pop_front() {
            if slices.last().is_some_and(|last: &Slice| last.to() != slice.from()) {
                // A filter passes over what is between; that is told first.
                self.fetched.push_front(slice);
                break;
            }
            let front = slice.front(room.events, room.bytes.min(limits::FRAME_MAX_BYTES));
            let bytes = front.data_bytes();
            if !slices.is_empty() && (bytes > room.bytes || frame + bytes > limits::FRAME_MAX_BYTES) {
                self.fetched.push_front(slice);
                break;
            }
            if let Some(rest) = slice.after(front.to()) {
                self.fetched.push_front(rest);
            }
            frame += bytes;
            room.events = room.events.saturating_sub(front.count());
            room.bytes = room.bytes.saturating_sub(bytes);
            slices.push(front);
            if room.events == 0 || room.bytes == 0 || frame >= limits::FRAME_TARGET_BYTES as u64 {
                break;
            }
        }
        slices
    }

    fn hand_out(&mut self, slices: Vec<Slice>, bounds: &Bounds) -> Delivery {
        let last = slices.last().expect("a fetch brought at least one event");
        let (end, bytes_end) = (last.to(), last.bytes_before() + last.data_bytes());
        let events = slices.iter().map(Slice::count).sum();
        let bytes = slices.iter().map(Slice::data_bytes).sum();
        self.position = end;
        self.window.sent(end, events, bytes);
        self.handle.shared.mark.delivered_to(end);
        let behind = bounds.next_offset.saturating_sub(end);
        let seconds = match self.fetched.front() {
            Some(slice) if behind > 0 => self.broker.inner.world.now().seconds_since(slice.batch().head.time),
            _ => 0.0,
        };
        let lag = Lag { events: behind, bytes: bounds.bytes_end.saturating_sub(bytes_end), seconds };
        self.live &= behind == 0;
        Delivery::Events { slices, lag }
    }

    /// Tells of what the filter has passed over: before what comes behind it (C-17), before the reader is told that it has everything, and
    /// else now and then, so that a reader of few events may acknowledge how far it is.
    fn passed(&mut self, bounds: &Bounds) -> Option<Delivery> {
        let at_the_end = self.fetched.is_empty() && self.looked >= bounds.next_offset;
        let due = !self.fetched.is_empty()
            || self.looked.saturating_sub(self.position) >= limits::PROGRESS_EVENTS
            || (at_the_end && (!self.live || self.told.elapsed() >= PROGRESS_EVERY));
        if due { self.pass() } else { None }
    }

    fn pass(&mut self) -> Option<Delivery> {
        self.filter.as_ref()?;
        let next = self.fetched.front().map_or(self.looked, Slice::from);
        if next <= self.position {
            return None;
        }
        (self.position, self.told) = (next, Instant::now());
        self.handle.shared.mark.delivered_to(next);
        Some(Delivery::Progress { next })
    }

    fn gap(&mut self, bounds: &Bounds) -> Result<Delivery> {
        if self.on_gap == OnGap::Fail {
            return Err(cursor::trimmed(self.position, bounds.first_offset));
        }
        let gap = Delivery::Gap { from: self.position, to: bounds.first_offset - 1, reason: GapReason::Retention };
        self.position = bounds.first_offset;
        self.looked = self.looked.max(self.position);
        self.fetched = self.fetched.drain(..).filter_map(|slice| slice.after(bounds.first_offset)).collect();
        self.handle.shared.mark.delivered_to(self.position);
        Ok(gap)
    }

    /// Reads on from `looked`. Brings nothing when that was trimmed meanwhile: the next round sees it.
    async fn fetch(&mut self, bounds: &Bounds) -> Result<()> {
        let read = self.read(self.looked, bounds).await?;
        self.take(read);
        Ok(())
    }

    /// What there is from `from`: out of the tail, or else the log.
    async fn read(&self, from: u64, bounds: &Bounds) -> Result<Vec<Slice>> {
        self.broker.run(&self.stream, from, bounds.next_offset, FETCH_BYTES, bounds).await
    }

    /// Keeps what the reader wants of what was read at `looked`.
    fn take(&mut self, read: Vec<Slice>) {
        self.looked = read.last().map_or(self.looked, Slice::to);
        match &self.filter {
            None => self.fetched.extend(read),
            Some(filter) => self.fetched.extend(read.iter().flat_map(|slice| runs(slice, filter))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.broker.inner.sessions.fetch_sub(1, Ordering::Relaxed);
        if let Some((subscription, _)) = &self.handle.shared.subscription {
            self.broker.inner.registry.detached(self.stream.id, *subscription, self.handle.shared.mark.epoch);
        }
        self.handle.shared.mark.used(self.broker.inner.began.elapsed());
    }
}
