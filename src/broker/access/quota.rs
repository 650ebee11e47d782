//! How much one user may have and do at once (`limits.md`): settings, and what is in use now.
//!
//! All credentials of a user count together, those of its sources too: else whoever can make sources would have as many shares as it
//! likes. What is stored (streams, subscriptions, producers) is counted in rows (`state/usage`); what lives in memory only is counted here.
//! A guard gives back what it stands for, however its holder ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::{Bucket, Rate};
use crate::types::{Code, Error, Result, limits};

/// Bounds of each user. 0 = none. The operator has none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Open connections that have shown a credential.
    pub connections: u64,
    /// Reads and pulls that wait for events.
    pub long_polls: u64,
    /// Streams it owns.
    pub streams: u64,
    /// Subscriptions it made.
    pub subscriptions: u64,
    /// Producers it opened first.
    pub producers: u64,
    /// HTTP requests and unary calls.
    pub requests: Rate,
    /// Bytes of request bodies, messages and appends.
    pub bytes: Rate,
    /// Do the two rates also hold for the calls that move events?
    pub data_rates: bool,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS_PER_USER,
            long_polls: limits::LONG_POLLS_PER_USER,
            streams: limits::STREAMS_PER_USER,
            subscriptions: limits::SUBSCRIPTIONS_PER_USER,
            producers: limits::PRODUCERS_PER_USER,
            requests: Rate { per_s: limits::REQUESTS_PER_SECOND, burst: limits::REQUESTS_BURST },
            bytes: Rate { per_s: limits::BYTES_PER_SECOND, burst: limits::BYTES_PER_SECOND },
            data_rates: false,
        }
    }
}

impl Quotas {
    /// How many there may be. 0 = no limit.
    pub fn of(&self, bound: Bound) -> u64 {
        match bound {
            Bound::Requests => self.requests.per_s,
            Bound::Bytes => self.bytes.per_s,
            Bound::Connections => self.connections,
            Bound::LongPolls => self.long_polls,
            Bound::Streams => self.streams,
            Bound::Subscriptions => self.subscriptions,
            Bound::Producers => self.producers,
        }
    }
}

/// What a call is about, as far as rates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// It moves events or positions.
    Data,
    /// Everything else.
    Control,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Requests per second.
    Requests,
    /// Bytes per second.
    Bytes,
    /// Open connections.
    Connections,
    /// Long polls.
    LongPolls,
    /// Streams.
    Streams,
    /// Subscriptions.
    Subscriptions,
    /// Producers.
    Producers,
}

impl Bound {
    /// Every one.
    pub const ALL: [Self; 7] = [Self::Requests, Self::Bytes, Self::Connections, Self::LongPolls, Self::Streams, Self::Subscriptions, Self::Producers];

    /// The word in details and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
            Self::LongPolls => "long_polls",
            Self::Streams => "streams",
            Self::Subscriptions => "subscriptions",
            Self::Producers => "producers",
        }
    }

    /// The refusal of one more.
    pub fn exceeded(self, most: u64) -> Error {
        let (what, setting, help, wait) = match self {
            Self::Requests => ("requests a second", "rates.requests_per_s", "Wait a moment.", 1),
            Self::Bytes => ("bytes a second", "rates.bytes_per_s", "Wait a moment.", 1),
            Self::Connections => ("open connections", "limits.connections_per_user", "Close one, or send more over each.", 1),
            Self::LongPolls => ("long polls waiting", "limits.long_polls_per_user", "Wait for an answer first, or follow many streams over one WebSocket.", 1),
            Self::Streams => ("streams", "limits.streams_per_user", "Delete some, or ask the operator for more.", STORED_RETRY_S),
            Self::Subscriptions => ("subscriptions", "limits.subscriptions_per_user", "Delete some, or ask the operator for more.", STORED_RETRY_S),
            Self::Producers => ("producers", "limits.producers_per_user", "Delete some, or ask the operator for more.", STORED_RETRY_S),
        };
        Error::new(Code::QuotaExceeded, format!("This user has {most} {what}, as many as a user may have (setting {setting}). {help}"))
            .detail("quota", self.as_str())
            .detail("limit", most)
            .detail("retry_after_s", wait)
    }
}

/// When to look again whether a stored thing has made room: nobody knows, and asking more often helps nobody.
const STORED_RETRY_S: u64 = 60;

/// How often something was refused, by what there was too much of. No names.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Bound::ALL.len()]);

impl Refusals {
    /// One more.
    pub fn note(&self, bound: Bound) {
        self.0[bound as usize].fetch_add(1, Relaxed);
    }

    /// All of them.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Bound::ALL.into_iter().map(|bound| (bound.as_str(), self.0[bound as usize].load(Relaxed)))
    }
}

/// What one user has and does right now. Shared by all its credentials.
#[derive(Debug)]
pub struct Usage {
    user: u64,
    quotas: Quotas,
    refusals: Arc<Refusals>,
    began: Instant,
    connections: AtomicU64,
    long_polls: AtomicU64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    requests: Bucket,
    bytes: Bucket,
}

impl Usage {
    fn new(user: u64, quotas: Quotas, refusals: Arc<Refusals>) -> Arc<Self> {
        let (connections, long_polls, buckets) = Default::default();
        Arc::new(Self { user, quotas, refusals, began: Instant::now(), connections, long_polls, buckets })
    }

    /// Whose.
    pub fn user(&self) -> u64 {
        self.user
    }

    fn is_rated(&self, plane: Plane) -> bool {
        plane == Plane::Control || self.quotas.data_rates
    }

    /// Counts a request that brings so many bytes.
    ///
    /// # Errors
    /// `rate_limited`, with `retry_after_s`: whole seconds after which it is taken, unless others come first.
    pub fn request(&self, plane: Plane, bytes: u64) -> Result<()> {
        if !self.is_rated(plane) {
            return Ok(());
        }
        self.request_at(bytes, self.began.elapsed()).map_err(|(bound, wait)| {
            self.refusals.note(bound);
            let (rate, what, seconds) = (self.quotas.of(bound), bound.as_str(), whole_seconds(wait));
            let why = format!("This user sends more than {rate} {what} a second; nothing was done. Send it again in {seconds} s, then fewer at a time.");
            Error::new(Code::RateLimited, why).detail("quota", bound.as_str()).detail("limit", rate).detail("retry_after_s", seconds)
        })
    }

    fn request_at(&self, bytes: u64, now: Duration) -> Result<(), (Bound, Duration)> {
        let mut buckets = self.buckets.lock();
        if let Some(wait) = buckets.bytes.debt(self.quotas.bytes, now) {
            return Err((Bound::Bytes, wait));
        }
        buckets.requests.take(self.quotas.requests, now).map_err(|wait| (Bound::Requests, wait))?;
        buckets.bytes.pay(self.quotas.bytes, bytes, now);
        Ok(())
    }

    /// Counts bytes that came after their request was let in. How long their sender is to pause before it sends more: what is there
    /// already is taken, so that nothing is lost or out of order (P-12).
    pub fn pay(&self, plane: Plane, bytes: u64) -> Option<Duration> {
        if bytes == 0 || self.quotas.bytes.per_s == 0 || !self.is_rated(plane) {
            return None;
        }
        let now = self.began.elapsed();
        let mut buckets = self.buckets.lock();
        buckets.bytes.pay(self.quotas.bytes, bytes, now);
        buckets.bytes.debt(self.quotas.bytes, now)
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub fn connect(self: &Arc<Self>) -> Result<Seat> {
        self.enter(Bound::Connections)
    }

    /// A place for one more long poll.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub fn wait(self: &Arc<Self>) -> Result<Seat> {
        self.enter(Bound::LongPolls)
    }

    fn count(&self, bound: Bound) -> &AtomicU64 {
        if bound == Bound::Connections { &self.connections } else { &self.long_polls }
    }

    fn enter(self: &Arc<Self>, bound: Bound) -> Result<Seat> {
        let (most, before) = (self.quotas.of(bound), self.count(bound).fetch_add(1, Relaxed));
        let seat = Seat { usage: self.clone(), bound }; // dropping it takes the count back
        if most != 0 && before >= most {
            self.refusals.note(bound);
            return Err(bound.exceeded(most));
        }
        Ok(seat)
    }

    /// Nobody would notice if it began anew.
    fn is_idle(&self) -> bool {
        let now = self.began.elapsed();
        let buckets = self.buckets.lock();
        buckets.requests.is_full(now) && buckets.bytes.is_full(now)
    }
}

/// At least one, and never too few.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// A counted connection or long poll. It leaves by itself.
#[derive(Debug)]
pub struct Seat {
    usage: Arc<Usage>,
    bound: Bound,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.usage.count(self.bound).fetch_sub(1, Relaxed);
    }
}

/// The users that are doing something, by id.
#[derive(Debug, Default)]
pub struct Users {
    quotas: Quotas,
    refusals: Arc<Refusals>,
    by_id: Mutex<HashMap<u64, Arc<Usage>>>,
}

impl Users {
    /// Nobody does anything yet.
    pub fn new(quotas: Quotas) -> Self {
        Self { quotas, ..Self::default() }
    }

    /// The bounds of each.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// What was refused.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// What this user has and does.
    pub fn of(&self, user: u64) -> Arc<Usage> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= limits::USERS_METERED && !by_id.contains_key(&user) {
            // Whoever is held by a connection or a remembered credential stays: two counts of one user would be no bound.
            by_id.retain(|_, usage| Arc::strong_count(usage) > 1 || !usage.is_idle());
            if by_id.len() >= limits::USERS_METERED {
                by_id.retain(|_, usage| Arc::strong_count(usage) > 1);
            }
        }
        by_id.entry(user).or_insert_with(|| Usage::new(user, self.quotas, self.refusals.clone())).clone()
    }

    /// Open connections and long polls of this user.
    pub fn live(&self, user: u64) -> (u64, u64) {
        self.by_id.lock().get(&user).map_or((0, 0), |usage| (usage.connections.load(Relaxed), usage.long_polls.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(change: impl FnOnce(&mut Quotas)) -> Users {
        let mut quotas = Quotas::default();
        change(&mut quotas);
        Users::new(quotas)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_user_has_its_connections_and_not_one_more_and_others_are_left_alone() {
        let users = users(|quotas| (quotas.connections, quotas.long_polls) = (3, 1));
        let alice = users.of(7);
        let mut seats: Vec<Seat> = (0..3).map(|n| alice.connect().unwrap_or_else(|e| panic!("connection {n}: {e}"))).collect();
        let error = users.of(7).connect().unwrap_err();
        assert_eq!((error.code, &error.details["quota"], &error.details["limit"]), (Code::QuotaExceeded, &"connections".into(), &3.into()));
        let _bob = users.of(8).connect().expect("others are left alone");
        let _waits = alice.wait().expect("and other counts");
        assert!(alice.wait().is_err());
        seats.pop();
        seats.push(alice.connect().expect("a closed one makes room"));
        assert_eq!(users.live(7), (3, 1));
        drop(seats);
        assert_eq!(users.live(7), (0, 1));
        assert_eq!(users.refusals().counts().map(|(_, n)| n).sum::<u64>(), 2);
    }

    #[test]
    fn requests_and_bytes_are_counted_apart_and_a_refusal_says_when() {
        let users = users(|quotas| {
            quotas.requests = Rate { per_s: 2, burst: 4 };
            quotas.bytes = Rate { per_s: 1000, burst: 1000 };
        });
        let alice = users.of(7);
        for n in 0..4 {
            alice.request_at(0, SECOND).unwrap_or_else(|why| panic!("request {n}: {why:?}"));
        }
        assert_eq!(alice.request_at(0, SECOND), Err((Bound::Requests, SECOND / 2)));
        assert_eq!(users.of(8).request_at(5000, SECOND), Ok(()), "what is large passes once");
        assert_eq!(users.of(8).request_at(0, 2 * SECOND), Err((Bound::Bytes, 3 * SECOND)));
        assert_eq!(users.of(8).request_at(0, 5 * SECOND), Ok(()));
    }

    #[test]
    fn calls_that_move_events_have_rates_only_where_the_setting_says_so() {
        for data_rates in [false, true] {
            let users = users(|quotas| {
                quotas.requests = Rate { per_s: 1, burst: 1 };
                quotas.bytes = Rate { per_s: 1, burst: 1 };
                quotas.data_rates = data_rates;
            });
            let alice = users.of(7);
            assert_eq!(alice.pay(Plane::Data, 100).is_some(), data_rates);
            assert_eq!(alice.request(Plane::Data, 0).is_err(), data_rates);
            let bob = users.of(8);
            bob.request(Plane::Control, 0).unwrap();
            let error = bob.request(Plane::Control, 0).unwrap_err();
            assert_eq!((error.code, &error.details["retry_after_s"]), (Code::RateLimited, &1.into()));
        }
    }

    #[test]
    fn what_is_remembered_of_users_is_bounded_and_nobody_in_use_is_forgotten() {
        let users = users(|quotas| quotas.connections = 1);
        let seat = users.of(1_000_000).connect().unwrap();
        for user in 0..2 * limits::USERS_METERED as u64 {
            users.of(user).request(Plane::Control, 0).unwrap();
        }
        assert!(users.by_id.lock().len() <= limits::USERS_METERED);
        assert!(users.of(1_000_000).connect().is_err(), "it still has its one");
        drop(seat);
        assert!(users.of(1_000_000).connect().is_ok());
    }

    #[test]
    fn waits_are_told_in_whole_seconds_that_are_enough() {
        for (wait, seconds) in [(Duration::ZERO, 1), (Duration::from_nanos(1), 1), (SECOND, 1), (SECOND + Duration::from_nanos(1), 2)] {
            assert_eq!(whole_seconds(wait), seconds);
        }
    }
}
