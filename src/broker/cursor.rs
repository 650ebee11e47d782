//! One cursor and its sessions: opening (C-1 … C-6) and acknowledging (C-7 … C-13).
//!
//! The delivered mark of the newest session lives in a [`Mark`] that the delivering side raises and the commit loop
//! reads. After a restart there is no mark: the epoch is known, what it was given is not (C-8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::generations::Evictable;
use crate::log::rows::value;
use crate::types::reply::Acked;
use crate::types::request::{OnGap, Start, Takeover};
use crate::types::{Code, Error, SubscriptionName};

/// What a session and the commit loop tell each other.
#[derive(Debug)]
pub struct Mark {
    /// The session.
    pub epoch: u64,
    /// One past the last offset handed to the transport (D in the rules).
    pub delivered: AtomicU64,
    /// First event not done, as far as the session may count on it.
    pub acked: AtomicU64,
    /// A connection holds the session.
    pub attached: AtomicBool,
    /// Monotonic milliseconds of the last connection or call.
    pub last_use_ms: AtomicU64,
    ended: Mutex<Option<Error>>,
    /// Something above changed.
    pub wake: Notify,
}

impl Mark {
    /// A live session that will start at `next`.
    pub fn new(epoch: u64, next: u64) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            delivered: AtomicU64::new(next),
            acked: AtomicU64::new(next),
            attached: AtomicBool::new(true),
            last_use_ms: AtomicU64::new(0),
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

    /// The last connection let go.
    pub fn detach(&self, now: Duration) {
        self.last_use_ms.fetch_max(now.as_millis() as u64, Ordering::AcqRel);
        self.attached.store(false, Ordering::Release);
    }
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
        return Err(Error::new(
            Code::LogEpochChanged,
            format!("The position belongs to log epoch {given}; the log is at epoch {}. Its history was replaced: decide where to go on.", view.log_epoch),
        )
        .rule("C-2")
        .detail("log_epoch", view.log_epoch)
        .detail("next_offset", view.next_offset));
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

impl Cursor {
    /// A cursor that was never read from.
    pub fn new(meta: value::Subscription, next: u64, epoch: u64, now_us: i64) -> Self {
        let row = value::Cursor { next, epoch, since_us: now_us };
        Self { row, meta, dirty: false, stable: row, mark: None }
    }

    /// Drops the delivered mark of a session that was let go longer ago than the ack timeout.
    pub fn expire(&mut self, now: Duration) {
        let timeout = Duration::from_secs(self.meta.ack_timeout_s);
        let gone = |mark: &Arc<Mark>| !mark.attached.load(Ordering::Acquire) && now > Duration::from_millis(mark.last_use_ms.load(Ordering::Acquire)) + timeout;
        if self.mark.as_ref().is_some_and(gone) {
            self.mark = None;
        }
    }

    /// C-1 … C-6: where the new session would start. Changes nothing.
    ///
    /// # Errors
    /// The refusals of the table.
    pub fn check_open(&self, name: &SubscriptionName, ask: &OpenAsk, view: &StreamView) -> Result<u64, Error> {
        let live = self.mark.as_ref().is_some_and(|mark| mark.attached.load(Ordering::Acquire));
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

    /// C-7 … C-13 for `next` = one past the event acknowledged. Changes nothing; the answer says where the cursor will be.
    ///
    /// # Errors
    /// The refusals of the table.
    pub fn check_ack(&self, name: &SubscriptionName, epoch: u64, next: u64, stable_end: u64) -> Result<Acked, Error> {
        if epoch < self.row.epoch {
            return Err(fenced(name, self.row.epoch));
        }
        let unknown = |why: String| Err(Error::new(Code::SessionUnknown, format!("{why} Open the subscription again and go on at its cursor.")).rule("C-8"));
        if epoch > self.row.epoch {
            return unknown(format!("Subscription {name} has no session {epoch}; the newest is {}.", self.row.epoch));
        }
        if next > stable_end {
            return Err(Error::new(Code::AckBeyondEnd, format!("Offset {} does not exist; the stream ends before {stable_end}.", next - 1))
                .rule("C-9")
                .detail("next_offset", stable_end));
        }
        if next <= self.row.next {
            return Ok(Acked { offset: self.row.next.checked_sub(1), next: self.row.next, stale: next < self.row.next });
        }
        let Some(mark) = &self.mark else {
            return unknown(format!("What session {epoch} of {name} was given is not known any more."));
        };
        let delivered = mark.delivered.load(Ordering::Acquire);
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
        cursor.mark = delivered.map(|d| Mark::new(epoch, d));
        cursor
    }

    fn ack(cursor: &Cursor, epoch: u64, next: u64) -> Result<Acked, String> {
        let name = SubscriptionName::parse("s").unwrap();
        cursor.check_ack(&name, epoch, next, 100).map_err(|e| e.rule.clone().unwrap_or_default())
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
        c.mark.as_ref().unwrap().detach(Duration::from_secs(100));
        c.expire(Duration::from_secs(129));
        assert!(c.mark.is_some());
        c.expire(Duration::from_secs(131));
        assert!(c.mark.is_none());
    }
}
