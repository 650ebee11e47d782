//! What readers see of a stream: its durable bounds, its newest batches, and a bell.
//!
//! Only the commit loop raises them, and only after a commit is durable (S-2). A stream that nobody reads has no entry.
//! The newest batches of all streams share one budget; a reader that is behind it goes to the log.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::cursor::Mark;
use crate::types::{Batch, StreamId, SubscriptionId, TimeUs};

/// Durable bounds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bounds {
    /// First kept offset.
    pub first_offset: u64,
    /// Base offset of the first kept batch, at or below `first_offset`.
    pub first_base: u64,
    /// Data bytes of the stream before `first_offset`.
    pub bytes_before_first: u64,
    /// First offset not assigned.
    pub next_offset: u64,
    /// Data bytes of the stream up to `next_offset`.
    pub bytes_end: u64,
    /// Time of the last batch.
    pub last_time: TimeUs,
    /// The stream takes no more events.
    pub closed: bool,
    /// The stream is deleted.
    pub gone: bool,
}

#[derive(Default)]
struct Inner {
    bounds: Bounds,
    known: bool,
    tail: VecDeque<Arc<Batch>>,
}

impl Inner {
    fn merge(&mut self, new: Bounds) {
        let now = &mut self.bounds;
        if new.next_offset >= now.next_offset {
            (now.next_offset, now.bytes_end, now.last_time) = (new.next_offset, new.bytes_end, new.last_time.max(now.last_time));
        }
        if new.first_offset >= now.first_offset {
            (now.first_offset, now.first_base, now.bytes_before_first) = (new.first_offset, new.first_base.max(now.first_base), new.bytes_before_first);
        }
        now.closed |= new.closed;
        now.gone |= new.gone;
        self.known = true;
    }
}

/// What a commit changed about one stream: its bounds now, and the batches it got.
pub type News = (StreamId, Bounds, Vec<Arc<Batch>>);

/// One stream, as its readers share it.
pub struct StreamShared {
    /// Which.
    pub id: StreamId,
    inner: Mutex<Inner>,
    bell: Notify,
}

impl StreamShared {
    /// The bounds, once they have been learned from the log or from a commit.
    pub fn bounds(&self) -> Option<Bounds> {
        let inner = self.inner.lock();
        inner.known.then_some(inner.bounds)
    }

    /// Takes bounds from whoever knows some; what is newer wins, field by field, so that the order of calls does not matter.
    pub fn merge(&self, new: Bounds) {
        self.inner.lock().merge(new);
        self.bell.notify_waiters();
    }

    /// Batches from the one that holds `from` on, if the tail reaches back that far; empty when it does not.
    pub fn tail_from(&self, from: u64, max_bytes: usize) -> Vec<Arc<Batch>> {
        let inner = self.inner.lock();
        if inner.tail.front().is_none_or(|first| first.head.base_offset > from) {
            return Vec::new();
        }
        let start = inner.tail.partition_point(|batch| batch.head.end() <= from);
        let mut bytes = 0;
        inner
            .tail
            .iter()
            .skip(start)
            .take_while(|batch| {
                let fits = bytes < max_bytes;
                bytes += batch.value().len();
                fits
            })
            .cloned()
            .collect()
    }

    /// Resolves at the next change after this call. Create it, look at the state, then await it.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut notified = Box::pin(self.bell.notified());
        notified.as_mut().enable();
        notified
    }
}

/// All streams somebody reads, and the budget of their tails.
pub struct Registry {
    sessions: Mutex<HashMap<(StreamId, SubscriptionId), Weak<Mark>>>,
    streams: Mutex<HashMap<StreamId, Weak<StreamShared>>>,
    order: Mutex<VecDeque<(Weak<StreamShared>, u64, usize)>>,
    bytes: AtomicUsize,
    budget: usize,
}

impl Registry {
    /// `budget` bounds the bytes of all tails together.
    pub fn new(budget: usize) -> Self {
        Self { sessions: Mutex::default(), streams: Mutex::default(), order: Mutex::default(), bytes: AtomicUsize::new(0), budget }
    }

    /// The stream's entry, made if need be. Its bounds may not be known yet.
    pub fn open(&self, id: StreamId) -> Arc<StreamShared> {
        let mut streams = self.streams.lock();
        if let Some(shared) = streams.get(&id).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(StreamShared { id, inner: Mutex::default(), bell: Notify::new() });
        if streams.len() >= 64 && streams.len() == streams.capacity() {
            streams.retain(|_, weak| weak.strong_count() > 0);
        }
        streams.insert(id, Arc::downgrade(&shared));
        shared
    }

    /// The stream's entry, if somebody reads it.
    pub fn find(&self, id: StreamId) -> Option<Arc<StreamShared>> {
        self.streams.lock().get(&id).and_then(Weak::upgrade)
    }

    /// A durable session has a connection, or is pulled.
    pub fn attached(&self, stream: StreamId, subscription: SubscriptionId, mark: &Arc<Mark>) {
        let mut sessions = self.sessions.lock();
        // Nobody says that a pulled session is over; its mark is dropped when it is.
        if sessions.len() >= 64 && sessions.len() == sessions.capacity() {
            sessions.retain(|_, weak| weak.strong_count() > 0);
        }
        sessions.insert((stream, subscription), Arc::downgrade(mark));
    }

    /// Its connection let go; a newer session of the same subscription stays noted.
    pub fn detached(&self, stream: StreamId, subscription: SubscriptionId, epoch: u64) {
        let mut sessions = self.sessions.lock();
        let key = (stream, subscription);
        if sessions.get(&key).is_some_and(|weak| weak.upgrade().is_none_or(|mark| mark.epoch <= epoch && !mark.pulled.load(Ordering::Acquire))) {
            sessions.remove(&key);
        }
    }

    /// Is the subscription's newest session live (C-1): held by a connection, or pulled within the ack timeout?
    pub fn is_attached(&self, stream: StreamId, subscription: SubscriptionId, epoch: u64, ack_timeout_s: u64, now: Duration) -> bool {
        let mark = self.sessions.lock().get(&(stream, subscription)).and_then(Weak::upgrade);
        mark.is_some_and(|mark| mark.epoch == epoch && mark.ended().is_none() && mark.is_live_at(now, ack_timeout_s))
    }

    /// Streams somebody reads.
    pub fn len(&self) -> usize {
        self.streams.lock().len()
    }

    /// Bytes in all tails.
    pub fn tail_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The commit loop's news: durable bounds per stream (each stream once), and the batches that led to them.
    ///
    /// All streams change before any of them can be seen (T-3): whoever sees an effect of a commit in one stream finds
    /// its others at the next look.
    pub fn publish(&self, news: &[News]) {
        let mut watched: Vec<_> = news.iter().filter_map(|news| Some((self.find(news.0)?, news))).collect();
        if watched.is_empty() {
            return;
        }
        // In one order everywhere, and each stream once: nobody can wait in a circle.
        watched.sort_by_key(|(shared, _)| shared.id);
        let mut order = self.order.lock();
        let mut locked: Vec<_> = watched.iter().map(|(shared, news)| (shared.inner.lock(), shared, news)).collect();
        for (inner, shared, (_, bounds, batches)) in &mut locked {
            for batch in batches {
                // A tail never has a hole: after one, it begins anew.
                if inner.tail.back().is_some_and(|last| last.head.end() != batch.head.base_offset) {
                    inner.tail.clear();
                }
                let bytes = batch.memory();
                inner.tail.push_back(batch.clone());
                order.push_back((Arc::downgrade(shared), batch.head.end(), bytes));
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            inner.merge(*bounds);
        }
        drop(locked);
        drop(order);
        watched.iter().for_each(|(shared, _)| shared.bell.notify_waiters());
        self.shrink();
    }

    fn shrink(&self) {
        while self.bytes.load(Ordering::Relaxed) > self.budget {
            let Some((weak, end, bytes)) = self.order.lock().pop_front() else { return };
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            if let Some(shared) = weak.upgrade() {
                let mut inner = shared.inner.lock();
                while inner.tail.front().is_some_and(|batch| batch.head.end() <= end) {
                    inner.tail.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::Stamp;
    use crate::types::{EventRef, EventsBuilder};

    fn batch(base: u64, count: u64) -> Arc<Batch> {
        let mut events = EventsBuilder::default();
        for _ in 0..count {
            events.push(&EventRef { data: b"1", ..Default::default() }).unwrap();
        }
        let stamp = Stamp { base_offset: base, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: base };
        Arc::new(events.finish().unwrap().stamp(StreamId(1), stamp))
    }

    #[test]
    fn the_tail_answers_only_when_it_reaches_back_far_enough() {
        let registry = Registry::new(1 << 20);
        let shared = registry.open(StreamId(1));
        registry.publish(&[(StreamId(1), Bounds { next_offset: 8, ..Default::default() }, vec![batch(3, 2), batch(5, 3)])]);
        let bases = |from| shared.tail_from(from, 1 << 20).iter().map(|b| b.head.base_offset).collect::<Vec<_>>();
        assert_eq!(bases(2), [] as [u64; 0]);
        assert_eq!(bases(4), [3, 5]);
        assert_eq!(bases(5), [5]);
        assert_eq!(bases(8), [] as [u64; 0]);
    }

    #[test]
    fn tails_stay_within_their_budget_and_without_holes() {
        let one = batch(0, 1).memory();
        let registry = Registry::new(3 * one);
        let shared = registry.open(StreamId(1));
        for base in 0..10 {
            registry.publish(&[(StreamId(1), Bounds { next_offset: base + 1, ..Default::default() }, vec![batch(base, 1)])]);
        }
        assert!(registry.tail_bytes() <= 3 * one);
        assert!(shared.tail_from(6, 1 << 20).is_empty());
        assert_eq!(shared.tail_from(8, 1 << 20).len(), 2);
    }

    #[test]
    fn bounds_from_a_late_reader_never_step_back() {
        let registry = Registry::new(0);
        let shared = registry.open(StreamId(1));
        registry.publish(&[(StreamId(1), Bounds { next_offset: 9, first_offset: 4, ..Default::default() }, Vec::new())]);
        shared.merge(Bounds { next_offset: 5, ..Default::default() });
        assert_eq!(shared.bounds().map(|b| (b.first_offset, b.next_offset)), Some((4, 9)));
    }
}
