//! One cursor and its sessions: opening (C-1 … C-6) and acknowledging (C-7 … C-13).
//!
//! The delivered mark of the newest session lives in a [`Mark`] that the delivering side raises and the commit loop
//! reads. After a restart there is no mark: the epoch is known, what it was given is not (C-8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::generations::Evictable;
use crate::log::rows::value;
use crate::types::reply::Acked;
use crate::types::request::{OnGap, Start, Takeover};
use crate::types::{Code, Error, SubscriptionName, TimeUs};

/// What a session and the commit loop tell each other.
#[derive(Debug)]
pub struct Mark {
    /// The session.
    pub epoch: u64,
    /// One past the last offset handed to the transport (D in the rules).
    pub delivered: AtomicU64,
    /// First event not done, as far as the session may count on it.
    pub acked: AtomicU64,
    /// How many connections and calls hold the session (see [`Attachment`]).
    attached: AtomicUsize,
    /// It was opened by a pull: it is live between two calls too, for the ack timeout (C-1).
    pub pulled: AtomicBool,
    /// Monotonic milliseconds of the last connection or call.
    pub last_use_ms: AtomicU64,
    received: Mutex<Received>,
    ended: Mutex<Option<Error>>,
    /// Something above changed.
    pub wake: Notify,
}

/// Acks of level `received`, on their way to the cursor (C-16).
#[derive(Debug, Default)]
struct Received {
    /// First event not done, by them; 0 = none came.
    next: u64,
    /// The loop was told and has not looked yet.
    told: bool,
    /// The session is being replaced: no more are taken here.
    sealed: bool,
}

impl Mark {
    /// A session that will start at `next`.
    pub fn new(epoch: u64, next: u64, now: Duration) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            delivered: AtomicU64::new(next),
            acked: AtomicU64::new(next),
            attached: AtomicUsize::new(0),
            pulled: AtomicBool::new(false),
            last_use_ms: AtomicU64::new(now.as_millis() as u64),
            received: Mutex::default(),
            ended: Mutex::new(None),
            wake: Notify::new(),
        })
    }

    /// Ends the session; the first reason stays.
    pub fn end(&self, error: Error) {
        self.ended.lock().get_or_insert(error);
        self.wake.notify_waiters();
    }

    /// Why it has ended.
    pub fn ended(&self) -> Option<Error> {
        self.ended.lock().clone()
    }

    /// Tells the session how far the cursor is.
    pub fn acked_to(&self, next: u64) {
        self.acked.fetch_max(next, Ordering::AcqRel);
        self.wake.notify_waiters();
    }

    /// C-11 for an ack of level `received`, without waiting for the loop: accepted in memory, so that it never waits for a disk. The flag says
    /// that the loop has to be told. `None`: it does not move the cursor, or must be decided in the commit order.
    pub fn receive(&self, next: u64) -> Option<(Acked, bool)> {
        let mut received = self.received.lock();
        let news = next > received.next.max(self.acked.load(Ordering::Acquire)) && next <= self.delivered.load(Ordering::Acquire);
        if received.sealed || !news || self.ended.lock().is_some() {
            return None;
        }
        received.next = next;
        let first = !std::mem::replace(&mut received.told, true);
        drop(received);
        self.acked_to(next);
        Some((Acked { offset: Some(next - 1), next, stale: false }, first))
    }

    /// Where those acks are; the next one tells the loop again.
    fn take_received(&self) -> u64 {
        let mut received = self.received.lock();
        received.told = false;
        received.next
    }

    /// Begins or ends the refusal of those acks.
    fn seal(&self, sealed: bool) {
        self.received.lock().sealed = sealed;
    }

    /// It is in use at this moment.
    pub fn used(&self, now: Duration) {
        self.last_use_ms.fetch_max(now.as_millis() as u64, Ordering::AcqRel);
    }

    /// Events before `end` were handed out. Several carriers may deliver to one session; the furthest counts.
    pub fn delivered_to(&self, end: u64) {
        self.delivered.fetch_max(end, Ordering::AcqRel);
    }

    fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire) > 0
    }

    /// Live for C-1: held by a connection or call, or opened by a pull (and not yet expired).
    fn is_live(&self) -> bool {
        self.is_attached() || self.pulled.load(Ordering::Acquire)
    }

    /// Nobody holds it, and its last use is longer ago than the ack timeout.
    fn is_expired_at(&self, now: Duration, ack_timeout_s: u64) -> bool {
        !self.is_attached() && now > Duration::from_millis(self.last_use_ms.load(Ordering::Acquire)) + Duration::from_secs(ack_timeout_s)
    }

    /// Would it be live for an opening at `now`?
    pub fn is_live_at(&self, now: Duration, ack_timeout_s: u64) -> bool {
        self.is_live() && !self.is_expired_at(now, ack_timeout_s)
    }
}

/// Holds a session for a connection or a call; lets go when it is dropped, also when nobody ever came for it.
#[derive(Debug)]
pub struct Attachment(Arc<Mark>);

impl Attachment {
    /// Holds it.
    pub fn new(mark: Arc<Mark>) -> Self {
        mark.attached.fetch_add(1, Ordering::AcqRel);
        Self(mark)
    }

    /// What is held.
    pub fn mark(&self) -> &Arc<Mark> {
        &self.0
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.attached.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a genuine ack token says (C-18), beside the session it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// One past the last offset that was handed out.
    pub to: u64,
    /// Of which history.
    pub log_epoch: u64,
    /// On the clock of S-9.
    pub expires: TimeUs,
}

/// A cursor in memory.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// As stored.
    pub row: value::Cursor,
    /// As stored.
    pub meta: value::Subscription,
    /// `row.next` is ahead of the disk by acks of level `received` (C-16).
    pub dirty: bool,
    /// What is on disk, to fall back to when a group is refused.
    pub stable: value::Cursor,
    /// The newest session, if this process opened it.
    pub mark: Option<Arc<Mark>>,
}

impl Evictable for Cursor {
    fn pinned(&self) -> bool {
        self.dirty || self.mark.is_some()
    }
}

/// Bounds a decision on a cursor rests on; durable ones only.
#[derive(Clone, Copy, Debug)]
pub struct StreamView {
    /// First kept offset.
    pub first_offset: u64,
    /// First offset not assigned, durable.
    pub next_offset: u64,
    /// The broker's log epoch.
    pub log_epoch: u64,
}

/// What an opening asks for. Times are offsets by now.
#[derive(Clone, Copy, Debug)]
pub struct OpenAsk {
    /// Where to start; `None` = the cursor.
    pub from: Option<Start>,
    /// Moving back is allowed.
    pub rewind: bool,
    /// About another live session.
    pub takeover: Takeover,
    /// About events that are gone.
    pub on_gap: OnGap,
    /// The epoch the position belongs to.
    pub log_epoch: Option<u64>,
}

/// Resolves a start position to an offset, refusing what lies beyond the end (C-2, C-3).
///
/// # Errors
/// `log_epoch_changed`, `position_beyond_end`.
pub fn resolve_start(from: Start, log_epoch: Option<u64>, view: &StreamView) -> Result<u64, Error> {
    if let Some(given) = log_epoch.filter(|given| *given != view.log_epoch) {
        return Err(log_epoch_changed(given, view.log_epoch, view.next_offset));
    }
    match from {
        Start::Earliest => Ok(view.first_offset),
        Start::Latest => Ok(view.next_offset),
        Start::Offset(next) if next > view.next_offset => Err(Error::new(
            Code::PositionBeyondEnd,
            format!("Position {next} lies beyond the end of the stream ({}). Either data was lost or the position is another stream's.", view.next_offset),
        )
        .rule("C-3")
        .detail("next_offset", view.next_offset)),
        Start::Offset(next) => Ok(next),
        Start::Time(_) => Err(Error::internal("a start time reached the commit loop unresolved")),
    }
}

/// The refusal of C-2.
pub fn log_epoch_changed(given: u64, log_epoch: u64, next_offset: u64) -> Error {
    let why = format!("The position belongs to log epoch {given}; the log is at epoch {log_epoch}. Its history was replaced: decide where to go on.");
    Error::new(Code::LogEpochChanged, why).rule("C-2").detail("log_epoch", log_epoch).detail("next_offset", next_offset)
}

/// C-6: may a session start at `next`?
///
/// # Errors
/// `cursor_trimmed` when the events there are gone and the session asked to fail then.
pub fn check_gap(next: u64, on_gap: OnGap, view: &StreamView) -> Result<(), Error> {
    if next >= view.first_offset || on_gap == OnGap::Skip {
        return Ok(());
    }
    Err(trimmed(next, view.first_offset))
}

/// The refusal of C-6.
pub fn trimmed(next: u64, first_offset: u64) -> Error {
    Error::new(
        Code::CursorTrimmed,
        format!("Events {next} to {} are gone; the stream begins at {first_offset}. Open with on_gap \"skip\" to go on there.", first_offset - 1),
    )
    .rule("C-6")
    .detail("next", next)
    .detail("first_offset", first_offset)
}

/// C-7: a newer session took over.
pub fn fenced(name: &SubscriptionName, epoch: u64) -> Error {
    Error::new(Code::SessionFenced, format!("Another reader took over subscription {name} (epoch {epoch}).")).rule("C-7").detail("epoch", epoch)
}

/// C-8: the broker does not know this session, or not what it was given.
fn session_unknown(why: &str) -> Error {
    Error::new(Code::SessionUnknown, format!("{why} Open the subscription again and go on at its cursor.")).rule("C-8")
}

impl Cursor {
    /// A cursor that was never read from.
    pub fn new(meta: value::Subscription, next: u64, epoch: u64, now_us: i64) -> Self {
        let row = value::Cursor { next, epoch, since_us: now_us };
        Self { row, meta, dirty: false, stable: row, mark: None }
    }

    /// Takes over what was accepted in memory (C-16). True when that moved the cursor.
    pub fn take_received(&mut self) -> bool {
        let next = self.mark.as_ref().map_or(0, |mark| mark.take_received());
        let moved = next > self.row.next;
        if moved {
            self.row.next = next;
            self.dirty = true;
        }
        moved
    }

    /// The session is about to be replaced: acks of level `received` go through the commit order from now on.
    pub fn seal(&self) {
        self.mark.iter().for_each(|mark| mark.seal(true));
    }

    /// It was not replaced after all.
    pub fn unseal(&self) {
        self.mark.iter().for_each(|mark| mark.seal(false));
    }

    /// Drops the delivered mark of a session that was let go longer ago than the ack timeout.
    pub fn expire(&mut self, now: Duration) {
        if self.mark.as_ref().is_some_and(|mark| mark.is_expired_at(now, self.meta.ack_timeout_s)) {
            self.mark = None;
        }
    }

    /// C-1 … C-6: where the new session would start. Changes nothing.
    ///
    /// # Errors
    /// The refusals of the table.
    pub fn check_open(&self, name: &SubscriptionName, ask: &OpenAsk, view: &StreamView) -> Result<u64, Error> {
        let live = self.mark.as_ref().is_some_and(|mark| mark.is_live());
        if live && ask.takeover == Takeover::Reject {
            return Err(Error::new(Code::CursorBusy, format!("Subscription {name} has a live session (epoch {}).", self.row.epoch))
                .rule("C-1")
                .detail("epoch", self.row.epoch));
        }
        // The epoch counts even without a position: a reader that names one must hear that its history is gone.
        let next = match ask.from {
            None => resolve_start(Start::Offset(0), ask.log_epoch, view).map(|_| self.row.next)?,
            Some(from) => resolve_start(from, ask.log_epoch, view)?,
        };
        if next < self.row.next && !ask.rewind {
            return Err(Error::new(
                Code::CursorAhead,
                format!("The cursor of {name} is at {}, ahead of position {next}. Set rewind to move it back.", self.row.next),
            )
            .rule("C-4")
            .detail("next", self.row.next));
        }
        check_gap(next, ask.on_gap, view)?;
        Ok(next)
    }

    /// C-7, C-8: is this the newest session?
    fn check_epoch(&self, name: &SubscriptionName, epoch: u64) -> Result<(), Error> {
        if epoch < self.row.epoch {
            return Err(fenced(name, self.row.epoch));
        }
        if epoch > self.row.epoch {
            return Err(session_unknown(&format!("Subscription {name} has no session {epoch}; the newest is {}.", self.row.epoch)));
        }
        Ok(())
    }

    fn forgotten(&self, name: &SubscriptionName) -> Error {
        session_unknown(&format!("What session {} of {name} was given is not known any more.", self.row.epoch))
    }

    /// A further call of a session that is to deliver from `from` (absent: the cursor): where it goes on. Changes nothing.
    ///
    /// # Errors
    /// `session_fenced`, `session_unknown`, `bad_parameter` for a place outside of what was delivered and not acknowledged.
    pub fn check_continue(&self, name: &SubscriptionName, epoch: u64, from: Option<u64>) -> Result<(u64, Arc<Mark>), Error> {
        self.check_epoch(name, epoch)?;
        let mark = self.mark.clone().ok_or_else(|| self.forgotten(name))?;
        let delivered = mark.delivered.load(Ordering::Acquire).max(self.row.next);
        let from = from.unwrap_or(self.row.next);
        if !(self.row.next..=delivered).contains(&from) {
            let why =
                format!("Session {epoch} of {name} can go on at {} (its cursor) to {delivered} (first event not delivered), not at {from}.", self.row.next);
            return Err(Error::bad("from", why).detail("next", self.row.next).detail("next_delivered", delivered));
        }
        Ok((from, mark))
    }

    /// C-7 … C-13 for `next` = one past the event acknowledged. `proved` is what a token shows to have been delivered.
    /// Changes nothing; the answer says where the cursor will be.
    ///
    /// # Errors
    /// The refusals of the table.
    pub fn check_ack(&self, name: &SubscriptionName, epoch: u64, next: u64, stable_end: u64, proved: Option<u64>) -> Result<Acked, Error> {
        self.check_epoch(name, epoch)?;
        if next > stable_end {
            return Err(Error::new(Code::AckBeyondEnd, format!("Offset {} does not exist; the stream ends before {stable_end}.", next - 1))
                .rule("C-9")
                .detail("next_offset", stable_end));
        }
        if next <= self.row.next {
            return Ok(Acked { offset: self.row.next.checked_sub(1), next: self.row.next, stale: next < self.row.next });
        }
        let noted = self.mark.as_ref().map(|mark| mark.delivered.load(Ordering::Acquire));
        let delivered = noted.max(proved).ok_or_else(|| self.forgotten(name))?;
        if next > delivered {
            return Err(Error::new(
                Code::AckNotDelivered,
                format!("Offset {} was not delivered to this session; delivery stands before {delivered}.", next - 1),
            )
            .rule("C-10")
            .detail("next_delivered", delivered));
        }
        Ok(Acked { offset: Some(next - 1), next, stale: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(next: u64, epoch: u64, delivered: Option<u64>) -> Cursor {
        let mut cursor = Cursor::new(value::Subscription { ack_timeout_s: 30, ..Default::default() }, next, epoch, 0);
        cursor.mark = delivered.map(|d| Mark::new(epoch, d, Duration::ZERO));
        cursor
    }

    fn ack(cursor: &Cursor, epoch: u64, next: u64) -> Result<Acked, String> {
        let name = SubscriptionName::parse("s").unwrap();
        cursor.check_ack(&name, epoch, next, 100, None).map_err(|e| e.rule.clone().unwrap_or_default())
    }

    #[test]
    fn the_ack_table_is_read_from_top_to_bottom() {
        let c = cursor(10, 5, Some(20));
        assert_eq!(ack(&c, 4, 15), Err("C-7".into()));
        assert_eq!(ack(&c, 6, 15), Err("C-8".into()));
        assert_eq!(ack(&c, 5, 101), Err("C-9".into()));
        assert_eq!(ack(&c, 5, 21), Err("C-10".into()));
        assert_eq!(ack(&c, 5, 20), Ok(Acked { offset: Some(19), next: 20, stale: false }), "C-11");
        assert_eq!(ack(&c, 5, 10), Ok(Acked { offset: Some(9), next: 10, stale: false }), "C-12");
        assert_eq!(ack(&c, 5, 3), Ok(Acked { offset: Some(9), next: 10, stale: true }), "C-13");
    }

    #[test]
    fn after_a_restart_only_acks_at_or_below_the_cursor_are_known() {
        let c = cursor(10, 5, None);
        assert_eq!(ack(&c, 5, 11), Err("C-8".into()));
        assert!(ack(&c, 5, 10).is_ok());
    }

    #[test]
    fn a_mark_is_kept_for_the_ack_timeout_and_no_longer() {
        let mut c = cursor(10, 5, Some(20));
        let held = Attachment::new(c.mark.clone().unwrap());
        c.expire(Duration::from_secs(1000));
        assert!(c.mark.is_some(), "a connection holds it");
        held.mark().used(Duration::from_secs(100));
        drop(held);
        c.expire(Duration::from_secs(129));
        assert!(c.mark.is_some());
        c.expire(Duration::from_secs(131));
        assert!(c.mark.is_none());
    }

    #[test]
    fn c1_a_pulled_session_is_live_between_two_calls_and_a_detached_one_is_not() {
        let name = SubscriptionName::parse("s").unwrap();
        let view = StreamView { first_offset: 0, next_offset: 100, log_epoch: 1 };
        let polite = OpenAsk { from: None, rewind: false, takeover: Takeover::Reject, on_gap: OnGap::Fail, log_epoch: None };
        let c = cursor(10, 5, Some(20));
        assert_eq!(c.check_open(&name, &polite, &view), Ok(10));
        c.mark.as_ref().unwrap().pulled.store(true, Ordering::Relaxed);
        assert_eq!(c.check_open(&name, &polite, &view).unwrap_err().rule.as_deref(), Some("C-1"));
    }

    #[test]
    fn a_session_goes_on_between_its_cursor_and_what_it_was_given() {
        let name = SubscriptionName::parse("s").unwrap();
        let c = cursor(10, 5, Some(20));
        let at = |epoch, from| c.check_continue(&name, epoch, from).map(|(from, _)| from).map_err(|e| e.code);
        assert_eq!(at(5, None), Ok(10));
        assert_eq!((at(5, Some(10)), at(5, Some(20))), (Ok(10), Ok(20)));
        assert_eq!((at(5, Some(9)), at(5, Some(21))), (Err(Code::BadParameter), Err(Code::BadParameter)));
        assert_eq!((at(4, None), at(6, None)), (Err(Code::SessionFenced), Err(Code::SessionUnknown)));
        assert_eq!(cursor(10, 5, None).check_continue(&name, 5, None).unwrap_err().code, Code::SessionUnknown);
    }

    #[test]
    fn c18_a_token_proves_what_was_delivered_when_the_mark_is_gone_and_never_takes_from_it() {
        let name = SubscriptionName::parse("s").unwrap();
        let ack = |c: &Cursor, next, proved| c.check_ack(&name, 5, next, 100, proved).map(|a| a.next).map_err(|e| e.code);
        assert_eq!(ack(&cursor(10, 5, None), 15, Some(15)), Ok(15));
        assert_eq!(ack(&cursor(10, 5, None), 16, Some(15)), Err(Code::AckNotDelivered));
        assert_eq!(ack(&cursor(10, 5, Some(20)), 20, Some(15)), Ok(20));
    }
}
